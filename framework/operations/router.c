/* A mixture's router behind its product: scores, the choice of experts, and their weights. */
#include "operations/router.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "operations/activation.h"

/* In units of u: exp, difference, division and product of a score. */
#define SCORE_ERROR 3.0

/* ---- scores ---- */

static float largest_of(const float *values, size_t n)
{
    float largest = -INFINITY;
    for (size_t i = 0; i < n; i++)
        largest = values[i] > largest ? values[i] : largest;
    return largest;
}

/* scores [n_experts]: what weights are made of. */
static void scores_of(const struct rp_router *router, const float *logits, float *scores)
{
    const size_t n = router->n_experts;
    const float largest = largest_of(logits, n);
    float sum = 0;
    if (router->scores == RP_ROUTER_SOFTMAX_CHOSEN) {
        memcpy(scores, logits, n * sizeof *scores);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        scores[i] =
            router->scores == RP_ROUTER_SIGMOID ? rp_sigmoid(logits[i]) : expf(logits[i] - largest);
        sum += scores[i];
    }
    for (size_t i = 0; i < n && router->scores == RP_ROUTER_SOFTMAX; i++)
        scores[i] /= sum;
}

/* The best of n that is not taken, of equals the first; SIZE_MAX: all are. */
static size_t best_of(const float *scores, const bool *is_taken, size_t first, size_t n)
{
    size_t best = SIZE_MAX;
    for (size_t i = first; i < first + n; i++)
        if (!is_taken[i] && (best == SIZE_MAX || scores[i] > scores[best]))
            best = i;
    return best;
}

/* Experts of a group. */
static size_t group_size(const struct rp_router *router)
{
    const size_t n = router->n_groups > 0 ? router->n_experts / router->n_groups : 0;
    return n > 0 ? n : 1;
}

static float group_score(const struct rp_router *router, const float *scores, size_t group)
{
    const size_t n = group_size(router);
    float best = -INFINITY, second = -INFINITY;
    for (size_t i = group * n; i < (group + 1) * n; i++) {
        if (scores[i] > best) {
            second = best;
            best = scores[i];
        } else if (scores[i] > second) {
            second = scores[i];
        }
    }
    return router->group_score == RP_GROUP_BEST_TWO && n > 1 ? best + second : best;
}

/* What one row's choice is made by. */
struct choice {
    const struct rp_router *router;
    float *scores;         /* [n_experts] the correction among them */
    double *errors;        /* [n_experts] standard errors of them */
    float *groups;         /* [n_groups] scores */
    bool *is_chosen_group; /* [n_groups] */
    bool *is_taken;        /* [n_experts]: chosen, or of no chosen group */
    void *owned;
};

static enum rp_status choice_open(struct choice *choice, const struct rp_router *router,
                                  struct rp_error *err)
{
    const size_t n = router->n_experts, n_groups = router->n_groups;
    unsigned char *at = calloc(n + n_groups, sizeof(double) + sizeof(float) + sizeof(bool));
    *choice = (struct choice){.router = router, .owned = at};
    if (!at)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu experts", n);
    choice->errors = (double *)(void *)at;
    at += (n + n_groups) * sizeof(double);
    choice->scores = (float *)(void *)at;
    choice->groups = choice->scores + n;
    at += (n + n_groups) * sizeof(float);
    choice->is_taken = (bool *)(void *)at;
    choice->is_chosen_group = choice->is_taken + n;
    return RP_OK;
}

static bool has_groups(const struct rp_router *router)
{
    return router->n_groups > 1 && router->n_chosen_groups < router->n_groups;
}

static void take_groups(struct choice *choice)
{
    const struct rp_router *router = choice->router;
    const size_t n = group_size(router);
    for (size_t k = 0; k < router->n_chosen_groups; k++) {
        const size_t best = best_of(choice->groups, choice->is_chosen_group, 0, router->n_groups);
        if (best != SIZE_MAX)
            choice->is_chosen_group[best] = true;
    }
    for (size_t i = 0; i < router->n_experts; i++)
        choice->is_taken[i] = !choice->is_chosen_group[i / n];
}

/* Scores, and which experts may be chosen. */
static void choice_begin(struct choice *choice, const float *correction, const float *logits)
{
    const struct rp_router *router = choice->router;
    memset(choice->is_taken, 0, router->n_experts * sizeof *choice->is_taken);
    memset(choice->is_chosen_group, 0, router->n_groups * sizeof *choice->is_chosen_group);
    scores_of(router, logits, choice->scores);
    for (size_t i = 0; correction && i < router->n_experts; i++)
        choice->scores[i] += correction[i];
    if (!has_groups(router))
        return;
    for (size_t group = 0; group < router->n_groups; group++)
        choice->groups[group] = group_score(router, choice->scores, group);
}

