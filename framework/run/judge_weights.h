/* Is an entry's engine_gguf the checkpoint that its hf_model names? One test an entry, which needs no
 * engine and no fixture. Not for how they are compared: that is refparity/weights.h. */
#ifndef REFPARITY_RUN_JUDGE_WEIGHTS_H
#define REFPARITY_RUN_JUDGE_WEIGHTS_H

#include "refparity/compare.h"
#include "refparity/weights.h"
#include "run/context.h"

#define RP_WEIGHTS_MESSAGE_SIZE 3072

/* Calls see with what was found, and says the verdict in message. SKIP: there is no engine_gguf or no
 * checkpoint, or they are of a kind that is not read; with REFPARITY_REQUIRE that is an ERROR. The checkpoint
 * is looked for below $REFPARITY_CHECKPOINTS, beside the stores (fixtures/<hf_model>, as the recorder does),
 * then in the GGUF's folder, by hf_model and there itself; then its sketch in the stores, and at the same place
 * below $REFPARITY_CHECKPOINTS: the message then says what it cannot see. */
enum rp_verdict rp_judge_weights(const struct rp_context *context, const struct rp_entry *entry,
                                 rp_weights_fn *see, void *see_context,
                                 char message[RP_WEIGHTS_MESSAGE_SIZE]);

/* The verdict alone, which is kept in the build tree as long as neither file nor refparity changes: that takes
 * seconds, and each pair of the entry asks. Its message as far as size[] goes; where PASS what the sketch does
 * not see, or "". */
enum rp_verdict rp_judge_weights_once(const struct rp_context *context,
                                      const struct rp_entry *entry, char *message, size_t size);

#endif
