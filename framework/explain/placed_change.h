/* Where a candidate is at work: everywhere, at some positions, in some heads. Not for finding such places:
 * that is places.h. */
#ifndef REFPARITY_EXPLAIN_PLACED_CHANGE_H
#define REFPARITY_EXPLAIN_PLACED_CHANGE_H

#include "operations/hypotheses.h"

enum rp_place_kind { RP_PLACE_ALL, RP_PLACE_ONLY, RP_PLACE_FROM, RP_PLACE_LISTED };

/* Zeroed: everywhere. */
struct rp_place {
    enum rp_place_kind kind;
    bool by_head;          /* only in the heads below; a DeltaNet's V heads are its query heads */
    int64_t position;      /* of RP_PLACE_ONLY and RP_PLACE_FROM */
    const int64_t *listed; /* [n_listed] ascending, of RP_PLACE_LISTED */
    size_t n_listed;
    size_t first_q, n_q;   /* heads of Q and of attention's output */
    size_t first_kv, n_kv; /* heads of K and V */
    size_t hf_head;        /* the one head of n_q == 1 as HF counts: what is said */
};

bool rp_place_has(const struct rp_place *place, int64_t position);

/* A change, laid over the operations at its place: elsewhere their output stays as it was. */
struct rp_placed_change {
    struct rp_overlay overlay; /* comes first */
    struct rp_change *change;
    struct rp_place place;
};
void rp_placed_change_open(struct rp_placed_change *placed, struct rp_change *change,
                           const struct rp_place *place);

#endif
