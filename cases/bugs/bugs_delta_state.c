/* Bugs in the recurrence of a gated DeltaNet: its scale, heads, state and order. See bugs.h. */
#include "bugs_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 16 /* positions, at whose boundary the state is lost */

static enum rp_status other_scale(void *context, const struct rp_site *site,
                                  const struct rp_delta_rule *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_delta_rule wrong = *args;
    if (rp_bug_is_here(bug, site))
        wrong.scale = (float)((double)args->scale * bug->choice.magnitude);
    return RP_BELOW(bug, delta_rule, site, &wrong);
}

/* V head `head` alone, with K head k_head. */
static enum rp_status run_head(const struct rp_bug_site *bug, const struct rp_site *site,
                               const struct rp_delta_rule *args, size_t head, size_t k_head)
{
    const size_t dim = args->head_dim, n = site->n_positions;
    float *decay = NULL, *beta = NULL, *y = NULL;
    struct rp_delta_rule one = *args;
    enum rp_status status = rp_bug_floats(site, n, NULL, &decay);
    if (status == RP_OK)
        status = rp_bug_floats(site, n, NULL, &beta);
    if (status == RP_OK)
        status = rp_bug_floats(site, n * dim, NULL, &y);
    if (status != RP_OK)
        goto done;
    for (size_t p = 0; p < n; p++) {
        decay[p] = args->decay[p * args->n_v_heads + head];
        beta[p] = args->beta[p * args->n_v_heads + head];
    }
    one.n_k_heads = one.n_v_heads = 1;
    one.q += k_head * dim;
    one.k += k_head * dim;
    one.v += head * dim;
    one.decay = decay;
    one.beta = beta;
    one.state += head * dim * dim;
    one.y = y;
    status = RP_BELOW(bug, delta_rule, site, &one);
    for (size_t p = 0; p < n; p++)
        memcpy(args->y + (p * args->n_v_heads + head) * dim, y + p * dim, dim * sizeof *y);
done:
    free(decay);
    free(beta);
    free(y);
    return status;
}

static enum rp_status other_k_heads(void *context, const struct rp_site *site,
                                    const struct rp_delta_rule *args)
{
    const struct rp_bug_site *bug = context;
    enum rp_status status = RP_OK;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, delta_rule, site, args);
    for (size_t head = 0; head < args->n_v_heads && status == RP_OK; head++)
        status = run_head(bug, site, args, head, head / (args->n_v_heads / args->n_k_heads));
    return status;
}

static size_t state_size(const struct rp_delta_rule *args)
{
    return args->n_v_heads * args->head_dim * args->head_dim;
}

static enum rp_status state_lost(void *context, const struct rp_site *site,
                                 const struct rp_delta_rule *args)
{
    const struct rp_bug_site *bug = context;
    if (rp_bug_is_here(bug, site))
        memset(args->state, 0, state_size(args) * sizeof *args->state);
    return RP_BELOW(bug, delta_rule, site, args);
}

/* Positions p .. p + n of a call. */
static enum rp_status run_part(const struct rp_bug_site *bug, const struct rp_site *site,
                               const struct rp_delta_rule *args, size_t p, size_t n)
{
    struct rp_site here = *site;
    struct rp_delta_rule part = *args;
    here.n_positions = n;
    here.positions += p;
    part.q += p * args->qkv_stride;
    part.k += p * args->qkv_stride;
    part.v += p * args->qkv_stride;
    part.decay += p * args->n_v_heads;
    part.beta += p * args->n_v_heads;
    part.y += p * args->n_v_heads * args->head_dim;
    return RP_BELOW(bug, delta_rule, &here, &part);
}

static enum rp_status state_lost_at_chunks(void *context, const struct rp_site *site,
                                           const struct rp_delta_rule *args)
{
    const struct rp_bug_site *bug = context;
    enum rp_status status = RP_OK;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, delta_rule, site, args);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        if (site->positions[p] % CHUNK == 0)
            memset(args->state, 0, state_size(args) * sizeof *args->state);
        status = run_part(bug, site, args, p, 1);
    }
    return status;
}

static enum rp_status state_rounded(void *context, const struct rp_site *site,
                                    const struct rp_delta_rule *args)
{
    const struct rp_bug_site *bug = context;
    enum rp_status status = RP_OK;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, delta_rule, site, args);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        for (size_t i = 0; i < state_size(args); i++)
            args->state[i] = rp_bug_round(args->state[i], (int)bug->choice.magnitude);
        status = run_part(bug, site, args, p, 1);
    }
    return status;
}

/* One head at one position. is_late: what v lacks is taken from the state before its decay.
 * is_transposed: Q reads the state's other index. */
