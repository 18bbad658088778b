/* See weights_result.h. The file: work_dir/weights-tests/<entry>.json. */
#include "run/weights_result.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json_fields.h"

static const struct rp_field fields[] = {
    RP_FIELD(struct rp_weights_result, session),
    RP_FIELD_ENUM(struct rp_weights_result, verdict, RP_ERROR),
    RP_FIELD(struct rp_weights_result, message),
    RP_FIELD(struct rp_weights_result, seconds),
};
enum { N_FIELDS = sizeof fields / sizeof fields[0] };

static enum rp_status path_of(const struct rp_context *context, const struct rp_entry *entry,
                              char folder[RP_PATH_SIZE], char path[RP_PATH_SIZE],
                              struct rp_error *err)
{
    char name[RP_MATRIX_NAME_MAX + 8];
    snprintf(name, sizeof name, "%s.json", entry->name);
    const enum rp_status status =
        rp_path_join(folder, RP_PATH_SIZE, context->work_dir, "weights-tests", err);
    return status ? status : rp_path_join(path, RP_PATH_SIZE, folder, name, err);
}

enum rp_status rp_weights_result_write(const struct rp_context *context,
                                       const struct rp_entry *entry,
                                       struct rp_weights_result *result, struct rp_error *err)
{
    char folder[RP_PATH_SIZE], path[RP_PATH_SIZE], *text = NULL;
    cJSON *root = cJSON_CreateObject();
    snprintf(result->session, sizeof result->session, "%s", context->session);
    enum rp_status status = path_of(context, entry, folder, path, err);
    if (!status)
        status = rp_fields_write(result, fields, N_FIELDS, root, err);
    if (!status) {
        text = cJSON_Print(root);
        status = text ? rp_make_dirs(folder, err)
                      : rp_fail(err, RP_ERR_MEMORY, path, -1, "not enough memory to write it");
    }
    if (!status)
        status = rp_file_write_atomic(path, text, strlen(text), err);
    free(text);
    cJSON_Delete(root);
    return status;
}

enum rp_status rp_weights_result_read(const struct rp_context *context,
                                      const struct rp_entry *entry,
                                      struct rp_weights_result *result, struct rp_error *err)
{
    char folder[RP_PATH_SIZE], path[RP_PATH_SIZE];
    struct rp_json *doc;
    memset(result, 0, sizeof *result);
    enum rp_status status = path_of(context, entry, folder, path, err);
    if (!status)
        status = rp_json_parse_file(path, &doc, err);
    if (status)
        return status;
    status = rp_fields_read(doc, rp_json_root(doc), fields, N_FIELDS, result, err);
    rp_json_free(doc);
    if (!status && strcmp(result->session, context->session) != 0)
        status = rp_fail(err, RP_ERR_MISSING, path, -1, "it is of another run");
    return status;
}
