/* Where engine and reference part: the first failing slot, its first position, its sub-stage.
 * A diagnosis explains verdicts (compare.h) and never changes one. */
#ifndef REFPARITY_DIAGNOSE_H
#define REFPARITY_DIAGNOSE_H

#include "refparity/compare.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where an error begins, whatever its size, judged by the jump: see diagnose/departure.h. */
struct rp_departure {
    char slot
        [RP_SLOT_NAME_SIZE]; /* of the residual stream: "h0_postattn", "h3"; "" where none departs */
    char operation_slot
        [RP_SLOT_NAME_SIZE]; /* the first of that branch that shows it; "" not known */
    int64_t position;
    double error, noise; /* of what the branch adds, relative to that; and the largest before it */
    char explanation[384]; /* one sentence */
};

struct rp_divergence {
    char slot[RP_SLOT_NAME_SIZE]; /* the first required slot that fails; "" when none does */
    int layer;                    /* -1 for emb, post_norm and logits */
    int64_t position;             /* the first position at which it fails */
    size_t n_not_compared;        /* required slots before it that could not be compared */
    /* The first sub-stage that brings the error in at that position; "" when the two sides do not
     * both have it, or when it came in before the layer. */
    char sub_stage[RP_SLOT_NAME_SIZE];
    struct rp_departure departure; /* also where no slot fails */
    char explanation[512];         /* one sentence, with the numbers that it rests on */
};

/* Finds the divergence in a compared pair and marks later failing slots as downstream of it. */
void rp_diagnose_pair(const struct rp_comparison *comparison, struct rp_pair_result *pair,
                      struct rp_divergence *divergence);

/* The same for one failing slot: compares the required slots before it as far as needed, and sets
 * result->downstream_of when one of those fails first. */
void rp_diagnose_slot(const struct rp_comparison *comparison, struct rp_slot_result *result,
                      struct rp_divergence *divergence);

#ifdef __cplusplus
}
#endif
#endif
