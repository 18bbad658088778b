/* Which of several known changes add up to a difference. */
#ifndef REFPARITY_REPLAY_SUBSET_H
#define REFPARITY_REPLAY_SUBSET_H

#include <stddef.h>

#include "refparity/status.h"

enum { RP_SUBSET_MAX = 32 };

/* Least squares for residual [width] = sum over i of share[i] * effects[i]; effects [n][width], n at
 * most RP_SUBSET_MAX. share [n]: near 1 for those that are in it, near 0 for the others. */
void rp_subset_shares(const float *effects, size_t n, size_t width, const float *residual,
                      double *share);

/* What an effect's share can be. */
enum rp_share {
    RP_SHARE_WHOLE, /* 0 or 1 */
    RP_SHARE_STEPS, /* -1, 0, 1 or 2 */
    RP_SHARE_ANY    /* -1 .. 1 */
};

/* Some of the effects, each with its share. */
struct rp_subset {
    size_t n, chosen[RP_SUBSET_MAX]; /* indices of those whose share is not 0 */
    double share[RP_SUBSET_MAX];
    double left; /* of residual's length, when they are taken away */
};

/* The same where effects are many, n of any number, most of them not in it: takes up the one that
 * shows most in what is left, again and again, until at most `rest` of residual's length is left; then
 * each share becomes what its kind [n] can be. RP_ERR_MEMORY. */
enum rp_status rp_subset_pursue(const float *effects, const enum rp_share *kinds, size_t n,
                                size_t width, const float *residual, double rest,
                                struct rp_subset *subset, struct rp_error *err);

#endif
