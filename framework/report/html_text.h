/* HTML, escaped: a page's beginning and end, text, numbers. A page is one file that loads nothing and runs no
 * script, so that it shows offline and where a CI forbids scripts. Not for what a page says: html.h, chart.h. */
#ifndef REFPARITY_REPORT_HTML_TEXT_H
#define REFPARITY_REPORT_HTML_TEXT_H

#include <stdio.h>

#define RP_HTML_BEGINNING "<!DOCTYPE html>\n<!-- refparity report -->\n"

/* up: a link back, "index.html" say; NULL: there is none. */
void rp_html_begin(FILE *out, const char *title, const char *up);
void rp_html_end(FILE *out);

/* What HTML would take for its own is escaped; what is not UTF-8, and control characters but line ends, are
 * written as U+FFFD. In attributes in double quotes, too. */
void rp_html_text(FILE *out, const char *text);

/* A verdict as a coloured word; "" writes nothing. */
void rp_html_verdict(FILE *out, const char *verdict);

/* Three digits: "0.0123", "1.7e-06"; a NaN is "not finite". */
void rp_html_number(FILE *out, double value);

/* "<th scope=col>" for each heading, up to a NULL. */
void rp_html_table_begin(FILE *out, const char *caption, const char *const *headings);
void rp_html_table_end(FILE *out);

#endif
