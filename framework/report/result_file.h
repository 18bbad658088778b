/* What one pair's test `report` leaves: its result.json, sealed, and a .diff where it does not pass or has
 * warnings. Not for those of all pairs: results.h. */
#ifndef REFPARITY_REPORT_RESULT_FILE_H
#define REFPARITY_REPORT_RESULT_FILE_H

#include <cjson/cJSON.h>
#include <stdbool.h>

#include "run/judge.h"

/* Judges pair and writes its result.json; writes its .diff when it diverges, is in error or has warnings, removes
 * an old one otherwise. *verdict and *warnings are the pair's; *json is its result, owned by the caller, never
 * NULL but where memory is short. lost: why its run cannot be what the session selected, NULL: it is. The files
 * that cannot be written are an error, but the first does not stop the second. */
enum rp_status rp_results_make_pair(const struct rp_context *context, const struct rp_pair *pair,
                                    const char *lost, cJSON **json, enum rp_verdict *verdict,
                                    struct rp_warnings *warnings, struct rp_error *err);

/* What is known of a pair that cannot be judged. */
cJSON *rp_results_unjudged(const struct rp_context *context, const struct rp_pair *pair,
                           const struct rp_error *err);

/* The pair's result as it is stored in path, owned by the caller, where it is of this session; else NULL.
 * *forged: it is not what the pair's test wrote. */
cJSON *rp_results_read_pair(const struct rp_context *context, const struct rp_pair *pair,
                            const char *path, bool *forged);

#endif
