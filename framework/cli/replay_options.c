/* See cli/replay_options.h. */
#include "cli/replay_options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/path_kind.h"
#include "cli/reading.h"

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
    "  --mode NAME          per-token, batched, batched:N with N positions at once, or parallel:N\n"
    "                       as one of N sequences  [batched]\n"
    "What is replayed:\n"
    "  --layers A-B         layers A to B, or A alone  [all, emb, post_norm and logits too]; of a\n"
    "                       GGUF in shards those that do not hold them may be missing\n"
    "  --tokens FILE        the prompt's token ids, a decimal number a line  [the dump's]\n"
    "  --layout NAME        of the dump: npy, bin, npz, safetensors  [found out]\n"
    "  --names FILE         which of the dump's names are which slots (docs/file-formats.md)\n"
    "  --rows N             a plain NAME.bin holds N positions  [as many as fit into it]\n"
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

static int parse_layers(const char *text, struct rp_cli_replay_options *options)
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

static int parse_threads(const char *text, struct rp_cli_replay_options *options)
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
    } known[] = {{"npy", RP_LAYOUT_NPY},
                 {"bin", RP_LAYOUT_BIN},
                 {"npz", RP_LAYOUT_NPZ},
                 {"safetensors", RP_LAYOUT_SAFETENSORS}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(text, known[i].name) == 0) {
            *layout = known[i].layout;
            return 1;
        }
    }
    return 0;
}

/* -1 to go on, else the exit code. */
static int take_option(int option, struct rp_cli_replay_options *options)
{
    struct rp_numerics *numerics = &options->replay.numerics;
    struct rp_error err;
    enum rp_status status = RP_OK;
    switch (option) {
    case 'a': status = rp_activations_parse(optarg, &numerics->activations, &err); break;
    case 'k': status = rp_kv_cache_parse(optarg, &numerics->kv_cache, &err); break;
    case 't': status = rp_attention_parse(optarg, &numerics->attention, &err); break;
    case 'm':
        if (!rp_batch_of_mode(optarg, &numerics->batch))
            return rp_cli_usage_error(
                "replay", "--mode takes per-token, batched, batched:N or parallel:N, not \"%s\"",
                optarg);
        options->replay.mode =
            strcmp(optarg, "per-token") == 0 ? RP_MODE_PER_TOKEN : RP_MODE_BATCHED;
        break;
    case 'l':
        if (!parse_layers(optarg, options))
            return rp_cli_usage_error("replay", "--layers takes A-B or A, not \"%s\"", optarg);
        break;
    case 'y':
        if (!parse_layout(optarg, &options->read.layout))
            return rp_cli_usage_error(
                "replay", "--layout takes npy, bin, npz or safetensors, not \"%s\"", optarg);
        break;
    case 'N':
        rp_names_free(options->read.names);
        status = rp_names_open(optarg, &options->read.names, &err);
        break;
    case 'R':
        if (!rp_cli_parse_rows(optarg, &options->read.n_rows))
            return rp_cli_usage_error("replay", "--rows takes a number of positions, not \"%s\"",
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
static int take_dump(int n, char **arguments, struct rp_cli_replay_options *options)
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

int rp_cli_replay_parse(int argc, char **argv, struct rp_cli_replay_options *options)
{
    static const struct option known[] = {{"activations", required_argument, NULL, 'a'},
                                          {"kv-cache", required_argument, NULL, 'k'},
                                          {"attention", required_argument, NULL, 't'},
                                          {"mode", required_argument, NULL, 'm'},
                                          {"layers", required_argument, NULL, 'l'},
                                          {"layout", required_argument, NULL, 'y'},
                                          {"threads", required_argument, NULL, 'p'},
                                          {"tokens", required_argument, NULL, 'i'},
                                          {"names", required_argument, NULL, 'N'},
                                          {"rows", required_argument, NULL, 'R'},
                                          {"expected", required_argument, NULL, 'e'},
                                          {"no-explain", no_argument, NULL, 'n'},
                                          {"state", required_argument, NULL, 's'},
                                          {"json", no_argument, NULL, 'j'},
                                          {"html", required_argument, NULL, 'w'},
                                          {"verbose", no_argument, NULL, 'v'},
                                          {"all", no_argument, NULL, 'z'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    *options = (struct rp_cli_replay_options){.first_layer = -1,
                                              .last_layer = -1,
                                              .n_threads = default_threads(),
                                              .read = {.with_aliases = true},
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
