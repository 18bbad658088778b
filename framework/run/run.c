/* See run.h. */
#include "run/run.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "refparity/gguf.h"
#include "run/command.h"
#include "run/completeness.h"
#include "run/fixture.h"
#include "run/inputs.h"
#include "run/judge_weights.h"
#include "run/selection.h"
#include "weights/prediction_layers.h"

/* The GGUF has to have the layers that the matrix declares; layers for multi-token prediction,
 * which run after the decoder, do not count. */
static enum rp_status check_gguf_layers(const char *path, const struct rp_entry *entry,
                                        struct rp_error *err)
{
    struct rp_gguf *gguf;
    enum rp_status status = rp_gguf_open(path, &gguf, err);
    if (status)
        return status;
    size_t n_layers = 0, n_behind;
    status = rp_gguf_count_layers(gguf, INT32_MAX, &n_layers, &n_behind, err);
    if (status == RP_ERR_MISSING) /* the file is there, so nothing that a SKIP would cover */
        status = err->code = RP_ERR_FORMAT;
    if (!status && (int64_t)n_layers != entry->n_layers)
        status = rp_fail(err, RP_ERR_MISMATCH, path, -1,
                         "the GGUF has %zu layers, the matrix says n_layers %d: mend n_layers, or "
                         "engine_gguf",
                         n_layers, entry->n_layers);
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
                              const struct rp_pair_paths *paths, struct rp_command *command,
                              struct rp_run_record *record, struct rp_error *err)
{
    const struct rp_entry *entry = pair->entry;
    if (entry->disabled)
        return rp_fail(err, RP_ERR_MISSING, NULL, -1, "disabled in the matrix%s%s",
                       entry->disabled_reason ? ": " : "",
                       entry->disabled_reason ? entry->disabled_reason : "");
    enum rp_status status = rp_command_make(context, pair, paths, command, err);
    if (!status && command->gguf[0])
        status = check_gguf_layers(command->gguf, entry, err);
    if (status)
        return status;
    struct rp_tensor_set *fixture;
    rp_context_model_file(context, entry, record->model, record->model_state);
    status = rp_fixture_open(context, pair, &fixture, record->fixture, err);
    if (!status)
        rp_fingerprint(record->fixture, record->fixture_state);
    else
        record->fixture[0] = '\0';
    if (!status)
        status = write_tokens(fixture, paths->tokens_file, err);
    else if (status == RP_ERR_MISSING && !rp_pair_needs_fixture(pair))
        status = rp_file_write_atomic(paths->tokens_file, NULL, 0, err);
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

/* After an end that the entry accepts, a dump is as good as another if it is complete. */
static bool ended_complete(const struct rp_run_record *old, const struct rp_entry *entry,
                           const char *dump)
{
    struct rp_tensor_set *set;
    char why[256];
    if (old->process.exit_code == 0)
        return true;
    if (!rp_ended_as_accepted(entry, &old->process) ||
        rp_tensor_set_open(dump, entry->engine->layout, 0, &set, NULL))
        return false;
    const bool complete = rp_dump_is_complete(set, entry, NULL, why, sizeof why);
    rp_tensor_set_close(set);
    return complete;
}

/* A dump that has changed since, or was copied, is no reason to complain: the engine runs again. */
static int can_reuse(const struct rp_run_record *old, const struct rp_entry *entry,
                     const char *dump, const char *key)
{
    char state[RP_FINGERPRINT_SIZE];
    rp_fingerprint(dump, state);
    return key[0] && state[0] && strcmp(state, old->dump_state) == 0 &&
           strcmp(old->key, key) == 0 && ended_complete(old, entry, dump) &&
           (old->outcome == RP_RUN_RAN || old->outcome == RP_RUN_REUSED);
}

/* Each run dumps into a folder of its own: what an earlier run has left behind, should it still be alive,
 * writes elsewhere. */
static const char new_dump[] = "dump.run-";

static enum rp_status make_new_dump(const struct rp_pair_paths *paths, char *path,
                                    struct rp_error *err)
{
    char name[RP_PATH_SIZE];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(name, sizeof name, "%s%lld.%09ld-%ld", new_dump, (long long)now.tv_sec, now.tv_nsec,
             (long)getpid());
    enum rp_status status = rp_path_join(path, RP_PATH_SIZE, paths->dir, name, err);
    if (!status && mkdir(path, 0777))
        status = rp_fail(err, RP_ERR_IO, path, -1, "cannot make the folder: %s", strerror(errno));
    return status;
}

/* Earlier dumps, those of interrupted runs among them. */
static enum rp_status remove_dumps(const struct rp_pair_paths *paths, struct rp_error *err)
{
    enum rp_status status = rp_remove_tree(paths->dump, err);
    DIR *folder = opendir(paths->dir);
    const struct dirent *item;
    while (!status && folder && (item = readdir(folder)) != NULL) {
        char path[RP_PATH_SIZE];
        if (strncmp(item->d_name, new_dump, sizeof new_dump - 1) != 0)
            continue;
        status = rp_path_join(path, sizeof path, paths->dir, item->d_name, err);
        if (!status)
            status = rp_remove_tree(path, err);
    }
    if (folder)
        closedir(folder);
    return status;
}

/* The run is over: its dump takes the place where it is looked for. One that the engine has removed is
 * missing there, and every test says so. */
static enum rp_status take_dump(const char *path, const struct rp_pair_paths *paths,
                                struct rp_error *err)
{
    struct stat info;
    if (lstat(path, &info) != 0 && (errno == ENOENT || errno == ENOTDIR))
        return RP_OK;
    if (!S_ISDIR(info.st_mode))
        return rp_fail(err, RP_ERR_IO, path, -1,
                       "the engine has put something else in the place of its dump folder");
    enum rp_status status = rp_remove_tree(paths->dump, err);
    if (!status && rename(path, paths->dump))
        status = rp_fail(err, RP_ERR_IO, path, -1, "cannot be renamed to %s: %s", paths->dump,
                         strerror(errno));
    return status;
}

/* Runs the engine's command, made for the new folder that it dumps into. */
static enum rp_status run_engine(const struct rp_context *context, const struct rp_pair *pair,
                                 const struct rp_pair_paths *run_paths,
                                 struct rp_run_record *record, struct rp_error *err)
{
    struct rp_command command;
    enum rp_status status = rp_command_make(context, pair, run_paths, &command, err);
    if (!status) {
        free(command.argv[0]);
        command.argv[0] = strdup(command.program);
        if (!command.argv[0])
            status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory");
    }
    if (!status) {
        const struct rp_process_spec spec = {.argv = command.argv,
                                             .env = command.env,
                                             .cwd = run_paths->dir,
                                             .log_path = run_paths->log,
                                             .timeout_s = record->timeout_s};
        status = rp_process_run(&spec, &record->process, err);
    }
    rp_command_free(&command);
    if (status == RP_ERR_MISSING) /* the program was found, so it is broken: nothing to skip */
        status = err->code = RP_ERR_IO;
    return status;
}

/* Writes that the run is under way, then runs the engine. */
static enum rp_status start_engine(const struct rp_context *context, const struct rp_pair *pair,
                                   const struct rp_pair_paths *paths, struct rp_run_record *record,
                                   struct rp_error *err)
{
    struct rp_pair_paths run_paths = *paths;
    enum rp_status status = remove_dumps(paths, err);
    if (!status)
        status = make_new_dump(paths, run_paths.dump, err);
    if (status)
        return status;
    record->timeout_s = pair->entry->engine->timeout_s;
    record->outcome = RP_RUN_STARTED;
    status = rp_run_record_write(context, pair, paths->record, record, err);
    if (status)
        return status;
    record->outcome = RP_RUN_RAN;
    status = run_engine(context, pair, &run_paths, record, err);
    if (!status)
        status = take_dump(run_paths.dump, paths, err);
    rp_fingerprint(paths->dump, record->dump_state);
    return status;
}

static enum rp_status compute_key(const struct rp_context *context,
                                  const struct rp_pair_paths *paths,
                                  const struct rp_command *command, char key[65],
                                  struct rp_error *err)
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
                                     .dump = paths->dump,
                                     .cache_dir = cache_dir};
    return rp_inputs_key(&inputs, key, err);
}

