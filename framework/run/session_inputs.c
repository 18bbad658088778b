/* See session_inputs.h. work_dir/session has the name and the hashes of matrix and config.json;
 * work_dir/inputs a line per pair, of one length, so that a test reads its own alone. Both are sealed. */
#include "run/session_inputs.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json_fields.h"
#include "base/sha256.h"
#include "run/fixture.h"
#include "run/selection.h"
#include "run/weights_result.h"

enum { HEX = 64, LINE = 3 * (HEX + 1) };

static const struct rp_field fields[] = {
    RP_FIELD(struct rp_begun, session), RP_FIELD(struct rp_begun, state),
    RP_FIELD(struct rp_begun, matrix_sha256), RP_FIELD(struct rp_begun, config_sha256)};
enum { N_FIELDS = sizeof fields / sizeof fields[0] };

static const char nothing[] = "----------------------------------------------------------------";

/* What a pair reads, as it is now: [0] its fixture, [1] its model file; nothing where there is none. */
struct files {
    char path[2][RP_PATH_SIZE];
    char state[2][RP_FINGERPRINT_SIZE];
};

static void look(const struct rp_context *context, const struct rp_pair *pair, struct files *files)
{
    if (pair->against || rp_fixture_find(context, pair, files->path[0], NULL))
        files->path[0][0] = '\0';
    rp_fingerprint(files->path[0], files->state[0]);
    rp_context_model_file(context, pair->entry, files->path[1], files->state[1]);
    for (size_t i = 0; i < 2; i++)
        if (!files->state[i][0])
            memcpy(files->state[i], nothing, sizeof nothing);
}

/* The line's own seal makes it one of this session and pair. */
static void seal_line(const struct rp_context *context, size_t index, const char *states,
                      char seal[HEX + 1])
{
    char what[96];
    snprintf(what, sizeof what, "inputs of %zu in %s", index, context->session);
    rp_seal_of(context->key, what, states, 2 * (HEX + 1), seal);
}

static enum rp_status write_inputs(const struct rp_context *context, struct rp_error *err)
{
    char path[RP_PATH_SIZE];
    const size_t n = context->matrix ? rp_matrix_n_pairs(context->matrix) : 0;
    struct files *files = malloc(sizeof *files);
    char *text = malloc(n * LINE + 1);
    enum rp_status status = rp_path_join(path, sizeof path, context->work_dir, "inputs", err);
    if (!status && (!files || !text))
        status = rp_fail(err, RP_ERR_MEMORY, path, -1, "not enough memory for %zu pairs", n);
    for (size_t i = 0; !status && i < n; i++) {
        struct rp_pair pair;
        char *line = text + i * LINE, seal[HEX + 1];
        rp_matrix_pair(context->matrix, i, &pair);
        look(context, &pair, files);
        snprintf(line, 2 * (HEX + 1) + 1, "%s %s ", files->state[0], files->state[1]);
        seal_line(context, i, line, seal);
        snprintf(line + 2 * (HEX + 1), HEX + 1, "%s", seal);
        line[LINE - 1] = '\n';
    }
    if (!status)
        status = rp_file_write_atomic(path, text, n * LINE, err);
    free(files);
    free(text);
    return status;
}

static enum rp_status write_session(const struct rp_context *context, struct rp_error *err)
{
    char path[RP_PATH_SIZE];
    cJSON *root = cJSON_CreateObject(), *begun = cJSON_AddObjectToObject(root, "begun");
    enum rp_status status = rp_path_join(path, sizeof path, context->work_dir, "session", err);
    if (!status)
        status = rp_fields_write(&context->begun, fields, N_FIELDS, begun, err);
    if (!status)
        status = rp_seal_write(context->key, "session", path, cJSON_PrintUnformatted(root), err);
    cJSON_Delete(root);
    return status;
}

enum rp_status rp_session_begin(struct rp_context *context, const char *matrix_path,
                                struct rp_error *err)
{
    struct timespec now;
    struct rp_begun *begun = &context->begun;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(context->session, sizeof context->session, "%lld.%09ld-%ld", (long long)now.tv_sec,
             now.tv_nsec, (long)getpid());
    memcpy(begun->session, context->session, sizeof begun->session);
    memcpy(begun->state, context->state, sizeof begun->state);
    (void)rp_sha256_file(matrix_path, begun->matrix_sha256, NULL);
    (void)rp_sha256_file(context->config_path, begun->config_sha256, NULL);
    enum rp_status status = rp_make_dirs(context->work_dir, err);
    if (!status)
        status = rp_seal_make_key(context->work_dir, context->key, err);
    if (!status)
        status = rp_weights_results_clear(context->work_dir, err);
    if (!status)
        status = rp_selection_begin(context->work_dir, context->session, context->matrix, err);
    if (!status)
        status = write_inputs(context, err);
    if (!status)
        status = write_session(context, err);
    return status;
}

