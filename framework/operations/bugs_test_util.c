/* See operations/bugs_test_util.h. */
#include "operations/bugs_test_util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static enum rp_status attention_scale(void *context, const struct rp_site *site,
                                      const struct rp_attention *args)
{
    struct rp_test_bug *bug = context;
    struct rp_attention wrong = *args;
    if (rp_test_bug_is_here(bug, site))
        wrong.scale *= (float)bug->value;
    return RP_TEST_BELOW(bug, attention, site, &wrong);
}

void rp_test_attention_scale(struct rp_ops *ops)
{
    ops->attention = attention_scale;
}

static enum rp_status attention_sees_all(void *context, const struct rp_site *site,
                                         const struct rp_attention *args)
{
    struct rp_test_bug *bug = context;
    struct rp_attention wrong = *args;
    if (rp_test_bug_is_here(bug, site))
        wrong.is_causal = false;
    return RP_TEST_BELOW(bug, attention, site, &wrong);
}

void rp_test_attention_sees_all(struct rp_ops *ops)
{
    ops->attention = attention_sees_all;
}

static enum rp_status attention_window(void *context, const struct rp_site *site,
                                       const struct rp_attention *args)
{
    struct rp_test_bug *bug = context;
    size_t kv_dim = args->n_kv_heads * args->head_dim, width = args->n_heads * args->head_dim;
    enum rp_status status = RP_OK;
    if (!rp_test_bug_is_here(bug, site))
        return RP_TEST_BELOW(bug, attention, site, args);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        struct rp_site one = *site;
        struct rp_attention part = *args;
        size_t n_hidden = 0;
        while ((double)(site->positions[p] - args->key_positions[n_hidden]) >= bug->value)
            n_hidden++;
        one.positions += p;
        one.n_positions = 1;
        part.q += p * width;
        part.y += p * width;
        part.keys += n_hidden * kv_dim;
        part.values += n_hidden * kv_dim;
        part.key_positions += n_hidden;
        part.n_keys -= n_hidden;
        status = RP_TEST_BELOW(bug, attention, &one, &part);
    }
    return status;
}

void rp_test_attention_window(struct rp_ops *ops)
{
    ops->attention = attention_window;
}

/* The KV heads in reverse order. */
static enum rp_status attention_heads(void *context, const struct rp_site *site,
                                      const struct rp_attention *args)
{
    struct rp_test_bug *bug = context;
    size_t kv_dim = args->n_kv_heads * args->head_dim;
    struct rp_attention wrong = *args;
    float *keys, *values;
    if (!rp_test_bug_is_here(bug, site))
        return RP_TEST_BELOW(bug, attention, site, args);
    keys = rp_test_copy(args->keys, args->n_keys * kv_dim);
    values = rp_test_copy(args->values, args->n_keys * kv_dim);
    for (size_t key = 0; key < args->n_keys; key++) {
        for (size_t head = 0; head < args->n_kv_heads; head++) {
            size_t to = key * kv_dim + head * args->head_dim;
            size_t from = key * kv_dim + (args->n_kv_heads - 1 - head) * args->head_dim;
            memcpy(keys + to, args->keys + from, args->head_dim * sizeof *keys);
            memcpy(values + to, args->values + from, args->head_dim * sizeof *values);
        }
    }
    wrong.keys = keys;
    wrong.values = values;
    enum rp_status status = RP_TEST_BELOW(bug, attention, site, &wrong);
    free(keys);
    free(values);
    return status;
}

void rp_test_attention_heads(struct rp_ops *ops)
{
    ops->attention = attention_heads;
}

static enum rp_status attention_head_zero(void *context, const struct rp_site *site,
                                          const struct rp_attention *args)
{
    struct rp_test_bug *bug = context;
    enum rp_status status = RP_TEST_BELOW(bug, attention, site, args);
    for (size_t p = 0; rp_test_bug_is_here(bug, site) && p < site->n_positions; p++)
        memset(args->y + (p * args->n_heads + (size_t)bug->head) * args->head_dim, 0,
               args->head_dim * sizeof *args->y);
    return status;
}

void rp_test_attention_head_zero(struct rp_ops *ops)
{
    ops->attention = attention_head_zero;
}

