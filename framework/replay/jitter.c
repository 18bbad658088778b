/* See replay/jitter.h. How far each operation is moved, and why, is in replay/README.md. */
#include "replay/jitter.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define U RP_UNIT_ROUNDOFF
/* A running sum of n terms is rounded n times, each time by 0.42 u of what it has come to. Terms of
 * random sign bring it to sqrt(k) of their size, terms of one sign to k: 0.3 sqrt(n) u of a sum's usual
 * size, and 0.24 sqrt(n) u of the sum itself; with one large term early, 0.42 sqrt(n) u. */
#define SUM_ERROR 0.42
#define ALIGNED 0.33          /* of the square: n terms of one sign */
#define ATTENTION_STEP 0.0625 /* of the difference quotient over Q */

static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Plus or minus 1: every source of error is drawn at its full size. Where a single one decides (one
 * activation that outweighs its row), three runs could otherwise all miss it. */
static double sign_of(uint64_t bits)
{
    return (bits & 1) ? 1.0 : -1.0;
}

static double draw(struct rp_jitter *jitter)
{
    if (jitter->n_bits == 0) {
        jitter->state += 0x9e3779b97f4a7c15u;
        jitter->bits = mix(jitter->state);
        jitter->n_bits = 64;
    }
    jitter->n_bits--;
    jitter->bits = jitter->bits >> 1 | jitter->bits << 63;
    return sign_of(jitter->bits);
}

static void scale_each(struct rp_jitter *jitter, float *y, size_t n, double sigma)
{
    for (size_t i = 0; i < n; i++)
        y[i] = (float)((double)y[i] * (1.0 + sigma * draw(jitter)));
}

static double rms(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return n ? sqrt(sum / (double)n) : 0;
}

static enum rp_status no_memory(const struct rp_site *site)
{
    return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for the floor's run");
}

/* ---- matrix products ---- */

void rp_product_profile_free(struct rp_product_profile *profile)
{
    free(profile->column_square);
    free(profile->row_share);
    *profile = (struct rp_product_profile){.weight = NULL};
}

enum rp_status rp_product_profile_make(struct rp_product_profile *profile,
                                       const struct rp_linear *args, struct rp_error *err)
{
    double all = 0;
    float *column_square = calloc(args->n_in + 1, sizeof *column_square);
    float *row_share = calloc(args->n_out + 1, sizeof *row_share);
    if (!column_square || !row_share) {
        free(column_square);
        free(row_share);
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for a product's profile");
    }
    const float per_row = args->n_out > 0 ? 1.0f / (float)args->n_out : 0.0f;
    for (size_t row = 0; row < args->n_out; row++) {
        const float *w = args->weight + row * args->n_in;
        float sums[4] = {0};
        size_t i = 0;
        for (; i + 4 <= args->n_in; i += 4) {
            for (size_t k = 0; k < 4; k++) {
                const float square = w[i + k] * w[i + k];
                sums[k] += square;
                column_square[i + k] += square * per_row;
            }
        }
        for (; i < args->n_in; i++) {
            sums[0] += w[i] * w[i];
            column_square[i] += w[i] * w[i] * per_row;
        }
        row_share[row] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        all += (double)row_share[row];
    }
    const double mean = all * (double)per_row;
    for (size_t row = 0; row < args->n_out; row++)
        row_share[row] = mean > 0 ? (float)sqrt((double)row_share[row] / mean) : 0.0f;
    *profile = (struct rp_product_profile){args->weight, column_square, row_share};
    return RP_OK;
}

double rp_product_size(const struct rp_product_profile *profile, const float *x, size_t n_in)
{
    double square = 0;
    for (size_t i = 0; i < n_in; i++)
        square += (double)x[i] * (double)x[i] * (double)profile->column_square[i];
    return sqrt(square);
}

double rp_product_error(const struct rp_product_profile *profile, double size, size_t n_in,
                        size_t i, float y)
{
    const double usual = size * (double)profile->row_share[i];
    const double square = usual * usual + ALIGNED * (double)y * (double)y;
    return U * (SUM_ERROR * sqrt((double)n_in * square) + fabs((double)y));
}

