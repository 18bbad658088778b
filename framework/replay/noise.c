/* See replay/noise.h. */
#include "replay/noise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "operations/attention_bound.h"
#include "operations/operations.h"
#include "refparity/metrics.h"

/* Plus or minus 1: every source of error is drawn at its full size. Where a single one decides (one
 * activation that outweighs its row), a few runs could otherwise all miss it. */
static double sign_of(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 63 ? 1.0 : -1.0;
}

/* What rounding to the state inside the operation may have moved row p by. */
static double tipped(const struct rp_noise *noise, size_t p)
{
    return p < noise->capacity ? sqrt(noise->tips[p]) : 0;
}

/* Of the operation that has just run: y [n_positions][dim], rows stride apart. sigma [n_positions][dim];
 * tips [n_positions]: what is rounded inside may tip, an upper limit; NULL: nothing is, but to the
 * state. */
static void take(struct rp_noise *noise, const struct rp_site *site, float *y, size_t dim,
                 size_t stride, const float *sigma, const double *tips)
{
    for (size_t p = 0; p < site->n_positions; p++) {
        const double limit = (tips ? tips[p] : 0) + tipped(noise, p);
        const double each = dim > 0 ? limit / RP_BOUND_SIGMAS / sqrt((double)dim) : 0;
        for (size_t i = 0; i < dim && noise->draws; i++)
            y[p * stride + i] =
                (float)((double)y[p * stride + i] +
                        hypot((double)sigma[p * dim + i], each) * sign_of(&noise->seed));
        if (!noise->draws && p < noise->capacity)
            noise->bound[p] = RP_BOUND_SIGMAS * rp_metrics_norm(sigma + p * dim, dim) + limit;
    }
}

/* What is rounded to the state inside the operation that is about to run is counted from here on. */
static void begin(struct rp_noise *noise)
{
    memset(noise->tips, 0, noise->capacity * sizeof *noise->tips);
}

static float *new_sigma(const struct rp_site *site, size_t dim)
{
    if (dim > 0 && site->n_positions > SIZE_MAX / sizeof(float) / dim)
        return NULL;
    return malloc((site->n_positions * dim + 1) * sizeof(float));
}

static enum rp_status no_memory(const struct rp_site *site)
{
    return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for the bounds of %zu positions",
                   site->n_positions);
}

/* clang-format off */
#define NOISY(operation, y, width, stride)                                                        \
    static enum rp_status noisy_##operation(void *context, const struct rp_site *site,            \
                                            const struct rp_##operation *args)                    \
    {                                                                                             \
        struct rp_noise *noise = context;                                                         \
        const struct rp_ops *below = noise->overlay.below;                                        \
        const size_t dim = width;                                                                 \
        begin(noise);                                                                             \
        enum rp_status status = below->operation(below->context, site, args);                     \
        float *sigma = new_sigma(site, dim);                                                      \
        if (status == RP_OK && !sigma)                                                            \
            status = no_memory(site);                                                             \
        if (status == RP_OK)                                                                      \
            status = rp_sigma_##operation(site, args, sigma);                                     \
        if (status == RP_OK)                                                                      \
            take(noise, site, y, dim, stride, sigma, NULL);                                       \
        free(sigma);                                                                              \
        return status;                                                                            \
    }

NOISY(rms_norm, args->y, site->n_positions ? args->n_rows / site->n_positions * args->dim : 0, dim)
NOISY(linear, args->y, args->n_out, args->y_stride)
NOISY(head_linear, args->y, args->n_heads * args->n_out, dim)
NOISY(rope, args->x, args->n_heads * args->head_dim, dim)
NOISY(attention_gate, args->y, args->dim, dim)
NOISY(causal_conv1d, args->y, args->n_channels, dim)
NOISY(delta_decay, args->y, args->n_heads, dim)
NOISY(delta_beta, args->y, args->n_heads, dim)
NOISY(gated_norm, args->y, site->n_positions ? args->n_rows / site->n_positions * args->dim : 0, dim)
NOISY(ffn_activation, args->y, args->dim, dim)
NOISY(residual_add, args->hidden, args->dim, dim)
NOISY(weigh_experts, args->weights, args->router->n_chosen, dim)
NOISY(sum_experts, args->y, args->dim, dim)
NOISY(add_shared_expert, args->y, args->dim, dim)
/* clang-format on */

