/* See refparity/overlay.h. */
#include "refparity/overlay.h"

#define HAND_ON(operation)                                                               \
    static enum rp_status hand_on_##operation(void *context, const struct rp_site *site, \
                                              const struct rp_##operation *args)         \
    {                                                                                    \
        const struct rp_ops *below = ((const struct rp_overlay *)context)->below;        \
        return below->operation(below->context, site, args);                             \
    }

HAND_ON(embed)
HAND_ON(rms_norm)
HAND_ON(linear)
HAND_ON(rope)
HAND_ON(kv_store)
HAND_ON(attention)
HAND_ON(split_gate)
HAND_ON(attention_gate)
HAND_ON(causal_conv1d)
HAND_ON(l2_norm)
HAND_ON(delta_decay)
HAND_ON(delta_beta)
HAND_ON(delta_rule)
HAND_ON(gated_norm)
HAND_ON(ffn_activation)
HAND_ON(residual_add)

void rp_overlay_open(struct rp_overlay *overlay, const struct rp_ops *below)
{
    overlay->below = below ? below : rp_ops_default();
    overlay->ops = (struct rp_ops){
        .context = overlay,
        .embed = hand_on_embed,
        .rms_norm = hand_on_rms_norm,
        .linear = hand_on_linear,
        .rope = hand_on_rope,
        .kv_store = hand_on_kv_store,
        .attention = hand_on_attention,
        .split_gate = hand_on_split_gate,
        .attention_gate = hand_on_attention_gate,
        .causal_conv1d = hand_on_causal_conv1d,
        .l2_norm = hand_on_l2_norm,
        .delta_decay = hand_on_delta_decay,
        .delta_beta = hand_on_delta_beta,
        .delta_rule = hand_on_delta_rule,
        .gated_norm = hand_on_gated_norm,
        .ffn_activation = hand_on_ffn_activation,
        .residual_add = hand_on_residual_add,
    };
}
