/* The default operations: HF's arithmetic in FP32, in the order in which a layer uses them.
 * Matrix products are in linear.c, gated attention and the gated DeltaNet in ops_delta.c. */
#include "refparity/ops.h"

#include <math.h>
#include <string.h>

#include "model/linear.h"
#include "model/ops_delta.h"

static enum rp_status embed(void *context, const struct rp_site *site, const struct rp_embed *args)
{
    (void)context;
    for (size_t i = 0; i < site->n_positions; i++) {
        enum rp_status status =
            rp_gguf_row(args->gguf, args->table, (size_t)(uint32_t)args->tokens[i],
                        args->y + i * site->config->hidden_size, site->err);
        if (status != RP_OK)
            return status;
    }
    return RP_OK;
}

static enum rp_status rms_norm(void *context, const struct rp_site *site,
                               const struct rp_rms_norm *args)
{
    (void)context;
    (void)site;
    for (size_t row = 0; row < args->n_rows; row++) {
        const float *x = args->x + row * args->dim;
        float *y = args->y + row * args->dim;
        double sum = 0;
        for (size_t i = 0; i < args->dim; i++)
            sum += (double)x[i] * (double)x[i];
        float variance = (float)(sum / (double)args->dim);
        float scale = 1.0f / sqrtf(variance + args->eps);
        for (size_t i = 0; i < args->dim; i++)
            y[i] = args->weight[i] * (x[i] * scale);
    }
    return RP_OK;
}

static enum rp_status linear(void *context, const struct rp_site *site,
                             const struct rp_linear *args)
{
    (void)context;
    rp_matmul(args->weight, args->n_out, args->n_in, args->x, site->n_positions, args->y,
              args->y_stride);
    return RP_OK;
}

/* Index of value i (of n_rot / 2) of the first and of the second half of a pair. */
static void rope_pair(const struct rp_rope *args, size_t i, size_t *first, size_t *second)
{
    bool is_neox = args->ordering == RP_ROPE_NEOX;
    *first = is_neox ? i : 2 * i;
    *second = is_neox ? i + args->n_rot / 2 : 2 * i + 1;
}

/* inv_freq, angle, cosine and sine are rounded to FP32 where HF's rotary embedding rounds them: at
 * position 150 a more exact angle would already differ by 1e-5. */
static enum rp_status rope(void *context, const struct rp_site *site, const struct rp_rope *args)
{
    (void)context;
    size_t dim = args->n_heads * args->head_dim;
    for (size_t i = 0; i < args->n_rot / 2; i++) {
        size_t first, second;
        float exponent = (float)(2 * i) / (float)args->n_rot;
        float inv_freq = 1.0f / powf(args->theta, exponent);
        if (args->freq_factors)
            inv_freq /= args->freq_factors[i];
        rope_pair(args, i, &first, &second);
        for (size_t p = 0; p < site->n_positions; p++) {
            float angle = (float)args->positions[p] * inv_freq;
            float cosine = cosf(angle), sine = sinf(angle);
            for (size_t head = 0; head < args->n_heads; head++) {
                float *x = args->x + p * dim + head * args->head_dim;
                float a = x[first], b = x[second];
                x[first] = a * cosine - b * sine;
                x[second] = b * cosine + a * sine;
            }
        }
    }
    return RP_OK;
}

static enum rp_status kv_store(void *context, const struct rp_site *site,
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

static enum rp_status attention(void *context, const struct rp_site *site,
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

static enum rp_status ffn_activation(void *context, const struct rp_site *site,
                                     const struct rp_ffn_activation *args)
{
    (void)context;
    for (size_t i = 0; i < site->n_positions * args->dim; i++) {
        float gate = args->gate[i];
        args->y[i] = gate / (1.0f + expf(-gate)) * args->up[i];
    }
    return RP_OK;
}

static enum rp_status residual_add(void *context, const struct rp_site *site,
                                   const struct rp_residual_add *args)
{
    (void)context;
    for (size_t i = 0; i < site->n_positions * args->dim; i++)
        args->hidden[i] += args->branch[i];
    return RP_OK;
}

const struct rp_ops *rp_ops_default(void)
{
    static const struct rp_ops ops = {
        .context = NULL,
        .embed = embed,
        .rms_norm = rms_norm,
        .linear = linear,
        .rope = rope,
        .kv_store = kv_store,
        .attention = attention,
        .split_gate = rp_split_gate,
        .attention_gate = rp_attention_gate,
        .causal_conv1d = rp_causal_conv1d,
        .l2_norm = rp_l2_norm,
        .delta_decay = rp_delta_decay,
        .delta_beta = rp_delta_beta,
        .delta_rule = rp_delta_rule,
        .gated_norm = rp_gated_norm,
        .ffn_activation = ffn_activation,
        .residual_add = residual_add,
    };
    return &ops;
}
