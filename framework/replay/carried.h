/* Slots whose inputs are not dumped are computed from further back, and what reaches them is known to
 * FP32's last bits only. How far that carries is measured: the layer is run again a few times, each
 * operation's output moved at random by what another order of summation may add. Values that an engine
 * rounds stay as they fell in the first run; how many of them may tip is counted, and one more run says
 * what one tip of each rounding changes. Not for verdicts on it: that is tip_limits.h. */
#ifndef REFPARITY_REPLAY_CARRIED_H
#define REFPARITY_REPLAY_CARRIED_H

#include "replay/layer_plan.h"
#include "refparity/numerics.h"

/* Of one slot that is carried. Arrays are [plan->n]. */
struct rp_carried_slot {
    const struct rp_planned_slot *slot;
    double *bound;   /* relative: three times the root mean square of the runs */
    double *worth;   /* relative: what one tip of each rounding on the way changes */
    double *own;     /* tips to be expected in the position's own rows */
    double *earlier; /* and in earlier positions' rows that it reads, all together */
    bool has_tips;   /* something is rounded on the way */
};

struct rp_carried {
    struct rp_carried_slot slots[RP_N_LAYER_PARTS];
    size_t n_slots;
    double *
        router_noise; /* [plan->n] how far a router's logit that is carried may be off, absolute; NULL: none is */
};

/* numerics: with the prompt's length. End with rp_carried_close. RP_ERR_MEMORY, or what an operation returns. */
enum rp_status rp_carried_measure(struct rp_carried *carried, const struct rp_replay_plan *plan,
                                  const struct rp_layer *weights,
                                  const struct rp_numerics *numerics, enum rp_mode mode,
                                  struct rp_error *err);
void rp_carried_close(struct rp_carried *carried); /* a zeroed one is allowed */

/* NULL: it is not carried. */
const struct rp_carried_slot *rp_carried_find(const struct rp_carried *carried,
                                              enum rp_slot_part part);

#endif
