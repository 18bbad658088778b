/* One run of a layer on the engine's values: what each slot is computed to be is shown, and the
 * engine's rows take its place. Not for what to make of it: that is layer.c and carried.c. */
#ifndef REFPARITY_REPLAY_LAYER_RUN_H
#define REFPARITY_REPLAY_LAYER_RUN_H

#include "replay/layer_plan.h"

/* rows [plan->n][slot->dim]: as they have been computed. */
typedef enum rp_status rp_see_slot_fn(void *context, const struct rp_planned_slot *slot,
                                      const float *rows, struct rp_error *err);

struct rp_layer_run {
    const struct rp_ops *ops;
    enum rp_mode mode;
    const struct rp_layer *weights;
    const unsigned char *steps; /* [plan->n_steps] to run; NULL: all */
    rp_see_slot_fn *see;        /* of the slots that are run */
    void *context;
    /* [plan->n][n_chosen] or NULL: the experts that were chosen where the dump does not say it. The first of
     * several runs keeps them here, has_choice false, and the others take them. */
    float *choice;
    bool has_choice;
};

enum rp_status rp_replay_layer_run(const struct rp_replay_plan *plan,
                                   const struct rp_layer_run *run, struct rp_error *err);

#endif
