/* Gemma 2: scores and logits are capped; every second layer has a window. llama.cpp's converter adds 1 to its norms. */
#include "architectures/sources.h"
#include "architectures/steps.h"

/* HF: Gemma2DecoderLayer; the same in layers with a window and without. */
static const struct rp_step gemma2_layer[] = {
    BEGIN,
    PROJECT(RP_ATTN_Q, RP_PART_Q, RP_BUFFER_Q),
    PROJECT(RP_ATTN_K, RP_PART_K, RP_BUFFER_K),
    PROJECT(RP_ATTN_V, RP_PART_V, RP_BUFFER_V),
    ROTATE(RP_ATTN_Q, RP_PART_QROPE, RP_BUFFER_Q),
    ROTATE(RP_ATTN_K, RP_PART_KROPE, RP_BUFFER_K),
    ATTEND,
    MIXER_OUT_NORMED(RP_ATTN_OUTPUT, RP_BUFFER_HEADS),
    FFN_NORMED,
};

static const struct rp_source gemma2_sources[] = {
    EMBEDDING_SOURCES,
    CHANGED(RP_ATTN_NORM, "input_layernorm.weight", RP_CHANGE_PLUS_ONE),
    CHANGED(RP_ATTN_POST_NORM, "post_attention_layernorm.weight", RP_CHANGE_PLUS_ONE),
    CHANGED(RP_FFN_NORM, "pre_feedforward_layernorm.weight", RP_CHANGE_PLUS_ONE),
    CHANGED(RP_FFN_POST_NORM, "post_feedforward_layernorm.weight", RP_CHANGE_PLUS_ONE),
    CHANGED(RP_OUTPUT_NORM, "norm.weight", RP_CHANGE_PLUS_ONE),
    ATTENTION_SOURCES,
    FFN_SOURCES,
};

static const char *const gemma2_hf_names[] = {"gemma2", NULL};

const struct rp_architecture rp_architecture_gemma2 = {
    .name = "gemma2",
    .ffn_norm = "ffn_norm",
    .rope_ordering = RP_ROPE_NEOX,
    .norms_round_last = true,
    .scales_embeddings = true,
    .ties_embeddings = true,
    .activation = RP_GELU_TANH,
    .attention_softcap = 50,
    .logits_softcap = 30,
    .layers_scaled_by_width = 46, /* of the 27B model */
    .plans = {[RP_LAYER_FULL_ATTENTION] = PLAN(gemma2_layer),
              [RP_LAYER_SLIDING_ATTENTION] = PLAN(gemma2_layer)},
    .pattern = {.interval = 2,
                .others = RP_LAYER_SLIDING_ATTENTION,
                .nth = RP_LAYER_FULL_ATTENTION},
    .hf_names = gemma2_hf_names,
    SOURCES(gemma2_sources),
    .partial_rotary_factor = 1.0f,
};
