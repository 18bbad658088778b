/* See results.h. */
#include "report/results.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/shell.h"
#include "report/json.h"
#include "report/junit.h"
#include "report/replay.h"
#include "report/text.h"
#include "report/warnings.h"
#include "run/selection.h"
#include "run/session_inputs.h"

char *rp_slot_test_name(const char *slot, int n_layers, char *out)
{
    int layer, width = 2;
    for (int last = (n_layers - 1) / 100; last > 0; last /= 10)
        width++;
    if (rp_slot_parse(slot, &layer) == RP_PART_OUTPUT)
        snprintf(out, RP_SLOT_NAME_SIZE, "h%0*d", width, layer);
    else
        snprintf(out, RP_SLOT_NAME_SIZE, "%s", slot);
    return out;
}

char *rp_results_reproduce(const struct rp_context *context, const char *name, const char *test,
                           char *buf, size_t size)
{
    char folder[RP_PATH_SIZE + 64], tests[RP_PATH_SIZE], pattern[RP_PATH_SIZE + 64];
    snprintf(tests, sizeof tests, "^%s%s/%s%s", context->prefix, name, test ? test : "",
             test ? "$" : "");
    snprintf(buf, size, "ctest --test-dir %s --output-on-failure -R %s",
             rp_shell_quote(context->build_dir, folder, sizeof folder),
             rp_shell_quote(tests, pattern, sizeof pattern));
    return buf;
}

static void utc_now(char *out, size_t size)
{
    const time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(out, size, "%Y-%m-%dT%H:%M:%S", &utc);
}

static enum rp_status write_json(const char *path, const cJSON *root, struct rp_error *err)
{
    char *text = cJSON_Print(root);
    if (!text)
        return rp_fail(err, RP_ERR_MEMORY, path, -1, "not enough memory to write it");
    const enum rp_status status = rp_file_write_atomic(path, text, strlen(text), err);
    free(text);
    return status;
}

/* Calls write(stream, argument) on memory and writes what it made to path. */
static enum rp_status write_stream(const char *path, void (*write)(FILE *, const void *),
                                   const void *argument, struct rp_error *err)
{
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    if (!stream)
        return rp_fail(err, RP_ERR_MEMORY, path, -1, "not enough memory to write it");
    write(stream, argument);
    const int failed = ferror(stream);
    if (fclose(stream) || failed) {
        free(text);
        return rp_fail(err, RP_ERR_MEMORY, path, -1, "not enough memory to write it");
    }
    const enum rp_status status = rp_file_write_atomic(path, text, length, err);
    free(text);
    return status;
}

/* ---- one pair ---- */

static bool has_diff(const struct rp_verdicts *verdicts)
{
    return verdicts->verdict == RP_FAIL || verdicts->verdict == RP_ERROR ||
           verdicts->warnings.n > 0;
}

struct diff {
    const struct rp_judge *judge;
    const struct rp_verdicts *verdicts;
    const char *reproduce;
};

static void write_diff(FILE *out, const void *argument)
{
    const struct diff *diff = argument;
    const struct rp_judge *judge = diff->judge;
    char entry[RP_PATH_SIZE + 32], engine[2048], tail[4096];
    snprintf(entry, sizeof entry, "%s:%d", rp_matrix_path(judge->context->matrix),
             judge->pair->entry->line);
    snprintf(engine, sizeof engine, "%s: %.1600s", rp_verdict_name(diff->verdicts->engine.verdict),
             diff->verdicts->engine.message);
    const struct rp_subject subject = {.title = judge->pair->name,
                                       .entry = entry,
                                       .reference = judge->fixture_path,
                                       .dump = judge->paths.dump,
                                       .command = judge->record.command,
                                       .engine = judge->pair->against ? NULL : engine,
                                       .reproduce = diff->reproduce,
                                       .replay = diff->verdicts->replay,
                                       .n_replay = diff->verdicts->n_replay,
                                       .warnings = &diff->verdicts->warnings};
    rp_report_text(out, &subject, &diff->verdicts->pair, &diff->verdicts->divergence);
    if (diff->verdicts->engine.verdict == RP_ERROR &&
        rp_judge_log_tail(judge, 20, tail, sizeof tail)[0])
        fprintf(out, "\nend of %s:\n%s", judge->paths.log, tail);
}

