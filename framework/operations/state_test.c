/* Where an engine in 16 bits rounds, operation by operation; that FP32 does not; that a value next to a
 * middle is allowed for; and that each check has a twin that must differ. HF itself is what
 * cases/state_test.sh holds it against. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "formats/half.h"
#include "operations/state.h"
#include "refparity/numerics.h"

enum { ROWS = 3, DIM = 64 };

static const int64_t positions[ROWS] = {5, 6, 7};
static const struct rp_model_config config = {.head_dim = DIM, .n_heads = 1, .n_kv_heads = 1};
static const struct rp_model_config config_rounds_last = {.head_dim = DIM,
                                                          .norms_round_last = true};

static struct rp_site site_of(const struct rp_model_config *of)
{
    return (struct rp_site){.config = of, .n_positions = ROWS, .positions = positions};
}

static struct rp_emulation emulation_of(enum rp_state state)
{
    return (struct rp_emulation){.numerics = {.state = state}};
}

static void open_emulation(struct rp_emulation *emulation, enum rp_state state)
{
    const struct rp_numerics numerics = emulation_of(state).numerics;
    rp_emulation_open(emulation, &numerics, NULL);
}

/* Values of the state. */
static void fill(enum rp_state state, float *x, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
        if (state != RP_STATE_F32)
            x[i] = rp_state_round(state, x[i]);
    }
}

static void names_are_parsed_and_an_unknown_one_is_an_error(void **state)
{
    (void)state;
    enum rp_state found;
    struct rp_error err;
    assert_int_equal(rp_state_parse("bf16", &found, &err), RP_OK);
    assert_int_equal(found, RP_STATE_BF16);
    assert_int_equal(rp_state_parse("f16", &found, &err), RP_OK);
    assert_int_equal(found, RP_STATE_F16);
    assert_int_equal(rp_state_parse("float16", &found, &err), RP_ERR_ARGUMENT);
    assert_false(rp_numerics_are_plain(&(struct rp_numerics){.state = RP_STATE_F16}));
}

/* ---- norms ---- */

static void norm(struct rp_emulation *emulation, const struct rp_model_config *of, const float *x,
                 const float *weight, float *y) /* NOLINT(readability-non-const-parameter) */
{
    const struct rp_site site = site_of(of);
    const struct rp_rms_norm args = {
        .weight = weight, .eps = 1e-6f, .n_rows = ROWS, .dim = DIM, .x = x, .y = y};
    assert_int_equal(emulation->overlay.ops.rms_norm(emulation, &site, &args), RP_OK);
}

static void a_norm_is_rounded_before_its_weight_or_only_after(void **state)
{
    (void)state;
    float x[ROWS * DIM], weight[DIM], y[ROWS * DIM], last[ROWS * DIM];
    for (unsigned kept = RP_STATE_BF16; kept <= RP_STATE_F16; kept++) {
        const enum rp_state in = (enum rp_state)kept;
        struct rp_emulation emulation;
        open_emulation(&emulation, in);
        fill(in, x, ROWS * DIM, 1);
        fill(in, weight, DIM, 2);
        norm(&emulation, &config, x, weight, y);
        norm(&emulation, &config_rounds_last, x, weight, last);
        size_t n_different = 0;
        for (size_t i = 0; i < ROWS * DIM; i++) {
            double sum = 0;
            for (size_t k = 0; k < DIM; k++)
                sum += pow((double)x[i / DIM * DIM + k], 2);
            const float normed = x[i] * (1.0f / sqrtf((float)(sum / DIM) + 1e-6f));
            assert_true(y[i] == weight[i % DIM] * rp_state_round(in, normed));
            assert_true(last[i] == weight[i % DIM] * normed);
            n_different += y[i] != last[i];
        }
        assert_true(n_different > ROWS * DIM / 2);
    }
}

/* The middle between 1 and the next BF16 may fall to either; a quarter of a step beside it, only by noise of
 * that size. */