static enum rp_status gate_missing(void *context, const struct rp_site *site,
                                   const struct rp_attention_gate *args)
{
    struct rp_test_bug *bug = context;
    return rp_test_bug_is_here(bug, site) ? RP_OK : RP_TEST_BELOW(bug, attention_gate, site, args);
}

void rp_test_gate_missing(struct rp_ops *ops)
{
    ops->attention_gate = gate_missing;
}

static enum rp_status norm_eps(void *context, const struct rp_site *site,
                               const struct rp_rms_norm *args)
{
    struct rp_test_bug *bug = context;
    struct rp_rms_norm wrong = *args;
    if (rp_test_bug_is_here(bug, site) && args->which == bug->which)
        wrong.eps *= (float)bug->value;
    return RP_TEST_BELOW(bug, rms_norm, site, &wrong);
}

void rp_test_norm_eps(struct rp_ops *ops)
{
    ops->rms_norm = norm_eps;
}

static enum rp_status norm_offset(void *context, const struct rp_site *site,
                                  const struct rp_rms_norm *args)
{
    struct rp_test_bug *bug = context;
    struct rp_rms_norm wrong = *args;
    float *weight = rp_test_copy(args->weight, args->dim);
    for (size_t i = 0; i < args->dim; i++)
        weight[i] += (float)bug->value;
    if (rp_test_bug_is_here(bug, site) && args->which == bug->which)
        wrong.weight = weight;
    enum rp_status status = RP_TEST_BELOW(bug, rms_norm, site, &wrong);
    free(weight);
    return status;
}

void rp_test_norm_offset(struct rp_ops *ops)
{
    ops->rms_norm = norm_offset;
}

static enum rp_status run_with_weight(struct rp_test_bug *bug, const struct rp_site *site,
                                      const struct rp_rms_norm *args, float *weight)
{
    struct rp_rms_norm wrong = *args;
    if (rp_test_bug_is_here(bug, site) && (args->which == bug->which || bug->which == RP_N_WEIGHTS))
        wrong.weight = weight;
    const enum rp_status status = RP_TEST_BELOW(bug, rms_norm, site, &wrong);
    free(weight);
    return status;
}

static enum rp_status norm_rounded(void *context, const struct rp_site *site,
                                   const struct rp_rms_norm *args)
{
    float *weight = rp_test_copy(args->weight, args->dim);
    for (size_t i = 0; i < args->dim; i++) {
        int exponent;
        const float fraction = frexpf(weight[i], &exponent);
        weight[i] = ldexpf(rintf(ldexpf(fraction, 8)), exponent - 8);
    }
    return run_with_weight(context, site, args, weight);
}

void rp_test_norm_rounded(struct rp_ops *ops)
{
    ops->rms_norm = norm_rounded;
}

static enum rp_status norm_odd_weight(void *context, const struct rp_site *site,
                                      const struct rp_rms_norm *args)
{
    float *weight = rp_test_copy(args->weight, args->dim);
    for (size_t i = 0; i < args->dim; i++)
        weight[i] *= 1.5f + sinf((float)(i * i));
    return run_with_weight(context, site, args, weight);
}

void rp_test_norm_odd_weight(struct rp_ops *ops)
{
    ops->rms_norm = norm_odd_weight;
}

static enum rp_status norm_missing(void *context, const struct rp_site *site,
                                   const struct rp_rms_norm *args)
{
    struct rp_test_bug *bug = context;
    if (!rp_test_bug_is_here(bug, site) || args->which != bug->which)
        return RP_TEST_BELOW(bug, rms_norm, site, args);
    memmove(args->y, args->x, args->n_rows * args->dim * sizeof *args->y);
    return RP_OK;
}

void rp_test_norm_missing(struct rp_ops *ops)
{
    ops->rms_norm = norm_missing;
}

static enum rp_status qk_norm_missing(void *context, const struct rp_site *site,
                                      const struct rp_rms_norm *args)
{
    struct rp_test_bug *bug = context;
    if (!rp_test_bug_is_here(bug, site) ||
        (args->which != RP_ATTN_Q_NORM && args->which != RP_ATTN_K_NORM))
        return RP_TEST_BELOW(bug, rms_norm, site, args);
    memmove(args->y, args->x, args->n_rows * args->dim * sizeof *args->y);
    return RP_OK;
}

