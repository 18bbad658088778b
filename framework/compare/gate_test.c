/* The gates explained and exact, on rows that are made for it: what is explained by quantization, what
 * is not, and in which words. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "compare/scratch_sets_test_util.h"

#define SIDE(...) (&(struct rp_test_side){__VA_ARGS__})
#define CHANGES(...) .changes = (struct rp_test_change[]){__VA_ARGS__}, .n_changes = 1
#define SAME SIDE(0)
#define LIMIT 1e-3

struct options {
    enum rp_gate gate;
    const char *slot;
    int without_exact;
    const int64_t *positions; /* [1], or NULL */
    enum rp_verdict weights;
};

/* What the gate says of slot; the reference is as the test sets have it. */
static struct rp_slot_result judge(const struct options *options, const struct rp_test_side *engine,
                                   const struct rp_test_side *exact)
{
    struct rp_test_sets sets, other;
    struct rp_slot_result result;
    rp_test_sets_open(&sets, SAME, engine);
    rp_test_sets_open(&other, SAME, exact);
    struct rp_comparison *c = &sets.comparison;
    c->gate = options->gate;
    c->exact = options->without_exact ? NULL : other.comparison.engine;
    c->no_exact = "it is not known";
    c->exact_limits.l2_rel = LIMIT;
    c->weights = options->weights;
    c->weights_message = "blk.0.attn_q.weight is in another order";
    c->positions = options->positions;
    c->n_positions = options->positions != NULL;
    rp_compare_slot(c, options->slot, &result);
    rp_test_sets_close(&other);
    rp_test_sets_close(&sets);
    return result;
}

static struct rp_slot_result explained(const struct rp_test_side *engine,
                                       const struct rp_test_side *exact, const char *slot)
{
    return judge(&(struct options){.gate = RP_GATE_EXPLAINED, .slot = slot}, engine, exact);
}

static struct rp_slot_result exact_gate(const struct rp_test_side *engine,
                                        const struct rp_test_side *exact, const char *slot)
{
    return judge(&(struct options){.gate = RP_GATE_EXACT, .slot = slot}, engine, exact);
}

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("expected \"%s\" in \"%s\"", part, text);
}

static void assert_near(double found, double expected)
{
    if (!(fabs(found - expected) <= 1e-5)) /* rows are FP32 of about 1 */
        fail_msg("expected %g, found %g", expected, found);
}

/* ---- explained ---- */

static void within_the_limit_against_HF_nothing_changes_but_both_numbers_are_there(void **state)
{
    (void)state;
    /* the engine's own error is far over its limit: without the gate exact, that is not asked */
    const struct rp_slot_result r = explained(SIDE(CHANGES({"h1", -1, 1.04f, 0, 0})), SAME, "h1");
    assert_int_equal(r.verdict, RP_PASS);
    assert_int_equal(r.exact.n_compared, RP_TEST_POSITIONS);
    assert_near(r.exact.own_error, 0.04);
    assert_near(r.exact.quantization_error, 0);
}

static void over_it_is_MARGINAL_where_the_engine_lies_on_the_exact_reference(void **state)
{
    (void)state;
    const struct rp_slot_result r = explained(SIDE(CHANGES({"h1", 3, 1.3f, 0, 0})),
                                              SIDE(CHANGES({"h1", 3, 1.3005f, 0, 0})), "h1");
    assert_int_equal(r.verdict, RP_MARGINAL);
    assert_int_equal(r.n_failing, 1);
    assert_near(r.exact.own_error, 0.0005 / 1.3005);
    assert_int_equal(r.exact.own_position, 3);
    assert_near(r.exact.quantization_error, 0.3005);
    assert_int_equal(r.exact.quantization_position, 3);
    assert_contains(r.message, "L2_rel 0.3 at worst, at position 3, is quantization: that alone is "
                               "0.3005, the engine's own error 0.000385, limit 0.001");
}

