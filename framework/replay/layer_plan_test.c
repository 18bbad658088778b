/* What each slot is computed from: the steps between it and the nearest slots that the dump has whole. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "replay/engine_dump_test_util.h"
#include "replay/layer_plan.h"

/* A dump, and the plan of one of its layers. */
struct planned {
    struct rp_test_replayed replayed;
    struct rp_replay_plan plan;
};

static void open_plan(struct planned *planned, const struct rp_test_dump_of *of, size_t layer,
                      int64_t first_position)
{
    struct rp_error err = {.code = RP_OK};
    rp_test_replayed_open(&planned->replayed, of);
    if (rp_replay_plan_open(&planned->plan, planned->replayed.model, planned->replayed.dump, layer,
                            first_position, &err) != RP_OK)
        fail_msg("%s", err.message);
}

static void close_plan(struct planned *planned)
{
    rp_replay_plan_close(&planned->plan);
    rp_test_replayed_close(&planned->replayed);
}

static const struct rp_planned_slot *slot_of(const struct planned *planned, enum rp_slot_part part)
{
    const struct rp_planned_slot *slot = rp_replay_plan_slot(&planned->plan, part);
    assert_non_null(slot);
    return slot;
}

static const char *name_of(const struct rp_step *step)
{
    switch (step->kind) {
    case RP_STEP_TAP: return "tap";
    case RP_STEP_ROPE: return step->which == RP_ATTN_Q ? "rope_q" : "rope_k";
    case RP_STEP_KV_STORE: return "store";
    case RP_STEP_ATTENTION: return "attention";
    case RP_STEP_SPLIT_GATE: return "split";
    case RP_STEP_ATTENTION_GATE: return "gate_heads";
    case RP_STEP_CAUSAL_CONV1D: return "conv";
    case RP_STEP_L2_NORM: return step->which == RP_ATTN_Q ? "l2_q" : "l2_k";
    case RP_STEP_DELTA_DECAY: return "decay";
    case RP_STEP_DELTA_BETA: return "beta";
    case RP_STEP_DELTA_RULE: return "delta";
    case RP_STEP_GATED_NORM: return "gated_norm";
    case RP_STEP_FFN_ACTIVATION: return "act";
    case RP_STEP_RESIDUAL_ADD: return "add";
    default: return rp_weight_name(step->which);
    }
}

/* The steps that are marked, but the taps, in order. */
static const char *marked(const struct rp_replay_plan *plan, const unsigned char *steps)
{
    static char text[512];
    text[0] = '\0';
    for (size_t i = 0; i < plan->n_steps; i++) {
        const size_t used = strlen(text);
        if (steps[i] && plan->steps[i].kind != RP_STEP_TAP)
            snprintf(text + used, sizeof text - used, "%s%s", used ? " " : "",
                     name_of(&plan->steps[i]));
    }
    return text;
}

static bool keeps_required(const char *slot, int64_t position)
{
    (void)position;
    return rp_slot_is_required(slot);
}

static bool keeps_layers(const char *slot, int64_t position)
{
    int layer;
    (void)position;
    return rp_slot_level_has(RP_SLOTS_LAYERS, rp_slot_parse(slot, &layer));
}

/* ---- from own slots ---- */

static void of_a_full_dump_each_slot_is_one_operation_from_own_slots(void **state)
{
    (void)state;
    static const char *const models[] = {"qwen3", "llama", "qwen35"};
    for (size_t i = 0; i < 3; i++) {
        for (size_t layer = 0; layer < 4; layer++) {
            struct planned planned;
            open_plan(&planned, &(struct rp_test_dump_of){.model = models[i]}, layer, 0);
            const struct rp_replay_plan *plan = &planned.plan;
            assert_int_equal(plan->n, 24);
            assert_int_equal(plan->gap, -1);
            for (size_t k = 0; k < plan->n_slots; k++) {
                const struct rp_planned_slot *slot = &plan->slots[k];
                size_t n_operations = 0;
                assert_true(slot->is_own);
                assert_true(slot->is_direct);
                assert_string_equal(slot->between, "");
                assert_int_equal(slot->dim, slot->dumped.tensor.dim);
                for (size_t p = 0; p < plan->n; p++)
                    assert_true(slot->founded[p]);
                for (size_t s = 0; s < plan->n_steps; s++) {
                    const bool is_operation = rp_step_flow(&plan->steps[s]).is_operation;
                    n_operations += slot->steps[s] && is_operation;
                    if (slot->steps[s] && is_operation)
                        assert_int_equal(slot->operation, s);
                }
                assert_int_equal(n_operations, slot->part == RP_PART_IN ? 0 : 1);
            }
            close_plan(&planned);
        }
    }
}

