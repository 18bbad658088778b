/* See report/warnings.h. */
#include "report/warnings.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"

static const cJSON *find_kind(const cJSON *owner, const char *kind)
{
    const cJSON *warning;
    cJSON_ArrayForEach(warning, cJSON_GetObjectItemCaseSensitive(owner, "warnings"))
    {
        if (strcmp(rp_json_text(warning, "kind"), kind) == 0)
            return warning;
    }
    return NULL;
}

static bool is_same_entry(const cJSON *a, const cJSON *b)
{
    return strcmp(rp_json_text(a, "entry"), rp_json_text(b, "entry")) == 0;
}

/* Whether a pair of the same entry before owner has it: then it has been shown. The pairs of an entry stand
 * together. cJSON's first item has its last as prev. */
static bool was_shown(const cJSON *first, const cJSON *owner, const char *kind)
{
    for (const cJSON *other = owner; other != first && is_same_entry(other->prev, owner);
         other = other->prev)
        if (find_kind(other->prev, kind))
            return true;
    return false;
}

static struct rp_warning_group group_of(const cJSON *owner, const cJSON *warning)
{
    struct rp_warning_group group = {.kind = rp_json_text(warning, "kind")};
    const char *slot = rp_json_text(warning, "slot"), *pair = rp_json_text(owner, "pair");
    size_t n = 0;
    for (const cJSON *other = owner; other && is_same_entry(other, owner); other = other->next)
        n += find_kind(other, group.kind) != NULL;
    if (n > 1)
        snprintf(group.name, sizeof group.name, "%.280s (%zu pairs)", rp_json_text(owner, "entry"),
                 n);
    else
        snprintf(group.name, sizeof group.name, "%.310s",
                 pair[0] ? pair : rp_json_text(owner, "entry"));
    snprintf(group.message, sizeof group.message, "%.64s%s%.400s", slot, slot[0] ? ": " : "",
             rp_json_text(warning, "message"));
    return group;
}

static size_t see_list(const cJSON *list,
                       void (*see)(void *context, const struct rp_warning_group *group),
                       void *context)
{
    const cJSON *owner, *warning;
    size_t n = 0;
    cJSON_ArrayForEach(owner, list)
    {
        cJSON_ArrayForEach(warning, cJSON_GetObjectItemCaseSensitive(owner, "warnings"))
        {
            n++;
            if (was_shown(list->child, owner, rp_json_text(warning, "kind")))
                continue;
            const struct rp_warning_group group = group_of(owner, warning);
            see(context, &group);
        }
    }
    return n;
}

size_t rp_report_warnings(const cJSON *results,
                          void (*see)(void *context, const struct rp_warning_group *group),
                          void *context)
{
    return see_list(cJSON_GetObjectItemCaseSensitive(results, "pairs"), see, context) +
           see_list(cJSON_GetObjectItemCaseSensitive(results, "entries"), see, context);
}
