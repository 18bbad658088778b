/* See judge.h. */
#include "run/judge.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "run/fixture.h"

static void decide(struct rp_judgement *judgement, enum rp_verdict verdict, const char *fmt, ...)
    RP_PRINTF(3, 4);

static void decide(struct rp_judgement *judgement, enum rp_verdict verdict, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(judgement->message, sizeof judgement->message, fmt, args);
    va_end(args);
    judgement->verdict = verdict;
}

static void decide_error(struct rp_judgement *judgement, const struct rp_error *err)
{
    char text[sizeof judgement->message];
    decide(judgement, RP_ERROR, "%s", rp_error_text(err, text, sizeof text));
}

/* What is missing is a SKIP, unless the caller has said that it has to be there. */
static enum rp_verdict missing(const struct rp_context *context)
{
    return context->require ? RP_ERROR : RP_SKIP;
}

/* The outcome of `run`; PASS when the engine ran. */
static void judge_record(struct rp_judge *judge)
{
    struct rp_judgement *p = &judge->prerequisites;
    struct rp_error err;
    if (rp_run_record_read(judge->paths.record, &judge->record, &err)) {
        if (err.code == RP_ERR_MISSING)
            decide(p, RP_ERROR, "the engine has not been run to the end: run %s%s/run first",
                   judge->context->prefix, judge->pair->name);
        else
            decide_error(p, &err);
        return;
    }
    switch (judge->record.outcome) {
    case RP_RUN_SKIPPED:
        decide(p, judge->pair->entry->disabled ? RP_SKIP : missing(judge->context), "%s",
               judge->record.reason);
        break;
    case RP_RUN_ERROR: decide(p, RP_ERROR, "%s", judge->record.reason); break;
    case RP_RUN_RAN:
    case RP_RUN_REUSED: decide(p, RP_PASS, "%s", ""); break;
    }
}

static enum rp_status open_sets(struct rp_judge *judge, struct rp_error *err)
{
    const struct rp_entry *entry = judge->pair->entry;
    struct rp_comparison *c = &judge->comparison;
    enum rp_status status =
        rp_fixture_open(judge->context, judge->pair, &c->reference, judge->fixture_path, err);
    if (status)
        return status;
    const int64_t single =
        entry->engine->single_position && entry->n_positions ? entry->positions[0] : 0;
    status = rp_tensor_set_open(judge->paths.dump, entry->engine->layout, single, &c->engine, err);
    if (status == RP_ERR_MISSING) /* the folder is ours, so what is missing is the engine's work */
        status = err->code = RP_ERR_FORMAT;
    if (status)
        return status;
    const int declared = rp_tensor_set_n_layers(c->engine);
    const int seen = rp_tensor_set_n_layers_seen(c->engine);
    if ((declared >= 0 && declared != entry->n_layers) || seen > entry->n_layers)
        return rp_fail(err, RP_ERR_MISMATCH, judge->paths.dump, -1,
                       "the dump has %d layers, the matrix says n_layers %d",
                       declared >= 0 ? declared : seen, entry->n_layers);
    return RP_OK;
}

void rp_judge_open(const struct rp_context *context, const struct rp_pair *pair,
                   struct rp_judge *judge)
{
    memset(judge, 0, sizeof *judge);
    judge->context = context;
    judge->pair = pair;
    struct rp_error err;
    if (rp_pair_paths(context, pair, &judge->paths, &err)) {
        decide_error(&judge->prerequisites, &err);
        return;
    }
    judge_record(judge);
    if (judge->prerequisites.verdict != RP_PASS)
        return;
    const struct rp_entry *entry = pair->entry;
    struct rp_comparison *c = &judge->comparison;
    c->limits = entry->limits;
    c->n_layers = entry->n_layers;
    c->positions = entry->positions;
    c->n_positions = entry->n_positions;
    if (open_sets(judge, &err)) {
        if (err.code == RP_ERR_MISSING)
            decide(&judge->prerequisites, missing(context), "%s", err.message);
        else
            decide_error(&judge->prerequisites, &err);
    }
}

void rp_judge_close(struct rp_judge *judge)
{
    rp_tensor_set_close(judge->comparison.reference);
    rp_tensor_set_close(judge->comparison.engine);
    memset(judge, 0, sizeof *judge);
}

static int engine_ended_well(const struct rp_judge *judge)
{
    const struct rp_process_result *p = &judge->record.process;
    return p->exit_code == 0 && !p->signal && !p->timed_out;
}

void rp_judge_engine(const struct rp_judge *judge, struct rp_judgement *judgement)
{
    const struct rp_run_record *record = &judge->record;
    char text[256];
    const int ran = record->outcome == RP_RUN_RAN || record->outcome == RP_RUN_REUSED;
    if (!ran || (judge->prerequisites.verdict != RP_PASS && engine_ended_well(judge))) {
        *judgement = judge->prerequisites;
        return;
    }
    const char *prompt_id = judge->pair->entry->engine->name;
    rp_process_text(&record->process, record->timeout_s, text, sizeof text);
    if (!engine_ended_well(judge)) {
        decide(judgement, RP_ERROR,
               "engine %s %s after %.2f s; what it dumped until then is "
               "compared all the same",
               prompt_id, text, record->process.wall_s);
        return;
    }
    if (!rp_tensor_set_complete(judge->comparison.engine)) {
        decide(judgement, RP_ERROR,
               "engine %s %s but left its dump incomplete: rp_dump_close was not reached",
               prompt_id, text);
        return;
    }
    decide(judgement, RP_PASS, "engine %s %s after %.2f s%s", prompt_id, text,
           record->process.wall_s,
           record->outcome == RP_RUN_REUSED ? " in an earlier run, whose dump is reused" : "");
}

