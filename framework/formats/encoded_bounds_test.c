/* How far a quantizer's values may lie from what it read: the step that is taken from the encoded row is the
 * one that its decoded values lie apart, and what a plain quantizer writes is within the bounds. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "formats/encoded_bounds.h"
#include "formats/quants.h"
#include "refparity/gguf.h"

#define N 256

static uint32_t random_bits = 1;

static uint32_t next_random(void)
{
    random_bits = random_bits * 1664525u + 1013904223u;
    return random_bits >> 8;
}

/* bound is 0.5001 steps inside the range; what is added at its end, and for a fitted scale, is more. */
static void steps_are_those_of_the_decoded_values(void **state)
{
    (void)state;
    static const struct {
        uint32_t type;
        rp_decode_fn *decode;
        size_t n_bytes, group;
        size_t scales[2]; /* where the F16 factors are */
    } types[] = {
        {RP_GGML_Q2_K, rp_decode_q2_k, 84, 16, {80, 82}},
        {RP_GGML_Q3_K, rp_decode_q3_k, 110, 16, {108, 108}},
        {RP_GGML_Q4_K, rp_decode_q4_k, 144, 32, {0, 2}},
        {RP_GGML_Q5_K, rp_decode_q5_k, 176, 32, {0, 2}},
        {RP_GGML_Q6_K, rp_decode_q6_k, 210, 16, {208, 208}},
    };
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        static const unsigned char one[2] = {0x00, 0x3c}; /* F16 */
        unsigned char row[256];
        float values[N], bound[N], reach[N];
        size_t n_checked = 0;
        for (size_t i = 0; i < sizeof row; i++)
            row[i] = (unsigned char)next_random();
        for (size_t i = 0; i < 2; i++)
            memcpy(row + types[t].scales[i], one, sizeof one);
        types[t].decode(row, N, values);
        assert_true(rp_encoded_bounds(types[t].type, row, N, bound, reach));
        for (size_t i = 0; i < N; i++) {
            const float step = bound[i] / 0.5001f;
            assert_true(reach[i] >= bound[i] && bound[i] > 0);
            for (size_t k = i / types[t].group * types[t].group; k < i; k++) {
                const float apart = fabsf(values[i] - values[k]) / step;
                /* the same bound: both lie inside the range */
                if (bound[k] != bound[i] || reach[i] != bound[i])
                    continue;
                assert_true(fabsf(apart - roundf(apart)) < 1e-3f);
                n_checked++;
            }
        }
        assert_true(n_checked > 50);
    }
}

static uint16_t half_of(float x) /* a power of 2 */
{
    int exponent;
    (void)frexpf(x, &exponent);
    return (uint16_t)((exponent + 14) << 10);
}

/* Scales that F16 holds, so that a block's own quantizer is the nearest value. */
static void what_a_quantizer_writes_is_within_its_bounds(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 200; round++) {
        const float step = ldexpf(1, (int)(next_random() % 8) - 8);
        unsigned char q8_0[34], q4_0[18] = {0}, q4_1[20] = {0};
        float x[32], bound[32], reach[32], values[32];
        const uint16_t scale = half_of(step);
        for (size_t i = 0; i < 32; i++)
            x[i] = step * 7.4f * (float)((int)(next_random() % 2001) - 1000) / 1000;
        memcpy(q8_0, &scale, 2);
        memcpy(q4_0, &scale, 2);
        memcpy(q4_1, &scale, 2);
        for (size_t i = 0; i < 32; i++) {
            q8_0[2 + i] = (unsigned char)(signed char)roundf(x[i] / step);
            q4_0[2 + i % 16] |= (unsigned char)((int)roundf(x[i] / step + 8) << (i < 16 ? 0 : 4));
            q4_1[4 + i % 16] |=
                (unsigned char)((int)roundf(fabsf(x[i]) / step) << (i < 16 ? 0 : 4));
        }
        struct {
            uint32_t type;
            rp_decode_fn *decode;
            const unsigned char *row;
            bool is_magnitude;
        } const rows[] = {{RP_GGML_Q8_0, rp_decode_q8_0, q8_0, false},
                          {RP_GGML_Q4_0, rp_decode_q4_0, q4_0, false},
                          {RP_GGML_Q4_1, rp_decode_q4_1, q4_1, true}};
        for (size_t k = 0; k < 3; k++) {
            rows[k].decode(rows[k].row, 32, values);
            assert_true(rp_encoded_bounds(rows[k].type, rows[k].row, 32, bound, reach));
            for (size_t i = 0; i < 32; i++) {
                const float wanted = rows[k].is_magnitude ? fabsf(x[i]) : x[i];
                assert_true(fabsf(values[i] - wanted) <= bound[i]);
                assert_true(bound[i] <= 1.01f * step);
                assert_true(bound[i] >= 0.5f * step);
            }
        }
    }
}

