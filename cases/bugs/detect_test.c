/* The measurement measures: what a bug introduces is known, trials are judged right and wrong, shares
 * of the plan make up the whole, and the table counts. Not how much is detected: ci/detect.sh. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "detect_judge.h"
#include "detect_plan.h"
#include "detect_table.h"

static void open_plan(struct rp_detect_filter filter, struct rp_detect_plan *plan)
{
    struct rp_error err = {.code = RP_OK};
    if (rp_detect_plan_open(RP_SOURCE_DIR, &filter, plan, &err) != RP_OK)
        fail_msg("%s", err.message);
}

/* The first trial of that bug with that magnitude (0: any) everywhere in a layer. */
static const struct rp_detect_trial *find_trial(const struct rp_detect_plan *plan, double magnitude)
{
    for (size_t i = 0; i < plan->n_trials; i++) {
        const struct rp_bug_choice *choice = &plan->trials[i].bugs[0];
        if (plan->trials[i].n_bugs == 1 && choice->position == RP_BUG_EVERYWHERE &&
            choice->head == RP_BUG_EVERYWHERE && plan->trials[i].on->n_tokens > 12 &&
            (magnitude == 0 || choice->magnitude == magnitude))
            return &plan->trials[i];
    }
    fail_msg("no such trial");
    return NULL;
}

static void judge(const struct rp_detect_trial *trial,
                  struct rp_detect_result results[RP_DETECT_LEVELS])
{
    char scratch[] = "/tmp/refparity-detect-test-XXXXXX";
    struct rp_error err = {.code = RP_OK};
    assert_non_null(mkdtemp(scratch));
    if (rp_detect_judge(trial, scratch, results, &err) != RP_OK)
        fail_msg("%s", err.message);
    assert_int_equal(rmdir(scratch), 0);
}

static void what_a_factor_introduces_is_known(void **state)
{
    (void)state;
    struct rp_detect_plan plan;
    struct rp_recorded recorded;
    char slot[RP_SLOT_NAME_SIZE];
    double change[64];
    open_plan(
        (struct rp_detect_filter){.kind = "ffn-half", .architecture = "llama", .weights = "f32"},
        &plan);
    const struct rp_detect_trial *trial = find_trial(&plan, 0.99);
    assert_int_equal(rp_detect_run(trial, &recorded, NULL), RP_OK);
    assert_true(recorded.n_positions <= 64);
    assert_int_equal(rp_detect_change(trial, &recorded, 0, RP_SLOTS_OPERATIONS, slot, change, NULL),
                     RP_OK);
    assert_non_null(strstr(slot, "_ffnout"));
    for (size_t p = 0; p < recorded.n_positions; p++)
        assert_true(fabs(change[p] - 0.01) < 1e-6);
    rp_recorded_free(&recorded);
    rp_detect_plan_close(&plan);
}

static void a_gross_bug_is_judged_right(void **state)
{
    (void)state;
    struct rp_detect_plan plan;
    struct rp_detect_result results[RP_DETECT_LEVELS];
    open_plan(
        (struct rp_detect_filter){.kind = "ffn-half", .architecture = "qwen3", .weights = "q8_0"},
        &plan);
    judge(find_trial(&plan, 0.5), results);
    for (size_t level = 0; level < RP_DETECT_LEVELS; level++) {
        const struct rp_detect_result *result = &results[level];
        assert_int_equal(result->above, RP_DETECT_YES);
        assert_int_equal(result->detected, RP_DETECT_YES);
        assert_int_equal(result->layers_right, RP_DETECT_YES);
        assert_int_equal(result->operation_right, RP_DETECT_YES);
        assert_int_equal(result->position_right, RP_DETECT_YES);
        assert_int_equal(result->rule_5pct, RP_DETECT_YES);
        assert_string_equal(result->name_given, "constant-factor");
        assert_int_equal(result->name_right, RP_DETECT_YES);
    }
    rp_detect_plan_close(&plan);
}

