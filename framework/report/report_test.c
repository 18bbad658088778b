/* JUnit XML and Markdown of results in which every text is hostile, and names for test runners. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "report/junit.h"
#include "report/markdown.h"
#include "report/results.h"
#include "report/summary.h"
#include "report/test_name.h"

/* One pair that fails in h0, its message full of what XML and Markdown take for their own. */
static const char hostile[] =
    "{\"pairs\": [{\"pair\": \"e/p0\", \"verdict\": \"FAIL\", \"n_layers\": 1, \"engine\": "
    "\"<engine|>\", \"hf_model\": \"a/b\", \"matrix\": \"m & m.json\", \"line\": 7, \"timestamp\": "
    "\"2026-01-01T00:00:00\", \"engine_s\": 1.5, \"reproduce\": \"ctest -R '^e/p0/'\", "
    "\"engine_test\": {\"verdict\": \"ERROR\", \"message\": \"]]> \\u0001 \\u001b[31m <b>\"}, "
    "\"comparison\": {\"tokens\": {\"verdict\": \"SKIP\", \"message\": \"no \\\"ids\\\"\"}, "
    "\"divergence\": {\"slot\": \"h0\", \"position\": 3, \"inner_slot\": \"h0_ffnout\", "
    "\"explanation\": \"a < b\"}, \"n_required_compared\": 1, \"slots\": [{\"slot\": \"h0\", "
    "\"verdict\": "
    "\"FAIL\", \"required\": true, \"message\": \"L2_rel 0.5 & more\", \"worst\": {\"l2_rel\": "
    "0.5, "
    "\"cosine\": null, \"max_abs\": 1, \"position\": 3}}, {\"slot\": \"h0_ffnout\", \"verdict\": "
    "\"FAIL\", \"required\": false, \"message\": \"\", \"worst\": {\"l2_rel\": 0.25, \"cosine\": "
    "0.5, \"max_abs\": 1, \"position\": 3}}]}}]}";

static struct rp_json *parse(const char *text)
{
    struct rp_json *doc;
    struct rp_error err;
    if (rp_json_parse(text, strlen(text), "test", &doc, &err))
        fail_msg("%s: %s", err.where, err.message);
    return doc;
}

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("expected \"%s\" in \"%s\"", part, text);
}

static void assert_has_not(const char *text, const char *part)
{
    if (strstr(text, part))
        fail_msg("unexpected \"%s\" in \"%s\"", part, text);
}

static char *junit_of(const char *json)
{
    char *text = NULL;
    size_t length;
    struct rp_json *doc = parse(json);
    FILE *out = open_memstream(&text, &length);
    assert_non_null(out);
    rp_report_junit(out, rp_json_root(doc));
    assert_int_equal(fclose(out), 0);
    rp_json_free(doc);
    return text;
}

static void a_testcase_has_the_time_of_its_test(void **state)
{
    (void)state;
    char *xml = junit_of(
        "{\"pairs\": [{\"pair\": \"e/p0\", \"verdict\": \"PASS\", \"n_layers\": 1, \"engine_s\": "
        "1.5, "
        "\"compare_s\": 7.5, \"engine_test\": {\"verdict\": \"PASS\", \"compare_s\": 0.25}, "
        "\"comparison\": {\"tokens\": {\"verdict\": \"PASS\", \"compare_s\": 1.125}, \"slots\": "
        "[{\"slot\": \"h0\", \"verdict\": \"PASS\", \"required\": true, \"compare_s\": 2.125}]}, "
        "\"replay\": [{\"slot\": \"h0\", \"verdict\": \"PASS\", \"replay_s\": 4}]}]}");
    assert_has(xml, "name=\"engine\" time=\"1.750\"");
    assert_has(xml, "name=\"tokens\" time=\"1.125\"");
    assert_has(xml, "name=\"h00\" time=\"2.125\"");
    assert_has(xml, "name=\"replay/h00\" time=\"4.000\"");
    assert_has(xml, "skipped=\"0\" time=\"9.000\""); /* the suite's: all of them */
    free(xml);
}

