/* Hypotheses about RoPE, and that what was measured says what is tried. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "operations/bugs_check_test_util.h"

static void another_base_is_named_with_it(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_rope_base, .value = 50000};
    assert_named_at_both_levels(engine, "rope-theta", 50000, "_postattn", "_qrope");
    engine.value = 1234567;
    assert_named_at_both_levels(engine, "rope-theta", 1234567, "_postattn", "_qrope");
}

static void scaled_positions_are_named_with_the_factor(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_rope_scaled, .value = 0.25};
    assert_named_at_both_levels(engine, "rope-scaling", 0.25, "_postattn", "_qrope");
    engine.value = 3.7;
    engine.level = RP_SLOTS_OPERATIONS;
    assert_named_in_all(engine, "rope-scaling", 3.7, "_qrope");
}

static void the_default_base_without_factors_is_one_cause(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "llama",
                                    .layer = 1,
                                    .install = rp_test_rope_default,
                                    .level = RP_SLOTS_OPERATIONS};
    assert_named(engine, "rope-theta", 1e4, "h1_qrope");
    engine.level = RP_SLOTS_LAYERS;
    assert_named(engine, "rope-theta", 1e4, "h1_postattn");
}

static void the_other_pairing_and_no_rotation_are_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_rope_pairs};
    assert_named_at_both_levels(engine, "rope-ordering", NO_PARAMETER, "_postattn", "_qrope");
    engine.install = rp_test_rope_missing;
    assert_named_at_both_levels(engine, "rope-missing", NO_PARAMETER, "_postattn", "_qrope");
}

static void positions_are_read_off_the_angles(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .install = rp_test_rope_offset, .value = 100, .level = RP_SLOTS_OPERATIONS};
    assert_named_in_all(engine, "rope-position", 100, "_qrope");
    engine.install = rp_test_rope_folded; /* 0 1 2 3 2 1 0 1 … */
    for (size_t i = 0; i < sizeof all_models / sizeof *all_models; i++) {
        engine.model = all_models[i];
        engine.layer = full_layer(engine.model);
        const struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
        assert_string_equal(report.explanation.name, "rope-position");
        assert_non_null(strstr(report.explanation.text, "position 4 is rotated as 2 is"));
    }
}

static void pairs_that_are_not_rotated_are_counted(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .install = rp_test_rope_sections, .value = 3, .level = RP_SLOTS_OPERATIONS};
    assert_named_in_all(engine, "rope-sections", 3, "_qrope");
}

static void a_missing_rotation_in_one_head_is_named_with_the_head(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .install = rp_test_rope_missing_in_head, .which = RP_ATTN_Q, .head = 1};
    assert_named_at_both_levels(engine, "rope-missing", NO_PARAMETER, "_postattn", "_qrope");
    engine.which = RP_ATTN_K;
    assert_named_at_both_levels(engine, "rope-missing", NO_PARAMETER, "_postattn", "_krope");
    engine.model = "qwen3";
    engine.layer = 1;
    for (int level = RP_SLOTS_LAYERS; level <= RP_SLOTS_OPERATIONS; level++) {
        engine.level = (enum rp_slot_level)level;
        const struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
        assert_non_null(strstr(report.explanation.text, "in KV head 1 only"));
    }
}

/* Q and K fail apart, each explained by itself. */
static void one_cause_is_named_at_both_slots_that_it_spoils(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "qwen3",
                                    .layer = 2,
                                    .install = rp_test_rope_base,
                                    .value = 1e4,
                                    .level = RP_SLOTS_OPERATIONS};
    struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
    assert_int_equal(report.n_failing, 2);
    engine.of = "_krope";
    assert_named(engine, "rope-theta", 1e4, "h2_krope");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_base_is_named_with_it),
        cmocka_unit_test(scaled_positions_are_named_with_the_factor),
        cmocka_unit_test(the_default_base_without_factors_is_one_cause),
        cmocka_unit_test(the_other_pairing_and_no_rotation_are_named),
        cmocka_unit_test(positions_are_read_off_the_angles),
        cmocka_unit_test(pairs_that_are_not_rotated_are_counted),
        cmocka_unit_test(a_missing_rotation_in_one_head_is_named_with_the_head),
        cmocka_unit_test(one_cause_is_named_at_both_slots_that_it_spoils),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
