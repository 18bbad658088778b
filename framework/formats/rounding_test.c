/* Rounding of rows: blocks made by hand, the stored sums of blocks, and what tips when a row moves. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "formats/half.h"
#include "formats/rounding.h"
#include "refparity/gguf.h"

#define N 512

static void fill(float *x, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
}

/* The largest is 127/4, so that the scale is 1/4, exactly: 2.5 steps go to 2, 3.5 to 4. */
static void q8_0_rounds_halves_to_even_in_steps_of_127_of_the_largest(void **state)
{
    (void)state;
    float x[32] = {31.75f, 0.625f, 0.875f, -0.625f, -0.875f, 0.64f, 0.1f, -31.75f}, y[32];
    const float expected[8] = {31.75f, 0.5f, 1.0f, -0.5f, -1.0f, 0.75f, 0, -31.75f};
    rp_round_row(RP_GGML_Q8_0, x, 32, y);
    assert_memory_equal(y, expected, sizeof expected);
}

/* Whole blocks go over many values at once; the last, shorter one goes value by value. */
static void whole_blocks_round_to_the_bit_as_values_do_one_by_one(void **state)
{
    (void)state;
    float x[N], whole[N], one_by_one[N];
    const float odd[] = {0.0f, -0.0f, 1e-42f, 1e-30f, -3e38f, INFINITY, -INFINITY, NAN};
    size_t n_different = 0;
    for (uint32_t seed = 0; seed < 200; seed++) {
        fill(x, 32, seed);
        for (size_t i = 0; i < 31; i++)
            x[i] = ldexpf(x[i], (int)(seed % 7) - 3);
        if (seed >= 100)
            x[seed % 31] = odd[seed % 8];
        x[31] = 0;
        rp_round_row(RP_GGML_Q8_0, x, 32, whole);
        rp_round_row(RP_GGML_Q8_0, x, 31, one_by_one);
        for (size_t i = 0; i < 31; i++) {
            assert_true(isnan(whole[i]) == isnan(one_by_one[i]));
            if (!isnan(whole[i]))
                assert_memory_equal(&whole[i], &one_by_one[i], sizeof *whole);
            n_different += whole[i] != x[i];
        }
    }
    assert_true(n_different > 3000); /* it is not a copy */
}

/* 1/127 is no F16: integers are made with the exact scale, values with the rounded one. */
static void q8_0_stores_its_scale_in_f16(void **state)
{
    (void)state;
    float x[32] = {1.0f, 0.5f}, y[32], scale = rp_round_f16(1.0f / 127.0f);
    rp_round_row(RP_GGML_Q8_0, x, 32, y);
    assert_true(y[0] == 127.0f * scale);
    assert_true(y[0] != 1.0f);
    assert_true(y[1] == 64.0f * scale); /* 63.5, to even */
    /* The twin: Q8_K keeps it in FP32. */
    rp_round_row(RP_GGML_Q8_K, x, 32, y);
    assert_true(fabsf(y[0] - 1.0f) < 1e-7f);
}

static void q8_k_spans_256_values_and_q8_0_32(void **state)
{
    (void)state;
    float x[N], y8_0[N], y8_k[N];
    fill(x, N, 1);
    x[40] = 100.0f; /* makes its block coarse */
    rp_round_row(RP_GGML_Q8_0, x, N, y8_0);
    rp_round_row(RP_GGML_Q8_K, x, N, y8_k);
    assert_true(fabsf(y8_0[0] - x[0]) <= 0.5f / 127 * 1.001f);
    assert_true(fabsf(y8_0[41] - x[41]) > 0.005f || fabsf(y8_0[42] - x[42]) > 0.005f);
    for (size_t i = 0; i < N; i++) {
        float step = (i < 256 ? 100.0f : 1.0f) / 127;
        assert_true(fabsf(y8_k[i] - x[i]) <= 0.5f * step * 1.001f);
    }
}

/* Q8_K's scale has the sign of the largest value; halves go to even either way, so that it does not
 * matter which of two equal magnitudes is the largest. */
static void the_sign_of_q8_ks_scale_does_not_matter(void **state)
{
    (void)state;
    float x[256], y[256], z[256];
    fill(x, 256, 2);
    x[0] = 2.0f;
    x[1] = -2.0f;
    x[2] = 2.0f / 127 * 2.5f;
    rp_round_row(RP_GGML_Q8_K, x, 256, y);
    x[0] = -2.0f;
    x[1] = 2.0f;
    rp_round_row(RP_GGML_Q8_K, x, 256, z);
    assert_memory_equal(y + 2, z + 2, sizeof y - 2 * sizeof *y);
}

