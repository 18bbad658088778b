/* Bugs in the residual stream: what is added to what, and single channels of it. See bugs.h. */
#include "bugs_internal.h"

#include <math.h>
#include <string.h>

#define CHANNEL 7 /* that the bugs of one channel are in */

/* Keeps the layer's input, for an addition to come. */
static enum rp_status keep_input(void *context, const struct rp_site *site,
                                 const struct rp_rms_norm *args)
{
    struct rp_bug_site *bug = context;
    enum rp_status status = RP_OK;
    if (rp_bug_is_here(bug, site) && args->which == RP_ATTN_NORM)
        status = rp_bug_keep(bug, site, args->x, args->dim);
    return status == RP_OK ? RP_BELOW(bug, rms_norm, site, args) : status;
}

/* Keeps the normed input. */
static enum rp_status keep_normed(void *context, const struct rp_site *site,
                                  const struct rp_rms_norm *args)
{
    struct rp_bug_site *bug = context;
    enum rp_status status = RP_BELOW(bug, rms_norm, site, args);
    if (status == RP_OK && rp_bug_is_here(bug, site) && args->which == RP_ATTN_NORM)
        status = rp_bug_keep(bug, site, args->y, args->dim);
    return status;
}

static bool is_attention(const struct rp_residual_add *args)
{
    return args->which != RP_FFN_DOWN;
}

/* hidden = from_hidden * hidden + from_kept * what was kept. */
static void mix(const struct rp_bug_site *bug, const struct rp_site *site,
                const struct rp_residual_add *args, double from_hidden, double from_kept)
{
    for (size_t p = 0; p < site->n_positions; p++) {
        const float *kept = rp_bug_kept(bug, site->positions[p]);
        float *hidden = args->hidden + p * args->dim;
        for (size_t i = 0; i < args->dim; i++)
            hidden[i] = (float)(from_hidden * (double)hidden[i] + from_kept * (double)kept[i]);
    }
}

static enum rp_status input_leaks(void *context, const struct rp_site *site,
                                  const struct rp_residual_add *args)
{
    const struct rp_bug_site *bug = context;
    enum rp_status status = RP_BELOW(bug, residual_add, site, args);
    if (status == RP_OK && rp_bug_is_here(bug, site) && !is_attention(args))
        mix(bug, site, args, 1, bug->choice.magnitude);
    return status;
}

static enum rp_status input_for_residual(void *context, const struct rp_site *site,
                                         const struct rp_residual_add *args)
{
    const struct rp_bug_site *bug = context;
    if (rp_bug_is_here(bug, site) && !is_attention(args))
        mix(bug, site, args, 0, 1);
    return RP_BELOW(bug, residual_add, site, args);
}

static enum rp_status normed_for_residual(void *context, const struct rp_site *site,
                                          const struct rp_residual_add *args)
{
    const struct rp_bug_site *bug = context;
    if (rp_bug_is_here(bug, site) && is_attention(args))
        mix(bug, site, args, 0, 1);
    return RP_BELOW(bug, residual_add, site, args);
}

/* The residual stream times a factor before attention's branch is added. */
static enum rp_status scale_residual(const struct rp_bug_site *bug, const struct rp_site *site,
                                     const struct rp_residual_add *args, float factor)
{
    for (size_t i = 0; i < site->n_positions * args->dim; i++)
        args->hidden[i] *= factor;
    return RP_BELOW(bug, residual_add, site, args);
}

static enum rp_status residual_doubled(void *context, const struct rp_site *site,
                                       const struct rp_residual_add *args)
{
    const struct rp_bug_site *bug = context;
    bool is_here = rp_bug_is_here(bug, site) && is_attention(args);
    return scale_residual(bug, site, args, is_here ? 2.0f : 1.0f);
}

static enum rp_status residual_missing(void *context, const struct rp_site *site,
                                       const struct rp_residual_add *args)
{
    const struct rp_bug_site *bug = context;
    bool is_here = rp_bug_is_here(bug, site) && is_attention(args);
    return scale_residual(bug, site, args, is_here ? 0.0f : 1.0f);
}

