/* refparity replay: which layers of an engine introduce an error of their own? */
#include "cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "base/file.h"
#include "base/numbers.h"
#include "cli/path_kind.h"
#include "cli/replay_expected.h"
#include "cli/replay_jobs.h"
#include "cli/replay_lacks.h"
#include "cli/replay_output.h"
#include "explain/damaged_dump.h"
#include "explain/other_weights.h"
#include "refparity/explain.h"
#include "refparity/replay.h"

static const char help[] =
    "usage: refparity replay [OPTION ...] MODEL DUMP\n"
    "       refparity replay --expected FILE.npz [OPTION ...] DUMP\n"
    "\n"
    "Runs each operation of the model on the engine's own dumped values, with the engine's own\n"
    "weights, and shows the error that it introduces; what it was given does not show. An error\n"
    "over the limit, what FP32 sums in another order may add, fails. An operation whose inputs\n"
    "are not dumped is carried from the nearest slots that are. Reads the engine's model and its\n"
    "dump; needs no reference. MODEL is a GGUF, or the folder of a Hugging Face checkpoint\n"
    "(config.json and safetensors).\n"
    "\n"
    "What the engine computes in, where that is not FP32 throughout:\n"
    "  --activations NAME   what the inputs of matrix products are rounded to: f32, by_weight\n"
    "                       (what each weight's type is multiplied with), f16, bf16, q8_0,\n"
    "                       q8_K  [f32]\n"
    "  --kv-cache NAME      f32, f16, q8_0, q4_0  [f32]\n"
    "  --attention NAME     plain, flash  [plain]\n"
    "  --state NAME         what each operation's output is kept in: f32, bf16, f16  [f32]\n"
    "  --mode NAME          per-token, batched, or batched:N with N positions at once  [batched]\n"
    "What is replayed:\n"
    "  --layers A-B         layers A to B, or A alone  [all, emb, post_norm and logits too]; of a\n"
    "                       GGUF in shards those that do not hold them may be missing\n"
    "  --tokens FILE        the prompt's token ids, a decimal number a line  [the dump's]\n"
    "  --layout NAME        of the dump: npy, bin, npz  [found out]\n"
    "  --threads N          layers at once  [one a core]\n"
    "  --no-explain         do not look for what explains an error\n"
    "  --expected FILE      what each slot has to be, as ci/record.sh --replay computes it with\n"
    "                       Hugging Face's modules, of any architecture; what the engine computes\n"
    "                       in is FILE's, and nothing is explained\n"
    "Output:\n"
    "  --json               print JSON\n"
    "  --html FILE          also write a page with charts, one file that loads nothing\n"
    "  --all                print every slot, in forward order: else those that fail come first, "
    "and\n"
    "                       where many pass they are counted\n"
    "  --verbose            --all, with every slot's message\n"
    "  --help\n"
    "\n"
    "exit codes: 0 no operation introduces an error, 1 one does, 2 error, also when a required "
    "slot\n"
    "or position is missing, the tokens are not known, or the dump is not complete: what was not\n"
    "shown is no pass\n";

struct options {
    const char *model, *dump, *tokens_file, *expected;
    enum rp_layout layout;
    int first_layer, last_layer; /* -1: all */
    size_t n_threads;
    int no_explain, json;
    struct rp_replay_shown shown;
    const char *html; /* NULL: no page */
    struct rp_replay_options replay;
};

struct run {
    const struct options *options;
    struct rp_replay_output output;
    int n_explained, n_undamaged;
    struct rp_products products;
};

/* ---- options ---- */

static int parse_layers(const char *text, struct options *options)
{
    char *end;
    errno = 0;
    const long first = strtol(text, &end, 10);
    long last = first;
    if (end == text || errno || first < 0 || first > 100000)
        return 0;
    if (*end == '-') {
        const char *second = end + 1;
        last = strtol(second, &end, 10);
        if (end == second || errno)
            return 0;
    }
    if (*end || last < first || last > 100000)
        return 0;
    options->first_layer = (int)first;
    options->last_layer = (int)last;
    return 1;
}

static int parse_threads(const char *text, struct options *options)
{
    char *end;
    errno = 0;
    const long n = strtol(text, &end, 10);
    options->n_threads = n > 0 ? (size_t)n : 0;
    return end != text && !*end && !errno && n > 0 && n <= 1024;
}

/* One a core. */
static size_t default_threads(void)
{
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > 64 ? 64 : (size_t)n;
}

static int parse_layout(const char *text, enum rp_layout *layout)
{
    static const struct {
        const char *name;
        enum rp_layout layout;
    } known[] = {{"npy", RP_LAYOUT_NPY}, {"bin", RP_LAYOUT_BIN}, {"npz", RP_LAYOUT_NPZ}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(text, known[i].name) == 0) {
            *layout = known[i].layout;
            return 1;
        }
    }
    return 0;
}

