/* See results.h. */
#include "report/results.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/sha256.h"
#include "report/html.h"
#include "report/junit.h"
#include "report/result_file.h"
#include "run/selection.h"
#include "run/session_inputs.h"

#ifndef RP_VERSION
#error "the build defines RP_VERSION"
#endif

static enum rp_status write_json(const char *path, const cJSON *root, struct rp_error *err)
{
    char *text = cJSON_Print(root);
    if (!text)
        return rp_fail(err, RP_ERR_MEMORY, path, -1, "not enough memory to write it");
    const enum rp_status status = rp_file_write_atomic(path, text, strlen(text), err);
    free(text);
    return status;
}

static size_t n_warnings_of(const cJSON *owner)
{
    return (size_t)cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(owner, "warnings"));
}

/* Did any of the pair's replays come to a verdict? */
static bool is_replayed(const cJSON *pair)
{
    const cJSON *result;
    cJSON_ArrayForEach(result, cJSON_GetObjectItemCaseSensitive(pair, "replay"))
    {
        const char *verdict =
            cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(result, "verdict"));
        if (verdict && (strcmp(verdict, "PASS") == 0 || strcmp(verdict, "FAIL") == 0 ||
                        strcmp(verdict, "XFAIL") == 0))
            return true;
    }
    return false;
}

void rp_results_count_pair(struct rp_results *results, const cJSON *pair)
{
    const char *verdict = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(pair, "verdict"));
    const cJSON *n = cJSON_GetObjectItemCaseSensitive(
        cJSON_GetObjectItemCaseSensitive(pair, "comparison"), "n_required_compared");
    const bool is_compared = cJSON_IsNumber(n) && n->valuedouble > 0;
    const bool by_replay = !is_compared && is_replayed(pair);
    results->n_pairs++;
    results->n_compared += is_compared || by_replay;
    results->n_replayed += by_replay;
    results->n_failed += verdict && strcmp(verdict, "FAIL") == 0;
    results->n_known += verdict && strcmp(verdict, "XFAIL") == 0;
    results->n_skipped += verdict && strcmp(verdict, "SKIP") == 0;
    results->n_explained += verdict && strcmp(verdict, "MARGINAL") == 0;
    results->n_passed +=
        verdict && (strcmp(verdict, "PASS") == 0 || strcmp(verdict, "MARGINAL") == 0);
    results->n_errors += !verdict || strcmp(verdict, "ERROR") == 0;
    results->n_warnings += n_warnings_of(pair);
}

/* Why the pair's run is not what the session selected; NULL: it is. */
static const char *why_lost(bool exists, bool other)
{
    if (!exists)
        return "it was selected, but what its run did could not be stored, or was removed: is the "
               "disk full?";
    if (other)
        return "it was selected, but could not be run: what is stored is of an earlier run";
    return NULL;
}

/* Reads pair's result of this session, making it first when there is none, or when what it rests on has
 * changed; *json is NULL when the session did not select the pair. */
static enum rp_status collect_pair(const struct rp_context *context, const struct rp_pair *pair,
                                   bool selected, cJSON **json, struct rp_error *err)
{
    *json = NULL;
    struct rp_pair_paths paths;
    struct rp_run_record record;
    enum rp_verdict verdict;
    struct rp_warnings warnings;
    enum rp_status status = rp_pair_paths(context, pair, &paths, err);
    if (status) {
        *json = selected ? rp_results_unjudged(context, pair, err) : NULL;
        return status;
    }
    /* A record that cannot be read is judged, and becomes an ERROR of its pair. */
    const bool exists = rp_path_exists(paths.record);
    const bool readable = rp_run_record_read(context, pair, paths.record, &record, NULL) == RP_OK;
    const bool other = readable && strcmp(record.session, context->session) != 0;
    const bool unknown = !readable && context->session[0]; /* of another version, say */
    if (!selected && (!exists || other || unknown))
        return RP_OK;
    const char *lost = why_lost(exists, other);
    bool forged = false;
    if (readable && !lost)
        *json = rp_results_read_pair(context, pair, paths.result, &forged);
    if (forged)
        lost = "its result.json was not written by its test report, or was changed since: run it "
               "again, and look at what writes there";
    if (*json && rp_judge_check_inputs(context, pair, NULL)) {
        cJSON_Delete(*json);
        *json = NULL;
    }
    return *json ? RP_OK
                 : rp_results_make_pair(context, pair, lost, json, &verdict, &warnings, err);
}

static void write_junit(FILE *out, const void *root)
{
    rp_report_junit(out, root);
}

