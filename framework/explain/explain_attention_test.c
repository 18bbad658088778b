/* Bugs of RoPE, of norms and of attention, which are found by running the layer with them. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "explain/bugs_check_test_util.h"

static void another_base_of_rope_is_named_with_it(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_rope_base, .value = 123456};
    assert_named_in_all(engine, "rope-theta", 123456, "_postattn");
    engine.value = 100000; /* known, and still not the model's */
    assert_named_in_all(engine, "rope-theta", 100000, "_postattn");
}

static void scaled_positions_are_named_with_the_factor(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_rope_scaled, .value = 0.25};
    assert_named_in_all(engine, "rope-scaling", 0.25, "_postattn");
    engine.value = 0.7;
    assert_named_in_all(engine, "rope-scaling", 0.7, "_postattn");
}

static void the_other_pairing_and_no_rotation_are_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_rope_pairs};
    assert_named_in_all(engine, "rope-ordering", NO_PARAMETER, "_postattn");
    engine.install = rp_test_rope_missing;
    assert_named_in_all(engine, "rope-missing", NO_PARAMETER, "_postattn");
}

static void a_bug_in_one_head_is_named_with_the_head(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .install = rp_test_rope_missing_in_head, .which = RP_ATTN_Q, .head = 1};
    assert_named_in_all(engine, "rope-missing", NO_PARAMETER, "_postattn");
    engine.which = RP_ATTN_K;
    assert_named_in_all(engine, "rope-missing", NO_PARAMETER, "_postattn");
    engine.model = "qwen3";
    engine.layer = 1;
    struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
    assert_non_null(strstr(report.explanation.text, "in KV head 1 only"));
    engine.install = rp_test_attention_head_zero;
    engine.head = 2;
    assert_named_in_all(engine, "attention-head", 2, "_postattn");
}

static void another_scale_is_named_with_it(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "llama", .layer = 1};
    engine.install = rp_test_attention_scale;
    engine.value = 2; /* llama's is 0.25 */
    assert_named(engine, "attention-scale", 0.5, "h1_postattn");
    engine.value = 1.23;
    assert_named(engine, "attention-scale", 0.25 * 1.23, "h1_postattn");
}

static void masks_and_head_mappings_are_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_attention_sees_all};
    assert_named_in_all(engine, "attention-mask", NO_PARAMETER, "_postattn");
    engine.install = rp_test_attention_heads;
    assert_named_in_all(engine, "attention-head-mapping", NO_PARAMETER, "_postattn");
    engine.install = rp_test_attention_window;
    engine.value = 11;
    assert_named_in_all(engine, "attention-window", 11, "_postattn");
}

static void a_missing_gate_of_attention_is_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "qwen35", .layer = 3, .install = rp_test_gate_missing};
    assert_named(engine, "attention-gate", NO_PARAMETER, "h3_postattn");
}

static void another_eps_is_named_with_it(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "qwen3",
                                    .layer = 1,
                                    .install = rp_test_norm_eps,
                                    .which = RP_ATTN_NORM,
                                    .value = 10};
    assert_named(engine, "norm-eps", 1e-5, "h1_postattn");
    engine.value = 1.37;
    assert_named(engine, "norm-eps", 1.37e-6, "h1_postattn");
    engine.which = RP_FFN_NORM;
    assert_named(engine, "norm-eps", 1.37e-6, "h1_preffn");
}

static void missing_norms_and_offset_weights_are_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_norm_missing, .which = RP_FFN_NORM};
    assert_named_in_all(engine, "norm-missing", NO_PARAMETER, "_preffn");
    engine.which = RP_ATTN_NORM;
    assert_named_in_all(engine, "norm-missing", NO_PARAMETER, "_postattn");
    engine.install = rp_test_norm_offset;
    engine.value = 1;
    assert_named_in_all(engine, "norm-weight-offset", 1, "_postattn");
    engine.value = 0.03;
    assert_named_in_all(engine, "norm-weight-offset", 0.03, "_postattn");
}

static void a_missing_qk_norm_is_named_also_at_one_position(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .model = "qwen3", .layer = 2, .install = rp_test_qk_norm_missing};
    assert_named(engine, "qk-norm-missing", NO_PARAMETER, "h2_postattn");
    engine.at_one_position = true;
    engine.position = 5;
    struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
    assert_string_equal(report.explanation.name, "qk-norm-missing");
    assert_non_null(strstr(report.explanation.text, "at position 5 only"));
}

static void weights_of_another_layer_are_named_with_it(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "qwen3",
                                    .layer = 1,
                                    .install = rp_test_other_weights,
                                    .which = RP_ATTN_K,
                                    .other_layer = 3};
    assert_named(engine, "weights-other-layer", 3, "h1_postattn");
    engine.which = RP_FFN_UP;
    engine.other_layer = 0;
    assert_named(engine, "weights-other-layer", 0, "h1_ffnout");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_base_of_rope_is_named_with_it),
        cmocka_unit_test(scaled_positions_are_named_with_the_factor),
        cmocka_unit_test(the_other_pairing_and_no_rotation_are_named),
        cmocka_unit_test(a_bug_in_one_head_is_named_with_the_head),
        cmocka_unit_test(another_scale_is_named_with_it),
        cmocka_unit_test(masks_and_head_mappings_are_named),
        cmocka_unit_test(a_missing_gate_of_attention_is_named),
        cmocka_unit_test(another_eps_is_named_with_it),
        cmocka_unit_test(missing_norms_and_offset_weights_are_named),
        cmocka_unit_test(a_missing_qk_norm_is_named_also_at_one_position),
        cmocka_unit_test(weights_of_another_layer_are_named_with_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
