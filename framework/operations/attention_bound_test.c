/* The bound holds engines that sum in another order, and only those. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>

#include <string.h>

#include "operations/attention_engine_test_util.h"
#include "operations/operations.h"

#define N_CALLS 10

/* How many rows of all calls are over share of the limit. */
static size_t rows_over(const struct rp_numerics *numerics, enum rp_mode mode, size_t n,
                        const struct attention_engine *engine, double share, bool is_sigma_alone)
{
    static struct attention_call call;
    static float y[CALL_POSITIONS * CALL_WIDTH];
    size_t n_over = 0;
    for (unsigned seed = 0; seed < N_CALLS; seed++) {
        attention_call_make(&call, n, seed, numerics, mode);
        attention_engine_run(engine, &call, y);
        n_over += attention_rows_over(&call, y, share, is_sigma_alone);
    }
    return n_over;
}

static const struct rp_numerics fp32,
    plain_f16 = {.kv_cache = RP_KV_CACHE_F16},
    flash_f16 = {.kv_cache = RP_KV_CACHE_F16, .attention = RP_ATTENTION_FLASH};

static size_t over(const struct rp_numerics *numerics, const struct attention_engine *engine)
{
    return rows_over(numerics, RP_MODE_BATCHED, CALL_POSITIONS, engine, 1, false);
}

#define N_ROWS (N_CALLS * CALL_POSITIONS)

static void sums_in_any_order_are_within(void **state)
{
    (void)state;
    for (enum sum_order order = 0; order < N_SUM_ORDERS; order++)
        for (size_t one_pass = 0; one_pass < 2; one_pass++) {
            const struct attention_engine engine = {.order = order, .is_one_pass = one_pass == 1};
            assert_int_equal(over(&fp32, &engine), 0);
        }
}

/* The limit is not far above what a sum in sequence reaches. */
static void the_limit_is_tight(void **state)
{
    (void)state;
    const struct attention_engine engine = {.order = SUM_FORWARD};
    assert_true(rows_over(&fp32, RP_MODE_BATCHED, CALL_POSITIONS, &engine, 0.1, false) >
                N_ROWS / 2);
}

/* The first position sees one key: there is nothing that these could change. */
static void bugs_in_fp32_are_outside(void **state)
{
    (void)state;
    const struct attention_engine bugs[] = {
        {.scale_off = 1e-4}, {.masks_first_key = true}, {.weights_in_bf16 = true}};
    for (size_t i = 0; i < sizeof bugs / sizeof *bugs; i++)
        assert_int_equal(over(&fp32, &bugs[i]), N_ROWS - N_CALLS);
}

static void softmax_weights_that_tip_in_f16_are_within(void **state)
{
    (void)state;
    size_t n_tipped = 0;
    for (enum sum_order order = 0; order < N_SUM_ORDERS; order++) {
        const struct attention_engine engine = {
            .order = order, .weights_in_f16 = true, .q_in_f16 = true};
        assert_int_equal(over(&plain_f16, &engine), 0);
        n_tipped += rows_over(&plain_f16, RP_MODE_BATCHED, CALL_POSITIONS, &engine, 1, true);
    }
    /* The twin: without the allowance they are outside. */
    assert_true(n_tipped > 10);
}

static void bugs_over_an_f16_cache_are_outside(void **state)
{
    (void)state;
    const struct attention_engine bugs[] = {
        {.weights_in_f16 = true, .q_in_f16 = true, .masks_first_key = true},
        {.weights_in_bf16 = true, .q_in_f16 = true},
        {.weights_in_f16 = true, .q_in_f16 = true, .scale_off = 1e-3},
        {.q_in_f16 = true}};
    for (size_t i = 0; i < sizeof bugs / sizeof *bugs; i++)
        assert_true(over(&plain_f16, &bugs[i]) > N_ROWS * 9 / 10);
}

static void sums_that_tip_in_f16_are_within(void **state)
{
    (void)state;
    size_t n_tipped = 0;
    for (enum sum_order order = 0; order < N_SUM_ORDERS; order++) {
        const struct attention_engine engine = {
            .order = order, .sums_in_f16 = true, .q_in_f16 = true};
        assert_int_equal(
            rows_over(&flash_f16, RP_MODE_PER_TOKEN, CALL_POSITIONS, &engine, 1, false), 0);
        n_tipped += rows_over(&flash_f16, RP_MODE_PER_TOKEN, CALL_POSITIONS, &engine, 1, true);
    }
    assert_true(n_tipped > 10);
}

static void bugs_in_flash_attention_are_outside(void **state)
{
    (void)state;
    const struct attention_engine bugs[] = {
        {.sums_in_f16 = true, .q_in_f16 = true, .masks_first_key = true},
        {.sums_in_f16 = true, .q_in_f16 = true, .scale_off = 1e-2}};
    for (size_t i = 0; i < sizeof bugs / sizeof *bugs; i++)
        assert_true(rows_over(&flash_f16, RP_MODE_PER_TOKEN, CALL_POSITIONS, &bugs[i], 1, false) >
                    N_ROWS * 9 / 10);
}

/* 64 positions and more at once: Q and all sums are FP32, and nothing tips. */
static void flash_attention_in_a_large_batch_has_the_bound_of_fp32(void **state)
{
    (void)state;
    static struct attention_call call;
    static float y[CALL_POSITIONS * CALL_WIDTH];
    const struct attention_engine right = {.is_one_pass = true},
                                  wrong = {.is_one_pass = true, .q_in_f16 = true};
    attention_call_make(&call, CALL_POSITIONS, 1, &flash_f16, RP_MODE_BATCHED);
    for (size_t p = 0; p < call.n; p++)
        assert_true(call.tips[p] == 0);
    attention_engine_run(&right, &call, y);
    assert_int_equal(attention_rows_over(&call, y, 1, false), 0);
    attention_engine_run(&wrong, &call, y);
    assert_int_equal(attention_rows_over(&call, y, 1, false), call.n - 1);
}

