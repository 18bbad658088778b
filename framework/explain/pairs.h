/* Two candidates at once: tried where no single one explains the error. */
#ifndef REFPARITY_EXPLAIN_PAIRS_H
#define REFPARITY_EXPLAIN_PAIRS_H

#include "explain/search.h"

#define RP_MOST_WORK 4e9 /* multiply-adds of many trials together: a few seconds */

/* What a trial costs in multiply-adds: the weights of the products on the way, for each position. */
double rp_search_work(const struct rp_search *search);

/* Goes through the pairs of candidates that have nothing to fit, as far as that is cheap. */
struct rp_pairs {
    const struct rp_search *search;
    size_t first, second; /* candidates */
    size_t n_left;        /* trials */
};
void rp_pairs_begin(struct rp_pairs *pairs, const struct rp_search *search);
/* *pair: the first candidate, with the second as its `also`. false: there are no more. */
bool rp_pairs_next(struct rp_pairs *pairs, struct rp_candidate *pair);

/* Both names, "rope-ordering and qk-norm-missing", and both texts. */
void rp_pair_say(const struct rp_search *search, const struct rp_candidate *pair,
                 struct rp_explanation *explanation);

#endif
