/* Products with Q4_1 weights: the minimum of a block times the stored sum of the input's. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "formats/half.h"
#include "formats/rounding.h"
#include "refparity/numerics.h"

#define ROWS 3
#define N_IN 64
#define N_OUT 2
#define BLOCKS (N_IN / 32)

struct product {
    float x[ROWS * N_IN], weight[N_OUT * N_IN], minima[N_OUT * BLOCKS], y[ROWS * N_OUT];
};

static void fill(float *x, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) / 8388608.0f - 0.5f;
    }
}

/* Weights are a minimum and 0 to 15 steps of 1/8; each block has a 0. */
static void make_product(struct product *product)
{
    fill(product->x, ROWS * N_IN, 1);
    fill(product->minima, N_OUT * BLOCKS, 2);
    for (size_t i = 0; i < N_OUT * BLOCKS; i++)
        product->minima[i] = rp_round_f16(product->minima[i] - 2.0f);
    for (size_t i = 0; i < N_OUT * N_IN; i++)
        product->weight[i] = 0.125f * (float)(i * 7 % 16) + product->minima[i / 32];
}

static const int64_t positions[ROWS] = {0, 1, 2};

/* loaded: what is said of where the weights are from; NULL: nothing. */
static void multiply_loaded(struct rp_emulation *emulation, uint32_t type,
                            const struct rp_weight *loaded, struct product *product)
{
    const struct rp_model_config config = {.head_dim = 64};
    const struct rp_site site = {.config = &config, .n_positions = ROWS, .positions = positions};
    const struct rp_linear args = {.which = RP_FFN_DOWN,
                                   .type = type,
                                   .weight = product->weight,
                                   .loaded = loaded,
                                   .n_out = N_OUT,
                                   .n_in = N_IN,
                                   .x = product->x,
                                   .y = product->y,
                                   .y_stride = N_OUT};
    assert_int_equal(emulation->overlay.ops.linear(emulation, &site, &args), RP_OK);
}

static void multiply(struct rp_emulation *emulation, uint32_t type, struct product *product)
{
    multiply_loaded(emulation, type, NULL, product);
}

/* The product as the kernel sums it, in double; rounds_sums: whether the sum of a block is F16. */
static double expected(const struct product *product, size_t p, size_t out, bool rounds_sums)
{
    double y = 0;
    for (size_t block = 0; block < BLOCKS; block++) {
        const float *x = product->x + p * N_IN + block * 32;
        const float *weight = product->weight + out * N_IN + block * 32;
        double minimum = (double)product->minima[out * BLOCKS + block];
        float rounded[32], largest = 0;
        int sum = 0;
        for (size_t i = 0; i < 32; i++)
            largest = fmaxf(largest, fabsf(x[i]));
        rp_round_row(RP_GGML_Q8_0, x, 32, rounded);
        for (size_t i = 0; i < 32; i++) {
            sum += (int)rintf(x[i] * (127.0f / largest));
            y += ((double)weight[i] - minimum) * (double)rounded[i];
        }
        float stored = rounds_sums ? rp_round_f16(largest / 127.0f * (float)sum)
                                   : rp_round_f16(largest / 127.0f) * (float)sum;
        y += minimum * (double)stored;
    }
    return y;
}

static double largest_error(const struct product *product, bool rounds_sums)
{
    double largest = 0;
    for (size_t p = 0; p < ROWS; p++)
        for (size_t out = 0; out < N_OUT; out++)
            largest = fmax(largest, fabs((double)product->y[p * N_OUT + out] -
                                         expected(product, p, out, rounds_sums)));
    return largest;
}

/* Sums of 64 products of at most 1.3 in FP32: 2e-6. The rounding of a sum of up to 8 to F16 moves it by
 * up to 2e-3. */
