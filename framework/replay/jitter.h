/* Monte-Carlo arithmetic: each operation's output, moved at random by what FP32 in another order of
 * summation may change. It measures the floor of a replay; it injects no bug. */
#ifndef REFPARITY_REPLAY_JITTER_H
#define REFPARITY_REPLAY_JITTER_H

#include "refparity/model.h"
#include "refparity/numerics.h"
#include "refparity/overlay.h"

#define RP_UNIT_ROUNDOFF 0x1p-24 /* half the distance from 1 to the next float */

/* What the sums of a product's terms are like, from its weight alone. */
struct rp_product_profile {
    const float *weight;  /* NULL: not known yet */
    float *column_square; /* [n_in] mean square of a column */
    float *row_share;     /* [n_out] a row's RMS over that of the matrix */
};

enum rp_status rp_product_profile_make(struct rp_product_profile *profile,
                                       const struct rp_linear *args, struct rp_error *err);
void rp_product_profile_free(struct rp_product_profile *profile);
/* The usual size of the product's outputs for x [n_in]: output i's is row_share[i] of it. */
double rp_product_size(const struct rp_product_profile *profile, const float *x, size_t n_in);
/* How far output i, which came to y, may be off. */
double rp_product_error(const struct rp_product_profile *profile, double size, size_t n_in,
                        size_t i, float y);

/* How far a norm over dim values may be off, relative to its row. */
double rp_norm_error(size_t dim);

struct rp_jitter {
    struct rp_overlay overlay; /* comes first */
    const struct rp_numerics *numerics;
    uint64_t seed, state, bits;
    unsigned n_bits;
    struct rp_product_profile profiles[RP_N_LAYER_WEIGHTS]; /* of the layer that is run */
};

/* Lays it over below. One jitter serves several runs of one layer; end with rp_jitter_close. */
void rp_jitter_open(struct rp_jitter *jitter, const struct rp_numerics *numerics,
                    const struct rp_ops *below);
void rp_jitter_close(struct rp_jitter *jitter);

/* Begins a run: the same seed gives the same values. */
void rp_jitter_begin(struct rp_jitter *jitter, uint64_t seed);

#endif
