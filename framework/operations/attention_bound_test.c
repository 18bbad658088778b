/* The bound holds engines that sum in another order, and only those. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "operations/attention_engine_test_util.h"

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
