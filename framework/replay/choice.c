/* See replay/choice.h. */
#include "replay/choice.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "operations/router.h"

static const struct rp_router *router_of(const struct rp_replay_choice *choice)
{
    return &rp_model_config(choice->plan->model)->router;
}

void rp_replay_choice_open(struct rp_replay_choice *choice, const struct rp_replay_plan *plan,
                           const struct rp_layer *weights)
{
    const size_t step = rp_replay_plan_choice(plan);
    *choice = (struct rp_replay_choice){.plan = plan, .uncertain = -1};
    if (step < plan->n_steps && plan->steps[step].which < RP_N_LAYER_WEIGHTS)
        choice->correction = weights->weights[plan->steps[step].which].data;
}

void rp_replay_choice_close(struct rp_replay_choice *choice)
{
    free(choice->logits);
    choice->logits = NULL;
}

enum rp_status rp_replay_choice_keep(struct rp_replay_choice *choice,
                                     const struct rp_planned_slot *slot, const float *rows,
                                     struct rp_error *err)
{
    const struct rp_replay_plan *plan = choice->plan;
    choice->logits = malloc((plan->n * slot->dim + 1) * sizeof *choice->logits);
    if (!choice->logits)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", plan->n);
    memcpy(choice->logits, rows, plan->n * slot->dim * sizeof *rows);
    for (size_t i = 0; i < plan->n; i++) {
        if (rp_dumped_is_finite(&slot->dumped, plan->positions[i]))
            memcpy(choice->logits + i * slot->dim, rp_dumped_row(&slot->dumped, plan->positions[i]),
                   slot->dim * sizeof *rows);
    }
    return RP_OK;
}

static void say(struct rp_replay_choice *choice, size_t i, const struct rp_choice_fault *fault,
                bool is_wrong)
{
    const float *logits = choice->logits + i * router_of(choice)->n_experts;
    const long long position = (long long)choice->plan->positions[i];
    if (isnan(fault->margin)) {
        snprintf(choice->text, sizeof choice->text,
                 "at position %lld a number that is no expert's, or one twice", position);
        return;
    }
    const double wrong = (double)logits[fault->wrong], missing = (double)logits[fault->missing];
    snprintf(choice->text, sizeof choice->text,
             "%sexpert %zu for %zu at position %lld, router logits %.6g and %.6g%s; the %sscores "
             "are %.2g apart, a tie is up to %.1g",
             is_wrong ? "" : "the same experts, or a tie: ", fault->wrong, fault->missing, position,
             wrong, missing, fault->is_of_groups ? ", by the choice of groups" : "",
             fault->is_of_groups ? "groups' " : "", fault->margin, fault->limit);
}

enum rp_status rp_replay_choice_judge(struct rp_replay_choice *choice,
                                      const struct rp_planned_slot *slot,
                                      struct rp_row_error *errors, double *bound,
                                      struct rp_error *err)
{
    const struct rp_replay_plan *plan = choice->plan;
    const struct rp_router *router = router_of(choice);
    float *chosen = calloc(router->n_chosen + 1, sizeof *chosen);
    bool has_wrong = false;
    enum rp_status status = RP_OK;
    if (!chosen)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu experts", router->n_chosen);
    for (size_t i = 0; i < plan->n && status == RP_OK && choice->logits; i++) {
        const void *row = rp_dumped_row(&slot->dumped, plan->positions[i]);
        struct rp_choice_fault fault;
        if (!row || !slot->founded[i])
            continue;
        memcpy(chosen, row, router->n_chosen * sizeof *chosen);
        status = rp_choice_check(router, choice->correction, choice->logits + i * router->n_experts,
                                 chosen, choice->noise ? choice->noise[i] : 0, &fault, err);
        const bool is_wrong = !(fault.margin <= fault.limit);
        if (status == RP_OK && !(fault.margin == 0) && !has_wrong &&
            (is_wrong || !choice->text[0])) {
            say(choice, i, &fault, is_wrong);
            has_wrong = is_wrong;
        }
        errors[i] = (struct rp_row_error){.introduced = fault.margin, .norm = 1};
        bound[i] = fault.limit;
    }
    free(chosen);
    return status;
}

/* Whether the position's choice could as well be another. */
static enum rp_status is_tie(const struct rp_replay_choice *choice, size_t i, bool *answer,
                             struct rp_error *err)
{
    const struct rp_router *router = router_of(choice);
    double distance;
    const enum rp_status status =
        rp_choice_distance(router, choice->correction, choice->logits + i * router->n_experts,
                           choice->noise ? choice->noise[i] : 0, &distance, err);
    *answer = status == RP_OK && !(distance > 1);
    return status;
}

enum rp_status rp_replay_choice_leave_out(struct rp_replay_choice *choice,
                                          struct rp_replay_plan *plan, struct rp_error *err)
{
    const size_t step = rp_replay_plan_choice(plan);
    const struct rp_planned_slot *experts = rp_replay_plan_slot(plan, RP_PART_EXPERTS);
    enum rp_status status = RP_OK;
    if (!experts || !choice->logits || !rp_replay_plan_has_choice(plan))
        return RP_OK;
    for (size_t i = 0; i < plan->n && status == RP_OK; i++) {
        bool is_uncertain = false;
        if (rp_dumped_is_finite(&experts->dumped, plan->positions[i]))
            continue;
        status = is_tie(choice, i, &is_uncertain, err);
        if (!is_uncertain)
            continue;
        if (choice->uncertain < 0)
            choice->uncertain = plan->positions[i];
        for (size_t k = 0; k < plan->n_slots; k++)
            if (plan->slots[k].steps[step])
                plan->slots[k].founded[i] = 0;
    }
    return status;
}
