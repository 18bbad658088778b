/* Bugs of the gated DeltaNet: each is named, with its parameter, in dumps of layers and of operations. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "operations/bugs_check_test_util.h"
#include "operations/mixer_bugs_test_util.h"

/* In layers 1 and 4; slot: what fails in a dump of operations. */
static void assert_delta_named(struct rp_test_engine engine, const char *name, double parameter,
                               const char *slot)
{
    engine.model = "qwen35";
    for (engine.layer = 1; engine.layer <= 4; engine.layer += 3) {
        char coarse[RP_SLOT_NAME_SIZE], fine[RP_SLOT_NAME_SIZE];
        snprintf(coarse, sizeof coarse, "h%d_postattn", engine.layer);
        snprintf(fine, sizeof fine, "h%d%s", engine.layer, slot);
        engine.level = RP_SLOTS_LAYERS;
        assert_named(engine, name, parameter, coarse);
        engine.level = RP_SLOTS_OPERATIONS;
        assert_named(engine, name, parameter, fine);
    }
}

static void decay_and_beta_are_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_delta_decay, .option = RP_TEST_NO_DECAY};
    assert_delta_named(engine, "delta-decay", NO_PARAMETER, "_decay");
    engine.option = RP_TEST_DECAY_TWICE;
    assert_delta_named(engine, "delta-decay", 2, "_decay");
    engine.install = rp_test_decay_of;
    engine.option = RP_TEST_DT_MISSING;
    assert_delta_named(engine, "delta-dt-bias", NO_PARAMETER, "_decay");
    engine.option = RP_TEST_A_POSITIVE;
    assert_delta_named(engine, "delta-decay", NO_PARAMETER, "_decay");
    engine.install = rp_test_delta_beta_raw;
    assert_delta_named(engine, "delta-beta", NO_PARAMETER, "_beta");
    engine.install = rp_test_beta_factor;
    engine.value = 2;
    assert_delta_named(engine, "delta-beta", 2, "_beta");
    engine.value = 0.7;
    assert_delta_named(engine, "delta-beta", 0.7, "_beta");
}

static void the_convolutions_bugs_are_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_conv_forgets};
    assert_delta_named(engine, "delta-conv-state", NO_PARAMETER, "_conv");
    engine.install = rp_test_conv;
    engine.option = RP_TEST_KERNEL_REVERSED;
    assert_delta_named(engine, "delta-conv-kernel", NO_PARAMETER, "_conv");
    engine.option = RP_TEST_NO_SILU;
    assert_delta_named(engine, "delta-conv-silu", NO_PARAMETER, "_conv");
    engine.option = RP_TEST_CONV_LOST;
    engine.value = 13;
    assert_delta_named(engine, "delta-conv-state", 13, "_conv");
}

static void the_gated_norms_bugs_are_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_delta_ungated};
    assert_delta_named(engine, "delta-gate", NO_PARAMETER, "_mix");
    engine.install = rp_test_gated_norm;
    engine.option = RP_TEST_GATE_SIGMOID;
    assert_delta_named(engine, "delta-gate", NO_PARAMETER, "_mix");
    engine.option = RP_TEST_WEIGHT_PLUS_1;
    assert_delta_named(engine, "norm-weight-offset", 1, "_mix");
}

static void the_rules_bugs_are_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_no_l2_norm, .which = RP_ATTN_K};
    assert_delta_named(engine, "delta-l2-norm", NO_PARAMETER, "_delta");
    engine.install = rp_test_rule;
    engine.option = RP_TEST_RULE_GROUPED;
    assert_delta_named(engine, "delta-head-mapping", NO_PARAMETER, "_delta");
    engine.option = RP_TEST_RULE_PLAIN;
    assert_delta_named(engine, "delta-order", NO_PARAMETER, "_delta");
}

/* The gated norm takes all but eps of a scale away: it is told where the rule's output is dumped. */
static void another_scale_is_named_with_it(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "qwen35",
                                    .layer = 1,
                                    .install = rp_test_rule,
                                    .option = RP_TEST_RULE_SCALED,
                                    .value = 4,
                                    .level = RP_SLOTS_OPERATIONS};
    assert_named(engine, "delta-scale", 1, "h1_delta"); /* the model's is 0.25 */
    engine.value = 1.3;
    assert_named(engine, "delta-scale", 0.325, "h1_delta");
}

