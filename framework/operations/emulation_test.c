/* Which operation rounds what: names, inputs of products, caches, and that nothing is rounded which is
 * not declared. How values are rounded is in rounding_test.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/model_builder.h"
#include "model/recording.h"
#include "formats/half.h"
#include "formats/rounding.h"
#include "refparity/numerics.h"

#define ROWS 3
#define N_IN 64

/* Plain operations that keep the input of the last product. */
struct spy {
    struct rp_overlay overlay;
    float x[ROWS * N_IN];
};

static enum rp_status spy_linear(void *context, const struct rp_site *site,
                                 const struct rp_linear *args)
{
    struct spy *spy = context;
    const struct rp_ops *below = spy->overlay.below;
    if (site->n_positions * args->n_in <= ROWS * N_IN)
        memcpy(spy->x, args->x, site->n_positions * args->n_in * sizeof *args->x);
    return below->linear(below->context, site, args);
}

static void open_spy(struct spy *spy)
{
    rp_overlay_open(&spy->overlay, NULL);
    spy->overlay.ops.linear = spy_linear;
}

static void fill(float *x, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
}

static const int64_t positions[ROWS] = {5, 6, 7};
static const struct rp_model_config config = {.head_dim = 64, .n_heads = 1, .n_kv_heads = 1};
static const struct rp_site site = {.config = &config, .n_positions = ROWS, .positions = positions};

/* A product of x with a weight of that type. */
static void multiply(struct rp_emulation *emulation, enum rp_weight_id which, uint32_t type,
                     const float *x)
{
    static float weight[2 * N_IN], y[ROWS * 2];
    struct rp_linear args = {.which = which,
                             .type = type,
                             .weight = weight,
                             .n_out = 2,
                             .n_in = N_IN,
                             .x = x,
                             .y = y,
                             .y_stride = 2};
    assert_int_equal(emulation->overlay.ops.linear(emulation, &site, &args), RP_OK);
}

static void names_are_parsed_and_an_unknown_one_lists_them(void **state)
{
    (void)state;
    struct rp_error err;
    enum rp_activations activations;
    enum rp_kv_cache cache;
    enum rp_attention_kernel kernel;
    assert_int_equal(rp_activations_parse("q8_K", &activations, &err), RP_OK);
    assert_int_equal(activations, RP_ACTIVATIONS_Q8_K);
    assert_int_equal(rp_kv_cache_parse("q4_0", &cache, &err), RP_OK);
    assert_int_equal(cache, RP_KV_CACHE_Q4_0);
    assert_int_equal(rp_attention_parse("flash", &kernel, &err), RP_OK);
    assert_int_equal(kernel, RP_ATTENTION_FLASH);
    assert_int_equal(rp_activations_parse("q8_k", &activations, &err), RP_ERR_ARGUMENT);
    assert_string_equal(err.message,
                        "activations 'q8_k' is none of f32, by_weight, f16, bf16, q8_0, q8_K");
    assert_int_equal(rp_kv_cache_parse("q5_0", &cache, &err), RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "KV cache 'q5_0' is none of f32, f16, q8_0, q4_0");
    assert_int_equal(rp_attention_parse("", &kernel, &err), RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "attention '' is none of plain, flash");
    assert_int_equal(activations, RP_ACTIVATIONS_Q8_K); /* untouched */
    assert_string_equal(rp_activations_name(RP_ACTIVATIONS_BY_WEIGHT), "by_weight");
    assert_string_equal(rp_kv_cache_name(RP_KV_CACHE_F16), "f16");
    assert_string_equal(rp_attention_name(RP_ATTENTION_PLAIN), "plain");
    assert_string_equal(rp_attention_name((enum rp_attention_kernel)9), "unknown");
}

