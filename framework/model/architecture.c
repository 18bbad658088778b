/* See model/architecture.h. */
#include "model/architecture.h"

#include <stdio.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* kind, weight, from, to, slot part */
/* clang-format off */
#define TAP(part, from)    {RP_STEP_TAP, RP_N_WEIGHTS, from, from, part}
#define STEP(kind, weight, from, to) {kind, weight, from, to, RP_PART_OTHER}
#define RMS_NORM(weight, from, to) STEP(RP_STEP_RMS_NORM, weight, from, to)
#define LINEAR(weight, from, to)   STEP(RP_STEP_LINEAR, weight, from, to)
#define ROPE(weight, buffer)       STEP(RP_STEP_ROPE, weight, buffer, buffer)
#define KV_STORE       STEP(RP_STEP_KV_STORE, RP_N_WEIGHTS, RP_BUFFER_K, RP_BUFFER_V)
#define ATTENTION      STEP(RP_STEP_ATTENTION, RP_N_WEIGHTS, RP_BUFFER_Q, RP_BUFFER_HEADS)
#define SPLIT_GATE     STEP(RP_STEP_SPLIT_GATE, RP_N_WEIGHTS, RP_BUFFER_Q_AND_GATE, RP_BUFFER_Q)
#define ATTENTION_GATE \
    STEP(RP_STEP_ATTENTION_GATE, RP_N_WEIGHTS, RP_BUFFER_HEADS_GATE, RP_BUFFER_HEADS)
#define CAUSAL_CONV1D \
    STEP(RP_STEP_CAUSAL_CONV1D, RP_SSM_CONV1D, RP_BUFFER_QKV, RP_BUFFER_CONV_QKV)
#define L2_NORM(of)    STEP(RP_STEP_L2_NORM, of, RP_BUFFER_CONV_QKV, RP_BUFFER_CONV_QKV)
#define DELTA_DECAY    STEP(RP_STEP_DELTA_DECAY, RP_N_WEIGHTS, RP_BUFFER_DECAY, RP_BUFFER_DECAY)
#define DELTA_BETA     STEP(RP_STEP_DELTA_BETA, RP_N_WEIGHTS, RP_BUFFER_BETA, RP_BUFFER_BETA)
#define DELTA_RULE     STEP(RP_STEP_DELTA_RULE, RP_N_WEIGHTS, RP_BUFFER_CONV_QKV, RP_BUFFER_DELTA)
#define GATED_NORM     STEP(RP_STEP_GATED_NORM, RP_SSM_NORM, RP_BUFFER_DELTA, RP_BUFFER_DELTA)
#define FFN_ACTIVATION STEP(RP_STEP_FFN_ACTIVATION, RP_N_WEIGHTS, RP_BUFFER_GATE, RP_BUFFER_GATE)
#define RESIDUAL_ADD(weight) STEP(RP_STEP_RESIDUAL_ADD, weight, RP_BUFFER_BRANCH, RP_BUFFER_HIDDEN)
/* What every layer does before its token mixer, and after it. */
#define BEGIN                                                   \
    TAP(RP_PART_IN, RP_BUFFER_HIDDEN),                          \
    RMS_NORM(RP_ATTN_NORM, RP_BUFFER_HIDDEN, RP_BUFFER_NORMED), \
    TAP(RP_PART_PREATTN, RP_BUFFER_NORMED)
#define PROJECT(weight, part, to) \
    LINEAR(weight, RP_BUFFER_NORMED, to), TAP(part, to)
#define NORM_HEADS(weight, part, buffer) \
    RMS_NORM(weight, buffer, buffer), TAP(part, buffer)
#define ROTATE(weight, part, buffer) \
    ROPE(weight, buffer), TAP(part, buffer)
#define ATTEND \
    KV_STORE, ATTENTION, TAP(RP_PART_ATTN, RP_BUFFER_HEADS)
#define MIXER_OUT(weight, from)                      \
    LINEAR(weight, from, RP_BUFFER_BRANCH),          \
    TAP(RP_PART_ATTNOUT, RP_BUFFER_BRANCH),          \
    RESIDUAL_ADD(weight),                            \
    TAP(RP_PART_POSTATTN, RP_BUFFER_HIDDEN)
