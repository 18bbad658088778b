/* See model/architecture.h. */
#include "model/architecture.h"

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
#define FFN_ACTIVATION STEP(RP_STEP_FFN_ACTIVATION, RP_N_WEIGHTS, RP_BUFFER_GATE, RP_BUFFER_GATE)
#define RESIDUAL_ADD(weight) STEP(RP_STEP_RESIDUAL_ADD, weight, RP_BUFFER_BRANCH, RP_BUFFER_HIDDEN)
/* clang-format on */

/* HF: LlamaDecoderLayer. */
static const struct rp_step llama_layer[] = {
    TAP(RP_PART_IN, RP_BUFFER_HIDDEN),
    RMS_NORM(RP_ATTN_NORM, RP_BUFFER_HIDDEN, RP_BUFFER_NORMED),
    LINEAR(RP_ATTN_Q, RP_BUFFER_NORMED, RP_BUFFER_Q),
    LINEAR(RP_ATTN_K, RP_BUFFER_NORMED, RP_BUFFER_K),
    LINEAR(RP_ATTN_V, RP_BUFFER_NORMED, RP_BUFFER_V),
    ROPE(RP_ATTN_Q, RP_BUFFER_Q),
    ROPE(RP_ATTN_K, RP_BUFFER_K),
    KV_STORE,
    ATTENTION,
    LINEAR(RP_ATTN_OUTPUT, RP_BUFFER_HEADS, RP_BUFFER_BRANCH),
    RESIDUAL_ADD(RP_ATTN_OUTPUT),
    TAP(RP_PART_POSTATTN, RP_BUFFER_HIDDEN),
    RMS_NORM(RP_FFN_NORM, RP_BUFFER_HIDDEN, RP_BUFFER_NORMED),
    TAP(RP_PART_PREFFN, RP_BUFFER_NORMED),
    LINEAR(RP_FFN_GATE, RP_BUFFER_NORMED, RP_BUFFER_GATE),
    LINEAR(RP_FFN_UP, RP_BUFFER_NORMED, RP_BUFFER_UP),
    FFN_ACTIVATION,
    LINEAR(RP_FFN_DOWN, RP_BUFFER_GATE, RP_BUFFER_BRANCH),
    TAP(RP_PART_FFNOUT, RP_BUFFER_BRANCH),
    RESIDUAL_ADD(RP_FFN_DOWN),
    TAP(RP_PART_OUTPUT, RP_BUFFER_HIDDEN),
};

/* HF: Qwen3DecoderLayer; each head of Q and K is normed before it is rotated. */
static const struct rp_step qwen3_layer[] = {
    TAP(RP_PART_IN, RP_BUFFER_HIDDEN),
    RMS_NORM(RP_ATTN_NORM, RP_BUFFER_HIDDEN, RP_BUFFER_NORMED),
    LINEAR(RP_ATTN_Q, RP_BUFFER_NORMED, RP_BUFFER_Q),
    LINEAR(RP_ATTN_K, RP_BUFFER_NORMED, RP_BUFFER_K),
    LINEAR(RP_ATTN_V, RP_BUFFER_NORMED, RP_BUFFER_V),
    RMS_NORM(RP_ATTN_Q_NORM, RP_BUFFER_Q, RP_BUFFER_Q),
    RMS_NORM(RP_ATTN_K_NORM, RP_BUFFER_K, RP_BUFFER_K),
    ROPE(RP_ATTN_Q, RP_BUFFER_Q),
    ROPE(RP_ATTN_K, RP_BUFFER_K),
    KV_STORE,
    ATTENTION,
    LINEAR(RP_ATTN_OUTPUT, RP_BUFFER_HEADS, RP_BUFFER_BRANCH),
    RESIDUAL_ADD(RP_ATTN_OUTPUT),
    TAP(RP_PART_POSTATTN, RP_BUFFER_HIDDEN),
    RMS_NORM(RP_FFN_NORM, RP_BUFFER_HIDDEN, RP_BUFFER_NORMED),
    TAP(RP_PART_PREFFN, RP_BUFFER_NORMED),
    LINEAR(RP_FFN_GATE, RP_BUFFER_NORMED, RP_BUFFER_GATE),
    LINEAR(RP_FFN_UP, RP_BUFFER_NORMED, RP_BUFFER_UP),
    FFN_ACTIVATION,
    LINEAR(RP_FFN_DOWN, RP_BUFFER_GATE, RP_BUFFER_BRANCH),
    TAP(RP_PART_FFNOUT, RP_BUFFER_BRANCH),
    RESIDUAL_ADD(RP_FFN_DOWN),
    TAP(RP_PART_OUTPUT, RP_BUFFER_HIDDEN),
};

