/* Dumps of an engine that keeps its values in 16 bits: declared they pass, undeclared the tool says what
 * they are, and a bug in them is found. HF itself is what cases/state_test.sh replays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "formats/half.h"
#include "replay/engine_dump_test_util.h"

static const char *const models[] = {"qwen3", "llama", "qwen35"};

/* HF's decay is FP32 whatever the rest is. */
static void round_rows(float (*round)(float), const char *slot, float *row, size_t dim)
{
    for (size_t i = 0; i < dim && !strstr(slot, "_decay"); i++)
        row[i] = round(row[i]);
}

static void to_bf16(const char *slot, int64_t position, float *row, size_t dim)
{
    (void)position;
    round_rows(rp_round_bf16, slot, row, dim);
}

static void to_f16(const char *slot, int64_t position, float *row, size_t dim)
{
    (void)position;
    round_rows(rp_round_f16, slot, row, dim);
}

static bool keeps_layers(const char *slot, int64_t position)
{
    static const char *const kept[] = {"_in", "_postattn", "_preffn", "_ffnout"};
    const char *suffix = strchr(slot, '_');
    (void)position;
    if (!suffix || strcmp(slot, "post_norm") == 0)
        return true;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (strcmp(suffix, kept[i]) == 0)
            return true;
    return false;
}

/* An engine of 16 bits: the emulation, whose rows are rounded when they are dumped as when they are read;
 * over it, the operation that is wrong. */
struct engine {
    struct rp_emulation emulation;
    struct rp_overlay bug;
};

static struct rp_test_findings replay(const char *model, enum rp_state kept, enum rp_state declared,
                                      bool is_coarse, struct engine *engine)
{
    const struct rp_numerics numerics = {.state = kept};
    struct rp_test_replayed replayed;
    rp_emulation_open(&engine->emulation, &numerics, NULL);
    engine->bug.below = &engine->emulation.overlay.ops;
    const struct rp_test_dump_of of = {
        .model = model,
        .ops = engine->bug.ops.context ? &engine->bug.ops : &engine->emulation.overlay.ops,
        .keeps = is_coarse ? keeps_layers : NULL,
        .spoils = kept == RP_STATE_BF16  ? to_bf16
                  : kept == RP_STATE_F16 ? to_f16
                                         : NULL,
        .options = {.numerics = {.state = declared}}};
    rp_test_replayed_open(&replayed, &of);
    const struct rp_test_findings findings = rp_test_replay_all(&replayed);
    rp_test_replayed_close(&replayed);
    return findings;
}

static void a_dump_in_16_bits_passes_where_it_is_declared(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++)
        for (unsigned kept = RP_STATE_BF16; kept <= RP_STATE_F16; kept++)
            for (unsigned is_coarse = 0; is_coarse < 2; is_coarse++) {
                struct engine engine = {.bug = {.below = NULL}};
                const enum rp_state in = (enum rp_state)kept;
                const struct rp_test_findings findings =
                    replay(models[i], in, in, is_coarse, &engine);
                assert_int_equal(findings.n_failing, 0);
                assert_true((findings.n_carried > 0) == (is_coarse > 0));
            }
}

static void an_undeclared_state_is_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct engine engine = {.bug = {.below = NULL}};
        struct rp_test_findings findings =
            replay(models[i], RP_STATE_BF16, RP_STATE_F32, false, &engine);
        assert_true(findings.n_failing > 0);
        assert_non_null(strstr(findings.message, "every value is a BF16 number"));
        assert_non_null(strstr(findings.message, "declare \"state\": \"bf16\""));
    }
}

/* Not of emb: the file's BF16 numbers in F16 are both. */
static void undeclared_f16_is_named_where_something_was_computed(void **state)
{
    (void)state;
    const struct rp_numerics numerics = {.state = RP_STATE_F16};
    struct rp_emulation emulation;
    rp_emulation_open(&emulation, &numerics, NULL);
    const struct rp_test_dump_of of = {
        .model = "qwen3", .ops = &emulation.overlay.ops, .spoils = to_f16};
    struct rp_test_replayed replayed;
    struct rp_replay_layer layer;
    rp_test_replayed_open(&replayed, &of);
    assert_int_equal(rp_replay_run_layer(replayed.replay, 1, &layer, NULL), RP_OK);
    assert_non_null(layer.first_failing);
    assert_non_null(strstr(layer.first_failing->message, "every value is an F16 number"));
    assert_non_null(strstr(layer.first_failing->message, "declare \"state\": \"f16\""));
    rp_replay_layer_free(&layer);
    rp_test_replayed_close(&replayed);
}

/* The weight of layer 2's FFN norm is off by a step, or by none. */
static enum rp_status move_weight(void *context, const struct rp_site *site,
                                  const struct rp_rms_norm *args)
{
    const struct rp_ops *below = ((struct rp_overlay *)context)->below;
    struct rp_rms_norm changed = *args;
    float weight[256];
    assert_true(args->dim <= 256);
    for (size_t i = 0; i < args->dim; i++)
        weight[i] = rp_round_bf16(args->weight[i] * 1.003f);
    if (site->layer == 2 && args->which == RP_FFN_NORM)
        changed.weight = weight;
    return below->rms_norm(below->context, site, &changed);
}

static void a_weight_that_is_off_by_a_step_fails_at_its_norm(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct engine engine;
        rp_overlay_open(&engine.bug, NULL);
        engine.bug.ops.rms_norm = move_weight;
        const struct rp_test_findings findings =
            replay(models[i], RP_STATE_BF16, RP_STATE_BF16, false, &engine);
        assert_int_equal(findings.n_failing, 1);
        assert_string_equal(findings.failing[0], "h2_preffn");
    }
}

/* Layer 1 adds 5% too much of its FFN. */
static enum rp_status too_much_ffn(void *context, const struct rp_site *site,
                                   const struct rp_residual_add *args)
{
    const struct rp_ops *below = ((struct rp_overlay *)context)->below;
    const enum rp_status status = below->residual_add(below->context, site, args);
    for (size_t i = 0; i < site->n_positions * args->dim; i++) {
        if (site->layer == 1 && args->which == RP_FFN_DOWN)
            args->hidden[i] += 0.05f * args->branch[i];
    }
    return status;
}

static void a_bug_between_coarse_slots_is_found(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct engine engine;
        rp_overlay_open(&engine.bug, NULL);
        engine.bug.ops.residual_add = too_much_ffn;
        const struct rp_test_findings findings =
            replay(models[i], RP_STATE_BF16, RP_STATE_BF16, true, &engine);
        assert_int_equal(findings.n_failing, 1);
        assert_string_equal(findings.failing[0], "h1");
    }
}

static void a_failing_slot_in_fp32_is_called_nothing_else(void **state)
{
    (void)state;
    struct engine engine;
    rp_overlay_open(&engine.bug, NULL);
    engine.bug.ops.residual_add = too_much_ffn;
    const struct rp_test_findings findings =
        replay("qwen3", RP_STATE_F32, RP_STATE_F32, false, &engine);
    assert_int_equal(findings.n_failing, 1);
    assert_null(strstr(findings.message, "every value"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_dump_in_16_bits_passes_where_it_is_declared),
        cmocka_unit_test(an_undeclared_state_is_named),
        cmocka_unit_test(undeclared_f16_is_named_where_something_was_computed),
        cmocka_unit_test(a_weight_that_is_off_by_a_step_fails_at_its_norm),
        cmocka_unit_test(a_bug_between_coarse_slots_is_found),
        cmocka_unit_test(a_failing_slot_in_fp32_is_called_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
