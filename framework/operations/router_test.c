/* Each kind of router, on numbers that can be checked by hand; and which other choices are ties. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "operations/router.h"

enum { N = 8 };

static const float logits[N] = {1, 4, 2, 0, 3, 2.5f, -1, 3.5f};
static const struct rp_site one = {.n_positions = 1};

static struct rp_router router_of(enum rp_router_scores scores, size_t n_chosen)
{
    return (struct rp_router){.n_experts = N,
                              .n_chosen = n_chosen,
                              .scores = scores,
                              .n_groups = 1,
                              .n_chosen_groups = 1,
                              .scale = 1};
}

static void choose(const struct rp_router *router, const float *correction, const float *row,
                   float *experts) /* NOLINT(readability-non-const-parameter) */
{
    const struct rp_choose_experts args = {
        .router = router, .correction = correction, .logits = row, .experts = experts};
    assert_int_equal(rp_op_choose_experts(NULL, &one, &args), RP_OK);
}

static void expect_choice(const struct rp_router *router, const float *correction,
                          const float *expected)
{
    float experts[N] = {0};
    choose(router, correction, logits, experts);
    for (size_t k = 0; k < router->n_chosen; k++)
        assert_true(experts[k] == expected[k]); /* NOLINT */
}

static void expect_weights(const struct rp_router *router, const double *expected)
{
    float experts[N] = {0}, weights[N] = {0};
    choose(router, NULL, logits, experts);
    const struct rp_weigh_experts args = {
        .router = router, .logits = logits, .experts = experts, .weights = weights};
    assert_int_equal(rp_op_weigh_experts(NULL, &one, &args), RP_OK);
    for (size_t k = 0; k < router->n_chosen; k++)
        if (!(fabs((double)weights[k] - expected[k]) < 1e-6))
            fail_msg("weight %zu is %.9g, expected %.9g", k, (double)weights[k], expected[k]);
}

static void the_best_are_chosen_and_of_equals_the_first(void **state)
{
    static const float equal[N] = {2, 1, 2, 2, 0, 0, 0, 0};
    const struct rp_router router = router_of(RP_ROUTER_SOFTMAX, 2);
    float experts[N];
    (void)state;
    expect_choice(&router, NULL, (const float[]){1, 7});
    choose(&router, NULL, equal, experts);
    assert_int_equal((int)experts[0], 0);
    assert_int_equal((int)experts[1], 2);
}

static void groups_are_chosen_by_their_best_or_by_the_sum_of_their_two_best(void **state)
{
    struct rp_router router = router_of(RP_ROUTER_SOFTMAX_CHOSEN, 2);
    (void)state;
    router.n_groups = 4; /* best: 4, 2, 3, 3.5; two best: 5, 2, 5.5, 2.5 */
    router.n_chosen_groups = 1;
    expect_choice(&router, NULL, (const float[]){1, 0});
    router.group_score = RP_GROUP_BEST_TWO;
    expect_choice(&router, NULL, (const float[]){4, 5});
    router.n_chosen_groups = 2;
    expect_choice(&router, NULL, (const float[]){1, 4});
    router.group_score = RP_GROUP_MAX;
    expect_choice(&router, NULL, (const float[]){1, 7});
}

static void a_correction_chooses_and_does_not_weigh(void **state)
{
    static const float correction[N] = {0, 0, 0, 2, 0, 0, 0, 0};
    struct rp_router router = router_of(RP_ROUTER_SIGMOID, 1);
    float experts[N], weight;
    (void)state;
    expect_choice(&router, correction, (const float[]){3});
    choose(&router, correction, logits, experts);
    const struct rp_weigh_experts args = {
        .router = &router, .logits = logits, .experts = experts, .weights = &weight};
    assert_int_equal(rp_op_weigh_experts(NULL, &one, &args), RP_OK);
    assert_true(weight == 0.5f);
}

static void weights_are_softmax_or_sigmoid_normalised_and_scaled(void **state)
{
    double all = 0;
    for (size_t i = 0; i < N; i++)
        all += exp((double)logits[i]);
    struct rp_router router = router_of(RP_ROUTER_SOFTMAX, 2);
    (void)state;
    expect_weights(&router, (const double[]){exp(4) / all, exp(3.5) / all});
    router.normalizes = true;
    router.scale = 2.5f;
    expect_weights(&router, (const double[]){2.5 / (1 + exp(-0.5)), 2.5 / (1 + exp(0.5))});
    router = router_of(RP_ROUTER_SOFTMAX_CHOSEN, 2);
    expect_weights(&router, (const double[]){1 / (1 + exp(-0.5)), 1 / (1 + exp(0.5))});
    router = router_of(RP_ROUTER_SIGMOID, 2);
    expect_weights(&router, (const double[]){1 / (1 + exp(-4)), 1 / (1 + exp(-3.5))});
}

