/* Measures what refparity detects: runs trials (a bug of the catalogue, in a model, a layer, a mode,
 * at a magnitude; or a clean variant of the arithmetic) and judges each by replay and the 5% rule. Not the table: that is detect_table.c, which also reads results of other grounds.
 *
 * Lines of CSV, fields without quotes and commas; a field that does not apply is empty.
 * The first line of a file names the fields:
 *   ground          who computed the dump: "c" (the C model's operations), "llamacpp"
 *   slots           "operations" or "layers": which of the run's slots were dumped
 *   weights         "f32", "bf16", "q8_0", "q4_0", "q4_K_M": the file's type
 *   arch            "qwen3", "llama", "qwen35"
 *   kind            the bug's name in the catalogue (a two-bug trial: "NAME+NAME"); of a clean variant
 *                   "clean:NAME"
 *   magnitude       the parameter, as %g; empty where the kind has none
 *   layer           from 0; "2+5" for bugs in two layers; "-" outside the layers
 *   mode            "per-token" or "batched"; "@p7" or "@h1" is appended where the bug is at position 7
 *                   alone or in head 1 alone
 *   above           1: what the bug changes at its slot (that of its operation; of layers the first that
 *                   shows it) is more than replay's limit at some position (see rp_detect_change); 0: not;
 *                   of a clean variant 0
 *   detected        1: replay (or the tokens' comparison) reports anything; of a clean variant that is
 *                   a false alarm
 *   layers_right    1: exactly the layers with a bug are reported, no other and none missing
 *   operation_right 1: that slot fails, and no slot does that the bug is not in
 *   position_right  1: and its first failing position is that where the bug is over the limit
 *   name_given      what rp_explain_slot says of the layer's first failing slot, "unexplained" where it gives no name; empty where
 *                   nothing was explained
 *   name_right      1: one of the names that the catalogue accepts (or "unexplained" where the
 *                   catalogue says that it has no name); 0: not
 *   ratio           the largest change / limit, as %g; of a clean variant the largest error / limit
 *   pos0_rule       1: reported by 5% at position 0 against FP32
 *   rule_5pct       1: reported by the 5% rule at all positions against FP32
 * A trial has a line for each of its dumps. Where it has two bugs, the *_right fields are 1 when it is right for both. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "detect_judge.h"
#include "detect_plan.h"
#include "detect_table.h"
#include "refparity/compare.h"

struct options {
    struct rp_detect_filter filter;
    const char *root, *csv;
    bool is_verbose, is_list, is_table, is_json, is_markdown, is_checked;
    char **files; /* [n_files], of --table */
    size_t n_files;
};

static const char help_text[] =
    "usage: refparity-detect [OPTIONS]\n"
    "       refparity-detect --table [--json|--markdown|--check] FILE.csv ...\n"
    "\n"
    "Runs bugs of the catalogue and clean variants, one trial after the other, judges each, and\n"
    "writes a line of CSV for each of its two dumps.\n"
    "\n"
    "  --csv FILE       the lines go there, not to stdout\n"
    "  --kind NAME      trials of that bug only, or of clean:VARIANT\n"
    "  --arch NAME      of qwen3, llama or qwen35 only\n"
    "  --weights NAME   of f32, q8_0, q4_0 or bf16 only\n"
    "  --clean, --bugs  clean variants only, or bugs only\n"
    "  --every N        one of N trials, spread over all\n"
    "  --share I/N      the I-th of N shares, from 1, for as many processes\n"
    "  --root DIR       the source tree, which has fixtures/\n"
    "  --verbose        each trial that went wrong, with what was reported, on stderr\n"
    "  --list           prints the bugs and the clean variants, and the number of trials\n"
    "  --table          prints the table of what such files hold and the goals; --check: exit code "
    "1\n"
    "                   when one is missed; --json: as JSON; --markdown: the totals, for a README\n"
    "  --help\n"
    "\n"
    "exit codes: 0, 1 a goal is missed (--check), 2 a trial could not be run\n";

static int usage_error(const char *what, const char *argument)
{
    fprintf(stderr, "refparity-detect: %s '%s' (see --help)\n", what, argument);
    return RP_EXIT_ERROR;
}

static bool parse_number(const char *text, const char **end, size_t *out)
{
    char *stop;
    unsigned long value = strtoul(text, &stop, 10);
    *end = stop;
    *out = (size_t)value;
    return text[0] >= '0' && text[0] <= '9' && value > 0 && value <= 1000000;
}

static bool parse_share(const char *text, struct rp_detect_filter *filter)
{
    const char *end;
    if (!parse_number(text, &end, &filter->share) || *end != '/' ||
        !parse_number(end + 1, &end, &filter->n_shares) || *end)
        return false;
    filter->share--;
    return filter->share < filter->n_shares;
}

