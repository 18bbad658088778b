/* Known divergences: what the matrix knows of an engine is XFAIL and passes, what it does not know fails as
 * ever, and what is known and mended fails. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cases/scratch_pair_test_util.h"
#include "report/junit.h"
#include "report/markdown.h"
#include "report/result_file.h"
#include "report/results.h"
#include "report/summary.h"
#include "run/judge_replay.h"
#include "run/known.h"
#include "run/run.h"

#define ENGINE(bugs)                                                                 \
    "[\"{target:refparity-embedded-bugs}\", \"--model\", \"{gguf}\", \"--tokens\", " \
    "\"{tokens_file}\", \"--dump\", \"{dump}\", \"--slots\", \"{slots}\"" bugs "]"
#define BUG(name, layer) ", \"--bug\", \"" name "\", \"--layer\", \"" layer "\""
#define THETA BUG("rope-theta", "1")
#define REPLAY ", \"replay\": true"
/* On line 5 of the matrix. */
#define KNOWN(rules) ", \"known\":\n[" rules "]"
#define RULE(slot) "{\"slot\": \"" slot "\", \"reason\": \"it is old\"}"
#define NAMED(slot, name)                                                                     \
    "{\"slot\": \"" slot "\", \"name\": \"" name "\", \"reason\": \"it is old\", \"issue\": " \
    "\"#7\"}"
#define THETA_IS_KNOWN KNOWN(NAMED("h*_[qk]rope", "rope-theta"))

static void assert_contains(const char *text, const char *part)
{
    if (!text || !strstr(text, part))
        fail_msg("expected \"%s\" in \"%s\"", part, text ? text : "");
}

static struct rp_verdicts judge(const char *argv, const char *entry)
{
    struct rp_scratch_pair scratch;
    struct rp_verdicts verdicts;
    rp_scratch_pair_open(&scratch, &(struct rp_scratch_spec){.argv = argv, .entry_extra = entry});
    rp_scratch_pair_judge(&scratch, &verdicts);
    /* it belongs to the matrix, which is closed below */
    for (size_t i = 0; i < verdicts.n_known; i++)
        verdicts.known[i].known = NULL;
    rp_scratch_pair_close(&scratch);
    return verdicts;
}

static const struct rp_replay_result *replay_of(const struct rp_verdicts *verdicts,
                                                const char *slot)
{
    for (size_t i = 0; i < verdicts->n_replay; i++)
        if (strcmp(verdicts->replay[i].slot, slot) == 0)
            return &verdicts->replay[i];
    fail_msg("%s was not replayed", slot);
    abort(); /* fail_msg does not return */
}

static void without_a_rule_it_fails(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(ENGINE(THETA), REPLAY);
    assert_int_equal(v.verdict, RP_FAIL);
    assert_int_equal(replay_of(&v, "h1")->judgement.verdict, RP_FAIL);
    rp_verdicts_free(&v);
}

static void a_known_operation_is_XFAIL_and_so_is_what_is_downstream(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(ENGINE(THETA), REPLAY THETA_IS_KNOWN);
    assert_int_equal(v.verdict, RP_XFAIL);
    assert_int_equal(replay_of(&v, "h0")->judgement.verdict, RP_PASS);
    assert_int_equal(replay_of(&v, "h1")->judgement.verdict, RP_XFAIL);
    assert_contains(replay_of(&v, "h1")->judgement.message, ": known: it is old (#7)");
    assert_int_equal(replay_of(&v, "h2")->judgement.verdict, RP_PASS);
    size_t n = 0;
    for (size_t i = 0; i < v.pair.n_slots; i++) {
        const struct rp_slot_result *slot = &v.pair.slots[i];
        if (!slot->required || slot->verdict == RP_PASS)
            continue;
        n++;
        assert_int_equal(slot->verdict, RP_XFAIL);
        assert_contains(slot->message, ": downstream of h1_qrope, which is known: it is old (#7)");
    }
    assert_true(n > 0);
    assert_int_equal(v.n_known, 1);
    assert_int_equal(v.known[0].state, RP_KNOWN_MET);
    assert_string_equal(v.known[0].first, "h1_qrope");
    rp_verdicts_free(&v);
}

static void by_another_name_it_fails_and_both_names_are_said(void **state)
{
    (void)state;
    struct rp_verdicts v =
        judge(ENGINE(THETA), REPLAY KNOWN(NAMED("h*_[qk]rope", "rope-ordering")));
    assert_int_equal(v.verdict, RP_FAIL);
    assert_int_equal(replay_of(&v, "h1")->judgement.verdict, RP_FAIL);
    assert_contains(replay_of(&v, "h1")->judgement.message,
                    "; what is known of h1_qrope is rope-ordering, this is rope-theta");
    assert_int_equal(v.known[0].state, RP_KNOWN_OTHER);
    rp_verdicts_free(&v);
}

