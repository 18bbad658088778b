/* The departure is silent on clean engines, FP32, Q8_0 and Q4_0, and finds where an error begins, however
 * small. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "diagnose/departure.h"
#include "replay/engine_dump_test_util.h"

typedef void errs_fn(const char *slot, int64_t position, float *row, size_t dim);

static bool keeps_layers(const char *slot, int64_t position)
{
    int layer;
    (void)position;
    return rp_slot_level_has(RP_SLOTS_LAYERS, rp_slot_parse(slot, &layer));
}

static bool keeps_required(const char *slot, int64_t position)
{
    (void)position;
    return rp_slot_is_required(slot);
}

static bool (*const levels[])(const char *, int64_t) = {NULL, keeps_layers, keeps_required};
enum { N_LEVELS = sizeof levels / sizeof *levels };

/* type: of the engine's file; order: of its sums. */
static struct rp_departure find(const char *model, const char *type, enum rp_test_order order,
                                bool (*keeps)(const char *, int64_t), errs_fn *errs,
                                double *largest)
{
    struct rp_test_replayed reference, engine;
    struct rp_test_engine_ops ops;
    struct rp_departure departure;
    rp_test_engine_ops_open(&ops, order);
    const struct rp_test_dump_of of_reference = {.model = model, .keeps = keeps};
    const struct rp_test_dump_of of_engine = {
        .model = model, .type = type, .keeps = keeps, .errs = errs, .ops = &ops.overlay.ops};
    rp_test_replayed_open(&reference, &of_reference);
    rp_test_replayed_open(&engine, &of_engine);
    const struct rp_comparison comparison = {.reference = reference.dump,
                                             .engine = engine.dump,
                                             .limits = rp_limits_default(),
                                             .n_layers =
                                                 (int)rp_model_config(reference.model)->n_layers};
    rp_find_departure(&comparison, &departure, largest);
    rp_test_replayed_close(&reference);
    rp_test_replayed_close(&engine);
    return departure;
}

static void clean_engines_do_not_depart(void **state)
{
    (void)state;
    static const char *const models[] = {"qwen3", "llama", "qwen35"};
    static const char *const types[] = {"bf16", "q8_0", "q4_0"};
    double most = 0;
    for (size_t m = 0; m < 3; m++)
        for (size_t t = 0; t < 3; t++)
            for (size_t l = 0; l < N_LEVELS; l++) {
                double largest;
                const struct rp_departure d =
                    find(models[m], types[t], RP_TEST_SEQUENTIAL, levels[l], NULL, &largest);
                if (d.slot[0] || largest > RP_DEPARTURE_JUMP / 2)
                    fail_msg("%s-%s, slots %zu: %.3g times the noise; %s %s", models[m], types[t],
                             l, largest, d.slot, d.explanation);
                most = largest > most ? largest : most;
            }
    print_message("the largest error of a clean engine: %.3g times the noise\n", most);
}

static void scale(const char *slot, const char *wanted, float *row, size_t dim, float factor)
{
    for (size_t i = 0; i < dim && strcmp(slot, wanted) == 0; i++)
        row[i] *= factor;
}

static void small_ffn(const char *slot, int64_t position, float *row, size_t dim)
{
    (void)position;
    scale(slot, "h2_ffnout", row, dim, 1.0005f);
}

static void late_attention(const char *slot, int64_t position, float *row, size_t dim)
{
    if (position >= 7)
        scale(slot, "h1_attnout", row, dim, 1.001f);
}

static void first_layer_from_position_1(const char *slot, int64_t position, float *row, size_t dim)
{
    if (position >= 1)
        scale(slot, "h0_attnout", row, dim, 1.001f);
}

static void larger_ffn(const char *slot, int64_t position, float *row, size_t dim)
{
    if (position >= 5)
        scale(slot, "h2_ffnout", row, dim, 1.3f);
}

static void assert_departs(const char *type, errs_fn *errs, const char *slot, int64_t position,
                           const char *operation_slot)
{
    for (size_t l = 0; l < N_LEVELS; l++) {
        const struct rp_departure d =
            find("qwen3", type, RP_TEST_SEQUENTIAL, levels[l], errs, NULL);
        int layer;
        char whole[RP_SLOT_NAME_SIZE];
        rp_slot_parse(slot, &layer);
        rp_slot_name(RP_PART_OUTPUT, layer, whole);
        const char *wanted = levels[l] == keeps_required ? whole : slot;
        if (strcmp(d.slot, wanted) != 0 || d.position != position ||
            (!levels[l] && strcmp(d.operation_slot, operation_slot) != 0))
            fail_msg("slots %zu: expected %s at %lld, %s; found %s at %lld, %s: %s", l, wanted,
                     (long long)position, operation_slot, d.slot, (long long)d.position,
                     d.operation_slot, d.explanation);
    }
}

static void an_error_departs_where_it_begins(void **state)
{
    (void)state;
    assert_departs("bf16", small_ffn, "h2", 0, "h2_ffnout");
    assert_departs("bf16", late_attention, "h1_postattn", 7, "h1_attnout");
    assert_departs("bf16", first_layer_from_position_1, "h0_postattn", 1, "h0_attnout");
    assert_departs("q8_0", larger_ffn, "h2", 5, "h2_ffnout");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clean_engines_do_not_depart),
        cmocka_unit_test(an_error_departs_where_it_begins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
