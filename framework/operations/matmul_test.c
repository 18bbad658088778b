/* The matrix product: every path gives rp_dot's sums, to the bit without CBLAS. */
#include "operations/matmul.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MARK 12345.0f

struct product {
    size_t n_out, n_in, n, y_stride;
    float *weight; /* [n_out][n_in] */
    float *x;      /* [n][n_in] */
    float *y;      /* [n][y_stride], filled with MARK */
};

/* Uniform in -1 .. 1, from a linear congruential generator. */
static float next_value(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(int32_t)*state * 0x1p-31f;
}

static struct product make_product(size_t n_out, size_t n_in, size_t n)
{
    struct product product = {.n_out = n_out, .n_in = n_in, .n = n, .y_stride = n_out + 3};
    uint32_t state = (uint32_t)(n_out * 31 + n_in * 7 + n);
    product.weight = malloc((n_out * n_in + 1) * sizeof(float));
    product.x = malloc((n * n_in + 1) * sizeof(float));
    product.y = malloc((n * product.y_stride + 1) * sizeof(float));
    assert_true(product.weight && product.x && product.y);
    for (size_t i = 0; i < n_out * n_in; i++)
        product.weight[i] = next_value(&state);
    for (size_t i = 0; i < n * n_in; i++)
        product.x[i] = next_value(&state);
    for (size_t i = 0; i < n * product.y_stride; i++)
        product.y[i] = MARK;
    return product;
}

static void free_product(struct product *product)
{
    free(product->weight);
    free(product->x);
    free(product->y);
}

static void assert_gaps_untouched(const struct product *product)
{
    for (size_t p = 0; p < product->n; p++) {
        for (size_t i = product->n_out; i < product->y_stride; i++)
            assert_float_equal(product->y[p * product->y_stride + i], MARK, 0);
    }
}

/* Tiles of 4 by 2, of 2 by 2 and single sums, with and without values that fill no 8 lanes. */
static void a_product_has_the_bits_of_single_dot_products(void **state)
{
    (void)state;
    const size_t sizes[] = {1, 2, 3, 4, 5, 7, 8, 9, 66};
    const size_t widths[] = {0, 1, 7, 8, 31, 64, 100};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++) {
            for (size_t k = 0; k < sizeof widths / sizeof *widths; k++) {
                struct product it = make_product(sizes[i], widths[k], sizes[j]);
                rp_matmul_plain(it.weight, it.n_out, it.n_in, it.x, it.n, it.y, it.y_stride);
                for (size_t p = 0; p < it.n; p++) {
                    for (size_t out = 0; out < it.n_out; out++) {
                        float one = rp_dot(it.weight + out * it.n_in, it.x + p * it.n_in, it.n_in);
                        assert_memory_equal(&it.y[p * it.y_stride + out], &one, sizeof one);
                    }
                }
                assert_gaps_untouched(&it);
                free_product(&it);
            }
        }
    }
}

/* 600 by 700 by 50 goes through CBLAS where there is one. An FP32 sum of n terms in any order is off by
 * at most n * 2^-24 * sum |a b|; the typical error, which is what can be told from a wrong product, is
 * the square root of n instead of n. Ten times that is allowed. */
static void both_paths_agree_to_rounding(void **state)
{
    (void)state;
    struct product it = make_product(600, 700, 50);
    rp_matmul(it.weight, it.n_out, it.n_in, it.x, it.n, it.y, it.y_stride);
    for (size_t p = 0; p < it.n; p++) {
        for (size_t out = 0; out < it.n_out; out++) {
            double exact = 0, size = 0;
            for (size_t i = 0; i < it.n_in; i++) {
                double term = (double)it.weight[out * it.n_in + i] * (double)it.x[p * it.n_in + i];
                exact += term;
                size += term * term;
            }
            double off = fabs((double)it.y[p * it.y_stride + out] - exact);
            assert_true(off <= 10 * 0x1p-24 * sqrt((double)it.n_in * size));
        }
    }
    assert_gaps_untouched(&it);
    free_product(&it);
}

/* Where CBLAS adds, sums of 20 terms of size 1/3 have another order. */
static void a_product_is_added_to_what_stands_there(void **state)
{
    (void)state;
    const size_t sizes[][3] = {{1, 3, 1}, {37, 18, 5}, {32, 8, 64}, {70, 9, 130}, {576, 20, 80}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct product it = make_product(sizes[i][0], sizes[i][1], sizes[i][2]);
        for (size_t p = 0; p < it.n; p++)
            for (size_t out = 0; out < it.n_out; out++)
                it.y[p * it.y_stride + out] = (float)(p + out);
        rp_matmul_add(it.weight, it.n_out, it.n_in, it.x, it.n, it.y, it.y_stride);
        for (size_t p = 0; p < it.n; p++) {
            for (size_t out = 0; out < it.n_out; out++) {
                const float one = rp_dot(it.weight + out * it.n_in, it.x + p * it.n_in, it.n_in);
                assert_float_equal(it.y[p * it.y_stride + out], (float)(p + out) + one, 1e-4);
            }
        }
        assert_gaps_untouched(&it);
        free_product(&it);
    }
}

/* OpenBLAS asks for its buffers for ever where it does not get them. Before any product has loaded it. */
static void without_address_space_the_plain_product_takes_its_place(void **state)
{
    (void)state;
    struct product it = make_product(600, 700, 50), plain = make_product(600, 700, 50);
    /* not by its exit code, which valgrind changes: the child frees nothing */
    volatile int *is_plain =
        mmap(NULL, sizeof *is_plain, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(is_plain != MAP_FAILED);
    rp_matmul_plain(plain.weight, plain.n_out, plain.n_in, plain.x, plain.n, plain.y,
                    plain.y_stride);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const struct rlimit none = {.rlim_cur = 1, .rlim_max = 1};
        alarm(60);
        setrlimit(RLIMIT_AS, &none);
        rp_matmul(it.weight, it.n_out, it.n_in, it.x, it.n, it.y, it.y_stride);
        *is_plain = memcmp(it.y, plain.y, it.n * it.y_stride * sizeof(float)) == 0;
        _exit(0);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_true(*is_plain);
    munmap((void *)(uintptr_t)is_plain, sizeof *is_plain);
    free_product(&it);
    free_product(&plain);
}

static void one_thread_gives_the_same_product(void **state)
{
    (void)state;
    struct product several = make_product(600, 700, 50), one = make_product(600, 700, 50);
    rp_matmul(several.weight, several.n_out, several.n_in, several.x, several.n, several.y,
              several.y_stride);
    rp_matmul_one_thread();
    rp_matmul(one.weight, one.n_out, one.n_in, one.x, one.n, one.y, one.y_stride);
    for (size_t i = 0; i < one.n * one.y_stride; i++)
        assert_float_equal(one.y[i], several.y[i], 1e-4); /* values are of size 9, sums of 700 */
    free_product(&several);
    free_product(&one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_product_has_the_bits_of_single_dot_products),
        cmocka_unit_test(without_address_space_the_plain_product_takes_its_place),
        cmocka_unit_test(both_paths_agree_to_rounding),
        cmocka_unit_test(a_product_is_added_to_what_stands_there),
        cmocka_unit_test(one_thread_gives_the_same_product),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
