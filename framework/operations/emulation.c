/* What an engine rounds and to which format, as an overlay: inputs of products, the cache, Q. See
 * refparity/numerics.h; how values are rounded is in formats/rounding.c, F16 attention in
 * attention_f16.c. */
#include <stdlib.h>
#include <string.h>

#include "base/avx2.h"
#include "formats/hadamard.h"
#include "formats/rounding.h"
#include "operations/attention_f16.h"
#include "operations/emulation.h"
#include "operations/matmul.h"
#include "operations/operations.h"
#include "operations/state.h"

#define BLOCK 32 /* of the formats that store sums */

uint32_t rp_numerics_cache_format(const struct rp_numerics *numerics)
{
    switch (numerics->kv_cache) {
    case RP_KV_CACHE_Q8_0: return RP_GGML_Q8_0;
    case RP_KV_CACHE_Q4_0: return RP_GGML_Q4_0;
    case RP_KV_CACHE_F16: return RP_GGML_F16;
    case RP_KV_CACHE_F32: break;
    }
    /* ggml's flash attention casts what it reads; values in 16 bits need no cast. */
    return numerics->attention == RP_ATTENTION_FLASH && numerics->state == RP_STATE_F32
               ? RP_GGML_F16
               : RP_GGML_F32;
}

/* ggml's vec_dot_type. */
static uint32_t format_by_weight(uint32_t type)
{
    switch (type) {
    case RP_GGML_F16:
    case RP_GGML_BF16: return type;
    case RP_GGML_Q4_0:
    case RP_GGML_Q5_0:
    case RP_GGML_IQ4_NL:
    case RP_GGML_MXFP4:
    case RP_GGML_NVFP4:
    case RP_GGML_Q8_0: return RP_GGML_Q8_0;
    case RP_GGML_Q4_1:
    case RP_GGML_Q5_1: return RP_GGML_Q8_1;
    case RP_GGML_Q2_K:
    case RP_GGML_Q3_K:
    case RP_GGML_Q4_K:
    case RP_GGML_Q5_K:
    case RP_GGML_IQ1_S:
    case RP_GGML_IQ1_M:
    case RP_GGML_IQ2_XXS:
    case RP_GGML_IQ2_XS:
    case RP_GGML_IQ2_S:
    case RP_GGML_IQ3_XXS:
    case RP_GGML_IQ3_S:
    case RP_GGML_IQ4_XS:
    case RP_GGML_TQ1_0:
    case RP_GGML_TQ2_0:
    case RP_GGML_Q6_K: return RP_GGML_Q8_K;
    default: return RP_GGML_F32;
    }
}

uint32_t rp_numerics_input_format(const struct rp_numerics *numerics, uint32_t weight_type)
{
    if (weight_type == RP_GGML_F32)
        return RP_GGML_F32;
    switch (numerics->activations) {
    case RP_ACTIVATIONS_BY_WEIGHT: return format_by_weight(weight_type);
    case RP_ACTIVATIONS_F16: return RP_GGML_F16;
    case RP_ACTIVATIONS_BF16: return RP_GGML_BF16;
    case RP_ACTIVATIONS_Q8_0: return RP_GGML_Q8_0;
    case RP_ACTIVATIONS_Q8_K: return RP_GGML_Q8_K;
    case RP_ACTIVATIONS_F32: break;
    }
    return RP_GGML_F32;
}

bool rp_numerics_are_plain(const struct rp_numerics *numerics)
{
    return numerics->state == RP_STATE_F32 && numerics->activations == RP_ACTIVATIONS_F32 &&
           numerics->kv_cache == RP_KV_CACHE_F32 && numerics->attention == RP_ATTENTION_PLAIN;
}

enum rp_status rp_emulated_row(const struct rp_emulation *emulation, const struct rp_site *site,
                               enum rp_weight_id which, bool is_cache, size_t p, uint32_t format,
                               const float *x, size_t n, float *y)
{
    const struct rp_rounding_watch *watch = emulation->watch;
    if (!watch) {
        rp_round_row(format, x, n, y);
        return RP_OK;
    }
    x = watch->before(watch->context, site, which, is_cache, site->positions[p], format, x, n);
    if (!x)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a row of %zu values", n);
    rp_round_row(format, x, n, y);
    watch->after(watch->context, format, x, n, y);
    return RP_OK;
}

