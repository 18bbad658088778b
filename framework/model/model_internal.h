/* What model.c, config.c, layer_state.c, forward.c and run.c share. Nothing outside this folder includes it. */
#ifndef REFPARITY_MODEL_INTERNAL_H
#define REFPARITY_MODEL_INTERNAL_H

#include "architectures/architecture.h"
#include "refparity/model.h"

struct rp_model {
    struct rp_gguf *gguf;
    const struct rp_architecture *architecture;
    struct rp_model_config config;
    enum rp_layer_kind *layer_kinds; /* [n_layers] */
    size_t *intermediate_sizes;      /* [n_layers]; NULL: all layers have one size */
    const struct rp_gguf_tensor *(*layers)[RP_N_LAYER_WEIGHTS]; /* [n_layers]; NULL: not used */
    const struct rp_gguf_tensor *token_embd;                    /* [vocab_size][hidden_size] */
    const struct rp_gguf_tensor *output; /* [vocab_size][hidden_size]; may be token_embd */
    float *output_norm;                  /* [hidden_size] */
    float *rope_factors;                 /* [n_rot / 2], what frequencies are divided by; or NULL */
    float *long_rope_factors; /* the same of sequences that are longer than the original context */
    size_t first_layer, last_layer; /* that were asked for; of a part of the shards, all there is */
};

struct rp_layer_state {
    enum rp_layer_kind kind;
    size_t capacity, n_used;
    int64_t *positions; /* [capacity], the first n_used are set */
    /* Full attention; else NULL. */
    size_t kv_dim; /* n_kv_heads * head_dim */
    float *keys;   /* [capacity][kv_dim] */
    float *values; /* [capacity][kv_dim] */
    /* Linear attention; else NULL. */
    float *conv;      /* [conv_kernel - 1][channels], oldest first */
    float *recurrent; /* [n_linear_v_heads][linear_head_dim][linear_head_dim] */
};

/* RP_ERR_ARGUMENT where n positions do not fit into state or do not follow its own. */
enum rp_status rp_layer_state_check(const struct rp_layer_state *state, size_t n,
                                    const int64_t *positions, struct rp_error *err);
/* Notes the positions, after rp_layer_state_check; what is kept of them is the operations'. */
void rp_layer_state_append(struct rp_layer_state *state, size_t n, const int64_t *positions);

/* Reads the configuration from the metadata; vocab_size comes from token_embd. *layer_kinds
 * and *intermediate_sizes, [n_layers] or NULL, are freed by the caller, also after an error. */
enum rp_status rp_config_read(const struct rp_gguf *gguf,
                              const struct rp_architecture **architecture,
                              struct rp_model_config *config, enum rp_layer_kind **layer_kinds,
                              size_t **intermediate_sizes, struct rp_error *err);

/* The same of rope scaling, whose sizes and attention's scale are set. */
enum rp_status rp_config_read_rope_scaling(const struct rp_gguf *gguf,
                                           const struct rp_architecture *architecture,
                                           struct rp_model_config *config, struct rp_error *err);

/* What the frequencies are divided by in a layer of that kind, in a sequence of so many positions: [n_rot / 2],
 * NULL: nothing. HF: longrope_frequency_update. */
const float *rp_model_rope_factors(const struct rp_model *model, enum rp_layer_kind kind,
                                   size_t sequence_length);

/* What that layer computes. */
const struct rp_layer_plan *rp_layer_plan_of(const struct rp_model *model, size_t layer);

/* floats [n * width], freed by the caller; RP_ERR_MEMORY when there is none, or too many. */
enum rp_status rp_float_alloc(size_t n, size_t width, float **floats, struct rp_error *err);

/* Tells the forward pass's tap, if any. */
enum rp_status rp_tap_emit(const struct rp_forward *forward, enum rp_slot_part part, int layer,
                           size_t n, const int64_t *positions, size_t dim, float *rows,
                           struct rp_error *err);

/* The operations' view of a call. */
struct rp_site rp_site_make(const struct rp_forward *forward, int layer, size_t n,
                            const int64_t *positions, struct rp_error *err);

#endif
