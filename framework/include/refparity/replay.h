/* Replay: each operation of the C model, run on the engine's own dumped values with the engine's own
 * weights. What the engine's output differs by is what that operation introduces; what it was given
 * does not show. An operation whose inputs are not dumped is carried from the nearest slots that are.
 * Not for end-to-end errors (compare.h), nor for saying why (explain.h). */
#ifndef REFPARITY_REPLAY_H
#define REFPARITY_REPLAY_H

#include <stdbool.h>

#include "refparity/compare.h"
#include "refparity/model.h"
#include "refparity/numerics.h"
#include "refparity/overlay.h"
#include "refparity/tensor_set.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One slot, computed from dumped slots before it. Arrays are owned by the result. */
struct rp_replay_slot {
    char slot[RP_SLOT_NAME_SIZE];
    enum rp_slot_part part;
    int layer; /* -1: outside the layers */
    /* "RoPE", "the product with attn_q" …; where several lie on the way, the first and the last: "the RMS
     * norm attn_norm to the residual add" */
    char operation[96];
    char from[160]; /* the slots that it was computed from: "h3_qrope, h3_krope, h3_v" */
    /* The operation's inputs are not all dumped: others were computed on the way. between: the slots
     * that would have to be dumped for the bound alone; "" when nothing is carried. */
    bool is_carried;
    bool has_product; /* a matrix product computes it, or lies on the way */
    char between[96];
    enum rp_verdict
        verdict; /* PASS, FAIL, SKIP (not dumped, or nothing to compute it from), ERROR */
    size_t n_positions;
    int64_t *positions; /* [n_positions] that were compared */
    double
        *introduced; /* [n_positions] ||engine - replayed|| / ||replayed||; NaN where the engine's
                         * row is not finite */
    /* [n_positions] the operation's bound, same unit: what FP32 sums in another order may add, and
     * where a declared rounding lies on the way, what a few values that tip to their other neighbour
     * change */
    double *limit;
    /* [n_positions] the bound without tips; equal to limit where nothing is rounded on the way */
    double *bound;
    size_t n_left_out;    /* dumped positions that could not be replayed: the message says why */
    size_t n_failing;     /* !(introduced <= limit) */
    size_t n_over;        /* !(introduced <= bound): tips are to be expected there, so many: */
    double n_expected;    /* positions with a tip; 0 where nothing is rounded on the way */
    size_t worst;         /* index of the largest introduced / limit; 0 when nothing was compared */
    size_t first;         /* index of the first position that makes it fail, n_positions: none */
    size_t worst_channel; /* of the first failing position */
    char message[512];    /* one line, as a failure report has it */
};

/* The name number index of slot->from; false: there are no more. */
bool rp_replay_source(const struct rp_replay_slot *slot, size_t index,
                      char name[RP_SLOT_NAME_SIZE]);

/* A layer's slots in forward order; those that are not dumped are left out. Outside the layers: emb; or
 * post_norm; or logits. */
struct rp_replay_layer {
    int layer;               /* -1: outside the layers */
    enum rp_verdict verdict; /* the worst of its slots; SKIP when none was compared */
    size_t n_slots;
    struct rp_replay_slot slots[RP_N_LAYER_PARTS];
    const struct rp_replay_slot *first_failing; /* NULL: none */
};
void rp_replay_layer_free(struct rp_replay_layer *result); /* a zeroed one is allowed */

struct rp_replay_options {
    struct rp_numerics numerics;
    enum rp_mode mode;     /* told to the operations */
    const int64_t *tokens; /* [n_tokens] or NULL: those of the dump; without either emb is SKIP */
    size_t n_tokens;
};

struct rp_replay;

/* Checks that model and dump belong together (layers, widths), and that the dump's values are of a 16-bit
 * state that is declared. Both stay the caller's and have to outlive it. RP_ERR_MISMATCH,
 * RP_ERR_UNSUPPORTED (numerics that it cannot emulate), RP_ERR_MEMORY. */
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

/* ---- one slot's rows, with something exchanged: for explain.h ---- */

struct rp_replay_variant {
    struct rp_overlay *overlay;     /* laid over the emulation by replay, which sets overlay->below;
                                     * its other ops are the caller's; NULL: none */
    const struct rp_layer *weights; /* in the place of the layer's own; NULL: its own */
    const struct rp_numerics *numerics; /* in the place of the options'; NULL: the options' */
};

/* Only the operations between the dumped slots and this one are run. rows [slot->n_positions][dim] takes
 * what they compute, in the order of slot->positions; dim is rp_model_slot_width. variant NULL: nothing
 * is exchanged. Outside the layers weights are ignored. */
enum rp_status rp_replay_slot_rows(struct rp_replay *replay, const struct rp_replay_slot *slot,
                                   const struct rp_replay_variant *variant, float *rows,
                                   struct rp_error *err);

/* The engine's own rows of a slot at these positions: rows [n][dim]. RP_ERR_MISSING where one is not
 * dumped, or not as wide. */
enum rp_status rp_replay_dumped_rows(struct rp_replay *replay, const char *slot,
                                     const int64_t *positions, size_t n, size_t dim, float *rows,
                                     struct rp_error *err);

/* The layer's weights, decoded once and kept until another layer's are asked for. */
enum rp_status rp_replay_weights(struct rp_replay *replay, size_t layer,
                                 const struct rp_layer **weights, struct rp_error *err);

/* The options' numerics as they are for a slot of that part: HF keeps the decay in FP32, whatever the
 * state. */
struct rp_numerics rp_replay_part_numerics(const struct rp_numerics *numerics,
                                           enum rp_slot_part part);

/* What the engine's row differs from the replayed one by, over ||replayed||; an engine that keeps its
 * values in a 16-bit type is allowed half a step of it, value by value. */
double rp_replay_row_error(const struct rp_numerics *numerics, const float *replayed,
                           const float *engine, size_t dim);

#ifdef __cplusplus
}
#endif
#endif
