/* Rope scaling, against HF's own numbers. Made with transformers 5.23.0 and torch 2.13:
 *     LlamaConfig(hidden_size=64, num_attention_heads=4, head_dim=…, rope_parameters={…})
 *     ROPE_INIT_FUNCTIONS[rope_type](config, torch.device("cpu"))
 * float.hex of each inverse frequency and of the attention factor. */
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "operations/rope_scaling.h"

#define MAX_PAIRS 16
#define ROUNDING 0x1p-23f /* powf of another library, and the division by a factor: one unit each */

struct expected {
    struct rp_rope_scaling scaling;
    float theta;
    size_t n_rot;
    float inv_freq[MAX_PAIRS]; /* [n_rot / 2] */
};

static void assert_frequencies(const struct expected *expected)
{
    float factors[MAX_PAIRS];
    rp_rope_scaling_factors(&expected->scaling, expected->theta, expected->n_rot, factors);
    for (size_t i = 0; i < expected->n_rot / 2; i++) {
        const float exponent = (float)(2 * i) / (float)expected->n_rot;
        const float found = 1.0f / powf(expected->theta, exponent) / factors[i];
        if (!(fabsf(found - expected->inv_freq[i]) <= 2 * ROUNDING * expected->inv_freq[i]))
            fail_msg("pair %zu: %a, HF has %a", i, (double)found, (double)expected->inv_freq[i]);
    }
}

#define YARN(by, context, fast, slow, ...)                                                    \
    {                                                                                         \
        .type = RP_ROPE_YARN, .factor = by, .original_context = context, .beta_fast = (fast), \
        .beta_slow = (slow), __VA_ARGS__                                                      \
    }

static const struct expected linear = {.scaling = {.type = RP_ROPE_LINEAR, .factor = 4},
                                       .theta = 1e4f,
                                       .n_rot = 16,
                                       .inv_freq = {0x1.0p-2f, 0x1.43d136p-4f, 0x1.99999ap-6f,
                                                    0x1.030dc6p-7f, 0x1.47ae14p-9f, 0x1.9e7c70p-11f,
                                                    0x1.0624dep-12f, 0x1.4b96c0p-14f}};

/* factor 4, original_max_position_embeddings 128 */
static const struct expected yarn = {
    .scaling = YARN(4, 128, RP_YARN_BETA_FAST, RP_YARN_BETA_SLOW, .attention_factor = 0),
    .theta = 1e4f,
    .n_rot = 16,
    .inv_freq = {0x1.0p+0f, 0x1.e5b9d0p-3f, 0x1.999998p-5f, 0x1.030dc6p-7f, 0x1.47ae14p-9f,
                 0x1.9e7c70p-11f, 0x1.0624dep-12f, 0x1.4b96c0p-14f}};

/* factor 4, original_max_position_embeddings 32768, rope_theta 1e6: as Qwen's */
static const struct expected qwen = {
    .scaling = YARN(4, 32768, RP_YARN_BETA_FAST, RP_YARN_BETA_SLOW, .attention_factor = 0),
    .theta = 1e6f,
    .n_rot = 32,
    .inv_freq = {0x1.0p+0f, 0x1.afd136p-2f, 0x1.6c310ep-3f, 0x1.33281ap-4f, 0x1.030dc6p-5f,
                 0x1.b4f7e4p-7f, 0x1.394170p-8f, 0x1.b32624p-10f, 0x1.205bc0p-11f, 0x1.61bea0p-13f,
                 0x1.74eea6p-15f, 0x1.3a8748p-16f, 0x1.094564p-17f, 0x1.bf749ep-19f,
                 0x1.796182p-20f, 0x1.3e47c8p-21f}};

/* factor 40, original_max_position_embeddings 4096: as DeepSeek's */
static const struct expected deepseek = {
    .scaling = YARN(40, 4096, 32, 1, .attention_factor = 0),
    .theta = 1e4f,
    .n_rot = 32,
    .inv_freq = {0x1.0p+0f, 0x1.1feb34p-1f, 0x1.43d136p-2f, 0x1.6c310ep-3f, 0x1.99999ap-4f,
                 0x1.ccab84p-5f, 0x1.bdf14ep-6f, 0x1.a46198p-7f, 0x1.7d835cp-8f, 0x1.466ae8p-9f,
                 0x1.f74df4p-11f, 0x1.325652p-12f, 0x1.a36e2ep-16f, 0x1.d7b9e0p-17f,
                 0x1.094566p-17f, 0x1.2a5884p-18f}};