#define FFN                                                    \
    RMS_NORM(RP_FFN_NORM, RP_BUFFER_HIDDEN, RP_BUFFER_NORMED), \
    TAP(RP_PART_PREFFN, RP_BUFFER_NORMED),                     \
    PROJECT(RP_FFN_GATE, RP_PART_GATE, RP_BUFFER_GATE),        \
    PROJECT(RP_FFN_UP, RP_PART_UP, RP_BUFFER_UP),              \
    FFN_ACTIVATION,                                            \
    TAP(RP_PART_ACT, RP_BUFFER_GATE),                          \
    LINEAR(RP_FFN_DOWN, RP_BUFFER_GATE, RP_BUFFER_BRANCH),     \
    TAP(RP_PART_FFNOUT, RP_BUFFER_BRANCH),                     \
    RESIDUAL_ADD(RP_FFN_DOWN),                                 \
    TAP(RP_PART_OUTPUT, RP_BUFFER_HIDDEN)
/* clang-format on */

/* HF: LlamaDecoderLayer. */
static const struct rp_step llama_layer[] = {
    BEGIN,
    PROJECT(RP_ATTN_Q, RP_PART_Q, RP_BUFFER_Q),
    PROJECT(RP_ATTN_K, RP_PART_K, RP_BUFFER_K),
    PROJECT(RP_ATTN_V, RP_PART_V, RP_BUFFER_V),
    ROTATE(RP_ATTN_Q, RP_PART_QROPE, RP_BUFFER_Q),
    ROTATE(RP_ATTN_K, RP_PART_KROPE, RP_BUFFER_K),
    ATTEND,
    MIXER_OUT(RP_ATTN_OUTPUT, RP_BUFFER_HEADS),
    FFN,
};

/* HF: Qwen3DecoderLayer; each head of Q and K is normed before it is rotated. */
static const struct rp_step qwen3_layer[] = {
    BEGIN,
    PROJECT(RP_ATTN_Q, RP_PART_Q, RP_BUFFER_Q),
    PROJECT(RP_ATTN_K, RP_PART_K, RP_BUFFER_K),
    PROJECT(RP_ATTN_V, RP_PART_V, RP_BUFFER_V),
    NORM_HEADS(RP_ATTN_Q_NORM, RP_PART_QNORM, RP_BUFFER_Q),
    NORM_HEADS(RP_ATTN_K_NORM, RP_PART_KNORM, RP_BUFFER_K),
    ROTATE(RP_ATTN_Q, RP_PART_QROPE, RP_BUFFER_Q),
    ROTATE(RP_ATTN_K, RP_PART_KROPE, RP_BUFFER_K),
    ATTEND,
    MIXER_OUT(RP_ATTN_OUTPUT, RP_BUFFER_HEADS),
    FFN,
};

/* HF: Qwen3_5DecoderLayer with Qwen3_5GatedDeltaNet. */
static const struct rp_step qwen35_linear_layer[] = {
    BEGIN,
    PROJECT(RP_ATTN_QKV, RP_PART_QKV, RP_BUFFER_QKV),
    PROJECT(RP_ATTN_GATE, RP_PART_Z, RP_BUFFER_DELTA_GATE),
    PROJECT(RP_SSM_ALPHA, RP_PART_A, RP_BUFFER_DECAY),
    PROJECT(RP_SSM_BETA, RP_PART_B, RP_BUFFER_BETA),
    CAUSAL_CONV1D,
    TAP(RP_PART_CONV, RP_BUFFER_CONV_QKV),
    DELTA_DECAY,
    TAP(RP_PART_DECAY, RP_BUFFER_DECAY),
    DELTA_BETA,
    TAP(RP_PART_BETA, RP_BUFFER_BETA),
    L2_NORM(RP_ATTN_Q),
    L2_NORM(RP_ATTN_K),
    DELTA_RULE,
    TAP(RP_PART_DELTA, RP_BUFFER_DELTA),
    GATED_NORM,
    TAP(RP_PART_MIX, RP_BUFFER_DELTA),
    MIXER_OUT(RP_SSM_OUT, RP_BUFFER_DELTA),
    FFN,
};

