/* Whether tips of declared roundings explain what is seen: against probabilities worked out by hand, and
 * against draws. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "replay/tip_limits.h"

enum { MANY = 200 };

static bool tips_explain(const double *own, const double *earlier, const bool *is_over, size_t n)
{
    bool is_explained = false;
    assert_int_equal(rp_tips_explain(own, earlier, is_over, n, &is_explained, NULL), RP_OK);
    return is_explained;
}

static bool is_near(double a, double b)
{
    return fabs(a - b) <= 1e-12 * fabs(b);
}

/* ---- one position's limit ---- */

/* The smallest k with P(more than k) < 1e-6, for a Poisson mean of 3 own: of 0.003, P(>1) is 4.5e-6 and
 * P(>2) 4.5e-9; of 0.03, P(>2) 4.4e-6 and P(>3) 3.3e-8; of 0.3, P(>4) 1.6e-5 and P(>5) 7.8e-7; of 1,
 * P(>8) 1.1e-6 and P(>9) 1.1e-7; of 3, P(>13) 3.4e-6 and P(>14) 6.7e-7; of 30, P(>58) 1.9e-6 and P(>59)
 * 9.3e-7. */
static void the_limit_is_the_root_of_how_many_tips_are_passed_once_in_a_million(void **state)
{
    (void)state;
    static const struct {
        double mean;
        int k;
    } cases[] = {{0.003, 2}, {0.03, 3}, {0.3, 5}, {1, 9}, {3, 14}, {30, 59}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const double limit = rp_tips_limit(0.25, cases[i].mean / RP_TIPS_MARGIN);
        if (!is_near(limit, 0.25 * sqrt(cases[i].k)))
            fail_msg("of %g tips %g are allowed", cases[i].mean, pow(limit / 0.25, 2));
    }
}

static void one_tip_is_always_allowed(void **state)
{
    (void)state;
    assert_true(rp_tips_limit(0.5, 0) == 0.5);
    assert_true(rp_tips_limit(0.5, 1e-9) == 0.5);
    assert_true(rp_tips_limit(0, 5) == 0);
}

/* Past what exp(-mean) can hold, and past 4096, the quantile is the mean and six of its roots. */
static void the_limit_grows_steadily_with_what_is_expected(void **state)
{
    (void)state;
    double before = 0, own = 1e-6;
    for (size_t i = 0; i < 290; i++) {
        const double limit = rp_tips_limit(1, own), mean = RP_TIPS_MARGIN * own;
        assert_true(isfinite(limit));
        assert_true(limit >= before * 0.98);
        assert_true(limit >= sqrt(mean));
        assert_true(limit * limit <= mean + 6 * sqrt(mean) + 10);
        before = limit;
        own *= 1.1;
    }
}

/* ---- which positions are over ---- */

static void fill(double *values, size_t n, double value)
{
    for (size_t i = 0; i < n; i++)
        values[i] = value;
}

static void where_none_is_over_nothing_is_to_be_explained(void **state)
{
    (void)state;
    double own[MANY] = {0}, earlier[MANY] = {0};
    bool is_over[MANY] = {false};
    assert_true(tips_explain(own, earlier, is_over, MANY));
    assert_true(tips_explain(own, earlier, is_over, 1));
    assert_true(tips_explain(own, earlier, is_over, 0));
    fill(own, MANY, 100);
    assert_true(tips_explain(own, earlier, is_over, MANY));
}

/* Of 200 positions with 1% each, times the margin, 6 are to be expected: P(>= 20) is 2.5e-6, P(>= 21)
 * 6.5e-7. */
static void as_many_as_are_likely_are_explained_and_no_more(void **state)
{
    (void)state;
    double own[MANY], earlier[MANY] = {0};
    fill(own, MANY, 0.01);
    for (size_t n_over = 0; n_over <= 30; n_over++) {
        bool is_over[MANY] = {false};
        for (size_t i = 0; i < n_over; i++)
            is_over[i * 37 % MANY] = true;
        const bool is_explained = tips_explain(own, earlier, is_over, MANY);
        if (n_over <= 20)
            assert_true(is_explained);
        if (n_over >= 21)
            assert_false(is_explained);
    }
}

static void what_nothing_rounds_is_not_explained(void **state)
{
    (void)state;
    double own[MANY] = {0}, earlier[MANY] = {0};
    bool is_over[MANY] = {false};
    is_over[MANY - 1] = true;
    assert_false(tips_explain(own, earlier, is_over, MANY));
    own[MANY - 1] = 1e-4; /* the twin: there it is */
    assert_true(tips_explain(own, earlier, is_over, MANY));
    own[MANY - 1] = 1e-8; /* less than once in a million */
    assert_false(tips_explain(own, earlier, is_over, MANY));
}

/* A position that is likely to tip says nothing of one that is not. */
static void each_position_has_its_own_expectation(void **state)
{
    (void)state;
    double own[MANY], earlier[MANY] = {0};
    bool is_over[MANY] = {false};
    for (size_t i = 0; i < MANY; i++) {
        own[i] = i < MANY / 2 ? 10 : 1e-5;
        is_over[i] = i < MANY / 2;
    }
    assert_true(tips_explain(own, earlier, is_over, MANY));
    for (size_t i = 0; i < 5; i++) /* 200 * 3e-5 are to be expected */
        is_over[MANY - 1 - i] = true;
    assert_false(tips_explain(own + MANY / 2, earlier, is_over + MANY / 2, MANY / 2));
}

