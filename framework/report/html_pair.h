/* The HTML page of one pair: verdict and first divergence, the error of each layer, of each operation, of each
 * position, what explains it, and how to see it again. Not the files: html.h. */
#ifndef REFPARITY_REPORT_HTML_PAIR_H
#define REFPARITY_REPORT_HTML_PAIR_H

#include <cjson/cJSON.h>
#include <stdio.h>

/* pair: as results.json has it. up: the page that lists all, NULL: there is none. */
void rp_html_pair(FILE *out, const cJSON *pair, const char *up);

/* A link to a file of this machine, at a line where that is not 0. */
void rp_html_file(FILE *out, const char *path, int line);

#endif
