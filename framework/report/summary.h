/* A session's results in a few lines, for a terminal. */
#ifndef REFPARITY_REPORT_SUMMARY_H
#define REFPARITY_REPORT_SUMMARY_H

#include <stdbool.h>

#include "base/terminal.h"
#include "report/results.h"

/* A line for each pair that fails, the first 20 unless shows_all; then for those that are skipped or explained,
 * for each kind of warning of an entry; "compared N of M pairs"; where the reports are. */
void rp_results_summary(const struct rp_terminal *out, const struct rp_context *context,
                        const struct rp_results *results, bool shows_all);

/* Of one of results.json's pairs: the message of the first test that has the pair's own verdict. */
const char *rp_results_reason(const cJSON *pair);

/* Of one of results.json's pairs: the first slot that replay explains, NULL where it explains none; and what explains
 * it, "" where nothing does. */
const cJSON *rp_results_explained_slot(const cJSON *pair);
const char *rp_results_explanation(const cJSON *slot);

/* The next pair, from pair on, whose reference an engine made, for which no pair of its entry before it has said
 * so; NULL where there is none. "reference" of it says which engine. */
const cJSON *rp_results_next_reference(const cJSON *pair);

#endif
