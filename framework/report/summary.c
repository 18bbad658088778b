/* See summary.h. */
#include "report/summary.h"

#include <string.h>

#include "base/json.h"
#include "report/known.h"
#include "report/verdict_style.h"
#include "report/warnings.h"

const char *rp_results_reason(const cJSON *pair)
{
    const char *verdict = rp_json_text(pair, "verdict");
    const cJSON *comparison = cJSON_GetObjectItemCaseSensitive(pair, "comparison"), *slot;
    const cJSON *tests[] = {cJSON_GetObjectItemCaseSensitive(pair, "engine_test"),
                            cJSON_GetObjectItemCaseSensitive(comparison, "tokens")};
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
        if (strcmp(rp_json_text(tests[i], "verdict"), verdict) == 0)
            return rp_json_text(tests[i], "message");
    cJSON_ArrayForEach(slot, cJSON_GetObjectItemCaseSensitive(comparison, "slots"))
    {
        if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(slot, "required")) &&
            strcmp(rp_json_text(slot, "verdict"), verdict) == 0)
            return rp_json_text(slot, "message");
    }
    cJSON_ArrayForEach(slot, cJSON_GetObjectItemCaseSensitive(pair, "replay"))
    {
        if (strcmp(rp_json_text(slot, "verdict"), verdict) == 0)
            return rp_json_text(slot, "message");
    }
    const cJSON *mended = rp_report_next_mended(pair, NULL);
    return mended ? rp_json_text(mended, "message") : "";
}

/* What is known and mended, unless that is all there is to say of the pair. */
static void write_mended(const struct rp_terminal *out, const cJSON *pair)
{
    const cJSON *item = NULL;
    while ((item = rp_report_next_mended(pair, item)) != NULL)
        if (strcmp(rp_json_text(item, "message"), rp_results_reason(pair)) != 0)
            rp_print_line(out, "           %s", rp_json_text(item, "message"));
}

/* "  FAIL     " */
static const char *mark_of(const char *verdict, char *out, size_t size)
{
    snprintf(out, size, "  %-8.8s ", verdict);
    return out;
}

const cJSON *rp_results_explained_slot(const cJSON *pair)
{
    const cJSON *result, *slot;
    cJSON_ArrayForEach(result, cJSON_GetObjectItemCaseSensitive(pair, "replay"))
    {
        cJSON_ArrayForEach(slot, cJSON_GetObjectItemCaseSensitive(result, "slots"))
        {
            if (rp_results_explanation(slot)[0])
                return slot;
        }
    }
    return NULL;
}

const char *rp_results_explanation(const cJSON *slot)
{
    return rp_json_text(cJSON_GetObjectItemCaseSensitive(slot, "explanation"), "text");
}

static void write_explanation(const struct rp_terminal *out, const cJSON *pair)
{
    const cJSON *slot = rp_results_explained_slot(pair);
    if (slot)
        rp_print_line(out, "           replay of %s: %s", rp_json_text(slot, "slot"),
                      rp_results_explanation(slot));
}

static void write_problem(const struct rp_terminal *out, const cJSON *pair)
{
    const char *verdict = rp_json_text(pair, "verdict"), *name = rp_json_text(pair, "pair");
    const cJSON *divergence = cJSON_GetObjectItemCaseSensitive(
        cJSON_GetObjectItemCaseSensitive(pair, "comparison"), "divergence");
    char mark[16];
    mark_of(verdict, mark, sizeof mark);
    if (cJSON_IsObject(divergence)) {
        const cJSON *position = cJSON_GetObjectItemCaseSensitive(divergence, "position");
        const char *inner_slot = rp_json_text(divergence, "inner_slot");
        const bool is_error = strcmp(verdict, "ERROR") == 0;
        rp_print_marked_line(out, rp_verdict_style(verdict), mark,
                             "%s: first divergence %s at position %.0f%s%s%s%s", name,
                             rp_json_text(divergence, "slot"), cJSON_GetNumberValue(position),
                             inner_slot[0] ? ", slot " : "", inner_slot, is_error ? "; " : "",
                             is_error ? rp_results_reason(pair) : "");
    } else {
        rp_print_marked_line(out, rp_verdict_style(verdict), mark, "%s: %s", name,
                             rp_results_reason(pair));
    }
    write_explanation(out, pair);
    write_mended(out, pair);
    if (rp_json_text(pair, "diff")[0])
        rp_print_line(out, "           %s", rp_json_text(pair, "diff"));
}

