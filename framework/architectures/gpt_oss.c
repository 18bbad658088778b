/* gpt-oss: a mixture of experts whose attention has sinks, biases everywhere, and a window in every second layer. */
#include "architectures/sources.h"
#include "architectures/steps.h"

/* HF: GptOssDecoderLayer; the same in layers with a window and without. */
static const struct rp_step gpt_oss_layer[] = {
    BEGIN,
    PROJECT_WITH_BIAS(RP_ATTN_Q, RP_PART_Q, RP_BUFFER_Q),
    PROJECT_WITH_BIAS(RP_ATTN_K, RP_PART_K, RP_BUFFER_K),
    PROJECT_WITH_BIAS(RP_ATTN_V, RP_PART_V, RP_BUFFER_V),
    ROTATE(RP_ATTN_Q, RP_PART_QROPE, RP_BUFFER_Q),
    ROTATE(RP_ATTN_K, RP_PART_KROPE, RP_BUFFER_K),
    ATTEND_WITH_SINKS,
    MIXER_OUT_WITH_BIAS(RP_ATTN_OUTPUT, RP_BUFFER_HEADS),
    EXPERTS_WITH_BIAS,
};

static const struct rp_source gpt_oss_sources[] = {
    EMBEDDING_SOURCES,
    NORM_SOURCES(RP_CHANGE_NONE),
    ATTENTION_SOURCES,
    QKV_BIAS_SOURCES,
    AS_IT_IS(RP_ATTN_OUTPUT_BIAS, "self_attn.o_proj.bias"),
    AS_IT_IS(RP_ATTN_SINKS, "self_attn.sinks"),
    AS_IT_IS(RP_ROUTER, "mlp.router.weight"),
    AS_IT_IS(RP_ROUTER_BIAS, "mlp.router.bias"),
    CHANGED(RP_EXPERTS_GATE, "mlp.experts.gate_up_proj", RP_CHANGE_EVEN_OF_EXPERTS),
    CHANGED(RP_EXPERTS_UP, "mlp.experts.gate_up_proj", RP_CHANGE_ODD_OF_EXPERTS),
    CHANGED(RP_EXPERTS_DOWN, "mlp.experts.down_proj", RP_CHANGE_ALL_OF_EXPERTS),
    CHANGED(RP_EXPERTS_GATE_BIAS, "mlp.experts.gate_up_proj_bias", RP_CHANGE_EVEN_OF_EXPERTS),
    CHANGED(RP_EXPERTS_UP_BIAS, "mlp.experts.gate_up_proj_bias", RP_CHANGE_ODD_OF_EXPERTS),
    CHANGED(RP_EXPERTS_DOWN_BIAS, "mlp.experts.down_proj_bias", RP_CHANGE_ALL_OF_EXPERTS),
};

static const char *const gpt_oss_hf_names[] = {"gpt_oss", NULL};

const struct rp_architecture rp_architecture_gpt_oss = {
    .name = "gpt-oss",
    .ffn_norm = "post_attention_norm",
    .rope_ordering = RP_ROPE_NEOX,
    .norms_round_last = true,
    .yarn_keeps_ramp_ends = true,
    .activation = RP_CLAMPED_SWISH,
    .router = {.n_experts = 1, .scores = RP_ROUTER_SOFTMAX_CHOSEN},
    .plans = {[RP_LAYER_FULL_ATTENTION] = PLAN(gpt_oss_layer),
              [RP_LAYER_SLIDING_ATTENTION] = PLAN(gpt_oss_layer)},
    .pattern = {.interval = 2,
                .others = RP_LAYER_SLIDING_ATTENTION,
                .nth = RP_LAYER_FULL_ATTENTION},
    .hf_names = gpt_oss_hf_names,
    SOURCES(gpt_oss_sources),
    .partial_rotary_factor = 1.0f,
};
