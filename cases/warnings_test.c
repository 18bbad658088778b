/* Passes that deserve to be seen, and what is found of entries: in a test's result, in every report, and in the
 * exit code where it is asked for. Healthy engines have no warning. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "cases/scratch_pair_test_util.h"
#include "report/markdown.h"
#include "report/results.h"
#include "report/summary.h"
#include "run/run.h"
#include "run/selection.h"
#include "run/weights_result.h"

#define WITH_BUG(bug, magnitude)                                                     \
    "[\"{target:refparity-embedded-bugs}\", \"--model\", \"{gguf}\", \"--tokens\", " \
    "\"{tokens_file}\", \"--dump\", \"{dump}\", \"--bug\", \"" bug                   \
    "\", \"--magnitude\", \"" magnitude "\"]"
#define WIDE ", \"threshold_l2_rel\": 0.9, \"threshold_cosine\": 0.5, \"replay\": false"

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("expected \"%s\" in \"%s\"", part, text);
}

/* ---- one pair ---- */

/* The kind of its only warning; -1: none. */
static int warning_of(const struct rp_scratch_spec *spec)
{
    struct rp_scratch_pair scratch;
    struct rp_verdicts v;
    rp_scratch_pair_open(&scratch, spec);
    rp_scratch_pair_judge(&scratch, &v);
    rp_scratch_pair_close(&scratch);
    if (v.verdict != RP_PASS || v.warnings.n > 1)
        fail_msg("%s, %zu warnings: %s", rp_verdict_name(v.verdict), v.warnings.n,
                 v.warnings.list[0].message);
    const int kind = v.warnings.n ? (int)v.warnings.list[0].kind : -1;
    rp_verdicts_free(&v);
    return kind;
}

static void a_healthy_engine_has_no_warning(void **state)
{
    (void)state;
    static const char *const architectures[] = {"qwen3", "llama"};
    for (size_t i = 0; i < 2; i++) {
        const char *architecture = architectures[i];
        assert_int_equal(warning_of(&(struct rp_scratch_spec){.architecture = architecture}), -1);
        assert_int_equal(
            warning_of(&(struct rp_scratch_spec){.architecture = architecture, .weights = "q8_0"}),
            -1);
    }
}

static void logits_of_another_size_pass_with_a_warning(void **state)
{
    (void)state;
    assert_int_equal(
        warning_of(&(struct rp_scratch_spec){.argv = WITH_BUG("logits-factor", "0.01")}),
        RP_WARNING_LOGITS_SIZE);
    assert_int_equal(
        warning_of(&(struct rp_scratch_spec){.argv = WITH_BUG("logits-factor", "1.1")}), -1);
}

/* The embeddings off by 3% take every state to 3.2% and more; so do weights of 4 bits. */
static void states_that_are_all_far_off_pass_with_a_warning(void **state)
{
    (void)state;
    assert_int_equal(
        warning_of(&(struct rp_scratch_spec){.argv = WITH_BUG("embedding-factor", "1.03")}),
        RP_WARNING_FAR);
    assert_int_equal(
        warning_of(&(struct rp_scratch_spec){.argv = WITH_BUG("embedding-factor", "1.01")}), -1);
    assert_int_equal(warning_of(&(struct rp_scratch_spec){.weights = "q4_0", .entry_extra = WIDE}),
                     -1);
}

static void a_limit_that_fails_nothing_passes_with_a_warning(void **state)
{
    (void)state;
    assert_int_equal(
        warning_of(&(struct rp_scratch_spec){.entry_extra = ", \"threshold_l2_rel\": 1.5"}),
        RP_WARNING_LIMIT_L2_REL);
    assert_int_equal(
        warning_of(&(struct rp_scratch_spec){.entry_extra = ", \"threshold_cosine\": -0.5"}),
        RP_WARNING_LIMIT_COSINE);
}

/* ---- reports ---- */

static void reopen(struct rp_scratch_pair *scratch)
{
    char config[512];
    struct rp_error err;
    snprintf(config, sizeof config, "%s/config.json", scratch->folder);
    rp_context_close(&scratch->context);
    if (rp_context_open(config, &scratch->context, &err) ||
        rp_matrix_find_pair(scratch->context.matrix, "tiny", "", "p0", &scratch->pair, &err))
        fail_msg("%s", err.message);
}

/* As ctest does, with all of the matrix's tests but the pair's run, which comes after. */
static void begin(struct rp_scratch_pair *scratch, const struct rp_scratch_spec *spec)
{
    char config[512], reports[RP_PATH_SIZE];
    rp_scratch_pair_open(scratch, spec);
    snprintf(config, sizeof config, "%s/config.json", scratch->folder);
    assert_int_equal(rp_context_begin_session(config, reports, NULL), RP_OK);
    reopen(scratch);
}

