/* The operations as other engines compute them in FP32. See engine_dump_test_util.h. */
#include "replay/engine_dump_test_util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "operations/operations.h"

static float dot(enum rp_test_order order, const float *a, const float *b, size_t n)
{
    float sum = 0;
    double exact = 0;
    for (size_t i = 0; i < n; i++) {
        const size_t at = order == RP_TEST_REVERSED ? n - 1 - i : i;
        if (order == RP_TEST_FUSED)
            sum = fmaf(a[at], b[at], sum);
        else
            sum += a[at] * b[at];
        exact += (double)a[at] * (double)b[at];
    }
    return order == RP_TEST_DOUBLE ? (float)exact : sum;
}

static enum rp_status linear(void *context, const struct rp_site *site,
                             const struct rp_linear *args)
{
    const struct rp_test_engine_ops *ops = context;
    for (size_t p = 0; p < site->n_positions; p++) {
        for (size_t i = 0; i < args->n_out; i++)
            args->y[p * args->y_stride + i] = dot(ops->order, args->weight + i * args->n_in,
                                                  args->x + p * args->n_in, args->n_in);
    }
    rp_linear_add_bias(site, args);
    rp_linear_cap(site, args);
    return RP_OK;
}

static enum rp_status rms_norm(void *context, const struct rp_site *site,
                               const struct rp_rms_norm *args)
{
    const struct rp_test_engine_ops *ops = context;
    (void)site;
    for (size_t row = 0; row < args->n_rows; row++) {
        const float *x = args->x + row * args->dim;
        float *y = args->y + row * args->dim;
        const float mean = dot(ops->order, x, x, args->dim) / (float)args->dim;
        const float scale = 1.0f / sqrtf(mean + args->eps);
        for (size_t i = 0; i < args->dim; i++)
            y[i] = x[i] * scale * args->weight[i];
    }
    return RP_OK;
}

/* theta^(-2/n_rot) to the power i by i multiplications, starting from the position. */
static enum rp_status rope(void *context, const struct rp_site *site, const struct rp_rope *args)
{
    (void)context;
    const bool is_neox = args->ordering == RP_ROPE_NEOX;
    const float step = powf(args->theta, -2.0f / (float)args->n_rot);
    for (size_t p = 0; p < site->n_positions; p++) {
        float angle = (float)args->positions[p];
        for (size_t i = 0; i < args->n_rot / 2; i++) {
            const size_t a = is_neox ? i : 2 * i, b = is_neox ? i + args->n_rot / 2 : 2 * i + 1;
            const float factor = args->freq_factors ? args->freq_factors[i] : 1.0f;
            const float cosine = rp_rope_scale(args) * cosf(angle / factor),
                        sine = rp_rope_scale(args) * sinf(angle / factor);
            for (size_t head = 0; head < args->n_heads; head++) {
                float *x = args->x + (p * args->n_heads + head) * args->head_dim;
                const float first = x[a], second = x[b];
                x[a] = first * cosine - second * sine;
                x[b] = first * sine + second * cosine;
            }
            angle *= step;
        }
    }
    return RP_OK;
}

/* Softmax and sum in one pass, rescaled whenever a larger score comes (arXiv 2205.14135). */
static void attend(const struct rp_test_engine_ops *ops, const struct rp_attention *args,
                   const float *q, size_t kv_at, int64_t position, float *y)
{
    const size_t dim = args->head_dim, kv_dim = args->n_kv_heads * dim;
    float max = -INFINITY, sum = 0;
    memset(y, 0, dim * sizeof *y);
    for (size_t key = 0; key < args->n_keys && args->key_positions[key] <= position; key++) {
        const float *value = args->values + key * kv_dim + kv_at;
        const float score =
            dot(ops->order, q, args->keys + key * kv_dim + kv_at, dim) * args->scale;
        const float larger = score > max ? score : max;
        const float rescale = expf(max - larger), weight = expf(score - larger);
        for (size_t i = 0; i < dim; i++)
            y[i] = y[i] * rescale + weight * value[i];
        sum = sum * rescale + weight;
        max = larger;
    }
    for (size_t i = 0; i < dim; i++)
        y[i] /= sum;
}

