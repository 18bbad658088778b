/* Softmax attention and what it reads: the cache. HF: eager_attention_forward. With a cache that is not
 * FP32: attention_f16.c, emulation.c; what may differ: attention_bound.c. */
#include <math.h>
#include <string.h>

#include "base/avx2.h"
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

/* y [head_dim] = weights [n] values [n][head_dim], key after key; values are kv_dim apart. */
RP_LOOP void weighted_values_loop(const float *restrict weights, const float *restrict values,
                                  size_t n, size_t head_dim, size_t kv_dim, float *restrict y)
{
    for (size_t i = 0; i < head_dim; i++)
        y[i] = 0;
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
RP_COMPILE_TWICE(static, weighted_values,
                 (const float *restrict weights, const float *restrict values, size_t n,
                  size_t head_dim, size_t kv_dim, float *restrict y),
                 (weights, values, n, head_dim, kv_dim, y))

/* In place: exp(x - max(x)) / sum. */
static void softmax(float *x, size_t n)
{
    float max = x[0];
    double sum = 0;
    for (size_t i = 1; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (size_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - max);
        sum += (double)x[i];
    }
    float scale = (float)(1.0 / sum);
    for (size_t i = 0; i < n; i++)
        x[i] *= scale;
}

/* One head of one position; keys and values are the KV head's, rows kv_dim apart. */
static void attention_head(const struct rp_attention *args, const float *q, const float *keys,
                           const float *values, size_t n_visible, float *y)
{
    size_t kv_dim = args->n_kv_heads * args->head_dim;
    scores_of(q, keys, n_visible, args->head_dim, kv_dim, args->scale, args->scores);
    softmax(args->scores, n_visible);
    weighted_values(args->scores, values, n_visible, args->head_dim, kv_dim, y);
}

enum rp_status rp_op_attention(void *context, const struct rp_site *site,
                               const struct rp_attention *args)
{
    (void)context;
    size_t group = args->n_heads / args->n_kv_heads;
    size_t n_visible = 0;
    for (size_t p = 0; p < site->n_positions; p++) {
        while (n_visible < args->n_keys &&
               (!args->is_causal || args->key_positions[n_visible] <= site->positions[p]))
            n_visible++;
        for (size_t head = 0; head < args->n_heads; head++) {
            size_t at = (p * args->n_heads + head) * args->head_dim;
            size_t kv_at = head / group * args->head_dim;
            if (n_visible > 0)
                attention_head(args, args->q + at, args->keys + kv_at, args->values + kv_at,
                               n_visible, args->y + at);
            else
                memset(args->y + at, 0, args->head_dim * sizeof *args->y);
        }
    }
    return RP_OK;
}
