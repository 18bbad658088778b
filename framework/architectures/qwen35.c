/* Qwen3.5, dense: layers with a gated DeltaNet, and some with gated attention. llama.cpp's converter adds
 * 1 to its norms, so that they are RP_STEP_RMS_NORM like any other. Multimodal rope is rope for text: the
 * three positions of a token are equal. */
#include "architectures/sources.h"
#include "architectures/steps.h"

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

/* The V heads of the DeltaNet are dealt out over the K heads: all that has a row or a column a V head. */
static const struct rp_source qwen35_sources[] = {
    EMBEDDING_SOURCES,
    NORM_SOURCES(RP_CHANGE_PLUS_ONE),
    QK_NORM_SOURCES(RP_CHANGE_PLUS_ONE),
    ATTENTION_SOURCES,
    FFN_SOURCES,
    ROWS(RP_ATTN_QKV, "linear_attn.in_proj_qkv.weight", RP_PART_QKV),
    ROWS(RP_ATTN_GATE, "linear_attn.in_proj_z.weight", RP_PART_Z),
    ROWS(RP_SSM_CONV1D, "linear_attn.conv1d.weight", RP_PART_CONV),
    ROWS(RP_SSM_ALPHA, "linear_attn.in_proj_a.weight", RP_PART_A),
    ROWS(RP_SSM_BETA, "linear_attn.in_proj_b.weight", RP_PART_B),
    COLUMNS(RP_SSM_DT, "linear_attn.dt_bias", RP_CHANGE_NONE, RP_PART_A),
    COLUMNS(RP_SSM_A, "linear_attn.A_log", RP_CHANGE_MINUS_EXP, RP_PART_A),
    AS_IT_IS(RP_SSM_NORM, "linear_attn.norm.weight"),
    COLUMNS(RP_SSM_OUT, "linear_attn.out_proj.weight", RP_CHANGE_NONE, RP_PART_MIX),
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
