/* Bugs in what DeepSeek has and the committed models have not: latent attention, and a bias of the router's choice.
 * See bugs.h. cases/families_test.sh tries them. */
#include "bugs_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The first values of each query, in the place of the last ones. */
static enum rp_status rope_in_front(void *context, const struct rp_site *site,
                                    const struct rp_rope *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_rope wrong = *args;
    if (rp_bug_is_here(bug, site))
        wrong.first = 0;
    return RP_BELOW(bug, rope, site, &wrong);
}

static enum rp_status key_not_rotated(void *context, const struct rp_site *site,
                                      const struct rp_rope *args)
{
    const struct rp_bug_site *bug = context;
    if (rp_bug_is_here(bug, site) && args->which == RP_ATTN_K)
        return RP_OK;
    return RP_BELOW(bug, rope, site, args);
}

static enum rp_status no_latent_norm(void *context, const struct rp_site *site,
                                     const struct rp_rms_norm *args)
{
    const struct rp_bug_site *bug = context;
    if (!rp_bug_is_here(bug, site) || args->which != RP_ATTN_KV_A_NORM)
        return RP_BELOW(bug, rms_norm, site, args);
    memmove(args->y, args->x, args->n_rows * args->dim * sizeof *args->y);
    return RP_OK;
}

static enum rp_status scale_by_width(void *context, const struct rp_site *site,
                                     const struct rp_attention *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_attention wrong = *args;
    if (rp_bug_is_here(bug, site))
        wrong.scale = 1.0f / sqrtf((float)args->head_dim);
    return RP_BELOW(bug, attention, site, &wrong);
}

static enum rp_status scores_of_latents(void *context, const struct rp_site *site,
                                        const struct rp_attention *args)
{
    const struct rp_bug_site *bug = context;
    const size_t n_heads = site->n_positions * args->n_heads, n_rot = site->config->n_rot;
    struct rp_attention wrong = *args;
    float *q;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, attention, site, args);
    enum rp_status status = rp_bug_floats(site, n_heads * args->head_dim, args->q, &q);
    if (status != RP_OK)
        return status;
    for (size_t i = 1; i <= n_heads; i++)
        memset(q + i * args->head_dim - n_rot, 0, n_rot * sizeof *q);
    wrong.q = q;
    status = RP_BELOW(bug, attention, site, &wrong);
    free(q);
    return status;
}

/* YaRN's part of the scale is left out. */
static enum rp_status scale_without_mscale(void *context, const struct rp_site *site,
                                           const struct rp_attention *args)
{
    const struct rp_bug_site *bug = context;
    const struct rp_model_config *config = site->config;
    struct rp_attention wrong = *args;
    if (rp_bug_is_here(bug, site))
        wrong.scale = 1.0f / sqrtf((float)(config->nope_dim + config->n_rot));
    return RP_BELOW(bug, attention, site, &wrong);
}

/* The bias is remembered where it chooses, and added to the weights. */
static enum rp_status keep_correction(void *context, const struct rp_site *site,
                                      const struct rp_choose_experts *args)
{
    struct rp_bug_site *bug = context;
    bug->kept_weights[0] = args->correction;
    return RP_BELOW(bug, choose_experts, site, args);
}

static enum rp_status corrected_weights(void *context, const struct rp_site *site,
                                        const struct rp_weigh_experts *args)
{
    const struct rp_bug_site *bug = context;
    const struct rp_router *router = args->router;
    if (!rp_bug_is_here(bug, site) || !bug->kept_weights[0])
        return RP_BELOW(bug, weigh_experts, site, args);
    for (size_t p = 0; p < site->n_positions; p++) {
        const float *experts = args->experts + p * router->n_chosen;
        float *weights = args->weights + p * router->n_chosen, sum = 0;
        for (size_t k = 0; k < router->n_chosen; k++) {
            const size_t expert = (size_t)experts[k];
            const float logit = args->logits[p * router->n_experts + expert];
            weights[k] = 1 / (1 + expf(-logit)) + bug->kept_weights[0][expert];
            sum += weights[k];
        }
        for (size_t k = 0; k < router->n_chosen; k++)
            weights[k] *= router->scale / sum;
    }
    return RP_OK;
}

/* Value i of a head's matrix is value from[i] of the right one, by head. */
static enum rp_status run_with(const struct rp_bug_site *bug, const struct rp_site *site,
                               const struct rp_head_linear *args, bool is_transposed)
{
    const size_t n = args->n_out * args->n_in;
    struct rp_head_linear wrong = *args;
    float *weight;
    enum rp_status status = rp_bug_floats(site, args->n_heads * n, NULL, &weight);
    if (status != RP_OK)
        return status;
    for (size_t at = 0; at < args->n_heads * n; at++) {
        const size_t head = at / n, i = at % n;
        weight[at] = is_transposed
                         ? args->weight[head * n + i % args->n_out * args->n_in + i / args->n_out]
                         : args->weight[(head + 1) % args->n_heads * n + i];
    }
    wrong.weight = weight;
    status = RP_BELOW(bug, head_linear, site, &wrong);
    free(weight);
    return status;
}