static void a_value_next_to_a_middle_may_tip(void **state)
{
    (void)state;
    const float middle = 1.0f + 0x1p-8f, beside = middle + 0x1p-9f;
    assert_true(rp_state_tip(RP_STATE_BF16, middle, 1e-7) == 0x1p-7);
    assert_true(rp_state_tip(RP_STATE_BF16, beside, 1e-7) == 0);
    assert_true(rp_state_tip(RP_STATE_BF16, beside, 0x1p-9) == 0x1p-7);
    assert_true(rp_state_tip(RP_STATE_BF16, 1.0f, 1e-7) == 0);
    assert_true(rp_state_tip(RP_STATE_F16, 1.0f + 0x1p-11f, 1e-7) == 0x1p-10);
}

/* SiLU of some of these gates is next to a middle of BF16: their products are what may change. */
static void what_may_tip_inside_an_operation_is_told(void **state)
{
    (void)state;
    enum { N = 20000 };
    static float gate[N], up[N], y[N];
    double tips[1] = {0}, expected = 0;
    struct rp_emulation emulation;
    const struct rp_site site = {.config = &config, .n_positions = 1, .positions = positions};
    const struct rp_ffn_activation args = {.dim = N, .gate = gate, .up = up, .y = y};
    open_emulation(&emulation, RP_STATE_BF16);
    fill(RP_STATE_F16, gate, N, 12);
    fill(RP_STATE_BF16, up, N, 13);
    for (size_t i = 0; i < N; i++)
        gate[i] = rp_round_bf16(gate[i]);
    assert_int_equal(emulation.overlay.ops.ffn_activation(&emulation, &site, &args), RP_OK);
    emulation.tips = tips;
    emulation.n_tips = 1;
    assert_int_equal(emulation.overlay.ops.ffn_activation(&emulation, &site, &args), RP_OK);
    for (size_t i = 0; i < N; i++) {
        const float silu = gate[i] / (1.0f + expf(-gate[i]));
        const double noise = 0x1p-23 * fabs((double)silu);
        expected += pow(rp_state_tip(RP_STATE_BF16, silu, noise) * (double)up[i], 2);
    }
    assert_true(expected > 0);
    assert_true(fabs(tips[0] - expected) <= 1e-9 * expected);
}

/* ---- RoPE ---- */

static void cosine_sine_and_each_product_are_rounded(void **state)
{
    (void)state;
    float x[ROWS * DIM], y[ROWS * DIM], plain[ROWS * DIM];
    struct rp_emulation emulation;
    const struct rp_site site = site_of(&config);
    struct rp_rope args = {.which = RP_ATTN_Q,
                           .ordering = RP_ROPE_NEOX,
                           .theta = 10000.0f,
                           .n_rot = DIM / 2,
                           .n_heads = 1,
                           .head_dim = DIM,
                           .positions = positions,
                           .x = y};
    open_emulation(&emulation, RP_STATE_BF16);
    fill(RP_STATE_BF16, x, ROWS * DIM, 3);
    memcpy(y, x, sizeof y);
    memcpy(plain, x, sizeof plain);
    assert_int_equal(emulation.overlay.ops.rope(&emulation, &site, &args), RP_OK);
    args.x = plain;
    assert_int_equal(rp_ops_default()->rope(NULL, &site, &args), RP_OK);
    size_t n_different = 0;
    for (size_t p = 0; p < ROWS; p++)
        for (size_t i = 0; i < DIM; i++) {
            const float *row = x + p * DIM;
            if (i >= DIM / 2) {
                assert_true(y[p * DIM + i] == row[i]);
                continue;
            }
            const size_t pair = i % (DIM / 4), n_rot = DIM / 2;
            const float angle =
                (float)positions[p] * (1.0f / powf(10000.0f, (float)(2 * pair) / (float)n_rot));
            const float c = rp_round_bf16(cosf(angle)), s = rp_round_bf16(sinf(angle));
            const float other = i < DIM / 4 ? -row[i + DIM / 4] : row[i - DIM / 4];
            assert_true(y[p * DIM + i] == rp_round_bf16(row[i] * c) + rp_round_bf16(other * s));
            n_different += y[p * DIM + i] != plain[p * DIM + i];
        }
    assert_true(n_different > ROWS * DIM / 4);
}

/* ---- attention ---- */

enum { HEAD = 16 };

