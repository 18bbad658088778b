/* Softmax attention and what it reads: the cache. HF: eager_attention_forward. With a cache that is not
 * FP32: attention_f16.c, emulation.c; what may differ: attention_bound.c. */
#include <math.h>
#include <string.h>

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
    for (size_t key = 0; key < n_visible; key++)
        args->scores[key] = rp_dot(q, keys + key * kv_dim, args->head_dim) * args->scale;
    softmax(args->scores, n_visible);
    memset(y, 0, args->head_dim * sizeof *y);
    for (size_t key = 0; key < n_visible; key++) {
        const float *value = values + key * kv_dim;
        for (size_t i = 0; i < args->head_dim; i++)
            y[i] += args->scores[key] * value[i];
    }
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
