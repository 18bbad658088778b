/* `refparity report --baseline`: this run against an earlier one. */
#ifndef REFPARITY_CLI_REPORT_BASELINE_H
#define REFPARITY_CLI_REPORT_BASELINE_H

#include "base/terminal.h"
#include "report/results.h"

enum rp_report_format { RP_REPORT_TEXT, RP_REPORT_MARKDOWN, RP_REPORT_JSON };

/* Prints what changed, and returns the program's exit code: 2 where the baseline cannot be used, nothing was
 * compared, or something new is an ERROR; else 1 where anything is new or worse; else 0. */
int rp_cli_report_baseline(const struct rp_terminal *out, const struct rp_results *results,
                           const char *path, enum rp_report_format format);

#endif
