/* Qwen2 and Qwen2.5, dense. */
#include "architectures/sources.h"
#include "architectures/steps.h"

/* HF: Qwen2DecoderLayer; Q, K and V have a bias. */
static const struct rp_step qwen2_layer[] = {
    BEGIN,
    PROJECT_WITH_BIAS(RP_ATTN_Q, RP_PART_Q, RP_BUFFER_Q),
    PROJECT_WITH_BIAS(RP_ATTN_K, RP_PART_K, RP_BUFFER_K),
    PROJECT_WITH_BIAS(RP_ATTN_V, RP_PART_V, RP_BUFFER_V),
    ROTATE(RP_ATTN_Q, RP_PART_QROPE, RP_BUFFER_Q),
    ROTATE(RP_ATTN_K, RP_PART_KROPE, RP_BUFFER_K),
    ATTEND,
    MIXER_OUT(RP_ATTN_OUTPUT, RP_BUFFER_HEADS),
    FFN,
};

static const struct rp_source qwen2_sources[] = {
    EMBEDDING_SOURCES, NORM_SOURCES(RP_CHANGE_NONE), ATTENTION_SOURCES, QKV_BIAS_SOURCES,
    FFN_SOURCES,
};

static const char *const qwen2_hf_names[] = {"qwen2", NULL};

const struct rp_architecture rp_architecture_qwen2 = {
    .name = "qwen2",
    .ffn_norm = "ffn_norm",
    .rope_ordering = RP_ROPE_NEOX,
    .plans = {[RP_LAYER_FULL_ATTENTION] = PLAN(qwen2_layer)},
    .hf_names = qwen2_hf_names,
    SOURCES(qwen2_sources),
    .partial_rotary_factor = 1.0f,
};
