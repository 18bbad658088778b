/* Values of a slot stand in HF's order, those of a GGUF's rows sometimes in another: Llama's Q and K
 * have the two values of a rotated pair side by side, and Qwen3.5's V heads are dealt out over the K
 * heads. Not for a dump's own order, which it declares: that is tensor/order.h. */
#ifndef REFPARITY_ARCHITECTURES_HF_ORDER_H
#define REFPARITY_ARCHITECTURES_HF_ORDER_H

#include "refparity/ops.h"
#include "refparity/tensor_set.h"

/* Whether a layer of that kind keeps the slot in another order than HF. */
bool rp_hf_order_differs(const struct rp_model_config *config, enum rp_layer_kind kind,
                         enum rp_slot_part part);

/* Whether it does in some architecture: a slot of rotated pairs. */
bool rp_hf_order_may_differ(enum rp_slot_part part);

/* The DeltaNet's V head that is HF's hf_head. */
size_t rp_hf_order_own_v_head(const struct rp_model_config *config, size_t hf_head);

/* Where a row of dim values in the model's own order has HF's value i, where rp_hf_order_differs. */
size_t rp_hf_order_own_index(const struct rp_model_config *config, enum rp_slot_part part,
                             size_t dim, size_t i);

/* hf [n][dim] = own [n][dim] in HF's order, where rp_hf_order_differs; and back. */
void rp_hf_order_from_own(const struct rp_model_config *config, enum rp_slot_part part, size_t n,
                          size_t dim, const float *own, float *hf);
void rp_hf_order_to_own(const struct rp_model_config *config, enum rp_slot_part part, size_t n,
                        size_t dim, const float *hf, float *own);

#endif
