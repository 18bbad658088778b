/* Numerics that are declared wrongly are named by what the engine computes in, not by the first that comes
 * near it. What the C model computes alike in both has either name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "explain/engine_test_util.h"

/* The keys of the text that have a value: of what it behaves like, else of what is declared. */
static const char *value_of(const char *text, const char *key, const char *declared, char value[32])
{
    char quoted[32];
    snprintf(quoted, sizeof quoted, "\"%s\": \"", key);
    const char *at = strstr(text, quoted), *end = strstr(text, ", and ");
    if (!at || !end || at > end)
        return declared;
    at += strlen(quoted);
    snprintf(value, 32, "%.*s", (int)strcspn(at, "\""), at);
    return value;
}

/* Flash attention reads K and V in F16 from an FP32 cache, too; a quantized cache is one in both kernels;
 * a weight of Q8_0 is multiplied with Q8_0. */
static int kind_of_cache(const char *cache, const char *attention)
{
    if (strcmp(cache, "q8_0") == 0 || strcmp(cache, "q4_0") == 0)
        return cache[1];
    return strcmp(attention, "flash") == 0 ? 'f' : strcmp(cache, "f16") == 0 ? '1' : '3';
}

static const char *kind_of_activations(const char *activations)
{
    return strcmp(activations, "by_weight") == 0 ? "q8_0" : activations;
}

/* Is the slot named by what it is computed in? false: it passes, where that and declared are alike. */
static bool is_named_by(const struct rp_numerics *numerics, const struct rp_numerics *declared,
                        enum rp_slot_level level, const char *of)
{
    const struct rp_test_engine engine = {.model = "qwen3",
                                          .type = "q8_0",
                                          .layer = 1,
                                          .level = level,
                                          .of = of,
                                          .numerics = *numerics,
                                          .declared = *declared};
    const struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
    const char *text = report.explanation.text;
    char a[32], c[32], k[32];
    if (report.times_limit <= 1)
        return false;
    const char *activations =
        value_of(text, "activations", rp_activations_name(declared->activations), a);
    const char *cache = value_of(text, "kv_cache", rp_kv_cache_name(declared->kv_cache), c);
    const char *attention = value_of(text, "attention", rp_attention_name(declared->attention), k);
    if (strncmp(report.explanation.name, "numerics-", 9) != 0 ||
        kind_of_cache(cache, attention) != kind_of_cache(rp_kv_cache_name(numerics->kv_cache),
                                                         rp_attention_name(numerics->attention)) ||
        strcmp(kind_of_activations(activations),
               kind_of_activations(rp_activations_name(numerics->activations))) != 0)
        fail_msg("%s with \"%s\", \"%s\", \"%s\": %s", report.slot,
                 rp_activations_name(numerics->activations), rp_kv_cache_name(numerics->kv_cache),
                 rp_attention_name(numerics->attention), text);
    return true;
}

enum { N_CACHES = 8 };

static struct rp_numerics cache_of(unsigned i)
{
    return (struct rp_numerics){.kv_cache = (enum rp_kv_cache)(i / 2),
                                .attention = i % 2 ? RP_ATTENTION_FLASH : RP_ATTENTION_PLAIN};
}

static void each_cache_and_kernel_is_named_whatever_is_declared(void **state)
{
    (void)state;
    size_t n_named = 0;
    for (unsigned i = 0; i < N_CACHES * N_CACHES; i++) {
        const struct rp_numerics is = cache_of(i / N_CACHES), declared = cache_of(i % N_CACHES);
        n_named += is_named_by(&is, &declared, RP_SLOTS_OPERATIONS, "_attn");
    }
    assert_int_equal(n_named, 64 - 8 - 6); /* the same; three pairs that are alike */
}

static void each_rounding_of_inputs_is_named_whatever_is_declared(void **state)
{
    (void)state;
    size_t n_named = 0;
    for (unsigned i = 0; i < 36; i++) {
        const struct rp_numerics is = {.activations = (enum rp_activations)(i / 6)},
                                 declared = {.activations = (enum rp_activations)(i % 6)};
        n_named += is_named_by(&is, &declared, RP_SLOTS_OPERATIONS, "_gate");
    }
    assert_int_equal(n_named, 36 - 6 - 2); /* the same; a pair that is alike */
}

/* Where operations are not dumped, both are at work before one slot. */
static void both_are_named_where_they_lie_before_one_slot(void **state)
{
    (void)state;
    for (unsigned i = 1; i < N_CACHES; i++) {
        const struct rp_numerics declared = {.activations = RP_ACTIVATIONS_F32};
        struct rp_numerics is = cache_of(i);
        is.activations = RP_ACTIVATIONS_BY_WEIGHT;
        assert_true(is_named_by(&is, &declared, RP_SLOTS_LAYERS, "_postattn"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_cache_and_kernel_is_named_whatever_is_declared),
        cmocka_unit_test(each_rounding_of_inputs_is_named_whatever_is_declared),
        cmocka_unit_test(both_are_named_where_they_lie_before_one_slot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
