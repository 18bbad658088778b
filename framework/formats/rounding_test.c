/* Rounding of rows: blocks made by hand, near-ties and flips. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "formats/half.h"
#include "formats/rounding.h"

#define N 512

static void fill(float *x, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
}

/* An emulation that notes ties within tolerance, and a row of position 3 in it. */
static struct rp_rounding_site open_site(struct rp_emulation *emulation, double tolerance)
{
    static const struct rp_numerics numerics = {.activations = RP_ACTIVATIONS_BY_WEIGHT};
    rp_emulation_open(emulation, &numerics, NULL);
    emulation->tie_tolerance = tolerance;
    return (struct rp_rounding_site){
        .emulation = emulation, .position = 3, .which = RP_FFN_DOWN, .notes_ties = true};
}

static void round_plainly(uint32_t format, const float *x, size_t n, float *y)
{
    assert_int_equal(rp_round_row(format, x, n, y, NULL, NULL), RP_OK);
}

/* The largest is 127/4, so that the scale is 1/4, exactly: 2.5 steps go to 2, 3.5 to 4. */
static void q8_0_rounds_halves_to_even_in_steps_of_127_of_the_largest(void **state)
{
    (void)state;
    float x[32] = {31.75f, 0.625f, 0.875f, -0.625f, -0.875f, 0.64f, 0.1f, -31.75f}, y[32];
    const float expected[8] = {31.75f, 0.5f, 1.0f, -0.5f, -1.0f, 0.75f, 0, -31.75f};
    round_plainly(RP_GGML_Q8_0, x, 32, y);
    assert_memory_equal(y, expected, sizeof expected);
}

/* 1/127 is no F16: integers are made with the exact scale, values with the rounded one. */
static void q8_0_stores_its_scale_in_f16(void **state)
{
    (void)state;
    float x[32] = {1.0f, 0.5f}, y[32], scale = rp_round_f16(1.0f / 127.0f);
    round_plainly(RP_GGML_Q8_0, x, 32, y);
    assert_true(y[0] == 127.0f * scale);
    assert_true(y[0] != 1.0f);
    assert_true(y[1] == 64.0f * scale); /* 63.5, to even */
    /* The twin: Q8_K keeps it in FP32. */
    round_plainly(RP_GGML_Q8_K, x, 32, y);
    assert_true(fabsf(y[0] - 1.0f) < 1e-7f);
}

static void q8_k_spans_256_values_and_q8_0_32(void **state)
{
    (void)state;
    float x[N], y8_0[N], y8_k[N];
    fill(x, N, 1);
    x[40] = 100.0f; /* makes its block coarse */
    round_plainly(RP_GGML_Q8_0, x, N, y8_0);
    round_plainly(RP_GGML_Q8_K, x, N, y8_k);
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
    round_plainly(RP_GGML_Q8_K, x, 256, y);
    x[0] = -2.0f;
    x[1] = 2.0f;
    round_plainly(RP_GGML_Q8_K, x, 256, z);
    assert_memory_equal(y + 2, z + 2, sizeof y - 2 * sizeof *y);
}

/* The largest, -2, is -8 steps of 1/4; +2 would be 8, which there is not. */
static void q4_0_spans_minus_8_to_7_steps_towards_the_largest(void **state)
{
    (void)state;
    float x[32] = {-2.0f, 2.0f, 0.3f, -0.3f, 0.125f, -0.125f}, y[32];
    const float expected[6] = {-2.0f, 1.75f, 0.25f, -0.25f, 0.25f, 0};
    round_plainly(RP_GGML_Q4_0, x, 32, y);
    assert_memory_equal(y, expected, sizeof expected);
}

