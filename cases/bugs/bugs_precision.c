/* Less precision than declared, other rounding than declared, and noise. See bugs.h. */
#include "bugs_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void round_all(float *x, size_t n, const struct rp_bug_site *bug)
{
    for (size_t i = 0; i < n; i++)
        x[i] = rp_bug_round(x[i], (int)bug->choice.magnitude);
}

static enum rp_status rounded_output(void *context, const struct rp_site *site,
                                     const struct rp_residual_add *args)
{
    const struct rp_bug_site *bug = context;
    enum rp_status status = RP_BELOW(bug, residual_add, site, args);
    if (status == RP_OK && rp_bug_is_here(bug, site) && args->which == RP_FFN_DOWN)
        round_all(args->hidden, site->n_positions * args->dim, bug);
    return status;
}

/* The normed row is rounded before it is multiplied by the weight. */
static enum rp_status rounded_norm(void *context, const struct rp_site *site,
                                   const struct rp_rms_norm *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_rms_norm plain = *args;
    float *ones;
    enum rp_status status;
    if (!rp_bug_is_here(bug, site) || args->which != RP_ATTN_NORM)
        return RP_BELOW(bug, rms_norm, site, args);
    status = rp_bug_floats(site, args->dim, NULL, &ones);
    if (status != RP_OK)
        return status;
    for (size_t i = 0; i < args->dim; i++)
        ones[i] = 1;
    plain.weight = ones;
    status = RP_BELOW(bug, rms_norm, site, &plain);
    round_all(args->y, args->n_rows * args->dim, bug);
    for (size_t i = 0; i < args->n_rows * args->dim; i++)
        args->y[i] *= args->weight[i % args->dim];
    free(ones);
    return status;
}

/* The FFN's last product, summed up in so many bits. */
static enum rp_status coarse_sums(void *context, const struct rp_site *site,
                                  const struct rp_linear *args)
{
    const struct rp_bug_site *bug = context;
    const int bits = (int)bug->choice.magnitude;
    if (!rp_bug_is_here(bug, site) || args->which != RP_FFN_DOWN)
        return RP_BELOW(bug, linear, site, args);
    for (size_t p = 0; p < site->n_positions; p++) {
        for (size_t out = 0; out < args->n_out; out++) {
            float sum = 0;
            for (size_t in = 0; in < args->n_in; in++)
                sum = rp_bug_round(
                    sum + args->weight[out * args->n_in + in] * args->x[p * args->n_in + in], bits);
            args->y[p * args->y_stride + out] = sum;
        }
    }
    return RP_OK;
}

/* -1 .. 1, the same for the same place in each run. */
static double noise_at(int64_t position, size_t channel)
{
    uint64_t x = (uint64_t)position * 0x9e3779b97f4a7c15u + channel * 0xbf58476d1ce4e5b9u + 1;
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    x ^= x >> 31;
    return (double)(x >> 11) / 4503599627370496.0 - 1.0;
}

static enum rp_status noisy(void *context, const struct rp_site *site, const struct rp_linear *args)
{
    const struct rp_bug_site *bug = context;
    enum rp_status status = RP_BELOW(bug, linear, site, args);
    if (status != RP_OK || !rp_bug_is_here(bug, site) || args->which != RP_FFN_DOWN)
        return status;
    for (size_t p = 0; p < site->n_positions; p++) {
        for (size_t i = 0; i < args->n_out; i++) {
            float *y = args->y + p * args->y_stride + i;
            *y =
                (float)((double)*y * (1 + bug->choice.magnitude * noise_at(site->positions[p], i)));
        }
    }
    return RP_OK;
}

#define PRECISION_BUG \
    .architectures = RP_EVERY_ARCHITECTURE, .layers = RP_BUG_IN_ANY_LAYER, RP_BOTH_MODES
#define EVERY_PRODUCT                                                                            \
    .first_part = RP_PART_Q,                                                                     \
    RP_ALSO(RP_PART_K, RP_PART_V, RP_PART_QKV, RP_PART_A, RP_PART_B, RP_PART_Z, RP_PART_ATTNOUT, \
            RP_PART_GATE, RP_PART_UP, RP_PART_FFNOUT)