static void a_products_input_is_rounded_as_its_weights_type_says(void **state)
{
    (void)state;
    static const struct {
        enum rp_activations activations;
        uint32_t type, format;
    } cases[] = {
        {RP_ACTIVATIONS_BY_WEIGHT, RP_GGML_F32, RP_GGML_F32},
        {RP_ACTIVATIONS_BY_WEIGHT, RP_GGML_F16, RP_GGML_F16},
        {RP_ACTIVATIONS_BY_WEIGHT, RP_GGML_BF16, RP_GGML_BF16},
        {RP_ACTIVATIONS_BY_WEIGHT, RP_GGML_Q8_0, RP_GGML_Q8_0},
        {RP_ACTIVATIONS_BY_WEIGHT, RP_GGML_Q4_0, RP_GGML_Q8_0},
        {RP_ACTIVATIONS_BY_WEIGHT, RP_GGML_IQ4_NL, RP_GGML_Q8_0},
        {RP_ACTIVATIONS_BY_WEIGHT, RP_GGML_Q5_1, RP_GGML_Q8_0},
        {RP_ACTIVATIONS_BY_WEIGHT, RP_GGML_Q4_K, RP_GGML_Q8_K},
        {RP_ACTIVATIONS_BY_WEIGHT, RP_GGML_Q6_K, RP_GGML_Q8_K},
        {RP_ACTIVATIONS_F32, RP_GGML_Q8_0, RP_GGML_F32},
        {RP_ACTIVATIONS_F16, RP_GGML_Q8_0, RP_GGML_F16},
        {RP_ACTIVATIONS_BF16, RP_GGML_Q4_K, RP_GGML_BF16},
        {RP_ACTIVATIONS_Q8_0, RP_GGML_Q4_K, RP_GGML_Q8_0},
        {RP_ACTIVATIONS_Q8_K, RP_GGML_BF16, RP_GGML_Q8_K},
        {RP_ACTIVATIONS_Q8_0, RP_GGML_F32, RP_GGML_F32},
    };
    float x[ROWS * N_IN], expected[ROWS * N_IN];
    fill(x, ROWS * N_IN, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct rp_numerics numerics = {.activations = cases[i].activations};
        struct rp_emulation emulation;
        struct spy spy;
        open_spy(&spy);
        rp_emulation_open(&emulation, &numerics, &spy.overlay.ops);
        multiply(&emulation, RP_FFN_DOWN, cases[i].type, x);
        for (size_t p = 0; p < ROWS; p++)
            rp_round_row(cases[i].format, x + p * N_IN, N_IN, expected + p * N_IN);
        assert_memory_equal(spy.x, expected, sizeof expected);
        /* The twin: what is rounded is not x. */
        assert_int_equal(x[0] == expected[0] && x[1] == expected[1],
                         cases[i].format == RP_GGML_F32);
    }
}

/* ---- the cache ---- */

struct cache {
    float keys[ROWS * N_IN], values[ROWS * N_IN];
};

/* k as keys and as values. */
static void store(const struct rp_numerics *numerics, const float *k, struct cache *cache)
{
    struct rp_emulation emulation;
    struct rp_kv_store args = {
        .dim = N_IN, .k = k, .v = k, .keys = cache->keys, .values = cache->values};
    rp_emulation_open(&emulation, numerics, NULL);
    assert_int_equal(emulation.overlay.ops.kv_store(&emulation, &site, &args), RP_OK);
}

static void a_16_bit_cache_and_flash_attention_hold_f16(void **state)
{
    (void)state;
    struct cache cache;
    float k[ROWS * N_IN];
    fill(k, ROWS * N_IN, 3);
    store(&(struct rp_numerics){.kv_cache = RP_KV_CACHE_F16}, k, &cache);
    for (size_t i = 0; i < ROWS * N_IN; i++)
        assert_true(cache.keys[i] == rp_round_f16(k[i]) && cache.values[i] == cache.keys[i]);
    memset(&cache, 0, sizeof cache);
    store(&(struct rp_numerics){.attention = RP_ATTENTION_FLASH}, k, &cache);
    for (size_t i = 0; i < ROWS * N_IN; i++)
        assert_true(cache.keys[i] == rp_round_f16(k[i]) && cache.values[i] == cache.keys[i]);
    store(&(struct rp_numerics){.kv_cache = RP_KV_CACHE_F32}, k, &cache);
    assert_memory_equal(cache.keys, k, sizeof k);
}

static double rms_error(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += pow((double)a[i] - (double)b[i], 2);
    return sqrt(sum / (double)n);
}

/* One outlier of 100 in rows of 1: in steps of 100/127 nothing else would be left of its block. Turned
 * first, it is spread over the head, whose largest is then 100/8. */