/* An option without a value; false: it is none. */
static bool take_flag(const char *name, struct options *options)
{
    const struct {
        const char *name;
        bool *flag;
    } flags[] = {{"--verbose", &options->is_verbose},      {"--list", &options->is_list},
                 {"--table", &options->is_table},          {"--json", &options->is_json},
                 {"--markdown", &options->is_markdown},    {"--check", &options->is_checked},
                 {"--clean", &options->filter.only_clean}, {"--bugs", &options->filter.only_bugs}};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        if (strcmp(name, flags[i].name) == 0) {
            *flags[i].flag = true;
            return true;
        }
    }
    return false;
}

/* 1 with a value taken, 0 not an option with one, -1 a wrong value. */
static int take_value(const char *name, const char *value, struct options *options)
{
    const struct {
        const char *name;
        const char **text;
    } texts[] = {{"--csv", &options->csv},
                 {"--kind", &options->filter.kind},
                 {"--arch", &options->filter.architecture},
                 {"--weights", &options->filter.weights},
                 {"--root", &options->root}};
    const char *end;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (strcmp(name, texts[i].name) == 0) {
            *texts[i].text = value;
            return value ? 1 : -1;
        }
    }
    if (strcmp(name, "--share") == 0)
        return value && parse_share(value, &options->filter) ? 1 : -1;
    if (strcmp(name, "--every") == 0)
        return value && parse_number(value, &end, &options->filter.every) && !*end ? 1 : -1;
    return 0;
}

static void list(const struct rp_detect_plan *plan)
{
    for (size_t i = 0; i < rp_bug_count(); i++)
        printf("%-28s %s\n", rp_bug_at(i)->name, rp_bug_at(i)->description);
    for (size_t i = 0; i < rp_n_variants; i++)
        printf("clean:%-22s %s\n", rp_variants[i].name, rp_variants[i].description);
    printf("%zu bugs, %zu clean variants, %zu trials\n", rp_bug_count(), rp_n_variants,
           plan->n_trials);
}

static void print_layer(const struct rp_bug_choice *choice, FILE *out)
{
    if (choice->bug->layers == RP_BUG_IN_NO_LAYER)
        fputc('-', out);
    else
        fprintf(out, "%d", choice->layer);
}

static void print_answer(enum rp_detect_answer answer, FILE *out)
{
    if (answer != RP_DETECT_NONE)
        fputc(answer == RP_DETECT_YES ? '1' : '0', out);
}

/* The fields that say what the trial is, up to its mode. */
static void print_trial(const struct rp_detect_trial *trial, const char *slots, FILE *out)
{
    char kind[128];
    const struct rp_bug_choice *first = &trial->bugs[0];
    rp_detect_kind(trial, kind, sizeof kind);
    fprintf(out, "c,%s,%s,%s,%s,", slots, trial->on->weights, trial->on->architecture, kind);
    if (trial->n_bugs == 1 && first->bug->magnitudes)
        fprintf(out, "%.9g", first->magnitude != 0 ? first->magnitude : first->bug->magnitudes[0]);
    fputc(',', out);
    for (size_t b = 0; b < trial->n_bugs; b++) {
        if (b > 0)
            fputc('+', out);
        print_layer(&trial->bugs[b], out);
    }
    if (trial->n_bugs == 0)
        fputc('-', out);
    fprintf(out, ",%s", trial->mode == RP_MODE_BATCHED ? "batched" : "per-token");
    if (trial->n_bugs == 1 && first->position != RP_BUG_EVERYWHERE)
        fprintf(out, "@p%lld", (long long)first->position);
    if (trial->n_bugs == 1 && first->head != RP_BUG_EVERYWHERE)
        fprintf(out, "@h%d", first->head);
}

static void print_line(const struct rp_detect_trial *trial, const char *slots,
                       const struct rp_detect_result *result, FILE *out)
{
    const bool is_clean = trial->n_bugs == 0; /* there is nothing that could be right */
    const enum rp_detect_answer before[] = {result->above, result->detected,
                                            is_clean ? RP_DETECT_NONE : result->layers_right,
                                            is_clean ? RP_DETECT_NONE : result->operation_right,
                                            is_clean ? RP_DETECT_NONE : result->position_right};
    print_trial(trial, slots, out);
    for (size_t i = 0; i < sizeof before / sizeof *before; i++) {
        fputc(',', out);
        print_answer(before[i], out);
    }
    fprintf(out, ",%s,", result->name_given);
    print_answer(result->name_right, out);
    fputc(',', out);
    if (!isnan(result->ratio))
        fprintf(out, "%.6g", result->ratio);
    fputc(',', out);
    print_answer(result->pos0_rule, out);
    fputc(',', out);
    print_answer(result->rule_5pct, out);
    fputc('\n', out);
    fflush(out);
}

