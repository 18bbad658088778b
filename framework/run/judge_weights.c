/* See run/judge_weights.h. */
#include "run/judge_weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

struct counter {
    rp_weights_fn *see;
    void *context;
    size_t n_tensors, n_values, n_wrong;
    char first[512];
};

static void count(void *context, const struct rp_weights_finding *finding)
{
    struct counter *counter = context;
    counter->n_tensors += !finding->is_metadata;
    counter->n_values += finding->is_metadata;
    if (!finding->is_right && counter->n_wrong++ == 0)
        snprintf(counter->first, sizeof counter->first, "%s", finding->message);
    counter->see(counter->context, finding);
}

static bool is_checkpoint(const char *folder)
{
    char config[RP_PATH_SIZE];
    return rp_path_join(config, sizeof config, folder, "config.json", NULL) == RP_OK &&
           rp_path_exists(config);
}

/* Whether parent/name, or parent where name is "", is a checkpoint: then folder is it. */
static bool find_below(const char *parent, const char *name, char folder[RP_PATH_SIZE])
{
    return rp_path_join(folder, RP_PATH_SIZE, parent, name, NULL) == RP_OK && is_checkpoint(folder);
}

static bool find_checkpoint(const struct rp_entry *entry, const char *gguf,
                            char folder[RP_PATH_SIZE])
{
    char beside[RP_PATH_SIZE];
    const char *root = getenv("REFPARITY_CHECKPOINTS");
    if (root && root[0] && find_below(root, entry->hf_model, folder))
        return true;
    snprintf(beside, sizeof beside, "%s", gguf);
    char *slash = strrchr(beside, '/');
    if (!slash)
        return false;
    *slash = '\0';
    if (find_below(beside, entry->hf_model, folder))
        return true;
    snprintf(folder, RP_PATH_SIZE, "%s", beside);
    return is_checkpoint(folder);
}

static enum rp_verdict unavailable(const struct rp_context *context)
{
    return context->require ? RP_ERROR : RP_SKIP;
}

static enum rp_verdict verdict_of(const struct rp_context *context, enum rp_status status)
{
    return status == RP_ERR_UNSUPPORTED ? unavailable(context) : RP_ERROR;
}

static enum rp_verdict compare(const struct rp_context *context, const char *gguf,
                               const char *folder, struct counter *counter,
                               char message[RP_WEIGHTS_MESSAGE_SIZE])
{
    struct rp_gguf *file = NULL, *checkpoint = NULL;
    struct rp_error err;
    enum rp_verdict verdict = RP_PASS;
    enum rp_status status = rp_gguf_open(gguf, &file, &err);
    if (status == RP_OK)
        status = rp_gguf_open_checkpoint(folder, &checkpoint, &err);
    if (status == RP_OK)
        status = rp_weights_compare(file, checkpoint, count, counter, &err);
    if (status != RP_OK) {
        rp_error_text(&err, message, RP_WEIGHTS_MESSAGE_SIZE);
        verdict = verdict_of(context, status);
    } else if (counter->n_wrong > 0) {
        snprintf(message, RP_WEIGHTS_MESSAGE_SIZE, "%zu of %zu are not the checkpoint's: %s",
                 counter->n_wrong, counter->n_tensors + counter->n_values, counter->first);
        verdict = RP_FAIL;
    } else {
        snprintf(message, RP_WEIGHTS_MESSAGE_SIZE,
                 "%zu tensors and %zu metadata values are the checkpoint's", counter->n_tensors,
                 counter->n_values);
    }
    rp_gguf_close(file);
    rp_gguf_close(checkpoint);
    return verdict;
}

enum rp_verdict rp_judge_weights(const struct rp_context *context, const struct rp_entry *entry,
                                 rp_weights_fn *see, void *see_context,
                                 char message[RP_WEIGHTS_MESSAGE_SIZE])
{
    char gguf[RP_PATH_SIZE], folder[RP_PATH_SIZE];
    struct rp_error err;
    struct counter counter = {.see = see, .context = see_context};
    if (!entry->engine_gguf) {
        snprintf(message, RP_WEIGHTS_MESSAGE_SIZE, "the entry has no engine_gguf");
        return unavailable(context);
    }
    const enum rp_status status =
        rp_entry_gguf(context->matrix, entry, context->models_dir, gguf, sizeof gguf, &err);
    if (status != RP_OK) {
        snprintf(message, RP_WEIGHTS_MESSAGE_SIZE, "%s", err.message);
        return status == RP_ERR_MISSING ? unavailable(context) : RP_ERROR;
    }
    if (!find_checkpoint(entry, gguf, folder)) {
        snprintf(message, RP_WEIGHTS_MESSAGE_SIZE,
                 "there is no checkpoint of %s: set REFPARITY_CHECKPOINTS to the folder that has "
                 "%s/config.json and its safetensors, or put them beside the GGUF",
                 entry->hf_model, entry->hf_model);
        return unavailable(context);
    }
    return compare(context, gguf, folder, &counter, message);
}
