/* What tips in attention over a quantized cache: K, Q and V are turned by a Hadamard matrix, a sum in
 * FP32, before they are rounded to blocks. Not for other caches: what they round is dumped. */
#ifndef REFPARITY_OPERATIONS_CACHE_TIPS_H
#define REFPARITY_OPERATIONS_CACHE_TIPS_H

#include <stdint.h>

#include "operations/attention_row.h"
#include "operations/tips.h"

/* A tip's part in one head. */
struct rp_cache_tip {
    size_t key, head;  /* head: of K, V or Q */
    bool is_value;     /* of V */
    struct rp_tip tip; /* first: within the head */
    float norm;        /* of what it changes, at most */
};

struct rp_cache_tips {
    uint32_t format;
    const struct rp_attention *args;
    size_t k_size, v_size;     /* how many values are turned together; 0: none are */
    struct rp_cache_tip *tips; /* [n_cache + n_q]: of K and V, by key; then of one position's Q */
    size_t n_tips, n_cache, capacity;
    float *turned; /* [n_heads][head_dim]: one position's Q, turned and rounded */
    float *row;    /* [max(n_heads, n_kv_heads)][head_dim], scratch */
    float *y;      /* [2][head_dim], scratch */
    float *norms;  /* [n_keys][n_kv_heads]: |K|^2 */
    struct rp_error *err;
    enum rp_status status;
};

/* k and v as rp_attention_bound has them. RP_ERR_MEMORY; close in any case. */
enum rp_status rp_cache_tips_open(struct rp_cache_tips *tips, uint32_t format,
                                  const struct rp_attention *args, const float *k, const float *v,
                                  struct rp_error *err);
void rp_cache_tips_close(struct rp_cache_tips *tips);

/* A position begins: q [n_heads][head_dim], to rounded as it is multiplied. RP_ERR_MEMORY. */
enum rp_status rp_cache_tips_read_q(struct rp_cache_tips *tips, const float *q, float *rounded);

/* What the tips change in a head's y, at most. */
double rp_cache_tips_worth(struct rp_cache_tips *tips, const struct rp_attention_row *row);

#endif