/* With the margin of 3, 10% expected let 26% tip: of 200 that is 52, and P(>= 85) is 2.6e-7. */
static void thirty_percent_are_explained_where_ten_are_expected_and_fifty_are_not(void **state)
{
    (void)state;
    double own[MANY], earlier[MANY] = {0};
    bool thirty[MANY], fifty[MANY], all[MANY];
    fill(own, MANY, 0.1);
    for (size_t i = 0; i < MANY; i++) {
        thirty[i] = i * 7 % 10 < 3;
        fifty[i] = i % 2 == 0;
        all[i] = true;
    }
    assert_true(tips_explain(own, earlier, thirty, MANY));
    assert_false(tips_explain(own, earlier, fifty, MANY));
    assert_false(tips_explain(own, earlier, all, MANY));
    fill(own, MANY, 0.001); /* the twin */
    assert_false(tips_explain(own, earlier, thirty, MANY));
}

/* A key's rounding that has tipped is read at each later position. */
static void all_positions_from_one_on_are_explained_by_an_earlier_row(void **state)
{
    (void)state;
    double own[MANY], earlier[MANY];
    bool is_over[MANY];
    for (size_t i = 0; i < MANY; i++) {
        own[i] = 1e-4;
        earlier[i] = 1e-4 * (double)i;
        is_over[i] = i >= 50;
    }
    assert_true(tips_explain(own, earlier, is_over, MANY));
    /* The twins: no earlier row can tip; or it does so less than once in a million. */
    for (size_t i = 0; i < MANY; i++)
        earlier[i] = 0;
    assert_false(tips_explain(own, earlier, is_over, MANY));
    for (size_t i = 0; i < MANY; i++)
        earlier[i] = 1e-10 * (double)i;
    assert_false(tips_explain(own, earlier, is_over, MANY));
}

/* Position 0 reads no earlier one. */
static void all_positions_from_the_first_on_are_not(void **state)
{
    (void)state;
    double own[MANY], earlier[MANY];
    bool is_over[MANY];
    for (size_t i = 0; i < MANY; i++) {
        own[i] = 1e-4;
        earlier[i] = 1e-2 * (double)i;
        is_over[i] = true;
    }
    /* Once: position 0 by itself (3e-4), then a row of it (3e-2) for the rest. */
    assert_true(tips_explain(own, earlier, is_over, MANY));
    own[0] = own[1] = own[2] = 0;
    assert_false(tips_explain(own, earlier, is_over, MANY));
}

/* A long prompt, all of it over: the work grows with the square of its length, or this takes minutes. */
static void long_prompts_are_judged(void **state)
{
    (void)state;
    enum { LONG = 4096 };
    static double own[LONG], earlier[LONG];
    static bool is_over[LONG];
    for (size_t i = 0; i < LONG; i++) {
        own[i] = 0.1;
        is_over[i] = true;
    }
    assert_false(tips_explain(own, earlier, is_over, LONG));
    fill(own, LONG, 10); /* the twin */
    assert_true(tips_explain(own, earlier, is_over, LONG));
}

/* ---- draws ---- */

static double next(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(*seed >> 11) * 0x1p-53;
}

/* Tips as they are to be expected, and three times as many, are never taken for a bug. */
static void what_is_drawn_as_expected_is_explained(void **state)
{
    (void)state;
    static const double sizes[] = {1e-4, 1e-3, 1e-2, 0.1, 1};
    uint64_t seed = 1;
    size_t n_alarms = 0;
    for (size_t run = 0; run < 2000; run++) {
        const double size = sizes[run % 5], factor = run % 2 ? 1 : RP_TIPS_MARGIN;
        double own[MANY], earlier[MANY];
        bool is_over[MANY], has_tipped = false;
        for (size_t i = 0; i < MANY; i++) {
            own[i] = size;
            earlier[i] = i > 0 ? earlier[i - 1] + size : 0;
            has_tipped |= i > 0 && next(&seed) < -expm1(-factor * size);
            is_over[i] = next(&seed) < -expm1(-factor * size) || has_tipped;
        }
        n_alarms += !tips_explain(own, earlier, is_over, MANY);
    }
    assert_int_equal(n_alarms, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_limit_is_the_root_of_how_many_tips_are_passed_once_in_a_million),
        cmocka_unit_test(one_tip_is_always_allowed),
        cmocka_unit_test(the_limit_grows_steadily_with_what_is_expected),
        cmocka_unit_test(where_none_is_over_nothing_is_to_be_explained),
        cmocka_unit_test(as_many_as_are_likely_are_explained_and_no_more),
        cmocka_unit_test(what_nothing_rounds_is_not_explained),
        cmocka_unit_test(each_position_has_its_own_expectation),
        cmocka_unit_test(thirty_percent_are_explained_where_ten_are_expected_and_fifty_are_not),
        cmocka_unit_test(all_positions_from_one_on_are_explained_by_an_earlier_row),
        cmocka_unit_test(all_positions_from_the_first_on_are_not),
        cmocka_unit_test(long_prompts_are_judged),
        cmocka_unit_test(what_is_drawn_as_expected_is_explained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
