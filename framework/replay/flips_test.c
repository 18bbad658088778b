/* Roundings that the last bits of FP32 decide are found and flipped, and nothing else is explained by
 * them: an error at one single position stays an error. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replay/engine_dump_test_util.h"
#include "replay/subset.h"

static const char *const models[] = {"qwen3", "llama", "qwen35"};
static const struct rp_numerics by_weight = {.activations = RP_ACTIVATIONS_BY_WEIGHT};

/* An engine that rounds, and sums in another order. */
static struct rp_test_findings replay_as(const char *model, const char *type,
                                         const struct rp_numerics *rounds,
                                         struct rp_replay_options options,
                                         void (*spoils)(const char *, int64_t, float *, size_t))
{
    struct rp_test_engine_ops engine;
    struct rp_emulation emulation;
    struct rp_test_replayed replayed;
    rp_test_engine_ops_open(&engine, RP_TEST_SEQUENTIAL);
    rp_emulation_open(&emulation, rounds, &engine.overlay.ops);
    const struct rp_test_dump_of of = {.model = model,
                                       .type = type,
                                       .ops = &emulation.overlay.ops,
                                       .spoils = spoils,
                                       .n_tokens = 160,
                                       .options = options};
    rp_test_replayed_open(&replayed, &of);
    const struct rp_test_findings findings = rp_test_replay_all(&replayed);
    rp_test_replayed_close(&replayed);
    rp_emulation_close(&emulation);
    return findings;
}

/* As it declares. */
static struct rp_test_findings replay(const char *model, const char *type,
                                      struct rp_replay_options options,
                                      void (*spoils)(const char *, int64_t, float *, size_t))
{
    return replay_as(model, type, &options.numerics, options, spoils);
}

static void an_engine_that_rounds_as_declared_passes(void **state)
{
    (void)state;
    static const char *const types[] = {"bf16", "q8_0", "q4_0"};
    for (size_t i = 0; i < 3; i++) {
        for (size_t k = 0; k < 3; k++) {
            const struct rp_test_findings findings = replay(
                models[i], types[k], (struct rp_replay_options){.numerics = by_weight}, NULL);
            print_message("%s %s: %zu flips, %.2f floors at %s\n", models[i], types[k],
                          findings.n_flips, findings.worst, findings.worst_slot);
            if (findings.n_failing > 0)
                fail_msg("%s %s %s: %s", models[i], types[k], findings.failing[0],
                         findings.message);
        }
    }
}

static void without_flips_the_same_engine_fails(void **state)
{
    (void)state;
    size_t n_failing = 0;
    for (size_t i = 0; i < 3; i++)
        n_failing +=
            replay(models[i], "bf16",
                   (struct rp_replay_options){.numerics = by_weight, .without_flips = 1}, NULL)
                .n_failing;
    assert_true(n_failing > 0);
}

static void an_engine_that_rounds_undeclared_fails(void **state)
{
    (void)state;
    const struct rp_test_findings findings = replay_as(
        "qwen3", "q8_0", &by_weight, (struct rp_replay_options){.mode = RP_MODE_BATCHED}, NULL);
    assert_true(findings.n_failing >= 8); /* attention and FFN of each layer */
}

/* ---- an error at one position ---- */

static double spoil_size;
static unsigned spoil_seed;

/* Adds a vector in random direction, of spoil_size of the row. */
static void spoil(const char *slot, int64_t position, float *row, size_t dim)
{
    double norm = 0, length = 0;
    double direction[4096];
    if (position != 70 || (strcmp(slot, "h1_postattn") != 0 && strcmp(slot, "h2_ffnout") != 0))
        return;
    for (size_t i = 0; i < dim; i++) {
        spoil_seed = spoil_seed * 1664525u + 1013904223u;
        direction[i] = (double)(spoil_seed >> 8) / 8388608.0 - 1.0;
        norm += (double)row[i] * (double)row[i];
        length += direction[i] * direction[i];
    }
    for (size_t i = 0; i < dim; i++)
        row[i] += (float)(spoil_size * sqrt(norm / length) * direction[i]);
}

static bool has(const struct rp_test_findings *findings, const char *slot)
{
    for (size_t i = 0; i < findings->n_failing && i < 8; i++) {
        if (strcmp(findings->failing[i], slot) == 0)
            return true;
    }
    return false;
}