static void run_pair(const struct rp_scratch_pair *scratch)
{
    struct rp_run_record record;
    assert_int_equal(rp_run_pair(&scratch->context, &scratch->pair, &record, NULL), RP_OK);
}

static char *read_report(const struct rp_scratch_pair *scratch, const char *name)
{
    char path[512], *text = NULL;
    size_t length;
    snprintf(path, sizeof path, "%s/reports/%s", scratch->folder, name);
    if (rp_file_read(path, 1 << 24, &text, &length, NULL) != RP_OK)
        fail_msg("there is no %s", path);
    return text;
}

/* All that a session writes. */
struct reports {
    struct rp_results results;
    char *printed, *markdown, *junit;
};

static char *print(const struct rp_scratch_pair *scratch, const struct rp_results *results,
                   bool as_markdown)
{
    char *text = NULL;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    assert_non_null(out);
    const struct rp_terminal terminal = rp_terminal_plain(out);
    if (as_markdown)
        rp_report_markdown(out, results);
    else
        rp_results_summary(&terminal, &scratch->context, results, false);
    assert_int_equal(fclose(out), 0);
    return text;
}

static struct reports collect(const struct rp_scratch_pair *scratch)
{
    struct reports reports = {.printed = NULL};
    assert_int_equal(rp_selection_end(&scratch->context, NULL), RP_OK);
    assert_int_equal(rp_results_collect(&scratch->context, &reports.results, NULL), RP_OK);
    reports.printed = print(scratch, &reports.results, false);
    reports.markdown = print(scratch, &reports.results, true);
    reports.junit = read_report(scratch, "junit.xml");
    return reports;
}

static void close_reports(struct reports *reports, struct rp_scratch_pair *scratch)
{
    free(reports->printed);
    free(reports->markdown);
    free(reports->junit);
    rp_results_free(&reports->results);
    rp_scratch_pair_close(scratch);
}

static void assert_code(const struct reports *reports, int code, int strict_code)
{
    if (rp_results_exit_code(&reports->results, false) != code)
        fail_msg("expected exit code %d of: %s", code, reports->printed);
    assert_int_equal(rp_results_exit_code(&reports->results, true), strict_code);
}

static const cJSON *first_of(const struct reports *reports, const char *list)
{
    const cJSON *items = cJSON_GetObjectItemCaseSensitive(reports->results.root, list);
    assert_non_null(items);
    assert_non_null(items->child);
    return items->child;
}

static const char *text_of(const cJSON *object, const char *key)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    assert_non_null(text);
    return text;
}

static void a_warning_is_in_every_report(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    begin(&scratch, &(struct rp_scratch_spec){.argv = WITH_BUG("logits-factor", "0.01")});
    run_pair(&scratch);
    struct reports reports = collect(&scratch);
    assert_int_equal(reports.results.n_passed, 1);
    assert_int_equal(reports.results.n_warnings, 1);
    assert_code(&reports, RP_EXIT_PASS, RP_EXIT_WARNING);
    assert_contains(reports.printed, "  WARNING  tiny/p0: logits-size: logits: the logits have");
    assert_contains(reports.printed, "0 skipped, 1 warnings");
    assert_contains(reports.markdown, "| tiny/p0 | logits-size | logits: the logits have");
    assert_contains(reports.junit, "name=\"logits\" time=\"0.00");
    assert_contains(reports.junit, "<system-out>warning: logits-size: the logits have the "
                                   "reference's direction, but not its size: times 0.01");
    const cJSON *pair = first_of(&reports, "pairs");
    const cJSON *warnings = cJSON_GetObjectItemCaseSensitive(pair, "warnings");
    assert_int_equal(cJSON_GetArraySize(warnings), 1);
    assert_string_equal(text_of(pair, "verdict"), "PASS");
    assert_string_equal(text_of(warnings->child, "kind"), "logits-size");
    assert_string_equal(text_of(warnings->child, "slot"), "logits");
    char *diff = read_report(&scratch, "tiny__p0.diff");
    assert_contains(diff, "\nwarning: logits: the logits have the reference's direction");
    free(diff);
    close_reports(&reports, &scratch);
}

static void without_a_warning_no_report_has_one(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    char path[512];
    begin(&scratch, &(struct rp_scratch_spec){0});
    run_pair(&scratch);
    struct reports reports = collect(&scratch);
    assert_code(&reports, RP_EXIT_PASS, RP_EXIT_PASS);
    assert_null(strstr(reports.printed, "arning"));
    assert_null(strstr(reports.printed, "WARNING"));
    assert_null(strstr(reports.markdown, "arning"));
    assert_null(strstr(reports.junit, "arning"));
    snprintf(path, sizeof path, "%s/reports/tiny__p0.diff", scratch.folder);
    assert_false(rp_path_exists(path));
    close_reports(&reports, &scratch);
}

