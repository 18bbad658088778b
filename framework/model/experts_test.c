/* Models with a mixture of experts: their keys, and that a position's experts do not depend on how it came. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "model/recording.h"
#include "operations/experts_model_test_util.h"

static char folder[256], path[300];

static int set_up(void **state)
{
    (void)state;
    rp_test_make_folder(folder);
    snprintf(path, sizeof path, "%s/model.gguf", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return rp_remove_tree(folder, NULL) == RP_OK ? 0 : -1;
}

static struct rp_model *open_model(const struct rp_test_experts_model *of)
{
    struct rp_model *model = NULL;
    struct rp_error err = {.code = RP_OK};
    rp_test_write_experts_model(path, of);
    if (rp_model_open(path, &model, &err) != RP_OK)
        fail_msg("%s", err.message);
    return model;
}

static void the_router_is_what_the_keys_say(void **state)
{
    const struct rp_test_experts_model of = {
        .has_shared = true, .n_groups = 4, .scores = 2, .scale = 2.5f, .is_not_normalised = true};
    struct rp_model *model = open_model(&of);
    const struct rp_model_config *config = rp_model_config(model);
    (void)state;
    assert_int_equal(config->router.n_experts, RP_TEST_EXPERTS);
    assert_int_equal(config->router.n_chosen, RP_TEST_CHOSEN);
    assert_int_equal(config->router.scores, RP_ROUTER_SIGMOID);
    assert_int_equal(config->router.group_score, RP_GROUP_BEST_TWO);
    assert_int_equal(config->router.n_groups, 4);
    assert_int_equal(config->router.n_chosen_groups, 2);
    assert_false(config->router.normalizes);
    assert_true(config->router.scale == 2.5f);
    assert_int_equal(config->expert_size, RP_TEST_EXPERT_SIZE);
    assert_int_equal(config->shared_expert_size, 40);
    rp_model_close(model);
    model = open_model(&(struct rp_test_experts_model){.scale = 0});
    config = rp_model_config(model);
    assert_int_equal(config->router.scores, RP_ROUTER_SOFTMAX);
    assert_true(config->router.normalizes);
    assert_true(config->router.scale == 1.0f);
    assert_int_equal(config->router.n_groups, 1);
    rp_model_close(model);
}

static void expect_refused(const struct rp_test_experts_model *of, const char *part)
{
    struct rp_model *model = NULL;
    struct rp_error err = {.code = RP_OK};
    rp_test_write_experts_model(path, of);
    assert_int_equal(rp_model_open(path, &model, &err), RP_ERR_MISMATCH);
    if (!strstr(err.message, part))
        fail_msg("expected \"%s\" in \"%s\"", part, err.message);
}

static void keys_that_contradict_each_other_are_errors(void **state)
{
    (void)state;
    expect_refused(&(struct rp_test_experts_model){.n_groups = 3},
                   "expert_group_count' is 3, expected a divisor of expert_count, 8");
    expect_refused(&(struct rp_test_experts_model){.n_groups = 8},
                   "expert_used_count' is 3, expected at most the experts to choose from, 2");
    expect_refused(&(struct rp_test_experts_model){.expert_count = 4},
                   "is [1][1][8][32], expected [1][1][4][32]");
}

/* Nothing is allocated for it. */
static void a_shared_expert_of_a_model_that_has_none_is_left_out(void **state)
{
    struct rp_model *model = open_model(&(struct rp_test_experts_model){.shared_count = 60000});
    (void)state;
    assert_int_equal(rp_model_config(model)->shared_expert_size, 0);
    rp_model_close(model);
}

static void tokens_one_by_one_give_what_the_batch_gives(void **state)
{
    static const int32_t tokens[12] = {5, 3, 900, 17, 17, 64, 2, 0, 999, 8, 31, 5};
    static struct recording batched, per_token;
    const struct rp_test_experts_model of = {.has_shared = true};
    struct rp_model *model = open_model(&of);
    (void)state;
    record_run(model, (struct rp_run){.tokens = tokens, .n_tokens = 12, .mode = RP_MODE_BATCHED},
               &batched);
    record_run(model, (struct rp_run){.tokens = tokens, .n_tokens = 12, .mode = RP_MODE_PER_TOKEN},
               &per_token);
    assert_int_equal(recorded(&batched, "h1_experts")->dim, RP_TEST_CHOSEN);
    assert_int_equal(recorded(&batched, "h1_gate")->dim, RP_TEST_CHOSEN * RP_TEST_EXPERT_SIZE);
    expect_same(&batched, &per_token, 1e-5);
    forget(&batched);
    forget(&per_token);
    rp_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_router_is_what_the_keys_say),
        cmocka_unit_test(keys_that_contradict_each_other_are_errors),
        cmocka_unit_test(a_shared_expert_of_a_model_that_has_none_is_left_out),
        cmocka_unit_test(tokens_one_by_one_give_what_the_batch_gives),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
