/* See run/judge_weights.h. */
#include "run/judge_weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "run/find_checkpoint.h"
#include "run/fingerprint.h"

struct counter {
    rp_weights_fn *see;
    void *context;
    size_t n_tensors, n_values, n_wrong, n_not_compared, n_sketched;
    double row_resolution, tensor_resolution; /* the coarsest, where n_sketched > 0 */
    char coarsest[128];                       /* the tensor that has the former */
    char first[512];
};

static void count(void *context, const struct rp_weights_finding *finding)
{
    struct counter *counter = context;
    counter->n_tensors += !finding->is_metadata;
    counter->n_values += finding->is_metadata;
    counter->n_sketched += finding->is_sketched;
    counter->tensor_resolution = fmax(counter->tensor_resolution, finding->tensor_resolution);
    if (finding->row_resolution > counter->row_resolution) {
        counter->row_resolution = finding->row_resolution;
        snprintf(counter->coarsest, sizeof counter->coarsest, "%s", finding->name);
    }
    counter->n_not_compared += finding->is_not_compared;
    counter->n_wrong += !finding->is_right && !finding->is_not_compared;
    if (finding->is_not_compared ? counter->n_not_compared == 1 && counter->n_wrong == 0
                                 : !finding->is_right && counter->n_wrong == 1)
        snprintf(counter->first, sizeof counter->first, "%s", finding->message);
    counter->see(counter->context, finding);
}

static enum rp_verdict unavailable(const struct rp_context *context)
{
    return context->require ? RP_ERROR : RP_SKIP;
}

static enum rp_verdict verdict_of(const struct rp_context *context, enum rp_status status)
{
    return status == RP_ERR_UNSUPPORTED ? unavailable(context) : RP_ERROR;
}

/* What a sketch does not see; false, and "", where none was used. */
static bool say_resolution(const struct counter *counter, char *text, size_t size)
{
    text[0] = '\0';
    if (counter->n_sketched > 0)
        snprintf(text, size,
                 "a row may be off by L2_rel %.2g unseen (%s), all rows of a tensor by %.2g",
                 counter->row_resolution, counter->coarsest, counter->tensor_resolution);
    return counter->n_sketched > 0;
}

static enum rp_verdict compare(const struct rp_context *context, const char *gguf,
                               const char *source, struct counter *counter,
                               char message[RP_WEIGHTS_MESSAGE_SIZE])
{
    struct rp_gguf *file = NULL, *checkpoint = NULL;
    struct rp_error err;
    enum rp_verdict verdict = RP_PASS;
    enum rp_status status = rp_gguf_open(gguf, &file, &err);
    if (status == RP_ERR_MISSING) { /* a shard: the engine is not run either */
        rp_error_text(&err, message, RP_WEIGHTS_MESSAGE_SIZE);
        return unavailable(context);
    }
    if (status == RP_OK)
        status = rp_gguf_open_checkpoint_like(source, file, &checkpoint, &err);
    if (status == RP_OK)
        status = rp_weights_compare(file, checkpoint, count, counter, &err);
    if (status != RP_OK) {
        rp_error_text(&err, message, RP_WEIGHTS_MESSAGE_SIZE);
        verdict = verdict_of(context, status);
    } else if (counter->n_wrong > 0) {
        snprintf(message, RP_WEIGHTS_MESSAGE_SIZE, "%zu of %zu are not the checkpoint's: %s",
                 counter->n_wrong, counter->n_tensors + counter->n_values, counter->first);
        verdict = RP_FAIL;
    } else if (counter->n_not_compared > 0) {
        snprintf(message, RP_WEIGHTS_MESSAGE_SIZE, "%zu of %zu tensors are not compared: %s",
                 counter->n_not_compared, counter->n_tensors, counter->first);
        verdict = unavailable(context);
    } else {
        const int n = snprintf(message, RP_WEIGHTS_MESSAGE_SIZE,
                               "%zu tensors and %zu metadata values are the checkpoint's",
                               counter->n_tensors, counter->n_values);
        char resolution[256];
        if (say_resolution(counter, resolution, sizeof resolution))
            snprintf(message + n, RP_WEIGHTS_MESSAGE_SIZE - (size_t)n,
                     ", %zu of the tensors by its sketch, resolution: %s", counter->n_sketched,
                     resolution);
    }
    rp_gguf_close(file);
    rp_gguf_close(checkpoint);
    return verdict;
}

/* What is compared: both files, or why they are not: PASS where they are there. */
struct sources {
    char gguf[RP_PATH_SIZE], checkpoint[RP_PATH_SIZE]; /* the latter's folder, or its sketch */
};

