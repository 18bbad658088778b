/* Bugs in what surrounds the recurrence of a gated DeltaNet: decay, beta, convolution, L2 norm, gate.
 * The recurrence itself is in bugs_delta_state.c. See bugs.h. */
#include "bugs_internal.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Gates with other vectors; NULL: the layer's own. */
static enum rp_status gates_with(const struct rp_bug_site *bug, const struct rp_site *site,
                                 const struct rp_delta_decay *args, const float *a, const float *dt)
{
    struct rp_delta_decay wrong = *args;
    if (a)
        wrong.a = a;
    if (dt)
        wrong.dt = dt;
    return RP_BELOW(bug, delta_decay, site, &wrong);
}

/* The log of what the state is to be multiplied by, for what it is to be multiplied by; without its
 * sign, which the exponential of the rule cannot give. */
static enum rp_status decay_without_exp(void *context, const struct rp_site *site,
                                        const struct rp_delta_rule *args)
{
    const struct rp_bug_site *bug = context;
    const size_t n = site->n_positions * args->n_v_heads;
    struct rp_delta_rule wrong = *args;
    float *decay;
    enum rp_status status;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, delta_rule, site, args);
    status = rp_bug_floats(site, n, args->decay, &decay);
    if (status != RP_OK)
        return status;
    for (size_t i = 0; i < n; i++)
        decay[i] = logf(fabsf(decay[i]) + FLT_MIN); /* it may be 0 */
    wrong.decay = decay;
    status = RP_BELOW(bug, delta_rule, site, &wrong);
    free(decay);
    return status;
}

static enum rp_status no_decay(void *context, const struct rp_site *site,
                               const struct rp_delta_decay *args)
{
    const struct rp_bug_site *bug = context;
    enum rp_status status = RP_BELOW(bug, delta_decay, site, args);
    if (status != RP_OK || !rp_bug_is_here(bug, site))
        return status;
    for (size_t i = 0; i < site->n_positions * args->n_heads; i++)
        args->y[i] = 0;
    return RP_OK;
}

static enum rp_status other_a(void *context, const struct rp_site *site,
                              const struct rp_delta_decay *args)
{
    const struct rp_bug_site *bug = context;
    float *a;
    enum rp_status status;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, delta_decay, site, args);
    status = rp_bug_floats(site, args->n_heads, args->a, &a);
    if (status != RP_OK)
        return status;
    for (size_t h = 0; h < args->n_heads; h++)
        a[h] = (float)((double)a[h] * bug->choice.magnitude);
    status = gates_with(bug, site, args, a, NULL);
    free(a);
    return status;
}

/* The file holds -exp(A_log); it is taken for A_log. */
static enum rp_status a_exponentiated_again(void *context, const struct rp_site *site,
                                            const struct rp_delta_decay *args)
{
    const struct rp_bug_site *bug = context;
    float *a;
    enum rp_status status;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, delta_decay, site, args);
    status = rp_bug_floats(site, args->n_heads, args->a, &a);
    if (status != RP_OK)
        return status;
    for (size_t h = 0; h < args->n_heads; h++)
        a[h] = -expf(a[h]);
    status = gates_with(bug, site, args, a, NULL);
    free(a);
    return status;
}

static enum rp_status dt_missing(void *context, const struct rp_site *site,
                                 const struct rp_delta_decay *args)
{
    const struct rp_bug_site *bug = context;
    float *dt;
    enum rp_status status;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, delta_decay, site, args);
    status = rp_bug_floats(site, args->n_heads, NULL, &dt);
    if (status != RP_OK)
        return status;
    status = gates_with(bug, site, args, NULL, dt);
    free(dt);
    return status;
}

static enum rp_status dt_of_next_head(void *context, const struct rp_site *site,
                                      const struct rp_delta_decay *args)
{
    const struct rp_bug_site *bug = context;
    float *dt;
    enum rp_status status;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, delta_decay, site, args);
    status = rp_bug_floats(site, args->n_heads, NULL, &dt);
    if (status != RP_OK)
        return status;
    for (size_t h = 0; h < args->n_heads; h++)
        dt[h] = args->dt[(h + 1) % args->n_heads];
    status = gates_with(bug, site, args, NULL, dt);
    free(dt);
    return status;
}

