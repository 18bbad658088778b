/* KL divergence: against the C library's exp and log, and its fast path against the portable one. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compare/kl.h"

enum { VOCAB = 5003 };

static double max_of(const float *row, size_t n)
{
    float max = row[0];
    for (size_t i = 1; i < n; i++)
        max = row[i] > max ? row[i] : max;
    return (double)max;
}

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static double kl_of(const float *r, const float *e, size_t n)
{
    const double max_r = max_of(r, n), max_e = max_of(e, n);
    const struct rp_kl fast = rp_kl_divergence(r, e, n, max_r, max_e);
    const struct rp_kl portable = rp_kl_divergence_portable(r, e, n, max_r, max_e);
    if (bits_of(fast.kl) != bits_of(portable.kl) ||
        bits_of(fast.information) != bits_of(portable.information))
        fail_msg("%zu values: %a and %a, %a and %a", n, fast.kl, portable.kl, fast.information,
                 portable.information);
    return fast.kl;
}

/* As the definition has it, in long double. */
static long double log_sum_exp(const float *row, size_t n)
{
    long double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += expl((long double)row[i] - (long double)max_of(row, n));
    return (long double)max_of(row, n) + logl(sum);
}

static double by_definition(const float *r, const float *e, size_t n)
{
    const long double lse_r = log_sum_exp(r, n), lse_e = log_sum_exp(e, n);
    long double kl = 0;
    for (size_t i = 0; i < n; i++) {
        const long double log_p = (long double)r[i] - lse_r, log_q = (long double)e[i] - lse_e;
        kl += expl(log_p) * (log_p - log_q);
    }
    return (double)kl;
}

/* 1e-15 of the logarithms' size, which is what rounding leaves of sums that cancel, and 1e-14 of
 * the result's own. */
static void assert_kl(const float *r, const float *e, size_t n)
{
    const double expected = by_definition(r, e, n), found = kl_of(r, e, n);
    const double size = fabs(max_of(r, n)) + fabs(max_of(e, n)) + 10;
    if (!(fabs(found - expected) <= 1e-15 * size + 1e-14 * expected))
        fail_msg("%zu values: expected %.17g, found %.17g", n, expected, found);
}

/* The information is the divergence from a uniform row. */
static void assert_information(const float *r, size_t n)
{
    static float uniform[VOCAB];
    const double max = max_of(r, n);
    const double expected = by_definition(r, uniform, n);
    const double found = rp_kl_divergence(r, uniform, n, max, 0).information;
    if (!(fabs(found - expected) <= 1e-15 * (fabs(max) + 10) + 1e-14 * expected))
        fail_msg("%zu values: expected %.17g, found %.17g", n, expected, found);
}

static void fill(float *r, float *e, size_t n, double spread, double noise)
{
    for (size_t i = 0; i < n; i++) {
        r[i] = (float)(spread * sin(12.9898 * (double)(i + 1)));
        e[i] = (float)((double)r[i] + noise * cos(78.233 * (double)(i + 1)));
    }
}

static void every_length_gives_the_definitions_value(void **state)
{
    float r[64], e[64];
    (void)state;
    fill(r, e, 64, 5, 0.5);
    for (size_t n = 1; n <= 64; n++)
        assert_kl(r, e, n);
}

static void flat_peaked_near_and_far_rows_give_the_definitions_value(void **state)
{
    static const double spreads[] = {0, 0.01, 1, 10, 30, 300, 3000};
    static const double noises[] = {0, 1e-6, 1e-3, 0.1, 1, 30};
    static float r[VOCAB], e[VOCAB];
    (void)state;
    for (size_t i = 0; i < sizeof spreads / sizeof spreads[0]; i++) {
        for (size_t j = 0; j < sizeof noises / sizeof noises[0]; j++) {
            fill(r, e, VOCAB, spreads[i], noises[j]);
            assert_kl(r, e, VOCAB);
            assert_information(r, VOCAB);
        }
    }
}

static void equal_rows_have_none_to_the_bit(void **state)
{
    static float r[VOCAB], e[VOCAB];
    (void)state;
    fill(r, e, VOCAB, 10, 0);
    assert_true(kl_of(r, r, VOCAB) == 0);
}

static void a_shift_of_all_logits_is_no_divergence(void **state)
{
    static float r[VOCAB], e[VOCAB];
    (void)state;
    fill(r, e, VOCAB, 10, 0);
    for (size_t i = 0; i < VOCAB; i++) {
        r[i] = (float)(int)r[i];
        e[i] = r[i] + 64; /* exact */
    }
    assert_true(kl_of(r, e, VOCAB) < 1e-13); /* 64 nats cancel, each to 1e-16 */
}

static void the_largest_floats_give_a_finite_value(void **state)
{
    float r[16], e[16];
    (void)state;
    for (size_t i = 0; i < 16; i++) {
        r[i] = i ? -FLT_MAX : FLT_MAX;
        e[i] = i == 9 ? FLT_MAX : -FLT_MAX;
    }
    const double kl = kl_of(r, e, 16); /* p is 1 where log q is -2 FLT_MAX */
    assert_true(isfinite(kl) && fabs(kl - 2 * (double)FLT_MAX) <= 1e-15 * kl);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_length_gives_the_definitions_value),
        cmocka_unit_test(flat_peaked_near_and_far_rows_give_the_definitions_value),
        cmocka_unit_test(equal_rows_have_none_to_the_bit),
        cmocka_unit_test(a_shift_of_all_logits_is_no_divergence),
        cmocka_unit_test(the_largest_floats_give_a_finite_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
