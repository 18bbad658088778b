/* See markdown.h. */
#include "report/markdown.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/json.h"
#include "report/known.h"
#include "report/summary.h"
#include "report/warnings.h"

static const cJSON *comparison_of(const cJSON *pair)
{
    return cJSON_GetObjectItemCaseSensitive(pair, "comparison");
}

void rp_markdown_cell(FILE *out, const char *text)
{
    for (; *text; text++) {
        const unsigned char byte = (unsigned char)*text;
        if (strchr("|\\`*<>[]&", byte))
            fprintf(out, "&#%d;", byte);
        else
            fputc(byte < 32 ? ' ' : byte, out);
    }
}

static void write_divergence(FILE *out, const cJSON *divergence)
{
    const double position =
        cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(divergence, "position"));
    const char *inner_slot = rp_json_text(divergence, "inner_slot");
    fprintf(out, "first divergence `%s` at position %.0f", rp_json_text(divergence, "slot"),
            position);
    if (inner_slot[0])
        fprintf(out, ", slot `%s`", inner_slot);
}

/* In a cell, behind what it stands beside; the operation's own slot where it is known. */
static void write_departure(FILE *out, const cJSON *departure)
{
    const char *operation = rp_json_text(departure, "operation_slot");
    fprintf(out, "; departure `%s` at position %.0f", rp_json_text(departure, "slot"),
            cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(departure, "position")));
    if (operation[0])
        fprintf(out, ", slot `%s`", operation);
    fputs(": ", out);
    rp_markdown_cell(out, rp_json_text(departure, "explanation"));
}

static int has_passed(const cJSON *pair)
{
    const char *verdict = rp_json_text(pair, "verdict");
    return strcmp(verdict, "PASS") == 0 || strcmp(verdict, "MARGINAL") == 0;
}

/* The heading of a table, before its first line. */
static void begin_problems(FILE *out, int *n)
{
    if ((*n)++ == 0)
        fputs("\n| verdict | test | what |\n|---|---|---|\n", out);
}

/* The tests <entry>/weights that do not pass. */
static void write_weights(FILE *out, const cJSON *entries, int *n)
{
    const cJSON *entry;
    cJSON_ArrayForEach(entry, entries)
    {
        const cJSON *weights = cJSON_GetObjectItemCaseSensitive(entry, "weights");
        const char *verdict = rp_json_text(weights, "verdict");
        if (strcmp(verdict, "FAIL") != 0 && strcmp(verdict, "ERROR") != 0)
            continue;
        begin_problems(out, n);
        fprintf(out, "| %s | ", verdict);
        rp_markdown_cell(out, rp_json_text(entry, "entry"));
        fputs("/weights | ", out);
        rp_markdown_cell(out, rp_json_text(weights, "message"));
        fputs(" |\n", out);
    }
}

static void write_references(FILE *out, const cJSON *pairs)
{
    const cJSON *pair = rp_results_next_reference(pairs ? pairs->child : NULL);
    for (; pair; pair = rp_results_next_reference(pair->next)) {
        fputs("\nThe reference of ", out);
        rp_markdown_cell(out, rp_json_text(pair, "entry"));
        fputs(" is not HF but ", out);
        rp_markdown_cell(out, rp_json_text(pair, "reference"));
        fputc('\n', out);
    }
}

static void write_warning(void *context, const struct rp_warning_group *group)
{
    FILE *out = context;
    fputs("| ", out);
    rp_markdown_cell(out, group->name);
    fprintf(out, " | %s | ", group->kind);
    rp_markdown_cell(out, group->message);
    fputs(" |\n", out);
}

static void write_warnings(FILE *out, const struct rp_results *results)
{
    if (results->n_warnings == 0)
        return;
    fputs("\n| pair | warning | what |\n|---|---|---|\n", out);
    (void)rp_report_warnings(results->root, write_warning, out);
}

/* In a cell, behind what it stands beside. */
static void write_mended(FILE *out, const cJSON *pair)
{
    const cJSON *item = NULL;
    while ((item = rp_report_next_mended(pair, item)) != NULL) {
        if (strcmp(rp_json_text(item, "message"), rp_results_reason(pair)) == 0)
            continue;
        fputs("; ", out);
        rp_markdown_cell(out, rp_json_text(item, "message"));
    }
}

static void write_known_group(void *context, const struct rp_known_group *group)
{
    FILE *out = context;
    char text[2048];
    fputs("| XFAIL | ", out);
    rp_markdown_cell(out, group->entry);
    fprintf(out, " (%zu pair%s) | ", group->n_pairs, group->n_pairs == 1 ? "" : "s");
    rp_markdown_cell(out, rp_known_text(group, text, sizeof text));
    fputs(" |\n", out);
}

/* What is known, once an entry. */
static void write_known(FILE *out, const cJSON *pairs)
{
    if (rp_report_known(pairs, NULL, NULL) == 0)
        return;
    fputs("\n| verdict | entry | known divergence |\n|---|---|---|\n", out);
    (void)rp_report_known(pairs, write_known_group, out);
}

