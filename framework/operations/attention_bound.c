/* See operations/attention_bound.h, and README.md for the derivation. */
#include "operations/attention_bound.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/avx2.h"
#include "formats/half.h"
#include "operations/attention_row.h"
#include "operations/cache_tips.h"
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

/* What a call needs beside its arguments. */
struct bound {
    const struct rp_attention *args;
    bool rounds_q;       /* to F16 */
    bool rounds_weights; /* to F16 */
    struct rp_cache_tips cache;
    bool is_quantized;
    float *q;                  /* [n_heads][head_dim]: one position, as it is multiplied */
    float *scores;             /* [3][n_keys], scratch */
    float *sums;               /* [3][head_dim], scratch */
    double *expected, *square; /* [n_rare]: see rp_rare_sum */
    size_t n_rare;
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
 * turned, the terms are of one size. */
static void fill_row(const struct rp_attention_row *row)
{
    const size_t dim = row->args->head_dim;
    const float scale = row->args->scale, c = (float)(RP_SCORE_ERROR * RP_SCORE_ERROR);
    const float of_terms = c * (float)dim * scale * scale;
    const float q_norm = row->key_norms ? (float)rp_square_of(row->q, dim) : 0.0f;
    float max = -INFINITY;
    double sum = 0;
    products(row->q, row->keys, row->n_visible, dim, row->kv_dim, row->scores, row->errors);
    for (size_t key = 0; key < row->n_visible; key++) {
        float square = row->errors[key];
        const float dot = row->scores[key];
        row->scores[key] = dot * scale;
        if (row->key_norms)
            square += q_norm * row->key_norms[2 * key * row->args->n_kv_heads] / (float)dim;
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

/* sum [dim]: of each key its by_weight times (value - y)^2 and its by_sum times value^2, where by_weight is
 * (weight error)^2, 0 where errors is NULL, and by_sum is of_sum weight^2; values are kv_dim apart. */
RP_LOOP void add_value_squares_loop(const float *restrict values, const float *restrict weights,
                                    const float *restrict errors, size_t n, size_t kv_dim,
                                    const float *restrict y, size_t dim, float of_sum,
                                    float *restrict sum)
{
    for (size_t i = 0; i < dim; i++)
        sum[i] = 0;
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

/* sigma [head_dim]; sum [head_dim] is scratch. Weights that are rounded before the sum do not pass their
 * error on: they tip or they do not. */
static void sums_in_fp32(const struct rp_attention_row *row, bool passes_weights, float *sum,
                         float *sigma)
{
    const size_t dim = row->args->head_dim;
    const double of_sum = RP_SCORE_ERROR * RP_SCORE_ERROR * (double)row->n_visible;
    add_value_squares(row->values, row->weights, passes_weights ? row->errors : NULL,
                      row->n_visible, row->kv_dim, row->y, dim, (float)of_sum, sum);
    /* The sum over values and, where weights are passed on, the sum of the weights: terms of one sign. */
    const double of_y = of_sum * (passes_weights ? 2 : 1) / 3 + LAST_ROUNDINGS;
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

/* ---- a position ---- */

static void read_q(struct bound *bound, const float *q)
{
    const size_t width = bound->args->n_heads * bound->args->head_dim;
    for (size_t i = 0; i < width; i++)
        bound->q[i] = bound->rounds_q ? rp_round_f16(q[i]) : q[i];
}

static enum rp_status bound_position(struct bound *bound, size_t n_visible, bool has_f16_sums,
                                     const float *q, const float *y, float *sigma, double *flips)
{
    const struct rp_attention *args = bound->args;
    const size_t dim = args->head_dim, group = args->n_heads / args->n_kv_heads;
    double square = 0;
    enum rp_status status = RP_OK;
    if (bound->is_quantized)
        status = rp_cache_tips_read_q(&bound->cache, q, bound->q);
    else
        read_q(bound, q);
    bound->n_rare = 0;
    for (size_t head = 0; head < args->n_heads && status == RP_OK; head++) {
        const size_t kv_head = head / group;
        const struct rp_attention_row row = {.args = args,
                                             .head = head,
                                             .kv_head = kv_head,
                                             .n_visible = n_visible,
                                             .kv_dim = args->n_kv_heads * dim,
                                             .q = bound->q + head * dim,
                                             .keys = args->keys + kv_head * dim,
                                             .values = args->values + kv_head * dim,
                                             .key_norms = bound->is_quantized && bound->cache.k_size
                                                              ? bound->cache.norms + 2 * kv_head
                                                              : NULL,
                                             .y = y + head * dim,
                                             .scores = bound->scores,
                                             .errors = bound->scores + args->n_keys,
                                             .weights = bound->scores + 2 * args->n_keys};
        double worth = 0;
        fill_row(&row);
        sums_in_fp32(&row, !bound->rounds_weights, bound->sums, sigma + head * dim);
        if (bound->rounds_weights)
            worth = weights_tip(&row);
        if (bound->is_quantized) {
            turned_back(row.y, dim, bound->cache.v_size, sigma + head * dim);
            worth = rp_cache_tips_worth(&bound->cache, &row);
        }
        if (has_f16_sums) {
            sums_tip(&row, bound->sums, bound->expected + bound->n_rare,
                     bound->square + bound->n_rare);
            bound->n_rare += dim;
        }
        square += worth * worth;
    }
    *flips = sqrt(square) +
             sqrt(has_f16_sums ? rp_rare_sum(bound->expected, bound->square, bound->n_rare) : 0) +
             (bound->is_quantized ? rp_cache_tips_unknown(&bound->cache, n_visible) : 0);
    return status;
}

/* ---- a call ---- */

static void close_bound(struct bound *bound)
{
    rp_cache_tips_close(&bound->cache);
    free(bound->q);
    free(bound->scores);
    free(bound->sums);
    free(bound->expected);
    free(bound->square);
}

static enum rp_status open_bound(struct bound *bound, const struct rp_numerics *numerics,
                                 const struct rp_attention *args, const float *k, const float *v,
                                 struct rp_error *err)
{
    const size_t width = args->n_heads * args->head_dim;
    bound->args = args;
    bound->is_quantized =
        numerics->kv_cache == RP_KV_CACHE_Q8_0 || numerics->kv_cache == RP_KV_CACHE_Q4_0;
    bound->rounds_weights =
        numerics->kv_cache == RP_KV_CACHE_F16 && numerics->attention == RP_ATTENTION_PLAIN;
    bound->q = calloc(width + 1, sizeof *bound->q);
    bound->scores = calloc(3 * args->n_keys + 1, sizeof *bound->scores);
    bound->sums = calloc(3 * args->head_dim + 1, sizeof *bound->sums);
    bound->expected = calloc(width + 1, sizeof *bound->expected);
    bound->square = calloc(width + 1, sizeof *bound->square);
    if (!bound->q || !bound->scores || !bound->sums || !bound->expected || !bound->square)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for the bound of %zu keys",
                       args->n_keys);
    return bound->is_quantized
               ? rp_cache_tips_open(&bound->cache,
                                    numerics->kv_cache == RP_KV_CACHE_Q8_0 ? RP_GGML_Q8_0
                                                                           : RP_GGML_Q4_0,
                                    args, k, v, err)
               : RP_OK;
}

enum rp_status rp_attention_bound_of(const struct rp_numerics *numerics, const struct rp_site *site,
                                     const struct rp_attention *args, const float *k,
                                     const float *v, float *sigma, double *flips)
{
    const size_t width = args->n_heads * args->head_dim;
    size_t n_visible = 0;
    struct bound bound = {.args = args};
    enum rp_status status = open_bound(&bound, numerics, args, k, v, site->err);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        while (n_visible < args->n_keys &&
               (!args->is_causal || args->key_positions[n_visible] <= site->positions[p]))
            n_visible++;
        memset(sigma + p * width, 0, width * sizeof *sigma);
        flips[p] = 0;
        if (n_visible == 0)
            continue;
        const bool has_f16_sums = rp_numerics_has_f16_sums(numerics, site, p);
        bound.rounds_q = has_f16_sums || bound.rounds_weights;
        status = bound_position(&bound, n_visible, has_f16_sums, args->q + p * width,
                                args->y + p * width, sigma + p * width, &flips[p]);
    }
    close_bound(&bound);
    return status;
}

enum rp_status rp_attention_bound(const struct rp_numerics *numerics, const struct rp_site *site,
                                  const struct rp_attention *args, float *sigma, double *flips)
{
    return rp_attention_bound_of(numerics, site, args, NULL, NULL, sigma, flips);
}
