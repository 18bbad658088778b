/* See refparity/numerics.h. Which operation rounds what, and to which format; how is in rounding.c
 * and attention.c. */
#include "refparity/numerics.h"

#include <stdlib.h>
#include <string.h>

#include "numerics/attention.h"
#include "numerics/block_sums.h"
#include "numerics/hadamard.h"
#include "numerics/rounding.h"

#define HADAMARD_SIZE 64 /* of V; the least for K */
/* A flip in 16-bit attention moves its output by up to half a step of F16 in a value that many keys
 * share: so far behind it a rounding may go the other way without being a tie itself. */
#define F16_ATTENTION_UNSURE 0x1p-14

/* ---- inputs of products ---- */

static uint32_t cache_format(const struct rp_numerics *numerics)
{
    switch (numerics->kv_cache) {
    case RP_KV_CACHE_Q8_0: return RP_GGML_Q8_0;
    case RP_KV_CACHE_Q4_0: return RP_GGML_Q4_0;
    case RP_KV_CACHE_F16: return RP_GGML_F16;
    case RP_KV_CACHE_F32: break;
    }
    /* Flash attention casts what it reads. */
    return numerics->attention == RP_ATTENTION_FLASH ? RP_GGML_F16 : RP_GGML_F32;
}

/* ggml's vec_dot_type. */
static uint32_t format_by_weight(uint32_t type)
{
    switch (type) {
    case RP_GGML_F16:
    case RP_GGML_BF16: return type;
    case RP_GGML_Q4_0:
    case RP_GGML_Q4_1:
    case RP_GGML_Q5_0:
    case RP_GGML_Q5_1:
    case RP_GGML_IQ4_NL:
    case RP_GGML_Q8_0: return RP_GGML_Q8_0;
    case RP_GGML_Q2_K:
    case RP_GGML_Q3_K:
    case RP_GGML_Q4_K:
    case RP_GGML_Q5_K:
    case RP_GGML_Q6_K: return RP_GGML_Q8_K;
    default: return RP_GGML_F32;
    }
}

static uint32_t format_of_input(enum rp_activations activations, uint32_t weight_type)
{
    if (weight_type == RP_GGML_F32)
        return RP_GGML_F32;
    switch (activations) {
    case RP_ACTIVATIONS_BY_WEIGHT: return format_by_weight(weight_type);
    case RP_ACTIVATIONS_F16: return RP_GGML_F16;
    case RP_ACTIVATIONS_BF16: return RP_GGML_BF16;
    case RP_ACTIVATIONS_Q8_0: return RP_GGML_Q8_0;
    case RP_ACTIVATIONS_Q8_K: return RP_GGML_Q8_K;
    case RP_ACTIVATIONS_F32: break;
    }
    return RP_GGML_F32;
}

/* Whether the input is Q8_1, which is Q8_0 with the sum of each block. */
static bool stores_block_sums(enum rp_activations activations, uint32_t weight_type)
{
    return activations == RP_ACTIVATIONS_BY_WEIGHT &&
           (weight_type == RP_GGML_Q4_1 || weight_type == RP_GGML_Q5_1);
}

bool rp_numerics_are_plain(const struct rp_numerics *numerics)
{
    return numerics->activations == RP_ACTIVATIONS_F32 && numerics->kv_cache == RP_KV_CACHE_F32 &&
           numerics->attention == RP_ATTENTION_PLAIN;
}

enum rp_weight_id rp_row_read_by(enum rp_weight_id product)
{
    switch (product) {
    case RP_ATTN_Q:
    case RP_ATTN_K:
    case RP_ATTN_V:
    case RP_ATTN_QKV:
    case RP_ATTN_GATE:
    case RP_SSM_ALPHA:
    case RP_SSM_BETA: return RP_ATTN_NORM;
    case RP_FFN_GATE:
    case RP_FFN_UP: return RP_FFN_NORM;
    default: return product;
    }
}

/* Whether this product is the first of those that read the same row in the same format. */
static bool is_first_reader(struct rp_emulation *emulation, const struct rp_site *site,
                            enum rp_weight_id which, uint32_t format)
{
    enum rp_weight_id input = rp_row_read_by(which);
    if (input == which)
        return true;
    if (emulation->layer != site->layer)
        emulation->n_readers = 0;
    emulation->layer = site->layer;
    for (size_t i = 0; i < emulation->n_readers; i++) {
        const struct rp_rounding_reader *reader = &emulation->readers[i];
        if (rp_row_read_by(reader->which) == input && reader->format == format)
            return reader->which == which;
    }
    if (emulation->n_readers < sizeof emulation->readers / sizeof *emulation->readers)
        emulation->readers[emulation->n_readers++] =
            (struct rp_rounding_reader){.which = which, .format = format};
    return true;
}