/* factor 32, original_max_position_embeddings 4096, rope_theta 150000, truncate false: as gpt-oss's */
static const struct expected gpt_oss = {
    .scaling = YARN(32, 4096, 32, 1, .keeps_ramp_ends = true),
    .theta = 150000,
    .n_rot = 32,
    .inv_freq = {0x1.0p+0f, 0x1.e62d44p-2f, 0x1.cda7f4p-3f, 0x1.b65f3cp-4f, 0x1.a04328p-5f,
                 0x1.3cc8e0p-6f, 0x1.bd5080p-8f, 0x1.127006p-9f, 0x1.dea878p-12f, 0x1.415b8cp-15f,
                 0x1.312650p-16f, 0x1.21c258p-17f, 0x1.132518p-18f, 0x1.05448ap-19f,
                 0x1.f02e50p-21f, 0x1.d727d6p-22f}};

/* factor 8, original_max_position_embeddings 128, beta_fast 3, beta_slow 2.9999: no pair is in the ramp */
static const struct expected step = {.scaling = YARN(8, 128, 3, 2.9999f, .attention_factor = 0),
                                     .theta = 1e4f,
                                     .n_rot = 16,
                                     .inv_freq = {0x1.0p+0f, 0x1.43d136p-2f, 0x1.99999ap-7f,
                                                  0x1.030dc6p-8f, 0x1.47ae14p-10f, 0x1.9e7c70p-12f,
                                                  0x1.0624dep-13f, 0x1.4b96c0p-15f}};

static void linear_scaling_divides_every_frequency(void **state)
{
    (void)state;
    assert_frequencies(&linear);
}

static void yarn_s_frequencies_are_hf_s(void **state)
{
    (void)state;
    assert_frequencies(&yarn);
    assert_frequencies(&qwen);
    assert_frequencies(&deepseek);
    assert_frequencies(&step);
}

static void a_ramp_that_is_not_truncated_has_other_frequencies(void **state)
{
    (void)state;
    float kept[MAX_PAIRS], moved[MAX_PAIRS];
    struct rp_rope_scaling truncated = gpt_oss.scaling;
    truncated.keeps_ramp_ends = false;
    assert_frequencies(&gpt_oss);
    rp_rope_scaling_factors(&gpt_oss.scaling, gpt_oss.theta, gpt_oss.n_rot, kept);
    rp_rope_scaling_factors(&truncated, gpt_oss.theta, gpt_oss.n_rot, moved);
    assert_true(fabsf(kept[8] - moved[8]) > 1);
}

static void without_scaling_nothing_is_divided(void **state)
{
    (void)state;
    float factors[MAX_PAIRS];
    rp_rope_scaling_factors(&(struct rp_rope_scaling){.factor = 4}, 1e4f, 32, factors);
    for (size_t i = 0; i < 16; i++)
        assert_float_equal(factors[i], 1, 0);
}

/* HF's attention_factor of: factor 4; factor 40, mscale 1, mscale_all_dim 0.707; factor 32; longrope with
 * max_position_embeddings 131072 and original_max_position_embeddings 4096. */
static void attention_factors_are_hf_s(void **state)
{
    (void)state;
    assert_float_equal(rp_yarn_attention_factor(4, 0, 0), 1.138629436111989, 1e-15);
    assert_float_equal(rp_yarn_attention_factor(40, 1, 0.707), 1.0857263992561355, 1e-15);
    assert_float_equal(rp_yarn_attention_factor(40, 0.707, 0.707), 1, 0);
    assert_float_equal(rp_yarn_attention_factor(40, 0, 0.707), rp_yarn_mscale(40, 1), 0);
    assert_float_equal(rp_yarn_attention_factor(32, 0, 0), 1.3465735902799727, 1e-15);
    assert_float_equal(rp_yarn_attention_factor(1, 0, 0), 1, 0);
    assert_float_equal(rp_longrope_attention_factor(32, 4096), 1.1902380714238083, 1e-15);
    assert_float_equal(rp_longrope_attention_factor(1, 4096), 1, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_scaling_divides_every_frequency),
        cmocka_unit_test(yarn_s_frequencies_are_hf_s),
        cmocka_unit_test(a_ramp_that_is_not_truncated_has_other_frequencies),
        cmocka_unit_test(without_scaling_nothing_is_divided),
        cmocka_unit_test(attention_factors_are_hf_s),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
