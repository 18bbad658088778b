/* See variants.h. Written apart from the C model's operations, as another engine's would be. */
#include "variants.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 8 /* positions of the chunked delta rule */

static const struct rp_variant *variant_of(const void *context)
{
    return ((const struct rp_variant_site *)context)->variant;
}

static float dot_forward(const float *a, const float *b, size_t n)
{
    float sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static float dot_pairwise(const float *a, const float *b, size_t n)
{
    if (n <= 2)
        return dot_forward(a, b, n);
    return dot_pairwise(a, b, n / 2) + dot_pairwise(a + n / 2, b + n / 2, n - n / 2);
}

static float dot(enum rp_sum_order order, const float *a, const float *b, size_t n)
{
    float sum = 0;
    double sum_double = 0;
    switch (order) {
    case RP_SUM_AS_MODEL:
    case RP_SUM_FORWARD: return dot_forward(a, b, n);
    case RP_SUM_BACKWARD:
        for (size_t i = n; i-- > 0;)
            sum += a[i] * b[i];
        return sum;
    case RP_SUM_PAIRWISE: return dot_pairwise(a, b, n);
    case RP_SUM_BLOCKS:
        for (size_t i = 0; i < n; i += 32)
            sum += dot_forward(a + i, b + i, n - i < 32 ? n - i : 32);
        return sum;
    case RP_SUM_DOUBLE:
        for (size_t i = 0; i < n; i++)
            sum_double += (double)a[i] * (double)b[i];
        return (float)sum_double;
    case RP_SUM_FMA:
        for (size_t i = 0; i < n; i++)
            sum = fmaf(a[i], b[i], sum);
        return sum;
    }
    return sum;
}

/* exp(x) by ln 2 in two parts and a polynomial: within 2 units in the last place. */
static float polynomial_exp(float x)
{
    if (x < -87.0f)
        return 0;
    float n = nearbyintf(x * 1.44269504f);
    float r = fmaf(n, -0.693359375f, x);
    r = fmaf(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return ldexpf(p * r * r + r + 1.0f, (int)n);
}

static float exp_of(const struct rp_variant *variant, float x)
{
    return variant->has_own_exp && x < 88.0f ? polynomial_exp(x) : expf(x);
}

static float silu(const struct rp_variant *variant, float x)
{
    return x / (1.0f + exp_of(variant, -x));
}

static float gelu(float x)
{
    return 0.5f * x * (1.0f + tanhf(0.797884561f * x * (1.0f + 0.044715f * x * x)));
}

static enum rp_status linear(void *context, const struct rp_site *site,
                             const struct rp_linear *args)
{
    enum rp_sum_order order = variant_of(context)->order;
    for (size_t p = 0; p < site->n_positions; p++) {
        for (size_t out = 0; out < args->n_out; out++)
            args->y[p * args->y_stride + out] =
                dot(order, args->weight + out * args->n_in, args->x + p * args->n_in, args->n_in) +
                (args->bias ? args->bias[out] : 0.0f);
    }
    return RP_OK;
}

static enum rp_status rms_norm(void *context, const struct rp_site *site,
                               const struct rp_rms_norm *args)
{
    (void)site;
    enum rp_sum_order order = variant_of(context)->order;
    for (size_t row = 0; row < args->n_rows; row++) {
        const float *x = args->x + row * args->dim;
        float root = sqrtf(dot(order, x, x, args->dim) / (float)args->dim + args->eps);
        for (size_t i = 0; i < args->dim; i++)
            args->y[row * args->dim + i] = x[i] / root * args->weight[i];
    }
    return RP_OK;
}

static void angles_of(const struct rp_rope *args, enum rp_rope_angles how, size_t i,
                      int64_t position, float *cosine, float *sine)
{
    double factor = args->freq_factors ? (double)args->freq_factors[i] : 1.0;
    if (how == RP_ANGLES_DOUBLE) {
        double angle = (double)position *
                       pow((double)args->theta, -2.0 * (double)i / (double)args->n_rot) / factor;
        *cosine = (float)cos(angle);
        *sine = (float)sin(angle);
        return;
    }
    float step = powf(args->theta, -2.0f / (float)args->n_rot), angle = (float)position;
    for (size_t k = 0; k < i; k++)
        angle *= step;
    angle /= (float)factor;
    *cosine = cosf(angle);
    *sine = sinf(angle);
}

static enum rp_status rope(void *context, const struct rp_site *site, const struct rp_rope *args)
{
    const struct rp_variant *variant = variant_of(context);
    const bool is_neox = args->ordering == RP_ROPE_NEOX;
    for (size_t p = 0; p < site->n_positions; p++) {
        for (size_t i = 0; i < args->n_rot / 2; i++) {
            size_t first = is_neox ? i : 2 * i, second = is_neox ? i + args->n_rot / 2 : 2 * i + 1;
            float cosine, sine;
            angles_of(args, variant->angles, i, args->positions[p], &cosine, &sine);
            cosine *= args->attention_factor > 0 ? args->attention_factor : 1;
            sine *= args->attention_factor > 0 ? args->attention_factor : 1;
            for (size_t head = 0; head < args->n_heads; head++) {
                float *x = args->x + (p * args->n_heads + head) * args->head_dim;
                float a = x[first], b = x[second];
                x[first] = a * cosine - b * sine;
                x[second] = a * sine + b * cosine;
            }
        }
    }
    return RP_OK;
}

/* One query over n keys, all scores first. */
static void attend_plain(const struct rp_variant *variant, const struct rp_attention *args,
                         const float *q, const float *keys, const float *values, size_t n, float *y)
{
    const size_t dim = args->head_dim, width = args->n_kv_heads * dim;
    float max = -INFINITY, sum = 0;
    for (size_t key = 0; key < n; key++) {
        args->scores[key] = dot(variant->order, q, keys + key * width, dim) * args->scale;
        max = fmaxf(max, args->scores[key]);
    }
    memset(y, 0, dim * sizeof *y);
    for (size_t key = n; key-- > 0;) {
        float weight = exp_of(variant, args->scores[key] - max);
        sum += weight;
        for (size_t i = 0; i < dim; i++)
            y[i] += weight * values[key * width + i];
    }
    for (size_t i = 0; i < dim; i++)
        y[i] /= sum;
}

/* One query over n keys, one by one. */
static void attend_online(const struct rp_variant *variant, const struct rp_attention *args,
                          const float *q, const float *keys, const float *values, size_t n,
                          float *y)
{
    const size_t dim = args->head_dim, width = args->n_kv_heads * dim;
    float max = -INFINITY, sum = 0;
    memset(y, 0, dim * sizeof *y);
    for (size_t key = 0; key < n; key++) {
        float score = dot(variant->order, q, keys + key * width, dim) * args->scale;
        float rescale = 1, weight = 1;
        if (score > max) {
            rescale = exp_of(variant, max - score);
            max = score;
        } else {
            weight = exp_of(variant, score - max);
        }
        sum = sum * rescale + weight;
        for (size_t i = 0; i < dim; i++)
            y[i] = y[i] * rescale + weight * values[key * width + i];
    }
    for (size_t i = 0; i < dim; i++)
        y[i] *= 1.0f / sum;
}

static enum rp_status attention(void *context, const struct rp_site *site,
                                const struct rp_attention *args)
{
    const struct rp_variant *variant = variant_of(context);
    const size_t group = args->n_heads / args->n_kv_heads, dim = args->head_dim;
    size_t n = 0;
    for (size_t p = 0; p < site->n_positions; p++) {
        while (n < args->n_keys &&
               (!args->is_causal || args->key_positions[n] <= site->positions[p]))
            n++;
        size_t first = 0;
        while (args->window > 0 && first < n &&
               site->positions[p] - args->key_positions[first] >= (int64_t)args->window)
            first++;
        for (size_t head = 0; head < args->n_heads; head++) {
            size_t at = (p * args->n_heads + head) * dim,
                   kv_at = (first * args->n_kv_heads + head / group) * dim;
            (variant->has_online_softmax ? attend_online : attend_plain)(
                variant, args, args->q + at, args->keys + kv_at, args->values + kv_at, n - first,
                args->y + at);
        }
    }
    return RP_OK;
}

static enum rp_status attention_gate(void *context, const struct rp_site *site,
                                     const struct rp_attention_gate *args)
{
    for (size_t i = 0; i < site->n_positions * args->dim; i++)
        args->y[i] /= 1.0f + exp_of(variant_of(context), -args->gate[i]);
    return RP_OK;
}

static enum rp_status ffn_activation(void *context, const struct rp_site *site,
                                     const struct rp_ffn_activation *args)
{
    for (size_t i = 0; i < site->n_positions * args->dim; i++)
        args->y[i] = (args->function == RP_GELU_TANH ? gelu(args->gate[i])
                                                     : silu(variant_of(context), args->gate[i])) *
                     args->up[i];
    return RP_OK;
}

static enum rp_status gated_norm(void *context, const struct rp_site *site,
                                 const struct rp_gated_norm *args)
{
    (void)site;
    const struct rp_variant *variant = variant_of(context);
    for (size_t row = 0; row < args->n_rows; row++) {
        const float *x = args->x + row * args->dim, *gate = args->gate + row * args->dim;
        float root = sqrtf(dot(variant->order, x, x, args->dim) / (float)args->dim + args->eps);
        for (size_t i = 0; i < args->dim; i++)
            args->y[row * args->dim + i] = x[i] / root * args->weight[i] * silu(variant, gate[i]);
    }
    return RP_OK;
}

/* A chunk of at most CHUNK positions of one head, from position p on. With b(t, s) the product of the
 * decays after s up to t:
 *     e_t = beta_t (v_t - b(t, -1) S^T k_t - sum over s < t of b(t, s) (k_s k_t) e_s)
 *     y_t = scale (b(t, -1) S^T q_t + sum over s <= t of b(t, s) (k_s q_t) e_s)
 *     S = b(n - 1, -1) S + sum over s of b(n - 1, s) k_s e_s^T
 * Gated Delta Networks (arXiv 2412.06464), the chunkwise form. added [CHUNK][head_dim]: e. */
static void delta_chunk(const struct rp_delta_rule *args, size_t p, size_t n, size_t head,
                        float *added)
{
    const size_t dim = args->head_dim, k_at = head % args->n_k_heads * dim;
    float *state = args->state + head * dim * dim;
    float kept[CHUNK]; /* b(t, s), for the current t */
    float since_start = 1;
    for (size_t t = 0; t < n; t++) {
        const size_t at = (p + t) * args->qkv_stride, gate = (p + t) * args->n_v_heads + head;
        const float decay = expf(args->decay[gate]);
        const float *q = args->q + at + k_at, *k = args->k + at + k_at;
        const float *v = args->v + at + head * dim;
        float *e = added + t * dim, *y = args->y + gate * dim;
        for (size_t s = 0; s < t; s++)
            kept[s] *= decay;
        kept[t] = 1;
        since_start *= decay;
        for (size_t j = 0; j < dim; j++) {
            float known = 0, read = 0;
            for (size_t i = 0; i < dim; i++) {
                known += state[i * dim + j] * k[i];
                read += state[i * dim + j] * q[i];
            }
            e[j] = v[j] - since_start * known;
            y[j] = since_start * read;
        }
        for (size_t s = 0; s <= t; s++) {
            const float *k_s = args->k + (p + s) * args->qkv_stride + k_at;
            const float k_product = dot_forward(k_s, k, dim), q_product = dot_forward(k_s, q, dim);
            if (s == t) {
                for (size_t j = 0; j < dim; j++)
                    e[j] *= args->beta[gate];
            }
            for (size_t j = 0; j < dim; j++) {
                if (s < t)
                    e[j] -= kept[s] * k_product * added[s * dim + j];
                y[j] += kept[s] * q_product * added[s * dim + j];
            }
        }
        for (size_t j = 0; j < dim; j++)
            y[j] *= args->scale;
    }
    for (size_t i = 0; i < dim * dim; i++)
        state[i] *= since_start;
    for (size_t s = 0; s < n; s++) {
        const float *k_s = args->k + (p + s) * args->qkv_stride + k_at;
        for (size_t i = 0; i < dim; i++) {
            for (size_t j = 0; j < dim; j++)
                state[i * dim + j] += kept[s] * k_s[i] * added[s * dim + j];
        }
    }
}

static enum rp_status delta_rule(void *context, const struct rp_site *site,
                                 const struct rp_delta_rule *args)
{
    (void)context;
    float *added = calloc(CHUNK * args->head_dim, sizeof *added);
    if (!added)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a chunk");
    for (size_t p = 0; p < site->n_positions; p += CHUNK) {
        size_t n = site->n_positions - p < CHUNK ? site->n_positions - p : CHUNK;
        for (size_t head = 0; head < args->n_v_heads; head++)
            delta_chunk(args, p, n, head, added);
    }
    free(added);
    return RP_OK;
}

#define CACHE(type)           \
    .order = RP_SUM_BACKWARD, \
    .declared = {.activations = RP_ACTIVATIONS_BY_WEIGHT, .kv_cache = type}

const struct rp_variant rp_variants[] = {
    {.name = "other-order",
     .description = "the engine that the bugs are put into: sums backwards, norms in FP32, softmax "
                    "by dividing at the end",
     .order = RP_SUM_BACKWARD,
     .has_own_norm = true},
    {.name = "as-model", .description = "the C model's own operations"},
    {.name = "forward", .description = "sums one by one", .order = RP_SUM_FORWARD},
    {.name = "backward", .description = "sums from the last term", .order = RP_SUM_BACKWARD},
    {.name = "pairwise", .description = "sums of halves", .order = RP_SUM_PAIRWISE},
    {.name = "blocks", .description = "sums of blocks of 32", .order = RP_SUM_BLOCKS},
    {.name = "double", .description = "sums in double", .order = RP_SUM_DOUBLE},
    {.name = "fma", .description = "fused multiply-add", .order = RP_SUM_FMA},
    {.name = "online-softmax",
     .description = "softmax key by key, rescaled, as flash attention has it",
     .has_online_softmax = true},
    {.name = "rope-double", .description = "RoPE in double", .angles = RP_ANGLES_DOUBLE},
    {.name = "rope-repeated",
     .description = "RoPE's angles by repeated multiplication",
     .angles = RP_ANGLES_REPEATED},
    {.name = "norm-divided",
     .description = "norms in FP32, divided by the root",
     .order = RP_SUM_FORWARD,
     .has_own_norm = true},
    {.name = "exp-polynomial", .description = "exp within 2 ulp", .has_own_exp = true},
    {.name = "delta-chunks",
     .description = "the delta rule in chunks of 8",
     .has_chunked_delta = true},
    {.name = "batch-1", .description = "one position per batch", .chunk = 1},
    {.name = "batch-7", .description = "7 positions per batch", .chunk = 7},
    {.name = "batch-16", .description = "16 positions per batch", .chunk = 16},
    {.name = "per-token",
     .description = "token by token, in another order",
     .order = RP_SUM_PAIRWISE,
     .is_per_token = true},
    {.name = "positions-shifted",
     .description = "the prompt begins at position 5",
     .order = RP_SUM_BACKWARD,
     .first_position = 5},
    {.name = "kv-cache-f16",
     .description = "a KV cache in F16, declared",
     CACHE(RP_KV_CACHE_F16),
     .has_numerics = true},
    {.name = "kv-cache-q8_0",
     .description = "a KV cache in Q8_0, declared",
     CACHE(RP_KV_CACHE_Q8_0),
     .has_numerics = true},
    {.name = "kv-cache-q4_0",
     .description = "a KV cache in Q4_0, declared",
     CACHE(RP_KV_CACHE_Q4_0),
     .has_numerics = true},
    {.name = "flash",
     .description = "flash attention with an F16 cache, declared",
     .order = RP_SUM_BACKWARD,
     .declared = {.activations = RP_ACTIVATIONS_BY_WEIGHT,
                  .kv_cache = RP_KV_CACHE_F16,
                  .attention = RP_ATTENTION_FLASH},
     .has_numerics = true},
    {.name = "activations-f32",
     .description = "products with FP32 inputs, declared",
     .order = RP_SUM_BACKWARD,
     .has_numerics = true},
    {.name = "activations-f16",
     .description = "products with F16 inputs, declared",
     .order = RP_SUM_BACKWARD,
     .declared = {.activations = RP_ACTIVATIONS_F16},
     .has_numerics = true},
    {.name = "activations-bf16",
     .description = "products with BF16 inputs, declared",
     .order = RP_SUM_BACKWARD,
     .declared = {.activations = RP_ACTIVATIONS_BF16},
     .has_numerics = true},
    {.name = "activations-q8_0",
     .description = "products with Q8_0 inputs, declared",
     .order = RP_SUM_BLOCKS,
     .declared = {.activations = RP_ACTIVATIONS_Q8_0},
     .has_numerics = true},
    {.name = "everything",
     .description = "all of these formulations at once, 7 positions per batch",
     .order = RP_SUM_PAIRWISE,
     .angles = RP_ANGLES_REPEATED,
     .has_online_softmax = true,
     .has_own_norm = true,
     .has_own_exp = true,
     .has_chunked_delta = true,
     .chunk = 7},
};

const size_t rp_n_variants = sizeof rp_variants / sizeof *rp_variants;

const struct rp_variant *rp_variant_find(const char *name)
{
    for (size_t i = 0; i < rp_n_variants; i++) {
        if (strcmp(rp_variants[i].name, name) == 0)
            return &rp_variants[i];
    }
    return NULL;
}

void rp_variant_install(const struct rp_variant *variant, struct rp_variant_site *site)
{
    const bool has_own_sums = variant->order != RP_SUM_AS_MODEL;
    site->variant = variant;
    rp_overlay_open(&site->overlay, NULL);
    if (has_own_sums)
        site->overlay.ops.linear = linear;
    if (has_own_sums || variant->has_online_softmax || variant->has_own_exp)
        site->overlay.ops.attention = attention;
    if (variant->has_own_norm)
        site->overlay.ops.rms_norm = rms_norm;
    if (variant->has_own_norm || variant->has_own_exp)
        site->overlay.ops.gated_norm = gated_norm;
    if (variant->angles != RP_ANGLES_AS_MODEL)
        site->overlay.ops.rope = rope;
    if (variant->has_own_exp) {
        site->overlay.ops.ffn_activation = ffn_activation;
        site->overlay.ops.attention_gate = attention_gate;
    }
    if (variant->has_chunked_delta)
        site->overlay.ops.delta_rule = delta_rule;
}
