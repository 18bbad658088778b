/* Tokens, whole pairs, and where the divergence is said to begin. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compare/scratch_sets_test_util.h"
#include "refparity/diagnose.h"

#define SIDE(...) (&(struct rp_test_side){__VA_ARGS__})
#define N(array) (sizeof(array) / sizeof(array)[0])

struct compared {
    struct rp_pair_result pair;
    struct rp_divergence divergence;
};

static struct compared compare(const struct rp_test_side *reference,
                               const struct rp_test_side *engine)
{
    struct rp_test_sets sets;
    struct compared c;
    rp_test_sets_open(&sets, reference, engine);
    assert_int_equal(rp_compare_pair(&sets.comparison, &c.pair, NULL), RP_OK);
    rp_diagnose_pair(&sets.comparison, &c.pair, &c.divergence);
    rp_test_sets_close(&sets);
    return c;
}

static struct compared compare_changed(const struct rp_test_change *changes, size_t n)
{
    return compare(SIDE(.with_sub_stages = 1),
                   SIDE(.with_sub_stages = 1, .changes = changes, .n_changes = n));
}

static const struct rp_slot_result *slot_of(const struct compared *c, const char *slot)
{
    for (size_t i = 0; c->pair.slots && i < c->pair.n_slots; i++)
        if (strcmp(c->pair.slots[i].slot, slot) == 0)
            return &c->pair.slots[i];
    fail_msg("no slot %s", slot);
    abort(); /* fail_msg does not return */
}

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("expected \"%s\" in \"%s\"", part, text);
}

static void equal_sets_pass_without_a_divergence(void **state)
{
    (void)state;
    struct compared c = compare(SIDE(0), SIDE(0));
    assert_int_equal(c.pair.verdict, RP_PASS);
    assert_int_equal(c.pair.n_slots, RP_TEST_LAYERS + 3);
    assert_string_equal(c.divergence.slot, "");
    assert_int_equal(c.pair.tokens.verdict, RP_PASS);
    rp_pair_result_free(&c.pair);
}

static void the_first_failing_slot_is_the_divergence_and_later_ones_are_downstream(void **state)
{
    (void)state;
    const struct rp_test_change changes[] = {{"h1_ffnout", 4, 1.5f, 0, 0},
                                             {"h1", 4, 1.2f, 0, 0},
                                             {"h2", 3, 1.3f, 0, 0},
                                             {"post_norm", 2, 2, 0, 0}};
    struct compared c = compare_changed(changes, N(changes));
    assert_int_equal(c.pair.verdict, RP_FAIL);
    assert_string_equal(c.divergence.slot, "h1");
    assert_int_equal(c.divergence.layer, 1);
    assert_int_equal(c.divergence.position, 4);
    assert_string_equal(c.divergence.sub_stage, "h1_ffnout");
    assert_string_equal(slot_of(&c, "h1")->downstream_of, "");
    assert_string_equal(slot_of(&c, "h2")->downstream_of, "h1");
    assert_string_equal(slot_of(&c, "post_norm")->downstream_of, "h1");
    rp_pair_result_free(&c.pair);
}

/* The limit lets the attention's error of 3% pass, but it is where the layer's 6% come from. */
static void a_sub_stage_below_the_limit_is_named_when_the_error_comes_in_there(void **state)
{
    (void)state;
    const struct rp_test_change changes[] = {{"h0_postattn", 2, 1.04f, 0, 0},
                                             {"h0_preffn", 2, 1.05f, 0, 0},
                                             {"h0_ffnout", 2, 1.07f, 0, 0},
                                             {"h0", 2, 1.06f, 0, 0}};
    struct compared c = compare_changed(changes, N(changes));
    assert_string_equal(c.divergence.sub_stage, "h0_postattn");
    assert_contains(c.divergence.explanation, "with the attention or its residual add");
    rp_pair_result_free(&c.pair);
}