void rp_test_qk_norm_missing(struct rp_ops *ops)
{
    ops->rms_norm = qk_norm_missing;
}

static enum rp_status ffn_swapped(void *context, const struct rp_site *site,
                                  const struct rp_ffn_activation *args)
{
    struct rp_test_bug *bug = context;
    struct rp_ffn_activation wrong = *args;
    if (rp_test_bug_is_here(bug, site)) {
        wrong.gate = args->up;
        wrong.up = args->gate;
    }
    return RP_TEST_BELOW(bug, ffn_activation, site, &wrong);
}

void rp_test_ffn_swapped(struct rp_ops *ops)
{
    ops->ffn_activation = ffn_swapped;
}

static enum rp_status ffn_gelu(void *context, const struct rp_site *site,
                               const struct rp_ffn_activation *args)
{
    struct rp_test_bug *bug = context;
    if (!rp_test_bug_is_here(bug, site))
        return RP_TEST_BELOW(bug, ffn_activation, site, args);
    for (size_t i = 0; i < site->n_positions * args->dim; i++)
        args->y[i] = 0.5f * args->gate[i] * (1 + erff(args->gate[i] * 0.70710678f)) * args->up[i];
    return RP_OK;
}

void rp_test_ffn_gelu(struct rp_ops *ops)
{
    ops->ffn_activation = ffn_gelu;
}

static enum rp_status ffn_beta(void *context, const struct rp_site *site,
                               const struct rp_ffn_activation *args)
{
    struct rp_test_bug *bug = context;
    if (!rp_test_bug_is_here(bug, site))
        return RP_TEST_BELOW(bug, ffn_activation, site, args);
    for (size_t i = 0; i < site->n_positions * args->dim; i++)
        args->y[i] = args->gate[i] / (1 + expf(-(float)bug->value * args->gate[i])) * args->up[i];
    return RP_OK;
}

void rp_test_ffn_beta(struct rp_ops *ops)
{
    ops->ffn_activation = ffn_beta;
}

/* What no hypothesis is about. */
static enum rp_status ffn_odd(void *context, const struct rp_site *site,
                              const struct rp_ffn_activation *args)
{
    struct rp_test_bug *bug = context;
    float *gate = rp_test_copy(args->gate, site->n_positions * args->dim);
    enum rp_status status = RP_TEST_BELOW(bug, ffn_activation, site, args);
    for (size_t i = 0; rp_test_bug_is_here(bug, site) && i < site->n_positions * args->dim; i++)
        args->y[i] += 0.01f * sinf((float)(i % args->dim) * 7 + gate[i] * 30);
    free(gate);
    return status;
}

void rp_test_ffn_odd(struct rp_ops *ops)
{
    ops->ffn_activation = ffn_odd;
}

static enum rp_status product_factor(void *context, const struct rp_site *site,
                                     const struct rp_linear *args)
{
    struct rp_test_bug *bug = context;
    enum rp_status status = RP_TEST_BELOW(bug, linear, site, args);
    for (size_t p = 0;
         rp_test_bug_is_here(bug, site) && args->which == bug->which && p < site->n_positions; p++)
        for (size_t i = 0; i < args->n_out; i++)
            args->y[p * args->y_stride + i] *= (float)bug->value;
    return status;
}

void rp_test_product_factor(struct rp_ops *ops)
{
    ops->linear = product_factor;
}

static enum rp_status other_weights(void *context, const struct rp_site *site,
                                    const struct rp_linear *args)
{
    struct rp_test_bug *bug = context;
    struct rp_linear wrong = *args;
    if (rp_test_bug_is_here(bug, site) && args->which == bug->which)
        wrong.weight = bug->weights->weights[args->which].data;
    return RP_TEST_BELOW(bug, linear, site, &wrong);
}

void rp_test_other_weights(struct rp_ops *ops)
{
    ops->linear = other_weights;
}

void rp_test_two_in_ffn(struct rp_ops *ops)
{
    ops->ffn_activation = ffn_swapped;
    ops->linear = product_factor;
}

static enum rp_status other_tensor(void *context, const struct rp_site *site,
                                   const struct rp_linear *args)
{
    struct rp_test_bug *bug = context;
    struct rp_linear wrong = *args;
    if (rp_test_bug_is_here(bug, site) && args->which == bug->which)
        wrong.weight = bug->own_weights->weights[bug->option].data;
    return RP_TEST_BELOW(bug, linear, site, &wrong);
}

