/* See operations/state.h. HF's order of roundings is that of modeling_llama, _qwen3 and _qwen3_5. */
#include "operations/activation.h"
#include "operations/state.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/half.h"
#include "formats/rounding.h"
#include "operations/emulation.h"
#include "operations/operations.h"
#include "operations/tips.h"

#define FUNCTION_ERROR (2 * RP_UNIT_ROUNDOFF) /* relative: exp, a sum, a division */

float rp_state_round(enum rp_state state, float x)
{
    return state == RP_STATE_BF16 ? rp_round_bf16(x) : rp_round_f16(x);
}

double rp_state_tip(enum rp_state state, float x, double noise)
{
    const float rounded = rp_state_round(state, x);
    const float other =
        state == RP_STATE_BF16 ? rp_other_bf16(x, rounded) : rp_other_f16(x, rounded);
    const double middle = 0.5 * ((double)rounded + (double)other);
    if (other == rounded || fabs((double)x - middle) > RP_TIP_REACH * noise)
        return 0;
    return fabs((double)other - (double)rounded);
}

float rp_state_softcap(enum rp_state state, float x, float cap)
{
    return cap > 0 ? rp_state_round(state, tanhf(rp_state_round(state, x / cap))) * cap : x;
}

double rp_state_softcap_tip(enum rp_state state, float x, float cap)
{
    const float t = tanhf(rp_state_round(state, x / cap));
    const double noise = RP_TANH_ERROR * RP_UNIT_ROUNDOFF * fabs((double)t);
    return rp_state_tip(state, t, noise) * (double)cap;
}

static uint32_t format_of(const struct rp_emulation *emulation)
{
    return emulation->numerics.state == RP_STATE_BF16 ? RP_GGML_BF16 : RP_GGML_F16;
}

/* ---- rows ---- */

enum rp_status rp_state_read(const struct rp_emulation *emulation, const struct rp_site *site,
                             const float *x, size_t width, size_t stride, float *rows)
{
    enum rp_status status = RP_OK;
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++)
        status = rp_emulated_row(emulation, site, RP_N_WEIGHTS, false, p, format_of(emulation),
                                 x + p * stride, width, rows + p * width);
    return status;
}

enum rp_status rp_state_weights(const struct rp_emulation *emulation, const struct rp_site *site,
                                const float *weight, size_t n_out, size_t n_in, float **rounded)
{
    const size_t n = n_out * n_in; /* there is such a matrix */
    *rounded = malloc((n + 1) * sizeof **rounded);
    if (!*rounded)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu x %zu weights", n_out,
                       n_in);
    rp_round_row(format_of(emulation), weight, n, *rounded);
    return RP_OK;
}

static enum rp_status read_in_place(const struct rp_emulation *emulation,
                                    const struct rp_site *site, float *x, size_t width)
{
    return rp_state_read(emulation, site, x, width, width, x);
}

/* *rows [n_positions][width], the caller's; NULL where it fails. */
static enum rp_status read_copy(const struct rp_emulation *emulation, const struct rp_site *site,
                                const float *x, size_t width, size_t stride, float **rows)
{
    *rows = NULL;
    if (width == 0 || site->n_positions <= SIZE_MAX / sizeof **rows / width - 1)
        *rows = malloc((site->n_positions * width + 1) * sizeof **rows);
    if (!*rows)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows of %zu values",
                       site->n_positions, width);
    const enum rp_status status = rp_state_read(emulation, site, x, width, stride, *rows);
    if (status != RP_OK) {
        free(*rows);
        *rows = NULL;
    }
    return status;
}

static void add_tip(const struct rp_emulation *emulation, size_t p, double change)
{
    if (emulation->tips && p < emulation->n_tips)
        emulation->tips[p] += change * change;
}

/* x rounded inside an operation, noise [relative] in front of it; worth: what the output changes by for
 * each unit of it. */