static void attend(struct rp_emulation *emulation, const float *q, const float *keys,
                   const float *values, float *y) /* NOLINT(readability-non-const-parameter) */
{
    static const struct rp_model_config of = {.head_dim = HEAD, .n_heads = 1, .n_kv_heads = 1};
    float scores[ROWS];
    const struct rp_site site = site_of(&of);
    const struct rp_attention args = {.n_heads = 1,
                                      .n_kv_heads = 1,
                                      .head_dim = HEAD,
                                      .scale = 0.3f,
                                      .is_causal = true,
                                      .q = q,
                                      .n_keys = ROWS,
                                      .keys = keys,
                                      .values = values,
                                      .key_positions = positions,
                                      .scores = scores,
                                      .y = y};
    assert_int_equal(emulation->overlay.ops.attention(emulation, &site, &args), RP_OK);
}

/* The last row, which sees all keys. */
static void expect_attention(enum rp_state in, const float *q, const float *keys,
                             const float *values, const float *y)
{
    float weights[ROWS], max = -INFINITY;
    double sum = 0;
    for (size_t key = 0; key < ROWS; key++) {
        float dot = 0;
        for (size_t i = 0; i < HEAD; i++)
            dot += q[i] * keys[key * HEAD + i];
        weights[key] = rp_state_round(in, rp_state_round(in, dot) * 0.3f);
        max = fmaxf(max, weights[key]);
    }
    for (size_t key = 0; key < ROWS; key++)
        sum += (double)(weights[key] = expf(weights[key] - max));
    for (size_t i = 0; i < HEAD; i++) {
        double expected = 0;
        for (size_t key = 0; key < ROWS; key++)
            expected += (double)rp_state_round(in, (float)((double)weights[key] / sum)) *
                        (double)values[key * HEAD + i];
        assert_true(fabs(expected - (double)y[i]) < 1e-6);
    }
}

static void scores_scaled_scores_and_weights_are_rounded(void **state)
{
    (void)state;
    float q[ROWS * HEAD], keys[ROWS * HEAD], values[ROWS * HEAD], y[ROWS * HEAD], fp32[ROWS * HEAD];
    for (unsigned kept = RP_STATE_BF16; kept <= RP_STATE_F16; kept++) {
        const enum rp_state in = (enum rp_state)kept;
        struct rp_emulation emulation, plain;
        open_emulation(&emulation, in);
        open_emulation(&plain, RP_STATE_F32);
        fill(in, q, ROWS * HEAD, 4);
        fill(in, keys, ROWS * HEAD, 5);
        fill(in, values, ROWS * HEAD, 6);
        attend(&emulation, q, keys, values, y);
        attend(&plain, q, keys, values, fp32);
        expect_attention(in, q + 2 * HEAD, keys, values, y + 2 * HEAD);
        double square = 0;
        for (size_t i = 0; i < HEAD; i++)
            square += pow((double)y[2 * HEAD + i] - (double)fp32[2 * HEAD + i], 2);
        assert_true(sqrt(square) > 1e-5); /* the twin */
    }
}

/* ---- what is read ---- */

/* An operation that reads values which are not the state's rounds them; its output it leaves as it is. */
static void inputs_are_rounded_and_outputs_are_not(void **state)
{
    (void)state;
    float hidden[ROWS * DIM], branch[ROWS * DIM], sum[ROWS * DIM];
    size_t n_unrounded = 0;
    struct rp_emulation emulation;
    const struct rp_site site = site_of(&config);
    const struct rp_residual_add args = {.dim = DIM, .branch = branch, .hidden = sum};
    open_emulation(&emulation, RP_STATE_BF16);
    fill(RP_STATE_F32, hidden, ROWS * DIM, 7);
    fill(RP_STATE_F32, branch, ROWS * DIM, 8);
    memcpy(sum, hidden, sizeof sum);
    assert_int_equal(emulation.overlay.ops.residual_add(&emulation, &site, &args), RP_OK);
    for (size_t i = 0; i < ROWS * DIM; i++) {
        assert_true(sum[i] == rp_round_bf16(hidden[i]) + rp_round_bf16(branch[i]));
        n_unrounded += sum[i] != rp_round_bf16(sum[i]);
    }
    assert_true(n_unrounded > ROWS * DIM / 4);
}

/* y [ROWS][1] = x weight^T, the weight of that type in the file. */
static void multiply(struct rp_emulation *emulation, uint32_t type, const float *x,
                     const float *weight, float *y) /* NOLINT(readability-non-const-parameter) */
{
    const struct rp_site site = site_of(&config);
    const struct rp_linear args = {.which = RP_FFN_DOWN,
                                   .type = type,
                                   .weight = weight,
                                   .n_out = 1,
                                   .n_in = DIM,
                                   .x = x,
                                   .y = y,
                                   .y_stride = 1};
    assert_int_equal(emulation->overlay.ops.linear(emulation, &site, &args), RP_OK);
}

