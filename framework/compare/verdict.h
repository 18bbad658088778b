/* What the slots of a pair share with each other while they are compared. Not the rule: verdict.c. */
#ifndef REFPARITY_COMPARE_VERDICT_H
#define REFPARITY_COMPARE_VERDICT_H

#include "compare/dump_damage.h"

/* rp_compare_slot; memory: of the pair, or NULL. */
void rp_compare_slot_of_pair(const struct rp_comparison *comparison, const char *slot,
                             struct rp_damage_memory *memory, struct rp_slot_result *result);

#endif
