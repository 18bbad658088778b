/* Qwen3.5, dense: layers with a gated DeltaNet, and some with gated attention. llama.cpp's converter adds
 * 1 to its norms, so that they are RP_STEP_RMS_NORM like any other. Multimodal rope is rope for text: the
 * three positions of a token are equal. */
#include "architectures/qwen35_steps.h"

/* HF: Qwen3_5DecoderLayer with Qwen3_5GatedDeltaNet. */
static const struct rp_step qwen35_linear_layer[] = {
    QWEN35_DELTA_NET,
    FFN,
};

/* HF: Qwen3_5DecoderLayer with Qwen3_5Attention. */
static const struct rp_step qwen35_full_layer[] = {
    QWEN35_ATTENTION,
    FFN,
};

static const struct rp_source qwen35_sources[] = {
    QWEN35_SOURCES,
    FFN_SOURCES,
};

static const char *const qwen35_hf_names[] = {"qwen3_5", "qwen3_5_text", NULL};

const struct rp_architecture rp_architecture_qwen35 = {
    .name = "qwen35",
    .ffn_norm = "post_attention_norm",
    .rope_ordering = RP_ROPE_NEOX,
    .has_attention_gate = true,
    .norms_round_last = true,
    .plans = {[RP_LAYER_FULL_ATTENTION] = PLAN(qwen35_full_layer),
              [RP_LAYER_LINEAR_ATTENTION] = PLAN(qwen35_linear_layer)},
    .pattern = {.interval = 4,
                .others = RP_LAYER_LINEAR_ATTENTION,
                .nth = RP_LAYER_FULL_ATTENTION,
                .gguf_interval = "full_attention_interval",
                .gguf_others = "attention.recurrent_layers",
                .hf_interval = "full_attention_interval"},
    .hf_names = qwen35_hf_names,
    SOURCES(qwen35_sources),
    .partial_rotary_factor = 0.25f,
};
