/* Attention over 16-bit caches, held against the same sums in double and by hand. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "formats/half.h"
#include "operations/attention_f16.h"

#define HEADS 4
#define KV_HEADS 2
#define DIM 8
#define MAX_POSITIONS 70
#define WIDTH (HEADS * DIM)
#define KV_WIDTH (KV_HEADS * DIM)

struct call {
    size_t n;
    float q[MAX_POSITIONS * WIDTH], keys[MAX_POSITIONS * KV_WIDTH];
    float values[MAX_POSITIONS * KV_WIDTH], scores[MAX_POSITIONS], y[MAX_POSITIONS * WIDTH];
    int64_t positions[MAX_POSITIONS];
};

static void fill(float *x, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = ((float)(seed >> 8) / 8388608.0f - 1.0f) * 2;
    }
}

/* n positions; the cache is rounded already, as kv_store leaves it. */
static void make_call(struct call *call, size_t n)
{
    call->n = n;
    fill(call->q, n * WIDTH, 1);
    fill(call->keys, n * KV_WIDTH, 2);
    fill(call->values, n * KV_WIDTH, 3);
    for (size_t i = 0; i < n * KV_WIDTH; i++) {
        call->keys[i] = rp_round_f16(call->keys[i]);
        call->values[i] = rp_round_f16(call->values[i]);
    }
    for (size_t i = 0; i < n; i++)
        call->positions[i] = 10 + (int64_t)i;
}

static void run(struct rp_emulation *emulation, enum rp_mode mode, struct call *call)
{
    const struct rp_model_config config = {.head_dim = DIM};
    const struct rp_site site = {
        .config = &config, .mode = mode, .n_positions = call->n, .positions = call->positions};
    const struct rp_attention args = {.n_heads = HEADS,
                                      .n_kv_heads = KV_HEADS,
                                      .head_dim = DIM,
                                      .scale = 0.35f,
                                      .is_causal = true,
                                      .q = call->q,
                                      .n_keys = call->n,
                                      .keys = call->keys,
                                      .values = call->values,
                                      .key_positions = call->positions,
                                      .scores = call->scores,
                                      .y = call->y};
    assert_int_equal(emulation->overlay.ops.attention(emulation, &site, &args), RP_OK);
}

static void run_as(const struct rp_numerics *numerics, enum rp_mode mode, struct call *call)
{
    struct rp_emulation emulation;
    rp_emulation_open(&emulation, numerics, NULL);
    run(&emulation, mode, call);
}

/* softmax(scale q k) v of one head in double; Q and the weights rounded to F16 where it says so. */
static void attend(const struct call *call, size_t p, size_t head, bool rounds_q,
                   bool rounds_weights, double *y)
{
    double weights[MAX_POSITIONS], sum = 0, max = -1e30;
    size_t kv_at = head / 2 * DIM;
    for (size_t key = 0; key <= p; key++) {
        weights[key] = 0;
        for (size_t i = 0; i < DIM; i++) {
            float q = call->q[p * WIDTH + head * DIM + i];
            weights[key] += (double)(rounds_q ? rp_round_f16(q) : q) *
                            (double)call->keys[key * KV_WIDTH + kv_at + i] * (double)0.35f;
        }
        max = fmax(max, weights[key]);
    }
    for (size_t key = 0; key <= p; key++)
        sum += weights[key] = exp(weights[key] - max);
    memset(y, 0, DIM * sizeof *y);
    for (size_t key = 0; key <= p; key++) {
        double weight = weights[key] / sum;
        if (rounds_weights)
            weight = (double)rp_round_f16((float)weight);
        for (size_t i = 0; i < DIM; i++)
            y[i] += weight * (double)call->values[key * KV_WIDTH + kv_at + i];
    }
}

