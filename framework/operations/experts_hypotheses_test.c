/* Bugs of a mixture of experts are found in their operation, and nowhere else, and named; a right engine and a tie
 * are not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "operations/bugs_check_test_util.h"

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "operations/experts_model_test_util.h"
#include "operations/router.h"

enum { N = RP_TEST_EXPERTS, K = RP_TEST_CHOSEN };

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

/* ---- the bugs ---- */

enum { NO_NORM, LOGITS, NO_SCALE, FEWER, SIGMOID };

static enum rp_status wrong_weights(void *context, const struct rp_site *site,
                                    const struct rp_weigh_experts *args)
{
    struct rp_test_bug *bug = context;
    const enum rp_status status = RP_TEST_BELOW(bug, weigh_experts, site, args);
    for (size_t p = 0; rp_test_bug_is_here(bug, site) && p < site->n_positions; p++) {
        const float *logits = args->logits + p * N, *experts = args->experts + p * K;
        float *weights = args->weights + p * K, sum = 0, all = 0;
        size_t least = 0;
        for (size_t i = 0; i < N; i++)
            all += expf(logits[i]);
        for (size_t k = 0; k < K; k++) {
            const float logit = logits[(size_t)experts[k]];
            least = weights[k] < weights[least] ? k : least;
            if (bug->option == NO_NORM)
                weights[k] = expf(logit) / all;
            else if (bug->option == LOGITS)
                weights[k] = logit;
            else if (bug->option == NO_SCALE)
                weights[k] /= args->router->scale;
            else if (bug->option == SIGMOID)
                weights[k] = 1 / (1 + expf(-logit));
            sum += weights[k];
        }
        for (size_t k = 0; k < K && bug->option == FEWER; k++)
            sum -= k == least ? weights[least] : 0;
        for (size_t k = 0; k < K && bug->option == FEWER; k++)
            weights[k] = k == least ? 0 : weights[k] / sum;
        for (size_t k = 0; k < K && bug->option == SIGMOID; k++)
            weights[k] /= sum;
    }
    return status;
}

static void install_weights(struct rp_ops *ops)
{
    ops->weigh_experts = wrong_weights;
}

/* The best of all, whatever their groups; at one position an expert for another, which is not the best. */
enum { ALL_GROUPS, ONE_WRONG, OUT_OF_RANGE, TWICE };

static enum rp_status wrong_choice(void *context, const struct rp_site *site,
                                   const struct rp_choose_experts *args)
{
    struct rp_test_bug *bug = context;
    const enum rp_status status = RP_TEST_BELOW(bug, choose_experts, site, args);
    for (size_t p = 0; rp_test_bug_is_here(bug, site) && p < site->n_positions; p++) {
        const float *logits = args->logits + p * N;
        float *experts = args->experts + p * K;
        bool is_taken[N] = {false};
        if (bug->option != ALL_GROUPS && site->positions[p] != 7)
            continue;
        for (size_t k = 0; k < K; k++) {
            size_t best = N;
            for (size_t i = 0; i < N; i++)
                if (!is_taken[i] && (best == N || logits[i] > logits[best]))
                    best = i;
            is_taken[best] = true;
            if (bug->option == ALL_GROUPS)
                experts[k] = (float)best;
        }
        size_t lowest = 0;
        for (size_t i = 0; i < N; i++)
            if (!is_taken[i])
                lowest = i;
        if (bug->option != ALL_GROUPS)
            experts[K - 1] = bug->option == ONE_WRONG ? (float)lowest
                             : bug->option == TWICE   ? experts[0]
                                                      : 99;
    }
    return status;
}

static void install_choice(struct rp_ops *ops)
{
    ops->choose_experts = wrong_choice;
}

/* Experts 0 to 3 have one logit, which is the best of all; the last of them is taken, and not the first. */
static enum rp_status tied_logits(void *context, const struct rp_site *site,
                                  const struct rp_linear *args)
{
    struct rp_test_bug *bug = context;
    const enum rp_status status = RP_TEST_BELOW(bug, linear, site, args);
    for (size_t p = 0; args->which == RP_ROUTER && p < site->n_positions; p++)
        for (size_t i = 0; i < 4; i++)
            args->y[p * args->y_stride + i] = 30;
    return status;
}