static void add_judgement(cJSON *object, const char *name, const struct rp_judgement *judgement)
{
    cJSON *j = cJSON_AddObjectToObject(object, name);
    cJSON_AddStringToObject(j, "verdict", rp_verdict_name(judgement->verdict));
    cJSON_AddStringToObject(j, "message", judgement->message);
}

/* Adds to each result what its test took. The lists are in the order of verdicts. */
static double add_seconds(cJSON *root, const struct rp_verdicts *verdicts)
{
    const cJSON *comparison = cJSON_GetObjectItemCaseSensitive(root, "comparison");
    const cJSON *slots = cJSON_GetObjectItemCaseSensitive(comparison, "slots");
    cJSON *item;
    double sum = verdicts->engine_s + verdicts->tokens_s;
    size_t i = 0;
    cJSON_AddNumberToObject(cJSON_GetObjectItemCaseSensitive(root, "engine_test"), "compare_s",
                            verdicts->engine_s);
    cJSON_AddNumberToObject(cJSON_GetObjectItemCaseSensitive(comparison, "tokens"), "compare_s",
                            verdicts->tokens_s);
    cJSON_ArrayForEach(item, slots)
    {
        if (verdicts->pair.slots[i].required)
            cJSON_AddNumberToObject(item, "compare_s", verdicts->slots_s[i]);
        sum += verdicts->slots_s[i++];
    }
    i = 0;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(root, "replay"))
    {
        cJSON_AddNumberToObject(item, "replay_s", verdicts->replay[i].seconds);
        sum += verdicts->replay[i++].seconds;
    }
    return sum;
}

static cJSON *pair_json(const struct rp_judge *judge, const struct rp_verdicts *verdicts,
                        const char *reproduce)
{
    const struct rp_pair *pair = judge->pair;
    const struct rp_entry *entry = pair->entry;
    char timestamp[32];
    utc_now(timestamp, sizeof timestamp);
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "pair", pair->name);
    cJSON_AddStringToObject(root, "verdict", rp_verdict_name(verdicts->verdict));
    cJSON_AddStringToObject(root, "entry", entry->name);
    cJSON_AddStringToObject(root, "mode", pair->mode ? pair->mode : "");
    cJSON_AddStringToObject(root, "against", pair->against ? pair->against : "");
    cJSON_AddStringToObject(root, "prompt", pair->prompt->id);
    cJSON_AddStringToObject(root, "engine", entry->engine->name);
    cJSON_AddStringToObject(root, "hf_model", entry->hf_model);
    cJSON_AddNumberToObject(root, "n_layers", entry->n_layers);
    cJSON_AddStringToObject(root, "matrix", rp_matrix_path(judge->context->matrix));
    cJSON_AddNumberToObject(root, "line", entry->line);
    cJSON_AddStringToObject(root, pair->against ? "against_dump" : "fixture", judge->fixture_path);
    cJSON_AddStringToObject(root, "dump", judge->paths.dump);
    cJSON_AddStringToObject(root, "gate",
                            rp_gate_name(pair->against ? RP_GATE_STRICT : entry->gate));
    cJSON_AddStringToObject(root, "command", judge->record.command);
    cJSON_AddStringToObject(root, "log", judge->paths.log);
    cJSON_AddStringToObject(root, "diff", has_diff(verdicts) ? judge->paths.diff : "");
    cJSON_AddStringToObject(root, "reproduce", reproduce);
    cJSON_AddStringToObject(root, "session",
                            pair->against ? judge->context->session : judge->record.session);
    cJSON_AddStringToObject(root, "timestamp", timestamp);
    cJSON_AddNumberToObject(root, "engine_s", pair->against ? 0 : judge->record.process.wall_s);
    cJSON_AddNumberToObject(root, "harness_s", pair->against ? 0 : judge->record.harness_s);
    if (!pair->against)
        add_judgement(root, "engine_test", &verdicts->engine);
    rp_report_json(cJSON_AddObjectToObject(root, "comparison"), &verdicts->pair,
                   &verdicts->divergence);
    if (verdicts->n_replay > 0)
        rp_report_replay_json(cJSON_AddArrayToObject(root, "replay"), verdicts->replay,
                              verdicts->n_replay);
    rp_report_json_warnings(root, &verdicts->warnings);
    cJSON_AddNumberToObject(root, "compare_s", add_seconds(root, verdicts));
    return root;
}

