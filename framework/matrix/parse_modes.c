/* "modes" and "compare_modes" of an entry: in which ways its engine runs, and which of them are held
 * against each other. See refparity/matrix.h. */
#include "matrix/parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "matrix/keys.h"

char *rp_mode_in_names(const char *mode, char *out)
{
    size_t i = 0;
    for (; mode[i] && i < RP_MATRIX_NAME_MAX; i++)
        out[i] = strchr(RP_MODE_PUNCTUATION, mode[i]) ? '-' : mode[i];
    out[i] = '\0';
    return out;
}

char *rp_compared_modes_in_names(const struct rp_mode_pair *compared, char *out)
{
    char mode[RP_MATRIX_NAME_MAX + 1];
    char against[RP_MATRIX_NAME_MAX + 1];
    snprintf(out, RP_COMPARED_MODES_SIZE, "%s-vs-%s", rp_mode_in_names(compared->mode, mode),
             rp_mode_in_names(compared->against, against));
    return out;
}

/* Of value's n modes, as they appear in names, do two coincide? */
static enum rp_status check_modes_differ(const struct rp_matrix *matrix, const cJSON *value,
                                         const struct rp_entry *entry, struct rp_error *err)
{
    char spelled[RP_MATRIX_MAX_MODES][RP_MATRIX_NAME_MAX + 1];
    const char *names[RP_MATRIX_MAX_MODES];
    size_t repeated = 0;
    for (size_t i = 0; i < entry->n_modes; i++)
        names[i] = rp_mode_in_names(entry->modes[i], spelled[i]);
    enum rp_status status = rp_find_repeated(names, entry->n_modes, &repeated, err);
    if (status != RP_OK || repeated == entry->n_modes)
        return status;
    return rp_json_fail(matrix->json, cJSON_GetArrayItem(value, (int)repeated), err, RP_ERR_FORMAT,
                        "expected each mode once, found \"%s\" again%s", entry->modes[repeated],
                        strchr(entry->modes[repeated], ':') ? " (in names, \":\" becomes \"-\")"
                                                            : "");
}

enum rp_status rp_parse_modes(struct rp_matrix *matrix, const cJSON *object, struct rp_entry *entry,
                              struct rp_error *err)
{
    const struct rp_json *json = matrix->json;
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, "modes");
    const char *engine = entry->engine->name;
    size_t n = 0;
    int used = rp_engine_uses(entry->engine, "mode");
    if (!value && used)
        return rp_json_fail(json, object, err, RP_ERR_MISSING,
                            "expected \"modes\" in an entry: engine \"%s\" uses {mode}", engine);
    if (!value)
        return RP_OK;
    enum rp_status status = rp_check_array(json, value, "modes", 1, RP_MATRIX_MAX_MODES, &n, err);
    if (status != RP_OK)
        return status;
    if (!used)
        return rp_json_fail(json, value, err, RP_ERR_FORMAT,
                            "expected no \"modes\": engine \"%s\" uses {mode} nowhere, so all "
                            "would run the same",
                            engine);
    entry->modes = rp_matrix_alloc(n, sizeof *entry->modes, err);
    if (!entry->modes)
        return RP_ERR_MEMORY;
    for (const cJSON *child = value->child; child; child = child->next) {
        if (!cJSON_IsString(child))
            return rp_json_fail(json, child, err, RP_ERR_FORMAT,
                                "expected strings in \"modes\", found %s", rp_json_type(child));
        status = rp_check_name(json, child, "a mode", child->valuestring, RP_MODE_PUNCTUATION, err);
        if (status != RP_OK)
            return status;
        entry->modes[entry->n_modes++] = child->valuestring;
    }
    return check_modes_differ(matrix, value, entry, err);
}

static enum rp_status read_compared_mode(const struct rp_matrix *matrix, const cJSON *value,
                                         const struct rp_entry *entry, const char **out,
                                         struct rp_error *err)
{
    char shown[RP_SUGGESTION_SIZE];
    char suggestion[RP_SUGGESTION_SIZE];
    for (size_t i = 0; i < entry->n_modes && cJSON_IsString(value); i++) {
        if (strcmp(entry->modes[i], value->valuestring) == 0) {
            *out = entry->modes[i];
            return RP_OK;
        }
    }
    return rp_json_fail(matrix->json, value, err, RP_ERR_FORMAT,
                        "expected one of the entry's \"modes\", found %s%s",
                        rp_json_shown(value, shown),
                        cJSON_IsString(value) ? rp_suggest(value->valuestring, entry->modes,
                                                           entry->n_modes, suggestion)
                                              : "");
}