static enum rp_status raw_beta(void *context, const struct rp_site *site,
                               const struct rp_delta_beta *args)
{
    const struct rp_bug_site *bug = context;
    float *beta;
    enum rp_status status;
    const size_t n = site->n_positions * args->n_heads;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, delta_beta, site, args);
    status = rp_bug_floats(site, n, args->y, &beta);
    if (status != RP_OK)
        return status;
    status = RP_BELOW(bug, delta_beta, site, args);
    memcpy(args->y, beta, n * sizeof *beta);
    free(beta);
    return status;
}

static enum rp_status scaled_beta(void *context, const struct rp_site *site,
                                  const struct rp_delta_beta *args)
{
    const struct rp_bug_site *bug = context;
    enum rp_status status = RP_BELOW(bug, delta_beta, site, args);
    if (status != RP_OK || !rp_bug_is_here(bug, site))
        return status;
    for (size_t i = 0; i < site->n_positions * args->n_heads; i++)
        args->y[i] = (float)((double)args->y[i] * bug->choice.magnitude);
    return RP_OK;
}

static enum rp_status conv_from_zeros(void *context, const struct rp_site *site,
                                      const struct rp_causal_conv1d *args)
{
    const struct rp_bug_site *bug = context;
    if (rp_bug_is_here(bug, site))
        memset(args->state, 0, (args->kernel - 1) * args->n_channels * sizeof *args->state);
    return RP_BELOW(bug, causal_conv1d, site, args);
}

static enum rp_status conv_without_silu(void *context, const struct rp_site *site,
                                        const struct rp_causal_conv1d *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_causal_conv1d wrong = *args;
    if (rp_bug_is_here(bug, site))
        wrong.has_silu = false;
    return RP_BELOW(bug, causal_conv1d, site, &wrong);
}

static enum rp_status conv_reversed(void *context, const struct rp_site *site,
                                    const struct rp_causal_conv1d *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_causal_conv1d wrong = *args;
    float *weight;
    enum rp_status status;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, causal_conv1d, site, args);
    status = rp_bug_floats(site, args->n_channels * args->kernel, NULL, &weight);
    if (status != RP_OK)
        return status;
    for (size_t i = 0; i < args->n_channels * args->kernel; i++) {
        size_t tap = i % args->kernel;
        weight[i] = args->weight[i - tap + args->kernel - 1 - tap];
    }
    wrong.weight = weight;
    status = RP_BELOW(bug, causal_conv1d, site, &wrong);
    free(weight);
    return status;
}

static enum rp_status q_not_normed(void *context, const struct rp_site *site,
                                   const struct rp_l2_norm *args)
{
    const struct rp_bug_site *bug = context;
    if (rp_bug_is_here(bug, site) && args->which == RP_ATTN_Q)
        return RP_OK;
    return RP_BELOW(bug, l2_norm, site, args);
}

static enum rp_status other_l2_eps(void *context, const struct rp_site *site,
                                   const struct rp_l2_norm *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_l2_norm wrong = *args;
    if (rp_bug_is_here(bug, site))
        wrong.eps = (float)((double)args->eps * bug->choice.magnitude);
    return RP_BELOW(bug, l2_norm, site, &wrong);
}

static float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

static enum rp_status gate_is_sigmoid(void *context, const struct rp_site *site,
                                      const struct rp_gated_norm *args)
{
    const struct rp_bug_site *bug = context;
    const struct rp_rms_norm norm = {.which = RP_SSM_NORM,
                                     .weight = args->weight,
                                     .eps = args->eps,
                                     .n_rows = args->n_rows,
                                     .dim = args->dim,
                                     .x = args->x,
                                     .y = args->y};
    enum rp_status status;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, gated_norm, site, args);
    status = RP_BELOW(bug, rms_norm, site, &norm);
    for (size_t i = 0; i < args->n_rows * args->dim && status == RP_OK; i++)
        args->y[i] *= sigmoid(args->gate[i]);
    return status;
}