static struct rp_choice_fault check(const struct rp_router *router, const float *row,
                                    const float *chosen, double noise)
{
    struct rp_choice_fault fault;
    assert_int_equal(rp_choice_check(router, NULL, row, chosen, noise, &fault, NULL), RP_OK);
    return fault;
}

static void the_right_choice_has_no_fault_in_any_order(void **state)
{
    const struct rp_router router = router_of(RP_ROUTER_SOFTMAX, 3);
    (void)state;
    assert_true(check(&router, logits, (const float[]){4, 1, 7}, 0).margin == 0);
}

static void a_wrong_choice_names_both_experts(void **state)
{
    const enum rp_router_scores scores[] = {RP_ROUTER_SOFTMAX, RP_ROUTER_SIGMOID,
                                            RP_ROUTER_SOFTMAX_CHOSEN};
    (void)state;
    for (size_t i = 0; i < sizeof scores / sizeof *scores; i++) {
        const struct rp_router router = router_of(scores[i], 3);
        const struct rp_choice_fault fault = check(&router, logits, (const float[]){5, 1, 7}, 0);
        assert_true(fault.margin > 1000 * fault.limit);
        assert_int_equal(fault.wrong, 5);
        assert_int_equal(fault.missing, 4);
        assert_false(fault.is_of_groups);
    }
}

static void what_is_no_choice_is_not_a_number(void **state)
{
    const struct rp_router router = router_of(RP_ROUTER_SOFTMAX, 2);
    (void)state;
    assert_true(isnan(check(&router, logits, (const float[]){1, 1}, 0).margin));
    assert_true(isnan(check(&router, logits, (const float[]){1, 8}, 0).margin));
    assert_true(isnan(check(&router, logits, (const float[]){1, -1}, 0).margin));
    assert_true(isnan(check(&router, logits, (const float[]){1, 0.5f}, 0).margin));
    assert_true(isnan(check(&router, logits, (const float[]){1, NAN}, 0).margin));
}

static void scores_within_rounding_or_noise_are_a_tie(void **state)
{
    float close[N];
    double distance;
    const struct rp_router router = router_of(RP_ROUTER_SOFTMAX, 3);
    (void)state;
    memcpy(close, logits, sizeof close);
    close[5] = 3 - 3e-7f; /* a last bit of FP32 */
    const struct rp_choice_fault tie = check(&router, close, (const float[]){5, 1, 7}, 0);
    assert_true(tie.margin > 0 && tie.margin <= tie.limit);
    assert_int_equal(rp_choice_distance(&router, NULL, close, 0, &distance, NULL), RP_OK);
    assert_true(distance < 1);
    close[5] = 3 - 3e-5f; /* not of FP32; of logits that are off by 1e-4 */
    const struct rp_choice_fault wrong = check(&router, close, (const float[]){5, 1, 7}, 0);
    assert_true(wrong.margin > wrong.limit);
    assert_int_equal(rp_choice_distance(&router, NULL, close, 0, &distance, NULL), RP_OK);
    assert_true(distance > 1);
    const struct rp_choice_fault noisy = check(&router, close, (const float[]){5, 1, 7}, 1e-4);
    assert_true(noisy.margin <= noisy.limit);
    assert_int_equal(rp_choice_distance(&router, NULL, close, 1e-4, &distance, NULL), RP_OK);
    assert_true(distance < 1);
}

static void an_expert_of_a_group_that_is_not_chosen_is_said_to_be(void **state)
{
    struct rp_router router = router_of(RP_ROUTER_SOFTMAX_CHOSEN, 2);
    (void)state;
    router.n_groups = 4;
    router.n_chosen_groups = 1;
    const struct rp_choice_fault fault = check(&router, logits, (const float[]){7, 6}, 0);
    assert_true(fault.is_of_groups);
    assert_true(fault.margin > fault.limit);
    assert_true(check(&router, logits, (const float[]){1, 0}, 0).margin == 0);
    /* of two groups where one may be chosen */
    assert_true(check(&router, logits, (const float[]){1, 7}, 0).margin > 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_best_are_chosen_and_of_equals_the_first),
        cmocka_unit_test(groups_are_chosen_by_their_best_or_by_the_sum_of_their_two_best),
        cmocka_unit_test(a_correction_chooses_and_does_not_weigh),
        cmocka_unit_test(weights_are_softmax_or_sigmoid_normalised_and_scaled),
        cmocka_unit_test(the_right_choice_has_no_fault_in_any_order),
        cmocka_unit_test(a_wrong_choice_names_both_experts),
        cmocka_unit_test(what_is_no_choice_is_not_a_number),
        cmocka_unit_test(scores_within_rounding_or_noise_are_a_tie),
        cmocka_unit_test(an_expert_of_a_group_that_is_not_chosen_is_said_to_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