static void an_unknown_bug_beside_a_known_one_fails(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(ENGINE(THETA BUG("ffn-half", "2")), REPLAY THETA_IS_KNOWN);
    assert_int_equal(v.verdict, RP_FAIL);
    assert_int_equal(replay_of(&v, "h1")->judgement.verdict, RP_XFAIL);
    assert_int_equal(replay_of(&v, "h2")->judgement.verdict, RP_FAIL);
    assert_int_equal(rp_slot_of(&v, "h1")->verdict, RP_XFAIL);
    assert_int_equal(rp_slot_of(&v, "h2")->verdict, RP_FAIL);
    assert_contains(rp_slot_of(&v, "h2")->message, "; h2_ffnout fails, which is not known");
    assert_string_equal(v.divergence.slot, "h2");
    rp_verdicts_free(&v);
}

static void of_two_in_one_layer_the_unknown_one_is_what_the_layer_is_about(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(ENGINE(THETA BUG("ffn-half", "1")), REPLAY THETA_IS_KNOWN);
    const struct rp_replay_result *h1 = replay_of(&v, "h1");
    assert_int_equal(h1->judgement.verdict, RP_FAIL);
    assert_string_equal(h1->layer.first_failing->slot, "h1_ffnout");
    assert_contains(h1->judgement.message, "h1_ffnout, ");
    rp_verdicts_free(&v);
}

/* What is known hides no damage of the dump in the same layer. */
static void a_damaged_slot_beside_a_known_operation_is_an_error(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(
        "[\"sh\", \"-c\", \"D=$1; shift; \\\"$@\\\"; truncate -s -40 $D/h1_gate.npy\", \"sh\", "
        "\"{dump}\", \"{target:refparity-embedded-bugs}\", \"--model\", \"{gguf}\", \"--tokens\", "
        "\"{tokens_file}\", \"--dump\", \"{dump}\", \"--slots\", \"{slots}\"" THETA "]",
        REPLAY THETA_IS_KNOWN);
    assert_int_equal(replay_of(&v, "h1")->layer.verdict, RP_ERROR);
    assert_int_equal(replay_of(&v, "h1")->judgement.verdict, RP_ERROR);
    assert_contains(replay_of(&v, "h1")->judgement.message, "h1_gate.npy");
    assert_int_equal(v.verdict, RP_ERROR);
    assert_int_equal(v.known[0].state, RP_KNOWN_NOT_JUDGED);
    rp_verdicts_free(&v);
}

static void what_is_known_and_no_longer_fails_is_a_failure_with_its_line(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(ENGINE(""), REPLAY THETA_IS_KNOWN);
    assert_int_equal(v.pair.verdict, RP_PASS);
    assert_int_equal(v.verdict, RP_FAIL);
    assert_int_equal(v.known[0].state, RP_KNOWN_MENDED);
    assert_contains(v.known[0].message,
                    "/matrix.json:5: error: mended: remove it: none of the 8 slots "
                    "\"h*_[qk]rope\" of tiny/p0 diverges by rope-theta: it is old (#7)");
    rp_verdicts_free(&v);
}

static void a_pattern_that_fits_nothing_of_the_pair_is_a_failure(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(ENGINE(""), REPLAY KNOWN(RULE("h*_delta")));
    assert_int_equal(v.verdict, RP_FAIL);
    assert_int_equal(v.known[0].state, RP_KNOWN_ABSENT);
    assert_contains(v.known[0].message,
                    "/matrix.json:5: error: tiny/p0 has no slot \"h*_delta\": mend the pattern");
    rp_verdicts_free(&v);
}

static void without_replay_a_required_slot_is_known_by_the_5_percent_rule(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(ENGINE(BUG("ffn-half", "1")), KNOWN(RULE("h1")));
    assert_int_equal(v.verdict, RP_XFAIL);
    assert_int_equal(rp_slot_of(&v, "h0")->verdict, RP_PASS);
    assert_int_equal(rp_slot_of(&v, "h1")->verdict, RP_XFAIL);
    assert_contains(rp_slot_of(&v, "h1")->message, ": known: it is old");
    assert_int_equal(rp_slot_of(&v, "h2")->verdict, RP_XFAIL);
    assert_contains(rp_slot_of(&v, "h2")->message, ": downstream of h1, which is known: it is old");
    rp_verdicts_free(&v);
}

