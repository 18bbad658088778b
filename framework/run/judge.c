/* See judge.h. */
#include "run/judge_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/utf8.h"
#include "run/completeness.h"
#include "run/explained_gate.h"
#include "run/fixture.h"
#include "run/session_inputs.h"

void rp_judge_decide(struct rp_judgement *judgement, enum rp_verdict verdict, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(judgement->message, sizeof judgement->message, fmt, args);
    va_end(args);
    judgement->verdict = verdict;
}

void rp_judge_decide_error(struct rp_judgement *judgement, const struct rp_error *err)
{
    char text[sizeof judgement->message];
    rp_judge_decide(judgement, RP_ERROR, "%s", rp_error_text(err, text, sizeof text));
}

enum rp_verdict rp_judge_missing(const struct rp_context *context)
{
    return context->require ? RP_ERROR : RP_SKIP;
}

void rp_judge_record(const struct rp_context *context, const struct rp_pair *run,
                     const struct rp_pair_paths *paths, struct rp_run_record *record,
                     struct rp_judgement *judgement)
{
    struct rp_error err;
    if (rp_run_record_read(context, run, paths->record, record, &err)) {
        if (err.code == RP_ERR_MISSING)
            rp_judge_decide(judgement, RP_ERROR,
                            "the engine has not been run to the end: run %s%s/run first",
                            context->prefix, run->name);
        else
            rp_judge_decide_error(judgement, &err);
        return;
    }
    switch (record->outcome) {
    case RP_RUN_SKIPPED:
        rp_judge_decide(judgement, run->entry->disabled ? RP_SKIP : rp_judge_missing(context), "%s",
                        record->reason);
        break;
    case RP_RUN_ERROR: rp_judge_decide(judgement, RP_ERROR, "%s", record->reason); break;
    case RP_RUN_STARTED:
        rp_judge_decide(judgement, RP_ERROR,
                        "the engine's run was interrupted, or is under way: run %s%s/run again",
                        context->prefix, run->name);
        break;
    case RP_RUN_RAN:
    case RP_RUN_REUSED: rp_judge_decide(judgement, RP_PASS, "%s", ""); break;
    }
}

enum rp_status rp_judge_open_dump(const struct rp_pair *run, const char *dump,
                                  struct rp_tensor_set **set, struct rp_error *err)
{
    const struct rp_entry *entry = run->entry;
    const int64_t single =
        entry->engine->single_position && entry->n_positions ? entry->positions[0] : 0;
    struct stat info;
    if (lstat(dump, &info) == 0 && !S_ISDIR(info.st_mode))
        return rp_fail(err, RP_ERR_FORMAT, dump, -1,
                       "expected the folder that the engine was given, found a link or a file");
    enum rp_status status = rp_tensor_set_open(dump, entry->engine->layout, single, set, err);
    if (status == RP_ERR_MISSING) /* the folder is ours, so what is missing is the engine's work */
        status = err->code = RP_ERR_FORMAT;
    if (status)
        return status;
    const int declared = rp_tensor_set_n_layers(*set);
    const int seen = rp_tensor_set_n_layers_seen(*set);
    if ((declared < 0 || declared == entry->n_layers) && seen <= entry->n_layers)
        return RP_OK;
    rp_tensor_set_close(*set);
    *set = NULL;
    if (seen > entry->n_layers)
        return rp_fail(err, RP_ERR_MISMATCH, dump, -1,
                       "the dump has %d layers, h%d is its last, the matrix says n_layers %d", seen,
                       seen - 1, entry->n_layers);
    return rp_fail(err, RP_ERR_MISMATCH, dump, -1,
                   "the dump has %d layers, the matrix says n_layers %d", declared,
                   entry->n_layers);
}

/* The fixture, then the dump. A fixture that is missing does not keep the dump from being looked at:
 * an engine that takes the prompt's text runs without one. */
static enum rp_status open_sets(struct rp_judge *judge, struct rp_error *err)
{
    struct rp_comparison *c = &judge->comparison;
    struct rp_error dump_error;
    const enum rp_status status =
        rp_fixture_open(judge->context, judge->pair, &c->reference, judge->fixture_path, err);
    if (status && status != RP_ERR_MISSING)
        return status;
    if (!rp_judge_open_dump(judge->pair, judge->paths.dump, &c->engine, &dump_error))
        return status;
    *err = dump_error;
    return err->code;
}

