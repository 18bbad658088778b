/* Slots whose inputs are not dumped, where the engine rounds on the way: an engine that sums in another
 * order raises no alarm, and an error is found. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "replay/carried.h"
#include "replay/engine_dump_test_util.h"
#include "replay/session.h"

static const char *const models[] = {"qwen3", "llama", "qwen35"};

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

static bool (*const levels[])(const char *, int64_t) = {keeps_layers, keeps_required};
static const char *const level_names[] = {"layers", "required"};

/* What engines declare, with the weights that they do it for. */
static const struct {
    const char *name, *type;
    struct rp_numerics numerics;
} kinds[] = {
    {"FP32", "bf16", {.activations = RP_ACTIVATIONS_F32}},
    {"Q8_0", "q8_0", {.activations = RP_ACTIVATIONS_BY_WEIGHT}},
    {"Q4_0", "q4_0", {.activations = RP_ACTIVATIONS_BY_WEIGHT}},
    {"Q8_K", "bf16", {.activations = RP_ACTIVATIONS_Q8_K}},
    {"BF16", "bf16", {.activations = RP_ACTIVATIONS_BY_WEIGHT}},
    {"F16 cache", "bf16", {.kv_cache = RP_KV_CACHE_F16}},
    {"Q8_0, F16 cache",
     "q8_0",
     {.activations = RP_ACTIVATIONS_BY_WEIGHT, .kv_cache = RP_KV_CACHE_F16}},
    {"Q4_0, Q8_0 cache",
     "q4_0",
     {.activations = RP_ACTIVATIONS_BY_WEIGHT, .kv_cache = RP_KV_CACHE_Q8_0}},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

/* The engine sums in order, and rounds as it declares; of says the rest. */
static struct rp_test_findings replay_engine(struct rp_test_dump_of of, enum rp_test_order order)
{
    struct rp_test_engine_ops ops;
    struct rp_emulation emulation;
    struct rp_test_replayed replayed;
    rp_test_engine_ops_open(&ops, order);
    rp_emulation_open(&emulation, &of.options.numerics, &ops.overlay.ops);
    of.ops = &emulation.overlay.ops;
    rp_test_replayed_open(&replayed, &of);
    const struct rp_test_findings findings = rp_test_replay_all(&replayed);
    rp_test_replayed_close(&replayed);
    return findings;
}

/* ---- no alarm ---- */

static void expect_no_alarm(size_t n_tokens, size_t n_orders)
{
    for (size_t kind = 0; kind < N_KINDS; kind++) {
        for (size_t level = 0; level < 2; level++) {
            double worst = 0;
            char worst_slot[RP_SLOT_NAME_SIZE] = "";
            size_t n_carried = 0;
            for (size_t i = 0; i < 3; i++) {
                for (unsigned order = 0; order < n_orders; order++) {
                    const struct rp_test_findings findings = replay_engine(
                        (struct rp_test_dump_of){.model = models[i],
                                                 .type = kinds[kind].type,
                                                 .n_tokens = n_tokens,
                                                 .keeps = levels[level],
                                                 .options = {.numerics = kinds[kind].numerics}},
                        (enum rp_test_order)order);
                    if (findings.n_failing > 0)
                        fail_msg("%s, %s, %s: %s: %s", models[i], kinds[kind].name,
                                 level_names[level], findings.failing[0], findings.message);
                    n_carried += findings.n_carried;
                    if (findings.worst > worst) {
                        worst = findings.worst;
                        memcpy(worst_slot, findings.worst_slot, sizeof worst_slot);
                    }
                }
            }
            print_message("%s, %s, %zu positions: worst introduced / limit %.2f at %s\n",
                          kinds[kind].name, level_names[level], n_tokens, worst, worst_slot);
            assert_int_equal(n_carried, n_orders * (level == 0 ? 2 : 1) * (4 + 4 + 8));
        }
    }
}

static void a_right_engine_raises_no_alarm_at_24_positions(void **state)
{
    (void)state;
    expect_no_alarm(24, 2);
}

static void a_right_engine_raises_no_alarm_at_96_positions(void **state)
{
    (void)state;
    expect_no_alarm(96, 1);
}

/* ---- what is to be expected ---- */

struct measured {
    struct rp_test_replayed replayed;
    struct rp_replay_plan plan;
    struct rp_carried carried;
};

static void measure(struct measured *measured, const struct rp_test_dump_of *of, size_t layer)
{
    const struct rp_layer *weights;
    struct rp_error err = {.code = RP_OK};
    rp_test_replayed_open(&measured->replayed, of);
    assert_int_equal(rp_replay_plan_open(&measured->plan, measured->replayed.model,
                                         measured->replayed.dump, layer, 0, &err),
                     RP_OK);
    assert_int_equal(rp_replay_weights(measured->replayed.replay, layer, &weights, &err), RP_OK);
    const struct rp_numerics numerics = rp_replay_numerics(measured->replayed.replay);
    if (rp_carried_measure(&measured->carried, &measured->plan, weights, &numerics, RP_MODE_BATCHED,
                           &err) != RP_OK)
        fail_msg("%s", err.message);
}

static void measured_close(struct measured *measured)
{
    rp_carried_close(&measured->carried);
    rp_replay_plan_close(&measured->plan);
    rp_test_replayed_close(&measured->replayed);
}

/* Q, K and V read one row, which is rounded once: its tips are the position's own, and through K and V
 * those of all later positions. What attention's output is rounded to is read at its position alone. */
static void a_row_that_q_k_and_v_read_tips_once_and_for_all_later_positions(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {
        .model = "llama",
        .type = "q8_0",
        .keeps = keeps_layers,
        .options = {.numerics = {.activations = RP_ACTIVATIONS_BY_WEIGHT}}};
    struct measured measured;
    double sum = 0;
    measure(&measured, &of, 1);
    const struct rp_carried_slot *slot = rp_carried_find(&measured.carried, RP_PART_POSTATTN);
    const struct rp_carried_slot *ffn = rp_carried_find(&measured.carried, RP_PART_FFNOUT);
    assert_non_null(slot);
    assert_non_null(ffn);
    assert_true(slot->has_tips && ffn->has_tips);
    assert_true(slot->earlier[0] == 0);
    for (size_t i = 0; i < measured.plan.n; i++) {
        assert_true(slot->own[i] > 0 && slot->own[i] < 0.1);
        assert_true(slot->worth[i] > 1e-4 && slot->worth[i] < 0.1);
        assert_true(slot->bound[i] > 1e-8 && slot->bound[i] < 5e-6);
        if (i > 0) {
            const double more = slot->earlier[i] - slot->earlier[i - 1];
            assert_true(more > 0 && more < slot->own[i - 1]);
        }
        sum += slot->own[i];
        assert_true(ffn->own[i] > 0);
        assert_true(ffn->earlier[i] == 0);
    }
    assert_true(slot->earlier[measured.plan.n - 1] > 0.1 * sum);
    assert_null(rp_carried_find(&measured.carried, RP_PART_PREFFN)); /* it is direct */
    measured_close(&measured);
}

static void where_nothing_is_rounded_there_are_no_tips(void **state)
{
    (void)state;
    static const enum rp_slot_part parts[] = {RP_PART_POSTATTN, RP_PART_FFNOUT};
    const struct rp_test_dump_of of = {.model = "qwen35", .keeps = keeps_layers};
    struct measured measured;
    measure(&measured, &of, 1);
    for (size_t k = 0; k < 2; k++) {
        const struct rp_carried_slot *slot = rp_carried_find(&measured.carried, parts[k]);
        assert_non_null(slot);
        assert_false(slot->has_tips);
        for (size_t i = 0; i < measured.plan.n; i++) {
            assert_true(slot->own[i] == 0 && slot->earlier[i] == 0 && slot->worth[i] == 0);
            assert_true(slot->bound[i] > 1e-8 && slot->bound[i] < 1e-5);
        }
    }
    measured_close(&measured);
}

/* ---- errors are found ---- */

/* The FFN of one layer is too large by so much; all positions, or one. */
static struct {
    int layer;
    float by;
    int64_t position; /* -1: all */
} ffn_error;

static void err_in_ffn(const char *slot, int64_t position, float *row, size_t dim)
{
    int layer;
    if (rp_slot_parse(slot, &layer) != RP_PART_FFNOUT || layer != ffn_error.layer ||
        (ffn_error.position >= 0 && position != ffn_error.position))
        return;
    for (size_t i = 0; i < dim; i++)
        row[i] *= 1 + ffn_error.by;
}

static struct rp_test_findings replay_with_error(const char *model, size_t kind, size_t level)
{
    return replay_engine((struct rp_test_dump_of){.model = model,
                                                  .type = kinds[kind].type,
                                                  .n_tokens = 48,
                                                  .keeps = levels[level],
                                                  .errs = err_in_ffn,
                                                  .options = {.numerics = kinds[kind].numerics}},
                         RP_TEST_SEQUENTIAL);
}

enum { OF_Q8_0 = 1, OF_Q4_0 = 2 };

/* Far below what a tip is worth, which is 1e-3; but there are tips at few positions, and it is at all. */
static void an_error_of_1e_5_at_all_positions_is_found_in_its_layer(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        for (size_t kind = OF_Q8_0; kind <= OF_Q4_0; kind++) {
            for (int layer = 0; layer < (i == 2 ? 8 : 4); layer++) {
                char slot[RP_SLOT_NAME_SIZE];
                ffn_error.layer = layer;
                ffn_error.by = 1e-5f;
                ffn_error.position = -1;
                const struct rp_test_findings findings = replay_with_error(models[i], kind, 0);
                assert_int_equal(findings.n_failing, 1);
                assert_string_equal(findings.failing[0], rp_slot_name(RP_PART_FFNOUT, layer, slot));
                assert_non_null(strstr(findings.message, "of which rounding explains about"));
            }
            ffn_error.by = 0; /* the twin */
            const struct rp_test_findings without = replay_with_error(models[i], kind, 0);
            assert_int_equal(without.n_failing, 0);
        }
    }
}

