/* The file of a stored verdict (see stored.h): {"sha256": of all that follows, "of": {"version", "test",
 * "state", "seconds"}, "verdict": {...}}. The state is the judge's: judge_state.c. */
#include "run/stored.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/sha256.h"

/* To be raised when what is stored, or how it is computed, changes its meaning but not its form. */
enum { VERSION = 1, HEX = 64 };

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

static const char before_sum[] = "{\"sha256\":\"", after_sum[] = "\",";
enum { SUM_AT = sizeof before_sum - 1, REST_AT = SUM_AT + HEX + sizeof after_sum - 1 };

static enum rp_status path_of(const struct rp_judge *judge, const char *test, char *path,
                              struct rp_error *err)
{
    char name[RP_SLOT_NAME_SIZE + 32];
    snprintf(name, sizeof name, "%s.json", test);
    return rp_path_join(path, RP_PATH_SIZE, judge->paths.verdicts, name, err);
}

/* The object's text with its sum before all other members. */
static enum rp_status write_summed(const char *path, const cJSON *root, struct rp_error *err)
{
    char *text = cJSON_PrintUnformatted(root);
    const size_t length = text ? strlen(text) : 0;
    char *summed = malloc(REST_AT + length + 1), sum[HEX + 1];
    enum rp_status status = RP_OK;
    if (!text || !summed) {
        status = rp_fail(err, RP_ERR_MEMORY, path, -1, "not enough memory to write it");
    } else {
        rp_sha256_hex(text + 1, length - 1, sum);
        const int n = snprintf(summed, REST_AT + length + 1, "%s%s%s%s", before_sum, sum, after_sum,
                               text + 1);
        status = rp_file_write_atomic(path, summed, (size_t)n, err);
    }
    free(summed);
    free(text);
    return status;
}

enum rp_status rp_stored_write(const struct rp_judge *judge, const char *test, double seconds,
                               cJSON *content, struct rp_error *err)
{
    char path[RP_PATH_SIZE];
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
        status = write_summed(path, root, err);
    cJSON_Delete(content);
    cJSON_Delete(root);
    return status;
}

/* Reads the file's text where its sum is right. */
static enum rp_status read_summed(const char *path, char **text, size_t *length,
                                  struct rp_error *err)
{
    char sum[HEX + 1];
    const enum rp_status status = rp_file_read(path, RP_JSON_MAX_BYTES, text, length, err);
    if (status)
        return status;
    const char *t = *text;
    if (*length > REST_AT && memcmp(t, before_sum, SUM_AT) == 0 &&
        memcmp(t + SUM_AT + HEX, after_sum, sizeof after_sum - 1) == 0) {
        rp_sha256_hex(t + REST_AT, *length - REST_AT, sum);
        if (memcmp(t + SUM_AT, sum, HEX) == 0)
            return RP_OK;
    }
    free(*text);
    *text = NULL;
    return rp_fail(err, RP_ERR_FORMAT, path, -1, "this is no stored verdict, or it is damaged");
}

enum rp_status rp_stored_read(const struct rp_judge *judge, const char *test, double *seconds,
                              struct rp_json **doc, const cJSON **content, struct rp_error *err)
{
    char path[RP_PATH_SIZE], *text = NULL;
    size_t length = 0;
    struct header header = {.version = 0};
    *doc = NULL;
    enum rp_status status = path_of(judge, test, path, err);
    if (!status)
        status = read_summed(path, &text, &length, err);
    if (!status)
        status = rp_json_parse(text, length, path, doc, err);
    free(text);
    if (status)
        return status;
    const cJSON *root = rp_json_root(*doc);
    const cJSON *of = cJSON_GetObjectItemCaseSensitive(root, "of");
    *content = cJSON_GetObjectItemCaseSensitive(root, "verdict");
    status = rp_fields_read(*doc, of, header_fields, N_HEADER, &header, err);
    if (!status && (header.version != VERSION || !(header.seconds >= 0) ||
                    strcmp(header.test, test) != 0 || !*content || cJSON_GetArraySize(root) != 3))
        status = rp_json_fail(*doc, of, err, RP_ERR_FORMAT, "this is not the verdict of %s", test);
    if (!status && (!judge->state[0] || strcmp(header.state, judge->state) != 0))
        status = rp_json_fail(*doc, of, err, RP_ERR_MISMATCH,
                              "stored before a run, or of files that have changed since");
    *seconds = header.seconds;
    if (status) {
        rp_json_free(*doc);
        *doc = NULL;
    }
    return status;
}