static void zeros_short_rows_and_unknown_formats_are_kept(void **state)
{
    (void)state;
    float zeros[40] = {0}, x[40], y[40];
    static const uint32_t formats[] = {RP_GGML_F16, RP_GGML_BF16, RP_GGML_Q8_0, RP_GGML_Q4_0,
                                       RP_GGML_Q8_K};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        round_plainly(formats[i], zeros, 40, y);
        for (size_t k = 0; k < 40; k++)
            assert_true(y[k] == 0);
    }
    fill(x, 40, 3);
    round_plainly(RP_GGML_Q8_0, x, 40, y); /* a block of 32 and one of 8 */
    assert_true(fabsf(y[39] - x[39]) < 0.01f);
    round_plainly(RP_GGML_F32, x, 40, y);
    assert_memory_equal(x, y, sizeof x);
}

static void what_is_not_finite_is_rounded_to_something(void **state)
{
    (void)state;
    struct rp_emulation emulation;
    struct rp_rounding_site site = open_site(&emulation, 1e-6);
    static const uint32_t formats[] = {RP_GGML_F16, RP_GGML_BF16, RP_GGML_Q8_0, RP_GGML_Q4_0,
                                       RP_GGML_Q8_K};
    float x[64] = {NAN, 1, INFINITY, -INFINITY, 3e38f}, y[64];
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        assert_int_equal(rp_round_row(formats[i], x, 64, y, &site, NULL), RP_OK);
    rp_emulation_close(&emulation);
}

/* ---- ties ---- */

/* Value 5 lies 1e-7 of a step beside 10.5 steps of a Q8_0 block whose scale is 1/4. */
static void make_tie(float *x)
{
    memset(x, 0, 64 * sizeof *x);
    for (size_t i = 0; i < 64; i++)
        x[i] = 0.25f * (float)(i % 20) + 0.02f;
    x[0] = 31.75f;
    x[32] = 31.75f;
    x[37] = 2.625f + 1e-6f;
}

static void a_value_near_the_middle_is_a_tie_and_no_other(void **state)
{
    (void)state;
    struct rp_emulation emulation;
    struct rp_rounding_site site = open_site(&emulation, 1e-6);
    float x[64], y[64];
    make_tie(x);
    assert_int_equal(rp_round_row(RP_GGML_Q8_0, x, 64, y, &site, NULL), RP_OK);
    assert_int_equal(emulation.n_ties, 1);
    const struct rp_tie *tie = &emulation.ties[0];
    assert_int_equal(tie->index, 37);
    assert_int_equal(tie->kind, RP_TIE_VALUE);
    assert_int_equal(tie->position, 3);
    assert_int_equal(tie->which, RP_FFN_DOWN);
    assert_int_equal(tie->format, RP_GGML_Q8_0);
    assert_true(tie->distance > 0 && tie->distance <= 1);
    /* The twins: a smaller tolerance, none, or a row that another product notes. */
    emulation.n_ties = 0;
    emulation.tie_tolerance = 1e-8;
    assert_int_equal(rp_round_row(RP_GGML_Q8_0, x, 64, y, &site, NULL), RP_OK);
    emulation.tie_tolerance = 0;
    assert_int_equal(rp_round_row(RP_GGML_Q8_0, x, 64, y, &site, NULL), RP_OK);
    emulation.tie_tolerance = 1e-6;
    site.notes_ties = false;
    assert_int_equal(rp_round_row(RP_GGML_Q8_0, x, 64, y, &site, NULL), RP_OK);
    assert_int_equal(emulation.n_ties, 0);
    rp_emulation_close(&emulation);
}

/* Rounds x with and without flip and returns how many values differ. */
static size_t count_changed(const struct rp_tie *flip, const float *x, float *step)
{
    struct rp_emulation emulation;
    struct rp_rounding_site site = open_site(&emulation, 0);
    float plain[64], flipped[64];
    size_t n = 0;
    assert_int_equal(rp_round_row(flip->format, x, 64, plain, &site, NULL), RP_OK);
    emulation.flips = flip;
    emulation.n_flips = 1;
    assert_int_equal(rp_round_row(flip->format, x, 64, flipped, &site, NULL), RP_OK);
    for (size_t i = 0; i < 64; i++) {
        n += plain[i] != flipped[i];
        if (plain[i] != flipped[i])
            *step = flipped[i] - plain[i];
    }
    rp_emulation_close(&emulation);
    return n;
}