static void junit_counts_and_names_what_results_say(void **state)
{
    (void)state;
    char *xml = junit_of(hostile);
    assert_has(xml,
               "<testsuite name=\"e/p0\" tests=\"3\" failures=\"1\" errors=\"1\" skipped=\"1\"");
    assert_has(xml, "<testcase classname=\"e/p0\" name=\"h00\"");
    assert_has(xml, "<failure type=\"divergence\" message=\"L2_rel 0.5 &amp; more\">");
    assert_has(xml, "m &amp; m.json:7: error: h00: L2_rel 0.5 &amp; more");
    assert_has(xml, "<property name=\"h00.L2_rel\" value=\"0.5\"/>");
    assert_has(xml, "<property name=\"h00.cosine\" value=\"nan\"/>");
    assert_has(xml, "<property name=\"line\" value=\"7\"/>");
    free(xml);
}

/* 23 slots of the smallest model, and each operation's beside them: a report that no viewer takes. */
static void junit_has_metrics_of_required_slots_alone(void **state)
{
    (void)state;
    char *xml = junit_of(hostile);
    assert_has(xml, "<property name=\"h00.max_abs\" value=\"1\"/>");
    assert_has_not(xml, "h0_ffnout.L2_rel");
    assert_has_not(xml, "name=\"h0_ffnout");
    free(xml);
}

static void junit_holds_no_byte_that_XML_cannot(void **state)
{
    (void)state;
    char *xml = junit_of(hostile);
    assert_has(xml, "]]&gt; ? ?[31m &lt;b&gt;");
    assert_has(xml, "no &quot;ids&quot;");
    assert_has_not(xml, "\x01");
    assert_has_not(xml, "\x1b");
    free(xml);
}

static void markdown_keeps_its_table_whatever_the_texts_hold(void **state)
{
    (void)state;
    char *text = NULL;
    size_t length;
    struct rp_json *doc = parse(hostile);
    struct rp_results results = {.root = cJSON_Duplicate(rp_json_root(doc), 1),
                                 .n_pairs = 1,
                                 .n_compared = 1,
                                 .n_failed = 1};
    FILE *out = open_memstream(&text, &length);
    assert_non_null(out);
    rp_report_markdown(out, &results);
    assert_int_equal(fclose(out), 0);
    assert_has(text, "compared 1 of 1 pairs");
    assert_has(text, "| FAIL | e/p0 | first divergence `h0` at position 3, slot `h0_ffnout` |\n");
    assert_has_not(text, "<details>");
    free(text);
    rp_results_free(&results);
    rp_json_free(doc);
}

static void markdown_has_what_fails_first_with_its_explanation(void **state)
{
    (void)state;
    static const char both[] =
        "{\"pairs\": [{\"pair\": \"e/p0\", \"verdict\": \"SKIP\"}, {\"pair\": \"e/p1\", "
        "\"verdict\": "
        "\"FAIL\", \"comparison\": {\"divergence\": {\"slot\": \"h0\", \"position\": 3}}, "
        "\"replay\": "
        "[{\"slots\": [{\"slot\": \"h0_q\"}, {\"slot\": \"h0_qrope\", \"explanation\": {\"text\": "
        "\"RoPE|2\"}}]}]}]}";
    char *text = NULL;
    size_t length;
    struct rp_json *doc = parse(both);
    struct rp_results results = {.root = cJSON_Duplicate(rp_json_root(doc), 1), .n_pairs = 2};
    FILE *out = open_memstream(&text, &length);
    assert_non_null(out);
    rp_report_markdown(out, &results);
    assert_int_equal(fclose(out), 0);
    assert_has(text, "| FAIL | e/p1 | first divergence `h0` at position 3; replay of `h0_qrope`: "
                     "RoPE&#124;2 |\n| SKIP | e/p0 | ");
    free(text);
    rp_results_free(&results);
    rp_json_free(doc);
}

