/* A change at some positions or in some heads only: the operation is run as it is and changed, and of
 * the changed output only the place's is taken. See explain/candidate.h. */
#include <stdlib.h>
#include <string.h>

#include "explain/candidate.h"

size_t rp_row_of(const int64_t *positions, size_t n, int64_t position)
{
    size_t low = 0, high = n;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (positions[middle] < position)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && positions[low] == position ? low : n;
}

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

/* [n_positions][n_heads][width], rows stride apart; a state is one row, of no position. */
struct output {
    float *data;
    size_t stride, n_heads, width;
    enum heads heads;
    bool is_state;
};
#define MAX_OUTPUTS 2

static bool has_head(const struct rp_place *place, enum heads heads, size_t head)
{
    const size_t first = heads == Q_HEADS ? place->first_q : place->first_kv;
    const size_t n = heads == Q_HEADS ? place->n_q : place->n_kv;
    return head >= first && head - first < n;
}

#define OUTPUTS_OF(operation)                                        \
    static size_t outputs_of_##operation(const struct rp_site *site, \
                                         const struct rp_##operation *args, struct output *out)

static struct output heads_side_by_side(float *data, size_t n_heads, size_t width, enum heads heads)
{
    return (struct output){data, n_heads * width, n_heads, width, heads, false};
}

OUTPUTS_OF(rms_norm)
{
    const enum heads heads = args->which == RP_ATTN_Q_NORM   ? Q_HEADS
                             : args->which == RP_ATTN_K_NORM ? KV_HEADS
                                                             : NO_HEADS;
    out[0] = heads_side_by_side(args->y, args->n_rows / site->n_positions, args->dim, heads);
    return 1;
}

OUTPUTS_OF(linear)
{
    const struct rp_model_config *config = site->config;
    out[0] = (struct output){args->y, args->y_stride, 1, args->n_out, NO_HEADS, false};
    switch (args->which) {
    case RP_ATTN_Q:
        out[0].n_heads = config->n_heads;
        out[0].heads = Q_HEADS;
        break;
    case RP_ATTN_K:
    case RP_ATTN_V:
        out[0].n_heads = config->n_kv_heads;
        out[0].heads = KV_HEADS;
        break;
    case RP_ATTN_GATE:
    case RP_SSM_ALPHA:
    case RP_SSM_BETA:
        out[0].n_heads = config->n_linear_v_heads;
        out[0].heads = Q_HEADS;
        break;
    default: break;
    }
    out[0].width = args->n_out / out[0].n_heads;
    return 1;
}

OUTPUTS_OF(rope)
{
    (void)site;
    out[0] = heads_side_by_side(args->x, args->n_heads, args->head_dim,
                                args->which == RP_ATTN_Q ? Q_HEADS : KV_HEADS);
    return 1;
}

OUTPUTS_OF(kv_store)
{
    const size_t n = site->config->n_kv_heads;
    out[0] = heads_side_by_side(args->keys, n, args->dim / n, KV_HEADS);
    out[1] = heads_side_by_side(args->values, n, args->dim / n, KV_HEADS);
    return 2;
}

OUTPUTS_OF(attention)
{
    (void)site;
    out[0] = heads_side_by_side(args->y, args->n_heads, args->head_dim, Q_HEADS);
    return 1;
}

OUTPUTS_OF(split_gate)
{
    (void)site;
    out[0] = heads_side_by_side(args->q, args->n_heads, args->head_dim, Q_HEADS);
    out[1] = heads_side_by_side(args->gate, args->n_heads, args->head_dim, Q_HEADS);
    return 2;
}

OUTPUTS_OF(attention_gate)
{
    const size_t n = site->config->n_heads;
    out[0] = heads_side_by_side(args->y, n, args->dim / n, Q_HEADS);
    return 1;
}

OUTPUTS_OF(causal_conv1d)
{
    (void)site;
    out[0] = heads_side_by_side(args->y, 1, args->n_channels, NO_HEADS);
    out[1] =
        (struct output){args->state, 0, 1, (args->kernel - 1) * args->n_channels, NO_HEADS, true};
    return 2;
}

OUTPUTS_OF(l2_norm)
{
    (void)site;
    out[0] =
        (struct output){args->x, args->x_stride, args->n_heads, args->head_dim, KV_HEADS, false};
    return 1;
}

OUTPUTS_OF(delta_decay)
{
    (void)site;
    out[0] = heads_side_by_side(args->y, args->n_heads, 1, Q_HEADS);
    return 1;
}

OUTPUTS_OF(delta_beta)
{
    (void)site;
    out[0] = heads_side_by_side(args->y, args->n_heads, 1, Q_HEADS);
    return 1;
}

OUTPUTS_OF(delta_rule)
{
    const size_t dim = args->head_dim;
    (void)site;
    out[0] = heads_side_by_side(args->y, args->n_v_heads, dim, Q_HEADS);
    out[1] = (struct output){args->state, 0, args->n_v_heads, dim * dim, Q_HEADS, true};
    return 2;
}

OUTPUTS_OF(gated_norm)
{
    out[0] = heads_side_by_side(args->y, args->n_rows / site->n_positions, args->dim, Q_HEADS);
    return 1;
}

OUTPUTS_OF(ffn_activation)
{
    (void)site;
    out[0] = heads_side_by_side(args->y, 1, args->dim, NO_HEADS);
    return 1;
}

OUTPUTS_OF(residual_add)
{
    (void)site;
    out[0] = heads_side_by_side(args->hidden, 1, args->dim, NO_HEADS);
    return 1;
}

/* ---- two runs, blended ---- */

struct copies {
    float *data[MAX_OUTPUTS]; /* [rows][n_heads * width], without gaps */
};