/* What is known of a pair that cannot be judged. */
static cJSON *unjudged_json(const struct rp_context *context, const struct rp_pair *pair,
                            const struct rp_error *err)
{
    struct rp_judgement judgement = {.verdict = RP_ERROR};
    cJSON *root = cJSON_CreateObject();
    rp_error_text(err, judgement.message, sizeof judgement.message);
    cJSON_AddStringToObject(root, "pair", pair->name);
    cJSON_AddStringToObject(root, "verdict", rp_verdict_name(RP_ERROR));
    cJSON_AddStringToObject(root, "entry", pair->entry->name);
    cJSON_AddStringToObject(root, "engine", pair->entry->engine->name);
    cJSON_AddStringToObject(root, "matrix", rp_matrix_path(context->matrix));
    cJSON_AddNumberToObject(root, "line", pair->entry->line);
    add_judgement(root, "engine_test", &judgement);
    return root;
}

static enum rp_status write_diff_file(const struct rp_judge *judge,
                                      const struct rp_verdicts *verdicts, const char *reproduce,
                                      struct rp_error *err)
{
    const char *path = judge->paths.diff;
    if (!has_diff(verdicts))
        return unlink(path) == 0 || errno == ENOENT || errno == ENOTDIR
                   ? RP_OK
                   : rp_fail(err, RP_ERR_IO, path, -1, "cannot be removed: %s", strerror(errno));
    const struct diff diff = {judge, verdicts, reproduce};
    const enum rp_status status = rp_make_dirs(judge->context->reports_dir, err);
    return status ? status : write_stream(path, write_diff, &diff, err);
}

/* For its seal. */
static const char *name_result(const struct rp_pair *pair, char *what, size_t size)
{
    snprintf(what, size, "result of %s", pair->name);
    return what;
}

static enum rp_status write_result(const struct rp_context *context, const struct rp_pair *pair,
                                   const char *path, const cJSON *json, struct rp_error *err)
{
    char what[RP_PAIR_NAME_SIZE + 32];
    return rp_seal_write(context->key, name_result(pair, what, sizeof what), path,
                         cJSON_Print(json), err);
}

/* Judges pair; *json is its result, never NULL but where memory is short. lost: why its run cannot be
 * what the session selected, NULL: it is. The files that cannot be written are an error, but the first
 * does not stop the second. */
static enum rp_status make_pair(const struct rp_context *context, const struct rp_pair *pair,
                                const char *lost, cJSON **json, enum rp_verdict *verdict,
                                struct rp_warnings *warnings, struct rp_error *err)
{
    char reproduce[2 * RP_PATH_SIZE + 256], reason[1600];
    struct rp_verdicts verdicts;
    struct rp_error damage;
    struct rp_judge *judge = malloc(sizeof *judge);
    *json = NULL;
    *verdict = RP_ERROR;
    warnings->n = 0;
    if (!judge)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory");
    rp_judge_open(context, pair, judge);
    if (lost)
        rp_judge_lose(judge, lost);
    enum rp_status status = rp_judge_pair(judge, &verdicts, &damage);
    if (status == RP_ERR_FORMAT) { /* nothing that is stored counts then */
        rp_judge_lose(judge, rp_error_text(&damage, reason, sizeof reason));
        status = rp_judge_pair(judge, &verdicts, &damage);
    }
    if (status) {
        *json = unjudged_json(context, pair, &damage);
        if (err)
            *err = damage;
    } else {
        struct rp_error second;
        *verdict = verdicts.verdict;
        *warnings = verdicts.warnings;
        rp_results_reproduce(context, pair->name, NULL, reproduce, sizeof reproduce);
        *json = pair_json(judge, &verdicts, reproduce);
        status = write_diff_file(judge, &verdicts, reproduce, err);
        if (write_result(context, pair, judge->paths.result, *json, &second) && !status) {
            status = second.code;
            if (err)
                *err = second;
        }
        rp_verdicts_free(&verdicts);
    }
    rp_judge_close(judge);
    free(judge);
    return status;
}