/* Pairs of one entry that are skipped for the same reason share a line; returns the last of them. */
static const cJSON *write_skipped(const struct rp_terminal *out, const cJSON *pair)
{
    const char *reason = rp_results_reason(pair), *entry = rp_json_text(pair, "entry");
    const cJSON *last = pair;
    size_t n = 1;
    while (last->next && strcmp(rp_json_text(last->next, "verdict"), "SKIP") == 0 &&
           strcmp(rp_json_text(last->next, "entry"), entry) == 0 &&
           strcmp(rp_results_reason(last->next), reason) == 0) {
        last = last->next;
        n++;
    }
    if (n == 1)
        rp_print_marked_line(out, RP_STYLE_NOTABLE, "  SKIP     ", "%s: %s",
                             rp_json_text(pair, "pair"), reason);
    else
        rp_print_marked_line(out, RP_STYLE_NOTABLE, "  SKIP     ", "%s (%zu pairs): %s", entry, n,
                             reason);
    return last;
}

static const cJSON *slots_of(const cJSON *pair)
{
    return cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(pair, "comparison"),
                                            "slots");
}

/* Of the required slots but logits; -1 where there is none. */
static double largest_l2_rel(const cJSON *pair)
{
    const cJSON *slot;
    double largest = -1;
    cJSON_ArrayForEach(slot, slots_of(pair))
    {
        const cJSON *l2_rel = cJSON_GetObjectItemCaseSensitive(
            cJSON_GetObjectItemCaseSensitive(slot, "worst"), "l2_rel");
        if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(slot, "required")) &&
            strcmp(rp_json_text(slot, "slot"), "logits") != 0 && cJSON_IsNumber(l2_rel) &&
            l2_rel->valuedouble > largest)
            largest = l2_rel->valuedouble;
    }
    return largest;
}