/* From ten floors up to what a flip itself amounts to, and beyond. */
static void flips_hide_no_error_at_a_single_position(void **state)
{
    (void)state;
    static const double sizes[] = {5e-6, 3e-5, 1e-4, 3e-4, 1e-3, 1e-2};
    static const enum rp_kv_cache caches[] = {RP_KV_CACHE_F32, RP_KV_CACHE_F16, RP_KV_CACHE_Q8_0};
    for (size_t cache = 0; cache < sizeof caches / sizeof *caches; cache++) {
        struct rp_numerics numerics = by_weight;
        numerics.kv_cache = caches[cache];
        for (size_t i = 0; i < 3; i++) {
            for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
                spoil_size = sizes[k];
                spoil_seed = (unsigned)(7 + i + 100 * k);
                const struct rp_test_findings findings = replay(
                    models[i], "q8_0", (struct rp_replay_options){.numerics = numerics}, spoil);
                if (!has(&findings, "h1_postattn") || !has(&findings, "h2_ffnout"))
                    fail_msg("%s, cache %s, %g: %zu failing, first %s", models[i],
                             rp_kv_cache_name(caches[cache]), sizes[k], findings.n_failing,
                             findings.failing[0]);
            }
        }
    }
}

/* ---- sets of flips ---- */

static void a_few_of_many_effects_are_found(void **state)
{
    (void)state;
    enum { N = 120, WIDTH = 64 };
    static float effects[N * WIDTH];
    static enum rp_share kinds[N];
    float residual[WIDTH];
    struct rp_subset subset;
    struct rp_error err;
    unsigned seed = 11;
    for (size_t i = 0; i < (size_t)N * WIDTH; i++) {
        seed = seed * 1664525u + 1013904223u;
        effects[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
    kinds[40] = RP_SHARE_STEPS;
    kinds[77] = RP_SHARE_ANY;
    for (size_t i = 0; i < WIDTH; i++)
        residual[i] =
            effects[5 * WIDTH + i] - effects[40 * WIDTH + i] + 0.25f * effects[77 * WIDTH + i];
    assert_int_equal(rp_subset_pursue(effects, kinds, N, WIDTH, residual, 1e-5, &subset, &err),
                     RP_OK);
    assert_true(subset.left < 1e-5);
    assert_int_equal(subset.n, 3);
    for (size_t i = 0; i < 3; i++) {
        const size_t at = subset.chosen[i];
        assert_true(fabs(subset.share[i] - (at == 5 ? 1 : at == 40 ? -1 : 0.25)) < 1e-5);
    }
    /* The twin: in a direction of its own, nothing is found that leaves none of it. */
    for (size_t i = 0; i < WIDTH; i++) {
        seed = seed * 1664525u + 1013904223u;
        residual[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
    assert_int_equal(rp_subset_pursue(effects, kinds, N, WIDTH, residual, 1e-5, &subset, &err),
                     RP_OK);
    assert_true(subset.left > 0.1);
}

static void effects_that_add_up_are_told_from_those_that_do_not(void **state)
{
    (void)state;
    enum { N = 20, WIDTH = 64 };
    float effects[N * WIDTH], residual[WIDTH] = {0};
    double share[N];
    unsigned seed = 5;
    for (size_t i = 0; i < (size_t)N * WIDTH; i++) {
        seed = seed * 1664525u + 1013904223u;
        effects[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
    for (size_t i = 0; i < WIDTH; i++)
        residual[i] = effects[3 * WIDTH + i] + effects[8 * WIDTH + i] + effects[19 * WIDTH + i];
    rp_subset_shares(effects, N, WIDTH, residual, share);
    for (size_t i = 0; i < N; i++)
        assert_true(fabs(share[i] - (i == 3 || i == 8 || i == 19 ? 1.0 : 0.0)) < 1e-5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_engine_that_rounds_as_declared_passes),
        cmocka_unit_test(without_flips_the_same_engine_fails),
        cmocka_unit_test(an_engine_that_rounds_undeclared_fails),
        cmocka_unit_test(flips_hide_no_error_at_a_single_position),
        cmocka_unit_test(a_few_of_many_effects_are_found),
        cmocka_unit_test(effects_that_add_up_are_told_from_those_that_do_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