enum rp_status rp_results_write_pair(const struct rp_context *context, const struct rp_pair *pair,
                                     enum rp_verdict *verdict, struct rp_warnings *warnings,
                                     struct rp_error *err)
{
    cJSON *json;
    const enum rp_status status = make_pair(context, pair, NULL, &json, verdict, warnings, err);
    cJSON_Delete(json);
    return status;
}

/* ---- all pairs ---- */

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
        if (verdict && (strcmp(verdict, "PASS") == 0 || strcmp(verdict, "FAIL") == 0))
            return true;
    }
    return false;
}

static void tally(struct rp_results *results, const cJSON *pair)
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
    results->n_skipped += verdict && strcmp(verdict, "SKIP") == 0;
    results->n_explained += verdict && strcmp(verdict, "MARGINAL") == 0;
    results->n_passed +=
        verdict && (strcmp(verdict, "PASS") == 0 || strcmp(verdict, "MARGINAL") == 0);
    results->n_errors += !verdict || strcmp(verdict, "ERROR") == 0;
    results->n_warnings += n_warnings_of(pair);
}

/* The pair's stored result, where it is of this session and nothing has changed since; else NULL. *forged:
 * it is not what the pair's test wrote. */
static cJSON *read_result(const struct rp_context *context, const struct rp_pair *pair,
                          const char *path, bool *forged)
{
    char what[RP_PAIR_NAME_SIZE + 32];
    struct rp_json *doc;
    const enum rp_status status =
        rp_seal_read(context->key, name_result(pair, what, sizeof what), path, &doc, NULL);
    *forged = status == RP_ERR_MISMATCH || status == RP_ERR_FORMAT;
    if (status)
        return NULL;
    const cJSON *root = rp_json_root(doc);
    const char *session = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "session"));
    cJSON *json = NULL;
    if (session && strcmp(session, context->session) == 0)
        json = cJSON_Duplicate(root, 1);
    cJSON_DeleteItemFromObjectCaseSensitive(json, "seal"); /* of the file */
    rp_json_free(doc);
    return json;
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
        *json = selected ? unjudged_json(context, pair, err) : NULL;
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
        *json = read_result(context, pair, paths.result, &forged);
    if (forged)
        lost = "its result.json was not written by its test report, or was changed since: run it "
               "again, and look at what writes there";
    if (*json && rp_judge_check_inputs(context, pair, NULL)) {
        cJSON_Delete(*json);
        *json = NULL;
    }
    return *json ? RP_OK : make_pair(context, pair, lost, json, &verdict, &warnings, err);
}

static void write_junit(FILE *out, const void *root)
{
    rp_report_junit(out, root);
}

static void add_summary(const struct rp_results *results, cJSON *summary)
{
    cJSON_AddNumberToObject(summary, "pairs", (double)results->n_pairs);
    cJSON_AddNumberToObject(summary, "not_selected", (double)results->n_other);
    cJSON_AddNumberToObject(summary, "compared", (double)results->n_compared);
    cJSON_AddNumberToObject(summary, "replayed_only", (double)results->n_replayed);
    cJSON_AddNumberToObject(summary, "passed", (double)results->n_passed);
    cJSON_AddNumberToObject(summary, "explained", (double)results->n_explained);
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

static enum rp_status write_reports(const struct rp_context *context, const cJSON *root,
                                    struct rp_error *err)
{
    char path[RP_PATH_SIZE];
    struct rp_error first = {.code = RP_OK}, one;
    enum rp_status status = rp_make_dirs(context->reports_dir, &one);
    keep_first(status, &one, &first);
    status = rp_path_join(path, sizeof path, context->reports_dir, "results.json", &one);
    if (!status)
        status = write_json(path, root, &one);
    keep_first(status, &one, &first);
    status = rp_path_join(path, sizeof path, context->reports_dir, "junit.xml", &one);
    if (!status)
        status = write_stream(path, write_junit, root, &one);
    keep_first(status, &one, &first);
    if (first.code && err)
        *err = first;
    return first.code;
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
    cJSON *summary = cJSON_AddObjectToObject(results->root, "summary");
    cJSON *pairs = cJSON_AddArrayToObject(results->root, "pairs");
    cJSON *entries = cJSON_AddArrayToObject(results->root, "entries"), *entry;
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
            tally(results, json);
            cJSON_AddItemToArray(pairs, json);
        }
    }
    results->n_other = selection.n - results->n_pairs;
    rp_selection_free(&selection);
    add_summary(results, summary);
    keep_first(rp_session_check_matrix(context, &one), &one, &first);
    keep_first(write_reports(context, results->root, &one), &one, &first);
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

