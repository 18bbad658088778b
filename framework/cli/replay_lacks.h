/* What a dump lacks for a replay of it to be whole: its slots, positions and tokens. Not for replaying it. */
#ifndef REFPARITY_CLI_REPLAY_LACKS_H
#define REFPARITY_CLI_REPLAY_LACKS_H

#include "cli/replay_output.h"

struct rp_replay_wanted {
    int n_layers;
    int first_layer, last_layer; /* -1: all, and what stands outside them */
    const int64_t *tokens;       /* [n_tokens] in the place of the dump's; NULL: the dump's */
    size_t n_tokens;
};

/* Sets what counts says of it. */
void rp_replay_find_lacks(const struct rp_replay_wanted *wanted, struct rp_tensor_set *dump,
                          struct rp_replay_counts *counts);

#endif