static enum rp_status not_ours(const char *name, const struct rp_context *context,
                               struct rp_error *err)
{
    char path[RP_PATH_SIZE];
    (void)rp_path_join(path, sizeof path, context->work_dir, name, NULL);
    return rp_fail(err, RP_ERR_MISMATCH, path, -1,
                   "this is not what session/begin wrote: something has changed it, or its key, "
                   "since; begin again (ctest, or refparity report --begin)");
}

enum rp_status rp_session_read(struct rp_context *context, struct rp_error *err)
{
    char path[RP_PATH_SIZE];
    struct rp_json *doc = NULL;
    enum rp_status status = rp_path_join(path, sizeof path, context->work_dir, "session", err);
    if (status)
        return status;
    rp_seal_read_key(context->work_dir, context->key);
    status = rp_seal_read(context->key, "session", path, &doc, err);
    if (status == RP_ERR_MISSING && !context->key[0]) /* nothing has begun here */
        return RP_OK;
    if (status == RP_ERR_MISSING || status == RP_ERR_MISMATCH)
        return not_ours("session", context, err);
    if (!status)
        status = rp_fields_read(doc, cJSON_GetObjectItemCaseSensitive(rp_json_root(doc), "begun"),
                                fields, N_FIELDS, &context->begun, err);
    if (!status)
        memcpy(context->session, context->begun.session, sizeof context->session);
    rp_json_free(doc);
    return status;
}

static enum rp_status changed(const char *path, const char *what, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_MISMATCH, path, -1,
                   "%s is not what it was when this ctest run began (session/begin): something has "
                   "changed it since. Look at what does, then run ctest again",
                   what);
}

static bool has_content(const char *path, const char *sha256)
{
    char now[HEX + 1];
    return rp_sha256_file(path, now, NULL) == RP_OK && strcmp(now, sha256) == 0;
}

enum rp_status rp_session_check_matrix(const struct rp_context *context, struct rp_error *err)
{
    const struct rp_begun *begun = &context->begun;
    const char *matrix_path = rp_matrix_path(context->matrix);
    if (!context->session[0] || strcmp(context->state, begun->state) == 0)
        return RP_OK;
    if (!has_content(matrix_path, begun->matrix_sha256)) /* a touch changes nothing */
        return changed(matrix_path, "the matrix", err);
    if (!has_content(context->config_path, begun->config_sha256))
        return changed(context->config_path, "the configuration of the build tree", err);
    return RP_OK;
}

/* The line of the pair, without its newline; false where it is not what session/begin wrote. */
static bool read_line(const struct rp_context *context, size_t index, char line[LINE])
{
    char path[RP_PATH_SIZE], seal[HEX + 1];
    if (rp_path_join(path, sizeof path, context->work_dir, "inputs", NULL))
        return false;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    const bool is_whole = fd >= 0 && pread(fd, line, LINE, (off_t)(index * LINE)) == LINE;
    if (fd >= 0)
        close(fd);
    if (!is_whole)
        return false;
    seal_line(context, index, line, seal);
    return memcmp(line + 2 * (HEX + 1), seal, HEX) == 0;
}

enum rp_status rp_session_check_files(const struct rp_context *context, const struct rp_pair *pair,
                                      struct rp_error *err)
{
    static const char *const what[] = {"the fixture", "the model file"};
    char line[LINE];
    enum rp_status status = RP_OK;
    if (!context->session[0])
        return RP_OK;
    if (!read_line(context, pair->index, line))
        return not_ours("inputs", context, err);
    struct files *files = malloc(sizeof *files);
    if (!files)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory");
    look(context, pair, files);
    for (size_t i = 0; !status && i < 2; i++)
        if (memcmp(line + i * (HEX + 1), files->state[i], HEX) != 0)
            status = changed(files->path[i][0] ? files->path[i] : pair->name, what[i], err);
    free(files);
    return status;
}
