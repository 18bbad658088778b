/* The Walsh-Hadamard transform. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "formats/hadamard.h"

#define N 128

static void fill(float *x)
{
    uint32_t seed = 7;
    for (size_t i = 0; i < N; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
}

static double distance(const float *a, const float *b)
{
    double sum = 0;
    for (size_t i = 0; i < N; i++)
        sum += pow((double)a[i] - (double)b[i], 2);
    return sqrt(sum);
}

static void it_is_the_matrix_of_signs_by_bit_counts(void **state)
{
    (void)state;
    for (size_t column = 0; column < 8; column++) {
        float x[8] = {0};
        x[column] = 1;
        rp_hadamard(x, 8, 8);
        for (size_t row = 0; row < 8; row++) {
            size_t common = row & column, bits = (common & 1) + (common >> 1 & 1) + (common >> 2);
            double expected = (bits % 2 ? -1 : 1) / sqrt(8);
            assert_true(fabs((double)x[row] - expected) < 1e-7); /* one rounding of 1/sqrt(8) */
        }
    }
}

/* Seven additions and a product each way: 2 * 8 roundings of 6e-8, on values whose norm is 7. */
static void it_is_its_own_inverse_and_keeps_the_norm(void **state)
{
    (void)state;
    float x[N], y[N];
    double norm = 0, turned = 0;
    fill(x);
    memcpy(y, x, sizeof y);
    rp_hadamard(y, N, N);
    for (size_t i = 0; i < N; i++) {
        norm += pow((double)x[i], 2);
        turned += pow((double)y[i], 2);
    }
    assert_true(fabs(norm - turned) < 1e-5 * norm);
    assert_true(distance(x, y) > 1);
    rp_hadamard(y, N, N);
    assert_true(distance(x, y) < 7e-6);
    /* The twin: another size is not its inverse. */
    rp_hadamard(y, N, N);
    rp_hadamard(y, N, N / 2);
    assert_true(distance(x, y) > 1);
}

static void blocks_do_not_mix(void **state)
{
    (void)state;
    float x[N] = {0};
    x[70] = 1;
    rp_hadamard(x, N, 64);
    for (size_t i = 0; i < N; i++)
        assert_true(fabsf(x[i]) == (i < 64 ? 0.0f : 0.125f));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_the_matrix_of_signs_by_bit_counts),
        cmocka_unit_test(it_is_its_own_inverse_and_keeps_the_norm),
        cmocka_unit_test(blocks_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
