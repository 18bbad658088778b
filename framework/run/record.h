/* run.json: what happened when the engine ran for a pair. Written by `run`, read by every test of
 * the pair. Not for what the comparison found: that is result.json, see judge.h. */
#ifndef REFPARITY_RUN_RECORD_H
#define REFPARITY_RUN_RECORD_H

#include "base/process.h"
#include "run/context.h"

enum rp_run_outcome {
    RP_RUN_RAN,
    RP_RUN_REUSED,  /* an earlier dump was kept: its inputs are the same by content */
    RP_RUN_SKIPPED, /* a prerequisite is missing */
    RP_RUN_ERROR    /* the pair cannot be run as the matrix describes it */
};

struct rp_run_record {
    enum rp_run_outcome outcome;
    char reason[1200]; /* of SKIPPED and ERROR */
    char session[40];
    struct rp_process_result process; /* of RAN and REUSED */
    double timeout_s;
    double harness_s; /* spent by `run` outside the engine */
    char key[65];     /* sha256 over all inputs; "" when it was not computed */
};

enum rp_status rp_run_record_write(const char *path, const struct rp_run_record *record,
                                   struct rp_error *err);
/* RP_ERR_MISSING when there is none: `run` has not finished. */
enum rp_status rp_run_record_read(const char *path, struct rp_run_record *record,
                                  struct rp_error *err);

#endif
