/* See fixture.h. */
#include "run/fixture.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/sha256.h"
#include "matrix/store.h"
#include "run/reference.h"

struct check {
    const struct rp_context *context;
    const struct rp_pair *pair;
    const char *path;
    struct rp_error *err;
};

/* What records the pair's fixture again; returns buf. */
static const char *record_again(const struct check *check, char *buf, size_t size)
{
    const struct rp_entry *entry = check->pair->entry;
    if (entry->reference.engine)
        return rp_reference_command(check->context, entry, true, buf, size);
    snprintf(buf, size, "%s %s --force", check->context->record_command, entry->name);
    return buf;
}

static enum rp_status disagree(const struct check *check, const char *key, const char *fixture,
                               const char *matrix)
{
    char command[2 * RP_PATH_SIZE];
    return rp_fail(check->err, RP_ERR_MISMATCH, check->path, -1,
                   "the fixture was recorded with %s %s, the matrix says %s; record it again with "
                   "`%s`",
                   key, fixture, matrix, record_again(check, command, sizeof command));
}

static enum rp_status check_string(const struct check *check, const cJSON *manifest,
                                   const char *key, const char *expected)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(manifest, key);
    if (!cJSON_IsString(value))
        return disagree(check, key, "absent from its manifest", expected);
    return strcmp(value->valuestring, expected) == 0
               ? RP_OK
               : disagree(check, key, value->valuestring, expected);
}

static enum rp_status check_int(const struct check *check, const cJSON *manifest, const char *key,
                                long long expected)
{
    char found_text[32] = "absent from its manifest", expected_text[32];
    long long found;
    const int is_int =
        rp_json_int(cJSON_GetObjectItemCaseSensitive(manifest, key), 0, INT32_MAX, &found);
    if (is_int && found == expected)
        return RP_OK;
    if (is_int)
        snprintf(found_text, sizeof found_text, "%lld", found);
    snprintf(expected_text, sizeof expected_text, "%lld", expected);
    return disagree(check, key, found_text, expected_text);
}

/* All else that names the fixture is right: another recording would have as many. */
static enum rp_status check_n_layers(const struct check *check, const cJSON *manifest)
{
    const int declared = check->pair->entry->n_layers;
    long long found;
    if (!rp_json_int(cJSON_GetObjectItemCaseSensitive(manifest, "n_layers"), 0, INT32_MAX, &found))
        return check_int(check, manifest, "n_layers", declared);
    if (found == declared)
        return RP_OK;
    return rp_fail(check->err, RP_ERR_MISMATCH, check->path, -1,
                   "the fixture has %lld layers, the matrix says n_layers %d: mend n_layers, or "
                   "hf_model",
                   found, declared);
}

static enum rp_status check_manifest(const struct check *check, const struct rp_tensor_set *fixture)
{
    size_t length;
    const char *text = rp_tensor_set_manifest(fixture, &length);
    if (!text)
        return RP_OK;
    struct rp_json *doc;
    enum rp_status status = rp_json_parse(text, length, check->path, &doc, check->err);
    if (status)
        return status;
    const struct rp_entry *entry = check->pair->entry;
    const cJSON *manifest = rp_json_root(doc);
    char prompt_sha256[65];
    rp_sha256_hex(check->pair->prompt->text, check->pair->prompt->length, prompt_sha256);
    status = check_string(check, manifest, "format", "refparity-fixture");
    if (!status)
        status = check_int(check, manifest, "version", 1);
    if (!status)
        status = check_string(check, manifest, "hf_model", entry->hf_model);
    if (!status)
        status = check_string(check, manifest, "revision", entry->revision);
    if (!status && !entry->reference.engine)
        status = check_string(check, manifest, "dtype", entry->dtype);
    if (!status)
        status = check_string(check, manifest, "prompt_sha256", prompt_sha256);
    if (!status)
        status = check_string(check, manifest, "weights",
                              entry->reference.engine ? "engine" : "checkpoint");
    if (!status)
        status = check_n_layers(check, manifest);
    rp_json_free(doc);
    return status;
}

/* A foreign fixture has no manifest, and often lacks the last layer's own output. */
static enum rp_status check_layers_seen(const struct check *check,
                                        const struct rp_tensor_set *fixture)
{
    const int seen = rp_tensor_set_n_layers_seen(fixture), declared = check->pair->entry->n_layers;
    if (seen <= declared)
        return RP_OK;
    return rp_fail(check->err, RP_ERR_MISMATCH, check->path, -1,
                   "the fixture has %d layers, the matrix says n_layers %d: mend n_layers, or "
                   "hf_model",
                   seen, declared);
}

/* A fixture that refparity recorded has every required slot. */
static enum rp_status check_complete(const struct check *check, const struct rp_tensor_set *fixture)
{
    size_t length;
    char name[RP_SLOT_NAME_SIZE];
    const int n_layers = check->pair->entry->n_layers;
    if (!rp_tensor_set_manifest(fixture, &length))
        return RP_OK;
    const char *slot;
    for (size_t i = 0; (slot = rp_required_slot(n_layers, i, name)); i++) {
        char command[2 * RP_PATH_SIZE];
        if (!rp_tensor_set_find(fixture, slot))
            return rp_fail(check->err, RP_ERR_FORMAT, check->path, -1,
                           "the fixture has no %s; record it again with `%s`", slot,
                           record_again(check, command, sizeof command));
    }
    return RP_OK;
}