static enum rp_status gate_before_norm(void *context, const struct rp_site *site,
                                       const struct rp_gated_norm *args)
{
    const struct rp_bug_site *bug = context;
    const size_t n = args->n_rows * args->dim;
    struct rp_rms_norm norm = {.which = RP_SSM_NORM,
                               .weight = args->weight,
                               .eps = args->eps,
                               .n_rows = args->n_rows,
                               .dim = args->dim,
                               .y = args->y};
    float *gated;
    enum rp_status status;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, gated_norm, site, args);
    status = rp_bug_floats(site, n, args->x, &gated);
    if (status != RP_OK)
        return status;
    for (size_t i = 0; i < n; i++)
        gated[i] *= args->gate[i] * sigmoid(args->gate[i]);
    norm.x = gated;
    status = RP_BELOW(bug, rms_norm, site, &norm);
    free(gated);
    return status;
}

static enum rp_status other_gated_eps(void *context, const struct rp_site *site,
                                      const struct rp_gated_norm *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_gated_norm wrong = *args;
    if (rp_bug_is_here(bug, site))
        wrong.eps = (float)((double)args->eps * bug->choice.magnitude);
    return RP_BELOW(bug, gated_norm, site, &wrong);
}

#define DELTA_BUG .architectures = "qwen35", .layers = RP_BUG_IN_LINEAR_ATTENTION

