/* What the slots of a pair share with each other while they are compared. Not the rule: verdict.c. */
#ifndef REFPARITY_COMPARE_VERDICT_H
#define REFPARITY_COMPARE_VERDICT_H

#include "compare/dump_damage.h"

/* rp_compare_slot; memory: of the pair, or NULL. */
void rp_compare_slot_of_pair(const struct rp_comparison *comparison, const char *slot,
                             struct rp_damage_memory *memory, struct rp_slot_result *result);

/* The same, but when the tokens differ the slot is SKIP, not comparable, with the tokens' message: one
 * wrong token would otherwise show as forty wrong layers. */
void rp_compare_slot_of_pair_after_tokens(const struct rp_comparison *comparison,
                                          const struct rp_tokens_result *tokens, const char *slot,
                                          struct rp_damage_memory *memory,
                                          struct rp_slot_result *result);

/* rp_compare_pair_after_tokens, but the results of known [n_known] are there already: they are taken for
 * the slots of their names. */
enum rp_status rp_compare_rest_of_pair(const struct rp_comparison *comparison,
                                       const struct rp_tokens_result *tokens,
                                       const struct rp_slot_result *known, size_t n_known,
                                       struct rp_damage_memory *memory,
                                       struct rp_pair_result *result, struct rp_error *err);

#endif