static enum rp_status attention_not_added(void *context, const struct rp_site *site,
                                          const struct rp_residual_add *args)
{
    const struct rp_bug_site *bug = context;
    if (rp_bug_is_here(bug, site) && is_attention(args))
        return RP_OK;
    return RP_BELOW(bug, residual_add, site, args);
}

static enum rp_status nothing_added(void *context, const struct rp_site *site,
                                    const struct rp_residual_add *args)
{
    const struct rp_bug_site *bug = context;
    if (rp_bug_is_here(bug, site))
        return RP_OK;
    return RP_BELOW(bug, residual_add, site, args);
}

/* The norm before the FFN reads the layer's input. */
static enum rp_status parallel(void *context, const struct rp_site *site,
                               const struct rp_rms_norm *args)
{
    struct rp_bug_site *bug = context;
    enum rp_status status = RP_OK;
    if (!rp_bug_is_here(bug, site) || args->which != RP_FFN_NORM)
        return keep_input(context, site, args);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        struct rp_site here = *site;
        struct rp_rms_norm one = *args;
        here.n_positions = 1;
        here.positions = site->positions + p;
        one.n_rows = 1;
        one.x = rp_bug_kept(bug, site->positions[p]);
        one.y = args->y + p * args->dim;
        status = RP_BELOW(bug, rms_norm, &here, &one);
    }
    return status;
}

static double rms(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum / (double)n);
}

static enum rp_status with_outlier(void *context, const struct rp_site *site,
                                   const struct rp_residual_add *args)
{
    const struct rp_bug_site *bug = context;
    enum rp_status status = RP_BELOW(bug, residual_add, site, args);
    if (status != RP_OK || !rp_bug_is_here(bug, site) || is_attention(args))
        return status;
    for (size_t p = 0; p < site->n_positions; p++) {
        float *row = args->hidden + p * args->dim;
        row[CHANNEL] += (float)(bug->choice.magnitude * rms(row, args->dim));
    }
    return RP_OK;
}

static enum rp_status clipped(void *context, const struct rp_site *site,
                              const struct rp_residual_add *args)
{
    const struct rp_bug_site *bug = context;
    const float bound = (float)bug->choice.magnitude;
    enum rp_status status = RP_BELOW(bug, residual_add, site, args);
    if (status != RP_OK || !rp_bug_is_here(bug, site) || is_attention(args))
        return status;
    for (size_t i = 0; i < site->n_positions * args->dim; i++)
        args->hidden[i] = fminf(fmaxf(args->hidden[i], -bound), bound);
    return RP_OK;
}

static enum rp_status channels_swapped(void *context, const struct rp_site *site,
                                       const struct rp_residual_add *args)
{
    const struct rp_bug_site *bug = context;
    enum rp_status status = RP_BELOW(bug, residual_add, site, args);
    if (status != RP_OK || !rp_bug_is_here(bug, site) || is_attention(args))
        return status;
    for (size_t p = 0; p < site->n_positions; p++) {
        float *row = args->hidden + p * args->dim, first = row[CHANNEL];
        row[CHANNEL] = row[CHANNEL + 1];
        row[CHANNEL + 1] = first;
    }
    return RP_OK;
}

#define ATTENTION_ADD_BUG                                                  \
    .architectures = RP_EVERY_ARCHITECTURE, .layers = RP_BUG_IN_ANY_LAYER, \
    .first_part = RP_PART_POSTATTN, RP_BOTH_MODES
#define FFN_ADD_BUG                                                        \
    .architectures = RP_EVERY_ARCHITECTURE, .layers = RP_BUG_IN_ANY_LAYER, \
    .first_part = RP_PART_OUTPUT, RP_BOTH_MODES