static void what_diverges_before_the_known_slot_fails(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(ENGINE(BUG("ffn-half", "0")), KNOWN(RULE("h1")));
    assert_int_equal(v.verdict, RP_FAIL);
    assert_int_equal(rp_slot_of(&v, "h0")->verdict, RP_FAIL);
    assert_int_equal(rp_slot_of(&v, "h1")->verdict, RP_XFAIL);
    assert_int_equal(rp_slot_of(&v, "h2")->verdict, RP_FAIL); /* downstream of h0 */
    rp_verdicts_free(&v);
}

static void NaN_downstream_of_what_is_known_and_finite_fails(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(
        "[\"sh\", \"-c\", \"D=$1; shift; \\\"$@\\\"; truncate -s -4 $D/h2.npy; printf "
        "'\\\\000\\\\000\\\\300\\\\177' >> $D/h2.npy\", \"sh\", \"{dump}\", "
        "\"{target:refparity-embedded-bugs}\", \"--model\", \"{gguf}\", \"--tokens\", "
        "\"{tokens_file}\", \"--dump\", \"{dump}\", \"--bug\", \"ffn-half\", \"--layer\", \"1\"]",
        KNOWN(RULE("h1")));
    assert_int_equal(rp_slot_of(&v, "h1")->verdict, RP_XFAIL);
    assert_int_equal(rp_slot_of(&v, "h2")->verdict, RP_FAIL);
    assert_int_equal(rp_slot_of(&v, "h3")->verdict, RP_XFAIL);
    assert_int_equal(v.verdict, RP_FAIL);
    rp_verdicts_free(&v);
}

/* The engine writes NaN where the rule says that values are off: in a slot and, with replay, in an operation. */
static void NaN_is_never_known(void **state)
{
    (void)state;
#define NAN_AT(slot)                                                                      \
    "[\"sh\", \"-c\", \"D=$1; shift; \\\"$@\\\"; truncate -s -4 $D/" slot ".npy; printf " \
    "'\\\\000\\\\000\\\\300\\\\177' >> $D/" slot ".npy\", \"sh\", \"{dump}\", "           \
    "\"{target:refparity-embedded-bugs}\", \"--model\", \"{gguf}\", \"--tokens\", "       \
    "\"{tokens_file}\", \"--dump\", \"{dump}\", \"--slots\", \"{slots}\"" THETA "]"
    struct rp_verdicts v = judge(NAN_AT("post_norm"), KNOWN(RULE("post_norm")));
    assert_int_equal(v.verdict, RP_FAIL);
    assert_int_equal(rp_slot_of(&v, "post_norm")->verdict, RP_FAIL);
    assert_contains(rp_slot_of(&v, "post_norm")->message, "; NaN and infinity fail, whatever");
    assert_int_equal(v.known[0].state, RP_KNOWN_OTHER);
    rp_verdicts_free(&v);
    static const char *const rules[] = {REPLAY KNOWN(RULE("*")), REPLAY THETA_IS_KNOWN};
    for (size_t i = 0; i < 2; i++) {
        v = judge(NAN_AT("h1_qrope"), rules[i]);
        assert_int_equal(v.verdict, RP_FAIL);
        assert_int_equal(replay_of(&v, "h1")->judgement.verdict, RP_FAIL);
        assert_contains(replay_of(&v, "h1")->judgement.message, "h1_qrope");
        assert_contains(replay_of(&v, "h1")->judgement.message,
                        "; NaN and infinity fail, whatever");
        rp_verdicts_free(&v);
    }
}

static void a_rule_of_another_prompt_is_neither_met_nor_mended(void **state)
{
    (void)state;
    for (int is_wrong = 0; is_wrong < 2; is_wrong++) {
        struct rp_scratch_pair scratch;
        struct rp_verdicts v;
        rp_scratch_pair_open(
            &scratch,
            &(struct rp_scratch_spec){
                .argv = is_wrong ? ENGINE(BUG("ffn-half", "1")) : ENGINE(""),
                .prompt = "\"" RP_FOX "\", {\"id\": \"b\", \"text\": \"Hello\"}",
                .entry_extra =
                    KNOWN("{\"slot\": \"h1\", \"reason\": \"it is old\", \"prompts\": [\"b\"]}")});
        rp_scratch_pair_judge(&scratch, &v);
        assert_int_equal(v.verdict, is_wrong ? RP_FAIL : RP_PASS);
        assert_int_equal(v.known[0].state, RP_KNOWN_NOT_JUDGED);
        rp_verdicts_free(&v);
        rp_scratch_pair_close(&scratch);
    }
}