/* Whether a reader of --verbose wants to see it. */
static bool went_wrong(const struct rp_detect_trial *trial, const struct rp_detect_result *result)
{
    if (trial->n_bugs == 0)
        return result->detected == RP_DETECT_YES;
    if (result->above == RP_DETECT_NO)
        return false;
    return result->detected != RP_DETECT_YES || result->layers_right != RP_DETECT_YES ||
           result->operation_right != RP_DETECT_YES || result->position_right != RP_DETECT_YES ||
           result->name_right == RP_DETECT_NO;
}

static void explain_trial(const struct rp_detect_trial *trial, const char *slots,
                          const struct rp_detect_result *result, double seconds)
{
    print_trial(trial, slots, stderr);
    fprintf(stderr, " (%zu tokens, ratio %.3g, %.2f s):%s%s%s%s%s\n    %s\n", trial->on->n_tokens,
            result->ratio, seconds, result->detected == RP_DETECT_YES ? "" : " NOT DETECTED",
            result->layers_right == RP_DETECT_YES ? "" : " LAYERS",
            result->operation_right == RP_DETECT_YES ? "" : " OPERATION",
            result->position_right == RP_DETECT_YES ? "" : " POSITION",
            result->name_right == RP_DETECT_NO ? " NAME" : "",
            result->report[0] ? result->report : "nothing reported");
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int run_trials(const struct options *options, const struct rp_detect_plan *plan, FILE *out)
{
    char scratch[RP_DETECT_PATH];
    const char *parent = getenv("TMPDIR");
    int code = RP_EXIT_PASS;
    if (!parent || !parent[0])
        parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(scratch, sizeof scratch, "%.900s/refparity-detect-XXXXXX", parent);
    if (!mkdtemp(scratch)) {
        perror(scratch);
        return RP_EXIT_ERROR;
    }
    fputs(RP_DETECT_HEADER "\n", out);
    for (size_t i = 0; i < plan->n_trials; i++) {
        const struct rp_detect_trial *trial = &plan->trials[i];
        struct rp_detect_result results[RP_DETECT_LEVELS];
        struct rp_error err = {.code = RP_OK};
        double start = now();
        if (rp_detect_judge(trial, scratch, results, &err) != RP_OK) {
            fputs("refparity-detect: ", stderr);
            print_trial(trial, "", stderr);
            fprintf(stderr, ": %s\n", err.message);
            code = RP_EXIT_ERROR;
            continue;
        }
        for (size_t level = RP_DETECT_LEVELS; level-- > 0;) {
            const char *slots = rp_slot_level_name((enum rp_slot_level)level);
            print_line(trial, slots, &results[level], out);
            if (options->is_verbose && went_wrong(trial, &results[level]))
                explain_trial(trial, slots, &results[level], now() - start);
        }
    }
    rmdir(scratch);
    return code;
}

static int run(const struct options *options)
{
    struct rp_detect_plan plan;
    struct rp_error err = {.code = RP_OK};
    FILE *out = stdout;
    int code = RP_EXIT_ERROR;
    if (rp_detect_plan_open(options->root, &options->filter, &plan, &err) != RP_OK) {
        fprintf(stderr, "refparity-detect: %s\n", err.message);
        goto done;
    }
    if (options->csv)
        out = fopen(options->csv, "w");
    if (!out) {
        perror(options->csv);
        goto done;
    }
    code = RP_EXIT_PASS;
    if (options->is_list)
        list(&plan);
    else
        code = run_trials(options, &plan, out);
    if (out != stdout && fclose(out) != 0)
        code = RP_EXIT_ERROR;
done:
    rp_detect_plan_close(&plan);
    return code;
}

static enum rp_detect_format format_of(const struct options *options)
{
    if (options->is_json)
        return RP_DETECT_JSON;
    return options->is_markdown ? RP_DETECT_MARKDOWN : RP_DETECT_TEXT;
}

int main(int argc, char **argv)
{
    struct options options = {.root = RP_SOURCE_DIR};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            fputs(help_text, stdout);
            return RP_EXIT_PASS;
        }
        if (options.is_table && argv[i][0] != '-') {
            options.files = argv + i;
            options.n_files = (size_t)(argc - i);
            break;
        }
        if (take_flag(argv[i], &options))
            continue;
        int taken = take_value(argv[i], argv[i + 1], &options);
        if (taken == 0)
            return usage_error("no option", argv[i]);
        if (taken < 0)
            return usage_error("no valid value for", argv[i]);
        i++;
    }
    if (options.is_table)
        return rp_detect_table(options.files, options.n_files, format_of(&options),
                               options.is_checked);
    return run(&options);
}
