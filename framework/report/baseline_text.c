/* See baseline_text.h. */
#include "report/baseline_text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report/markdown.h"

enum { LINES_OF_A_PAIR = 6, PAIRS_LISTED = 20, CHANGE_TEXT = 1024 };

/* "0.001 -> 0.02 (rounding may make it 0.0012)" */
static void number_text(const struct rp_change *change, char *text, size_t size)
{
    char before[32], now[32];
    snprintf(before, sizeof before, isfinite(change->before) ? "%.3g" : "not finite",
             change->before);
    snprintf(now, sizeof now, isfinite(change->now) ? "%.3g" : "not finite", change->now);
    if (change->kind == RP_CHANGE_BETTER || change->kind == RP_CHANGE_MENDED)
        snprintf(text, size, "%s %s -> %s", change->measure, before, now);
    else
        snprintf(text, size, "%s %s -> %s (by rounding alone up to %.3g)", change->measure, before,
                 now, change->allowed);
}

/* "PASS -> FAIL: L2_rel 0.001 -> 0.2 …: MESSAGE" */
static const char *change_text(const struct rp_change *change, char text[CHANGE_TEXT])
{
    char numbers[192] = "", verdicts[64] = "";
    const bool is_same = strcmp(change->was, change->is) == 0;
    if (!is_same)
        snprintf(verdicts, sizeof verdicts, "%s -> %s", change->was[0] ? change->was : "none",
                 change->is[0] ? change->is : "none");
    if (change->measure)
        number_text(change, numbers, sizeof numbers);
    /* of what is as it was or better, the message says nothing new */
    const bool is_said = change->message[0] && !is_same &&
                         (change->kind == RP_CHANGE_NEW || change->kind == RP_CHANGE_WORSE ||
                          change->kind == RP_CHANGE_KNOWN);
    snprintf(text, CHANGE_TEXT, "%s%s%s%s%.700s", verdicts, verdicts[0] && numbers[0] ? ": " : "",
             numbers, is_said ? (verdicts[0] || numbers[0] ? "; " : "") : "",
             is_said ? change->message : "");
    return text;
}

/* How many changes from i on are of its kind and pair. */
static size_t count_alike(const struct rp_baseline *baseline, size_t i)
{
    size_t n = 1;
    while (i + n < baseline->n_changes &&
           baseline->changes[i + n].kind == baseline->changes[i].kind &&
           strcmp(baseline->changes[i + n].pair, baseline->changes[i].pair) == 0)
        n++;
    return n;
}

static const char *count_text(const struct rp_baseline *baseline, char *text, size_t size)
{
    snprintf(text, size, "%zu new, %zu worse, %zu mended, %zu better, %zu now known, %zu as before",
             baseline->n_of[RP_CHANGE_NEW], baseline->n_of[RP_CHANGE_WORSE],
             baseline->n_of[RP_CHANGE_MENDED], baseline->n_of[RP_CHANGE_BETTER],
             baseline->n_of[RP_CHANGE_KNOWN], baseline->n_same);
    return text;
}

/* ---- text ---- */

static void write_names(const struct rp_terminal *out, const char *where, const char *const *names,
                        size_t n)
{
    if (n > 0)
        rp_print_line(out, "only in %s (%zu pair%s):", where, n, n == 1 ? "" : "s");
    for (size_t i = 0; i < n && i < PAIRS_LISTED; i++)
        rp_print_line(out, "  %s", names[i]);
    if (n > PAIRS_LISTED)
        rp_print_line(out, "  … and %zu more", n - PAIRS_LISTED);
}

void rp_baseline_write_text(const struct rp_terminal *out, const char *path,
                            const struct rp_baseline *baseline)
{
    static const enum rp_style styles[] = {[RP_CHANGE_NEW] = RP_STYLE_BAD,
                                           [RP_CHANGE_WORSE] = RP_STYLE_BAD,
                                           [RP_CHANGE_MENDED] = RP_STYLE_GOOD,
                                           [RP_CHANGE_BETTER] = RP_STYLE_GOOD,
                                           [RP_CHANGE_KNOWN] = RP_STYLE_NOTABLE};
    char text[CHANGE_TEXT], mark[32];
    for (size_t i = 0, n; i < baseline->n_changes; i += n) {
        const enum rp_change_kind kind = baseline->changes[i].kind;
        n = count_alike(baseline, i);
        snprintf(mark, sizeof mark, "  %-9s ", rp_change_kind_name(kind));
        for (size_t line = 0; line < n && line < LINES_OF_A_PAIR; line++) {
            const struct rp_change *change = &baseline->changes[i + line];
            rp_print_marked_line(out, styles[kind], mark, "%s/%s: %s", change->pair, change->what,
                                 change_text(change, text));
        }
        if (n > LINES_OF_A_PAIR)
            rp_print_marked_line(out, styles[kind], mark, "%s: %zu more (--json has all)",
                                 baseline->changes[i].pair, n - LINES_OF_A_PAIR);
    }
    write_names(out, "the baseline", baseline->only_before, baseline->n_only_before);
    write_names(out, "this run", baseline->only_now, baseline->n_only_now);
    rp_print_line(out, "%zu pair%s against %s: %s", baseline->n_pairs,
                  baseline->n_pairs == 1 ? "" : "s", path, count_text(baseline, text, sizeof text));
}

