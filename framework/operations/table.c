/* The default operations as a table. */
#include "operations/operations.h"

const struct rp_ops *rp_ops_default(void)
{
    static const struct rp_ops ops = {
        .context = NULL,
        .embed = rp_op_embed,
        .rms_norm = rp_op_rms_norm,
        .linear = rp_op_linear,
        .rope = rp_op_rope,
        .kv_store = rp_op_kv_store,
        .attention = rp_op_attention,
        .split_gate = rp_op_split_gate,
        .attention_gate = rp_op_attention_gate,
        .causal_conv1d = rp_op_causal_conv1d,
        .l2_norm = rp_op_l2_norm,
        .delta_decay = rp_op_delta_decay,
        .delta_beta = rp_op_delta_beta,
        .delta_rule = rp_op_delta_rule,
        .gated_norm = rp_op_gated_norm,
        .ffn_activation = rp_op_ffn_activation,
        .residual_add = rp_op_residual_add,
    };
    return &ops;
}
