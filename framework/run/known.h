/* Known divergences: what an entry's "known" says of its engine. A divergence that one of them fits is XFAIL
 * and not FAIL, and so is what is downstream of it. As strict as pytest's xfail(strict=True): one that fits
 * nothing any more is a failure of the pair. Not for finding divergences: those are found, stored and
 * explained as ever, and changed here at last. */
#ifndef REFPARITY_RUN_KNOWN_H
#define REFPARITY_RUN_KNOWN_H

#include <stdbool.h>

#include "run/judge_replay.h"

/* Is it meant for the pair's prompt and mode? One that names no modes is of all, and of no comparison of two:
 * both have the bug, and agree. */
bool rp_known_is_of(const struct rp_known *known, const struct rp_pair *pair);

/* Operations that fail and fit are XFAIL, by their explanation where one has a name; the layer is where none
 * is left that fails. One whose values are not finite never fits. */
void rp_known_replay(const struct rp_pair *pair, struct rp_replay_result *result);

/* A required slot over its limit, as its test has found it, rp_diagnose_slot included: XFAIL where its
 * values are finite and a known divergence without a name fits it; where replay finds a known one at or before it,
 * and none that is not known; or where it is downstream of a slot that fits. Operations that no test has replayed
 * are. RP_ERR_MEMORY, RP_ERR_FORMAT as rp_judge_pair. */
enum rp_status rp_known_slot(const struct rp_judge *judge, struct rp_slot_result *result,
                             struct rp_error *err);

/* All of a judged pair, but its whole verdict: replay, slots, verdicts->pair.verdict, and the first divergence
 * where what is known hides one that is not. */
void rp_known_pair(const struct rp_judge *judge, struct rp_verdicts *verdicts);

/* Then, with the whole verdict: verdicts->known. A pair that is SKIP or ERROR judges none. RP_ERR_MEMORY. */
enum rp_status rp_known_judge(const struct rp_judge *judge, struct rp_verdicts *verdicts,
                              struct rp_error *err);

enum rp_known_state {
    RP_KNOWN_NOT_JUDGED, /* of other prompts or modes, or nothing that it fits was judged */
    RP_KNOWN_MET,
    RP_KNOWN_OTHER,  /* what it fits diverges by another name, or is not finite, and fails */
    RP_KNOWN_MENDED, /* what it fits was judged, and does not diverge: a failure */
    RP_KNOWN_ABSENT  /* it fits no slot that the pair has: a failure */
};
const char *rp_known_state_name(enum rp_known_state state); /* "not judged", "met" … */

/* One of the entry's known divergences, in one pair. */
struct rp_known_result {
    const struct rp_known *known;
    enum rp_known_state state;
    size_t n_judged, n_met;        /* slots that it fits */
    char first[RP_SLOT_NAME_SIZE]; /* that diverges; "": none */
    char message[1024];            /* of MENDED and ABSENT, with file and line */
};
bool rp_known_is_failure(const struct rp_known_result *result);

#endif
