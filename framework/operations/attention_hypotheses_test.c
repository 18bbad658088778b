/* Bugs of attention, of its gate, and pairs of bugs: each is named, with its parameter, in dumps of
 * layers and of operations. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "operations/bugs_check_test_util.h"
#include "operations/mixer_bugs_test_util.h"

static void assert_attention_named(struct rp_test_engine engine, const char *name, double parameter)
{
    assert_named_at_both_levels(engine, name, parameter, "_postattn", "_attn");
}

static void another_scale_is_named_with_it(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "llama", .layer = 1};
    engine.install = rp_test_attention_scale;
    for (int level = RP_SLOTS_LAYERS; level <= RP_SLOTS_OPERATIONS; level++) {
        const char *slot = level == RP_SLOTS_LAYERS ? "h1_postattn" : "h1_attn";
        engine.level = (enum rp_slot_level)level;
        engine.value = 2; /* llama's is 0.25 */
        assert_named(engine, "attention-scale", 0.5, slot);
        engine.value = 1.23;
        assert_named(engine, "attention-scale", 0.25 * 1.23, slot);
        engine.value = 1 + 2e-4;
        assert_named(engine, "attention-scale", 0.25 * (1 + 2e-4), slot);
    }
}

static void masks_and_windows_are_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_attention_sees_all};
    assert_attention_named(engine, "attention-mask", NO_PARAMETER);
    engine.install = rp_test_attention_window;
    engine.value = 11;
    assert_attention_named(engine, "attention-window", 11);
    engine.install = rp_test_attention_sees;
    engine.option = RP_TEST_SEES_NEXT;
    assert_attention_named(engine, "attention-mask", 1);
    engine.option = RP_TEST_SEES_NOT_LAST;
    engine.value = 1;
    assert_attention_named(engine, "attention-mask", -1);
    engine.value = 4;
    assert_attention_named(engine, "attention-mask", -4);
}

static void the_keys_that_each_chunk_sees_are_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_attention_sees};
    engine.option = RP_TEST_SEES_OWN_CHUNK;
    engine.value = 8;
    assert_attention_named(engine, "attention-chunk", 8);
    engine.value = 5;
    assert_attention_named(engine, "attention-chunk", 5);
    engine.option = RP_TEST_SEES_FIRST_GEOMETRY;
    engine.value = 9;
    assert_attention_named(engine, "attention-chunk", 9);
    engine.option = RP_TEST_SEES_WHOLE_CHUNK;
    engine.value = 6;
    assert_attention_named(engine, "attention-chunk", 6);
    engine.option = RP_TEST_SEES_BLOCK;
    assert_attention_named(engine, "attention-chunk", 6);
}

/* A rule that no hypothesis has: the keys are measured. */
static void keys_of_no_known_rule_are_measured(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_attention_sees,
                                    .option = RP_TEST_SEES_ODDLY};
    assert_attention_named(engine, "attention-keys", NO_PARAMETER);
    engine.model = "qwen3";
    engine.layer = 1;
    engine.level = RP_SLOTS_OPERATIONS;
    const struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
    assert_non_null(strstr(report.explanation.text, "position 4 sees keys 2 to 4"));
}

static void keys_of_zeros_and_softcaps_are_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .install = rp_test_attention_sees, .option = RP_TEST_SEES_ZEROS, .value = 3};
    assert_attention_named(engine, "attention-empty-keys", 3);
    engine.install = rp_test_attention_softcap;
    engine.value = 1.5;
    assert_attention_named(engine, "attention-softcap", 1.5);
}

static void heads_and_shifts_are_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_attention_heads};
    assert_attention_named(engine, "attention-head-mapping", NO_PARAMETER);
    engine.install = rp_test_attention_v_shifted;
    assert_attention_named(engine, "kv-shifted", 1);
    engine.install = rp_test_attention_head_zero;
    engine.head = 2;
    assert_attention_named(engine, "attention-head", 2);
}