/* BF16 has more exponents than F16, F16 more bits: each loses some of the other. Weights in blocks stay. */
static void a_products_weights_are_cast_to_the_state(void **state)
{
    (void)state;
    float x[ROWS * DIM], weight[DIM], cast[DIM], y[ROWS], of_cast[ROWS];
    struct rp_emulation emulation;
    open_emulation(&emulation, RP_STATE_F16);
    fill(RP_STATE_F16, x, ROWS * DIM, 11);
    fill(RP_STATE_F32, weight, DIM, 12);
    for (size_t i = 0; i < DIM; i++) {
        weight[i] = rp_round_bf16(weight[i] * 1e-5f); /* subnormal in F16 */
        cast[i] = rp_round_f16(weight[i]);
    }
    multiply(&emulation, RP_GGML_F16, x, cast, of_cast);
    multiply(&emulation, RP_GGML_BF16, x, weight, y);
    assert_memory_equal(y, of_cast, sizeof y);
    multiply(&emulation, RP_GGML_Q8_0, x, weight, y);
    assert_memory_not_equal(y, of_cast, sizeof y);
    open_emulation(&emulation, RP_STATE_BF16);
    multiply(&emulation, RP_GGML_BF16, x, weight, of_cast);
    multiply(&emulation, RP_GGML_F16, x, weight, y); /* BF16's already */
    assert_memory_equal(y, of_cast, sizeof y);
}

static void silu_is_rounded_before_its_product(void **state)
{
    (void)state;
    float gate[ROWS * DIM], up[ROWS * DIM], y[ROWS * DIM];
    size_t n_different = 0;
    struct rp_emulation emulation;
    const struct rp_site site = site_of(&config);
    const struct rp_ffn_activation args = {.dim = DIM, .gate = gate, .up = up, .y = y};
    open_emulation(&emulation, RP_STATE_F16);
    fill(RP_STATE_F16, gate, ROWS * DIM, 9);
    fill(RP_STATE_F16, up, ROWS * DIM, 10);
    assert_int_equal(emulation.overlay.ops.ffn_activation(&emulation, &site, &args), RP_OK);
    for (size_t i = 0; i < ROWS * DIM; i++) {
        const float silu = gate[i] / (1.0f + expf(-gate[i]));
        assert_true(y[i] == rp_round_f16(silu) * up[i]);
        n_different += y[i] != silu * up[i];
    }
    assert_true(n_different > ROWS * DIM / 2);
}

/* The decay is FP32 in HF, whatever the rest is. */
static void the_decay_reads_the_state_and_the_rule_reads_the_decay_as_it_is(void **state)
{
    (void)state;
    enum { SIZE = 4 };
    float qkv[ROWS * 3 * SIZE], decay[ROWS], beta[ROWS], recurrent[SIZE * SIZE] = {0};
    float y[ROWS * SIZE], expected[ROWS * SIZE], other[SIZE * SIZE] = {0};
    struct rp_emulation emulation;
    const struct rp_site site = site_of(&config);
    open_emulation(&emulation, RP_STATE_BF16);
    fill(RP_STATE_BF16, qkv, ROWS * 3 * SIZE, 11);
    for (size_t p = 0; p < ROWS; p++) {
        decay[p] = -0.123456f;
        beta[p] = 0.5f;
    }
    struct rp_delta_rule args = {.n_k_heads = 1,
                                 .n_v_heads = 1,
                                 .head_dim = SIZE,
                                 .scale = 0.5f,
                                 .q = qkv,
                                 .k = qkv + SIZE,
                                 .v = qkv + 2 * SIZE,
                                 .qkv_stride = 3 * SIZE,
                                 .decay = decay,
                                 .beta = beta,
                                 .state = recurrent,
                                 .y = y};
    assert_int_equal(emulation.overlay.ops.delta_rule(&emulation, &site, &args), RP_OK);
    args.state = other;
    args.y = expected;
    assert_int_equal(rp_ops_default()->delta_rule(NULL, &site, &args), RP_OK);
    assert_memory_equal(y, expected, sizeof y);
    beta[1] = 0.501f; /* the twin: it was the state's before */
    args.y = y;
    memset(other, 0, sizeof other);
    assert_int_equal(rp_ops_default()->delta_rule(NULL, &site, &args), RP_OK);
    memset(recurrent, 0, sizeof recurrent);
    args.state = recurrent;
    args.y = expected;
    assert_int_equal(emulation.overlay.ops.delta_rule(&emulation, &site, &args), RP_OK);
    assert_memory_not_equal(y, expected, sizeof y);
}

