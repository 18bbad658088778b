/* Is a failing slot the engine's fault, or its file's? A damaged dump is an ERROR: nothing can be said of
 * the engine before it is mended. Not for the recognisers themselves: see damage_rows.h.
 *
 * The rule: a file is called damaged only where the engine's computation was evidently right.
 *
 * 1. What the damage did is undone, and every row then is the reference's: within the slot's limit (at
 *    most RP_DAMAGE_NEAR), RP_DAMAGE_GAIN times nearer than it stood, in at least RP_DAMAGE_MIN_VALUES
 *    dimensions. Nothing less than all rows: an engine with a bug and a damaged dump is a FAIL.
 * 2. No arithmetic swaps bytes or writes another float format: for those, 1. is enough. A transposed
 *    slot may have been transposed in the engine's memory: the next required slot has to be right, or
 *    transposed itself.
 * 3. Rows at other positions, rows or channels never written, and another slot's rows are also what
 *    engines compute: a prompt cut short, a token fed twice, a cache that is stuck, a layer left out.
 *    Then what follows is wrong. So a witness is asked for: a later slot that is right, to an absolute
 *    error RP_DAMAGE_GAIN times below the one here, at every failing position that it has. The residual
 *    stream carries an error on from layer to layer, so none can be right after a wrong one; a relative
 *    error would not do, for the stream grows. A witness farther away than three slots, and one for
 *    another slot's rows, has to be right to RP_DAMAGE_EXACT: where layers run late by one, what is
 *    missing at the end may be small. For another slot's rows it will do, too, that every later slot is
 *    right, at two positions or more.
 * 4. Without a witness, rows at other positions are the file's fault when every required slot from emb to
 *    the logits has them at the same other positions to RP_DAMAGE_SAME, none twice, and most are unlike
 *    all others: each was then computed from the right ones before it. An engine that drops, adds or
 *    reorders tokens has emb displaced like that, but not the rest, which attention computes from another
 *    context: early rows most (measured on the tiny models: 0.13 and more), so two of the first
 *    RP_DAMAGE_EARLY have to be among the displaced. The last row everywhere, to RP_DAMAGE_EXACT, shows
 *    likewise that those before it were computed.
 *
 * So these stay FAIL: logits alone at other positions (a wrong row may have been picked), a row repeated
 * in every slot (a stuck cache), NaN with nothing right after it, values off by a factor, and rows of
 * another prompt, which the reference does not know: token ids tell. */
#ifndef REFPARITY_COMPARE_DUMP_DAMAGE_H
#define REFPARITY_COMPARE_DUMP_DAMAGE_H

#include "refparity/compare.h"

/* An L2_rel limit above it would call rows equal that are merely alike. */
#define RP_DAMAGE_NEAR 0.1
/* The same for logits, whose rule is a cosine: 0.25 is a cosine of 0.97. */
#define RP_DAMAGE_NEAR_LOGITS 0.25
/* FP32 and F16 engines are that near to the reference; a row computed from other tokens is not. */
#define RP_DAMAGE_EXACT 1e-3
/* A row of one of the first positions that is that near was computed from the right context, with 8-bit
 * weights, too: a token more or less is a fifth of it. */
#define RP_DAMAGE_SAME 0.02
#define RP_DAMAGE_EARLY 4
/* Bytes of other slots that one failing slot is compared with, nearest first. */
#define RP_DAMAGE_MAX_BYTES ((size_t)256 << 20)

/* What the slots of one pair have in common, so that it is found out once. Zeroed to begin with. */
struct rp_damage_memory {
    char *right;    /* [n_slots of the reference] 0: not known, 1: right, 2: wrong; owned */
    int everywhere; /* are rows displaced in every slot? likewise */
};
void rp_damage_memory_free(struct rp_damage_memory *memory);

/* Examines a slot whose verdict is FAIL: where its file is damaged, verdict becomes ERROR and the message
 * the evidence. Any other verdict stays as it is. Of other slots, which fail nothing, only the encoding is
 * looked at. memory: NULL for a slot by itself. What cannot be read or allocated leaves the FAIL. */
void rp_damage_examine(const struct rp_comparison *comparison, struct rp_damage_memory *memory,
                       struct rp_slot_result *result);

/* For a slot that is an ERROR since it has half or twice as many values as the reference: adds to the
 * message when they are those of another float format. */
void rp_damage_explain_width(const struct rp_comparison *comparison, struct rp_slot_result *result);

#endif