static void a_failure_goes_before_warnings(void **state)
{
    (void)state;
    assert_int_equal(rp_results_worse_code(RP_EXIT_WARNING, RP_EXIT_PASS), RP_EXIT_WARNING);
    assert_int_equal(rp_results_worse_code(RP_EXIT_FAIL, RP_EXIT_WARNING), RP_EXIT_FAIL);
    assert_int_equal(rp_results_worse_code(RP_EXIT_WARNING, RP_EXIT_ERROR), RP_EXIT_ERROR);
    assert_int_equal(rp_results_worse_code(RP_EXIT_FAIL, RP_EXIT_ERROR), RP_EXIT_ERROR);
    struct rp_results results = {
        .n_pairs = 2, .n_compared = 2, .n_failed = 1, .n_warnings = 1, .has_ended = true};
    assert_int_equal(rp_results_exit_code(&results, true), RP_EXIT_FAIL);
    results.n_errors = 1;
    assert_int_equal(rp_results_exit_code(&results, true), RP_EXIT_ERROR);
}

static void a_disabled_entry_is_a_warning_where_all_is_required(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    begin(&scratch,
          &(struct rp_scratch_spec){.entry_extra = ", \"_disabled\": \"until it <works>\""});
    run_pair(&scratch); /* what ctest would not do */
    struct reports reports = collect(&scratch);
    assert_int_equal(reports.results.n_warnings, 0);
    free(reports.printed);
    free(reports.markdown);
    free(reports.junit);
    rp_results_free(&reports.results);
    setenv("REFPARITY_REQUIRE", "1", 1);
    reopen(&scratch);
    unsetenv("REFPARITY_REQUIRE");
    reports = collect(&scratch);
    assert_int_equal(reports.results.n_warnings, 1);
    assert_code(&reports, RP_EXIT_ERROR, RP_EXIT_ERROR); /* no other entry was compared */
    assert_contains(
        reports.printed,
        "  WARNING  tiny: disabled: nothing of it was run, though REFPARITY_REQUIRE asks "
        "for all: it is _disabled: until it <works>");
    assert_contains(reports.markdown, "| tiny | disabled | nothing of it was run");
    assert_contains(reports.junit, "<testsuite name=\"tiny\" tests=\"1\" failures=\"0\" "
                                   "errors=\"0\" skipped=\"1\"");
    assert_contains(reports.junit, "<testcase classname=\"tiny\" name=\"disabled\"");
    assert_contains(reports.junit, "<system-out>warning: disabled: nothing of it was run");
    assert_contains(reports.junit, "_disabled: until it &lt;works&gt;");
    close_reports(&reports, &scratch);
}

/* ---- <entry>/weights ---- */

static void store_weights(const struct rp_scratch_pair *scratch, enum rp_verdict verdict)
{
    struct rp_weights_result result = {
        .verdict = verdict, .message = "1 of 40 is not the checkpoint's: a <b>", .seconds = 2.5};
    assert_int_equal(rp_weights_result_write(&scratch->context, scratch->pair.entry, &result, NULL),
                     RP_OK);
}

static struct reports report_weights(struct rp_scratch_pair *scratch, bool with_pair,
                                     enum rp_verdict verdict)
{
    begin(scratch, &(struct rp_scratch_spec){0});
    if (with_pair)
        run_pair(scratch);
    store_weights(scratch, verdict);
    return collect(scratch);
}

static void a_file_that_is_not_the_checkpoint_is_in_every_report(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct reports reports = report_weights(&scratch, true, RP_FAIL);
    assert_int_equal(reports.results.n_passed, 1);
    assert_code(&reports, RP_EXIT_FAIL, RP_EXIT_FAIL);
    assert_contains(reports.printed,
                    "  FAIL     tiny/weights: 1 of 40 is not the checkpoint's: a <b>\n");
    assert_contains(reports.printed, "\nweights: 0 of 1 files are their checkpoints', 1 are not");
    assert_contains(reports.markdown, "| FAIL | tiny/weights | 1 of 40 is not the checkpoint's");
    assert_contains(reports.junit,
                    "<testsuite name=\"tiny\" tests=\"1\" failures=\"1\" errors=\"0\" "
                    "skipped=\"0\" time=\"2.500\"");
    assert_contains(reports.junit, "<testcase classname=\"tiny\" name=\"weights\" time=\"2.500\">");
    assert_contains(
        reports.junit,
        "<failure type=\"divergence\" message=\"1 of 40 is not the checkpoint's: a &lt;b&gt;\">");
    assert_contains(reports.junit, "'^tiny/weights$'");
    const cJSON *weights =
        cJSON_GetObjectItemCaseSensitive(first_of(&reports, "entries"), "weights");
    assert_string_equal(text_of(weights, "verdict"), "FAIL");
    assert_contains(text_of(weights, "message"), "1 of 40");
    close_reports(&reports, &scratch);
}