/* expert NULL: a product as any other. */
static void product(struct rp_emulation *emulation, const struct rp_expert_rows *expert,
                    const float *weight, const float *bias, const float *x,
                    float *y) /* NOLINT(readability-non-const-parameter) */
{
    const struct rp_site site = site_of(&config);
    const struct rp_linear args = {.which = RP_EXPERTS_UP,
                                   .type = RP_GGML_BF16,
                                   .weight = weight,
                                   .bias = bias,
                                   .n_out = DIM,
                                   .n_in = DIM,
                                   .expert = expert,
                                   .x = x,
                                   .y = y,
                                   .y_stride = DIM};
    assert_int_equal(emulation->overlay.ops.linear(emulation, &site, &args), RP_OK);
}

/* The twin: another product is rounded once, with its bias. */
static void an_experts_product_is_rounded_before_its_bias_is_added(void **state)
{
    (void)state;
    static const size_t at[ROWS] = {0, 3, 5};
    const struct rp_expert_rows expert = {.n_chosen = 2, .at = at};
    float x[ROWS * DIM], bias[DIM], plain[ROWS * DIM], y[ROWS * DIM], other[ROWS * DIM];
    static float weight[DIM * DIM];
    double tips[ROWS] = {0};
    struct rp_emulation emulation;
    size_t n_different = 0;
    open_emulation(&emulation, RP_STATE_BF16);
    fill(RP_STATE_BF16, x, ROWS * DIM, 1);
    fill(RP_STATE_BF16, weight, DIM * DIM, 2);
    fill(RP_STATE_BF16, bias, DIM, 3);
    product(&emulation, NULL, weight, NULL, x, plain);
    product(&emulation, NULL, weight, bias, x, other);
    emulation.tips = tips;
    emulation.n_tips = ROWS;
    product(&emulation, &expert, weight, bias, x, y);
    for (size_t i = 0; i < ROWS * DIM; i++) {
        const float sum = rp_round_bf16(plain[i]) + bias[i % DIM];
        assert_memory_equal(&y[i], &sum, sizeof sum);
        n_different += rp_round_bf16(sum) < rp_round_bf16(other[i]) ||
                       rp_round_bf16(sum) > rp_round_bf16(other[i]);
    }
    assert_true(n_different > 0);
    /* No value is that near to a middle; one that is may tip. */
    for (size_t p = 0; p < ROWS; p++)
        assert_true(tips[p] < 1e-4);
    bias[0] = 0;
    for (size_t i = 0; i < DIM; i++) {
        weight[i] = i < 2 ? 1 : 0;
        x[i] = i == 0 ? 1 : 0x1p-8f; /* their sum is halfway */
    }
    tips[0] = 0;
    product(&emulation, &expert, weight, bias, x, y);
    assert_true(tips[0] >= 0x1p-14);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_parsed_and_an_unknown_one_is_an_error),
        cmocka_unit_test(a_norm_is_rounded_before_its_weight_or_only_after),
        cmocka_unit_test(a_value_next_to_a_middle_may_tip),
        cmocka_unit_test(what_may_tip_inside_an_operation_is_told),
        cmocka_unit_test(cosine_sine_and_each_product_are_rounded),
        cmocka_unit_test(scores_scaled_scores_and_weights_are_rounded),
        cmocka_unit_test(inputs_are_rounded_and_outputs_are_not),
        cmocka_unit_test(a_products_weights_are_cast_to_the_state),
        cmocka_unit_test(an_experts_product_is_rounded_before_its_bias_is_added),
        cmocka_unit_test(silu_is_rounded_before_its_product),
        cmocka_unit_test(the_decay_reads_the_state_and_the_rule_reads_the_decay_as_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
