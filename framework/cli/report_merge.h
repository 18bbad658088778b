/* refparity report --merge. */
#ifndef REFPARITY_CLI_REPORT_MERGE_H
#define REFPARITY_CLI_REPORT_MERGE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/terminal.h"

struct rp_cli_merge {
    const char *out;
    const char *filter; /* NULL: all */
    bool markdown, strict_warnings, shows_all;
};

/* Merges the sources [n], prints the summary, returns the exit code. */
int rp_cli_report_merge(const struct rp_terminal *out, const struct rp_cli_merge *options,
                        char *const *sources, size_t n);

#endif