static enum rp_status other_of_tie(void *context, const struct rp_site *site,
                                   const struct rp_choose_experts *args)
{
    (void)context;
    for (size_t at = 0; at < site->n_positions * K; at++)
        args->experts[at] = (float)(at % K + 1);
    return RP_OK;
}

static void install_tie(struct rp_ops *ops)
{
    ops->linear = tied_logits;
    ops->choose_experts = other_of_tie;
}

/* Expert 2's matrix is expert 5's; each one's is the next one's; the one by its place in the choice. */
enum { REPLACED, SHIFTED, WEIGHTED };

static float remembered_weights[64 * K];

static enum rp_status wrong_product(void *context, const struct rp_site *site,
                                    const struct rp_linear *args)
{
    struct rp_test_bug *bug = context;
    struct rp_linear wrong = *args;
    const bool is_here =
        rp_test_bug_is_here(bug, site) && args->expert && args->which == bug->which;
    if (!is_here || (bug->option == REPLACED && args->expert->expert != 2))
        return RP_TEST_BELOW(bug, linear, site, args);
    const struct rp_weight *stack = &bug->own_weights->weights[args->which];
    const size_t other = bug->option == REPLACED ? 5 : (args->expert->expert + 1) % N;
    float *matrix = rp_test_copy(args->weight, args->n_out * args->n_in);
    float *x = rp_test_copy(args->x, site->n_positions * args->n_in);
    for (size_t i = 0; i < site->n_positions * args->n_in && bug->option == WEIGHTED; i++)
        x[i] *= remembered_weights[args->expert->at[i / args->n_in]];
    if (bug->option != WEIGHTED)
        assert_int_equal(
            rp_gguf_rows(stack->gguf, stack->stack, other * args->n_out, args->n_out, matrix, NULL),
            RP_OK);
    wrong.weight = matrix;
    wrong.x = x;
    const enum rp_status status = RP_TEST_BELOW(bug, linear, site, &wrong);
    free(matrix);
    free(x);
    return status;
}

static enum rp_status remember_weights(void *context, const struct rp_site *site,
                                       const struct rp_weigh_experts *args)
{
    struct rp_test_bug *bug = context;
    const enum rp_status status = RP_TEST_BELOW(bug, weigh_experts, site, args);
    if (rp_test_bug_is_here(bug, site))
        memcpy(remembered_weights, args->weights, site->n_positions * K * sizeof(float));
    return status;
}

static void install_product(struct rp_ops *ops)
{
    ops->linear = wrong_product;
    ops->weigh_experts = remember_weights;
}

static enum rp_status unweighted(void *context, const struct rp_site *site,
                                 const struct rp_sum_experts *args)
{
    struct rp_test_bug *bug = context;
    const enum rp_status status = RP_TEST_BELOW(bug, sum_experts, site, args);
    for (size_t i = 0; rp_test_bug_is_here(bug, site) && i < site->n_positions * args->dim; i++) {
        const float *x = args->x + i / args->dim * K * args->dim + i % args->dim;
        args->y[i] = x[0] + x[args->dim] + x[2 * args->dim];
    }
    return status;
}

static void install_unweighted(struct rp_ops *ops)
{
    ops->sum_experts = unweighted;
}

enum { UNGATED, NO_SIGMOID, NOT_ADDED };

static enum rp_status wrong_shared(void *context, const struct rp_site *site,
                                   const struct rp_add_shared_expert *args)
{
    struct rp_test_bug *bug = context;
    if (!rp_test_bug_is_here(bug, site))
        return RP_TEST_BELOW(bug, add_shared_expert, site, args);
    for (size_t i = 0; i < site->n_positions * args->dim && bug->option != NOT_ADDED; i++)
        args->y[i] += args->shared[i] * (bug->option == UNGATED ? 1 : args->gate[i / args->dim]);
    return RP_OK;
}

static void install_shared(struct rp_ops *ops)
{
    ops->add_shared_expert = wrong_shared;
}

/* ---- what has to be found ---- */

static const struct rp_test_experts_model plain,
    shared = {.has_shared = true}, grouped = {.n_groups = 4}, scaled = {.scale = 2.5f, .scores = 2};

static struct rp_test_engine engine_of(const struct rp_test_experts_model *model, int option,
                                       void (*install)(struct rp_ops *ops))
{
    rp_test_write_experts_model(path, model);
    return (struct rp_test_engine){.model = path,
                                   .install = install,
                                   .layer = 1,
                                   .option = option,
                                   .level = RP_SLOTS_OPERATIONS,
                                   .n_tokens = 40};
}