static const struct rp_bug bugs[] = {
    {
        .name = "delta-decay-without-exp",
        .description = "the DeltaNet's state is multiplied by |g|, g the log of its decay",
        .provenance = "github.com/llmmanorg/llmman pull 16 (Qwen3.5's linear attention with wrong "
                      "decay and gating)",
        DELTA_BUG,
        RP_BOTH_MODES,
        .spares_position_0 = true,
        .first_part = RP_PART_DELTA,
        .ops = {.delta_rule = decay_without_exp},
        .at_position = true,
        .in_head = true,
        .names = "delta-decay",
    },
    {
        .name = "delta-decay-missing",
        .description = "the state does not decay",
        .provenance = "github.com/tenstorrent/tt-metal issue 55266 (softplus is 0, so the decay 1)",
        DELTA_BUG,
        RP_BOTH_MODES,
        .spares_position_0 = true,
        .first_part = RP_PART_DECAY,
        .ops = {.delta_decay = no_decay},
        .in_head = true,
        .names = "delta-decay",
    },
    {
        .name = "delta-decay-factor",
        .description = "A times a factor: 24 times too much decay, and less",
        .provenance = "github.com/NeuraLegion/shainet pull 204 (24 times too much decay)",
        DELTA_BUG,
        RP_BOTH_MODES,
        .spares_position_0 = true,
        .first_part = RP_PART_DECAY,
        .ops = {.delta_decay = other_a},
        RP_FACTORS(24),
        .at_position = true,
        .in_head = true,
        .names = "-,delta-decay",
    },
    {
        .name = "delta-a-exp-twice",
        .description = "-exp is applied to A, which the file holds with it applied",
        .provenance = "github.com/NeuraLegion/shainet pull 204 (ssm_a taken for A_log)",
        DELTA_BUG,
        RP_BOTH_MODES,
        .spares_position_0 = true,
        .first_part = RP_PART_DECAY,
        .ops = {.delta_decay = a_exponentiated_again},
        .names = "-,delta-decay",
    },
    {
        .name = "delta-dt-missing",
        .description = "dt's bias is not added",
        .provenance = "github.com/llmmanorg/llmman pull 16 (wrong dt scaling in Qwen3.5's linear "
                      "attention)",
        DELTA_BUG,
        RP_BOTH_MODES,
        .spares_position_0 = true,
        .first_part = RP_PART_DECAY,
        .ops = {.delta_decay = dt_missing},
        .names = "delta-dt-bias",
    },
    {
        .name = "delta-dt-of-next-head",
        .description = "each head has the next one's dt bias",
        .provenance = "github.com/ml-explore/mlx-lm issue 1798 (names its issue 1792: dt_bias "
                      "indexed by the wrong head)",
        DELTA_BUG,
        RP_BOTH_MODES,
        .spares_position_0 = true,
        .first_part = RP_PART_DECAY,
        .ops = {.delta_decay = dt_of_next_head},
        .names = "-,delta-dt-bias",
    },
    {
        .name = "delta-beta-raw",
        .description = "beta without its sigmoid",
        .provenance = "github.com/llmmanorg/llmman pull 16 (Qwen3.5's linear attention with wrong "
                      "decay and gating)",
        DELTA_BUG,
        RP_BOTH_MODES,
        .first_part = RP_PART_BETA,
        .ops = {.delta_beta = raw_beta},
        .names = "delta-beta",
    },
    {
        .name = "delta-beta-factor",
        .description = "beta times a factor, first 2 (as where negative eigenvalues are allowed)",
        .provenance = "github.com/vllm-project/vllm pull 36242 (b and a scrambled)",
        DELTA_BUG,
        RP_BOTH_MODES,
        .first_part = RP_PART_BETA,
        .ops = {.delta_beta = scaled_beta},
        RP_FACTORS(2),
        .in_head = true,
        .names = "-,delta-beta",
    },
    {
        .name = "conv-state-lost",
        .description = "the convolution starts from zeros at every call, not from its last inputs",
        .provenance = "github.com/mratsim/tattletale pull 80 (Qwen3.5: a continuation drops the "
                      "convolution's history)",
        DELTA_BUG,
        .in_per_token = true,
        .spares_position_0 = true,
        .first_part = RP_PART_CONV,
        .ops = {.causal_conv1d = conv_from_zeros},
        .names = "delta-conv-state",
    },
    {
        .name = "delta-conv-silu-missing",
        .description = "the convolution without SiLU",
        .provenance = "github.com/llmmanorg/llmman pull 16 (SiLU missing after the convolution)",
        DELTA_BUG,
        RP_BOTH_MODES,
        .first_part = RP_PART_CONV,
        .ops = {.causal_conv1d = conv_without_silu},
        .at_position = true,
        .names = "delta-conv-silu",
    },
    {
        .name = "delta-conv-reversed",
        .description = "the kernel's taps in the other order",
        .provenance = "github.com/1bit-MONSTER/1bit-MONSTER pull 572 (taps and channels scrambled)",
        DELTA_BUG,
        RP_BOTH_MODES,
        .first_part = RP_PART_CONV,
        .ops = {.causal_conv1d = conv_reversed},
        .names = "delta-conv-kernel",
    },
    {
        .name = "delta-q-not-normed",
        .description = "Q is not L2-normed",
        .provenance = "github.com/1bit-MONSTER/1bit-MONSTER pull 2134 (another norm than L2)",
        DELTA_BUG,
        RP_BOTH_MODES,
        .first_part = RP_PART_DELTA,
        .ops = {.l2_norm = q_not_normed},
        .at_position = true,
        .names = "delta-l2-norm",
    },
    {
        .name = "delta-l2-eps",
        .description = "another eps in the L2 norm of Q and K",
        .provenance = "github.com/huggingface/transformers pull 47625 (two formulations of it)",
        DELTA_BUG,
        RP_BOTH_MODES,
        .first_part = RP_PART_DELTA,
        .ops = {.l2_norm = other_l2_eps},
        RP_MAGNITUDES(1e5, 1e3, 100, 10, 2, 1.1, 1.0001),
        .names = "delta-l2-norm",
    },
    {
        .name = "delta-gate-sigmoid",
        .description = "sigmoid for SiLU on the gate",
        .provenance = "github.com/Avarok-Cybersecurity/atlas pull 754 (the gated norm's activation "
                      "wrong)",
        DELTA_BUG,
        RP_BOTH_MODES,
        .first_part = RP_PART_MIX,
        .ops = {.gated_norm = gate_is_sigmoid},
        .at_position = true,
        .names = "delta-gate",
    },
    {
        .name = "delta-gate-before-norm",
        .description = "the gate is applied before the norm",
        .provenance = "github.com/ml-explore/mlx pull 2602 (gate_before_norm for Qwen3-Next too)",
        DELTA_BUG,
        RP_BOTH_MODES,
        .first_part = RP_PART_MIX,
        .ops = {.gated_norm = gate_before_norm},
        .names = "delta-gate",
    },
    {
        .name = "delta-gated-norm-eps",
        .description = "another eps in the gated norm",
        .provenance = "github.com/state-spaces/mamba pull 910 (RMSNormGated with a fixed eps and "
                      "group)",
        DELTA_BUG,
        RP_BOTH_MODES,
        .first_part = RP_PART_MIX,
        .ops = {.gated_norm = other_gated_eps},
        RP_MAGNITUDES(1000, 10, 3, 1.3, 1.03, 1.003, 1.0001, 1.000003),
        .names = "-,norm-eps",
    },
};

const struct rp_bug_family rp_delta_net_bugs = RP_FAMILY(bugs);
