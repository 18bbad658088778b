/* Bugs in RMS norms: of the layer, of Q and K, and the last one. See bugs.h. */
#include "bugs_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Whether the bug is in this norm. */
static bool is_this_norm(const struct rp_bug_site *bug, const struct rp_site *site,
                         const struct rp_rms_norm *args)
{
    return rp_bug_is_here(bug, site) && args->which == bug->choice.bug->which;
}

static bool is_qk_norm(const struct rp_rms_norm *args)
{
    return args->which == RP_ATTN_Q_NORM || args->which == RP_ATTN_K_NORM;
}

static enum rp_status other_eps(void *context, const struct rp_site *site,
                                const struct rp_rms_norm *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_rms_norm wrong = *args;
    if (is_this_norm(bug, site, args))
        wrong.eps = (float)((double)args->eps * bug->choice.magnitude);
    return RP_BELOW(bug, rms_norm, site, &wrong);
}

static enum rp_status other_qk_eps(void *context, const struct rp_site *site,
                                   const struct rp_rms_norm *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_rms_norm wrong = *args;
    if (rp_bug_is_here(bug, site) && is_qk_norm(args))
        wrong.eps = (float)((double)args->eps * bug->choice.magnitude);
    return RP_BELOW(bug, rms_norm, site, &wrong);
}

static double mean_square(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum / (double)n;
}

/* Each row times scale(mean of its squares, eps), then times the weight. */
static void scale_rows(const struct rp_rms_norm *args, double (*scale)(double, double))
{
    for (size_t row = 0; row < args->n_rows; row++) {
        const float *x = args->x + row * args->dim;
        float *y = args->y + row * args->dim;
        float factor = (float)scale(mean_square(x, args->dim), (double)args->eps);
        for (size_t i = 0; i < args->dim; i++)
            y[i] = args->weight[i] * (x[i] * factor);
    }
}

static double eps_outside(double square, double eps)
{
    return 1.0 / (sqrt(square) + eps);
}

static double divided_by_rsqrt(double square, double eps)
{
    return sqrt(square + eps);
}

static enum rp_status with_eps_outside(void *context, const struct rp_site *site,
                                       const struct rp_rms_norm *args)
{
    const struct rp_bug_site *bug = context;
    if (!is_this_norm(bug, site, args))
        return RP_BELOW(bug, rms_norm, site, args);
    scale_rows(args, eps_outside);
    return RP_OK;
}

static enum rp_status with_rsqrt_as_divisor(void *context, const struct rp_site *site,
                                            const struct rp_rms_norm *args)
{
    const struct rp_bug_site *bug = context;
    if (!is_this_norm(bug, site, args))
        return RP_BELOW(bug, rms_norm, site, args);
    scale_rows(args, divided_by_rsqrt);
    return RP_OK;
}

static enum rp_status with_mean_subtracted(void *context, const struct rp_site *site,
                                           const struct rp_rms_norm *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_rms_norm wrong = *args;
    float *centred;
    enum rp_status status;
    if (!is_this_norm(bug, site, args))
        return RP_BELOW(bug, rms_norm, site, args);
    status = rp_bug_floats(site, args->n_rows * args->dim, args->x, &centred);
    if (status != RP_OK)
        return status;
    for (size_t row = 0; row < args->n_rows; row++) {
        float *x = centred + row * args->dim;
        double mean = 0;
        for (size_t i = 0; i < args->dim; i++)
            mean += (double)x[i] / (double)args->dim;
        for (size_t i = 0; i < args->dim; i++)
            x[i] = (float)((double)x[i] - mean);
    }
    wrong.x = centred;
    status = RP_BELOW(bug, rms_norm, site, &wrong);
    free(centred);
    return status;
}