static void a_position_that_sees_no_key_may_not_be_off(void **state)
{
    (void)state;
    const struct rp_model_config config = {.head_dim = 1};
    const int64_t position = 3, later = 4;
    const struct rp_site site = {.config = &config, .n_positions = 1, .positions = &position};
    const float one = 1, zero = 0;
    float sigma = 1, scores, y = zero;
    double tips = 1;
    const struct rp_attention args = {.n_heads = 1,
                                      .n_kv_heads = 1,
                                      .head_dim = 1,
                                      .scale = 1,
                                      .is_causal = true,
                                      .q = &one,
                                      .n_keys = 1,
                                      .keys = &one,
                                      .values = &one,
                                      .key_positions = &later,
                                      .scores = &scores,
                                      .y = &y};
    assert_int_equal(rp_attention_bound(&fp32, &site, &args, NULL, NULL, &sigma, &tips), RP_OK);
    assert_true(sigma == 0 && tips == 0);
}

/* ---- many positions at once ---- */

enum { MANY = 160, MANY_DIM = 64, MANY_WIDTH = 2 * MANY_DIM };

struct many {
    float q[MANY * MANY_WIDTH], keys[MANY * MANY_DIM], values[MANY * MANY_DIM];
    float y[MANY * MANY_WIDTH], sigma[MANY * MANY_WIDTH], scores[MANY];
    double tips[MANY];
};

/* n_at_once positions a call. */
static void run_many(struct many *many, const struct rp_numerics *numerics, size_t n_at_once)
{
    const struct rp_model_config config = {.head_dim = MANY_DIM};
    int64_t positions[MANY];
    for (size_t i = 0; i < MANY; i++)
        positions[i] = (int64_t)i;
    for (size_t first = 0; first < MANY; first += n_at_once) {
        const size_t at = first * MANY_WIDTH;
        const struct rp_site site = {
            .config = &config, .n_positions = n_at_once, .positions = positions + first};
        const struct rp_attention args = {.n_heads = 2,
                                          .n_kv_heads = 1,
                                          .head_dim = MANY_DIM,
                                          .scale = 0.125f,
                                          .is_causal = true,
                                          .q = many->q + at,
                                          .n_keys = MANY,
                                          .keys = many->keys,
                                          .values = many->values,
                                          .key_positions = positions,
                                          .scores = many->scores,
                                          .y = many->y + at};
        assert_int_equal(rp_op_attention(NULL, &site, &args), RP_OK);
        assert_int_equal(rp_attention_bound(numerics, &site, &args, NULL, NULL, many->sigma + at,
                                            many->tips + first),
                         RP_OK);
    }
}

static float next_of(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(int32_t)*seed * 0x1p-30f;
}

/* With a CBLAS common keys go through products then: sums in another order. The first value of V is the
 * same in all rows, where (value - y)^2 is all rounding; a NaN in the last row reaches no earlier one. */
static void many_positions_at_once_have_the_bound_of_single_ones(void **state)
{
    (void)state;
    static struct many one, many;
    static const struct rp_numerics numerics[] = {
        {.kv_cache = RP_KV_CACHE_F32},
        {.kv_cache = RP_KV_CACHE_F16, .attention = RP_ATTENTION_PLAIN}};
    uint32_t seed = 1;
    for (size_t i = 0; i < MANY * MANY_WIDTH; i++)
        one.q[i] = next_of(&seed);
    for (size_t i = 0; i < MANY * MANY_DIM; i++) {
        one.keys[i] = next_of(&seed);
        one.values[i] = i % MANY_DIM == 0 ? 1.5f : next_of(&seed);
    }
    one.values[(MANY - 1) * MANY_DIM + 5] = NAN;
    for (size_t k = 0; k < 2; k++) {
        many = one;
        run_many(&one, &numerics[k], 1);
        run_many(&many, &numerics[k], MANY);
        for (size_t i = 0; i < (MANY - 1) * MANY_WIDTH; i++) {
            assert_true(fabsf(many.y[i] - one.y[i]) <= 4 * one.sigma[i]);
            assert_true(fabsf(many.sigma[i] - one.sigma[i]) <= 1e-4f * one.sigma[i]);
        }
        double sums[2] = {0, 0}; /* single ones are next to the middle or not by a last bit */
        for (size_t p = 0; p + 1 < MANY; p++) {
            sums[0] += one.tips[p];
            sums[1] += many.tips[p];
        }
        assert_true(fabs(sums[1] - sums[0]) <= 0.1 * sums[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_in_any_order_are_within),
        cmocka_unit_test(the_limit_is_tight),
        cmocka_unit_test(bugs_in_fp32_are_outside),
        cmocka_unit_test(softmax_weights_that_tip_in_f16_are_within),
        cmocka_unit_test(bugs_over_an_f16_cache_are_outside),
        cmocka_unit_test(sums_that_tip_in_f16_are_within),
        cmocka_unit_test(bugs_in_flash_attention_are_outside),
        cmocka_unit_test(flash_attention_in_a_large_batch_has_the_bound_of_fp32),
        cmocka_unit_test(a_position_that_sees_no_key_may_not_be_off),
        cmocka_unit_test(many_positions_at_once_have_the_bound_of_single_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
