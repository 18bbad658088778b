/* SmolLM3: Llama's layers, of which every fourth does not rotate Q and K. llama.cpp's converter permutes the
 * rows of Q and K of all layers, as Llama's. */
#include "architectures/sources.h"
#include "architectures/steps.h"

/* HF: SmolLM3DecoderLayer. */
static const struct rp_step smollm3_layer[] = {
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

/* The same with use_rope 0: attention reads Q and K as they are. */
static const struct rp_step smollm3_nope_layer[] = {
    BEGIN,
    PROJECT(RP_ATTN_Q, RP_PART_Q, RP_BUFFER_Q),
    PROJECT(RP_ATTN_K, RP_PART_K, RP_BUFFER_K),
    PROJECT(RP_ATTN_V, RP_PART_V, RP_BUFFER_V),
    TAP(RP_PART_QROPE, RP_BUFFER_Q),
    TAP(RP_PART_KROPE, RP_BUFFER_K),
    ATTEND,
    MIXER_OUT(RP_ATTN_OUTPUT, RP_BUFFER_HEADS),
    FFN,
};

static const struct rp_source smollm3_sources[] = {
    EMBEDDING_SOURCES,
    NORM_SOURCES(RP_CHANGE_NONE),
    ATTENTION_SOURCES,
    FFN_SOURCES,
};

static const char *const smollm3_hf_names[] = {"smollm3", NULL};

const struct rp_architecture rp_architecture_smollm3 = {
    .name = "smollm3",
    .ffn_norm = "ffn_norm",
    .rope_ordering = RP_ROPE_INTERLEAVED,
    .plans = {[RP_LAYER_FULL_ATTENTION] = PLAN(smollm3_layer),
              [RP_LAYER_NOPE_ATTENTION] = PLAN(smollm3_nope_layer)},
    /* No key of a GGUF has the interval. */
    .pattern = {.interval = 4,
                .others = RP_LAYER_FULL_ATTENTION,
                .nth = RP_LAYER_NOPE_ATTENTION,
                .hf_interval = "no_rope_layer_interval",
                .hf_others = "no_rope_layers"},
    .hf_names = smollm3_hf_names,
    SOURCES(smollm3_sources),
    .partial_rotary_factor = 1.0f,
};