static float round_inside(const struct rp_emulation *emulation, size_t p, float x, double noise,
                          double worth)
{
    const enum rp_state state = emulation->numerics.state;
    if (emulation->tips)
        add_tip(emulation, p, rp_state_tip(state, x, noise * fabs((double)x)) * worth);
    return rp_state_round(state, x);
}

/* ---- logits ---- */

/* A sum's size, of which its noise is a part, is taken as the row's. */
void rp_state_cap(const struct rp_emulation *emulation, const struct rp_site *site,
                  const struct rp_linear *args)
{
    const enum rp_state state = emulation->numerics.state;
    for (size_t p = 0; p < site->n_positions && args->n_out > 0; p++) {
        float *y = args->y + p * args->y_stride;
        double square = 0;
        for (size_t i = 0; i < args->n_out; i++)
            square += (double)y[i] * (double)y[i];
        const double of_sum =
            RP_SUM_ERROR * sqrt((double)args->n_in * square / (double)args->n_out);
        for (size_t i = 0; i < args->n_out; i++) {
            const double noise = RP_UNIT_ROUNDOFF * (2 * fabs((double)y[i]) + of_sum);
            const float x = rp_state_round(state, y[i]);
            const double step = rp_state_tip(state, y[i], noise);
            const float other = x + (float)(y[i] > x ? step : -step);
            y[i] = rp_state_softcap(state, x, args->softcap);
            add_tip(emulation, p,
                    fabs((double)rp_state_softcap(state, other, args->softcap) - (double)y[i]) +
                        rp_state_softcap_tip(state, x, args->softcap));
        }
    }
}

/* ---- norms ---- */

/* What rows of dim values are multiplied by: 1 / sqrt(mean(x^2) + eps). */
static float norm_scale(const float *x, size_t dim, float eps)
{
    double sum = 0;
    for (size_t i = 0; i < dim; i++)
        sum += (double)x[i] * (double)x[i];
    return 1.0f / sqrtf((float)(sum / (double)dim) + eps);
}

/* HF casts the normed row to the state before its weight multiplies it; Qwen3_5RMSNorm does not. */
static enum rp_status rms_norm(void *context, const struct rp_site *site,
                               const struct rp_rms_norm *args)
{
    const struct rp_emulation *emulation = context;
    const struct rp_ops *below = emulation->overlay.below;
    const size_t rows = site->n_positions ? args->n_rows / site->n_positions : 0;
    const size_t width = rows * args->dim;
    const double noise = hypot(rp_norm_error(args->dim), RP_UNIT_ROUNDOFF);
    struct rp_rms_norm rounded = *args;
    float *x;
    enum rp_status status = read_copy(emulation, site, args->x, width, width, &x);
    if (status != RP_OK)
        return status;
    rounded.x = x;
    if (site->config->norms_round_last) {
        status = below->rms_norm(below->context, site, &rounded);
    } else {
        for (size_t row = 0; row < args->n_rows; row++) {
            const float *from = x + row * args->dim;
            const float scale = norm_scale(from, args->dim, args->eps);
            float *y = args->y + row * args->dim;
            for (size_t i = 0; i < args->dim; i++)
                y[i] =
                    args->weight[i] * round_inside(emulation, row / (rows ? rows : 1),
                                                   from[i] * scale, noise, (double)args->weight[i]);
        }
    }
    free(x);
    return status;
}

