/* Bugs in what gpt-oss has and others have not: sinks, windows, the clamped SwiGLU, biases of experts, its router.
 * See bugs.h; no committed model has them: cases/families_test.sh puts them into one that it makes. */
#include "bugs_internal.h"

#include <math.h>
#include <stdlib.h>

static enum rp_status without_sinks(void *context, const struct rp_site *site,
                                    const struct rp_attention *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_attention wrong = *args;
    if (rp_bug_is_here(bug, site))
        wrong.sinks = NULL;
    return RP_BELOW(bug, attention, site, &wrong);
}

/* One head's sink is off by the magnitude. */
static enum rp_status with_one_sink_off(void *context, const struct rp_site *site,
                                        const struct rp_attention *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_attention wrong = *args;
    float *sinks = NULL;
    if (!rp_bug_is_here(bug, site) || !args->sinks)
        return RP_BELOW(bug, attention, site, args);
    enum rp_status status = rp_bug_floats(site, args->n_heads, args->sinks, &sinks);
    if (status != RP_OK)
        return status;
    sinks[args->n_heads - 1] += (float)bug->choice.magnitude;
    wrong.sinks = sinks;
    status = RP_BELOW(bug, attention, site, &wrong);
    free(sinks);
    return status;
}

static enum rp_status with_sinks_scaled(void *context, const struct rp_site *site,
                                        const struct rp_attention *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_attention wrong = *args;
    float *sinks = NULL;
    if (!rp_bug_is_here(bug, site) || !args->sinks)
        return RP_BELOW(bug, attention, site, args);
    enum rp_status status = rp_bug_floats(site, args->n_heads, args->sinks, &sinks);
    if (status != RP_OK)
        return status;
    for (size_t head = 0; head < args->n_heads; head++)
        sinks[head] *= args->scale;
    wrong.sinks = sinks;
    status = RP_BELOW(bug, attention, site, &wrong);
    free(sinks);
    return status;
}

/* By the magnitude. */
static enum rp_status with_wider_window(void *context, const struct rp_site *site,
                                        const struct rp_attention *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_attention wrong = *args;
    if (rp_bug_is_here(bug, site) && args->window > 0)
        wrong.window = (size_t)((double)args->window + bug->choice.magnitude);
    return RP_BELOW(bug, attention, site, &wrong);
}

/* y = (up + added) gate sigmoid(alpha gate), gate and up limited. */
struct formula {
    double alpha, highest_gate, lowest_gate, highest_up, added;
};

static enum rp_status activate(const struct rp_bug_site *bug, const struct rp_site *site,
                               const struct rp_ffn_activation *args, const struct formula *formula)
{
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, ffn_activation, site, args);
    for (size_t i = 0; i < site->n_positions * args->dim; i++) {
        const double gate =
            fmax(fmin((double)args->gate[i], formula->highest_gate), formula->lowest_gate);
        const double up =
            fmax(fmin((double)args->up[i], formula->highest_up), -formula->highest_up);
        args->y[i] = (float)((up + formula->added) * gate / (1 + exp(-formula->alpha * gate)));
    }
    return RP_OK;
}

#define ALPHA 1.702
#define LIMIT 7

static enum rp_status unlimited(void *context, const struct rp_site *site,
                                const struct rp_ffn_activation *args)
{
    static const struct formula formula = {ALPHA, HUGE_VAL, -HUGE_VAL, HUGE_VAL, 1};
    return activate(context, site, args, &formula);
}

static enum rp_status limited_below(void *context, const struct rp_site *site,
                                    const struct rp_ffn_activation *args)
{
    static const struct formula formula = {ALPHA, LIMIT, -LIMIT, LIMIT, 1};
    return activate(context, site, args, &formula);
}

static enum rp_status with_plain_up(void *context, const struct rp_site *site,
                                    const struct rp_ffn_activation *args)
{
    static const struct formula formula = {ALPHA, LIMIT, -HUGE_VAL, LIMIT, 0};
    return activate(context, site, args, &formula);
}

static enum rp_status with_another_alpha(void *context, const struct rp_site *site,
                                         const struct rp_ffn_activation *args)
{
    const struct rp_bug_site *bug = context;
    const struct formula formula = {bug->choice.magnitude, LIMIT, -HUGE_VAL, LIMIT, 1};
    return activate(bug, site, args, &formula);
}

/* Of the router, or of every expert. */
static enum rp_status without_bias(void *context, const struct rp_site *site,
                                   const struct rp_linear *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_linear wrong = *args;
    if (rp_bug_is_here(bug, site) && args->which == bug->choice.bug->which)
        wrong.bias = NULL;
    return RP_BELOW(bug, linear, site, &wrong);
}