/* In that slot alone. */
static void expect_named(struct rp_test_engine engine, const char *slot, const char *name)
{
    const struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
    assert_string_equal(report.slot, slot);
    if (strcmp(report.explanation.name, name) != 0)
        fail_msg("%s: '%s' for '%s': %s", slot, report.explanation.name, name,
                 report.explanation.text);
    if (report.n_failing != 1)
        fail_msg("%s: %zu slots fail", slot, report.n_failing);
}

static void a_right_engine_passes_whatever_it_dumps(void **state)
{
    const struct rp_test_experts_model *const models[4] = {&plain, &shared, &grouped, &scaled};
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct rp_test_engine engine = engine_of(models[i], 0, NULL);
        assert_int_equal(rp_test_explain(RP_SOURCE_DIR, &engine).n_failing, 0);
        engine.without = "_experts";
        assert_int_equal(rp_test_explain(RP_SOURCE_DIR, &engine).n_failing, 0);
        engine.without = "_router";
        assert_int_equal(rp_test_explain(RP_SOURCE_DIR, &engine).n_failing, 0);
        engine.without = NULL;
        engine.level = RP_SLOTS_LAYERS;
        assert_int_equal(rp_test_explain(RP_SOURCE_DIR, &engine).n_failing, 0);
    }
}

static void weights_of_the_wrong_kind_are_named(void **state)
{
    (void)state;
    expect_named(engine_of(&plain, NO_NORM, install_weights), "h1_expertw", "router-norm");
    expect_named(engine_of(&shared, NO_NORM, install_weights), "h1_expertw", "router-norm");
    expect_named(engine_of(&plain, LOGITS, install_weights), "h1_expertw", "router-scores");
    expect_named(engine_of(&plain, SIGMOID, install_weights), "h1_expertw", "router-scores");
    expect_named(engine_of(&plain, FEWER, install_weights), "h1_expertw", "router-top-k");
    expect_named(engine_of(&scaled, NO_SCALE, install_weights), "h1_expertw", "router-scale");
}

static void they_are_named_in_a_dump_of_layers_too(void **state)
{
    struct rp_test_engine engine = engine_of(&plain, NO_NORM, install_weights);
    (void)state;
    engine.level = RP_SLOTS_LAYERS;
    expect_named(engine, "h1_ffnout", "router-norm");
    engine.option = FEWER;
    expect_named(engine, "h1_ffnout", "router-top-k");
}

static void experts_of_all_groups_are_named(void **state)
{
    (void)state;
    expect_named(engine_of(&grouped, ALL_GROUPS, install_choice), "h1_experts", "router-groups");
}

static void an_expert_chosen_wrongly_is_said_with_the_one_it_was_taken_for(void **state)
{
    const struct rp_test_engine engine = engine_of(&plain, ONE_WRONG, install_choice);
    const struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
    (void)state;
    assert_string_equal(report.slot, "h1_experts");
    assert_int_equal(report.n_failing, 1);
    assert_non_null(strstr(report.message, " at position 7, router logits "));
    assert_non_null(strstr(report.message, "; wrong at 1 of 40 positions"));
}

/* At one position the dump has a number that the engine did not run: the lowest, or the highest, of the others. */
static bool is_last_other;

static void spoil_number(const char *slot, int64_t position, float *row, size_t dim)
{
    bool is_chosen[N] = {false};
    size_t other = N;
    if (strcmp(slot, "h1_experts") != 0 || position != 7)
        return;
    for (size_t k = 0; k < dim; k++)
        is_chosen[(size_t)row[k]] = true;
    for (size_t i = 0; i < N; i++)
        if (!is_chosen[i] && (other == N || is_last_other))
            other = i;
    row[1] = (float)other;
}

static void a_wrong_number_in_the_dump_is_what_is_named(void **state)
{
    static const char *const parts[] = {"_expertw", "_gate", "_up", "_ffnout"};
    (void)state;
    for (size_t i = 0; i < 2 * sizeof parts / sizeof *parts; i++) {
        struct rp_test_engine engine = engine_of(&plain, 0, NULL);
        engine.spoils = spoil_number;
        engine.of = parts[i / 2];
        is_last_other = i % 2 == 1;
        const struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
        assert_int_equal(report.verdict, RP_FAIL);
        assert_string_equal(report.explanation.name, "experts-number");
        assert_int_equal(report.n_failing, 5); /* the choice, too */
    }
}