static void an_error_of_the_engines_own_fails_however_small_beside_quantization(void **state)
{
    (void)state;
    const struct rp_slot_result r = explained(SIDE(CHANGES({"h1", 3, 1.3f, 0, 0})),
                                              SIDE(CHANGES({"h1", 3, 1.302f, 0, 0})), "h1");
    assert_int_equal(r.verdict, RP_FAIL);
    assert_int_equal(r.first.position, 3);
    assert_contains(r.message, "L2_rel 0.3 at position 3, of which quantization is 0.302: the "
                               "engine's own error is 0.001536, limit 0.001");
}

static void an_error_at_one_position_is_not_hidden_by_the_others(void **state)
{
    (void)state;
    /* quantization everywhere; at position 4 the engine is where it should not be: on HF times 1.1 */
    struct rp_test_change engine[] = {{"h1", 0, 1.3f, 0, 0}, {"h1", 4, 1.1f, 0, 0}};
    struct rp_test_change exact[] = {{"h1", 0, 1.3f, 0, 0}, {"h1", 4, 1.3f, 0, 0}};
    const struct rp_slot_result r = explained(SIDE(.changes = engine, .n_changes = 2),
                                              SIDE(.changes = exact, .n_changes = 2), "h1");
    assert_int_equal(r.verdict, RP_FAIL);
    assert_int_equal(r.first.position, 4);
    assert_near(r.first.metrics.l2_rel, 0.1);
    assert_contains(r.message, "at position 4, of which quantization is 0.3: ");
}

static void logits_that_fail_by_their_cosine_are_explained_likewise(void **state)
{
    (void)state;
    const struct rp_test_side *far = SIDE(CHANGES({"logits", 2, 0, 1e6f, 0}));
    assert_int_equal(explained(far, SAME, "logits").verdict, RP_FAIL);
    assert_int_equal(explained(far, far, "logits").verdict, RP_MARGINAL);
}

static void NaN_fails_even_where_the_exact_reference_has_it_too(void **state)
{
    (void)state;
    const struct rp_test_side *broken = SIDE(CHANGES({"h1", 2, 0, NAN, 0}));
    struct rp_slot_result r = explained(broken, broken, "h1");
    assert_int_equal(r.verdict, RP_FAIL);
    assert_contains(r.message, "1 NaN and 0 infinite of 10 values at position 2");
    r = exact_gate(broken, broken, "h1");
    assert_int_equal(r.verdict, RP_FAIL);
    assert_contains(r.message, "1 NaN and 0 infinite of 10 values at position 2");
    /* nor does a NaN of the exact reference excuse anything */
    r = explained(SIDE(CHANGES({"h1", 2, 1.3f, 0, 0})), broken, "h1");
    assert_int_equal(r.verdict, RP_FAIL);
    r = exact_gate(SAME, broken, "h1");
    assert_int_equal(r.verdict, RP_FAIL);
}

static void NaN_behind_an_explained_position_is_what_is_reported(void **state)
{
    (void)state;
    struct rp_test_change engine[] = {{"h1", 0, 1.3f, 0, 0}, {"h1", 4, 0, NAN, 0}};
    const struct rp_slot_result r = explained(SIDE(.changes = engine, .n_changes = 2),
                                              SIDE(CHANGES({"h1", 0, 1.3f, 0, 0})), "h1");
    assert_int_equal(r.verdict, RP_FAIL);
    assert_int_equal(r.first.position, 4);
    assert_contains(r.message, "NaN or infinity at position 4");
}

static void a_slot_that_lacks_positions_is_an_error_also_where_its_rows_are_explained(void **state)
{
    (void)state;
    const struct rp_test_side *short_one =
        SIDE(CHANGES({"h1", -1, 1.3f, 0, 0}), .n_positions = RP_TEST_POSITIONS - 1,
             .n_tokens = RP_TEST_POSITIONS);
    const struct rp_slot_result r =
        explained(short_one, SIDE(CHANGES({"h1", -1, 1.3f, 0, 0})), "h1");
    assert_int_equal(r.verdict, RP_ERROR);
    assert_contains(r.message, "the engine's dump lacks 1 of 6 positions");
}