static void a_flip_moves_exactly_its_value_to_the_other_neighbour(void **state)
{
    (void)state;
    struct rp_tie flip = {.position = 3, .which = RP_FFN_DOWN, .format = RP_GGML_Q8_0, .index = 37};
    float x[64], step = 0;
    make_tie(x);
    assert_int_equal(count_changed(&flip, x, &step), 1);
    assert_true(step == -0.25f); /* 11 steps became 10 */
    flip.format = RP_GGML_BF16;
    assert_int_equal(count_changed(&flip, x, &step), 1);
    flip.format = RP_GGML_F16;
    assert_int_equal(count_changed(&flip, x, &step), 1);
    /* The twins: another row, position or format, and a value that is exact already. */
    flip.position = 4;
    assert_int_equal(count_changed(&flip, x, &step), 0);
    flip.position = 3;
    flip.which = RP_ATTN_OUTPUT;
    assert_int_equal(count_changed(&flip, x, &step), 0);
    flip.which = RP_FFN_DOWN;
    flip.index = 32;
    assert_int_equal(count_changed(&flip, x, &step), 0);
}

static void a_scale_near_the_middle_is_a_tie_whose_flip_moves_its_block(void **state)
{
    (void)state;
    struct rp_emulation emulation;
    struct rp_rounding_site site = open_site(&emulation, 1e-6);
    float x[64], y[64], step = 0;
    fill(x, 64, 4);
    x[0] = 127.0f * (0.25f + 0x1p-13f); /* between 0.25 and the next F16 */
    for (size_t i = 1; i < 64; i++)
        x[i] += 0.001f;
    assert_int_equal(rp_round_row(RP_GGML_Q8_0, x, 64, y, &site, NULL), RP_OK);
    assert_int_equal(emulation.n_ties, 1);
    assert_int_equal(emulation.ties[0].kind, RP_TIE_SCALE);
    assert_int_equal(emulation.ties[0].index, 0);
    struct rp_tie flip = emulation.ties[0];
    size_t n_changed = count_changed(&flip, x, &step);
    assert_true(n_changed > 20 && n_changed <= 32); /* zeros stay */
    rp_emulation_close(&emulation);
}

static void ties_are_bounded(void **state)
{
    (void)state;
    struct rp_emulation emulation;
    struct rp_rounding_site site = open_site(&emulation, 1); /* everything is one */
    float x[N], y[N];
    fill(x, N, 5);
    for (size_t i = 0; i < 200; i++)
        assert_int_equal(rp_round_row(RP_GGML_Q4_0, x, N, y, &site, NULL), RP_OK);
    assert_true(emulation.n_ties <= 65536);
    emulation.tie_tolerance = 0.1;
    for (size_t i = 0; i < 2000; i++)
        assert_int_equal(rp_round_row(RP_GGML_Q4_0, x, N, y, &site, NULL), RP_OK);
    assert_int_equal(emulation.n_ties, 65536);
    rp_emulation_close(&emulation);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(q8_0_rounds_halves_to_even_in_steps_of_127_of_the_largest),
        cmocka_unit_test(q8_0_stores_its_scale_in_f16),
        cmocka_unit_test(q8_k_spans_256_values_and_q8_0_32),
        cmocka_unit_test(the_sign_of_q8_ks_scale_does_not_matter),
        cmocka_unit_test(q4_0_spans_minus_8_to_7_steps_towards_the_largest),
        cmocka_unit_test(zeros_short_rows_and_unknown_formats_are_kept),
        cmocka_unit_test(what_is_not_finite_is_rounded_to_something),
        cmocka_unit_test(a_value_near_the_middle_is_a_tie_and_no_other),
        cmocka_unit_test(a_flip_moves_exactly_its_value_to_the_other_neighbour),
        cmocka_unit_test(a_scale_near_the_middle_is_a_tie_whose_flip_moves_its_block),
        cmocka_unit_test(ties_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