/* The largest, -2, is -8 steps of 1/4; +2 would be 8, which there is not. */
static void q4_0_spans_minus_8_to_7_steps_towards_the_largest(void **state)
{
    (void)state;
    float x[32] = {-2.0f, 2.0f, 0.3f, -0.3f, 0.125f, -0.125f}, y[32];
    const float expected[6] = {-2.0f, 1.75f, 0.25f, -0.25f, 0.25f, 0};
    rp_round_row(RP_GGML_Q4_0, x, 32, y);
    assert_memory_equal(y, expected, sizeof expected);
}

static void zeros_short_rows_and_unknown_formats_are_kept(void **state)
{
    (void)state;
    float zeros[40] = {0}, x[40], y[40];
    static const uint32_t formats[] = {RP_GGML_F16, RP_GGML_BF16, RP_GGML_Q8_0, RP_GGML_Q4_0,
                                       RP_GGML_Q8_K};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        rp_round_row(formats[i], zeros, 40, y);
        for (size_t k = 0; k < 40; k++)
            assert_true(y[k] == 0);
    }
    fill(x, 40, 3);
    rp_round_row(RP_GGML_Q8_0, x, 40, y); /* a block of 32 and one of 8 */
    assert_true(fabsf(y[39] - x[39]) < 0.01f);
    rp_round_row(RP_GGML_F32, x, 40, y);
    assert_memory_equal(x, y, sizeof x);
}

static void what_is_not_finite_is_rounded_to_something(void **state)
{
    (void)state;
    static const uint32_t formats[] = {RP_GGML_F16, RP_GGML_BF16, RP_GGML_Q8_0, RP_GGML_Q4_0,
                                       RP_GGML_Q8_K};
    float x[64] = {NAN, 1, INFINITY, -INFINITY, 3e38f}, y[64], excess[2];
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        rp_round_row(formats[i], x, 64, y);
        assert_true(!isfinite(y[0]));                          /* NaN is not hidden */
        assert_true(formats[i] == RP_GGML_Q8_K || y[40] == 0); /* nor does it leave its block */
        (void)rp_rounding_tips(formats[i], x, y, 64);
        rp_rounding_tip_largest(formats[i], x, 64, NULL, y);
        rp_rounding_follow(formats[i], x, y, 64, y);
    }
    rp_round_q8_1(x, 64, y, excess);
}

/* ---- sums of blocks ---- */

/* The scale is 1/4 and exact, so that only the sum itself is rounded: of 127 + 3 * 5 + 1 = 143 quarters,
 * 35.75, which F16 has; of 2063 quarters, 515.75, which lies between 515.5 and 516, not. */
static void a_blocks_stored_sum_exceeds_its_values_by_its_own_rounding(void **state)
{
    (void)state;
    float x[64] = {31.75f, 1.25f, 1.25f, 1.25f, 0.25f}, y[64], excess[2];
    for (size_t i = 32; i < 48; i++)
        x[i] = 31.75f;
    x[48] = 7.75f;
    rp_round_q8_1(x, 64, y, excess);
    assert_true(excess[0] == 0);
    assert_true(excess[1] == 0.25f); /* to even: 516 */
}

/* 1/127 as F16 is off by up to 2^-12 of itself, by which the sum, made with the exact scale, differs. */
static void a_blocks_sum_is_made_with_the_scale_before_it_is_rounded(void **state)
{
    (void)state;
    float x[32], y[32], excess;
    for (size_t i = 0; i < 32; i++)
        x[i] = 1.0f;
    const float scale = 1.0f / 127.0f, stored = rp_round_f16(scale);
    rp_round_q8_1(x, 32, y, &excess);
    const double of_values = 32.0 * 127.0 * (double)stored;
    assert_true(stored != scale);
    assert_true(fabs((double)excess - (32.0 - of_values)) < 1e-6);
    assert_true(fabsf(excess) > 1e-4f);
}

/* ---- tips ---- */

/* moved = x with each value off by distance, up and down in turn; but the peaks of blocks stay, so that
 * no scale changes. */
static void move(const float *x, size_t n, float distance, float *moved)
{
    for (size_t i = 0; i < n; i++)
        moved[i] = x[i] + (fabsf(x[i]) >= 1 ? 0 : i % 2 ? distance : -distance);
}

/* With a block of every format's size, each beginning with 2, which is its largest. */
static void make_row(float *x, uint32_t seed)
{
    fill(x, N, seed);
    for (size_t i = 0; i < N; i++)
        x[i] *= 0.9f;
    for (size_t i = 0; i < N; i += 32)
        x[i] = 2.0f;
}

static size_t count_tipped(uint32_t format, const float *x, const float *moved)
{
    static float a[N], b[N];
    size_t n = 0;
    rp_round_row(format, x, N, a);
    rp_round_row(format, moved, N, b);
    for (size_t i = 0; i < N; i++)
        n += a[i] != b[i];
    return n;
}