static void the_norm_before_the_FFN_is_told_from_the_FFN(void **state)
{
    (void)state;
    const struct rp_test_change changes[] = {
        {"h2_preffn", 1, 1.5f, 0, 0}, {"h2_ffnout", 1, 1.5f, 0, 0}, {"h2", 1, 1.2f, 0, 0}};
    struct compared c = compare_changed(changes, N(changes));
    assert_string_equal(c.divergence.sub_stage, "h2_preffn");
    rp_pair_result_free(&c.pair);
}

static void an_error_of_the_last_residual_add_is_no_sub_stage(void **state)
{
    (void)state;
    const struct rp_test_change changes[] = {{"h1", 1, 1.2f, 0, 0}};
    struct compared c = compare_changed(changes, N(changes));
    assert_string_equal(c.divergence.slot, "h1");
    assert_string_equal(c.divergence.sub_stage, "");
    assert_contains(c.divergence.explanation, "the last residual add");
    rp_pair_result_free(&c.pair);
}

static void a_slot_that_was_not_dumped_is_not_called_close(void **state)
{
    (void)state;
    const struct rp_test_change changes[] = {{"h1", 1, 1.2f, 0, 0}};
    struct compared c =
        compare(SIDE(.with_sub_stages = 1), SIDE(.with_sub_stages = 1, .changes = changes,
                                                 .n_changes = 1, .without = "h1_ffnout"));
    assert_string_equal(c.divergence.sub_stage, "");
    assert_contains(
        c.divergence.explanation,
        "h1_preffn has L2_rel 0, its output has 0.2: the error comes in with the FFN or "
        "the last residual add (not compared: h1_ffnout)");
    rp_pair_result_free(&c.pair);
    const struct rp_test_change more[] = {{"h1_preffn", 1, 1.2f, 0, 0}, {"h1", 1, 1.2f, 0, 0}};
    c = compare(SIDE(.with_sub_stages = 1), SIDE(.with_sub_stages = 1, .changes = more,
                                                 .n_changes = 2, .without = "h1_postattn"));
    assert_string_equal(c.divergence.sub_stage, "h1_preffn");
    assert_contains(c.divergence.explanation,
                    "the attention or its residual add or the post-attention norm (not compared: "
                    "h1_postattn)");
    rp_pair_result_free(&c.pair);
    c = compare(SIDE(0), SIDE(.changes = changes, .n_changes = 1));
    assert_contains(c.divergence.explanation, "(not compared: h1_postattn, h1_preffn, h1_ffnout)");
    rp_pair_result_free(&c.pair);
}

static void an_error_that_accumulated_before_the_layer_is_not_blamed_on_it(void **state)
{
    (void)state;
    const struct rp_test_change changes[] = {{"h0", 1, 1.049f, 0, 0},
                                             {"h1_in", 1, 1.049f, 0, 0},
                                             {"h1_postattn", 1, 1.05f, 0, 0},
                                             {"h1", 1, 1.051f, 0, 0}};
    struct compared c = compare_changed(changes, N(changes));
    assert_string_equal(c.divergence.slot, "h1");
    assert_string_equal(c.divergence.sub_stage, "");
    assert_contains(c.divergence.explanation, "the error accumulates before h1");
    rp_pair_result_free(&c.pair);
}

static void NaN_is_named_where_it_first_stands(void **state)
{
    (void)state;
    const struct rp_test_change changes[] = {{"h1_ffnout", 3, 0, NAN, 0}, {"h1", 3, 0, NAN, 0}};
    struct compared c = compare_changed(changes, N(changes));
    assert_string_equal(c.divergence.slot, "h1");
    assert_string_equal(c.divergence.sub_stage, "h1_ffnout");
    rp_pair_result_free(&c.pair);
}