static void minima_are_multiplied_by_sums_in_f16(void **state)
{
    (void)state;
    static struct product product;
    const struct rp_numerics by_weight = {.activations = RP_ACTIVATIONS_BY_WEIGHT};
    const struct rp_numerics always = {.activations = RP_ACTIVATIONS_Q8_0};
    struct rp_emulation emulation;
    make_product(&product);
    rp_emulation_open(&emulation, &by_weight, NULL);
    multiply(&emulation, RP_GGML_Q4_1, &product);
    assert_true(largest_error(&product, true) < 5e-6);
    assert_true(largest_error(&product, false) > 1e-4);
    multiply(&emulation, RP_GGML_Q5_1, &product);
    assert_true(largest_error(&product, true) < 5e-6);
    /* The twins: types without minima, and Q8_0 inputs for all. */
    multiply(&emulation, RP_GGML_Q4_0, &product);
    assert_true(largest_error(&product, false) < 5e-6);
    rp_emulation_open(&emulation, &always, NULL);
    multiply(&emulation, RP_GGML_Q4_1, &product);
    assert_true(largest_error(&product, false) < 5e-6);
}

/* A quantizer that weighs values may give none of a block the integer 0: its minimum is in the file alone.
 * Of weights that were exchanged for others, the file's minima are not those. */
static void minima_are_those_that_the_file_stores(void **state)
{
    (void)state;
    static struct product product;
    const struct rp_numerics by_weight = {.activations = RP_ACTIVATIONS_BY_WEIGHT};
    struct rp_emulation emulation;
    make_product(&product);
    for (size_t i = 0; i < N_OUT * N_IN; i++)
        product.weight[i] += 0.5f;
    struct rp_weight loaded = {.data = product.weight,
                               .n_out = N_OUT,
                               .n_in = N_IN,
                               .type = RP_GGML_Q4_1,
                               .minima = product.minima};
    rp_emulation_open(&emulation, &by_weight, NULL);
    multiply_loaded(&emulation, RP_GGML_Q4_1, &loaded, &product);
    assert_true(largest_error(&product, true) < 5e-6);
    loaded.data = product.x;
    multiply_loaded(&emulation, RP_GGML_Q4_1, &loaded, &product);
    assert_true(largest_error(&product, true) > 1e-4);
}

/* Q8_1 is shown as Q8_0: its values are that, and the sum is of the row that the watch gave. */
static const float *halve(void *context, const struct rp_site *site, enum rp_weight_id which,
                          bool is_cache, int64_t position, uint32_t format, const float *x,
                          size_t n)
{
    float *half = context;
    (void)site;
    (void)position;
    assert_int_equal(which, RP_FFN_DOWN);
    assert_false(is_cache);
    assert_int_equal(format, RP_GGML_Q8_0);
    for (size_t i = 0; i < n; i++)
        half[i] = x[i] / 2;
    return half;
}

static void keep(void *context, uint32_t format, const float *x, size_t n,
                 float *rounded) /* NOLINT(readability-non-const-parameter) */
{
    (void)context;
    (void)format;
    (void)x;
    (void)n;
    (void)rounded;
}

static void the_sum_is_of_the_row_that_a_watch_puts_in_the_place(void **state)
{
    (void)state;
    static struct product product, halved;
    static float half[N_IN];
    const struct rp_numerics by_weight = {.activations = RP_ACTIVATIONS_BY_WEIGHT};
    const struct rp_rounding_watch watch = {half, halve, keep};
    struct rp_emulation emulation;
    make_product(&product);
    make_product(&halved);
    for (size_t i = 0; i < ROWS * N_IN; i++)
        halved.x[i] /= 2;
    rp_emulation_open(&emulation, &by_weight, NULL);
    multiply(&emulation, RP_GGML_Q4_1, &halved);
    emulation.watch = &watch;
    multiply(&emulation, RP_GGML_Q4_1, &product);
    assert_memory_equal(product.y, halved.y, sizeof product.y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(minima_are_multiplied_by_sums_in_f16),
        cmocka_unit_test(minima_are_those_that_the_file_stores),
        cmocka_unit_test(the_sum_is_of_the_row_that_a_watch_puts_in_the_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
