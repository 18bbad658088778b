/* See bugs.h. One small function per bug, then the table. */
#include "bugs.h"

#include <float.h>
#include <math.h>
#include <string.h>

static bool is_here(const struct rp_bug_site *bug, const struct rp_site *site)
{
    return site->layer >= 0 && (bug->layer == RP_BUG_ALL_LAYERS || bug->layer == site->layer);
}

static enum rp_status other_rope_ordering(void *context, const struct rp_site *site,
                                          const struct rp_rope *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_rope wrong = *args;
    if (is_here(bug, site))
        wrong.ordering = args->ordering == RP_ROPE_NEOX ? RP_ROPE_INTERLEAVED : RP_ROPE_NEOX;
    return bug->overlay.below->rope(bug->overlay.below->context, site, &wrong);
}

static void replace_rope_ordering(struct rp_ops *ops)
{
    ops->rope = other_rope_ordering;
}

static enum rp_status other_rope_ordering_batched(void *context, const struct rp_site *site,
                                                  const struct rp_rope *args)
{
    const struct rp_bug_site *bug = context;
    if (site->mode == RP_MODE_BATCHED)
        return other_rope_ordering(context, site, args);
    return bug->overlay.below->rope(bug->overlay.below->context, site, args);
}

static void replace_rope_batched(struct rp_ops *ops)
{
    ops->rope = other_rope_ordering_batched;
}

static enum rp_status no_qk_norm(void *context, const struct rp_site *site,
                                 const struct rp_rms_norm *args)
{
    const struct rp_bug_site *bug = context;
    bool is_qk = args->which == RP_ATTN_Q_NORM || args->which == RP_ATTN_K_NORM;
    if (!is_here(bug, site) || !is_qk)
        return bug->overlay.below->rms_norm(bug->overlay.below->context, site, args);
    memmove(args->y, args->x, args->n_rows * args->dim * sizeof *args->x);
    return RP_OK;
}

static void replace_qk_norm(struct rp_ops *ops)
{
    ops->rms_norm = no_qk_norm;
}

static enum rp_status ten_times_eps(void *context, const struct rp_site *site,
                                    const struct rp_rms_norm *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_rms_norm wrong = *args;
    if (is_here(bug, site) && args->which == RP_ATTN_NORM)
        wrong.eps = 10 * args->eps;
    return bug->overlay.below->rms_norm(bug->overlay.below->context, site, &wrong);
}

static void replace_eps(struct rp_ops *ops)
{
    ops->rms_norm = ten_times_eps;
}

static enum rp_status half_ffn(void *context, const struct rp_site *site,
                               const struct rp_linear *args)
{
    const struct rp_bug_site *bug = context;
    enum rp_status status = bug->overlay.below->linear(bug->overlay.below->context, site, args);
    if (status != RP_OK || !is_here(bug, site) || args->which != RP_FFN_DOWN)
        return status;
    for (size_t p = 0; p < site->n_positions; p++) {
        for (size_t i = 0; i < args->n_out; i++)
            args->y[p * args->y_stride + i] *= 0.5f;
    }
    return RP_OK;
}

static void replace_ffn_down(struct rp_ops *ops)
{
    ops->linear = half_ffn;
}

/* The log of what the state is to be multiplied by, for what it is to be multiplied by. */
static enum rp_status decay_without_exp(void *context, const struct rp_site *site,
                                        const struct rp_delta_gates *args)
{
    const struct rp_bug_site *bug = context;
    enum rp_status status =
        bug->overlay.below->delta_gates(bug->overlay.below->context, site, args);
    if (status != RP_OK || !is_here(bug, site))
        return status;
    for (size_t i = 0; i < site->n_positions * args->n_heads; i++)
        args->decay[i] = logf(args->decay[i] + FLT_MIN); /* the decay may round to 0 */
    return RP_OK;
}

static void replace_delta_gates(struct rp_ops *ops)
{
    ops->delta_gates = decay_without_exp;
}