static void tips_to_be_expected_are_the_distance_over_the_step(void **state)
{
    (void)state;
    static const struct {
        uint32_t format;
        float step;
    } cases[] = {{RP_GGML_Q8_0, 2.0f / 127}, {RP_GGML_Q8_K, 2.0f / 127}, {RP_GGML_Q4_0, 0.25f}};
    float x[N], moved[N];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const float distance = 0.02f * cases[i].step;
        make_row(x, 7);
        move(x, N, distance, moved);
        const size_t n_moved = N - N / 32;
        const double expected = 0.02 * (double)n_moved;
        const double tips = rp_rounding_tips(cases[i].format, x, moved, N);
        assert_true(fabs(tips - expected) < 0.01 * expected);
        assert_true(rp_rounding_tips(cases[i].format, x, x, N) == 0);
    }
}

/* Of F16 the step is that of the value's binade. A value that moves by more than its step tips once. */
static void tips_of_16_bit_values_follow_their_size(void **state)
{
    (void)state;
    const float x[3] = {1.0001f, 4.001f, 0.26f}, moved[3] = {1.0001f, 4.002f, 0.5f};
    const double f16 = rp_rounding_tips(RP_GGML_F16, x, moved, 3);
    const double bf16 = rp_rounding_tips(RP_GGML_BF16, x, moved, 3);
    assert_true(fabs(f16 - (1 + 0.001 * 256)) < 1e-3); /* 4 to 8: steps of 2^-8 */
    assert_true(fabs(bf16 - (1 + 0.001 * 32)) < 1e-3); /* steps of 2^-5 */
    assert_true(rp_rounding_tips(RP_GGML_F32, x, moved, 3) == 0);
}

/* What is expected is what is seen, over many rows. */
static void as_many_tip_as_are_to_be_expected(void **state)
{
    (void)state;
    static const uint32_t formats[] = {RP_GGML_F16, RP_GGML_BF16, RP_GGML_Q8_0, RP_GGML_Q8_K,
                                       RP_GGML_Q4_0};
    float x[N], moved[N];
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        double expected = 0, seen = 0;
        for (uint32_t seed = 0; seed < 400; seed++) {
            make_row(x, 100 + seed);
            move(x, N, 2e-4f, moved);
            expected += rp_rounding_tips(formats[i], x, moved, N);
            seen += (double)count_tipped(formats[i], x, moved);
        }
        /* A count's standard error is its root; the least is about 150 here. */
        assert_true(expected > 100);
        assert_true(fabs(seen - expected) < 4 * sqrt(expected));
    }
}

/* The scale is stored in F16: it moves by 1% of a step of that when the peak does, and Q8_K, which keeps
 * it in FP32, has no such tip. Besides, the peak itself does not move in its own steps by as much. */
static void the_stored_scale_of_a_block_can_tip_too(void **state)
{
    (void)state;
    float x[32] = {0}, moved[32] = {0};
    x[0] = moved[0] = 2.0f;
    moved[0] += 0.01f * 127.0f * (float)rp_step_f16(2.0f / 127);
    const double of_value = (double)(moved[0] - x[0]) / (2.0 / 127);
    const double with_scale = rp_rounding_tips(RP_GGML_Q8_0, x, moved, 32);
    assert_true(fabs(with_scale - of_value - 0.01) < 1e-4);
    assert_true(fabs(rp_rounding_tips(RP_GGML_Q8_K, x, moved, 32) - of_value) < 1e-6);
}

static void the_largest_tip_is_a_step_of_the_coarsest_block(void **state)
{
    (void)state;
    static const uint32_t formats[] = {RP_GGML_Q8_0, RP_GGML_Q4_0, RP_GGML_F16, RP_GGML_BF16};
    float x[64], y[64], tipped[64];
    fill(x, 64, 11);
    for (size_t i = 0; i < 64; i++)
        x[i] *= i < 32 ? 0.01f : 0.3f;
    x[0] = 0.02f;
    x[40] = 8.0f; /* steps of 8/127, of 1, of 2^-7 and of 2^-4 */
    const float steps[4] = {rp_round_f16(8.0f / 127), 1.0f, 0x1p-7f, 0x1p-4f};
    for (size_t k = 0; k < 4; k++) {
        size_t n_changed = 0;
        rp_round_row(formats[k], x, 64, y);
        memcpy(tipped, y, sizeof y);
        rp_rounding_tip_largest(formats[k], x, 64, NULL, tipped);
        for (size_t i = 0; i < 64; i++) {
            n_changed += tipped[i] != y[i];
            if (tipped[i] != y[i]) {
                assert_true(i >= 32);
                assert_true(fabsf(fabsf(tipped[i] - y[i]) - steps[k]) < 1e-6f);
            }
        }
        assert_int_equal(n_changed, 1);
    }
    /* The twin: nothing is rounded, or nothing is there. */
    memcpy(tipped, y, sizeof y);
    rp_rounding_tip_largest(RP_GGML_F32, x, 64, NULL, tipped);
    assert_memory_equal(tipped, y, sizeof y);
    memset(x, 0, sizeof x);
    rp_rounding_tip_largest(RP_GGML_Q8_0, x, 64, NULL, tipped);
    assert_memory_equal(tipped, y, sizeof y);
}