static void states_of_elsewhere_are_named_with_the_position(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.install = rp_test_rule, .n_tokens = 30};
    engine.option = RP_TEST_STATE_LOST;
    engine.value = 11;
    assert_delta_named(engine, "delta-state", 11, "_delta");
    engine.option = RP_TEST_STATE_OF;
    engine.value = 12;
    assert_delta_named(engine, "delta-state", 12, "_delta");
    engine.option = RP_TEST_STATE_END;
    engine.value = 16;
    assert_delta_named(engine, "delta-state", 30, "_delta");
    engine.option = RP_TEST_STATE_PADS;
    engine.value = 6;
    assert_delta_named(engine, "delta-state-pads", 6, "_delta");
    engine.option = RP_TEST_STATE_LEFT;
    assert_delta_named(engine, "delta-state-start", 30, "_delta");
}

static void a_state_that_an_earlier_run_left_is_named_with_its_checkpoint(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .model = "qwen35", .layer = 1, .install = rp_test_rerun, .value = 12, .n_tokens = 40};
    assert_named(engine, "delta-state", 12, "h1_postattn");
    const struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
    assert_non_null(strstr(report.explanation.text,
                           "state at position 16 is that of position 12, on which positions 16 to "
                           "39 were run once already"));
}

/* Such a state has no name: that there is one follows from what it adds, which is linear in it. */
static void a_state_of_no_known_origin_is_measured(void **state)
{
    (void)state;
    struct rp_test_engine engine = {.model = "qwen35",
                                    .layer = 1,
                                    .install = rp_test_rule,
                                    .n_tokens = 40,
                                    .level = RP_SLOTS_OPERATIONS};
    engine.option = RP_TEST_STATE_ODD;
    assert_named(engine, "delta-state-start", NO_PARAMETER, "h1_delta");
    engine.option = RP_TEST_STATE_REPLACED;
    engine.value = 16;
    assert_named(engine, "delta-state", 16, "h1_delta");
}

static void blocks_that_are_wrong_from_the_second_on_are_named(void **state)
{
    (void)state;
    struct rp_test_engine engine = {
        .install = rp_test_rule, .option = RP_TEST_BLOCKS_W, .value = 8, .n_tokens = 30};
    assert_delta_named(engine, "delta-block", 8, "_delta");
    engine.model = "qwen35";
    engine.layer = 1;
    const struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
    assert_non_null(strstr(report.explanation.text,
                           "blocks of 8: right within the first, wrong from the second on"));
}

static void bugs_are_named_where_activations_are_rounded(void **state)
{
    (void)state;
    const struct rp_numerics rounded = {.activations = RP_ACTIVATIONS_BY_WEIGHT};
    struct rp_test_engine engine = {
        .type = "q8_0", .numerics = rounded, .declared = rounded, .n_tokens = 30};
    engine.install = rp_test_rule;
    engine.option = RP_TEST_STATE_OF;
    engine.value = 12;
    assert_delta_named(engine, "delta-state", 12, "_delta");
    engine.option = RP_TEST_RULE_PLAIN;
    assert_delta_named(engine, "delta-order", NO_PARAMETER, "_delta");
    engine.install = rp_test_conv;
    engine.option = RP_TEST_CONV_LOST;
    engine.value = 13;
    assert_delta_named(engine, "delta-conv-state", 13, "_conv");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decay_and_beta_are_named),
        cmocka_unit_test(the_convolutions_bugs_are_named),
        cmocka_unit_test(the_gated_norms_bugs_are_named),
        cmocka_unit_test(the_rules_bugs_are_named),
        cmocka_unit_test(another_scale_is_named_with_it),
        cmocka_unit_test(states_of_elsewhere_are_named_with_the_position),
        cmocka_unit_test(a_state_that_an_earlier_run_left_is_named_with_its_checkpoint),
        cmocka_unit_test(a_state_of_no_known_origin_is_measured),
        cmocka_unit_test(bugs_are_named_where_activations_are_rounded),
        cmocka_unit_test(blocks_that_are_wrong_from_the_second_on_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
