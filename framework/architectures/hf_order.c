/* See architectures/hf_order.h. */
#include "architectures/hf_order.h"

#include "tensor/order.h"

static bool is_rotated(enum rp_slot_part part)
{
    return part == RP_PART_Q || part == RP_PART_K || part == RP_PART_QNORM ||
           part == RP_PART_KNORM || part == RP_PART_QROPE || part == RP_PART_KROPE;
}

bool rp_hf_order_may_differ(enum rp_slot_part part)
{
    return is_rotated(part);
}

/* How wide a V head is in the slot; 0: it has none. */
static size_t v_head_width(const struct rp_model_config *config, enum rp_slot_part part)
{
    switch (part) {
    case RP_PART_QKV:
    case RP_PART_CONV:
    case RP_PART_Z:
    case RP_PART_DELTA:
    case RP_PART_MIX: return config->linear_head_dim;
    case RP_PART_A:
    case RP_PART_B:
    case RP_PART_DECAY:
    case RP_PART_BETA: return 1;
    default: return 0;
    }
}

bool rp_hf_order_differs(const struct rp_model_config *config, enum rp_layer_kind kind,
                         enum rp_slot_part part)
{
    if (is_rotated(part))
        return config->rope_ordering == RP_ROPE_INTERLEAVED && !config->is_interleaved_in_hf;
    return kind == RP_LAYER_LINEAR_ATTENTION && v_head_width(config, part) > 0 &&
           config->n_linear_v_heads != config->n_linear_k_heads;
}

size_t rp_hf_order_own_v_head(const struct rp_model_config *config, size_t hf_head)
{
    const struct rp_order heads = {
        .kind = RP_ORDER_TILED_HEADS, .head_dim = 1, .n_groups = config->n_linear_k_heads};
    return rp_order_from(&heads, config->n_linear_v_heads, hf_head);
}

static struct rp_order order_of(const struct rp_model_config *config, enum rp_slot_part part)
{
    const size_t width = v_head_width(config, part);
    if (is_rotated(part))
        return (struct rp_order){.kind = RP_ORDER_INTERLEAVED_PAIRS,
                                 .head_dim = config->head_dim,
                                 .n_rot = config->n_rot};
    if (width == 0)
        return (struct rp_order){.kind = RP_ORDER_HF};
    return (struct rp_order){.kind = RP_ORDER_TILED_HEADS,
                             .head_dim = width,
                             .n_groups = config->n_linear_k_heads,
                             .first = part == RP_PART_QKV || part == RP_PART_CONV
                                          ? 2 * config->n_linear_k_heads * config->linear_head_dim
                                          : 0};
}

size_t rp_hf_order_own_index(const struct rp_model_config *config, enum rp_slot_part part,
                             size_t dim, size_t i)
{
    const struct rp_order order = order_of(config, part);
    return rp_order_from(&order, dim, i);
}

#define BLOCK 64 /* of values whose places are looked up once, for all rows */

static size_t own_indices(const struct rp_model_config *config, enum rp_slot_part part,
                          size_t first, size_t dim, size_t *at)
{
    const struct rp_order order = order_of(config, part);
    const size_t n = dim - first < BLOCK ? dim - first : BLOCK;
    for (size_t i = 0; i < n; i++)
        at[i] = rp_order_from(&order, dim, first + i);
    return n;
}

void rp_hf_order_from_own(const struct rp_model_config *config, enum rp_slot_part part, size_t n,
                          size_t dim, const float *own, float *hf)
{
    size_t at[BLOCK];
    for (size_t first = 0; first < dim; first += BLOCK) {
        const size_t n_values = own_indices(config, part, first, dim, at);
        for (size_t p = 0; p < n; p++)
            for (size_t i = 0; i < n_values; i++)
                hf[p * dim + first + i] = own[p * dim + at[i]];
    }
}

void rp_hf_order_to_own(const struct rp_model_config *config, enum rp_slot_part part, size_t n,
                        size_t dim, const float *hf, float *own)
{
    size_t at[BLOCK];
    for (size_t first = 0; first < dim; first += BLOCK) {
        const size_t n_values = own_indices(config, part, first, dim, at);
        for (size_t p = 0; p < n; p++)
            for (size_t i = 0; i < n_values; i++)
                own[p * dim + at[i]] = hf[p * dim + first + i];
    }
}
