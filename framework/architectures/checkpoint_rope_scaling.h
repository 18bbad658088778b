/* Rope scaling of config.json, as transformers' modeling_rope_utils.py reads it. Not for what is made of it: that
 * is operations/rope_scaling.h. */
#ifndef REFPARITY_ARCHITECTURES_CHECKPOINT_ROPE_SCALING_H
#define REFPARITY_ARCHITECTURES_CHECKPOINT_ROPE_SCALING_H

#include "architectures/checkpoint_config.h"

/* rope: rope_parameters, or rope_scaling; NULL: none. Sets the model's rope_scaling, or has_llama3_rope and its
 * numbers, and longrope's factors; the sizes and context_length are set before. RP_ERR_MISSING, RP_ERR_FORMAT,
 * RP_ERR_UNSUPPORTED, RP_ERR_MISMATCH with line and column; RP_ERR_MEMORY. */
enum rp_status rp_checkpoint_rope_scaling_read(const struct rp_checkpoint *checkpoint,
                                               const cJSON *rope,
                                               struct rp_checkpoint_config *config,
                                               struct rp_error *err);

/* factors [n_rot / 2]: what llama3 scaling divides the rope frequencies by, rounded to FP32 where HF's
 * _compute_llama3_parameters rounds. */
void rp_llama3_rope_factors(const struct rp_checkpoint_config *config, float *factors);

#endif
