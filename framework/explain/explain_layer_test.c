/* The FFN's and the DeltaNet's bugs; what has no name and what is clean; small errors, and errors
 * under rounding; the list of names. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>

#include "base/file.h"
#include "explain/bugs_check_test_util.h"

static void the_ffns_bugs_are_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_ffn_swapped};
    assert_named_in_all(engine, "ffn-swapped", NO_PARAMETER, "_ffnout");
    engine.install = rp_test_ffn_gelu;
    assert_named_in_all(engine, "ffn-activation", NO_PARAMETER, "_ffnout");
}

static void the_delta_nets_bugs_are_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "qwen35", .layer = 1};
    engine.install = rp_test_delta_gates;
    engine.option = RP_TEST_DECAY_LOG;
    assert_named(engine, "delta-decay", NO_PARAMETER, "h1_postattn");
    engine.option = RP_TEST_NO_DECAY;
    assert_named(engine, "delta-decay", NO_PARAMETER, "h1_postattn");
    engine.option = RP_TEST_BETA_RAW;
    assert_named(engine, "delta-beta", NO_PARAMETER, "h1_postattn");
    engine.install = rp_test_conv_forgets;
    assert_named(engine, "delta-conv-state", NO_PARAMETER, "h1_postattn");
    engine.install = rp_test_delta_ungated;
    assert_named(engine, "delta-gate", NO_PARAMETER, "h1_postattn");
}

static void a_clean_layer_has_nothing_to_explain(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof all_models / sizeof *all_models; i++) {
        struct rp_test_engine engine = {.model = all_models[i], .layer = 0};
        struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
        assert_string_equal(report.slot, "");
        assert_string_equal(report.explanation.name, "");
        assert_int_equal(report.explanation.n_tried, 0);
    }
}

static void a_bug_of_no_known_kind_is_unexplained(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_ffn_odd};
    for (size_t i = 0; i < sizeof all_models / sizeof *all_models; i++) {
        engine.model = all_models[i];
        engine.layer = full_layer(engine.model);
        assert_unexplained(engine);
    }
}

/* Two bugs at once are none of the hypotheses, each of which explains a part. */
static void two_bugs_in_one_step_are_unexplained(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "qwen3", .layer = 1, .without = "_"};
    engine.install = rp_test_ffn_odd;
    assert_unexplained(engine);
}

/* Each shows at its slot as about ten floors; see the ratio that a failure prints. */
static void a_small_error_is_named_too(void **state)
{
    (void)state;
    const struct {
        struct rp_test_engine engine;
        const char *name, *slot;
        double parameter;
    } small[] = {
        {{.install = rp_test_rope_base, .value = 1e6 * (1 + 1e-4)},
         "rope-theta",
         "h1_postattn",
         1e6 * (1 + 1e-4)},
        {{.install = rp_test_attention_scale, .value = 1 + 2e-5},
         "attention-scale",
         "h1_postattn",
         0.1767767 * (1 + 2e-5)},
        {{.install = rp_test_product_factor, .which = RP_FFN_DOWN, .value = 1 + 3e-6},
         "constant-factor",
         "h1_ffnout",
         1 + 3e-6},
        {{.install = rp_test_norm_eps, .which = RP_FFN_NORM, .value = 1 + 1e-4},
         "norm-eps",
         "h1_preffn",
         1e-6 * (1 + 1e-4)},
    };
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
        struct rp_test_engine engine = small[i].engine;
        engine.model = "qwen3";
        engine.layer = 1;
        assert_named(engine, small[i].name, small[i].parameter, small[i].slot);
    }
}

/* Products of 8-bit blocks: what the bug changes is rounded before attn_output. */
static void bugs_are_named_where_activations_are_rounded(void **state)
{
    (void)state;
    const struct rp_numerics rounded = {.activations = RP_ACTIVATIONS_BY_WEIGHT};
    struct rp_test_engine engine = {.type = "q8_0", .numerics = rounded, .declared = rounded};
    engine.install = rp_test_rope_base;
    engine.value = 50000;
    assert_named_in_all(engine, "rope-theta", 50000, "_postattn");
    engine.install = rp_test_attention_sees_all;
    assert_named_in_all(engine, "attention-mask", NO_PARAMETER, "_postattn");
    engine.install = rp_test_ffn_swapped;
    assert_named_in_all(engine, "ffn-swapped", NO_PARAMETER, "_ffnout");
    engine.install = rp_test_attention_scale;
    engine.value = 1.3;
    engine.model = "llama";
    engine.layer = 1;
    assert_named(engine, "attention-scale", 0.325, "h1_postattn");
}

static void an_undeclared_f16_cache_is_told(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.numerics = {.kv_cache = RP_KV_CACHE_F16}};
    assert_named_in_all(engine, "numerics-kv-cache", NO_PARAMETER, "_postattn");
    engine.declared = engine.numerics;
    engine.model = "llama";
    engine.layer = 1;
    struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
    assert_string_equal(report.slot, "");
}

static void undeclared_8_bit_activations_are_told(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "qwen3",
                                    .type = "q8_0",
                                    .layer = 1,
                                    .numerics = {.activations = RP_ACTIVATIONS_BY_WEIGHT}};
    assert_named(engine, "numerics-activations", NO_PARAMETER, "h1_postattn");
}

/* Each name once, and each in the README, where its parameter is. */
static void every_name_is_documented(void **state)
{
    (void)state;
    size_t n;
    const struct rp_hypothesis_info *hypotheses = rp_hypotheses(&n);
    FILE *file = fopen(RP_SOURCE_DIR "/framework/explain/README.md", "r");
    char text[32768];
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    assert_true(n > 40);
    for (size_t i = 0; i < n; i++) {
        char entry[80];
        snprintf(entry, sizeof entry, "| `%s` |", hypotheses[i].name);
        assert_non_null(strstr(text, entry));
        assert_true(strlen(hypotheses[i].description) > 0);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(hypotheses[i].name, hypotheses[j].name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_ffns_bugs_are_named),
        cmocka_unit_test(the_delta_nets_bugs_are_named),
        cmocka_unit_test(a_clean_layer_has_nothing_to_explain),
        cmocka_unit_test(a_bug_of_no_known_kind_is_unexplained),
        cmocka_unit_test(two_bugs_in_one_step_are_unexplained),
        cmocka_unit_test(a_small_error_is_named_too),
        cmocka_unit_test(bugs_are_named_where_activations_are_rounded),
        cmocka_unit_test(an_undeclared_f16_cache_is_told),
        cmocka_unit_test(undeclared_8_bit_activations_are_told),
        cmocka_unit_test(every_name_is_documented),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