static enum rp_verdict find_sources(const struct rp_context *context, const struct rp_entry *entry,
                                    struct sources *sources, char message[RP_WEIGHTS_MESSAGE_SIZE])
{
    struct rp_error err, refused = {.code = RP_OK};
    if (!entry->engine_gguf) {
        snprintf(message, RP_WEIGHTS_MESSAGE_SIZE, "the entry has no engine_gguf");
        return unavailable(context);
    }
    const enum rp_status status = rp_entry_gguf(context->matrix, entry, context->models_dir,
                                                sources->gguf, sizeof sources->gguf, &err);
    if (status != RP_OK) {
        snprintf(message, RP_WEIGHTS_MESSAGE_SIZE, "%s", err.message);
        return status == RP_ERR_MISSING ? unavailable(context) : RP_ERROR;
    }
    if (rp_find_checkpoint(context, entry, sources->gguf, sources->checkpoint, &refused) ||
        rp_find_sketch(context, entry, sources->checkpoint, &refused))
        return RP_PASS;
    if (refused.code) {
        rp_error_text(&refused, message, RP_WEIGHTS_MESSAGE_SIZE);
        return RP_ERROR;
    }
    char sketch[RP_WEIGHTS_MESSAGE_SIZE / 2];
    if (entry->reference.engine) /* the recorder leaves it out */
        snprintf(sketch, sizeof sketch, "fixtures/weights_sketch.py makes one of a checkpoint");
    else
        snprintf(sketch, sizeof sketch, "`%s %s` records one", context->record_command,
                 entry->name);
    snprintf(message, RP_WEIGHTS_MESSAGE_SIZE,
             "there is no checkpoint of %s: set REFPARITY_CHECKPOINTS to the folder that has "
             "%s/config.json and its safetensors, or put them beside the GGUF; nor is there a "
             "sketch of it in a store: %s",
             entry->hf_model, entry->hf_model, sketch);
    return unavailable(context);
}

enum rp_verdict rp_judge_weights(const struct rp_context *context, const struct rp_entry *entry,
                                 rp_weights_fn *see, void *see_context,
                                 char message[RP_WEIGHTS_MESSAGE_SIZE])
{
    struct sources sources;
    struct counter counter = {.see = see, .context = see_context};
    const enum rp_verdict verdict = find_sources(context, entry, &sources, message);
    return verdict == RP_PASS
               ? compare(context, sources.gguf, sources.checkpoint, &counter, message)
               : verdict;
}

/* ---- kept ---- */

static void see_nothing(void *context, const struct rp_weights_finding *finding)
{
    (void)context;
    (void)finding;
}

/* PASS or FAIL, found earlier of the same two files, by the same refparity. */
static bool read_kept(const char *key, const char *what, const char *path, const char *state,
                      enum rp_verdict *verdict, char *message, size_t size)
{
    struct rp_json *doc;
    if (rp_seal_read(key, what, path, &doc, NULL) != RP_OK)
        return false;
    const cJSON *root = rp_json_root(doc);
    const char *of = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "state"));
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "message"));
    const cJSON *is_right = cJSON_GetObjectItemCaseSensitive(root, "is_checkpoint");
    const bool is_known = of && text && cJSON_IsBool(is_right) && strcmp(of, state) == 0;
    if (is_known) {
        *verdict = cJSON_IsTrue(is_right) ? RP_PASS : RP_FAIL;
        snprintf(message, size, "%s", text);
    }
    rp_json_free(doc);
    return is_known;
}

/* Where it cannot be kept it is found again. */
static void keep(const char *key, const char *what, const char *path, const char *state,
                 enum rp_verdict verdict, const char *message)
{
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "state", state);
    cJSON_AddBoolToObject(root, "is_checkpoint", verdict == RP_PASS);
    cJSON_AddStringToObject(root, "message", message);
    (void)rp_seal_write(key, what, path, cJSON_Print(root), NULL);
    cJSON_Delete(root);
}

enum rp_verdict rp_judge_weights_once(const struct rp_context *context,
                                      const struct rp_entry *entry, char *message, size_t size)
{
    char text[RP_WEIGHTS_MESSAGE_SIZE] = "", folder[RP_PATH_SIZE], name[96], path[RP_PATH_SIZE];
    char file[RP_FINGERPRINT_SIZE], checkpoint[RP_FINGERPRINT_SIZE], tool[RP_FINGERPRINT_SIZE];
    char state[3 * RP_FINGERPRINT_SIZE], what[128];
    struct sources sources;
    struct counter counter = {.see = see_nothing};
    enum rp_verdict verdict = find_sources(context, entry, &sources, text);
    if (verdict != RP_PASS) {
        snprintf(message, size, "%s", text);
        return verdict;
    }
    rp_fingerprint(sources.gguf, file);
    rp_fingerprint(sources.checkpoint, checkpoint);
    rp_fingerprint(context->tool ? context->tool : "", tool); /* stands for what compares */
    snprintf(state, sizeof state, "%s%s%s", file, checkpoint, tool);
    snprintf(name, sizeof name, "%s.json", entry->name);
    snprintf(what, sizeof what, "weights of %s", entry->name);
    const bool has_place =
        rp_path_join(folder, sizeof folder, context->work_dir, "weights", NULL) == RP_OK &&
        rp_path_join(path, sizeof path, folder, name, NULL) == RP_OK &&
        rp_make_dirs(folder, NULL) == RP_OK;
    if (has_place && read_kept(context->key, what, path, state, &verdict, message, size))
        return verdict;
    verdict = compare(context, sources.gguf, sources.checkpoint, &counter, text);
    if (verdict == RP_PASS)
        (void)say_resolution(&counter, message, size);
    else
        snprintf(message, size, "%s", text);
    if (has_place && (verdict == RP_PASS || verdict == RP_FAIL))
        keep(context->key, what, path, state, verdict, message);
    return verdict;
}
