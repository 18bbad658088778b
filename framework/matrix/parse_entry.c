/* The "tests" of a matrix: one entry each. See refparity/matrix.h. */
#include "matrix/parse.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "matrix/keys.h"
#include "matrix/store.h"

#define MAX_POSITION 2147483647LL
#define COUNT(array) (sizeof(array) / sizeof *(array))

static const char *const entry_keys[] = {"name",
                                         "hf_model",
                                         "revision",
                                         "n_layers",
                                         "engine",
                                         "modes",
                                         "engine_gguf",
                                         "prompts",
                                         "threshold_l2_rel",
                                         "threshold_cosine",
                                         "dtype",
                                         "positions",
                                         "_disabled",
                                         "compare_modes",
                                         "threshold_modes_l2_rel",
                                         "accept_exit",
                                         "gate",
                                         "replay",
                                         "activations",
                                         "kv_cache",
                                         "attention",
                                         "_note",
                                         "_comment",
                                         "slots",
                                         "how_to_get",
                                         "state",
                                         "reference",
                                         "slurm",
                                         "known"};

/* What torch computes the reference in; fixtures hold float32 whatever it is. */
static const char *const dtypes[] = {"float32", "float64", "bfloat16", "float16"};

static const cJSON *member(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

static enum rp_status require(const struct rp_matrix *matrix, const cJSON *object, const char *key,
                              const char *meaning, struct rp_error *err)
{
    if (member(object, key))
        return RP_OK;
    return rp_json_fail(matrix->json, object, err, RP_ERR_MISSING,
                        "expected \"%s\" in an entry: %s", key, meaning);
}

/* A key of earlier versions: the nearest key that there is would be another limit. */
static enum rp_status refuse_threshold_exact(const struct rp_json *json, const cJSON *object,
                                             struct rp_error *err)
{
    const cJSON *value = member(object, "threshold_exact");
    if (!value)
        return RP_OK;
    return rp_json_fail_key(json, value, err, RP_ERR_FORMAT,
                            "expected a key of an entry, found \"threshold_exact\": leave it out, "
                            "replay derives its limits from the operations");
}

/* hf_model is also a path below a folder of checkpoints: it must not leave it. */
static int stays_below(const char *path)
{
    for (const char *at = path;;) {
        size_t length = strcspn(at, "/");
        if (length == 0 || (at[0] == '.' && (length == 1 || (length == 2 && at[1] == '.'))))
            return 0;
        if (!at[length])
            return 1;
        at += length + 1;
    }
}

static enum rp_status read_hf_model(struct rp_matrix *matrix, const cJSON *object,
                                    struct rp_entry *entry, struct rp_error *err)
{
    const struct rp_json *json = matrix->json;
    char shown[RP_SUGGESTION_SIZE];
    char suggestion[RP_SUGGESTION_SIZE];
    char path[1024];
    struct rp_error why;
    size_t i = 0;
    enum rp_status status = rp_read_string(json, object, "hf_model", &entry->hf_model, err);
    if (status == RP_OK)
        status = rp_read_string(json, object, "revision", &entry->revision, err);
    if (status == RP_OK)
        status = rp_read_string(json, object, "dtype", &entry->dtype, err);
    if (status != RP_OK)
        return status;
    while (i < COUNT(dtypes) && strcmp(dtypes[i], entry->dtype) != 0)
        i++;
    if (i == COUNT(dtypes))
        return rp_json_fail(json, member(object, "dtype"), err, RP_ERR_FORMAT,
                            "expected a \"dtype\", found %s%s",
                            rp_json_shown(member(object, "dtype"), shown),
                            rp_suggest_value(entry->dtype, dtypes, COUNT(dtypes), suggestion));
    if (!stays_below(entry->hf_model))
        return rp_json_fail(json, member(object, "hf_model"), err, RP_ERR_FORMAT,
                            "expected a model as organisation/name, found %s",
                            rp_json_shown(member(object, "hf_model"), shown));
    if (rp_store_path(entry->hf_model, entry->revision, entry->dtype, "", 0, path, sizeof path,
                      &why) != RP_OK)
        return rp_json_fail(json, object, err, RP_ERR_FORMAT, "%s", why.message);
    return RP_OK;
}

enum rp_status rp_find_engine(struct rp_matrix *matrix, const cJSON *value,
                              const struct rp_engine **engine, struct rp_error *err)
{
    char shown[RP_SUGGESTION_SIZE];
    char suggestion[RP_SUGGESTION_SIZE];
    for (size_t i = 0; i < matrix->n_engines; i++) {
        if (strcmp(matrix->engines[i].name, value->valuestring) == 0) {
            *engine = &matrix->engines[i];
            return RP_OK;
        }
    }
    const char **names = rp_matrix_alloc(matrix->n_engines, sizeof *names, err);
    if (!names)
        return RP_ERR_MEMORY;
    for (size_t i = 0; i < matrix->n_engines; i++)
        names[i] = matrix->engines[i].name;
    enum rp_status status = rp_json_fail(
        matrix->json, value, err, RP_ERR_FORMAT, "expected one of the matrix's engines, found %s%s",
        rp_json_shown(value, shown),
        rp_suggest(value->valuestring, names, matrix->n_engines, suggestion));
    free(names);
    return status;
}

static enum rp_status read_engine(struct rp_matrix *matrix, const cJSON *object,
                                  struct rp_entry *entry, struct rp_error *err)
{
    const char *name = NULL;
    enum rp_status status = rp_read_string(matrix->json, object, "engine", &name, err);
    if (status != RP_OK)
        return status;
    if (name)
        return rp_find_engine(matrix, member(object, "engine"), &entry->engine, err);
    entry->engine = matrix->default_engine;
    if (entry->engine)
        return RP_OK;
    if (matrix->n_engines == 0)
        return rp_json_fail(matrix->json, object, err, RP_ERR_MISSING,
                            "expected an engine in \"engines\", " RP_HOW_TO_ADD_AN_ENGINE);
    return rp_json_fail(matrix->json, object, err, RP_ERR_MISSING,
                        "expected \"engine\" in an entry: one of \"engines\"; an \"engine\" beside "
                        "\"tests\" is that of all entries that name none");
}

static enum rp_status read_l2_rel(const struct rp_matrix *matrix, const cJSON *value,
                                  const char *key, double *out, struct rp_error *err)
{
    char shown[RP_SUGGESTION_SIZE];
    if (!cJSON_IsNumber(value) || !(value->valuedouble > 0))
        return rp_json_fail(matrix->json, value, err, RP_ERR_FORMAT,
                            "expected a limit above 0 for \"%s\", found %s", key,
                            rp_json_shown(value, shown));
    *out = value->valuedouble;
    return RP_OK;
}

static enum rp_status check_slot(const struct rp_matrix *matrix, const cJSON *value,
                                 const struct rp_entry *entry, struct rp_error *err)
{
    char shown[RP_SHOWN_SIZE];
    int layer = -1;
    enum rp_slot_part part = rp_slot_parse(value->string, &layer);
    if (part == RP_PART_LOGITS)
        return rp_json_fail_key(
            matrix->json, value, err, RP_ERR_FORMAT,
            "expected no limit for logits here: \"threshold_cosine\" is theirs");
    if (part == RP_PART_OTHER || layer >= entry->n_layers)
        return rp_json_fail_key(matrix->json, value, err, RP_ERR_FORMAT,
                                "expected \"default\" or a slot of a model with %d layers (emb, "
                                "h0 to h%d and their parts, post_norm), found %s",
                                entry->n_layers, entry->n_layers - 1,
                                rp_shown(value->string, shown));
    return RP_OK;
}

enum rp_status rp_parse_l2_rel_limits(struct rp_matrix *matrix, const cJSON *object,
                                      const char *key, const struct rp_entry *entry,
                                      struct rp_limits *limits, struct rp_error *err)
{
    const cJSON *value = member(object, key);
    if (!value)
        return RP_OK;
    if (!cJSON_IsObject(value))
        return read_l2_rel(matrix, value, key, &limits->l2_rel, err);
    /* Keys differ and each is checked to be a slot, so n_layers bounds how many there are. */
    struct rp_slot_limit *slots =
        rp_matrix_alloc((size_t)cJSON_GetArraySize(value), sizeof *slots, err);
    if (!slots)
        return RP_ERR_MEMORY;
    limits->slots = slots;
    for (const cJSON *child = value->child; child; child = child->next) {
        double *limit = &limits->l2_rel;
        if (strcmp(child->string, "default") != 0) {
            enum rp_status status = check_slot(matrix, child, entry, err);
            if (status != RP_OK)
                return status;
            slots[limits->n_slots].slot = child->string;
            limit = &slots[limits->n_slots++].l2_rel;
        }
        enum rp_status status = read_l2_rel(matrix, child, key, limit, err);
        if (status != RP_OK)
            return status;
    }
    return RP_OK;
}

static enum rp_status read_cosine(struct rp_matrix *matrix, const cJSON *object,
                                  struct rp_entry *entry, struct rp_error *err)
{
    const cJSON *value = member(object, "threshold_cosine");
    char shown[RP_SUGGESTION_SIZE];
    entry->limits.cosine = RP_DEFAULT_COSINE;
    if (!value)
        return RP_OK;
    if (!cJSON_IsNumber(value) || !(value->valuedouble > -1 && value->valuedouble <= 1))
        return rp_json_fail(matrix->json, value, err, RP_ERR_FORMAT,
                            "expected a limit above -1, at most 1, for \"threshold_cosine\", "
                            "found %s",
                            rp_json_shown(value, shown));
    entry->limits.cosine = value->valuedouble;
    return RP_OK;
}

static enum rp_status read_position_list(struct rp_matrix *matrix, const cJSON *value,
                                         struct rp_entry *entry, struct rp_error *err)
{
    char shown[RP_SUGGESTION_SIZE];
    size_t n = 0;
    enum rp_status status =
        rp_check_array(matrix->json, value, "positions", 1, RP_MATRIX_MAX_POSITIONS, &n, err);
    if (status != RP_OK)
        return status;
    int64_t *positions = rp_matrix_alloc(n, sizeof *positions, err);
    if (!positions)
        return RP_ERR_MEMORY;
    entry->positions = positions;
    long long low = 0;
    for (const cJSON *child = value->child; child; child = child->next) {
        long long position = 0;
        if (!rp_json_int(child, low, MAX_POSITION, &position))
            return rp_json_fail(matrix->json, child, err, RP_ERR_FORMAT,
                                "expected ascending whole numbers in \"positions\", here at least "
                                "%lld, found %s",
                                low, rp_json_shown(child, shown));
        positions[entry->n_positions++] = position;
        low = position + 1;
    }
    return RP_OK;
}

static enum rp_status read_positions(struct rp_matrix *matrix, const cJSON *object,
                                     struct rp_entry *entry, struct rp_error *err)
{
    const cJSON *value = member(object, "positions");
    char shown[RP_SUGGESTION_SIZE];
    if (cJSON_IsArray(value)) {
        enum rp_status status = read_position_list(matrix, value, entry, err);
        if (status != RP_OK)
            return status;
    } else if (value && !(cJSON_IsString(value) && strcmp(value->valuestring, "all") == 0)) {
        return rp_json_fail(matrix->json, value, err, RP_ERR_FORMAT,
                            "expected \"all\" or an array for \"positions\", found %s",
                            rp_json_shown(value, shown));
    }
    if (entry->engine->single_position && entry->n_positions != 1)
        return rp_json_fail(matrix->json, value ? value : object, err,
                            value ? RP_ERR_FORMAT : RP_ERR_MISSING,
                            "expected \"positions\" with the one position that engine \"%s\" "
                            "dumps: it is declared single_position",
                            entry->engine->name);
    return RP_OK;
}

static enum rp_status read_disabled(struct rp_matrix *matrix, const cJSON *object,
                                    struct rp_entry *entry, struct rp_error *err)
{
    const cJSON *value = member(object, "_disabled");
    if (!value || cJSON_IsFalse(value))
        return RP_OK;
    if (!cJSON_IsTrue(value) && !(cJSON_IsString(value) && value->valuestring[0]))
        return rp_json_fail(matrix->json, value, err, RP_ERR_FORMAT,
                            "expected true, false or a reason for \"_disabled\", found %s",
                            cJSON_IsString(value) ? "an empty string" : rp_json_type(value));
    entry->disabled = 1;
    entry->disabled_reason = value->valuestring;
    return RP_OK;
}

static enum rp_status read_prompts(struct rp_matrix *matrix, const cJSON *object,
                                   struct rp_entry *entry, struct rp_error *err)
{
    const cJSON *value = member(object, "prompts");
    enum rp_status status = rp_parse_prompts(matrix, value, entry, err);
    if (status != RP_OK || entry->n_prompts == 1 || rp_engine_uses(entry->engine, "prompt") ||
        rp_engine_uses(entry->engine, "prompt_file") ||
        rp_engine_uses(entry->engine, "tokens_file"))
        return status;
    return rp_json_fail(matrix->json, value, err, RP_ERR_FORMAT,
                        "expected one prompt: engine \"%s\" uses none of {prompt} {prompt_file} "
                        "{tokens_file}, so all would run the same",
                        entry->engine->name);
}

enum rp_status rp_parse_entry(struct rp_matrix *matrix, const cJSON *value, struct rp_entry *entry,
                              struct rp_error *err)
{
    static const struct {
        const char *key;
        const char *meaning;
    } required[] = {
        {"name", "tests are named after it"},
        {"hf_model", "the reference model, organisation/name or a folder of checkpoints"},
        {"n_layers", "how many layers the model has, num_hidden_layers in its config.json (of a "
                     "GGUF, `refparity show` prints it as block_count)"},
        {"prompts", "an array of texts"},
    };
    const struct rp_json *json = matrix->json;
    entry->revision = "main";
    entry->dtype = dtypes[0];
    entry->limits.l2_rel = RP_DEFAULT_L2_REL;
    rp_json_locate(json, value, &entry->line, &entry->column);
    enum rp_status status = refuse_threshold_exact(json, value, err);
    if (status == RP_OK)
        status = rp_check_keys(json, value, "an entry", entry_keys, COUNT(entry_keys), err);
    for (size_t i = 0; status == RP_OK && i < COUNT(required); i++)
        status = require(matrix, value, required[i].key, required[i].meaning, err);
    if (status == RP_OK)
        status = rp_read_string(json, value, "name", &entry->name, err);
    if (status == RP_OK)
        status = rp_check_name(json, member(value, "name"), "the name of an entry", entry->name, "",
                               err);
    if (status == RP_OK)
        status = read_hf_model(matrix, value, entry, err);
    if (status == RP_OK)
        status =
            rp_read_int(json, value, "n_layers", 1, RP_MATRIX_MAX_LAYERS, &entry->n_layers, err);
    if (status == RP_OK)
        status = read_engine(matrix, value, entry, err);
    if (status == RP_OK)
        status = rp_parse_modes(matrix, value, entry, err);
    if (status == RP_OK)
        status = rp_read_string(json, value, "engine_gguf", &entry->engine_gguf, err);
    if (status == RP_OK)
        status = rp_read_string(json, value, "how_to_get", &entry->how_to_get, err);
    if (status == RP_OK && !entry->engine_gguf && rp_engine_uses(entry->engine, "gguf"))
        status = rp_json_fail(json, value, err, RP_ERR_MISSING,
                              "expected \"engine_gguf\" in an entry: engine \"%s\" uses {gguf}",
                              entry->engine->name);
    if (status == RP_OK)
        status = read_prompts(matrix, value, entry, err);
    if (status == RP_OK)
        status =
            rp_parse_l2_rel_limits(matrix, value, "threshold_l2_rel", entry, &entry->limits, err);
    if (status == RP_OK)
        status = read_cosine(matrix, value, entry, err);
    if (status == RP_OK)
        status = rp_parse_gate(matrix, value, entry, err);
    if (status == RP_OK)
        status = rp_parse_compare_modes(matrix, value, entry, err);
    if (status == RP_OK)
        status = rp_parse_accept_exit(matrix, value, entry, err);
    if (status == RP_OK)
        status = read_positions(matrix, value, entry, err);
    if (status == RP_OK)
        status = rp_parse_reference(matrix, value, entry, err);
    if (status == RP_OK)
        status = rp_parse_known(matrix, value, entry, err);
    if (status == RP_OK)
        status = read_disabled(matrix, value, entry, err);
    if (status == RP_OK)
        status = rp_parse_slurm(matrix, value, entry, err);
    if (status == RP_OK)
        status = rp_read_string(json, value, "_note", &entry->note, err);
    return status;
}
