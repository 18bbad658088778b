/* What attention.c can change, for attention_collect.c. */
#ifndef REFPARITY_EXPLAIN_ATTENTION_H
#define REFPARITY_EXPLAIN_ATTENTION_H

#include "explain/search.h"

enum rp_attention_option {
    RP_ATTENTION_SCALE, /* to `value` */
    RP_ATTENTION_NOT_CAUSAL,
    RP_ATTENTION_MASK,   /* `value` later positions are seen; -1: not the current one */
    RP_ATTENTION_WINDOW, /* only the last `value` positions are seen */
    RP_ATTENTION_MODULO, /* query head h reads KV head h % n_kv_heads */
    RP_ATTENTION_FIRST_HEAD,
    RP_ATTENTION_REVERSED,
    RP_ATTENTION_NEXT_HEAD,
    RP_ATTENTION_SOFTCAP, /* value tanh(score / value) */
    RP_ATTENTION_SINK,    /* exp(value) in softmax's sum */
    RP_ATTENTION_SHIFTED, /* K, V (`which`) or both of `value` rows before */
    RP_ATTENTION_ZERO_HEAD
};
void rp_attention_install(struct rp_ops *ops);

enum rp_gate_option {
    RP_GATE_MISSING,
    RP_GATE_SILU,
    RP_GATE_TANH,
    RP_GATE_PLAIN,
    RP_GATE_SWAPPED,
    RP_GATE_HALVES
};
void rp_attention_gate_install(struct rp_ops *ops); /* the first four */
void rp_split_gate_install(struct rp_ops *ops);     /* the others */

#endif
