/* What replay.c, layer.c and outside.c share: an open replay. */
#ifndef REFPARITY_REPLAY_SESSION_H
#define REFPARITY_REPLAY_SESSION_H

#include "refparity/replay.h"
#include "replay/forced.h"

/* Runs that the floor is measured in. */
enum { RP_N_FLOOR_RUNS = 3 };

struct rp_replay {
    const struct rp_model *model;
    struct rp_tensor_set *dump;
    struct rp_replay_options options;
    const int64_t *tokens; /* [n_tokens]; NULL: not known */
    size_t n_tokens;
    int64_t first_position; /* of the sequence; -1: not known */
    size_t loaded;          /* the layer whose weights are in memory; SIZE_MAX: none */
    struct rp_layer weights;
    size_t flipped_layer; /* whose flips are known, as it was replayed last */
    struct rp_tie *flips; /* [n_flips] */
    size_t n_flips;
};

/* The layer's weights, decoded once and kept until another layer's are asked for. */
enum rp_status rp_replay_weights(struct rp_replay *replay, size_t layer,
                                 const struct rp_layer **weights, struct rp_error *err);

/* rp_replay_rows outside the layers. */
enum rp_status rp_replay_part_rows(struct rp_replay *replay, const struct rp_replay_slot *slot,
                                   float **computed, float **dumped, size_t *dim,
                                   struct rp_error *err);
/* Copies the rows of slot's positions out of computed and the dump. */
enum rp_status rp_replay_copy_rows(const struct rp_replay_slot *slot, const struct rp_dumped *from,
                                   size_t n, const int64_t *positions, const float *rows,
                                   size_t dim, float **computed, float **dumped,
                                   struct rp_error *err);

#endif