/* The twin: the engine runs the wrong expert. Then the choice alone is wrong. */
static void an_engine_that_runs_the_wrong_expert_fails_at_its_choice_alone(void **state)
{
    const struct rp_test_engine engine = engine_of(&plain, ONE_WRONG, install_choice);
    const struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
    (void)state;
    assert_string_equal(report.slot, "h1_experts");
    assert_int_equal(report.n_failing, 1);
    assert_string_not_equal(report.explanation.name, "experts-number");
}

/* What reads it has nothing to be computed from, and whole numbers say nothing of the type of the engine's state. */
static void numbers_that_are_no_choice_fail_and_nothing_else_does(void **state)
{
    (void)state;
    for (int option = OUT_OF_RANGE; option <= TWICE; option++) {
        const struct rp_test_engine engine = engine_of(&plain, option, install_choice);
        const struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
        assert_string_equal(report.slot, "h1_experts");
        assert_int_equal(report.n_failing, 1);
        assert_string_equal(report.message,
                            "at position 7 a number that is no expert's, or one twice; wrong at 1 "
                            "of 40 positions");
    }
}

static void a_tie_passes_and_is_said(void **state)
{
    struct rp_test_engine engine = engine_of(&plain, 0, install_tie);
    (void)state;
    engine.of = "_experts";
    const struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
    assert_int_equal(report.verdict, RP_PASS);
    assert_non_null(strstr(report.message, "the same experts"));
    assert_int_equal(report.n_failing, 1); /* the router's product, whose logits are wrong */
}

static void another_experts_matrix_is_named(void **state)
{
    static const struct {
        enum rp_weight_id which;
        const char *slot;
    } products[] = {
        {RP_EXPERTS_GATE, "h1_gate"}, {RP_EXPERTS_UP, "h1_up"}, {RP_EXPERTS_DOWN, "h1_ffnout"}};
    (void)state;
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        struct rp_test_engine engine = engine_of(&plain, REPLACED, install_product);
        engine.which = products[i].which;
        const struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
        assert_string_equal(report.explanation.name, "expert-matrix");
        assert_non_null(strstr(report.explanation.text, "expert 2 multiplies by expert 5's"));
        engine.option = SHIFTED;
        expect_named(engine, products[i].slot, "expert-matrix");
    }
}

static void weights_left_out_or_on_the_input_are_named(void **state)
{
    struct rp_test_engine engine = engine_of(&plain, WEIGHTED, install_product);
    (void)state;
    engine.which = RP_EXPERTS_GATE;
    expect_named(engine, "h1_gate", "experts-weights");
    expect_named(engine_of(&plain, 0, install_unweighted), "h1_ffnout", "experts-weights");
    expect_named(engine_of(&shared, 0, install_unweighted), "h1_moe", "experts-weights");
}

static void a_shared_expert_without_its_gate_is_named(void **state)
{
    (void)state;
    expect_named(engine_of(&shared, UNGATED, install_shared), "h1_ffnout", "shared-gate");
    expect_named(engine_of(&shared, NO_SIGMOID, install_shared), "h1_ffnout", "shared-gate");
    expect_named(engine_of(&shared, NOT_ADDED, install_shared), "h1_ffnout", "shared-missing");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_right_engine_passes_whatever_it_dumps),
        cmocka_unit_test(weights_of_the_wrong_kind_are_named),
        cmocka_unit_test(they_are_named_in_a_dump_of_layers_too),
        cmocka_unit_test(experts_of_all_groups_are_named),
        cmocka_unit_test(an_expert_chosen_wrongly_is_said_with_the_one_it_was_taken_for),
        cmocka_unit_test(a_wrong_number_in_the_dump_is_what_is_named),
        cmocka_unit_test(an_engine_that_runs_the_wrong_expert_fails_at_its_choice_alone),
        cmocka_unit_test(numbers_that_are_no_choice_fail_and_nothing_else_does),
        cmocka_unit_test(a_tie_passes_and_is_said),
        cmocka_unit_test(another_experts_matrix_is_named),
        cmocka_unit_test(weights_left_out_or_on_the_input_are_named),
        cmocka_unit_test(a_shared_expert_without_its_gate_is_named),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
