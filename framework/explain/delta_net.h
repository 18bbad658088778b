/* What delta_net.c can change in a gated DeltaNet, for delta_collect.c. */
#ifndef REFPARITY_EXPLAIN_DELTA_NET_H
#define REFPARITY_EXPLAIN_DELTA_NET_H

#include "explain/search.h"

enum rp_delta_gates_option {
    RP_DECAY_MISSING,
    RP_DECAY_WITHOUT_EXP,
    RP_DECAY_SIGN,
    RP_DECAY_WITHOUT_SOFTPLUS,
    RP_DECAY_WITHOUT_A,
    RP_DECAY_EXP_A, /* exp of what is -exp(A_log) already */
    RP_DT_MISSING,
    RP_DT_SIGN,
    RP_DT_AFTER_SOFTPLUS,
    RP_BETA_WITHOUT_SIGMOID,
    RP_BETA_MISSING,
    RP_BETA_DOUBLED,
    RP_A_FACTOR,   /* A times `value` */
    RP_BETA_FACTOR /* beta times `value` */
};
void rp_delta_gates_install(struct rp_ops *ops);

enum rp_l2_option { RP_L2_MISSING, RP_L2_EPS, RP_L2_MEAN };
void rp_delta_l2_install(struct rp_ops *ops); /* of `which`: Q, K; RP_N_WEIGHTS: both */

enum rp_delta_rule_option {
    RP_DELTA_SCALE,
    RP_DELTA_GROUPED_HEADS, /* V head h reads K head h / (n_v_heads / n_k_heads) */
    RP_DELTA_FIRST_HEAD,
    RP_DELTA_QK_SWAPPED,
    RP_DELTA_STATE_AT_EACH, /* lost at every position */
    RP_DELTA_STATE_AT,      /* lost once, at position `value` */
    RP_DELTA_STATE_EVERY,   /* lost every `value` positions */
    RP_DELTA_STATE_TRANSPOSED,
    RP_DELTA_DECAY_LATE,
    RP_DELTA_OUTPUT_EARLY,
    RP_DELTA_PLAIN_UPDATE, /* beta v, without what the state holds */
    RP_DELTA_BEFORE_DECAY  /* what the state holds is read before the decay */
};
void rp_delta_rule_install(struct rp_ops *ops);

enum rp_conv_option {
    RP_CONV_WITHOUT_SILU,
    RP_CONV_REVERSED,
    RP_CONV_LATE, /* the current position is not seen */
    RP_CONV_MISSING,
    RP_CONV_STATE_AT_EACH,
    RP_CONV_STATE_AT,
    RP_CONV_STATE_EVERY
};
void rp_delta_conv_install(struct rp_ops *ops);

enum rp_gated_norm_option {
    RP_GATED_WITHOUT_GATE,
    RP_GATED_SIGMOID,
    RP_GATED_BEFORE_NORM,
    RP_GATED_WITHOUT_WEIGHT,
    RP_GATED_WITHOUT_NORM,
    RP_GATED_WEIGHT_OFFSET,
    RP_GATED_EPS
};
void rp_gated_norm_install(struct rp_ops *ops);

#endif