/* The weight times factor, plus offset, to the power. */
static enum rp_status with_weight(struct rp_bug_site *bug, const struct rp_site *site,
                                  const struct rp_rms_norm *args, double power, double offset)
{
    struct rp_rms_norm wrong = *args;
    float *weight;
    enum rp_status status = rp_bug_floats(site, args->dim, args->weight, &weight);
    if (status != RP_OK)
        return status;
    for (size_t i = 0; i < args->dim; i++)
        weight[i] = (float)(pow((double)weight[i], power) + offset);
    wrong.weight = weight;
    status = RP_BELOW(bug, rms_norm, site, &wrong);
    free(weight);
    return status;
}

static enum rp_status with_weight_offset(void *context, const struct rp_site *site,
                                         const struct rp_rms_norm *args)
{
    struct rp_bug_site *bug = context;
    if (!is_this_norm(bug, site, args))
        return RP_BELOW(bug, rms_norm, site, args);
    return with_weight(bug, site, args, 1, bug->choice.magnitude);
}

static enum rp_status without_weight(void *context, const struct rp_site *site,
                                     const struct rp_rms_norm *args)
{
    struct rp_bug_site *bug = context;
    if (!is_this_norm(bug, site, args))
        return RP_BELOW(bug, rms_norm, site, args);
    return with_weight(bug, site, args, 0, 0);
}

static enum rp_status with_weight_twice(void *context, const struct rp_site *site,
                                        const struct rp_rms_norm *args)
{
    struct rp_bug_site *bug = context;
    if (!is_this_norm(bug, site, args))
        return RP_BELOW(bug, rms_norm, site, args);
    return with_weight(bug, site, args, 2, 0);
}

static enum rp_status left_out(void *context, const struct rp_site *site,
                               const struct rp_rms_norm *args)
{
    const struct rp_bug_site *bug = context;
    if (!is_this_norm(bug, site, args))
        return RP_BELOW(bug, rms_norm, site, args);
    memmove(args->y, args->x, args->n_rows * args->dim * sizeof *args->x);
    return RP_OK;
}

static enum rp_status qk_left_out(void *context, const struct rp_site *site,
                                  const struct rp_rms_norm *args)
{
    const struct rp_bug_site *bug = context;
    if (!rp_bug_is_here(bug, site) || !is_qk_norm(args))
        return RP_BELOW(bug, rms_norm, site, args);
    memmove(args->y, args->x, args->n_rows * args->dim * sizeof *args->x);
    return RP_OK;
}

static enum rp_status with_ffn_weight(void *context, const struct rp_site *site,
                                      const struct rp_rms_norm *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_rms_norm wrong = *args;
    if (is_this_norm(bug, site, args) && bug->weights.weights[RP_FFN_NORM].data)
        wrong.weight = bug->weights.weights[RP_FFN_NORM].data;
    return RP_BELOW(bug, rms_norm, site, &wrong);
}

static enum rp_status with_qk_swapped(void *context, const struct rp_site *site,
                                      const struct rp_rms_norm *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_rms_norm wrong = *args;
    enum rp_weight_id other = args->which == RP_ATTN_Q_NORM ? RP_ATTN_K_NORM : RP_ATTN_Q_NORM;
    if (rp_bug_is_here(bug, site) && is_qk_norm(args) && bug->weights.weights[other].data)
        wrong.weight = bug->weights.weights[other].data;
    return RP_BELOW(bug, rms_norm, site, &wrong);
}

/* One mean over all heads of a position. */
static enum rp_status over_all_heads(void *context, const struct rp_site *site,
                                     const struct rp_rms_norm *args)
{
    const struct rp_bug_site *bug = context;
    if (!rp_bug_is_here(bug, site) || !is_qk_norm(args))
        return RP_BELOW(bug, rms_norm, site, args);
    size_t width = args->n_rows / site->n_positions * args->dim;
    for (size_t p = 0; p < site->n_positions; p++) {
        const float *x = args->x + p * width;
        float *y = args->y + p * width;
        float scale = (float)(1.0 / sqrt(mean_square(x, width) + (double)args->eps));
        for (size_t i = 0; i < width; i++)
            y[i] = args->weight[i % args->dim] * (x[i] * scale);
    }
    return RP_OK;
}

