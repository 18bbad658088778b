/* Hypotheses about RMS norms. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "operations/bugs_check_test_util.h"

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
    engine.level = RP_SLOTS_OPERATIONS;
    assert_named(engine, "norm-eps", 1.37e-6, "h1_preattn");
    engine.which = RP_FFN_NORM;
    assert_named(engine, "norm-eps", 1.37e-6, "h1_preffn");
}

/* One row alone could be a factor, too; eps is the rounder number. */
static void another_eps_at_one_position_is_told_from_a_factor(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_norm_eps,
                                    .which = RP_FFN_NORM,
                                    .value = 1000,
                                    .model = "qwen35",
                                    .layer = 1,
                                    .at_one_position = true,
                                    .position = 12};
    assert_named(engine, "norm-eps", 1e-3, "h1_preffn");
}

static void missing_norms_and_offset_weights_are_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_norm_missing, .which = RP_ATTN_NORM};
    assert_named_at_both_levels(engine, "norm-missing", NO_PARAMETER, "_postattn", "_preattn");
    engine.which = RP_FFN_NORM;
    assert_named_at_both_levels(engine, "norm-missing", NO_PARAMETER, "_preffn", "_preffn");
    engine.install = rp_test_norm_offset;
    engine.value = 1;
    assert_named_at_both_levels(engine, "norm-weight-offset", 1, "_preffn", "_preffn");
    engine.value = 0.03;
    engine.which = RP_ATTN_NORM;
    assert_named_at_both_levels(engine, "norm-weight-offset", 0.03, "_postattn", "_preattn");
}

/* What MLX-LM does with a weight in BF16 to which 1 is added. */
static void a_rounded_weight_is_named_with_its_bits(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_norm_rounded,
                                    .which = RP_FFN_NORM,

                                    .level = RP_SLOTS_OPERATIONS,
                                    .model = "qwen35",
                                    .layer = 1};
    assert_named(engine, "weights-rounded", 7, "h1_preffn");
}

/* MLX-LM again: all of them, and the dump has layers alone. */
static void a_bug_of_every_norm_is_named_as_such(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .install = rp_test_norm_rounded, .which = RP_N_WEIGHTS, .model = "qwen35", .layer = 3};
    struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
    assert_string_equal(report.explanation.name, "weights-rounded");
    assert_non_null(strstr(report.explanation.text, "each norm with its weight rounded to BF16"));
    engine.which = RP_ATTN_NORM; /* one of them alone is told from all */
    report = rp_test_explain(RP_SOURCE_DIR, &engine);
    assert_string_equal(report.explanation.name, "weights-rounded");
    assert_non_null(strstr(report.explanation.text, "the norm before attention with its weight"));
}

static void a_weight_of_no_tensor_is_read_off(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_norm_odd_weight,
                                    .which = RP_FFN_NORM,
                                    .value = 1,
                                    .level = RP_SLOTS_OPERATIONS};
    assert_named_in_all(engine, "norm-weight-replaced", NO_PARAMETER, "_preffn");
}

static void a_missing_qk_norm_is_named_also_at_one_position(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .model = "qwen3", .layer = 2, .install = rp_test_qk_norm_missing};
    assert_named(engine, "qk-norm-missing", NO_PARAMETER, "h2_postattn");
    engine.level = RP_SLOTS_OPERATIONS;
    assert_named(engine, "qk-norm-missing", NO_PARAMETER, "h2_qnorm");
    engine.at_one_position = true;
    engine.position = 5;
    for (int level = RP_SLOTS_LAYERS; level <= RP_SLOTS_OPERATIONS; level++) {
        engine.level = (enum rp_slot_level)level;
        struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
        assert_string_equal(report.explanation.name, "qk-norm-missing");
        assert_non_null(strstr(report.explanation.text, "at position 5 only"));
    }
}

static void the_last_norms_bugs_are_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "llama",
                                    .layer = -1,
                                    .is_outside = true,
                                    .part = RP_PART_POST_NORM,
                                    .install = rp_test_norm_missing,
                                    .which = RP_OUTPUT_NORM};
    assert_named(engine, "norm-missing", NO_PARAMETER, "post_norm");
    engine.install = rp_test_norm_offset;
    engine.value = 1;
    assert_named(engine, "norm-weight-offset", 1, "post_norm");
    engine.install = rp_test_norm_eps;
    engine.value = 7;
    assert_named(engine, "norm-eps", 7e-5, "post_norm");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_eps_is_named_with_it),
        cmocka_unit_test(another_eps_at_one_position_is_told_from_a_factor),
        cmocka_unit_test(missing_norms_and_offset_weights_are_named),
        cmocka_unit_test(a_rounded_weight_is_named_with_its_bits),
        cmocka_unit_test(a_bug_of_every_norm_is_named_as_such),
        cmocka_unit_test(a_weight_of_no_tensor_is_read_off),
        cmocka_unit_test(a_missing_qk_norm_is_named_also_at_one_position),
        cmocka_unit_test(the_last_norms_bugs_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