/* HF: Qwen3_5DecoderLayer with Qwen3_5Attention. */
static const struct rp_step qwen35_full_layer[] = {
    BEGIN,
    LINEAR(RP_ATTN_Q, RP_BUFFER_NORMED, RP_BUFFER_Q_AND_GATE),
    SPLIT_GATE,
    TAP(RP_PART_Q, RP_BUFFER_Q),
    TAP(RP_PART_Z, RP_BUFFER_HEADS_GATE),
    PROJECT(RP_ATTN_K, RP_PART_K, RP_BUFFER_K),
    PROJECT(RP_ATTN_V, RP_PART_V, RP_BUFFER_V),
    NORM_HEADS(RP_ATTN_Q_NORM, RP_PART_QNORM, RP_BUFFER_Q),
    NORM_HEADS(RP_ATTN_K_NORM, RP_PART_KNORM, RP_BUFFER_K),
    ROTATE(RP_ATTN_Q, RP_PART_QROPE, RP_BUFFER_Q),
    ROTATE(RP_ATTN_K, RP_PART_KROPE, RP_BUFFER_K),
    ATTEND,
    ATTENTION_GATE,
    TAP(RP_PART_MIX, RP_BUFFER_HEADS),
    MIXER_OUT(RP_ATTN_OUTPUT, RP_BUFFER_HEADS),
    FFN,
};

#define PLAN(steps)         \
    {                       \
        steps, COUNT(steps) \
    }

/* llama.cpp's converter permutes the rows of Llama's Q and K, which makes interleaved rotation of
 * HF's rotate_half (convert_hf_to_gguf.py, LlamaModel.permute). It adds 1 to Qwen3.5's norms, so
 * that they are RP_STEP_RMS_NORM like any other. Multimodal rope is rope for text: the three
 * positions of a token are equal. */
static const struct rp_architecture architectures[] = {
    {
        .name = "llama",
        .ffn_norm = "ffn_norm",
        .rope_ordering = RP_ROPE_INTERLEAVED,
        .may_have_rope_freqs = true,
        .plans = {[RP_LAYER_FULL_ATTENTION] = PLAN(llama_layer)},
    },
    {
        .name = "qwen3",
        .ffn_norm = "ffn_norm",
        .rope_ordering = RP_ROPE_NEOX,
        .plans = {[RP_LAYER_FULL_ATTENTION] = PLAN(qwen3_layer)},
    },
    {
        .name = "qwen35",
        .ffn_norm = "post_attention_norm",
        .rope_ordering = RP_ROPE_NEOX,
        .has_attention_gate = true,
        .plans = {[RP_LAYER_FULL_ATTENTION] = PLAN(qwen35_full_layer),
                  [RP_LAYER_LINEAR_ATTENTION] = PLAN(qwen35_linear_layer)},
    },
};

const struct rp_architecture *rp_architecture_find(struct rp_gguf_string name)
{
    for (size_t i = 0; i < COUNT(architectures); i++) {
        const char *known = architectures[i].name;
        if (strlen(known) == name.length && memcmp(known, name.data, name.length) == 0)
            return &architectures[i];
    }
    return NULL;
}

