/* How far the rows that are rounded move between two runs: what decides how near to the middle a value
 * has to be for its rounding to be undecided. */
#ifndef REFPARITY_REPLAY_INPUTS_H
#define REFPARITY_REPLAY_INPUTS_H

#include "refparity/ops.h"
#include "refparity/overlay.h"

/* Laid over a run, it notes the inputs of its products, K, V and Q; laid over a second one, it
 * compares. Numbered as the rows of struct rp_tie are. */
struct rp_inputs {
    struct rp_overlay overlay; /* comes first */
    bool compares;
    size_t n;                          /* positions of either run, in one call each */
    float *noted[RP_N_LAYER_WEIGHTS];  /* [n][its width]; NULL: not met */
    double *moved[RP_N_LAYER_WEIGHTS]; /* [n] ||second - first|| / ||first|| */
};

void rp_inputs_open(struct rp_inputs *inputs, size_t n, const struct rp_ops *below);
void rp_inputs_close(struct rp_inputs *inputs);
/* Lays it over another run, which is compared with the first. */
void rp_inputs_compare(struct rp_inputs *inputs, const struct rp_ops *below);

/* The noted input of a layer's product; NULL: not met, or not of n positions. */
const float *rp_inputs_noted(const struct rp_inputs *inputs, enum rp_weight_id product, size_t n);

/* The largest rp_inputs_noise of any position. */
double rp_inputs_most_noise(const struct rp_inputs *inputs, enum rp_weight_id which);
/* By struct rp_tie's which: how far the row of that position or of one near it moved; 0 where the
 * engine's own values stand. What was not met is given the largest of those that were. */
double rp_inputs_noise(const struct rp_inputs *inputs, enum rp_weight_id which, size_t position);

#endif