/* Both sets, and whether they are those of the run. */
static enum rp_status open_all(struct rp_judge *judge, struct rp_error *err)
{
    struct rp_error changed;
    enum rp_status status = open_sets(judge, err);
    if (judge->comparison.engine &&
        rp_judge_check_run(&judge->record, judge->paths.dump, &changed)) {
        *err = changed;
        status = err->code;
    }
    return status;
}

/* Record, fixture and dump. */
static void open_pair(struct rp_judge *judge)
{
    const struct rp_context *context = judge->context;
    const struct rp_pair *pair = judge->pair;
    const struct rp_entry *entry = pair->entry;
    struct rp_error err;
    struct rp_comparison *c = &judge->comparison;
    c->limits = pair->against ? entry->modes_limits : entry->limits;
    c->n_layers = entry->n_layers;
    c->positions = entry->positions;
    c->n_positions = entry->n_positions;
    c->reference_is_dump = pair->against != NULL;
    if (rp_session_check_matrix(context, &err)) {
        rp_judge_decide_error(&judge->prerequisites, &err);
        return;
    }
    if (pair->against) {
        rp_judge_open_modes(judge);
        return;
    }
    /* before the record: what was removed would be a skip */
    if (rp_session_check_files(context, pair, &err)) {
        rp_judge_decide_error(&judge->prerequisites, &err);
        return;
    }
    rp_judge_record(context, pair, &judge->paths, &judge->record, &judge->prerequisites);
    if (judge->prerequisites.verdict != RP_PASS)
        return;
    enum rp_status status = open_all(judge, &err);
    if (!status)
        status = rp_judge_check_fixture(&judge->record, judge->fixture_path, &err);
    if (status) {
        if (err.code == RP_ERR_MISSING && !judge->record.fixture_state[0])
            rp_judge_decide(&judge->prerequisites,
                            rp_pair_needs_fixture(pair) ? rp_judge_missing(context) : RP_SKIP, "%s",
                            err.message);
        else
            rp_judge_decide_error(&judge->prerequisites, &err);
    }
}

void rp_judge_open(const struct rp_context *context, const struct rp_pair *pair,
                   struct rp_judge *judge)
{
    struct rp_sha256 state;
    struct rp_error err;
    memset(judge, 0, sizeof *judge);
    judge->context = context;
    judge->pair = pair;
    if (rp_pair_paths(context, pair, &judge->paths, &err)) {
        rp_judge_decide_error(&judge->prerequisites, &err);
        return;
    }
    rp_judge_state_begin(judge, &state);
    open_pair(judge);
    rp_judge_state_end(judge, &state);
    if (pair->against || judge->prerequisites.verdict != RP_PASS ||
        pair->entry->gate != RP_GATE_EXPLAINED)
        return;
    if (rp_explained_gate_open(judge, &judge->gate, &err)) {
        rp_judge_decide_error(&judge->prerequisites, &err);
        return;
    }
    judge->comparison.gate = rp_explained_gate_decide;
    judge->comparison.gate_context = judge->gate;
}

void rp_judge_close(struct rp_judge *judge)
{
    rp_explained_gate_close(judge->gate);
    rp_tensor_set_close(judge->comparison.reference);
    rp_tensor_set_close(judge->comparison.engine);
    memset(judge, 0, sizeof *judge);
}

void rp_judge_lose(struct rp_judge *judge, const char *reason)
{
    const struct rp_context *context = judge->context;
    const struct rp_pair *pair = judge->pair;
    const struct rp_pair_paths paths = judge->paths;
    rp_judge_close(judge);
    judge->context = context;
    judge->pair = pair;
    judge->paths = paths;
    judge->comparison.limits = pair->against ? pair->entry->modes_limits : pair->entry->limits;
    snprintf(judge->record.session, sizeof judge->record.session, "%s", context->session);
    rp_judge_decide(&judge->prerequisites, RP_ERROR, "%s", reason);
}

bool rp_judge_ended_well(const struct rp_run_record *record)
{
    const struct rp_process_result *p = &record->process;
    return p->exit_code == 0 && !p->signal && !p->timed_out;
}