/* ---- the summary ---- */

static const char *string_at(const cJSON *object, const char *key)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    return text ? text : "";
}

const char *rp_results_reason(const cJSON *pair)
{
    const char *verdict = string_at(pair, "verdict");
    const cJSON *comparison = cJSON_GetObjectItemCaseSensitive(pair, "comparison"), *slot;
    const cJSON *tests[] = {cJSON_GetObjectItemCaseSensitive(pair, "engine_test"),
                            cJSON_GetObjectItemCaseSensitive(comparison, "tokens")};
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
        if (strcmp(string_at(tests[i], "verdict"), verdict) == 0)
            return string_at(tests[i], "message");
    cJSON_ArrayForEach(slot, cJSON_GetObjectItemCaseSensitive(comparison, "slots"))
    {
        if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(slot, "required")) &&
            strcmp(string_at(slot, "verdict"), verdict) == 0)
            return string_at(slot, "message");
    }
    cJSON_ArrayForEach(slot, cJSON_GetObjectItemCaseSensitive(pair, "replay"))
    {
        if (strcmp(string_at(slot, "verdict"), verdict) == 0)
            return string_at(slot, "message");
    }
    return "";
}

static void write_problem(FILE *out, const cJSON *pair)
{
    const char *verdict = string_at(pair, "verdict");
    const cJSON *divergence = cJSON_GetObjectItemCaseSensitive(
        cJSON_GetObjectItemCaseSensitive(pair, "comparison"), "divergence");
    fprintf(out, "  %-8s %s: ", verdict, string_at(pair, "pair"));
    if (cJSON_IsObject(divergence)) {
        const cJSON *position = cJSON_GetObjectItemCaseSensitive(divergence, "position");
        const char *inner_slot = string_at(divergence, "inner_slot");
        fprintf(out, "first divergence %s at position %.0f%s%s", string_at(divergence, "slot"),
                cJSON_GetNumberValue(position), inner_slot[0] ? ", slot " : "", inner_slot);
        if (strcmp(verdict, "ERROR") == 0)
            fprintf(out, "; %s", rp_results_reason(pair));
    } else {
        fputs(rp_results_reason(pair), out);
    }
    fputc('\n', out);
    if (string_at(pair, "diff")[0])
        fprintf(out, "           %s\n", string_at(pair, "diff"));
}

/* Pairs of one entry that are skipped for the same reason share a line; returns the last of them. */
static const cJSON *write_skipped(FILE *out, const cJSON *pair)
{
    const char *reason = rp_results_reason(pair), *entry = string_at(pair, "entry");
    const cJSON *last = pair;
    size_t n = 1;
    while (last->next && strcmp(string_at(last->next, "verdict"), "SKIP") == 0 &&
           strcmp(string_at(last->next, "entry"), entry) == 0 &&
           strcmp(rp_results_reason(last->next), reason) == 0) {
        last = last->next;
        n++;
    }
    if (n == 1)
        fprintf(out, "  %-8s %s: %s\n", "SKIP", string_at(pair, "pair"), reason);
    else
        fprintf(out, "  %-8s %s (%zu pairs): %s\n", "SKIP", entry, n, reason);
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
            strcmp(string_at(slot, "slot"), "logits") != 0 && cJSON_IsNumber(l2_rel) &&
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
        if (string_at(slot, "unchecked")[0])
            return string_at(slot, "unchecked");
    }
    return "";
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