static enum rp_status linear(void *context, const struct rp_site *site,
                             const struct rp_linear *args)
{
    struct rp_emulation *emulation = context;
    const struct rp_ops *below = emulation->overlay.below;
    uint32_t format = format_of_input(emulation->numerics.activations, args->type);
    struct rp_linear rounded = *args;
    enum rp_status status = RP_OK;
    if (format == RP_GGML_F32 || args->n_in == 0 || site->n_positions == 0)
        return below->linear(below->context, site, args);
    if (site->n_positions > SIZE_MAX / sizeof(float) / args->n_in)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "%zu rows of %zu values",
                       site->n_positions, args->n_in);
    float *x = malloc(site->n_positions * args->n_in * sizeof *x);
    if (!x)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows of %zu values",
                       site->n_positions, args->n_in);
    struct rp_rounding_site rounding = {
        .emulation = emulation,
        .which = rp_row_read_by(args->which),
        .unsure = args->which == RP_ATTN_OUTPUT && cache_format(&emulation->numerics) == RP_GGML_F16
                      ? F16_ATTENTION_UNSURE
                      : 0,
        .notes_ties =
            args->first_out == 0 && is_first_reader(emulation, site, args->which, format)};
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        rounding.position = site->positions[p];
        status = rp_round_row(format, args->x + p * args->n_in, args->n_in, x + p * args->n_in,
                              &rounding, site->err);
    }
    rounded.x = x;
    if (status == RP_OK)
        status = below->linear(below->context, site, &rounded);
    if (status == RP_OK && stores_block_sums(emulation->numerics.activations, args->type))
        status = rp_add_block_sums(site, args, x, &rounding);
    free(x);
    return status;
}

/* ---- the cache ---- */

static bool is_quantized(uint32_t format)
{
    return format == RP_GGML_Q8_0 || format == RP_GGML_Q4_0;
}

/* How many values of a head are rotated together; 0: they are not. */
static size_t hadamard_size(size_t head_dim, enum rp_weight_id which)
{
    size_t size = HADAMARD_SIZE;
    if (head_dim % HADAMARD_SIZE != 0)
        return 0;
    while (which != RP_ATTN_V && head_dim % (2 * size) == 0)
        size *= 2;
    return size;
}

/* y [n][dim] = x [n][dim], rounded; between two rotations, where the format is quantized. */
static enum rp_status round_rows(struct rp_emulation *emulation, const struct rp_site *site,
                                 enum rp_weight_id which, uint32_t format, const float *x,
                                 size_t dim, float *y)
{
    size_t size = is_quantized(format) ? hadamard_size(site->config->head_dim, which) : 0;
    enum rp_status status = RP_OK;
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        struct rp_rounding_site rounding = {.emulation = emulation,
                                            .position = site->positions[p],
                                            .which = which,
                                            .notes_ties = true};
        float *row = y + p * dim;
        memcpy(row, x + p * dim, dim * sizeof *row);
        if (size)
            rp_hadamard(row, dim, size);
        status = rp_round_row(format, row, dim, row, &rounding, site->err);
        if (size)
            rp_hadamard(row, dim, size);
    }
    return status;
}

static enum rp_status kv_store(void *context, const struct rp_site *site,
                               const struct rp_kv_store *args)
{
    struct rp_emulation *emulation = context;
    const struct rp_ops *below = emulation->overlay.below;
    uint32_t format = cache_format(&emulation->numerics);
    enum rp_status status = below->kv_store(below->context, site, args);
    if (status == RP_OK && format != RP_GGML_F32)
        status = round_rows(emulation, site, RP_ATTN_K, format, args->keys, args->dim, args->keys);
    if (status == RP_OK && format != RP_GGML_F32)
        status =
            round_rows(emulation, site, RP_ATTN_V, format, args->values, args->dim, args->values);
    return status;
}

/* A quantized cache: Q is rounded to Q8_0, the rest is FP32. */
static enum rp_status attention_quantized(struct rp_emulation *emulation,
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

static enum rp_status attention(void *context, const struct rp_site *site,
                                const struct rp_attention *args)
{
    struct rp_emulation *emulation = context;
    const struct rp_ops *below = emulation->overlay.below;
    uint32_t format = cache_format(&emulation->numerics);
    if (is_quantized(format))
        return attention_quantized(emulation, site, args);
    if (format != RP_GGML_F16)
        return below->attention(below->context, site, args);
    if (emulation->numerics.attention == RP_ATTENTION_FLASH)
        return rp_attention_flash_f16(emulation, site, args);
    return rp_attention_f16(emulation, site, args);
}

void rp_emulation_open(struct rp_emulation *emulation, const struct rp_numerics *numerics,
                       const struct rp_ops *below)
{
    memset(emulation, 0, sizeof *emulation);
    emulation->numerics = *numerics;
    rp_overlay_open(&emulation->overlay, below);
    emulation->overlay.ops.linear = linear;
    emulation->overlay.ops.kv_store = kv_store;
    emulation->overlay.ops.attention = attention;
}

void rp_emulation_close(struct rp_emulation *emulation)
{
    free(emulation->ties);
    memset(emulation, 0, sizeof *emulation);
}
