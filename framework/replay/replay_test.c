/* A replay says which slot introduces an error, and only that one. What other orders of summation add
 * is in floor_test.c, rounding and its flips in flips_test.c. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replay/engine_dump_test_util.h"

static const char *const models[] = {"qwen3", "llama", "qwen35"};

static struct rp_test_findings replay(const struct rp_test_dump_of *of)
{
    struct rp_test_replayed replayed;
    rp_test_replayed_open(&replayed, of);
    const struct rp_test_findings findings = rp_test_replay_all(&replayed);
    rp_test_replayed_close(&replayed);
    return findings;
}

/* Replays one layer; free it with rp_replay_layer_free. first_failing points into it, so it stays. */
static void replay_layer(const struct rp_test_dump_of *of, size_t layer,
                         struct rp_replay_layer *result)
{
    struct rp_test_replayed replayed;
    struct rp_error err = {.code = RP_OK};
    rp_test_replayed_open(&replayed, of);
    if (rp_replay_run_layer(replayed.replay, layer, result, &err) != RP_OK)
        fail_msg("%s", err.message);
    rp_test_replayed_close(&replayed);
}

static void expect_clean(const struct rp_test_findings *findings)
{
    if (findings->n_failing > 0)
        fail_msg("%s: %s", findings->failing[0], findings->message);
    assert_true(findings->n_slots > 0);
}

static void a_right_engine_passes_in_both_modes(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        for (int mode = 0; mode < 2; mode++) {
            const enum rp_mode modes[] = {RP_MODE_PER_TOKEN, RP_MODE_BATCHED};
            const struct rp_test_dump_of of = {
                .model = models[i], .mode = modes[mode], .options = {.mode = modes[mode]}};
            const struct rp_test_findings findings = replay(&of);
            expect_clean(&findings);
            assert_int_equal(findings.n_skipped, 0);
            assert_int_equal(findings.n_slots, (i == 2 ? 8 : 4) * 5 + 3);
        }
    }
}

/* ---- bugs ---- */

/* Layer 1 adds 1% too much of its FFN; layer 3 scales its scores by 1.02. */
static enum rp_status too_much_ffn(void *context, const struct rp_site *site,
                                   const struct rp_residual_add *args)
{
    const struct rp_ops *plain = rp_ops_default();
    enum rp_status status = plain->residual_add(NULL, site, args);
    (void)context;
    for (size_t i = 0; i < site->n_positions * args->dim; i++) {
        if (site->layer == 1 && args->which == RP_FFN_DOWN)
            args->hidden[i] += 0.01f * args->branch[i];
    }
    return status;
}

static enum rp_status too_sharp(void *context, const struct rp_site *site,
                                const struct rp_attention *args)
{
    struct rp_attention changed = *args;
    (void)context;
    if (site->layer == 3)
        changed.scale *= 1.02f;
    return rp_ops_default()->attention(NULL, site, &changed);
}

static void of_two_bugs_exactly_their_slots_fail(void **state)
{
    (void)state;
    struct rp_ops ops = *rp_ops_default();
    ops.residual_add = too_much_ffn;
    ops.attention = too_sharp;
    for (size_t i = 0; i < 3; i++) {
        const struct rp_test_dump_of of = {.model = models[i], .ops = &ops};
        const struct rp_test_findings findings = replay(&of);
        assert_int_equal(findings.n_failing, 2);
        assert_string_equal(findings.failing[0], "h1");
        assert_string_equal(findings.failing[1], "h3_postattn");
    }
}

static bool keeps_no_sub_stage(const char *slot, int64_t position)
{
    (void)position;
    return strchr(slot, '_') == NULL || strcmp(slot, "post_norm") == 0;
}

static void without_sub_stages_the_layer_fails_as_a_whole(void **state)
{
    (void)state;
    struct rp_ops ops = *rp_ops_default();
    ops.residual_add = too_much_ffn;
    ops.attention = too_sharp;
    for (size_t i = 0; i < 3; i++) {
        const struct rp_test_dump_of of = {
            .model = models[i], .ops = &ops, .keeps = keeps_no_sub_stage};
        const struct rp_test_findings findings = replay(&of);
        assert_int_equal(findings.n_failing, 2);
        assert_string_equal(findings.failing[0], "h1");
        assert_string_equal(findings.failing[1], "h3");
    }
}

/* A thousandth in one channel group of one row: far below any limit on an inherited error. */
static void spoil_one_row(const char *slot, int64_t position, float *row, size_t dim)
{
    if (strcmp(slot, "h2_preffn") == 0 && position == 7)
        for (size_t i = 0; i < dim; i++)
            row[i] *= i % 3 ? 1.0f : 1.001f;
}

