/* A checkpoint as the GGUF that a right converter makes of it: names, order of rows, values and metadata.
 * Nothing is rounded: a tensor keeps the checkpoint's type, or is FP32 where its values are changed. Not for
 * running it: that is model/. */
#ifndef REFPARITY_ARCHITECTURES_FROM_CHECKPOINT_H
#define REFPARITY_ARCHITECTURES_FROM_CHECKPOINT_H

#include "refparity/gguf.h"

/* Beside the keys that converters write: the ids that end, and begin, a text by config.json and
 * generation_config.json, where they say so. */
#define RP_CHECKPOINT_EOS_IDS "checkpoint.eos_token_ids"
#define RP_CHECKPOINT_BOS_IDS "checkpoint.bos_token_ids"

/* On success *out is to be closed with rp_gguf_close. Errors: those of rp_checkpoint_open and of
 * rp_checkpoint_config_read; RP_ERR_MISSING (a tensor), RP_ERR_MISMATCH (its shape), RP_ERR_UNSUPPORTED (its
 * type; a tensor of the text model that the architecture does not use: a bias, an adapter). */
enum rp_status rp_gguf_open_checkpoint(const char *folder, struct rp_gguf **out,
                                       struct rp_error *err);

#endif