enum rp_status rp_emulated_q(const struct rp_emulation *emulation, const struct rp_site *site,
                             size_t p, const float *x, size_t n, float *y)
{
    return rp_emulated_row(emulation, site, RP_ATTN_Q, true, p, RP_GGML_F16, x, n, y);
}

static enum rp_status no_memory(const struct rp_site *site, size_t width)
{
    return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows of %zu values",
                   site->n_positions, width);
}

/* floats [n_positions][width]; NULL when there is no memory. */
static float *new_rows(const struct rp_site *site, size_t width)
{
    if (width > 0 && site->n_positions > SIZE_MAX / sizeof(float) / width)
        return NULL;
    return malloc((site->n_positions * width + 1) * sizeof(float));
}

/* ---- products ---- */

/* Of weights that were exchanged, whose blocks are not at hand: the smallest value of a block is its
 * minimum where a quantizer gave it the integer 0, as ggml's does. minima [n_blocks]. */
RP_LOOP void minima_of_loop(const float *weight, size_t n_blocks, float *minima)
{
    for (size_t b = 0; b < n_blocks; b++, weight += BLOCK) {
        float lanes[8];
        memcpy(lanes, weight, sizeof lanes);
        for (size_t i = 8; i < BLOCK; i += 8)
            for (size_t lane = 0; lane < 8; lane++)
                lanes[lane] = weight[i + lane] < lanes[lane] ? weight[i + lane] : lanes[lane];
        for (size_t lane = 1; lane < 8; lane++)
            lanes[0] = lanes[lane] < lanes[0] ? lanes[lane] : lanes[0];
        minima[b] = lanes[0];
    }
}
RP_COMPILE_TWICE(static, minima_of, (const float *weight, size_t n_blocks, float *minima),
                 (weight, n_blocks, minima))

/* A kernel multiplies a block's minimum by the stored sum of the input's block: adds what that is above
 * the sum of its rounded values. excess [n_positions][n_in / 32]. */
static enum rp_status add_block_sums(const struct rp_site *site, const struct rp_linear *args,
                                     const float *excess)
{
    const size_t n_blocks = args->n_in / BLOCK;
    const bool is_as_loaded = args->loaded && args->loaded->data == args->weight;
    const float *minima = is_as_loaded ? args->loaded->minima : NULL;
    float *computed = NULL;
    if (!minima) {
        computed = malloc((args->n_out * n_blocks + 1) * sizeof *computed);
        if (!computed)
            return no_memory(site, args->n_out);
        for (size_t i = 0; i < args->n_out; i++)
            minima_of(args->weight + i * args->n_in, n_blocks, computed + i * n_blocks);
        minima = computed;
    }
    rp_matmul_add(minima, args->n_out, n_blocks, excess, site->n_positions, args->y,
                  args->y_stride);
    free(computed);
    return RP_OK;
}

/* x is a value of the state already. */
static enum rp_status rounded_linear(const struct rp_emulation *emulation,
                                     const struct rp_site *site, const struct rp_linear *args)
{
    const struct rp_ops *below = emulation->overlay.below;
    const uint32_t format = rp_numerics_input_format(&emulation->numerics, args->type);
    const size_t n_blocks = format == RP_GGML_Q8_1 ? args->n_in / BLOCK : 0;
    const struct rp_rounding_watch *watch = emulation->watch;
    struct rp_linear rounded = *args;
    enum rp_status status = RP_OK;
    if (format == RP_GGML_F32 || args->n_in == 0 || site->n_positions == 0)
        return below->linear(below->context, site, args);
    float *x = new_rows(site, args->n_in), *excess = new_rows(site, n_blocks);
    if (!x || !excess)
        status = no_memory(site, args->n_in);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        const float *row = args->x + p * args->n_in;
        const uint32_t values = n_blocks ? RP_GGML_Q8_0 : format;
        if (watch)
            row = watch->before(watch->context, site, args->which, false, site->positions[p],
                                values, row, args->n_in);
        if (!row) {
            status = no_memory(site, args->n_in);
            break;
        }
        if (n_blocks)
            rp_round_q8_1(row, args->n_in, x + p * args->n_in, excess + p * n_blocks);
        else
            rp_round_row(values, row, args->n_in, x + p * args->n_in);
        if (watch)
            watch->after(watch->context, values, row, args->n_in, x + p * args->n_in);
    }
    rounded.x = x;
    if (n_blocks)
        rounded.softcap = 0; /* it comes after the blocks' sums */
    if (status == RP_OK)
        status = below->linear(below->context, site, &rounded);
    if (status == RP_OK && n_blocks)
        status = add_block_sums(site, args, excess);
    if (status == RP_OK && n_blocks)
        rp_linear_cap(site, args);
    free(x);
    free(excess);
    return status;
}

