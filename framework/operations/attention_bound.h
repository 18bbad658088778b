/* What attention's output may be off by in an engine that is right: FP32 sums in another order, and
 * what is rounded inside and tips to its other neighbour. The derivation is in README.md.
 * Not for what attention computes: that is attention_f16.c. */
#ifndef REFPARITY_OPERATIONS_ATTENTION_BOUND_H
#define REFPARITY_OPERATIONS_ATTENTION_BOUND_H

#include "refparity/numerics.h"

/* What attention's output may be off by, for each position of the call. args->q is Q before rounding,
 * args->keys and values are what the cache stores, args->y is what the emulation made of them. sigma:
 * standard error of each value from FP32 sums in another order, [n_positions][n_heads * head_dim].
 * flips: for each position, an absolute L2 allowance for what is rounded inside and may tip to the
 * other neighbour, [n_positions]; 0 where nothing does. A position's limit is 3 * sqrt(sum sigma^2) +
 * flips. RP_ERR_MEMORY. */
enum rp_status rp_attention_bound(const struct rp_numerics *numerics, const struct rp_site *site,
                                  const struct rp_attention *args, float *sigma, double *flips);

/* The same where K after its rotation, and V, are known as they were before the cache rounded them:
 * k and v [n_keys][n_kv_heads][head_dim]. Of a quantized cache it is then known which values may have
 * tipped, and flips is far smaller; of other caches it changes nothing. Both NULL: as above. */
enum rp_status rp_attention_bound_of(const struct rp_numerics *numerics, const struct rp_site *site,
                                     const struct rp_attention *args, const float *k,
                                     const float *v, float *sigma, double *flips);

#endif
