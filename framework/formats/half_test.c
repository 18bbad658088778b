/* Rounding to F16 and BF16, held against all 65536 patterns of each. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "base/little_endian.h"
#include "formats/half.h"

typedef float round_fn(float x);
typedef float decode_fn(uint16_t pattern);

static float from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint32_t to_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float decode_bf16(uint16_t pattern)
{
    return from_bits((uint32_t)pattern << 16);
}

static size_t is_wrong(round_fn *round, float x, float expected)
{
    return to_bits(round(x)) != to_bits(expected);
}

/* Around each pair of neighbours below infinity: themselves, the middle and one step of FP32 to both
 * sides of it, of both signs. */
static size_t count_wrong(round_fn *round, decode_fn *decode, uint16_t infinity)
{
    size_t n_wrong = 0;
    for (uint16_t low = 0; low + 1 < infinity; low++)
        for (int sign = -1; sign <= 1; sign += 2) {
            float a = (float)sign * decode(low), b = (float)sign * decode((uint16_t)(low + 1));
            float middle = (float)(0.5 * ((double)a + (double)b));
            n_wrong += is_wrong(round, a, a);
            n_wrong += is_wrong(round, middle, low % 2 == 0 ? a : b);
            n_wrong += is_wrong(round, nextafterf(middle, a), a);
            n_wrong += is_wrong(round, nextafterf(middle, b), b);
        }
    return n_wrong;
}

static float cut_f16(float x)
{
    float rounded = rp_round_f16(x);
    return fabsf(rounded) > fabsf(x) ? rp_other_f16(x, rounded) : rounded;
}

static float half_away_f16(float x)
{
    float rounded = rp_round_f16(x), other = rp_other_f16(x, rounded);
    int is_middle = (double)x == 0.5 * ((double)rounded + (double)other);
    return is_middle && fabsf(other) > fabsf(rounded) ? other : rounded;
}

static void every_half_is_rounded_to_the_nearest_ties_to_even(void **state)
{
    (void)state;
    assert_int_equal(count_wrong(rp_round_f16, rp_float_from_half, 0x7c00), 0);
    /* The twins: what cuts off, and what rounds the middle away from 0. */
    assert_true(count_wrong(cut_f16, rp_float_from_half, 0x7c00) > 60000);
    assert_true(count_wrong(half_away_f16, rp_float_from_half, 0x7c00) > 30000);
}

static void every_bf16_is_rounded_to_the_nearest_ties_to_even(void **state)
{
    (void)state;
    assert_int_equal(count_wrong(rp_round_bf16, decode_bf16, 0x7f80), 0);
    assert_true(count_wrong(rp_round_f16, decode_bf16, 0x7f80) > 60000);
}

static void what_is_too_large_becomes_infinite_and_nan_stays_nan(void **state)
{
    (void)state;
    assert_true(rp_round_f16(65504.0f) == 65504.0f);
    assert_true(rp_round_f16(nextafterf(65520.0f, 0)) == 65504.0f);
    assert_true(isinf(rp_round_f16(65520.0f)));
    assert_true(rp_round_f16(-1e30f) == -INFINITY);
    assert_true(isinf(rp_round_bf16(3.4e38f)));
    assert_true(isnan(rp_round_f16(NAN)));
    assert_true(isnan(rp_round_bf16(from_bits(0x7fffffff))));
    assert_true(rp_round_f16(0x1p-25f) == 0); /* the middle between 0 and the smallest */
    assert_true(rp_round_f16(nextafterf(0x1p-25f, 1)) == 0x1p-24f);
    assert_true(signbit(rp_round_f16(-0x1p-26f)));
}

/* For x in between, one neighbour is what it is rounded to, and the other one the other. */
static void the_other_neighbour_is_on_the_other_side(void **state)
{
    (void)state;
    for (uint16_t low = 0; low < 0x7bff; low++) {
        float a = rp_float_from_half(low), b = rp_float_from_half((uint16_t)(low + 1));
        float near_a = (float)(0.75 * (double)a + 0.25 * (double)b);
        assert_true(rp_other_f16(near_a, rp_round_f16(near_a)) == b);
        assert_true(rp_other_f16(-near_a, rp_round_f16(-near_a)) == -b);
        float near_b = (float)(0.25 * (double)a + 0.75 * (double)b);
        assert_true(rp_other_f16(near_b, rp_round_f16(near_b)) == a);
    }
    assert_true(rp_other_bf16(1.001f, 1.0f) == 1.0078125f);
    assert_true(rp_other_bf16(-1.007f, -1.0078125f) == -1.0f);
}

static void what_is_representable_or_beyond_the_largest_has_no_other_neighbour(void **state)
{
    (void)state;
    assert_true(rp_other_f16(1.5f, 1.5f) == 1.5f);
    assert_true(rp_other_f16(0, 0) == 0);
    assert_true(rp_other_f16(65510.0f, 65504.0f) == 65504.0f);
    assert_true(isinf(rp_other_f16(1e6f, INFINITY)));
    assert_true(rp_other_bf16(3.39e38f, from_bits(0x7f7f0000)) == from_bits(0x7f7f0000));
}

/* For all pairs of neighbours, of both signs: at the lower of two, and between them, the step is what lies
 * between. */
static void a_step_is_the_distance_to_the_next_value(void **state)
{
    (void)state;
    for (uint16_t low = 0; low < 0x7bff; low++) {
        const double a = (double)rp_float_from_half(low);
        const double step = (double)rp_float_from_half((uint16_t)(low + 1)) - a;
        const float between = (float)(a + 0.4 * step);
        assert_true(rp_step_f16((float)a) == step);
        assert_true(rp_step_f16(-between) == step);
    }
    for (uint16_t low = 0x80; low < 0x7f7f; low++) { /* from the smallest normal one on */
        const double a = (double)decode_bf16(low);
        const double step = (double)decode_bf16((uint16_t)(low + 1)) - a;
        const float between = (float)(a + 0.4 * step);
        assert_true(rp_step_bf16((float)a) == step);
        assert_true(rp_step_bf16(-between) == step);
    }
    assert_true(rp_step_f16(0) == 0x1p-24);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_is_rounded_to_the_nearest_ties_to_even),
        cmocka_unit_test(every_bf16_is_rounded_to_the_nearest_ties_to_even),
        cmocka_unit_test(what_is_too_large_becomes_infinite_and_nan_stays_nan),
        cmocka_unit_test(the_other_neighbour_is_on_the_other_side),
        cmocka_unit_test(what_is_representable_or_beyond_the_largest_has_no_other_neighbour),
        cmocka_unit_test(a_step_is_the_distance_to_the_next_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
