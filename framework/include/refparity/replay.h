/* Replay: each layer of the C model, run on the engine's own dumped values with the engine's own
 * weights, from each dumped slot to the next. What comes out beside what the engine dumped is the
 * error that this step introduces; what it inherits does not show.
 * Not for end-to-end errors (compare.h), nor for saying why (explain.h). */
#ifndef REFPARITY_REPLAY_H
#define REFPARITY_REPLAY_H

#include "refparity/compare.h"
#include "refparity/model.h"
#include "refparity/numerics.h"
#include "refparity/overlay.h"
#include "refparity/tensor_set.h"

#ifdef __cplusplus
extern "C" {
#endif

/* An error is over the limit when it is more than this many times the floor. */
#define RP_REPLAY_LIMIT 3.0

/* One slot, computed from the dumped slots before it. Arrays are owned by the result. */
struct rp_replay_slot {
    char slot[RP_SLOT_NAME_SIZE];
    enum rp_slot_part part;
    int layer;                    /* -1: outside the layers */
    char from[RP_SLOT_NAME_SIZE]; /* the last dumped slot before it, which it was computed from */
    enum rp_verdict
        verdict; /* PASS, FAIL, SKIP (not dumped, or nothing to compute it from), ERROR */
    size_t n_positions;
    int64_t *positions; /* [n_positions] that were compared */
    double
        *introduced;  /* [n_positions] ||engine - replayed|| / ||replayed||, after flips; NaN where
                         * the engine's row is not finite */
    double *floor;    /* [n_positions] what FP32 arithmetic in another order may add, same unit */
    size_t n_failing; /* !(introduced <= RP_REPLAY_LIMIT * floor) */
    size_t n_flipped; /* positions brought under the limit by flips of near-ties */
    size_t n_flips;   /* ties that were flipped for them */
    size_t worst;     /* index of the largest introduced / floor; 0 when nothing was compared */
    size_t first;     /* index of the first position over the limit, n_positions: none */
    size_t worst_channel; /* of the first failing position */
    char message[512];    /* one line, as a failure report has it */
};

/* A layer's slots in forward order: h{l}_in, h{l}_postattn, h{l}_preffn, h{l}_ffnout, h{l}; those that
 * are not dumped are left out. Outside the layers: emb; or post_norm; or logits. */
struct rp_replay_layer {
    int layer;               /* -1: outside the layers */
    enum rp_verdict verdict; /* the worst of its slots; SKIP when none was compared */
    size_t n_slots;
    struct rp_replay_slot slots[5];
    const struct rp_replay_slot *first_failing; /* NULL: none */
};
void rp_replay_layer_free(struct rp_replay_layer *result); /* a zeroed one is allowed */

struct rp_replay_options {
    struct rp_numerics numerics;
    enum rp_mode mode;     /* told to the operations */
    const int64_t *tokens; /* [n_tokens] or NULL: those of the dump; without either emb is SKIP */
    size_t n_tokens;
    /* 1: near-ties are not tried; 0, the default: they are, where a position is over the limit */
    int without_flips;
};

struct rp_replay;

/* Checks that model and dump belong together (layers, widths). Both stay the caller's and have to
 * outlive it. RP_ERR_MISMATCH, RP_ERR_MEMORY. */
enum rp_status rp_replay_open(const struct rp_model *model, struct rp_tensor_set *dump,
                              const struct rp_replay_options *options, struct rp_replay **out,
                              struct rp_error *err);
void rp_replay_close(struct rp_replay *replay); /* NULL is allowed */

const struct rp_model *rp_replay_model(const struct rp_replay *replay);
const struct rp_replay_options *rp_replay_options(const struct rp_replay *replay);
struct rp_tensor_set *rp_replay_dump(const struct rp_replay *replay);

/* One layer, 0 .. n_layers - 1. A slot that cannot be read is an ERROR of its own; what is returned
 * are errors of the whole: RP_ERR_MEMORY, or the weights cannot be read. */
enum rp_status rp_replay_run_layer(struct rp_replay *replay, size_t layer,
                                   struct rp_replay_layer *result, struct rp_error *err);
/* emb from the tokens; post_norm from the last layer's output; logits from post_norm. */
enum rp_status rp_replay_run_part(struct rp_replay *replay, enum rp_slot_part part,
                                  struct rp_replay_layer *result, struct rp_error *err);

/* ---- the same with something exchanged, for explain.h ---- */

struct rp_replay_variant {
    struct rp_overlay *overlay;     /* laid over the emulation by replay, which sets overlay->below;
                                     * its other ops are the caller's; NULL: none */
    const struct rp_layer *weights; /* in the place of the layer's own; NULL: its own */
    const struct rp_numerics *numerics; /* in the place of the options'; NULL: the options' */
    int with_flips;                     /* 1: near-ties are tried too; 0: not, which is faster */
    size_t n_positions;                 /* only the first so many rows of the dump; 0: all */
};

/* As rp_replay_run_layer. baseline: what rp_replay_run_layer gave, whose floors are taken over where
 * it is not NULL (they cost three runs). */
enum rp_status rp_replay_run_variant(struct rp_replay *replay, size_t layer,
                                     const struct rp_replay_variant *variant,
                                     const struct rp_replay_layer *baseline,
                                     struct rp_replay_layer *result, struct rp_error *err);

/* What the C model computes for slot from the engine's values before it, and what the engine dumped,
 * rows in the order of the slot's positions: for fits in closed form. computed and dumped
 * [n_positions][dim] are freed by the caller. inputs: the engine's own values that the step started
 * from (slot->from), or NULL. */
enum rp_status rp_replay_rows(struct rp_replay *replay, size_t layer,
                              const struct rp_replay_slot *slot, float **computed, float **dumped,
                              size_t *dim, struct rp_error *err);

#ifdef __cplusplus
}
#endif
#endif
