/* refparity replay: which layers of an engine introduce an error of their own? */
#include "cli/cli.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "base/file.h"
#include "base/numbers.h"
#include "cli/path_kind.h"
#include "cli/reading.h"
#include "cli/replay_expected.h"
#include "cli/replay_jobs.h"
#include "cli/replay_lacks.h"
#include "cli/replay_options.h"
#include "cli/replay_output.h"
#include "explain/damaged_dump.h"
#include "explain/other_weights.h"
#include "refparity/explain.h"
#include "refparity/replay.h"

struct run {
    const struct rp_cli_replay_options *options;
    struct rp_replay_output output;
    int n_explained, n_undamaged;
    struct rp_products products;
};

/* A decimal id per line; *ids is freed by the caller. */
static enum rp_status read_tokens(const char *path, int64_t **ids, size_t *n, struct rp_error *err)
{
    char *text;
    size_t length;
    enum rp_status status = rp_file_read(path, 16 << 20, &text, &length, err);
    if (status != RP_OK)
        return status;
    status = rp_numbers_parse(text, length, '\n', INT32_MAX, path, "line", ids, n, err);
    free(text);
    return status;
}

/* ---- the run ---- */

/* A line on stderr each second, once two have passed. */
static void show_progress(time_t began, time_t *shown, size_t layer, size_t n_layers)
{
    const time_t now = time(NULL);
    if (now - began < 2 || now == *shown)
        return;
    *shown = now;
    fprintf(stderr, "refparity: layer %zu of %zu\n", layer, n_layers);
}

/* Where numerics are declared wrongly, nearly every operation of a model fails, for one reason. */
#define MOST_EXPLAINED 40

/* text: "" where the dump is not damaged there. */
static enum rp_status find_damage(struct rp_replay *replay, const struct rp_replay_layer *layer,
                                  const struct rp_replay_slot *slot, struct run *run,
                                  char text[512], struct rp_error *err)
{
    enum rp_status status = RP_OK;
    text[0] = '\0';
    if (slot->verdict != RP_FAIL)
        return RP_OK;
    if (run->n_undamaged < MOST_EXPLAINED) /* it runs the slot again, and the layer before */
        status = rp_replay_find_damage(replay, layer, slot, text, err);
    run->n_undamaged += text[0] == '\0';
    return status;
}

static enum rp_status explain(struct rp_replay *replay, const struct rp_replay_slot *slot,
                              const char *damage, struct run *run,
                              struct rp_explanation *explanation, struct rp_error *err)
{
    enum rp_status status = RP_OK;
    if (damage[0]) {
        snprintf(explanation->name, sizeof explanation->name, "damaged-dump");
        snprintf(explanation->text, sizeof explanation->text, "%.390s", damage);
    } else if (!run->options->no_explain && run->n_explained++ < MOST_EXPLAINED) {
        status = rp_explain_slot(replay, slot, explanation, err);
    } else if (!run->options->no_explain) {
        snprintf(explanation->text, sizeof explanation->text,
                 "not explained, as %d slots before it were: --layers explains others",
                 MOST_EXPLAINED);
    }
    return status;
}

/* Sets the hint of other weights; nothing is known of them where nothing is explained. */
static bool hint(struct run *run, const struct rp_replay *replay,
                 const struct rp_products *products)
{
    struct rp_replay_counts *counts = &run->output.counts;
    return !run->options->no_explain && rp_products_hint(products, replay, counts->other_weights);
}

/* Each slot that fails is explained: in two of them are two bugs. Not where the layer fails as those before
 * it, whose cause is other weights. A damaged one is an error of the dump, not of the engine; what rests on
 * it still finds it among those that fail. */
