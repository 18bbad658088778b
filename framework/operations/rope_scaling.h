/* How RoPE's frequencies are scaled: what each pair's is divided by, and what cosine and sine are multiplied by,
 * from the settings of a model. HF: modeling_rope_utils.py. Not for the rotation itself: that is rope.c. */
#ifndef REFPARITY_OPERATIONS_ROPE_SCALING_H
#define REFPARITY_OPERATIONS_ROPE_SCALING_H

#include "refparity/ops.h"

#define RP_YARN_BETA_FAST 32.0f /* where a model does not say */
#define RP_YARN_BETA_SLOW 1.0f

/* factors [n_rot / 2] of linear and YaRN; else all 1. As rp_op_rope divides by them, frequencies are HF's to the
 * last bit or its neighbour. HF: _compute_linear_scaling_rope_parameters, _compute_yarn_parameters. */
void rp_rope_scaling_factors(const struct rp_rope_scaling *scaling, float theta, size_t n_rot,
                             float *factors);

/* 0.1 mscale log(factor) + 1, and 1 for a factor of up to 1. HF: get_mscale, yarn_get_mscale. */
double rp_yarn_mscale(double factor, double mscale);

/* What YaRN's cosine and sine are multiplied by where a model says no more: mscale and mscale_all_dim, 0: not
 * said. HF: _compute_yarn_parameters. */
double rp_yarn_attention_factor(double factor, double mscale, double mscale_all_dim);

/* What longrope's cosine and sine are multiplied by where a model does not say; factor: how much longer than
 * the original context it was made for. HF: _compute_longrope_parameters. */
double rp_longrope_attention_factor(double factor, double original_context);

#endif
