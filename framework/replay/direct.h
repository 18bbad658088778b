/* Near-ties of the products that a slot comes straight after: what a flip changes there is known
 * without a run, and so hundreds of them are compared with an error at once. */
#ifndef REFPARITY_REPLAY_DIRECT_H
#define REFPARITY_REPLAY_DIRECT_H

#include "replay/trial.h"

/* Whether the tie's product ends in the task's slot. */
bool rp_direct_is(const struct rp_trial *trial, const struct rp_trial_task *task,
                  const struct rp_tie *tie);

/* effects [task->direct.n][width] of the task's direct ties, from what its row was when it was last
 * left behind. RP_ERR_MEMORY. */
enum rp_status rp_direct_effects(const struct rp_trial *trial, const struct rp_trial_task *task,
                                 float *effects, struct rp_error *err);

/* Adds what F16 in attention does to a row whose blocks' scales are not rounded: they follow their
 * peak, which is off by up to a step of F16. */
void rp_direct_add_scales(struct rp_trial *trial, struct rp_trial_task *task);

#endif
