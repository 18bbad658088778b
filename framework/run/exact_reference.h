/* Finds, makes and keeps the exact reference of a pair (exact/exact.h), for the gates that ask for one.
 * Pairs of the same GGUF, tokens, positions and numerics share it. */
#ifndef REFPARITY_RUN_EXACT_REFERENCE_H
#define REFPARITY_RUN_EXACT_REFERENCE_H

#include "run/record.h"

/* Fills record's exact, exact_state and exact_s, or no_exact. The C model computes it, into a folder
 * below the context's work_dir that is named by all of its inputs, the C model among them (by the tool's
 * content: what another build has left is removed; one that has changed since is computed again); where that
 * does not know the model, a fixture recorded with HF on the dequantized weights takes its place
 * (run/fixture.h). gguf: the entry's, found. */
void rp_exact_reference_find(const struct rp_context *context, const struct rp_pair *pair,
                             const char *gguf, struct rp_run_record *record);

/* Opens what record names. RP_ERR_MISMATCH when it has changed since. */
enum rp_status rp_exact_reference_open(const struct rp_run_record *record,
                                       struct rp_tensor_set **set, struct rp_error *err);

#endif
