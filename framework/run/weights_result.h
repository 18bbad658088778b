/* What the test <entry>/weights found, kept for the report. Not for judging: judge_weights.h. */
#ifndef REFPARITY_RUN_WEIGHTS_RESULT_H
#define REFPARITY_RUN_WEIGHTS_RESULT_H

#include "run/judge_weights.h"

struct rp_weights_result {
    char session[40]; /* the ctest run that it is of */
    enum rp_verdict verdict;
    char message[RP_WEIGHTS_MESSAGE_SIZE];
    double seconds; /* that the test took */
};

/* At session/begin: what earlier sessions found no longer counts. RP_ERR_IO. */
enum rp_status rp_weights_results_clear(const char *work_dir, struct rp_error *err);

/* Until the result is written it is an ERROR: a test that is killed is not lost. RP_ERR_IO. */
enum rp_status rp_weights_result_begin(const struct rp_context *context,
                                       const struct rp_entry *entry, struct rp_error *err);
/* Fills in the context's session. RP_ERR_IO. */
enum rp_status rp_weights_result_write(const struct rp_context *context,
                                       const struct rp_entry *entry,
                                       struct rp_weights_result *result, struct rp_error *err);

/* RP_ERR_MISSING: the context's session has not run the test; RP_ERR_MISMATCH: something else wrote the file,
 * or changed it. */
enum rp_status rp_weights_result_read(const struct rp_context *context,
                                      const struct rp_entry *entry,
                                      struct rp_weights_result *result, struct rp_error *err);

#endif