/* Pairs of one entry that quantization explains share a line; returns the last of them. */
static const cJSON *write_explained(FILE *out, const cJSON *pair)
{
    const char *entry = string_at(pair, "entry");
    const cJSON *last = pair;
    double l2_rel = largest_l2_rel(pair);
    const char *unchecked = unchecked_of(pair);
    size_t n = 1;
    for (const cJSON *next = pair->next; next && strcmp(string_at(next, "entry"), entry) == 0;
         next = next->next) {
        const char *verdict = string_at(next, "verdict");
        if (strcmp(verdict, "MARGINAL") == 0) {
            n++;
            l2_rel = larger(l2_rel, largest_l2_rel(next));
            unchecked = unchecked[0] ? unchecked : unchecked_of(next);
        } else if (strcmp(verdict, "PASS") != 0) {
            break;
        }
        last = next;
    }
    fprintf(out,
            "  %-8s %s (%zu pair%s): L2_rel up to %.3g is quantization and carried rounding%s%s\n",
            "MARGINAL", entry, n, n == 1 ? "" : "s", l2_rel,
            unchecked[0] ? ", as far as was checked; not checked: " : "", unchecked);
    return last;
}

static void write_weights(FILE *out, const cJSON *entries)
{
    const cJSON *entry;
    cJSON_ArrayForEach(entry, entries)
    {
        const cJSON *weights = cJSON_GetObjectItemCaseSensitive(entry, "weights");
        const char *verdict = string_at(weights, "verdict");
        if (strcmp(verdict, "FAIL") == 0 || strcmp(verdict, "ERROR") == 0)
            fprintf(out, "  %-8s %s/weights: %s\n", verdict, string_at(entry, "entry"),
                    string_at(weights, "message"));
    }
}

static void write_warning(void *out, const struct rp_warning_group *group)
{
    fprintf(out, "  %-8s %s: %s: %s\n", "WARNING", group->name, group->kind, group->message);
}

void rp_results_summary(FILE *out, const struct rp_context *context,
                        const struct rp_results *results)
{
    const cJSON *pairs = cJSON_GetObjectItemCaseSensitive(results->root, "pairs");
    for (const cJSON *pair = pairs ? pairs->child : NULL; pair; pair = pair->next) {
        const char *verdict = string_at(pair, "verdict");
        if (strcmp(verdict, "SKIP") == 0)
            pair = write_skipped(out, pair);
        else if (strcmp(verdict, "MARGINAL") == 0)
            pair = write_explained(out, pair);
        else if (strcmp(verdict, "PASS") != 0)
            write_problem(out, pair);
    }
    char explained[64] = "", weights[256];
    write_weights(out, cJSON_GetObjectItemCaseSensitive(results->root, "entries"));
    (void)rp_report_warnings(results->root, write_warning, out);
    if (results->n_explained)
        snprintf(explained, sizeof explained, " (%zu of them explained)", results->n_explained);
    fprintf(out, "compared %zu of %zu pairs: %zu passed%s, %zu failed, %zu errors, %zu skipped",
            results->n_compared, results->n_pairs, results->n_passed, explained, results->n_failed,
            results->n_errors, results->n_skipped);
    if (results->n_warnings)
        fprintf(out, ", %zu warnings", results->n_warnings);
    if (results->n_other)
        fprintf(out, " (%zu others of the matrix were not selected)", results->n_other);
    if (results->n_replayed)
        fprintf(out, "\n%zu of them by replay alone: there is no fixture, and nothing needs one",
                results->n_replayed);
    if (results->n_pairs && !results->has_ended)
        fprintf(out,
                "\nctest has not come to %ssession/end: what it had not begun is not counted here",
                context->prefix);
    if (rp_report_weights_line(&results->weights, weights, sizeof weights)[0])
        fprintf(out, "\n%s", weights);
    fprintf(out, "\nreports: %s/{results.json,junit.xml%s}\n", context->reports_dir,
            results->n_failed || results->n_errors || results->n_warnings ? ",*.diff" : "");
}