static void a_quantized_cache_turns_outliers_away(void **state)
{
    (void)state;
    struct cache cache;
    float k[ROWS * N_IN], unturned[ROWS * N_IN];
    fill(k, ROWS * N_IN, 4);
    for (size_t p = 0; p < ROWS; p++)
        k[p * N_IN + 9] = 100.0f;
    store(&(struct rp_numerics){.kv_cache = RP_KV_CACHE_Q8_0}, k, &cache);
    double turned_error = rms_error(cache.keys, k, ROWS * N_IN);
    for (size_t p = 0; p < ROWS; p++)
        rp_round_row(RP_GGML_Q8_0, k + p * N_IN, N_IN, unturned + p * N_IN);
    assert_true(turned_error > 0.01 && turned_error < 0.06); /* 15/127/sqrt(12) is 0.03 */
    assert_true(rms_error(unturned, k, ROWS * N_IN) > 0.15);
    assert_memory_equal(cache.keys, cache.values, sizeof cache.keys);
    store(&(struct rp_numerics){.kv_cache = RP_KV_CACHE_Q4_0}, k, &cache);
    assert_true(rms_error(cache.keys, k, ROWS * N_IN) > 5 * turned_error);
}

/* ---- the watch ---- */

/* What was shown, in order. */
struct shown {
    enum rp_weight_id which;
    bool is_cache;
    int64_t position;
    uint32_t format;
    size_t n;
    float first, first_rounded;
};

struct spectator {
    struct shown list[64];
    size_t n_before, n_after;
    const float *instead; /* of every row; NULL: the row itself */
    float added;          /* to the first rounded value */
    bool is_out_of_memory;
};

static const float *see_before(void *context, const struct rp_site *at, enum rp_weight_id which,
                               bool is_cache, int64_t position, uint32_t format, const float *x,
                               size_t n)
{
    struct spectator *spectator = context;
    assert_ptr_equal(at, &site);
    assert_int_equal(spectator->n_before, spectator->n_after);
    assert_true(spectator->n_before < 64);
    spectator->list[spectator->n_before++] = (struct shown){.which = which,
                                                            .is_cache = is_cache,
                                                            .position = position,
                                                            .format = format,
                                                            .n = n,
                                                            .first = x[0]};
    return spectator->is_out_of_memory ? NULL : spectator->instead ? spectator->instead : x;
}

static void see_after(void *context, uint32_t format, const float *x, size_t n, float *rounded)
{
    struct spectator *spectator = context;
    struct shown *shown = &spectator->list[spectator->n_after++];
    assert_int_equal(spectator->n_before, spectator->n_after);
    assert_int_equal(format, shown->format);
    assert_int_equal(n, shown->n);
    (void)x; /* of the cache the same memory as rounded */
    shown->first_rounded = rounded[0];
    rounded[0] += spectator->added;
}

static void each_row_of_a_product_is_shown_once_before_and_after(void **state)
{
    (void)state;
    const struct rp_numerics numerics = {.activations = RP_ACTIVATIONS_BY_WEIGHT};
    struct spectator spectator = {.n_before = 0};
    const struct rp_rounding_watch watch = {&spectator, see_before, see_after};
    struct rp_emulation emulation;
    struct spy spy;
    float x[ROWS * N_IN], expected[N_IN];
    open_spy(&spy);
    fill(x, ROWS * N_IN, 2);
    rp_emulation_open(&emulation, &numerics, &spy.overlay.ops);
    emulation.watch = &watch;
    multiply(&emulation, RP_FFN_UP, RP_GGML_Q4_K, x);
    assert_int_equal(spectator.n_before, ROWS);
    assert_int_equal(spectator.n_after, ROWS);
    for (size_t p = 0; p < ROWS; p++) {
        const struct shown *shown = &spectator.list[p];
        rp_round_row(RP_GGML_Q8_K, x + p * N_IN, N_IN, expected);
        assert_int_equal(shown->which, RP_FFN_UP);
        assert_false(shown->is_cache);
        assert_int_equal(shown->position, positions[p]);
        assert_int_equal(shown->format, RP_GGML_Q8_K);
        assert_int_equal(shown->n, N_IN);
        assert_true(shown->first == x[p * N_IN]);
        assert_true(shown->first_rounded == expected[0]);
        assert_memory_equal(spy.x + p * N_IN, expected, sizeof expected);
    }
    /* The twin: what is not rounded is not shown. */
    multiply(&emulation, RP_FFN_UP, RP_GGML_F32, x);
    assert_int_equal(spectator.n_before, ROWS);
}

