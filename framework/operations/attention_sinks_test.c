/* Sinks: a score of each head that softmax's sum has beside the keys', whatever the arithmetic. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "operations/attention_engine_test_util.h"
#include "operations/operations.h"

enum { HEADS = 2, DIM = 2, KEYS = 3 };

/* Scores are q[0] alone times those of the keys, values their numbers. */
static void attend(const float *sinks, float y[HEADS * DIM])
{
    static const float q[HEADS * DIM] = {1, 0, 2, 0};
    static const float keys[KEYS * DIM] = {0, 0, 1, 0, -1, 0};
    static const float values[KEYS * DIM] = {1, 10, 2, 20, 3, 30};
    static const int64_t positions[KEYS] = {0, 1, 2}, own = 2;
    float scores[KEYS], heads[HEADS * DIM];
    const struct rp_site site = {.layer = 0, .n_positions = 1, .positions = &own};
    const struct rp_attention args = {.n_heads = HEADS,
                                      .n_kv_heads = 1,
                                      .head_dim = DIM,
                                      .scale = 1,
                                      .is_causal = true,
                                      .sinks = sinks,
                                      .q = q,
                                      .n_keys = KEYS,
                                      .keys = keys,
                                      .values = values,
                                      .key_positions = positions,
                                      .scores = scores,
                                      .y = heads};
    assert_int_equal(rp_op_attention(NULL, &site, &args), RP_OK);
    memcpy(y, heads, sizeof heads);
}

static void each_head_has_its_own_sink_in_its_sum(void **state)
{
    (void)state;
    static const float sinks[HEADS] = {0.5f, 90};
    float y[HEADS * DIM];
    const double e = exp(1), sum = 1 + e + 1 / e + exp(0.5);
    attend(sinks, y);
    assert_true(fabs((double)y[0] - (1 + 2 * e + 3 / e) / sum) < 1e-6);
    assert_true(fabs((double)y[1] - (10 + 20 * e + 30 / e) / sum) < 1e-5);
    /* A sink above all scores takes nearly all, and nothing overflows. */
    const double of_keys = (1 + 2 * exp(2) + 3 * exp(-2)) / exp(90);
    assert_true(fabs((double)y[2] - of_keys) < 1e-6 * of_keys);
}

static void a_sink_of_minus_infinity_is_none(void **state)
{
    (void)state;
    static const float none[HEADS] = {-INFINITY, -INFINITY}, nan[HEADS] = {NAN, 0};
    float plain[HEADS * DIM], without[HEADS * DIM];
    attend(NULL, plain);
    attend(none, without);
    assert_memory_equal(plain, without, sizeof plain);
    attend(nan, without);
    assert_true(isnan(without[0]) && !isnan(without[DIM]));
}

#define N_CALLS 10

static const struct rp_numerics fp32,
    plain_f16 = {.kv_cache = RP_KV_CACHE_F16},
    flash_f16 = {.kv_cache = RP_KV_CACHE_F16, .attention = RP_ATTENTION_FLASH},
    q8_0 = {.kv_cache = RP_KV_CACHE_Q8_0};

/* Rows of all calls that are over their limit; n: of them all. */
static size_t over(const struct rp_numerics *numerics, enum rp_mode mode,
                   const struct attention_engine *engine, size_t *n)
{
    static struct attention_call call = {.has_sinks = true};
    static float y[CALL_POSITIONS * CALL_WIDTH];
    size_t n_over = 0;
    for (unsigned seed = 0; seed < N_CALLS; seed++) {
        attention_call_make(&call, CALL_POSITIONS, seed, numerics, mode);
        attention_engine_run(engine, &call, y);
        n_over += attention_rows_over(&call, y, 1, false);
    }
    *n = N_CALLS * CALL_POSITIONS;
    return n_over;
}