static enum rp_status linear(void *context, const struct rp_site *site,
                             const struct rp_linear *args)
{
    struct rp_jitter *jitter = context;
    const struct rp_ops *below = jitter->overlay.below;
    struct rp_product_profile own = {.weight = NULL};
    struct rp_product_profile *profile =
        args->which < RP_N_LAYER_WEIGHTS ? &jitter->profiles[args->which] : &own;
    enum rp_status status = below->linear(below->context, site, args);
    if (status == RP_OK &&
        (!profile->column_square || !profile->row_share || profile->weight != args->weight)) {
        rp_product_profile_free(profile);
        status = rp_product_profile_make(profile, args, site->err);
    }
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        const float *x = args->x + p * args->n_in;
        float *y = args->y + p * args->y_stride;
        const double size = rp_product_size(profile, x, args->n_in);
        for (size_t i = 0; i < args->n_out; i++)
            y[i] = (float)((double)y[i] +
                           rp_product_error(profile, size, args->n_in, i, y[i]) * draw(jitter));
    }
    rp_product_profile_free(&own);
    return status;
}

/* ---- norms ---- */

/* The sum of squares errs by SUM_ERROR / 2 u sqrt(n), and the root halves it; division, root and
 * rounding of the mean add the rest. */
double rp_norm_error(size_t dim)
{
    return U * (1.5 + SUM_ERROR / 4 * sqrt((double)dim));
}

static void jitter_normed(struct rp_jitter *jitter, float *y, size_t dim, double elementwise)
{
    const double factor = 1.0 + draw(jitter) * rp_norm_error(dim);
    for (size_t i = 0; i < dim; i++)
        y[i] = (float)((double)y[i] * (factor + elementwise * draw(jitter)));
}

static enum rp_status rms_norm(void *context, const struct rp_site *site,
                               const struct rp_rms_norm *args)
{
    struct rp_jitter *jitter = context;
    const struct rp_ops *below = jitter->overlay.below;
    enum rp_status status = below->rms_norm(below->context, site, args);
    for (size_t row = 0; row < args->n_rows && status == RP_OK; row++)
        jitter_normed(jitter, args->y + row * args->dim, args->dim, U);
    return status;
}

static enum rp_status l2_norm(void *context, const struct rp_site *site,
                              const struct rp_l2_norm *args)
{
    struct rp_jitter *jitter = context;
    const struct rp_ops *below = jitter->overlay.below;
    enum rp_status status = below->l2_norm(below->context, site, args);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        for (size_t head = 0; head < args->n_heads; head++)
            jitter_normed(jitter, args->x + p * args->x_stride + head * args->head_dim,
                          args->head_dim, U);
    }
    return status;
}

static enum rp_status gated_norm(void *context, const struct rp_site *site,
                                 const struct rp_gated_norm *args)
{
    struct rp_jitter *jitter = context;
    const struct rp_ops *below = jitter->overlay.below;
    enum rp_status status = below->gated_norm(below->context, site, args);
    for (size_t row = 0; row < args->n_rows && status == RP_OK; row++)
        jitter_normed(jitter, args->y + row * args->dim, args->dim, 2 * U);
    return status;
}

/* ---- attention ---- */

/* Frequencies made by repeated multiplication drift by half u per step, the same at every position;
 * the angle itself is rounded at each position. Q and K of a position share both. */
static double rope_angle_error(const struct rp_jitter *jitter, const struct rp_rope *args, size_t i,
                               size_t p)
{
    double frequency = pow((double)args->theta, -2.0 * (double)i / (double)args->n_rot);
    if (args->freq_factors)
        frequency /= (double)args->freq_factors[i];
    const uint64_t pair = mix(jitter->seed ^ (0x9e3779b97f4a7c15u * (i + 1)));
    const double drift = U * sign_of(pair) * (1.0 + 0.5 * (double)i);
    const double rounding = 0.6 * U * sign_of(mix(pair + (uint64_t)args->positions[p] + 1));
    return (double)args->positions[p] * frequency * (drift + rounding);
}

static enum rp_status rope(void *context, const struct rp_site *site, const struct rp_rope *args)
{
    struct rp_jitter *jitter = context;
    const struct rp_ops *below = jitter->overlay.below;
    const size_t dim = args->n_heads * args->head_dim;
    const bool is_neox = args->ordering == RP_ROPE_NEOX;
    enum rp_status status = below->rope(below->context, site, args);
    if (status != RP_OK)
        return status;
    for (size_t i = 0; i < args->n_rot / 2; i++) {
        const size_t first = is_neox ? i : 2 * i,
                     second = is_neox ? i + args->n_rot / 2 : 2 * i + 1;
        for (size_t p = 0; p < site->n_positions; p++) {
            const double angle = rope_angle_error(jitter, args, i, p);
            for (size_t head = 0; head < args->n_heads; head++) {
                float *x = args->x + p * dim + head * args->head_dim;
                const double a = (double)x[first], b = (double)x[second];
                x[first] = (float)(a - b * angle + U * a * draw(jitter));
                x[second] = (float)(b + a * angle + U * b * draw(jitter));
            }
        }
    }
    return RP_OK;
}

