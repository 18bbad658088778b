/* The architectures as data: which operations a layer runs, on which weights, in which order.
 * A new architecture is a new table in architecture.c, and new operations in ops.h if it has any.
 * Not for running them: that is forward.c. */
#ifndef REFPARITY_MODEL_ARCHITECTURE_H
#define REFPARITY_MODEL_ARCHITECTURE_H

#include "refparity/ops.h"
#include "refparity/tensor_set.h"

/* Where a step reads and writes; each is [n_positions][rp_buffer_width]. */
enum rp_buffer {
    RP_BUFFER_HIDDEN, /* the residual stream */
    RP_BUFFER_NORMED,
    RP_BUFFER_Q,
    RP_BUFFER_K,
    RP_BUFFER_V,
    RP_BUFFER_HEADS,  /* attention's output, before attn_output */
    RP_BUFFER_BRANCH, /* what is added to the residual stream */
    RP_BUFFER_GATE,
    RP_BUFFER_UP,
    RP_N_BUFFERS
};

enum rp_step_kind {
    RP_STEP_TAP, /* shows `in` as the slot `part` */
    RP_STEP_RMS_NORM,
    RP_STEP_LINEAR,
    RP_STEP_ROPE,
    RP_STEP_KV_STORE,       /* K and V to the cache */
    RP_STEP_ATTENTION,      /* Q and the cache to HEADS */
    RP_STEP_FFN_ACTIVATION, /* GATE and UP to GATE */
    RP_STEP_RESIDUAL_ADD    /* BRANCH to HIDDEN */
};

struct rp_step {
    enum rp_step_kind kind;
    enum rp_weight_id which;
    enum rp_buffer in, out;
    enum rp_slot_part part;
};

struct rp_architecture {
    const char *name; /* general.architecture */
    enum rp_rope_ordering rope_ordering;
    bool may_have_rope_freqs;
    const struct rp_step *steps; /* [n_steps] */
    size_t n_steps;
};

/* NULL when it is not known. */
const struct rp_architecture *rp_architecture_find(struct rp_gguf_string name);

/* Whether a layer of it has this weight. */
bool rp_architecture_uses(const struct rp_architecture *architecture, enum rp_weight_id which);

size_t rp_buffer_width(const struct rp_model_config *config, enum rp_buffer buffer);

/* Rows and columns of a weight; a norm's *n_out is 1. */
void rp_weight_shape(const struct rp_model_config *config, enum rp_weight_id which, size_t *n_out,
                     size_t *n_in);

/* Whether the weight is a vector in the file: the norms and rope_freqs. */
bool rp_weight_is_vector(enum rp_weight_id which);

#endif
