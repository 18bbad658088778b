/* run.json: what happened when the engine ran for a pair. Written by `run`, read by every test of
 * the pair. Not for what the comparison found: that is result.json, see judge.h. */
#ifndef REFPARITY_RUN_RECORD_H
#define REFPARITY_RUN_RECORD_H

#include "base/process.h"
#include "refparity/compare.h"
#include "run/context.h"
#include "run/fingerprint.h"

enum rp_run_outcome {
    RP_RUN_RAN,
    RP_RUN_REUSED,  /* an earlier dump was kept: its inputs are the same by content */
    RP_RUN_SKIPPED, /* a prerequisite is missing */
    RP_RUN_ERROR,   /* the pair cannot be run as the matrix describes it */
    RP_RUN_STARTED  /* on disk while the engine runs; stays there when `run` itself is killed */
};

struct rp_run_record {
    enum rp_run_outcome outcome;
    char reason[1200]; /* of SKIPPED and ERROR */
    char session[40];
    struct rp_process_result process; /* of RAN and REUSED */
    double timeout_s;
    double harness_s; /* spent by `run` outside the engine */
    char key[65];     /* sha256 over all inputs; "" when it was not computed */
    /* What was there when the engine began, and when it had ended; "" when not known. A test that
     * finds something else is told so: see fingerprint.h. */
    char fixture[RP_PATH_SIZE], fixture_state[RP_FINGERPRINT_SIZE];
    char model[RP_PATH_SIZE], model_state[RP_FINGERPRINT_SIZE]; /* the entry's GGUF */
    char dump_state[RP_FINGERPRINT_SIZE];
    /* Is the engine's file the checkpoint? Of a pair whose gate is explained; else PASS, "". */
    enum rp_verdict weights;
    char weights_message[640];
    char command[8192]; /* the engine's, for a shell; "" when it could not be made */
};

/* The record of pair, at path, sealed: seal.h. */
enum rp_status rp_run_record_write(const struct rp_context *context, const struct rp_pair *pair,
                                   const char *path, const struct rp_run_record *record,
                                   struct rp_error *err);
/* RP_ERR_MISSING when there is none: `run` has not finished. RP_ERR_MISMATCH: `run` did not write it. */
enum rp_status rp_run_record_read(const struct rp_context *context, const struct rp_pair *pair,
                                  const char *path, struct rp_run_record *record,
                                  struct rp_error *err);

/* Does the entry accept that the engine ended so? Whether it had completed its dump is not asked. */
int rp_ended_as_accepted(const struct rp_entry *entry, const struct rp_process_result *process);

#endif
