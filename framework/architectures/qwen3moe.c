/* Qwen3 with a mixture of experts in every layer. */
#include "architectures/sources.h"
#include "architectures/steps.h"

/* HF: Qwen3MoeDecoderLayer; each head of Q and K is normed before it is rotated. */
static const struct rp_step qwen3moe_layer[] = {
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
    EXPERTS,
};

static const struct rp_source qwen3moe_sources[] = {
    EMBEDDING_SOURCES,
    NORM_SOURCES(RP_CHANGE_NONE),
    QK_NORM_SOURCES(RP_CHANGE_NONE),
    ATTENTION_SOURCES,
    EXPERTS_SOURCES,
};

static const char *const qwen3moe_hf_names[] = {"qwen3_moe", NULL};

const struct rp_architecture rp_architecture_qwen3moe = {
    .name = "qwen3moe",
    .ffn_norm = "ffn_norm",
    .rope_ordering = RP_ROPE_NEOX,
    .router = {.scores = RP_ROUTER_SOFTMAX, .normalizes = true},
    .plans = {[RP_LAYER_FULL_ATTENTION] = PLAN(qwen3moe_layer)},
    .hf_names = qwen3moe_hf_names,
    SOURCES(qwen3moe_sources),
    .partial_rotary_factor = 1.0f,
};
