/* See html.h. */
#include "report/html.h"

#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "report/html_pair.h"
#include "report/html_text.h"
#include "report/summary.h"
#include "report/warnings.h"

#define INDEX "index.html"

static const cJSON *item_of(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

static double number_of(const cJSON *object, const char *name)
{
    return cJSON_GetNumberValue(item_of(object, name));
}

static bool has_verdict(const cJSON *pair, const char *verdict)
{
    return strcmp(rp_json_text(pair, "verdict"), verdict) == 0;
}

static bool has_page(const cJSON *pair)
{
    return has_verdict(pair, "FAIL") || has_verdict(pair, "ERROR") ||
           has_verdict(pair, "MARGINAL") || has_verdict(pair, "XFAIL") ||
           cJSON_GetArraySize(item_of(pair, "warnings")) > 0;
}

/* "entry/mode/prompt" as "entry__mode__prompt.html", as its .diff is named. */
static void page_name(const cJSON *pair, char *name, size_t size)
{
    size_t n = 0;
    for (const char *c = rp_json_text(pair, "pair"); *c && n + 16 < size; c++) {
        if (*c == '/')
            name[n++] = '_';
        name[n++] = *c == '/' ? '_' : *c;
    }
    memcpy(name + n, ".html", sizeof ".html");
}

/* ---- the index ---- */

static void write_row(FILE *out, const cJSON *pair)
{
    const cJSON *divergence = item_of(item_of(pair, "comparison"), "divergence");
    char name[RP_PATH_SIZE];
    page_name(pair, name, sizeof name);
    fputs("<tr><td>", out);
    rp_html_verdict(out, rp_json_text(pair, "verdict"));
    fputs("<th scope=\"row\">", out);
    if (has_page(pair)) {
        fputs("<a href=\"", out);
        rp_html_text(out, name);
        fputs("\">", out);
    }
    rp_html_text(out, rp_json_text(pair, "pair"));
    fputs(has_page(pair) ? "</a><td>" : "<td>", out);
    rp_html_text(out, rp_json_text(pair, "engine"));
    fputs("<td>", out);
    if (cJSON_IsObject(divergence)) {
        fputs("first divergence <strong>", out);
        rp_html_text(out, rp_json_text(divergence, "slot"));
        fprintf(out, "</strong> at position %.0f", number_of(divergence, "position"));
        if (rp_json_text(divergence, "inner_slot")[0]) {
            fputs(", operation <strong>", out);
            rp_html_text(out, rp_json_text(divergence, "inner_slot"));
            fputs("</strong>", out);
        }
        fputs("<br>", out);
    }
    rp_html_text(out, rp_results_reason(pair));
    const cJSON *explained = rp_results_explained_slot(pair);
    if (explained) {
        fputs("<br>replay of <strong>", out);
        rp_html_text(out, rp_json_text(explained, "slot"));
        fputs("</strong>: ", out);
        rp_html_text(out, rp_results_explanation(explained));
    }
    fputc('\n', out);
}

static void write_pairs(FILE *out, const cJSON *pairs, const char *verdict, const char *heading,
                        bool is_open)
{
    static const char *const headings[] = {"verdict", "pair", "engine", "what", NULL};
    const cJSON *pair;
    size_t n = 0;
    cJSON_ArrayForEach(pair, pairs)
    {
        n += has_verdict(pair, verdict);
    }
    if (n == 0)
        return;
    fprintf(out, "<h2>%s</h2>\n<details%s><summary>%zu pair%s</summary>\n", heading,
            is_open ? " open" : "", n, n == 1 ? "" : "s");
    rp_html_table_begin(out, heading, headings);
    cJSON_ArrayForEach(pair, pairs)
    {
        if (has_verdict(pair, verdict))
            write_row(out, pair);
    }
    rp_html_table_end(out);
    fputs("</details>\n", out);
}

static void write_weights(FILE *out, const cJSON *entries)
{
    static const char *const headings[] = {"verdict", "entry", "what", NULL};
    const cJSON *entry;
    size_t n = 0;
    cJSON_ArrayForEach(entry, entries)
    {
        const cJSON *weights = item_of(entry, "weights");
        if (!has_verdict(weights, "FAIL") && !has_verdict(weights, "ERROR"))
            continue;
        if (n++ == 0) {
            fputs("<h2>Model files that are not their checkpoint</h2>\n", out);
            rp_html_table_begin(out, "Tests of weights", headings);
        }
        fputs("<tr><td>", out);
        rp_html_verdict(out, rp_json_text(weights, "verdict"));
        fputs("<th scope=\"row\">", out);
        rp_html_text(out, rp_json_text(entry, "entry"));
        fputs("<td>", out);
        rp_html_text(out, rp_json_text(weights, "message"));
        fputc('\n', out);
    }
    if (n > 0)
        rp_html_table_end(out);
}

static void write_warning(void *context, const struct rp_warning_group *group)
{
    FILE *out = context;
    fputs("<tr><th scope=\"row\">", out);
    rp_html_text(out, group->name);
    fputs("<td class=\"warning\">", out);
    rp_html_text(out, group->kind);
    fputs("<td>", out);
    rp_html_text(out, group->message);
    fputc('\n', out);
}

static void write_warnings(FILE *out, const cJSON *results)
{
    static const char *const headings[] = {"pair", "warning", "what", NULL};
    const double n = number_of(item_of(results, "summary"), "warnings");
    if (!(n > 0))
        return;
    fputs("<h2>Warnings</h2>\n", out);
    rp_html_table_begin(out, "What passes, and is worth a look", headings);
    (void)rp_report_warnings(results, write_warning, out);
    rp_html_table_end(out);
}

static void write_references(FILE *out, const cJSON *pairs)
{
    const cJSON *pair = rp_results_next_reference(pairs ? pairs->child : NULL);
    for (; pair; pair = rp_results_next_reference(pair->next)) {
        fputs("<p>The reference of ", out);
        rp_html_text(out, rp_json_text(pair, "entry"));
        fputs(" is not HF but ", out);
        rp_html_text(out, rp_json_text(pair, "reference"));
        fputs("</p>\n", out);
    }
}

static void write_index(FILE *out, const void *argument)
{
    static const struct {
        const char *before, *key, *verdict, *text;
    } counts[] = {{"; ", "failed", "FAIL", "failed"},
                  {", ", "errors", "ERROR", "in error"},
                  {", ", "passed", "PASS", "passed"},
                  {" (", "explained", "MARGINAL", "of them explained)"},
                  {", ", "known", "XFAIL", "known"},
                  {", ", "skipped", "SKIP", "skipped"},
                  {"; warnings: ", "warnings", "warning", ""}};
    const cJSON *results = argument, *summary = item_of(results, "summary");
    const cJSON *pairs = item_of(results, "pairs");
    rp_html_begin(out, "refparity: results", NULL);
    fprintf(out, "<p>%.0f of %.0f pairs compared", number_of(summary, "compared"),
            number_of(summary, "pairs"));
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        fprintf(out, "%s<span class=\"v %s\">%.0f</span> %s", counts[i].before, counts[i].verdict,
                number_of(summary, counts[i].key), counts[i].text);
    fputs("</p>\n", out);
    if (!cJSON_IsTrue(item_of(results, "ended")))
        fputs("<p class=\"v ERROR\">ctest did not come to its end.</p>\n", out);
    write_references(out, pairs);
    write_pairs(out, pairs, "ERROR", "Errors", true);
    write_pairs(out, pairs, "FAIL", "Divergences", true);
    write_weights(out, item_of(results, "entries"));
    write_warnings(out, results);
    write_pairs(out, pairs, "XFAIL", "Known divergences", true);
    write_pairs(out, pairs, "MARGINAL", "Over the limit, and explained", true);
    write_pairs(out, pairs, "SKIP", "Skipped", false);
    write_pairs(out, pairs, "PASS", "Passed", false);
    rp_html_end(out);
}

/* ---- files ---- */

struct page {
    const cJSON *pair;
    const char *up;
};

static void write_page(FILE *out, const void *argument)
{
    const struct page *page = argument;
    rp_html_pair(out, page->pair, page->up);
}

enum rp_status rp_report_html(const char *reports_dir, const cJSON *results, struct rp_error *err)
{
    char path[RP_PATH_SIZE], name[RP_PATH_SIZE];
    const cJSON *pair;
    enum rp_status status = rp_path_join(path, sizeof path, reports_dir, INDEX, err);
    if (!status)
        status = rp_file_write_stream(path, write_index, results, err);
    cJSON_ArrayForEach(pair, item_of(results, "pairs"))
    {
        const struct page page = {pair, INDEX};
        if (status || !has_page(pair))
            continue;
        page_name(pair, name, sizeof name);
        status = rp_path_join(path, sizeof path, reports_dir, name, err);
        if (!status)
            status = rp_file_write_stream(path, write_page, &page, err);
    }
    return status;
}

enum rp_status rp_report_html_pair(const char *path, const cJSON *pair, struct rp_error *err)
{
    const struct page page = {pair, NULL};
    return rp_file_write_stream(path, write_page, &page, err);
}
