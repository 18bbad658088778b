/* Gemma 3, text only. llama.cpp's converter adds 1 to its norms. */
#include "architectures/sources.h"
#include "architectures/steps.h"

/* HF: Gemma3DecoderLayer; the same in layers with a window and without. */
static const struct rp_step gemma3_layer[] = {
    BEGIN,
    PROJECT(RP_ATTN_Q, RP_PART_Q, RP_BUFFER_Q),
    PROJECT(RP_ATTN_K, RP_PART_K, RP_BUFFER_K),
    PROJECT(RP_ATTN_V, RP_PART_V, RP_BUFFER_V),
    NORM_HEADS(RP_ATTN_Q_NORM, RP_PART_QNORM, RP_BUFFER_Q),
    NORM_HEADS(RP_ATTN_K_NORM, RP_PART_KNORM, RP_BUFFER_K),
    ROTATE(RP_ATTN_Q, RP_PART_QROPE, RP_BUFFER_Q),
    ROTATE(RP_ATTN_K, RP_PART_KROPE, RP_BUFFER_K),
    ATTEND,
    MIXER_OUT_NORMED(RP_ATTN_OUTPUT, RP_BUFFER_HEADS),
    FFN_NORMED,
};

static const struct rp_source gemma3_sources[] = {
    EMBEDDING_SOURCES,
    CHANGED(RP_ATTN_NORM, "input_layernorm.weight", RP_CHANGE_PLUS_ONE),
    CHANGED(RP_ATTN_POST_NORM, "post_attention_layernorm.weight", RP_CHANGE_PLUS_ONE),
    CHANGED(RP_FFN_NORM, "pre_feedforward_layernorm.weight", RP_CHANGE_PLUS_ONE),
    CHANGED(RP_FFN_POST_NORM, "post_feedforward_layernorm.weight", RP_CHANGE_PLUS_ONE),
    CHANGED(RP_OUTPUT_NORM, "norm.weight", RP_CHANGE_PLUS_ONE),
    QK_NORM_SOURCES(RP_CHANGE_PLUS_ONE),
    ATTENTION_SOURCES,
    FFN_SOURCES,
};

static const char *const gemma3_hf_names[] = {"gemma3", "gemma3_text", NULL};

const struct rp_architecture rp_architecture_gemma3 = {
    .name = "gemma3",
    .ffn_norm = "ffn_norm",
    .rope_ordering = RP_ROPE_NEOX,
    .norms_round_last = true,
    .window_has_own_rope = true,
    .scales_embeddings = true,
    .ties_embeddings = true,
    .activation = RP_GELU_TANH,
    .layers_scaled_by_width = 62, /* of the 27B model */
    .plans = {[RP_LAYER_FULL_ATTENTION] = PLAN(gemma3_layer),
              [RP_LAYER_SLIDING_ATTENTION] = PLAN(gemma3_layer)},
    .pattern = {.interval = 6,
                .others = RP_LAYER_SLIDING_ATTENTION,
                .nth = RP_LAYER_FULL_ATTENTION,
                .hf_interval = "sliding_window_pattern"},
    .hf_names = gemma3_hf_names,
    SOURCES(gemma3_sources),
    .partial_rotary_factor = 1.0f,
};
