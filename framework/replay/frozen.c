/* See replay/frozen.h. The earlier run's row takes the place of the present one, so it is rounded as
 * it was; where a block's scale is kept in FP32 it moves with the block's peak, and so does the row. */
#include "replay/frozen.h"

#include <math.h>
#include <stdlib.h>

#define K_BLOCK 256
#define BF16_STEP 0x1p-8f

enum coarse { NOT_COARSE, EACH_VALUE, FIXED_SCALE, MOVING_SCALE };

static enum coarse coarse_input(const struct rp_numerics *numerics, uint32_t type)
{
    if (type == RP_GGML_F32)
        return NOT_COARSE;
    switch (numerics->activations) {
    case RP_ACTIVATIONS_BF16: return EACH_VALUE;
    case RP_ACTIVATIONS_Q8_0: return FIXED_SCALE;
    case RP_ACTIVATIONS_Q8_K: return MOVING_SCALE;
    case RP_ACTIVATIONS_BY_WEIGHT: break;
    default: return NOT_COARSE;
    }
    switch (type) {
    case RP_GGML_F16: return NOT_COARSE;
    case RP_GGML_BF16: return EACH_VALUE;
    case RP_GGML_Q2_K:
    case RP_GGML_Q3_K:
    case RP_GGML_Q4_K:
    case RP_GGML_Q5_K:
    case RP_GGML_Q6_K: return MOVING_SCALE;
    default: return FIXED_SCALE;
    }
}

static bool is_quantized(const struct rp_numerics *numerics)
{
    return numerics->kv_cache == RP_KV_CACHE_Q8_0 || numerics->kv_cache == RP_KV_CACHE_Q4_0;
}

bool rp_moves_scale(const struct rp_numerics *numerics, uint32_t type)
{
    return coarse_input(numerics, type) == MOVING_SCALE;
}

bool rp_rounds_coarsely(const struct rp_numerics *numerics, uint32_t type)
{
    return coarse_input(numerics, type) != NOT_COARSE;
}

bool rp_has_f16_attention(const struct rp_numerics *numerics)
{
    return numerics->kv_cache == RP_KV_CACHE_F16 ||
           (numerics->attention == RP_ATTENTION_FLASH && !is_quantized(numerics));
}

bool rp_has_fine_rounding(const struct rp_numerics *numerics, const struct rp_layer *weights)
{
    if (rp_has_f16_attention(numerics) || numerics->activations == RP_ACTIVATIONS_F16)
        return true;
    for (size_t i = 0; i < RP_N_LAYER_WEIGHTS; i++) {
        if (numerics->activations == RP_ACTIVATIONS_BY_WEIGHT && weights->weights[i].data &&
            weights->weights[i].type == RP_GGML_F16)
            return true;
    }
    return false;
}

/* Index of the value of largest magnitude. */
static size_t peak_of(const float *x, size_t n)
{
    size_t peak = 0;
    for (size_t i = 1; i < n; i++)
        peak = fabsf(x[i]) > fabsf(x[peak]) ? i : peak;
    return peak;
}

static void scale_blocks(const float *was, const float *is, size_t n, float *out)
{
    for (size_t first = 0; first < n; first += K_BLOCK) {
        const size_t width = n - first < K_BLOCK ? n - first : K_BLOCK;
        const size_t peak = first + peak_of(was + first, width);
        const double ratio = was[peak] != 0 ? (double)is[peak] / (double)was[peak] : 1.0;
        for (size_t i = first; i < first + width; i++)
            out[i] = (float)((double)was[i] * ratio);
    }
}

/* BF16's steps are those of the value: small ones are smaller than the noise of the row, and flip as
 * they like. */
static void keep_large(const float *was, const float *is, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = fabsf(is[i] - was[i]) > BF16_STEP / 8 * fabsf(was[i]) ? is[i] : was[i];
}

static enum rp_status linear(void *context, const struct rp_site *site,
                             const struct rp_linear *args)
{
    const struct rp_frozen *frozen = context;
    const struct rp_ops *below = frozen->overlay.below;
    const float *noted = rp_inputs_noted(frozen->inputs, args->which, site->n_positions);
    const enum coarse coarse = coarse_input(frozen->numerics, args->type);
    struct rp_linear as_was = *args;
    if (coarse == NOT_COARSE || !noted)
        return below->linear(below->context, site, args);
    as_was.x = noted;
    if (coarse == FIXED_SCALE)
        return below->linear(below->context, site, &as_was);
    float *x = malloc(site->n_positions * args->n_in * sizeof *x + 1);
    if (!x)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for the floor's run");
    for (size_t p = 0; p < site->n_positions; p++)
        (coarse == EACH_VALUE ? keep_large : scale_blocks)(
            noted + p * args->n_in, args->x + p * args->n_in, args->n_in, x + p * args->n_in);
    as_was.x = x;
    const enum rp_status status = below->linear(below->context, site, &as_was);
    free(x);
    return status;
}

static enum rp_status kv_store(void *context, const struct rp_site *site,
                               const struct rp_kv_store *args)
{
    const struct rp_frozen *frozen = context;
    const struct rp_ops *below = frozen->overlay.below;
    const float *k = frozen->inputs->noted[RP_ATTN_K], *v = frozen->inputs->noted[RP_ATTN_V];
    struct rp_kv_store as_was = *args;
    if (is_quantized(frozen->numerics) && k && v && frozen->inputs->n == site->n_positions) {
        as_was.k = k;
        as_was.v = v;
    }
    return below->kv_store(below->context, site, &as_was);
}

void rp_frozen_open(struct rp_frozen *frozen, const struct rp_numerics *numerics,
                    const struct rp_inputs *inputs, const struct rp_ops *below)
{
    frozen->numerics = numerics;
    frozen->inputs = inputs;
    rp_overlay_open(&frozen->overlay, below);
    frozen->overlay.ops.linear = linear;
    frozen->overlay.ops.kv_store = kv_store;
}