/* An engine that did not exit with 0. text: how it ended. */
static void judge_bad_end(const struct rp_judge *judge, const char *text,
                          struct rp_judgement *judgement)
{
    const struct rp_entry *entry = judge->pair->entry;
    const struct rp_tensor_set *dump = judge->comparison.engine;
    const double wall_s = judge->record.process.wall_s;
    char why[512] = "it could not be read";
    const int complete =
        dump && rp_dump_is_complete(dump, entry, judge->comparison.reference, why, sizeof why);
    if (!rp_ended_as_accepted(entry, &judge->record.process))
        rp_judge_decide(judgement, RP_ERROR,
                        "engine %s %s after %.2f s; what it dumped until then is compared all the "
                        "same%s",
                        entry->engine->name, text, wall_s,
                        complete
                            ? " (the dump is complete: \"accept_exit\" of the entry can accept "
                              "this end)"
                            : "");
    else if (!complete)
        rp_judge_decide(judgement, RP_ERROR,
                        "engine %s %s after %.2f s, which the entry accepts after a complete dump, "
                        "but its dump is incomplete: %s",
                        entry->engine->name, text, wall_s, why);
    else
        rp_judge_decide(judgement, RP_PASS,
                        "engine %s %s after %.2f s, which the entry accepts: %s",
                        entry->engine->name, text, wall_s, entry->accept_exit.reason);
}

void rp_judge_engine(const struct rp_judge *judge, struct rp_judgement *judgement)
{
    const struct rp_run_record *record = &judge->record;
    char text[256];
    const int ran = record->outcome == RP_RUN_RAN || record->outcome == RP_RUN_REUSED;
    if (!ran || (!judge->comparison.engine && rp_judge_ended_well(record))) {
        *judgement = judge->prerequisites;
        return;
    }
    const char *engine = judge->pair->entry->engine->name;
    rp_process_text(&record->process, record->timeout_s, text, sizeof text);
    if (!rp_judge_ended_well(record)) {
        judge_bad_end(judge, text, judgement);
        return;
    }
    if (!rp_tensor_set_complete(judge->comparison.engine)) {
        rp_judge_decide(judgement, RP_ERROR,
                        "engine %s %s but left its dump incomplete: rp_dump_close was not reached",
                        engine, text);
        return;
    }
    rp_judge_decide(
        judgement, RP_PASS, "engine %s %s after %.2f s%s", engine, text, record->process.wall_s,
        record->outcome == RP_RUN_REUSED ? " in an earlier run, whose dump is reused" : "");
}

const char *rp_judge_log_tail(const struct rp_judge *judge, size_t n, char *buf, size_t size)
{
    buf[0] = '\0';
    char *log = NULL;
    size_t length, used = 0;
    if (rp_file_read(judge->paths.log, RP_LOG_HEAD + RP_LOG_TAIL + 128, &log, &length, NULL))
        return buf;
    size_t start = length;
    while (start > 0 && (log[start - 1] == '\n' || log[start - 1] == '\0'))
        start--;
    length = start;
    for (size_t lines = 0; start > 0 && (log[start - 1] != '\n' || ++lines < n); start--)
        ;
    /* Line by line, as printable text: the log is a stranger's. */
    int at_line_start = 1;
    for (size_t i = start; i < length && used + 12 < size; i++) {
        const unsigned char byte = (unsigned char)log[i];
        if (at_line_start)
            used += (size_t)snprintf(buf + used, size - used, "  | ");
        at_line_start = byte == '\n';
        /* a sequence at a time, as far as it is UTF-8 that a terminal does not act on */
        const size_t n_bytes = rp_utf8_sequence(log + i, length - i);
        const int is_text = byte == '\n' || (byte >= 32 && byte != 0x7f && n_bytes > 0 &&
                                             !(byte == 0xC2 && (unsigned char)log[i + 1] < 0xA0));
        if (!is_text || n_bytes < 2) {
            buf[used++] = is_text ? (char)byte : '?';
        } else {
            memcpy(buf + used, log + i, n_bytes);
            used += n_bytes;
            i += n_bytes - 1;
        }
    }
    if (used > 0 && buf[used - 1] != '\n')
        buf[used++] = '\n';
    buf[used] = '\0';
    free(log);
    return buf;
}