/* ---- Markdown ---- */

static void write_markdown_names(FILE *out, const char *where, const char *const *names, size_t n)
{
    if (n == 0)
        return;
    fprintf(out, "\nOnly in %s: ", where);
    for (size_t i = 0; i < n && i < PAIRS_LISTED; i++) {
        fputs(i > 0 ? ", " : "", out);
        rp_markdown_cell(out, names[i]);
    }
    fputs(n > PAIRS_LISTED ? ", …\n" : "\n", out);
}

void rp_baseline_write_markdown(FILE *out, const char *path, const struct rp_baseline *baseline)
{
    char text[CHANGE_TEXT];
    fprintf(out, "### refparity: %s\n\n%zu pairs against ", count_text(baseline, text, sizeof text),
            baseline->n_pairs);
    rp_markdown_cell(out, path);
    fputc('\n', out);
    if (baseline->n_changes > 0)
        fputs("\n| change | test | what |\n|---|---|---|\n", out);
    for (size_t i = 0, n; i < baseline->n_changes; i += n) {
        n = count_alike(baseline, i);
        for (size_t line = 0; line < n && line < LINES_OF_A_PAIR; line++) {
            const struct rp_change *change = &baseline->changes[i + line];
            fprintf(out, "| %s | ", rp_change_kind_name(change->kind));
            rp_markdown_cell(out, change->pair);
            fputc('/', out);
            rp_markdown_cell(out, change->what);
            fputs(" | ", out);
            rp_markdown_cell(out, change_text(change, text));
            fputs(" |\n", out);
        }
        if (n > LINES_OF_A_PAIR) {
            fputs("| | ", out);
            rp_markdown_cell(out, baseline->changes[i].pair);
            fprintf(out, " | %zu more |\n", n - LINES_OF_A_PAIR);
        }
    }
    write_markdown_names(out, "the baseline", baseline->only_before, baseline->n_only_before);
    write_markdown_names(out, "this run", baseline->only_now, baseline->n_only_now);
}

/* ---- JSON ---- */

static void add_number(cJSON *object, const char *name, double value)
{
    if (isfinite(value))
        cJSON_AddNumberToObject(object, name, value);
    else
        cJSON_AddNullToObject(object, name);
}

static cJSON *change_json(const struct rp_change *change)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "kind", rp_change_kind_name(change->kind));
    cJSON_AddStringToObject(object, "pair", change->pair);
    cJSON_AddStringToObject(object, "what", change->what);
    cJSON_AddStringToObject(object, "was", change->was);
    cJSON_AddStringToObject(object, "is", change->is);
    cJSON_AddStringToObject(object, "measure", change->measure ? change->measure : "");
    if (change->measure) {
        add_number(object, "before", change->before);
        add_number(object, "now", change->now);
        add_number(object, "allowed", change->allowed);
    }
    cJSON_AddStringToObject(object, "message", change->message);
    return object;
}

static void add_names(cJSON *root, const char *key, const char *const *names, size_t n)
{
    cJSON *array = cJSON_AddArrayToObject(root, key);
    for (size_t i = 0; i < n; i++)
        cJSON_AddItemToArray(array, cJSON_CreateString(names[i]));
}

enum rp_status rp_baseline_write_json(FILE *out, const char *path,
                                      const struct rp_baseline *baseline, struct rp_error *err)
{
    static const char *const keys[] = {"new", "worse", "mended", "better", "known"};
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "format", "refparity-baseline");
    cJSON_AddNumberToObject(root, "version", 1);
    cJSON_AddStringToObject(root, "baseline", path);
    cJSON *summary = cJSON_AddObjectToObject(root, "summary");
    for (size_t i = 0; i < RP_N_CHANGE_KINDS; i++)
        cJSON_AddNumberToObject(summary, keys[i], (double)baseline->n_of[i]);
    cJSON_AddNumberToObject(summary, "same", (double)baseline->n_same);
    cJSON_AddNumberToObject(summary, "pairs", (double)baseline->n_pairs);
    cJSON *changes = cJSON_AddArrayToObject(root, "changes");
    for (size_t i = 0; i < baseline->n_changes; i++)
        cJSON_AddItemToArray(changes, change_json(&baseline->changes[i]));
    add_names(root, "only_in_baseline", baseline->only_before, baseline->n_only_before);
    add_names(root, "only_in_this_run", baseline->only_now, baseline->n_only_now);
    char *text = cJSON_Print(root);
    cJSON_Delete(root);
    if (!text)
        return rp_fail(err, RP_ERR_MEMORY, path, -1, "not enough memory to write what changed");
    fprintf(out, "%s\n", text);
    free(text);
    return RP_OK;
}