static enum rp_status conv_from_zeros(void *context, const struct rp_site *site,
                                      const struct rp_causal_conv1d *args)
{
    const struct rp_bug_site *bug = context;
    if (is_here(bug, site))
        memset(args->state, 0, (args->kernel - 1) * args->n_channels * sizeof *args->state);
    return bug->overlay.below->causal_conv1d(bug->overlay.below->context, site, args);
}

static void replace_conv(struct rp_ops *ops)
{
    ops->causal_conv1d = conv_from_zeros;
}

static enum rp_status no_attention_gate(void *context, const struct rp_site *site,
                                        const struct rp_attention_gate *args)
{
    const struct rp_bug_site *bug = context;
    if (is_here(bug, site))
        return RP_OK;
    return bug->overlay.below->attention_gate(bug->overlay.below->context, site, args);
}

static void replace_attention_gate(struct rp_ops *ops)
{
    ops->attention_gate = no_attention_gate;
}

static void drop_last_token(int32_t *tokens, size_t *n_tokens)
{
    if (*n_tokens > 1)
        tokens[--*n_tokens] = -1; /* no token: it would be refused if anything still read it */
}

const struct rp_bug rp_bugs[] = {
    {
        .name = "rope-interleaved-for-neox",
        .description = "RoPE pairs neighbours (2i, 2i + 1) where the model pairs halves",
        .provenance = "github.com/ikawrakow/ik_llama.cpp pull 2290 (39 architectures got NORM for "
                      "NEOX); github.com/huggingface/candle issue 3410",
        .architectures = "qwen3,qwen35",
        .layers = RP_BUG_IN_FULL_ATTENTION,
        .first_part = RP_PART_POSTATTN,
        .in_per_token = true,
        .in_batched = true,
        .spares_position_0 = true,
        .replace = replace_rope_ordering,
    },
    {
        .name = "rope-neox-for-interleaved",
        .description = "RoPE pairs halves (i, i + n_rot/2) although the GGUF's rows are permuted",
        .provenance = "github.com/jzhang38/TinyLlama issue 24 (Llama weights run with the other "
                      "pairing)",
        .architectures = "llama",
        .layers = RP_BUG_IN_FULL_ATTENTION,
        .first_part = RP_PART_POSTATTN,
        .in_per_token = true,
        .in_batched = true,
        .spares_position_0 = true,
        .replace = replace_rope_ordering,
    },
    {
        .name = "rope-batched-only",
        .description = "the batched path pairs RoPE's values the other way; per token it is right",
        .provenance = "github.com/paiml/realizar issue 94 (batched prefill wrong, token by token "
                      "right, with the same file)",
        .architectures = "qwen3,llama,qwen35",
        .layers = RP_BUG_IN_FULL_ATTENTION,
        .first_part = RP_PART_POSTATTN,
        .in_per_token = false,
        .in_batched = true,
        .spares_position_0 = true,
        .replace = replace_rope_batched,
    },
    {
        .name = "qk-norm-off",
        .description = "Q and K are not normed before RoPE",
        .provenance = "github.com/timtoole02/Camelid pull 266 (Qwen3 loaded without its QK-norm)",
        .architectures = "qwen3,qwen35",
        .layers = RP_BUG_IN_FULL_ATTENTION,
        .first_part = RP_PART_POSTATTN,
        .in_per_token = true,
        .in_batched = true,
        .spares_position_0 = true,
        .replace = replace_qk_norm,
    },
    {
        .name = "eps",
        .description = "ten times the eps in the layer's input norm: 1e-5 for 1e-6",
        .provenance = "github.com/ggml-org/llama.cpp issue 2373 (eps hardcoded, another in the "
                      "model)",
        .architectures = "qwen3,llama,qwen35",
        .layers = RP_BUG_IN_ANY_LAYER,
        .first_part = RP_PART_POSTATTN,
        .in_per_token = true,
        .in_batched = true,
        .spares_position_0 = false,
        .replace = replace_eps,
    },
    {
        .name = "ffn-half",
        .description = "the FFN's output times 0.5",
        .provenance = "github.com/ndif-team/nnterp issue 54 (a sublayer's output off by a constant "
                      "factor)",
        .architectures = "qwen3,llama,qwen35",
        .layers = RP_BUG_IN_ANY_LAYER,
        .first_part = RP_PART_FFNOUT,
        .in_per_token = true,
        .in_batched = true,
        .spares_position_0 = false,
        .replace = replace_ffn_down,
    },
    {
        .name = "delta-decay-without-exp",
        .description = "the DeltaNet's state is multiplied by g, the log of its decay",
        .provenance = "github.com/llmmanorg/llmman pull 16 (Qwen3.5's linear attention with wrong "
                      "decay and gating)",
        .architectures = "qwen35",
        .layers = RP_BUG_IN_LINEAR_ATTENTION,
        .first_part = RP_PART_POSTATTN,
        .in_per_token = true,
        .in_batched = true,
        .spares_position_0 = true,
        .replace = replace_delta_gates,
    },
    {
        .name = "conv-state-lost",
        .description = "the convolution starts from zeros at every call, not from its last inputs",
        .provenance = "github.com/mratsim/tattletale pull 80 (Qwen3.5: a continuation drops the "
                      "convolution's history)",
        .architectures = "qwen35",
        .layers = RP_BUG_IN_LINEAR_ATTENTION,
        .first_part = RP_PART_POSTATTN,
        .in_per_token = true,
        .in_batched = false,
        .spares_position_0 = true,
        .replace = replace_conv,
    },
    {
        .name = "attention-gate-missing",
        .description = "full attention's output is not multiplied by the sigmoid of its gate",
        .provenance = "github.com/trymirai/lalamo pull 267 (another function in the sigmoid's "
                      "place)",
        .architectures = "qwen35",
        .layers = RP_BUG_IN_FULL_ATTENTION,
        .first_part = RP_PART_POSTATTN,
        .in_per_token = true,
        .in_batched = true,
        .spares_position_0 = false,
        .replace = replace_attention_gate,
    },
    {
        .name = "drop-last-token",
        .description = "the prompt's last token never reaches the model",
        .provenance = "github.com/Integral2u/SharpMind issue 57 (prefill silently skips tokens)",
        .architectures = "qwen3,llama,qwen35",
        .layers = RP_BUG_IN_NO_LAYER,
        .first_part = RP_PART_OTHER,
        .in_per_token = true,
        .in_batched = true,
        .spares_position_0 = true,
        .change_prompt = drop_last_token,
    },
};

