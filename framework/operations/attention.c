/* Softmax attention and what it reads: the cache. HF: eager_attention_forward. With a cache that is not
 * FP32: attention_f16.c, emulation.c; what may differ: attention_bound.c. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/avx2.h"
#include "operations/matmul.h"
#include "operations/operations.h"

enum rp_status rp_op_kv_store(void *context, const struct rp_site *site,
                              const struct rp_kv_store *args)
{
    (void)context;
    memcpy(args->keys, args->k, site->n_positions * args->dim * sizeof *args->k);
    memcpy(args->values, args->v, site->n_positions * args->dim * sizeof *args->v);
    return RP_OK;
}

#define LANES 8

/* scores [n] = scale * keys [n][head_dim] q, each as rp_dot adds it up; keys are kv_dim apart. */
RP_LOOP void scores_of_loop(const float *restrict q, const float *restrict keys, size_t n,
                            size_t head_dim, size_t kv_dim, float scale, float *restrict scores)
{
    for (size_t key = 0; key < n; key++, keys += kv_dim) {
        float sums[LANES] = {0};
        size_t i = 0;
        for (; i + LANES <= head_dim; i += LANES)
            for (size_t lane = 0; lane < LANES; lane++)
                sums[lane] += q[i + lane] * keys[i + lane];
        for (size_t lane = 0; lane < LANES / 2; lane++)
            sums[lane] += sums[lane + LANES / 2];
        float sum = (sums[0] + sums[2]) + (sums[1] + sums[3]);
        for (; i < head_dim; i++)
            sum += q[i] * keys[i];
        scores[key] = sum * scale;
    }
}
RP_COMPILE_TWICE(static, scores_of,
                 (const float *restrict q, const float *restrict keys, size_t n, size_t head_dim,
                  size_t kv_dim, float scale, float *restrict scores),
                 (q, keys, n, head_dim, kv_dim, scale, scores))

/* y [head_dim] += weights [n] values [n][head_dim], key after key; values are kv_dim apart. */
RP_LOOP void add_values_loop(const float *restrict weights, const float *restrict values, size_t n,
                             size_t head_dim, size_t kv_dim, float *restrict y)
{
    size_t key = 0;
    for (; key + 4 <= n; key += 4) {
        const float *v0 = values + key * kv_dim, *v1 = v0 + kv_dim, *v2 = v1 + kv_dim,
                    *v3 = v2 + kv_dim;
        const float w0 = weights[key], w1 = weights[key + 1], w2 = weights[key + 2],
                    w3 = weights[key + 3];
        for (size_t i = 0; i < head_dim; i++)
            y[i] = y[i] + w0 * v0[i] + w1 * v1[i] + w2 * v2[i] + w3 * v3[i];
    }
    for (; key < n; key++)
        for (size_t i = 0; i < head_dim; i++)
            y[i] += weights[key] * values[key * kv_dim + i];
}
RP_COMPILE_TWICE(static, add_values,
                 (const float *restrict weights, const float *restrict values, size_t n,
                  size_t head_dim, size_t kv_dim, float *restrict y),
                 (weights, values, n, head_dim, kv_dim, y))

/* In place: exp(x - max) / sum, where max and sum are of x and sink. */
static void softmax(float *x, size_t n, float sink)
{
    float max = sink;
    for (size_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    double sum = (double)expf(sink - max);
    for (size_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - max);
        sum += (double)x[i];
    }
    float scale = (float)(1.0 / sum);
    for (size_t i = 0; i < n; i++)
        x[i] *= scale;
}

/* Positions whose common keys go through one matrix product, where that is faster. */
#define BLOCK 32

/* Of n positions from position first on, position i sees the first n_visible[i] keys, which ascends.
 * scores [n][n_keys] is scratch. */
