/* Thousands of random dumps: engines with bugs, clean rows that were damaged, and rows that were changed
 * afterwards. What an engine computed wrong is never called a damaged dump. Not each kind's words: dump_damage_test. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare/toy_damage_test_util.h"

enum { N_BUGS = 2100, N_DAMAGES = 600, N_CHANGES = 300 };

struct trial {
    struct rp_toy_model model;
    struct rp_toy_run reference, engine;
    struct rp_toy_fault fault;
    int tokens[RP_TOY_MAX_POSITIONS];
    size_t n;
    double noise;
    struct rp_toy_sets sets;
    struct rp_pair_result pair;
    size_t n_fail, n_error;
};

/* A model of random shape, whose stream grows or does not; few different tokens, as prompts repeat some. */
static void draw(struct trial *t, uint32_t *random)
{
    static const double noises[] = {0, 1e-6, 1e-3, 0.01};
    const size_t n_layers = 2 + rp_toy_below(random, 3);
    const size_t dim = RP_DAMAGE_MIN_VALUES + rp_toy_below(random, 13);
    const size_t n_kinds = 2 + rp_toy_below(random, RP_TOY_VOCAB - 3);
    rp_toy_make(&t->model, rp_toy_random(random), n_layers, dim,
                0.7 + 0.5 * (double)rp_toy_below(random, 5));
    t->n = 1 + rp_toy_below(random, 10);
    for (size_t i = 0; i < t->n; i++)
        t->tokens[i] = (int)rp_toy_below(random, n_kinds);
    t->noise = noises[rp_toy_below(random, 4)];
    t->fault = (struct rp_toy_fault){RP_TOY_CLEAN, rp_toy_below(random, n_layers),
                                     rp_toy_below(random, t->n)};
}

static void run(struct trial *t, uint32_t *random)
{
    rp_toy_run(&t->model, t->tokens, t->n, NULL, &t->reference);
    rp_toy_run(&t->model, t->tokens, t->n, &t->fault, &t->engine);
    rp_toy_add_noise(&t->engine, t->noise, random);
}

/* Fills pair; to be ended with rp_pair_result_free. */
static void compare(struct trial *t)
{
    rp_toy_sets_open(&t->sets, &t->reference, &t->engine);
    assert_int_equal(rp_compare_pair(&t->sets.comparison, &t->pair, NULL), RP_OK);
    rp_toy_sets_close(&t->sets);
    t->n_fail = t->n_error = 0;
    for (size_t i = 0; i < t->pair.n_slots; i++) {
        t->n_fail += t->pair.slots[i].verdict == RP_FAIL;
        t->n_error += t->pair.slots[i].verdict == RP_ERROR;
    }
}

static void tell_errors(const struct trial *t, size_t number)
{
    for (size_t i = 0; i < t->pair.n_slots; i++)
        if (t->pair.slots[i].verdict == RP_ERROR)
            print_error("trial %zu, bug %d in layer %zu at %zu, %zu layers, dim %zu, n %zu, noise "
                        "%g: %s %s\n",
                        number, (int)t->fault.bug, t->fault.layer, t->fault.position,
                        t->model.n_layers, t->model.dim, t->n, t->noise, t->pair.slots[i].slot,
                        t->pair.slots[i].message);
}

static void no_bug_of_an_engine_is_called_a_damaged_dump(void **state)
{
    (void)state;
    uint32_t random = 1;
    size_t n_false = 0, n_found = 0;
    struct trial *t = calloc(1, sizeof *t);
    assert_non_null(t);
    for (size_t i = 0; i < N_BUGS; i++) {
        draw(t, &random);
        t->fault.bug = (enum rp_toy_bug)(1 + i % (RP_TOY_N_BUGS - 1));
        run(t, &random);
        compare(t);
        n_found += t->n_fail > 0;
        n_false += t->n_error > 0;
        tell_errors(t, i);
        rp_pair_result_free(&t->pair);
    }
    print_message("%d engines with a bug: %zu fail, %zu are called damaged dumps\n", N_BUGS,
                  n_found, n_false);
    assert_int_equal(n_false, 0);
    /* of the others, many bugs do nothing: one token, the last position, one row */
    assert_true(n_found > N_BUGS / 2);
    free(t);
}

