/* The HTML report: index.html over all pairs, and a page for each pair that did not pass, or has warnings.
 * Each is one file that loads nothing and runs no script; results.json says the same to programs. */
#ifndef REFPARITY_REPORT_HTML_H
#define REFPARITY_REPORT_HTML_H

#include "report/results.h"

/* Writes them into reports_dir. RP_ERR_IO, RP_ERR_MEMORY. What an earlier run left: old_reports.h. */
enum rp_status rp_report_html(const char *reports_dir, const cJSON *results, struct rp_error *err);

/* One page of its own, for `diff` and `replay`: pair is an object as results.json has them: "pair", "verdict",
 * "comparison" or "replay", …; what is missing is left out. */
enum rp_status rp_report_html_pair(const char *path, const cJSON *pair, struct rp_error *err);

#endif
