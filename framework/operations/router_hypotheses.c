/* Hypotheses about a mixture of experts' router: the choice of experts, and what their outputs are multiplied by. */

#include "operations/hypotheses.h"
#include "operations/router.h"

#define NONE RP_NO_PARAMETER

enum option {
    /* choice */
    NO_GROUPS,
    OTHER_GROUP_SCORE,
    NO_CORRECTION,
    /* weights */
    OTHER_NORM,
    NO_SCALE,
    LOGITS,
    SOFTMAX,
    SIGMOID,
    SOFTMAX_CHOSEN,
    CORRECTED,
    FEWER
};

static enum rp_status choose_experts(void *context, const struct rp_site *site,
                                     const struct rp_choose_experts *args)
{
    const struct rp_change *change = context;
    struct rp_router router = *args->router;
    struct rp_choose_experts wrong = *args;
    wrong.router = &router;
    if (change->what.option == NO_GROUPS)
        router.n_groups = router.n_chosen_groups = 1;
    else if (change->what.option == OTHER_GROUP_SCORE)
        router.group_score = router.group_score == RP_GROUP_MAX ? RP_GROUP_BEST_TWO : RP_GROUP_MAX;
    else
        wrong.correction = NULL;
    return RP_RUN_BELOW(change, choose_experts, site, &wrong);
}

/* The lowest weight of a position is 0, the others are as if it were not chosen. */
static void take_fewer(const struct rp_router *router, float *weights)
{
    size_t lowest = 0;
    float before = 0, after = 0;
    for (size_t k = 0; k < router->n_chosen; k++) {
        lowest = weights[k] < weights[lowest] ? k : lowest;
        before += weights[k];
    }
    weights[lowest] = 0;
    for (size_t k = 0; k < router->n_chosen; k++)
        after += weights[k];
    for (size_t k = 0; k < router->n_chosen && router->normalizes && after > 0; k++)
        weights[k] *= before / after;
}

static void use_logits(const struct rp_weigh_experts *args, size_t n_positions)
{
    const struct rp_router *router = args->router;
    for (size_t at = 0; at < n_positions * router->n_chosen; at++) {
        const size_t expert = rp_expert_number(router, args->experts[at]);
        if (expert != SIZE_MAX)
            args->weights[at] = args->logits[at / router->n_chosen * router->n_experts + expert];
    }
}

/* Weights, which are scores still, with the correction bias in them. */
static void correct_weights(const struct rp_change *change, const struct rp_weigh_experts *args,
                            size_t n_positions)
{
    const struct rp_router *router = args->router;
    const float *correction = change->weights->weights[RP_ROUTER_CORRECTION].data;
    for (size_t p = 0; p < n_positions; p++) {
        const float *experts = args->experts + p * router->n_chosen;
        float *weights = args->weights + p * router->n_chosen, sum = 0;
        for (size_t k = 0; k < router->n_chosen; k++) {
            const size_t expert = rp_expert_number(router, experts[k]);
            weights[k] += correction && expert != SIZE_MAX ? correction[expert] : 0;
            sum += weights[k];
        }
        for (size_t k = 0; k < router->n_chosen; k++)
            weights[k] = (router->normalizes ? weights[k] / sum : weights[k]) * router->scale;
    }
}

static enum rp_status weigh_experts(void *context, const struct rp_site *site,
                                    const struct rp_weigh_experts *args)
{
    const struct rp_change *change = context;
    const size_t n = args->router->n_chosen;
    struct rp_router router = *args->router;
    struct rp_weigh_experts wrong = *args;
    wrong.router = &router;
    switch (change->what.option) {
    case OTHER_NORM: router.normalizes = !router.normalizes; break;
    case NO_SCALE: router.scale = 1; break;
    case SOFTMAX: router.scores = RP_ROUTER_SOFTMAX; break;
    case SIGMOID: router.scores = RP_ROUTER_SIGMOID; break;
    case SOFTMAX_CHOSEN: router.scores = RP_ROUTER_SOFTMAX_CHOSEN; break;
    case CORRECTED:
        router.normalizes = false;
        router.scale = 1;
        break;
    default: break;
    }
    const enum rp_status status = RP_RUN_BELOW(change, weigh_experts, site, &wrong);
    if (change->what.option == LOGITS)
        use_logits(args, site->n_positions);
    if (change->what.option == CORRECTED)
        correct_weights(change, args, site->n_positions);
    for (size_t p = 0; p < site->n_positions && change->what.option == FEWER; p++)
        take_fewer(args->router, args->weights + p * n);
    return status;
}

