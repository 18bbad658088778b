/* See model/ops_delta.h. In the order in which a layer uses them; HF's arithmetic in FP32. The delta
 * rule goes position by position, also for many: HF's chunks are the same sums in another order. */
#include "model/ops_delta.h"

#include <math.h>
#include <string.h>

static float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

static float silu(float x)
{
    return x / (1.0f + expf(-x));
}

/* log(1 + exp(x)), as torch's: x itself where exp(-x) no longer counts. */
static float softplus(float x)
{
    return x > 20.0f ? x : log1pf(expf(x));
}

enum rp_status rp_split_gate(void *context, const struct rp_site *site,
                             const struct rp_split_gate *args)
{
    (void)context;
    size_t dim = args->head_dim;
    for (size_t head = 0; head < site->n_positions * args->n_heads; head++) {
        memcpy(args->q + head * dim, args->x + 2 * head * dim, dim * sizeof *args->q);
        memcpy(args->gate + head * dim, args->x + (2 * head + 1) * dim, dim * sizeof *args->gate);
    }
    return RP_OK;
}

enum rp_status rp_attention_gate(void *context, const struct rp_site *site,
                                 const struct rp_attention_gate *args)
{
    (void)context;
    for (size_t i = 0; i < site->n_positions * args->dim; i++)
        args->y[i] *= sigmoid(args->gate[i]);
    return RP_OK;
}

/* x at position p + offset - (kernel - 1) of one channel, where the state comes before the rows. */
static float conv_input(const struct rp_causal_conv1d *args, size_t p, size_t offset,
                        size_t channel)
{
    size_t n_before = args->kernel - 1, at = p + offset;
    return at < n_before ? args->state[at * args->n_channels + channel]
                         : args->x[(at - n_before) * args->n_channels + channel];
}

/* The last kernel - 1 rows of the state and x together become the state. */
static void push_conv_state(const struct rp_causal_conv1d *args, size_t n_positions)
{
    size_t n_before = args->kernel - 1, width = args->n_channels;
    size_t n_kept = n_positions < n_before ? n_before - n_positions : 0;
    size_t n_new = n_before - n_kept;
    memmove(args->state, args->state + n_new * width, n_kept * width * sizeof *args->state);
    memcpy(args->state + n_kept * width, args->x + (n_positions - n_new) * width,
           n_new * width * sizeof *args->state);
}

enum rp_status rp_causal_conv1d(void *context, const struct rp_site *site,
                                const struct rp_causal_conv1d *args)
{
    (void)context;
    for (size_t p = 0; p < site->n_positions; p++) {
        for (size_t channel = 0; channel < args->n_channels; channel++) {
            const float *weight = args->weight + channel * args->kernel;
            float sum = 0;
            for (size_t i = 0; i < args->kernel; i++)
                sum += weight[i] * conv_input(args, p, i, channel);
            args->y[p * args->n_channels + channel] = args->has_silu ? silu(sum) : sum;
        }
    }
    push_conv_state(args, site->n_positions);
    return RP_OK;
}

enum rp_status rp_l2_norm(void *context, const struct rp_site *site, const struct rp_l2_norm *args)
{
    (void)context;
    for (size_t p = 0; p < site->n_positions; p++) {
        for (size_t head = 0; head < args->n_heads; head++) {
            float *x = args->x + p * args->x_stride + head * args->head_dim;
            double sum = 0;
            for (size_t i = 0; i < args->head_dim; i++)
                sum += (double)x[i] * (double)x[i];
            float scale = 1.0f / sqrtf((float)sum + args->eps);
            for (size_t i = 0; i < args->head_dim; i++)
                x[i] *= scale;
        }
    }
    return RP_OK;
}

enum rp_status rp_delta_decay(void *context, const struct rp_site *site,
                              const struct rp_delta_decay *args)
{
    (void)context;
    for (size_t i = 0; i < site->n_positions * args->n_heads; i++) {
        size_t head = i % args->n_heads;
        args->y[i] = args->a[head] * softplus(args->y[i] + args->dt[head]);
    }
    return RP_OK;
}

enum rp_status rp_delta_beta(void *context, const struct rp_site *site,
                             const struct rp_delta_beta *args)
{
    (void)context;
    for (size_t i = 0; i < site->n_positions * args->n_heads; i++)
        args->y[i] = sigmoid(args->y[i]);
    return RP_OK;
}

/* One head at one position. state [dim of K][dim of V]; q, k, v and y [dim]; y is overwritten first
 * by what v does not yet have in the state. */
static void delta_step(const struct rp_delta_rule *args, const float *q, const float *k,
                       const float *v, float decay, float beta, float *state, float *y)
{
    size_t dim = args->head_dim;
    memset(y, 0, dim * sizeof *y);
    for (size_t i = 0; i < dim; i++) {
        for (size_t j = 0; j < dim; j++) {
            state[i * dim + j] *= decay;
            y[j] += state[i * dim + j] * k[i];
        }
    }
    for (size_t j = 0; j < dim; j++)
        y[j] = beta * (v[j] - y[j]);
    for (size_t i = 0; i < dim; i++) {
        for (size_t j = 0; j < dim; j++)
            state[i * dim + j] += k[i] * y[j];
    }
    memset(y, 0, dim * sizeof *y);
    for (size_t i = 0; i < dim; i++) {
        float scaled = args->scale * q[i];
        for (size_t j = 0; j < dim; j++)
            y[j] += state[i * dim + j] * scaled;
    }
}

enum rp_status rp_delta_rule(void *context, const struct rp_site *site,
                             const struct rp_delta_rule *args)
{
    (void)context;
    size_t dim = args->head_dim;
    for (size_t p = 0; p < site->n_positions; p++) {
        for (size_t head = 0; head < args->n_v_heads; head++) {
            size_t qkv_at = p * args->qkv_stride, k_at = head % args->n_k_heads * dim;
            size_t at = p * args->n_v_heads + head;
            delta_step(args, args->q + qkv_at + k_at, args->k + qkv_at + k_at,
                       args->v + qkv_at + head * dim, expf(args->decay[at]), args->beta[at],
                       args->state + head * dim * dim, args->y + at * dim);
        }
    }
    return RP_OK;
}

enum rp_status rp_gated_norm(void *context, const struct rp_site *site,
                             const struct rp_gated_norm *args)
{
    (void)context;
    (void)site;
    for (size_t row = 0; row < args->n_rows; row++) {
        const float *x = args->x + row * args->dim, *gate = args->gate + row * args->dim;
        float *y = args->y + row * args->dim;
        double sum = 0;
        for (size_t i = 0; i < args->dim; i++)
            sum += (double)x[i] * (double)x[i];
        float scale = 1.0f / sqrtf((float)(sum / (double)args->dim) + args->eps);
        for (size_t i = 0; i < args->dim; i++)
            y[i] = args->weight[i] * (x[i] * scale) * silu(gate[i]);
    }
    return RP_OK;
}