/* Puts the norm off until after the rotation. */
static enum rp_status put_off(void *context, const struct rp_site *site,
                              const struct rp_rms_norm *args)
{
    struct rp_bug_site *bug = context;
    if (!rp_bug_is_here(bug, site) || !is_qk_norm(args))
        return RP_BELOW(bug, rms_norm, site, args);
    bug->kept_eps = args->eps;
    bug->kept_weights[args->which == RP_ATTN_K_NORM] = args->weight;
    memmove(args->y, args->x, args->n_rows * args->dim * sizeof *args->x);
    return RP_OK;
}

static enum rp_status rotate_then_norm(void *context, const struct rp_site *site,
                                       const struct rp_rope *args)
{
    struct rp_bug_site *bug = context;
    bool is_k = args->which == RP_ATTN_K;
    enum rp_status status = RP_BELOW(bug, rope, site, args);
    struct rp_rms_norm norm = {.which = is_k ? RP_ATTN_K_NORM : RP_ATTN_Q_NORM,
                               .weight = bug->kept_weights[is_k],
                               .eps = bug->kept_eps,
                               .n_rows = site->n_positions * args->n_heads,
                               .dim = args->head_dim,
                               .x = args->x,
                               .y = args->x};
    if (status != RP_OK || !rp_bug_is_here(bug, site))
        return status;
    return RP_BELOW(bug, rms_norm, site, &norm);
}

#define ATTN_NORM_BUG \
    .layers = RP_BUG_IN_ANY_LAYER, .first_part = RP_PART_PREATTN, .which = RP_ATTN_NORM
#define FFN_NORM_BUG \
    .layers = RP_BUG_IN_ANY_LAYER, .first_part = RP_PART_PREFFN, .which = RP_FFN_NORM
#define QK_NORM_BUG \
    .layers = RP_BUG_IN_FULL_ATTENTION, .architectures = "qwen3,qwen35", .spares_position_0 = true
#define LAST_NORM_BUG \
    .layers = RP_BUG_IN_NO_LAYER, .first_part = RP_PART_POST_NORM, .which = RP_OUTPUT_NORM
#define EPS_FACTORS RP_MAGNITUDES(1000, 10, 3, 1.3, 1.03, 1.003, 1.0001, 1.000003)

