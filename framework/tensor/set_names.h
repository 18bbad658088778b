/* Gives the slots of a set the names that refparity knows, by rules (names.h), where it is clear which: what
 * was renamed is noted, and two names for one slot are an error. */
#ifndef REFPARITY_TENSOR_SET_NAMES_H
#define REFPARITY_TENSOR_SET_NAMES_H

#include "tensor/set.h"

/* Renames slots as set->options say: by the user's names, or, with_aliases and where no manifest says that
 * names are refparity's, by common ones. An array of many slots becomes those. Names that can be no slot's go
 * to set->others. RP_ERR_MISMATCH: it is not clear; the message has both readings and what to do.
 * RP_ERR_MEMORY, RP_ERR_UNSUPPORTED. */
enum rp_status rp_set_names_apply(struct rp_tensor_set *set, struct rp_error *err);

/* RP_SET_TOKENS or RP_SET_POSITIONS where a user's rule says that the array of that name, [n], is those;
 * else RP_SET_SLOT. */
enum rp_set_array rp_names_array(struct rp_names *names, const char *name, size_t n);

#endif
