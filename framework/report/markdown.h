/* The results of a ctest session as Markdown: for a pull request's step summary. */
#ifndef REFPARITY_REPORT_MARKDOWN_H
#define REFPARITY_REPORT_MARKDOWN_H

#include <stdio.h>

#include "report/results.h"

/* A line with the counts, then a table of the pairs that did not pass, with the first divergence;
 * then, folded, a table of those that did, with the largest L2_rel of a required slot. */
void rp_report_markdown(FILE *out, const struct rp_results *results);

/* Inside a table's cell: what Markdown or HTML would take for its own is escaped, and a cell is one line. */
void rp_markdown_cell(FILE *out, const char *text);

#endif
