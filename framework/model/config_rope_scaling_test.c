/* Rope scaling as GGUF files say it. */
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "model/model_builder.h"
#include "model/model_internal.h"

static struct rp_rope_scaling scaling_of(const struct variant *variant)
{
    struct rp_model *model = open_variant(variant);
    const struct rp_rope_scaling scaling = rp_model_config(model)->rope_scaling;
    rp_model_close(model);
    return scaling;
}

static void expect_refused(const struct variant *variant, enum rp_status expected,
                           const char *message)
{
    struct rp_model *model;
    struct rp_error err = {.code = RP_OK};
    write_model(variant);
    assert_int_equal(rp_model_open(path, &model, &err), expected);
    assert_string_equal(err.message, message);
}

static void without_keys_or_with_none_nothing_is_scaled(void **state)
{
    (void)state;
    assert_int_equal(scaling_of(&(struct variant){.without = NULL}).type, RP_ROPE_NOT_SCALED);
    const struct variant none = {.scaling = "none", .numbers = {{"rope.scaling.factor", 8}}};
    assert_int_equal(scaling_of(&none).type, RP_ROPE_NOT_SCALED);
}

/* A factor alone is linear scaling; scale_linear is its old name. */
static void linear_scaling_is_known_by_its_factor(void **state)
{
    (void)state;
    const struct variant variants[] = {
        {.scaling = "linear", .numbers = {{"rope.scaling.factor", 4}}},
        {.numbers = {{"rope.scaling.factor", 4}}},
        {.numbers = {{"rope.scale_linear", 4}}},
        {.numbers = {{"rope.scale_linear", 2}, {"rope.scaling.factor", 4}}}};
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        struct rp_model *model = open_variant(&variants[i]);
        assert_int_equal(rp_model_config(model)->rope_scaling.type, RP_ROPE_LINEAR);
        for (size_t pair = 0; pair < HEAD_DIM / 2; pair++)
            assert_float_equal(model->rope_factors[pair], 4, 0);
        rp_model_close(model);
    }
}

static void yarn_has_hf_s_defaults(void **state)
{
    (void)state;
    const struct variant variant = {
        .scaling = "yarn", .context_length = 64, .numbers = {{"rope.scaling.factor", 4}}};
    const struct rp_rope_scaling scaling = scaling_of(&variant);
    assert_int_equal(scaling.type, RP_ROPE_YARN);
    assert_int_equal(scaling.original_context, 64);
    assert_float_equal(scaling.beta_fast, 32, 0);
    assert_float_equal(scaling.beta_slow, 1, 0);
    assert_float_equal(scaling.attention_factor, 0.1f * logf(4) + 1, 1e-7f);
    assert_false(scaling.keeps_ramp_ends);
}

static void yarn_s_attention_factor_may_be_said(void **state)
{
    (void)state;
    const struct variant factor = {.scaling = "yarn",
                                   .context_length = 64,
                                   .numbers = {{"rope.scaling.factor", 4},
                                               {"rope.scaling.yarn_attn_factor", 1.5f},
                                               {"rope.scaling.attn_factor", 2}}};
    assert_float_equal(scaling_of(&factor).attention_factor, 3, 0);
    const struct variant all_dim = {
        .scaling = "yarn",
        .context_length = 64,
        .numbers = {{"rope.scaling.factor", 4}, {"rope.scaling.yarn_log_multiplier", 0.5f}}};
    assert_float_equal(scaling_of(&all_dim).attention_factor,
                       (0.1f * logf(4) + 1) / (0.05f * logf(4) + 1), 2e-7f);
}

static void longrope_s_factors_go_by_the_sequence_s_length(void **state)
{
    (void)state;
    const struct variant variant = {.scaling = "longrope",
                                    .context_length = 64,
                                    .long_factor = 9,
                                    .numbers = {{"rope.scaling.attn_factor", 1.25f}}};
    struct rp_model *model = open_variant(&variant);
    const enum rp_layer_kind kind = RP_LAYER_FULL_ATTENTION;
    assert_float_equal(rp_model_config(model)->rope_scaling.attention_factor, 1.25, 0);
    assert_float_equal(rp_model_rope_factors(model, kind, 64)[HEAD_DIM / 2 - 1], 1, 0);
    assert_float_equal(rp_model_rope_factors(model, kind, 65)[HEAD_DIM / 2 - 1], 9, 0);
    rp_model_close(model);
}

/* Phi-3's converter writes no type. */
static void longrope_is_known_by_its_tensors(void **state)
{
    (void)state;
    const struct variant variant = {.context_length = 64, .long_factor = 9};
    assert_int_equal(scaling_of(&variant).type, RP_ROPE_LONGROPE);
}

static void what_is_not_computed_or_contradicts_is_refused(void **state)
{
    (void)state;
    expect_refused(&(struct variant){.scaling = "dynamic"}, RP_ERR_UNSUPPORTED,
                   "key 'qwen3.rope.scaling.type': computed are none, linear, yarn and longrope");
    expect_refused(&(struct variant){.scaling = "yarn"}, RP_ERR_MISSING,
                   "key 'qwen3.context_length' is missing");
    expect_refused(&(struct variant){.scaling = "longrope", .context_length = 64}, RP_ERR_MISSING,
                   "tensor 'rope_factors_short.weight' is missing");
    expect_refused(&(struct variant){.numbers = {{"rope.scaling.factor", NAN}}}, RP_ERR_FORMAT,
                   "key 'qwen3.rope.scaling.factor' is nan, expected a number from 0 to 1e9");
    expect_refused(&(struct variant){.scaling = "yarn",
                                     .context_length = 64,
                                     .numbers = {{"rope.scaling.yarn_beta_slow", 32}}},
                   RP_ERR_FORMAT,
                   "YaRN's beta_fast is 32 and beta_slow 32, expected more than 0 and the first "
                   "to be larger");
    expect_refused(&(struct variant){.scaling = "yarn",
                                     .context_length = 64,
                                     .numbers = {{"rope.scaling.yarn_ext_factor", 0.5f}}},
                   RP_ERR_UNSUPPORTED,
                   "key 'qwen3.rope.scaling.yarn_ext_factor' is 0.5; only 1 is computed");
    expect_refused(&(struct variant){.architecture = "llama",
                                     .freq_factor = 8,
                                     .numbers = {{"rope.scaling.factor", 4}}},
                   RP_ERR_UNSUPPORTED,
                   "tensor 'rope_freqs.weight' beside another rope scaling is not computed");
    expect_refused(
        &(struct variant){.scaling = "longrope", .context_length = 64, .long_factor = -1},
        RP_ERR_FORMAT,
        "tensor 'rope_factors_long.weight': value 2 is -1, expected a number above 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_keys_or_with_none_nothing_is_scaled),
        cmocka_unit_test(linear_scaling_is_known_by_its_factor),
        cmocka_unit_test(yarn_has_hf_s_defaults),
        cmocka_unit_test(yarn_s_attention_factor_may_be_said),
        cmocka_unit_test(longrope_s_factors_go_by_the_sequence_s_length),
        cmocka_unit_test(longrope_is_known_by_its_tensors),
        cmocka_unit_test(what_is_not_computed_or_contradicts_is_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder) ? 1 : 0;
}
