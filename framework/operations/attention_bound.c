/* See operations/attention_bound.h, and README.md for the derivation. */
#include "operations/attention_bound.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "formats/half.h"
#include "operations/attention_row.h"
#include "operations/cache_tips.h"
#include "operations/matmul.h"
#include "operations/tips.h"

#define BLOCK \
    32 /* positions whose common keys go through one matrix product, where that is faster */

/* What a call needs beside its arguments. */
struct bound {
    const struct rp_attention *args;
    bool rounds_weights; /* to F16 */
    struct rp_cache_tips cache;
    bool is_quantized;
    size_t n_block;          /* positions at a time: BLOCK, 1 of a quantized cache */
    float *q;                /* [n_block][n_heads][head_dim], as it is multiplied */
    float *q_squares;        /* [n_block][n_heads][head_dim], where n_block is BLOCK; */
    float *key_squares;      /* [n_keys][n_kv_heads][head_dim] */
    float *value_squares;    /* the same */
    float *scores, *errors;  /* [n_block][n_keys], of one head */
    float *weights;          /* the same */
    float *by_weight;        /* the same: see common_values */
    float *by_both;          /* the same */
    float *sinks;            /* [n_block][2], of one head: see struct rp_attention_row */
    float *sums;             /* [2 n_block + 3][head_dim], scratch */
    double *expected, *rare; /* [n_block][n_heads * head_dim]: see rp_rare_sum */
};

/* ---- a head of some positions ---- */

/* Positions first .. first + n - 1; the first n_visible[i] keys, which ascends, are seen by position i. */
struct block {
    size_t first, n, n_visible[BLOCK];
    bool has_f16_sums[BLOCK];
    double square[BLOCK]; /* of what tips, over the heads */
    float *sigma;         /* [n][n_heads * head_dim] */
};

static struct rp_attention_row row_of(const struct bound *bound, const struct block *block,
                                      size_t head, size_t p)
{
    const struct rp_attention *args = bound->args;
    const size_t dim = args->head_dim, width = args->n_heads * dim;
    const size_t kv_head = head / (args->n_heads / args->n_kv_heads);
    return (struct rp_attention_row){.args = args,
                                     .head = head,
                                     .kv_head = kv_head,
                                     .n_visible = block->n_visible[p],
                                     .kv_dim = args->n_kv_heads * dim,
                                     .q = bound->q + p * width + head * dim,
                                     .keys = args->keys + kv_head * dim,
                                     .values = args->values + kv_head * dim,
                                     .key_norms = bound->is_quantized && bound->cache.k_size
                                                      ? bound->cache.norms + kv_head
                                                      : NULL,
                                     .y = args->y + (block->first + p) * width + head * dim,
                                     .scores = bound->scores + p * args->n_keys,
                                     .errors = bound->errors + p * args->n_keys,
                                     .weights = bound->weights + p * args->n_keys,
                                     .sink = bound->sinks + 2 * p};
}

/* The sums and the sums of squares over the keys that all positions of the block see. Their number; 0:
 * nothing was done. */
static size_t common_products(const struct bound *bound, const struct block *block,
                              const struct rp_attention_row *first)
{
    const struct rp_attention *args = bound->args;
    const size_t width = args->n_heads * args->head_dim, at = (size_t)(first->keys - args->keys);
    struct rp_strided_product product = {.n_out = block->n_visible[0],
                                         .n_in = args->head_dim,
                                         .n = block->n,
                                         .weight = first->keys,
                                         .weight_stride = first->kv_dim,
                                         .x = first->q,
                                         .x_stride = width,
                                         .y = bound->scores,
                                         .y_stride = args->n_keys};
    if (block->n < BLOCK || !rp_matmul_strided(&product))
        return 0;
    product.weight = bound->key_squares + at;
    product.x = bound->q_squares + (first->q - bound->q);
    product.y = bound->errors;
    (void)rp_matmul_strided(&product);
    return block->n_visible[0];
}

/* What the common keys add to sums [n][head_dim] of rp_attention_row_sums. (value - y)^2 is taken apart into value^2
 * - 2 value y + y^2: what that rounds is far below what the sum over the values adds. */