#define CACHE_BUG                                                               \
    .architectures = RP_EVERY_ARCHITECTURE, .layers = RP_BUG_IN_FULL_ATTENTION, \
    .first_part = RP_PART_ATTN, RP_BOTH_MODES, .has_kv_cache = true, .names = "numerics-kv-cache"

static const struct rp_bug bugs[] = {
    {
        .name = "hidden-rounded",
        .description = "the layer's output in so many bits of mantissa, first BF16's",
        .provenance = "github.com/okoge-kaz/llm-recipes pull 6 (FP32 parts run in BF16)",
        PRECISION_BUG,
        .first_part = RP_PART_OUTPUT,
        .ops = {.residual_add = rounded_output},
        RP_MANTISSAS,
        .names = "rounded-output,-",
    },
    {
        .name = "norm-rounded",
        .description = "the normed row is rounded before its weight is applied",
        .provenance = "github.com/google/gemma_pytorch pull 67 (RMSNorm downcast too early)",
        PRECISION_BUG,
        .first_part = RP_PART_PREATTN,
        .ops = {.rms_norm = rounded_norm},
        RP_MANTISSAS,
        .names = "-",
    },
    {
        .name = "sums-rounded",
        .description = "the FFN's last product is summed up in few bits",
        .provenance = "github.com/ggml-org/llama.cpp pull 15619 (F32 sums forced for the FFN); "
                      "github.com/tenstorrent/tt-mlir issue 8666",
        PRECISION_BUG,
        .first_part = RP_PART_FFNOUT,
        .ops = {.linear = coarse_sums},
        RP_MANTISSAS,
        .names = "-",
    },
    {
        .name = "noise",
        .description = "the FFN's output with noise, relative to each value",
        .provenance = "github.com/flashinfer-ai/flashinfer issue 3398 (a product with erratic "
                      "values)",
        PRECISION_BUG,
        .first_part = RP_PART_FFNOUT,
        .ops = {.linear = noisy},
        RP_MAGNITUDES(0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8),
        .at_position = true,
        .names = "-",
    },
    {
        .name = "activations-f16",
        .description = "inputs of products are rounded to F16, which is not declared",
        .provenance = "github.com/ROCm/AMDMIGraphX issue 2556 (Llama in FP16 with other output)",
        PRECISION_BUG,
        EVERY_PRODUCT,
        .has_activations = true,
        .numerics = {.activations = RP_ACTIVATIONS_F16},
        .names = "numerics-activations",
    },
    {
        .name = "activations-bf16",
        .description = "inputs of products are rounded to BF16, which is not declared",
        .provenance = "github.com/tenstorrent/tt-mlir issue 8666 (a product in BF16's precision)",
        PRECISION_BUG,
        EVERY_PRODUCT,
        .has_activations = true,
        .numerics = {.activations = RP_ACTIVATIONS_BF16},
        .names = "numerics-activations",
    },
    {
        .name = "kv-cache-f16",
        .description = "a KV cache in F16 where FP32 is declared",
        .provenance = "github.com/ggml-org/llama.cpp pull 7412 (what each type of cache changes)",
        CACHE_BUG,
        .numerics = {.kv_cache = RP_KV_CACHE_F16},
    },
    {
        .name = "kv-cache-q8_0",
        .description = "a KV cache in Q8_0 where FP32 is declared",
        .provenance = "github.com/TheTom/llama-cpp-turboquant issue 305 (Q8_0 degrades silently)",
        CACHE_BUG,
        .numerics = {.kv_cache = RP_KV_CACHE_Q8_0},
    },
    {
        .name = "kv-cache-q4_0",
        .description = "a KV cache in Q4_0 where FP32 is declared",
        .provenance = "github.com/lukesdevlab/youtube issue 2 (Q4_0 for the cache, unnoticed)",
        CACHE_BUG,
        .numerics = {.kv_cache = RP_KV_CACHE_Q4_0},
    },
};

const struct rp_bug_family rp_precision_bugs = RP_FAMILY(bugs);
