/* A mixture's experts on both sides. A rounding may decide between two experts that are nearly as good: what follows
 * at that position differs by tens of percent then, in a right engine too. So numbers of experts are compared as sets,
 * and what belongs to experts is compared where both sides have the same. Whether the engine's own choice is right is
 * replay's question. */
#ifndef REFPARITY_COMPARE_CHOICE_H
#define REFPARITY_COMPARE_CHOICE_H

#include <stdbool.h>

#include "compare/align.h"

/* Compares the slot _experts: PASS, or MARGINAL with the first difference: "expert 5 for 3 at position 7, router
 * logits 0.0002 apart". Its L2_rel is the root of the share of experts that differ. */
void rp_compare_choice(const struct rp_comparison *comparison, struct rp_alignment *alignment,
                       struct rp_slot_result *result);

/* The choices that a slot of experts rests on. */
struct rp_choices {
    struct rp_tensor ref,
        engine; /* of no positions where the slot has none, or a side does not say */
};
void rp_choices_open(const struct rp_comparison *comparison, const char *slot,
                     struct rp_choices *choices);
void rp_choices_close(struct rp_choices *choices);
/* False where both sides say which experts the position goes to, and they differ. */
bool rp_choices_agree(const struct rp_choices *choices, int64_t position);

/* "expert 5 for 3 at layer 7, router logits 0.0002 apart": the first layer up to this one whose choice differs at the
 * position; "" where none does, or it is not on both sides. Returns text. */
const char *rp_first_other_choice(const struct rp_comparison *comparison, int layer,
                                  int64_t position, char *text, size_t size);

#endif
