/* What was measured of an engine's rotation, where its input and its output are both dumped: the
 * position and the frequency that each pair of values was turned by. rope.c makes hypotheses of it. */
#ifndef REFPARITY_OPERATIONS_ROPE_ANGLES_H
#define REFPARITY_OPERATIONS_ROPE_ANGLES_H

#include "operations/hypotheses.h"

struct rp_measured_rope {
    size_t n_pairs;
    double *own, *frequency; /* [n_pairs] radians per position: the model's, the engine's */
    float *position;         /* [n] that the engine has rotated each row for; the search's */
    bool is_whole;           /* these are whole numbers, and not all their own */
    size_t n_still;          /* pairs that are not rotated, of those that the model rotates */
    double theta, scaling;   /* the base, or the factor of positions, that fits most pairs */
};

/* Only where rp_search_is_just RoPE; end with rp_measured_rope_free. Without memory n_pairs is 0. */
void rp_measure_rope(struct rp_search *search, struct rp_measured_rope *measured);
void rp_measured_rope_free(struct rp_measured_rope *measured);

#endif
