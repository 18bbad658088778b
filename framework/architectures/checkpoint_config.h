/* config.json -> a model's configuration, as the architecture's modeling file in transformers reads it.
 * Settings that would change the computation and are not computed here are errors. Not for weights: that is
 * from_checkpoint.h. */
#ifndef REFPARITY_ARCHITECTURES_CHECKPOINT_CONFIG_H
#define REFPARITY_ARCHITECTURES_CHECKPOINT_CONFIG_H

#include "architectures/architecture.h"
#include "weights/checkpoint.h"

#define RP_MAX_ROPE_SECTIONS 4

struct rp_checkpoint_config {
    const struct rp_architecture *architecture;
    struct rp_model_config model;    /* its layer_kinds are the ones below */
    enum rp_layer_kind *layer_kinds; /* [n_layers], owned */
    size_t *intermediate_sizes;      /* [n_layers], owned; NULL: all layers have one size */
    size_t context_length;           /* 0: not said */
    bool has_llama3_rope;            /* rope scaling, with the four numbers below */
    double rope_factor, rope_low_freq_factor, rope_high_freq_factor, rope_original_context;
    float *short_rope_factors, *long_rope_factors; /* [n_rot / 2], owned, of longrope; else NULL */
    size_t n_rope_sections;                        /* of multimodal rope */
    int64_t rope_sections[RP_MAX_ROPE_SECTIONS];
};

/* *out is to be freed with rp_checkpoint_config_free, after an error too. RP_ERR_MISSING, RP_ERR_FORMAT,
 * RP_ERR_UNSUPPORTED, RP_ERR_MISMATCH with line and column of config.json; RP_ERR_MEMORY. */
enum rp_status rp_checkpoint_config_read(const struct rp_checkpoint *checkpoint,
                                         struct rp_checkpoint_config *out, struct rp_error *err);
/* Of latent attention: not absorbed, with the keys and values of heads. */
void rp_checkpoint_config_put_in_one(struct rp_checkpoint_config *config);
void rp_checkpoint_config_free(struct rp_checkpoint_config *config);

#endif