/* llama.cpp's converter permutes the rows of Llama's Q and K, which makes interleaved rotation of
 * HF's rotate_half (convert_hf_to_gguf.py, LlamaModel.permute). */
static const struct rp_architecture architectures[] = {
    {"llama", RP_ROPE_INTERLEAVED, true, llama_layer, COUNT(llama_layer)},
    {"qwen3", RP_ROPE_NEOX, false, qwen3_layer, COUNT(qwen3_layer)},
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

static bool has_weight(enum rp_step_kind kind)
{
    return kind == RP_STEP_RMS_NORM || kind == RP_STEP_LINEAR;
}

bool rp_architecture_uses(const struct rp_architecture *architecture, enum rp_weight_id which)
{
    for (size_t i = 0; i < architecture->n_steps; i++) {
        const struct rp_step *step = &architecture->steps[i];
        if (has_weight(step->kind) && step->which == which)
            return true;
    }
    return false;
}

size_t rp_buffer_width(const struct rp_model_config *config, enum rp_buffer buffer)
{
    switch (buffer) {
    case RP_BUFFER_Q:
    case RP_BUFFER_HEADS: return config->n_heads * config->head_dim;
    case RP_BUFFER_K:
    case RP_BUFFER_V: return config->n_kv_heads * config->head_dim;
    case RP_BUFFER_GATE:
    case RP_BUFFER_UP: return config->intermediate_size;
    default: return config->hidden_size;
    }
}

bool rp_weight_is_vector(enum rp_weight_id which)
{
    switch (which) {
    case RP_ATTN_NORM:
    case RP_ATTN_Q_NORM:
    case RP_ATTN_K_NORM:
    case RP_FFN_NORM:
    case RP_OUTPUT_NORM:
    case RP_ROPE_FREQS: return true;
    default: return false;
    }
}

void rp_weight_shape(const struct rp_model_config *config, enum rp_weight_id which, size_t *n_out,
                     size_t *n_in)
{
    *n_out = 1;
    *n_in = config->hidden_size;
    switch (which) {
    case RP_ATTN_Q: *n_out = config->n_heads * config->head_dim; break;
    case RP_ATTN_K:
    case RP_ATTN_V: *n_out = config->n_kv_heads * config->head_dim; break;
    case RP_ATTN_Q_NORM:
    case RP_ATTN_K_NORM: *n_in = config->head_dim; break;
    case RP_ATTN_OUTPUT:
        *n_out = config->hidden_size;
        *n_in = config->n_heads * config->head_dim;
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
        [RP_ATTN_OUTPUT] = "attn_output", [RP_FFN_NORM] = "ffn_norm",
        [RP_FFN_GATE] = "ffn_gate",       [RP_FFN_UP] = "ffn_up",
        [RP_FFN_DOWN] = "ffn_down",       [RP_TOKEN_EMBD] = "token_embd",
        [RP_OUTPUT_NORM] = "output_norm", [RP_OUTPUT] = "output",
        [RP_ROPE_FREQS] = "rope_freqs",
    };
    return (unsigned)which < RP_N_WEIGHTS ? names[which] : "unknown";
}
