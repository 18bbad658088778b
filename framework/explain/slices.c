/* See explain/slices.h. */
#include "explain/slices.h"

struct rp_rms_norm rp_slice_rms_norm(const struct rp_rms_norm *args, const struct rp_site *site,
                                     size_t first, size_t n)
{
    struct rp_rms_norm part = *args;
    size_t per_position = args->n_rows / site->n_positions;
    part.n_rows = n * per_position;
    part.x += first * per_position * args->dim;
    part.y += first * per_position * args->dim;
    return part;
}

size_t rp_heads_of_rms_norm(const struct rp_rms_norm *args, const struct rp_site *site,
                            struct rp_head_view *views)
{
    bool is_q = args->which == RP_ATTN_Q_NORM;
    size_t n_heads = args->n_rows / site->n_positions;
    if (!is_q && args->which != RP_ATTN_K_NORM)
        return 0;
    views[0] = (struct rp_head_view){.data = args->y,
                                     .n_rows = site->n_positions,
                                     .stride = n_heads * args->dim,
                                     .n_heads = n_heads,
                                     .width = args->dim,
                                     .heads = is_q ? RP_HEADS_Q : RP_HEADS_KV};
    return 1;
}

struct rp_linear rp_slice_linear(const struct rp_linear *args, const struct rp_site *site,
                                 size_t first, size_t n)
{
    struct rp_linear part = *args;
    (void)site;
    (void)n;
    part.x += first * args->n_in;
    part.y += first * args->y_stride;
    return part;
}

size_t rp_heads_of_linear(const struct rp_linear *args, const struct rp_site *site,
                          struct rp_head_view *views)
{
    const struct rp_model_config *config = site->config;
    size_t n_heads = 0;
    enum rp_heads heads = RP_HEADS_Q;
    switch (args->which) {
    case RP_ATTN_Q: n_heads = config->n_heads; break;
    case RP_ATTN_K:
    case RP_ATTN_V:
        n_heads = config->n_kv_heads;
        heads = RP_HEADS_KV;
        break;
    case RP_ATTN_GATE:
    case RP_SSM_ALPHA:
    case RP_SSM_BETA: n_heads = config->n_linear_v_heads; break;
    default: return 0;
    }
    views[0] = (struct rp_head_view){.data = args->y,
                                     .n_rows = site->n_positions,
                                     .stride = args->y_stride,
                                     .n_heads = n_heads,
                                     .width = args->n_out / n_heads,
                                     .heads = heads};
    return 1;
}

struct rp_rope rp_slice_rope(const struct rp_rope *args, const struct rp_site *site, size_t first,
                             size_t n)
{
    struct rp_rope part = *args;
    (void)site;
    (void)n;
    part.positions += first;
    part.x += first * args->n_heads * args->head_dim;
    return part;
}

size_t rp_heads_of_rope(const struct rp_rope *args, const struct rp_site *site,
                        struct rp_head_view *views)
{
    views[0] = (struct rp_head_view){.data = args->x,
                                     .n_rows = site->n_positions,
                                     .stride = args->n_heads * args->head_dim,
                                     .n_heads = args->n_heads,
                                     .width = args->head_dim,
                                     .heads = args->which == RP_ATTN_Q ? RP_HEADS_Q : RP_HEADS_KV};
    return 1;
}

struct rp_kv_store rp_slice_kv_store(const struct rp_kv_store *args, const struct rp_site *site,
                                     size_t first, size_t n)
{
    struct rp_kv_store part = *args;
    (void)site;
    (void)n;
    part.k += first * args->dim;
    part.v += first * args->dim;
    part.keys += first * args->dim;
    part.values += first * args->dim;
    return part;
}

size_t rp_heads_of_kv_store(const struct rp_kv_store *args, const struct rp_site *site,
                            struct rp_head_view *views)
{
    float *const written[2] = {args->keys, args->values};
    for (size_t i = 0; i < 2; i++)
        views[i] = (struct rp_head_view){.data = written[i],
                                         .n_rows = site->n_positions,
                                         .stride = args->dim,
                                         .n_heads = site->config->n_kv_heads,
                                         .width = args->dim / site->config->n_kv_heads,
                                         .heads = RP_HEADS_KV};
    return 2;
}

