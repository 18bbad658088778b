/* Whether a choice of experts is right, or a tie. Not for computing one: that is rp_op_choose_experts. */
#ifndef REFPARITY_OPERATIONS_ROUTER_H
#define REFPARITY_OPERATIONS_ROUTER_H

#include "operations/operations.h"

/* What is wrong with a choice. Where none is, margin is 0. */
struct rp_choice_fault {
    /* How far the score of what was chosen is below what was left out for it, the worst such pair; NaN where the
     * choice is none: a number that is no expert's, or one that occurs twice. */
    double margin;
    double limit;          /* up to which FP32 arithmetic of another order may have moved it */
    size_t wrong, missing; /* the pair's experts */
    bool is_of_groups;     /* it is the score of their groups that decided */
};

/* Holds chosen [n_chosen] against what one row of logits [n_experts] says; correction: as in
 * struct rp_choose_experts. noise: how far each logit may be off beside that, absolute. RP_ERR_MEMORY. */
enum rp_status rp_choice_check(const struct rp_router *router, const float *correction,
                               const float *logits, const float *chosen, double noise,
                               struct rp_choice_fault *fault, struct rp_error *err);

/* Whether chosen [n_chosen] are experts, each once. RP_ERR_MEMORY. */
enum rp_status rp_choice_is_one(const struct rp_router *router, const float *chosen, bool *answer,
                                struct rp_error *err);

/* Of the right choice: how far the nearest expert that is left out is below the one that is chosen and would go for
 * it, as a part of what it may be off by: below 1, either is right. Infinite where all are chosen. */
enum rp_status rp_choice_distance(const struct rp_router *router, const float *correction,
                                  const float *logits, double noise, double *distance,
                                  struct rp_error *err);

/* The expert that a value of the slot _experts is; SIZE_MAX: none. */
static inline size_t rp_expert_number(const struct rp_router *router, float value)
{
    const bool is_number = value >= 0 && value < (float)router->n_experts;
    return is_number && (float)(size_t)value == value ? (size_t)value : SIZE_MAX;
}

#endif
