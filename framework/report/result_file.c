/* See result_file.h. */
#include "report/result_file.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "report/by_position.h"
#include "report/json.h"
#include "report/known.h"
#include "report/replay.h"
#include "report/test_name.h"
#include "report/text.h"
#include "run/reference.h"
#include "run/vocabulary.h"

static void utc_now(char *out, size_t size)
{
    const time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(out, size, "%Y-%m-%dT%H:%M:%S", &utc);
}

static bool has_diff(const struct rp_verdicts *verdicts)
{
    return verdicts->verdict == RP_FAIL || verdicts->verdict == RP_ERROR ||
           verdicts->verdict == RP_XFAIL || verdicts->warnings.n > 0;
}

struct diff {
    const struct rp_judge *judge;
    const struct rp_verdicts *verdicts;
    const char *reproduce;
    const char *origin;
};

/* Which engine made the reference; "" where HF did. Returns buf. */
static const char *origin_of(const struct rp_judge *judge, char *buf, size_t size)
{
    return rp_reference_text(judge->context, judge->pair, judge->comparison.reference, buf, size);
}

/* lines, which are cut to pieces, of the engine. */
static void write_log(const struct rp_terminal *out, const char *path, char *lines)
{
    char *rest = lines;
    fputc('\n', out->out);
    rp_print_line(out, "end of %s:", path);
    for (const char *line; (line = strsep(&rest, "\n")) != NULL && (line[0] || rest);)
        rp_print_line(out, "%s", line);
}

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
                                       .origin = diff->origin,
                                       .dump = judge->paths.dump,
                                       .command = judge->record.command,
                                       .engine = judge->pair->against ? NULL : engine,
                                       .reproduce = diff->reproduce,
                                       .replay = diff->verdicts->replay,
                                       .n_replay = diff->verdicts->n_replay,
                                       .known = diff->verdicts->known,
                                       .n_known = diff->verdicts->n_known,
                                       .warnings = &diff->verdicts->warnings,
                                       .shows_all = true};
    const struct rp_terminal file = rp_terminal_plain(out);
    rp_report_text(&file, &subject, &diff->verdicts->pair, &diff->verdicts->divergence);
    if (diff->verdicts->engine.verdict == RP_ERROR &&
        rp_judge_log_tail(judge, 20, tail, sizeof tail)[0])
        write_log(&file, judge->paths.log, tail);
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

/* For the HTML report, of what did not just pass. */
static void add_positions(cJSON *comparison, const struct rp_judge *judge,
                          const struct rp_verdicts *verdicts)
{
    struct rp_gguf_vocabulary vocabulary;
    char path[RP_PATH_SIZE];
    if (!has_diff(verdicts) && verdicts->verdict != RP_MARGINAL)
        return;
    const bool has_vocabulary =
        judge->pair->entry->engine_gguf &&
        !rp_entry_gguf(judge->context->matrix, judge->pair->entry, judge->context->models_dir, path,
                       sizeof path, NULL) &&
        !rp_gguf_vocabulary_open(path, &vocabulary, NULL);
    rp_report_by_position(comparison, &judge->comparison, &verdicts->pair, &verdicts->divergence,
                          has_vocabulary ? &vocabulary.vocabulary : NULL);
    if (has_vocabulary)
        rp_gguf_vocabulary_close(&vocabulary);
}

static cJSON *pair_json(const struct rp_judge *judge, const struct rp_verdicts *verdicts,
                        const char *reproduce)
{
    const struct rp_pair *pair = judge->pair;
    const struct rp_entry *entry = pair->entry;
    char timestamp[32], origin[1024];
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
    if (entry->reference.engine && !pair->against)
        cJSON_AddStringToObject(root, "reference", origin_of(judge, origin, sizeof origin));
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
    cJSON *comparison = cJSON_AddObjectToObject(root, "comparison");
    rp_report_json(comparison, &verdicts->pair, &verdicts->divergence);
    add_positions(comparison, judge, verdicts);
    if (verdicts->n_replay > 0)
        rp_report_replay_json(cJSON_AddArrayToObject(root, "replay"), verdicts->replay,
                              verdicts->n_replay);
    rp_report_known_json(root, verdicts->known, verdicts->n_known);
    rp_report_json_warnings(root, &verdicts->warnings);
    cJSON_AddNumberToObject(root, "compare_s", add_seconds(root, verdicts));
    return root;
}

cJSON *rp_results_unjudged(const struct rp_context *context, const struct rp_pair *pair,
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
    char origin[1024];
    const struct diff diff = {judge, verdicts, reproduce, origin_of(judge, origin, sizeof origin)};
    const enum rp_status status = rp_make_dirs(judge->context->reports_dir, err);
    return status ? status : rp_file_write_stream(path, write_diff, &diff, err);
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

enum rp_status rp_results_make_pair(const struct rp_context *context, const struct rp_pair *pair,
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
        *json = rp_results_unjudged(context, pair, &damage);
        if (err)
            *err = damage;
    } else {
        struct rp_error second;
        *verdict = verdicts.verdict;
        *warnings = verdicts.warnings;
        rp_test_command(context, pair->name, NULL, reproduce, sizeof reproduce);
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

cJSON *rp_results_read_pair(const struct rp_context *context, const struct rp_pair *pair,
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