void rp_test_other_tensor(struct rp_ops *ops)
{
    ops->linear = other_tensor;
}

static enum rp_status transposed(void *context, const struct rp_site *site,
                                 const struct rp_linear *args)
{
    struct rp_test_bug *bug = context;
    struct rp_linear wrong = *args;
    const size_t n = args->n_out;
    float *weight = rp_test_copy(args->weight, n * args->n_in);
    for (size_t i = 0; n == args->n_in && i < n * n; i++)
        weight[i] = args->weight[i % n * n + i / n];
    if (rp_test_bug_is_here(bug, site) && args->which == bug->which)
        wrong.weight = weight;
    const enum rp_status status = RP_TEST_BELOW(bug, linear, site, &wrong);
    free(weight);
    return status;
}

void rp_test_transposed(struct rp_ops *ops)
{
    ops->linear = transposed;
}

static enum rp_status remember_input(void *context, const struct rp_site *site,
                                     const struct rp_rms_norm *args)
{
    struct rp_test_bug *bug = context;
    if (args->which == RP_ATTN_NORM)
        bug->remembered = args->x;
    return RP_TEST_BELOW(bug, rms_norm, site, args);
}

static enum rp_status reads_input(void *context, const struct rp_site *site,
                                  const struct rp_linear *args)
{
    struct rp_test_bug *bug = context;
    struct rp_linear wrong = *args;
    if (rp_test_bug_is_here(bug, site) && args->which == bug->which)
        wrong.x = bug->remembered;
    return RP_TEST_BELOW(bug, linear, site, &wrong);
}

void rp_test_reads_input(struct rp_ops *ops)
{
    ops->rms_norm = remember_input;
    ops->linear = reads_input;
}

static enum rp_status product_rolled(void *context, const struct rp_site *site,
                                     const struct rp_linear *args)
{
    struct rp_test_bug *bug = context;
    const enum rp_status status = RP_TEST_BELOW(bug, linear, site, args);
    for (size_t p = 0;
         rp_test_bug_is_here(bug, site) && args->which == bug->which && p < site->n_positions;
         p++) {
        float *y = args->y + p * args->y_stride, last = y[args->n_out - 1];
        memmove(y + 1, y, (args->n_out - 1) * sizeof *y);
        y[0] = last;
    }
    return status;
}

void rp_test_product_rolled(struct rp_ops *ops)
{
    ops->linear = product_rolled;
}

static enum rp_status softcap(void *context, const struct rp_site *site,
                              const struct rp_linear *args)
{
    struct rp_test_bug *bug = context;
    const enum rp_status status = RP_TEST_BELOW(bug, linear, site, args);
    const float cap = (float)bug->value;
    for (size_t i = 0; args->which == RP_OUTPUT && i < site->n_positions * args->n_out; i++) {
        float *y = args->y + i / args->n_out * args->y_stride + i % args->n_out;
        *y = cap * tanhf(*y / cap);
    }
    return status;
}

void rp_test_softcap(struct rp_ops *ops)
{
    ops->linear = softcap;
}

static enum rp_status other_token(void *context, const struct rp_site *site,
                                  const struct rp_embed *args)
{
    struct rp_test_bug *bug = context;
    struct rp_embed wrong = *args;
    int32_t tokens[256];
    memcpy(tokens, args->tokens, site->n_positions * sizeof *tokens);
    tokens[3] ^= 1;
    wrong.tokens = tokens;
    return RP_TEST_BELOW(bug, embed, site, &wrong);
}

void rp_test_other_token(struct rp_ops *ops)
{
    ops->embed = other_token;
}

/* x to 10 bits of mantissa after the first, as F16 has them where it is not subnormal. */
static float to_f16(float x)
{
    int exponent;
    float fraction = frexpf(x, &exponent);
    int bits = exponent < -13 ? 11 - (-13 - exponent) : 11;
    return ldexpf(rintf(ldexpf(fraction, bits)), exponent - bits);
}