enum rp_status rp_op_choose_experts(void *context, const struct rp_site *site,
                                    const struct rp_choose_experts *args)
{
    const struct rp_router *router = args->router;
    struct choice choice;
    enum rp_status status = choice_open(&choice, router, site->err);
    (void)context;
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        float *experts = args->experts + p * router->n_chosen;
        choice_begin(&choice, args->correction, args->logits + p * router->n_experts);
        if (has_groups(router))
            take_groups(&choice);
        for (size_t k = 0; k < router->n_chosen; k++) {
            const size_t best = best_of(choice.scores, choice.is_taken, 0, router->n_experts);
            experts[k] = best == SIZE_MAX ? NAN : (float)best;
            if (best != SIZE_MAX)
                choice.is_taken[best] = true;
        }
    }
    free(choice.owned);
    return status;
}

/* ---- weights ---- */

static void softmax_of_chosen(float *weights, size_t n)
{
    const float largest = largest_of(weights, n);
    float sum = 0;
    for (size_t k = 0; k < n; k++) {
        weights[k] = expf(weights[k] - largest);
        sum += weights[k];
    }
    for (size_t k = 0; k < n; k++)
        weights[k] /= sum;
}

enum rp_status rp_op_weigh_experts(void *context, const struct rp_site *site,
                                   const struct rp_weigh_experts *args)
{
    const struct rp_router *router = args->router;
    const size_t n = router->n_chosen;
    float *scores = malloc((router->n_experts + 1) * sizeof *scores);
    (void)context;
    if (!scores)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu experts",
                       router->n_experts);
    for (size_t p = 0; p < site->n_positions; p++) {
        const float *experts = args->experts + p * n;
        float *weights = args->weights + p * n, sum = 0;
        scores_of(router, args->logits + p * router->n_experts, scores);
        for (size_t k = 0; k < n; k++) {
            const size_t expert = rp_expert_number(router, experts[k]);
            weights[k] = expert == SIZE_MAX ? NAN : scores[expert];
        }
        if (router->scores == RP_ROUTER_SOFTMAX_CHOSEN)
            softmax_of_chosen(weights, n);
        for (size_t k = 0; k < n; k++)
            sum += weights[k];
        for (size_t k = 0; k < n; k++)
            weights[k] = (router->normalizes ? weights[k] / sum : weights[k]) * router->scale;
    }
    free(scores);
    return RP_OK;
}

/* Each exponential is off by its argument's rounding and by SCORE_ERROR, sums by RP_SUM_ERROR; a quotient has them
 * of both. */
enum rp_status rp_sigma_weigh_experts(const struct rp_site *site,
                                      const struct rp_weigh_experts *args, float *sigma)
{
    const struct rp_router *router = args->router;
    const double of_sum = RP_SUM_ERROR * sqrt((double)router->n_experts);
    for (size_t p = 0; p < site->n_positions; p++) {
        const float *logits = args->logits + p * router->n_experts;
        const float largest = largest_of(logits, router->n_experts);
        for (size_t k = 0; k < router->n_chosen; k++) {
            const size_t at = p * router->n_chosen + k;
            const size_t expert = rp_expert_number(router, args->experts[at]);
            const double x = expert == SIZE_MAX ? 0 : (double)logits[expert];
            const double distance =
                router->scores == RP_ROUTER_SIGMOID ? fabs(x) : (double)largest - x;
            sigma[at] = (float)(RP_UNIT_ROUNDOFF * fabs((double)args->weights[at]) *
                                (2 * SCORE_ERROR + of_sum + distance));
        }
    }
    return RP_OK;
}

/* ---- is a choice right ---- */