struct rp_attention rp_slice_attention(const struct rp_attention *args, const struct rp_site *site,
                                       size_t first, size_t n)
{
    struct rp_attention part = *args;
    (void)site;
    (void)n;
    part.q += first * args->n_heads * args->head_dim;
    part.y += first * args->n_heads * args->head_dim;
    return part;
}

size_t rp_heads_of_attention(const struct rp_attention *args, const struct rp_site *site,
                             struct rp_head_view *views)
{
    views[0] = (struct rp_head_view){.data = args->y,
                                     .n_rows = site->n_positions,
                                     .stride = args->n_heads * args->head_dim,
                                     .n_heads = args->n_heads,
                                     .width = args->head_dim,
                                     .heads = RP_HEADS_Q};
    return 1;
}

struct rp_split_gate rp_slice_split_gate(const struct rp_split_gate *args,
                                         const struct rp_site *site, size_t first, size_t n)
{
    struct rp_split_gate part = *args;
    size_t width = args->n_heads * args->head_dim;
    (void)site;
    (void)n;
    part.x += first * 2 * width;
    part.q += first * width;
    part.gate += first * width;
    return part;
}

size_t rp_heads_of_split_gate(const struct rp_split_gate *args, const struct rp_site *site,
                              struct rp_head_view *views)
{
    float *const written[2] = {args->q, args->gate};
    for (size_t i = 0; i < 2; i++)
        views[i] = (struct rp_head_view){.data = written[i],
                                         .n_rows = site->n_positions,
                                         .stride = args->n_heads * args->head_dim,
                                         .n_heads = args->n_heads,
                                         .width = args->head_dim,
                                         .heads = RP_HEADS_Q};
    return 2;
}

struct rp_attention_gate rp_slice_attention_gate(const struct rp_attention_gate *args,
                                                 const struct rp_site *site, size_t first, size_t n)
{
    struct rp_attention_gate part = *args;
    (void)site;
    (void)n;
    part.gate += first * args->dim;
    part.y += first * args->dim;
    return part;
}

size_t rp_heads_of_attention_gate(const struct rp_attention_gate *args, const struct rp_site *site,
                                  struct rp_head_view *views)
{
    views[0] = (struct rp_head_view){.data = args->y,
                                     .n_rows = site->n_positions,
                                     .stride = args->dim,
                                     .n_heads = site->config->n_heads,
                                     .width = args->dim / site->config->n_heads,
                                     .heads = RP_HEADS_Q};
    return 1;
}

struct rp_causal_conv1d rp_slice_causal_conv1d(const struct rp_causal_conv1d *args,
                                               const struct rp_site *site, size_t first, size_t n)
{
    struct rp_causal_conv1d part = *args;
    (void)site;
    (void)n;
    part.x += first * args->n_channels;
    part.y += first * args->n_channels;
    return part;
}

size_t rp_heads_of_causal_conv1d(const struct rp_causal_conv1d *args, const struct rp_site *site,
                                 struct rp_head_view *views)
{
    (void)args;
    (void)site;
    (void)views;
    return 0;
}

struct rp_l2_norm rp_slice_l2_norm(const struct rp_l2_norm *args, const struct rp_site *site,
                                   size_t first, size_t n)
{
    struct rp_l2_norm part = *args;
    (void)site;
    (void)n;
    part.x += first * args->x_stride;
    return part;
}

size_t rp_heads_of_l2_norm(const struct rp_l2_norm *args, const struct rp_site *site,
                           struct rp_head_view *views)
{
    views[0] = (struct rp_head_view){.data = args->x,
                                     .n_rows = site->n_positions,
                                     .stride = args->x_stride,
                                     .n_heads = args->n_heads,
                                     .width = args->head_dim,
                                     .heads = RP_HEADS_KV};
    return 1;
}

struct rp_delta_decay rp_slice_delta_decay(const struct rp_delta_decay *args,
                                           const struct rp_site *site, size_t first, size_t n)
{
    struct rp_delta_decay part = *args;
    (void)site;
    (void)n;
    part.y += first * args->n_heads;
    return part;
}

size_t rp_heads_of_delta_decay(const struct rp_delta_decay *args, const struct rp_site *site,
                               struct rp_head_view *views)
{
    views[0] = (struct rp_head_view){.data = args->y,
                                     .n_rows = site->n_positions,
                                     .stride = args->n_heads,
                                     .n_heads = args->n_heads,
                                     .width = 1,
                                     .heads = RP_HEADS_Q};
    return 1;
}

