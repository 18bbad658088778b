/* The order of a position's chosen experts. Engines list them in orders of their own (by score, by number, as a
 * kernel left them), which changes no result: sets are read with the experts of each position by rising number. Not for
 * which experts they should be: that is operations/router.h. */
#ifndef REFPARITY_TENSOR_CHOSEN_ORDER_H
#define REFPARITY_TENSOR_CHOSEN_ORDER_H

#include <stdbool.h>

#include "refparity/tensor_set.h"

/* Whether rows of that part have a piece for each chosen expert, where the layer has _experts. */
bool rp_part_is_of_experts(enum rp_slot_part part);

/* Whether the experts are known wherever the slot has a row; RP_ERR_MISMATCH: not. Both are of one layer of the set
 * at path, and the slot is a part of experts. */
enum rp_status rp_chosen_check(const struct rp_slot_info *experts, const struct rp_slot_info *slot,
                               const char *path, struct rp_error *err);

/* Puts the pieces of tensor's rows in the order of experts' numbers, in memory that it owns: experts are the same
 * layer's, as dumped. Rows without one there, and rows that are not as many pieces wide, stay. RP_ERR_MEMORY. */
enum rp_status rp_chosen_order(const struct rp_tensor *experts, struct rp_tensor *tensor,
                               struct rp_error *err);

#endif
