/* Finds the fixture of a pair and holds it against the matrix. */
#ifndef REFPARITY_RUN_FIXTURE_H
#define REFPARITY_RUN_FIXTURE_H

#include "run/context.h"

/* Opens pair's fixture from the first store that has it; path[RP_PATH_SIZE] is where. The manifest
 * has to agree with the matrix on hf_model, revision, dtype, prompt and n_layers; that of another engine's
 * dump on engine and file, too. A fixture without a manifest is taken as it is, if it is to be HF's. *fixture is to be closed with rp_tensor_set_close.
 * RP_ERR_MISSING: no store has it; the message says how to record it. RP_ERR_MISMATCH: it was
 * recorded for something else. Otherwise the errors of rp_tensor_set_open. */
enum rp_status rp_fixture_open(const struct rp_context *context, const struct rp_pair *pair,
                               struct rp_tensor_set **fixture, char *path, struct rp_error *err);

/* Where the pair's fixture is, in path[RP_PATH_SIZE]; what is in it is not looked at. RP_ERR_MISSING. */
enum rp_status rp_fixture_find(const struct rp_context *context, const struct rp_pair *pair,
                               char *path, struct rp_error *err);

/* Where the reference of pair, whose entry has an engine as its reference, is recorded: in the last store, the
 * user's. path is [RP_PATH_SIZE]. RP_ERR_ARGUMENT. */
enum rp_status rp_reference_path(const struct rp_context *context, const struct rp_pair *pair,
                                 char *path, struct rp_error *err);

#endif