static size_t count_visible(const struct rp_attention *args, int64_t position)
{
    size_t n = 0;
    while (n < args->n_keys && (!args->is_causal || args->key_positions[n] <= position))
        n++;
    return n;
}

/* A score is a sum of head_dim products. Its error reaches the output as that of a Q whose values
 * are off by SUM_ERROR sqrt(head_dim) u each: taken from a difference quotient, as a step of that
 * size would vanish where Q is rounded below. The sum over the values, the exponentials and what
 * numerics leave open are added to each head's row. */
static enum rp_status attention(void *context, const struct rp_site *site,
                                const struct rp_attention *args)
{
    struct rp_jitter *jitter = context;
    const struct rp_ops *below = jitter->overlay.below;
    const size_t width = args->n_heads * args->head_dim, n = site->n_positions * width;
    const double share = SUM_ERROR * sqrt((double)args->head_dim) * U / ATTENTION_STEP;
    struct rp_attention moved = *args;
    float *q = calloc(2 * n + 1, sizeof *q);
    if (!q)
        return no_memory(site);
    for (size_t i = 0; i < n; i++)
        q[i] = (float)((double)args->q[i] * (1.0 + ATTENTION_STEP * draw(jitter)));
    moved.q = q;
    moved.y = q + n;
    enum rp_status status = below->attention(below->context, site, &moved);
    if (status == RP_OK)
        status = below->attention(below->context, site, args);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        const size_t n_visible = count_visible(args, site->positions[p]);
        const double visible = (double)n_visible;
        const double slack = rp_numerics_attention_slack(jitter->numerics, site, p, n_visible);
        for (size_t head = 0; head < args->n_heads; head++) {
            const size_t at = p * width + head * args->head_dim;
            const double sigma =
                (U * (2.0 + SUM_ERROR * sqrt(visible)) + slack) * rms(args->y + at, args->head_dim);
            for (size_t i = at; i < at + args->head_dim; i++) {
                const double y = (double)args->y[i];
                args->y[i] = (float)(y + share * ((double)moved.y[i] - y) + sigma * draw(jitter));
            }
        }
    }
    free(q);
    return status;
}

static enum rp_status attention_gate(void *context, const struct rp_site *site,
                                     const struct rp_attention_gate *args)
{
    struct rp_jitter *jitter = context;
    const struct rp_ops *below = jitter->overlay.below;
    enum rp_status status = below->attention_gate(below->context, site, args);
    if (status == RP_OK)
        scale_each(jitter, args->y, site->n_positions * args->dim, 2 * U);
    return status;
}

/* ---- the gated DeltaNet ---- */

static enum rp_status causal_conv1d(void *context, const struct rp_site *site,
                                    const struct rp_causal_conv1d *args)
{
    struct rp_jitter *jitter = context;
    const struct rp_ops *below = jitter->overlay.below;
    enum rp_status status = below->causal_conv1d(below->context, site, args);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        float *y = args->y + p * args->n_channels;
        const double size = rms(y, args->n_channels);
        for (size_t i = 0; i < args->n_channels; i++)
            y[i] = (float)((double)y[i] + U * (2 * fabs((double)y[i]) + 0.5 * size) * draw(jitter));
    }
    return status;
}

/* Engines that work in chunks take the decay as the difference of running sums over up to 64
 * positions. */
static enum rp_status delta_decay(void *context, const struct rp_site *site,
                                  const struct rp_delta_decay *args)
{
    struct rp_jitter *jitter = context;
    const struct rp_ops *below = jitter->overlay.below;
    enum rp_status status = below->delta_decay(below->context, site, args);
    for (size_t i = 0; i < site->n_positions * args->n_heads && status == RP_OK; i++) {
        const double size = 2.0 + 8.0 * fmin(fabs((double)args->y[i]), 80.0);
        args->y[i] = (float)((double)args->y[i] + U * size * draw(jitter));
    }
    return status;
}