static void a_bug_at_one_position_is_seen_there(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {.model = "qwen3", .spoils = spoil_one_row};
    struct rp_replay_layer layer;
    replay_layer(&of, 2, &layer);
    const struct rp_replay_slot *slot = rp_test_slot(&layer, "h2_preffn");
    assert_int_equal(layer.verdict, RP_FAIL);
    assert_ptr_equal(layer.first_failing, slot);
    assert_int_equal(slot->n_failing, 1);
    assert_int_equal(slot->positions[slot->first], 7);
    assert_int_equal(slot->worst_channel % 3, 0);
    assert_string_equal(slot->from, "h2_postattn");
    assert_non_null(strstr(slot->message, "at position 7"));
    /* What follows was computed from the right row, so it is not what the replay gets from this. */
    assert_int_equal(rp_test_slot(&layer, "h2_ffnout")->n_failing, 1);
    assert_int_equal(rp_test_slot(&layer, "h2")->verdict, RP_PASS);
    rp_replay_layer_free(&layer);
}

/* ---- rows that are not finite ---- */

static void spoil_with_nan(const char *slot, int64_t position, float *row, size_t dim)
{
    if (strcmp(slot, "h1") == 0 && position == 4)
        row[dim / 2] = NAN;
}

static void nan_fails_where_it_appears_and_is_not_blamed_on_what_follows(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {.model = "llama", .spoils = spoil_with_nan};
    struct rp_replay_layer layer;
    replay_layer(&of, 1, &layer);
    const struct rp_replay_slot *slot = rp_test_slot(&layer, "h1");
    assert_int_equal(slot->verdict, RP_FAIL);
    assert_int_equal(slot->n_failing, 1);
    assert_int_equal(slot->positions[slot->first], 4);
    assert_int_equal(slot->worst_channel, 32);
    assert_true(isnan(slot->introduced[slot->first]));
    assert_non_null(strstr(slot->message, "1 NaN"));
    rp_replay_layer_free(&layer);
}

static bool keeps_all_but_h2_in(const char *slot, int64_t position)
{
    (void)position;
    return strcmp(slot, "h2_in") != 0;
}

static void attention_is_replayed_up_to_an_input_that_is_not_finite(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {
        .model = "llama", .spoils = spoil_with_nan, .keeps = keeps_all_but_h2_in};
    struct rp_replay_layer layer;
    replay_layer(&of, 2, &layer);
    const struct rp_replay_slot *slot = rp_test_slot(&layer, "h2_postattn");
    assert_int_equal(layer.verdict, RP_PASS);
    assert_int_equal(slot->n_positions, 4);
    assert_non_null(strstr(slot->message, "20 positions left out: the engine's input at position 4 "
                                          "is not finite"));
    assert_int_equal(rp_test_slot(&layer, "h2_preffn")->n_positions, 24);
    rp_replay_layer_free(&layer);
}

/* ---- what is missing ---- */

static bool keeps_no_in(const char *slot, int64_t position)
{
    (void)position;
    return strstr(slot, "_in") == NULL;
}

static void a_layer_starts_from_the_one_before_where_its_input_is_missing(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        const struct rp_test_dump_of of = {.model = models[i], .keeps = keeps_no_in};
        const struct rp_test_findings findings = replay(&of);
        expect_clean(&findings);
        struct rp_replay_layer layer;
        replay_layer(&of, 2, &layer);
        assert_string_equal(layer.slots[0].slot, "h2_postattn");
        assert_string_equal(layer.slots[0].from, "h1");
        assert_int_equal(layer.slots[0].n_positions, 24);
        rp_replay_layer_free(&layer);
    }
}

static bool keeps_three_positions(const char *slot, int64_t position)
{
    (void)slot;
    return position == 0 || position == 5 || position == 9;
}

static void attention_needs_every_earlier_position_and_the_ffn_none(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        const struct rp_test_dump_of of = {.model = models[i], .keeps = keeps_three_positions};
        const struct rp_test_findings findings = replay(&of);
        struct rp_replay_layer layer;
        replay_layer(&of, 1, &layer);
        expect_clean(&findings);
        assert_int_equal(rp_test_slot(&layer, "h1_postattn")->n_positions, 1);
        assert_non_null(strstr(rp_test_slot(&layer, "h1_postattn")->message,
                               "2 positions left out: the input at position 1 is not dumped"));
        assert_int_equal(rp_test_slot(&layer, "h1_ffnout")->n_positions, 3);
        assert_int_equal(rp_test_slot(&layer, "h1")->n_positions, 3);
        rp_replay_layer_free(&layer);
    }
}

static bool keeps_last_of_the_end(const char *slot, int64_t position)
{
    const bool is_end =
        strcmp(slot, "h3") == 0 || strcmp(slot, "post_norm") == 0 || strcmp(slot, "logits") == 0;
    return !is_end || position == 23;
}

static void the_end_may_be_dumped_for_the_last_position_alone(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {.model = "qwen3", .keeps = keeps_last_of_the_end};
    const struct rp_test_findings findings = replay(&of);
    struct rp_replay_layer layer;
    replay_layer(&of, 3, &layer);
    expect_clean(&findings);
    assert_int_equal(findings.n_skipped, 0);
    assert_int_equal(rp_test_slot(&layer, "h3")->n_positions, 1);
    assert_int_equal(rp_test_slot(&layer, "h3_ffnout")->n_positions, 24);
    rp_replay_layer_free(&layer);
}