static void step(const struct rp_delta_rule *args, size_t p, size_t head, bool is_late,
                 bool is_transposed)
{
    const size_t dim = args->head_dim, k_at = p * args->qkv_stride + head % args->n_k_heads * dim;
    const float *q = args->q + k_at, *k = args->k + k_at;
    const float *v = args->v + p * args->qkv_stride + head * dim;
    const float decay = expf(args->decay[p * args->n_v_heads + head]);
    const float beta = args->beta[p * args->n_v_heads + head];
    float *state = args->state + head * dim * dim;
    float *y = args->y + (p * args->n_v_heads + head) * dim;
    for (size_t j = 0; j < dim; j++) {
        float known = 0;
        for (size_t i = 0; i < dim; i++)
            known += state[i * dim + j] * (is_late ? 1 : decay) * k[i];
        y[j] = beta * (v[j] - known);
    }
    for (size_t i = 0; i < dim; i++) {
        for (size_t j = 0; j < dim; j++)
            state[i * dim + j] = state[i * dim + j] * decay + k[i] * y[j];
    }
    for (size_t j = 0; j < dim; j++) {
        float sum = 0;
        for (size_t i = 0; i < dim; i++)
            sum += (is_transposed ? state[j * dim + i] : state[i * dim + j]) * q[i];
        y[j] = args->scale * sum;
    }
}

static enum rp_status run_steps(const struct rp_bug_site *bug, const struct rp_site *site,
                                const struct rp_delta_rule *args, bool is_late, bool is_transposed)
{
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, delta_rule, site, args);
    for (size_t p = 0; p < site->n_positions; p++) {
        for (size_t head = 0; head < args->n_v_heads; head++)
            step(args, p, head, is_late, is_transposed);
    }
    return RP_OK;
}

static enum rp_status update_before_decay(void *context, const struct rp_site *site,
                                          const struct rp_delta_rule *args)
{
    return run_steps(context, site, args, true, false);
}

static enum rp_status state_transposed(void *context, const struct rp_site *site,
                                       const struct rp_delta_rule *args)
{
    return run_steps(context, site, args, false, true);
}

#define DELTA_BUG \
    .architectures = "qwen35", .layers = RP_BUG_IN_LINEAR_ATTENTION, .first_part = RP_PART_DELTA

static const struct rp_bug bugs[] = {
    {
        .name = "delta-scale",
        .description = "Q times a factor; 4 is no scale at all with heads of 16. The norm after it "
                       "hides all but its eps",
        .provenance = "github.com/NeuraLegion/shainet pull 176 (the query's scale missing); "
                      "github.com/ml-explore/mlx-lm pull 1823",
        DELTA_BUG,
        RP_BOTH_MODES,
        .ops = {.delta_rule = other_scale},
        RP_FACTORS(4),
        .in_head = true,
        .names = "delta-scale",
    },
    {
        .name = "delta-head-mapping",
        .description = "V head h reads K head h / (V heads / K heads), which is HF's order",
        .provenance = "github.com/NeuraLegion/shainet pull 204 (h // n for h % n with a GGUF); "
                      "github.com/sgl-project/sglang pull 36873",
        DELTA_BUG,
        RP_BOTH_MODES,
        .ops = {.delta_rule = other_k_heads},
        .at_position = true,
        .in_head = true,
        .names = "delta-head-mapping",
    },
    {
        .name = "delta-state-lost",
        .description = "the state is zero at the beginning of every call",
        .provenance = "github.com/gittensor-ai-lab/sparkinfer pull 1071 (each pass from a zero "
                      "state); github.com/lablup/mlxcel issue 1749",
        DELTA_BUG,
        .in_per_token = true,
        .spares_position_0 = true,
        .ops = {.delta_rule = state_lost},
        .names = "delta-state,delta-decay",
    },
    {
        .name = "delta-state-lost-at-chunks",
        .description = "the state is zero again at every 16th position",
        .provenance = "github.com/syv-ai/qwen38-27b-rtx3090 pull 43 (state lost at block "
                      "boundaries); github.com/huggingface/transformers pull 46741",
        DELTA_BUG,
        RP_BOTH_MODES,
        .spares_position_0 = true,
        .ops = {.delta_rule = state_lost_at_chunks},
        .names = "delta-state",
    },
    {
        .name = "delta-state-rounded",
        .description = "the state is kept in so many bits of mantissa",
        .provenance =
            "github.com/ml-explore/mlx-lm pull 988 (state cut to the model's type at each "
            "step); github.com/vllm-project/vllm issue 13466",
        DELTA_BUG,
        RP_BOTH_MODES,
        .spares_position_0 = true,
        .ops = {.delta_rule = state_rounded},
        RP_MANTISSAS,
        .names = "-",
    },
    {
        .name = "delta-update-before-decay",
        .description = "what v lacks is taken from the state before its decay",
        .provenance = "github.com/fla-org/flash-linear-attention issue 885 (both orders, "
                      "discussed)",
        DELTA_BUG,
        RP_BOTH_MODES,
        .spares_position_0 = true,
        .ops = {.delta_rule = update_before_decay},
        .names = "delta-order",
    },
    {
        .name = "delta-state-transposed",
        .description = "Q reads the state's other index",
        .provenance = "github.com/flashinfer-ai/flashinfer-bench pull 156 (order of the equations "
                      "against the layout)",
        DELTA_BUG,
        RP_BOTH_MODES,
        .ops = {.delta_rule = state_transposed},
        .at_position = true,
        .names = "delta-state,-",
    },
};

const struct rp_bug_family rp_delta_state_bugs = RP_FAMILY(bugs);
