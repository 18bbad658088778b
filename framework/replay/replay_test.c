/* A replay says which slot introduces an error, and only that one. What other orders of summation add is
 * in bounds_test.c, dumps that lack slots or positions in missing_slots_test.c, rows that are not finite in
 * invalid_rows_test.c, rounding on the way to a slot in carried_test.c. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "refparity/dump.h"
#include "replay/engine_dump_test_util.h"

static const char *const models[] = {"qwen3", "llama", "qwen35"};

static void expect_clean(const struct rp_test_findings *findings)
{
    if (findings->n_failing > 0)
        fail_msg("%s: %s", findings->failing[0], findings->message);
    assert_true(findings->n_slots > 0);
}

/* Every slot is one operation away from others that are dumped. */
static void every_slot_of_a_right_engine_is_direct_and_passes_in_both_modes(void **state)
{
    (void)state;
    static const size_t n_slots[] = {4 * 18 + 3, 4 * 16 + 3, 6 * 19 + 2 * 20 + 3};
    for (size_t i = 0; i < 3; i++) {
        for (int mode = 0; mode < 2; mode++) {
            const enum rp_mode modes[] = {RP_MODE_PER_TOKEN, RP_MODE_BATCHED};
            const struct rp_test_dump_of of = {
                .model = models[i], .mode = modes[mode], .options = {.mode = modes[mode]}};
            const struct rp_test_findings findings = rp_test_replay(&of);
            expect_clean(&findings);
            assert_int_equal(findings.n_skipped, 0);
            assert_int_equal(findings.n_carried, 0);
            assert_int_equal(findings.n_slots, n_slots[i]);
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
        const struct rp_test_findings findings = rp_test_replay(&of);
        assert_int_equal(findings.n_failing, 2);
        assert_string_equal(findings.failing[0], "h1");
        assert_string_equal(findings.failing[1], "h3_attn");
    }
}

/* Layer 3 doubles theta in K's rotation, too. */
static enum rp_status other_theta(void *context, const struct rp_site *site,
                                  const struct rp_rope *args)
{
    struct rp_rope changed = *args;
    (void)context;
    if (site->layer == 3 && args->which == RP_ATTN_K)
        changed.theta *= 2;
    return rp_ops_default()->rope(NULL, site, &changed);
}

static void of_two_bugs_in_one_layer_each_fails_by_its_name(void **state)
{
    (void)state;
    struct rp_ops ops = *rp_ops_default();
    ops.rope = other_theta;
    ops.attention = too_sharp;
    for (size_t i = 0; i < 3; i++) {
        const struct rp_test_dump_of of = {.model = models[i], .ops = &ops};
        const struct rp_test_findings findings = rp_test_replay(&of);
        assert_int_equal(findings.n_failing, 2);
        assert_string_equal(findings.failing[0], "h3_krope");
        assert_string_equal(findings.failing[1], "h3_attn");
        struct rp_replay_layer layer;
        rp_test_replay_layer(&of, 3, &layer);
        assert_string_equal(layer.first_failing->slot, "h3_krope");
        assert_string_equal(layer.first_failing->operation, "RoPE");
        /* Position 0 is not rotated, and sees one key. */
        assert_int_equal(layer.first_failing->positions[layer.first_failing->first], 1);
        assert_int_equal(rp_test_slot(&layer, "h3_attn")->n_failing, 23);
        rp_replay_layer_free(&layer);
    }
}

static bool keeps_layers(const char *slot, int64_t position)
{
    int layer;
    (void)position;
    return rp_slot_level_has(RP_SLOTS_LAYERS, rp_slot_parse(slot, &layer));
}

static bool keeps_required(const char *slot, int64_t position)
{
    (void)position;
    return rp_slot_is_required(slot);
}

static void of_a_coarse_dump_the_slot_after_the_bug_fails(void **state)
{
    (void)state;
    struct rp_ops ops = *rp_ops_default();
    ops.residual_add = too_much_ffn;
    ops.attention = too_sharp;
    for (size_t i = 0; i < 3; i++) {
        struct rp_test_dump_of of = {.model = models[i], .ops = &ops, .keeps = keeps_layers};
        struct rp_test_findings findings = rp_test_replay(&of);
        assert_int_equal(findings.n_failing, 2);
        assert_string_equal(findings.failing[0], "h1");
        assert_string_equal(findings.failing[1], "h3_postattn");
        of.keeps = keeps_required;
        findings = rp_test_replay(&of);
        assert_int_equal(findings.n_failing, 2);
        assert_string_equal(findings.failing[0], "h1");
        assert_string_equal(findings.failing[1], "h3");
    }
}

/* A thousandth in some channels of one row: far below any limit on an inherited error. */
static void spoil_one_row(const char *slot, int64_t position, float *row, size_t dim)
{
    if (strcmp(slot, "h2_preffn") == 0 && position == 7)
        for (size_t i = 0; i < dim; i++)
            row[i] *= i % 3 ? 1.0f : 1.001f;
}

static void a_bug_at_one_position_is_seen_there(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {.model = "qwen3", .errs = spoil_one_row};
    struct rp_replay_layer layer;
    rp_test_replay_layer(&of, 2, &layer);
    const struct rp_replay_slot *slot = rp_test_slot(&layer, "h2_preffn");
    assert_int_equal(layer.verdict, RP_FAIL);
    assert_ptr_equal(layer.first_failing, slot);
    assert_int_equal(slot->n_failing, 1);
    assert_int_equal(slot->n_over, 1);
    assert_int_equal(slot->positions[slot->first], 7);
    assert_int_equal(slot->worst, slot->first);
    assert_int_equal(slot->worst_channel % 3, 0);
    assert_string_equal(slot->from, "h2_postattn");
    assert_string_equal(slot->operation, "the RMS norm ffn_norm");
    assert_string_equal(slot->between, "");
    assert_non_null(strstr(slot->message, "at position 7"));
    for (size_t i = 0; i < layer.n_slots; i++)
        assert_int_equal(layer.slots[i].verdict, &layer.slots[i] == slot ? RP_FAIL : RP_PASS);
    rp_replay_layer_free(&layer);
}

/* Where the dump alone is wrong, what the engine computed from its right values is wrong by it. */
static void a_row_that_is_wrong_in_the_dump_alone_fails_twice(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {.model = "qwen3", .spoils = spoil_one_row};
    const struct rp_test_findings findings = rp_test_replay(&of);
    assert_int_equal(findings.n_failing, 3);
    assert_string_equal(findings.failing[0], "h2_preffn");
    assert_string_equal(findings.failing[1], "h2_gate");
    assert_string_equal(findings.failing[2], "h2_up");
}

/* What each slot says of itself. */
static void a_slot_says_what_it_is_computed_from_and_by_which_operation(void **state)
{
    (void)state;
    static const struct {
        const char *model, *slot, *from, *operation;
    } cases[] = {
        {"qwen3", "h1_in", "h0", "a copy"},
        {"qwen3", "h1_preattn", "h1_in", "the RMS norm attn_norm"},
        {"qwen3", "h1_v", "h1_preattn", "the product with attn_v"},
        {"qwen3", "h1_qnorm", "h1_q", "the RMS norm attn_q_norm"},
        {"qwen3", "h1_krope", "h1_knorm", "RoPE"},
        {"llama", "h1_krope", "h1_k", "RoPE"},
        {"qwen3", "h1_attn", "h1_v, h1_qrope, h1_krope", "attention"},
        {"qwen3", "h1_attnout", "h1_attn", "the product with attn_output"},
        {"qwen3", "h1_postattn", "h1_in, h1_attnout", "the residual add"},
        {"qwen3", "h1_act", "h1_gate, h1_up", "the activation"},
        {"qwen3", "h1", "h1_postattn, h1_ffnout", "the residual add"},
        {"qwen35", "h1_conv", "h1_qkv", "the convolution"},
        {"qwen35", "h1_decay", "h1_a", "the decay"},
        {"qwen35", "h1_beta", "h1_b", "beta"},
        {"qwen35", "h1_delta", "h1_conv, h1_decay, h1_beta", "the delta rule"},
        {"qwen35", "h1_mix", "h1_z, h1_delta", "the gated norm"},
        {"qwen35", "h3_q", "h3_preattn", "the product with attn_q"},
        {"qwen35", "h3_z", "h3_preattn", "the product with attn_q"},
        {"qwen35", "h3_mix", "h3_z, h3_attn", "attention's gate"},
        {"qwen35", "h3_attnout", "h3_mix", "the product with attn_output"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct rp_test_dump_of of = {.model = cases[i].model};
        struct rp_replay_layer layer;
        rp_test_replay_layer(&of, cases[i].slot[1] == '1' ? 1 : 3, &layer);
        const struct rp_replay_slot *slot = rp_test_slot(&layer, cases[i].slot);
        assert_string_equal(slot->from, cases[i].from);
        assert_string_equal(slot->operation, cases[i].operation);
        assert_string_equal(slot->between, "");
        assert_false(slot->is_carried);
        assert_non_null(strstr(slot->message, "introduces at most "));
        rp_replay_layer_free(&layer);
    }
}

/* A dump of one row of each of these slots, of a model with 4 layers of 64 values. */
static enum rp_status open_with(const struct rp_model *model, const char *slot, size_t dim,
                                struct rp_error *err)
{
    const struct rp_replay_options options = {.mode = RP_MODE_BATCHED};
    static const float row[128] = {1};
    char folder[256];
    struct rp_tensor_set *set = NULL;
    struct rp_replay *replay_of = NULL;
    rp_test_make_folder(folder);
    struct rp_dump *dump = rp_dump_open(folder, -1, "test");
    rp_dump_rows(dump, slot, 0, 1, dim, row);
    assert_int_equal(rp_dump_close(dump), 0);
    assert_int_equal(rp_tensor_set_open(folder, RP_LAYOUT_NPY, 0, &set, err), RP_OK);
    const enum rp_status status = rp_replay_open(model, set, &options, &replay_of, err);
    assert_int_equal(replay_of != NULL, status == RP_OK);
    rp_replay_close(replay_of);
    rp_tensor_set_close(set);
    rp_remove_tree(folder, NULL);
    return status;
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
    assert_string_equal(err.message, "the dump says that it has 8 layers; the model has 4");
    assert_null(replay_of);
    const int64_t tokens[] = {1, 2, (int64_t)rp_model_config(small.model)->vocab_size};
    const struct rp_replay_options foreign = {
        .mode = RP_MODE_BATCHED, .tokens = tokens, .n_tokens = 3};
    assert_int_equal(rp_replay_open(small.model, small.dump, &foreign, &replay_of, &err),
                     RP_ERR_MISMATCH);
    assert_non_null(strstr(err.message, "at position 2; the model's vocabulary has 0 to "));
    assert_int_equal(open_with(small.model, "h1_preffn", 64, &err), RP_OK);
    assert_int_equal(open_with(small.model, "h1_preffn", 63, &err), RP_ERR_MISMATCH);
    assert_string_equal(err.message,
                        "h1_preffn has 63 values a position in the dump; in the model it has 64");
    assert_int_equal(open_with(small.model, "h5_q", 64, &err), RP_ERR_MISMATCH);
    assert_non_null(strstr(err.message, "the model"));
    assert_int_equal(open_with(small.model, "h1_delta", 64, &err), RP_ERR_MISMATCH);
    assert_string_equal(err.message,
                        "the dump has h1_delta; layer 1 of the model does not compute that");
    assert_int_equal(open_with(small.model, "something_else", 64, &err), RP_ERR_MISSING);
    rp_test_replayed_close(&small);
    rp_test_replayed_close(&large);
}

static void flash_attention_among_neighbours_is_not_emulated(void **state)
{
    (void)state;
    struct rp_test_replayed replayed;
    const struct rp_test_dump_of of = {.model = "qwen3"};
    struct rp_replay_options options = {
        .mode = RP_MODE_BATCHED,
        .numerics = {.attention = RP_ATTENTION_FLASH, .kv_cache = RP_KV_CACHE_F16}};
    struct rp_replay *replay_of = NULL;
    struct rp_error err;
    rp_test_replayed_open(&replayed, &of);
    assert_true(rp_batch_of_mode("parallel:3", &options.numerics.batch));
    assert_int_equal(rp_replay_open(replayed.model, replayed.dump, &options, &replay_of, &err),
                     RP_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "over a f16 cache depends on"));
    assert_null(replay_of);
    options.numerics.kv_cache = RP_KV_CACHE_F32;
    assert_int_equal(rp_replay_open(replayed.model, replayed.dump, &options, &replay_of, &err),
                     RP_OK);
    rp_replay_close(replay_of);
    rp_test_replayed_close(&replayed);
}

/* ---- one slot's rows ---- */

static void a_variant_with_the_bug_gives_the_engines_rows(void **state)
{
    (void)state;
    struct rp_ops ops = *rp_ops_default();
    struct rp_test_replayed replayed;
    struct rp_replay_layer layer;
    struct rp_overlay overlay;
    static float computed[24 * 64], dumped[24 * 64];
    ops.attention = too_sharp;
    const struct rp_test_dump_of of = {.model = "llama", .ops = &ops};
    rp_test_replayed_open(&replayed, &of);
    assert_int_equal(rp_replay_run_layer(replayed.replay, 3, &layer, NULL), RP_OK);
    const struct rp_replay_slot *slot = layer.first_failing;
    assert_string_equal(slot->slot, "h3_attn");
    rp_overlay_open(&overlay, NULL);
    overlay.ops.attention = too_sharp;
    const struct rp_replay_variant variant = {.overlay = &overlay};
    assert_int_equal(rp_replay_dumped_rows(replayed.replay, slot->slot, slot->positions,
                                           slot->n_positions, 64, dumped, NULL),
                     RP_OK);
    assert_int_equal(rp_replay_slot_rows(replayed.replay, slot, &variant, computed, NULL), RP_OK);
    assert_memory_equal(computed, dumped, sizeof dumped);
    /* The twin: nothing exchanged. */
    assert_int_equal(rp_replay_slot_rows(replayed.replay, slot, NULL, computed, NULL), RP_OK);
    assert_memory_not_equal(computed, dumped, sizeof dumped);
    rp_replay_layer_free(&layer);
    rp_test_replayed_close(&replayed);
}

/* The engine multiplied by another layer's gate. */
static enum rp_status gate_of_layer_0(void *context, const struct rp_site *site,
                                      const struct rp_linear *args)
{
    const struct rp_layer *other = context;
    struct rp_linear changed = *args;
    if (site->layer == 2 && args->which == RP_FFN_GATE)
        changed.weight = other->weights[RP_FFN_GATE].data;
    return rp_ops_default()->linear(NULL, site, &changed);
}

static void a_variant_may_have_other_weights(void **state)
{
    (void)state;
    struct rp_ops ops = *rp_ops_default();
    struct rp_test_replayed clean, replayed;
    struct rp_replay_layer layer;
    struct rp_layer first = {.owned = NULL}, changed;
    const struct rp_layer *own;
    const struct rp_test_dump_of of_clean = {.model = "llama"};
    rp_test_replayed_open(&clean, &of_clean);
    assert_int_equal(rp_layer_load(clean.model, 0, &first, NULL), RP_OK);
    ops.context = &first;
    ops.linear = gate_of_layer_0;
    const struct rp_test_dump_of of = {.model = "llama", .ops = &ops};
    rp_test_replayed_open(&replayed, &of);
    assert_int_equal(rp_replay_run_layer(replayed.replay, 2, &layer, NULL), RP_OK);
    const struct rp_replay_slot *slot = layer.first_failing;
    assert_string_equal(slot->slot, "h2_gate");
    const size_t dim = rp_model_slot_width(replayed.model, slot->part, 2);
    float *computed = calloc(slot->n_positions * dim, sizeof *computed);
    float *dumped = calloc(slot->n_positions * dim, sizeof *dumped);
    assert_int_equal(rp_replay_weights(replayed.replay, 2, &own, NULL), RP_OK);
    changed = *own;
    changed.weights[RP_FFN_GATE] = first.weights[RP_FFN_GATE];
    const struct rp_replay_variant variant = {.weights = &changed};
    assert_int_equal(rp_replay_slot_rows(replayed.replay, slot, &variant, computed, NULL), RP_OK);
    assert_int_equal(rp_replay_dumped_rows(replayed.replay, slot->slot, slot->positions,
                                           slot->n_positions, dim, dumped, NULL),
                     RP_OK);
    assert_memory_equal(computed, dumped, slot->n_positions * dim * sizeof *dumped);
    free(computed);
    free(dumped);
    rp_replay_layer_free(&layer);
    rp_layer_free(&first);
    rp_test_replayed_close(&replayed);
    rp_test_replayed_close(&clean);
}

static void rows_are_what_the_verdict_was_made_from(void **state)
{
    (void)state;
    struct rp_test_replayed replayed;
    struct rp_replay_layer layer;
    static float computed[24 * 64], dumped[24 * 64];
    const struct rp_test_dump_of of = {.model = "qwen3", .errs = spoil_one_row};
    const struct rp_numerics plain = {.state = RP_STATE_F32};
    rp_test_replayed_open(&replayed, &of);
    assert_int_equal(rp_replay_run_layer(replayed.replay, 2, &layer, NULL), RP_OK);
    const struct rp_replay_slot *slot = layer.first_failing;
    assert_int_equal(rp_replay_slot_rows(replayed.replay, slot, NULL, computed, NULL), RP_OK);
    assert_int_equal(rp_replay_dumped_rows(replayed.replay, slot->slot, slot->positions,
                                           slot->n_positions, 64, dumped, NULL),
                     RP_OK);
    for (size_t i = 0; i < slot->n_positions * 64; i++) {
        const double ratio = (double)dumped[i] / (double)computed[i];
        assert_true(fabs(ratio - (i / 64 == 7 && i % 64 % 3 == 0 ? 1.001 : 1.0)) < 1e-6);
    }
    for (size_t i = 0; i < slot->n_positions; i++)
        assert_true(rp_replay_row_error(&plain, computed + i * 64, dumped + i * 64, 64) ==
                    slot->introduced[i]);
    rp_replay_layer_free(&layer);
    rp_test_replayed_close(&replayed);
}

static void rows_outside_the_layers_are_there_too(void **state)
{
    (void)state;
    static const enum rp_slot_part parts[] = {RP_PART_EMB, RP_PART_POST_NORM, RP_PART_LOGITS};
    const struct rp_test_dump_of of = {.model = "qwen35"};
    struct rp_test_replayed replayed;
    rp_test_replayed_open(&replayed, &of);
    for (size_t k = 0; k < 3; k++) {
        struct rp_replay_layer result;
        assert_int_equal(rp_replay_run_part(replayed.replay, parts[k], &result, NULL), RP_OK);
        const struct rp_replay_slot *slot = &result.slots[0];
        const size_t dim = rp_model_slot_width(replayed.model, slot->part, 0);
        float *computed = calloc(24 * dim, sizeof *computed);
        float *dumped = calloc(24 * dim, sizeof *dumped);
        assert_int_equal(slot->n_positions, 24);
        assert_int_equal(rp_replay_slot_rows(replayed.replay, slot, NULL, computed, NULL), RP_OK);
        assert_int_equal(rp_replay_dumped_rows(replayed.replay, slot->slot, slot->positions, 24,
                                               dim, dumped, NULL),
                         RP_OK);
        for (size_t i = 0; i < 24; i++)
            assert_true(rp_replay_row_error(&(struct rp_numerics){.state = RP_STATE_F32},
                                            computed + i * dim, dumped + i * dim, dim) < 1e-6);
        free(computed);
        free(dumped);
        rp_replay_layer_free(&result);
    }
    rp_test_replayed_close(&replayed);
}

static void rows_that_are_not_dumped_are_an_error(void **state)
{
    (void)state;
    static const int64_t positions[2] = {3, 30};
    const struct rp_test_dump_of of = {.model = "llama"};
    struct rp_test_replayed replayed;
    struct rp_error err;
    float rows[2 * 64];
    rp_test_replayed_open(&replayed, &of);
    assert_int_equal(
        rp_replay_dumped_rows(replayed.replay, "h1_attn", positions, 2, 64, rows, &err),
        RP_ERR_MISSING);
    assert_string_equal(err.message, "h1_attn has no position 30");
    assert_int_equal(
        rp_replay_dumped_rows(replayed.replay, "h1_attn", positions, 1, 63, rows, &err),
        RP_ERR_MISSING);
    assert_string_equal(err.message, "the dump has no h1_attn of 63 values a position");
    assert_int_equal(
        rp_replay_dumped_rows(replayed.replay, "h1_qnorm", positions, 1, 64, rows, &err),
        RP_ERR_MISSING);
    rp_test_replayed_close(&replayed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_slot_of_a_right_engine_is_direct_and_passes_in_both_modes),
        cmocka_unit_test(of_two_bugs_exactly_their_slots_fail),
        cmocka_unit_test(of_two_bugs_in_one_layer_each_fails_by_its_name),
        cmocka_unit_test(of_a_coarse_dump_the_slot_after_the_bug_fails),
        cmocka_unit_test(a_bug_at_one_position_is_seen_there),
        cmocka_unit_test(a_row_that_is_wrong_in_the_dump_alone_fails_twice),
        cmocka_unit_test(a_slot_says_what_it_is_computed_from_and_by_which_operation),
        cmocka_unit_test(model_and_dump_have_to_belong_together),
        cmocka_unit_test(flash_attention_among_neighbours_is_not_emulated),
        cmocka_unit_test(a_variant_with_the_bug_gives_the_engines_rows),
        cmocka_unit_test(a_variant_may_have_other_weights),
        cmocka_unit_test(rows_are_what_the_verdict_was_made_from),
        cmocka_unit_test(rows_outside_the_layers_are_there_too),
        cmocka_unit_test(rows_that_are_not_dumped_are_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