/* The normed row is rounded, and its product with the weight; SiLU of the gate stays FP32. */
static enum rp_status gated_norm(void *context, const struct rp_site *site,
                                 const struct rp_gated_norm *args)
{
    const struct rp_emulation *emulation = context;
    const enum rp_state state = emulation->numerics.state;
    const size_t rows = site->n_positions ? args->n_rows / site->n_positions : 0;
    const size_t width = rows * args->dim;
    const double noise = hypot(rp_norm_error(args->dim), RP_UNIT_ROUNDOFF);
    float *x = NULL, *gate = NULL;
    enum rp_status status = read_copy(emulation, site, args->x, width, width, &x);
    if (status == RP_OK)
        status = read_copy(emulation, site, args->gate, width, width, &gate);
    for (size_t row = 0; row < args->n_rows && status == RP_OK; row++) {
        const float *from = x + row * args->dim;
        const float scale = norm_scale(from, args->dim, args->eps);
        for (size_t i = 0; i < args->dim; i++) {
            const float opened = rp_silu(gate[row * args->dim + i]);
            /* A tip moves the rounded product by up to a step more. */
            const double worth = 2 * fabs((double)args->weight[i] * (double)opened);
            const float normed =
                round_inside(emulation, row / (rows ? rows : 1), from[i] * scale, noise, worth);
            args->y[row * args->dim + i] = rp_state_round(state, args->weight[i] * normed) * opened;
        }
    }
    free(x);
    free(gate);
    return status;
}

/* The L2 norm is FP32 and stays so; the convolution's output was rounded. */
static enum rp_status l2_norm(void *context, const struct rp_site *site,
                              const struct rp_l2_norm *args)
{
    const struct rp_emulation *emulation = context;
    const struct rp_ops *below = emulation->overlay.below;
    const size_t width = args->n_heads * args->head_dim;
    float *x;
    enum rp_status status = read_copy(emulation, site, args->x, width, args->x_stride, &x);
    if (status != RP_OK)
        return status;
    for (size_t p = 0; p < site->n_positions; p++)
        memcpy(args->x + p * args->x_stride, x + p * width, width * sizeof *x);
    free(x);
    return below->l2_norm(below->context, site, args);
}

/* ---- RoPE ---- */

/* Cosine and sine are made in FP32 and rounded, then each product; a tip moves both values of a pair, and
 * their products' roundings with them. */
static void rotate_pair(const struct rp_emulation *emulation, const struct rp_site *site,
                        const struct rp_rope *args, size_t i, float inv_freq)
{
    const enum rp_state state = emulation->numerics.state;
    const bool is_neox = args->ordering == RP_ROPE_NEOX;
    const size_t first = args->first + (is_neox ? i : 2 * i);
    const size_t second = args->first + (is_neox ? i + args->n_rot / 2 : 2 * i + 1);
    const float scale = rp_rope_scale(args);
    for (size_t p = 0; p < site->n_positions; p++) {
        const float angle = (float)args->positions[p] * inv_freq;
        const double error = 1.5 * RP_UNIT_ROUNDOFF * fabs((double)angle);
        const float cosine = cosf(angle) * scale, sine = sinf(angle) * scale;
        const double of_cosine = rp_state_tip(
            state, cosine, fabs((double)sine) * error + RP_UNIT_ROUNDOFF * fabs((double)cosine));
        const double of_sine = rp_state_tip(
            state, sine, fabs((double)cosine) * error + RP_UNIT_ROUNDOFF * fabs((double)sine));
        const float c = rp_state_round(state, cosine), s = rp_state_round(state, sine);
        double square = 0;
        for (size_t head = 0; head < args->n_heads; head++) {
            float *x = args->x + (p * args->n_heads + head) * args->head_dim;
            const float a = x[first], b = x[second];
            x[first] = rp_state_round(state, a * c) - rp_state_round(state, b * s);
            x[second] = rp_state_round(state, b * c) + rp_state_round(state, a * s);
            square += (double)a * (double)a + (double)b * (double)b;
        }
        add_tip(emulation, p, 2 * hypot(of_cosine, of_sine) * sqrt(square));
    }
}

static enum rp_status rope(void *context, const struct rp_site *site, const struct rp_rope *args)
{
    const struct rp_emulation *emulation = context;
    const enum rp_status status =
        read_in_place(emulation, site, args->x, args->n_heads * args->head_dim);
    for (size_t i = 0; i < args->n_rot / 2 && status == RP_OK; i++) {
        const float exponent = (float)(2 * i) / (float)args->n_rot;
        float inv_freq = 1.0f / powf(args->theta, exponent);
        if (args->freq_factors)
            inv_freq /= args->freq_factors[i];
        rotate_pair(emulation, site, args, i, inv_freq);
    }
    return status;
}

