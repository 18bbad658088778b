/* Layers for multi-token prediction: a GGUF may have some behind the decoder's (nextn_predict_layers of its
 * block_count). They run after the decoder, transformers does not load them, and nothing here computes them. */
#ifndef REFPARITY_WEIGHTS_PREDICTION_LAYERS_H
#define REFPARITY_WEIGHTS_PREDICTION_LAYERS_H

#include "refparity/gguf.h"

/* The decoder's layers and those behind them. RP_ERR_MISSING, RP_ERR_FORMAT, RP_ERR_UNSUPPORTED: a key is missing, is
 * no number, or leaves less than one layer or more than max. */
enum rp_status rp_gguf_count_layers(const struct rp_gguf *gguf, int64_t max, size_t *n_layers,
                                    size_t *n_prediction_layers, struct rp_error *err);

/* Whether the tensor belongs to a layer behind the decoder's. */
bool rp_gguf_is_of_prediction(const struct rp_gguf *gguf, const struct rp_gguf_tensor *tensor);

#endif
