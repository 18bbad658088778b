/* The errors of a pair that did not pass, position by position: what the HTML report draws as a heatmap. Not
 * for verdicts: those are compare's. */
#ifndef REFPARITY_REPORT_BY_POSITION_H
#define REFPARITY_REPORT_BY_POSITION_H

#include <cjson/cJSON.h>

#include "diagnose/tokens.h"
#include "refparity/diagnose.h"
#include "refparity/replay.h"

/* Adds "by_position" to comparison, results.json's object: "columns" [n][first, last position] (more than
 * RP_REPORT_COLUMNS positions share columns evenly), "tokens" [n] (the first position's piece in quotes, or
 * its id; "" where neither is known), and "slots": of each required slot, and of each slot of the layer that
 * diverges first, its name and "l2_rel" [n], the largest of the column; null where nothing was compared, and
 * a text, "nan", where it is not finite. Nothing where the sets are not open. vocabulary may be NULL. */
void rp_report_by_position(cJSON *comparison, const struct rp_comparison *sets,
                           const struct rp_pair_result *pair,
                           const struct rp_divergence *divergence,
                           const struct rp_vocabulary *vocabulary);

/* The same of a replayed layer that fails, added to its object: no "tokens", and of each slot "introduced" in
 * the place of "l2_rel". */
void rp_report_replay_by_position(cJSON *object, const struct rp_replay_layer *layer);

enum { RP_REPORT_COLUMNS = 256 };

#endif
