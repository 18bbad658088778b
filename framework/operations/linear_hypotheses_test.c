/* Hypotheses about matrix products: their weights, their input, the rounding of their input. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "operations/bugs_check_test_util.h"

static void weights_of_another_layer_are_named_with_it(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "qwen3",
                                    .layer = 1,
                                    .install = rp_test_other_weights,
                                    .which = RP_ATTN_K,
                                    .other_layer = 3};
    assert_named(engine, "weights-other-layer", 3, "h1_postattn");
    engine.level = RP_SLOTS_OPERATIONS;
    assert_named(engine, "weights-other-layer", 3, "h1_k");
    engine.which = RP_FFN_UP;
    engine.other_layer = 0;
    assert_named(engine, "weights-other-layer", 0, "h1_up");
    engine.level = RP_SLOTS_LAYERS;
    assert_named(engine, "weights-other-layer", 0, "h1_ffnout");
}

static void another_tensor_of_the_layer_is_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_other_tensor,
                                    .which = RP_FFN_UP,
                                    .option = RP_FFN_GATE,
                                    .level = RP_SLOTS_OPERATIONS};
    assert_named_in_all(engine, "weights-swapped", NO_PARAMETER, "_up");
}

static void a_transposed_matrix_is_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .model = "llama", .layer = 1, .install = rp_test_transposed, .which = RP_ATTN_OUTPUT};
    assert_named(engine, "weights-transposed", NO_PARAMETER, "h1_postattn");
    engine.level = RP_SLOTS_OPERATIONS;
    assert_named(engine, "weights-transposed", NO_PARAMETER, "h1_attnout");
}

/* The norm is right, and is not what the product reads. */
static void another_input_is_named_with_its_slot(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "qwen3",
                                    .layer = 1,
                                    .install = rp_test_reads_input,
                                    .which = RP_ATTN_K,
                                    .level = RP_SLOTS_OPERATIONS};
    assert_named(engine, "input-replaced", NO_PARAMETER, "h1_k");
    const struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
    assert_non_null(strstr(report.explanation.text, "attn_k multiplies h1_in"));
}

static void rows_in_another_order_are_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .install = rp_test_product_rolled, .which = RP_FFN_GATE, .level = RP_SLOTS_OPERATIONS};
    assert_named_in_all(engine, "channels-swapped", 0, "_gate");
}

static void undeclared_8_bit_activations_are_told(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "qwen3",
                                    .type = "q8_0",
                                    .layer = 1,
                                    .numerics = {.activations = RP_ACTIVATIONS_BY_WEIGHT}};
    assert_named(engine, "numerics-activations", NO_PARAMETER, "h1_postattn");
    engine.level = RP_SLOTS_OPERATIONS;
    assert_named(engine, "numerics-activations", NO_PARAMETER, "h1_q");
    engine.of = "_ffnout";
    assert_named(engine, "numerics-activations", NO_PARAMETER, "h1_ffnout");
}

static void an_undeclared_cache_is_told(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.numerics = {.kv_cache = RP_KV_CACHE_F16}};
    assert_named_at_both_levels(engine, "numerics-kv-cache", NO_PARAMETER, "_postattn", "_attn");
    engine.numerics.kv_cache = RP_KV_CACHE_Q4_0;
    assert_named_at_both_levels(engine, "numerics-kv-cache", NO_PARAMETER, "_postattn", "_attn");
    engine.declared = engine.numerics;
    engine.model = "llama";
    engine.layer = 1;
    struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
    assert_string_equal(report.slot, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_of_another_layer_are_named_with_it),
        cmocka_unit_test(another_tensor_of_the_layer_is_named),
        cmocka_unit_test(a_transposed_matrix_is_named),
        cmocka_unit_test(another_input_is_named_with_its_slot),
        cmocka_unit_test(rows_in_another_order_are_named),
        cmocka_unit_test(undeclared_8_bit_activations_are_told),
        cmocka_unit_test(an_undeclared_cache_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