/* Where a value is worth more, a smaller step of it changes more. */
static void the_largest_tip_is_of_what_is_worth_most(void **state)
{
    (void)state;
    static const uint32_t formats[] = {RP_GGML_Q8_0, RP_GGML_Q4_0, RP_GGML_F16};
    float x[64], y[64], tipped[64], gain[64];
    fill(x, 64, 13);
    x[9] = 1.5f;
    x[40] = -8.0f;
    for (size_t i = 0; i < 64; i++)
        gain[i] = i == 9 ? 1.0f : 0.01f;
    for (size_t k = 0; k < 3; k++) {
        rp_round_row(formats[k], x, 64, y);
        memcpy(tipped, y, sizeof y);
        rp_rounding_tip_largest(formats[k], x, 64, gain, tipped);
        for (size_t i = 0; i < 64; i++)
            assert_int_equal(tipped[i] != y[i], i == 9);
        assert_true(tipped[9] < y[9]); /* towards 0 */
        gain[40] = 1.0f; /* the twin: the value with the larger step is worth as much */
        memcpy(tipped, y, sizeof y);
        rp_rounding_tip_largest(formats[k], x, 64, gain, tipped);
        assert_true(tipped[9] == y[9]);
        assert_true(tipped[40] > y[40]);
        gain[40] = 0.01f;
    }
}

/* Q8_K's scale is FP32, so that it goes with the largest value, and all values of the block with it. */
static void a_scale_that_is_not_rounded_follows_its_block(void **state)
{
    (void)state;
    float x[N], moved[N], y[N], rounded[N], expected[N];
    make_row(x, 12);
    x[0] = 4.0f;
    memcpy(moved, x, sizeof x);
    moved[0] = 4.0f + 0x1p-20f;
    moved[9] += 0.3f; /* that is rounded, and stays as it was */
    rp_rounding_follow(RP_GGML_Q8_K, x, moved, N, y);
    for (size_t i = 0; i < N; i++)
        assert_true(y[i] == (i < 256 ? x[i] * (moved[0] / x[0]) : x[i]));
    rp_round_row(RP_GGML_Q8_K, x, N, expected);
    rp_round_row(RP_GGML_Q8_K, y, N, rounded);
    for (size_t i = 0; i < 256; i++)
        assert_true(fabsf(rounded[i] - expected[i] * (moved[0] / x[0])) <= 1e-6f);
    /* The twins: a stored scale is rounded; another peak is a tip, which is counted. */
    rp_rounding_follow(RP_GGML_Q8_0, x, moved, N, y);
    assert_memory_equal(y, x, sizeof x);
    moved[1] = -5.0f;
    rp_rounding_follow(RP_GGML_Q8_K, x, moved, N, y);
    assert_memory_equal(y, x, sizeof x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(q8_0_rounds_halves_to_even_in_steps_of_127_of_the_largest),
        cmocka_unit_test(whole_blocks_round_to_the_bit_as_values_do_one_by_one),
        cmocka_unit_test(q8_0_stores_its_scale_in_f16),
        cmocka_unit_test(q8_k_spans_256_values_and_q8_0_32),
        cmocka_unit_test(the_sign_of_q8_ks_scale_does_not_matter),
        cmocka_unit_test(q4_0_spans_minus_8_to_7_steps_towards_the_largest),
        cmocka_unit_test(zeros_short_rows_and_unknown_formats_are_kept),
        cmocka_unit_test(what_is_not_finite_is_rounded_to_something),
        cmocka_unit_test(a_blocks_stored_sum_exceeds_its_values_by_its_own_rounding),
        cmocka_unit_test(a_blocks_sum_is_made_with_the_scale_before_it_is_rounded),
        cmocka_unit_test(tips_to_be_expected_are_the_distance_over_the_step),
        cmocka_unit_test(tips_of_16_bit_values_follow_their_size),
        cmocka_unit_test(as_many_tip_as_are_to_be_expected),
        cmocka_unit_test(the_stored_scale_of_a_block_can_tip_too),
        cmocka_unit_test(the_largest_tip_is_a_step_of_the_coarsest_block),
        cmocka_unit_test(the_largest_tip_is_of_what_is_worth_most),
        cmocka_unit_test(a_scale_that_is_not_rounded_follows_its_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
