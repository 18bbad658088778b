/* What a slot's rows may have become, in closed form: row_changes.c has the arithmetic, any_rows.c,
 * residual_add.c and others what is tried. */
#ifndef REFPARITY_OPERATIONS_ROW_CHANGES_H
#define REFPARITY_OPERATIONS_ROW_CHANGES_H

#include "operations/hypotheses.h"

/* rows = base + value (rows - base); base is what.rows, or 0. */
rp_transform_fn rp_rows_scale;
/* rows = rows + value * what.rows. */
rp_transform_fn rp_rows_add;
/* rows = rows + value. */
rp_transform_fn rp_rows_offset;
/* rows = what.rows. */
rp_transform_fn rp_rows_replace;
/* rows = rows * what.rows. */
rp_transform_fn rp_rows_multiply;
/* Row of position p = row of position p - value, where there is one. */
rp_transform_fn rp_rows_shift;
/* Channel `value` is that of what.rows. */
rp_transform_fn rp_rows_channel;
/* Channel i = channel more_rows[i], over the base. */
rp_transform_fn rp_rows_permute;
/* rows - base limited to -value .. value. */
rp_transform_fn rp_rows_clip;
/* rows - base rounded to F16 (option 10) or BF16 (7); near the middle to the side of more_rows, the
 * engine's. */
rp_transform_fn rp_rows_round;
/* value tanh(rows / value) */
rp_transform_fn rp_rows_softcap;

/* alpha of dumped = computed + alpha * direction over the failing rows, each weighted by its error;
 * *share of the error's energy. direction [n][dim] */
double rp_rows_fit(const struct rp_search *search, const float *direction, double *share);

/* Adds candidate, and one with a round value beside it where that is near. */
void rp_search_add_rounded(struct rp_search *search, struct rp_candidate candidate,
                           const char *text);

#endif