static void evidence_is_explained_too(void **state)
{
    (void)state;
    const struct rp_test_side *quantized =
        SIDE(CHANGES({"h1_postattn", 3, 1.3f, 0, 0}), .with_inner_slots = 1);
    struct rp_test_sets sets, other;
    struct rp_slot_result r;
    rp_test_sets_open(&sets, SIDE(.with_inner_slots = 1), quantized);
    rp_test_sets_open(&other, SIDE(.with_inner_slots = 1), quantized);
    sets.comparison.gate = RP_GATE_EXPLAINED;
    sets.comparison.exact = other.comparison.engine;
    sets.comparison.exact_limits.l2_rel = LIMIT;
    rp_compare_slot(&sets.comparison, "h1_postattn", &r);
    rp_test_sets_close(&other);
    rp_test_sets_close(&sets);
    assert_int_equal(r.required, 0);
    assert_int_equal(r.verdict, RP_MARGINAL);
}

static void what_is_not_the_checkpoint_is_no_quantization(void **state)
{
    (void)state;
    const struct rp_test_side *const far = SIDE(CHANGES({"h1", 3, 1.3f, 0, 0}));
    struct options options = {.gate = RP_GATE_EXPLAINED, .slot = "h1", .weights = RP_FAIL};
    struct rp_slot_result r = judge(&options, far, far);
    assert_int_equal(r.verdict, RP_FAIL);
    assert_contains(r.message, "is no quantization: the engine's file is not the checkpoint: "
                               "blk.0.attn_q.weight is in another order");
    options.weights = RP_SKIP;
    r = judge(&options, far, far);
    assert_int_equal(r.verdict, RP_MARGINAL);
    assert_contains(r.message, "; not checked: whether the file is the checkpoint (blk.0.");
    options.weights = RP_ERROR;
    assert_int_equal(judge(&options, far, far).verdict, RP_ERROR);
    options.weights = RP_FAIL; /* within 5%, it has nothing to explain */
    assert_int_equal(judge(&options, SAME, SAME).verdict, RP_PASS);
}

static void a_pair_with_explained_slots_is_MARGINAL_as_a_whole(void **state)
{
    (void)state;
    const struct rp_test_side *quantized = SIDE(CHANGES({"h1", 3, 1.3f, 0, 0}));
    struct rp_test_sets sets, other;
    struct rp_pair_result pair;
    struct rp_error err;
    rp_test_sets_open(&sets, SAME, quantized);
    rp_test_sets_open(&other, SAME, quantized);
    sets.comparison.gate = RP_GATE_EXPLAINED;
    sets.comparison.exact = other.comparison.engine;
    sets.comparison.exact_limits.l2_rel = LIMIT;
    assert_int_equal(rp_compare_pair(&sets.comparison, &pair, &err), RP_OK);
    assert_int_equal(pair.verdict, RP_MARGINAL);
    rp_pair_result_free(&pair);
    rp_test_sets_close(&other);
    rp_test_sets_close(&sets);
}

/* ---- without an exact reference ---- */

static void without_an_exact_reference_nothing_is_explained(void **state)
{
    (void)state;
    struct options options = {.gate = RP_GATE_EXPLAINED, .slot = "h1", .without_exact = 1};
    struct rp_slot_result r = judge(&options, SIDE(CHANGES({"h1", 3, 1.3f, 0, 0})), SAME);
    assert_int_equal(r.verdict, RP_FAIL);
    assert_contains(r.message,
                    "; there is no exact reference that could explain it: it is not known");
    r = judge(&options, SAME, SAME);
    assert_int_equal(r.verdict, RP_PASS);
    options.gate = RP_GATE_EXACT;
    r = judge(&options, SAME, SAME);
    assert_int_equal(r.verdict, RP_SKIP);
    assert_string_equal(r.message, "no exact reference: it is not known");
}

