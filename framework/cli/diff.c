/* refparity diff: anyone's npz against anyone's dump. */
#include "cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/numbers.h"
#include "cli/path_kind.h"
#include "cli/reading.h"
#include "compare/warnings.h"
#include "diagnose/tokens.h"
#include "report/by_position.h"
#include "report/html.h"
#include "report/json.h"
#include "report/text.h"
#include "run/context.h"

static const char help[] =
    "usage: refparity diff [OPTION ...] REFERENCE DUMP\n"
    "\n"
    "Compares every slot that the reference (an .npz or .safetensors) and the engine's dump (a\n"
    "folder of .npy or .bin files, or such a file) have in common. emb, h0, h1 ..., post_norm\n"
    "have to be within the limit on L2_rel, logits above the limit on the cosine; other slots\n"
    "are shown. A required slot that only the reference has is an error, and so is a position\n"
    "that only the reference has, unless --pos names those to compare; what else could not be\n"
    "compared is counted.\n"
    "\n"
    "  --pos LIST|all            compare these positions alone: 0, or 0,4,7-11; a dump of plain\n"
    "                            NAME.bin files holds one position, the first of LIST (0 unless\n"
    "                            given)  [all]\n"
    "  --names FILE              which names are which slots, lines \"their_name our_slot\", as\n"
    "                            \"model.layers.{l} h{l}\" (docs/file-formats.md)  [names that "
    "are\n"
    "                            common are read, and it is said]\n"
    "  --reference-names FILE    the same for the reference alone\n"
    "  --dump-names FILE         the same for the dump alone\n"
    "  --rows N                  a plain NAME.bin holds N positions  [as many rows of the other\n"
    "                            side's width as fit into it]\n"
    "  --threshold-l2-rel X      limit on L2_rel of hidden states  [0.05]\n"
    "  --threshold-cosine X      limit on the logits' cosine  [0.90]\n"
    "  --all                     print every slot, in forward order: else those that fail come\n"
    "                            first, and where many pass they are counted\n"
    "  --json                    print JSON\n"
    "  --html FILE               also write a page with charts, one file that loads nothing\n"
    "  --strict-warnings         exit with 3 where all passes and there are warnings; so does\n"
    "                            REFPARITY_STRICT_WARNINGS=1 in the environment\n"
    "  --help\n"
    "\n"
    "exit codes: 0 pass, 1 divergence, 2 error, also when nothing could be compared,\n"
    "3 only warnings under --strict-warnings\n";