static enum rp_status attention(void *context, const struct rp_site *site,
                                const struct rp_attention *args)
{
    const struct rp_test_engine_ops *ops = context;
    const size_t group = args->n_heads / args->n_kv_heads;
    for (size_t p = 0; p < site->n_positions; p++) {
        for (size_t head = 0; head < args->n_heads; head++) {
            const size_t at = (p * args->n_heads + head) * args->head_dim;
            attend(ops, args, args->q + at, head / group * args->head_dim, site->positions[p],
                   args->y + at);
        }
    }
    return RP_OK;
}

/* ---- activations ---- */

static float sigmoid(enum rp_test_order order, float x)
{
    if (order == RP_TEST_DOUBLE)
        return (float)(1 / (1 + exp(-(double)x)));
    if (order == RP_TEST_REVERSED && x < 0)
        return expf(x) / (expf(x) + 1.0f);
    return 1.0f / (1.0f + expf(-x));
}

static float silu(enum rp_test_order order, float x)
{
    if (order == RP_TEST_DOUBLE)
        return (float)((double)x / (1 + exp(-(double)x)));
    return x * sigmoid(order, x);
}

static enum rp_status ffn_activation(void *context, const struct rp_site *site,
                                     const struct rp_ffn_activation *args)
{
    const struct rp_test_engine_ops *ops = context;
    for (size_t i = 0; i < site->n_positions * args->dim; i++) {
        const float gate = args->gate[i], up = args->up[i];
        args->y[i] = ops->order == RP_TEST_REVERSED ? gate * up * sigmoid(ops->order, gate)
                                                    : silu(ops->order, gate) * up;
    }
    return RP_OK;
}

static enum rp_status attention_gate(void *context, const struct rp_site *site,
                                     const struct rp_attention_gate *args)
{
    const struct rp_test_engine_ops *ops = context;
    for (size_t i = 0; i < site->n_positions * args->dim; i++) {
        if (ops->order == RP_TEST_SEQUENTIAL)
            args->y[i] /= 1.0f + expf(-args->gate[i]);
        else
            args->y[i] *= sigmoid(ops->order, args->gate[i]);
    }
    return RP_OK;
}

/* ---- gated DeltaNet ---- */

static enum rp_status gated_norm(void *context, const struct rp_site *site,
                                 const struct rp_gated_norm *args)
{
    const struct rp_test_engine_ops *ops = context;
    (void)site;
    for (size_t row = 0; row < args->n_rows; row++) {
        const float *x = args->x + row * args->dim, *gate = args->gate + row * args->dim;
        float *y = args->y + row * args->dim;
        const float mean = dot(ops->order, x, x, args->dim) / (float)args->dim;
        const float scale = 1.0f / sqrtf(mean + args->eps);
        for (size_t i = 0; i < args->dim; i++)
            y[i] = x[i] * scale * (args->weight[i] * silu(ops->order, gate[i]));
    }
    return RP_OK;
}

enum { MAX_TERMS = 256 };

/* The plain operation moves the state on; its sums are then replaced. */
static enum rp_status causal_conv1d(void *context, const struct rp_site *site,
                                    const struct rp_causal_conv1d *args)
{
    const struct rp_test_engine_ops *ops = context;
    const size_t n = args->n_channels, n_before = args->kernel - 1;
    float terms[MAX_TERMS];
    float *before = malloc((n_before * n + 1) * sizeof *before);
    if (!before || args->kernel > MAX_TERMS)
        abort();
    memcpy(before, args->state, n_before * n * sizeof *before);
    const enum rp_status status = rp_ops_default()->causal_conv1d(NULL, site, args);
    for (size_t p = 0; p < site->n_positions; p++) {
        for (size_t channel = 0; channel < n; channel++) {
            for (size_t i = 0; i < args->kernel; i++)
                terms[i] = p + i < n_before ? before[(p + i) * n + channel]
                                            : args->x[(p + i - n_before) * n + channel];
            const float sum =
                dot(ops->order, args->weight + channel * args->kernel, terms, args->kernel);
            args->y[p * n + channel] = args->has_silu ? silu(ops->order, sum) : sum;
        }
    }
    free(before);
    return status;
}