/* What the first explained slot rests on and nobody has checked; "": nothing. */
static const char *unchecked_of(const cJSON *pair)
{
    const cJSON *slot;
    cJSON_ArrayForEach(slot, slots_of(pair))
    {
        if (rp_json_text(slot, "unchecked")[0])
            return rp_json_text(slot, "unchecked");
    }
    return "";
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

/* Pairs of one entry that quantization explains share a line; returns the last of them. */
static const cJSON *write_explained(const struct rp_terminal *out, const cJSON *pair)
{
    const char *entry = rp_json_text(pair, "entry");
    const cJSON *last = pair;
    double l2_rel = largest_l2_rel(pair);
    const char *unchecked = unchecked_of(pair);
    size_t n = 1;
    for (const cJSON *next = pair->next; next && strcmp(rp_json_text(next, "entry"), entry) == 0;
         next = next->next) {
        const char *verdict = rp_json_text(next, "verdict");
        if (strcmp(verdict, "MARGINAL") == 0) {
            n++;
            l2_rel = larger(l2_rel, largest_l2_rel(next));
            unchecked = unchecked[0] ? unchecked : unchecked_of(next);
        } else if (strcmp(verdict, "PASS") != 0) {
            break;
        }
        last = next;
    }
    rp_print_marked_line(
        out, RP_STYLE_NOTABLE, "  MARGINAL ",
        "%s (%zu pair%s): L2_rel up to %.3g is quantization and carried rounding%s%s", entry, n,
        n == 1 ? "" : "s", l2_rel, unchecked[0] ? ", as far as was checked; not checked: " : "",
        unchecked);
    return last;
}

static void write_weights(const struct rp_terminal *out, const cJSON *entries)
{
    const cJSON *entry;
    char mark[16];
    cJSON_ArrayForEach(entry, entries)
    {
        const cJSON *weights = cJSON_GetObjectItemCaseSensitive(entry, "weights");
        const char *verdict = rp_json_text(weights, "verdict");
        if (strcmp(verdict, "FAIL") != 0 && strcmp(verdict, "ERROR") != 0)
            continue;
        rp_print_marked_line(out, rp_verdict_style(verdict), mark_of(verdict, mark, sizeof mark),
                             "%s/weights: %s", rp_json_text(entry, "entry"),
                             rp_json_text(weights, "message"));
    }
}

const cJSON *rp_results_next_reference(const cJSON *pair)
{
    for (const cJSON *next = pair; next; next = next->next) {
        /* cJSON's first item has its last as prev, whose next is none */
        const cJSON *before = next->prev && next->prev->next ? next->prev : NULL;
        const char *reference = rp_json_text(next, "reference");
        if (reference[0] &&
            (!before || strcmp(rp_json_text(before, "reference"), reference) != 0 ||
             strcmp(rp_json_text(before, "entry"), rp_json_text(next, "entry")) != 0))
            return next;
    }
    return NULL;
}

static void write_references(const struct rp_terminal *out, const cJSON *pairs)
{
    const cJSON *pair = rp_results_next_reference(pairs ? pairs->child : NULL);
    for (; pair; pair = rp_results_next_reference(pair->next))
        rp_print_line(out, "  NOTE     %s: its reference is not HF but %s",
                      rp_json_text(pair, "entry"), rp_json_text(pair, "reference"));
}

static void write_known(void *context, const struct rp_known_group *group)
{
    const struct rp_terminal *out = context;
    char text[2048];
    rp_print_marked_line(out, RP_STYLE_NOTABLE, "  XFAIL    ", "%s (%zu pair%s): %s", group->entry,
                         group->n_pairs, group->n_pairs == 1 ? "" : "s",
                         rp_known_text(group, text, sizeof text));
}

static void write_warning(void *context, const struct rp_warning_group *group)
{
    const struct rp_terminal *out = context;
    rp_print_marked_line(out, RP_STYLE_NOTABLE, "  WARNING  ", "%s: %s: %s", group->name,
                         group->kind, group->message);
}

/* Neither a pass nor a skip, nor all known. */
static bool is_problem(const cJSON *pair)
{
    const char *verdict = rp_json_text(pair, "verdict");
    return strcmp(verdict, "SKIP") != 0 && strcmp(verdict, "MARGINAL") != 0 &&
           strcmp(verdict, "PASS") != 0 && strcmp(verdict, "XFAIL") != 0;
}

enum { MOST_PROBLEMS = 20 };

/* What fails comes first. */
static void write_pairs(const struct rp_terminal *out, const cJSON *pairs, bool shows_all)
{
    size_t n = 0;
    for (const cJSON *pair = pairs ? pairs->child : NULL; pair; pair = pair->next)
        if (is_problem(pair) && (n++ < MOST_PROBLEMS || shows_all))
            write_problem(out, pair);
    if (n > MOST_PROBLEMS && !shows_all)
        rp_print_line(out, "  … and %zu more that fail (--all shows them)", n - MOST_PROBLEMS);
    for (const cJSON *pair = pairs ? pairs->child : NULL; pair; pair = pair->next) {
        const char *verdict = rp_json_text(pair, "verdict");
        if (strcmp(verdict, "SKIP") == 0)
            pair = write_skipped(out, pair);
        else if (strcmp(verdict, "MARGINAL") == 0)
            pair = write_explained(out, pair);
    }
}

static void write_counts(const struct rp_terminal *out, const struct rp_results *results)
{
    char explained[64] = "", known[64] = "", warnings[64] = "", others[96] = "";
    if (results->n_explained)
        snprintf(explained, sizeof explained, " (%zu of them explained)", results->n_explained);
    if (results->n_known)
        snprintf(known, sizeof known, ", %zu known", results->n_known);
    if (results->n_warnings)
        snprintf(warnings, sizeof warnings, ", %zu warnings", results->n_warnings);
    if (results->n_other)
        snprintf(others, sizeof others, " (%zu others of the matrix were not selected)",
                 results->n_other);
    rp_print_line(
        out, "compared %zu of %zu pairs: %zu passed%s%s, %zu failed, %zu errors, %zu skipped%s%s",
        results->n_compared, results->n_pairs, results->n_passed, explained, known,
        results->n_failed, results->n_errors, results->n_skipped, warnings, others);
}

void rp_results_summary(const struct rp_terminal *out, const struct rp_context *context,
                        const struct rp_results *results, bool shows_all)
{
    const cJSON *pairs = cJSON_GetObjectItemCaseSensitive(results->root, "pairs");
    struct rp_terminal terminal = *out; /* for a callback that takes no const */
    char weights[256];
    write_weights(out, cJSON_GetObjectItemCaseSensitive(results->root, "entries"));
    write_pairs(out, pairs, shows_all);
    (void)rp_report_known(pairs, write_known, &terminal);
    write_references(out, pairs);
    (void)rp_report_warnings(results->root, write_warning, &terminal);
    write_counts(out, results);
    if (results->n_replayed)
        rp_print_line(out,
                      "%zu of them by replay alone: there is no fixture, and nothing needs one",
                      results->n_replayed);
    if (results->n_pairs && !results->has_ended)
        rp_print_line(out,
                      "ctest has not come to %ssession/end: what it had not begun is not counted "
                      "here",
                      context->prefix);
    if (rp_report_weights_line(&results->weights, weights, sizeof weights)[0])
        rp_print_line(out, "%s", weights);
    rp_print_line(out, "reports: %s/{index.html,results.json,junit.xml%s}", context->reports_dir,
                  results->n_failed || results->n_errors || results->n_known || results->n_warnings
                      ? ",*.diff"
                      : "");
}