/* A pair that quantization explains, with a replay that fails all the same. */
static const char explained[] =
    "{\"pairs\": [{\"pair\": \"e/p0\", \"entry\": \"e\", \"verdict\": \"MARGINAL\", \"n_layers\": "
    "1, "
    "\"engine_test\": {\"verdict\": \"PASS\"}, \"comparison\": {\"tokens\": {\"verdict\": "
    "\"PASS\"}, \"divergence\": null, \"n_required_compared\": 1, \"slots\": [{\"slot\": \"h0\", "
    "\"verdict\": \"MARGINAL\", \"required\": true, \"message\": \"L2_rel 0.3 is quantization\", "
    "\"worst\": {\"l2_rel\": 0.3}, \"unchecked\": \"whether the file is the checkpoint\"}]}, "
    "\"replay\": [{\"slot\": \"h0\", \"verdict\": \"FAIL\", \"message\": \"h0_ffnout introduces "
    "0.5\", \"slots\": [{\"slot\": \"h0_ffnout\", \"explanation\": {\"text\": \"a factor of "
    "0.5\"}}]}]}]}";

static void what_is_explained_passes_in_junit_and_is_shown(void **state)
{
    (void)state;
    char *xml = junit_of(explained);
    assert_has(xml, "<testsuite name=\"e/p0\" tests=\"4\" failures=\"1\" errors=\"0\"");
    assert_has(xml, "name=\"h00\" time=\"0.000\">\n      <system-out>MARGINAL: L2_rel 0.3 is "
                    "quantization</system-out>");
    assert_has(xml, "name=\"replay/h00\"");
    assert_has(xml, "<failure type=\"divergence\" message=\"h0_ffnout introduces 0.5\">");
    assert_has(xml, "&#10;h0_ffnout: a factor of 0.5");
    free(xml);
}

static void explained_pairs_are_counted_among_those_that_passed(void **state)
{
    (void)state;
    char *text = NULL;
    size_t length;
    struct rp_json *doc = parse(explained);
    struct rp_results results = {.root = cJSON_Duplicate(rp_json_root(doc), 1),
                                 .n_pairs = 1,
                                 .n_compared = 1,
                                 .n_passed = 1,
                                 .n_explained = 1};
    const struct rp_context context = {.reports_dir = "reports"};
    FILE *out = open_memstream(&text, &length);
    assert_non_null(out);
    rp_report_markdown(out, &results);
    const struct rp_terminal terminal = rp_terminal_plain(out);
    rp_results_summary(&terminal, &context, &results, false);
    assert_int_equal(fclose(out), 0);
    assert_has(text, "1 passed (1 of them explained), 0 failed");
    assert_has_not(text, "| verdict | test | what |");
    assert_has(text, "| e/p0 |  | 0.3 (explained) | `h0` |\n");
    assert_has(
        text,
        "  MARGINAL e (1 pair): L2_rel up to 0.3 is quantization and carried rounding, as far "
        "as was checked; not checked: whether the file is the checkpoint\n");
    assert_has(text, "compared 1 of 1 pairs: 1 passed (1 of them explained), 0 failed, 0 errors, 0 "
                     "skipped\n");
    free(text);
    rp_results_free(&results);
    rp_json_free(doc);
}

