/* What model.c, config.c, forward.c and run.c share. Nothing outside this folder includes it. */
#ifndef REFPARITY_MODEL_INTERNAL_H
#define REFPARITY_MODEL_INTERNAL_H

#include "model/architecture.h"
#include "refparity/model.h"

struct rp_model {
    struct rp_gguf *gguf;
    const struct rp_architecture *architecture;
    struct rp_model_config config;
    const struct rp_gguf_tensor *(*layers)[RP_N_LAYER_WEIGHTS]; /* [n_layers]; NULL: not used */
    const struct rp_gguf_tensor *token_embd;                    /* [vocab_size][hidden_size] */
    const struct rp_gguf_tensor *output; /* [vocab_size][hidden_size]; may be token_embd */
    float *output_norm;                  /* [hidden_size] */
    float *rope_freqs;                   /* [n_rot / 2], or NULL */
};

/* Reads the configuration from the metadata; vocab_size comes from token_embd. */
enum rp_status rp_config_read(const struct rp_gguf *gguf,
                              const struct rp_architecture **architecture,
                              struct rp_model_config *config, struct rp_error *err);

/* floats [n * width], freed by the caller; RP_ERR_MEMORY when there is none, or too many. */
enum rp_status rp_float_alloc(size_t n, size_t width, float **floats, struct rp_error *err);

/* Tells the forward pass's tap, if any. */
enum rp_status rp_tap_emit(const struct rp_forward *forward, enum rp_slot_part part, int layer,
                           size_t n, const int64_t *positions, size_t dim, const float *rows,
                           struct rp_error *err);

/* The operations' view of a call. */
struct rp_site rp_site_make(const struct rp_forward *forward, int layer, size_t n,
                            const int64_t *positions, struct rp_error *err);

#endif
