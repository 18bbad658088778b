/* A checkpoint as the GGUF that a right converter makes of it: names, order of rows, values and metadata.
 * Nothing is rounded: a tensor keeps the checkpoint's type, or is FP32 where its values are changed. Not for
 * running it: that is model/. */
#ifndef REFPARITY_ARCHITECTURES_FROM_CHECKPOINT_H
#define REFPARITY_ARCHITECTURES_FROM_CHECKPOINT_H

#include "refparity/weights.h"

/* Beside the keys that converters write: the ids that end, and begin, a text by config.json and
 * generation_config.json, where they say so. */
#define RP_CHECKPOINT_EOS_IDS "checkpoint.eos_token_ids"
#define RP_CHECKPOINT_BOS_IDS "checkpoint.bos_token_ids"

#endif
