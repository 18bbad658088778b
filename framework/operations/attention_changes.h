/* What attention, its cache and its gate may have become: attention_changes.c runs it, attention.c has
 * what is tried, attention_keys.c which keys a position may see. */
#ifndef REFPARITY_OPERATIONS_ATTENTION_CHANGES_H
#define REFPARITY_OPERATIONS_ATTENTION_CHANGES_H

#include "operations/hypotheses.h"

enum rp_attention_option {
    RP_ATTENTION_SCALE,  /* to `value` */
    RP_ATTENTION_KEYS,   /* row p sees keys rows[2 p] .. rows[2 p + 1], positions in the sequence */
    RP_ATTENTION_MODULO, /* query head h reads KV head h % n_kv_heads */
    RP_ATTENTION_FIRST_HEAD,
    RP_ATTENTION_REVERSED,
    RP_ATTENTION_NEXT_HEAD,
    RP_ATTENTION_SOFTCAP,      /* value tanh(score / value), in place of the model's */
    RP_ATTENTION_NO_SOFTCAP,   /* that of a model that has one is left out */
    RP_ATTENTION_CAP_UNSCALED, /* scale cap tanh(q . key / cap): the cap comes before the scale */
    RP_ATTENTION_CAP_DIVIDES,  /* tanh(score / cap): not multiplied by the cap again */
    RP_ATTENTION_CAP_MASKS,    /* the cap comes after the mask: keys that are not seen score -cap */
    RP_ATTENTION_SINK,         /* exp(value) in softmax's sum, in place of the model's sinks */
    RP_ATTENTION_NO_SINKS,     /* those of a model that has some are left out */
    RP_ATTENTION_SINKS_SCALED, /* by attention's scale, as the scores are */
    RP_ATTENTION_SINKS_ROLLED, /* head h has that of head h + 1 */
    RP_ATTENTION_EMPTY,        /* `value` keys of zeros before the sequence are seen */
    RP_ATTENTION_EMPTY_AFTER,  /* keys of zeros up to the next multiple of `value` are seen */
    RP_ATTENTION_SHIFTED,      /* K, V (`which`) or both of `value` rows before */
    RP_ATTENTION_SWAPPED,      /* K and V */
    RP_ATTENTION_ZERO,         /* the output */
    RP_ATTENTION_ZERO_HEAD,    /* head `value` of it */
    RP_ATTENTION_TRANSPOSED, /* heads' output interleaved: value i of head h stands at i n_heads + h */
    RP_ATTENTION_NO_SOFTMAX_SUM /* weights exp(score - max), not divided by their sum */
};
void rp_attention_install(struct rp_ops *ops);

enum rp_gate_option {
    RP_GATE_MISSING,
    RP_GATE_SILU,
    RP_GATE_TANH,
    RP_GATE_PLAIN,
    RP_GATE_ONE_LESS, /* 1 - sigmoid */
    RP_GATE_SWAPPED,
    RP_GATE_HALVES
};
void rp_attention_gate_install(struct rp_ops *ops); /* those before RP_GATE_SWAPPED */
void rp_split_gate_install(struct rp_ops *ops);     /* the others */

/* ---- attention_keys.c ---- */

/* Masks, windows, chunks: which keys each position sees. */
void rp_collect_attention_keys(struct rp_search *search);
/* Where none of them fits: the keys that each position sees, measured position by position. *candidate
 * is of what was found; its name is NULL where nothing was. */
enum rp_status rp_measure_attention_keys(struct rp_search *search, struct rp_candidate *candidate,
                                         struct rp_error *err);

/* What an error says about attention where nothing explains it; "" where nothing. */
const char *rp_attention_remark(const struct rp_search *search);

#endif