static enum rp_status take_layer(struct rp_replay *replay, const struct rp_replay_layer *layer,
                                 struct run *run, struct rp_error *err)
{
    struct rp_explanation explanations[RP_N_LAYER_PARTS] = {{.name = ""}};
    struct rp_products with_it = run->products;
    enum rp_status status = RP_OK;
    char damage[512] = "";
    rp_products_add(&with_it, layer, explanations);
    const bool is_alike = hint(run, replay, &run->products) && hint(run, replay, &with_it);
    for (size_t i = 0; i < layer->n_slots && status == RP_OK; i++) {
        const struct rp_replay_slot *slot = &layer->slots[i];
        struct rp_explanation *explanation = &explanations[i];
        struct rp_replay_slot shown = *slot; /* its arrays stay the result's */
        explanation->share = explanation->parameter = (double)NAN;
        if (!is_alike)
            status = find_damage(replay, layer, slot, run, damage, err);
        if (damage[0])
            shown.verdict = RP_ERROR;
        rp_replay_output_slot(&run->output, &shown);
        if (slot->verdict != RP_FAIL || status != RP_OK)
            continue;
        if (is_alike)
            snprintf(explanation->text, sizeof explanation->text,
                     "not explained: every matrix product fails, see the last lines");
        else
            status = explain(replay, slot, damage, run, explanation, err);
        if (status == RP_OK && explanation->text[0])
            rp_replay_output_explanation(&run->output, slot, explanation);
    }
    if (status == RP_OK)
        status = rp_replay_output_layer(&run->output, layer, explanations, err);
    rp_products_add(&run->products, layer, explanations);
    (void)hint(run, replay, &run->products);
    return status;
}

static enum rp_status take_result(struct rp_replay *replay, struct rp_replay_layer *result,
                                  struct run *run, struct rp_error *err)
{
    const enum rp_status status = take_layer(replay, result, run, err);
    rp_replay_layer_free(result);
    return status;
}

static enum rp_status run_all(struct rp_replay *replay, struct run *run, struct rp_error *err)
{
    const struct rp_cli_replay_options *options = run->options;
    const size_t n_layers = rp_model_config(rp_replay_model(replay))->n_layers;
    const bool is_whole = options->first_layer < 0;
    const struct rp_replay_jobs_options jobs_options = {
        .dump = options->dump,
        .read = &options->read,
        .replay = &options->replay,
        .first_layer = is_whole ? 0 : (size_t)options->first_layer,
        .last_layer = is_whole ? n_layers - 1 : (size_t)options->last_layer,
        .has_outside = is_whole,
        .n_threads = options->n_threads};
    const size_t n_jobs =
        jobs_options.last_layer - jobs_options.first_layer + 1 + (is_whole ? 3 : 0);
    const time_t began = time(NULL);
    time_t shown = 0;
    struct rp_replay_jobs *jobs = NULL;
    if (jobs_options.last_layer >= n_layers)
        return rp_fail(err, RP_ERR_ARGUMENT, options->model, -1,
                       "layer %zu of a model with %zu (0 to %zu)", jobs_options.last_layer,
                       n_layers, n_layers - 1);
    enum rp_status status =
        rp_replay_jobs_start(rp_replay_model(replay), &jobs_options, &jobs, err);
    for (size_t i = 0; i < n_jobs && status == RP_OK; i++) {
        struct rp_replay_layer result = {.n_slots = 0};
        status = rp_replay_jobs_next(jobs, &result, err);
        if (status == RP_OK && result.layer >= 0)
            show_progress(began, &shown, (size_t)result.layer, n_layers);
        if (status == RP_OK)
            status = take_result(replay, &result, run, err);
    }
    rp_replay_jobs_stop(jobs);
    return status;
}

/* Each layer takes and gives back the same sizes: what is free is kept, instead of being taken from the
 * kernel again, page by page. */
static void keep_memory(void)
{
#if defined(__GLIBC__)
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
#endif
}

static int replay_expected(const struct rp_cli_replay_options *options, const int64_t *tokens,
                           struct rp_replay_output *output)
{
    const struct rp_replay_wanted wanted = {.first_layer = options->first_layer,
                                            .last_layer = options->last_layer,
                                            .tokens = tokens,
                                            .n_tokens = options->replay.n_tokens};
    return rp_cli_replay_expected(options->expected, options->dump, &options->read, &wanted,
                                  output);
}

