/* Near-ties: where the last bits of FP32 decide which way a value is rounded, two right programs may
 * go different ways, and what they compute then differs by thousands of floors. Which ways the engine
 * went is found by trying. */
#ifndef REFPARITY_REPLAY_FLIPS_H
#define REFPARITY_REPLAY_FLIPS_H

#include "refparity/numerics.h"
#include "replay/forced.h"
#include "replay/inputs.h"
#include "replay/judge.h"

struct rp_flip_search {
    const struct rp_forced *forced;
    const struct rp_layer *weights;
    enum rp_mode mode;
    struct rp_emulation *emulation; /* the one that ops lie on */
    const struct rp_ops *ops;
    const struct rp_inputs *inputs;         /* how far what is rounded may be off */
    double sigmas;                          /* so many times that, a value is near the middle */
    const double *floor[RP_N_FORCED_PARTS]; /* [n] */
    const struct rp_row_error *errors[RP_N_FORCED_PARTS]; /* [n], without flips */
    /* Found: the ties that the engine rounded the other way. Freed with rp_flip_search_close. */
    struct rp_tie *flips; /* [n_flips] */
    size_t n_flips;
    size_t
        *n_flips_of[RP_N_FORCED_PARTS]; /* [n], the caller's: added up per row that they are for */
    bool is_bounded;                    /* not everything was tried */
};

/* Tries for every row that is over its limit. RP_ERR_MEMORY, or what a run returns. */
enum rp_status rp_flip_search_run(struct rp_flip_search *search, struct rp_error *err);
void rp_flip_search_close(struct rp_flip_search *search);

#endif
