/* Two candidates at once: tried where no single one explains the error. */
#ifndef REFPARITY_EXPLAIN_PAIRS_H
#define REFPARITY_EXPLAIN_PAIRS_H

#include "explain/search.h"

/* The first's operations over the second's. */
struct rp_pair {
    struct rp_overlay overlay; /* comes first */
    struct rp_change *first, *second;
};
void rp_pair_open(struct rp_pair *pair, struct rp_change *first, struct rp_change *second);

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
