/* Qwen3.5 with a mixture of experts in every layer, and a shared one whose output is gated; else as qwen35.c. */
#include "architectures/qwen35_steps.h"

/* HF: Qwen3_5MoeDecoderLayer with Qwen3_5GatedDeltaNet. */
static const struct rp_step qwen35moe_linear_layer[] = {
    QWEN35_DELTA_NET,
    EXPERTS_AND_GATED_SHARED,
};

/* HF: Qwen3_5MoeDecoderLayer with Qwen3_5Attention. */
static const struct rp_step qwen35moe_full_layer[] = {
    QWEN35_ATTENTION,
    EXPERTS_AND_GATED_SHARED,
};

static const struct rp_source qwen35moe_sources[] = {
    QWEN35_SOURCES,
    EXPERTS_SOURCES,
    AS_IT_IS(RP_SHARED_ROUTER, "mlp.shared_expert_gate.weight"),
    SHARED_EXPERT_SOURCES("shared_expert"),
};

static const char *const qwen35moe_hf_names[] = {"qwen3_5_moe", "qwen3_5_moe_text", NULL};

const struct rp_architecture rp_architecture_qwen35moe = {
    .name = "qwen35moe",
    .ffn_norm = "post_attention_norm",
    .rope_ordering = RP_ROPE_NEOX,
    .has_attention_gate = true,
    .norms_round_last = true,
    .router = {.scores = RP_ROUTER_SOFTMAX, .normalizes = true},
    .hf_normalizes = true,
    .plans = {[RP_LAYER_FULL_ATTENTION] = PLAN(qwen35moe_full_layer),
              [RP_LAYER_LINEAR_ATTENTION] = PLAN(qwen35moe_linear_layer)},
    .pattern = {.interval = 4,
                .others = RP_LAYER_LINEAR_ATTENTION,
                .nth = RP_LAYER_FULL_ATTENTION,
                .gguf_interval = "full_attention_interval",
                .gguf_others = "attention.recurrent_layers",
                .hf_interval = "full_attention_interval"},
    .hf_names = qwen35moe_hf_names,
    SOURCES(qwen35moe_sources),
    .partial_rotary_factor = 0.25f,
};
