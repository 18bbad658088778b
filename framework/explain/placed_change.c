/* A change at some positions or in some heads only: the operation is run as it is and changed, and of
 * the changed output only the place's is taken. See explain/placed_change.h. */
#include <stdlib.h>
#include <string.h>

#include "explain/placed_change.h"
#include "operations/delta_changes.h"

bool rp_place_has(const struct rp_place *place, int64_t position)
{
    switch (place->kind) {
    case RP_PLACE_ALL: break;
    case RP_PLACE_ONLY: return position == place->position;
    case RP_PLACE_FROM: return position >= place->position;
    case RP_PLACE_LISTED:
        return rp_row_of(place->listed, place->n_listed, position) < place->n_listed;
    }
    return true;
}

/* ---- what an operation writes ---- */

enum heads { NO_HEADS, Q_HEADS, KV_HEADS };

struct output {
    float *data, *second; /* [n_positions][n_heads][width], rows stride apart; second NULL: none */
    size_t stride, n_heads, width;
    enum heads heads;
    float *state; /* [n_heads][state_width], as the last position leaves it; NULL: none */
    size_t state_width;
};

static bool has_head(const struct rp_place *place, enum heads heads, size_t head)
{
    const size_t first = heads == Q_HEADS ? place->first_q : place->first_kv;
    const size_t n = heads == Q_HEADS ? place->n_q : place->n_kv;
    return head >= first && head - first < n;
}

static enum heads heads_of(enum rp_weight_id which)
{
    switch (which) {
    case RP_ATTN_Q:
    case RP_ATTN_Q_B:
    case RP_ATTN_Q_NORM:
    case RP_ATTN_GATE:
    case RP_SSM_ALPHA:
    case RP_SSM_BETA: return Q_HEADS;
    case RP_ATTN_K:
    case RP_ATTN_V:
    case RP_ATTN_K_NORM: return KV_HEADS;
    default: return NO_HEADS;
    }
}

static size_t n_heads_of(const struct rp_model_config *config, enum rp_weight_id which)
{
    const enum heads heads = heads_of(which);
    return heads == NO_HEADS                            ? 1
           : heads == KV_HEADS                          ? config->n_kv_heads
           : which == RP_ATTN_Q || which == RP_ATTN_Q_B ? config->n_heads
                                                        : config->n_linear_v_heads;
}

/* clang-format off */
/* X(operation, its output): what it writes, of args at the site */
#define HEADS(y, n_heads, width, heads) {y, NULL, (n_heads) * (width), n_heads, width, heads, NULL, 0}
#define OPERATIONS(X)                                                                             \
    X(rms_norm, HEADS(args->y, args->n_rows / site->n_positions, args->dim, heads_of(args->which))) \
    X(linear, {args->y, NULL, args->y_stride, n_heads_of(site->config, args->which),              \
               args->n_out / n_heads_of(site->config, args->which), heads_of(args->which), NULL, 0}) \
    X(head_linear, HEADS(args->y, args->n_heads, args->n_out, Q_HEADS))                            \
    X(rope, HEADS(args->x, args->n_heads, args->head_dim, heads_of(args->which)))                 \
    X(kv_store, {args->keys, args->values, args->dim, site->config->n_kv_heads,                   \
                 args->dim / site->config->n_kv_heads, KV_HEADS, NULL, 0})                        \
    X(attention, HEADS(args->y, args->n_heads, args->head_dim, Q_HEADS))                          \
    X(split_gate, {args->q, args->gate, args->n_heads * args->head_dim, args->n_heads,            \
                   args->head_dim, Q_HEADS, NULL, 0})                                             \
    X(attention_gate, HEADS(args->y, site->config->n_heads, args->dim / site->config->n_heads, Q_HEADS)) \
    X(causal_conv1d, {args->y, NULL, args->n_channels, 1, args->n_channels, NO_HEADS, args->state, \
                      (args->kernel - 1) * args->n_channels})                                     \
    X(l2_norm, {args->x, NULL, args->x_stride, args->n_heads, args->head_dim, KV_HEADS, NULL, 0}) \
    X(delta_decay, HEADS(args->y, args->n_heads, 1, Q_HEADS))                                     \
    X(delta_beta, HEADS(args->y, args->n_heads, 1, Q_HEADS))                                      \
    X(delta_rule, {args->y, NULL, args->n_v_heads * args->head_dim, args->n_v_heads, args->head_dim, \
                   Q_HEADS, args->state, args->head_dim * args->head_dim})                        \
    X(gated_norm, HEADS(args->y, args->n_rows / site->n_positions, args->dim, Q_HEADS))           \
    X(ffn_activation, HEADS(args->y, 1, args->dim, NO_HEADS))                                     \
    X(choose_experts, HEADS(args->experts, 1, args->router->n_chosen, NO_HEADS))                  \
    X(weigh_experts, HEADS(args->weights, 1, args->router->n_chosen, NO_HEADS))                   \
    X(sum_experts, HEADS(args->y, 1, args->dim, NO_HEADS))                                        \
    X(add_shared_expert, HEADS(args->y, 1, args->dim, NO_HEADS))                                  \
    X(residual_add, HEADS(args->hidden, 1, args->dim, NO_HEADS))
