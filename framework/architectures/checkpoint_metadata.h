/* A checkpoint's configuration as the keys of the GGUF that a right converter writes. Not the tensors
 * (from_checkpoint.h), and not reading config.json (checkpoint_config.h). */
#ifndef REFPARITY_ARCHITECTURES_CHECKPOINT_METADATA_H
#define REFPARITY_ARCHITECTURES_CHECKPOINT_METADATA_H

#include "architectures/checkpoint_config.h"
#include "weights/gguf_computed.h"

/* Adds all keys to *metadata; where there is no memory, metadata->failed. The checkpoint gives the ids of the
 * first and last tokens. */
void rp_checkpoint_metadata(const struct rp_checkpoint *checkpoint,
                            const struct rp_checkpoint_config *config,
                            struct rp_gguf_metadata *metadata);

#endif
