/* See chart.h. */
#include "report/chart.h"

#include <math.h>
#include <string.h>

#include "report/html_text.h"

enum { LEFT = 64, TOP = 12, HEIGHT = 240, BOTTOM = 84, MIN_STEP = 14, ROW = 14, ROW_LEFT = 96 };

/* ---- lines ---- */

/* The decades that are drawn: 10^low to 10^high. */
struct scale {
    int low, high;
};

static void widen(struct scale *scale, double value, bool *any)
{
    if (!isfinite(value) || !(value > 0))
        return;
    const int low = (int)floor(log10(value)), high = (int)ceil(log10(value));
    scale->low = !*any || low < scale->low ? low : scale->low;
    scale->high = !*any || high > scale->high ? high : scale->high;
    *any = true;
}

static struct scale scale_of(const struct rp_chart *chart)
{
    struct scale scale = {-7, 0};
    bool any = false;
    widen(&scale, chart->limit, &any);
    for (size_t s = 0; s < chart->n_series; s++)
        for (size_t i = 0; i < chart->n; i++)
            widen(&scale, chart->series[s].values[i], &any);
    scale.low = scale.low < -12 ? -12 : scale.low;
    scale.high = scale.high <= scale.low ? scale.low + 1 : scale.high;
    scale.high = scale.high > scale.low + 24 ? scale.low + 24 : scale.high;
    return scale;
}

/* 0 stands at the lower edge, what is not finite at the upper. */
static double y_of(const struct scale *scale, double value)
{
    const double decades = scale->high - scale->low;
    double part = value > 0 ? (log10(value) - scale->low) / decades : 0;
    part = part < 0 ? 0 : part;
    part = part > 1 ? 1 : part;
    return TOP + HEIGHT * (1 - part);
}

static void write_grid(FILE *out, const struct scale *scale, double width)
{
    for (int decade = scale->low; decade <= scale->high; decade++) {
        const double y = y_of(scale, pow(10, decade));
        fprintf(out, "<path class=\"grid\" d=\"M%d %.1fH%.0f\"/>", LEFT, y, width);
        fprintf(out, "<text class=\"soft\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">1e%d</text>\n",
                LEFT - 6, y + 4, decade);
    }
}

/* Not more labels than there is room for. */
static void write_labels(FILE *out, const struct rp_chart *chart, double step)
{
    const size_t every = (size_t)ceil(MIN_STEP / step);
    for (size_t i = 0; i < chart->n; i += every) {
        const double x = LEFT + ((double)i + 0.5) * step;
        fprintf(out,
                "<text x=\"%.1f\" y=\"%d\" transform=\"rotate(-60 %.1f %d)\" text-anchor=\"end\">",
                x, TOP + HEIGHT + 16, x, TOP + HEIGHT + 16);
        rp_html_text(out, chart->labels[i]);
        fputs("</text>\n", out);
    }
}

static void write_series(FILE *out, const struct rp_chart *chart, size_t s,
                         const struct scale *scale, double step)
{
    const struct rp_chart_series *series = &chart->series[s];
    bool is_open = false;
    if (series->has_line) {
        fprintf(out, "<path class=\"s%zu\" stroke-width=\"1.5\" d=\"", s);
        for (size_t i = 0; i < chart->n; i++) {
            if (isnan(series->values[i])) {
                is_open = false;
                continue;
            }
            fprintf(out, "%c%.1f %.1f", is_open ? 'L' : 'M', LEFT + ((double)i + 0.5) * step,
                    y_of(scale, series->values[i]));
            is_open = true;
        }
        fputs("\"/>\n", out);
    }
    for (size_t i = 0; i < chart->n; i++) {
        if (isnan(series->values[i]))
            continue;
        fprintf(out, "<circle class=\"p%zu\" cx=\"%.1f\" cy=\"%.1f\" r=\"%s\"><title>", s,
                LEFT + ((double)i + 0.5) * step, y_of(scale, series->values[i]),
                s == 0 ? "3.5" : "2.5");
        rp_html_text(out, chart->labels[i]);
        fprintf(out, ": %s ", series->name);
        rp_html_number(out, isinf(series->values[i]) ? (double)NAN : series->values[i]);
        fputs("</title></circle>\n", out);
    }
}