struct rp_delta_beta rp_slice_delta_beta(const struct rp_delta_beta *args,
                                         const struct rp_site *site, size_t first, size_t n)
{
    struct rp_delta_beta part = *args;
    (void)site;
    (void)n;
    part.y += first * args->n_heads;
    return part;
}

size_t rp_heads_of_delta_beta(const struct rp_delta_beta *args, const struct rp_site *site,
                              struct rp_head_view *views)
{
    views[0] = (struct rp_head_view){.data = args->y,
                                     .n_rows = site->n_positions,
                                     .stride = args->n_heads,
                                     .n_heads = args->n_heads,
                                     .width = 1,
                                     .heads = RP_HEADS_Q};
    return 1;
}

struct rp_delta_rule rp_slice_delta_rule(const struct rp_delta_rule *args,
                                         const struct rp_site *site, size_t first, size_t n)
{
    struct rp_delta_rule part = *args;
    (void)site;
    (void)n;
    part.q += first * args->qkv_stride;
    part.k += first * args->qkv_stride;
    part.v += first * args->qkv_stride;
    part.decay += first * args->n_v_heads;
    part.beta += first * args->n_v_heads;
    part.y += first * args->n_v_heads * args->head_dim;
    return part;
}

/* The state is one row with all heads. */
size_t rp_heads_of_delta_rule(const struct rp_delta_rule *args, const struct rp_site *site,
                              struct rp_head_view *views)
{
    size_t dim = args->head_dim, width = args->n_v_heads * dim;
    views[0] = (struct rp_head_view){.data = args->y,
                                     .n_rows = site->n_positions,
                                     .stride = width,
                                     .n_heads = args->n_v_heads,
                                     .width = dim,
                                     .heads = RP_HEADS_Q};
    views[1] = (struct rp_head_view){.data = args->state,
                                     .n_rows = 1,
                                     .stride = width * dim,
                                     .n_heads = args->n_v_heads,
                                     .width = dim * dim,
                                     .heads = RP_HEADS_Q};
    return 2;
}

struct rp_gated_norm rp_slice_gated_norm(const struct rp_gated_norm *args,
                                         const struct rp_site *site, size_t first, size_t n)
{
    struct rp_gated_norm part = *args;
    size_t per_position = args->n_rows / site->n_positions;
    part.n_rows = n * per_position;
    part.gate += first * per_position * args->dim;
    part.x += first * per_position * args->dim;
    part.y += first * per_position * args->dim;
    return part;
}

size_t rp_heads_of_gated_norm(const struct rp_gated_norm *args, const struct rp_site *site,
                              struct rp_head_view *views)
{
    size_t n_heads = args->n_rows / site->n_positions;
    views[0] = (struct rp_head_view){.data = args->y,
                                     .n_rows = site->n_positions,
                                     .stride = n_heads * args->dim,
                                     .n_heads = n_heads,
                                     .width = args->dim,
                                     .heads = RP_HEADS_Q};
    return 1;
}

struct rp_ffn_activation rp_slice_ffn_activation(const struct rp_ffn_activation *args,
                                                 const struct rp_site *site, size_t first, size_t n)
{
    struct rp_ffn_activation part = *args;
    (void)site;
    (void)n;
    part.gate += first * args->dim;
    part.up += first * args->dim;
    part.y += first * args->dim;
    return part;
}

size_t rp_heads_of_ffn_activation(const struct rp_ffn_activation *args, const struct rp_site *site,
                                  struct rp_head_view *views)
{
    (void)args;
    (void)site;
    (void)views;
    return 0;
}

struct rp_residual_add rp_slice_residual_add(const struct rp_residual_add *args,
                                             const struct rp_site *site, size_t first, size_t n)
{
    struct rp_residual_add part = *args;
    (void)site;
    (void)n;
    part.branch += first * args->dim;
    part.hidden += first * args->dim;
    return part;
}

size_t rp_heads_of_residual_add(const struct rp_residual_add *args, const struct rp_site *site,
                                struct rp_head_view *views)
{
    (void)args;
    (void)site;
    (void)views;
    return 0;
}