struct options {
    const char *reference, *dump;
    const char *html;                     /* NULL: no page */
    const char *names, *names_of[2];      /* files, of both sides and of each; NULL: none */
    struct rp_tensor_set_options read[2]; /* reference, dump */
    struct rp_names *rules[2]; /* of read; owned, the second NULL where it is the first */
    int64_t *positions;        /* [n_positions] ascending; NULL: all; owned */
    size_t n_positions;
    struct rp_limits limits;
    int json, strict_warnings;
    bool shows_all;
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

enum { MOST_POSITIONS = 1 << 20 };

/* "7" or "7-11" at text; 0 where it is neither. */
static size_t parse_range(const char *text, int64_t *first, int64_t *last)
{
    const int64_t most = 999999999;
    size_t used = rp_number_parse(text, strlen(text), most, first);
    *last = *first;
    if (used == 0 || text[used] != '-')
        return used;
    const char *second = text + used + 1;
    const size_t more = rp_number_parse(second, strlen(second), most, last);
    return more == 0 ? 0 : used + 1 + more;
}

/* "all", or "0,4,7-11", ascending. */
static int parse_positions(const char *text, struct options *options)
{
    free(options->positions);
    options->positions = NULL;
    options->n_positions = 0;
    if (strcmp(text, "all") == 0)
        return 1;
    for (int64_t first, last, next = 0;; next = last + 1) {
        const size_t used = parse_range(text, &first, &last);
        if (used == 0 || first < next || last < first ||
            last - first >= MOST_POSITIONS - (int64_t)options->n_positions)
            return 0;
        const size_t n = options->n_positions + (size_t)(last - first) + 1;
        int64_t *grown = realloc(options->positions, n * sizeof *grown);
        if (!grown)
            return 0;
        options->positions = grown;
        for (int64_t at = first; at <= last; at++)
            grown[options->n_positions++] = at;
        text += used;
        if (!*text)
            return 1;
        if (*text++ != ',')
            return 0;
    }
}

/* -1 to go on, else the exit code. */
static int parse_options(int argc, char **argv, struct options *options)
{
    static const struct option known[] = {{"pos", required_argument, NULL, 'p'},
                                          {"threshold-l2-rel", required_argument, NULL, 'l'},
                                          {"threshold-cosine", required_argument, NULL, 'c'},
                                          {"all", no_argument, NULL, 'a'},
                                          {"json", no_argument, NULL, 'j'},
                                          {"html", required_argument, NULL, 'w'},
                                          {"names", required_argument, NULL, 'n'},
                                          {"reference-names", required_argument, NULL, 'r'},
                                          {"dump-names", required_argument, NULL, 'd'},
                                          {"rows", required_argument, NULL, 'R'},
                                          {"strict-warnings", no_argument, NULL, 's'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    *options = (struct options){.limits = rp_limits_default(),
                                .strict_warnings = rp_env_flag("REFPARITY_STRICT_WARNINGS")};
    options->read[0] = options->read[1] =
        (struct rp_tensor_set_options){.single_position = -1, .with_aliases = true};
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "h", known, NULL)) != -1) {
        switch (option) {
        case 'p':
            if (!parse_positions(optarg, options))
                return rp_cli_usage_error(
                    "diff", "--pos takes ascending positions, 0,4,7-11 say, or all, not \"%s\"",
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
        case 'a': options->shows_all = true; break;
        case 'j': options->json = 1; break;
        case 'w': options->html = optarg; break;
        case 'n': options->names = optarg; break;
        case 'r': options->names_of[0] = optarg; break;
        case 'd': options->names_of[1] = optarg; break;
        case 'R':
            if (!rp_cli_parse_rows(optarg, &options->read[1].n_rows))
                return rp_cli_usage_error("diff", "--rows takes a number of positions, not \"%s\"",
                                          optarg);
            options->read[0].n_rows = options->read[1].n_rows;
            break;
        case 's': options->strict_warnings = 1; break;
        case 'h': fputs(help, stdout); return RP_EXIT_PASS;
        default: return rp_cli_usage_error("diff", "unknown option %s", argv[optind - 1]);
        }
    }
    if (argc - optind != 2)
        return rp_cli_usage_error("diff", "expected REFERENCE and DUMP, found %d arguments",
                                  argc - optind);
    options->reference = argv[optind];
    options->dump = argv[optind + 1];
    const unsigned wrong = 1U << RP_PATH_GGUF | 1U << RP_PATH_NPY;
    const int code = rp_cli_check_kind("diff", "an npz, a safetensors file or a dump for REFERENCE",
                                       options->reference, wrong);
    return code >= 0 ? code
                     : rp_cli_check_kind("diff", "a dump or an npz for DUMP", options->dump, wrong);
}

/* A folder for the reference and a fixture, which no engine wrote, for the dump. */
static bool are_swapped(const struct rp_comparison *c)
{
    size_t length;
    const enum rp_layout layout = rp_tensor_set_layout(c->reference);
    return (layout == RP_LAYOUT_NPY || layout == RP_LAYOUT_BIN) &&
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

static int exit_code(const struct options *options, const struct rp_pair_result *pair,
                     const struct rp_warnings *warnings)
{
    const int code = pair->verdict == RP_SKIP ? RP_EXIT_ERROR : rp_verdict_exit_code(pair->verdict);
    return code == RP_EXIT_PASS && options->strict_warnings && warnings->n > 0 ? RP_EXIT_WARNING
                                                                               : code;
}

/* At how many positions of the reference the required slots were compared: as many where the dump has
 * all of them; behind the last layer's attention it may hold the last alone. */
struct compared {
    size_t fewest, most, n; /* n: of the reference */
    char text[128];         /* "" where they are all */
};

static struct compared count_positions(const struct rp_comparison *c,
                                       const struct rp_pair_result *pair)
{
    struct compared compared = {.fewest = SIZE_MAX};
    bool is_0 = true; /* alone */
    for (size_t i = 0; i < pair->n_slots; i++) {
        const struct rp_slot_result *slot = &pair->slots[i];
        const struct rp_slot_info *of = rp_tensor_set_find(c->reference, slot->slot);
        if (!slot->required || !of || slot->verdict == RP_SKIP)
            continue;
        compared.n = of->n_positions > compared.n ? of->n_positions : compared.n;
        compared.most = slot->n_compared > compared.most ? slot->n_compared : compared.most;
        compared.fewest = slot->n_compared < compared.fewest ? slot->n_compared : compared.fewest;
        is_0 &= slot->n_compared == 0 || (slot->n_compared == 1 && slot->worst.position == 0);
    }
    if (compared.n == 0 || compared.fewest == compared.n)
        return compared;
    if (compared.fewest == compared.most)
        snprintf(compared.text, sizeof compared.text, "%zu of %zu positions compared%s",
                 compared.most, compared.n,
                 is_0 && compared.most > 0 ? ", where RoPE, mask and cache change nothing" : "");
    else
        snprintf(compared.text, sizeof compared.text, "%zu to %zu of %zu positions compared",
                 compared.fewest, compared.most, compared.n);
    return compared;
}

static void print_result(const struct rp_terminal *out, const struct options *options,
                         const struct rp_comparison *comparison, const struct rp_pair_result *pair,
                         const struct rp_divergence *divergence, const struct rp_warnings *warnings)
{
    const struct compared compared = count_positions(comparison, pair);
    if (options->json) {
        cJSON *root = cJSON_CreateObject();
        cJSON_AddStringToObject(root, "reference", options->reference);
        cJSON_AddStringToObject(root, "dump", options->dump);
        rp_report_json(root, pair, divergence);
        rp_report_json_warnings(root, warnings);
        rp_cli_add_notes(root, "reference_notes", comparison->reference);
        rp_cli_add_notes(root, "dump_notes", comparison->engine);
        rp_cli_add_others(root, "not_compared_reference", comparison->reference,
                          comparison->engine);
        rp_cli_add_others(root, "not_compared_dump", comparison->engine, comparison->reference);
        cJSON_AddNumberToObject(root, "n_positions", (double)compared.n);
        cJSON_AddNumberToObject(root, "n_positions_compared", (double)compared.most);
        char *text = cJSON_Print(root);
        puts(text ? text : "{}");
        free(text);
        cJSON_Delete(root);
        return;
    }
    const struct rp_subject subject = {.reference = options->reference,
                                       .dump = options->dump,
                                       .positions = compared.text,
                                       .warnings = warnings,
                                       .shows_all = options->shows_all};
    rp_cli_print_notes(out, "reference", comparison->reference);
    rp_cli_print_notes(out, "dump", comparison->engine);
    rp_report_text(out, &subject, pair, divergence);
    rp_cli_print_others(out, "reference", comparison->reference, comparison->engine);
    rp_cli_print_others(out, "dump", comparison->engine, comparison->reference);
    if (pair->verdict == RP_SKIP)
        rp_print_line(out, "nothing could be compared");
}

static enum rp_status write_html(const struct options *options,
                                 const struct rp_comparison *comparison,
                                 const struct rp_pair_result *pair,
                                 const struct rp_divergence *divergence,
                                 const struct rp_warnings *warnings, struct rp_error *err)
{
    char title[2 * RP_PATH_SIZE];
    cJSON *root = cJSON_CreateObject();
    snprintf(title, sizeof title, "%s against %s", options->dump, options->reference);
    cJSON_AddStringToObject(root, "pair", title);
    cJSON_AddStringToObject(root, "verdict", rp_verdict_name(pair->verdict));
    cJSON_AddStringToObject(root, "fixture", options->reference);
    cJSON_AddStringToObject(root, "dump", options->dump);
    cJSON *object = cJSON_AddObjectToObject(root, "comparison");
    rp_report_json(object, pair, divergence);
    rp_report_by_position(object, comparison, pair, divergence, NULL);
    rp_report_json_warnings(root, warnings);
    const enum rp_status status = rp_report_html_pair(options->html, root, err);
    cJSON_Delete(root);
    return status;
}

static enum rp_status open_names(struct options *options, struct rp_error *err)
{
    enum rp_status status = RP_OK;
    if (options->names && (options->names_of[0] || options->names_of[1]))
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1,
                       "--names is for both sides: expected it alone, or the names of each");
    if (options->names)
        status = rp_names_open(options->names, &options->rules[0], err);
    for (int side = 0; side < 2 && status == RP_OK; side++) {
        if (options->names_of[side])
            status = rp_names_open(options->names_of[side], &options->rules[side], err);
        options->read[side].names = options->rules[options->names ? 0 : side];
    }
    return status;
}

/* The number of layers, which has to be that of both sides. */
static enum rp_status agree_on_layers(struct rp_comparison *comparison, struct rp_error *err)
{
    comparison->n_layers = count_layers(comparison);
    const int declared = rp_tensor_set_n_layers(comparison->engine);
    const int seen = rp_tensor_set_n_layers_seen(comparison->engine);
    const int engine_layers = seen > comparison->n_layers ? seen : declared;
    const bool is_renamed = rp_tensor_set_n_notes(comparison->engine) > 0 ||
                            rp_tensor_set_n_notes(comparison->reference) > 0;
    if (engine_layers < 0 || engine_layers == comparison->n_layers)
        return RP_OK;
    if (is_renamed) { /* the first thing to look at */
        const struct rp_terminal out = rp_terminal_plain(stderr);
        rp_cli_print_notes(&out, "reference", comparison->reference);
        rp_cli_print_notes(&out, "dump", comparison->engine);
    }
    return rp_fail(
        err, RP_ERR_MISMATCH, rp_tensor_set_path(comparison->engine), -1,
        "the dump has %d layers, the reference %d%s", engine_layers, comparison->n_layers,
        is_renamed ? ": are its names other slots than was read? say it with --names" : "");
}

static enum rp_status open_comparison(struct options *options, struct rp_comparison *comparison,
                                      struct rp_error *err)
{
    enum rp_status status = open_names(options, err);
    if (options->positions)
        options->read[0].single_position = options->read[1].single_position = options->positions[0];
    if (!status)
        status =
            rp_cli_open_both(options->reference, &options->read[0], options->dump,
                             &options->read[1], &comparison->reference, &comparison->engine, err);
    for (int side = 0; side < 2 && !status; side++)
        status = rp_cli_check_names(options->rules[side], err);
    if (!status && are_swapped(comparison))
        status = rp_fail(err, RP_ERR_ARGUMENT, NULL, -1,
                         "expected REFERENCE and DUMP, found %s, a dump, and %s, a fixture: "
                         "swapped?",
                         options->reference, options->dump);
    return status ? status : agree_on_layers(comparison, err);
}

static int compare(const struct rp_terminal *out, const struct options *options,
                   const struct rp_comparison *comparison)
{
    struct rp_tokens_result tokens;
    struct rp_pair_result pair;
    struct rp_divergence divergence;
    struct rp_warnings warnings;
    struct rp_error err;
    rp_compare_tokens(comparison, &tokens);
    rp_explain_tokens(comparison, NULL, &tokens);
    if (rp_compare_pair_after_tokens(comparison, &tokens, &pair, &err))
        return rp_cli_error(&err);
    rp_diagnose_pair(comparison, &pair, &divergence);
    rp_warn_pair(&pair, false, &warnings); /* nobody says what weights the engine has */
    print_result(out, options, comparison, &pair, &divergence, &warnings);
    int result = exit_code(options, &pair, &warnings);
    if (options->html && write_html(options, comparison, &pair, &divergence, &warnings, &err))
        result = rp_cli_error(&err);
    rp_pair_result_free(&pair);
    if (!rp_tensor_set_complete(comparison->engine)) {
        (void)rp_fail(&err, RP_ERR_MISMATCH, options->dump, -1,
                      "the dump is not complete, rp_dump_close was not reached: what is there "
                      "was compared");
        result = rp_cli_error(&err);
    }
    return result;
}

int rp_cli_diff(int argc, char **argv, const struct rp_terminal *out)
{
    struct options options;
    int code = parse_options(argc, argv, &options);
    if (code >= 0) {
        free(options.positions);
        return code;
    }
    struct rp_comparison comparison = {.limits = options.limits,
                                       .positions = options.positions,
                                       .n_positions = options.n_positions};
    struct rp_error err;
    code = open_comparison(&options, &comparison, &err) ? rp_cli_error(&err)
                                                        : compare(out, &options, &comparison);
    rp_tensor_set_close(comparison.reference);
    rp_tensor_set_close(comparison.engine);
    rp_names_free(options.rules[0]);
    rp_names_free(options.rules[1]);
    free(options.positions);
    return code;
}