static void write_legend(FILE *out, const struct rp_chart *chart)
{
    fputs("<p>", out);
    for (size_t s = 0; s < chart->n_series; s++)
        fprintf(
            out,
            "<svg width=\"14\" height=\"10\" style=\"display:inline\" aria-hidden=\"true\"><circle "
            "class=\"p%zu\" cx=\"6\" cy=\"5\" r=\"4\"/></svg>%s%s",
            s, chart->series[s].name, s + 1 < chart->n_series ? " &nbsp; " : "");
    if (!isnan(chart->limit))
        fprintf(out, " &nbsp; dashed: the limit, %.3g", chart->limit);
    fputs("</p>\n", out);
}

static void write_chart_table(FILE *out, const struct rp_chart *chart)
{
    const char *headings[RP_CHART_MAX_SERIES + 2] = {chart->of};
    for (size_t s = 0; s < chart->n_series; s++)
        headings[s + 1] = chart->series[s].name;
    fputs("<details><summary>The numbers</summary>\n", out);
    rp_html_table_begin(out, chart->title, headings);
    for (size_t i = 0; i < chart->n; i++) {
        fputs("<tr><th scope=\"row\">", out);
        rp_html_text(out, chart->labels[i]);
        for (size_t s = 0; s < chart->n_series; s++) {
            const double value = chart->series[s].values[i];
            fputs("<td class=\"n\">", out);
            if (!isnan(value))
                rp_html_number(out, isinf(value) ? (double)NAN : value);
        }
        fputc('\n', out);
    }
    rp_html_table_end(out);
    fputs("</details>\n", out);
}

void rp_chart_write(FILE *out, const struct rp_chart *chart)
{
    if (chart->n == 0)
        return;
    const struct scale scale = scale_of(chart);
    const double step = chart->n > 60 ? MIN_STEP : fmin(40, 1040.0 / (double)chart->n);
    const double width = LEFT + step * (double)chart->n;
    write_legend(out, chart);
    fprintf(out,
            "<div class=\"box\" tabindex=\"0\"><svg role=\"img\" width=\"%.0f\" height=\"%d\" "
            "aria-label=\"",
            width + 8, TOP + HEIGHT + BOTTOM);
    rp_html_text(out, chart->title);
    fputs("; the table below has the numbers\">\n", out);
    write_grid(out, &scale, width);
    if (!isnan(chart->limit))
        fprintf(out, "<path class=\"limit\" d=\"M%d %.1fH%.0f\"/>\n", LEFT,
                y_of(&scale, chart->limit), width);
    write_labels(out, chart, step);
    for (size_t s = chart->n_series; s-- > 0;)
        write_series(out, chart, s, &scale, step);
    fputs("</svg></div>\n", out);
    write_chart_table(out, chart);
}

/* ---- heatmap ---- */

/* The levels of colour: below 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 5e-2, 1, and above. */
static const double level_ends[] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 5e-2, 1};
enum { N_LEVELS = sizeof level_ends / sizeof *level_ends + 1, NOT_FINITE = N_LEVELS };

static int level_of(double value)
{
    int level = 0;
    if (isinf(value))
        return NOT_FINITE;
    while (level < N_LEVELS - 1 && !(value < level_ends[level]))
        level++;
    return level;
}

/* One path a level: a stroke for each run of columns. */
static void write_cells(FILE *out, const struct rp_heatmap *map, int level, double step)
{
    bool any = false;
    for (size_t r = 0; r < map->n_rows; r++) {
        const double *values = map->values + r * map->n_columns;
        for (size_t c = 0, end; c < map->n_columns; c = end) {
            for (end = c;
                 end < map->n_columns && !isnan(values[end]) && level_of(values[end]) == level;)
                end++;
            if (end == c) {
                end++;
                continue;
            }
            if (!any)
                fprintf(out, "<path class=\"h%.1s\" stroke-width=\"%d\" d=\"", &"01234567x"[level],
                        ROW - 1);
            any = true;
            fprintf(out, "M%.4g %.4gh%.4g", ROW_LEFT + (double)c * step,
                    TOP + ((double)r + 0.5) * ROW, (double)(end - c) * step);
        }
    }
    if (any)
        fputs("\"/>\n", out);
}

