/* See run.h. */
#include "run/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "matrix/expand.h"
#include "refparity/gguf.h"
#include "run/fixture.h"
#include "run/inputs.h"

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The command of one run, expanded. */
struct command {
    char **argv; /* NULL-terminated */
    char **env;  /* "NAME=VALUE", NULL-terminated */
    char program[RP_PATH_SIZE];
    char gguf[RP_PATH_SIZE]; /* "": none */
};

static void command_free(struct command *command)
{
    for (size_t i = 0; command->argv && command->argv[i]; i++)
        free(command->argv[i]);
    for (size_t i = 0; command->env && command->env[i]; i++)
        free(command->env[i]);
    free(command->argv);
    free(command->env);
}

static const char *lookup_env(void *context, const char *name)
{
    (void)context;
    return getenv(name);
}

static const char *lookup_target(void *context, const char *name)
{
    const struct rp_context *c = context;
    for (size_t i = 0; i < c->n_targets; i++)
        if (strcmp(c->targets[i].name, name) == 0)
            return c->targets[i].path;
    return NULL;
}

/* "all", or the entry's positions as a comma list. */
static char *positions_text(const struct rp_entry *entry)
{
    const size_t size = 8 + 21 * entry->n_positions;
    char *text = malloc(size);
    if (!text)
        return NULL;
    size_t n = (size_t)snprintf(text, size, "%s", entry->n_positions ? "" : "all");
    for (size_t i = 0; i < entry->n_positions; i++)
        n += (size_t)snprintf(text + n, size - n, "%s%lld", i ? "," : "",
                              (long long)entry->positions[i]);
    return text;
}

static enum rp_status expand_env(const struct rp_env *variable, const struct rp_expansion *values,
                                 char **out, struct rp_error *err)
{
    char *value;
    const enum rp_status status = rp_expand(variable->value, values, &value, err);
    if (status)
        return status;
    const size_t size = strlen(variable->name) + strlen(value) + 2;
    *out = malloc(size);
    if (*out)
        snprintf(*out, size, "%s=%s", variable->name, value);
    free(value);
    return *out ? RP_OK : rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory");
}

static enum rp_status expand_command(const struct rp_context *context, const struct rp_pair *pair,
                                     const struct rp_pair_paths *paths, struct command *command,
                                     struct rp_error *err)
{
    const struct rp_engine *engine = pair->entry->engine;
    char *positions = positions_text(pair->entry);
    char processors[16];
    snprintf(processors, sizeof processors, "%d", engine->processors);
    const struct rp_expansion values = {.gguf = command->gguf[0] ? command->gguf : NULL,
                                        .prompt = pair->prompt->text,
                                        .prompt_file = paths->prompt_file,
                                        .tokens_file = paths->tokens_file,
                                        .dump = paths->dump,
                                        .mode = pair->mode,
                                        .positions = positions,
                                        .threads = processors,
                                        .env = lookup_env,
                                        .target = lookup_target,
                                        .context = (void *)context};
    command->argv = calloc(engine->n_argv + 1, sizeof *command->argv);
    command->env = calloc(engine->n_env + 1, sizeof *command->env);
    enum rp_status status = RP_OK;
    if (!command->argv || !command->env || !positions)
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory");
    for (size_t i = 0; !status && i < engine->n_argv; i++)
        status = rp_expand(engine->argv[i], &values, &command->argv[i], err);
    for (size_t i = 0; !status && i < engine->n_env; i++)
        status = expand_env(&engine->env[i], &values, &command->env[i], err);
    free(positions);
    return status;
}

/* argv[0] with a '/' that is not absolute is relative to the matrix's folder. */
static enum rp_status find_program(const struct rp_context *context, struct command *command,
                                   struct rp_error *err)
{
    const char *program = command->argv[0];
    char relative[RP_PATH_SIZE];
    if (program[0] != '/' && strchr(program, '/')) {
        const char *matrix = rp_matrix_path(context->matrix);
        const char *slash = strrchr(matrix, '/');
        const int folder = slash ? (int)(slash - matrix) : 1;
        if ((size_t)snprintf(relative, sizeof relative, "%.*s/%s", folder, slash ? matrix : ".",
                             program) >= sizeof relative)
            return rp_fail(err, RP_ERR_ARGUMENT, program, -1, "the path is too long");
        program = relative;
    }
    return rp_find_program(program, command->program, sizeof command->program, err);
}

