/* See reference_record.h. */
#include "run/reference_record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/process.h"
#include "base/sha256.h"
#include "matrix/store.h"
#include "refparity/gguf.h"
#include "run/command.h"
#include "run/fixture.h"
#include "run/inputs.h"
#include "run/reference.h"
#include "tensor/npz_write.h"

/* What is run, and what comes of it. */
struct recording {
    const struct rp_context *context;
    const struct rp_pair *pair;
    struct rp_entry entry; /* of run */
    struct rp_pair run;
    char folder[RP_PATH_SIZE]; /* whose lock is held; paths are below it */
    struct rp_pair_paths paths;
    struct rp_command command;
    struct rp_process_result process;
    struct rp_reference_origin origin;
};

/* Below work_dir. */
static enum rp_status make_paths(struct recording *recording, struct rp_error *err)
{
    struct rp_pair_paths *paths = &recording->paths;
    char name[RP_PATH_SIZE];
    const struct rp_pair *pair = recording->pair;
    snprintf(name, sizeof name, "references/%s/%s", pair->entry->name, pair->prompt->id);
    enum rp_status status = rp_pair_paths(recording->context, pair, paths, err);
    if (!status)
        status = rp_path_join(recording->folder, sizeof recording->folder,
                              recording->context->work_dir, name, err);
    if (!status)
        status = rp_path_join(paths->dir, sizeof paths->dir, recording->folder, "run", err);
    if (!status)
        status = rp_path_join(paths->dump, sizeof paths->dump, paths->dir, "dump", err);
    if (!status)
        status = rp_path_join(paths->log, sizeof paths->log, paths->dir, "engine.log", err);
    if (!status)
        status = rp_path_join(paths->prompt_file, sizeof paths->prompt_file, paths->dir,
                              "prompt.txt", err);
    return status;
}

/* ---- what it is made of ---- */

struct share {
    uint32_t type;
    size_t bytes;
};

static int by_bytes(const void *a, const void *b)
{
    const struct share *x = a, *y = b;
    return (x->bytes < y->bytes) - (x->bytes > y->bytes);
}

static void describe_weights(const struct rp_gguf *file, struct rp_reference_origin *origin)
{
    struct share shares[64];
    size_t n = 0, used = 0;
    for (size_t i = 0; i < rp_gguf_n_tensors(file); i++) {
        const struct rp_gguf_tensor *tensor = rp_gguf_tensor(file, i);
        size_t k = 0;
        if (tensor->n_dims < 2)
            continue;
        origin->is_coarse |= tensor->row_bytes < tensor->dims[0];
        while (k < n && shares[k].type != tensor->type)
            k++;
        if (k == sizeof shares / sizeof shares[0])
            continue;
        if (k == n)
            shares[n++] = (struct share){.type = tensor->type, .bytes = 0};
        shares[k].bytes += tensor->row_bytes * tensor->n_rows;
    }
    qsort(shares, n, sizeof shares[0], by_bytes);
    for (size_t i = 0; i < n && used < sizeof origin->weights; i++)
        used += (size_t)snprintf(origin->weights + used, sizeof origin->weights - used, "%s%s",
                                 i ? ", " : "", rp_ggml_type_name(shares[i].type));
}

/* All but what the dump says. */
static enum rp_status describe(struct recording *recording, struct rp_error *err)
{
    struct rp_reference_origin *origin = &recording->origin;
    const struct rp_command *command = &recording->command;
    struct rp_gguf *file;
    snprintf(origin->engine, sizeof origin->engine, "%s", recording->entry.engine->name);
    snprintf(origin->mode, sizeof origin->mode, "%s",
             recording->run.mode ? recording->run.mode : "");
    rp_command_text(command, recording->paths.dir, origin->command, sizeof origin->command);
    enum rp_status status = rp_sha256_file(command->program, origin->program_sha256, err);
    if (status || !command->gguf[0])
        return status;
    rp_model_file_id(command->gguf, origin->model);
    status = rp_gguf_open(command->gguf, &file, err);
    if (status)
        return status;
    describe_weights(file, origin);
    rp_gguf_close(file);
    return RP_OK;
}

/* ---- the dump ---- */