static void write_axis(FILE *out, const struct rp_heatmap *map, double step)
{
    const size_t every = (size_t)ceil(48 / step);
    for (size_t r = 0; r < map->n_rows; r++) {
        fprintf(out, "<text x=\"%d\" y=\"%zu\" text-anchor=\"end\">", ROW_LEFT - 6,
                TOP + r * ROW + ROW - 3);
        rp_html_text(out, map->rows[r]);
        fputs("</text>\n", out);
    }
    for (size_t c = 0; c < map->n_columns; c += every)
        fprintf(out, "<text class=\"soft\" x=\"%.1f\" y=\"%zu\">%.*s</text>\n",
                ROW_LEFT + (double)c * step, TOP + map->n_rows * ROW + 16,
                (int)strcspn(map->columns[c], " -"), map->columns[c]);
}

static void write_levels(FILE *out)
{
    static const char *const names[N_LEVELS + 1] = {"below 1e-6",   "1e-6 to 1e-5", "1e-5 to 1e-4",
                                                    "1e-4 to 1e-3", "1e-3 to 0.01", "0.01 to 0.05",
                                                    "0.05 to 1",    "1 and more",   "not finite"};
    fputs("<p>", out);
    for (int level = 0; level <= NOT_FINITE; level++)
        fprintf(
            out,
            "<svg width=\"16\" height=\"12\" style=\"display:inline\" aria-hidden=\"true\"><path "
            "class=\"h%.1s\" stroke-width=\"12\" d=\"M0 6h12\"/></svg>%s &nbsp; ",
            &"01234567x"[level], names[level]);
    fputs("</p>\n", out);
}

static void write_heatmap_table(FILE *out, const struct rp_heatmap *map)
{
    fputs("<details><summary>The numbers</summary>\n<div class=\"box\" "
          "tabindex=\"0\"><table><caption>",
          out);
    rp_html_text(out, map->title);
    fputs("</caption>\n<tr><th scope=\"col\">slot", out);
    for (size_t c = 0; c < map->n_columns; c++) {
        fputs("<th scope=\"col\">", out);
        rp_html_text(out, map->columns[c]);
    }
    for (size_t r = 0; r < map->n_rows; r++) {
        fputs("\n<tr><th scope=\"row\">", out);
        rp_html_text(out, map->rows[r]);
        for (size_t c = 0; c < map->n_columns; c++) {
            const double value = map->values[r * map->n_columns + c];
            fputs("<td>", out);
            if (!isnan(value))
                rp_html_number(out, isinf(value) ? (double)NAN : value);
        }
    }
    fputc('\n', out);
    rp_html_table_end(out);
    fputs("</details>\n", out);
}

void rp_heatmap_write(FILE *out, const struct rp_heatmap *map)
{
    if (map->n_rows == 0 || map->n_columns == 0)
        return;
    const double step = fmin(24, fmax(4, floor(1000.0 / (double)map->n_columns)));
    write_levels(out);
    fprintf(out,
            "<div class=\"box\" tabindex=\"0\"><svg role=\"img\" width=\"%.0f\" height=\"%zu\" "
            "aria-label=\"",
            ROW_LEFT + step * (double)map->n_columns + 40, TOP + map->n_rows * ROW + 24);
    rp_html_text(out, map->title);
    fputs("; the table below has the numbers\">\n", out);
    for (int level = 0; level <= NOT_FINITE; level++)
        write_cells(out, map, level, step);
    write_axis(out, map, step);
    fputs("</svg></div>\n", out);
    write_heatmap_table(out, map);
}
