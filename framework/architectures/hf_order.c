/* See architectures/hf_order.h. */
#include "architectures/hf_order.h"

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
        return config->rope_ordering == RP_ROPE_INTERLEAVED;
    return kind == RP_LAYER_LINEAR_ATTENTION && v_head_width(config, part) > 0 &&
           config->n_linear_v_heads != config->n_linear_k_heads;
}

size_t rp_hf_order_own_v_head(const struct rp_model_config *config, size_t hf_head)
{
    const size_t n_k = config->n_linear_k_heads;
    const size_t per_k = config->n_linear_v_heads / n_k; /* V heads that read a K head */
    return hf_head / per_k + hf_head % per_k * n_k;
}

/* Where the own row has HF's value i. */
static size_t own_index(const struct rp_model_config *config, enum rp_slot_part part, size_t i)
{
    if (is_rotated(part)) {
        const size_t half = config->n_rot / 2, at = i % config->head_dim, head = i - at;
        return at >= config->n_rot ? i : at < half ? head + 2 * at : head + 2 * (at - half) + 1;
    }
    const size_t width = v_head_width(config, part);
    const size_t first = part == RP_PART_QKV || part == RP_PART_CONV
                             ? 2 * config->n_linear_k_heads * config->linear_head_dim
                             : 0;
    if (i < first || width == 0)
        return i;
    return first + rp_hf_order_own_v_head(config, (i - first) / width) * width +
           (i - first) % width;
}

#define BLOCK 64 /* of values whose places are looked up once, for all rows */

static size_t own_indices(const struct rp_model_config *config, enum rp_slot_part part,
                          size_t first, size_t dim, size_t *at)
{
    const size_t n = dim - first < BLOCK ? dim - first : BLOCK;
    for (size_t i = 0; i < n; i++)
        at[i] = own_index(config, part, first + i);
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