static void common_values(const struct bound *bound, const struct block *block,
                          const struct rp_attention_row *first, size_t n_common)
{
    const struct rp_attention *args = bound->args;
    const size_t dim = args->head_dim, at = (size_t)(first->values - args->values);
    float *linear = bound->sums + block->n * dim;
    struct rp_strided_product product = {.n_out = dim,
                                         .n_in = n_common,
                                         .n = block->n,
                                         .weight = bound->value_squares + at,
                                         .weight_stride = first->kv_dim,
                                         .is_transposed = true,
                                         .x = bound->by_both,
                                         .x_stride = args->n_keys,
                                         .y = bound->sums,
                                         .y_stride = dim};
    for (size_t p = 0; p < block->n; p++) {
        const struct rp_attention_row row = row_of(bound, block, first->head, p);
        const float by_sum = (float)rp_attention_row_of_sum(&row);
        float *by_both = bound->by_both + p * args->n_keys;
        float *by_weight = bound->by_weight + p * args->n_keys;
        for (size_t key = 0; key < n_common; key++) {
            const float weight = row.weights[key];
            const float error = bound->rounds_weights ? 0.0f : weight * row.errors[key];
            by_weight[key] = error * error;
            by_both[key] = error * error + weight * weight * by_sum;
        }
    }
    (void)rp_matmul_strided(&product);
    if (bound->rounds_weights)
        return;
    product.weight = first->values;
    product.x = bound->by_weight;
    product.y = linear;
    (void)rp_matmul_strided(&product);
    for (size_t p = 0; p < block->n; p++) {
        const float *y = row_of(bound, block, first->head, p).y;
        const float *by_weight = bound->by_weight + p * args->n_keys;
        float *sum = bound->sums + p * dim, all = 0;
        for (size_t key = 0; key < n_common; key++)
            all += by_weight[key];
        for (size_t i = 0; i < dim; i++) {
            sum[i] += y[i] * (all * y[i] - 2 * linear[p * dim + i]);
            if (sum[i] < 0)
                sum[i] = 0;
        }
    }
}

static void bound_head(struct bound *bound, struct block *block, size_t head)
{
    const struct rp_attention *args = bound->args;
    const size_t dim = args->head_dim, width = args->n_heads * dim;
    const struct rp_attention_row first = row_of(bound, block, head, 0);
    const size_t n_common = common_products(bound, block, &first);
    memset(bound->sums, 0, block->n * dim * sizeof *bound->sums);
    for (size_t p = 0; p < block->n; p++) {
        const struct rp_attention_row row = row_of(bound, block, head, p);
        rp_attention_row_fill(&row, n_common);
    }
    if (n_common > 0)
        common_values(bound, block, &first, n_common);
    for (size_t p = 0; p < block->n; p++) {
        const struct rp_attention_row row = row_of(bound, block, head, p);
        float *sigma = block->sigma + p * width + head * dim;
        double worth = 0;
        rp_attention_row_sums(&row, !bound->rounds_weights, n_common, bound->sums + p * dim, sigma);
        if (bound->rounds_weights)
            worth = rp_attention_row_weights_tip(&row);
        if (bound->is_quantized) {
            rp_attention_row_turned_back(row.y, dim, bound->cache.v_size, sigma);
            worth = rp_cache_tips_worth(&bound->cache, &row);
        }
        block->square[p] += worth * worth;
    }
    for (size_t p = 0; p < block->n; p++) {
        const struct rp_attention_row row = row_of(bound, block, head, p);
        if (block->has_f16_sums[p])
            rp_attention_row_sums_tip(&row, bound->sums, bound->expected + p * width + head * dim,
                                      bound->rare + p * width + head * dim);
    }
}

/* ---- a call ---- */

static void close_bound(struct bound *bound)
{
    rp_cache_tips_close(&bound->cache);
    free(bound->q);
    free(bound->q_squares);
    free(bound->key_squares);
    free(bound->value_squares);
    free(bound->scores);
    free(bound->sums);
    free(bound->expected);
}

static void square_all(const float *x, size_t n, float *squares)
{
    for (size_t i = 0; i < n; i++)
        squares[i] = x[i] * x[i];
}

static enum rp_status alloc_bound(struct bound *bound, struct rp_error *err)
{
    const struct rp_attention *args = bound->args;
    const size_t n = bound->n_block, width = n * args->n_heads * args->head_dim;
    const size_t n_cached = args->n_keys * args->n_kv_heads * args->head_dim;
    bool has_memory = args->n_keys <= SIZE_MAX / sizeof(float) / 5 / BLOCK - 1;
    if (has_memory) {
        bound->q = calloc(width + 1, sizeof *bound->q);
        bound->scores = calloc(n * (5 * args->n_keys + 2) + 1, sizeof *bound->scores);
        bound->sums = calloc((2 * n + 3) * args->head_dim + 1, sizeof *bound->sums);
        bound->expected = calloc(2 * width + 1, sizeof *bound->expected);
        has_memory = bound->q && bound->scores && bound->sums && bound->expected;
    }
    if (has_memory && n == BLOCK) {
        bound->q_squares = calloc(width + 1, sizeof *bound->q_squares);
        bound->key_squares = calloc(n_cached + 1, sizeof *bound->key_squares);
        bound->value_squares = calloc(n_cached + 1, sizeof *bound->value_squares);
        has_memory = bound->q_squares && bound->key_squares && bound->value_squares;
    }
    if (!has_memory)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for the bound of %zu keys",
                       args->n_keys);
    bound->errors = bound->scores + n * args->n_keys;
    bound->weights = bound->errors + n * args->n_keys;
    bound->by_weight = bound->weights + n * args->n_keys;
    bound->by_both = bound->by_weight + n * args->n_keys;
    bound->sinks = bound->by_both + n * args->n_keys;
    bound->rare = bound->expected + width;
    if (n == BLOCK) {
        square_all(args->keys, n_cached, bound->key_squares);
        square_all(args->values, n_cached, bound->value_squares);
    }
    return RP_OK;
}