static void a_pair_that_is_skipped_judges_nothing(void **state)
{
    (void)state;
    struct rp_verdicts v = judge("[\"/nowhere/engine\", \"{gguf}\", \"{tokens_file}\", \"{dump}\"]",
                                 REPLAY THETA_IS_KNOWN);
    assert_int_equal(v.verdict, RP_SKIP);
    assert_int_equal(v.known[0].state, RP_KNOWN_NOT_JUDGED);
    rp_verdicts_free(&v);
}

/* A bug of the batched mode alone. */
static void a_comparison_of_modes_is_known_where_it_is_named(void **state)
{
    (void)state;
    static const char modes[] = ", \"modes\": [\"batched\", \"per-token\"], \"compare_modes\": "
                                "[[\"batched\", \"per-token\"]]";
    static const struct {
        const char *known;
        enum rp_verdict verdict;
    } rules[] = {{"", RP_FAIL},
                 {KNOWN(RULE("h1")), RP_FAIL}, /* of modes, not of comparisons */
                 {KNOWN("{\"slot\": \"h1\", \"reason\": \"it is old\", \"modes\": "
                        "[\"batched-vs-per-token\"]}"),
                  RP_XFAIL}};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        struct rp_scratch_pair scratch;
        struct rp_verdicts v;
        char entry[1024];
        snprintf(entry, sizeof entry, "%s%s", modes, rules[i].known);
        rp_scratch_pair_open(
            &scratch, &(struct rp_scratch_spec){
                          .argv = ENGINE(", \"--mode\", \"{mode}\"" BUG("rope-batched-only", "1")),
                          .architecture = "llama",
                          .mode = "batched-vs-per-token",
                          .entry_extra = entry});
        rp_scratch_pair_judge(&scratch, &v);
        assert_int_equal(v.verdict, rules[i].verdict);
        rp_verdicts_free(&v);
        rp_scratch_pair_close(&scratch);
    }
}

/* A slot's own test, which has no other test's verdict, comes to what the whole pair does. */
static void the_test_of_one_slot_says_the_same(void **state)
{
    (void)state;
    static const char *const entries[] = {REPLAY THETA_IS_KNOWN, REPLAY, KNOWN(RULE("h2"))};
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        struct rp_scratch_pair scratch;
        struct rp_verdicts v;
        char name[RP_SLOT_NAME_SIZE];
        rp_scratch_pair_open(&scratch, &(struct rp_scratch_spec){.argv = ENGINE(THETA),
                                                                 .architecture = "llama",
                                                                 .entry_extra = entries[i]});
        rp_scratch_pair_judge(&scratch, &v);
        struct rp_judge *judge_again = malloc(sizeof *judge_again);
        assert_non_null(judge_again);
        rp_judge_open(&scratch.context, &scratch.pair, judge_again);
        for (size_t s = 0; rp_required_slot(RP_TINY_LAYERS, s, name); s++) {
            struct rp_slot_test test;
            struct rp_divergence divergence;
            assert_int_equal(rp_judge_slot(judge_again, name, &test, NULL), RP_OK);
            rp_diagnose_slot(&judge_again->comparison, &test.result, &divergence);
            assert_int_equal(rp_known_slot(judge_again, &test.result, NULL), RP_OK);
            assert_int_equal(test.result.verdict, rp_slot_of(&v, name)->verdict);
            rp_slot_test_free(&test);
        }
        rp_judge_close(judge_again);
        free(judge_again);
        rp_verdicts_free(&v);
        rp_scratch_pair_close(&scratch);
    }
}

/* ---- reports ---- */

typedef void write_fn(FILE *out, const struct rp_context *context,
                      const struct rp_results *results);