static void attention_head(const struct rp_attention *args, size_t head, size_t first, size_t n,
                           const size_t *n_visible, float *scores)
{
    const size_t dim = args->head_dim, width = args->n_heads * dim;
    const size_t kv_dim = args->n_kv_heads * dim;
    const size_t kv_at = head / (args->n_heads / args->n_kv_heads) * dim;
    const float *q = args->q + first * width + head * dim, *keys = args->keys + kv_at;
    const float *values = args->values + kv_at;
    float *y = args->y + first * width + head * dim;
    const bool is_product =
        rp_matmul_strided(&(struct rp_strided_product){.n_out = n_visible[0],
                                                       .n_in = dim,
                                                       .n = n,
                                                       .weight = keys,
                                                       .weight_stride = kv_dim,
                                                       .x = q,
                                                       .x_stride = width,
                                                       .y = scores,
                                                       .y_stride = args->n_keys});
    const size_t n_common = is_product ? n_visible[0] : 0;
    for (size_t p = 0; p < n; p++) {
        float *row = scores + p * args->n_keys;
        for (size_t key = 0; key < n_common; key++)
            row[key] *= args->scale;
        scores_of(q + p * width, keys + n_common * kv_dim, n_visible[p] - n_common, dim, kv_dim,
                  args->scale, row + n_common);
        for (size_t key = 0; key < n_visible[p] && args->softcap > 0; key++)
            row[key] = rp_softcap(row[key], args->softcap);
        if (n_visible[p] > 0)
            softmax(row, n_visible[p], rp_attention_sink(args, head));
        memset(y + p * width, 0, dim * sizeof *y);
    }
    if (is_product)
        (void)rp_matmul_strided(&(struct rp_strided_product){.n_out = dim,
                                                             .n_in = n_common,
                                                             .n = n,
                                                             .weight = values,
                                                             .weight_stride = kv_dim,
                                                             .is_transposed = true,
                                                             .x = scores,
                                                             .x_stride = args->n_keys,
                                                             .y = y,
                                                             .y_stride = width});
    for (size_t p = 0; p < n; p++)
        add_values(scores + p * args->n_keys + n_common, values + n_common * kv_dim,
                   n_visible[p] - n_common, dim, kv_dim, y + p * width);
}

void rp_attention_visible(const struct rp_site *site, const struct rp_attention *args, size_t p,
                          size_t *first, size_t *end)
{
    const int64_t own = site->positions[p];
    *first = 0;
    *end = args->n_keys;
    while (args->is_causal && *end > 0 && args->key_positions[*end - 1] > own)
        --*end;
    while (args->window > 0 && *first < *end &&
           own - args->key_positions[*first] >= (int64_t)args->window)
        ++*first;
}

size_t rp_attention_one_row(const struct rp_site *site, const struct rp_attention *args, size_t p,
                            struct rp_site *one, struct rp_attention *seen)
{
    const size_t kv_dim = args->n_kv_heads * args->head_dim;
    const size_t width = args->n_heads * args->head_dim;
    size_t first, end;
    rp_attention_visible(site, args, p, &first, &end);
    *one = *site;
    one->n_positions = 1;
    one->positions += p;
    *seen = *args;
    seen->window = 0;
    seen->q += p * width;
    seen->y += p * width;
    seen->keys += first * kv_dim;
    seen->values += first * kv_dim;
    seen->key_positions += first;
    seen->n_keys = end - first;
    return first;
}

/* Row after row: each has its own keys. */
static enum rp_status windowed(const struct rp_site *site, const struct rp_attention *args)
{
    enum rp_status status = RP_OK;
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        struct rp_site one;
        struct rp_attention seen;
        (void)rp_attention_one_row(site, args, p, &one, &seen);
        status = rp_op_attention(NULL, &one, &seen);
    }
    return status;
}

enum rp_status rp_op_attention(void *context, const struct rp_site *site,
                               const struct rp_attention *args)
{
    (void)context;
    if (args->window > 0)
        return windowed(site, args);
    const size_t n_rows = site->n_positions < BLOCK ? site->n_positions : BLOCK;
    float *scores = NULL;
    size_t n_visible[BLOCK], seen = 0;
    if (args->n_keys <= SIZE_MAX / sizeof *scores / BLOCK - 1)
        scores = malloc((n_rows * args->n_keys + 1) * sizeof *scores);
    if (!scores)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu scores",
                       args->n_keys);
    for (size_t first = 0; first < site->n_positions; first += BLOCK) {
        const size_t left = site->n_positions - first, n = left < BLOCK ? left : BLOCK;
        for (size_t p = 0; p < n; p++) {
            while (seen < args->n_keys &&
                   (!args->is_causal || args->key_positions[seen] <= site->positions[first + p]))
                seen++;
            n_visible[p] = seen;
        }
        for (size_t head = 0; head < args->n_heads; head++)
            attention_head(args, head, first, n, n_visible, scores);
    }
    free(scores);
    return RP_OK;
}