static const struct rp_bug bugs[] = {
    {
        .name = "residual-leak",
        .description = "the layer's input is added to its output again, times a factor",
        .provenance = "github.com/kyegomez/BitNet issue 32 (the stream added to itself); "
                      "github.com/facebookresearch/metaseq pull 479",
        FFN_ADD_BUG,
        .ops = {.rms_norm = keep_input, .residual_add = input_leaks},
        RP_MAGNITUDES(1, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8),
        .at_position = true,
        .names = "residual-leak",
    },
    {
        .name = "ffn-residual-from-input",
        .description = "the FFN's output is added to the layer's input: attention's part is lost",
        .provenance =
            "github.com/strutive07/transformer-tensorflow2.0 issue 14 (the FFN's residual "
            "from before attention)",
        FFN_ADD_BUG,
        .ops = {.rms_norm = keep_input, .residual_add = input_for_residual},
        .at_position = true,
        .names = "residual-replaced",
    },
    {
        .name = "residual-normed",
        .description = "attention's output is added to the normed input",
        .provenance = "github.com/Howuhh/faster-trajectory-transformer issue 3 (norm(x) + "
                      "attention); github.com/GeeeekExplorer/nano-vllm issue 170",
        ATTENTION_ADD_BUG,
        .ops = {.rms_norm = keep_normed, .residual_add = normed_for_residual},
        .names = "-,residual-replaced",
    },
    {
        .name = "residual-doubled",
        .description = "the residual stream counts twice where attention's output is added",
        .provenance = "github.com/kyegomez/BitNet issue 32 (x + x)",
        ATTENTION_ADD_BUG,
        .ops = {.residual_add = residual_doubled},
        .names = "residual-factor,residual-leak",
    },
    {
        .name = "residual-missing",
        .description = "attention's output replaces the residual stream",
        .provenance = "github.com/tensorflow/models issue 7533 (no residual to be found)",
        ATTENTION_ADD_BUG,
        .ops = {.residual_add = residual_missing},
        .at_position = true,
        .names = "residual-missing,residual-factor",
    },
    {
        .name = "attention-not-added",
        .description = "attention's output is dropped",
        .provenance = "github.com/vllm-project/vllm-ascend issue 3571 (attention's output zero)",
        ATTENTION_ADD_BUG,
        .ops = {.residual_add = attention_not_added},
        .at_position = true,
        .names = "branch-missing,constant-factor",
    },
    {
        .name = "layer-skipped",
        .description = "the layer hands its input on",
        .provenance = "github.com/AlignmentResearch/tuned-lens pull 1 (one layer off)",
        ATTENTION_ADD_BUG,
        RP_ALSO(RP_PART_OUTPUT),
        .ops = {.residual_add = nothing_added},
        .names = "branch-missing,constant-factor,layer-shifted",
    },
    {
        .name = "residual-parallel",
        .description = "the FFN reads the layer's input, in parallel to attention",
        .provenance = "github.com/TransformerLensOrg/TransformerLens issue 1644 "
                      "(use_parallel_residual ignored); github.com/deepspeedai/DeepSpeed pull 2446",
        .architectures = RP_EVERY_ARCHITECTURE,
        .layers = RP_BUG_IN_ANY_LAYER,
        .first_part = RP_PART_PREFFN,
        RP_BOTH_MODES,
        .ops = {.rms_norm = parallel},
        .names = "-,residual-replaced",
    },
    {
        .name = "outlier-channel",
        .description = "one channel is off, by a share of the row's RMS",
        .provenance = "github.com/pytorch/executorch pull 21773 (one channel's zero point "
                      "misread)",
        FFN_ADD_BUG,
        .ops = {.residual_add = with_outlier},
        RP_MAGNITUDES(10, 1, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-8),
        .at_position = true,
        .names = "outlier-channel",
    },
    {
        .name = "hidden-clipped",
        .description = "the layer's output is limited to a range",
        .provenance = "github.com/microsoft/onnxruntime pull 29611 (Clip nodes put into FP16 "
                      "models)",
        FFN_ADD_BUG,
        .ops = {.residual_add = clipped},
        RP_MAGNITUDES(1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1e4),
        .names = "clipped",
    },
    {
        .name = "channels-swapped",
        .description = "two channels of the layer's output are swapped",
        .provenance = "github.com/kekzl/imp pull 722 (elements of a block in another order)",
        FFN_ADD_BUG,
        .ops = {.residual_add = channels_swapped},
        .names = "channels-swapped",
    },
};

const struct rp_bug_family rp_residual_bugs = RP_FAMILY(bugs);