void rp_results_add_summary(const struct rp_results *results, cJSON *root)
{
    cJSON *summary = cJSON_AddObjectToObject(root, "summary");
    cJSON_AddNumberToObject(summary, "pairs", (double)results->n_pairs);
    cJSON_AddNumberToObject(summary, "not_selected", (double)results->n_other);
    cJSON_AddNumberToObject(summary, "compared", (double)results->n_compared);
    cJSON_AddNumberToObject(summary, "replayed_only", (double)results->n_replayed);
    cJSON_AddNumberToObject(summary, "passed", (double)results->n_passed);
    cJSON_AddNumberToObject(summary, "explained", (double)results->n_explained);
    cJSON_AddNumberToObject(summary, "known", (double)results->n_known);
    cJSON_AddNumberToObject(summary, "failed", (double)results->n_failed);
    cJSON_AddNumberToObject(summary, "errors", (double)results->n_errors);
    cJSON_AddNumberToObject(summary, "skipped", (double)results->n_skipped);
    cJSON_AddNumberToObject(summary, "warnings", (double)results->n_warnings);
    cJSON *weights = cJSON_AddObjectToObject(summary, "weights");
    cJSON_AddNumberToObject(weights, "tests", (double)results->weights.n);
    cJSON_AddNumberToObject(weights, "passed", (double)results->weights.n_passed);
    cJSON_AddNumberToObject(weights, "failed", (double)results->weights.n_failed);
    cJSON_AddNumberToObject(weights, "errors", (double)results->weights.n_errors);
    cJSON_AddNumberToObject(weights, "skipped", (double)results->weights.n_skipped);
}

/* Keeps the first error of several steps, of which none stops the next. */
static void keep_first(enum rp_status status, const struct rp_error *err, struct rp_error *first)
{
    if (status && !first->code)
        *first = *err;
}

/* What only the HTML report draws; results.json of a large matrix stays readable. */
static void drop_positions(const cJSON *pairs)
{
    const cJSON *pair;
    cJSON *layer;
    cJSON_ArrayForEach(pair, pairs)
    {
        cJSON_DeleteItemFromObjectCaseSensitive(
            cJSON_GetObjectItemCaseSensitive(pair, "comparison"), "by_position");
        cJSON_ArrayForEach(layer, cJSON_GetObjectItemCaseSensitive(pair, "replay"))
        {
            cJSON_DeleteItemFromObjectCaseSensitive(layer, "by_position");
        }
    }
}

enum rp_status rp_results_write(const char *reports_dir, cJSON *root, struct rp_error *err)
{
    char path[RP_PATH_SIZE];
    struct rp_error first = {.code = RP_OK}, one;
    enum rp_status status = rp_make_dirs(reports_dir, &one);
    keep_first(status, &one, &first);
    keep_first(rp_report_html(reports_dir, root, &one), &one, &first);
    drop_positions(cJSON_GetObjectItemCaseSensitive(root, "pairs"));
    status = rp_path_join(path, sizeof path, reports_dir, "results.json", &one);
    if (!status)
        status = write_json(path, root, &one);
    keep_first(status, &one, &first);
    status = rp_path_join(path, sizeof path, reports_dir, "junit.xml", &one);
    if (!status)
        status = rp_file_write_stream(path, write_junit, root, &one);
    keep_first(status, &one, &first);
    if (first.code && err)
        *err = first;
    return first.code;
}

/* Which matrix it is, by its content, and what of it was to be run: so that shards can be put together, and
 * what none of them has is missed. */
static void add_matrix(const struct rp_context *context, cJSON *root)
{
    const struct rp_matrix *matrix = context->matrix;
    char sha256[65];
    if (context->begun.matrix_sha256[0])
        memcpy(sha256, context->begun.matrix_sha256, sizeof sha256);
    else if (rp_sha256_file(rp_matrix_path(matrix), sha256, NULL))
        sha256[0] = '\0';
    cJSON *object = cJSON_AddObjectToObject(root, "matrix");
    cJSON_AddStringToObject(object, "path", rp_matrix_path(matrix));
    cJSON_AddStringToObject(object, "sha256", sha256);
    cJSON *entries = cJSON_AddArrayToObject(object, "entries");
    cJSON *disabled = cJSON_AddArrayToObject(object, "disabled"); /* of entries */
    for (size_t i = 0; i < rp_matrix_n_entries(matrix); i++) {
        const struct rp_entry *entry = rp_matrix_entry(matrix, i);
        cJSON_AddItemToArray(entries, cJSON_CreateString(entry->name));
        if (entry->disabled)
            cJSON_AddItemToArray(disabled, cJSON_CreateString(entry->name));
    }
    cJSON *pairs = cJSON_AddArrayToObject(object, "pairs");
    for (size_t i = 0; i < rp_matrix_n_pairs(matrix); i++) {
        struct rp_pair pair;
        rp_matrix_pair(matrix, i, &pair);
        cJSON_AddItemToArray(pairs, cJSON_CreateString(pair.name));
    }
}