static void the_weights_count_for_the_exit_code(void **state)
{
    (void)state;
    static const struct {
        enum rp_verdict verdict;
        bool with_pair;
        int code;
    } runs[] = {{RP_PASS, true, RP_EXIT_PASS},   {RP_SKIP, true, RP_EXIT_PASS},
                {RP_ERROR, true, RP_EXIT_ERROR}, {RP_PASS, false, RP_EXIT_PASS},
                {RP_FAIL, false, RP_EXIT_FAIL},  {RP_SKIP, false, RP_EXIT_ERROR}};
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        struct rp_scratch_pair scratch;
        struct reports reports = report_weights(&scratch, runs[i].with_pair, runs[i].verdict);
        assert_code(&reports, runs[i].code, runs[i].code);
        close_reports(&reports, &scratch);
    }
}

static void a_test_of_the_weights_that_was_killed_is_an_error(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    begin(&scratch, &(struct rp_scratch_spec){0});
    run_pair(&scratch);
    assert_int_equal(rp_weights_result_begin(&scratch.context, scratch.pair.entry, NULL), RP_OK);
    struct reports reports = collect(&scratch);
    assert_code(&reports, RP_EXIT_ERROR, RP_EXIT_ERROR);
    assert_contains(reports.printed, "  ERROR    tiny/weights: the comparison was interrupted");
    close_reports(&reports, &scratch);
}

static void weights_of_an_earlier_run_do_not_count_and_damaged_ones_are_an_error(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    char config[512], path[512], folder[RP_PATH_SIZE];
    struct reports reports = report_weights(&scratch, true, RP_FAIL);
    free(reports.printed);
    free(reports.markdown);
    free(reports.junit);
    rp_results_free(&reports.results);
    snprintf(config, sizeof config, "%s/config.json", scratch.folder);
    assert_int_equal(rp_context_begin_session(config, folder, NULL), RP_OK);
    reopen(&scratch);
    run_pair(&scratch);
    assert_int_equal(rp_results_collect(&scratch.context, &reports.results, NULL), RP_OK);
    assert_int_equal(reports.results.weights.n, 0);
    rp_results_free(&reports.results);
    store_weights(&scratch, RP_PASS);
    snprintf(path, sizeof path, "%s/work/weights-tests/tiny.json", scratch.folder);
    assert_int_equal(rp_file_write_atomic(path, "{}", 2, NULL), RP_OK);
    reports = collect(&scratch);
    assert_code(&reports, RP_EXIT_ERROR, RP_EXIT_ERROR);
    assert_contains(reports.printed, "  ERROR    tiny/weights: ");
    close_reports(&reports, &scratch);
}

/* ---- where an error begins ---- */

static void the_departure_is_in_every_report(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    begin(&scratch, &(struct rp_scratch_spec){
                        .argv = "[\"{target:refparity-embedded-bugs}\", \"--model\", \"{gguf}\", "
                                "\"--tokens\", \"{tokens_file}\", \"--dump\", \"{dump}\", "
                                "\"--bug\", \"ffn-half\", \"--layer\", \"2\"]"});
    run_pair(&scratch);
    struct reports reports = collect(&scratch);
    assert_int_equal(reports.results.n_failed, 1);
    const cJSON *comparison =
        cJSON_GetObjectItemCaseSensitive(first_of(&reports, "pairs"), "comparison");
    const cJSON *departure = cJSON_GetObjectItemCaseSensitive(comparison, "departure");
    assert_string_equal(text_of(departure, "slot"), "h2");
    assert_contains(reports.junit, "&#10;departure: h2 at position 0: what the ");
    assert_contains(reports.markdown, "; departure `h2` at position 0");
    close_reports(&reports, &scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_healthy_engine_has_no_warning),
        cmocka_unit_test(logits_of_another_size_pass_with_a_warning),
        cmocka_unit_test(states_that_are_all_far_off_pass_with_a_warning),
        cmocka_unit_test(a_limit_that_fails_nothing_passes_with_a_warning),
        cmocka_unit_test(a_warning_is_in_every_report),
        cmocka_unit_test(without_a_warning_no_report_has_one),
        cmocka_unit_test(a_failure_goes_before_warnings),
        cmocka_unit_test(a_disabled_entry_is_a_warning_where_all_is_required),
        cmocka_unit_test(a_file_that_is_not_the_checkpoint_is_in_every_report),
        cmocka_unit_test(the_weights_count_for_the_exit_code),
        cmocka_unit_test(a_test_of_the_weights_that_was_killed_is_an_error),
        cmocka_unit_test(weights_of_an_earlier_run_do_not_count_and_damaged_ones_are_an_error),
        cmocka_unit_test(the_departure_is_in_every_report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
