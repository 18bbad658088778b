/* "reference" of an entry: another engine in HF's place, for a model that is too big for HF in FP32.
 * See refparity/matrix.h. Not for running it: run/reference.h. */
#include "matrix/parse.h"

#include <stdio.h>
#include <string.h>

#include "base/sha256.h"
#include "matrix/keys.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const char *const reference_keys[] = {"engine",     "gguf",  "mode",
                                             "how_to_get", "_note", "_comment"};

static const cJSON *member(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

static enum rp_status read_engine(struct rp_matrix *matrix, const cJSON *value,
                                  struct rp_reference *reference, struct rp_error *err)
{
    const char *name = NULL;
    enum rp_status status = rp_read_string(matrix->json, value, "engine", &name, err);
    if (status != RP_OK)
        return status;
    if (!name)
        return rp_json_fail(matrix->json, value, err, RP_ERR_MISSING,
                            "expected \"engine\" in a reference: one of \"engines\"");
    return rp_find_engine(matrix, member(value, "engine"), &reference->engine, err);
}

/* The reference's tokens decide, so they have to be its own. */
static enum rp_status check_engine(const struct rp_matrix *matrix, const cJSON *value,
                                   const struct rp_engine *engine, struct rp_error *err)
{
    const struct {
        int is_so;
        const char *why;
    } reasons[] = {{engine->lacks_tokens, "dumps no token ids"},
                   {engine->uses_tokens_file, "uses {tokens_file}, the token ids of a reference"},
                   {engine->single_position, "dumps a single position"}};
    for (size_t i = 0; i < COUNT(reasons); i++)
        if (reasons[i].is_so)
            return rp_json_fail(matrix->json, member(value, "engine"), err, RP_ERR_FORMAT,
                                "expected an engine that tokenizes the prompt by itself and dumps "
                                "token ids and positions: \"%s\" %s",
                                engine->name, reasons[i].why);
    return RP_OK;
}

static enum rp_status read_mode(struct rp_matrix *matrix, const cJSON *value,
                                struct rp_reference *reference, struct rp_error *err)
{
    const struct rp_json *json = matrix->json;
    const int used = rp_engine_uses(reference->engine, "mode");
    enum rp_status status = rp_read_string(json, value, "mode", &reference->mode, err);
    if (status != RP_OK)
        return status;
    if (reference->mode && !used)
        return rp_json_fail(json, member(value, "mode"), err, RP_ERR_FORMAT,
                            "expected no \"mode\": engine \"%s\" uses {mode} nowhere",
                            reference->engine->name);
    if (!reference->mode && used)
        return rp_json_fail(json, value, err, RP_ERR_MISSING,
                            "expected \"mode\" in a reference: engine \"%s\" uses {mode}",
                            reference->engine->name);
    return reference->mode ? rp_check_name(json, member(value, "mode"), "a mode", reference->mode,
                                           RP_MODE_PUNCTUATION, err)
                           : RP_OK;
}

static bool is_same(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static void add(struct rp_sha256 *hash, const char *label, const char *text)
{
    rp_sha256_update(hash, label, strlen(label) + 1);
    rp_sha256_update(hash, text, strlen(text) + 1);
}

/* Another command, file, mode or list of positions is another reference, in another place of the store. */
static void name_folder(const struct rp_entry *entry, struct rp_reference *reference)
{
    const struct rp_engine *engine = reference->engine;
    struct rp_sha256 hash;
    uint8_t digest[32];
    char hex[65], number[32];
    rp_sha256_init(&hash);
    for (size_t i = 0; i < engine->n_argv; i++)
        add(&hash, "argv", engine->argv[i]);
    for (size_t i = 0; i < engine->n_env; i++) {
        add(&hash, "env", engine->env[i].name);
        add(&hash, "value", engine->env[i].value);
    }
    add(&hash, "gguf", reference->gguf ? reference->gguf : "");
    add(&hash, "mode", reference->mode ? reference->mode : "");
    for (size_t i = 0; i < entry->n_positions; i++) {
        snprintf(number, sizeof number, "%lld", (long long)entry->positions[i]);
        add(&hash, "position", number);
    }
    rp_sha256_final(&hash, digest);
    rp_sha256_format(digest, hex);
    snprintf(reference->folder, sizeof reference->folder, "%s-%.8s", engine->name, hex);
}

enum rp_status rp_parse_reference(struct rp_matrix *matrix, const cJSON *object,
                                  struct rp_entry *entry, struct rp_error *err)
{
    const struct rp_json *json = matrix->json;
    struct rp_reference *reference = &entry->reference;
    const cJSON *value = member(object, "reference");
    const char *note = NULL;
    if (!value)
        return RP_OK;
    enum rp_status status =
        rp_check_keys(json, value, "a reference", reference_keys, COUNT(reference_keys), err);
    if (status == RP_OK)
        status = read_engine(matrix, value, reference, err);
    if (status == RP_OK)
        status = check_engine(matrix, value, reference->engine, err);
    if (status == RP_OK)
        status = rp_read_string(json, value, "gguf", &reference->gguf, err);
    if (status == RP_OK)
        status = rp_read_string(json, value, "how_to_get", &reference->how_to_get, err);
    if (status == RP_OK)
        status = rp_read_string(json, value, "_note", &note, err);
    if (status == RP_OK && !reference->gguf && rp_engine_uses(reference->engine, "gguf"))
        status = rp_json_fail(json, value, err, RP_ERR_MISSING,
                              "expected \"gguf\" in a reference: engine \"%s\" uses {gguf}",
                              reference->engine->name);
    if (status == RP_OK)
        status = read_mode(matrix, value, reference, err);
    if (status != RP_OK)
        return status;
    if (reference->engine == entry->engine && is_same(reference->gguf, entry->engine_gguf))
        return rp_json_fail(json, value, err, RP_ERR_FORMAT,
                            "expected another engine than the entry's as its reference: \"%s\" "
                            "would be compared with itself (\"compare_modes\" compares two modes)",
                            entry->engine->name);
    if (member(object, "dtype"))
        return rp_json_fail_key(
            json, member(object, "dtype"), err, RP_ERR_FORMAT,
            "expected no \"dtype\" beside \"reference\": it is what HF computes "
            "in");
    name_folder(entry, reference);
    return RP_OK;
}

void rp_pair_reference_run(const struct rp_pair *pair, struct rp_entry *entry, struct rp_pair *run)
{
    const struct rp_reference *reference = &pair->entry->reference;
    *entry = *pair->entry;
    entry->engine = reference->engine;
    entry->engine_gguf = reference->gguf;
    entry->how_to_get = reference->how_to_get;
    entry->gate = RP_GATE_STRICT;
    entry->replay = 0;
    memset(&entry->accept_exit, 0, sizeof entry->accept_exit);
    *run = *pair;
    run->entry = entry;
    run->mode = reference->mode;
    run->against = NULL;
}
