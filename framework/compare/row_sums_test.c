/* What a CPU's own instructions compute: the same bits as the portable loop, whatever the data. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <string.h>

#include "compare/row_sums.h"

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* A NaN's sign and payload may differ; nothing else may. */
static void assert_same_bits(double a, double b, size_t dim)
{
    if (bits_of(a) != bits_of(b) && !(isnan(a) && isnan(b)))
        fail_msg("dim %zu: %a and %a", dim, a, b);
}

static struct rp_row_sums assert_same_sums(const void *r, const void *e, size_t dim)
{
    const struct rp_row_sums a = rp_row_sums(r, e, dim), b = rp_row_sums_portable(r, e, dim);
    assert_same_bits(a.diff2, b.diff2, dim);
    assert_same_bits(a.ref2, b.ref2, dim);
    assert_same_bits(a.engine2, b.engine2, dim);
    assert_same_bits(a.dot, b.dot, dim);
    assert_same_bits(a.max_abs, b.max_abs, dim);
    return a;
}

static void every_length_gives_the_portable_loops_bits(void **state)
{
    (void)state;
    enum { MAX = 300 };
    float r[MAX], e[MAX];
    uint64_t random = 88172645463325252u;
    for (size_t i = 0; i < MAX; i++) {
        r[i] = (float)((int64_t)(next_random(&random) >> 32) - (1LL << 31)) * 0x1p-31f;
        e[i] = r[i] * (1 + (float)(next_random(&random) >> 40) * 0x1p-40f);
    }
    for (size_t n = 0; n <= MAX; n++)
        assert_same_sums(r, e, n);
}

static void any_bit_pattern_gives_the_portable_loops_bits(void **state)
{
    (void)state;
    enum { N = 61 };
    uint64_t random = 1;
    for (int round = 0; round < 2000; round++) {
        uint32_t r[N], e[N]; /* NaN, infinities, denormals and huge values among them */
        for (size_t i = 0; i < N; i++) {
            const uint64_t bits = next_random(&random);
            const uint32_t keep =
                round % 2 ? 0xffffffff : 0xbfffffff; /* every other round finite */
            r[i] = (uint32_t)bits & keep;
            e[i] = (uint32_t)(bits >> 32) & keep;
        }
        assert_same_sums(r, e, N);
    }
}

static void extreme_values_give_the_portable_loops_bits(void **state)
{
    (void)state;
    const float values[] = {0,       -0.0f,      FLT_MIN,  FLT_TRUE_MIN, -FLT_TRUE_MIN,
                            FLT_MAX, -FLT_MAX,   INFINITY, -INFINITY,    NAN,
                            1,       FLT_EPSILON};
    enum { N = sizeof values / sizeof values[0] };
    for (size_t a = 0; a < N; a++) {
        for (size_t b = 0; b < N; b++) {
            float r[24], e[24];
            for (size_t i = 0; i < 24; i++) {
                r[i] = values[i % 3 ? a : b];
                e[i] = values[i % 5 ? b : a];
            }
            assert_same_sums(r, e, 24);
        }
    }
}

static void max_abs_keeps_what_it_has_when_a_NaN_follows(void **state)
{
    (void)state;
    float r[24] = {0}, e[24] = {0};
    e[3] = -7;
    e[11] = NAN; /* the same lane */
    assert_true(assert_same_sums(r, e, 24).max_abs == 7);
    e[3] = NAN;
    e[11] = -7;
    assert_true(assert_same_sums(r, e, 24).max_abs == 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_length_gives_the_portable_loops_bits),
        cmocka_unit_test(any_bit_pattern_gives_the_portable_loops_bits),
        cmocka_unit_test(extreme_values_give_the_portable_loops_bits),
        cmocka_unit_test(max_abs_keeps_what_it_has_when_a_NaN_follows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