/* Of an expert's product: norm [n_positions], of the rows that go to it. */
static enum rp_status take_expert(struct rp_noise *noise, const struct rp_site *site,
                                  const struct rp_expert_rows *rows, const double *norm)
{
    if (!noise->of_experts)
        noise->of_experts = calloc(noise->capacity * rows->n_chosen + 1, sizeof(double));
    if (!noise->of_experts)
        return no_memory(site);
    if (rows->is_first) {
        memset(noise->bound, 0, noise->capacity * sizeof *noise->bound);
        memset(noise->of_experts, 0, noise->capacity * rows->n_chosen * sizeof *noise->of_experts);
    }
    for (size_t i = 0; i < site->n_positions; i++) {
        const size_t p = rows->at[i] / rows->n_chosen;
        if (p >= noise->capacity)
            continue;
        noise->of_experts[rows->at[i]] = RP_BOUND_SIGMAS * norm[i] + tipped(noise, i);
        noise->bound[p] = hypot(noise->bound[p], noise->of_experts[rows->at[i]]);
    }
    return RP_OK;
}

/* The products that it sums have no slot of their own: their bounds are in the sum's. */
static enum rp_status noisy_or_bounded_sum_experts(void *context, const struct rp_site *site,
                                                   const struct rp_sum_experts *args)
{
    struct rp_noise *noise = context;
    const enum rp_status status = noisy_sum_experts(context, site, args);
    for (size_t p = 0; p < site->n_positions && p < noise->capacity && status == RP_OK; p++) {
        for (size_t k = 0; k < args->n_chosen && noise->of_experts && !noise->draws; k++) {
            const size_t at = p * args->n_chosen + k;
            noise->bound[p] =
                hypot(noise->bound[p], (double)args->weights[at] * noise->of_experts[at]);
        }
    }
    return status;
}

/* Where nothing is drawn, the bound needs no more than the rows' norms. */
static enum rp_status noisy_or_bounded_linear(void *context, const struct rp_site *site,
                                              const struct rp_linear *args)
{
    struct rp_noise *noise = context;
    const struct rp_ops *below = noise->overlay.below;
    if (noise->draws)
        return noisy_linear(context, site, args);
    begin(noise);
    enum rp_status status = below->linear(below->context, site, args);
    double *norm = malloc((site->n_positions + 1) * sizeof *norm);
    if (status == RP_OK && !norm)
        status = no_memory(site);
    if (status == RP_OK)
        status = rp_sigma_norm_linear(site, args, norm);
    if (status == RP_OK && args->expert)
        status = take_expert(noise, site, args->expert, norm);
    for (size_t p = 0; p < site->n_positions && p < noise->capacity && status == RP_OK; p++)
        if (!args->expert)
            noise->bound[p] = RP_BOUND_SIGMAS * norm[p] + tipped(noise, p);
    free(norm);
    return status;
}

/* Attention's bound asks which of the cache's roundings may tip. */
static enum rp_status noisy_kv_store(void *context, const struct rp_site *site,
                                     const struct rp_kv_store *args)
{
    struct rp_noise *noise = context;
    const struct rp_ops *below = noise->overlay.below;
    noise->k = args->k;
    noise->v = args->v;
    noise->n_stored = site->n_positions;
    return below->kv_store(below->context, site, args);
}