/* ---- gates, activations, sums ---- */

static enum rp_status attention_gate(void *context, const struct rp_site *site,
                                     const struct rp_attention_gate *args)
{
    const struct rp_emulation *emulation = context;
    float *gate;
    enum rp_status status = read_copy(emulation, site, args->gate, args->dim, args->dim, &gate);
    if (status != RP_OK)
        return status;
    status = read_in_place(emulation, site, args->y, args->dim);
    for (size_t i = 0; i < site->n_positions * args->dim && status == RP_OK; i++)
        args->y[i] *= round_inside(emulation, i / args->dim, rp_sigmoid(gate[i]), FUNCTION_ERROR,
                                   (double)args->y[i]);
    free(gate);
    return status;
}

/* HF rounds the sigmoid's argument, the sigmoid, its product with the gate, and up + 1. A tip of the sigmoid
 * is at least half a step of that product, which may move by one more: three times its worth. */
static float clamped(const struct rp_emulation *emulation, size_t p, float gate, float up)
{
    const enum rp_state state = emulation->numerics.state;
    const float x = rp_clamped_gate(gate), factor = rp_state_round(state, rp_clamped_up(up) + 1.0f);
    const float opened =
        round_inside(emulation, p, rp_sigmoid(rp_state_round(state, x * RP_CLAMPED_ALPHA)),
                     FUNCTION_ERROR, 3 * (double)x * (double)factor);
    return factor * rp_state_round(state, x * opened);
}

static float activated(const struct rp_emulation *emulation, size_t p,
                       enum rp_activation_function function, float gate, float up)
{
    if (function == RP_CLAMPED_SWISH)
        return clamped(emulation, p, gate, up);
    return up * round_inside(emulation, p,
                             function == RP_GELU_TANH ? rp_gelu_tanh(gate) : rp_silu(gate),
                             FUNCTION_ERROR, (double)up);
}

static enum rp_status ffn_activation(void *context, const struct rp_site *site,
                                     const struct rp_ffn_activation *args)
{
    const struct rp_emulation *emulation = context;
    float *gate = NULL, *up = NULL;
    enum rp_status status = read_copy(emulation, site, args->gate, args->dim, args->dim, &gate);
    if (status == RP_OK)
        status = read_copy(emulation, site, args->up, args->dim, args->dim, &up);
    for (size_t i = 0; i < site->n_positions * args->dim && status == RP_OK; i++)
        args->y[i] = activated(emulation, i / args->dim, args->function, gate[i], up[i]);
    free(gate);
    free(up);
    return status;
}

static enum rp_status residual_add(void *context, const struct rp_site *site,
                                   const struct rp_residual_add *args)
{
    const struct rp_emulation *emulation = context;
    const struct rp_ops *below = emulation->overlay.below;
    struct rp_residual_add rounded = *args;
    float *branch;
    enum rp_status status = read_copy(emulation, site, args->branch, args->dim, args->dim, &branch);
    if (status != RP_OK)
        return status;
    rounded.branch = branch;
    status = read_in_place(emulation, site, args->hidden, args->dim);
    if (status == RP_OK)
        status = below->residual_add(below->context, site, &rounded);
    free(branch);
    return status;
}

/* ---- gated DeltaNet: its decay and its rule are FP32 ---- */

/* The sum is rounded before SiLU. Its few terms may cancel: noise is that of the row's usual size, as in
 * causal_conv1d.c. SiLU's slope is at most 1.1. */