/* Through whole layers a tip of an early K or V is likely enough to stand for an error at all later
 * positions: it is found where it is larger than tips. */
static void also_where_required_slots_alone_are_dumped(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        for (int layer = 0; layer < 4; layer++) {
            char slot[RP_SLOT_NAME_SIZE];
            ffn_error.layer = layer;
            ffn_error.by = 0.05f;
            ffn_error.position = -1;
            const struct rp_test_findings findings = replay_with_error(models[i], OF_Q8_0, 1);
            assert_int_equal(findings.n_failing, 1);
            assert_string_equal(findings.failing[0], rp_slot_name(RP_PART_OUTPUT, layer, slot));
        }
    }
}

/* What a tip cannot be worth is an error of its own, at whichever position. */
static void an_error_above_the_limit_is_found_at_a_single_position(void **state)
{
    (void)state;
    static const struct {
        float by;
        size_t level;
        enum rp_slot_part part;
    } cases[] = {{0.05f, 0, RP_PART_FFNOUT}, {0.2f, 1, RP_PART_OUTPUT}};
    for (size_t i = 0; i < 3; i++) {
        for (size_t k = 0; k < 2; k++) {
            for (int64_t position = 0; position < 48; position += 23) {
                char slot[RP_SLOT_NAME_SIZE], where[64];
                ffn_error.layer = 2;
                ffn_error.by = cases[k].by;
                ffn_error.position = position;
                const struct rp_test_findings findings =
                    replay_with_error(models[i], OF_Q8_0, cases[k].level);
                snprintf(where, sizeof where, "at position %lld", (long long)position);
                assert_int_equal(findings.n_failing, 1);
                assert_string_equal(findings.failing[0], rp_slot_name(cases[k].part, 2, slot));
                assert_non_null(strstr(findings.message, where));
                assert_non_null(strstr(findings.message, "1 of 48 positions"));
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_right_engine_raises_no_alarm_at_24_positions),
        cmocka_unit_test(a_right_engine_raises_no_alarm_at_96_positions),
        cmocka_unit_test(a_row_that_q_k_and_v_read_tips_once_and_for_all_later_positions),
        cmocka_unit_test(where_nothing_is_rounded_there_are_no_tips),
        cmocka_unit_test(an_error_of_1e_5_at_all_positions_is_found_in_its_layer),
        cmocka_unit_test(also_where_required_slots_alone_are_dumped),
        cmocka_unit_test(an_error_above_the_limit_is_found_at_a_single_position),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