/* RMS over all values of the difference to attend(). */
static double error_of(const struct call *call, bool rounds_q, bool rounds_weights)
{
    double sum = 0, y[DIM];
    for (size_t p = 0; p < call->n; p++)
        for (size_t head = 0; head < HEADS; head++) {
            attend(call, p, head, rounds_q, rounds_weights, y);
            for (size_t i = 0; i < DIM; i++)
                sum += pow((double)call->y[p * WIDTH + head * DIM + i] - y[i], 2);
        }
    return sqrt(sum / (double)(call->n * WIDTH));
}

/* FP32 leaves 1e-7 of values near 1; a rounding of F16 that is not made, or made once too often, some
 * 1e-4. */
#define SAME 3e-7
#define ANOTHER 3e-5

static void plain_attention_over_f16_rounds_q_and_the_weights(void **state)
{
    (void)state;
    static struct call call;
    make_call(&call, 20);
    run_as(&(struct rp_numerics){.kv_cache = RP_KV_CACHE_F16}, RP_MODE_BATCHED, &call);
    assert_true(error_of(&call, true, true) < SAME);
    assert_true(error_of(&call, false, true) > ANOTHER);
    assert_true(error_of(&call, true, false) > ANOTHER);
    run_as(&(struct rp_numerics){.kv_cache = RP_KV_CACHE_F32}, RP_MODE_BATCHED, &call);
    assert_true(error_of(&call, false, false) < SAME);
}

static void flash_attention_in_a_large_batch_is_fp32_over_f16(void **state)
{
    (void)state;
    static struct call call;
    const struct rp_numerics flash = {.attention = RP_ATTENTION_FLASH};
    make_call(&call, 64);
    run_as(&flash, RP_MODE_BATCHED, &call);
    assert_true(error_of(&call, false, false) < SAME);
    /* The twins: one position less, or one at a time, and Q and the sums are F16. */
    run_as(&flash, RP_MODE_PER_TOKEN, &call);
    assert_true(error_of(&call, true, false) > ANOTHER && error_of(&call, true, false) < 2e-3);
    make_call(&call, 63);
    run_as(&flash, RP_MODE_BATCHED, &call);
    assert_true(error_of(&call, true, false) > ANOTHER);
}

/* 70 positions, 64 at a time: the last six are a small batch. */
static void each_position_is_computed_as_its_batch_is(void **state)
{
    (void)state;
    static struct call whole, batched, single;
    struct rp_numerics flash = {.attention = RP_ATTENTION_FLASH};
    make_call(&whole, 70);
    make_call(&batched, 70);
    make_call(&single, 70);
    run_as(&flash, RP_MODE_BATCHED, &whole);
    run_as(&flash, RP_MODE_PER_TOKEN, &single);
    flash.batch = 64;
    run_as(&flash, RP_MODE_BATCHED, &batched);
    size_t n_large = 64 * (size_t)WIDTH, n_small = 6 * (size_t)WIDTH;
    assert_memory_equal(batched.y, whole.y, n_large * sizeof(float));
    assert_memory_equal(batched.y + n_large, single.y + n_large, n_small * sizeof(float));
    assert_memory_not_equal(batched.y + n_large, whole.y + n_large, n_small * sizeof(float));
    /* Ten positions of a prompt of 70 are still of a large batch. */
    flash.batch = 0;
    flash.prompt_length = 70;
    single.n = 10;
    run_as(&flash, RP_MODE_BATCHED, &single);
    assert_memory_equal(single.y, whole.y, 10 * WIDTH * sizeof(float));
}

/* Two keys, of which the second has the larger score: 1, then halved and 1 added, in F16. */
static void flash_attention_rescales_a_sum_in_f16(void **state)
{
    (void)state;
    static struct call call;
    const struct rp_numerics flash = {.attention = RP_ATTENTION_FLASH};
    const float score = 0.35f * 2.0f, rescale = expf(-score);
    memset(&call, 0, sizeof call);
    call.n = 2;
    call.positions[1] = 1;
    call.q[WIDTH] = 1.0f;
    call.keys[KV_WIDTH] = 2.0f;
    call.values[0] = 1.0009765625f;
    call.values[KV_WIDTH] = 3.0f;
    run_as(&flash, RP_MODE_PER_TOKEN, &call);
    float sum = rp_round_f16(rp_round_f16(call.values[0] * rescale) + 3.0f);
    assert_true(call.y[WIDTH] == sum * (1.0f / (1.0f * rescale + 1.0f)));
}