static void no_change_of_values_is_called_a_damaged_dump(void **state)
{
    (void)state;
    uint32_t random = 2;
    size_t n_false = 0, n_found = 0;
    struct trial *t = calloc(1, sizeof *t);
    assert_non_null(t);
    for (size_t i = 0; i < N_CHANGES; i++) {
        const struct rp_toy_damage change = {
            .kind = RP_TOY_ROUNDED_TO_BF16 + i % (RP_TOY_N_CHANGES - RP_TOY_ROUNDED_TO_BF16)};
        draw(t, &random);
        run(t, &random);
        rp_toy_damage(&t->engine, rp_toy_below(&random, t->engine.n_slots), &change);
        compare(t);
        n_found += t->n_fail > 0;
        n_false += t->n_error > 0;
        tell_errors(t, i);
        rp_pair_result_free(&t->pair);
    }
    print_message("%d dumps with one slot's values changed: %zu fail, %zu are called damaged\n",
                  N_CHANGES, n_found, n_false);
    assert_int_equal(n_false, 0);
    assert_true(n_found > N_CHANGES / 2);
    free(t);
}

static struct rp_toy_damage draw_damage(const struct trial *t, size_t slot, uint32_t *random)
{
    const size_t dim = t->engine.dim[slot];
    struct rp_toy_damage d = {.kind =
                                  (enum rp_toy_damage_kind)rp_toy_below(random, RP_TOY_N_DAMAGES)};
    d.at = rp_toy_below(random, t->n);
    d.channel = rp_toy_below(random, 2) ? 0 : 1 + rp_toy_below(random, dim - 9);
    d.by_channel = d.channel >= RP_DAMAGE_MIN_VALUES && rp_toy_below(random, 2);
    d.by = (int)rp_toy_below(random, t->n);
    if (d.kind == RP_TOY_SHIFTED)
        d.by = rp_toy_below(random, 2) ? 1 : -1;
    else if (d.kind == RP_TOY_TWO_EXCHANGED)
        d.by = d.by + 1 < (int)t->n ? d.by : 0;
    else if (d.kind == RP_TOY_OTHER_SLOT) /* the logits are of another width */
        d.by = slot + 2 < t->engine.n_slots ? 1 : -1;
    return d;
}

/* One slot but the logits, of an engine that computes right. */
static void damage_is_recognised(void **state)
{
    (void)state;
    uint32_t random = 3;
    size_t n_damaged = 0, n_known = 0, n_failed = 0;
    struct trial *t = calloc(1, sizeof *t);
    assert_non_null(t);
    for (size_t i = 0; i < N_DAMAGES; i++) {
        draw(t, &random);
        run(t, &random);
        const size_t slot = rp_toy_below(&random, t->engine.n_slots - 1);
        const struct rp_toy_damage d = draw_damage(t, slot, &random);
        if (t->n < 2) /* of one row the places cannot be wrong */
            continue;
        rp_toy_damage(&t->engine, slot, &d);
        compare(t);
        const enum rp_verdict verdict = t->pair.slots[slot].verdict;
        n_damaged += verdict != RP_PASS; /* rows of equal tokens exchanged are no damage */
        n_known += verdict == RP_ERROR;
        n_failed += verdict == RP_FAIL;
        if (verdict == RP_FAIL)
            print_message("not known: damage %d in %s, %zu positions, noise %g: %s\n", (int)d.kind,
                          t->pair.slots[slot].slot, t->n, t->noise, t->pair.slots[slot].message);
        rp_pair_result_free(&t->pair);
    }
    print_message("%zu damaged dumps: %zu are errors, %zu fail\n", n_damaged, n_known, n_failed);
    assert_true(n_damaged > N_DAMAGES / 2);
    assert_true(n_known * 100 >= n_damaged * 95); /* the rest: quantized, by much or little */
    free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_bug_of_an_engine_is_called_a_damaged_dump),
        cmocka_unit_test(no_change_of_values_is_called_a_damaged_dump),
        cmocka_unit_test(damage_is_recognised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
