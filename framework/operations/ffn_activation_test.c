/* The clamped SwiGLU of gpt-oss: its values, and its bound, which holds other formulas and no bugs. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>

#include "operations/operations.h"

enum { N = 64, DIM = 256 };

static float run(float gate, float up)
{
    float y;
    const int64_t position = 0;
    const struct rp_site site = {.n_positions = 1, .positions = &position};
    const struct rp_ffn_activation args = {
        .function = RP_CLAMPED_SWISH, .dim = 1, .gate = &gate, .up = &up, .y = &y};
    assert_int_equal(rp_op_ffn_activation(NULL, &site, &args), RP_OK);
    return y;
}

/* alpha, and what is clamped; in double. */
struct formula {
    double alpha, gate_limit, up_limit, added;
    bool limits_gate_below;
};
static const struct formula right = {(double)1.702f, 7, 7, 1, false};

static double value_of(const struct formula *formula, float gate, float up)
{
    double x = fmin((double)gate, formula->gate_limit);
    if (formula->limits_gate_below)
        x = fmax(x, -formula->gate_limit);
    const double y = fmax(fmin((double)up, formula->up_limit), -formula->up_limit);
    return (y + formula->added) * x / (1 + exp(-formula->alpha * x));
}

static void gate_and_up_are_clamped_and_up_has_1_added(void **state)
{
    (void)state;
    static const float gates[] = {0, 1, -1, 7, 7.5f, 100, -9, -200}, ups[] = {0, 2, -1, -8, 9, -7};
    for (size_t i = 0; i < sizeof gates / sizeof *gates; i++)
        for (size_t k = 0; k < sizeof ups / sizeof *ups; k++) {
            const double expected = value_of(&right, gates[i], ups[k]);
            assert_true(fabs((double)run(gates[i], ups[k]) - expected) <=
                        1e-6 * fabs(expected) + 1e-30);
        }
    assert_true(run(3, -1) == 0);
    assert_true(run(8, 9) == run(7, 7) && run(7, 7) > 55.9f && run(7, 7) < 56.0f);
    assert_true(isnan(run(NAN, 1)) && isnan(run(1, NAN)));
}

/* Rows of DIM values that are over their limit where the engine has that formula, rounded at each step if it is
 * in_steps. */
static size_t rows_over(const struct formula *formula, bool in_steps)
{
    static float gate[N * DIM], up[N * DIM], y[N * DIM], sigma[N * DIM];
    int64_t positions[N];
    uint32_t seed = 1;
    size_t n_over = 0;
    for (size_t i = 0; i < N * DIM; i++) {
        seed = seed * 1664525u + 1013904223u;
        gate[i] = (float)(int32_t)seed * 0x1p-31f * 9;
        seed = seed * 1664525u + 1013904223u;
        up[i] = (float)(int32_t)seed * 0x1p-31f * 9;
    }
    for (size_t p = 0; p < N; p++)
        positions[p] = (int64_t)p;
    const struct rp_site site = {.n_positions = N, .positions = positions};
    const struct rp_ffn_activation args = {
        .function = RP_CLAMPED_SWISH, .dim = DIM, .gate = gate, .up = up, .y = y};
    assert_int_equal(rp_op_ffn_activation(NULL, &site, &args), RP_OK);
    assert_int_equal(rp_sigma_ffn_activation(&site, &args, sigma), RP_OK);
    for (size_t p = 0; p < N; p++) {
        double error = 0, square = 0;
        for (size_t i = p * DIM; i < (p + 1) * DIM; i++) {
            const float x = fminf(gate[i], 7), factor = fmaxf(fminf(up[i], 7), -7) + 1;
            const double engine = in_steps ? (double)(x / (1 + expf(1.702f * -x)) * factor)
                                           : value_of(formula, gate[i], up[i]);
            error += pow((double)y[i] - engine, 2);
            square += (double)sigma[i] * (double)sigma[i];
        }
        n_over += !(sqrt(error) <= RP_BOUND_SIGMAS * sqrt(square));
    }
    return n_over;
}

static void other_formulas_are_within_and_bugs_outside_of_the_bound(void **state)
{
    (void)state;
    const struct formula bugs[] = {{1.7, 7, 7, 1, false},
                                   {1, 7, 7, 1, false},
                                   {1.702, (double)INFINITY, 7, 1, false},
                                   {1.702, 7, (double)INFINITY, 1, false},
                                   {1.702, 7, 7, 0, false},
                                   {1.702, 7, 7, 1, true}};
    assert_int_equal(rows_over(&right, false), 0);
    assert_int_equal(rows_over(&right, true), 0);
    for (size_t i = 0; i < sizeof bugs / sizeof *bugs; i++)
        assert_int_equal(rows_over(&bugs[i], false), N);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gate_and_up_are_clamped_and_up_has_1_added),
        cmocka_unit_test(other_formulas_are_within_and_bugs_outside_of_the_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