static const struct rp_bug bugs[] = {
    {
        .name = "eps",
        .description = "another eps in the layer's input norm, first 1e-3 for 1e-6",
        .provenance = "github.com/ggml-org/llama.cpp issue 2373 (eps hardcoded, another in the "
                      "model); github.com/Wenyueh/MinivLLM pull 82 (1e-5 for Qwen3's 1e-6)",
        .architectures = RP_EVERY_ARCHITECTURE,
        ATTN_NORM_BUG,
        RP_BOTH_MODES,
        .ops = {.rms_norm = other_eps},
        EPS_FACTORS,
        .at_position = true,
        .names = "norm-eps",
    },
    {
        .name = "ffn-norm-eps",
        .description = "another eps in the norm before the FFN",
        .provenance = "github.com/Wenyueh/MinivLLM pull 82 (the configured eps not passed on)",
        .architectures = RP_EVERY_ARCHITECTURE,
        FFN_NORM_BUG,
        RP_BOTH_MODES,
        .ops = {.rms_norm = other_eps},
        EPS_FACTORS,
        .names = "norm-eps",
    },
    {
        .name = "qk-norm-eps",
        .description = "another eps in Q-norm and K-norm",
        .provenance = "github.com/Wenyueh/MinivLLM pull 82 (among them those of Q and K)",
        QK_NORM_BUG,
        RP_BOTH_MODES,
        .first_part = RP_PART_QNORM,
        RP_ALSO(RP_PART_KNORM),
        .ops = {.rms_norm = other_qk_eps},
        EPS_FACTORS,
        .names = "norm-eps",
    },
    {
        .name = "eps-outside-sqrt",
        .description = "x / (sqrt(mean) + eps) for x / sqrt(mean + eps)",
        .provenance = "github.com/allenai/OLMo issue 281 (the formulation differs from Llama's); "
                      "github.com/NVIDIA/TransformerEngine pull 364",
        .architectures = RP_EVERY_ARCHITECTURE,
        ATTN_NORM_BUG,
        RP_BOTH_MODES,
        .ops = {.rms_norm = with_eps_outside},
        .names = "norm-eps-placement,norm-eps",
    },
    {
        .name = "norm-rsqrt-as-divisor",
        .description = "x divided by the reciprocal square root",
        .provenance = "github.com/mosaicml/llm-foundry issue 371 (divides by rsqrt)",
        .architectures = RP_EVERY_ARCHITECTURE,
        FFN_NORM_BUG,
        RP_BOTH_MODES,
        .ops = {.rms_norm = with_rsqrt_as_divisor},
        .names = "-",
    },
    {
        .name = "norm-mean-subtracted",
        .description = "LayerNorm for RMSNorm: the mean is taken off first",
        .provenance = "github.com/rustformers/llm issue 80 (LayerNorm where Llama has RMSNorm)",
        .architectures = RP_EVERY_ARCHITECTURE,
        ATTN_NORM_BUG,
        RP_BOTH_MODES,
        .ops = {.rms_norm = with_mean_subtracted},
        .names = "norm-mean-subtracted",
    },
    {
        .name = "norm-weight-offset",
        .description = "1 + weight where the file holds the weight itself, and smaller offsets",
        .provenance = "github.com/utensils/mold pull 1078 (the GGUF's +1 applied again); "
                      "github.com/linkedin/Liger-Kernel issue 74",
        .architectures = RP_EVERY_ARCHITECTURE,
        ATTN_NORM_BUG,
        RP_BOTH_MODES,
        .ops = {.rms_norm = with_weight_offset},
        RP_MAGNITUDES(1, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-7),
        .names = "norm-weight-offset",
    },
    {
        .name = "norm-weight-missing",
        .description = "the norm before the FFN without its weight",
        .provenance = "github.com/lucidrains/x-transformers issue 352 (norm scales made and never "
                      "applied)",
        .architectures = RP_EVERY_ARCHITECTURE,
        FFN_NORM_BUG,
        RP_BOTH_MODES,
        .ops = {.rms_norm = without_weight},
        .names = "norm-weight-missing",
    },
    {
        .name = "norm-weight-twice",
        .description = "the layer's input norm multiplies by its weight twice",
        .provenance = "github.com/ggml-org/llama.cpp pull 1925 (a norm applied twice)",
        .architectures = RP_EVERY_ARCHITECTURE,
        ATTN_NORM_BUG,
        RP_BOTH_MODES,
        .ops = {.rms_norm = with_weight_twice},
        .names = "-",
    },
    {
        .name = "ffn-norm-missing",
        .description = "the FFN reads the residual stream as it is",
        .provenance = "github.com/Cerebras/modelzoo pull 85 (norms made and never called)",
        .architectures = RP_EVERY_ARCHITECTURE,
        FFN_NORM_BUG,
        RP_BOTH_MODES,
        .ops = {.rms_norm = left_out},
        .at_position = true,
        .names = "norm-missing",
    },
    {
        .name = "norm-weight-swapped",
        .description = "the layer's input norm has the weight of the norm before the FFN",
        .provenance = "github.com/intel/auto-round issue 1926 (tensor names mapped to others)",
        .architectures = RP_EVERY_ARCHITECTURE,
        ATTN_NORM_BUG,
        RP_BOTH_MODES,
        .ops = {.rms_norm = with_ffn_weight},
        .weights = RP_BUG_OWN_WEIGHTS,
        .names = "norm-weight-swapped",
    },
    {
        .name = "qk-norm-off",
        .description = "Q and K are not normed before RoPE",
        .provenance = "github.com/timtoole02/Camelid pull 266 (Qwen3 loaded without its QK-norm)",
        QK_NORM_BUG,
        RP_BOTH_MODES,
        .first_part = RP_PART_QNORM,
        RP_ALSO(RP_PART_KNORM),
        .ops = {.rms_norm = qk_left_out},
        .at_position = true,
        .in_head = true,
        .names = "qk-norm-missing",
    },
    {
        .name = "k-norm-off",
        .description = "K alone is not normed",
        .provenance = "github.com/kyegomez/MegaVIT issue 17 (another pair than Q and K is normed)",
        QK_NORM_BUG,
        RP_BOTH_MODES,
        .first_part = RP_PART_KNORM,
        .ops = {.rms_norm = left_out},
        .which = RP_ATTN_K_NORM,
        .names = "qk-norm-missing",
    },
    {
        .name = "qk-norm-weights-swapped",
        .description = "Q is normed with K's weight and K with Q's",
        .provenance = "github.com/intel/auto-round issue 1926 (tensor names mapped to others)",
        QK_NORM_BUG,
        RP_BOTH_MODES,
        .first_part = RP_PART_QNORM,
        RP_ALSO(RP_PART_KNORM),
        .ops = {.rms_norm = with_qk_swapped},
        .weights = RP_BUG_OWN_WEIGHTS,
        .names = "norm-weight-swapped",
    },
    {
        .name = "qk-norm-all-heads",
        .description = "Q and K are normed over all heads at once",
        .provenance = "github.com/1bit-MONSTER/1bit-MONSTER pull 1602 (Qwen3's per-head norm over "
                      "all); github.com/vllm-project/vllm pull 16311",
        QK_NORM_BUG,
        RP_BOTH_MODES,
        .first_part = RP_PART_QNORM,
        RP_ALSO(RP_PART_KNORM),
        .ops = {.rms_norm = over_all_heads},
        .names = "norm-grouping",
    },
    {
        .name = "qk-norm-after-rope",
        .description = "Q and K are rotated first and normed then",
        .provenance = "github.com/karpathy/nanochat issue 743 (the order differs from Qwen3's)",
        QK_NORM_BUG,
        RP_BOTH_MODES,
        .first_part = RP_PART_QNORM,
        RP_ALSO(RP_PART_KNORM, RP_PART_QROPE, RP_PART_KROPE),
        .ops = {.rms_norm = put_off, .rope = rotate_then_norm},
        .names = "qk-norm-order",
    },
    {
        .name = "last-norm-missing",
        .description = "the last norm is left out",
        .provenance = "github.com/Cerebras/modelzoo pull 85 (norms made and never called)",
        .architectures = RP_EVERY_ARCHITECTURE,
        LAST_NORM_BUG,
        RP_BOTH_MODES,
        .ops = {.rms_norm = left_out},
        .names = "norm-missing",
    },
    {
        .name = "last-norm-offset",
        .description = "the last norm's weight off by a constant",
        .provenance = "github.com/kekzl/imp pull 1289 (the last norm alone misses its unit offset)",
        .architectures = RP_EVERY_ARCHITECTURE,
        LAST_NORM_BUG,
        RP_BOTH_MODES,
        .ops = {.rms_norm = with_weight_offset},
        RP_MAGNITUDES(-1, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-7),
        .names = "norm-weight-offset",
    },
    {
        .name = "last-norm-eps",
        .description = "another eps in the last norm",
        .provenance = "github.com/ggml-org/llama.cpp issue 2373 (eps hardcoded)",
        .architectures = RP_EVERY_ARCHITECTURE,
        LAST_NORM_BUG,
        RP_BOTH_MODES,
        .ops = {.rms_norm = other_eps},
        EPS_FACTORS,
        .names = "norm-eps",
    },
};

const struct rp_bug_family rp_norm_bugs = RP_FAMILY(bugs);
