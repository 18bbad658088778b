/* "known" of an entry: divergences that its engine is known to have. See refparity/matrix.h; what they do
 * is run/known.h. */
#include "matrix/parse.h"

#include <fnmatch.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "matrix/keys.h"
#include "refparity/explain.h"

#define MAX_NAMES (2 * RP_MATRIX_MAX_MODES) /* modes, and comparisons of modes */

/* Is there a slot of that name in a model with n_layers, whatever its architecture? */
static bool fits_a_slot(const char *pattern, int n_layers)
{
    char name[RP_SLOT_NAME_SIZE];
    for (size_t i = 0; rp_required_slot(n_layers, i, name); i++)
        if (fnmatch(pattern, name, 0) == 0)
            return true;
    for (int layer = 0; layer < n_layers; layer++)
        for (int part = RP_PART_IN; part <= RP_PART_OUTPUT; part++)
            if (fnmatch(pattern, rp_slot_name((enum rp_slot_part)part, layer, name), 0) == 0)
                return true;
    return false;
}

static enum rp_status read_slot(const struct rp_matrix *matrix, const cJSON *object,
                                const struct rp_entry *entry, struct rp_known *known,
                                struct rp_error *err)
{
    char shown[RP_SUGGESTION_SIZE];
    enum rp_status status = rp_read_string(matrix->json, object, "slot", &known->slot, err);
    if (status != RP_OK)
        return status;
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, "slot");
    if (!value)
        return rp_json_fail(matrix->json, object, err, RP_ERR_MISSING,
                            "expected \"slot\" in a known divergence: the slot that diverges, or a "
                            "pattern of several, \"h*_attn\"");
    if (strlen(known->slot) < RP_SLOT_NAME_SIZE && fits_a_slot(known->slot, entry->n_layers))
        return RP_OK;
    return rp_json_fail(
        matrix->json, value, err, RP_ERR_FORMAT,
        "expected a slot, or a pattern of slots, of a model with %d layers (emb, h0 "
        "to h%d and their parts, as h0_attn, without leading zeros; post_norm, "
        "logits), found %s",
        entry->n_layers, entry->n_layers - 1, rp_json_shown(value, shown));
}

static enum rp_status read_name(const struct rp_matrix *matrix, const cJSON *object,
                                struct rp_known *known, struct rp_error *err)
{
    char shown[RP_SUGGESTION_SIZE], suggestion[RP_SUGGESTION_SIZE];
    size_t n;
    const struct rp_hypothesis_info *hypotheses = rp_hypotheses(&n);
    enum rp_status status = rp_read_string(matrix->json, object, "name", &known->name, err);
    if (status != RP_OK || !known->name)
        return status;
    const char **names = rp_matrix_alloc(n, sizeof *names, err);
    if (!names)
        return RP_ERR_MEMORY;
    for (size_t i = 0; i < n; i++)
        names[i] = hypotheses[i].name;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(names[i], known->name) == 0) {
            free(names);
            return RP_OK;
        }
    }
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, "name");
    status = rp_json_fail(
        matrix->json, value, err, RP_ERR_FORMAT, "expected the name of an explanation, found %s%s",
        rp_json_shown(value, shown), rp_suggest(known->name, names, n, suggestion));
    free(names);
    return status;
}

/* object's member key as a list of names[n]; what says what they are. */
static enum rp_status read_list(const struct rp_matrix *matrix, const cJSON *object,
                                const char *key, const char *const *names, size_t n,
                                const char *what, const char ***list, size_t *n_list,
                                struct rp_error *err)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    char shown[RP_SUGGESTION_SIZE], suggestion[RP_SUGGESTION_SIZE];
    size_t n_found = 0;
    if (!value)
        return RP_OK;
    enum rp_status status =
        rp_check_array(matrix->json, value, key, 1, n > 0 ? n : 1, &n_found, err);
    if (status != RP_OK)
        return status;
    *list = rp_matrix_alloc(n_found, sizeof **list, err);
    if (!*list)
        return RP_ERR_MEMORY;
    for (const cJSON *child = value->child; child; child = child->next) {
        const char *text = cJSON_IsString(child) ? child->valuestring : "";
        size_t i = 0;
        while (i < n && strcmp(names[i], text) != 0)
            i++;
        if (i == n)
            return rp_json_fail(matrix->json, child, err, RP_ERR_FORMAT,
                                "expected one of the entry's %s in \"%s\", found %s%s", what, key,
                                rp_json_shown(child, shown),
                                rp_suggest(text, names, n, suggestion));
        (*list)[(*n_list)++] = names[i];
    }
    return RP_OK;
}