static void a_bug_below_the_limit_is_known_to_be(void **state)
{
    (void)state;
    struct rp_detect_plan plan;
    struct rp_detect_result results[RP_DETECT_LEVELS];
    open_plan((struct rp_detect_filter){.kind = "residual-leak",
                                        .architecture = "llama",
                                        .weights = "f32"},
              &plan);
    judge(find_trial(&plan, 1e-8), results);
    for (size_t level = 0; level < RP_DETECT_LEVELS; level++) {
        const struct rp_detect_result *result = &results[level];
        assert_int_equal(result->above, RP_DETECT_NO);
        assert_true(result->ratio < 1);
        assert_int_equal(result->detected, RP_DETECT_NO);
    }
    rp_detect_plan_close(&plan);
}

/* The same dump with a bug of another operation than the entry says: the twin that must be wrong. */
static void a_wrong_expectation_is_judged_wrong(void **state)
{
    (void)state;
    struct rp_detect_plan plan;
    struct rp_detect_result results[RP_DETECT_LEVELS];
    open_plan(
        (struct rp_detect_filter){.kind = "ffn-half", .architecture = "llama", .weights = "f32"},
        &plan);
    struct rp_detect_trial trial = *find_trial(&plan, 0.5);
    struct rp_bug wrong = *trial.bugs[0].bug;
    wrong.first_part = RP_PART_OUTPUT;
    wrong.names = "rope-theta";
    trial.bugs[0].bug = &wrong;
    judge(&trial, results);
    for (size_t level = 0; level < RP_DETECT_LEVELS; level++) {
        const struct rp_detect_result *result = &results[level];
        assert_int_equal(result->detected, RP_DETECT_YES);
        assert_int_equal(result->operation_right, RP_DETECT_NO);
        assert_int_equal(result->position_right, RP_DETECT_NO);
        assert_int_equal(result->name_right, RP_DETECT_NO);
    }
    rp_detect_plan_close(&plan);
}

static void a_bug_of_the_prompt_is_found_by_the_tokens(void **state)
{
    (void)state;
    struct rp_detect_plan plan;
    struct rp_detect_result results[RP_DETECT_LEVELS];
    open_plan((struct rp_detect_filter){.kind = "token-replaced",
                                        .architecture = "llama",
                                        .weights = "f32"},
              &plan);
    judge(&plan.trials[0], results);
    for (size_t level = 0; level < RP_DETECT_LEVELS; level++) {
        const struct rp_detect_result *result = &results[level];
        assert_int_equal(result->detected, RP_DETECT_YES);
        assert_int_equal(result->layers_right, RP_DETECT_YES);
        assert_int_equal(result->position_right, RP_DETECT_YES);
        assert_int_equal(result->name_right, RP_DETECT_NONE);
    }
    rp_detect_plan_close(&plan);
}

static void the_shares_make_up_the_whole(void **state)
{
    (void)state;
    struct rp_detect_plan whole, share;
    size_t n = 0;
    struct rp_detect_filter filter = {.architecture = "llama", .every = 7};
    open_plan(filter, &whole);
    filter.n_shares = 3;
    for (filter.share = 0; filter.share < filter.n_shares; filter.share++) {
        open_plan(filter, &share);
        assert_true(share.n_trials > 0);
        n += share.n_trials;
        rp_detect_plan_close(&share);
    }
    assert_int_equal(n, whole.n_trials);
    rp_detect_plan_close(&whole);
}

/* ---- the table ---- */

static int table_of(const char *lines)
{
    char path[] = "/tmp/refparity-detect-table-XXXXXX";
    char *files[] = {path};
    int descriptor = mkstemp(path);
    FILE *file = fdopen(descriptor, "w");
    assert_non_null(file);
    fputs(lines, file);
    fclose(file);
    int code = rp_detect_table(files, 1, RP_DETECT_TEXT, true);
    unlink(path);
    return code;
}

