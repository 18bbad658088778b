/* Which values can tip, and what many unlikely tips amount to. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "operations/tips.h"
#include "refparity/gguf.h"

enum { N = 64, MAX_FOUND = 16 };

struct found {
    size_t n;
    struct rp_tip tips[MAX_FOUND];
};

static void add(void *context, const struct rp_tip *tip)
{
    struct found *found = context;
    assert_true(found->n < MAX_FOUND);
    found->tips[found->n++] = *tip;
}

/* Blocks of step 1, whose values are integers but for those that a test sets. */
static struct found find(uint32_t format, float x3, float x40, double noise)
{
    struct found found = {.n = 0};
    float x[N];
    for (size_t i = 0; i < N; i++)
        x[i] = (float)(i % 5);
    x[0] = x[32] = format == RP_GGML_Q4_0 ? -8.0f : 127.0f;
    x[3] = x3;
    x[40] = x40;
    rp_find_tips(format, x, N, noise, add, &found);
    return found;
}

static void only_a_value_near_the_middle_can_tip(void **state)
{
    (void)state;
    const uint32_t formats[] = {RP_GGML_Q8_0, RP_GGML_Q4_0};
    for (size_t i = 0; i < 2; i++) {
        struct found found = find(formats[i], 2.501f, 1.0f, 1e-3);
        assert_int_equal(found.n, 1);
        assert_true(found.tips[0].kind == RP_TIP_VALUE && found.tips[0].first == 3);
        assert_true(found.tips[0].n == 1 && found.tips[0].size == 1.0f);
        found = find(formats[i], 2.51f, -1.499f, 1e-3);
        assert_int_equal(found.n, 1);
        assert_int_equal(found.tips[0].first, 40);
        assert_int_equal(find(formats[i], 2.51f, -1.49f, 1e-3).n, 0);
    }
}

static void without_noise_only_the_last_bits_of_fp32_decide(void **state)
{
    (void)state;
    assert_int_equal(find(RP_GGML_Q8_0, 2.5f, 1.0f, 0).n, 1);
    assert_int_equal(find(RP_GGML_Q8_0, 2.50001f, 1.0f, 0).n, 0);
}

/* 1 + 2^-11 is the middle between two values of F16. */
static void a_scale_near_the_middle_can_tip(void **state)
{
    (void)state;
    struct found found = {.n = 0};
    float x[32] = {-8.0f * (1 + 0x1p-11f)};
    rp_find_tips(RP_GGML_Q4_0, x, 32, 1e-6, add, &found);
    assert_int_equal(found.n, 1);
    assert_true(found.tips[0].kind == RP_TIP_SCALE && found.tips[0].n == 32);
    assert_true(found.tips[0].size > 0.9f * 0x1p-10f && found.tips[0].size < 1.1f * 0x1p-10f);
    x[0] = -8.0f * (1 + 0x1p-12f);
    found.n = 0;
    rp_find_tips(RP_GGML_Q4_0, x, 32, 1e-6, add, &found);
    assert_int_equal(found.n, 0);
}

/* The sign of a Q4_0 block's scale is its largest value's. */
static void another_largest_value_turns_a_block_of_q4_0(void **state)
{
    (void)state;
    struct found found = find(RP_GGML_Q4_0, 7.9999f, 1.0f, 1e-3);
    assert_int_equal(found.n, 1);
    assert_true(found.tips[0].kind == RP_TIP_PEAK && found.tips[0].first == 0);
    assert_int_equal(find(RP_GGML_Q4_0, -7.9999f, 1.0f, 1e-3).n, 0);
    assert_int_equal(find(RP_GGML_Q8_0, -126.9999f, 1.0f, 1e-3).n, 0);
}

/* A Poisson number of terms of 1: with a mean of 3, more than 16 are rarer than 10^-7, more than 14
 * are not; with 0.01, more than 3 and more than 2. Chernoff's bound may take one more. */
static void rare_terms_of_one_size_are_as_many_as_poisson_says(void **state)
{
    (void)state;
    enum { TERMS = 100 };
    double expected[TERMS], square[TERMS];
    const struct {
        double mean, low, high;
    } cases[] = {{3, 14, 18}, {0.01, 2, 4.5}, {30, 62, 70}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t k = 0; k < TERMS; k++) {
            expected[k] = cases[i].mean / TERMS;
            square[k] = 1;
        }
        const double sum = rp_rare_sum(expected, square, TERMS);
        assert_true(sum > cases[i].low && sum < cases[i].high);
    }
}

static void what_is_too_rare_is_nothing(void **state)
{
    (void)state;
    const double expected[] = {1e-9, 5}, square[] = {1, 10};
    assert_true(rp_rare_sum(expected, square, 1) == 0);
    assert_true(rp_rare_sum(expected, square, 0) == 0);
    assert_true(rp_rare_sum(expected, square, 2) > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_a_value_near_the_middle_can_tip),
        cmocka_unit_test(without_noise_only_the_last_bits_of_fp32_decide),
        cmocka_unit_test(a_scale_near_the_middle_can_tip),
        cmocka_unit_test(another_largest_value_turns_a_block_of_q4_0),
        cmocka_unit_test(rare_terms_of_one_size_are_as_many_as_poisson_says),
        cmocka_unit_test(what_is_too_rare_is_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