static void a_sequence_may_begin_at_any_position_when_its_tokens_are_known(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct rp_test_dump_of of = {.model = models[i], .first_position = 100};
        struct rp_test_findings findings = replay(&of);
        expect_clean(&findings);
        assert_int_equal(findings.n_skipped, 0);
        of.is_without_tokens = true;
        findings = replay(&of);
        expect_clean(&findings);
        assert_int_equal(findings.n_skipped, 1 + (i == 2 ? 8 : 4)); /* emb and each postattn */
    }
}

static void model_and_dump_have_to_belong_together(void **state)
{
    (void)state;
    struct rp_test_replayed small, large;
    const struct rp_test_dump_of of_small = {.model = "qwen3"}, of_large = {.model = "qwen35"};
    const struct rp_replay_options options = {.mode = RP_MODE_BATCHED};
    struct rp_replay *replay_of = NULL;
    struct rp_error err;
    rp_test_replayed_open(&small, &of_small);
    rp_test_replayed_open(&large, &of_large);
    assert_int_equal(rp_replay_open(small.model, large.dump, &options, &replay_of, &err),
                     RP_ERR_MISMATCH);
    assert_string_equal(err.message, "the dump says that it has 8 layers, the model has 4");
    assert_null(replay_of);
    rp_test_replayed_close(&small);
    rp_test_replayed_close(&large);
}

/* ---- variants ---- */

static void a_variant_with_the_bug_explains_it(void **state)
{
    (void)state;
    struct rp_ops ops = *rp_ops_default();
    struct rp_test_replayed replayed;
    struct rp_replay_layer plain, fixed;
    struct rp_overlay overlay;
    ops.attention = too_sharp;
    const struct rp_test_dump_of of = {.model = "llama", .ops = &ops};
    rp_test_replayed_open(&replayed, &of);
    assert_int_equal(rp_replay_run_layer(replayed.replay, 3, &plain, NULL), RP_OK);
    assert_int_equal(plain.verdict, RP_FAIL);
    rp_overlay_open(&overlay, NULL);
    overlay.ops.attention = too_sharp;
    struct rp_replay_variant variant = {.overlay = &overlay};
    assert_int_equal(rp_replay_run_variant(replayed.replay, 3, &variant, &plain, &fixed, NULL),
                     RP_OK);
    assert_int_equal(fixed.verdict, RP_PASS);
    rp_replay_layer_free(&fixed);
    variant.n_positions = 5;
    assert_int_equal(rp_replay_run_variant(replayed.replay, 3, &variant, &plain, &fixed, NULL),
                     RP_OK);
    assert_int_equal(rp_test_slot(&fixed, "h3")->n_positions, 5);
    rp_replay_layer_free(&fixed);
    rp_replay_layer_free(&plain);
    rp_test_replayed_close(&replayed);
}

static void rows_are_what_the_verdict_was_made_from(void **state)
{
    (void)state;
    struct rp_test_replayed replayed;
    struct rp_replay_layer layer;
    float *computed, *dumped;
    size_t dim;
    const struct rp_test_dump_of of = {.model = "qwen3", .spoils = spoil_one_row};
    rp_test_replayed_open(&replayed, &of);
    assert_int_equal(rp_replay_run_layer(replayed.replay, 2, &layer, NULL), RP_OK);
    const struct rp_replay_slot *slot = layer.first_failing;
    assert_int_equal(rp_replay_rows(replayed.replay, 2, slot, &computed, &dumped, &dim, NULL),
                     RP_OK);
    assert_int_equal(dim, 64);
    for (size_t i = 0; i < slot->n_positions * dim; i++) {
        const double ratio = (double)dumped[i] / (double)computed[i];
        assert_true(fabs(ratio - (i / dim == 7 && i % dim % 3 == 0 ? 1.001 : 1.0)) < 1e-6);
    }
    free(computed);
    free(dumped);
    rp_replay_layer_free(&layer);
    rp_test_replayed_close(&replayed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_right_engine_passes_in_both_modes),
        cmocka_unit_test(of_two_bugs_exactly_their_slots_fail),
        cmocka_unit_test(without_sub_stages_the_layer_fails_as_a_whole),
        cmocka_unit_test(a_bug_at_one_position_is_seen_there),
        cmocka_unit_test(nan_fails_where_it_appears_and_is_not_blamed_on_what_follows),
        cmocka_unit_test(attention_is_replayed_up_to_an_input_that_is_not_finite),
        cmocka_unit_test(a_layer_starts_from_the_one_before_where_its_input_is_missing),
        cmocka_unit_test(attention_needs_every_earlier_position_and_the_ffn_none),
        cmocka_unit_test(the_end_may_be_dumped_for_the_last_position_alone),
        cmocka_unit_test(a_sequence_may_begin_at_any_position_when_its_tokens_are_known),
        cmocka_unit_test(model_and_dump_have_to_belong_together),
        cmocka_unit_test(a_variant_with_the_bug_explains_it),
        cmocka_unit_test(rows_are_what_the_verdict_was_made_from),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