/* From here until the engine is started there is no record: an interrupted run leaves nothing that could
 * be taken for the end of one. */
static enum rp_status remove_results(const struct rp_pair_paths *paths, struct rp_error *err)
{
    enum rp_status status = rp_remove_tree(paths->record, err);
    if (!status)
        status = rp_remove_tree(paths->result, err);
    (void)rp_remove_tree(paths->verdicts, NULL); /* stale from now on, so nobody believes them */
    return status;
}

/* What <entry>/weights says, where the gate rests on it. */
static void find_weights(const struct rp_context *context, const struct rp_entry *entry,
                         struct rp_run_record *record)
{
    record->weights = RP_PASS;
    record->weights_message[0] = '\0';
    if (entry->gate == RP_GATE_EXPLAINED)
        record->weights = rp_judge_weights_once(context, entry, record->weights_message,
                                                sizeof record->weights_message);
}

enum rp_status rp_run_pair(const struct rp_context *context, const struct rp_pair *pair,
                           struct rp_run_record *record, struct rp_error *err)
{
    const double start = rp_clock_seconds();
    struct rp_pair_paths paths;
    struct rp_command command = {0};
    struct rp_run_record old = {0};
    struct rp_error failure = {.code = RP_OK};
    memset(record, 0, sizeof *record);
    enum rp_status status = rp_pair_paths(context, pair, &paths, err);
    if (!status)
        status = rp_selection_add(context, pair, err);
    if (!status)
        status = rp_make_dirs(paths.dir, err);
    if (status)
        return status;
    /* Two runs at once, of two ctests in one build tree, would mix their dumps. The engine's supervisor
     * inherits the lock: after an interrupted run it is held until the last process of it has ended. */
    const int lock = rp_folder_lock(paths.dir);
    if (context->reuse && rp_run_record_read(context, pair, paths.record, &old, NULL))
        memset(&old, 0, sizeof old);
    status = remove_results(&paths, err);
    if (status) {
        rp_folder_unlock(lock);
        return status;
    }
    snprintf(record->session, sizeof record->session, "%s", context->session);
    status = prepare(context, pair, &paths, &command, record, &failure);
    if (!status)
        rp_command_text(&command, paths.dir, record->command, sizeof record->command);
    if (!status && context->reuse)
        status = compute_key(context, &paths, &command, record->key, &failure);
    if (!status && context->reuse && can_reuse(&old, pair->entry, paths.dump, record->key)) {
        memcpy(old.fixture, record->fixture, sizeof old.fixture);
        memcpy(old.fixture_state, record->fixture_state, sizeof old.fixture_state);
        memcpy(old.model, record->model, sizeof old.model);
        memcpy(old.model_state, record->model_state, sizeof old.model_state);
        *record = old;
        record->outcome = RP_RUN_REUSED;
        snprintf(record->session, sizeof record->session, "%s", context->session);
    } else if (!status) {
        status = start_engine(context, pair, &paths, record, &failure);
    }
    if (status) {
        describe(&failure, record);
    } else {
        find_weights(context, pair->entry, record);
    }
    record->harness_s =
        rp_clock_seconds() - start - (record->outcome == RP_RUN_RAN ? record->process.wall_s : 0);
    rp_command_free(&command);
    (void)rp_remove_tree(paths.verdicts, NULL); /* an engine's, should it have made them */
    status = rp_make_dirs(paths.dir, err);      /* the engine may have removed it */
    if (!status)
        status = rp_run_record_write(context, pair, paths.record, record, err);
    rp_folder_unlock(lock);
    return status;
}
