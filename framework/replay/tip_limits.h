/* Where a declared rounding lies on the way to a slot, and what reaches it is not known to the last
 * bit, some values tip to their other neighbour. Which ones is not known, and is not searched for: how
 * many are to be expected is, and what one changes. These are the two tests that follow. */
#ifndef REFPARITY_REPLAY_TIP_LIMITS_H
#define REFPARITY_REPLAY_TIP_LIMITS_H

#include <stdbool.h>
#include <stddef.h>

#include "refparity/status.h"

/* An engine's noise may be as far over the expected as its bound is: so many times the tips. */
#define RP_TIPS_MARGIN 3.0

/* What tips may add to a position's error, where one tip, the largest, changes worth and `own` are to be
 * expected: k of them add up to sqrt(k) of one; k is passed once in a million. */
double rp_tips_limit(double worth, double own);

/* Can tips explain which of n positions are over the bound? own [n]: tips to be expected in a position's
 * own rows, each position by itself. earlier [n]: in rows of earlier positions that this one reads, as
 * they add up: one of those shows at every later position. False when what is seen is less likely than
 * one in a million. RP_ERR_MEMORY. */
enum rp_status rp_tips_explain(const double *own, const double *earlier, const bool *is_over,
                               size_t n, bool *is_explained, struct rp_error *err);

#endif
