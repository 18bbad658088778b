/* What replay.c, layer.c and outside.c share: an open replay. */
#ifndef REFPARITY_REPLAY_SESSION_H
#define REFPARITY_REPLAY_SESSION_H

#include "refparity/replay.h"

struct rp_replay {
    const struct rp_model *model;
    struct rp_tensor_set *dump;
    struct rp_replay_options options;
    const int64_t *tokens; /* [n_tokens]; NULL: not known */
    size_t n_tokens;
    int64_t first_position; /* of the sequence; -1: not known */
    size_t loaded;          /* the layer whose weights are in memory; SIZE_MAX: none */
    struct rp_layer weights;
};

/* rp_replay_slot_rows of a layer's slot, and outside the layers. */
enum rp_status rp_replay_layer_rows(struct rp_replay *replay, const struct rp_replay_slot *slot,
                                    const struct rp_replay_variant *variant, float *rows,
                                    struct rp_error *err);
enum rp_status rp_replay_part_rows(struct rp_replay *replay, const struct rp_replay_slot *slot,
                                   const struct rp_replay_variant *variant, float *rows,
                                   struct rp_error *err);

/* The operations to run: the emulation over the plain ones, where something is rounded, and the
 * variant's over that. */
const struct rp_ops *rp_replay_stack(const struct rp_numerics *numerics,
                                     struct rp_emulation *emulation, struct rp_overlay *overlay);

/* options' numerics with the prompt's length, where it is known. */
struct rp_numerics rp_replay_numerics(const struct rp_replay *replay);

#endif
