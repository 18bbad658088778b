/* Parts of an operation's arguments: the positions of a call, and the heads of what it writes.
 * Only probe.c needs it. */
#ifndef REFPARITY_EXPLAIN_SLICES_H
#define REFPARITY_EXPLAIN_SLICES_H

#include "refparity/ops.h"

#define RP_OPERATIONS(X) \
    X(rms_norm)          \
    X(linear)            \
    X(rope)              \
    X(kv_store)          \
    X(attention)         \
    X(split_gate)        \
    X(attention_gate)    \
    X(causal_conv1d)     \
    X(l2_norm)           \
    X(delta_decay)       \
    X(delta_beta)        \
    X(delta_rule)        \
    X(gated_norm)        \
    X(ffn_activation)    \
    X(residual_add)

enum rp_heads { RP_HEADS_Q, RP_HEADS_KV };

/* Heads side by side in rows: [n_rows][n_heads][width], rows stride apart. */
struct rp_head_view {
    float *data;
    size_t n_rows, stride, n_heads, width;
    enum rp_heads heads;
};
#define RP_MAX_HEAD_VIEWS 2

/* rp_slice_X: args for positions first .. first + n - 1 of the site's.
 * rp_heads_of_X: what the operation writes, head by head, views [RP_MAX_HEAD_VIEWS]; returns how many
 * views there are, 0 where what it writes has no heads. */
#define RP_DECLARE_SLICE(operation)                                                               \
    struct rp_##operation rp_slice_##operation(                                                   \
        const struct rp_##operation *args, const struct rp_site *site, size_t first, size_t n);   \
    size_t rp_heads_of_##operation(const struct rp_##operation *args, const struct rp_site *site, \
                                   struct rp_head_view *views);
RP_OPERATIONS(RP_DECLARE_SLICE)

#endif
