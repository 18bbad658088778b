/* Bugs in the rotation of Q and K. See bugs.h. */
#include "bugs_internal.h"

#include <math.h>
#include <stdlib.h>

static enum rp_status other_ordering(void *context, const struct rp_site *site,
                                     const struct rp_rope *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_rope wrong = *args;
    if (rp_bug_is_here(bug, site))
        wrong.ordering = args->ordering == RP_ROPE_NEOX ? RP_ROPE_INTERLEAVED : RP_ROPE_NEOX;
    return RP_BELOW(bug, rope, site, &wrong);
}

static enum rp_status other_ordering_batched(void *context, const struct rp_site *site,
                                             const struct rp_rope *args)
{
    const struct rp_bug_site *bug = context;
    if (site->mode == RP_MODE_BATCHED)
        return other_ordering(context, site, args);
    return RP_BELOW(bug, rope, site, args);
}

static enum rp_status other_theta(void *context, const struct rp_site *site,
                                  const struct rp_rope *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_rope wrong = *args;
    if (rp_bug_is_here(bug, site))
        wrong.theta = (float)((double)args->theta * bug->choice.magnitude);
    return RP_BELOW(bug, rope, site, &wrong);
}

static enum rp_status no_freq_factors(void *context, const struct rp_site *site,
                                      const struct rp_rope *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_rope wrong = *args;
    if (rp_bug_is_here(bug, site))
        wrong.freq_factors = NULL;
    return RP_BELOW(bug, rope, site, &wrong);
}

static enum rp_status scaled_positions(void *context, const struct rp_site *site,
                                       const struct rp_rope *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_rope wrong = *args;
    float *factors;
    enum rp_status status;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, rope, site, args);
    status = rp_bug_floats(site, args->n_rot / 2, args->freq_factors, &factors);
    if (status != RP_OK)
        return status;
    for (size_t i = 0; i < args->n_rot / 2; i++) {
        double factor = args->freq_factors ? (double)factors[i] : 1.0;
        factors[i] = (float)(factor * bug->choice.magnitude);
    }
    wrong.freq_factors = factors;
    status = RP_BELOW(bug, rope, site, &wrong);
    free(factors);
    return status;
}

/* The whole head where the model rotates a part, half of what it rotates where that is the head. */
static enum rp_status other_dimension(void *context, const struct rp_site *site,
                                      const struct rp_rope *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_rope wrong = *args;
    if (rp_bug_is_here(bug, site))
        wrong.n_rot = args->n_rot < args->head_dim ? args->head_dim : args->n_rot / 2;
    return RP_BELOW(bug, rope, site, &wrong);
}

static enum rp_status k_not_rotated(void *context, const struct rp_site *site,
                                    const struct rp_rope *args)
{
    const struct rp_bug_site *bug = context;
    if (rp_bug_is_here(bug, site) && args->which == RP_ATTN_K)
        return RP_OK;
    return RP_BELOW(bug, rope, site, args);
}

/* Rotates as if the positions were first, first + step, …: first + step * position of the row, or of
 * its index in the call. */
static enum rp_status rope_at(struct rp_bug_site *bug, const struct rp_site *site,
                              const struct rp_rope *args, int64_t first, int64_t step,
                              bool by_index)
{
    struct rp_rope wrong = *args;
    int64_t *positions = calloc(site->n_positions, sizeof *positions);
    enum rp_status status;
    if (!positions)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a bug");
    for (size_t p = 0; p < site->n_positions; p++)
        positions[p] = first + step * (by_index ? (int64_t)p : args->positions[p]);
    wrong.positions = positions;
    status = RP_BELOW(bug, rope, site, &wrong);
    free(positions);
    return status;
}

static enum rp_status q_ahead(void *context, const struct rp_site *site, const struct rp_rope *args)
{
    struct rp_bug_site *bug = context;
    if (rp_bug_is_here(bug, site) && args->which == RP_ATTN_Q)
        return rope_at(bug, site, args, (int64_t)bug->choice.magnitude, 1, false);
    return RP_BELOW(bug, rope, site, args);
}

static enum rp_status restarted(void *context, const struct rp_site *site,
                                const struct rp_rope *args)
{
    struct rp_bug_site *bug = context;
    if (rp_bug_is_here(bug, site))
        return rope_at(bug, site, args, 0, 1, true);
    return RP_BELOW(bug, rope, site, args);
}

static enum rp_status other_direction(void *context, const struct rp_site *site,
                                      const struct rp_rope *args)
{
    struct rp_bug_site *bug = context;
    if (rp_bug_is_here(bug, site))
        return rope_at(bug, site, args, 0, -1, false);
    return RP_BELOW(bug, rope, site, args);
}

