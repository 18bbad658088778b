/* See baseline.h. */
#include "report/baseline.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "refparity/compare.h"
#include "report/baseline_check.h"
#include "report/named_list.h"

enum { OPERATIONS_OF_A_LAYER = 16 }; /* that are dumped of a dense layer */

const char *rp_change_kind_name(enum rp_change_kind kind)
{
    static const char *const names[] = {[RP_CHANGE_NEW] = "new",
                                        [RP_CHANGE_WORSE] = "worse",
                                        [RP_CHANGE_MENDED] = "mended",
                                        [RP_CHANGE_BETTER] = "better",
                                        [RP_CHANGE_KNOWN] = "now known"};
    return names[kind];
}

double rp_baseline_allowed_introduced(double before, double limit_then, double limit_now)
{
    return before + limit_then + limit_now;
}

double rp_baseline_allowed_l2_rel(double before, double dim, double noise)
{
    return before * (1 + 5 / sqrt(2 * fmax(dim, 1))) + noise;
}

static const cJSON *item_of(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

static double number_of(const cJSON *object, const char *key)
{
    const cJSON *item = item_of(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

/* Where a report writes null, the number was not finite; NaN: there is no number. */
static double error_of(const cJSON *object, const char *key)
{
    const cJSON *item = item_of(object, key);
    return !item ? (double)NAN : cJSON_IsNumber(item) ? item->valuedouble : HUGE_VAL;
}

/* ---- verdicts ---- */

static bool is(const char *verdict, const char *name)
{
    return strcmp(verdict, name) == 0;
}

static bool fails(const char *verdict)
{
    return is(verdict, "FAIL") || is(verdict, "ERROR");
}

static bool is_missing(const char *verdict)
{
    return is(verdict, "SKIP") || !verdict[0];
}

static int rank_of(const char *verdict)
{
    static const char *const names[] = {"PASS", "MARGINAL", "XFAIL", "FAIL", "ERROR"};
    int rank = 0;
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
        if (is(verdict, names[i]))
            rank = i;
    return rank;
}

/* False: the verdicts are no change. */
static bool compare_verdicts(const char *was, const char *now, enum rp_change_kind *kind)
{
    if (is(was, now) || (is_missing(was) && is_missing(now)))
        return false;
    const bool is_worse = is_missing(now) || (!is_missing(was) && rank_of(now) > rank_of(was));
    const bool is_mended = rank_of(was) >= rank_of("XFAIL") && !fails(now);
    if (fails(now) && !fails(was))
        *kind = RP_CHANGE_NEW;
    else if (is_worse)
        *kind = RP_CHANGE_WORSE;
    else if (is(now, "XFAIL") && !is_missing(was))
        *kind = RP_CHANGE_KNOWN;
    else
        *kind = is_mended ? RP_CHANGE_MENDED : RP_CHANGE_BETTER;
    return true;
}

/* ---- changes ---- */

static enum rp_status add_change(struct rp_baseline *baseline, const struct rp_change *change,
                                 struct rp_error *err)
{
    if ((baseline->n_changes & (baseline->n_changes - 1)) == 0) { /* of 0 and powers of 2 */
        const size_t n = baseline->n_changes ? 2 * baseline->n_changes : 16;
        struct rp_change *changes = realloc(baseline->changes, n * sizeof *changes);
        if (!changes)
            return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory to compare the runs");
        baseline->changes = changes;
    }
    baseline->changes[baseline->n_changes++] = *change;
    baseline->n_of[change->kind]++;
    return RP_OK;
}

/* Numbers of one slot in both runs; measure NULL: there are none. */
struct numbers {
    const char *measure;
    double before, now, grown, fallen; /* the last two: as far as it may, by rounding */
};

static struct rp_change change_of(const char *pair, const char *what, const char *name)
{
    struct rp_change change = {.pair = pair};
    snprintf(change.what, sizeof change.what, "%s%.32s", what, name);
    return change;
}

/* was and now: objects with "verdict" and "message"; NULL: not there. */
static enum rp_status compare(struct rp_baseline *baseline, struct rp_change change,
                              const cJSON *was, const cJSON *now, const struct numbers *numbers,
                              struct rp_error *err)
{
    change.was = rp_json_text(was, "verdict");
    change.is = rp_json_text(now, "verdict");
    change.message = rp_json_text(now, "message");
    bool is_change = compare_verdicts(change.was, change.is, &change.kind);
    /* A number that is not finite on either side has no size: the verdicts have said it. */
    const bool has_numbers = numbers && numbers->measure && !isnan(numbers->before) &&
                             !isnan(numbers->now) && !is_missing(change.is);
    const bool has_grown =
        has_numbers && isfinite(numbers->before) && !(numbers->now <= numbers->grown);
    const bool has_fallen =
        has_numbers && isfinite(numbers->now) && numbers->before > numbers->fallen;
    if (has_numbers && (is_change || has_grown || has_fallen)) {
        change.measure = numbers->measure;
        change.before = numbers->before;
        change.now = numbers->now;
        change.allowed = has_fallen ? numbers->fallen : numbers->grown;
    }
    if (!is_change && (has_grown || has_fallen)) {
        change.kind = has_grown ? RP_CHANGE_WORSE : RP_CHANGE_BETTER;
        is_change = true;
    }
    if (is_change)
        return add_change(baseline, &change, err);
    baseline->n_same++;
    return RP_OK;
}

/* ---- replay ---- */

/* Of one pair, in both runs. */
struct pair {
    const char *name;
    const cJSON *was, *now;
    struct rp_named_list slots, layers, operations; /* of the earlier run */
    double noise;                                   /* of the operations so far, of both runs */
    bool is_replayed;                               /* in both */
};

/* What the array before has and the array now has not: it is no longer compared. needs_key: only where that
 * member of it is true; NULL: all. */
static enum rp_status compare_gone(struct rp_baseline *baseline, const struct pair *pair,
                                   const char *what, const cJSON *before, const cJSON *now,
                                   const char *needs_key, struct rp_error *err)
{
    struct rp_named_list there;
    const cJSON *was;
    enum rp_status status = rp_named_list_make(&there, NULL, now, "slot", false, err);
    cJSON_ArrayForEach(was, before)
    {
        const char *name = rp_json_text(was, "slot");
        const bool is_meant = !needs_key || cJSON_IsTrue(item_of(was, needs_key));
        if (!status && is_meant && !rp_named_find(&there, name))
            status = compare(baseline, change_of(pair->name, what, name), was, NULL, NULL, err);
    }
    rp_named_list_free(&there);
    return status;
}

static enum rp_status compare_layer(struct rp_baseline *baseline, struct pair *pair,
                                    const cJSON *layer, struct rp_error *err)
{
    const cJSON *slots = item_of(layer, "slots"), *slot;
    const char *verdict = rp_json_text(layer, "verdict");
    enum rp_status status = RP_OK;
    if (cJSON_GetArraySize(slots) == 0 || is(verdict, "SKIP") || is(verdict, "ERROR"))
        status =
            compare(baseline, change_of(pair->name, "replay/", rp_json_text(layer, "slot")),
                    rp_named_find(&pair->layers, rp_json_text(layer, "slot")), layer, NULL, err);
    cJSON_ArrayForEach(slot, slots)
    {
        const cJSON *was = rp_named_find(&pair->operations, rp_json_text(slot, "slot"));
        const double then = number_of(was, "limit"), now = number_of(slot, "limit");
        const double before = error_of(was, "introduced"),
                     introduced = error_of(slot, "introduced");
        const struct numbers numbers = {.measure = "introduced",
                                        .before = before,
                                        .now = introduced,
                                        .grown = rp_baseline_allowed_introduced(before, then, now),
                                        .fallen =
                                            rp_baseline_allowed_introduced(introduced, then, now)};
        pair->noise += then + now;
        if (!status && (was || fails(rp_json_text(slot, "verdict"))))
            status = compare(baseline, change_of(pair->name, "replay/", rp_json_text(slot, "slot")),
                             was, slot, &numbers, err);
    }
    if (!status && cJSON_GetArraySize(slots) > 0) {
        const cJSON *before = rp_named_find(&pair->layers, rp_json_text(layer, "slot"));
        status =
            compare_gone(baseline, pair, "replay/", item_of(before, "slots"), slots, NULL, err);
    }
    return status;
}

/* What is replayed between the required slot before this one and this one. */
static enum rp_status compare_replay(struct rp_baseline *baseline, struct pair *pair,
                                     const cJSON **layer, const char *until, struct rp_error *err)
{
    enum rp_status status = RP_OK;
    while (!status && *layer) {
        const bool is_last = strcmp(rp_json_text(*layer, "slot"), until) == 0;
        status = compare_layer(baseline, pair, *layer, err);
        *layer = (*layer)->next;
        if (is_last)
            break;
    }
    return status;
}

/* ---- a pair ---- */

static const cJSON *comparison_of(const cJSON *pair)
{
    return item_of(pair, "comparison");
}

static enum rp_status compare_slot(struct rp_baseline *baseline, const struct pair *pair,
                                   const cJSON *slot, size_t n_before, struct rp_error *err)
{
    const char *name = rp_json_text(slot, "slot");
    const cJSON *was = rp_named_find(&pair->slots, name);
    const double dim = number_of(slot, "dim");
    const double before = error_of(item_of(was, "worst"), "l2_rel");
    const double now = error_of(item_of(slot, "worst"), "l2_rel");
    const double summed =
        (double)(n_before + 1) * OPERATIONS_OF_A_LAYER * sqrt(fmax(dim, 1)) * ldexp(1, -24);
    const double noise = pair->is_replayed ? pair->noise : 2 * summed;
    const struct numbers numbers = {.measure = "L2_rel",
                                    .before = before,
                                    .now = now,
                                    .grown = rp_baseline_allowed_l2_rel(before, dim, noise),
                                    .fallen = rp_baseline_allowed_l2_rel(now, dim, noise)};
    return compare(baseline, change_of(pair->name, "", name), was, slot, &numbers, err);
}

/* Does its test `report` fail, by what is known and mended? */
static bool has_mended(const cJSON *pair)
{
    const cJSON *known;
    cJSON_ArrayForEach(known, item_of(pair, "known"))
    {
        if (rp_json_text(known, "message")[0])
            return true;
    }
    return false;
}

static enum rp_status compare_report(struct rp_baseline *baseline, const struct pair *pair,
                                     struct rp_error *err)
{
    const bool was = has_mended(pair->was), now = has_mended(pair->now);
    struct rp_change change = change_of(pair->name, "report", "");
    if (was == now)
        return RP_OK;
    change.kind = now ? RP_CHANGE_NEW : RP_CHANGE_MENDED;
    change.was = now ? "PASS" : "FAIL";
    change.is = now ? "FAIL" : "PASS";
    change.message = now ? "what is known of it is mended: remove it" : "";
    return add_change(baseline, &change, err);
}

static enum rp_status open_pair(const struct rp_json *doc, struct pair *pair, struct rp_error *err)
{
    const cJSON *layer;
    enum rp_status status = rp_named_list_make(
        &pair->slots, doc, item_of(comparison_of(pair->was), "slots"), "slot", true, err);
    if (!status)
        status =
            rp_named_list_make(&pair->layers, doc, item_of(pair->was, "replay"), "slot", true, err);
    cJSON_ArrayForEach(layer, item_of(pair->was, "replay"))
    {
        if (!status)
            status = rp_named_list_add(&pair->operations, doc, item_of(layer, "slots"), "slot",
                                       true, err);
    }
    if (!status)
        status = rp_named_list_sort(&pair->operations, doc, err);
    pair->is_replayed = pair->operations.n > 0 && cJSON_GetArraySize(item_of(pair->now, "replay"));
    return status;
}

static enum rp_status compare_pair(struct rp_baseline *baseline, struct pair *pair,
                                   struct rp_error *err)
{
    static const char *const tests[] = {"engine_test", "tokens"};
    static const char *const names[] = {"engine", "tokens"};
    const cJSON *slot, *replayed = item_of(pair->now, "replay");
    const cJSON *layer = replayed ? replayed->child : NULL;
    size_t n = 0;
    enum rp_status status = open_pair(baseline->doc, pair, err);
    for (size_t i = 0; !status && i < 2; i++) {
        const cJSON *was = item_of(i == 0 ? pair->was : comparison_of(pair->was), tests[i]);
        const cJSON *now = item_of(i == 0 ? pair->now : comparison_of(pair->now), tests[i]);
        if (was)
            status = rp_check_verdict(baseline->doc, was, err);
        if (!status && (was || now))
            status = compare(baseline, change_of(pair->name, names[i], ""), was, now, NULL, err);
    }
    cJSON_ArrayForEach(slot, item_of(comparison_of(pair->now), "slots"))
    {
        if (!cJSON_IsTrue(item_of(slot, "required")))
            continue;
        if (!status)
            status = compare_replay(baseline, pair, &layer, rp_json_text(slot, "slot"), err);
        if (!status)
            status = compare_slot(baseline, pair, slot, n++, err);
    }
    if (!status)
        status = compare_replay(baseline, pair, &layer, "", err);
    if (!status)
        status = compare_gone(baseline, pair, "", item_of(comparison_of(pair->was), "slots"),
                              item_of(comparison_of(pair->now), "slots"), "required", err);
    if (!status)
        status = compare_gone(baseline, pair, "replay/", item_of(pair->was, "replay"), replayed,
                              NULL, err);
    if (!status)
        status = compare_report(baseline, pair, err);
    rp_named_list_free(&pair->slots);
    rp_named_list_free(&pair->layers);
    rp_named_list_free(&pair->operations);
    return status;
}

/* ---- all ---- */

static enum rp_status compare_pairs(struct rp_baseline *baseline,
                                    const struct rp_named_list *earlier, const cJSON *pairs,
                                    struct rp_error *err)
{
    const cJSON *now;
    enum rp_status status = RP_OK;
    cJSON_ArrayForEach(now, pairs)
    {
        struct pair pair = {.name = rp_json_text(now, "pair"), .now = now};
        pair.was = rp_named_find(earlier, pair.name);
        if (!pair.was) {
            baseline->only_now[baseline->n_only_now++] = pair.name;
            continue;
        }
        baseline->n_pairs++;
        if (!status)
            status = rp_baseline_check_pair(baseline->doc, pair.was, now, err);
        if (!status)
            status = compare_pair(baseline, &pair, err);
    }
    return status;
}

static enum rp_status compare_entries(struct rp_baseline *baseline, const cJSON *entries,
                                      struct rp_error *err)
{
    const cJSON *now;
    struct rp_named_list earlier;
    enum rp_status status =
        rp_named_list_make(&earlier, baseline->doc, item_of(rp_json_root(baseline->doc), "entries"),
                           "entry", false, err);
    cJSON_ArrayForEach(now, entries)
    {
        const char *name = rp_json_text(now, "entry");
        const cJSON *was = item_of(rp_named_find(&earlier, name), "weights"),
                    *is = item_of(now, "weights");
        if (!status && was)
            status = rp_check_verdict(baseline->doc, was, err);
        if (!status && was && is)
            status = compare(baseline, change_of(name, "weights", ""), was, is, NULL, err);
    }
    rp_named_list_free(&earlier);
    return status;
}

/* By kind; what is of one kind stays in its order. */
static enum rp_status sort_changes(struct rp_baseline *baseline, struct rp_error *err)
{
    struct rp_change *sorted = calloc(baseline->n_changes + 1, sizeof *sorted);
    size_t n = 0;
    if (!sorted)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory to compare the runs");
    for (int kind = 0; kind < RP_N_CHANGE_KINDS; kind++)
        for (size_t i = 0; i < baseline->n_changes; i++)
            if ((int)baseline->changes[i].kind == kind)
                sorted[n++] = baseline->changes[i];
    free(baseline->changes);
    baseline->changes = sorted;
    return RP_OK;
}

static enum rp_status compare_all(struct rp_baseline *baseline, const cJSON *results,
                                  struct rp_error *err)
{
    const cJSON *pairs = item_of(results, "pairs"), *item;
    const cJSON *before = item_of(rp_json_root(baseline->doc), "pairs");
    struct rp_named_list earlier, now = {.items = NULL};
    enum rp_status status = rp_named_list_make(&earlier, baseline->doc, before, "pair", true, err);
    if (!status)
        status = rp_named_list_make(&now, NULL, pairs, "pair", false, err);
    baseline->only_now = calloc(now.n + 1, sizeof *baseline->only_now);
    baseline->only_before = calloc(earlier.n + 1, sizeof *baseline->only_before);
    if (!status && (!baseline->only_now || !baseline->only_before))
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory to compare the runs");
    cJSON_ArrayForEach(item, before)
    {
        if (!status && !rp_named_find(&now, rp_json_text(item, "pair")))
            baseline->only_before[baseline->n_only_before++] = rp_json_text(item, "pair");
    }
    if (!status)
        status = compare_pairs(baseline, &earlier, pairs, err);
    if (!status && baseline->n_pairs == 0 && now.n > 0)
        status = rp_json_fail(baseline->doc, before, err, RP_ERR_MISMATCH,
                              "expected a run of the same matrix: none of its %zu pairs is among "
                              "the %zu of this run (%.100s …)",
                              earlier.n, now.n, now.items[0].name);
    if (!status)
        status = compare_entries(baseline, item_of(results, "entries"), err);
    rp_named_list_free(&earlier);
    rp_named_list_free(&now);
    return status ? status : sort_changes(baseline, err);
}

enum rp_status rp_baseline_open(const char *path, const cJSON *results,
                                struct rp_baseline *baseline, struct rp_error *err)
{
    memset(baseline, 0, sizeof *baseline);
    enum rp_status status = rp_json_parse_file(path, &baseline->doc, err);
    if (status) {
        baseline->doc = NULL;
        return status;
    }
    status = rp_baseline_check_format(baseline->doc, err);
    return status ? status : compare_all(baseline, results, err);
}

void rp_baseline_free(struct rp_baseline *baseline)
{
    rp_json_free(baseline->doc);
    free(baseline->changes);
    free(baseline->only_before);
    free(baseline->only_now);
    memset(baseline, 0, sizeof *baseline);
}

int rp_baseline_exit_code(const struct rp_baseline *baseline)
{
    for (size_t i = 0; i < baseline->n_changes; i++)
        if (baseline->changes[i].kind == RP_CHANGE_NEW && is(baseline->changes[i].is, "ERROR"))
            return RP_EXIT_ERROR;
    return baseline->n_of[RP_CHANGE_NEW] + baseline->n_of[RP_CHANGE_WORSE] > 0 ? RP_EXIT_FAIL
                                                                               : RP_EXIT_PASS;
}
