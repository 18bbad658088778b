/* A mixture's choice of experts in replay: is the engine's the one that its own router's logits say, or a tie; and
 * where the dump does not say it, is it known at all. */
#ifndef REFPARITY_REPLAY_CHOICE_H
#define REFPARITY_REPLAY_CHOICE_H

#include "replay/judge.h"
#include "replay/layer_plan.h"

struct rp_replay_choice {
    const struct rp_replay_plan *plan;
    const float *correction; /* [n_experts], or NULL */
    float *logits;       /* [plan->n][n_experts] the engine's, where it dumps them; NULL: not run */
    const double *noise; /* [plan->n] how far a logit may be off; NULL: not at all */
    int64_t uncertain;   /* the first position whose choice is not known; -1: none */
    char text[320];      /* what is said of the slot _experts; "" */
};
void rp_replay_choice_open(struct rp_replay_choice *choice, const struct rp_replay_plan *plan,
                           const struct rp_layer *weights);
void rp_replay_choice_close(struct rp_replay_choice *choice);

/* Keeps the slot _router: rows [plan->n][n_experts] as computed. RP_ERR_MEMORY. */
enum rp_status rp_replay_choice_keep(struct rp_replay_choice *choice,
                                     const struct rp_planned_slot *slot, const float *rows,
                                     struct rp_error *err);

/* Of the slot _experts: errors [plan->n].introduced is the margin of a wrong choice, 0 of a right one; bound
 * [plan->n] up to which it is a tie. Says the first that is wrong, else the first tie. */
enum rp_status rp_replay_choice_judge(struct rp_replay_choice *choice,
                                      const struct rp_planned_slot *slot,
                                      struct rp_row_error *errors, double *bound,
                                      struct rp_error *err);

/* Where the engine's choice is not dumped, and a tie of what is computed: what rests on it is not founded. */
enum rp_status rp_replay_choice_leave_out(struct rp_replay_choice *choice,
                                          struct rp_replay_plan *plan, struct rp_error *err);

#endif
