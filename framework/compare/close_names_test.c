/* A reference whose names are not known: logits that agree are no pass, and close names are suggested. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare/close_names.h"
#include "compare/toy_model_test_util.h"

enum { N = 6, DIM = 24, LAYERS = 4 };

static const int tokens[N] = {5, 17, 42, 9, 33, 60};

/* rename: a format for the layers' names, with first as the number of h0; "" leaves them out. */
struct names {
    const char *layer;
    int first;
    const char *emb, *post_norm, *logits;
};

static const struct names known = {"h%d", 0, "emb", "post_norm", "logits"};

static void give_names(struct rp_toy_run *run, const struct names *names)
{
    for (size_t s = 0; s < run->n_slots; s++) {
        int layer;
        switch (rp_slot_parse(run->name[s], &layer)) {
        case RP_PART_OUTPUT:
            if (strcmp(names->layer, "h%d") != 0)
                snprintf(run->name[s], RP_SLOT_NAME_SIZE, "%s%d", names->layer,
                         layer + names->first);
            break;
        case RP_PART_EMB: snprintf(run->name[s], RP_SLOT_NAME_SIZE, "%s", names->emb); break;
        case RP_PART_POST_NORM:
            snprintf(run->name[s], RP_SLOT_NAME_SIZE, "%s", names->post_norm);
            break;
        default: snprintf(run->name[s], RP_SLOT_NAME_SIZE, "%s", names->logits); break;
        }
    }
}

/* Of slot, and the pair's verdict. */
static struct rp_slot_result compare(const struct names *reference, const struct names *engine,
                                     const char *slot, enum rp_verdict *whole)
{
    struct rp_toy_model *model = calloc(1, sizeof *model);
    struct rp_toy_run *runs = calloc(2, sizeof *runs);
    struct rp_toy_sets sets;
    struct rp_slot_result result;
    struct rp_pair_result pair;
    assert_non_null(model);
    assert_non_null(runs);
    rp_toy_make(model, 7, LAYERS, DIM, 1.5);
    for (size_t i = 0; i < 2; i++)
        rp_toy_run(model, tokens, N, NULL, &runs[i]);
    give_names(&runs[0], reference);
    give_names(&runs[1], engine);
    rp_toy_sets_open(&sets, &runs[0], &runs[1]);
    sets.comparison.n_layers = LAYERS;
    rp_compare_slot(&sets.comparison, slot, &result);
    assert_int_equal(rp_compare_pair(&sets.comparison, &pair, NULL), RP_OK);
    *whole = pair.verdict;
    rp_pair_result_free(&pair);
    rp_toy_sets_close(&sets);
    free(runs);
    free(model);
    return result;
}

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("expected \"%s\" in \"%s\"", part, text);
}

static void logits_alone_are_no_pass(void **state)
{
    (void)state;
    const struct names other = {"layer_", 0, "wte", "final", "logits"};
    enum rp_verdict whole;
    struct rp_slot_result r = compare(&other, &known, "logits", &whole);
    assert_int_equal(r.verdict, RP_ERROR);
    assert_int_equal(whole, RP_ERROR);
    assert_contains(r.message, "no hidden state was compared");
    assert_contains(r.message, "layer_0 of the reference looks like h0");
    r = compare(&other, &known, "h2", &whole);
    assert_int_equal(r.verdict, RP_SKIP);
    assert_contains(r.message, "its layer_2 looks like it: rename it to h2");
}

static void names_of_the_dump_are_suggested_too(void **state)
{
    (void)state;
    const struct names other = {"blk", 0, "emb", "post_norm", "logits"};
    enum rp_verdict whole;
    const struct rp_slot_result r = compare(&known, &other, "h3", &whole);
    assert_int_equal(r.verdict, RP_ERROR);
    assert_contains(r.message, "its blk3 looks like it");
}

static void numbers_that_begin_with_1_and_words_are_understood(void **state)
{
    (void)state;
    const struct names other = {"hidden_states_", 1, "hidden_states_0", "final_norm", "lm_head"};
    enum rp_verdict whole;
    assert_contains(compare(&other, &known, "h0", &whole).message, "its hidden_states_1 looks");
    assert_contains(compare(&other, &known, "h3", &whole).message, "its hidden_states_4 looks");
    assert_contains(compare(&other, &known, "emb", &whole).message, "its hidden_states_0 looks");
    assert_contains(compare(&other, &known, "post_norm", &whole).message, "its final_norm looks");
    assert_contains(compare(&other, &known, "logits", &whole).message, "its lm_head looks");
    assert_int_equal(whole, RP_SKIP); /* nothing at all is compared */
}

static void one_hidden_state_and_logits_pass(void **state)
{
    (void)state;
    const struct names other = {"layer_", 0, "wte", "post_norm", "logits"};
    enum rp_verdict whole;
    const struct rp_slot_result r = compare(&other, &known, "logits", &whole);
    assert_int_equal(r.verdict, RP_PASS);
    assert_int_equal(whole, RP_PASS);
    assert_int_equal(compare(&known, &known, "emb", &whole).verdict, RP_PASS);
    assert_int_equal(whole, RP_PASS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_alone_are_no_pass),
        cmocka_unit_test(names_of_the_dump_are_suggested_too),
        cmocka_unit_test(numbers_that_begin_with_1_and_words_are_understood),
        cmocka_unit_test(one_hidden_state_and_logits_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
