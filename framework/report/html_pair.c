/* See html_pair.h. */
#include "report/html_pair.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "refparity/tensor_set.h"
#include "report/chart.h"
#include "report/html_text.h"
#include "report/summary.h"

enum { MAX_SLOTS = 8192 }; /* of a chart; a pair of 100 layers has 4,000 */

static const cJSON *item_of(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

/* NAN where it is none. */
static double number_of(const cJSON *object, const char *name)
{
    return cJSON_GetNumberValue(item_of(object, name));
}

void rp_html_file(FILE *out, const char *path, int line)
{
    fputs("<a href=\"file://", out);
    rp_html_text(out, path);
    fputs("\"><code>", out);
    rp_html_text(out, path);
    if (line > 0)
        fprintf(out, ":%d", line);
    fputs("</code></a>", out);
}

/* ---- what is said first ---- */

static void write_fact(FILE *out, const char *name, const char *text)
{
    if (!text[0])
        return;
    fprintf(out, "<dt>%s<dd>", name);
    rp_html_text(out, text);
    fputc('\n', out);
}

static void write_file_fact(FILE *out, const char *name, const cJSON *pair, const char *key)
{
    const double line = strcmp(key, "matrix") == 0 ? number_of(pair, "line") : 0;
    if (!rp_json_text(pair, key)[0])
        return;
    fprintf(out, "<dt>%s<dd>", name);
    rp_html_file(out, rp_json_text(pair, key), line > 0 ? (int)line : 0);
    fputc('\n', out);
}

/* The token at a position, from the heatmap's columns; "" where it is not known. */
static const char *token_at(const cJSON *comparison, double position)
{
    const cJSON *by = item_of(comparison, "by_position"), *column;
    int i = 0;
    cJSON_ArrayForEach(column, item_of(by, "columns"))
    {
        if (cJSON_GetNumberValue(cJSON_GetArrayItem(column, 0)) == position)
            return cJSON_GetStringValue(cJSON_GetArrayItem(item_of(by, "tokens"), i));
        i++;
    }
    return "";
}

static void write_place(FILE *out, const cJSON *comparison, const cJSON *found, const char *heading,
                        const char *inner)
{
    const double position = number_of(found, "position");
    const char *token = token_at(comparison, position);
    if (!cJSON_IsObject(found))
        return;
    fprintf(out, "<h2>%s</h2>\n<p><strong>", heading);
    rp_html_text(out, rp_json_text(found, "slot"));
    fprintf(out, "</strong> at position %.0f", position);
    if (token[0]) {
        fputs(", token <code>", out);
        rp_html_text(out, token);
        fputs("</code>", out);
    }
    if (rp_json_text(found, inner)[0]) {
        fputs("; the operation: <strong>", out);
        rp_html_text(out, rp_json_text(found, inner));
        fputs("</strong>", out);
    }
    fputs("</p>\n<p>", out);
    rp_html_text(out, rp_json_text(found, "explanation"));
    fputs("</p>\n", out);
}

static void write_warnings(FILE *out, const cJSON *pair)
{
    const cJSON *warning;
    if (cJSON_GetArraySize(item_of(pair, "warnings")) == 0)
        return;
    fputs("<h2>Warnings</h2>\n<ul>\n", out);
    cJSON_ArrayForEach(warning, item_of(pair, "warnings"))
    {
        fputs("<li><span class=\"warning\">", out);
        rp_html_text(out, rp_json_text(warning, "kind"));
        fputs("</span>: ", out);
        rp_html_text(out, rp_json_text(warning, "message"));
        fputc('\n', out);
    }
    fputs("</ul>\n", out);
}

/* What is known of the engine, and whether it is still so. */
static void write_known(FILE *out, const cJSON *pair)
{
    static const char *const headings[] = {"slot", "name", "state", "reason", "issue", NULL};
    const cJSON *item;
    if (cJSON_GetArraySize(item_of(pair, "known")) == 0)
        return;
    fputs("<h2>Known divergences</h2>\n", out);
    rp_html_table_begin(out, "What the matrix knows of this engine", headings);
    cJSON_ArrayForEach(item, item_of(pair, "known"))
    {
        fputs("<tr><th scope=\"row\">", out);
        rp_html_text(out, rp_json_text(item, "slot"));
        for (const char *const *key = headings + 1; *key; key++) {
            fputs("<td>", out);
            rp_html_text(out, rp_json_text(item, *key));
        }
        if (rp_json_text(item, "message")[0]) {
            fputs("<br>", out);
            rp_html_text(out, rp_json_text(item, "message"));
        }
        fputc('\n', out);
    }
    rp_html_table_end(out);
}

/* What replay says of the slots that fail: the first of them opens. */
static void write_explanations(FILE *out, const cJSON *pair)
{
    const cJSON *layer, *slot;
    bool any = false;
    cJSON_ArrayForEach(layer, item_of(pair, "replay"))
    {
        cJSON_ArrayForEach(slot, item_of(layer, "slots"))
        {
            const cJSON *explanation = item_of(slot, "explanation");
            const char *verdict = rp_json_text(slot, "verdict");
            if (strcmp(verdict, "FAIL") != 0 && strcmp(verdict, "XFAIL") != 0 &&
                strcmp(verdict, "ERROR") != 0)
                continue;
            if (!any)
                fputs("<h2>Operations that are wrong</h2>\n<dl>\n", out);
            any = true;
            fputs("<dt>", out);
            rp_html_verdict(out, verdict);
            fputs(" <strong>", out);
            rp_html_text(out, rp_json_text(slot, "slot"));
            fputs("</strong>: ", out);
            rp_html_text(out, rp_json_text(slot, "operation"));
            fputs(", from the engine's own ", out);
            rp_html_text(out,
                         rp_json_text(slot, "from")[0] ? rp_json_text(slot, "from") : "tokens");
            fputs("<dd>", out);
            rp_html_text(out, rp_json_text(slot, "message"));
            if (rp_json_text(explanation, "text")[0]) {
                fputs("<br>", out);
                rp_html_text(out, rp_json_text(explanation, "text"));
            }
            fputc('\n', out);
        }
    }
    if (any)
        fputs("</dl>\n", out);
}

/* ---- charts ---- */

struct points {
    const char *labels[MAX_SLOTS];
    double values[RP_CHART_MAX_SERIES][MAX_SLOTS];
    size_t n;
};

/* What is no number in the file was not finite. */
static double error_of(const cJSON *object, const char *name)
{
    const cJSON *item = item_of(object, name);
    if (!item)
        return (double)NAN;
    return cJSON_IsNumber(item) ? item->valuedouble : HUGE_VAL;
}

static const cJSON *replayed_layer(const cJSON *pair, const char *slot)
{
    const cJSON *layer;
    cJSON_ArrayForEach(layer, item_of(pair, "replay"))
    {
        if (strcmp(rp_json_text(layer, "slot"), slot) == 0)
            return layer;
    }
    return NULL;
}

/* The slot of a replayed layer that is furthest over its limit, or nearest to it. */
static void add_introduced(const cJSON *layer, double *introduced, double *limit)
{
    const cJSON *slot;
    double worst = -1;
    *introduced = *limit = (double)NAN;
    cJSON_ArrayForEach(slot, item_of(layer, "slots"))
    {
        const double value = error_of(slot, "introduced"), of = number_of(slot, "limit");
        const double ratio = isinf(value) ? HUGE_VAL : value / of;
        if (isnan(value) || !(ratio > worst))
            continue;
        worst = ratio;
        *introduced = value;
        *limit = of;
    }
}

static void write_layers(FILE *out, const cJSON *pair, struct points *points)
{
    const cJSON *slot, *layer;
    const cJSON *slots = item_of(item_of(pair, "comparison"), "slots");
    const bool has_replay = cJSON_GetArraySize(item_of(pair, "replay")) > 0;
    double limit = (double)NAN;
    points->n = 0;
    cJSON_ArrayForEach(slot, slots)
    {
        const char *name = rp_json_text(slot, "slot");
        if (!cJSON_IsTrue(item_of(slot, "required")) || strcmp(name, "logits") == 0 ||
            !(number_of(slot, "n_compared") > 0) || points->n == MAX_SLOTS)
            continue;
        points->labels[points->n] = name;
        points->values[0][points->n] = error_of(item_of(slot, "worst"), "l2_rel");
        add_introduced(replayed_layer(pair, name), &points->values[1][points->n],
                       &points->values[2][points->n]);
        limit = number_of(slot, "limit");
        points->n++;
    }
    if (points->n > 0) {
        const struct rp_chart chart = {
            .title = "Error of each layer against the reference",
            .of = "slot",
            .labels = points->labels,
            .n = points->n,
            .series = {{"L2_rel against the reference: inherited and introduced", points->values[0],
                        true},
                       {"introduced by the layer, in replay", points->values[1], false},
                       {"replay's limit there", points->values[2], false}},
            .n_series = has_replay ? 3 : 1,
            .limit = limit};
        fputs("<h2>Error of each layer</h2>\n", out);
        rp_chart_write(out, &chart);
        return;
    }
    cJSON_ArrayForEach(layer, item_of(pair, "replay"))
    {
        if (points->n == MAX_SLOTS)
            break;
        points->labels[points->n] = rp_json_text(layer, "slot");
        add_introduced(layer, &points->values[0][points->n], &points->values[1][points->n]);
        points->n++;
    }
    const struct rp_chart chart = {
        .title = "What each layer introduces, in replay",
        .of = "layer",
        .labels = points->labels,
        .n = points->n,
        .series = {{"introduced: its worst slot", points->values[0], true},
                   {"limit there", points->values[1], false}},
        .n_series = 2,
        .limit = (double)NAN};
    if (points->n > 0)
        fputs("<h2>Error of each layer</h2>\n", out);
    rp_chart_write(out, &chart);
}

/* The layer that is looked into: where replay first fails, or else where the divergence is. */
static const char *inner_layer(const cJSON *pair)
{
    const cJSON *layer;
    cJSON_ArrayForEach(layer, item_of(pair, "replay"))
    {
        const char *verdict = rp_json_text(layer, "verdict");
        if (strcmp(verdict, "FAIL") == 0 || strcmp(verdict, "XFAIL") == 0)
            return rp_json_text(layer, "slot");
    }
    return rp_json_text(item_of(item_of(pair, "comparison"), "divergence"), "slot");
}

static void write_operations(FILE *out, const cJSON *pair, struct points *points)
{
    const char *of = inner_layer(pair);
    const cJSON *layer = replayed_layer(pair, of), *slot;
    char title[160];
    points->n = 0;
    cJSON_ArrayForEach(slot, item_of(layer, "slots"))
    {
        if (points->n == MAX_SLOTS)
            break;
        points->labels[points->n] = rp_json_text(slot, "slot");
        points->values[0][points->n] = error_of(slot, "introduced");
        points->values[1][points->n] = error_of(slot, "limit");
        points->n++;
    }
    if (points->n == 0)
        return;
    snprintf(title, sizeof title, "What each operation of %s introduces, in replay", of);
    const struct rp_chart chart = {
        .title = title,
        .of = "slot",
        .labels = points->labels,
        .n = points->n,
        .series = {{"introduced", points->values[0], false}, {"limit", points->values[1], true}},
        .n_series = 2,
        .limit = (double)NAN};
    fputs("<h2>", out);
    rp_html_text(out, title);
    fputs("</h2>\n", out);
    rp_chart_write(out, &chart);
}

/* ---- positions ---- */

struct grid {
    const char **rows, **columns;
    char *names; /* [n_columns][NAME_SIZE] */
    double *values;
    size_t n_rows, n_columns;
};

enum { NAME_SIZE = 192 };

static bool grid_alloc(struct grid *grid, const cJSON *by)
{
    const size_t n_rows = (size_t)cJSON_GetArraySize(item_of(by, "slots"));
    *grid = (struct grid){.n_columns = (size_t)cJSON_GetArraySize(item_of(by, "columns"))};
    grid->rows = calloc(n_rows + 1, sizeof *grid->rows);
    grid->columns = calloc(grid->n_columns + 1, sizeof *grid->columns);
    grid->names = calloc(grid->n_columns + 1, NAME_SIZE);
    grid->values = calloc((n_rows + 1) * (grid->n_columns + 1), sizeof *grid->values);
    return grid->rows && grid->columns && grid->names && grid->values;
}

static void grid_free(struct grid *grid)
{
    free(grid->rows);
    free(grid->columns);
    free(grid->names);
    free(grid->values);
}

static void name_columns(struct grid *grid, const cJSON *by)
{
    const cJSON *token = cJSON_GetArrayItem(item_of(by, "tokens"), 0), *column;
    size_t c = 0;
    cJSON_ArrayForEach(column, item_of(by, "columns"))
    {
        const double first = cJSON_GetNumberValue(cJSON_GetArrayItem(column, 0));
        const double last = cJSON_GetNumberValue(cJSON_GetArrayItem(column, 1));
        const char *text = cJSON_GetStringValue(token);
        char *name = grid->names + c * NAME_SIZE;
        if (first == last)
            snprintf(name, NAME_SIZE, "%.0f %.160s", first, text ? text : "");
        else
            snprintf(name, NAME_SIZE, "%.0f-%.0f %.140s", first, last, text ? text : "");
        grid->columns[c++] = name;
        token = token ? token->next : NULL;
    }
}

enum rows { REQUIRED, OTHERS, ALL };

/* Rows of these slots; of: the key of their numbers. */
static void fill(struct grid *grid, const cJSON *by, const char *of, enum rows rows)
{
    const cJSON *slot, *value;
    grid->n_rows = 0;
    cJSON_ArrayForEach(slot, item_of(by, "slots"))
    {
        const char *name = rp_json_text(slot, "slot");
        double *row = grid->values + grid->n_rows * grid->n_columns;
        size_t c = 0;
        if (rows != ALL && (rp_slot_is_required(name) != 0) != (rows == REQUIRED))
            continue;
        for (size_t i = 0; i < grid->n_columns; i++)
            row[i] = (double)NAN;
        cJSON_ArrayForEach(value, item_of(slot, of))
        {
            if (c < grid->n_columns && !cJSON_IsNull(value))
                row[c] = cJSON_IsNumber(value) ? value->valuedouble : HUGE_VAL;
            c++;
        }
        grid->rows[grid->n_rows++] = name;
    }
}

static void write_grid(FILE *out, const struct grid *grid, const char *title, const char *what)
{
    const struct rp_heatmap map = {.title = title,
                                   .rows = grid->rows,
                                   .columns = grid->columns,
                                   .n_rows = grid->n_rows,
                                   .n_columns = grid->n_columns,
                                   .values = grid->values};
    if (grid->n_rows == 0 || grid->n_columns == 0)
        return;
    fputs("<h2>", out);
    rp_html_text(out, title);
    fprintf(out, "</h2>\n<p>%s</p>\n", what);
    rp_heatmap_write(out, &map);
}

static void write_positions(FILE *out, const cJSON *pair)
{
    const cJSON *by = item_of(item_of(pair, "comparison"), "by_position");
    const cJSON *layer = replayed_layer(pair, inner_layer(pair));
    const cJSON *introduced = item_of(layer, "by_position");
    struct grid grid;
    char title[160];
    if (grid_alloc(&grid, by)) {
        name_columns(&grid, by);
        fill(&grid, by, "l2_rel", REQUIRED);
        write_grid(out, &grid, "Positions and layers", "L2_rel against the reference.");
        fill(&grid, by, "l2_rel", OTHERS);
        write_grid(out, &grid, "Positions and slots of the layer that diverges first",
                   "L2_rel against the reference.");
    }
    grid_free(&grid);
    if (grid_alloc(&grid, introduced)) {
        snprintf(title, sizeof title, "Positions and operations of %s",
                 rp_json_text(layer, "slot"));
        name_columns(&grid, introduced);
        fill(&grid, introduced, "introduced", ALL);
        write_grid(out, &grid, title, "What each introduces, in replay.");
    }
    grid_free(&grid);
}

/* ---- the page ---- */

static void write_slots(FILE *out, const cJSON *pair)
{
    static const char *const headings[] = {"slot", "verdict", "what", NULL};
    const cJSON *slot, *slots = item_of(item_of(pair, "comparison"), "slots");
    if (cJSON_GetArraySize(slots) == 0)
        return;
    fputs("<h2>Slots</h2>\n<details><summary>Each slot against the reference</summary>\n", out);
    rp_html_table_begin(out, "Slots in forward order", headings);
    cJSON_ArrayForEach(slot, slots)
    {
        fputs("<tr><th scope=\"row\">", out);
        rp_html_text(out, rp_json_text(slot, "slot"));
        fputs("<td>", out);
        rp_html_verdict(out, rp_json_text(slot, "verdict"));
        fputs("<td>", out);
        rp_html_text(out, rp_json_text(slot, "message"));
        fputc('\n', out);
    }
    rp_html_table_end(out);
    fputs("</details>\n", out);
}

static void write_reproduce(FILE *out, const cJSON *pair)
{
    static const char *const commands[][2] = {{"reproduce", "Run its tests again"},
                                              {"command", "Run the engine alone"}};
    fputs("<h2>Files and commands</h2>\n", out);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (!rp_json_text(pair, commands[i][0])[0])
            continue;
        fprintf(out, "<p>%s:</p>\n<pre>", commands[i][1]);
        rp_html_text(out, rp_json_text(pair, commands[i][0]));
        fputs("</pre>\n", out);
    }
    fputs("<dl>\n", out);
    write_file_fact(out, "entry", pair, "matrix");
    write_file_fact(out, "reference", pair, "fixture");
    write_file_fact(out, "reference", pair, "against_dump");
    write_file_fact(out, "dump", pair, "dump");
    write_file_fact(out, "engine's log", pair, "log");
    write_file_fact(out, "as text", pair, "diff");
    fputs("</dl>\n", out);
}

void rp_html_pair(FILE *out, const cJSON *pair, const char *up)
{
    const cJSON *comparison = item_of(pair, "comparison");
    struct points *points = malloc(sizeof *points);
    rp_html_begin(out, rp_json_text(pair, "pair"), up);
    fputs("<p>", out);
    rp_html_verdict(out, rp_json_text(pair, "verdict"));
    fputs("</p>\n<dl>\n", out);
    write_fact(out, "engine", rp_json_text(pair, "engine"));
    write_fact(out, "model", rp_json_text(pair, "hf_model"));
    write_fact(out, "reference", rp_json_text(pair, "reference"));
    write_fact(out, "why", rp_results_reason(pair));
    fputs("</dl>\n", out);
    write_place(out, comparison, item_of(comparison, "divergence"), "First divergence",
                "inner_slot");
    write_place(out, comparison, item_of(comparison, "departure"),
                "Where it leaves the noise before it", "operation_slot");
    write_warnings(out, pair);
    write_known(out, pair);
    write_explanations(out, pair);
    if (points) {
        write_layers(out, pair, points);
        write_operations(out, pair, points);
    }
    write_positions(out, pair);
    write_slots(out, pair);
    write_reproduce(out, pair);
    rp_html_end(out);
    free(points);
}
