/* A bug at one position alone, or in one head alone: the overlay above it. At one position, calls
 * for many are taken apart; in one head, the operation runs with and without the bug, and the head's
 * values are taken from the first. Not the bugs. */
#include "bugs_internal.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static struct rp_bug_site *bug_of(void *context)
{
    return (struct rp_bug_site *)(void *)((char *)context - offsetof(struct rp_bug_site, scope));
}

static bool is_in_layer(const struct rp_bug_site *bug, const struct rp_site *site)
{
    return bug->choice.bug->layers == RP_BUG_IN_NO_LAYER
               ? site->layer < 0
               : bug->choice.layer == site->layer || bug->choice.layer == RP_BUG_ALL_LAYERS;
}

static bool is_by_position(const struct rp_bug_site *bug, const struct rp_site *site)
{
    return bug->choice.position != RP_BUG_EVERYWHERE && is_in_layer(bug, site);
}

static bool is_by_head(const struct rp_bug_site *bug, const struct rp_site *site)
{
    return bug->choice.head != RP_BUG_EVERYWHERE && is_in_layer(bug, site);
}

/* One position of a call. */
static struct rp_site site_at(const struct rp_site *site, size_t p)
{
    struct rp_site one = *site;
    one.n_positions = 1;
    one.positions = site->positions + p;
    return one;
}

#define RUN(operation, site, args) bug->overlay.ops.operation(bug->overlay.ops.context, site, args)

/* operation position by position; advance moves the pointers of `one` to position p. */
#define BY_POSITION(operation, advance)                                                         \
    static enum rp_status by_position_##operation(                                              \
        struct rp_bug_site *bug, const struct rp_site *site, const struct rp_##operation *args) \
    {                                                                                           \
        enum rp_status status = RP_OK;                                                          \
        for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {                     \
            struct rp_site here = site_at(site, p);                                             \
            struct rp_##operation one = *args;                                                  \
            advance;                                                                            \
            bug->is_off = site->positions[p] != bug->choice.position;                           \
            status = RUN(operation, &here, &one);                                               \
        }                                                                                       \
        bug->is_off = false;                                                                    \
        return status;                                                                          \
    }

/* What most operations do: the position's scope, where there is one. */
#define SCOPED(operation)                                                               \
    static enum rp_status scoped_##operation(void *context, const struct rp_site *site, \
                                             const struct rp_##operation *args)         \
    {                                                                                   \
        struct rp_bug_site *bug = bug_of(context);                                      \
        if (is_by_position(bug, site))                                                  \
            return by_position_##operation(bug, site, args);                            \
        return RUN(operation, site, args);                                              \
    }

BY_POSITION(embed, (one.tokens += p, one.y += p * site->config->hidden_size))
BY_POSITION(rms_norm, (one.n_rows = args->n_rows / site->n_positions,
                       one.x += p * one.n_rows * one.dim, one.y += p * one.n_rows * one.dim))
BY_POSITION(linear, (one.x += p * one.n_in, one.y += p * one.y_stride))
BY_POSITION(rope, (one.positions += p, one.x += p * one.n_heads * one.head_dim))
BY_POSITION(kv_store, (one.k += p * one.dim, one.v += p * one.dim, one.keys += p * one.dim,
                       one.values += p * one.dim))
BY_POSITION(attention,
            (one.q += p * one.n_heads * one.head_dim, one.y += p * one.n_heads * one.head_dim))
BY_POSITION(split_gate,
            (one.x += 2 * p * one.n_heads * one.head_dim, one.q += p * one.n_heads * one.head_dim,
             one.gate += p * one.n_heads * one.head_dim))
BY_POSITION(attention_gate, (one.gate += p * one.dim, one.y += p * one.dim))
BY_POSITION(causal_conv1d, (one.x += p * one.n_channels, one.y += p * one.n_channels))
BY_POSITION(l2_norm, (one.x += p * one.x_stride))
BY_POSITION(delta_decay, (one.y += p * one.n_heads))
BY_POSITION(delta_beta, (one.y += p * one.n_heads))
BY_POSITION(delta_rule, (one.q += p * one.qkv_stride, one.k += p * one.qkv_stride,
                         one.v += p * one.qkv_stride, one.decay += p * one.n_v_heads,
                         one.beta += p * one.n_v_heads, one.y += p * one.n_v_heads * one.head_dim))
BY_POSITION(gated_norm,
            (one.n_rows = args->n_rows / site->n_positions, one.gate += p * one.n_rows * one.dim,
             one.x += p * one.n_rows * one.dim, one.y += p * one.n_rows * one.dim))
BY_POSITION(ffn_activation, (one.gate += p * one.dim, one.up += p * one.dim, one.y += p * one.dim))
BY_POSITION(residual_add, (one.branch += p * one.dim, one.hidden += p * one.dim))

SCOPED(embed)
SCOPED(linear)
SCOPED(kv_store)
SCOPED(split_gate)
SCOPED(attention_gate)
SCOPED(causal_conv1d)
SCOPED(l2_norm)
SCOPED(gated_norm)
SCOPED(ffn_activation)
SCOPED(residual_add)

