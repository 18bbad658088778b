/* See baseline_check.h. */
#include "report/baseline_check.h"

#include <string.h>

static const cJSON *item_of(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* A fixture is named after its prompt's text: of another machine, only the folder differs. */
enum rp_status rp_baseline_check_pair(const struct rp_json *doc, const cJSON *was, const cJSON *now,
                                      struct rp_error *err)
{
    static const char *const keys[] = {"hf_model", "engine", "fixture"};
    const char *name = rp_json_text(now, "pair");
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *before = base_name(rp_json_text(was, keys[i]));
        const char *after = base_name(rp_json_text(now, keys[i]));
        if (before[0] && after[0] && strcmp(before, after) != 0)
            return rp_json_fail(doc, item_of(was, keys[i]), err, RP_ERR_MISMATCH,
                                "expected a run of the same matrix: the %s of %.120s is \"%.160s\" "
                                "in this run, \"%.160s\" in the baseline",
                                keys[i], name, after, before);
    }
    const cJSON *before = item_of(was, "n_layers"), *after = item_of(now, "n_layers");
    if (cJSON_IsNumber(before) && cJSON_IsNumber(after) &&
        before->valuedouble != after->valuedouble)
        return rp_json_fail(doc, before, err, RP_ERR_MISMATCH,
                            "expected a run of the same matrix: %.120s has n_layers %.0f in this "
                            "run, %.0f in the baseline",
                            name, after->valuedouble, before->valuedouble);
    return RP_OK;
}

enum rp_status rp_baseline_check_format(const struct rp_json *doc, struct rp_error *err)
{
    const cJSON *root = rp_json_root(doc), *version = item_of(root, "version");
    if (strcmp(rp_json_text(root, "format"), "refparity-results") != 0)
        return rp_json_fail(doc, root, err, RP_ERR_FORMAT,
                            "expected a results.json of `refparity report`, with \"format\": "
                            "\"refparity-results\"");
    if (!cJSON_IsNumber(version) || version->valuedouble != 1)
        return rp_json_fail(doc, version ? version : root, err, RP_ERR_UNSUPPORTED,
                            "expected \"version\": 1, found another: make the baseline again, with "
                            "this refparity");
    if (!cJSON_IsArray(item_of(root, "pairs")))
        return rp_json_fail(doc, root, err, RP_ERR_FORMAT, "expected an array \"pairs\"");
    return RP_OK;
}
