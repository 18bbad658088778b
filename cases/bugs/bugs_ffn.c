/* Bugs in the FFN, and in matrices: factors, activations, swapped and damaged weights. See bugs.h. */
#include "bugs_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The channel of an output that the bugs of one channel are in. */
#define CHANNEL 7

static bool is_this_product(const struct rp_bug_site *bug, const struct rp_site *site,
                            const struct rp_linear *args)
{
    return rp_bug_is_here(bug, site) && args->which == bug->choice.bug->which;
}

static enum rp_status scale_product(const struct rp_bug_site *bug, const struct rp_site *site,
                                    const struct rp_linear *args, bool is_here)
{
    enum rp_status status = RP_BELOW(bug, linear, site, args);
    for (size_t p = 0; p < site->n_positions && is_here && status == RP_OK; p++) {
        for (size_t i = 0; i < args->n_out; i++) {
            float *y = args->y + p * args->y_stride + i;
            *y = (float)((double)*y * bug->choice.magnitude);
        }
    }
    return status;
}

static enum rp_status scaled(void *context, const struct rp_site *site,
                             const struct rp_linear *args)
{
    const struct rp_bug_site *bug = context;
    return scale_product(bug, site, args, is_this_product(bug, site, args));
}

static enum rp_status attention_scaled(void *context, const struct rp_site *site,
                                       const struct rp_linear *args)
{
    const struct rp_bug_site *bug = context;
    return scale_product(bug, site, args,
                         rp_bug_is_here(bug, site) &&
                             (args->which == RP_ATTN_OUTPUT || args->which == RP_SSM_OUT));
}

static enum rp_status gate_and_up_swapped(void *context, const struct rp_site *site,
                                          const struct rp_ffn_activation *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_ffn_activation wrong = *args;
    float *up;
    enum rp_status status;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, ffn_activation, site, args);
    status =
        rp_bug_floats(site, site->n_positions * args->dim, args->gate, &up); /* y may be gate */
    if (status != RP_OK)
        return status;
    wrong.gate = args->up;
    wrong.up = up;
    status = RP_BELOW(bug, ffn_activation, site, &wrong);
    free(up);
    return status;
}

/* y = activation(gate, up, magnitude). */
typedef double activation_fn(double gate, double up, double magnitude);

static double silu(double x)
{
    return x / (1.0 + exp(-x));
}

