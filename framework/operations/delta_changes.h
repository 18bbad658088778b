/* What a gated DeltaNet's operations may have become: delta_changes.c has decay, beta, convolution and
 * norms, delta_rule_changes.c the recurrence; delta_net.c what is tried. */
#ifndef REFPARITY_OPERATIONS_DELTA_CHANGES_H
#define REFPARITY_OPERATIONS_DELTA_CHANGES_H

#include "operations/hypotheses.h"

enum rp_decay_option {
    RP_DECAY_MISSING,
    RP_DECAY_WITHOUT_EXP, /* the decay's logarithm is taken as the decay */
    RP_DECAY_SIGN,
    RP_DECAY_WITHOUT_SOFTPLUS,
    RP_DECAY_WITHOUT_A,
    RP_DECAY_EXP_A, /* exp of what is -exp(A_log) already */
    RP_DECAY_LOG_A, /* A_log itself, which is the logarithm of -a */
    RP_DECAY_EXPED, /* exp(g), where g is expected */
    RP_DT_MISSING,
    RP_DT_SIGN,
    RP_DT_AFTER_SOFTPLUS,
    RP_A_FACTOR /* A times `value` */
};
void rp_delta_decay_install(struct rp_ops *ops);

enum rp_beta_option {
    RP_BETA_WITHOUT_SIGMOID,
    RP_BETA_MISSING,  /* 1 */
    RP_BETA_ONE_LESS, /* 1 - sigmoid */
    RP_BETA_FACTOR    /* beta times `value` */
};
void rp_delta_beta_install(struct rp_ops *ops);

enum rp_l2_option { RP_L2_MISSING, RP_L2_EPS, RP_L2_EPS_OUTSIDE, RP_L2_MEAN };
void rp_delta_l2_install(struct rp_ops *ops); /* of `which`: Q, K; RP_N_WEIGHTS: both */

enum rp_conv_option {
    RP_CONV_WITHOUT_SILU,
    RP_CONV_REVERSED,
    RP_CONV_LATE,  /* the current position is not seen */
    RP_CONV_EARLY, /* the oldest is not seen, and the kernel is off by one */
    RP_CONV_MISSING,
    RP_CONV_STATE_AT_EACH, /* lost at every position */
    RP_CONV_STATE_AT,      /* lost at `position` */
    RP_CONV_STATE_EVERY,   /* lost every `position` positions */
    RP_CONV_STATE_OF,      /* at `position` that of from_position */
    RP_CONV_STATE_LEFT     /* begins with what the first `value` positions leave; 0: all */
};
void rp_delta_conv_install(struct rp_ops *ops);

enum rp_gated_norm_option {
    RP_GATED_WITHOUT_GATE,
    RP_GATED_SIGMOID,
    RP_GATED_PLAIN, /* the gate itself */
    RP_GATED_BEFORE_NORM,
    RP_GATED_WITHOUT_WEIGHT,
    RP_GATED_WITHOUT_NORM,
    RP_GATED_WEIGHT_OFFSET,
    RP_GATED_EPS
};
void rp_gated_norm_install(struct rp_ops *ops);

/* ---- delta_rule_changes.c, delta_rerun.c, delta_state_measured.c ---- */

enum rp_delta_rule_option {
    RP_DELTA_SCALE,         /* to `value` */
    RP_DELTA_GROUPED_HEADS, /* V head h reads K head h / (n_v_heads / n_k_heads) */
    RP_DELTA_FIRST_HEAD,
    RP_DELTA_QK_SWAPPED,
    RP_DELTA_DECAY_AS_LOG,       /* the state times the decay's logarithm */
    RP_DELTA_DECAY_AS_MAGNITUDE, /* the same without its sign */
    RP_DELTA_DECAY_LATE,
    RP_DELTA_OUTPUT_EARLY,
    RP_DELTA_PLAIN_UPDATE, /* beta v, without what the state holds */
    RP_DELTA_BEFORE_DECAY, /* what the state holds is read before the decay */
    /* The state between two positions: */
    RP_DELTA_STATE_TRANSPOSED,
    RP_DELTA_STATE_AT_EACH,  /* lost at every position */
    RP_DELTA_STATE_AT,       /* lost at `position` */
    RP_DELTA_STATE_EVERY,    /* lost every `position` positions */
    RP_DELTA_STATE_OF,       /* at `position` that of from_position */
    RP_DELTA_STATE_OF_END,   /* at `position` that after all positions */
    RP_DELTA_STATE_REPEATED, /* at `position` those from from_position on are taken once more */
    RP_DELTA_STATE_PADS,     /* at `position` decayed by `value` pads, whose projections are zero */
    RP_DELTA_STATE_LEFT,     /* begins with what the first `value` positions leave; 0: all */
    RP_DELTA_STATE_MEASURED, /* at `position` one that fits best; rows: the dumped output */
    /* Blocks of `position` positions, as HF's torch_chunk_gated_delta_rule takes them. W is what the
     * earlier blocks' state is read with, before it is taken from V. */
    RP_DELTA_W_TWICE,         /* the decay on W once more */
    RP_DELTA_W_TWICE_INSIDE,  /* and before W is solved for */
    RP_DELTA_W_TWICE_BETWEEN, /* and between its rows, which have it already */
    RP_DELTA_W_PLAIN,         /* no decay in W */
    RP_DELTA_W_MISSING,       /* V without what the earlier blocks hold */
    RP_DELTA_READ_PLAIN,      /* no decay on what is read of earlier blocks */
    RP_DELTA_READ_MISSING,    /* nothing is read of earlier blocks */
    RP_DELTA_BLOCK_NOT_AGED,  /* a block's state does not decay over the next block */
    RP_DELTA_KEYS_NOT_AGED,   /* K does not decay to the end of its block */
    RP_DELTA_INSIDE_NOT_AGED, /* no decay between positions of a block */
    RP_DELTA_INSIDE_PLAIN     /* within a block V without what the block holds */
};
void rp_delta_rule_install(struct rp_ops *ops);

/* args from row `first` on. */
struct rp_delta_rule rp_delta_rule_from(const struct rp_delta_rule *args, size_t first);

/* From `position` on everything was run before, from the state of from_position, and is run again on
 * the state that this left. */
void rp_delta_rerun_install(struct rp_ops *ops);

/* Whether so many positions determine a state: it has head_dim^2 values a head. */
bool rp_delta_state_is_measurable(size_t n_positions, size_t head_dim);
/* Adds to args->state, in which args' positions begin, what explains best that the engine has
 * dumped [n_positions][n_v_heads * head_dim], in HF's order, for what the rule computes. */
enum rp_status rp_delta_measure_state(const struct rp_site *site, const struct rp_delta_rule *args,
                                      const float *dumped);

#endif