/* Angles of few bits, and cosine and sine of the same. */
static enum rp_status coarse_angles(void *context, const struct rp_site *site,
                                    const struct rp_rope *args)
{
    const struct rp_bug_site *bug = context;
    const int bits = (int)bug->choice.magnitude;
    const float scale = args->attention_factor > 0 ? args->attention_factor : 1;
    const bool is_neox = args->ordering == RP_ROPE_NEOX;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, rope, site, args);
    for (size_t i = 0; i < args->n_rot / 2; i++) {
        size_t first = is_neox ? i : 2 * i, second = is_neox ? i + args->n_rot / 2 : 2 * i + 1;
        float inv_freq = 1.0f / powf(args->theta, (float)(2 * i) / (float)args->n_rot);
        if (args->freq_factors)
            inv_freq /= args->freq_factors[i];
        for (size_t row = 0; row < site->n_positions * args->n_heads; row++) {
            size_t p = row / args->n_heads;
            float angle = (float)args->positions[p] * inv_freq;
            float cosine = rp_bug_round(scale * cosf(rp_bug_round(angle, bits)), bits);
            float sine = rp_bug_round(scale * sinf(rp_bug_round(angle, bits)), bits);
            float *x = args->x + row * args->head_dim, a = x[first], b = x[second];
            x[first] = a * cosine - b * sine;
            x[second] = b * cosine + a * sine;
        }
    }
    return RP_OK;
}

static enum rp_status scaled_rotation(void *context, const struct rp_site *site,
                                      const struct rp_rope *args)
{
    const struct rp_bug_site *bug = context;
    enum rp_status status = RP_BELOW(bug, rope, site, args);
    if (status != RP_OK || !rp_bug_is_here(bug, site))
        return status;
    for (size_t row = 0; row < site->n_positions * args->n_heads; row++) {
        for (size_t i = 0; i < args->n_rot; i++) {
            float *x = args->x + row * args->head_dim + i;
            *x = (float)((double)*x * bug->choice.magnitude);
        }
    }
    return RP_OK;
}

#define ROPE_OF(...) .layers = RP_BUG_IN_FULL_ATTENTION, __VA_ARGS__, .spares_position_0 = true
#define ROPE_BUG ROPE_OF(.first_part = RP_PART_QROPE, RP_ALSO(RP_PART_KROPE))