/* The softmax of all logits, where the model's is of those of the chosen experts. */
static enum rp_status with_softmax_of_all(void *context, const struct rp_site *site,
                                          const struct rp_weigh_experts *args)
{
    const struct rp_bug_site *bug = context;
    const size_t n = args->router->n_experts, n_chosen = args->router->n_chosen;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, weigh_experts, site, args);
    for (size_t p = 0; p < site->n_positions; p++) {
        const float *logits = args->logits + p * n;
        double sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += exp((double)logits[i]);
        for (size_t k = p * n_chosen; k < (p + 1) * n_chosen; k++)
            args->weights[k] = (float)(exp((double)logits[(size_t)args->experts[k]]) / sum);
    }
    return RP_OK;
}

#define GPT_OSS_BUG .architectures = "gpt-oss", .layers = RP_BUG_IN_ANY_LAYER, RP_BOTH_MODES
#define SINK_BUG GPT_OSS_BUG, .first_part = RP_PART_ATTN
#define CLAMPED_BUG GPT_OSS_BUG, .first_part = RP_PART_ACT

static const struct rp_bug bugs[] = {
    {
        .name = "sinks-missing",
        .description = "attention without its sinks",
        .provenance = "github.com/vllm-project/vllm-metal issue 212 (a flag that was never set)",
        SINK_BUG,
        .ops = {.attention = without_sinks},
        .at_position = true,
        .in_head = true,
        .names = "attention-sink",
    },
    {
        .name = "sink-off",
        .description = "the last head's sink is off",
        .provenance = "github.com/vllm-project/vllm-metal pull 550 (paths in which sinks were "
                      "never right)",
        SINK_BUG,
        .ops = {.attention = with_one_sink_off},
        RP_MAGNITUDES(1, 0.1, 0.01),
        .names = "attention-sink",
    },
    {
        .name = "sinks-scaled",
        .description = "sinks are multiplied by attention's scale",
        .provenance = "github.com/vllm-project/vllm-metal pull 550 (the scale of GPT-OSS's "
                      "attention read elsewhere)",
        SINK_BUG,
        .ops = {.attention = with_sinks_scaled},
        .names = "attention-sink",
    },
    {
        .name = "window-wider",
        .description = "layers with a window see further, first by one position",
        .provenance = "github.com/huggingface/transformers issue 39408 (off by one)",
        SINK_BUG,
        .ops = {.attention = with_wider_window},
        RP_MAGNITUDES(1, -1),
        .spares_position_0 = true,
        .names = "attention-window",
    },
    {
        .name = "ffn-clamp-missing",
        .description = "gate and up of the clamped SwiGLU are not limited",
        .provenance = "github.com/sgl-project/sglang pull 39939 (swiglu_limit not honored)",
        CLAMPED_BUG,
        .ops = {.ffn_activation = unlimited},
        .names = "ffn-clamp",
    },
    {
        .name = "ffn-clamp-symmetric",
        .description = "gate is limited from below, too",
        .provenance = "github.com/anthony-chaudhary/fak issue 4837 (symmetric gate clamping)",
        CLAMPED_BUG,
        .ops = {.ffn_activation = limited_below},
        .names = "ffn-clamp",
    },
    {
        .name = "ffn-up-plain",
        .description = "up without the 1 that is added to it",
        .provenance = "github.com/sgl-project/sglang pull 39939 (the up term loses its +1)",
        CLAMPED_BUG,
        .ops = {.ffn_activation = with_plain_up},
        .names = "ffn-up-offset",
    },
    {
        .name = "ffn-alpha",
        .description = "another factor in the sigmoid than 1.702, first SiLU's",
        .provenance = "github.com/sgl-project/sglang pull 39939 (alpha defaults to 1)",
        CLAMPED_BUG,
        .ops = {.ffn_activation = with_another_alpha},
        RP_MAGNITUDES(1, 1.7, 1.7019),
        .names = "ffn-activation",
    },
    {
        .name = "expert-bias-missing",
        .description = "the experts' product up without its bias",
        .provenance = "github.com/sgl-project/sglang pull 12537 (no bias in the experts of one "
                      "backend)",
        GPT_OSS_BUG,
        .first_part = RP_PART_UP,
        .which = RP_EXPERTS_UP,
        .ops = {.linear = without_bias},
        .names = "bias-missing",
    },
    {
        .name = "router-bias-missing",
        .description = "the router's product without its bias",
        .provenance = "github.com/pytorch/torchtitan pull 2319 (a router without bias)",
        GPT_OSS_BUG,
        .first_part = RP_PART_ROUTER,
        .which = RP_ROUTER,
        .ops = {.linear = without_bias},
        .names = "bias-missing",
    },
    {
        .name = "router-softmax-of-all",
        .description = "experts weighted by the softmax of all logits, not of the chosen ones",
        .provenance = "github.com/pytorch/torchtitan issue 2258 (softmax over all experts)",
        GPT_OSS_BUG,
        .first_part = RP_PART_EXPERTW,
        .ops = {.weigh_experts = with_softmax_of_all},
        .names = "router-scores",
    },
};

const struct rp_bug_family rp_gpt_oss_bugs = RP_FAMILY(bugs);
