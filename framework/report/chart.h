/* Charts as SVG, each with the table behind it: lines on a logarithmic scale, and a heatmap. Drawn here
 * rather than by a library: what draws in a browser is a script, which CI servers forbid in reports, and
 * what draws on paper is no C. */
#ifndef REFPARITY_REPORT_CHART_H
#define REFPARITY_REPORT_CHART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum { RP_CHART_MAX_SERIES = 3 };

struct rp_chart_series {
    const char *name;
    const double *values; /* [n]; NaN: nothing there; HUGE_VAL: not finite, drawn at the top */
    bool has_line;        /* else points alone */
};

struct rp_chart {
    const char *title, *of;    /* of: what a label is, "slot" say */
    const char *const *labels; /* [n] */
    size_t n;
    struct rp_chart_series series[RP_CHART_MAX_SERIES]; /* [n_series] */
    size_t n_series;
    double limit; /* a line across; NaN: none */
};
/* Nothing where n is 0. */
void rp_chart_write(FILE *out, const struct rp_chart *chart);

struct rp_heatmap {
    const char *title;
    const char *const *rows; /* [n_rows] */
    const char *const
        *columns; /* [n_columns], position, a space, token; the axis has the position */
    size_t n_rows, n_columns;
    const double *values; /* [n_rows][n_columns]; NaN: nothing there; HUGE_VAL: not finite */
};
void rp_heatmap_write(FILE *out, const struct rp_heatmap *heatmap);

#endif
