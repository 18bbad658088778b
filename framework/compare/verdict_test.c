/* The rule, slot by slot: what passes, what fails, what is an error, and in which words. */
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

static struct rp_slot_result compare_at(const struct rp_test_side *reference,
                                        const struct rp_test_side *engine, const char *slot,
                                        const int64_t *positions, size_t n_positions)
{
    struct rp_test_sets sets;
    struct rp_slot_result result;
    rp_test_sets_open(&sets, reference, engine);
    sets.comparison.positions = positions;
    sets.comparison.n_positions = n_positions;
    rp_compare_slot(&sets.comparison, slot, &result);
    rp_test_sets_close(&sets);
    return result;
}

static struct rp_slot_result compare(const struct rp_test_side *reference,
                                     const struct rp_test_side *engine, const char *slot)
{
    return compare_at(reference, engine, slot, NULL, 0);
}

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("expected \"%s\" in \"%s\"", part, text);
}

static void equal_slots_pass_at_every_position(void **state)
{
    (void)state;
    const char *const slots[] = {"emb", "h0", "h2", "post_norm", "logits"};
    for (size_t i = 0; i < 5; i++) {
        const struct rp_slot_result r = compare(SIDE(0), SIDE(0), slots[i]);
        assert_int_equal(r.verdict, RP_PASS);
        assert_int_equal(r.n_compared, RP_TEST_POSITIONS);
        assert_int_equal(r.n_failing, 0);
    }
}

static void L2_rel_just_below_the_limit_passes_and_at_the_limit_fails(void **state)
{
    (void)state;
    /* a row times 1 + x has L2_rel x, to float's precision */
    struct rp_slot_result r = compare(SIDE(0), SIDE(CHANGES({"h1", 3, 1.0499f, 0, 0})), "h1");
    assert_int_equal(r.verdict, RP_PASS);
    assert_int_equal(r.worst.position, 3);
    r = compare(SIDE(0), SIDE(CHANGES({"h1", 3, 1.0501f, 0, 0})), "h1");
    assert_int_equal(r.verdict, RP_FAIL);
    assert_int_equal(r.first.position, 3);
    assert_int_equal(r.n_failing, 1);
    assert_contains(r.message, "L2_rel 0.0501 at position 3, limit 0.05");
}

static void a_bug_at_any_position_but_0_is_seen(void **state)
{
    (void)state;
    for (int p = 1; p < RP_TEST_POSITIONS; p++) {
        const struct rp_slot_result r = compare(SIDE(0), SIDE(CHANGES({"h0", p, 2, 0, 0})), "h0");
        assert_int_equal(r.verdict, RP_FAIL);
        assert_int_equal(r.first.position, p);
        assert_true(fabs(r.first.metrics.l2_rel - 1) < 1e-6); /* rounding of the doubled floats */
    }
}

static void a_slot_may_have_a_limit_of_its_own(void **state)
{
    (void)state;
    struct rp_test_sets sets;
    struct rp_slot_result r;
    const struct rp_slot_limit limit = {.slot = "h1", .l2_rel = 0.5};
    struct rp_test_change changes[] = {{"h1", 2, 1.3f, 0, 0}, {"h2", 2, 1.3f, 0, 0}};
    rp_test_sets_open(&sets, SIDE(0), SIDE(.changes = changes, .n_changes = 2));
    sets.comparison.limits.slots = &limit;
    sets.comparison.limits.n_slots = 1;
    rp_compare_slot(&sets.comparison, "h1", &r);
    assert_int_equal(r.verdict, RP_PASS);
    rp_compare_slot(&sets.comparison, "h2", &r);
    assert_int_equal(r.verdict, RP_FAIL);
    rp_test_sets_close(&sets);
}

static void logits_are_judged_by_cosine(void **state)
{
    (void)state;
    /* twice the logits: L2_rel 1, but the same direction */
    struct rp_slot_result r = compare(SIDE(0), SIDE(CHANGES({"logits", -1, 2, 0, 0})), "logits");
    assert_int_equal(r.verdict, RP_PASS);
    assert_int_equal(r.n_top1_equal, RP_TEST_POSITIONS);
    r = compare(SIDE(0), SIDE(CHANGES({"logits", 4, -1, 0, 0})), "logits");
    assert_int_equal(r.verdict, RP_FAIL);
    assert_contains(r.message, "cosine -1.000000 at position 4, limit 0.9");
}

static void NaN_and_infinity_fail_every_required_slot(void **state)
{
    (void)state;
    const char *const slots[] = {"emb", "h1", "post_norm", "logits"};
    const float bad[] = {NAN, INFINITY};
    for (size_t i = 0; i < 8; i++) {
        const struct rp_slot_result r =
            compare(SIDE(0), SIDE(CHANGES({slots[i / 2], 2, 0, bad[i % 2], 0})), slots[i / 2]);
        assert_int_equal(r.verdict, RP_FAIL);
        assert_int_equal(r.worst.position, 2);
        assert_contains(r.message, i % 2 ? "0 NaN and 1 infinite of 10 values at position 2, the "
                                           "first in channel 4"
                                         : "1 NaN and 0 infinite of 10 values at position 2, the "
                                           "first in channel 4");
    }
}