/* The number of 0 .. 7 whose value times scale is nearest to x, with x's sign. */
static unsigned nearest_e2m1(float x, float scale)
{
    static const float doubled[8] = {0, 1, 2, 3, 4, 6, 8, 12};
    unsigned best = 0;
    for (unsigned i = 1; i < 8; i++)
        if (fabsf(doubled[i] * scale - fabsf(x)) < fabsf(doubled[best] * scale - fabsf(x)))
            best = i;
    return best | (x < 0 ? 8u : 0u);
}

static float largest_of(const float *x, size_t n)
{
    float largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmaxf(largest, fabsf(x[i]));
    return largest;
}

/* x [32], by the power of 2 of its largest value. */
static void to_mxfp4(const float *x, unsigned char *block)
{
    int exponent;
    (void)frexpf(largest_of(x, 32), &exponent); /* largest = 0.5 .. 1 times 2^exponent */
    memset(block, 0, 17);
    block[0] = (unsigned char)(exponent - 1 - 2 + 127);
    for (size_t i = 0; i < 32; i++)
        block[1 + i % 16] |=
            (unsigned char)(nearest_e2m1(x[i], rp_mxfp4_scale(block[0])) << (i < 16 ? 0 : 4));
}

/* x [64], by the scale that is nearest to a sixth of each group's largest value. */
static void to_nvfp4(const float *x, unsigned char *block)
{
    memset(block, 0, 36);
    for (size_t group = 0; group < 4; group++) {
        const float *values = x + 16 * group, wanted = largest_of(values, 16) / 6;
        unsigned char best = 0;
        for (unsigned char byte = 1; byte < 0x7f; byte++)
            if (fabsf(2 * rp_nvfp4_scale(byte) - wanted) < fabsf(2 * rp_nvfp4_scale(best) - wanted))
                best = byte;
        block[group] = best;
        for (size_t i = 0; i < 16; i++)
            block[4 + 8 * group + i % 8] |=
                (unsigned char)(nearest_e2m1(values[i], rp_nvfp4_scale(best)) << (i < 8 ? 0 : 4));
    }
}

/* x [256], by its largest value, which F16 holds. */
static void to_tq2_0(const float *x, unsigned char *block)
{
    const float largest = largest_of(x, N);
    const uint16_t scale = half_of(largest);
    memset(block, 0, 66);
    memcpy(block + 64, &scale, 2);
    for (size_t i = 0; i < N; i++)
        block[i / 128 * 32 + i % 32] |=
            (unsigned char)((unsigned)((int)roundf(x[i] / largest) + 1) << i % 128 / 32 * 2);
}

/* Types of few values: what is quantized is within its bounds, and nothing else but 0 with another sign; no
 * value is let off by more than half of the largest one. */
static void few_values_are_within_bounds_that_the_other_sign_is_not(void **state)
{
    (void)state;
    static const struct {
        uint32_t type;
        void (*encode)(const float *, unsigned char *);
        rp_decode_fn *decode;
        size_t n;
    } types[] = {{RP_GGML_MXFP4, to_mxfp4, rp_decode_mxfp4, 32},
                 {RP_GGML_NVFP4, to_nvfp4, rp_decode_nvfp4, 64},
                 {RP_GGML_TQ2_0, to_tq2_0, rp_decode_tq2_0, 256}};
    for (unsigned round = 0; round < 300; round++) {
        const float size = ldexpf(1, (int)(next_random() % 16) - 12); /* NVFP4's smallest, too */
        for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
            unsigned char block[66];
            float x[N], bound[N], reach[N], values[N], step[N];
            for (size_t i = 0; i < types[t].n; i++)
                x[i] = size * (float)((int)(next_random() % 2001) - 1000) / 1000;
            x[0] = size;
            types[t].encode(x, block);
            types[t].decode(block, types[t].n, values);
            assert_true(rp_encoded_bounds(types[t].type, block, types[t].n, bound, reach));
            rp_widest_steps(types[t].type, x, types[t].n, step);
            for (size_t i = 0; i < types[t].n; i++) {
                assert_true(fabsf(values[i] - x[i]) <= fminf(bound[i], step[i]));
                assert_true(bound[i] == reach[i] && bound[i] <= 0.51f * size + 0x1p-7f);
                if (values[i] != 0)
                    assert_true(fabsf(-values[i] - x[i]) > bound[i]);
            }
        }
    }
}