/* Whether the state holds other weights than a file of that type. Weights in blocks are decoded within the
 * product. */
static bool rounds_weights(enum rp_state state, uint32_t type)
{
    const uint32_t own = state == RP_STATE_BF16 ? RP_GGML_BF16 : RP_GGML_F16;
    return type != own && (type == RP_GGML_F32 || type == RP_GGML_F16 || type == RP_GGML_BF16);
}

/* Values that FP32 may round to their other neighbour. A tip of down's product may move the rounding of the sum with the
 * bias, too. */
static enum rp_status add_tips(const struct rp_emulation *emulation, const struct rp_site *site,
                               const struct rp_linear *product)
{
    const double worth = product->which == RP_EXPERTS_DOWN ? 2 : 1;
    float *sigma = new_rows(site, product->n_out);
    enum rp_status status =
        sigma ? rp_sigma_linear(site, product, sigma) : no_memory(site, product->n_out);
    for (size_t i = 0; i < site->n_positions && status == RP_OK; i++) {
        for (size_t k = 0; k < product->n_out && i < emulation->n_tips; k++) {
            const double change = worth * rp_state_tip(emulation->numerics.state,
                                                       product->y[i * product->y_stride + k],
                                                       (double)sigma[i * product->n_out + k]);
            emulation->tips[i] += change * change;
        }
    }
    free(sigma);
    return status;
}

/* An expert's product is rounded before its bias is added, and then again: HF's GptOssExperts writes both out, where
 * other products are one with their bias. */
static enum rp_status linear_of_expert(const struct rp_emulation *emulation,
                                       const struct rp_site *site, const struct rp_linear *args)
{
    const enum rp_state state = emulation->numerics.state;
    struct rp_linear product = *args;
    product.bias = NULL;
    enum rp_status status = rounded_linear(emulation, site, &product);
    if (status == RP_OK && emulation->tips)
        status = add_tips(emulation, site, &product);
    for (size_t i = 0; i < site->n_positions && status == RP_OK; i++) {
        float *y = args->y + i * args->y_stride;
        for (size_t k = 0; k < args->n_out; k++)
            y[k] = rp_state_round(state, y[k]) + rp_state_round(state, args->bias[k]);
    }
    return status;
}

static enum rp_status linear(void *context, const struct rp_site *site,
                             const struct rp_linear *args)
{
    const struct rp_emulation *emulation = context;
    const enum rp_state state = emulation->numerics.state;
    struct rp_linear read = *args;
    float *weight = NULL;
    if (state == RP_STATE_F32)
        return rounded_linear(emulation, site, args);
    float *x = new_rows(site, args->n_in);
    if (!x)
        return no_memory(site, args->n_in);
    enum rp_status status = rp_state_read(emulation, site, args->x, args->n_in, args->n_in, x);
    read.x = x;
    if (status == RP_OK && rounds_weights(state, args->type)) {
        status = rp_state_weights(emulation, site, args->weight, args->n_out, args->n_in, &weight);
        read.weight = weight;
    }
    read.softcap = 0;
    if (status == RP_OK)
        status = (args->expert && args->bias ? linear_of_expert : rounded_linear)(emulation, site,
                                                                                  &read);
    if (status == RP_OK && args->softcap > 0)
        rp_state_cap(emulation, site, args);
    free(weight);
    free(x);
    return status;
}

static enum rp_status head_linear(void *context, const struct rp_site *site,
                                  const struct rp_head_linear *args)
{
    return rp_by_head(site, args, linear, context);
}

/* ---- the cache ---- */

static bool is_quantized(uint32_t format)
{
    return format == RP_GGML_Q8_0 || format == RP_GGML_Q4_0;
}

/* y [n][dim] = x [n][dim], rounded; between two rotations, where the format is quantized. */
static enum rp_status round_rows(const struct rp_emulation *emulation, const struct rp_site *site,
                                 enum rp_weight_id which, uint32_t format, const float *x,
                                 size_t dim, float *y)
{
    size_t size =
        is_quantized(format) ? rp_hadamard_size(site->config->head_dim, which == RP_ATTN_V) : 0;
    enum rp_status status = RP_OK;
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        float *row = y + p * dim;
        memcpy(row, x + p * dim, dim * sizeof *row);
        if (size)
            rp_hadamard(row, dim, size);
        status = rp_emulated_row(emulation, site, which, true, p, format, row, dim, row);
        if (size)
            rp_hadamard(row, dim, size);
    }
    return status;
}