/* A fixture with fewer positions than tokens would leave the engine's others uncompared. Where the entry
 * lists positions, comparing a slot that lacks one is the error. */
static enum rp_status check_positions(const struct check *check,
                                      const struct rp_tensor_set *fixture)
{
    const int64_t *ids;
    size_t n_tokens;
    if (check->pair->entry->n_positions)
        return RP_OK;
    enum rp_status status = rp_tensor_set_tokens(fixture, &ids, &n_tokens, check->err);
    for (size_t i = 0; !status && ids && i < rp_tensor_set_n_slots(fixture); i++) {
        const struct rp_slot_info *slot = rp_tensor_set_slot(fixture, i);
        char command[2 * RP_PATH_SIZE];
        if (rp_slot_is_required(slot->name) && !slot->error.code && slot->n_positions != n_tokens)
            status = rp_fail(check->err, RP_ERR_MISMATCH, check->path, -1,
                             "the fixture has %zu tokens, but %s at %zu positions; record it "
                             "again with `%s`",
                             n_tokens, slot->name, slot->n_positions,
                             record_again(check, command, sizeof command));
    }
    return status;
}

static enum rp_status not_found(const struct check *check, const char *relative)
{
    char stores[512] = "";
    for (size_t i = 0, n = 0; i < check->context->n_stores && n < sizeof stores; i++)
        n += (size_t)snprintf(stores + n, sizeof stores - n, "%s%s", i ? ", " : "",
                              check->context->stores[i]);
    const struct rp_entry *entry = check->pair->entry;
    const struct rp_reference *reference = &entry->reference;
    char command[2 * RP_PATH_SIZE];
    if (reference->engine)
        return rp_fail(check->err, RP_ERR_MISSING, NULL, -1,
                       "no reference %s in %s; record it with `%s` (needs engine %s%s%s)", relative,
                       stores,
                       rp_reference_command(check->context, entry, false, command, sizeof command),
                       reference->engine->name, reference->gguf ? " and " : "",
                       reference->gguf ? reference->gguf : "");
    return rp_fail(check->err, RP_ERR_MISSING, NULL, -1,
                   "no fixture %s in %s; record it with `%s %s` (needs the weights of %s)",
                   relative, stores, check->context->record_command, check->pair->entry->name,
                   check->pair->entry->hf_model);
}

static enum rp_status store_path(const struct check *check, char *relative, size_t size)
{
    const struct rp_entry *entry = check->pair->entry;
    const struct rp_prompt *prompt = check->pair->prompt;
    return rp_store_path(entry->hf_model, entry->revision,
                         entry->reference.engine ? entry->reference.folder : entry->dtype,
                         prompt->text, prompt->length, relative, size, check->err);
}

/* The first store that has something there, or of which that cannot be told. */
static enum rp_status find(const struct check *check, char *path)
{
    char relative[1024];
    enum rp_status status = store_path(check, relative, sizeof relative);
    if (status)
        return status;
    for (size_t i = 0; i < check->context->n_stores; i++) {
        status = rp_path_join(path, RP_PATH_SIZE, check->context->stores[i], relative, check->err);
        if (!status)
            status = rp_path_look(path, check->err);
        if (status != RP_ERR_MISSING)
            return status;
    }
    return not_found(check, relative);
}

enum rp_status rp_reference_path(const struct rp_context *context, const struct rp_pair *pair,
                                 char *path, struct rp_error *err)
{
    char relative[1024];
    const struct check check = {context, pair, path, err};
    if (context->n_stores == 0)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1,
                       "there is no store to record into: set REFPARITY_STORE");
    const enum rp_status status = store_path(&check, relative, sizeof relative);
    return status ? status
                  : rp_path_join(path, RP_PATH_SIZE, context->stores[context->n_stores - 1],
                                 relative, err);
}

enum rp_status rp_fixture_find(const struct rp_context *context, const struct rp_pair *pair,
                               char *path, struct rp_error *err)
{
    const struct check check = {context, pair, path, err};
    return find(&check, path);
}

enum rp_status rp_fixture_open(const struct rp_context *context, const struct rp_pair *pair,
                               struct rp_tensor_set **fixture, char *path, struct rp_error *err)
{
    *fixture = NULL;
    const struct check check = {context, pair, path, err};
    enum rp_status status = find(&check, path);
    if (status)
        return status;
    status = rp_tensor_set_open(path, RP_LAYOUT_NPZ, 0, fixture, err);
    if (status == RP_ERR_MISSING) /* it is there, with nothing in it */
        status = err->code = RP_ERR_FORMAT;
    if (!status)
        status = check_manifest(&check, *fixture);
    if (!status && pair->entry->reference.engine)
        status = rp_reference_check(context, pair, *fixture, err);
    if (!status)
        status = check_layers_seen(&check, *fixture);
    if (!status)
        status = check_complete(&check, *fixture);
    if (!status)
        status = check_positions(&check, *fixture);
    if (status) {
        rp_tensor_set_close(*fixture);
        *fixture = NULL;
    }
    return status;
}