struct rp_step_flow rp_step_flow(const struct rp_step *step)
{
    struct rp_step_flow flow = {.reads = {step->in},
                                .n_reads = 1,
                                .writes = {step->out},
                                .n_writes = 1,
                                .is_operation = true};
    switch (step->kind) {
    case RP_STEP_TAP: flow.is_operation = false; break;
    case RP_STEP_RMS_NORM:
    case RP_STEP_LINEAR:
    case RP_STEP_ROPE:
    case RP_STEP_DELTA_DECAY:
    case RP_STEP_DELTA_BETA: break;
    case RP_STEP_CAUSAL_CONV1D: flow.reads_all = true; break;
    case RP_STEP_KV_STORE:
        flow = (struct rp_step_flow){.reads = {RP_BUFFER_K, RP_BUFFER_V},
                                     .n_reads = 2,
                                     .writes = {RP_BUFFER_CACHE},
                                     .n_writes = 1};
        break;
    case RP_STEP_ATTENTION:
        flow.reads[flow.n_reads++] = RP_BUFFER_CACHE;
        flow.reads_all = true;
        break;
    case RP_STEP_SPLIT_GATE:
        flow.writes[flow.n_writes++] = RP_BUFFER_HEADS_GATE;
        flow.is_operation = false;
        break;
    case RP_STEP_L2_NORM: flow.is_operation = false; break;
    case RP_STEP_DELTA_RULE:
        flow.reads[flow.n_reads++] = RP_BUFFER_DECAY;
        flow.reads[flow.n_reads++] = RP_BUFFER_BETA;
        flow.reads_all = true;
        break;
    case RP_STEP_ATTENTION_GATE:
    case RP_STEP_RESIDUAL_ADD: flow.reads[flow.n_reads++] = step->out; break;
    case RP_STEP_GATED_NORM: flow.reads[flow.n_reads++] = RP_BUFFER_DELTA_GATE; break;
    case RP_STEP_FFN_ACTIVATION: flow.reads[flow.n_reads++] = RP_BUFFER_UP; break;
    }
    return flow;
}

bool rp_architecture_is_hybrid(const struct rp_architecture *architecture)
{
    return architecture->plans[RP_LAYER_LINEAR_ATTENTION].n_steps > 0;
}

/* Weights that a step reads beside its `which`. */
static bool reads_gate_vectors(const struct rp_step *step, enum rp_weight_id which)
{
    return step->kind == RP_STEP_DELTA_DECAY && (which == RP_SSM_DT || which == RP_SSM_A);
}

static bool has_weight(enum rp_step_kind kind)
{
    return kind == RP_STEP_RMS_NORM || kind == RP_STEP_LINEAR || kind == RP_STEP_CAUSAL_CONV1D ||
           kind == RP_STEP_GATED_NORM;
}

bool rp_layer_plan_uses(const struct rp_layer_plan *plan, enum rp_weight_id which)
{
    for (size_t i = 0; i < plan->n_steps; i++) {
        const struct rp_step *step = &plan->steps[i];
        if ((has_weight(step->kind) && step->which == which) || reads_gate_vectors(step, which))
            return true;
    }
    return false;
}

/* Q, K and V of the DeltaNet. */
static size_t conv_channels(const struct rp_model_config *config)
{
    return (2 * config->n_linear_k_heads + config->n_linear_v_heads) * config->linear_head_dim;
}

size_t rp_buffer_width(const struct rp_model_config *config, enum rp_buffer buffer)
{
    size_t heads_width = config->n_heads * config->head_dim;
    switch (buffer) {
    case RP_BUFFER_Q:
    case RP_BUFFER_HEADS: return heads_width;
    case RP_BUFFER_Q_AND_GATE: return config->has_attention_gate ? 2 * heads_width : 0;
    case RP_BUFFER_HEADS_GATE: return config->has_attention_gate ? heads_width : 0;
    case RP_BUFFER_K:
    case RP_BUFFER_V: return config->n_kv_heads * config->head_dim;
    case RP_BUFFER_QKV:
    case RP_BUFFER_CONV_QKV: return conv_channels(config);
    case RP_BUFFER_DECAY:
    case RP_BUFFER_BETA: return config->n_linear_v_heads;
    case RP_BUFFER_DELTA_GATE:
    case RP_BUFFER_DELTA: return config->n_linear_v_heads * config->linear_head_dim;
    case RP_BUFFER_GATE:
    case RP_BUFFER_UP: return config->intermediate_size;
    case RP_BUFFER_CACHE: return 0;
    default: return config->hidden_size;
    }
}

