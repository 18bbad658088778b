/* Two slots of one set that hold the same bytes: one buffer was written under both names, or one file was
 * copied over the other. Not for what that means: verdict.c, and without a reference
 * explain/damaged_dump.c. */
#ifndef REFPARITY_COMPARE_EQUAL_SLOTS_H
#define REFPARITY_COMPARE_EQUAL_SLOTS_H

#include <stdbool.h>

#include "refparity/compare.h"

/* Are all rows the same, to the bit, at the positions that both hold? False where one of the two is missing,
 * cannot be read, or is narrower than RP_DAMAGE_MIN_VALUES. */
bool rp_slots_are_equal(struct rp_tensor_set *set, const char *a, const char *b);

typedef void rp_compare_one_fn(const struct rp_comparison *comparison, const char *slot,
                               struct rp_slot_result *result);

/* Changes result, of a required slot, to ERROR where
 * - the last layer's output is post_norm, in the reference (transformers' hidden_states[-1] is taken after
 *   the final norm; where it has no post_norm, the engine's is held against it) or in the dump;
 * - the dump holds the same bytes under another required slot's name, where the reference does not. other
 *   compares a slot by itself: where one of the two FAILs, that stands, as an engine that leaves a layer
 *   out has equal bytes too. */
void rp_examine_equal_slots(const struct rp_comparison *comparison, struct rp_slot_result *result,
                            rp_compare_one_fn *other);

#endif
