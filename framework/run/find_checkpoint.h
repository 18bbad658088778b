/* Where the checkpoint of an entry's hf_model is on this machine. Not for reading it: refparity/weights.h. */
#ifndef REFPARITY_RUN_FIND_CHECKPOINT_H
#define REFPARITY_RUN_FIND_CHECKPOINT_H

#include "run/context.h"

/* Writes the folder that has its config.json: below $REFPARITY_CHECKPOINTS, beside the stores
 * (fixtures/<hf_model>, as the recorder does), then in the folder of gguf (NULL: none), by hf_model and there
 * itself. False: there is none; refused keeps the first place that could not be looked into, for want of
 * permission say. */
bool rp_find_checkpoint(const struct rp_context *context, const struct rp_entry *entry,
                        const char *gguf, char folder[RP_PATH_SIZE], struct rp_error *refused);

/* Of its sketch: beside the fixtures of that model and revision; below $REFPARITY_CHECKPOINTS at the same
 * place. */
bool rp_find_sketch(const struct rp_context *context, const struct rp_entry *entry,
                    char path[RP_PATH_SIZE], struct rp_error *refused);

#endif