/* Of "e/p0", which fails by replay alone, and of pairs before it that pass. */
static void a_failing_pair_comes_first_with_what_explains_it(void **state)
{
    (void)state;
    static const char json[] =
        "{\"pairs\": [{\"pair\": \"skipped/p0\", \"entry\": \"skipped\", \"verdict\": \"SKIP\", "
        "\"engine_test\": {\"verdict\": \"SKIP\", \"message\": \"no \\u001b[31mengine\"}}, "
        "{\"pair\": \"e/p0\", \"entry\": \"e\", \"verdict\": \"FAIL\", \"diff\": \"e__p0.diff\", "
        "\"replay\": [{\"slot\": \"h0\", \"verdict\": \"FAIL\", \"message\": \"h0_q introduces "
        "1\", "
        "\"slots\": [{\"slot\": \"h0_q\", \"explanation\": {\"text\": \"a factor of 2\"}}]}]}]}";
    char *text = NULL;
    size_t length;
    struct rp_json *doc = parse(json);
    struct rp_results results = {.root = cJSON_Duplicate(rp_json_root(doc), 1), .n_pairs = 2};
    const struct rp_context context = {.reports_dir = "reports"};
    FILE *out = open_memstream(&text, &length);
    assert_non_null(out);
    const struct rp_terminal terminal = rp_terminal_plain(out);
    rp_results_summary(&terminal, &context, &results, false);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(strncmp(text,
                             "  FAIL     e/p0: h0_q introduces 1\n"
                             "           replay of h0_q: a factor of 2\n"
                             "           e__p0.diff\n"
                             "  SKIP     skipped/p0: no \\x1b[31mengine\n",
                             120),
                     0);
    free(text);
    rp_results_free(&results);
    rp_json_free(doc);
}

/* of what ctest has run to its end, or not */
static int code_of(struct rp_results results, bool has_ended)
{
    results.has_ended = has_ended;
    return rp_results_exit_code(&results, false);
}

static void exit_codes_fold_errors_over_failures_and_nothing_compared_is_an_error(void **state)
{
    (void)state;
    assert_int_equal(code_of((struct rp_results){.n_compared = 2, .n_passed = 2}, true), 0);
    assert_int_equal(code_of((struct rp_results){.n_compared = 2, .n_passed = 2}, false), 2);
    assert_int_equal(code_of((struct rp_results){.n_compared = 2, .n_failed = 1}, true), 1);
    assert_int_equal(code_of((struct rp_results){.n_compared = 2, .n_failed = 1}, false), 1);
    assert_int_equal(
        code_of((struct rp_results){.n_compared = 2, .n_failed = 1, .n_errors = 1}, true), 2);
    assert_int_equal(code_of((struct rp_results){.n_skipped = 3}, true), 2);
    assert_int_equal(code_of((struct rp_results){0}, true), 2);
}

static void test_names_sort_by_layer(void **state)
{
    (void)state;
    char out[RP_SLOT_NAME_SIZE];
    assert_string_equal(rp_slot_test_name("h7", 4, out), "h07");
    assert_string_equal(rp_slot_test_name("h7", 100, out), "h07");
    assert_string_equal(rp_slot_test_name("h7", 101, out), "h007");
    assert_string_equal(rp_slot_test_name("h999", 1024, out), "h0999");
    assert_string_equal(rp_slot_test_name("h7_preffn", 28, out), "h7_preffn");
    assert_string_equal(rp_slot_test_name("logits", 28, out), "logits");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_testcase_has_the_time_of_its_test),
        cmocka_unit_test(junit_counts_and_names_what_results_say),
        cmocka_unit_test(junit_has_metrics_of_required_slots_alone),
        cmocka_unit_test(junit_holds_no_byte_that_XML_cannot),
        cmocka_unit_test(markdown_keeps_its_table_whatever_the_texts_hold),
        cmocka_unit_test(markdown_has_what_fails_first_with_its_explanation),
        cmocka_unit_test(what_is_explained_passes_in_junit_and_is_shown),
        cmocka_unit_test(explained_pairs_are_counted_among_those_that_passed),
        cmocka_unit_test(a_failing_pair_comes_first_with_what_explains_it),
        cmocka_unit_test(exit_codes_fold_errors_over_failures_and_nothing_compared_is_an_error),
        cmocka_unit_test(test_names_sort_by_layer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
