/* Which of several known changes add up to a difference. */
#ifndef REFPARITY_REPLAY_SUBSET_H
#define REFPARITY_REPLAY_SUBSET_H

#include <stddef.h>

enum { RP_SUBSET_MAX = 32 };

/* Least squares for residual [width] = sum over i of share[i] * effects[i]; effects [n][width], n at
 * most RP_SUBSET_MAX. share [n]: near 1 for those that are in it, near 0 for the others. */
void rp_subset_shares(const float *effects, size_t n, size_t width, const float *residual,
                      double *share);

#endif
