/* The rule of the signs, shared with fixtures/weights_sketch.py; what is derived of their products, measured. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "weights/sketch.h"

static void the_signs_are_splitmix64s(void **state)
{
    (void)state;
    /* the generator's published first outputs of seed 0, and what the recorder's test has */
    assert_true(rp_sketch_signs(0, 0, 0) == 0xe220a8397b1dcdafu);
    assert_true(rp_sketch_signs(0, 0, 1) == 0x6e789e6aa1b965f4u);
    assert_true(rp_sketch_signs(0, 0, 2) == 487617019471545679u);
    assert_true(rp_sketch_signs(5, 1, 2) == 9201155158147975309u);
}

static void products_follow_the_columns(void **state)
{
    (void)state;
    float x[130], moved[130];
    size_t columns[130];
    double products[3], same[3];
    for (size_t i = 0; i < 130; i++) {
        columns[i] = i * 7 % 130;
        x[i] = (float)i - 60;
    }
    for (size_t i = 0; i < 130; i++)
        moved[i] = x[columns[i]];
    rp_sketch_products(9, x, 130, NULL, 3, products);
    rp_sketch_products(9, moved, 130, columns, 3, same);
    for (size_t k = 0; k < 3; k++) {
        double sum = 0;
        for (size_t i = 0; i < 130; i++)
            sum += rp_sketch_signs(9, i / 64, k) >> i % 64 & 1 ? -(double)x[i] : (double)x[i];
        assert_true(products[k] == sum && same[k] == sum);
    }
}

/* Errors that rounding does not make: the same in every row, and all in two values. The share of rows over the
 * limit of exp(-x) is at most that. */
static void the_limit_holds_for_errors_of_any_kind(void **state)
{
    (void)state;
    enum { ROWS = 20000, WIDTH = 96, VECTORS = 4 };
    for (size_t kind = 0; kind < 3; kind++) {
        float error[WIDTH] = {0};
        double square = 0, sum = 0, products[VECTORS];
        struct rp_square_bounds one = {0, 0, 0}, all = {0, 0, 0};
        size_t n_over[3] = {0};
        const double x[3] = {1, 3, 6};
        for (size_t i = 0; i < WIDTH; i++)
            error[i] = kind == 0 ? 1 : kind == 1 ? (float)(i < 2) : sinf((float)i);
        for (size_t i = 0; i < WIDTH; i++)
            square += (double)error[i] * (double)error[i];
        rp_square_bounds_add(&one, square);
        for (size_t r = 0; r < ROWS; r++) {
            double row = 0;
            rp_sketch_products(r, error, WIDTH, NULL, VECTORS, products);
            for (size_t k = 0; k < VECTORS; k++)
                row += products[k] * products[k];
            for (size_t i = 0; i < 3; i++)
                n_over[i] += row > rp_sketch_limit(&one, VECTORS, x[i]);
            sum += row;
            rp_square_bounds_add(&all, square);
        }
        for (size_t i = 0; i < 3; i++)
            assert_true((double)n_over[i] <= ROWS * exp(-x[i]));
        /* in expectation the products' squares are the error's, each */
        assert_true(fabs(sum / (VECTORS * ROWS * square) - 1) < 0.03);
        assert_true(sum <= rp_sketch_limit(&all, VECTORS, 20));
        assert_true(rp_sketch_limit(&all, VECTORS, 20) < 1.1 * VECTORS * ROWS * square);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_signs_are_splitmix64s),
        cmocka_unit_test(products_follow_the_columns),
        cmocka_unit_test(the_limit_holds_for_errors_of_any_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