/* Standard errors of the scores, of logits that are off by noise / 3 each. */
static void set_errors(struct choice *choice, const float *correction, const float *logits,
                       double noise)
{
    const struct rp_router *router = choice->router;
    const size_t n = router->n_experts;
    const double largest = (double)largest_of(logits, n);
    const double of_sum = correction ? RP_SUM_ERROR * sqrt((double)n) : 0;
    for (size_t i = 0; i < n; i++) {
        const double x = (double)logits[i], score = (double)choice->scores[i];
        const double own = correction ? score - (double)correction[i] : score;
        const bool is_sigmoid = router->scores == RP_ROUTER_SIGMOID;
        const double distance = is_sigmoid ? fabs(x) : largest - x;
        const double relative = RP_UNIT_ROUNDOFF * (SCORE_ERROR + of_sum + distance);
        double error = fabs(own) * hypot(relative, noise / RP_BOUND_SIGMAS);
        if (is_sigmoid)
            error = fabs(own) *
                    hypot(RP_UNIT_ROUNDOFF * SCORE_ERROR, (1 - own) * noise / RP_BOUND_SIGMAS);
        if (router->scores == RP_ROUTER_SOFTMAX_CHOSEN)
            error = noise / RP_BOUND_SIGMAS;
        choice->errors[i] = error + (correction ? RP_UNIT_ROUNDOFF * fabs(score) : 0);
        /* Scores that FP32 may have as 0 are equal. */
        if (router->scores == RP_ROUTER_SOFTMAX && distance > 80)
            choice->errors[i] += (double)1e-35f;
    }
}

static double group_error(const struct choice *choice, size_t group)
{
    const struct rp_router *router = choice->router;
    const size_t n = group_size(router);
    double error = 0;
    for (size_t i = group * n; i < (group + 1) * n; i++)
        error = fmax(error, choice->errors[i]);
    return router->group_score == RP_GROUP_BEST_TWO ? 2 * error : error;
}

/* Takes the pair where its margin is further over its limit. */
static void take_pair(struct rp_choice_fault *fault, double margin, double error, size_t wrong,
                      size_t missing, bool is_of_groups)
{
    const double limit = RP_BOUND_SIGMAS * error;
    if (fault->margin > 0 && !(margin * fault->limit > fault->margin * limit))
        return;
    fault->margin = margin;
    fault->limit = limit;
    fault->wrong = wrong;
    fault->missing = missing;
    fault->is_of_groups = is_of_groups;
}

/* Marks the groups of the choice, and the best of the others up to their number. */
static void check_groups(struct choice *choice, const bool *is_chosen,
                         struct rp_choice_fault *fault)
{
    const struct rp_router *router = choice->router;
    const size_t n = group_size(router);
    size_t n_used = 0, lowest = SIZE_MAX, best;
    for (size_t i = 0; i < router->n_experts; i++) {
        n_used += is_chosen[i] && !choice->is_chosen_group[i / n];
        choice->is_chosen_group[i / n] |= is_chosen[i];
    }
    for (; n_used < router->n_chosen_groups; n_used++) {
        best = best_of(choice->groups, choice->is_chosen_group, 0, router->n_groups);
        choice->is_chosen_group[best] = true;
    }
    for (size_t group = 0; group < router->n_groups; group++)
        if (choice->is_chosen_group[group] &&
            (lowest == SIZE_MAX || choice->groups[group] < choice->groups[lowest]))
            lowest = group;
    best = best_of(choice->groups, choice->is_chosen_group, 0, router->n_groups);
    const bool are_too_many = n_used > router->n_chosen_groups;
    if (!are_too_many && (best == SIZE_MAX || !(choice->groups[best] > choice->groups[lowest])))
        return;
    size_t wrong = lowest * n, missing = (best == SIZE_MAX ? lowest : best) * n;
    while (!is_chosen[wrong] && wrong + 1 < (lowest + 1) * n)
        wrong++;
    if (are_too_many)
        take_pair(fault, (double)INFINITY, 0, wrong, missing, true);
    else
        take_pair(fault, (double)choice->groups[best] - (double)choice->groups[lowest],
                  hypot(group_error(choice, best), group_error(choice, lowest)), wrong, missing,
                  true);
}

/* The worst of the choice against the best that is left out of the chosen groups. */
static void check_experts(struct choice *choice, const bool *is_chosen,
                          struct rp_choice_fault *fault)
{
    const struct rp_router *router = choice->router;
    const size_t n = router->n_experts, n_each = group_size(router);
    for (size_t i = 0; i < n; i++)
        choice->is_taken[i] =
            is_chosen[i] || (has_groups(router) && !choice->is_chosen_group[i / n_each]);
    const size_t missing = best_of(choice->scores, choice->is_taken, 0, n);
    size_t wrong = SIZE_MAX;
    for (size_t i = 0; i < n; i++)
        if (is_chosen[i] && (wrong == SIZE_MAX || choice->scores[i] < choice->scores[wrong]))
            wrong = i;
    if (missing != SIZE_MAX && wrong != SIZE_MAX && choice->scores[missing] > choice->scores[wrong])
        take_pair(fault, (double)choice->scores[missing] - (double)choice->scores[wrong],
                  hypot(choice->errors[missing], choice->errors[wrong]), wrong, missing, false);
}