/* One head of one position over 300 keys: the cache has 512 cells, which two threads halve. */
static void a_long_cache_is_summed_in_a_part_per_thread(void **state)
{
    (void)state;
    enum { KEYS = 300, HALF = 256 };
    static float keys[KEYS * DIM], values[KEYS * DIM], scores[KEYS];
    static int64_t positions[KEYS];
    float q[DIM], y[3][DIM], parts[2][DIM], expected[DIM];
    struct rp_numerics numerics = {.attention = RP_ATTENTION_FLASH, .batch = 1};
    fill(keys, KEYS * DIM, 4);
    fill(values, KEYS * DIM, 5);
    for (size_t i = 0; i < KEYS * DIM; i++) {
        keys[i] = 0; /* all weigh the same */
        values[i] = rp_round_f16(values[i]);
    }
    for (size_t i = 0; i < KEYS; i++)
        positions[i] = (int64_t)i;
    fill(q, DIM, 6);
    const struct rp_model_config config = {.head_dim = DIM};
    const struct rp_site site = {
        .config = &config, .n_positions = 1, .positions = &positions[KEYS - 1]};
    struct rp_attention args = {.n_heads = 1,
                                .n_kv_heads = 1,
                                .head_dim = DIM,
                                .scale = 1,
                                .is_causal = true,
                                .q = q,
                                .n_keys = KEYS,
                                .keys = keys,
                                .values = values,
                                .key_positions = positions,
                                .scores = scores};
    for (size_t threads = 0; threads < 3; threads++) {
        struct rp_emulation emulation;
        numerics.threads = threads;
        args.y = y[threads];
        rp_emulation_open(&emulation, &numerics, NULL);
        assert_int_equal(emulation.overlay.ops.attention(&emulation, &site, &args), RP_OK);
    }
    memset(parts, 0, sizeof parts);
    for (size_t key = 0; key < KEYS; key++)
        for (size_t i = 0; i < DIM; i++)
            parts[key / HALF][i] = rp_round_f16(parts[key / HALF][i] + values[key * DIM + i]);
    for (size_t i = 0; i < DIM; i++)
        expected[i] = (parts[0][i] + parts[1][i]) * (1.0f / KEYS);
    assert_memory_equal(y[2], expected, sizeof expected);
    assert_memory_equal(y[0], y[1], sizeof expected);
    /* The twin. */
    assert_memory_not_equal(y[1], y[2], sizeof expected);
}

static const float *see_q(void *context, const struct rp_site *site, enum rp_weight_id which,
                          bool is_cache, int64_t position, uint32_t format, const float *x,
                          size_t n)
{
    size_t *n_shown = context;
    (void)site;
    assert_int_equal(which, RP_ATTN_Q);
    assert_true(is_cache);
    assert_int_equal(format, RP_GGML_F16);
    assert_int_equal(position, 10 + (int64_t)*n_shown);
    assert_int_equal(n, WIDTH);
    ++*n_shown;
    return x;
}

/* Row 3 gets another Q. */
static void change_q(void *context, uint32_t format, const float *x, size_t n, float *rounded)
{
    const size_t *n_shown = context;
    (void)format;
    (void)x;
    for (size_t i = 0; i < n && *n_shown == 4; i++)
        rounded[i] += 0.25f;
}

