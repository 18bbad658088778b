/* Closed forms on a slot's rows; rows.c has the arithmetic, rows_collect.c and residual.c what is
 * tried. */
#ifndef REFPARITY_EXPLAIN_ROWS_H
#define REFPARITY_EXPLAIN_ROWS_H

#include "explain/search.h"

/* rows = base + value (rows - base); base is change->rows, or 0. */
rp_transform_fn rp_rows_scale;
/* rows = rows + value * change->rows. */
rp_transform_fn rp_rows_add;
/* rows = rows + value. */
rp_transform_fn rp_rows_offset;
/* rows = change->rows. */
rp_transform_fn rp_rows_replace;
/* Row of position p = row of position p - value, where there is one. */
rp_transform_fn rp_rows_shift;
/* Channel `value` is that of change->rows. */
rp_transform_fn rp_rows_channel;
/* Channel i = channel more_rows[i], over the base. */
rp_transform_fn rp_rows_permute;
/* rows - base limited to -value .. value. */
rp_transform_fn rp_rows_clip;
/* rows - base rounded to F16 (option 10) or BF16 (7); where it is a near-tie, to the side of
 * more_rows, the engine's. */
rp_transform_fn rp_rows_round;
/* value tanh(rows / value) */
rp_transform_fn rp_rows_softcap;

/* alpha of dumped = computed + alpha * direction over the failing rows, each weighted by its error;
 * *share of the error's energy. direction [n][dim] */
double rp_rows_fit(const struct rp_search *search, const float *direction, double *share);

#endif