void rp_weight_shape(const struct rp_model_config *config, enum rp_weight_id which, size_t *n_out,
                     size_t *n_in)
{
    size_t heads_width = config->n_heads * config->head_dim;
    *n_out = 1;
    *n_in = config->hidden_size;
    switch (which) {
    case RP_ATTN_Q: *n_out = config->has_attention_gate ? 2 * heads_width : heads_width; break;
    case RP_ATTN_K:
    case RP_ATTN_V: *n_out = config->n_kv_heads * config->head_dim; break;
    case RP_ATTN_Q_NORM:
    case RP_ATTN_K_NORM: *n_in = config->head_dim; break;
    case RP_ATTN_OUTPUT:
        *n_out = config->hidden_size;
        *n_in = heads_width;
        break;
    case RP_ATTN_QKV: *n_out = conv_channels(config); break;
    case RP_ATTN_GATE: *n_out = config->n_linear_v_heads * config->linear_head_dim; break;
    case RP_SSM_CONV1D:
        *n_out = conv_channels(config);
        *n_in = config->conv_kernel;
        break;
    case RP_SSM_ALPHA:
    case RP_SSM_BETA: *n_out = config->n_linear_v_heads; break;
    case RP_SSM_DT:
    case RP_SSM_A: *n_in = config->n_linear_v_heads; break;
    case RP_SSM_NORM: *n_in = config->linear_head_dim; break;
    case RP_SSM_OUT:
        *n_out = config->hidden_size;
        *n_in = config->n_linear_v_heads * config->linear_head_dim;
        break;
    case RP_FFN_GATE:
    case RP_FFN_UP: *n_out = config->intermediate_size; break;
    case RP_FFN_DOWN:
        *n_out = config->hidden_size;
        *n_in = config->intermediate_size;
        break;
    case RP_TOKEN_EMBD:
    case RP_OUTPUT: *n_out = config->vocab_size; break;
    case RP_ROPE_FREQS: *n_in = config->n_rot / 2; break;
    default: break;
    }
}

const char *rp_weight_name(enum rp_weight_id which)
{
    static const char *const names[RP_N_WEIGHTS] = {
        [RP_ATTN_NORM] = "attn_norm",     [RP_ATTN_Q] = "attn_q",
        [RP_ATTN_K] = "attn_k",           [RP_ATTN_V] = "attn_v",
        [RP_ATTN_Q_NORM] = "attn_q_norm", [RP_ATTN_K_NORM] = "attn_k_norm",
        [RP_ATTN_OUTPUT] = "attn_output", [RP_ATTN_QKV] = "attn_qkv",
        [RP_ATTN_GATE] = "attn_gate",     [RP_SSM_CONV1D] = "ssm_conv1d",
        [RP_SSM_ALPHA] = "ssm_alpha",     [RP_SSM_BETA] = "ssm_beta",
        [RP_SSM_DT] = "ssm_dt",           [RP_SSM_A] = "ssm_a",
        [RP_SSM_NORM] = "ssm_norm",       [RP_SSM_OUT] = "ssm_out",
        [RP_FFN_NORM] = "ffn_norm",       [RP_FFN_GATE] = "ffn_gate",
        [RP_FFN_UP] = "ffn_up",           [RP_FFN_DOWN] = "ffn_down",
        [RP_TOKEN_EMBD] = "token_embd",   [RP_OUTPUT_NORM] = "output_norm",
        [RP_OUTPUT] = "output",           [RP_ROPE_FREQS] = "rope_freqs",
    };
    return (unsigned)which < RP_N_WEIGHTS ? names[which] : "unknown";
}

void rp_weight_full_name(const struct rp_architecture *architecture, enum rp_weight_id which,
                         size_t layer, char name[RP_GGUF_NAME_SIZE])
{
    const char *base = which == RP_FFN_NORM ? architecture->ffn_norm : rp_weight_name(which);
    const char *suffix = which == RP_SSM_A ? "" : which == RP_SSM_DT ? ".bias" : ".weight";
    if (which < RP_N_LAYER_WEIGHTS)
        snprintf(name, RP_GGUF_NAME_SIZE, "blk.%zu.%s%s", layer, base, suffix);
    else
        snprintf(name, RP_GGUF_NAME_SIZE, "%s%s", base, suffix);
}
