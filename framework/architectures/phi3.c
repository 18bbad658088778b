/* Phi-3, Phi-3.5 and Phi-4 without experts. One tensor gives Q, K and V, and one gate and up. The window of
 * attention is in all layers, where there is one; llama.cpp leaves it out (models/phi3.cpp). */
#include "architectures/sources.h"
#include "architectures/steps.h"

/* HF: Phi3DecoderLayer. */
static const struct rp_step phi3_layer[] = {
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

/* The first part of a fused tensor stands for all of it. */
static const struct rp_source phi3_sources[] = {
    EMBEDDING_SOURCES,
    NORM_SOURCES(RP_CHANGE_NONE),
    AS_IT_IS(RP_ATTN_Q, "self_attn.qkv_proj.weight"),
    AS_IT_IS(RP_ATTN_OUTPUT, "self_attn.o_proj.weight"),
    AS_IT_IS(RP_FFN_GATE, "mlp.gate_up_proj.weight"),
    AS_IT_IS(RP_FFN_DOWN, "mlp.down_proj.weight"),
};

static const char *const phi3_hf_names[] = {"phi3", NULL};

const struct rp_architecture rp_architecture_phi3 = {
    .name = "phi3",
    .ffn_norm = "ffn_norm",
    .rope_ordering = RP_ROPE_NEOX,
    .fused = {{"attn_qkv", {RP_ATTN_Q, RP_ATTN_K, RP_ATTN_V}, 3},
              {"ffn_up", {RP_FFN_GATE, RP_FFN_UP}, 2}},
    .plans = {[RP_LAYER_FULL_ATTENTION] = PLAN(phi3_layer),
              [RP_LAYER_SLIDING_ATTENTION] = PLAN(phi3_layer)},
    .pattern = {.interval = 1,
                .others = RP_LAYER_SLIDING_ATTENTION,
                .nth = RP_LAYER_SLIDING_ATTENTION},
    .hf_names = phi3_hf_names,
    SOURCES(phi3_sources),
    .partial_rotary_factor = 1.0f,
};