static enum rp_status noisy_attention(void *context, const struct rp_site *site,
                                      const struct rp_attention *args)
{
    struct rp_noise *noise = context;
    const struct rp_ops *below = noise->overlay.below;
    const size_t dim = args->n_heads * args->head_dim;
    begin(noise);
    enum rp_status status = below->attention(below->context, site, args);
    float *sigma = new_sigma(site, dim);
    double *tips = calloc(site->n_positions + 1, sizeof *tips);
    if (status == RP_OK && (!sigma || !tips))
        status = no_memory(site);
    if (status == RP_OK && noise->n_stored != args->n_keys)
        status = rp_fail(site->err, RP_ERR_ARGUMENT, NULL, -1,
                         "attention's bound needs all %zu keys in one call, not %zu", args->n_keys,
                         noise->n_stored);
    if (status == RP_OK)
        status = rp_attention_bound(noise->numerics, site, args, noise->k, noise->v, sigma, tips);
    if (status == RP_OK)
        take(noise, site, args->y, dim, dim, sigma, tips);
    free(sigma);
    free(tips);
    return status;
}

/* Its bound runs the rule again, from the state before it. */
static enum rp_status noisy_delta_rule(void *context, const struct rp_site *site,
                                       const struct rp_delta_rule *args)
{
    struct rp_noise *noise = context;
    const struct rp_ops *below = noise->overlay.below;
    const size_t dim = args->n_v_heads * args->head_dim, n_state = dim * args->head_dim;
    struct rp_delta_rule before = *args;
    enum rp_status status = RP_OK;
    begin(noise);
    float *sigma = new_sigma(site, dim);
    before.state = calloc(n_state + 1, sizeof *before.state);
    if (!sigma || !before.state)
        status = no_memory(site);
    if (status == RP_OK) {
        memcpy(before.state, args->state, n_state * sizeof *before.state);
        status = below->delta_rule(below->context, site, args);
    }
    if (status == RP_OK)
        status = rp_sigma_delta_rule(site, &before, sigma);
    if (status == RP_OK)
        take(noise, site, args->y, dim, dim, sigma, NULL);
    free(before.state);
    free(sigma);
    return status;
}

enum rp_status rp_noise_open(struct rp_noise *noise, const struct rp_numerics *numerics,
                             const struct rp_ops *below, size_t n_positions, struct rp_error *err)
{
    *noise = (struct rp_noise){.numerics = numerics, .capacity = n_positions};
    noise->bound = calloc(n_positions + 1, sizeof *noise->bound);
    noise->tips = calloc(n_positions + 1, sizeof *noise->tips);
    if (!noise->bound || !noise->tips) {
        rp_noise_close(noise);
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for the bounds of %zu positions",
                       n_positions);
    }
    rp_overlay_open(&noise->overlay, below);
    noise->overlay.ops.rms_norm = noisy_rms_norm;
    noise->overlay.ops.linear = noisy_or_bounded_linear;
    noise->overlay.ops.head_linear = noisy_head_linear;
    noise->overlay.ops.rope = noisy_rope;
    noise->overlay.ops.kv_store = noisy_kv_store;
    noise->overlay.ops.attention = noisy_attention;
    noise->overlay.ops.attention_gate = noisy_attention_gate;
    noise->overlay.ops.causal_conv1d = noisy_causal_conv1d;
    noise->overlay.ops.delta_decay = noisy_delta_decay;
    noise->overlay.ops.delta_beta = noisy_delta_beta;
    noise->overlay.ops.delta_rule = noisy_delta_rule;
    noise->overlay.ops.gated_norm = noisy_gated_norm;
    noise->overlay.ops.ffn_activation = noisy_ffn_activation;
    noise->overlay.ops.weigh_experts = noisy_weigh_experts;
    noise->overlay.ops.sum_experts = noisy_or_bounded_sum_experts;
    noise->overlay.ops.add_shared_expert = noisy_add_shared_expert;
    noise->overlay.ops.residual_add = noisy_residual_add;
    return RP_OK;
}

void rp_noise_close(struct rp_noise *noise)
{
    free(noise->bound);
    free(noise->tips);
    free(noise->of_experts);
    *noise = (struct rp_noise){.bound = NULL};
}
