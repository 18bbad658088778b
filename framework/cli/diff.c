/* refparity diff: anyone's npz against anyone's dump. */
#include "cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diagnose/tokens.h"
#include "report/json.h"
#include "report/text.h"

static const char help[] =
    "usage: refparity diff [OPTION ...] REFERENCE DUMP\n"
    "\n"
    "Compares every slot that the reference (an .npz) and the engine's dump (a folder of\n"
    ".npy or .bin files, or another .npz) have in common. emb, h0, h1 ..., post_norm have\n"
    "to be within the limit on L2_rel, logits above the limit on the cosine; other slots\n"
    "are shown. A required slot that only the reference has is an error; what else could not\n"
    "be compared is counted.\n"
    "\n"
    "  --pos N|all               compare position N alone; a dump of plain NAME.bin files\n"
    "                            holds one position, N (0 unless given)  [all]\n"
    "  --threshold-l2-rel X      limit on L2_rel of hidden states  [0.05]\n"
    "  --threshold-cosine X      limit on the logits' cosine  [0.90]\n"
    "  --json                    print JSON\n"
    "  --help\n"
    "\n"
    "exit codes: 0 pass, 1 divergence, 2 error, also when nothing could be compared\n";

struct options {
    const char *reference, *dump;
    int64_t position; /* -1: all */
    struct rp_limits limits;
    int json;
};

static int parse_number(const char *text, double low, double high, double *out)
{
    char *end;
    errno = 0;
    const double value = strtod(text, &end);
    if (end == text || *end || errno || !(value > low && value <= high))
        return 0;
    *out = value;
    return 1;
}

static int parse_position(const char *text, int64_t *out)
{
    char *end;
    if (strcmp(text, "all") == 0) {
        *out = -1;
        return 1;
    }
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno || value < 0)
        return 0;
    *out = value;
    return 1;
}

/* -1 to go on, else the exit code. */
static int parse_options(int argc, char **argv, struct options *options)
{
    static const struct option known[] = {{"pos", required_argument, NULL, 'p'},
                                          {"threshold-l2-rel", required_argument, NULL, 'l'},
                                          {"threshold-cosine", required_argument, NULL, 'c'},
                                          {"json", no_argument, NULL, 'j'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    *options = (struct options){.position = -1, .limits = rp_limits_default()};
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "h", known, NULL)) != -1) {
        switch (option) {
        case 'p':
            if (!parse_position(optarg, &options->position))
                return rp_cli_usage_error("diff", "--pos takes a position or all, not \"%s\"",
                                          optarg);
            break;
        case 'l':
            if (!parse_number(optarg, 0, HUGE_VAL, &options->limits.l2_rel) ||
                !isfinite(options->limits.l2_rel))
                return rp_cli_usage_error(
                    "diff", "--threshold-l2-rel takes a number above 0, not \"%s\"", optarg);
            break;
        case 'c':
            if (!parse_number(optarg, -1, 1, &options->limits.cosine))
                return rp_cli_usage_error(
                    "diff", "--threshold-cosine takes a number from -1 to 1, not \"%s\"", optarg);
            break;
        case 'j': options->json = 1; break;
        case 'h': fputs(help, stdout); return RP_EXIT_PASS;
        default: return rp_cli_usage_error("diff", "unknown option %s", argv[optind - 1]);
        }
    }
    if (argc - optind != 2)
        return rp_cli_usage_error("diff", "expected REFERENCE and DUMP, found %d arguments",
                                  argc - optind);
    options->reference = argv[optind];
    options->dump = argv[optind + 1];
    return -1;
}

/* A folder for the reference and a fixture, which no engine wrote, for the dump. */
static bool are_swapped(const struct rp_comparison *c)
{
    size_t length;
    return rp_tensor_set_layout(c->reference) != RP_LAYOUT_NPZ &&
           rp_tensor_set_layout(c->engine) == RP_LAYOUT_NPZ &&
           rp_tensor_set_manifest(c->engine, &length) != NULL;
}