static void other_orders_are_within_the_bound_and_a_missing_sink_is_outside(void **state)
{
    (void)state;
    const struct {
        const struct rp_numerics *numerics;
        enum rp_mode mode;
        struct attention_engine engine;
    } kinds[] = {
        {&fp32, RP_MODE_BATCHED, {.order = SUM_FORWARD}},
        {&plain_f16, RP_MODE_BATCHED, {.weights_in_f16 = true, .q_in_f16 = true}},
        {&flash_f16, RP_MODE_PER_TOKEN, {.sums_in_f16 = true, .q_in_f16 = true}},
        {&flash_f16, RP_MODE_BATCHED, {.is_one_pass = true}},
        {&q8_0, RP_MODE_BATCHED, {.cache_format = RP_GGML_Q8_0}},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct attention_engine engine = kinds[i].engine;
        size_t n;
        for (enum sum_order order = 0; order < N_SUM_ORDERS; order++) {
            engine.order = order;
            assert_int_equal(over(kinds[i].numerics, kinds[i].mode, &engine, &n), 0);
        }
        engine.without_sink = 2;
        assert_true(over(kinds[i].numerics, kinds[i].mode, &engine, &n) > n * 95 / 100);
    }
}

/* A sum that threads share has the sink once. */
static void parts_of_a_cache_have_the_sink_once(void **state)
{
    (void)state;
    enum { N = 600 };
    static float q[N], keys[N], values[N], scores[N], whole[1], parts[1];
    static int64_t positions[N];
    const float sink = 6;
    for (size_t i = 0; i < N; i++) {
        positions[i] = (int64_t)i;
        q[i] = 1;
        values[i] = 1;
    }
    const struct rp_site site = {
        .mode = RP_MODE_PER_TOKEN, .n_positions = 1, .positions = positions + N - 1};
    struct rp_attention args = {.n_heads = 1,
                                .n_kv_heads = 1,
                                .head_dim = 1,
                                .scale = 1,
                                .is_causal = true,
                                .sinks = &sink,
                                .q = q,
                                .n_keys = N,
                                .keys = keys,
                                .values = values,
                                .key_positions = positions,
                                .scores = scores,
                                .y = whole};
    struct rp_numerics numerics = flash_f16;
    for (unsigned threads = 1; threads <= 2; threads++) {
        struct rp_emulation emulation;
        numerics.threads = threads;
        rp_emulation_open(&emulation, &numerics, NULL);
        args.y = threads == 1 ? whole : parts;
        assert_int_equal(emulation.overlay.ops.attention(&emulation, &site, &args), RP_OK);
    }
    const double expected = N / (N + exp(6));
    assert_true(fabs((double)whole[0] - expected) < 1e-3 * expected);
    assert_true(fabs((double)parts[0] - expected) < 1e-3 * expected);
}

/* As loaded in BF16: scores less their maximum are rounded, too. */
static void state_in_bf16_has_the_sink(void **state)
{
    (void)state;
    const float q = 1, key = 0.5f, value = 1, sink = 0.75f;
    const int64_t position = 0;
    float scores, y;
    double tips = 0;
    const struct rp_numerics numerics = {.state = RP_STATE_BF16};
    const struct rp_site site = {.n_positions = 1, .positions = &position};
    const struct rp_attention args = {.n_heads = 1,
                                      .n_kv_heads = 1,
                                      .head_dim = 1,
                                      .scale = 1,
                                      .is_causal = true,
                                      .sinks = &sink,
                                      .q = &q,
                                      .n_keys = 1,
                                      .keys = &key,
                                      .values = &value,
                                      .key_positions = &position,
                                      .scores = &scores,
                                      .y = &y};
    struct rp_emulation emulation;
    rp_emulation_open(&emulation, &numerics, NULL);
    emulation.tips = &tips;
    emulation.n_tips = 1;
    assert_int_equal(emulation.overlay.ops.attention(&emulation, &site, &args), RP_OK);
    const double expected = 1 / (1 + exp(0.25));
    assert_true(fabs((double)y - expected) <= 0x1p-9 * expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_head_has_its_own_sink_in_its_sum),
        cmocka_unit_test(a_sink_of_minus_infinity_is_none),
        cmocka_unit_test(other_orders_are_within_the_bound_and_a_missing_sink_is_outside),
        cmocka_unit_test(parts_of_a_cache_have_the_sink_once),
        cmocka_unit_test(state_in_bf16_has_the_sink),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
