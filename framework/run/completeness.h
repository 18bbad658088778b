/* Is a dump complete? For an engine that does not end with exit code 0 and may (accept_exit).
 * Not for comparing: every layer is judged whatever this says. */
#ifndef REFPARITY_RUN_COMPLETENESS_H
#define REFPARITY_RUN_COMPLETENESS_H

#include <stdbool.h>

#include "refparity/matrix.h"

/* An npy dump says itself whether it was closed, where it has a dump.json. It has to hold every required slot,
 * readable, at every position that is expected: those that the entry lists, else all of the fixture's tokens,
 * else (fixture NULL, or without tokens) those of its own emb. Behind the last layer's attention the
 * last of them is enough where the entry lists none. why[size] says what is missing. */
bool rp_dump_is_complete(const struct rp_tensor_set *dump, const struct rp_entry *entry,
                         const struct rp_tensor_set *fixture, char *why, size_t size);

/* Do the slots up to the last layer's input, as far as they are dumped, lack positions that a replay needs
 * to show anything? Position 0 alone shows nothing of RoPE, mask and cache; n_tokens, 0: not known, are the
 * prompt's. why[size] says which. */
bool rp_dump_lacks_positions(const struct rp_tensor_set *dump, int n_layers, size_t n_tokens,
                             char *why, size_t size);

#endif
