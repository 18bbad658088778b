/* See weights_result.h. The file: work_dir/weights-tests/<entry>.json, {"seal", "result": {...}}. */
#include "run/weights_result.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json_fields.h"

static const struct rp_field fields[] = {
    RP_FIELD(struct rp_weights_result, session),
    RP_FIELD_ENUM(struct rp_weights_result, verdict, RP_ERROR),
    RP_FIELD(struct rp_weights_result, message),
    RP_FIELD(struct rp_weights_result, seconds),
};
enum { N_FIELDS = sizeof fields / sizeof fields[0], WHAT = RP_MATRIX_NAME_MAX + 32 };

#define FOLDER "weights-tests"

static enum rp_status path_of(const struct rp_context *context, const struct rp_entry *entry,
                              char folder[RP_PATH_SIZE], char path[RP_PATH_SIZE],
                              struct rp_error *err)
{
    char name[RP_MATRIX_NAME_MAX + 8];
    snprintf(name, sizeof name, "%s.json", entry->name);
    const enum rp_status status =
        rp_path_join(folder, RP_PATH_SIZE, context->work_dir, FOLDER, err);
    return status ? status : rp_path_join(path, RP_PATH_SIZE, folder, name, err);
}

/* For its seal. */
static const char *name_result(const struct rp_entry *entry, char *what, size_t size)
{
    snprintf(what, size, "test of the weights of %s", entry->name);
    return what;
}

enum rp_status rp_weights_results_clear(const char *work_dir, struct rp_error *err)
{
    char folder[RP_PATH_SIZE];
    const enum rp_status status = rp_path_join(folder, sizeof folder, work_dir, FOLDER, err);
    return status ? status : rp_remove_tree(folder, err);
}

enum rp_status rp_weights_result_write(const struct rp_context *context,
                                       const struct rp_entry *entry,
                                       struct rp_weights_result *result, struct rp_error *err)
{
    char folder[RP_PATH_SIZE], path[RP_PATH_SIZE], what[WHAT];
    cJSON *root = cJSON_CreateObject(), *content = cJSON_AddObjectToObject(root, "result");
    snprintf(result->session, sizeof result->session, "%s", context->session);
    enum rp_status status = path_of(context, entry, folder, path, err);
    if (!status)
        status = rp_fields_write(result, fields, N_FIELDS, content, err);
    if (!status)
        status = rp_make_dirs(folder, err);
    if (!status)
        status = rp_seal_write(context->key, name_result(entry, what, sizeof what), path,
                               cJSON_Print(root), err);
    cJSON_Delete(root);
    return status;
}

enum rp_status rp_weights_result_begin(const struct rp_context *context,
                                       const struct rp_entry *entry, struct rp_error *err)
{
    struct rp_weights_result result = {.verdict = RP_ERROR};
    snprintf(result.message, sizeof result.message,
             "the comparison was interrupted, or is under way: run %s%s/weights again",
             context->prefix, entry->name);
    return rp_weights_result_write(context, entry, &result, err);
}

enum rp_status rp_weights_result_read(const struct rp_context *context,
                                      const struct rp_entry *entry,
                                      struct rp_weights_result *result, struct rp_error *err)
{
    char folder[RP_PATH_SIZE], path[RP_PATH_SIZE], what[WHAT];
    struct rp_json *doc;
    memset(result, 0, sizeof *result);
    enum rp_status status = path_of(context, entry, folder, path, err);
    if (!status)
        status = rp_seal_read(context->key, name_result(entry, what, sizeof what), path, &doc, err);
    if (status)
        return status;
    status = rp_fields_read(doc, cJSON_GetObjectItemCaseSensitive(rp_json_root(doc), "result"),
                            fields, N_FIELDS, result, err);
    rp_json_free(doc);
    if (!status && strcmp(result->session, context->session) != 0)
        status = rp_fail(err, RP_ERR_MISSING, path, -1, "it is of another run");
    return status;
}