/* Each required slot at every position: all of the tokens', or those that the entry lists. */
static enum rp_status check_slots(const struct rp_tensor_set *dump, const struct rp_entry *entry,
                                  size_t n_positions, struct rp_error *err)
{
    char name[RP_SLOT_NAME_SIZE];
    const char *where = rp_tensor_set_path(dump);
    for (size_t i = 0; rp_required_slot(entry->n_layers, i, name); i++) {
        const struct rp_slot_info *slot = rp_tensor_set_find(dump, name);
        if (!slot)
            return rp_fail(err, RP_ERR_FORMAT, where, -1,
                           "a reference has every required slot, and this dump has no %s", name);
        if (slot->error.code) {
            *err = slot->error;
            return err->code;
        }
        if (slot->n_positions != n_positions)
            return rp_fail(err, RP_ERR_FORMAT, where, -1,
                           "a reference has every slot at every position: %s has %zu of %zu", name,
                           slot->n_positions, n_positions);
    }
    return RP_OK;
}

static enum rp_status open_dump(const struct recording *recording, struct rp_tensor_set **dump,
                                struct rp_error *err)
{
    const struct rp_entry *entry = &recording->entry;
    const char *path = recording->paths.dump;
    enum rp_status status = rp_tensor_set_open(path, entry->engine->layout, 0, dump, err);
    if (status)
        return status;
    const int declared = rp_tensor_set_n_layers(*dump), seen = rp_tensor_set_n_layers_seen(*dump);
    if ((declared >= 0 && declared != entry->n_layers) || seen > entry->n_layers)
        status = rp_fail(err, RP_ERR_FORMAT, path, -1,
                         "the dump has %d layers, the matrix says n_layers %d",
                         declared >= 0 ? declared : seen, entry->n_layers);
    else if (!rp_tensor_set_complete(*dump))
        status = rp_fail(err, RP_ERR_FORMAT, path, -1,
                         "the engine left its dump incomplete: rp_dump_close was not reached");
    if (status) {
        rp_tensor_set_close(*dump);
        *dump = NULL;
    }
    return status;
}

/* dump.json's "engine" as the program's own words. */
static void read_program(const struct rp_tensor_set *dump, struct rp_reference_origin *origin)
{
    size_t length;
    struct rp_json *doc;
    const char *text = rp_tensor_set_manifest(dump, &length);
    if (!text || rp_json_parse(text, length, rp_tensor_set_path(dump), &doc, NULL) != RP_OK)
        return;
    snprintf(origin->program, sizeof origin->program, "%s",
             rp_json_text(rp_json_root(doc), "engine"));
    rp_json_free(doc);
}

static enum rp_status make_manifest(const struct recording *recording, char **text,
                                    struct rp_error *err)
{
    const struct rp_entry *entry = recording->pair->entry;
    const struct rp_prompt *prompt = recording->pair->prompt;
    char sha256[65];
    cJSON *root = cJSON_CreateObject();
    rp_sha256_hex(prompt->text, prompt->length, sha256);
    cJSON_AddStringToObject(root, "format", "refparity-fixture");
    cJSON_AddNumberToObject(root, "version", 1);
    cJSON_AddStringToObject(root, "hf_model", entry->hf_model);
    cJSON_AddStringToObject(root, "revision", entry->revision);
    cJSON_AddStringToObject(root, "weights", "engine");
    enum rp_status status = rp_reference_origin_write(&recording->origin, root, err);
    cJSON_AddStringToObject(root, "prompt", prompt->text);
    cJSON_AddStringToObject(root, "prompt_sha256", sha256);
    cJSON_AddStringToObject(root, "slots", rp_slot_level_name(rp_pair_slots(&recording->run)));
    cJSON_AddNumberToObject(root, "n_layers", entry->n_layers);
    *text = status ? NULL : cJSON_Print(root);
    cJSON_Delete(root);
    if (!status && !*text)
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory");
    return status;
}

static enum rp_status write_fixture(const struct recording *recording, struct rp_tensor_set *dump,
                                    const char *path, struct rp_error *err)
{
    const struct rp_entry *entry = &recording->entry;
    const int64_t *ids;
    size_t n = 0;
    char *manifest = NULL;
    int64_t *all = NULL;
    enum rp_status status = rp_tensor_set_tokens(dump, &ids, &n, err);
    const size_t n_positions = entry->n_positions ? entry->n_positions : n;
    if (!status)
        status = check_slots(dump, entry, n_positions, err);
    if (!status)
        status = make_manifest(recording, &manifest, err);
    if (!status) {
        all = calloc(n + 1, sizeof *all);
        if (!all)
            status = rp_fail(err, RP_ERR_MEMORY, path, -1, "not enough memory");
    }
    for (size_t i = 0; all && i < n; i++)
        all[i] = (int64_t)i;
    if (!status)
        status = rp_npz_write(path, dump, manifest, entry->n_positions ? entry->positions : all,
                              n_positions, err);
    free(all);
    free(manifest);
    return status;
}