/* The layers that the reference has; an npz of another recorder often lacks the last layer's own
 * output, which the dump then has. */
static int count_layers(const struct rp_comparison *c)
{
    const int declared = rp_tensor_set_n_layers(c->reference);
    const int reference = rp_tensor_set_n_layers_seen(c->reference);
    const int engine = rp_tensor_set_n_layers_seen(c->engine);
    if (declared >= 0)
        return declared;
    return reference > engine ? reference : engine;
}

static int exit_code(const struct rp_pair_result *pair)
{
    return pair->verdict == RP_SKIP ? RP_EXIT_ERROR : rp_verdict_exit_code(pair->verdict);
}

static void print_result(const struct options *options, const struct rp_pair_result *pair,
                         const struct rp_divergence *divergence)
{
    if (options->json) {
        cJSON *root = cJSON_CreateObject();
        cJSON_AddStringToObject(root, "reference", options->reference);
        cJSON_AddStringToObject(root, "dump", options->dump);
        rp_report_json(root, pair, divergence);
        char *text = cJSON_Print(root);
        puts(text ? text : "{}");
        free(text);
        cJSON_Delete(root);
        return;
    }
    const struct rp_subject subject = {.reference = options->reference, .dump = options->dump};
    rp_report_text(stdout, &subject, pair, divergence);
    if (pair->verdict == RP_SKIP)
        puts("nothing could be compared");
}

int rp_cli_diff(int argc, char **argv)
{
    struct options options;
    const int code = parse_options(argc, argv, &options);
    if (code >= 0)
        return code;
    struct rp_comparison comparison = {.limits = options.limits, .accept_partial = 1};
    struct rp_pair_result pair;
    struct rp_divergence divergence;
    struct rp_error err;
    int result;
    if (options.position >= 0) {
        comparison.positions = &options.position;
        comparison.n_positions = 1;
    }
    enum rp_status status =
        rp_tensor_set_open(options.reference, RP_LAYOUT_AUTO, 0, &comparison.reference, &err);
    if (!status)
        status = rp_tensor_set_open(options.dump, RP_LAYOUT_AUTO,
                                    options.position >= 0 ? options.position : 0,
                                    &comparison.engine, &err);
    if (!status && are_swapped(&comparison))
        status = rp_fail(&err, RP_ERR_ARGUMENT, NULL, -1,
                         "expected REFERENCE and DUMP, found %s, a dump, and %s, a fixture: "
                         "swapped?",
                         options.reference, options.dump);
    if (!status) {
        comparison.n_layers = count_layers(&comparison);
        const int declared = rp_tensor_set_n_layers(comparison.engine);
        const int seen = rp_tensor_set_n_layers_seen(comparison.engine);
        const int engine_layers = seen > comparison.n_layers ? seen : declared;
        if (engine_layers >= 0 && engine_layers != comparison.n_layers)
            status = rp_fail(&err, RP_ERR_MISMATCH, options.dump, -1,
                             "the dump has %d layers, the reference %d", engine_layers,
                             comparison.n_layers);
    }
    if (!status) {
        struct rp_tokens_result tokens;
        rp_compare_tokens(&comparison, &tokens);
        rp_explain_tokens(&comparison, NULL, &tokens);
        status = rp_compare_pair_after_tokens(&comparison, &tokens, &pair, &err);
    }
    if (status) {
        result = rp_cli_error(&err);
    } else {
        rp_diagnose_pair(&comparison, &pair, &divergence);
        print_result(&options, &pair, &divergence);
        result = exit_code(&pair);
        rp_pair_result_free(&pair);
        if (!rp_tensor_set_complete(comparison.engine)) {
            (void)rp_fail(&err, RP_ERR_MISMATCH, options.dump, -1,
                          "the dump is not complete, rp_dump_close was not reached: what is there "
                          "was compared");
            result = rp_cli_error(&err);
        }
    }
    rp_tensor_set_close(comparison.reference);
    rp_tensor_set_close(comparison.engine);
    return result;
}
