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
            assert_int_equal(
                rp_round_row(cases[i].format, x + p * N_IN, N_IN, expected + p * N_IN, NULL, NULL),
                RP_OK);
        assert_memory_equal(spy.x, expected, sizeof expected);
        /* The twin: what is rounded is not x. */
        assert_int_equal(x[0] == expected[0] && x[1] == expected[1],
                         cases[i].format == RP_GGML_F32);
        rp_emulation_close(&emulation);
    }
}

/* Q, K and V read the same row, and one decision is made for the three. */
static void products_that_share_an_input_share_its_ties_and_flips(void **state)
{
    (void)state;
    const struct rp_numerics numerics = {.activations = RP_ACTIVATIONS_BY_WEIGHT};
    struct rp_emulation emulation;
    struct spy spy;
    float x[ROWS * N_IN], plain[ROWS * N_IN];
    open_spy(&spy);
    fill(x, ROWS * N_IN, 2);
    x[N_IN + 7] = 1.0f + 0x1p-11f; /* between two F16 */
    rp_emulation_open(&emulation, &numerics, &spy.overlay.ops);
    emulation.tie_tolerance = 1e-7;
    multiply(&emulation, RP_ATTN_Q, RP_GGML_F16, x);
    size_t n_ties = emulation.n_ties;
    assert_true(n_ties > 0);
    memcpy(plain, spy.x, sizeof plain);
    multiply(&emulation, RP_ATTN_K, RP_GGML_F16, x);
    multiply(&emulation, RP_ATTN_V, RP_GGML_F16, x);
    assert_int_equal(emulation.n_ties, n_ties);
    struct rp_tie flip = {.position = -1};
    for (size_t i = 0; i < n_ties; i++) {
        assert_int_equal(emulation.ties[i].which, RP_ATTN_NORM);
        if (emulation.ties[i].position == 6 && emulation.ties[i].index == 7)
            flip = emulation.ties[i];
    }
    assert_int_equal(flip.position, 6);
    emulation.flips = &flip;
    emulation.n_flips = 1;
    static const enum rp_weight_id readers[] = {RP_ATTN_Q, RP_ATTN_K, RP_ATTN_V};
    for (size_t i = 0; i < 3; i++) {
        multiply(&emulation, readers[i], RP_GGML_F16, x);
        for (size_t k = 0; k < ROWS * N_IN; k++)
            assert_int_equal(spy.x[k] != plain[k], k == N_IN + 7);
    }
    /* The twin: another product of its own input is not flipped. */
    multiply(&emulation, RP_FFN_DOWN, RP_GGML_F16, x);
    assert_memory_equal(spy.x, plain, sizeof plain);
    rp_emulation_close(&emulation);
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
    rp_emulation_close(&emulation);
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
        assert_int_equal(
            rp_round_row(RP_GGML_Q8_0, k + p * N_IN, N_IN, unturned + p * N_IN, NULL, NULL), RP_OK);
    assert_true(turned_error > 0.01 && turned_error < 0.06); /* 15/127/sqrt(12) is 0.03 */
    assert_true(rms_error(unturned, k, ROWS * N_IN) > 0.15);
    assert_memory_equal(cache.keys, cache.values, sizeof cache.keys);
    store(&(struct rp_numerics){.kv_cache = RP_KV_CACHE_Q4_0}, k, &cache);
    assert_true(rms_error(cache.keys, k, ROWS * N_IN) > 5 * turned_error);
}

/* ---- the whole model ---- */

#define N_TOKENS 5
static const int32_t tokens[N_TOKENS] = {3, 1, 4, 1, 5};

static void run_with(const struct rp_model *model, const struct rp_numerics *numerics,
                     struct recording *recording)
{
    struct rp_emulation emulation;
    rp_emulation_open(&emulation, numerics, NULL);
    emulation.tie_tolerance = 1e-6;
    record_run(model,
               (struct rp_run){.ops = &emulation.overlay.ops,
                               .tokens = tokens,
                               .n_tokens = N_TOKENS,
                               .mode = RP_MODE_BATCHED},
               recording);
    rp_emulation_close(&emulation);
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
        cmocka_unit_test(products_that_share_an_input_share_its_ties_and_flips),
        cmocka_unit_test(a_16_bit_cache_and_flash_attention_hold_f16),
        cmocka_unit_test(a_quantized_cache_turns_outliers_away),
        cmocka_unit_test(numerics_that_round_nothing_change_no_bit),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder) ? 1 : 0;
}
