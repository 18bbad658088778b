/* What FP32 arithmetic in another order may add to each operation's output, as an overlay: measured
 * for the rows of the operation that ran last, or drawn at random and added to them. How much that is
 * for an operation is in its file, see operations/operations.h. */
#ifndef REFPARITY_REPLAY_NOISE_H
#define REFPARITY_REPLAY_NOISE_H

#include "refparity/numerics.h"
#include "refparity/overlay.h"

struct rp_noise {
    struct rp_overlay overlay; /* comes first */
    const struct rp_numerics *numerics;
    bool draws;    /* it is added; else measured */
    uint64_t seed; /* of what is drawn */
    /* Measured: of the last operation's output, the bound on each row's L2 norm, absolute. */
    double *bound; /* [capacity] */
    /* For rp_emulation.tips, which lies below: what is rounded inside the operation that runs. Zero where
     * nothing is. */
    double *tips; /* [capacity] */
    size_t capacity;
    double
        *of_experts; /* [capacity][n_chosen] the bound of each expert's row; NULL until one runs */
    const float *k, *v; /* what the cache was given last, before it rounded; [n_stored] rows */
    size_t n_stored;
};

/* Lays it over below, for runs of at most n_positions. End with rp_noise_close. RP_ERR_MEMORY. */
enum rp_status rp_noise_open(struct rp_noise *noise, const struct rp_numerics *numerics,
                             const struct rp_ops *below, size_t n_positions, struct rp_error *err);
void rp_noise_close(struct rp_noise *noise); /* a zeroed one is allowed */

#endif