static enum rp_status delta_beta(void *context, const struct rp_site *site,
                                 const struct rp_delta_beta *args)
{
    struct rp_jitter *jitter = context;
    const struct rp_ops *below = jitter->overlay.below;
    enum rp_status status = below->delta_beta(below->context, site, args);
    if (status == RP_OK)
        scale_each(jitter, args->y, site->n_positions * args->n_heads, 2 * U);
    return status;
}

static enum rp_status delta_rule(void *context, const struct rp_site *site,
                                 const struct rp_delta_rule *args)
{
    struct rp_jitter *jitter = context;
    const struct rp_ops *below = jitter->overlay.below;
    const size_t k_dim = args->n_k_heads * args->head_dim, v_dim = args->n_v_heads * args->head_dim;
    const size_t stride = 2 * k_dim + v_dim;
    const double sum = U * (1.0 + SUM_ERROR * sqrt((double)args->head_dim));
    struct rp_delta_rule moved = *args;
    float *qkv = calloc(site->n_positions * stride + 1, sizeof *qkv);
    if (!qkv)
        return no_memory(site);
    for (size_t p = 0; p < site->n_positions; p++) {
        float *row = qkv + p * stride;
        memcpy(row, args->q + p * args->qkv_stride, k_dim * sizeof *row);
        memcpy(row + k_dim, args->k + p * args->qkv_stride, k_dim * sizeof *row);
        memcpy(row + 2 * k_dim, args->v + p * args->qkv_stride, v_dim * sizeof *row);
        scale_each(jitter, row, 2 * k_dim, sum);
        scale_each(jitter, row + 2 * k_dim, v_dim, 2 * U);
    }
    moved.q = qkv;
    moved.k = qkv + k_dim;
    moved.v = qkv + 2 * k_dim;
    moved.qkv_stride = stride;
    enum rp_status status = below->delta_rule(below->context, site, &moved);
    if (status == RP_OK)
        scale_each(jitter, args->y, site->n_positions * v_dim, 2 * U);
    free(qkv);
    return status;
}

/* ---- the rest ---- */

static enum rp_status ffn_activation(void *context, const struct rp_site *site,
                                     const struct rp_ffn_activation *args)
{
    struct rp_jitter *jitter = context;
    const struct rp_ops *below = jitter->overlay.below;
    enum rp_status status = below->ffn_activation(below->context, site, args);
    if (status == RP_OK)
        scale_each(jitter, args->y, site->n_positions * args->dim, 2 * U);
    return status;
}

static enum rp_status residual_add(void *context, const struct rp_site *site,
                                   const struct rp_residual_add *args)
{
    struct rp_jitter *jitter = context;
    const struct rp_ops *below = jitter->overlay.below;
    enum rp_status status = below->residual_add(below->context, site, args);
    if (status == RP_OK)
        scale_each(jitter, args->hidden, site->n_positions * args->dim, 0.5 * U);
    return status;
}

void rp_jitter_begin(struct rp_jitter *jitter, uint64_t seed)
{
    jitter->seed = mix(seed + 1);
    jitter->state = jitter->seed;
    jitter->n_bits = 0;
}

void rp_jitter_open(struct rp_jitter *jitter, const struct rp_numerics *numerics,
                    const struct rp_ops *below)
{
    *jitter = (struct rp_jitter){.numerics = numerics};
    rp_overlay_open(&jitter->overlay, below);
    jitter->overlay.ops.linear = linear;
    jitter->overlay.ops.rms_norm = rms_norm;
    jitter->overlay.ops.l2_norm = l2_norm;
    jitter->overlay.ops.gated_norm = gated_norm;
    jitter->overlay.ops.rope = rope;
    jitter->overlay.ops.attention = attention;
    jitter->overlay.ops.attention_gate = attention_gate;
    jitter->overlay.ops.causal_conv1d = causal_conv1d;
    jitter->overlay.ops.delta_decay = delta_decay;
    jitter->overlay.ops.delta_beta = delta_beta;
    jitter->overlay.ops.delta_rule = delta_rule;
    jitter->overlay.ops.ffn_activation = ffn_activation;
    jitter->overlay.ops.residual_add = residual_add;
    rp_jitter_begin(jitter, 0);
}

void rp_jitter_close(struct rp_jitter *jitter)
{
    for (size_t i = 0; i < RP_N_LAYER_WEIGHTS; i++)
        rp_product_profile_free(&jitter->profiles[i]);
}
