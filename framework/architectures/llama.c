/* Llama 2 and 3, and what has their layers (SmolLM2, Mistral). llama.cpp's converter permutes the rows of
 * Q and K, which makes interleaved rotation of HF's rotate_half (convert_hf_to_gguf.py,
 * LlamaModel.permute). */
#include "architectures/sources.h"
#include "architectures/steps.h"

/* HF: LlamaDecoderLayer. */
static const struct rp_step llama_layer[] = {
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

/* Their Q and K are in the order of their slots, which is interleaved here. */
static const struct rp_source llama_sources[] = {
    EMBEDDING_SOURCES,
    NORM_SOURCES(RP_CHANGE_NONE),
    ATTENTION_SOURCES,
    FFN_SOURCES,
};

static const char *const llama_hf_names[] = {"llama", "mistral", NULL};

const struct rp_architecture rp_architecture_llama = {
    .name = "llama",
    .ffn_norm = "ffn_norm",
    .rope_ordering = RP_ROPE_INTERLEAVED,
    .may_have_rope_freqs = true,
    .plans = {[RP_LAYER_FULL_ATTENTION] = PLAN(llama_layer)},
    .hf_names = llama_hf_names,
    SOURCES(llama_sources),
    .partial_rotary_factor = 1.0f,
};