/* Marks the experts; false: they are no choice. is_chosen [n_experts] */
static bool mark_chosen(const struct rp_router *router, const float *chosen, bool *is_chosen)
{
    for (size_t k = 0; k < router->n_chosen; k++) {
        const size_t expert = rp_expert_number(router, chosen[k]);
        if (expert == SIZE_MAX || is_chosen[expert])
            return false;
        is_chosen[expert] = true;
    }
    return true;
}

enum rp_status rp_choice_is_one(const struct rp_router *router, const float *chosen, bool *answer,
                                struct rp_error *err)
{
    bool *is_chosen = calloc(router->n_experts + 1, sizeof *is_chosen);
    if (!is_chosen)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu experts",
                       router->n_experts);
    *answer = mark_chosen(router, chosen, is_chosen);
    free(is_chosen);
    return RP_OK;
}

enum rp_status rp_choice_check(const struct rp_router *router, const float *correction,
                               const float *logits, const float *chosen, double noise,
                               struct rp_choice_fault *fault, struct rp_error *err)
{
    struct choice choice;
    enum rp_status status = choice_open(&choice, router, err);
    bool *is_chosen = calloc(router->n_experts + 1, sizeof *is_chosen);
    *fault = (struct rp_choice_fault){.margin = 0};
    if (status == RP_OK && !is_chosen)
        status =
            rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu experts", router->n_experts);
    if (status == RP_OK && !mark_chosen(router, chosen, is_chosen))
        fault->margin = (double)NAN;
    if (status == RP_OK && fault->margin == 0) {
        choice_begin(&choice, correction, logits);
        set_errors(&choice, correction, logits, noise);
        if (has_groups(router))
            check_groups(&choice, is_chosen, fault);
        check_experts(&choice, is_chosen, fault);
    }
    free(is_chosen);
    free(choice.owned);
    return status;
}

/* The lowest that is taken of scores [n] against the best that is not; is_out: which of them do not count. */
static void take_distance(const float *scores, const bool *is_in, const bool *is_out, size_t n,
                          size_t *lowest, size_t *best)
{
    *lowest = *best = SIZE_MAX;
    for (size_t i = 0; i < n; i++) {
        if (is_in[i] && (*lowest == SIZE_MAX || scores[i] < scores[*lowest]))
            *lowest = i;
        if (!is_in[i] && !(is_out && is_out[i]) && (*best == SIZE_MAX || scores[i] > scores[*best]))
            *best = i;
    }
}

static double distance_of(double difference, double one, double other)
{
    const double limit = RP_BOUND_SIGMAS * hypot(one, other);
    return limit > 0 ? difference / limit : difference > 0 ? (double)INFINITY : 0;
}

enum rp_status rp_choice_distance(const struct rp_router *router, const float *correction,
                                  const float *logits, double noise, double *distance,
                                  struct rp_error *err)
{
    const size_t n = router->n_experts;
    struct choice choice;
    enum rp_status status = choice_open(&choice, router, err);
    bool *is_in = calloc(2 * n + 1, sizeof *is_in), *is_out = is_in ? is_in + n : NULL;
    size_t lowest, best;
    *distance = (double)INFINITY;
    if (status == RP_OK && !is_in)
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu experts", n);
    if (status != RP_OK)
        goto done;
    choice_begin(&choice, correction, logits);
    set_errors(&choice, correction, logits, noise);
    if (has_groups(router)) {
        take_groups(&choice);
        memcpy(is_out, choice.is_taken, n * sizeof *is_out);
        take_distance(choice.groups, choice.is_chosen_group, NULL, router->n_groups, &lowest,
                      &best);
        *distance = distance_of((double)choice.groups[lowest] - (double)choice.groups[best],
                                group_error(&choice, lowest), group_error(&choice, best));
    }
    for (size_t k = 0; k < router->n_chosen; k++) {
        best = best_of(choice.scores, choice.is_taken, 0, n);
        if (best != SIZE_MAX)
            is_in[best] = choice.is_taken[best] = true;
    }
    take_distance(choice.scores, is_in, is_out, n, &lowest, &best);
    if (lowest != SIZE_MAX && best != SIZE_MAX)
        *distance =
            fmin(*distance, distance_of((double)choice.scores[lowest] - (double)choice.scores[best],
                                        choice.errors[lowest], choice.errors[best]));
done:
    free(is_in);
    free(choice.owned);
    return status;
}