static enum rp_status kv_store(void *context, const struct rp_site *site,
                               const struct rp_kv_store *args)
{
    const struct rp_emulation *emulation = context;
    const struct rp_ops *below = emulation->overlay.below;
    uint32_t format = rp_numerics_cache_format(&emulation->numerics);
    enum rp_status status = below->kv_store(below->context, site, args);
    if (status == RP_OK && emulation->numerics.state != RP_STATE_F32)
        status = rp_state_read(emulation, site, args->keys, args->dim, args->dim, args->keys);
    if (status == RP_OK && emulation->numerics.state != RP_STATE_F32)
        status = rp_state_read(emulation, site, args->values, args->dim, args->dim, args->values);
    if (status == RP_OK && format != RP_GGML_F32)
        status = round_rows(emulation, site, RP_ATTN_K, format, args->keys, args->dim, args->keys);
    if (status == RP_OK && format != RP_GGML_F32)
        status =
            round_rows(emulation, site, RP_ATTN_V, format, args->values, args->dim, args->values);
    return status;
}

/* A quantized cache: Q is rounded to Q8_0, the rest is FP32. */
static enum rp_status attention_quantized(const struct rp_emulation *emulation,
                                          const struct rp_site *site,
                                          const struct rp_attention *args)
{
    const struct rp_ops *below = emulation->overlay.below;
    size_t width = args->n_heads * args->head_dim;
    struct rp_attention rounded = *args;
    enum rp_status status;
    if (site->n_positions == 0 || width == 0)
        return below->attention(below->context, site, args);
    float *q = malloc(site->n_positions * width * sizeof *q); /* as large as args->q */
    if (!q)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows of %zu values",
                       site->n_positions, width);
    status = round_rows(emulation, site, RP_ATTN_Q, RP_GGML_Q8_0, args->q, width, q);
    rounded.q = q;
    if (status == RP_OK)
        status = below->attention(below->context, site, &rounded);
    free(q);
    return status;
}

/* Q is a value of the state already. */
static enum rp_status rounded_attention(const struct rp_emulation *emulation,
                                        const struct rp_site *site, const struct rp_attention *args)
{
    const struct rp_ops *below = emulation->overlay.below;
    uint32_t format = rp_numerics_cache_format(&emulation->numerics);
    if (is_quantized(format))
        return attention_quantized(emulation, site, args);
    if (format == RP_GGML_F32 && emulation->numerics.state != RP_STATE_F32)
        return rp_state_attention(emulation, site, args);
    if (format != RP_GGML_F16)
        return below->attention(below->context, site, args);
    if (emulation->numerics.attention == RP_ATTENTION_FLASH)
        return rp_attention_flash_f16(emulation, site, args);
    return rp_attention_f16(emulation, site, args);
}

static enum rp_status attention(void *context, const struct rp_site *site,
                                const struct rp_attention *args)
{
    const struct rp_emulation *emulation = context;
    const size_t width = args->n_heads * args->head_dim;
    struct rp_attention read = *args;
    if (emulation->numerics.state == RP_STATE_F32)
        return rounded_attention(emulation, site, args);
    float *q = new_rows(site, width);
    if (!q)
        return no_memory(site, width);
    enum rp_status status = rp_state_read(emulation, site, args->q, width, width, q);
    read.q = q;
    if (status == RP_OK)
        status = rounded_attention(emulation, site, &read);
    free(q);
    return status;
}

void rp_emulation_open(struct rp_emulation *emulation, const struct rp_numerics *numerics,
                       const struct rp_ops *below)
{
    *emulation = (struct rp_emulation){.numerics = *numerics};
    rp_overlay_open(&emulation->overlay, below);
    emulation->overlay.ops.linear = linear;
    emulation->overlay.ops.head_linear = head_linear;
    emulation->overlay.ops.kv_store = kv_store;
    emulation->overlay.ops.attention = attention;
    if (numerics->activations == RP_ACTIVATIONS_BY_WEIGHT)
        emulation->overlay.ops.ffn_activation = rp_gelu_by_table;
    if (numerics->state != RP_STATE_F32)
        rp_state_open(emulation);
}