static void a_missing_gate_of_attention_is_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "qwen35", .layer = 3, .install = rp_test_gate_missing};
    assert_named(engine, "attention-gate", NO_PARAMETER, "h3_postattn");
    engine.level = RP_SLOTS_OPERATIONS;
    assert_named(engine, "attention-gate", NO_PARAMETER, "h3_mix");
}

/* In a coarse dump both are in one step; in one of operations they are two slots. */
static void two_bugs_in_one_step_are_named_both(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .model = "qwen3", .layer = 1, .install = rp_test_no_qk_norm_and_pairs};
    const struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
    assert_string_equal(report.slot, "h1_postattn");
    assert_non_null(strstr(report.explanation.name, "qk-norm-missing"));
    assert_non_null(strstr(report.explanation.name, " and "));
    assert_non_null(strstr(report.explanation.name, "rope-ordering"));
    assert_non_null(strstr(report.explanation.text, "; and "));
    engine.level = RP_SLOTS_OPERATIONS;
    engine.of = "_qnorm";
    assert_named(engine, "qk-norm-missing", NO_PARAMETER, "h1_qnorm");
    engine.of = "_krope";
    assert_named(engine, "rope-ordering", NO_PARAMETER, "h1_krope");
}

/* Products of 8-bit blocks: in a coarse dump what the bug changes is rounded before attn_output. */
static void bugs_are_named_where_activations_and_cache_are_rounded(void **state)
{
    (void)state;
    const struct rp_numerics rounded = {.activations = RP_ACTIVATIONS_BY_WEIGHT,
                                        .kv_cache = RP_KV_CACHE_F16};
    struct rp_test_engine engine = {.type = "q8_0", .numerics = rounded, .declared = rounded};
    engine.install = rp_test_attention_sees;
    engine.option = RP_TEST_SEES_FIRST_GEOMETRY;
    engine.value = 8;
    assert_attention_named(engine, "attention-chunk", 8);
    engine.option = RP_TEST_SEES_NEXT;
    assert_attention_named(engine, "attention-mask", 1);
    engine.install = rp_test_attention_scale;
    engine.value = 1.3;
    engine.model = "llama";
    engine.layer = 1;
    assert_named(engine, "attention-scale", 0.325, "h1_postattn");
    engine.level = RP_SLOTS_OPERATIONS;
    assert_named(engine, "attention-scale", 0.325, "h1_attn");
}

/* Position 0 sees itself alone. */
static void an_error_at_position_0_is_neither_rope_nor_mask_nor_softmax(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "qwen3",
                                    .layer = 1,
                                    .install = rp_test_product_rolled,
                                    .which = RP_ATTN_V,
                                    .value = 7};
    struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
    assert_string_equal(report.slot, "h1_postattn");
    if (!report.explanation.name[0])
        assert_non_null(strstr(report.explanation.text, "RoPE and the mask change nothing"));
    engine.install = rp_test_rope_folded;
    report = rp_test_explain(RP_SOURCE_DIR, &engine);
    assert_null(strstr(report.explanation.text, "RoPE and the mask change nothing"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_scale_is_named_with_it),
        cmocka_unit_test(masks_and_windows_are_named),
        cmocka_unit_test(the_keys_that_each_chunk_sees_are_named),
        cmocka_unit_test(keys_of_no_known_rule_are_measured),
        cmocka_unit_test(keys_of_zeros_and_softcaps_are_named),
        cmocka_unit_test(heads_and_shifts_are_named),
        cmocka_unit_test(a_missing_gate_of_attention_is_named),
        cmocka_unit_test(two_bugs_in_one_step_are_named_both),
        cmocka_unit_test(bugs_are_named_where_activations_and_cache_are_rounded),
        cmocka_unit_test(an_error_at_position_0_is_neither_rope_nor_mask_nor_softmax),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