static enum rp_status causal_conv1d(void *context, const struct rp_site *site,
                                    const struct rp_causal_conv1d *args)
{
    const struct rp_emulation *emulation = context;
    const struct rp_ops *below = emulation->overlay.below;
    const size_t width = args->n_channels;
    struct rp_causal_conv1d rounded = *args;
    float *x, *weight = NULL;
    enum rp_status status = read_copy(emulation, site, args->x, width, width, &x);
    if (status == RP_OK)
        status = rp_state_weights(emulation, site, args->weight, width, args->kernel, &weight);
    rounded.x = x;
    rounded.weight = weight;
    rounded.has_silu = false;
    if (status == RP_OK)
        status = below->causal_conv1d(below->context, site, &rounded);
    for (size_t p = 0; p < site->n_positions && status == RP_OK && args->has_silu; p++) {
        float *y = args->y + p * width;
        double square = 0;
        for (size_t i = 0; i < width; i++)
            square += (double)y[i] * (double)y[i];
        const double size = sqrt(square / (double)width);
        for (size_t i = 0; i < width; i++) {
            const double noise = RP_UNIT_ROUNDOFF * (2 * fabs((double)y[i]) + 0.5 * size);
            add_tip(emulation, p, 1.1 * rp_state_tip(emulation->numerics.state, y[i], noise));
            y[i] = rp_silu(rp_state_round(emulation->numerics.state, y[i]));
        }
    }
    free(weight);
    free(x);
    return status;
}

static enum rp_status delta_decay(void *context, const struct rp_site *site,
                                  const struct rp_delta_decay *args)
{
    const struct rp_emulation *emulation = context;
    const struct rp_ops *below = emulation->overlay.below;
    const enum rp_status status = read_in_place(emulation, site, args->y, args->n_heads);
    return status == RP_OK ? below->delta_decay(below->context, site, args) : status;
}

static enum rp_status delta_beta(void *context, const struct rp_site *site,
                                 const struct rp_delta_beta *args)
{
    const struct rp_emulation *emulation = context;
    const struct rp_ops *below = emulation->overlay.below;
    const enum rp_status status = read_in_place(emulation, site, args->y, args->n_heads);
    return status == RP_OK ? below->delta_beta(below->context, site, args) : status;
}

/* V and beta were rounded; Q and K come from the L2 norm. */
static enum rp_status delta_rule(void *context, const struct rp_site *site,
                                 const struct rp_delta_rule *args)
{
    const struct rp_emulation *emulation = context;
    const struct rp_ops *below = emulation->overlay.below;
    const size_t k_dim = args->n_k_heads * args->head_dim, v_dim = args->n_v_heads * args->head_dim;
    const size_t width = 2 * k_dim + v_dim;
    struct rp_delta_rule rounded = *args;
    float *v = NULL, *beta = NULL, *qkv = NULL;
    enum rp_status status = read_copy(emulation, site, args->v, v_dim, args->qkv_stride, &v);
    if (status == RP_OK)
        status = read_copy(emulation, site, args->beta, args->n_v_heads, args->n_v_heads, &beta);
    if (status == RP_OK) {
        qkv = malloc((site->n_positions * width + 1) * sizeof *qkv);
        if (!qkv)
            status = rp_fail(site->err, RP_ERR_MEMORY, NULL, -1,
                             "no memory for %zu rows of %zu values", site->n_positions, width);
    }
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        float *row = qkv + p * width;
        memcpy(row, args->q + p * args->qkv_stride, k_dim * sizeof *row);
        memcpy(row + k_dim, args->k + p * args->qkv_stride, k_dim * sizeof *row);
        memcpy(row + 2 * k_dim, v + p * v_dim, v_dim * sizeof *row);
    }
    if (status == RP_OK) {
        rounded.q = qkv;
        rounded.k = qkv + k_dim;
        rounded.v = qkv + 2 * k_dim;
        rounded.qkv_stride = width;
        rounded.beta = beta;
        status = below->delta_rule(below->context, site, &rounded);
    }
    free(v);
    free(beta);
    free(qkv);
    return status;
}

/* ---- experts: the router's scores are FP32 ---- */