static enum rp_status l2_norm(void *context, const struct rp_site *site,
                              const struct rp_l2_norm *args)
{
    const struct rp_test_engine_ops *ops = context;
    for (size_t p = 0; p < site->n_positions; p++) {
        for (size_t head = 0; head < args->n_heads; head++) {
            float *x = args->x + p * args->x_stride + head * args->head_dim;
            const float norm = sqrtf(dot(ops->order, x, x, args->head_dim) + args->eps);
            for (size_t i = 0; i < args->head_dim; i++)
                x[i] /= norm;
        }
    }
    return RP_OK;
}

static enum rp_status delta_decay(void *context, const struct rp_site *site,
                                  const struct rp_delta_decay *args)
{
    const struct rp_test_engine_ops *ops = context;
    for (size_t i = 0; i < site->n_positions * args->n_heads; i++) {
        const size_t head = i % args->n_heads;
        const float z = args->y[i] + args->dt[head];
        const float softplus = z > 20.0f                      ? z
                               : ops->order == RP_TEST_DOUBLE ? (float)log1p(exp((double)z))
                                                              : logf(1.0f + expf(z));
        args->y[i] = args->a[head] * softplus;
    }
    return RP_OK;
}

static enum rp_status delta_beta(void *context, const struct rp_site *site,
                                 const struct rp_delta_beta *args)
{
    const struct rp_test_engine_ops *ops = context;
    for (size_t i = 0; i < site->n_positions * args->n_heads; i++)
        args->y[i] = sigmoid(ops->order, args->y[i]);
    return RP_OK;
}

/* One head at one position; state [dim of K][dim of V]. The decay is taken out of the sums over the
 * state, which are column by column. */
static void delta_step(enum rp_test_order order, const struct rp_delta_rule *args, const float *q,
                       const float *k, const float *v, float decay, float beta, float *state,
                       float *y)
{
    const size_t dim = args->head_dim;
    float column[MAX_TERMS];
    for (size_t j = 0; j < dim; j++) {
        for (size_t i = 0; i < dim; i++)
            column[i] = state[i * dim + j];
        const float delta = beta * (v[j] - decay * dot(order, column, k, dim));
        for (size_t i = 0; i < dim; i++)
            column[i] = state[i * dim + j] = column[i] * decay + k[i] * delta;
        y[j] = dot(order, column, q, dim) * args->scale;
    }
}

static enum rp_status delta_rule(void *context, const struct rp_site *site,
                                 const struct rp_delta_rule *args)
{
    const struct rp_test_engine_ops *ops = context;
    const size_t dim = args->head_dim;
    if (dim > MAX_TERMS)
        abort();
    for (size_t p = 0; p < site->n_positions; p++) {
        for (size_t head = 0; head < args->n_v_heads; head++) {
            const size_t qkv_at = p * args->qkv_stride, k_at = head % args->n_k_heads * dim;
            const size_t at = p * args->n_v_heads + head;
            delta_step(ops->order, args, args->q + qkv_at + k_at, args->k + qkv_at + k_at,
                       args->v + qkv_at + head * dim, expf(args->decay[at]), args->beta[at],
                       args->state + head * dim * dim, args->y + at * dim);
        }
    }
    return RP_OK;
}

void rp_test_engine_ops_open(struct rp_test_engine_ops *ops, enum rp_test_order order)
{
    rp_overlay_open(&ops->overlay, NULL);
    ops->order = order;
    ops->overlay.ops.linear = linear;
    ops->overlay.ops.rms_norm = rms_norm;
    ops->overlay.ops.rope = rope;
    ops->overlay.ops.attention = attention;
    ops->overlay.ops.ffn_activation = ffn_activation;
    ops->overlay.ops.attention_gate = attention_gate;
    ops->overlay.ops.gated_norm = gated_norm;
    ops->overlay.ops.causal_conv1d = causal_conv1d;
    ops->overlay.ops.l2_norm = l2_norm;
    ops->overlay.ops.delta_decay = delta_decay;
    ops->overlay.ops.delta_beta = delta_beta;
    ops->overlay.ops.delta_rule = delta_rule;
}