static void a_broken_reference_is_an_error_never_a_failure(void **state)
{
    (void)state;
    struct rp_slot_result r = compare(SIDE(CHANGES({"h1", 2, 0, NAN, 0})), SIDE(0), "h1");
    assert_int_equal(r.verdict, RP_ERROR);
    assert_contains(r.message, "the reference holds NaN or infinity at position 2");
    r = compare(SIDE(CHANGES({.slot = "h1", .position = 1, .zero = 1})), SIDE(0), "h1");
    assert_int_equal(r.verdict, RP_ERROR);
    assert_contains(r.message, "the reference is all zeros, so L2_rel is undefined, at position 1");
}

static void a_slot_that_one_side_lacks_is_not_passed(void **state)
{
    (void)state;
    struct rp_slot_result r = compare(SIDE(0), SIDE(.without = "h2"), "h2");
    assert_int_equal(r.verdict, RP_ERROR);
    assert_string_equal(r.message, "missing: the engine's dump has no h2");
    r = compare(SIDE(.without = "h2"), SIDE(0), "h2");
    assert_int_equal(r.verdict, RP_SKIP);
    assert_string_equal(r.message, "not compared: the reference has no h2");
    r = compare(SIDE(.with_inner_slots = 1), SIDE(0), "h2_preffn");
    assert_int_equal(r.verdict, RP_SKIP); /* evidence may be absent */
}

static void only_behind_the_last_attention_may_a_dump_hold_the_last_position_alone(void **state)
{
    (void)state;
    const struct rp_test_side *last_alone = SIDE(.n_positions = 1, .first_position = 5);
    const char *const may[] = {"h2", "post_norm", "logits"}, *const may_not[] = {"emb", "h0", "h1"};
    for (size_t i = 0; i < 3; i++) {
        struct rp_slot_result r = compare(SIDE(0), last_alone, may[i]);
        assert_int_equal(r.verdict, RP_PASS);
        assert_int_equal(r.n_missing, 5);
        r = compare(SIDE(0), last_alone, may_not[i]);
        assert_int_equal(r.verdict, RP_ERROR);
        assert_contains(r.message, "the engine's dump lacks 5 of 6 positions, the first 0");
        r = compare(SIDE(0), SIDE(.n_positions = 5), may[i]); /* all but the last */
        assert_int_equal(r.verdict, RP_ERROR);
    }
}

static void positions_that_the_dump_lacks_are_counted(void **state)
{
    (void)state;
    struct rp_slot_result r =
        compare(SIDE(0), SIDE(.n_positions = 1, .first_position = 5), "logits");
    assert_int_equal(r.verdict, RP_PASS);
    assert_int_equal(r.n_compared, 1);
    assert_int_equal(r.n_missing, 5);
    assert_int_equal(r.worst.position, 5);
    r = compare(SIDE(0), SIDE(.n_positions = 8), "h0");
    assert_int_equal(r.verdict, RP_PASS);
    assert_int_equal(r.n_extra, 2);
    r = compare(SIDE(0), SIDE(.first_position = 40), "h0");
    assert_int_equal(r.verdict, RP_ERROR);
    assert_contains(r.message, "no position in common");
}

static void a_position_that_was_asked_for_has_to_be_there(void **state)
{
    (void)state;
    const int64_t wanted[] = {1, 4};
    struct rp_slot_result r =
        compare_at(SIDE(0), SIDE(CHANGES({"h0", 2, 3, 0, 0})), "h0", wanted, 2);
    assert_int_equal(r.verdict, RP_PASS); /* position 2 was not asked for */
    assert_int_equal(r.n_compared, 2);
    r = compare_at(SIDE(0), SIDE(.n_positions = 4), "h0", wanted, 2);
    assert_int_equal(r.verdict, RP_ERROR);
    assert_contains(r.message, "the engine's dump lacks position 4, which was asked for");
    r = compare_at(SIDE(.n_positions = 4), SIDE(0), "h0", wanted, 2);
    assert_int_equal(r.verdict, RP_ERROR);
    assert_contains(r.message, "compared 1 of the 2 positions that were asked for");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_slots_pass_at_every_position),
        cmocka_unit_test(L2_rel_just_below_the_limit_passes_and_at_the_limit_fails),
        cmocka_unit_test(a_bug_at_any_position_but_0_is_seen),
        cmocka_unit_test(a_slot_may_have_a_limit_of_its_own),
        cmocka_unit_test(logits_are_judged_by_cosine),
        cmocka_unit_test(NaN_and_infinity_fail_every_required_slot),
        cmocka_unit_test(a_broken_reference_is_an_error_never_a_failure),
        cmocka_unit_test(a_slot_that_one_side_lacks_is_not_passed),
        cmocka_unit_test(only_behind_the_last_attention_may_a_dump_hold_the_last_position_alone),
        cmocka_unit_test(positions_that_the_dump_lacks_are_counted),
        cmocka_unit_test(a_position_that_was_asked_for_has_to_be_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