const size_t rp_n_bugs = sizeof rp_bugs / sizeof *rp_bugs;

const struct rp_bug *rp_bug_find(const char *name)
{
    for (size_t i = 0; i < rp_n_bugs; i++) {
        if (strcmp(rp_bugs[i].name, name) == 0)
            return &rp_bugs[i];
    }
    return NULL;
}

bool rp_bug_applies(const struct rp_bug *bug, const char *architecture)
{
    size_t length = strlen(architecture);
    for (const char *at = bug->architectures; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, architecture, length) == 0 && (at[length] == ',' || !at[length]))
            return true;
    }
    return false;
}

bool rp_bug_applies_to_layer(const struct rp_bug *bug, const struct rp_model_config *config,
                             size_t layer)
{
    enum rp_layer_kind kind = config->layer_kinds[layer];
    switch (bug->layers) {
    case RP_BUG_IN_ANY_LAYER: return true;
    case RP_BUG_IN_FULL_ATTENTION: return kind == RP_LAYER_FULL_ATTENTION;
    case RP_BUG_IN_LINEAR_ATTENTION: return kind == RP_LAYER_LINEAR_ATTENTION;
    case RP_BUG_IN_NO_LAYER: break;
    }
    return false;
}

void rp_bug_install(const struct rp_bug *bug, int layer, const struct rp_ops *below,
                    struct rp_bug_site *site)
{
    rp_overlay_open(&site->overlay, below);
    site->layer = layer;
    if (bug->replace)
        bug->replace(&site->overlay.ops);
}
