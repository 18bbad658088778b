/* The search for what explains a slot's error: the slot's rows and the operations that lead to it, what
 * may be tried, and how well each does. The families of hypotheses add candidates, a file for each
 * operation; explain.c goes through them in a fixed order, simplest first. */
#ifndef REFPARITY_EXPLAIN_SEARCH_H
#define REFPARITY_EXPLAIN_SEARCH_H

#include "explain/placed_change.h"
#include "refparity/explain.h"

struct rp_trial {
    struct rp_candidate candidate;
    struct rp_place place;
    double cost;           /* mean over rows of log(1 + (error / limit)^2) */
    double chi2;           /* mean over rows of (error / limit)^2 */
    double share;          /* of the error's energy that the candidate accounts for */
    double share_of_first; /* of the first failing row's */
    size_t n_over;         /* rows over their limit */
    bool matches; /* every row is within its limit, and most of the error is accounted for */
};

/* A search, with what only trials need. */
struct rp_slot_search {
    struct rp_search search; /* comes first: what families see */
    struct rp_replay *replay;
    const struct rp_replay_slot *slot;
    struct rp_layer other_weights; /* of other_layer */
    int other_layer;               /* -1: none */
    size_t n_allowed;              /* rows that may be over their limit in a match: expected tips */
    struct rp_numerics numerics[48]; /* of candidates */
    size_t n_numerics;
};

enum rp_status rp_search_open(struct rp_slot_search *own, struct rp_replay *replay,
                              const struct rp_replay_slot *slot, struct rp_error *err);
void rp_search_close(struct rp_slot_search *own);

/* ---- trials ---- */

enum rp_status rp_search_try(struct rp_search *search, const struct rp_candidate *candidate,
                             const struct rp_place *place, struct rp_trial *trial,
                             struct rp_error *err);
/* Fits candidate->value; trial is of what was found. */
enum rp_status rp_search_fit(struct rp_search *search, const struct rp_candidate *candidate,
                             const struct rp_place *place, struct rp_trial *trial,
                             struct rp_error *err);

/* ---- hypotheses that are about no one operation ---- */

rp_collect_fn rp_collect_any_rows, rp_collect_numerics;

#endif
