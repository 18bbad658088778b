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
    expect_no_alarm(24, RP_TEST_N_ORDERS);
}

static void a_right_engine_raises_no_alarm_at_200_positions(void **state)
{
    (void)state;
    expect_no_alarm(200, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_right_engine_raises_no_alarm_at_24_positions),
        cmocka_unit_test(a_right_engine_raises_no_alarm_at_200_positions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