/* Copies into the cache, the split of the gate and the L2 norms are part of what reads them. */
static void what_only_copies_belongs_to_the_operation_that_reads_it(void **state)
{
    (void)state;
    static const struct {
        size_t layer;
        enum rp_slot_part part;
        const char *steps;
    } cases[] = {
        {3, RP_PART_Q, "attn_q split"},
        {3, RP_PART_Z, "attn_q split"},
        {3, RP_PART_ATTN, "store attention"},
        {3, RP_PART_MIX, "gate_heads"},
        {1, RP_PART_DELTA, "l2_q l2_k delta"},
        {1, RP_PART_MIX, "gated_norm"},
        {1, RP_PART_CONV, "conv"},
        {1, RP_PART_DECAY, "decay"},
        {1, RP_PART_BETA, "beta"},
        {1, RP_PART_POSTATTN, "add"},
        {1, RP_PART_ATTNOUT, "ssm_out"},
        {3, RP_PART_ATTNOUT, "attn_output"},
        {1, RP_PART_PREATTN, "attn_norm"},
        {1, RP_PART_ACT, "act"},
    };
    for (size_t layer = 1; layer <= 3; layer += 2) {
        struct planned planned;
        open_plan(&planned, &(struct rp_test_dump_of){.model = "qwen35"}, layer, 0);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            if (cases[i].layer == layer)
                assert_string_equal(marked(&planned.plan, slot_of(&planned, cases[i].part)->steps),
                                    cases[i].steps);
        }
        close_plan(&planned);
    }
}

static void between_layers_slots_the_steps_of_a_branch_are_needed(void **state)
{
    (void)state;
    struct planned planned;
    open_plan(&planned, &(struct rp_test_dump_of){.model = "llama", .keeps = keeps_layers}, 2, 0);
    const struct rp_planned_slot *slot = slot_of(&planned, RP_PART_POSTATTN);
    assert_string_equal(
        marked(&planned.plan, slot->steps),
        "attn_norm attn_q attn_k attn_v rope_q rope_k store attention attn_output add");
    /* K and V of earlier positions are read, and what they are made of. */
    assert_string_equal(marked(&planned.plan, slot->earlier),
                        "attn_norm attn_k attn_v rope_k store");
    assert_string_equal(slot->from, "h2_in");
    assert_false(slot->is_direct);
    assert_int_equal(planned.plan.steps[slot->operation].kind, RP_STEP_RESIDUAL_ADD);
    slot = slot_of(&planned, RP_PART_FFNOUT);
    assert_string_equal(marked(&planned.plan, slot->steps), "ffn_gate ffn_up act ffn_down");
    assert_string_equal(marked(&planned.plan, slot->earlier), "");
    assert_string_equal(slot->from, "h2_preffn");
    assert_string_equal(slot->between, "h2_act");
    assert_true(slot_of(&planned, RP_PART_OUTPUT)->is_direct);
    assert_true(slot_of(&planned, RP_PART_PREFFN)->is_direct);
    close_plan(&planned);
}

static void with_required_slots_alone_a_layer_is_one_chain(void **state)
{
    (void)state;
    struct planned planned;
    open_plan(&planned, &(struct rp_test_dump_of){.model = "qwen35", .keeps = keeps_required}, 1,
              0);
    const struct rp_planned_slot *slot = slot_of(&planned, RP_PART_OUTPUT);
    assert_string_equal(marked(&planned.plan, slot->steps),
                        "attn_norm attn_qkv attn_gate ssm_alpha ssm_beta conv decay beta l2_q l2_k "
                        "delta gated_norm ssm_out add ffn_norm ffn_gate ffn_up act ffn_down add");
    assert_string_equal(marked(&planned.plan, slot->earlier),
                        "attn_norm attn_qkv ssm_alpha ssm_beta conv decay beta l2_q l2_k");
    assert_string_equal(slot->from, "h0");
    close_plan(&planned);
}

static const char *left_out;

static bool keeps_others(const char *slot, int64_t position)
{
    (void)position;
    return strcmp(slot, left_out) != 0;
}

static void only_what_lies_behind_a_missing_slot_is_carried(void **state)
{
    (void)state;
    struct planned planned;
    left_out = "h1_krope";
    open_plan(&planned, &(struct rp_test_dump_of){.model = "qwen3", .keeps = keeps_others}, 1, 0);
    for (size_t k = 0; k < planned.plan.n_slots; k++) {
        const struct rp_planned_slot *slot = &planned.plan.slots[k];
        assert_int_equal(slot->is_own, slot->part != RP_PART_KROPE);
        assert_int_equal(slot->is_direct, slot->part != RP_PART_ATTN);
    }
    const struct rp_planned_slot *attn = slot_of(&planned, RP_PART_ATTN);
    assert_string_equal(marked(&planned.plan, attn->steps), "rope_k store attention");
    assert_string_equal(marked(&planned.plan, attn->earlier), "rope_k store");
    assert_string_equal(attn->from, "h1_v, h1_knorm, h1_qrope");
    assert_string_equal(attn->between, "h1_krope");
    close_plan(&planned);
    /* The twin: of Q only the position's own row is read. */
    left_out = "h1_qrope";
    open_plan(&planned, &(struct rp_test_dump_of){.model = "qwen3", .keeps = keeps_others}, 1, 0);
    attn = slot_of(&planned, RP_PART_ATTN);
    assert_string_equal(marked(&planned.plan, attn->steps), "rope_q store attention");
    assert_string_equal(marked(&planned.plan, attn->earlier), "store");
    close_plan(&planned);
}

