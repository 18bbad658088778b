/* See context.h. */
#include "run/context.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/json.h"
#include "base/sha256.h"
#include "run/session_inputs.h"

int rp_env_flag(const char *name)
{
    const char *value = getenv(name);
    return value && value[0] && strcmp(value, "0") != 0;
}

static enum rp_status too_long(struct rp_error *err, const char *path)
{
    return rp_fail(err, RP_ERR_ARGUMENT, path, -1, "the path is longer than %d bytes",
                   RP_PATH_SIZE - 1);
}

#define FITS_PATH(buf, ...) ((size_t)snprintf((buf), RP_PATH_SIZE, __VA_ARGS__) < RP_PATH_SIZE)
#define FITS(buf, ...) ((size_t)snprintf((buf), sizeof(buf), __VA_ARGS__) < sizeof(buf))

static enum rp_status get_string(const struct rp_json *doc, const char *key, const char **out,
                                 struct rp_error *err)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(rp_json_root(doc), key);
    if (!cJSON_IsString(value))
        return rp_json_fail(doc, value ? value : rp_json_root(doc), err, RP_ERR_FORMAT,
                            "expected a string \"%s\": configure the build tree again", key);
    *out = value->valuestring;
    return RP_OK;
}

/* The value of variable, or refparity/name in the user's cache folder; "" when neither is known. */
static void find_user_folder(const char *variable, const char *name, char out[RP_PATH_SIZE])
{
    const char *given = getenv(variable);
    const char *cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    int n = 0;
    if (given && given[0])
        n = snprintf(out, RP_PATH_SIZE, "%s", given);
    else if (cache && cache[0])
        n = snprintf(out, RP_PATH_SIZE, "%s/refparity/%s", cache, name);
    else if (home && home[0])
        n = snprintf(out, RP_PATH_SIZE, "%s/.cache/refparity/%s", home, name);
    if (n <= 0 || n >= RP_PATH_SIZE)
        out[0] = '\0';
}

static enum rp_status read_stores(struct rp_context *context, struct rp_error *err)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(rp_json_root(context->config), "stores");
    const cJSON *item;
    context->stores = calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof *context->stores);
    if (!context->stores)
        return rp_fail(err, RP_ERR_MEMORY, context->config_path, -1, "not enough memory");
    cJSON_ArrayForEach(item, list)
    {
        if (!cJSON_IsString(item))
            return rp_json_fail(context->config, item, err, RP_ERR_FORMAT, "expected a string");
        context->stores[context->n_stores++] = item->valuestring;
    }
    find_user_folder("REFPARITY_STORE", "store", context->user_store);
    if (context->user_store[0])
        context->stores[context->n_stores++] = context->user_store;
    return RP_OK;
}

static enum rp_status read_targets(struct rp_context *context, struct rp_error *err)
{
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(rp_json_root(context->config), "targets");
    const cJSON *item;
    context->targets = calloc((size_t)cJSON_GetArraySize(map) + 1, sizeof *context->targets);
    if (!context->targets)
        return rp_fail(err, RP_ERR_MEMORY, context->config_path, -1, "not enough memory");
    cJSON_ArrayForEach(item, map)
    {
        if (!cJSON_IsString(item))
            return rp_json_fail(context->config, item, err, RP_ERR_FORMAT, "expected a string");
        context->targets[context->n_targets++] =
            (struct rp_target){.name = item->string, .path = item->valuestring};
    }
    return RP_OK;
}

/* Everything in config.json is an absolute path: in a tree that was moved or copied they lead to the old
 * place, where the results of another tree may lie. */
static enum rp_status check_place(const struct rp_context *context, struct rp_error *err)
{
    char folder[RP_PATH_SIZE];
    struct stat build, above;
    if (!realpath(context->config_path, folder))
        return rp_fail(err, RP_ERR_IO, context->config_path, -1, "cannot be found: %s",
                       strerror(errno));
    const bool exists = stat(context->build_dir, &build) == 0;
    for (char *slash; exists && (slash = strrchr(folder, '/')) != NULL;) {
        *slash = '\0';
        if (stat(folder[0] ? folder : "/", &above) == 0 && above.st_dev == build.st_dev &&
            above.st_ino == build.st_ino)
            return RP_OK;
    }
    return rp_fail(err, RP_ERR_MISMATCH, context->config_path, -1,
                   "it was made in the build tree %s, where it is no longer: configure again",
                   context->build_dir);
}

/* REFPARITY_SHARD: from here on the folders are those of the shard. */
static enum rp_status enter_shard(struct rp_context *context, struct rp_error *err)
{
    static const char variable[] = "REFPARITY_SHARD";
    const char *text = getenv(variable);
    if (!text || !text[0])
        return RP_OK;
    struct rp_shard *shard = &context->shard;
    const enum rp_status status = rp_shard_parse(text, variable, shard, err);
    if (status)
        return status;
    if (!FITS(context->shard_work, "%s/shards/%zu-of-%zu", context->work_dir, shard->index,
              shard->count) ||
        !FITS(context->shard_reports, "%s/shards/%zu-of-%zu", context->reports_dir, shard->index,
              shard->count))
        return too_long(err, context->work_dir);
    context->work_dir = context->shard_work;
    context->reports_dir = context->shard_reports;
    return RP_OK;
}