static size_t rows_of(const struct output *output, const struct rp_site *site)
{
    return output->is_state ? 1 : site->n_positions;
}

static enum rp_status copies_take(struct copies *copies, const struct output *outputs, size_t n,
                                  const struct rp_site *site)
{
    for (size_t k = 0; k < n; k++) {
        const size_t width = outputs[k].n_heads * outputs[k].width;
        copies->data[k] = malloc((rows_of(&outputs[k], site) * width + 1) * sizeof(float));
        if (!copies->data[k])
            return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions",
                           site->n_positions);
        for (size_t row = 0; row < rows_of(&outputs[k], site); row++)
            memcpy(copies->data[k] + row * width, outputs[k].data + row * outputs[k].stride,
                   width * sizeof(float));
    }
    return RP_OK;
}

static void copies_free(struct copies *copies)
{
    for (size_t k = 0; k < MAX_OUTPUTS; k++)
        free(copies->data[k]);
}

/* Puts back what lies outside the place; place NULL: everything. */
static void put_back(const struct copies *copies, const struct output *outputs, size_t n,
                     const struct rp_site *site, const struct rp_place *place)
{
    for (size_t k = 0; k < n; k++) {
        const struct output *output = &outputs[k];
        for (size_t at = 0; at < rows_of(output, site) * output->n_heads; at++) {
            const size_t row = at / output->n_heads, head = at % output->n_heads;
            const bool is_at_place =
                place && (output->is_state || rp_place_has(place, site->positions[row])) &&
                (!place->by_head || has_head(place, output->heads, head));
            if (!is_at_place)
                memcpy(output->data + row * output->stride + head * output->width,
                       copies->data[k] + at * output->width, output->width * sizeof(float));
        }
    }
}

/* How many positions from first on are on the same side of the place as first. */
static size_t run_length(const struct rp_place *place, const struct rp_site *site, size_t first)
{
    const bool is_in = rp_place_has(place, site->positions[first]);
    size_t n = 1;
    while (first + n < site->n_positions &&
           rp_place_has(place, site->positions[first + n]) == is_in)
        n++;
    return n;
}

#define OPERATIONS(X) \
    X(rms_norm)       \
    X(linear)         \
    X(rope)           \
    X(kv_store)       \
    X(attention)      \
    X(split_gate)     \
    X(attention_gate) \
    X(causal_conv1d)  \
    X(l2_norm)        \
    X(delta_decay)    \
    X(delta_beta)     \
    X(delta_rule)     \
    X(gated_norm)     \
    X(ffn_activation) \
    X(residual_add)

/* clang-format off */
#define BLEND(operation)                                                                        \
    static enum rp_status blend_##operation(void *context, const struct rp_site *site,          \
                                            const struct rp_##operation *args)                  \
    {                                                                                           \
        struct rp_placed_change *placed = context;                                              \
        const struct rp_ops *below = placed->overlay.below;                                     \
        const struct rp_ops *changed = &placed->change->overlay.ops;                            \
        struct output outputs[MAX_OUTPUTS];                                                     \
        struct copies before = {{NULL, NULL}}, plain = {{NULL, NULL}};                          \
        const size_t n = outputs_of_##operation(site, args, outputs);                           \
        enum rp_status status = RP_OK;                                                          \
        struct rp_overlay untouched;                                                            \
        rp_overlay_open(&untouched, below);                                                     \
        placed->change->overlay.below = below;                                                  \
        if (changed->operation == untouched.ops.operation)                                      \
            return below->operation(below->context, site, args);                                \
        status = copies_take(&before, outputs, n, site);                                        \
        if (status == RP_OK)                                                                    \
            status = below->operation(below->context, site, args);                              \
        if (status == RP_OK)                                                                    \
            status = copies_take(&plain, outputs, n, site);                                     \
        if (status == RP_OK) {                                                                  \
            put_back(&before, outputs, n, site, NULL);                                          \
            status = changed->operation(changed->context, site, args);                          \
        }                                                                                       \
        if (status == RP_OK)                                                                    \
            put_back(&plain, outputs, n, site, &placed->place);                                 \
        copies_free(&before);                                                                   \
        copies_free(&plain);                                                                    \
        return status;                                                                          \
    }
/* clang-format on */
OPERATIONS(BLEND)

/* Its state goes from one position to the next: runs of positions in and out of the place follow
 * each other. */
static enum rp_status placed_delta_rule(void *context, const struct rp_site *site,
                                        const struct rp_delta_rule *args)
{
    struct rp_placed_change *placed = context;
    const struct rp_ops *below = placed->overlay.below;
    const size_t width = args->n_v_heads * args->head_dim;
    enum rp_status status = RP_OK;
    for (size_t first = 0, n; first < site->n_positions && status == RP_OK; first += n) {
        struct rp_site some = *site;
        struct rp_delta_rule part = *args;
        n = run_length(&placed->place, site, first);
        some.positions += first;
        some.n_positions = n;
        part.q += first * args->qkv_stride;
        part.k += first * args->qkv_stride;
        part.v += first * args->qkv_stride;
        part.decay += first * args->n_v_heads;
        part.beta += first * args->n_v_heads;
        part.y += first * width;
        if (rp_place_has(&placed->place, some.positions[0]))
            status = blend_delta_rule(placed, &some, &part);
        else
            status = below->delta_rule(below->context, &some, &part);
    }
    return status;
}

#define INSTALL(operation) placed->overlay.ops.operation = blend_##operation;

void rp_placed_change_open(struct rp_placed_change *placed, struct rp_change *change,
                           const struct rp_place *place)
{
    *placed = (struct rp_placed_change){.change = change, .place = *place};
    rp_overlay_open(&placed->overlay, NULL);
    OPERATIONS(INSTALL)
    placed->overlay.ops.delta_rule = placed_delta_rule;
}