static enum rp_status read_prompts(const struct rp_matrix *matrix, const cJSON *object,
                                   const struct rp_entry *entry, struct rp_known *known,
                                   struct rp_error *err)
{
    const char **ids = rp_matrix_alloc(entry->n_prompts, sizeof *ids, err);
    if (!ids)
        return RP_ERR_MEMORY;
    for (size_t i = 0; i < entry->n_prompts; i++)
        ids[i] = entry->prompts[i].id;
    const enum rp_status status =
        read_list(matrix, object, "prompts", ids, entry->n_prompts, "prompts, by its id,",
                  &known->prompts, &known->n_prompts, err);
    free(ids);
    return status;
}

/* A comparison is called as its tests are; its name is taken from the matrix's text, which outlives it. */
static enum rp_status read_modes(const struct rp_matrix *matrix, const cJSON *object,
                                 const struct rp_entry *entry, struct rp_known *known,
                                 struct rp_error *err)
{
    const char *names[MAX_NAMES];
    char spelled[RP_MATRIX_MAX_MODES][RP_COMPARED_MODES_SIZE];
    size_t n = 0;
    for (size_t i = 0; i < entry->n_modes; i++)
        names[n++] = entry->modes[i];
    for (size_t i = 0; i < entry->n_compare_modes; i++)
        names[n++] = rp_compared_modes_in_names(&entry->compare_modes[i], spelled[i]);
    enum rp_status status =
        read_list(matrix, object, "modes", names, n, "modes, or comparisons of modes,",
                  &known->modes, &known->n_modes, err);
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, "modes");
    const cJSON *child = value ? value->child : NULL;
    for (size_t i = 0; status == RP_OK && child && i < known->n_modes; i++, child = child->next)
        known->modes[i] = child->valuestring;
    return status;
}

/* Names are given by replay alone: is the entry replayed in one of the modes? */
static bool is_replayed(const struct rp_entry *entry, const struct rp_known *known)
{
    const char *const *modes = known->n_modes ? known->modes : entry->modes;
    const size_t n = known->n_modes ? known->n_modes : entry->n_modes;
    if (!entry->replay || n == 0)
        return entry->replay != 0;
    for (size_t i = 0; i < n; i++) {
        bool is_mode = false, is_listed = entry->n_replay_modes == 0;
        for (size_t m = 0; m < entry->n_modes; m++)
            is_mode |= strcmp(modes[i], entry->modes[m]) == 0;
        for (size_t m = 0; m < entry->n_replay_modes; m++)
            is_listed |= strcmp(modes[i], entry->replay_modes[m]) == 0;
        if (is_mode && is_listed)
            return true;
    }
    return false;
}

static enum rp_status read_known(const struct rp_matrix *matrix, const cJSON *object,
                                 const struct rp_entry *entry, struct rp_known *known,
                                 struct rp_error *err)
{
    static const char *const keys[] = {"slot",    "name",  "reason",  "issue",
                                       "prompts", "modes", "_comment"};
    const struct rp_json *json = matrix->json;
    rp_json_locate(json, object, &known->line, &known->column);
    enum rp_status status =
        rp_check_keys(json, object, "a known divergence", keys, sizeof keys / sizeof *keys, err);
    if (status == RP_OK)
        status = read_slot(matrix, object, entry, known, err);
    if (status == RP_OK)
        status = read_name(matrix, object, known, err);
    if (status == RP_OK)
        status = rp_read_string(json, object, "reason", &known->reason, err);
    if (status == RP_OK && !known->reason)
        status = rp_json_fail(json, object, err, RP_ERR_MISSING,
                              "expected \"reason\" in a known divergence: what the engine does "
                              "otherwise; it is shown wherever it is met");
    if (status == RP_OK)
        status = rp_read_string(json, object, "issue", &known->issue, err);
    if (status == RP_OK)
        status = read_prompts(matrix, object, entry, known, err);
    if (status == RP_OK)
        status = read_modes(matrix, object, entry, known, err);
    if (status == RP_OK && known->name && !is_replayed(entry, known))
        status =
            rp_json_fail(json, cJSON_GetObjectItemCaseSensitive(object, "name"), err, RP_ERR_FORMAT,
                         "expected \"replay\" in an entry with a known divergence that has a "
                         "\"name\", in a mode that shows it: replay alone gives names");
    return status;
}

enum rp_status rp_parse_known(struct rp_matrix *matrix, const cJSON *object, struct rp_entry *entry,
                              struct rp_error *err)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, "known");
    size_t n = 0;
    if (!value)
        return RP_OK;
    enum rp_status status =
        rp_check_array(matrix->json, value, "known", 1, RP_MATRIX_MAX_KNOWN, &n, err);
    if (status != RP_OK)
        return status;
    struct rp_known *known = rp_matrix_alloc(n, sizeof *known, err);
    if (!known)
        return RP_ERR_MEMORY;
    entry->known = known;
    for (const cJSON *child = value->child; status == RP_OK && child; child = child->next)
        status = read_known(matrix, child, entry, &known[entry->n_known++], err);
    return status;
}