/* ---- positions ---- */

static bool keeps_some_of_each(const char *slot, int64_t position)
{
    if (strcmp(slot, "h0") == 0)
        return position < 10;
    if (strcmp(slot, "h1_in") == 0)
        return position == 10 || position == 11;
    if (strcmp(slot, "h1_preffn") == 0)
        return position >= 20;
    return strcmp(slot, "h1_gate") == 0 && position >= 22;
}

/* Positions are those of any slot; where h1_in has none, h0 does for the input. */
static void positions_are_those_of_any_slot_up_to_a_gap(void **state)
{
    (void)state;
    struct planned planned;
    const struct rp_test_dump_of of = {.model = "llama", .keeps = keeps_some_of_each};
    open_plan(&planned, &of, 1, 0);
    const struct rp_replay_plan *plan = &planned.plan;
    assert_int_equal(plan->n, 16); /* 0 to 11, 20 to 23 */
    assert_int_equal(plan->positions[11], 11);
    assert_int_equal(plan->positions[12], 20);
    assert_int_equal(plan->gap, 12);
    assert_false(plan->gap_is_invalid);
    for (size_t i = 0; i < plan->n; i++) {
        assert_int_equal(plan->input[i * plan->hidden_size] != 0, i < 12);
        assert_int_equal(slot_of(&planned, RP_PART_PREATTN)->founded[i], i < 12);
        assert_int_equal(slot_of(&planned, RP_PART_ATTN)->founded[i], i < 12);
        assert_int_equal(slot_of(&planned, RP_PART_GATE)->founded[i], 1); /* 20 on from _preffn */
        assert_int_equal(slot_of(&planned, RP_PART_OUTPUT)->founded[i], i < 12);
    }
    assert_false(slot_of(&planned, RP_PART_PREFFN)->is_own);
    close_plan(&planned);
}

static void where_the_sequence_begins_elsewhere_nothing_of_attention_is_founded(void **state)
{
    (void)state;
    struct planned planned;
    const struct rp_test_dump_of of = {.model = "llama"};
    static const int64_t beginnings[] = {-1, 3};
    for (size_t k = 0; k < 2; k++) {
        open_plan(&planned, &of, 1, beginnings[k]);
        for (size_t i = 0; i < planned.plan.n; i++) {
            assert_false(slot_of(&planned, RP_PART_ATTN)->founded[i]);
            assert_true(slot_of(&planned, RP_PART_ATTNOUT)->founded[i]);
        }
        close_plan(&planned);
    }
}

static void make_invalid(const char *slot, int64_t position, float *row, size_t dim)
{
    if (strcmp(slot, "h1_v") == 0 && position == 6)
        row[dim - 1] = NAN;
}

static void a_row_that_is_not_finite_is_not_a_ground(void **state)
{
    (void)state;
    struct planned planned;
    const struct rp_test_dump_of of = {.model = "qwen3", .spoils = make_invalid};
    open_plan(&planned, &of, 1, 0);
    assert_false(slot_of(&planned, RP_PART_V)->is_own);
    for (size_t i = 0; i < planned.plan.n; i++) {
        assert_true(slot_of(&planned, RP_PART_V)->founded[i]);
        assert_int_equal(slot_of(&planned, RP_PART_ATTN)->founded[i], i < 6);
        assert_true(slot_of(&planned, RP_PART_ATTNOUT)->founded[i]);
    }
    assert_int_equal(planned.plan.gap, -1);
    close_plan(&planned);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_a_full_dump_each_slot_is_one_operation_from_own_slots),
        cmocka_unit_test(what_only_copies_belongs_to_the_operation_that_reads_it),
        cmocka_unit_test(between_layers_slots_the_steps_of_a_branch_are_needed),
        cmocka_unit_test(with_required_slots_alone_a_layer_is_one_chain),
        cmocka_unit_test(only_what_lies_behind_a_missing_slot_is_carried),
        cmocka_unit_test(positions_are_those_of_any_slot_up_to_a_gap),
        cmocka_unit_test(where_the_sequence_begins_elsewhere_nothing_of_attention_is_founded),
        cmocka_unit_test(a_row_that_is_not_finite_is_not_a_ground),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