/* The GGUF has to have the layers that the matrix declares; layers for multi-token prediction,
 * which run after the decoder, do not count. */
static enum rp_status check_gguf_layers(const char *path, const struct rp_entry *entry,
                                        struct rp_error *err)
{
    struct rp_gguf *gguf;
    enum rp_status status = rp_gguf_open(path, &gguf, err);
    if (status)
        return status;
    struct rp_gguf_string architecture;
    char key[128];
    int64_t n_layers = 0, n_mtp = 0;
    status = rp_gguf_get_string(gguf, "general.architecture", &architecture, err);
    if (!status) {
        snprintf(key, sizeof key, "%.*s.block_count",
                 (int)(architecture.length < 64 ? architecture.length : 64), architecture.data);
        status = rp_gguf_get_int(gguf, key, 1, INT32_MAX, &n_layers, err);
    }
    if (!status) {
        snprintf(key, sizeof key, "%.*s.nextn_predict_layers",
                 (int)(architecture.length < 64 ? architecture.length : 64), architecture.data);
        if (rp_gguf_find_value(gguf, key))
            status = rp_gguf_get_int(gguf, key, 0, n_layers, &n_mtp, err);
    }
    if (status == RP_ERR_MISSING) /* the file is there, so nothing that a SKIP would cover */
        status = err->code = RP_ERR_FORMAT;
    if (!status && n_layers - n_mtp != entry->n_layers)
        status = rp_fail(err, RP_ERR_MISMATCH, path, -1,
                         "the GGUF has %lld layers, the matrix says n_layers %d",
                         (long long)(n_layers - n_mtp), entry->n_layers);
    rp_gguf_close(gguf);
    return status;
}

static enum rp_status write_tokens(const struct rp_tensor_set *fixture, const char *path,
                                   struct rp_error *err)
{
    const int64_t *ids;
    size_t n;
    enum rp_status status = rp_tensor_set_tokens(fixture, &ids, &n, err);
    if (status)
        return status;
    char *text = malloc(21 * n + 1);
    if (!text)
        return rp_fail(err, RP_ERR_MEMORY, path, -1, "not enough memory");
    size_t used = 0;
    for (size_t i = 0; i < n; i++)
        used += (size_t)snprintf(text + used, 21 * (n - i) + 1, "%lld\n", (long long)ids[i]);
    status = rp_file_write_atomic(path, text, used, err);
    free(text);
    return status;
}

/* Everything that has to be true before the engine is started. */
static enum rp_status prepare(const struct rp_context *context, const struct rp_pair *pair,
                              const struct rp_pair_paths *paths, struct command *command,
                              struct rp_error *err)
{
    const struct rp_entry *entry = pair->entry;
    if (entry->disabled)
        return rp_fail(err, RP_ERR_MISSING, NULL, -1, "disabled in the matrix%s%s",
                       entry->disabled_reason ? ": " : "",
                       entry->disabled_reason ? entry->disabled_reason : "");
    enum rp_status status = RP_OK;
    if (entry->engine_gguf)
        status = rp_entry_gguf(context->matrix, entry, context->models_dir, command->gguf,
                               sizeof command->gguf, err);
    if (!status && entry->engine_gguf)
        status = check_gguf_layers(command->gguf, entry, err);
    if (!status)
        status = expand_command(context, pair, paths, command, err);
    if (!status)
        status = find_program(context, command, err);
    if (status)
        return status;
    struct rp_tensor_set *fixture;
    char path[RP_PATH_SIZE];
    status = rp_fixture_open(context, pair, &fixture, path, err);
    if (!status)
        status = write_tokens(fixture, paths->tokens_file, err);
    if (!status)
        status =
            rp_file_write_atomic(paths->prompt_file, pair->prompt->text, pair->prompt->length, err);
    rp_tensor_set_close(fixture);
    return status;
}

