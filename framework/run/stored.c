/* The file of a stored verdict (see stored.h): {"seal", "of": {"version", "test", "state", "seconds"},
 * "verdict": {...}}. The state is the judge's: judge_state.c. */
#include "run/stored.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"

/* To be raised when what is stored, or how it is computed, changes its meaning but not its form. */
enum { VERSION = 2, HEX = 64, WHAT = RP_PAIR_NAME_SIZE + RP_SLOT_NAME_SIZE + 32 };

struct header {
    int version;
    char test[RP_SLOT_NAME_SIZE + 16];
    char state[HEX + 1];
    double seconds;
};

static const struct rp_field header_fields[] = {
    RP_FIELD(struct header, version), RP_FIELD(struct header, test), RP_FIELD(struct header, state),
    RP_FIELD(struct header, seconds)};
enum { N_HEADER = sizeof header_fields / sizeof header_fields[0] };

static enum rp_status path_of(const struct rp_judge *judge, const char *test, char *path,
                              struct rp_error *err)
{
    char name[RP_SLOT_NAME_SIZE + 32];
    snprintf(name, sizeof name, "%s.json", test);
    return rp_path_join(path, RP_PATH_SIZE, judge->paths.verdicts, name, err);
}

/* For its seal. */
static const char *name_file(const struct rp_judge *judge, const char *test, char *what,
                             size_t size)
{
    snprintf(what, size, "verdict of %s/%s", judge->pair->name, test);
    return what;
}

enum rp_status rp_stored_write(const struct rp_judge *judge, const char *test, double seconds,
                               cJSON *content, struct rp_error *err)
{
    char path[RP_PATH_SIZE], what[WHAT];
    struct header header = {.version = VERSION, .seconds = seconds};
    cJSON *root = cJSON_CreateObject(), *of = cJSON_AddObjectToObject(root, "of");
    snprintf(header.test, sizeof header.test, "%s", test);
    snprintf(header.state, sizeof header.state, "%s", judge->state);
    enum rp_status status = path_of(judge, test, path, err);
    if (!status && !judge->state[0])
        status = rp_fail(err, RP_ERR_MISSING, path, -1, "what it rests on is not known");
    if (!status && !content)
        status = rp_fail(err, RP_ERR_MEMORY, path, -1, "not enough memory to write it");
    if (!status)
        status = rp_fields_write(&header, header_fields, N_HEADER, of, err);
    if (!status && cJSON_AddItemToObject(root, "verdict", content))
        content = NULL;
    if (!status)
        status = rp_make_dirs(judge->paths.verdicts, err);
    if (!status)
        status = rp_seal_write(judge->context->key, name_file(judge, test, what, sizeof what), path,
                               cJSON_PrintUnformatted(root), err);
    cJSON_Delete(content);
    cJSON_Delete(root);
    return status;
}

enum rp_status rp_stored_read(const struct rp_judge *judge, const char *test, double *seconds,
                              struct rp_json **doc, const cJSON **content, struct rp_error *err)
{
    char path[RP_PATH_SIZE], what[WHAT];
    struct header header = {.version = 0};
    *doc = NULL;
    enum rp_status status = path_of(judge, test, path, err);
    if (status)
        return status;
    if (!judge->state[0])
        return rp_fail(err, RP_ERR_MISMATCH, path, -1, "what it rests on is not known");
    status = rp_seal_read(judge->context->key, name_file(judge, test, what, sizeof what), path, doc,
                          err);
    if (status == RP_ERR_MISMATCH)
        return rp_fail(err, RP_ERR_FORMAT, path, -1,
                       "this verdict was not written by the test %s, or was changed since: run the "
                       "pair again, and look at what writes there",
                       test);
    if (status)
        return status;
    const cJSON *root = rp_json_root(*doc);
    const cJSON *of = cJSON_GetObjectItemCaseSensitive(root, "of");
    *content = cJSON_GetObjectItemCaseSensitive(root, "verdict");
    status = rp_fields_read(*doc, of, header_fields, N_HEADER, &header, err);
    if (!status && (header.version != VERSION || !(header.seconds >= 0) ||
                    strcmp(header.test, test) != 0 || !*content || cJSON_GetArraySize(root) != 3))
        status = rp_json_fail(*doc, of, err, RP_ERR_FORMAT, "this is not the verdict of %s", test);
    if (!status && strcmp(header.state, judge->state) != 0)
        status = rp_json_fail(*doc, of, err, RP_ERR_MISMATCH,
                              "stored before a run, or of files that have changed since");
    *seconds = header.seconds;
    if (status) {
        rp_json_free(*doc);
        *doc = NULL;
    }
    return status;
}
