/* How close an engine has to come: the numbers of the rule. The rule itself is in compare.h. */
#ifndef REFPARITY_LIMITS_H
#define REFPARITY_LIMITS_H

#include <stddef.h>

#define RP_DEFAULT_L2_REL 0.05
#define RP_DEFAULT_COSINE 0.90

/* What decides on a slot that is over its limit. */
enum rp_gate {
    RP_GATE_STRICT, /* it fails */
    RP_GATE_EXPLAINED /* it is MARGINAL where tokens, weights and every operation up to it are right */
};

/* The limit of a slot that has one of its own. */
struct rp_slot_limit {
    const char *slot;
    double l2_rel;
};

struct rp_limits {
    double l2_rel; /* L2_rel has to be below it at every position: emb, h{l}, post_norm */
    double cosine; /* the cosine has to be above it at every position: logits */
    const struct rp_slot_limit *slots; /* [n_slots] */
    size_t n_slots;
};

#endif
