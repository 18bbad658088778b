/* refparity report --merge. */
#ifndef REFPARITY_CLI_REPORT_MERGE_H
#define REFPARITY_CLI_REPORT_MERGE_H

#include <stdbool.h>
#include <stddef.h>

#include "cli/report_baseline.h"

struct rp_cli_merge {
    const char *out;
    const char *filter;   /* NULL: all */
    const char *baseline; /* NULL: none */
    enum rp_report_format format;
    bool strict_warnings, shows_all;
};

/* Merges the sources [n], prints the summary, or with a baseline what changed, and returns the exit code. */
int rp_cli_report_merge(const struct rp_terminal *out, const struct rp_cli_merge *options,
                        char *const *sources, size_t n);

#endif