static enum rp_status open_model(const struct rp_cli_replay_options *options,
                                 struct rp_model **model, struct rp_error *err)
{
    return options->first_layer < 0
               ? rp_model_open(options->model, model, err)
               : rp_model_open_layers(options->model, (size_t)options->first_layer,
                                      (size_t)options->last_layer, model, err);
}

/* Prints the error; where the architecture is what the C model does not compute, also what else serves. */
static int model_error(const struct rp_cli_replay_options *options, const struct rp_error *err)
{
    const int code = rp_cli_error(err);
    const bool is_gguf = options->model && rp_path_kind(options->model) == RP_PATH_GGUF;
    if (err->code == RP_ERR_UNSUPPORTED && strstr(err->message, "computed are: "))
        fprintf(stderr,
                "refparity: next: Hugging Face's own modules replay other architectures: "
                "ci/record.sh --replay %s --model HF_MODEL%s%s\n"
                "refparity: or compare each layer: ci/record.sh --model HF_MODEL --prompt-file "
                "PROMPT --out reference.npz; refparity diff reference.npz %s\n",
                options->dump, is_gguf ? " --gguf " : "", is_gguf ? options->model : "",
                options->dump);
    return code;
}

/* By the model's width, where the dump's files do not say how many positions they hold. */
static enum rp_status open_dump(struct rp_cli_replay_options *options, const struct rp_model *model,
                                struct run *run, struct rp_tensor_set **dump, struct rp_error *err)
{
    const struct rp_model_config *config = rp_model_config(model);
    options->read.width = config->hidden_size;
    options->read.n_logits = config->vocab_size;
    enum rp_status status = rp_tensor_set_open_with(options->dump, &options->read, dump, err);
    if (status == RP_OK)
        status = rp_cli_check_names(options->read.names, err);
    if (status == RP_OK)
        rp_replay_output_notes(&run->output, *dump);
    return status;
}

static int replay_model(struct rp_cli_replay_options *options, const int64_t *tokens,
                        struct run *run)
{
    struct rp_model *model = NULL;
    struct rp_tensor_set *dump = NULL;
    struct rp_replay *replay = NULL;
    struct rp_error err;
    enum rp_status status = open_model(options, &model, &err);
    if (status == RP_OK)
        status = open_dump(options, model, run, &dump, &err);
    if (status == RP_OK)
        status = rp_replay_open(model, dump, &options->replay, &replay, &err);
    if (status == RP_OK) {
        const struct rp_replay_wanted wanted = {.n_layers = (int)rp_model_config(model)->n_layers,
                                                .first_layer = options->first_layer,
                                                .last_layer = options->last_layer,
                                                .tokens = tokens,
                                                .n_tokens = options->replay.n_tokens};
        rp_replay_find_lacks(&wanted, dump, &run->output.counts);
        run->output.counts.n_prediction_layers = rp_model_config(model)->n_prediction_layers;
        status = run_all(replay, run, &err);
    }
    const int result = status == RP_OK
                           ? rp_replay_output_end(&run->output, options->model, options->dump,
                                                  &options->replay.numerics)
                           : model_error(options, &err);
    rp_replay_close(replay);
    rp_tensor_set_close(dump);
    rp_model_close(model);
    return result;
}

int rp_cli_replay(int argc, char **argv, const struct rp_terminal *out)
{
    struct rp_cli_replay_options options;
    int code = rp_cli_replay_parse(argc, argv, &options);
    if (code >= 0) {
        rp_names_free(options.read.names);
        return code;
    }
    struct run run = {.options = &options};
    int64_t *tokens = NULL;
    struct rp_error err;
    enum rp_status status = RP_OK;
    keep_memory();
    rp_replay_output_open(&run.output, out, options.json, options.shown, options.html);
    if (options.tokens_file) {
        status = read_tokens(options.tokens_file, &tokens, &options.replay.n_tokens, &err);
        options.replay.tokens = tokens;
    }
    code = status != RP_OK    ? rp_cli_error(&err)
           : options.expected ? replay_expected(&options, tokens, &run.output)
                              : replay_model(&options, tokens, &run);
    rp_replay_output_close(&run.output);
    rp_names_free(options.read.names);
    free(tokens);
    return code;
}