static void install_choice(struct rp_ops *ops)
{
    ops->choose_experts = choose_experts;
}

static void install_weights(struct rp_ops *ops)
{
    ops->weigh_experts = weigh_experts;
}

static void add_choice(struct rp_search *search)
{
    const struct rp_router *router = &search->config->router;
    static const struct rp_hypothesis of_groups[] = {
        {"router-groups", NO_GROUPS, NONE, "experts chosen from all groups"},
        {"router-groups", OTHER_GROUP_SCORE, NONE,
         "groups chosen by another score: their best expert's, or the sum of their two best"},
    };
    static const struct rp_hypothesis of_correction = {
        "router-correction", NO_CORRECTION, NONE, "experts chosen without the correction bias"};
    if (router->n_groups > 1)
        RP_ADD_ALL(search, RP_STEP_CHOOSE_EXPERTS, install_choice, of_groups);
    if (search->weights.weights[RP_ROUTER_CORRECTION].data)
        rp_search_add_all(search, RP_STEP_CHOOSE_EXPERTS, install_choice, &of_correction, 1);
}

static enum rp_status take_scale(const struct rp_change *change, size_t n, size_t dim,
                                 float *rows, /* NOLINT(readability-non-const-parameter) */
                                 struct rp_error *err)
{
    (void)err;
    for (size_t i = 0; i < n * dim; i++)
        rows[i] = (float)((double)rows[i] * change->what.value);
    return RP_OK;
}

/* Of the weights themselves a constant factor is tried as early, and says less. */
static void add_scale(struct rp_search *search)
{
    static const char text[] = "the experts' weights without the routed scale";
    const float scale = search->config->router.scale;
    if (search->slot.part == RP_PART_EXPERTW)
        rp_search_add(search,
                      rp_candidate_of_rows("router-scale", take_scale, 1 / (double)scale, NULL),
                      "%s", text);
    else
        rp_search_add(search,
                      rp_candidate_make("router-scale", install_weights, NO_SCALE, RP_N_WEIGHTS),
                      "%s", text);
}

static void add_weights(struct rp_search *search)
{
    const struct rp_router *router = &search->config->router;
    const struct rp_hypothesis norm = {
        "router-norm", OTHER_NORM, NONE,
        router->normalizes ? "the experts' weights are not divided by their sum"
                           : "the experts' weights are divided by their sum; the model's are not"};
    static const struct rp_hypothesis scores[] = {
        {"router-scores", LOGITS, NONE, "the experts' weights are the router's logits"},
        {"router-scores", SOFTMAX, NONE, "the experts' weights are a softmax of all logits"},
        {"router-scores", SIGMOID, NONE, "the experts' weights are sigmoids"},
        {"router-scores", SOFTMAX_CHOSEN, NONE,
         "the experts' weights are a softmax of the chosen logits"},
        {"router-top-k", FEWER, NONE, "one expert less is chosen"},
    };
    static const struct rp_hypothesis corrected = {
        "router-correction", CORRECTED, NONE,
        "the experts' weights have the correction bias in them, which is for the choice alone"};
    rp_search_add_all(search, RP_STEP_WEIGH_EXPERTS, install_weights, &norm, 1);
    if ((router->scale < 1 || router->scale > 1) &&
        rp_search_has_step(search, RP_STEP_WEIGH_EXPERTS, RP_N_WEIGHTS))
        add_scale(search);
    RP_ADD_ALL(search, RP_STEP_WEIGH_EXPERTS, install_weights, scores);
    if (search->weights.weights[RP_ROUTER_CORRECTION].data)
        rp_search_add_all(search, RP_STEP_WEIGH_EXPERTS, install_weights, &corrected, 1);
}

void rp_collect_router(struct rp_search *search)
{
    add_choice(search);
    add_weights(search);
}