static char *text_of(write_fn *write, const struct rp_context *context,
                     const struct rp_results *results)
{
    char *text;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    assert_non_null(out);
    write(out, context, results);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void write_summary(FILE *out, const struct rp_context *context,
                          const struct rp_results *results)
{
    const struct rp_terminal terminal = rp_terminal_plain(out);
    rp_results_summary(&terminal, context, results, false);
}

static void write_markdown(FILE *out, const struct rp_context *context,
                           const struct rp_results *results)
{
    (void)context;
    rp_report_markdown(out, results);
}

static void write_junit(FILE *out, const struct rp_context *context,
                        const struct rp_results *results)
{
    (void)context;
    rp_report_junit(out, results->root);
}

/* What each report has to say, of an engine with these arguments. */
static void expect_reports(const char *argv, const char *known, int code, const char *summary,
                           const char *diff, const char *junit)
{
    struct rp_scratch_pair scratch;
    struct rp_run_record record;
    struct rp_results results;
    struct rp_error err;
    enum rp_verdict verdict;
    struct rp_warnings warnings;
    cJSON *json;
    char path[512], *text;
    rp_scratch_pair_begin(&scratch, &(struct rp_scratch_spec){.argv = argv, .entry_extra = known});
    assert_int_equal(rp_run_pair(&scratch.context, &scratch.pair, &record, &err), RP_OK);
    assert_int_equal(rp_results_make_pair(&scratch.context, &scratch.pair, NULL, &json, &verdict,
                                          &warnings, &err),
                     RP_OK);
    cJSON_Delete(json);
    assert_int_equal(rp_results_collect(&scratch.context, &results, &err), RP_OK);
    results.has_ended = true; /* ctest's part */
    assert_int_equal(rp_results_exit_code(&results, false), code);
    text = text_of(write_summary, &scratch.context, &results);
    assert_contains(text, summary);
    free(text);
    text = text_of(write_markdown, &scratch.context, &results);
    assert_contains(text, "it is old");
    free(text);
    text = text_of(write_junit, &scratch.context, &results);
    assert_contains(text, junit);
    free(text);
    snprintf(path, sizeof path, "%s/reports/tiny__p0.diff", scratch.folder);
    assert_int_equal(rp_file_read(path, 1 << 20, &text, &(size_t){0}, NULL), RP_OK);
    assert_contains(text, diff);
    free(text);
    snprintf(path, sizeof path, "%s/reports/tiny__p0.html", scratch.folder);
    assert_int_equal(rp_file_read(path, 1 << 22, &text, &(size_t){0}, NULL), RP_OK);
    assert_contains(text, "Known divergences");
    free(text);
    rp_results_free(&results);
    rp_scratch_pair_close(&scratch);
}

static void every_report_shows_and_counts_what_is_known(void **state)
{
    (void)state;
    expect_reports(ENGINE(THETA), REPLAY THETA_IS_KNOWN, RP_EXIT_PASS,
                   "  XFAIL    tiny (1 pair): h*_[qk]rope, rope-theta: it is old (#7)\n"
                   "compared 1 of 1 pairs: 0 passed, 1 known, 0 failed, 0 errors, 0 skipped\n",
                   "verdict: XFAIL (replay: 1 of 7 are known to fail)\nknown: h*_[qk]rope, "
                   "rope-theta: 2 slots, the first h1_qrope: it is old; #7\n",
                   "<skipped type=\"xfail\" message=\"h1_qrope, RoPE: ");
}

static void every_report_shows_what_is_mended(void **state)
{
    (void)state;
    expect_reports(
        ENGINE(""), REPLAY THETA_IS_KNOWN, RP_EXIT_FAIL,
        "matrix.json:5: error: mended: remove it: none of the 8 slots ",
        "matrix.json:5: error: mended: remove it: none of the 8 slots ",
        "<testcase classname=\"tiny/p0\" name=\"report\" time=\"0.000\">\n      <failure ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_rule_it_fails),
        cmocka_unit_test(a_known_operation_is_XFAIL_and_so_is_what_is_downstream),
        cmocka_unit_test(by_another_name_it_fails_and_both_names_are_said),
        cmocka_unit_test(an_unknown_bug_beside_a_known_one_fails),
        cmocka_unit_test(of_two_in_one_layer_the_unknown_one_is_what_the_layer_is_about),
        cmocka_unit_test(a_damaged_slot_beside_a_known_operation_is_an_error),
        cmocka_unit_test(what_is_known_and_no_longer_fails_is_a_failure_with_its_line),
        cmocka_unit_test(a_pattern_that_fits_nothing_of_the_pair_is_a_failure),
        cmocka_unit_test(without_replay_a_required_slot_is_known_by_the_5_percent_rule),
        cmocka_unit_test(what_diverges_before_the_known_slot_fails),
        cmocka_unit_test(NaN_downstream_of_what_is_known_and_finite_fails),
        cmocka_unit_test(NaN_is_never_known),
        cmocka_unit_test(a_rule_of_another_prompt_is_neither_met_nor_mended),
        cmocka_unit_test(a_pair_that_is_skipped_judges_nothing),
        cmocka_unit_test(a_comparison_of_modes_is_known_where_it_is_named),
        cmocka_unit_test(the_test_of_one_slot_says_the_same),
        cmocka_unit_test(every_report_shows_and_counts_what_is_known),
        cmocka_unit_test(every_report_shows_what_is_mended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
