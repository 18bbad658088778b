/* Hypotheses about any rows and about sums: single channels, shifts, rounding, the residual stream. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "operations/bugs_check_test_util.h"

static void a_factor_on_the_ffn_is_named_with_its_value(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .install = rp_test_product_factor, .which = RP_FFN_DOWN, .value = 0.5};
    assert_named_at_both_levels(engine, "constant-factor", 0.5, "_ffnout", "_ffnout");
}

static void a_factor_on_v_is_one_on_attentions_output(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .install = rp_test_product_factor, .which = RP_ATTN_V, .value = 1.7};
    assert_named_at_both_levels(engine, "constant-factor", 1.7, "_postattn", "_v");
}

static void a_branch_that_is_not_added_is_missing(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .install = rp_test_product_factor, .which = RP_ATTN_OUTPUT, .value = 0};
    assert_named_at_both_levels(engine, "branch-missing", NO_PARAMETER, "_postattn", "_attnout");
}

static void a_leak_is_named_with_its_alpha(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .install = rp_test_sum, .which = RP_ATTN_OUTPUT, .option = RP_TEST_LEAK, .value = 0.01};
    assert_named_at_both_levels(engine, "residual-leak", 0.01, "_postattn", "_postattn");
}

static void a_residual_stream_that_is_added_twice_is_not_a_leak(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .install = rp_test_sum, .which = RP_FFN_DOWN, .option = RP_TEST_LEAK, .value = 1};
    assert_named_at_both_levels(engine, "residual-factor", 2, "", "");
}

static void a_missing_residual_stream_is_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .install = rp_test_sum, .which = RP_FFN_DOWN, .option = RP_TEST_NO_STREAM};
    assert_named_at_both_levels(engine, "residual-missing", NO_PARAMETER, "", "");
}

static void one_wrong_channel_is_named_with_its_index(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .install = rp_test_sum, .which = RP_FFN_DOWN, .option = RP_TEST_CHANNEL, .value = 3};
    assert_named_at_both_levels(engine, "outlier-channel", 17, "", "");
}

static void two_swapped_channels_are_named_with_the_first(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .install = rp_test_sum, .which = RP_FFN_DOWN, .option = RP_TEST_SWAPPED};
    assert_named_at_both_levels(engine, "channels-swapped", 3, "", "");
}

static void a_limit_on_values_is_named_with_its_bound(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .install = rp_test_sum, .which = RP_FFN_DOWN, .option = RP_TEST_CLIPPED, .value = 0.002};
    assert_named_at_both_levels(engine, "clipped", 0.002, "", "");
}

static void an_output_in_f16_is_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .install = rp_test_sum, .which = RP_FFN_DOWN, .option = RP_TEST_F16};
    assert_named_at_both_levels(engine, "rounded-output", 10, "", "");
}

static void an_offset_and_a_bias_are_told_apart(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .install = rp_test_sum, .which = RP_FFN_DOWN, .option = RP_TEST_OFFSET, .value = 0.002};
    assert_named_at_both_levels(engine, "constant-offset", 0.002, "", "");
    engine.option = RP_TEST_BIAS;
    engine.value = 1e-3; /* times sin(i), i < 64: of RMS 0.701 */
    assert_named_at_both_levels(engine, "constant-bias", 0.701127e-3, "", "");
}

static void rows_of_the_position_before_are_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .install = rp_test_sum, .which = RP_FFN_DOWN, .option = RP_TEST_SHIFTED};
    assert_named_at_both_levels(engine, "position-shifted", 1, "", "");
}

static void a_leak_at_one_position_is_named_with_the_position(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "llama",
                                    .layer = 2,
                                    .install = rp_test_sum,
                                    .which = RP_FFN_DOWN,
                                    .option = RP_TEST_LEAK,
                                    .value = 0.25,
                                    .at_one_position = true,
                                    .position = 9};
    struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
    assert_string_equal(report.explanation.name, "residual-leak");
    assert_non_null(strstr(report.explanation.text, "at position 9 only"));
}

static void where_inner_slots_are_not_dumped_a_branch_is_still_told_from_the_other(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "qwen3",
                                    .layer = 1,
                                    .install = rp_test_product_factor,
                                    .which = RP_FFN_DOWN,
                                    .value = 0.5,
                                    .without = "_"};
    assert_named(engine, "constant-factor", 0.5, "h1");
    engine.which = RP_ATTN_OUTPUT;
    assert_named(engine, "constant-factor", 0.5, "h1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_factor_on_the_ffn_is_named_with_its_value),
        cmocka_unit_test(a_factor_on_v_is_one_on_attentions_output),
        cmocka_unit_test(a_branch_that_is_not_added_is_missing),
        cmocka_unit_test(a_leak_is_named_with_its_alpha),
        cmocka_unit_test(a_residual_stream_that_is_added_twice_is_not_a_leak),
        cmocka_unit_test(a_missing_residual_stream_is_named),
        cmocka_unit_test(one_wrong_channel_is_named_with_its_index),
        cmocka_unit_test(two_swapped_channels_are_named_with_the_first),
        cmocka_unit_test(a_limit_on_values_is_named_with_its_bound),
        cmocka_unit_test(an_output_in_f16_is_named),
        cmocka_unit_test(an_offset_and_a_bias_are_told_apart),
        cmocka_unit_test(rows_of_the_position_before_are_named),
        cmocka_unit_test(a_leak_at_one_position_is_named_with_the_position),
        cmocka_unit_test(where_inner_slots_are_not_dumped_a_branch_is_still_told_from_the_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