static const struct rp_bug bugs[] = {
    {
        .name = "rope-interleaved-for-neox",
        .description = "RoPE pairs neighbours (2i, 2i + 1) where the model pairs halves",
        .provenance = "github.com/ikawrakow/ik_llama.cpp pull 2290 (39 architectures got NORM for "
                      "NEOX); github.com/huggingface/candle issue 3410",
        .architectures = "qwen3,qwen35",
        ROPE_BUG,
        RP_BOTH_MODES,
        .ops = {.rope = other_ordering},
        .at_position = true,
        .in_head = true,
        .names = "rope-ordering",
    },
    {
        .name = "rope-neox-for-interleaved",
        .description = "RoPE pairs halves (i, i + n_rot/2) although the GGUF's rows are permuted",
        .provenance = "github.com/jzhang38/TinyLlama issue 24 (Llama weights run with the other "
                      "pairing)",
        .architectures = "llama",
        ROPE_BUG,
        RP_BOTH_MODES,
        .ops = {.rope = other_ordering},
        .at_position = true,
        .in_head = true,
        .names = "rope-ordering",
    },
    {
        .name = "rope-batched-only",
        .description = "the batched path pairs RoPE's values the other way; per token it is right",
        .provenance = "github.com/paiml/realizar issue 94 (batched prefill wrong, token by token "
                      "right, with the same file)",
        .architectures = RP_EVERY_ARCHITECTURE,
        ROPE_BUG,
        .in_batched = true,
        .ops = {.rope = other_ordering_batched},
        .names = "rope-ordering",
    },
    {
        .name = "rope-theta",
        .description = "another base: times a factor",
        .provenance = "github.com/vllm-project/vllm-ascend issue 5201 (rope_theta 1e3 where the "
                      "model has 1e6); github.com/vllm-project/vllm pull 9503",
        .architectures = RP_EVERY_ARCHITECTURE,
        ROPE_BUG,
        RP_BOTH_MODES,
        .ops = {.rope = other_theta},
        RP_MAGNITUDES(0.01, 0.5, 0.9, 0.99, 0.999, 0.99999, 0.9999999),
        .at_position = true,
        .in_head = true,
        .names = "rope-theta",
    },
    {
        .name = "rope-scaling-ignored",
        .description = "the frequency factors of Llama 3 are not applied",
        .provenance = "github.com/lablup/mlxcel issue 1355 (rope_scaling parsed and never read); "
                      "github.com/jmaczan/tiny-vllm pull 1",
        .architectures = "llama",
        ROPE_BUG,
        RP_BOTH_MODES,
        .ops = {.rope = no_freq_factors},
        .names = "rope-freq-factors",
    },
    {
        .name = "rope-linear-scaling",
        .description = "positions divided by a factor",
        .provenance = "github.com/Blaizzy/mlx-vlm pull 1710 (ten models with other scaling than "
                      "declared)",
        .architectures = RP_EVERY_ARCHITECTURE,
        ROPE_BUG,
        RP_BOTH_MODES,
        .ops = {.rope = scaled_positions},
        RP_MAGNITUDES(8, 2, 1.25, 1.01, 1.0001, 1.000001, 1.0000002),
        .names = "rope-scaling",
    },
    {
        .name = "rope-dimension",
        .description = "the whole head rotated where the model rotates a part, or a half for the "
                       "whole",
        .provenance =
            "github.com/AI-Hypercomputer/maxtext issue 4616 (partial_rotary_factor "
            "ignored for Qwen3.5); github.com/vllm-project/vllm pull 30384 (applied twice)",
        .architectures = RP_EVERY_ARCHITECTURE,
        ROPE_BUG,
        RP_BOTH_MODES,
        .ops = {.rope = other_dimension},
        .names = "rope-dimension",
    },
    {
        .name = "rope-k-missing",
        .description = "K is stored without having been rotated",
        .provenance = "github.com/RobertCsordas/moeut pull 6 (with a cache, Q and K rotated for "
                      "different positions)",
        .architectures = RP_EVERY_ARCHITECTURE,
        ROPE_OF(.first_part = RP_PART_KROPE),
        RP_BOTH_MODES,
        .ops = {.rope = k_not_rotated},
        .at_position = true,
        .names = "rope-missing",
    },
    {
        .name = "rope-q-ahead",
        .description = "Q is rotated for a later position than its own",
        .provenance = "github.com/fla-org/flash-linear-attention issue 766 (upper layers' offsets "
                      "one too large)",
        .architectures = RP_EVERY_ARCHITECTURE,
        ROPE_OF(.first_part = RP_PART_QROPE),
        RP_BOTH_MODES,
        .ops = {.rope = q_ahead},
        RP_MAGNITUDES(1, 7),
        .names = "rope-position",
    },
    {
        .name = "rope-position-restarts",
        .description = "positions count from 0 in every call: decoding stays at 0",
        .provenance = "github.com/Blaizzy/mlx-vlm issue 1983 (each decoded token at position 0)",
        .architectures = RP_EVERY_ARCHITECTURE,
        ROPE_BUG,
        .in_per_token = true,
        .ops = {.rope = restarted},
        .names = "rope-position,rope-missing",
    },
    {
        .name = "rope-direction",
        .description = "rotated the other way round",
        .provenance = "github.com/labscommunity/cascadia pull 69 (right tables, applied to the "
                      "wrong partner)",
        .architectures = RP_EVERY_ARCHITECTURE,
        ROPE_BUG,
        RP_BOTH_MODES,
        .ops = {.rope = other_direction},
        .names = "rope-direction",
    },
    {
        .name = "rope-coarse-angles",
        .description = "angles, cosine and sine in so many bits of mantissa",
        .provenance = "github.com/EleutherAI/gpt-neox issue 1003 (tables in FP16 and BF16); "
                      "github.com/sgl-project/sglang-jax pull 1473",
        .architectures = RP_EVERY_ARCHITECTURE,
        ROPE_BUG,
        RP_BOTH_MODES,
        .ops = {.rope = coarse_angles},
        RP_MANTISSAS,
        .names = "-",
    },
    {
        .name = "rope-mscale",
        .description = "cosine and sine times YaRN's attention factor: scores times its square",
        .provenance = "github.com/sgl-project/sglang pull 33558 (applied twice); "
                      "github.com/turboderp-org/exllamav3 issue 259 (not at all)",
        .architectures = "qwen3,llama",
        ROPE_BUG,
        RP_BOTH_MODES,
        .ops = {.rope = scaled_rotation},
        RP_FACTORS(1.4852),
        .names = "attention-scale,constant-factor",
    },
    {
        .name = "rope-mscale-partial",
        .description = "the same where a part of the head is rotated: the rest is not scaled",
        .provenance = "github.com/onnxruntime/mobius pull 548 (the factor on the rotated part, not "
                      "on the rest)",
        .architectures = "qwen35",
        ROPE_BUG,
        RP_BOTH_MODES,
        .ops = {.rope = scaled_rotation},
        RP_FACTORS(1.4852),
        .names = "-",
    },
};

const struct rp_bug_family rp_rope_bugs = RP_FAMILY(bugs);
