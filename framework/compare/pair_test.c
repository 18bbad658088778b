/* What counts for a pair as a whole beyond its required slots: damage of the fixture's own. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "compare/scratch_sets_test_util.h"

#define SIDE(...) (&(struct rp_test_side){__VA_ARGS__})

enum broken { REFERENCE, ENGINE };

/* Cuts slot's file short, and opens that side again. */
static void cut_short(struct rp_test_sets *sets, enum broken side, const char *slot)
{
    char folder[512], path[640];
    struct rp_tensor_set **set =
        side == REFERENCE ? &sets->comparison.reference : &sets->comparison.engine;
    snprintf(folder, sizeof folder, "%s", rp_tensor_set_path(*set));
    snprintf(path, sizeof path, "%s/%s.npy", folder, slot);
    rp_tensor_set_close(*set);
    assert_int_equal(truncate(path, 200), 0);
    assert_int_equal(rp_tensor_set_open(folder, RP_LAYOUT_NPY, 0, set, NULL), RP_OK);
}

static enum rp_verdict verdict_of(struct rp_test_sets *sets, const char *slot,
                                  enum rp_verdict *slot_verdict)
{
    struct rp_pair_result pair;
    assert_int_equal(rp_compare_pair(&sets->comparison, &pair, NULL), RP_OK);
    for (size_t i = 0; i < pair.n_slots; i++)
        if (strcmp(pair.slots[i].slot, slot) == 0)
            *slot_verdict = pair.slots[i].verdict;
    const enum rp_verdict verdict = pair.verdict;
    rp_pair_result_free(&pair);
    return verdict;
}

static void open_sets(struct rp_test_sets *sets, const struct rp_test_side *reference)
{
    rp_test_sets_open(sets, reference, SIDE(.with_inner_slots = 1));
}

static void a_damaged_inner_slot_of_the_fixture_is_an_error_of_the_pair(void **state)
{
    (void)state;
    struct rp_test_sets sets;
    enum rp_verdict slot = RP_PASS;
    open_sets(&sets, SIDE(.with_inner_slots = 1));
    cut_short(&sets, REFERENCE, "h1_preffn");
    assert_int_equal(verdict_of(&sets, "h1_preffn", &slot), RP_ERROR);
    assert_int_equal(slot, RP_ERROR);
    rp_test_sets_close(&sets);
}

static void NaN_in_a_inner_slot_of_the_fixture_is_an_error_of_the_pair(void **state)
{
    (void)state;
    struct rp_test_sets sets;
    enum rp_verdict slot = RP_PASS;
    const struct rp_test_change change = {"h1_ffnout", 3, 0, NAN, 0};
    open_sets(&sets, SIDE(.with_inner_slots = 1, .changes = &change, .n_changes = 1));
    assert_int_equal(verdict_of(&sets, "h1_ffnout", &slot), RP_ERROR);
    assert_int_equal(slot, RP_ERROR);
    rp_test_sets_close(&sets);
}

static void a_damaged_inner_slot_of_the_engine_is_shown_and_fails_nothing(void **state)
{
    (void)state;
    struct rp_test_sets sets;
    enum rp_verdict slot = RP_PASS;
    open_sets(&sets, SIDE(.with_inner_slots = 1));
    cut_short(&sets, ENGINE, "h1_preffn");
    assert_int_equal(verdict_of(&sets, "h1_preffn", &slot), RP_PASS);
    assert_int_equal(slot, RP_ERROR);
    rp_test_sets_close(&sets);
}

static void of_two_dumps_a_damaged_inner_slot_fails_nothing(void **state)
{
    (void)state;
    struct rp_test_sets sets;
    enum rp_verdict slot = RP_PASS;
    open_sets(&sets, SIDE(.with_inner_slots = 1));
    sets.comparison.reference_is_dump = 1;
    cut_short(&sets, REFERENCE, "h1_preffn");
    assert_int_equal(verdict_of(&sets, "h1_preffn", &slot), RP_PASS);
    assert_int_equal(slot, RP_ERROR);
    rp_test_sets_close(&sets);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_damaged_inner_slot_of_the_fixture_is_an_error_of_the_pair),
        cmocka_unit_test(NaN_in_a_inner_slot_of_the_fixture_is_an_error_of_the_pair),
        cmocka_unit_test(a_damaged_inner_slot_of_the_engine_is_shown_and_fails_nothing),
        cmocka_unit_test(of_two_dumps_a_damaged_inner_slot_fails_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