#define GOOD "llamacpp,operations,q4_K_M,qwen3,eps,10,2,batched,1,1,1,1,1,norm-eps,1,400,0,1\n"
#define OF_LAYERS "c,layers,q4_0,qwen3,eps,10,2,batched,1,1,1,1,1,norm-eps,1,400,0,1\n"
#define CLEAN(slots, detected) \
    "c," slots ",f32,llama,clean:fma,,-,batched,0," detected ",,,,,,,0,0\n"
#define BUG(slots, judged) "c," slots ",f32,llama,eps,10,2,batched," judged ",0,1\n"

static void the_goals_are_met_by_good_results(void **state)
{
    (void)state;
    assert_int_equal(table_of(RP_DETECT_HEADER "\n" GOOD GOOD), 0);
    assert_int_equal(table_of(GOOD OF_LAYERS CLEAN("operations", "0") CLEAN("layers", "0")), 0);
}

static void a_miss_misses_a_goal(void **state)
{
    (void)state;
    assert_int_equal(table_of(GOOD BUG("operations", "1,0,0,0,0,,,9")), 1);
    assert_int_equal(table_of(GOOD BUG("operations", "1,1,0,1,1,norm-eps,1,9")), 1);
    assert_int_equal(table_of(GOOD BUG("operations", "1,1,1,0,1,norm-eps,1,9")), 1);
    assert_int_equal(table_of(GOOD BUG("operations", "1,1,1,1,1,rope-theta,0,9")), 1);
    assert_int_equal(table_of(GOOD OF_LAYERS BUG("layers", "1,0,0,0,0,,,9")), 1);
}

/* Another bug's result in the dump of the other level is no substitute. */
static void each_level_has_goals_of_its_own(void **state)
{
    (void)state;
    char lines[100 * sizeof OF_LAYERS] = "";
    size_t used = 0;
    for (size_t i = 0; i < 40; i++)
        used += (size_t)snprintf(lines + used, sizeof lines - used, "%s", OF_LAYERS);
    snprintf(lines + used, sizeof lines - used, "%s", BUG("operations", "1,0,0,0,0,,,9"));
    assert_int_equal(table_of(lines), 1);
}

static void a_miss_below_the_limit_is_none(void **state)
{
    (void)state;
    assert_int_equal(table_of(GOOD BUG("operations", "0,0,0,0,0,,,0.7")), 0);
}

static void a_false_alarm_misses_the_goal(void **state)
{
    (void)state;
    assert_int_equal(table_of(GOOD CLEAN("operations", "1")), 1);
    assert_int_equal(table_of(GOOD CLEAN("layers", "1")), 1);
}

static void a_damaged_line_is_an_error(void **state)
{
    (void)state;
    assert_int_equal(table_of(GOOD "c,operations,f32,llama\n"), 2);
    assert_int_equal(table_of(GOOD BUG("operations", "1,1,1,1,1,a,1,9,8")), 2);
    assert_int_equal(table_of(GOOD BUG("all", "1,1,1,1,1,a,1,9")), 2);
    assert_int_equal(table_of(RP_DETECT_HEADER "\n"), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_factor_introduces_is_known),
        cmocka_unit_test(a_gross_bug_is_judged_right),
        cmocka_unit_test(a_bug_below_the_limit_is_known_to_be),
        cmocka_unit_test(a_wrong_expectation_is_judged_wrong),
        cmocka_unit_test(a_bug_of_the_prompt_is_found_by_the_tokens),
        cmocka_unit_test(the_shares_make_up_the_whole),
        cmocka_unit_test(the_goals_are_met_by_good_results),
        cmocka_unit_test(a_miss_misses_a_goal),
        cmocka_unit_test(each_level_has_goals_of_its_own),
        cmocka_unit_test(a_miss_below_the_limit_is_none),
        cmocka_unit_test(a_false_alarm_misses_the_goal),
        cmocka_unit_test(a_damaged_line_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