/* rows [n][n_heads][width]: all heads but the bug's from `without`. */
static void keep_head(const struct rp_bug_site *bug, float *rows, const float *without, size_t n,
                      size_t n_heads, size_t width)
{
    for (size_t i = 0; i < n * n_heads; i++) {
        if (i % n_heads != (size_t)bug->choice.head)
            memcpy(rows + i * width, without + i * width, width * sizeof *rows);
    }
}

/* operation without and with the bug, from the same values in `rows` [n][n_heads][width], which it
 * may read, and which hold its result. */
#define BY_HEAD(operation, rows, n, heads, width)                                       \
    static enum rp_status scoped_##operation(void *context, const struct rp_site *site, \
                                             const struct rp_##operation *args)         \
    {                                                                                   \
        struct rp_bug_site *bug = bug_of(context);                                      \
        size_t size = (n) * (heads) * (width);                                          \
        float *before = NULL, *without = NULL;                                          \
        enum rp_status status;                                                          \
        if (is_by_position(bug, site))                                                  \
            return by_position_##operation(bug, site, args);                            \
        if (!is_by_head(bug, site) || !(heads))                                         \
            return RUN(operation, site, args);                                          \
        status = rp_bug_floats(site, size, rows, &before);                              \
        if (status == RP_OK)                                                            \
            status = rp_bug_floats(site, size, NULL, &without);                         \
        bug->is_off = true;                                                             \
        if (status == RP_OK)                                                            \
            status = RUN(operation, site, args);                                        \
        bug->is_off = false;                                                            \
        if (status == RP_OK) {                                                          \
            memcpy(without, rows, size * sizeof *without);                              \
            memcpy(rows, before, size * sizeof *before);                                \
            status = RUN(operation, site, args);                                        \
            keep_head(bug, rows, without, n, heads, width);                             \
        }                                                                               \
        free(without);                                                                  \
        free(before);                                                                   \
        return status;                                                                  \
    }

/* Only Q-norm's and K-norm's rows are heads. */
static size_t norm_heads(const struct rp_site *site, const struct rp_rms_norm *args)
{
    bool is_qk = args->which == RP_ATTN_Q_NORM || args->which == RP_ATTN_K_NORM;
    return is_qk ? args->n_rows / site->n_positions : 0;
}

BY_HEAD(rms_norm, args->y, site->n_positions, norm_heads(site, args), args->dim)
BY_HEAD(rope, args->x, site->n_positions, args->n_heads, args->head_dim)
BY_HEAD(attention, args->y, site->n_positions, args->n_heads, args->head_dim)

BY_HEAD(delta_decay, args->y, site->n_positions, args->n_heads, 1)
BY_HEAD(delta_beta, args->y, site->n_positions, args->n_heads, 1)

/* A result and a state: the bug's copy of both is merged. */
static enum rp_status scoped_delta_rule(void *context, const struct rp_site *site,
                                        const struct rp_delta_rule *args)
{
    struct rp_bug_site *bug = bug_of(context);
    size_t n_state = args->n_v_heads * args->head_dim * args->head_dim;
    struct rp_delta_rule without = *args;
    enum rp_status status;
    if (is_by_position(bug, site))
        return by_position_delta_rule(bug, site, args);
    if (!is_by_head(bug, site))
        return RUN(delta_rule, site, args);
    without.y = NULL;
    status = rp_bug_floats(site, n_state, args->state, &without.state);
    if (status == RP_OK)
        status = rp_bug_floats(site, site->n_positions * args->n_v_heads * args->head_dim, NULL,
                               &without.y);
    bug->is_off = true;
    if (status == RP_OK)
        status = RUN(delta_rule, site, &without);
    bug->is_off = false;
    if (status == RP_OK)
        status = RUN(delta_rule, site, args);
    if (status == RP_OK) {
        keep_head(bug, args->y, without.y, site->n_positions, args->n_v_heads, args->head_dim);
        keep_head(bug, args->state, without.state, 1, args->n_v_heads,
                  args->head_dim * args->head_dim);
    }
    free(without.state);
    free(without.y);
    return status;
}

void rp_bug_scope_open(struct rp_bug_site *bug)
{
    rp_overlay_open(&bug->scope, &bug->overlay.ops);
    bug->scope.ops = (struct rp_ops){
        .context = &bug->scope,
        .embed = scoped_embed,
        .rms_norm = scoped_rms_norm,
        .linear = scoped_linear,
        .rope = scoped_rope,
        .kv_store = scoped_kv_store,
        .attention = scoped_attention,
        .split_gate = scoped_split_gate,
        .attention_gate = scoped_attention_gate,
        .causal_conv1d = scoped_causal_conv1d,
        .l2_norm = scoped_l2_norm,
        .delta_decay = scoped_delta_decay,
        .delta_beta = scoped_delta_beta,
        .delta_rule = scoped_delta_rule,
        .gated_norm = scoped_gated_norm,
        .ffn_activation = scoped_ffn_activation,
        .residual_add = scoped_residual_add,
    };
    bug->ops = &bug->scope.ops;
}