/* A row of TQ1_0 has the bounds of the same row in TQ2_0. */
static void both_ternary_types_have_the_same_bounds(void **state)
{
    (void)state;
    unsigned char two[66] = {0}, one[54] = {0};
    float bound[2][N], reach[N];
    one[53] = two[65] = 0x3c;                               /* F16: 1 */
    memset(two, 0x55, 64);                                  /* all 0 */
    memset(one, (1 + 3 + 9 + 27 + 81) * 256 / 243 + 1, 52); /* five digits 1: all 0 */
    one[0] = 0;                                             /* -1 at 0, 32, 64, 96, 128 */
    for (size_t i = 0; i < 5; i++)
        two[i * 32 / 128 * 32] &= (unsigned char)~(3u << i * 32 % 128 / 32 * 2);
    assert_true(rp_encoded_bounds(RP_GGML_TQ1_0, one, N, bound[0], reach));
    assert_true(rp_encoded_bounds(RP_GGML_TQ2_0, two, N, bound[1], reach));
    for (size_t i = 0; i < N; i++)
        assert_true(bound[0][i] == bound[1][i]);
    assert_true(bound[0][64] > bound[0][65]);
}

/* No limit, and why: the gate and `refparity weights` say it. */
static void points_of_a_grid_have_no_bounds(void **state)
{
    (void)state;
    static const struct {
        uint32_t type;
        const char *why;
    } types[] = {
        {RP_GGML_IQ1_S, "rounds 8 values at once"},   {RP_GGML_IQ1_M, "rounds 8 values at once"},
        {RP_GGML_IQ2_XXS, "rounds 8 values at once"}, {RP_GGML_IQ2_XS, "rounds 8 values at once"},
        {RP_GGML_IQ2_S, "rounds 8 values at once"},   {RP_GGML_IQ3_XXS, "rounds 4 values at once"},
        {RP_GGML_IQ3_S, "rounds 4 values at once"},   {41, "has no decoder here"},
    };
    const unsigned char row[128] = {0};
    float bound[N], reach[N];
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        assert_false(rp_encoded_bounds(types[i].type, row, N, bound, reach));
        assert_false(rp_is_ever_weighted(types[i].type));
        assert_string_equal(rp_why_no_encoded_bounds(types[i].type), types[i].why);
    }
    assert_true(rp_is_ever_weighted(RP_GGML_Q4_K) && !rp_is_ever_weighted(RP_GGML_MXFP4));
}

static void the_widest_steps_follow_the_range(void **state)
{
    (void)state;
    float x[N] = {0}, step[N];
    x[3] = 127;
    rp_widest_steps(RP_GGML_Q8_0, x, N, step);
    assert_true(fabsf(step[0] - 1) < 1e-3f && step[32] < 1e-3f);
    x[7] = -15;
    rp_widest_steps(RP_GGML_Q4_1, x, N, step);
    assert_true(fabsf(step[0] - 142.0f / 15) < 1e-3f);
    rp_widest_steps(RP_GGML_F32, x, N, step);
    assert_true(isinf(step[0]));
}

static void types_that_are_not_read_have_no_bounds(void **state)
{
    (void)state;
    const unsigned char row[128] = {0};
    float bound[32] = {1}, reach[32] = {1};
    assert_false(rp_encoded_bounds(RP_GGML_Q8_1, row, 32, bound, reach));
    assert_false(rp_encoded_bounds(26, row, 32, bound, reach)); /* I32 */
    assert_false(rp_encoded_bounds(9999, row, 32, bound, reach));
    assert_true(rp_encoded_bounds(RP_GGML_BF16, row, 32, bound, reach));
    assert_true(bound[0] == 0 && reach[0] == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_are_those_of_the_decoded_values),
        cmocka_unit_test(what_a_quantizer_writes_is_within_its_bounds),
        cmocka_unit_test(few_values_are_within_bounds_that_the_other_sign_is_not),
        cmocka_unit_test(both_ternary_types_have_the_same_bounds),
        cmocka_unit_test(points_of_a_grid_have_no_bounds),
        cmocka_unit_test(the_widest_steps_follow_the_range),
        cmocka_unit_test(types_that_are_not_read_have_no_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