static enum rp_status choose_experts(void *context, const struct rp_site *site,
                                     const struct rp_choose_experts *args)
{
    const struct rp_emulation *emulation = context;
    const struct rp_ops *below = emulation->overlay.below;
    const size_t n = args->router->n_experts;
    struct rp_choose_experts read = *args;
    float *logits;
    enum rp_status status = read_copy(emulation, site, args->logits, n, n, &logits);
    read.logits = logits;
    if (status == RP_OK)
        status = below->choose_experts(below->context, site, &read);
    free(logits);
    return status;
}

static enum rp_status weigh_experts(void *context, const struct rp_site *site,
                                    const struct rp_weigh_experts *args)
{
    const struct rp_emulation *emulation = context;
    const struct rp_ops *below = emulation->overlay.below;
    const size_t n = args->router->n_experts;
    struct rp_weigh_experts read = *args;
    float *logits;
    enum rp_status status = read_copy(emulation, site, args->logits, n, n, &logits);
    read.logits = logits;
    if (status == RP_OK)
        status = below->weigh_experts(below->context, site, &read);
    free(logits);
    return status;
}

/* Each product is rounded, and the sum after each; the last one is the output. */
static enum rp_status sum_experts(void *context, const struct rp_site *site,
                                  const struct rp_sum_experts *args)
{
    const struct rp_emulation *emulation = context;
    const size_t dim = args->dim, n = args->n_chosen;
    float *x = NULL, *weights = NULL;
    enum rp_status status = read_copy(emulation, site, args->x, n * dim, n * dim, &x);
    if (status == RP_OK)
        status = read_copy(emulation, site, args->weights, n, n, &weights);
    for (size_t i = 0; i < site->n_positions * dim && status == RP_OK; i++) {
        const size_t p = i / dim;
        float sum = 0;
        for (size_t k = 0; k < n; k++) {
            const float product = weights[p * n + k] * x[(p * n + k) * dim + i % dim];
            sum += round_inside(emulation, p, product, RP_UNIT_ROUNDOFF, 1);
            if (k + 1 < n)
                sum = round_inside(emulation, p, sum, RP_UNIT_ROUNDOFF, 1);
        }
        args->y[i] = sum;
    }
    free(x);
    free(weights);
    return status;
}

static enum rp_status add_shared_expert(void *context, const struct rp_site *site,
                                        const struct rp_add_shared_expert *args)
{
    const struct rp_emulation *emulation = context;
    const size_t dim = args->dim;
    float *shared = NULL, *gate = NULL;
    enum rp_status status = read_copy(emulation, site, args->shared, dim, dim, &shared);
    if (status == RP_OK && args->gate)
        status = read_copy(emulation, site, args->gate, 1, 1, &gate);
    if (status == RP_OK)
        status = read_in_place(emulation, site, args->y, dim);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        const float factor =
            gate ? rp_state_round(emulation->numerics.state, rp_sigmoid(gate[p])) : 1.0f;
        for (size_t i = p * dim; i < (p + 1) * dim; i++)
            args->y[i] += round_inside(emulation, p, factor * shared[i], FUNCTION_ERROR, 1);
    }
    free(shared);
    free(gate);
    return status;
}

void rp_state_open(struct rp_emulation *emulation)
{
    struct rp_ops *ops = &emulation->overlay.ops;
    ops->rms_norm = rms_norm;
    ops->gated_norm = gated_norm;
    ops->l2_norm = l2_norm;
    ops->rope = rope;
    ops->attention_gate = attention_gate;
    ops->ffn_activation = ffn_activation;
    ops->residual_add = residual_add;
    ops->causal_conv1d = causal_conv1d;
    ops->delta_decay = delta_decay;
    ops->delta_beta = delta_beta;
    ops->delta_rule = delta_rule;
    ops->choose_experts = choose_experts;
    ops->weigh_experts = weigh_experts;
    ops->sum_experts = sum_experts;
    ops->add_shared_expert = add_shared_expert;
}