/* In a cell, behind what it stands beside. */
static void write_explanation(FILE *out, const cJSON *pair)
{
    const cJSON *slot = rp_results_explained_slot(pair);
    if (!slot)
        return;
    fprintf(out, "; replay of `%s`: ", rp_json_text(slot, "slot"));
    rp_markdown_cell(out, rp_results_explanation(slot));
}

/* What fails, or what is skipped. */
static void write_problems(FILE *out, const cJSON *pairs, bool skipped, int *n)
{
    const cJSON *pair;
    cJSON_ArrayForEach(pair, pairs)
    {
        const cJSON *divergence =
            cJSON_GetObjectItemCaseSensitive(comparison_of(pair), "divergence");
        const cJSON *departure = cJSON_GetObjectItemCaseSensitive(comparison_of(pair), "departure");
        const char *verdict = rp_json_text(pair, "verdict");
        if (has_passed(pair) || strcmp(verdict, "XFAIL") == 0 ||
            (strcmp(verdict, "SKIP") == 0) != skipped)
            continue;
        begin_problems(out, n);
        fprintf(out, "| %s | ", verdict);
        rp_markdown_cell(out, rp_json_text(pair, "pair"));
        fputs(" | ", out);
        if (cJSON_IsObject(divergence))
            write_divergence(out, divergence);
        else
            rp_markdown_cell(out, rp_results_reason(pair));
        if (cJSON_IsObject(departure))
            write_departure(out, departure);
        write_explanation(out, pair);
        write_mended(out, pair);
        fputs(" |\n", out);
    }
}

/* The required slot but logits with the largest L2_rel. */
static const cJSON *worst_slot(const cJSON *pair, double *l2_rel)
{
    const cJSON *slot, *worst = NULL;
    *l2_rel = -1;
    cJSON_ArrayForEach(slot, cJSON_GetObjectItemCaseSensitive(comparison_of(pair), "slots"))
    {
        const cJSON *number = cJSON_GetObjectItemCaseSensitive(
            cJSON_GetObjectItemCaseSensitive(slot, "worst"), "l2_rel");
        if (!cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(slot, "required")) ||
            strcmp(rp_json_text(slot, "slot"), "logits") == 0 || !cJSON_IsNumber(number) ||
            number->valuedouble <= *l2_rel)
            continue;
        *l2_rel = number->valuedouble;
        worst = slot;
    }
    return worst;
}

static void write_passed(FILE *out, const cJSON *pairs, size_t n_passed)
{
    const cJSON *pair;
    if (n_passed == 0)
        return;
    fprintf(out,
            "\n<details><summary>%zu passed</summary>\n\n| pair | engine | largest L2_rel | at |\n"
            "|---|---|---|---|\n",
            n_passed);
    cJSON_ArrayForEach(pair, pairs)
    {
        double l2_rel;
        const cJSON *slot = worst_slot(pair, &l2_rel);
        if (!has_passed(pair) || !slot)
            continue;
        fputs("| ", out);
        rp_markdown_cell(out, rp_json_text(pair, "pair"));
        fputs(" | ", out);
        rp_markdown_cell(out, rp_json_text(pair, "engine"));
        fprintf(out, " | %.3g%s | `%s` |\n", l2_rel,
                strcmp(rp_json_text(pair, "verdict"), "MARGINAL") == 0 ? " (explained)" : "",
                rp_json_text(slot, "slot"));
    }
    fputs("\n</details>\n", out);
}

void rp_report_markdown(FILE *out, const struct rp_results *results)
{
    const cJSON *pairs = cJSON_GetObjectItemCaseSensitive(results->root, "pairs");
    char explained[64] = "", known[64] = "", weights[256];
    int n_problems = 0;
    if (results->n_explained)
        snprintf(explained, sizeof explained, " (%zu of them explained)", results->n_explained);
    if (results->n_known)
        snprintf(known, sizeof known, ", %zu known", results->n_known);
    fprintf(out,
            "### refparity: compared %zu of %zu pairs\n\n%zu passed%s%s, %zu failed, %zu errors, "
            "%zu skipped\n",
            results->n_compared, results->n_pairs, results->n_passed, explained, known,
            results->n_failed, results->n_errors, results->n_skipped);
    if (results->n_warnings > 0)
        fprintf(out, "\n%zu warnings\n", results->n_warnings);
    if (rp_report_weights_line(&results->weights, weights, sizeof weights)[0])
        fprintf(out, "\n%s\n", weights);
    write_references(out, pairs);
    write_problems(out, pairs, false, &n_problems);
    write_weights(out, cJSON_GetObjectItemCaseSensitive(results->root, "entries"), &n_problems);
    write_problems(out, pairs, true, &n_problems);
    write_known(out, pairs);
    write_warnings(out, results);
    write_passed(out, pairs, results->n_passed);
}