static double gelu_tanh(double x)
{
    return 0.5 * x * (1.0 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

static double gelu(double gate, double up, double magnitude)
{
    (void)magnitude;
    return gelu_tanh(gate) * up;
}

static double relu(double gate, double up, double magnitude)
{
    (void)magnitude;
    return fmax(gate, 0) * up;
}

static double steeper_silu(double gate, double up, double magnitude)
{
    return gate / (1.0 + exp(-magnitude * gate)) * up;
}

static double mixture(double gate, double up, double magnitude)
{
    return ((1 - magnitude) * silu(gate) + magnitude * gelu_tanh(gate)) * up;
}

static double clamped(double gate, double up, double magnitude)
{
    return silu(fmin(gate, magnitude)) * fmin(fmax(up, -magnitude), magnitude);
}

static double up_alone(double gate, double up, double magnitude)
{
    (void)gate;
    (void)magnitude;
    return up;
}

static double gate_alone(double gate, double up, double magnitude)
{
    (void)up;
    (void)magnitude;
    return silu(gate);
}

#define ACTIVATE(function)                                                               \
    static enum rp_status activate_##function(void *context, const struct rp_site *site, \
                                              const struct rp_ffn_activation *args)      \
    {                                                                                    \
        const struct rp_bug_site *bug = context;                                         \
        activation_fn *activation = function;                                            \
        if (!rp_bug_is_here(bug, site))                                                  \
            return RP_BELOW(bug, ffn_activation, site, args);                            \
        for (size_t i = 0; i < site->n_positions * args->dim; i++)                       \
            args->y[i] = (float)activation((double)args->gate[i], (double)args->up[i],   \
                                           bug->choice.magnitude);                       \
        return RP_OK;                                                                    \
    }
ACTIVATE(gelu)
ACTIVATE(relu)
ACTIVATE(steeper_silu)
ACTIVATE(mixture)
ACTIVATE(clamped)
ACTIVATE(up_alone)
ACTIVATE(gate_alone)

static enum rp_status of_another_layer(void *context, const struct rp_site *site,
                                       const struct rp_linear *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_linear wrong = *args;
    if (is_this_product(bug, site, args) && bug->weights.weights[args->which].data)
        wrong.weight = bug->weights.weights[args->which].data;
    return RP_BELOW(bug, linear, site, &wrong);
}

static enum rp_status transposed(void *context, const struct rp_site *site,
                                 const struct rp_linear *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_linear wrong = *args;
    float *weight;
    enum rp_status status;
    if (!is_this_product(bug, site, args) || args->n_in != args->n_out)
        return RP_BELOW(bug, linear, site, args);
    status = rp_bug_floats(site, args->n_in * args->n_out, NULL, &weight);
    if (status != RP_OK)
        return status;
    for (size_t out = 0; out < args->n_out; out++) {
        for (size_t in = 0; in < args->n_in; in++)
            weight[in * args->n_out + out] = args->weight[out * args->n_in + in];
    }
    wrong.weight = weight;
    status = RP_BELOW(bug, linear, site, &wrong);
    free(weight);
    return status;
}

/* A block of 32 of one row's weights times the magnitude. */
static enum rp_status with_block_scaled(void *context, const struct rp_site *site,
                                        const struct rp_linear *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_linear wrong = *args;
    float *weight;
    enum rp_status status;
    if (!is_this_product(bug, site, args))
        return RP_BELOW(bug, linear, site, args);
    status = rp_bug_floats(site, args->n_in * args->n_out, args->weight, &weight);
    if (status != RP_OK)
        return status;
    for (size_t i = 0; i < 32 && i < args->n_in; i++) {
        float *at = weight + CHANNEL * args->n_in + i;
        *at = (float)((double)*at * bug->choice.magnitude);
    }
    wrong.weight = weight;
    status = RP_BELOW(bug, linear, site, &wrong);
    free(weight);
    return status;
}

static enum rp_status with_row_zero(void *context, const struct rp_site *site,
                                    const struct rp_linear *args)
{
    const struct rp_bug_site *bug = context;
    enum rp_status status = RP_BELOW(bug, linear, site, args);
    for (size_t p = 0; p < site->n_positions && status == RP_OK && is_this_product(bug, site, args);
         p++)
        args->y[p * args->y_stride + CHANNEL] = 0;
    return status;
}

static enum rp_status with_nan(void *context, const struct rp_site *site,
                               const struct rp_linear *args)
{
    const struct rp_bug_site *bug = context;
    enum rp_status status = RP_BELOW(bug, linear, site, args);
    for (size_t p = 0; p < site->n_positions && status == RP_OK && is_this_product(bug, site, args);
         p++)
        args->y[p * args->y_stride + CHANNEL] = NAN;
    return status;
}

#define FFN_BUG .architectures = RP_EVERY_ARCHITECTURE, .layers = RP_BUG_IN_ANY_LAYER, RP_BOTH_MODES
#define ACTIVATION_BUG FFN_BUG, .first_part = RP_PART_ACT
#define DOWN_BUG FFN_BUG, .first_part = RP_PART_FFNOUT, .which = RP_FFN_DOWN

static const struct rp_bug bugs[] = {
    {
        .name = "ffn-half",
        .description = "the FFN's output times a factor, first 0.5",
        .provenance = "github.com/ndif-team/nnterp issue 54 (a sublayer's output off by a constant "
                      "factor)",
        DOWN_BUG,
        .ops = {.linear = scaled},
        RP_MAGNITUDES(0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999, 0.9999999),
        .at_position = true,
        .names = "constant-factor",
    },
    {
        .name = "attention-factor",
        .description = "attention's output times a factor",
        .provenance = "github.com/ndif-team/nnterp issue 54 (Granite's residual_multiplier)",
        .architectures = RP_EVERY_ARCHITECTURE,
        .layers = RP_BUG_IN_ANY_LAYER,
        .first_part = RP_PART_ATTNOUT,
        RP_BOTH_MODES,
        .ops = {.linear = attention_scaled},
        RP_FACTORS(0.22),
        .at_position = true,
        .names = "constant-factor",
    },
    {
        .name = "ffn-swapped",
        .description = "gate and up swapped",
        .provenance = "github.com/flashinfer-ai/flashinfer pull 4130 (packed the other way round "
                      "than documented)",
        ACTIVATION_BUG,
        .ops = {.ffn_activation = gate_and_up_swapped},
        .at_position = true,
        .names = "ffn-swapped",
    },
    {
        .name = "ffn-gelu",
        .description = "GELU (tanh) for SiLU",
        .provenance = "github.com/huggingface/candle issue 3745 (SiLU for Gemma's GELU)",
        ACTIVATION_BUG,
        .ops = {.ffn_activation = activate_gelu},
        .at_position = true,
        .names = "ffn-activation",
    },
    {
        .name = "ffn-relu",
        .description = "ReLU for SiLU",
        .provenance = "github.com/togethercomputer/stripedhyena pull 9 (another activation than "
                      "the checkpoint's)",
        ACTIVATION_BUG,
        .ops = {.ffn_activation = activate_relu},
        .names = "ffn-activation",
    },
    {
        .name = "ffn-silu-beta",
        .description = "x sigmoid(beta x), first with the beta of quick GELU",
        .provenance = "github.com/sgl-project/sglang pull 39939 (1.702 where 1 belongs, and the "
                      "other way round)",
        ACTIVATION_BUG,
        .ops = {.ffn_activation = activate_steeper_silu},
        RP_FACTORS(1.702),
        .names = "ffn-activation",
    },
    {
        .name = "ffn-activation-mixed",
        .description = "a share of GELU in the SiLU",
        .provenance = "github.com/NVIDIA-NeMo/Megatron-Bridge pull 4661 (an activation that is "
                      "close, not the same)",
        ACTIVATION_BUG,
        .ops = {.ffn_activation = activate_mixture},
        RP_MAGNITUDES(0.9, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-7),
        .names = "-,ffn-activation",
    },
    {
        .name = "ffn-clamped",
        .description = "gate and up limited as in GPT-OSS",
        .provenance = "github.com/microsoft/onnxruntime pull 27221 (limited where no limit is "
                      "given)",
        ACTIVATION_BUG,
        .ops = {.ffn_activation = activate_clamped},
        RP_MAGNITUDES(0.1, 0.3, 1, 2, 4, 7, 100),
        .names = "-",
    },
    {
        .name = "ffn-gate-missing",
        .description = "up alone",
        .provenance = "github.com/allenai/OLMoE issue 37 (whether the gate is used)",
        ACTIVATION_BUG,
        .ops = {.ffn_activation = activate_up_alone},
        .names = "ffn-gate-missing",
    },
    {
        .name = "ffn-up-missing",
        .description = "the activated gate alone",
        .provenance = "github.com/sgl-project/sglang pull 39939 (the up term lost a part)",
        ACTIVATION_BUG,
        .ops = {.ffn_activation = activate_gate_alone},
        .names = "ffn-up-missing",
    },
    {
        .name = "ffn-down-of-another-layer",
        .description = "the FFN's last matrix is another layer's",
        .provenance = "github.com/intel/auto-round issue 1926 (tensor names mapped to others)",
        DOWN_BUG,
        .ops = {.linear = of_another_layer},
        .weights = RP_BUG_OTHER_WEIGHTS,
        .names = "weights-other-layer",
    },
    {
        .name = "v-of-another-layer",
        .description = "V's matrix is another layer's",
        .provenance = "github.com/LMCache/lmcache-vllm pull 59 (layer index wrong)",
        .architectures = RP_EVERY_ARCHITECTURE,
        .layers = RP_BUG_IN_FULL_ATTENTION,
        .first_part = RP_PART_V,
        .which = RP_ATTN_V,
        RP_BOTH_MODES,
        .ops = {.linear = of_another_layer},
        .weights = RP_BUG_OTHER_WEIGHTS,
        .names = "weights-other-layer",
    },
    {
        .name = "attention-output-transposed",
        .description = "attention's last matrix, square here, is transposed",
        .provenance = "github.com/vllm-project/vllm pull 41689 (layout guessed for a square "
                      "matrix)",
        .architectures = "llama,qwen35",
        .layers = RP_BUG_IN_FULL_ATTENTION,
        .first_part = RP_PART_ATTNOUT,
        .which = RP_ATTN_OUTPUT,
        RP_BOTH_MODES,
        .ops = {.linear = transposed},
        .names = "weights-transposed",
    },
    {
        .name = "weight-block-scale",
        .description = "32 weights of one row are too large by a factor",
        .provenance = "github.com/1bit-MONSTER/1bit-MONSTER issue 153 (scales of some blocks "
                      "misread); github.com/kekzl/imp pull 722",
        DOWN_BUG,
        .ops = {.linear = with_block_scaled},
        RP_FACTORS(2),
        .at_position = true,
        .names = "outlier-channel",
    },
    {
        .name = "weight-row-zero",
        .description = "one output of the FFN's last matrix is zero",
        .provenance = "github.com/pytorch/executorch issue 16429 (channels dequantized to zero)",
        DOWN_BUG,
        .ops = {.linear = with_row_zero},
        .names = "outlier-channel",
    },
    {
        .name = "ffn-nan",
        .description = "one channel of the FFN's output is NaN",
        .provenance = "github.com/vllm-project/vllm pull 33972 (overflow in FP16 sums)",
        DOWN_BUG,
        .ops = {.linear = with_nan},
        .at_position = true,
        .names = "-,outlier-channel",
    },
};

const struct rp_bug_family rp_ffn_bugs = RP_FAMILY(bugs);