static enum rp_status read_mode_pair(const struct rp_matrix *matrix, const cJSON *value,
                                     const struct rp_entry *entry, struct rp_mode_pair *pair,
                                     struct rp_error *err)
{
    size_t n = 0;
    enum rp_status status = rp_check_array(matrix->json, value, "compare_modes", 2, 2, &n, err);
    if (status == RP_OK)
        status = read_compared_mode(matrix, value->child, entry, &pair->mode, err);
    if (status == RP_OK)
        status = read_compared_mode(matrix, value->child->next, entry, &pair->against, err);
    if (status == RP_OK && pair->mode == pair->against)
        status = rp_json_fail(matrix->json, value, err, RP_ERR_FORMAT,
                              "expected two different modes, found \"%s\" twice", pair->mode);
    return status;
}

/* Tests are named after modes and after comparisons of modes: no name may stand for two. */
static enum rp_status check_names_differ(const struct rp_matrix *matrix, const cJSON *value,
                                         const struct rp_entry *entry, struct rp_error *err)
{
    const size_t n = entry->n_modes + entry->n_compare_modes;
    size_t repeated = 0;
    char(*spelled)[RP_COMPARED_MODES_SIZE] = rp_matrix_alloc(n, sizeof *spelled, err);
    const char **names = rp_matrix_alloc(n, sizeof *names, err);
    enum rp_status status = spelled && names ? RP_OK : RP_ERR_MEMORY;
    for (size_t i = 0; status == RP_OK && i < n; i++)
        names[i] =
            i < entry->n_modes
                ? rp_mode_in_names(entry->modes[i], spelled[i])
                : rp_compared_modes_in_names(&entry->compare_modes[i - entry->n_modes], spelled[i]);
    if (status == RP_OK)
        status = rp_find_repeated(names, n, &repeated, err);
    if (status == RP_OK && repeated < n)
        status = rp_json_fail(
            matrix->json, cJSON_GetArrayItem(value, (int)(repeated - entry->n_modes)), err,
            RP_ERR_FORMAT, "expected each comparison once, found %s again", names[repeated]);
    free(spelled);
    free(names);
    return status;
}

static enum rp_status read_compare_modes(struct rp_matrix *matrix, const cJSON *value,
                                         struct rp_entry *entry, struct rp_error *err)
{
    size_t n = 0;
    if (!entry->n_modes)
        return rp_json_fail(matrix->json, value, err, RP_ERR_FORMAT,
                            "expected \"modes\" in an entry with \"compare_modes\"");
    enum rp_status status =
        rp_check_array(matrix->json, value, "compare_modes", 1, RP_MATRIX_MAX_MODES, &n, err);
    if (status != RP_OK)
        return status;
    struct rp_mode_pair *pairs = rp_matrix_alloc(n, sizeof *pairs, err);
    if (!pairs)
        return RP_ERR_MEMORY;
    entry->compare_modes = pairs;
    for (const cJSON *child = value->child; child; child = child->next) {
        status = read_mode_pair(matrix, child, entry, &pairs[entry->n_compare_modes], err);
        if (status != RP_OK)
            return status;
        entry->n_compare_modes++;
    }
    return check_names_differ(matrix, value, entry, err);
}

enum rp_status rp_parse_compare_modes(struct rp_matrix *matrix, const cJSON *object,
                                      struct rp_entry *entry, struct rp_error *err)
{
    static const char limits_key[] = "threshold_modes_l2_rel";
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, "compare_modes");
    const cJSON *limits = cJSON_GetObjectItemCaseSensitive(object, limits_key);
    if (!value && limits)
        return rp_json_fail(matrix->json, limits, err, RP_ERR_FORMAT,
                            "expected \"compare_modes\" in an entry with \"%s\"", limits_key);
    if (!value)
        return RP_OK;
    enum rp_status status = read_compare_modes(matrix, value, entry, err);
    if (status == RP_OK && !limits)
        entry->modes_limits = entry->limits;
    if (status == RP_OK && limits) {
        entry->modes_limits =
            (struct rp_limits){.l2_rel = RP_DEFAULT_L2_REL, .cosine = entry->limits.cosine};
        status =
            rp_parse_l2_rel_limits(matrix, object, limits_key, entry, &entry->modes_limits, err);
    }
    return status;
}