static void describe(const struct rp_error *failure, struct rp_run_record *record)
{
    rp_error_text(failure, record->reason, sizeof record->reason);
    record->outcome = failure->code == RP_ERR_MISSING ? RP_RUN_SKIPPED : RP_RUN_ERROR;
}

static int can_reuse(const struct rp_run_record *old, const char *key)
{
    return old->key[0] && strcmp(old->key, key) == 0 && old->process.exit_code == 0 &&
           (old->outcome == RP_RUN_RAN || old->outcome == RP_RUN_REUSED);
}

static enum rp_status start_engine(const struct rp_pair *pair, const struct rp_pair_paths *paths,
                                   const struct command *command, struct rp_run_record *record,
                                   struct rp_error *err)
{
    enum rp_status status = rp_remove_tree(paths->dump, err);
    if (!status)
        status = rp_make_dirs(paths->dump, err);
    if (status)
        return status;
    char **argv = command->argv;
    free(argv[0]);
    argv[0] = strdup(command->program);
    if (!argv[0])
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory");
    const struct rp_process_spec spec = {.argv = argv,
                                         .env = command->env,
                                         .cwd = paths->dir,
                                         .log_path = paths->log,
                                         .timeout_s = pair->entry->engine->timeout_s};
    record->outcome = RP_RUN_RAN;
    record->timeout_s = spec.timeout_s;
    return rp_process_run(&spec, &record->process, err);
}

static enum rp_status compute_key(const struct rp_context *context,
                                  const struct rp_pair_paths *paths, const struct command *command,
                                  char key[65], struct rp_error *err)
{
    char cache_dir[RP_PATH_SIZE];
    const enum rp_status status =
        rp_path_join(cache_dir, sizeof cache_dir, context->work_dir, "hashes", err);
    if (status)
        return status;
    const struct rp_inputs inputs = {.program = command->program,
                                     .argv = command->argv,
                                     .env = command->env,
                                     .gguf = command->gguf[0] ? command->gguf : NULL,
                                     .tokens_file = paths->tokens_file,
                                     .prompt_file = paths->prompt_file,
                                     .cache_dir = cache_dir};
    return rp_inputs_key(&inputs, key, err);
}

enum rp_status rp_run_pair(const struct rp_context *context, const struct rp_pair *pair,
                           struct rp_run_record *record, struct rp_error *err)
{
    const double start = seconds();
    struct rp_pair_paths paths;
    struct command command = {0};
    struct rp_run_record old = {0};
    struct rp_error failure = {.code = RP_OK};
    memset(record, 0, sizeof *record);
    enum rp_status status = rp_pair_paths(context, pair, &paths, err);
    if (!status)
        status = rp_make_dirs(paths.dir, err);
    if (status)
        return status;
    if (context->reuse && rp_run_record_read(paths.record, &old, NULL))
        memset(&old, 0, sizeof old);
    /* From here until the new record is complete there is none: a test that reads this folder
     * after an interrupted run finds that out instead of an old dump. */
    unlink(paths.record);
    unlink(paths.result);

    status = prepare(context, pair, &paths, &command, &failure);
    if (!status && context->reuse)
        status = compute_key(context, &paths, &command, record->key, &failure);
    if (!status && context->reuse && can_reuse(&old, record->key)) {
        *record = old;
        record->outcome = RP_RUN_REUSED;
    } else if (!status) {
        status = start_engine(pair, &paths, &command, record, &failure);
    }
    if (status)
        describe(&failure, record);
    snprintf(record->session, sizeof record->session, "%s", context->session);
    record->harness_s =
        seconds() - start - (record->outcome == RP_RUN_RAN ? record->process.wall_s : 0);
    command_free(&command);
    return rp_run_record_write(paths.record, record, err);
}
