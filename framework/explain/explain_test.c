/* What is named and what is not: clean slots, errors of no known kind, two bugs, small errors, errors
 * under rounding; tokens and logits; and the list of names. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>

#include "operations/bugs_check_test_util.h"

static void the_ffns_bugs_are_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_ffn_swapped};
    assert_named_at_both_levels(engine, "ffn-swapped", NO_PARAMETER, "_ffnout", "_act");
    engine.install = rp_test_ffn_gelu;
    assert_named_at_both_levels(engine, "ffn-activation", NO_PARAMETER, "_ffnout", "_act");
    engine.install = rp_test_ffn_beta;
    engine.value = 1.3;
    assert_named_at_both_levels(engine, "ffn-activation", 1.3, "_ffnout", "_act");
}

static void a_clean_layer_has_nothing_to_explain(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * sizeof all_models / sizeof *all_models; i++) {
        struct rp_test_engine engine = {.model = all_models[i / 2],
                                        .level = i % 2 ? RP_SLOTS_OPERATIONS : RP_SLOTS_LAYERS,
                                        .of = "_preffn"};
        struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
        assert_int_equal(report.n_failing, 0);
        assert_string_equal(report.explanation.name, "");
        assert_string_equal(report.explanation.text, "nothing to explain");
        assert_int_equal(report.explanation.n_tried, 0);
    }
}

static void a_bug_of_no_known_kind_is_unexplained(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_ffn_odd};
    for (size_t i = 0; i < 2 * sizeof all_models / sizeof *all_models; i++) {
        engine.model = all_models[i / 2];
        engine.layer = full_layer(engine.model);
        engine.level = i % 2 ? RP_SLOTS_OPERATIONS : RP_SLOTS_LAYERS;
        assert_unexplained(engine);
    }
}

/* Each explains a part of the error of the one operation that both are in, none nearly all of it. */
static void two_bugs_in_one_operation_are_unexplained(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "qwen3", .layer = 1, .value = 0.01};
    engine.install = rp_test_two_in_rope; /* another base, and pairs the other way */
    for (int level = RP_SLOTS_LAYERS; level <= RP_SLOTS_OPERATIONS; level++) {
        engine.level = (enum rp_slot_level)level;
        assert_unexplained(engine);
        const struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
        assert_null(strstr(report.explanation.text, "closest"));
    }
}

static void two_bugs_in_two_operations_are_two_slots(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "qwen3",
                                    .layer = 1,
                                    .install = rp_test_two_in_ffn,
                                    .which = RP_FFN_DOWN,
                                    .value = 0.5,
                                    .level = RP_SLOTS_OPERATIONS};
    assert_named(engine, "ffn-swapped", NO_PARAMETER, "h1_act");
    assert_int_equal(rp_test_explain(RP_SOURCE_DIR, &engine).n_failing, 2);
    engine.of = "_ffnout";
    assert_named(engine, "constant-factor", 0.5, "h1_ffnout");
}

/* Each shows at its slot as about ten limits; see the ratio that a failure prints. */
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
         "h1_qrope",
         1e6 * (1 + 1e-4)},
        {{.install = rp_test_product_factor, .which = RP_FFN_DOWN, .value = 1 + 3e-6},
         "constant-factor",
         "h1_ffnout",
         1 + 3e-6},
        {{.install = rp_test_norm_eps, .which = RP_FFN_NORM, .value = 1 + 1e-4},
         "norm-eps",
         "h1_preffn",
         1e-6 * (1 + 1e-4)},
        {{.install = rp_test_norm_eps, .which = RP_ATTN_Q_NORM, .value = 3},
         "norm-eps",
         "h1_qnorm",
         3e-6},
    };
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
        struct rp_test_engine engine = small[i].engine;
        engine.model = "qwen3";
        engine.layer = 1;
        engine.level = RP_SLOTS_OPERATIONS;
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
    assert_named_at_both_levels(engine, "rope-theta", 50000, "_postattn", "_qrope");
    engine.install = rp_test_ffn_swapped;
    assert_named_at_both_levels(engine, "ffn-swapped", NO_PARAMETER, "_ffnout", "_act");
}

static void other_tokens_and_capped_logits_are_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "qwen3",
                                    .layer = -1,
                                    .part = RP_PART_EMB,
                                    .is_outside = true,
                                    .install = rp_test_other_token};
    struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
    assert_string_equal(report.explanation.name, "token-replaced");
    engine.install = rp_test_softcap;
    engine.part = RP_PART_LOGITS;
    engine.value = 3;
    assert_named(engine, "logits-softcap", 3, "logits");
}

/* Each name once, and each in the README, where its parameter is. */
static void every_name_is_documented(void **state)
{
    (void)state;
    size_t n;
    const struct rp_hypothesis_info *hypotheses = rp_hypotheses(&n);
    FILE *file = fopen(RP_SOURCE_DIR "/framework/explain/README.md", "r");
    static char text[32768];
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    assert_true(n > 40);
    for (size_t i = 0; i < n; i++) {
        char entry[80];
        snprintf(entry, sizeof entry, "| `%s` |", hypotheses[i].name);
        if (!strstr(text, entry))
            fail_msg("%s is not in the README", hypotheses[i].name);
        assert_true(strlen(hypotheses[i].description) > 0);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(hypotheses[i].name, hypotheses[j].name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_ffns_bugs_are_named),
        cmocka_unit_test(a_clean_layer_has_nothing_to_explain),
        cmocka_unit_test(a_bug_of_no_known_kind_is_unexplained),
        cmocka_unit_test(two_bugs_in_one_operation_are_unexplained),
        cmocka_unit_test(two_bugs_in_two_operations_are_two_slots),
        cmocka_unit_test(a_small_error_is_named_too),
        cmocka_unit_test(bugs_are_named_where_activations_are_rounded),
        cmocka_unit_test(other_tokens_and_capped_logits_are_named),
        cmocka_unit_test(every_name_is_documented),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
