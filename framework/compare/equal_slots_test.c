/* Equal bytes under two names, and a last layer that holds post_norm: errors of the file, never the
 * engine's. The twins: an engine that leaves a layer out, and a layer that adds nothing in both. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare/toy_model_test_util.h"

enum { N = 6, DIM = 24, LAYERS = 4 };

static const int tokens[N] = {5, 17, 42, 9, 33, 60};

struct trial {
    struct rp_toy_model model;
    struct rp_toy_run reference, engine;
};

/* growth: see rp_toy_make; at 1e-3 later layers add next to nothing. */
static struct trial *open_trial(double growth, const struct rp_toy_fault *fault)
{
    struct trial *t = calloc(1, sizeof *t);
    assert_non_null(t);
    rp_toy_make(&t->model, 7, LAYERS, DIM, growth);
    rp_toy_run(&t->model, tokens, N, NULL, &t->reference);
    rp_toy_run(&t->model, tokens, N, fault, &t->engine);
    return t;
}

static void copy(struct rp_toy_run *run, const char *from, const char *to)
{
    memcpy(run->rows[rp_toy_slot(run, to)], run->rows[rp_toy_slot(run, from)], sizeof run->rows[0]);
}

static void rename_slot(struct rp_toy_run *run, const char *from, const char *to)
{
    snprintf(run->name[rp_toy_slot(run, from)], RP_SLOT_NAME_SIZE, "%s", to);
}

/* Frees the trial. */
static struct rp_slot_result result_of(struct trial *t, const char *slot, enum rp_verdict *whole)
{
    struct rp_toy_sets sets;
    struct rp_slot_result result;
    struct rp_pair_result pair;
    rp_toy_sets_open(&sets, &t->reference, &t->engine);
    rp_compare_slot(&sets.comparison, slot, &result);
    assert_int_equal(rp_compare_pair(&sets.comparison, &pair, NULL), RP_OK);
    *whole = pair.verdict;
    rp_pair_result_free(&pair);
    rp_toy_sets_close(&sets);
    free(t);
    return result;
}

static void assert_error(struct trial *t, const char *slot, const char *part)
{
    enum rp_verdict whole;
    const struct rp_slot_result r = result_of(t, slot, &whole);
    if (r.verdict != RP_ERROR || !strstr(r.message, part))
        fail_msg("%s is %s: %s", slot, rp_verdict_name(r.verdict), r.message);
    assert_int_equal(whole, RP_ERROR);
}

static void a_normed_last_layer_of_the_reference_is_its_error(void **state)
{
    (void)state;
    struct trial *t = open_trial(1.5, NULL);
    copy(&t->reference, "post_norm", "h3");
    assert_error(t, "h3", "h3 of the reference holds post_norm");
}

static void without_post_norm_the_engines_shows_it(void **state)
{
    (void)state;
    struct trial *t = open_trial(1.5, NULL);
    copy(&t->reference, "post_norm", "h3");
    rename_slot(&t->reference, "post_norm", "unknown");
    assert_error(t, "h3", "h3 of the reference holds post_norm");
}

static void a_reference_and_an_engine_that_are_both_normed_do_not_pass(void **state)
{
    (void)state;
    struct trial *t = open_trial(1.5, NULL);
    copy(&t->reference, "post_norm", "h3");
    copy(&t->engine, "post_norm", "h3");
    assert_error(t, "h3", "h3 of the reference holds post_norm");
}

static void a_normed_last_layer_of_the_dump_is_an_error(void **state)
{
    (void)state;
    struct trial *t = open_trial(1.5, NULL);
    copy(&t->engine, "post_norm", "h3");
    assert_error(t, "h3", "damaged");
    t = open_trial(1.5, NULL); /* also where the reference has none */
    copy(&t->engine, "post_norm", "h3");
    rename_slot(&t->reference, "h3", "unknown");
    assert_error(t, "h3", "h3 and post_norm hold the same bytes");
}

static void one_buffer_under_all_names_is_an_error(void **state)
{
    (void)state;
    static const double growths[] = {1.5, 1e-3}; /* in the second all are near enough to pass */
    for (size_t i = 0; i < 2; i++) {
        struct trial *t = open_trial(growths[i], NULL);
        copy(&t->engine, "h3", "h0");
        copy(&t->engine, "h3", "h1");
        copy(&t->engine, "h3", "h2");
        assert_error(t, "h2", i == 0 ? "it holds the rows of h3" : "holds the same bytes as");
    }
}

static void equal_bytes_that_no_reference_is_there_for_are_an_error(void **state)
{
    (void)state;
    struct trial *t = open_trial(1.5, NULL);
    copy(&t->engine, "h2", "h1");
    rename_slot(&t->reference, "h1", "unknown");
    assert_error(t, "h1", "h1 holds the same bytes as h2");
}

static void a_layer_that_is_left_out_fails(void **state)
{
    (void)state;
    const struct rp_toy_fault fault = {RP_TOY_LAYER_SKIPPED, 2, 0};
    enum rp_verdict whole;
    assert_int_equal(result_of(open_trial(1.5, &fault), "h2", &whole).verdict, RP_FAIL);
    assert_int_equal(whole, RP_FAIL);
    assert_int_equal(result_of(open_trial(1.5, &fault), "h1", &whole).verdict, RP_PASS);
}

static void a_layer_that_adds_nothing_in_both_passes(void **state)
{
    (void)state;
    const struct rp_toy_fault fault = {RP_TOY_LAYER_SKIPPED, 2, 0};
    enum rp_verdict whole;
    struct trial *t = open_trial(1.5, &fault);
    t->reference = t->engine;
    assert_int_equal(result_of(t, "h2", &whole).verdict, RP_PASS);
    assert_int_equal(whole, RP_PASS);
    assert_int_equal(result_of(open_trial(1e-3, NULL), "h2", &whole).verdict, RP_PASS);
    assert_int_equal(whole, RP_PASS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_normed_last_layer_of_the_reference_is_its_error),
        cmocka_unit_test(without_post_norm_the_engines_shows_it),
        cmocka_unit_test(a_reference_and_an_engine_that_are_both_normed_do_not_pass),
        cmocka_unit_test(a_normed_last_layer_of_the_dump_is_an_error),
        cmocka_unit_test(one_buffer_under_all_names_is_an_error),
        cmocka_unit_test(equal_bytes_that_no_reference_is_there_for_are_an_error),
        cmocka_unit_test(a_layer_that_is_left_out_fails),
        cmocka_unit_test(a_layer_that_adds_nothing_in_both_passes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
