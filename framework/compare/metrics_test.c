/* The numbers themselves: against values worked out by hand, at odd sizes, alignments and values. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "refparity/metrics.h"

static void assert_close(double actual, double expected, double tolerance)
{
    if (!(fabs(actual - expected) <= tolerance))
        fail_msg("expected %.17g, found %.17g", expected, actual);
}

static void metrics_are_those_worked_out_by_hand(void **state)
{
    (void)state;
    const float r[] = {3, 0, 4}, e[] = {3, 5, 4};
    const struct rp_metrics m = rp_metrics_row(r, e, 3);
    assert_close(m.norm_ref, 5, 0);
    assert_close(m.norm_engine, sqrt(50), 0);
    assert_close(m.l2_rel, 1, 0);                       /* 5 / 5 */
    assert_close(m.cosine, 25 / (5 * sqrt(50)), 1e-16); /* one rounding of a double */
    assert_close(m.max_abs, 5, 0);
    assert_true(m.ref_finite && m.engine_finite);
}

static void every_length_gives_the_sums_of_a_plain_loop(void **state)
{
    (void)state;
    enum { MAX = 100 };
    float r[MAX], e[MAX];
    for (size_t i = 0; i < MAX; i++) {
        r[i] = (float)sin((double)i) * 3;
        e[i] = r[i] + (float)cos(7.0 * (double)i) * 0.01f;
    }
    for (size_t n = 1; n <= MAX; n++) {
        double diff2 = 0, ref2 = 0, max_abs = 0;
        for (size_t i = 0; i < n; i++) {
            const double d = (double)e[i] - (double)r[i];
            diff2 += d * d;
            ref2 += (double)r[i] * (double)r[i];
            max_abs = fabs(d) > max_abs ? fabs(d) : max_abs;
        }
        const struct rp_metrics m = rp_metrics_row(r, e, n);
        /* the order of at most 100 additions of doubles */
        if (ref2 > 0)
            assert_close(m.l2_rel, sqrt(diff2 / ref2), 1e-15);
        assert_close(m.max_abs, max_abs, 0);
    }
}

static void rows_may_lie_at_any_address(void **state)
{
    (void)state;
    float values[37];
    unsigned char *bytes = malloc(sizeof values + 8);
    assert_non_null(bytes);
    for (size_t i = 0; i < 37; i++)
        values[i] = (float)i - 11;
    const struct rp_metrics aligned = rp_metrics_row(values, values + 1, 36);
    for (size_t shift = 0; shift < 8; shift++) {
        memcpy(bytes + shift, values, sizeof values);
        const struct rp_metrics m = rp_metrics_row(bytes + shift, bytes + shift + 4, 36);
        assert_memory_equal(&m, &aligned, sizeof m);
    }
    free(bytes);
}

static void NaN_and_infinity_on_either_side_are_seen_wherever_they_are(void **state)
{
    (void)state;
    enum { N = 21 };
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t b = 0; b < 3; b++) {
        for (size_t i = 0; i < N; i++) {
            float good[N], broken[N];
            for (size_t k = 0; k < N; k++)
                good[k] = broken[k] = 1;
            broken[i] = bad[b];
            struct rp_metrics m = rp_metrics_row(good, broken, N);
            assert_true(m.ref_finite && !m.engine_finite && isnan(m.l2_rel) && isnan(m.cosine));
            m = rp_metrics_row(broken, good, N);
            assert_true(!m.ref_finite && m.engine_finite && isnan(m.l2_rel) && isnan(m.cosine));
            const struct rp_row_scan scan = rp_metrics_scan(good, broken, N);
            assert_int_equal(scan.n_nan + scan.n_inf, 1);
            assert_int_equal(scan.first_nonfinite, i);
        }
    }
}

static void the_largest_floats_do_not_overflow(void **state)
{
    (void)state;
    float r[64], e[64];
    for (size_t i = 0; i < 64; i++) {
        r[i] = 3e38f;
        e[i] = -3e38f;
    }
    const struct rp_metrics m = rp_metrics_row(r, e, 64);
    assert_true(m.ref_finite && m.engine_finite);
    assert_close(m.l2_rel, 2, 1e-15);
    assert_close(m.cosine, -1, 1e-15);
}

static void an_all_zero_reference_has_no_relative_error(void **state)
{
    (void)state;
    const float zero[8] = {0}, one[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    assert_true(isnan(rp_metrics_row(zero, one, 8).l2_rel));
    assert_true(isnan(rp_metrics_row(zero, zero, 8).l2_rel));
    assert_close(rp_metrics_row(one, zero, 8).l2_rel, 1, 0);
    assert_true(isnan(rp_metrics_row(one, zero, 8).cosine));
}

static void logits_metrics_are_those_worked_out_by_hand(void **state)
{
    (void)state;
    /* softmax of log 1, log 2, log 1 is 1/4, 1/2, 1/4 */
    const float r[] = {0, (float)0.69314718055994531, 0}, e[] = {0, 0, 0};
    const struct rp_logits_metrics m = rp_metrics_logits(r, e, 3);
    assert_int_equal(m.top1_ref, 1);
    assert_int_equal(m.top1_engine, 0); /* the lowest among equals */
    assert_int_equal(m.top_k_overlap, 3);
    /* 1/4 log(3/4) + 1/2 log(3/2) + 1/4 log(3/4); log 2 is rounded to a float above */
    assert_close(m.kl, 0.5 * log(0.75) + 0.5 * log(1.5), 1e-7);
    assert_close(rp_metrics_logits(r, r, 3).kl, 0, 0);
}

static void top_k_counts_what_both_rank_highest(void **state)
{
    (void)state;
    const float r[] = {9, 8, 7, 6, 5, 0, 0, 0, 0, 0}, e[] = {0, 0, 7, 6, 5, 9, 8, 0, 0, 0};
    const struct rp_logits_metrics m = rp_metrics_logits(r, e, 10);
    assert_int_equal(m.top_k_overlap, 3);
    assert_int_equal(m.top1_ref, 0);
    assert_int_equal(m.top1_engine, 5);
    assert_int_equal(rp_metrics_logits(r, e, 0).top_k_overlap, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metrics_are_those_worked_out_by_hand),
        cmocka_unit_test(every_length_gives_the_sums_of_a_plain_loop),
        cmocka_unit_test(rows_may_lie_at_any_address),
        cmocka_unit_test(NaN_and_infinity_on_either_side_are_seen_wherever_they_are),
        cmocka_unit_test(the_largest_floats_do_not_overflow),
        cmocka_unit_test(an_all_zero_reference_has_no_relative_error),
        cmocka_unit_test(logits_metrics_are_those_worked_out_by_hand),
        cmocka_unit_test(top_k_counts_what_both_rank_highest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