/* What becomes of one row of the sum; before is the residual stream. */
static void change_row(const struct rp_test_bug *bug, const float *before, size_t dim, float *row)
{
    float value = (float)bug->value, kept = row[3];
    for (size_t i = 0; i < dim; i++) {
        switch (bug->option) {
        case RP_TEST_LEAK: row[i] += value * before[i]; break;
        case RP_TEST_NO_STREAM: row[i] -= before[i]; break;
        case RP_TEST_CHANNEL: row[i] *= i == 17 ? value : 1; break;
        case RP_TEST_SWAPPED: row[i] = i == 3 ? row[9] : i == 9 ? kept : row[i]; break;
        case RP_TEST_F16: row[i] = to_f16(row[i]); break;
        case RP_TEST_CLIPPED: row[i] = fmaxf(fminf(row[i], value), -value); break;
        case RP_TEST_OFFSET: row[i] += value; break;
        case RP_TEST_BIAS: row[i] += value * sinf((float)i); break;
        default: break;
        }
    }
}

static enum rp_status sum(void *context, const struct rp_site *site,
                          const struct rp_residual_add *args)
{
    struct rp_test_bug *bug = context;
    float *before = rp_test_copy(args->hidden, site->n_positions * args->dim);
    enum rp_status status = RP_TEST_BELOW(bug, residual_add, site, args);
    bool has_bug = rp_test_bug_is_here(bug, site) && args->which == bug->which;
    for (size_t p = site->n_positions; has_bug && p-- > 0;) {
        if (bug->position >= 0 && site->positions[p] != bug->position)
            continue;
        if (bug->option == RP_TEST_SHIFTED && p > 0)
            memcpy(args->hidden + p * args->dim, args->hidden + (p - 1) * args->dim,
                   args->dim * sizeof *before);
        change_row(bug, before + p * args->dim, args->dim, args->hidden + p * args->dim);
    }
    free(before);
    return status;
}

void rp_test_sum(struct rp_ops *ops)
{
    ops->residual_add = sum;
}

static enum rp_status delta_decay(void *context, const struct rp_site *site,
                                  const struct rp_delta_decay *args)
{
    struct rp_test_bug *bug = context;
    enum rp_status status = RP_TEST_BELOW(bug, delta_decay, site, args);
    for (size_t i = 0; rp_test_bug_is_here(bug, site) && i < site->n_positions * args->n_heads; i++)
        args->y[i] = bug->option == RP_TEST_NO_DECAY ? 0 : args->y[i] * 2;
    return status;
}

void rp_test_delta_decay(struct rp_ops *ops)
{
    ops->delta_decay = delta_decay;
}

static enum rp_status delta_beta(void *context, const struct rp_site *site,
                                 const struct rp_delta_beta *args)
{
    struct rp_test_bug *bug = context;
    return rp_test_bug_is_here(bug, site) ? RP_OK : RP_TEST_BELOW(bug, delta_beta, site, args);
}

void rp_test_delta_beta_raw(struct rp_ops *ops)
{
    ops->delta_beta = delta_beta;
}

static enum rp_status conv_forgets(void *context, const struct rp_site *site,
                                   const struct rp_causal_conv1d *args)
{
    struct rp_test_bug *bug = context;
    float *weight = rp_test_copy(args->weight, args->n_channels * args->kernel);
    struct rp_causal_conv1d wrong = *args;
    for (size_t i = 0; i < args->n_channels * args->kernel; i++)
        weight[i] *= i % args->kernel + 1 == args->kernel;
    if (rp_test_bug_is_here(bug, site))
        wrong.weight = weight;
    enum rp_status status = RP_TEST_BELOW(bug, causal_conv1d, site, &wrong);
    free(weight);
    return status;
}

void rp_test_conv_forgets(struct rp_ops *ops)
{
    ops->causal_conv1d = conv_forgets;
}

static enum rp_status delta_ungated(void *context, const struct rp_site *site,
                                    const struct rp_gated_norm *args)
{
    struct rp_test_bug *bug = context;
    enum rp_status status;
    float *gate = rp_test_copy(args->gate, args->n_rows * args->dim);
    status = RP_TEST_BELOW(bug, gated_norm, site, args);
    for (size_t i = 0; rp_test_bug_is_here(bug, site) && i < args->n_rows * args->dim; i++)
        args->y[i] /= gate[i] / (1 + expf(-gate[i]));
    free(gate);
    return status;
}

void rp_test_delta_ungated(struct rp_ops *ops)
{
    ops->gated_norm = delta_ungated;
}
