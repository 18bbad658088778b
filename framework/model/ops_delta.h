/* The default operations of gated DeltaNet layers and of gated attention; rp_ops_default has them.
 * Their arguments and formulas are in refparity/ops.h. */
#ifndef REFPARITY_MODEL_OPS_DELTA_H
#define REFPARITY_MODEL_OPS_DELTA_H

#include "refparity/ops.h"

enum rp_status rp_split_gate(void *context, const struct rp_site *site,
                             const struct rp_split_gate *args);
enum rp_status rp_attention_gate(void *context, const struct rp_site *site,
                                 const struct rp_attention_gate *args);
enum rp_status rp_causal_conv1d(void *context, const struct rp_site *site,
                                const struct rp_causal_conv1d *args);
enum rp_status rp_l2_norm(void *context, const struct rp_site *site, const struct rp_l2_norm *args);
enum rp_status rp_delta_decay(void *context, const struct rp_site *site,
                              const struct rp_delta_decay *args);
enum rp_status rp_delta_beta(void *context, const struct rp_site *site,
                             const struct rp_delta_beta *args);
enum rp_status rp_delta_rule(void *context, const struct rp_site *site,
                             const struct rp_delta_rule *args);
enum rp_status rp_gated_norm(void *context, const struct rp_site *site,
                             const struct rp_gated_norm *args);

#endif