/* clang-format on */

/* ---- two runs, blended ---- */

/* From the output to copy, or back: what lies outside the place; place NULL: all of it. */
static void transfer(const struct output *output, const struct rp_site *site, float *copy,
                     bool is_back, const struct rp_place *place)
{
    float *const blocks[3] = {output->data, output->second, output->state};
    for (size_t k = 0; k < 3; k++) {
        const bool is_state = k == 2;
        const size_t width = is_state ? output->state_width : output->width;
        const size_t n_rows = !blocks[k] ? 0 : is_state ? 1 : site->n_positions;
        for (size_t at = 0; at < n_rows * output->n_heads; at++, copy += width) {
            const size_t row = at / output->n_heads, head = at % output->n_heads;
            float *piece = blocks[k] + row * output->stride + head * width;
            const bool is_at_place = place &&
                                     (is_state || rp_place_has(place, site->positions[row])) &&
                                     (!place->by_head || has_head(place, output->heads, head));
            if (!is_back)
                memcpy(copy, piece, width * sizeof *copy);
            else if (!is_at_place)
                memcpy(piece, copy, width * sizeof *copy);
        }
    }
}

static enum rp_status save(const struct output *output, const struct rp_site *site, float **copy)
{
    const size_t per_row = (output->second ? 2 : 1) * output->n_heads * output->width;
    const size_t n = site->n_positions * per_row + output->n_heads * output->state_width;
    *copy = malloc((n + 1) * sizeof **copy);
    if (!*copy)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu values", n);
    transfer(output, site, *copy, false, NULL);
    return RP_OK;
}

#define BLEND(operation, ...)                                                          \
    static enum rp_status blend_##operation(void *context, const struct rp_site *site, \
                                            const struct rp_##operation *args)         \
    {                                                                                  \
        struct rp_placed_change *placed = context;                                     \
        const struct rp_ops *below = placed->overlay.below;                            \
        const struct rp_ops *changed = &placed->change->overlay.ops;                   \
        const struct output output = __VA_ARGS__;                                      \
        float *before = NULL, *plain = NULL;                                           \
        struct rp_overlay untouched;                                                   \
        enum rp_status status;                                                         \
        rp_overlay_open(&untouched, below);                                            \
        placed->change->overlay.below = below;                                         \
        if (changed->operation == untouched.ops.operation)                             \
            return below->operation(below->context, site, args);                       \
        status = save(&output, site, &before);                                         \
        if (status == RP_OK)                                                           \
            status = below->operation(below->context, site, args);                     \
        if (status == RP_OK)                                                           \
            status = save(&output, site, &plain);                                      \
        if (status == RP_OK) {                                                         \
            transfer(&output, site, before, true, NULL);                               \
            status = changed->operation(changed->context, site, args);                 \
        }                                                                              \
        if (status == RP_OK)                                                           \
            transfer(&output, site, plain, true, &placed->place);                      \
        free(before);                                                                  \
        free(plain);                                                                   \
        return status;                                                                 \
    }
OPERATIONS(BLEND)

/* Its state goes from one position to the next: runs of positions in and out of the place follow
 * each other. */
static enum rp_status placed_delta_rule(void *context, const struct rp_site *site,
                                        const struct rp_delta_rule *args)
{
    struct rp_placed_change *placed = context;
    const struct rp_ops *below = placed->overlay.below;
    enum rp_status status = RP_OK;
    for (size_t first = 0, n; first < site->n_positions && status == RP_OK; first += n) {
        const bool is_in = rp_place_has(&placed->place, site->positions[first]);
        struct rp_site some = *site;
        for (n = 1; first + n < site->n_positions; n++)
            if (rp_place_has(&placed->place, site->positions[first + n]) != is_in)
                break;
        some.positions += first;
        some.n_positions = n;
        const struct rp_delta_rule part = rp_delta_rule_from(args, first);
        status = is_in ? blend_delta_rule(placed, &some, &part)
                       : below->delta_rule(below->context, &some, &part);
    }
    return status;
}

#define INSTALL(operation, ...) placed->overlay.ops.operation = blend_##operation;

void rp_placed_change_open(struct rp_placed_change *placed, struct rp_change *change,
                           const struct rp_place *place)
{
    *placed = (struct rp_placed_change){.change = change, .place = *place};
    rp_overlay_open(&placed->overlay, NULL);
    OPERATIONS(INSTALL)
    placed->overlay.ops.delta_rule = placed_delta_rule;
}
