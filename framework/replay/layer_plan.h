/* What of a layer the dump has, and what each of its slots is to be computed from: the nearest slots
 * that the dump has whole. Not for computing them: that is layer_run.c. */
#ifndef REFPARITY_REPLAY_LAYER_PLAN_H
#define REFPARITY_REPLAY_LAYER_PLAN_H

#include "architectures/architecture.h"
#include "refparity/model.h"
#include "replay/dumped.h"

struct rp_planned_slot {
    enum rp_slot_part part;
    size_t tap; /* index of its step */
    size_t dim;
    struct rp_dumped dumped;
    bool is_own;    /* every row of the run is dumped and finite */
    bool is_direct; /* one operation lies between it and own slots */
    unsigned char
        *founded;         /* [n] whether the row as computed rests on finite values of the engine */
    unsigned char *steps; /* [n_steps] what computes it from own slots, their taps among them */
    unsigned char *earlier; /* [n_steps] of these: whose rows of earlier positions it needs too */
    size_t operation;       /* the step that computes it; n_steps: none does */
    size_t first_operation; /* where others are computed on the way: the first of them */
    char from[160];         /* the slots that it is computed from */
    /* What would have to be dumped for the bound alone: the slots that are not own and that a rounding
     * on the way reads, or where there is none the nearest that is not own; "" when direct. */
    char between[96];
};

struct rp_replay_plan {
    const struct rp_model *model;
    size_t layer;
    const struct rp_step *steps; /* [n_steps] */
    size_t n_steps;
    size_t n;               /* positions: of any of the layer's slots */
    int64_t *positions;     /* [n] ascending */
    size_t sequence_length; /* see rp_dump_sequence_length */
    size_t hidden_size;
    float *input;            /* [n][hidden_size], zeroed where it is not known */
    struct rp_dumped before; /* h{l-1}, or emb */
    struct rp_planned_slot slots[RP_N_LAYER_PARTS];
    size_t n_slots;
    int64_t gap;         /* the first position of the sequence whose input is missing; -1: none */
    bool gap_is_invalid; /* its input is dumped, but not finite */
};

/* Positions up to the last one that any slot has, by which longrope chooses its factors. */
size_t rp_dump_sequence_length(const struct rp_tensor_set *dump);

/* first_position: of the sequence; -1: not known. RP_ERR_MEMORY. */
enum rp_status rp_replay_plan_open(struct rp_replay_plan *plan, const struct rp_model *model,
                                   struct rp_tensor_set *dump, size_t layer, int64_t first_position,
                                   struct rp_error *err);
void rp_replay_plan_close(struct rp_replay_plan *plan); /* a zeroed one is allowed */

/* A weight that the step reads, and that cannot be decoded; NULL: none. */
const struct rp_gguf_tensor *rp_step_undecodable(const struct rp_replay_plan *plan,
                                                 const struct rp_step *step);

/* The step that chooses experts; n_steps: the layer has none. */
size_t rp_replay_plan_choice(const struct rp_replay_plan *plan);
/* Whether experts are chosen at positions where the dump does not say which the engine chose, and a dumped slot rests
 * on it. */
bool rp_replay_plan_has_choice(const struct rp_replay_plan *plan);

/* NULL when the layer has none. */
const struct rp_planned_slot *rp_replay_plan_slot(const struct rp_replay_plan *plan,
                                                  enum rp_slot_part part);

#endif
