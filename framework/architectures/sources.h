/* The words in which an architecture says how each of a GGUF's tensors is made from the checkpoint's. A
 * source is {HF's name, weight, change of the values, order of the rows, order of the columns}: an order is
 * that of a slot, whose values a GGUF may keep otherwise than HF (hf_order.h). Not for anything but the
 * tables of this folder. */
#ifndef REFPARITY_ARCHITECTURES_SOURCES_H
#define REFPARITY_ARCHITECTURES_SOURCES_H

#include "architectures/architecture.h"

/* clang-format off */
#define AS_IT_IS(weight, name) {name, weight, RP_CHANGE_NONE, RP_PART_OTHER, RP_PART_OTHER}
#define CHANGED(weight, name, change) {name, weight, change, RP_PART_OTHER, RP_PART_OTHER}
#define ROWS(weight, name, part) {name, weight, RP_CHANGE_NONE, part, RP_PART_OTHER}
#define COLUMNS(weight, name, change, part) {name, weight, change, RP_PART_OTHER, part}
/* What all layers have whose FFN is gated. */
#define FFN_SOURCES                                       \
    AS_IT_IS(RP_FFN_GATE, "mlp.gate_proj.weight"),        \
    AS_IT_IS(RP_FFN_UP, "mlp.up_proj.weight"),            \
    AS_IT_IS(RP_FFN_DOWN, "mlp.down_proj.weight")
/* An expert each, or all in one tensor: from_checkpoint.c. */
#define EXPERTS_SOURCES                                        \
    AS_IT_IS(RP_ROUTER, "mlp.gate.weight"),                    \
    AS_IT_IS(RP_EXPERTS_GATE, "mlp.experts.*.gate_proj.weight"), \
    AS_IT_IS(RP_EXPERTS_UP, "mlp.experts.*.up_proj.weight"),     \
    AS_IT_IS(RP_EXPERTS_DOWN, "mlp.experts.*.down_proj.weight")
/* name: HF's of the module */
#define SHARED_EXPERT_SOURCES(name)                             \
    AS_IT_IS(RP_SHARED_GATE, "mlp." name ".gate_proj.weight"),  \
    AS_IT_IS(RP_SHARED_UP, "mlp." name ".up_proj.weight"),      \
    AS_IT_IS(RP_SHARED_DOWN, "mlp." name ".down_proj.weight")
#define ATTENTION_SOURCES                                       \
    ROWS(RP_ATTN_Q, "self_attn.q_proj.weight", RP_PART_Q),      \
    ROWS(RP_ATTN_K, "self_attn.k_proj.weight", RP_PART_K),      \
    AS_IT_IS(RP_ATTN_V, "self_attn.v_proj.weight"),             \
    AS_IT_IS(RP_ATTN_OUTPUT, "self_attn.o_proj.weight")
#define QKV_BIAS_SOURCES                                                                     \
    COLUMNS(RP_ATTN_Q_BIAS, "self_attn.q_proj.bias", RP_CHANGE_NONE, RP_PART_Q),            \
    COLUMNS(RP_ATTN_K_BIAS, "self_attn.k_proj.bias", RP_CHANGE_NONE, RP_PART_K),            \
    AS_IT_IS(RP_ATTN_V_BIAS, "self_attn.v_proj.bias")
/* change: of the norms' values */
#define NORM_SOURCES(change)                                                  \
    CHANGED(RP_ATTN_NORM, "input_layernorm.weight", change),                  \
    CHANGED(RP_FFN_NORM, "post_attention_layernorm.weight", change),          \
    CHANGED(RP_OUTPUT_NORM, "norm.weight", change)
#define QK_NORM_SOURCES(change)                                  \
    CHANGED(RP_ATTN_Q_NORM, "self_attn.q_norm.weight", change),  \
    CHANGED(RP_ATTN_K_NORM, "self_attn.k_norm.weight", change)
#define EMBEDDING_SOURCES AS_IT_IS(RP_TOKEN_EMBD, "embed_tokens.weight")
/* clang-format on */

#define SOURCES(table) .sources = (table), .n_sources = sizeof(table) / sizeof *(table)

#endif
