/* A session's results in a few lines, for a terminal. */
#ifndef REFPARITY_REPORT_SUMMARY_H
#define REFPARITY_REPORT_SUMMARY_H

#include <stdio.h>

#include "report/results.h"

/* "compared N of M pairs", a line for each pair that did not pass and for each kind of warning of an entry,
 * where the reports are. */
void rp_results_summary(FILE *out, const struct rp_context *context,
                        const struct rp_results *results);

/* Of one of results.json's pairs: the message of the first test that has the pair's own verdict. */
const char *rp_results_reason(const cJSON *pair);

/* The next pair, from pair on, whose reference an engine made, for which no pair of its entry before it has said
 * so; NULL where there is none. "reference" of it says which engine. */
const cJSON *rp_results_next_reference(const cJSON *pair);

#endif