/* Where Q is rounded, its row is shown once, and what the watch makes of it is multiplied. */
static void a_watch_is_shown_q_where_it_is_rounded(void **state)
{
    (void)state;
    static const struct {
        struct rp_numerics numerics;
        enum rp_mode mode;
        bool is_rounded;
    } cases[] = {
        {{.kv_cache = RP_KV_CACHE_F16}, RP_MODE_BATCHED, true},
        {{.attention = RP_ATTENTION_FLASH}, RP_MODE_PER_TOKEN, true},
        {{.attention = RP_ATTENTION_FLASH}, RP_MODE_BATCHED, false},
        {{.kv_cache = RP_KV_CACHE_F32}, RP_MODE_BATCHED, false},
    };
    static struct call plain, watched;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        size_t n_shown = 0;
        const struct rp_rounding_watch watch = {&n_shown, see_q, change_q};
        struct rp_emulation emulation;
        make_call(&plain, 64);
        make_call(&watched, 64);
        rp_emulation_open(&emulation, &cases[k].numerics, NULL);
        run(&emulation, cases[k].mode, &plain);
        emulation.watch = &watch;
        run(&emulation, cases[k].mode, &watched);
        assert_int_equal(n_shown, cases[k].is_rounded ? 64 : 0);
        for (size_t p = 0; p < 64; p++) {
            size_t n_other = 0;
            for (size_t i = p * WIDTH; i < (p + 1) * WIDTH; i++)
                n_other += plain.y[i] != watched.y[i] ? 1 : 0;
            assert_int_equal(n_other > 0, cases[k].is_rounded && p == 3);
        }
    }
}

static void a_position_that_sees_no_key_gets_zeros(void **state)
{
    (void)state;
    static struct call call;
    make_call(&call, 2);
    call.positions[1] = 30;
    const struct rp_model_config config = {.head_dim = DIM};
    const int64_t early = 3;
    const struct rp_site site = {.config = &config, .n_positions = 1, .positions = &early};
    struct rp_emulation emulation;
    rp_emulation_open(&emulation, &(struct rp_numerics){.kv_cache = RP_KV_CACHE_F16}, NULL);
    const struct rp_attention args = {.n_heads = HEADS,
                                      .n_kv_heads = KV_HEADS,
                                      .head_dim = DIM,
                                      .scale = 1,
                                      .is_causal = true,
                                      .q = call.q,
                                      .n_keys = 2,
                                      .keys = call.keys,
                                      .values = call.values,
                                      .key_positions = call.positions,
                                      .scores = call.scores,
                                      .y = call.y};
    memset(call.y, 0xff, sizeof call.y);
    assert_int_equal(emulation.overlay.ops.attention(&emulation, &site, &args), RP_OK);
    for (size_t i = 0; i < WIDTH; i++)
        assert_true(call.y[i] == 0);
}

static void only_flash_attention_in_small_batches_over_f16_sums_in_f16(void **state)
{
    (void)state;
    static const int64_t positions[64];
    struct rp_site site = {.n_positions = 64, .positions = positions, .mode = RP_MODE_PER_TOKEN};
    struct rp_numerics numerics = {.attention = RP_ATTENTION_FLASH, .kv_cache = RP_KV_CACHE_F16};
    assert_true(rp_numerics_has_f16_sums(&numerics, &site, 0));
    site.mode = RP_MODE_BATCHED;
    assert_false(rp_numerics_has_f16_sums(&numerics, &site, 0));
    site.n_positions = 63;
    assert_true(rp_numerics_has_f16_sums(&numerics, &site, 0));
    numerics.kv_cache = RP_KV_CACHE_Q8_0;
    assert_false(rp_numerics_has_f16_sums(&numerics, &site, 0));
    numerics = (struct rp_numerics){.kv_cache = RP_KV_CACHE_F16};
    assert_false(rp_numerics_has_f16_sums(&numerics, &site, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_attention_over_f16_rounds_q_and_the_weights),
        cmocka_unit_test(flash_attention_in_a_large_batch_is_fp32_over_f16),
        cmocka_unit_test(each_position_is_computed_as_its_batch_is),
        cmocka_unit_test(flash_attention_rescales_a_sum_in_f16),
        cmocka_unit_test(a_long_cache_is_summed_in_a_part_per_thread),
        cmocka_unit_test(a_watch_is_shown_q_where_it_is_rounded),
        cmocka_unit_test(a_position_that_sees_no_key_gets_zeros),
        cmocka_unit_test(only_flash_attention_in_small_batches_over_f16_sums_in_f16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