void rp_judge_tokens(const struct rp_judge *judge, struct rp_tokens_result *result)
{
    if (judge->prerequisites.verdict == RP_PASS) {
        rp_compare_tokens(&judge->comparison, result);
        return;
    }
    memset(result, 0, sizeof *result);
    result->first_difference = -1;
    result->verdict = judge->prerequisites.verdict;
    snprintf(result->message, sizeof result->message, "%.*s", (int)sizeof result->message - 1,
             judge->prerequisites.message);
}

/* A slot that is missing or cut short because the engine broke says so. */
static void blame_engine(const struct rp_judge *judge, struct rp_slot_result *result)
{
    if (result->verdict != RP_ERROR || engine_ended_well(judge))
        return;
    char text[128];
    const size_t used = strlen(result->message);
    snprintf(result->message + used, sizeof result->message - used, " (the engine %s)",
             rp_process_text(&judge->record.process, judge->record.timeout_s, text, sizeof text));
}

void rp_judge_slot(const struct rp_judge *judge, const char *slot, struct rp_slot_result *result)
{
    if (judge->prerequisites.verdict == RP_PASS) {
        struct rp_tokens_result tokens;
        rp_compare_tokens(&judge->comparison, &tokens);
        rp_compare_slot_after_tokens(&judge->comparison, &tokens, slot, result);
        blame_engine(judge, result);
        return;
    }
    memset(result, 0, sizeof *result);
    snprintf(result->slot, sizeof result->slot, "%s", slot);
    result->required = rp_slot_is_required(slot);
    result->worst.position = result->first.position = -1;
    result->verdict = judge->prerequisites.verdict;
    snprintf(result->message, sizeof result->message, "%.*s", (int)sizeof result->message - 1,
             judge->prerequisites.message);
}

/* ERROR over FAIL over SKIP over PASS. */
static enum rp_verdict worse(enum rp_verdict a, enum rp_verdict b)
{
    static const int rank[] = {
        [RP_PASS] = 0, [RP_MARGINAL] = 1, [RP_SKIP] = 2, [RP_FAIL] = 3, [RP_ERROR] = 4};
    return rank[a] >= rank[b] ? a : b;
}

/* The prerequisites' verdict on every required slot. */
static enum rp_status judge_nothing(const struct rp_judge *judge, struct rp_verdicts *verdicts,
                                    struct rp_error *err)
{
    struct rp_pair_result *pair = &verdicts->pair;
    const int n_layers = judge->pair->entry->n_layers;
    char name[RP_SLOT_NAME_SIZE];
    pair->slots = calloc((size_t)n_layers + 3, sizeof *pair->slots);
    if (!pair->slots)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory for the list of slots");
    rp_judge_slot(judge, rp_slot_name(RP_PART_EMB, -1, name), &pair->slots[pair->n_slots++]);
    for (int l = 0; l < n_layers; l++)
        rp_judge_slot(judge, rp_slot_name(RP_PART_OUTPUT, l, name), &pair->slots[pair->n_slots++]);
    rp_judge_slot(judge, rp_slot_name(RP_PART_POST_NORM, -1, name), &pair->slots[pair->n_slots++]);
    rp_judge_slot(judge, rp_slot_name(RP_PART_LOGITS, -1, name), &pair->slots[pair->n_slots++]);
    rp_judge_tokens(judge, &pair->tokens);
    pair->verdict = judge->prerequisites.verdict;
    verdicts->verdict = worse(verdicts->engine.verdict, pair->verdict);
    return RP_OK;
}

enum rp_status rp_judge_pair(const struct rp_judge *judge, struct rp_verdicts *verdicts,
                             struct rp_error *err)
{
    memset(verdicts, 0, sizeof *verdicts);
    verdicts->divergence.layer = -1;
    verdicts->divergence.position = -1;
    rp_judge_engine(judge, &verdicts->engine);
    if (judge->prerequisites.verdict != RP_PASS)
        return judge_nothing(judge, verdicts, err);
    const enum rp_status status = rp_compare_pair(&judge->comparison, &verdicts->pair, err);
    if (status)
        return status;
    for (size_t i = 0; i < verdicts->pair.n_slots; i++)
        blame_engine(judge, &verdicts->pair.slots[i]);
    rp_diagnose_pair(&judge->comparison, &verdicts->pair, &verdicts->divergence);
    verdicts->verdict = worse(verdicts->engine.verdict, verdicts->pair.verdict);
    return RP_OK;
}

void rp_verdicts_free(struct rp_verdicts *verdicts)
{
    rp_pair_result_free(&verdicts->pair);
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
    for (size_t i = start; i < length && used + 8 < size; i++) {
        const unsigned char byte = (unsigned char)log[i];
        if (at_line_start)
            used += (size_t)snprintf(buf + used, size - used, "  | ");
        at_line_start = byte == '\n';
        buf[used++] = byte == '\n' || byte >= 32 ? (char)byte : '?';
    }
    if (used > 0 && buf[used - 1] != '\n')
        buf[used++] = '\n';
    buf[used] = '\0';
    free(log);
    return buf;
}