static void a_watch_may_put_another_row_in_the_place_and_change_what_is_rounded(void **state)
{
    (void)state;
    const struct rp_numerics numerics = {.activations = RP_ACTIVATIONS_Q8_0};
    struct spectator spectator = {.added = 0.5f};
    const struct rp_rounding_watch watch = {&spectator, see_before, see_after};
    struct rp_emulation emulation;
    struct spy spy;
    float x[ROWS * N_IN], other[N_IN], expected[N_IN];
    open_spy(&spy);
    fill(x, ROWS * N_IN, 2);
    fill(other, N_IN, 3);
    spectator.instead = other;
    rp_emulation_open(&emulation, &numerics, &spy.overlay.ops);
    emulation.watch = &watch;
    multiply(&emulation, RP_FFN_DOWN, RP_GGML_Q8_0, x);
    rp_round_row(RP_GGML_Q8_0, other, N_IN, expected);
    expected[0] += 0.5f;
    for (size_t p = 0; p < ROWS; p++)
        assert_memory_equal(spy.x + p * N_IN, expected, sizeof expected);
    fill(other, N_IN, 2);
    assert_memory_equal(x, other, sizeof other); /* the caller's row is untouched */
}

static void a_watch_without_memory_ends_the_operation(void **state)
{
    (void)state;
    const struct rp_numerics numerics = {.activations = RP_ACTIVATIONS_Q8_0,
                                         .kv_cache = RP_KV_CACHE_F16};
    struct spectator spectator = {.is_out_of_memory = true};
    const struct rp_rounding_watch watch = {&spectator, see_before, see_after};
    struct rp_emulation emulation;
    static float x[ROWS * N_IN], weight[2 * N_IN], y[ROWS * 2], keys[ROWS * N_IN];
    const struct rp_linear product = {.type = RP_GGML_Q8_0,
                                      .weight = weight,
                                      .n_out = 2,
                                      .n_in = N_IN,
                                      .x = x,
                                      .y = y,
                                      .y_stride = 2};
    const struct rp_kv_store stored = {.dim = N_IN, .k = x, .v = x, .keys = keys, .values = keys};
    rp_emulation_open(&emulation, &numerics, NULL);
    emulation.watch = &watch;
    assert_int_equal(emulation.overlay.ops.linear(&emulation, &site, &product), RP_ERR_MEMORY);
    assert_int_equal(spectator.n_before, 1);
    spectator.n_before = 0;
    assert_int_equal(emulation.overlay.ops.kv_store(&emulation, &site, &stored), RP_ERR_MEMORY);
    assert_int_equal(spectator.n_before, 1);
    assert_int_equal(spectator.n_after, 0);
}

/* One head of N_IN values over its own K and V. */
static void attend(struct rp_emulation *emulation, const float *q, struct cache *cache)
{
    static float scores[ROWS], y[ROWS * N_IN];
    const struct rp_kv_store stored = {
        .dim = N_IN, .k = q, .v = q, .keys = cache->keys, .values = cache->values};
    const struct rp_attention args = {.n_heads = 1,
                                      .n_kv_heads = 1,
                                      .head_dim = N_IN,
                                      .scale = 0.125f,
                                      .is_causal = true,
                                      .q = q,
                                      .n_keys = ROWS,
                                      .keys = cache->keys,
                                      .values = cache->values,
                                      .key_positions = positions,
                                      .scores = scores,
                                      .y = y};
    assert_int_equal(emulation->overlay.ops.kv_store(emulation, &site, &stored), RP_OK);
    assert_int_equal(emulation->overlay.ops.attention(emulation, &site, &args), RP_OK);
}

