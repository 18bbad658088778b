/* See known.h. */
#include "report/known.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"

void rp_report_known_json(cJSON *pair, const struct rp_known_result *known, size_t n)
{
    if (n == 0)
        return;
    cJSON *array = cJSON_AddArrayToObject(pair, "known");
    for (size_t i = 0; i < n; i++) {
        const struct rp_known *rule = known[i].known;
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "slot", rule->slot);
        cJSON_AddStringToObject(item, "name", rule->name ? rule->name : "");
        cJSON_AddStringToObject(item, "reason", rule->reason);
        cJSON_AddStringToObject(item, "issue", rule->issue ? rule->issue : "");
        cJSON_AddNumberToObject(item, "line", rule->line);
        cJSON_AddStringToObject(item, "state", rp_known_state_name(known[i].state));
        cJSON_AddNumberToObject(item, "n_judged", (double)known[i].n_judged);
        cJSON_AddNumberToObject(item, "n_met", (double)known[i].n_met);
        cJSON_AddStringToObject(item, "first", known[i].first);
        cJSON_AddStringToObject(item, "message", known[i].message);
        cJSON_AddItemToArray(array, item);
    }
}

static double number_of(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

static const cJSON *known_of(const cJSON *pair)
{
    return cJSON_GetObjectItemCaseSensitive(pair, "known");
}

/* The entry's pairs, from the first on, have the same list. */
static size_t see_entry(const cJSON *first, rp_known_fn *see, void *context)
{
    const cJSON *item;
    size_t n = 0;
    int index = 0;
    cJSON_ArrayForEach(item, known_of(first))
    {
        struct rp_known_group group = {.entry = rp_json_text(first, "entry"),
                                       .slot = rp_json_text(item, "slot"),
                                       .name = rp_json_text(item, "name"),
                                       .reason = rp_json_text(item, "reason"),
                                       .issue = rp_json_text(item, "issue")};
        for (const cJSON *pair = first;
             pair && strcmp(rp_json_text(pair, "entry"), group.entry) == 0; pair = pair->next) {
            const double n_met = number_of(cJSON_GetArrayItem(known_of(pair), index), "n_met");
            group.n_pairs += n_met > 0;
            group.n_slots += n_met;
        }
        index++;
        if (group.n_pairs == 0)
            continue;
        n++;
        if (see)
            see(context, &group);
    }
    return n;
}

size_t rp_report_known(const cJSON *pairs, rp_known_fn *see, void *context)
{
    const char *entry = "";
    size_t n = 0;
    for (const cJSON *pair = pairs ? pairs->child : NULL; pair; pair = pair->next) {
        if (!known_of(pair) || strcmp(rp_json_text(pair, "entry"), entry) == 0)
            continue;
        entry = rp_json_text(pair, "entry");
        n += see_entry(pair, see, context);
    }
    return n;
}

const char *rp_known_text(const struct rp_known_group *group, char *buf, size_t size)
{
    snprintf(buf, size, "%s%s%s: %s%s%s%s", group->slot, group->name[0] ? ", " : "", group->name,
             group->reason, group->issue[0] ? " (" : "", group->issue, group->issue[0] ? ")" : "");
    return buf;
}

const cJSON *rp_report_next_mended(const cJSON *pair, const cJSON *item)
{
    const cJSON *known = known_of(pair);
    item = item ? item->next : known ? known->child : NULL;
    while (item && !rp_json_text(item, "message")[0])
        item = item->next;
    return item;
}