/* per-token, batched, or batched:N with the positions that the engine takes at once. */
static int parse_mode(const char *text, struct rp_replay_options *options)
{
    static const char prefix[] = "batched:";
    char *end;
    options->mode = strcmp(text, "per-token") == 0 ? RP_MODE_PER_TOKEN : RP_MODE_BATCHED;
    if (options->mode == RP_MODE_PER_TOKEN || strcmp(text, "batched") == 0)
        return 1;
    if (strncmp(text, prefix, sizeof prefix - 1) != 0)
        return 0;
    text += sizeof prefix - 1;
    errno = 0;
    const long batch = strtol(text, &end, 10);
    options->numerics.batch = batch > 0 ? (size_t)batch : 0;
    return *text >= '1' && *text <= '9' && !*end && !errno;
}

/* -1 to go on, else the exit code. */
static int take_option(int option, struct options *options)
{
    struct rp_numerics *numerics = &options->replay.numerics;
    struct rp_error err;
    enum rp_status status = RP_OK;
    switch (option) {
    case 'a': status = rp_activations_parse(optarg, &numerics->activations, &err); break;
    case 'k': status = rp_kv_cache_parse(optarg, &numerics->kv_cache, &err); break;
    case 't': status = rp_attention_parse(optarg, &numerics->attention, &err); break;
    case 'm':
        if (!parse_mode(optarg, &options->replay))
            return rp_cli_usage_error(
                "replay", "--mode takes per-token, batched or batched:N, not \"%s\"", optarg);
        break;
    case 'l':
        if (!parse_layers(optarg, options))
            return rp_cli_usage_error("replay", "--layers takes A-B or A, not \"%s\"", optarg);
        break;
    case 'y':
        if (!parse_layout(optarg, &options->layout))
            return rp_cli_usage_error("replay", "--layout takes npy, bin or npz, not \"%s\"",
                                      optarg);
        break;
    case 'p':
        if (!parse_threads(optarg, options))
            return rp_cli_usage_error("replay", "--threads takes 1 to 1024, not \"%s\"", optarg);
        break;
    case 'i': options->tokens_file = optarg; break;
    case 'e': options->expected = optarg; break;
    case 'n': options->no_explain = 1; break;
    case 's': status = rp_state_parse(optarg, &numerics->state, &err); break;
    case 'j': options->json = 1; break;
    case 'w': options->html = optarg; break;
    case 'v': options->shown = (struct rp_replay_shown){.all = true, .messages = true}; break;
    case 'z': options->shown.all = true; break;
    case 'h': fputs(help, stdout); return RP_EXIT_PASS;
    default: return rp_cli_usage_error("replay", "unknown option or no value for it");
    }
    return status == RP_OK ? -1 : rp_cli_error(&err);
}

/* Of --expected, which says itself what the engine computes in. */
static int take_dump(int n, char **arguments, struct options *options)
{
    if (n != 1)
        return rp_cli_usage_error("replay",
                                  "expected DUMP alone beside --expected, found %d arguments", n);
    if (!rp_numerics_are_plain(&options->replay.numerics))
        return rp_cli_usage_error("replay",
                                  "what the engine computes in is said by %s: give it to "
                                  "ci/record.sh --replay",
                                  options->expected);
    options->dump = arguments[0];
    return rp_cli_check_kind("replay", "a dump or an npz for DUMP", options->dump,
                             1U << RP_PATH_GGUF | 1U << RP_PATH_NPY | 1U << RP_PATH_CHECKPOINT);
}