static enum rp_status open_config(const char *config_path, struct rp_context *context,
                                  const char **matrix_path, struct rp_error *err)
{
    memset(context, 0, sizeof *context);
    if (!FITS(context->config_path, "%s", config_path))
        return too_long(err, config_path);
    enum rp_status status = rp_json_parse_file(config_path, &context->config, err);
    const struct {
        const char *key;
        const char **out;
    } strings[] = {{"matrix", matrix_path},
                   {"prefix", &context->prefix},
                   {"build_dir", &context->build_dir},
                   {"work_dir", &context->work_dir},
                   {"reports_dir", &context->reports_dir},
                   {"record_command", &context->record_command}};
    for (size_t i = 0; !status && i < sizeof strings / sizeof strings[0]; i++)
        status = get_string(context->config, strings[i].key, strings[i].out, err);
    if (!status && cJSON_GetObjectItemCaseSensitive(rp_json_root(context->config), "tool"))
        status = get_string(context->config, "tool", &context->tool, err);
    if (!status)
        status = check_place(context, err);
    if (!status)
        status = enter_shard(context, err);
    if (!status)
        status = read_stores(context, err);
    if (!status)
        status = read_targets(context, err);
    return status;
}

/* All but the session. needs_matrix: whether a matrix that cannot be read is an error, or left out. */
static enum rp_status open_files(const char *config_path, bool needs_matrix,
                                 struct rp_context *context, const char **matrix_path,
                                 struct rp_error *err)
{
    char states[2 * RP_FINGERPRINT_SIZE];
    rp_fingerprint(config_path, states);
    const enum rp_status status = open_config(config_path, context, matrix_path, err);
    if (status)
        return status;
    rp_fingerprint(*matrix_path, states + strlen(states));
    rp_sha256_hex(states, strlen(states), context->state);
    find_user_folder("REFPARITY_MODELS", "models", context->user_models);
    context->models_dir = context->user_models[0] ? context->user_models : NULL;
    context->require = rp_env_flag("REFPARITY_REQUIRE");
    context->reuse = rp_env_flag("REFPARITY_REUSE_DUMPS");
    if (needs_matrix)
        return rp_matrix_load(*matrix_path, &context->matrix, err);
    if (rp_matrix_load(*matrix_path, &context->matrix, NULL))
        context->matrix = NULL;
    return RP_OK;
}

enum rp_status rp_context_open(const char *config_path, struct rp_context *context,
                               struct rp_error *err)
{
    const char *matrix_path = NULL;
    enum rp_status status = open_files(config_path, true, context, &matrix_path, err);
    if (!status)
        status = rp_session_read(context, err);
    if (status)
        rp_context_close(context);
    return status;
}

void rp_context_close(struct rp_context *context)
{
    rp_matrix_free(context->matrix);
    rp_json_free(context->config);
    free(context->stores);
    free(context->targets);
    memset(context, 0, sizeof *context);
}

/* The tests were made of the matrix as it was when CMake read it: entries added since have none, and
 * nothing would say so. */
static enum rp_status check_matrix_is_configured(const struct rp_context *context,
                                                 const char *matrix_path, struct rp_error *err)
{
    const cJSON *configured =
        cJSON_GetObjectItemCaseSensitive(rp_json_root(context->config), "matrix_sha256");
    char now[65];
    if (!cJSON_IsString(configured)) /* made by hand, for one pair */
        return RP_OK;
    const enum rp_status status = rp_sha256_file(matrix_path, now, err);
    if (status || strcmp(now, configured->valuestring) == 0)
        return status;
    return rp_fail(
        err, RP_ERR_MISMATCH, matrix_path, -1,
        "the matrix has changed since the build was configured, so that its tests are those "
        "of the old one: configure again (cmake %s), or build",
        context->build_dir);
}

enum rp_status rp_context_begin_session(const char *config_path, char *reports_dir,
                                        struct rp_error *err)
{
    struct rp_context context;
    const char *matrix_path = NULL;
    enum rp_status status = open_files(config_path, false, &context, &matrix_path, err);
    if (!status && !FITS_PATH(reports_dir, "%s", context.reports_dir))
        status = too_long(err, context.reports_dir);
    if (!status)
        status = rp_session_begin(&context, matrix_path, err);
    if (!status)
        status = check_matrix_is_configured(&context, matrix_path, err);
    rp_context_close(&context);
    return status;
}

void rp_context_model_file(const struct rp_context *context, const struct rp_entry *entry,
                           char *path, char state[RP_FINGERPRINT_SIZE])
{
    state[0] = '\0';
    if (!entry->engine_gguf ||
        rp_entry_gguf(context->matrix, entry, context->models_dir, path, RP_PATH_SIZE, NULL))
        path[0] = '\0';
    else
        rp_fingerprint(path, state);
}

enum rp_status rp_pair_paths(const struct rp_context *context, const struct rp_pair *pair,
                             struct rp_pair_paths *paths, struct rp_error *err)
{
    if (FITS(paths->dir, "%s/pairs/%s", context->work_dir, pair->name) &&
        FITS(paths->dump, "%s/dump", paths->dir) &&
        FITS(paths->record, "%s/run.json", paths->dir) &&
        FITS(paths->result, "%s/result.json", paths->dir) &&
        FITS(paths->verdicts, "%s/verdicts", paths->dir) &&
        FITS(paths->log, "%s/engine.log", paths->dir) &&
        FITS(paths->tokens_file, "%s/tokens.txt", paths->dir) &&
        FITS(paths->prompt_file, "%s/prompt.txt", paths->dir) &&
        FITS(paths->diff, "%s/%s.diff", context->reports_dir, pair->report_stem))
        return RP_OK;
    return too_long(err, context->work_dir);
}
