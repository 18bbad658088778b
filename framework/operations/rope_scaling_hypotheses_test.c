/* Hypotheses about rope scaling: each is named at the slot that it spoils. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "operations/bugs_check_test_util.h"

#define ATTENTION_FACTOR 1.138629436f /* 0.1 log(4) + 1 */

/* In 24 positions of a head of 16 or 32 values the ramp's pairs turn far enough to be told apart. */
static const struct rp_rope_scaling yarn = {.type = RP_ROPE_YARN,
                                            .factor = 4,
                                            .attention_factor = ATTENTION_FACTOR,
                                            .original_context = 64,
                                            .beta_fast = 8,
                                            .beta_slow = 0.25f};
static const struct rp_rope_scaling linear = {.type = RP_ROPE_LINEAR, .factor = 4};
/* 24 tokens are more than its original context, or fit */
static const struct rp_rope_scaling longrope = {
    .type = RP_ROPE_LONGROPE, .factor = 1, .attention_factor = 1.25f, .original_context = 16};
static const struct rp_rope_scaling fitting = {
    .type = RP_ROPE_LONGROPE, .factor = 1, .attention_factor = 1.25f, .original_context = 24};

static void assert_nothing_fails(const struct rp_rope_scaling *scaling)
{
    for (size_t i = 0; i < sizeof all_models / sizeof *all_models; i++) {
        const struct rp_test_engine engine = {.model = all_models[i],
                                              .layer = full_layer(all_models[i]),
                                              .scaling = scaling,
                                              .level = RP_SLOTS_OPERATIONS};
        assert_int_equal(rp_test_explain(RP_SOURCE_DIR, &engine).n_failing, 0);
    }
}

static void right_scaling_has_nothing_to_explain(void **state)
{
    (void)state;
    assert_nothing_fails(&yarn);
    assert_nothing_fails(&linear);
    assert_nothing_fails(&longrope);
    assert_nothing_fails(&fitting);
}

static void scaling_that_is_missing_is_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_rope_unscaled, .scaling = &yarn};
    assert_named_at_both_levels(engine, "rope-scaling-missing", NO_PARAMETER, "_postattn",
                                "_qrope");
    engine.scaling = &linear;
    assert_named_at_both_levels(engine, "rope-scaling-missing", NO_PARAMETER, "_postattn",
                                "_qrope");
}

static void scaling_that_is_missing_in_k_alone_is_named_there(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .install = rp_test_rope_unscaled, .scaling = &yarn, .which = RP_ATTN_K};
    assert_named_at_both_levels(engine, "rope-scaling-missing", NO_PARAMETER, "_postattn",
                                "_krope");
    engine.scaling = &linear;
    engine.level = RP_SLOTS_OPERATIONS;
    assert_named_in_all(engine, "rope-scaling-missing", NO_PARAMETER, "_krope");
    engine.which = RP_ATTN_Q;
    assert_named_in_all(engine, "rope-scaling-missing", NO_PARAMETER, "_qrope");
}

static void an_attention_factor_that_is_missing_or_doubled_is_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .install = rp_test_rope_attention, .scaling = &yarn, .level = RP_SLOTS_OPERATIONS};
    assert_named_in_all(engine, "rope-attention-factor", NO_PARAMETER, "_qrope");
    engine.value = (double)ATTENTION_FACTOR * (double)ATTENTION_FACTOR;
    assert_named_in_all(engine, "rope-attention-factor", NO_PARAMETER, "_qrope");
    engine.which = RP_ATTN_K;
    assert_named_in_all(engine, "rope-attention-factor", NO_PARAMETER, "_krope");
}

/* DeepSeek: mscale and mscale_all_dim are alike, and cosine and sine are as they were. */
static void an_attention_factor_that_the_model_has_not_is_named(void **state)
{
    (void)state;
    struct rp_rope_scaling deepseek = yarn;
    deepseek.attention_factor = 0;
    const struct rp_test_engine engine = {.install = rp_test_rope_attention,
                                          .scaling = &deepseek,
                                          .value = (double)ATTENTION_FACTOR,
                                          .which = RP_ATTN_K,
                                          .level = RP_SLOTS_OPERATIONS};
    assert_named_in_all(engine, "rope-attention-factor", NO_PARAMETER, "_krope");
}

static void another_ramp_is_named(void **state)
{
    (void)state;
    for (int option = RP_TEST_LINEAR; option <= RP_TEST_INVERTED; option++) {
        struct rp_test_engine engine = {.model = "qwen3",
                                        .layer = 1,
                                        .install = rp_test_rope_other_scaling,
                                        .option = option,
                                        .scaling = &yarn,
                                        .level = RP_SLOTS_OPERATIONS};
        assert_named(engine, "rope-ramp", NO_PARAMETER, "h1_qrope");
        engine.which = RP_ATTN_K;
        assert_named(engine, "rope-ramp", NO_PARAMETER, "h1_krope");
        engine.model = "llama";
        assert_named(engine, "rope-ramp", NO_PARAMETER, "h1_krope");
    }
}

static void another_factor_is_named_with_it(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_rope_other_scaling,
                                    .option = RP_TEST_FACTOR,
                                    .value = 3,
                                    .scaling = &yarn,
                                    .level = RP_SLOTS_OPERATIONS};
    assert_named_in_all(engine, "rope-scaling", 3, "_qrope");
}

static void short_factors_for_long_ones_are_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_rope_longrope, .scaling = &longrope};
    assert_named_at_both_levels(engine, "rope-longrope", NO_PARAMETER, "_postattn", "_qrope");
    engine.scaling = &fitting;
    engine.level = RP_SLOTS_OPERATIONS;
    engine.which = RP_ATTN_K;
    assert_named_in_all(engine, "rope-longrope", NO_PARAMETER, "_krope");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(right_scaling_has_nothing_to_explain),
        cmocka_unit_test(scaling_that_is_missing_is_named),
        cmocka_unit_test(scaling_that_is_missing_in_k_alone_is_named_there),
        cmocka_unit_test(an_attention_factor_that_is_missing_or_doubled_is_named),
        cmocka_unit_test(an_attention_factor_that_the_model_has_not_is_named),
        cmocka_unit_test(another_ramp_is_named),
        cmocka_unit_test(another_factor_is_named_with_it),
        cmocka_unit_test(short_factors_for_long_ones_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