static int parse_options(int argc, char **argv, struct options *options)
{
    static const struct option known[] = {{"activations", required_argument, NULL, 'a'},
                                          {"kv-cache", required_argument, NULL, 'k'},
                                          {"attention", required_argument, NULL, 't'},
                                          {"mode", required_argument, NULL, 'm'},
                                          {"layers", required_argument, NULL, 'l'},
                                          {"layout", required_argument, NULL, 'y'},
                                          {"threads", required_argument, NULL, 'p'},
                                          {"tokens", required_argument, NULL, 'i'},
                                          {"expected", required_argument, NULL, 'e'},
                                          {"no-explain", no_argument, NULL, 'n'},
                                          {"state", required_argument, NULL, 's'},
                                          {"json", no_argument, NULL, 'j'},
                                          {"html", required_argument, NULL, 'w'},
                                          {"verbose", no_argument, NULL, 'v'},
                                          {"all", no_argument, NULL, 'z'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    *options = (struct options){.first_layer = -1,
                                .last_layer = -1,
                                .n_threads = default_threads(),
                                .replay = {.mode = RP_MODE_BATCHED}};
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "h", known, NULL)) != -1) {
        if (option == '?')
            return rp_cli_usage_error("replay", "unknown option, or no value for %s",
                                      argv[optind - 1]);
        const int code = take_option(option, options);
        if (code >= 0)
            return code;
    }
    if (options->expected)
        return take_dump(argc - optind, argv + optind, options);
    if (argc - optind != 2)
        return rp_cli_usage_error("replay", "expected MODEL and DUMP, found %d arguments",
                                  argc - optind);
    options->model = argv[optind];
    options->dump = argv[optind + 1];
    const enum rp_path_kind model = rp_path_kind(options->model),
                            dump = rp_path_kind(options->dump);
    if (rp_path_has_states(model) && rp_path_is_model(dump))
        return rp_cli_usage_error(
            "replay", "expected MODEL and DUMP, found %s, %s, and %s, %s: swapped?", options->model,
            rp_path_kind_text(model), options->dump, rp_path_kind_text(dump));
    const int code = rp_cli_check_kind("replay", "a GGUF or a checkpoint for MODEL", options->model,
                                       1U << RP_PATH_NPZ | 1U << RP_PATH_NPY | 1U << RP_PATH_DUMP);
    return code >= 0 ? code
                     : rp_cli_check_kind("replay", "a dump or an npz for DUMP", options->dump,
                                         1U << RP_PATH_GGUF | 1U << RP_PATH_NPY);
}

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
    const struct options *options = run->options;
    const size_t n_layers = rp_model_config(rp_replay_model(replay))->n_layers;
    const bool is_whole = options->first_layer < 0;
    const struct rp_replay_jobs_options jobs_options = {
        .dump = options->dump,
        .layout = options->layout,
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

static int replay_expected(const struct options *options, const int64_t *tokens,
                           struct rp_replay_output *output)
{
    const struct rp_replay_wanted wanted = {.first_layer = options->first_layer,
                                            .last_layer = options->last_layer,
                                            .tokens = tokens,
                                            .n_tokens = options->replay.n_tokens};
    return rp_cli_replay_expected(options->expected, options->dump, options->layout, &wanted,
                                  output);
}

static enum rp_status open_model(const struct options *options, struct rp_model **model,
                                 struct rp_error *err)
{
    return options->first_layer < 0
               ? rp_model_open(options->model, model, err)
               : rp_model_open_layers(options->model, (size_t)options->first_layer,
                                      (size_t)options->last_layer, model, err);
}

/* Prints the error; where the architecture is what the C model does not compute, also what replays it. */
static int model_error(const struct options *options, const struct rp_error *err)
{
    const int code = rp_cli_error(err);
    const bool is_gguf = rp_path_kind(options->model) == RP_PATH_GGUF;
    if (err->code == RP_ERR_UNSUPPORTED && strstr(err->message, "computed are: "))
        fprintf(stderr,
                "refparity: next: Hugging Face's own modules replay other architectures: "
                "ci/record.sh --replay %s --model HF_MODEL%s%s\n",
                options->dump, is_gguf ? " --gguf " : "", is_gguf ? options->model : "");
    return code;
}

int rp_cli_replay(int argc, char **argv, const struct rp_terminal *out)
{
    struct options options;
    const int code = parse_options(argc, argv, &options);
    if (code >= 0)
        return code;
    struct run run = {.options = &options};
    keep_memory();
    struct rp_model *model = NULL;
    struct rp_tensor_set *dump = NULL;
    struct rp_replay *replay = NULL;
    int64_t *tokens = NULL;
    struct rp_error err;
    enum rp_status status = RP_OK;
    rp_replay_output_open(&run.output, out, options.json, options.shown, options.html);
    if (options.tokens_file) {
        status = read_tokens(options.tokens_file, &tokens, &options.replay.n_tokens, &err);
        options.replay.tokens = tokens;
    }
    if (status == RP_OK && options.expected) {
        const int result = replay_expected(&options, tokens, &run.output);
        rp_replay_output_close(&run.output);
        free(tokens);
        return result;
    }
    if (status == RP_OK)
        status = open_model(&options, &model, &err);
    if (status == RP_OK)
        status = rp_tensor_set_open(options.dump, options.layout, 0, &dump, &err);
    if (status == RP_OK)
        status = rp_replay_open(model, dump, &options.replay, &replay, &err);
    if (status == RP_OK) {
        const struct rp_replay_wanted wanted = {.n_layers = (int)rp_model_config(model)->n_layers,
                                                .first_layer = options.first_layer,
                                                .last_layer = options.last_layer,
                                                .tokens = tokens,
                                                .n_tokens = options.replay.n_tokens};
        rp_replay_find_lacks(&wanted, dump, &run.output.counts);
        run.output.counts.n_prediction_layers = rp_model_config(model)->n_prediction_layers;
        status = run_all(replay, &run, &err);
    }
    const int result = status == RP_OK
                           ? rp_replay_output_end(&run.output, options.model, options.dump,
                                                  &options.replay.numerics)
                           : model_error(&options, &err);
    rp_replay_output_close(&run.output);
    rp_replay_close(replay);
    rp_tensor_set_close(dump);
    rp_model_close(model);
    free(tokens);
    return result;
}
