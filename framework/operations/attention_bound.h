/* What attention's output may be off by in an engine that is right: FP32 sums in another order, and
 * what is rounded inside and tips to its other neighbour. The derivation is in README.md.
 * Not for what attention computes: that is attention_f16.c. */
#ifndef REFPARITY_OPERATIONS_ATTENTION_BOUND_H
#define REFPARITY_OPERATIONS_ATTENTION_BOUND_H

#include "refparity/numerics.h"

/* What attention's output may be off by, for each position of the call. args->q is Q before rounding,
 * args->keys and values are what the cache stores, args->y is what the emulation made of them. k and v
 * [n_keys][n_kv_heads][head_dim]: K after its rotation, and V, as they were before the cache rounded
 * them, which tells which values of a quantized cache may have tipped; other caches do not look at
 * them. sigma: standard error of each value from FP32 sums in another order,
 * [n_positions][n_heads * head_dim]. tips: for each position, an absolute L2 allowance for what is
 * rounded inside and may tip to the other neighbour, [n_positions]; 0 where nothing does. A position's
 * limit is 3 * sqrt(sum sigma^2) + tips. RP_ERR_MEMORY. */
enum rp_status rp_attention_bound(const struct rp_numerics *numerics, const struct rp_site *site,
                                  const struct rp_attention *args, const float *k, const float *v,
                                  float *sigma, double *tips);

#endif
