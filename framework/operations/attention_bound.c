/* See operations/attention_bound.h, and README.md for the derivation. */
#include "operations/attention_bound.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/avx2.h"
#include "formats/half.h"
#include "operations/attention_row.h"
#include "operations/cache_tips.h"
#include "operations/matmul.h"
#include "operations/tips.h"

/* Three of these are 4.5 u: exp by a polynomial may be off by 2 units in the last place. */
#define EXP_ERROR 1.5
/* Square of what is rounded once: the sum's inverse, the product with it, the result. */
#define LAST_ROUNDINGS (3 * RP_SCORE_ERROR * RP_SCORE_ERROR)
/* E|error| of a normal distribution, over its sigma. */
#define MEAN_SIZE 0.8
#define F16_STEP 0x1p-10     /* at most, relative */
#define F16_SMALLEST 0x1p-24 /* step of subnormals */
#define LANES 8

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
    float *sums;             /* [2 n_block + 3][head_dim], scratch */
    double *expected, *rare; /* [n_block][n_heads * head_dim]: see rp_rare_sum */
};

/* ---- scores ---- */

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));

/* Pair by pair. */
RP_LOOP float sum_of(const lanes *all)
{
    const float *lane = (const float *)all;
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/* dots [n] = q . key, squares [n] the sum of the terms' squares, of each key; keys are kv_dim apart. */
RP_LOOP void products_loop(const float *restrict q, const float *restrict keys, size_t n,
                           size_t dim, size_t kv_dim, float *restrict dots, float *restrict squares)
{
    for (size_t key = 0; key < n; key++, keys += kv_dim) {
        lanes sums = {0}, of_squares = {0}, a, b;
        size_t i = 0;
        for (; i + LANES <= dim; i += LANES) {
            memcpy(&a, q + i, sizeof a);
            memcpy(&b, keys + i, sizeof b);
            a *= b;
            sums += a;
            of_squares += a * a;
        }
        dots[key] = sum_of(&sums);
        squares[key] = sum_of(&of_squares);
        for (; i < dim; i++) {
            const float term = q[i] * keys[i];
            dots[key] += term;
            squares[key] += term * term;
        }
    }
}
RP_COMPILE_TWICE(static, products,
                 (const float *restrict q, const float *restrict keys, size_t n, size_t dim,
                  size_t kv_dim, float *restrict dots, float *restrict squares),
                 (q, keys, n, dim, kv_dim, dots, squares))

/* The score is a sum, scaled; the maximum is taken from it, and that goes through exp. Where Q and K were
 * turned, the terms are of one size. Of n_common keys the sums stand there already. */
static void fill_row(const struct rp_attention_row *row, size_t n_common)
{
    const size_t dim = row->args->head_dim;
    const float scale = row->args->scale, c = (float)(RP_SCORE_ERROR * RP_SCORE_ERROR);
    const float of_terms = c * (float)dim * scale * scale;
    const float q_norm = row->key_norms ? (float)rp_square_of(row->q, dim) : 0.0f;
    float max = -INFINITY;
    double sum = 0;
    products(row->q, row->keys + n_common * row->kv_dim, row->n_visible - n_common, dim,
             row->kv_dim, row->scores + n_common, row->errors + n_common);
    for (size_t key = 0; key < row->n_visible; key++) {
        float square = row->errors[key];
        const float dot = row->scores[key];
        row->scores[key] = dot * scale;
        if (row->key_norms)
            square += q_norm * row->key_norms[key * row->args->n_kv_heads] / (float)dim;
        row->errors[key] = of_terms * (square + dot * dot / 3.0f);
        max = row->scores[key] > max ? row->scores[key] : max;
    }
    for (size_t key = 0; key < row->n_visible; key++) {
        const float score = row->scores[key], below = max - score;
        row->errors[key] = sqrtf(row->errors[key] + c * (score * score + below * below) +
                                 (float)(EXP_ERROR * EXP_ERROR));
        row->weights[key] = expf(-below);
        sum += (double)row->weights[key];
    }
    for (size_t key = 0; key < row->n_visible; key++)
        row->weights[key] = (float)((double)row->weights[key] / sum);
}

/* ---- sums in FP32 ---- */

/* sum [dim]: adds of each key its by_weight times (value - y)^2 and its by_sum times value^2, where
 * by_weight is (weight error)^2, 0 where errors is NULL, and by_sum is of_sum weight^2; values are kv_dim
 * apart. */
RP_LOOP void add_value_squares_loop(const float *restrict values, const float *restrict weights,
                                    const float *restrict errors, size_t n, size_t kv_dim,
                                    const float *restrict y, size_t dim, float of_sum,
                                    float *restrict sum)
{
    for (size_t key = 0; key < n; key++, values += kv_dim) {
        const float weight = weights[key], error = errors ? weight * errors[key] : 0.0f;
        const float by_weight = error * error, by_sum = weight * weight * of_sum;
        for (size_t i = 0; i < dim; i++) {
            const float away = values[i] - y[i];
            sum[i] += by_weight * away * away + by_sum * values[i] * values[i];
        }
    }
}
RP_COMPILE_TWICE(static, add_value_squares,
                 (const float *restrict values, const float *restrict weights,
                  const float *restrict errors, size_t n, size_t kv_dim, const float *restrict y,
                  size_t dim, float of_sum, float *restrict sum),
                 (values, weights, errors, n, kv_dim, y, dim, of_sum, sum))

static double of_sum(const struct rp_attention_row *row)
{
    return RP_SCORE_ERROR * RP_SCORE_ERROR * (double)row->n_visible;
}

/* sigma [head_dim]; sum [head_dim] has what n_common keys add. Weights that are rounded before the sum do
 * not pass their error on: they tip or they do not. */
static void sums_in_fp32(const struct rp_attention_row *row, bool passes_weights, size_t n_common,
                         float *sum, float *sigma)
{
    const size_t dim = row->args->head_dim;
    add_value_squares(row->values + n_common * row->kv_dim, row->weights + n_common,
                      passes_weights ? row->errors + n_common : NULL, row->n_visible - n_common,
                      row->kv_dim, row->y, dim, (float)of_sum(row), sum);
    /* The sum over values and, where weights are passed on, the sum of the weights: terms of one sign. */
    const double of_y = of_sum(row) * (passes_weights ? 2 : 1) / 3 + LAST_ROUNDINGS;
    for (size_t i = 0; i < dim; i++)
        sigma[i] = (float)(RP_UNIT_ROUNDOFF *
                           sqrt((double)sum[i] + of_y * (double)row->y[i] * (double)row->y[i]));
}

/* y was turned back, size values at a time: a sum of as many terms. */
static void turned_back(const float *y, size_t dim, size_t size, float *sigma)
{
    for (size_t first = 0; size > 0 && first < dim; first += size) {
        const double square =
            pow(RP_SCORE_ERROR * RP_UNIT_ROUNDOFF, 2) * rp_square_of(y + first, size);
        for (size_t i = first; i < first + size; i++)
            sigma[i] = (float)sqrt((double)sigma[i] * (double)sigma[i] + square);
    }
}

/* ---- softmax weights in F16 ---- */

/* The sum of what each weight's tip changes, of those that are near enough to the middle. */
static double weights_tip(const struct rp_attention_row *row)
{
    double of_others =
               RP_SCORE_ERROR * RP_SCORE_ERROR * (double)row->n_visible / 3 + LAST_ROUNDINGS,
           sum = 0;
    for (size_t key = 0; key < row->n_visible; key++)
        of_others += pow((double)row->weights[key] * (double)row->errors[key], 2);
    for (size_t key = 0; key < row->n_visible; key++) {
        const double weight = (double)row->weights[key], error = (double)row->errors[key];
        const float rounded = rp_round_f16(row->weights[key]);
        const float other = rp_other_f16(row->weights[key], rounded);
        const double reach = RP_TIP_REACH * RP_UNIT_ROUNDOFF * weight *
                             sqrt(error * error * fmax(0, 1 - 2 * weight) + of_others);
        const double distance = other == rounded
                                    ? weight * F16_STEP / 4
                                    : fabs(weight - 0.5 * ((double)rounded + (double)other));
        if (reach < distance)
            continue;
        const double step = fmax(fabs((double)other - (double)rounded), reach);
        sum += step * sqrt(rp_square_of(row->values + key * row->kv_dim, row->args->head_dim));
    }
    return sum;
}

/* ---- sums in F16 ---- */

/* What an FP32 error e does to a rounding with step s: it tips with probability |e| / s, so that the
 * expected square is |e| s. A tip keeps its size in steps, and shrinks in the mean as the sum is scaled
 * down. expected and square, [head_dim], as rp_rare_sum takes them; sums [3][head_dim] is scratch. */
static void sums_tip(const struct rp_attention_row *row, float *sums, double *expected,
                     double *square)
{
    const size_t dim = row->args->head_dim;
    float *sum = sums, *errors = sums + dim, *largest = sums + 2 * dim;
    float max = -INFINITY, max_error = 0;
    double of_weights = 0;
    memset(sums, 0, 3 * dim * sizeof *sums);
    for (size_t key = 0; key < row->n_visible; key++) {
        const float *value = row->values + key * row->kv_dim;
        const float score = row->scores[key];
        const float error = (float)(MEAN_SIZE * RP_UNIT_ROUNDOFF) *
                            sqrtf(row->errors[key] * row->errors[key] + max_error * max_error);
        float rescale = 1.0f, weight = 1.0f, grown = 0.0f, added = error;
        if (score > max) {
            rescale = expf(max - score);
            grown = error * rescale;
            added = 0.0f;
            max = score;
            max_error = row->errors[key];
        } else {
            weight = expf(score - max);
        }
        for (size_t i = 0; i < dim; i++) {
            const float term = weight * value[i];
            errors[i] = errors[i] * rescale + grown * fabsf(sum[i]) + added * fabsf(term);
            sum[i] = sum[i] * rescale + term;
            largest[i] *= rescale;
            largest[i] = fabsf(sum[i]) > largest[i] ? fabsf(sum[i]) : largest[i];
        }
        of_weights = of_weights * (double)rescale + (double)weight;
    }
    for (size_t i = 0; i < dim; i++) {
        const double step = fmax(F16_STEP * (double)largest[i], F16_SMALLEST) / of_weights;
        expected[i] = (double)errors[i] / of_weights * step;
        square[i] = step * step;
    }
}

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
                                     .weights = bound->weights + p * args->n_keys};
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

/* What the common keys add to sums [n][head_dim] of sums_in_fp32. (value - y)^2 is taken apart into value^2
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
        const float by_sum = (float)of_sum(&row);
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
        fill_row(&row, n_common);
    }
    if (n_common > 0)
        common_values(bound, block, &first, n_common);
    for (size_t p = 0; p < block->n; p++) {
        const struct rp_attention_row row = row_of(bound, block, head, p);
        float *sigma = block->sigma + p * width + head * dim;
        double worth = 0;
        sums_in_fp32(&row, !bound->rounds_weights, n_common, bound->sums + p * dim, sigma);
        if (bound->rounds_weights)
            worth = weights_tip(&row);
        if (bound->is_quantized) {
            turned_back(row.y, dim, bound->cache.v_size, sigma);
            worth = rp_cache_tips_worth(&bound->cache, &row);
        }
        block->square[p] += worth * worth;
    }
    for (size_t p = 0; p < block->n; p++) {
        const struct rp_attention_row row = row_of(bound, block, head, p);
        if (block->has_f16_sums[p])
            sums_tip(&row, bound->sums, bound->expected + p * width + head * dim,
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
        bound->scores = calloc(5 * n * args->n_keys + 1, sizeof *bound->scores);
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
