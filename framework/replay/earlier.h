/* Near-ties in K, V or what attention reads, of rows that do not show them: a coarser rounding comes
 * after attention, and a row shows a flip only where that goes another way. So one flip may show at
 * any later row, and is judged by all of them. */
#ifndef REFPARITY_REPLAY_EARLIER_H
#define REFPARITY_REPLAY_EARLIER_H

#include "replay/trial.h"

/* Notes the pool, from a run over all rows. */
void rp_earlier_list(struct rp_trial *trial);

/* Looks at all rows again, and tries the pool for those of attention's slot that are over the limit.
 * What is over the limit is open again; has_changed: what these rows read is not what it was.
 * RP_ERR_MEMORY, or what a run returns. */
enum rp_status rp_earlier_search(struct rp_trial *trial, bool *has_changed, struct rp_error *err);

/* Counts the accepted one for the row that it is in. */
void rp_earlier_count(struct rp_trial *trial, const struct rp_tie *tie);

#endif