/* K, V and then Q: of a quantized cache as they are turned, Q as Q8_0. */
static void each_row_of_k_v_and_q_is_shown_once(void **state)
{
    (void)state;
    static const struct {
        enum rp_kv_cache kv_cache;
        uint32_t format, of_q;
    } cases[] = {{RP_KV_CACHE_F16, RP_GGML_F16, RP_GGML_F16},
                 {RP_KV_CACHE_Q8_0, RP_GGML_Q8_0, RP_GGML_Q8_0},
                 {RP_KV_CACHE_Q4_0, RP_GGML_Q4_0, RP_GGML_Q8_0}};
    static const enum rp_weight_id order[3] = {RP_ATTN_K, RP_ATTN_V, RP_ATTN_Q};
    static struct cache cache;
    float q[ROWS * N_IN];
    fill(q, ROWS * N_IN, 8);
    for (size_t k = 0; k < 3; k++) {
        const struct rp_numerics numerics = {.kv_cache = cases[k].kv_cache};
        struct spectator spectator = {.n_before = 0};
        const struct rp_rounding_watch watch = {&spectator, see_before, see_after};
        struct rp_emulation emulation;
        rp_emulation_open(&emulation, &numerics, NULL);
        emulation.watch = &watch;
        attend(&emulation, q, &cache);
        assert_int_equal(spectator.n_before, 3 * ROWS);
        assert_int_equal(spectator.n_after, 3 * ROWS);
        for (size_t i = 0; i < 3 * ROWS; i++) {
            const struct shown *shown = &spectator.list[i];
            assert_true(shown->is_cache);
            assert_int_equal(shown->which, order[i / ROWS]);
            assert_int_equal(shown->position, positions[i % ROWS]);
            assert_int_equal(shown->format, i / ROWS == 2 ? cases[k].of_q : cases[k].format);
            /* Turned, a value is another. */
            assert_int_equal(shown->first == q[i % ROWS * N_IN], k == 0);
        }
    }
}

/* ---- the whole model ---- */

#define N_TOKENS 5
static const int32_t tokens[N_TOKENS] = {3, 1, 4, 1, 5};

static void run_with(const struct rp_model *model, const struct rp_numerics *numerics,
                     struct recording *recording)
{
    struct rp_emulation emulation;
    rp_emulation_open(&emulation, numerics, NULL);
    record_run(model,
               (struct rp_run){.ops = &emulation.overlay.ops,
                               .tokens = tokens,
                               .n_tokens = N_TOKENS,
                               .mode = RP_MODE_BATCHED},
               recording);
}

static void numerics_that_round_nothing_change_no_bit(void **state)
{
    (void)state;
    static const char *const architectures[] = {"qwen3", "llama", "qwen35"};
    for (size_t i = 0; i < 3; i++) {
        struct recording plain = {.n_slots = 0}, emulated = {.n_slots = 0}, f16 = {.n_slots = 0};
        struct rp_model *model = open_variant(&(struct variant){.architecture = architectures[i]});
        record_run(model,
                   (struct rp_run){.tokens = tokens, .n_tokens = N_TOKENS, .mode = RP_MODE_BATCHED},
                   &plain);
        /* The builder's weights are F32, whose inputs nobody rounds. */
        run_with(model, &(struct rp_numerics){.activations = RP_ACTIVATIONS_BY_WEIGHT}, &emulated);
        run_with(model, &(struct rp_numerics){.kv_cache = RP_KV_CACHE_F16}, &f16);
        assert_int_equal(plain.n_slots, emulated.n_slots);
        for (size_t slot = 0; slot < plain.n_slots; slot++)
            assert_memory_equal(plain.slots[slot].rows, emulated.slots[slot].rows,
                                plain.slots[slot].n_rows * plain.slots[slot].dim * sizeof(float));
        /* The twin. */
        double difference = l2_rel(f16.slots[f16.n_slots - 1].rows + VOCAB,
                                   plain.slots[plain.n_slots - 1].rows + VOCAB, VOCAB);
        assert_true(difference > 1e-6 && difference < 1e-2);
        forget(&plain);
        forget(&emulated);
        forget(&f16);
        rp_model_close(model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_parsed_and_an_unknown_one_lists_them),
        cmocka_unit_test(a_products_input_is_rounded_as_its_weights_type_says),
        cmocka_unit_test(a_16_bit_cache_and_flash_attention_hold_f16),
        cmocka_unit_test(a_quantized_cache_turns_outliers_away),
        cmocka_unit_test(each_row_of_a_product_is_shown_once_before_and_after),
        cmocka_unit_test(a_watch_may_put_another_row_in_the_place_and_change_what_is_rounded),
        cmocka_unit_test(a_watch_without_memory_ends_the_operation),
        cmocka_unit_test(each_row_of_k_v_and_q_is_shown_once),
        cmocka_unit_test(numerics_that_round_nothing_change_no_bit),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder) ? 1 : 0;
}
