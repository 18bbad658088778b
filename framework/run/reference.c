/* See reference.h. */
#include "run/reference.h"

#include <stdio.h>
#include <string.h>

#include "base/json_fields.h"
#include "base/shell.h"
#include "refparity/gguf.h"

static const struct rp_field fields[] = {RP_FIELD(struct rp_reference_origin, engine),
                                         RP_FIELD(struct rp_reference_origin, program),
                                         RP_FIELD(struct rp_reference_origin, program_sha256),
                                         RP_FIELD(struct rp_reference_origin, mode),
                                         RP_FIELD(struct rp_reference_origin, model),
                                         RP_FIELD(struct rp_reference_origin, weights),
                                         RP_FIELD(struct rp_reference_origin, is_coarse),
                                         RP_FIELD(struct rp_reference_origin, command)};
enum { N_FIELDS = sizeof fields / sizeof fields[0] };

const char *rp_reference_command(const struct rp_context *context, const struct rp_entry *entry,
                                 bool force, char *buf, size_t size)
{
    size_t used = 0;
    rp_shell_append(buf, size, &used, context->tool ? context->tool : "refparity");
    used += (size_t)snprintf(buf + used, size - used, " record%s ", force ? " --force" : "");
    used = used < size ? used : size - 1;
    rp_shell_append(buf, size, &used, context->config_path);
    if (used + 1 < size)
        buf[used++] = ' ';
    rp_shell_append(buf, size, &used, entry->name);
    return buf;
}

enum rp_status rp_reference_origin_read(const struct rp_tensor_set *fixture,
                                        struct rp_reference_origin *origin, struct rp_error *err)
{
    size_t length;
    const char *where = rp_tensor_set_path(fixture);
    const char *text = rp_tensor_set_manifest(fixture, &length);
    struct rp_json *doc;
    memset(origin, 0, sizeof *origin);
    if (!text)
        return rp_fail(err, RP_ERR_FORMAT, where, -1,
                       "it has no manifest, which says which engine made it");
    enum rp_status status = rp_json_parse(text, length, where, &doc, err);
    if (status)
        return status;
    const cJSON *json = cJSON_GetObjectItemCaseSensitive(rp_json_root(doc), "reference");
    status = json ? rp_fields_read(doc, json, fields, N_FIELDS, origin, err)
                  : rp_fail(err, RP_ERR_FORMAT, where, -1,
                            "its manifest does not say which engine made it");
    rp_json_free(doc);
    return status;
}

enum rp_status rp_reference_origin_write(const struct rp_reference_origin *origin, cJSON *manifest,
                                         struct rp_error *err)
{
    cJSON *json = cJSON_AddObjectToObject(manifest, "reference");
    return rp_fields_write(origin, fields, N_FIELDS, json, err);
}

/* The id of the file at hand that the reference is made of; "" where there is none. */
static void find_file_id(const struct rp_context *context, const struct rp_pair *pair,
                         char id[RP_MODEL_FILE_ID_SIZE])
{
    struct rp_entry entry;
    struct rp_pair run;
    char path[RP_PATH_SIZE];
    rp_pair_reference_run(pair, &entry, &run);
    id[0] = '\0';
    if (entry.engine_gguf && rp_entry_gguf(context->matrix, &entry, context->models_dir, path,
                                           sizeof path, NULL) == RP_OK)
        rp_model_file_id(path, id);
}

enum rp_status rp_reference_check(const struct rp_context *context, const struct rp_pair *pair,
                                  const struct rp_tensor_set *fixture, struct rp_error *err)
{
    struct rp_reference_origin origin;
    char id[RP_MODEL_FILE_ID_SIZE], command[2 * RP_PATH_SIZE];
    const struct rp_entry *entry = pair->entry;
    const struct rp_engine *engine = entry->reference.engine;
    const char *where = rp_tensor_set_path(fixture);
    enum rp_status status = rp_reference_origin_read(fixture, &origin, err);
    if (status)
        return status;
    rp_reference_command(context, entry, true, command, sizeof command);
    if (strcmp(origin.engine, engine->name) != 0)
        return rp_fail(err, RP_ERR_MISMATCH, where, -1,
                       "the reference was made by engine %s, the matrix says %s; record it again "
                       "with `%s`",
                       origin.engine, engine->name, command);
    find_file_id(context, pair, id);
    if (rp_model_file_is_another(origin.model, id))
        return rp_fail(err, RP_ERR_MISMATCH, where, -1,
                       "the reference was made of %s, and the matrix's file is %s now; record it "
                       "again with `%s`",
                       origin.model, id, command);
    return RP_OK;
}

/* What the reference's own rounding does to the figures. */
static const char *meaning_of(const struct rp_context *context, const struct rp_pair *pair,
                              const struct rp_reference_origin *origin)
{
    char path[RP_PATH_SIZE], state[RP_FINGERPRINT_SIZE], id[RP_MODEL_FILE_ID_SIZE] = "";
    if (!origin->weights[0])
        return ": its weights' types are not known, nor what their rounding adds to the figures";
    if (strcmp(origin->weights, "F32") == 0)
        return "";
    rp_context_model_file(context, pair->entry, path, state);
    if (state[0])
        rp_model_file_id(path, id);
    return rp_model_file_is(origin->model, id)
               ? ": the engine's own file, whose quantization both have"
               : ": its own quantization error is in every figure";
}

const char *rp_reference_text(const struct rp_context *context, const struct rp_pair *pair,
                              const struct rp_tensor_set *fixture, char *buf, size_t size)
{
    struct rp_reference_origin origin;
    buf[0] = '\0';
    if (!pair->entry->reference.engine || pair->against || !fixture ||
        rp_reference_origin_read(fixture, &origin, NULL) != RP_OK)
        return buf;
    const size_t n_name = strcspn(origin.model, " ");
    snprintf(buf, size, "%s%s%s, %s weights%s%.*s%s%s", origin.engine,
             origin.program[0] ? ": " : "", origin.program,
             origin.weights[0] ? origin.weights : "unknown", n_name ? " (" : "", (int)n_name,
             origin.model, n_name ? ")" : "", meaning_of(context, pair, &origin));
    return buf;
}