static void evidence_alone_fails_nothing(void **state)
{
    (void)state;
    const struct rp_test_change changes[] = {{"h1_ffnout", 3, 5, 0, 0}};
    struct compared c = compare_changed(changes, N(changes));
    assert_int_equal(c.pair.verdict, RP_PASS);
    assert_int_equal(slot_of(&c, "h1_ffnout")->verdict, RP_FAIL);
    assert_string_equal(c.divergence.slot, "");
    rp_pair_result_free(&c.pair);
}

static void one_slot_alone_finds_the_earlier_divergence(void **state)
{
    (void)state;
    struct rp_test_sets sets;
    struct rp_slot_result result;
    struct rp_divergence divergence;
    const struct rp_test_change changes[] = {{"h0", 5, 1.2f, 0, 0}, {"h2", 1, 1.2f, 0, 0}};
    rp_test_sets_open(&sets, SIDE(0), SIDE(.changes = changes, .n_changes = 2));
    rp_compare_slot(&sets.comparison, "h2", &result);
    rp_diagnose_slot(&sets.comparison, &result, &divergence);
    assert_string_equal(result.downstream_of, "h0");
    assert_string_equal(divergence.slot, "h0");
    assert_int_equal(divergence.position, 5);
    rp_test_sets_close(&sets);
}

static void different_tokens_make_the_slots_not_comparable(void **state)
{
    (void)state;
    const struct {
        const struct rp_test_side *engine;
        long long first;
        const char *message;
    } cases[] = {
        {SIDE(.last_token = 7), 5, "the reference has id 105, the engine id 7; counts 6 and 6"},
        {SIDE(.n_tokens = 5), 5,
         "the engine no id (it has 5); counts 6 and 5: the engine's prompt "
         "is truncated"},
        {SIDE(.n_tokens = 7), 6, "the reference has no id (it has 6), the engine id 106"},
    };
    for (size_t i = 0; i < N(cases); i++) {
        struct compared c = compare(SIDE(0), cases[i].engine);
        assert_int_equal(c.pair.verdict, RP_FAIL);
        assert_int_equal(c.pair.tokens.verdict, RP_FAIL);
        assert_int_equal(c.pair.tokens.first_difference, cases[i].first);
        assert_contains(c.pair.tokens.message, cases[i].message);
        assert_int_equal(slot_of(&c, "h0")->verdict, RP_SKIP);
        assert_contains(slot_of(&c, "h0")->message, "not comparable: token ids differ");
        rp_pair_result_free(&c.pair);
    }
}

static void without_token_ids_the_slots_are_compared_all_the_same(void **state)
{
    (void)state;
    struct compared c = compare(SIDE(0), SIDE(.n_tokens = -1));
    assert_int_equal(c.pair.tokens.verdict, RP_SKIP);
    assert_string_equal(c.pair.tokens.message, "not compared: the engine's dump has no token ids");
    assert_int_equal(c.pair.verdict, RP_PASS);
    rp_pair_result_free(&c.pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_sets_pass_without_a_divergence),
        cmocka_unit_test(the_first_failing_slot_is_the_divergence_and_later_ones_are_downstream),
        cmocka_unit_test(a_sub_stage_below_the_limit_is_named_when_the_error_comes_in_there),
        cmocka_unit_test(the_norm_before_the_FFN_is_told_from_the_FFN),
        cmocka_unit_test(an_error_of_the_last_residual_add_is_no_sub_stage),
        cmocka_unit_test(a_slot_that_was_not_dumped_is_not_called_close),
        cmocka_unit_test(an_error_that_accumulated_before_the_layer_is_not_blamed_on_it),
        cmocka_unit_test(NaN_is_named_where_it_first_stands),
        cmocka_unit_test(evidence_alone_fails_nothing),
        cmocka_unit_test(one_slot_alone_finds_the_earlier_divergence),
        cmocka_unit_test(different_tokens_make_the_slots_not_comparable),
        cmocka_unit_test(without_token_ids_the_slots_are_compared_all_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