static enum rp_status k_b_transposed(void *context, const struct rp_site *site,
                                     const struct rp_head_linear *args)
{
    const struct rp_bug_site *bug = context;
    if (rp_bug_is_here(bug, site) && args->which == RP_ATTN_K_B)
        return run_with(bug, site, args, true);
    return RP_BELOW(bug, head_linear, site, args);
}

static enum rp_status v_b_of_next_head(void *context, const struct rp_site *site,
                                       const struct rp_head_linear *args)
{
    const struct rp_bug_site *bug = context;
    if (rp_bug_is_here(bug, site) && args->which == RP_ATTN_V_B)
        return run_with(bug, site, args, false);
    return RP_BELOW(bug, head_linear, site, args);
}

#define LATENT_BUG .architectures = "deepseek2", .layers = RP_BUG_IN_FULL_ATTENTION, RP_BOTH_MODES

static const struct rp_bug bugs[] = {
    {
        .name = "latent-rope-in-front",
        .description = "RoPE rotates the first values of a query, which are not to be rotated",
        .provenance = "github.com/junfanz1/MiniGPT-and-DeepSeek-MLA-Multi-Head-Latent-Attention "
                      "issue 1 (RoPE of the other part's width)",
        LATENT_BUG,
        .ops.rope = rope_in_front,
        .first_part = RP_PART_QROPE,
        .names = "rope-on-nope-part",
        .spares_position_0 = true,
    },
    {
        .name = "latent-key-not-rotated",
        .description = "the key that all heads share is not rotated",
        .provenance = "github.com/sqliteai/warp pull 27 (neither part was rotated)",
        LATENT_BUG,
        .ops.rope = key_not_rotated,
        .first_part = RP_PART_KROPE,
        .names = "rope-missing",
        .spares_position_0 = true,
    },
    {
        .name = "latent-norm-missing",
        .description = "the latent's norm is left out",
        .provenance = "github.com/sgl-project/sglang issue 3072 (the paper has none)",
        LATENT_BUG,
        .ops.rms_norm = no_latent_norm,
        .first_part = RP_PART_KVANORM,
        .names = "norm-missing",
    },
    {
        .name = "latent-scale-by-width",
        .description = "absorbed, scores are scaled by the latent's width, not a head's",
        .provenance = "github.com/ollama/ollama pull 13893",
        LATENT_BUG,
        .ops.attention = scale_by_width,
        .first_part = RP_PART_LATENT,
        .names = "attention-scale",
        .spares_position_0 = true,
    },
    {
        .name = "latent-mscale-missing",
        .description = "attention's scale without the square of YaRN's mscale",
        .provenance = "github.com/onnxruntime/mobius pull 548; github.com/huggingface/transformers "
                      "pull 47435",
        LATENT_BUG,
        .ops.attention = scale_without_mscale,
        .first_part = RP_PART_LATENT,
        .names = "attention-scale",
        .spares_position_0 = true,
    },
    {
        .name = "router-bias-in-weights",
        .description = "the bias that is to choose experts is in their weights, too",
        .provenance = "github.com/huggingface/transformers pull 41647; "
                      "github.com/vllm-project/vllm pull 12002",
        LATENT_BUG,
        .ops = {.choose_experts = keep_correction, .weigh_experts = corrected_weights},
        .first_part = RP_PART_EXPERTW,
        .names = "router-correction",
    },
    {
        .name = "latent-scores-alone",
        .description = "scores are of the latents alone, without the rotated parts",
        .provenance =
            "github.com/gpu-mode/reference-kernels pull 30 (latent attention without RoPE)",
        LATENT_BUG,
        .ops.attention = scores_of_latents,
        .first_part = RP_PART_LATENT,
        .names = "attention-parts",
        .spares_position_0 = true,
    },
    {
        .name = "latent-k_b-transposed",
        .description = "attn_k_b's matrices are taken as kv_b_proj has them, not transposed",
        .provenance = "github.com/vllm-project/tpu-inference pull 2786",
        LATENT_BUG,
        .ops.head_linear = k_b_transposed,
        .first_part = RP_PART_QABSORBED,
        .names = "weights-transposed",
    },
    {
        .name = "latent-v_b-heads",
        .description = "each head reads the next one's matrix of attn_v_b",
        .provenance = "github.com/ikawrakow/ik_llama.cpp pull 2130 (heads folded into the rows)",
        LATENT_BUG,
        .ops.head_linear = v_b_of_next_head,
        .first_part = RP_PART_ATTN,
        .names = "weights-heads",
    },
};

const struct rp_bug_family rp_deepseek_bugs = RP_FAMILY(bugs);
