/* Names that look like a slot's, of a set that has not the slot itself: other recorders write layer_0 or
 * hidden_states_1 for h0. For messages only: nothing is compared under such a name. */
#ifndef REFPARITY_COMPARE_CLOSE_NAMES_H
#define REFPARITY_COMPARE_CLOSE_NAMES_H

#include "refparity/tensor_set.h"

/* A name of set that refparity does not know and that looks like slot, a required one, of a model with
 * n_layers; NULL where there is none, or set has slot. dim: of the slot on the other side, 0: not known.
 * Owned by the set. */
const char *rp_close_name(const struct rp_tensor_set *set, const char *slot, int n_layers,
                          size_t dim);

#endif