static void a_slot_or_positions_that_it_lacks_explain_nothing(void **state)
{
    (void)state;
    const struct rp_test_side *quantized = SIDE(CHANGES({"h1", 5, 1.3f, 0, 0}));
    struct rp_slot_result r = explained(quantized, SIDE(.without = "h1"), "h1");
    assert_int_equal(r.verdict, RP_FAIL);
    assert_contains(r.message, "it lacks this slot");
    r = explained(quantized, SIDE(.n_positions = RP_TEST_POSITIONS - 1), "h1");
    assert_int_equal(r.verdict, RP_FAIL);
    assert_contains(r.message, "the exact reference lacks positions");
    r = exact_gate(SAME, SIDE(.n_positions = RP_TEST_POSITIONS - 1), "h1");
    assert_int_equal(r.verdict, RP_ERROR);
    assert_string_equal(r.message, "the exact reference lacks 1 positions");
}

/* ---- exact ---- */

static void exact_fails_what_HFs_limit_lets_pass_and_passes_what_it_fails(void **state)
{
    (void)state;
    const struct rp_test_side *quantized = SIDE(CHANGES({"h1", 3, 1.3f, 0, 0}));
    struct rp_slot_result r = exact_gate(SIDE(CHANGES({"h1", 3, 1.01f, 0, 0})), SAME, "h1");
    assert_int_equal(r.verdict, RP_FAIL);
    assert_int_equal(r.n_failing, 1);
    assert_int_equal(r.first.position, 3);
    assert_contains(r.message,
                    "own error 0.01 at position 3, limit 0.001 (L2_rel against HF 0.01)");
    r = exact_gate(quantized, quantized, "h1");
    assert_int_equal(r.verdict, RP_PASS);
    assert_int_equal(r.n_failing, 0);
    assert_int_equal(r.first.position, -1);
    assert_contains(r.message, "limit 0.001 (L2_rel against HF 0.3)");
}

static void only_the_positions_that_are_asked_for_count(void **state)
{
    (void)state;
    const int64_t position = 2;
    struct options options = {.gate = RP_GATE_EXACT, .slot = "h1", .positions = &position};
    struct rp_slot_result r = judge(&options, SIDE(CHANGES({"h1", 3, 1.01f, 0, 0})), SAME);
    assert_int_equal(r.verdict, RP_PASS);
    assert_int_equal(r.exact.n_compared, 1);
    r = judge(&options, SIDE(CHANGES({"h1", 2, 1.01f, 0, 0})), SAME);
    assert_int_equal(r.verdict, RP_FAIL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(within_the_limit_against_HF_nothing_changes_but_both_numbers_are_there),
        cmocka_unit_test(over_it_is_MARGINAL_where_the_engine_lies_on_the_exact_reference),
        cmocka_unit_test(an_error_of_the_engines_own_fails_however_small_beside_quantization),
        cmocka_unit_test(an_error_at_one_position_is_not_hidden_by_the_others),
        cmocka_unit_test(logits_that_fail_by_their_cosine_are_explained_likewise),
        cmocka_unit_test(NaN_fails_even_where_the_exact_reference_has_it_too),
        cmocka_unit_test(NaN_behind_an_explained_position_is_what_is_reported),
        cmocka_unit_test(a_slot_that_lacks_positions_is_an_error_also_where_its_rows_are_explained),
        cmocka_unit_test(evidence_is_explained_too),
        cmocka_unit_test(what_is_not_the_checkpoint_is_no_quantization),
        cmocka_unit_test(a_pair_with_explained_slots_is_MARGINAL_as_a_whole),
        cmocka_unit_test(without_an_exact_reference_nothing_is_explained),
        cmocka_unit_test(a_slot_or_positions_that_it_lacks_explain_nothing),
        cmocka_unit_test(exact_fails_what_HFs_limit_lets_pass_and_passes_what_it_fails),
        cmocka_unit_test(only_the_positions_that_are_asked_for_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
