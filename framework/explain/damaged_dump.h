/* A slot that fails in replay since its file is damaged, not since the engine computes it so. Not for bugs
 * of the engine: refparity/explain.h; nor for dumps that a reference is there for:
 * compare/dump_damage.h.
 *
 * The rule, without a reference:
 * 1. No arithmetic swaps bytes or writes another float format: these stand for themselves.
 * 2. Rows at other positions, rows never written, and the bytes of another slot are damage where what is
 *    computed from the slot fails too: the engine went on from other values. An engine that leaves a layer
 *    out, or mixes its rows up, goes on from what it dumps, and what follows is right.
 * 3. So is a slot where another layer's slot of its kind holds what is computed for it, to replay's limit:
 *    files that were swapped, or are numbered otherwise.
 * 4. The last layer's output with the bytes of post_norm is damage where post_norm, from it, fails.
 * 5. A slot that is computed from a damaged one fails for that alone. */
#ifndef REFPARITY_EXPLAIN_DAMAGED_DUMP_H
#define REFPARITY_EXPLAIN_DAMAGED_DUMP_H

#include "refparity/replay.h"

/* slot, which fails, is one of layer's. text [512] takes what was found, "" where the dump is not damaged
 * there. Replays the layer before or after it where that is needed. RP_ERR_MEMORY, or what reading weights
 * or dump returns. */
enum rp_status rp_replay_find_damage(struct rp_replay *replay, const struct rp_replay_layer *layer,
                                     const struct rp_replay_slot *slot, char text[512],
                                     struct rp_error *err);

#endif