/* All of root, before what results.json leaves out is dropped. */
static enum rp_status write_shard(const struct rp_context *context, const cJSON *root,
                                  struct rp_error *err)
{
    char path[RP_PATH_SIZE];
    enum rp_status status = rp_make_dirs(context->reports_dir, err);
    if (!status)
        status = rp_path_join(path, sizeof path, context->reports_dir, "shard.json", err);
    return status ? status : write_json(path, root, err);
}

enum rp_status rp_results_collect(const struct rp_context *context, struct rp_results *results,
                                  struct rp_error *err)
{
    struct rp_error first = {.code = RP_OK}, one;
    struct rp_selection selection;
    memset(results, 0, sizeof *results);
    enum rp_status status = rp_selection_read(context, &selection, err);
    if (status)
        return status;
    results->has_ended = selection.has_ended;
    results->root = cJSON_CreateObject();
    cJSON_AddStringToObject(results->root, "format", "refparity-results");
    cJSON_AddNumberToObject(results->root, "version", 1);
    cJSON_AddStringToObject(results->root, "session", context->session);
    cJSON_AddBoolToObject(results->root, "ended", results->has_ended);
    cJSON_AddStringToObject(results->root, "refparity", RP_VERSION);
    if (context->shard.count > 0) {
        char shard[32];
        snprintf(shard, sizeof shard, "%zu/%zu", context->shard.index, context->shard.count);
        cJSON_AddStringToObject(results->root, "shard", shard);
    }
    add_matrix(context, results->root);
    cJSON *pairs = cJSON_CreateArray(), *entries = cJSON_CreateArray(), *entry;
    rp_report_entries(context, entries, &results->weights);
    cJSON_ArrayForEach(entry, entries)
    {
        results->n_warnings += n_warnings_of(entry);
    }
    for (size_t i = 0; i < selection.n; i++) {
        struct rp_pair pair;
        cJSON *json;
        rp_matrix_pair(context->matrix, i, &pair);
        status = collect_pair(context, &pair, selection.selected[i], &json, &one);
        keep_first(status, &one, &first);
        if (json) {
            rp_results_count_pair(results, json);
            cJSON_AddItemToArray(pairs, json);
        }
    }
    results->n_other = selection.n - results->n_pairs;
    rp_selection_free(&selection);
    rp_results_add_summary(results, results->root);
    cJSON_AddItemToObject(results->root, "pairs", pairs);
    cJSON_AddItemToObject(results->root, "entries", entries);
    keep_first(rp_session_check_matrix(context, &one), &one, &first);
    if (context->shard.count > 0)
        keep_first(write_shard(context, results->root, &one), &one, &first);
    keep_first(rp_results_write(context->reports_dir, results->root, &one), &one, &first);
    if (first.code && err)
        *err = first;
    return first.code;
}

void rp_results_free(struct rp_results *results)
{
    cJSON_Delete(results->root);
    memset(results, 0, sizeof *results);
}

int rp_results_exit_code(const struct rp_results *results, bool strict_warnings)
{
    const struct rp_weights_counts *weights = &results->weights;
    const bool has_compared = results->n_compared > 0 ||
                              (results->n_pairs == 0 && weights->n_passed + weights->n_failed > 0);
    if (results->n_errors > 0 || weights->n_errors > 0 || !has_compared)
        return RP_EXIT_ERROR;
    if (results->n_failed > 0 || weights->n_failed > 0)
        return RP_EXIT_FAIL;
    if (!results->has_ended)
        return RP_EXIT_ERROR;
    return strict_warnings && results->n_warnings > 0 ? RP_EXIT_WARNING : RP_EXIT_PASS;
}

int rp_results_worse_code(int a, int b)
{
    static const int ranks[] = {
        [RP_EXIT_PASS] = 0, [RP_EXIT_WARNING] = 1, [RP_EXIT_FAIL] = 2, [RP_EXIT_ERROR] = 3};
    return ranks[a] > ranks[b] ? a : b;
}
