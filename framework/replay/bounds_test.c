/* The bound of every operation: engines that sum in another order stay below it at every slot and
 * position, and an error of a few times it is found where it is, and nowhere else. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "model/model_builder.h"
#include "replay/engine_dump_test_util.h"

enum { N_POSITIONS = 48, MAX_OPERATIONS = 64, MAX_SLOTS = 256 };

static const char *const models[] = {"qwen3", "llama", "qwen35"};

/* What engines declare, with the weights that they do it for. */
static const struct {
    const char *type;
    struct rp_numerics numerics;
} kinds[] = {
    {"bf16", {.activations = RP_ACTIVATIONS_F32}},
    {"bf16", {.activations = RP_ACTIVATIONS_BY_WEIGHT, .kv_cache = RP_KV_CACHE_F16}},
    {"q8_0", {.activations = RP_ACTIVATIONS_BY_WEIGHT}},
    {"q4_0", {.activations = RP_ACTIVATIONS_BY_WEIGHT, .kv_cache = RP_KV_CACHE_Q8_0}},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

/* ---- how near to the bound each operation comes ---- */

struct nearness {
    struct {
        char operation[48];
        double worst;
    } list[MAX_OPERATIONS];
    size_t n, n_slots;
    struct rp_test_findings over; /* slots that reach it */
};

static void note(void *context, const struct rp_replay_layer *result)
{
    struct nearness *nearness = context;
    for (size_t i = 0; i < result->n_slots; i++) {
        const struct rp_replay_slot *slot = &result->slots[i];
        size_t k = 0;
        assert_false(slot->is_carried);
        assert_true(slot->n_positions > 0);
        while (k < nearness->n && strcmp(nearness->list[k].operation, slot->operation) != 0)
            k++;
        assert_true(k < MAX_OPERATIONS);
        if (k == nearness->n) {
            memcpy(nearness->list[k].operation, slot->operation, sizeof slot->operation);
            nearness->list[nearness->n++].worst = 0;
        }
        const double ratio = slot->introduced[slot->worst] / slot->limit[slot->worst];
        if (!(ratio <= nearness->list[k].worst))
            nearness->list[k].worst = ratio;
        if (!(ratio < 1))
            fail_msg("%s: %s", slot->slot, slot->message);
        nearness->n_slots++;
    }
}

/* engine's numerics and order; of says the rest. */
static void measure(struct rp_test_dump_of of, enum rp_test_order order, struct nearness *nearness)
{
    struct rp_test_engine_ops ops;
    struct rp_emulation emulation;
    struct rp_test_replayed replayed;
    rp_test_engine_ops_open(&ops, order);
    rp_emulation_open(&emulation, &of.options.numerics, &ops.overlay.ops);
    of.ops = &emulation.overlay.ops;
    rp_test_replayed_open(&replayed, &of);
    rp_test_replay_each(&replayed, note, nearness);
    rp_test_replayed_close(&replayed);
}

static void print(const char *of_what, const struct nearness *nearness)
{
    print_message("%s, %zu slots, worst introduced / bound:\n", of_what, nearness->n_slots);
    for (size_t k = 0; k < nearness->n; k++)
        print_message("  %-34s %.3f\n", nearness->list[k].operation, nearness->list[k].worst);
}

static void every_order_of_summation_stays_below_every_operations_bound(void **state)
{
    (void)state;
    struct nearness nearness = {.n = 0};
    for (size_t i = 0; i < 3; i++) {
        for (size_t kind = 0; kind < N_KINDS; kind++) {
            for (unsigned order = 0; order < RP_TEST_N_ORDERS; order++)
                measure((struct rp_test_dump_of){.model = models[i],
                                                 .type = kinds[kind].type,
                                                 .n_tokens = N_POSITIONS,
                                                 .options = {.numerics = kinds[kind].numerics}},
                        (enum rp_test_order)order, &nearness);
        }
    }
    print("48 positions", &nearness);
    /* Each slot of 4 layers of 18, 4 of 16, 6 of 19 and 2 of 20, with emb, post_norm and logits. */
    assert_int_equal(nearness.n_slots,
                     N_KINDS * RP_TEST_N_ORDERS * (4 * 18 + 4 * 16 + 6 * 19 + 2 * 20 + 3 * 3));
    /* A bound ten times too high would leave a tenth. */
    for (size_t k = 0; k < nearness.n; k++) {
        const char *operation = nearness.list[k].operation;
        if (strcmp(operation, "attention") == 0 || strstr(operation, "the product with attn_"))
            assert_true(nearness.list[k].worst > 0.1);
    }
}

/* Angles are rounded in proportion to the position. */
static void so_do_angles_of_late_positions(void **state)
{
    (void)state;
    struct nearness nearness = {.n = 0};
    for (size_t i = 0; i < 3; i++)
        measure((struct rp_test_dump_of){.model = models[i], .first_position = 4000},
                RP_TEST_SEQUENTIAL, &nearness);
    print("from position 4000", &nearness);
}

/* Heads of 6 and of 3, a hidden size of 8, 11 tokens; and a sequence of one. */
static void so_do_small_and_odd_widths_and_single_positions(void **state)
{
    (void)state;
    static const size_t lengths[] = {1, 2, 7};
    struct nearness nearness = {.n = 0};
    for (size_t i = 0; i < 3; i++) {
        write_model(&(struct variant){.architecture = models[i]});
        for (unsigned order = 0; order < RP_TEST_N_ORDERS; order++) {
            for (size_t k = 0; k < 3; k++) {
                measure((struct rp_test_dump_of){.path = path, .n_tokens = lengths[k]},
                        (enum rp_test_order)order, &nearness);
                measure((struct rp_test_dump_of){.model = models[i], .n_tokens = lengths[k]},
                        (enum rp_test_order)order, &nearness);
            }
        }
    }
    print("small", &nearness);
}

/* ---- an error of a few times the bound ---- */

#define TIMES 4.5 /* the bound */
enum { MAX_ROUNDS = 10 };

/* Each slot errs at a position of its own, by so much as a relative L2 norm. */
static struct errors {
    struct {
        char slot[RP_SLOT_NAME_SIZE];
        int64_t position;
        double size;
    } list[MAX_SLOTS];
    size_t n, n_made;
} errors;

/* Positions are spread: slots that are made of each other err at different ones. */
static void plan_errors(void *context, const struct rp_replay_layer *result)
{
    (void)context;
    for (size_t i = 0; i < result->n_slots; i++) {
        const struct rp_replay_slot *slot = &result->slots[i];
        const size_t at = errors.n * 29 % slot->n_positions;
        assert_true(errors.n < MAX_SLOTS);
        memcpy(errors.list[errors.n].slot, slot->slot, sizeof slot->slot);
        errors.list[errors.n].position = slot->positions[at];
        errors.list[errors.n++].size = TIMES * slot->limit[at];
    }
}

static void err_there(const char *slot, int64_t position, float *row, size_t dim)
{
    double norm = 0;
    size_t k = 0;
    while (k < errors.n && strcmp(errors.list[k].slot, slot) != 0)
        k++;
    if (k == errors.n || errors.list[k].position != position)
        return;
    for (size_t i = 0; i < dim; i++)
        norm += (double)row[i] * (double)row[i];
    const double each = errors.list[k].size * sqrt(norm / (double)dim);
    for (size_t i = 0; i < dim; i++)
        row[i] = (float)((double)row[i] + (i % 3 == 1 ? -each : each));
    errors.n_made++;
}

static size_t error_of(const struct rp_replay_slot *slot)
{
    size_t k = 0;
    while (strcmp(errors.list[k].slot, slot->slot) != 0)
        k++;
    return k;
}

/* The bound is that of the engine's values, which have changed: of attention over a quantized cache by a
 * factor, where a value comes near to a tip. */
static void adjust(void *context, const struct rp_replay_layer *result)
{
    bool *is_settled = context;
    for (size_t i = 0; i < result->n_slots; i++) {
        const struct rp_replay_slot *slot = &result->slots[i];
        const size_t k = error_of(slot);
        for (size_t at = 0; at < slot->n_positions; at++) {
            if (slot->positions[at] != errors.list[k].position)
                continue;
            const double size = TIMES * slot->limit[at];
            *is_settled &= fabs(errors.list[k].size / size - 1) < 0.05;
            errors.list[k].size = size;
        }
    }
}

static void expect_error(void *context, const struct rp_replay_layer *result)
{
    size_t *n_found = context;
    for (size_t i = 0; i < result->n_slots; i++) {
        const struct rp_replay_slot *slot = &result->slots[i];
        const size_t k = error_of(slot);
        if (slot->verdict != RP_FAIL || slot->n_failing != 1 ||
            slot->positions[slot->first] != errors.list[k].position)
            fail_msg("%s, which errs at position %lld: %s", slot->slot,
                     (long long)errors.list[k].position, slot->message);
        const double ratio = slot->introduced[slot->first] / slot->limit[slot->first];
        if (!(ratio > 4 && ratio < 5))
            fail_msg("%s errs by %g bounds: %s", slot->slot, ratio, slot->message);
        ++*n_found;
    }
}

static void expect_all_found(struct rp_test_dump_of of)
{
    struct rp_test_replayed replayed;
    struct rp_emulation emulation;
    size_t n_found = 0;
    rp_emulation_open(&emulation, &of.options.numerics, NULL);
    of.ops = &emulation.overlay.ops;
    errors = (struct errors){.n = 0};
    rp_test_replayed_open(&replayed, &of);
    rp_test_replay_each(&replayed, plan_errors, NULL);
    rp_test_replayed_close(&replayed);
    of.errs = err_there;
    bool is_settled = false;
    for (int round = 0; !is_settled; round++) {
        assert_true(round < MAX_ROUNDS);
        is_settled = true;
        rp_test_replayed_open(&replayed, &of);
        rp_test_replay_each(&replayed, adjust, &is_settled);
        rp_test_replayed_close(&replayed);
    }
    errors.n_made = 0;
    rp_test_replayed_open(&replayed, &of);
    assert_int_equal(errors.n_made, errors.n);
    rp_test_replay_each(&replayed, expect_error, &n_found);
    rp_test_replayed_close(&replayed);
    assert_int_equal(n_found, errors.n);
}

/* The engine goes on from its errors: what follows is replayed from what it had. */
static void of_errors_in_every_slot_each_is_found_where_it_is_and_nowhere_else(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        for (size_t kind = 0; kind < N_KINDS; kind++)
            expect_all_found(
                (struct rp_test_dump_of){.model = models[i],
                                         .type = kinds[kind].type,
                                         .n_tokens = N_POSITIONS,
                                         .options = {.numerics = kinds[kind].numerics}});
    }
}

static void also_in_small_and_odd_widths(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        write_model(&(struct variant){.architecture = models[i]});
        expect_all_found((struct rp_test_dump_of){.path = path, .n_tokens = 7});
        expect_all_found((struct rp_test_dump_of){.path = path, .n_tokens = 1});
        expect_all_found((struct rp_test_dump_of){.model = models[i], .n_tokens = 1});
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_order_of_summation_stays_below_every_operations_bound),
        cmocka_unit_test(so_do_angles_of_late_positions),
        cmocka_unit_test(so_do_small_and_odd_widths_and_single_positions),
        cmocka_unit_test(of_errors_in_every_slot_each_is_found_where_it_is_and_nowhere_else),
        cmocka_unit_test(also_in_small_and_odd_widths),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder) ? 1 : 0;
}