/* ---- running it ---- */

static enum rp_status run_engine(struct recording *recording, struct rp_error *err)
{
    struct rp_command *command = &recording->command;
    const struct rp_pair_paths *paths = &recording->paths;
    char text[256];
    free(command->argv[0]);
    command->argv[0] = strdup(command->program);
    if (!command->argv[0])
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory");
    const struct rp_process_spec spec = {
        .argv = command->argv, .env = command->env, .cwd = paths->dir, .log_path = paths->log};
    const enum rp_status status = rp_process_run(&spec, &recording->process, err);
    if (status || recording->process.exit_code == 0)
        return status;
    return rp_fail(err, RP_ERR_FORMAT, paths->log, -1, "engine %s %s: see its log",
                   recording->entry.engine->name,
                   rp_process_text(&recording->process, 0, text, sizeof text));
}

/* Runs the engine into a folder that is removed where all went well. */
static enum rp_status make(struct recording *recording, const char *path, struct rp_error *err)
{
    const struct rp_pair_paths *paths = &recording->paths;
    const struct rp_prompt *prompt = recording->pair->prompt;
    struct rp_tensor_set *dump = NULL;
    char folder[RP_PATH_SIZE];
    snprintf(folder, sizeof folder, "%s", path);
    *strrchr(folder, '/') = '\0';
    enum rp_status status = rp_remove_tree(paths->dir, err);
    if (!status)
        status = rp_make_dirs(paths->dump, err);
    if (!status)
        status = rp_file_write_atomic(paths->prompt_file, prompt->text, prompt->length, err);
    if (!status)
        status = describe(recording, err);
    if (!status)
        status = run_engine(recording, err);
    if (!status)
        status = open_dump(recording, &dump, err);
    if (!status) {
        read_program(dump, &recording->origin);
        status = rp_make_dirs(folder, err);
    }
    if (!status)
        status = write_fixture(recording, dump, path, err);
    rp_tensor_set_close(dump);
    if (status == RP_ERR_MISSING) /* engine and file were there: nothing to skip */
        status = err->code = RP_ERR_FORMAT;
    return status ? status : rp_remove_tree(paths->dir, err);
}

/* Is there one that need not be made again? */
static bool is_valid(const struct recording *recording, struct rp_recorded_reference *recorded)
{
    struct rp_tensor_set *fixture;
    struct rp_json *doc;
    struct rp_reference_origin origin;
    enum rp_slot_level level = RP_SLOTS_LAYERS;
    size_t length;
    char sha256[65];
    if (rp_fixture_open(recording->context, recording->pair, &fixture, recorded->path, NULL))
        return false;
    const char *text = rp_tensor_set_manifest(fixture, &length);
    if (rp_json_parse(text, length, recorded->path, &doc, NULL) == RP_OK) {
        (void)rp_slot_level_parse(rp_json_text(rp_json_root(doc), "slots"), &level, NULL);
        rp_json_free(doc);
    }
    recorded->is_of_another_build =
        rp_reference_origin_read(fixture, &origin, NULL) == RP_OK &&
        rp_sha256_file(recording->command.program, sha256, NULL) == RP_OK &&
        strcmp(sha256, origin.program_sha256) != 0;
    rp_tensor_set_close(fixture);
    return level >= rp_pair_slots(&recording->run);
}

enum rp_status rp_reference_record(const struct rp_context *context, const struct rp_pair *pair,
                                   bool force, struct rp_recorded_reference *recorded,
                                   struct rp_error *err)
{
    memset(recorded, 0, sizeof *recorded);
    struct recording *recording = calloc(1, sizeof *recording);
    if (!recording)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory");
    recording->context = context;
    recording->pair = pair;
    rp_pair_reference_run(pair, &recording->entry, &recording->run);
    enum rp_status status = make_paths(recording, err);
    if (!status)
        status = rp_make_dirs(recording->folder, err);
    const int lock = status ? -1 : rp_folder_lock(recording->folder); /* who waits finds it valid */
    if (!status)
        status =
            rp_command_make(context, &recording->run, &recording->paths, &recording->command, err);
    if (!force && (!status || status == RP_ERR_MISSING) && is_valid(recording, recorded)) {
        status = RP_OK; /* of an engine that is not here, perhaps */
    } else if (!status) {
        status = rp_reference_path(context, pair, recorded->path, err);
        if (!status)
            status = make(recording, recorded->path, err);
        recorded->is_new = true;
        recorded->seconds = recording->process.wall_s;
    }
    rp_folder_unlock(lock);
    rp_command_free(&recording->command);
    free(recording);
    return status;
}