static enum rp_status open_bound(struct bound *bound, const struct rp_numerics *numerics,
                                 const struct rp_site *site, const struct rp_attention *args,
                                 const float *k, const float *v)
{
    const size_t n = site->n_positions;
    *bound = (struct bound){.args = args,
                            .is_quantized = numerics->kv_cache == RP_KV_CACHE_Q8_0 ||
                                            numerics->kv_cache == RP_KV_CACHE_Q4_0,
                            .rounds_weights = numerics->kv_cache == RP_KV_CACHE_F16 &&
                                              numerics->attention == RP_ATTENTION_PLAIN};
    bound->n_block = bound->is_quantized || n == 0 ? 1 : n < BLOCK ? n : BLOCK;
    const enum rp_status status = alloc_bound(bound, site->err);
    if (status != RP_OK || !bound->is_quantized)
        return status;
    return rp_cache_tips_open(&bound->cache,
                              numerics->kv_cache == RP_KV_CACHE_Q8_0 ? RP_GGML_Q8_0 : RP_GGML_Q4_0,
                              args, k, v, site->err);
}

/* Q of the block's positions, as it is multiplied. */
static enum rp_status read_q(struct bound *bound, const struct block *block)
{
    const size_t width = bound->args->n_heads * bound->args->head_dim;
    const float *q = bound->args->q + block->first * width;
    if (bound->is_quantized)
        return rp_cache_tips_read_q(&bound->cache, q, bound->q);
    for (size_t p = 0; p < block->n; p++) {
        const bool is_rounded = block->has_f16_sums[p] || bound->rounds_weights;
        for (size_t i = p * width; i < (p + 1) * width; i++)
            bound->q[i] = is_rounded ? rp_round_f16(q[i]) : q[i];
    }
    if (bound->q_squares)
        square_all(bound->q, block->n * width, bound->q_squares);
    return RP_OK;
}

static enum rp_status bound_block(struct bound *bound, struct block *block, double *tips)
{
    const size_t n_heads = bound->args->n_heads, width = n_heads * bound->args->head_dim;
    const enum rp_status status = read_q(bound, block);
    if (status != RP_OK)
        return status;
    for (size_t head = 0; head < n_heads; head++)
        bound_head(bound, block, head);
    for (size_t p = 0; p < block->n; p++) {
        tips[p] = sqrt(block->square[p]);
        if (block->has_f16_sums[p])
            tips[p] +=
                sqrt(rp_rare_sum(bound->expected + p * width, bound->rare + p * width, width));
    }
    return RP_OK;
}

/* Row after row: each has its own keys. With flash attention over F16 each row is taken to have come alone. */
static enum rp_status windowed_bound(const struct rp_numerics *numerics, const struct rp_site *site,
                                     const struct rp_attention *args, const float *k,
                                     const float *v, float *sigma, double *tips)
{
    const size_t kv_dim = args->n_kv_heads * args->head_dim;
    const size_t width = args->n_heads * args->head_dim;
    enum rp_status status = RP_OK;
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        struct rp_site one;
        struct rp_attention seen;
        const size_t first = rp_attention_one_row(site, args, p, &one, &seen);
        status = rp_attention_bound(numerics, &one, &seen, k ? k + first * kv_dim : NULL,
                                    v ? v + first * kv_dim : NULL, sigma + p * width, tips + p);
    }
    return status;
}

enum rp_status rp_attention_bound(const struct rp_numerics *numerics, const struct rp_site *site,
                                  const struct rp_attention *args, const float *k, const float *v,
                                  float *sigma, double *tips)
{
    const size_t width = args->n_heads * args->head_dim;
    size_t seen = 0;
    struct bound bound;
    if (args->window > 0)
        return windowed_bound(numerics, site, args, k, v, sigma, tips);
    enum rp_status status = open_bound(&bound, numerics, site, args, k, v);
    for (size_t first = 0; first < site->n_positions && status == RP_OK; first += bound.n_block) {
        const size_t left = site->n_positions - first;
        float *const rows = sigma + first * width;
        struct block block = {
            .first = first, .n = left < bound.n_block ? left : bound.n_block, .sigma = rows};
        for (size_t p = 0; p < block.n; p++) {
            while (seen < args->n_keys &&
                   (!args->is_causal || args->key_positions[seen] <= site->positions[first + p]))
                seen++;
            block.n_visible[p] = seen;
            block.has_f16_sums[p] = seen > 0 && rp_numerics_has_f16_sums(numerics, site, first + p);
        }
        status = bound_block(&bound, &block, tips + first);
    }
    close_bound(&bound);
    return status;
}
