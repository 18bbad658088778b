/* See case.h. cmocka's own exit status is a count of failures, wraps at 256, and is 0 when every
 * test was skipped: so the worst verdict is kept here, and decides. */
#include "refparity/case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mapped_fault.h"
#include "compare/warnings.h"
#include "operations/matmul.h"
#include "report/known.h"
#include "report/replay.h"
#include "report/result_file.h"
#include "report/test_name.h"
#include "report/text.h"
#include "run/explained_gate.h"
#include "run/judge_replay.h"
#include "run/known.h"
#include "run/run.h"
#include "run/stored.h"

/* cmocka leaves a test by longjmp and takes no argument for its group: what the tests of a process
 * share has to be reachable from the one pointer that each of them gets. */
struct case_run {
    const struct rp_case *id;
    struct rp_context context;
    struct rp_pair pair;
    struct rp_judge *judge;         /* opened by the first test that compares */
    struct rp_judge_replay *replay; /* by the first that replays */
    char error[2300];               /* why context or pair could not be had; "" when they could */
    const char *test;               /* the one under way */
    double start;                   /* of it */
    size_t n_verdicts[RP_ERROR + 1];
    size_t n_done; /* `run` and `report`, which judge nothing */
};

/* Prints with every line but the first indented. All that is printed here may quote a stranger: a prompt,
 * a file's name, what an engine wrote; and a line that begins with "refparity: SKIP: " is a skip to
 * ctest. */
static void print_lines(const char *text)
{
    for (const char *c = text; *c; c++) {
        putchar(*c);
        if (*c == '\n' && c[1] && c[1] != ' ')
            fputs("  ", stdout);
    }
}

static void say(const char *fmt, ...) RP_PRINTF(1, 2);
static void say(const char *fmt, ...)
{
    char text[12288];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    print_lines(text);
}

/* What a report's function writes, printed by print_text; out is NULL where memory is short. */
struct text {
    FILE *out;
    char *bytes;
    size_t n;
};

static void open_text(struct text *text)
{
    *text = (struct text){.bytes = NULL};
    text->out = open_memstream(&text->bytes, &text->n);
}

static void print_text(struct text *text)
{
    if (text->out && !fclose(text->out))
        print_lines(text->bytes);
    free(text->bytes);
}

/* The one line that ctest takes for a skip. */
static _Noreturn void leave_skipped(struct case_run *run, const char *message)
{
    run->n_verdicts[RP_SKIP]++;
    say("refparity: SKIP: %s: %s\n", run->test, message);
    fflush(stdout);
    skip();
    abort(); /* skip() does not return */
}

/* Every failure begins with a place to jump to: the entry in the matrix. */
static void print_place(const struct case_run *run, const char *message)
{
    if (run->error[0])
        say("%s: error: %s: %s\n", run->id->config, run->test, message);
    else
        say("%s:%d: error: %s: %s\n", rp_matrix_path(run->context.matrix), run->pair.entry->line,
            run->test, message);
}

static _Noreturn void leave_failed(struct case_run *run, enum rp_verdict verdict)
{
    run->n_verdicts[verdict]++;
    char reproduce[2 * RP_PATH_SIZE + 256];
    if (!run->error[0])
        say("  reproduce: %s\n",
            rp_test_command(&run->context, run->pair.name, run->test, reproduce, sizeof reproduce));
    fflush(stdout);
    if (run->error[0])
        _fail(run->id->config, 1);
    else
        _fail(rp_matrix_path(run->context.matrix), run->pair.entry->line);
    abort(); /* _fail() does not return */
}

/* Beside a verdict that stays what it is. */
static void print_warnings(const struct case_run *run, const struct rp_warnings *warnings)
{
    for (size_t i = 0; i < warnings->n; i++)
        say("%s:%d: warning: %s: %s\n", rp_matrix_path(run->context.matrix), run->pair.entry->line,
            warnings->list[i].slot, warnings->list[i].message);
}

/* What is known and no longer diverges, each with its place in the matrix; false: nothing. */
static bool print_mended(const cJSON *pair)
{
    const cJSON *item = NULL;
    bool any = false;
    while ((item = rp_report_next_mended(pair, item)) != NULL) {
        say("%s\n", cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "message")));
        any = true;
    }
    return any;
}

static void leave(struct case_run *run, enum rp_verdict verdict, const char *message)
{
    switch (verdict) {
    case RP_PASS:
    case RP_MARGINAL:
    case RP_XFAIL:
        run->n_verdicts[verdict]++;
        say("%s: %s: %s\n", run->test, rp_verdict_name(verdict), message);
        return;
    case RP_SKIP: leave_skipped(run, message);
    case RP_FAIL:
    case RP_ERROR: print_place(run, message); leave_failed(run, verdict);
    }
}

static struct case_run *enter(void **state, const char *test)
{
    struct case_run *run = *state;
    run->test = test;
    run->start = rp_clock_seconds();
    if (run->error[0]) {
        print_place(run, run->error);
        leave_failed(run, RP_ERROR);
    }
    return run;
}

/* On the test under way. What it found is stored with it for `report`; where it cannot be stored, the
 * report computes it again. */
static double spent(const struct case_run *run)
{
    return rp_clock_seconds() - run->start;
}

static struct rp_judge *judge_of(struct case_run *run)
{
    if (!run->judge) {
        run->judge = malloc(sizeof *run->judge);
        if (!run->judge)
            leave(run, RP_ERROR, "not enough memory");
        struct rp_error err;
        char text[2300];
        if (run->pair.against && rp_judge_select_modes(&run->context, &run->pair, &err))
            leave(run, RP_ERROR, rp_error_text(&err, text, sizeof text));
        rp_judge_open(&run->context, &run->pair, run->judge);
    }
    return run->judge;
}

static void forget_judge(struct case_run *run)
{
    rp_judge_replay_close(run->replay);
    run->replay = NULL;
    if (run->judge)
        rp_judge_close(run->judge);
    free(run->judge);
    run->judge = NULL;
}

void rp_case_run(void **state)
{
    struct case_run *run = *state;
    if (run->error[0]) { /* for the other tests to report: a failed setup would keep them from it */
        say("run: nothing was run: %s\n", run->error);
        run->n_done++;
        return;
    }
    enter(state, "run");
    struct rp_run_record record;
    struct rp_error err;
    char text[2300], tail[4096];
    forget_judge(run);
    if (rp_run_pair(&run->context, &run->pair, &record, &err))
        leave(run, RP_ERROR, rp_error_text(&err, text, sizeof text));
    rp_process_text(&record.process, record.timeout_s, text, sizeof text);
    if (record.command[0])
        say("run: %s\n", record.command);
    switch (record.outcome) {
    case RP_RUN_SKIPPED: leave(run, RP_SKIP, record.reason); break;
    case RP_RUN_STARTED: /* never in a record that rp_run_pair returns */
    case RP_RUN_ERROR:   /* recorded: every other test of the pair says so */
        say("run: recorded: %s\n", record.reason);
        break;
    case RP_RUN_REUSED:
        printf("run: kept the dump of an earlier run with the same inputs\n");
        break;
    case RP_RUN_RAN:
        printf("run: engine %s %s after %.2f s, %llu bytes printed\n",
               run->pair.entry->engine->name, text, record.process.wall_s,
               record.process.output_bytes);
        if (record.process.exit_code != 0)
            fputs(rp_judge_log_tail(judge_of(run), 20, tail, sizeof tail), stdout);
        break;
    }
    run->n_done++;
}

void rp_case_engine(void **state)
{
    struct case_run *run = enter(state, "engine");
    struct rp_judgement judgement;
    char tail[4096];
    const struct rp_judge *judge = judge_of(run);
    rp_judge_engine(judge, &judgement);
    (void)rp_store_engine(judge, &judgement, spent(run), NULL);
    if (judgement.verdict == RP_ERROR) {
        print_place(run, judgement.message);
        if (run->judge->record.command[0])
            say("  command: %s\n", run->judge->record.command);
        if (rp_judge_log_tail(run->judge, 20, tail, sizeof tail)[0])
            say("  end of %s:\n%s", run->judge->paths.log, tail);
        leave_failed(run, RP_ERROR);
    }
    leave(run, judgement.verdict, judgement.message);
}

void rp_case_tokens(void **state)
{
    struct case_run *run = enter(state, "tokens");
    struct rp_tokens_result result;
    const struct rp_judge *judge = judge_of(run);
    rp_judge_tokens(judge, &result);
    (void)rp_store_tokens(judge, &result, spent(run), NULL);
    leave(run, result.verdict, result.message);
}

void rp_case_slot(void **state, const char *slot)
{
    struct case_run *run = enter(state, slot);
    char name[RP_SLOT_NAME_SIZE];
    struct rp_error err;
    char text[2300];
    struct rp_slot_test test;
    struct rp_divergence divergence;
    run->test = rp_slot_test_name(slot, run->id->n_layers, name);
    struct rp_judge *judge = judge_of(run);
    if (rp_judge_slot(judge, slot, &test, &err))
        leave(run, RP_ERROR, rp_error_text(&err, text, sizeof text));
    struct rp_slot_result result = test.result;
    rp_diagnose_slot(&judge->comparison, &result, &divergence);
    rp_explained_gate_name_divergence(judge->gate, &divergence);
    test.seconds = spent(run);
    (void)rp_store_slot(judge, slot, &test, NULL);
    rp_slot_test_free(&test);
    if (rp_known_slot(judge, &result, &err))
        leave(run, RP_ERROR, rp_error_text(&err, text, sizeof text));
    if (result.verdict == RP_FAIL) {
        print_place(run, result.message);
        struct text details;
        open_text(&details);
        if (details.out)
            rp_report_failure(details.out, &result, &divergence);
        print_text(&details);
        say("  table: %s (the pair's report test writes it)\n", judge->paths.diff);
        leave_failed(run, RP_FAIL);
    }
    if (result.n_missing && result.verdict == RP_PASS)
        printf("%s: %zu positions are not in the dump and were not compared\n", run->test,
               result.n_missing);
    struct rp_warnings warnings;
    rp_warn_slot(&result, &warnings);
    print_warnings(run, &warnings);
    leave(run, result.verdict, result.message);
}

void rp_case_replay(void **state, const char *slot)
{
    struct case_run *run = enter(state, slot);
    char name[RP_SLOT_NAME_SIZE], test[RP_SLOT_NAME_SIZE + 8], message[1600], text[2300];
    struct rp_error err;
    struct rp_replay_result result;
    snprintf(test, sizeof test, "replay/%s", rp_slot_test_name(slot, run->id->n_layers, name));
    run->test = test;
    const struct rp_judge *judge = judge_of(run);
    if (rp_stored_replay(judge, slot, &result, NULL)) { /* a slot's test may have asked for it */
        if (!run->replay && rp_judge_replay_open(judge, &run->replay, &err))
            leave(run, RP_ERROR, rp_error_text(&err, text, sizeof text));
        rp_judge_replay_slot(run->replay, slot, &result);
        result.seconds = spent(run);
        (void)rp_store_replay(judge, &result, NULL);
    }
    rp_known_replay(&run->pair, &result);
    const enum rp_verdict verdict = result.judgement.verdict;
    snprintf(message, sizeof message, "%s", result.judgement.message);
    if (verdict == RP_FAIL) {
        print_place(run, message);
        struct text details;
        open_text(&details);
        if (details.out)
            rp_report_replay_failure(details.out, &result);
        print_text(&details);
    }
    rp_replay_result_free(&result);
    if (verdict == RP_FAIL)
        leave_failed(run, RP_FAIL);
    leave(run, verdict, message);
}

void rp_case_report(void **state)
{
    struct case_run *run = enter(state, "report");
    struct rp_error err;
    enum rp_verdict verdict = RP_ERROR;
    struct rp_warnings warnings;
    char text[2300];
    cJSON *json = NULL;
    if ((run->pair.against && rp_judge_select_modes(&run->context, &run->pair, &err)) ||
        rp_results_make_pair(&run->context, &run->pair, NULL, &json, &verdict, &warnings, &err)) {
        cJSON_Delete(json);
        leave(run, RP_ERROR, rp_error_text(&err, text, sizeof text));
    }
    print_warnings(run, &warnings);
    printf("report: the pair's verdict is %s\n", rp_verdict_name(verdict));
    const bool is_mended = print_mended(json);
    cJSON_Delete(json);
    if (is_mended)
        leave_failed(run, RP_FAIL);
    run->n_done++;
}

static void open_run(struct case_run *run)
{
    const struct rp_case *id = run->id;
    struct rp_error err;
    enum rp_status status = rp_context_open(id->config, &run->context, &err);
    if (!status)
        status = rp_matrix_find_pair(run->context.matrix, id->entry, id->mode, id->prompt,
                                     &run->pair, &err);
    if (!status && run->pair.entry->n_layers != id->n_layers)
        status = rp_fail(&err, RP_ERR_MISMATCH, rp_matrix_path(run->context.matrix), -1,
                         "n_layers of %s is %d now, the tests were made for %d: configure again",
                         id->entry, run->pair.entry->n_layers, id->n_layers);
    if (status)
        rp_error_text(&err, run->error, sizeof run->error);
}

static void close_run(struct case_run *run)
{
    forget_judge(run);
    rp_context_close(&run->context);
    free(run);
}

static int is_wanted(int argc, char **argv, const char *name)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return 1;
    return argc < 2;
}

static int is_test(const struct CMUnitTest *tests, size_t n_tests, const char *name)
{
    for (size_t i = 0; i < n_tests; i++)
        if (strcmp(tests[i].name, name) == 0)
            return 1;
    return 0;
}

static int print_help(const char *program, const struct rp_case *pair,
                      const struct CMUnitTest *tests, size_t n_tests)
{
    printf(
        "usage: %s [TEST ...]\n\nThe tests of %s%s%s/%s, all of them by default, in this order:\n ",
        program, pair->entry, pair->mode[0] ? "/" : "", pair->mode, pair->prompt);
    for (size_t i = 0; i < n_tests; i++)
        printf(" %s", tests[i].name);
    printf(
        "\n\nexit codes: 0 pass, 1 divergence, 2 environment, configuration or harness error, 77 "
        "skip\n");
    return RP_EXIT_PASS;
}

/* A failure that cmocka counted and no test here reported is a crash of the harness. */
static int exit_code(const struct case_run *run, int n_failed)
{
    const size_t *n = run->n_verdicts;
    if (n[RP_ERROR] > 0 || n_failed < 0 || (size_t)n_failed != n[RP_ERROR] + n[RP_FAIL])
        return RP_EXIT_ERROR;
    if (n[RP_FAIL] > 0)
        return RP_EXIT_FAIL;
    return n[RP_PASS] + n[RP_MARGINAL] + n[RP_XFAIL] > 0 ? RP_EXIT_PASS
           : n[RP_SKIP] > 0                              ? RP_EXIT_SKIP
           : run->n_done > 0                             ? RP_EXIT_PASS
                                                         : RP_EXIT_ERROR;
}

int rp_case_main(int argc, char **argv, const struct rp_case *pair, const struct CMUnitTest *tests,
                 size_t n_tests)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return print_help(argv[0], pair, tests, n_tests);
        if (!is_test(tests, n_tests, argv[i])) {
            fprintf(stderr, "%s: error: no test \"%s\"; see --help\n", argv[0], argv[i]);
            return RP_EXIT_ERROR;
        }
    }
    rp_report_mapped_faults();
    rp_matmul_one_thread();        /* ctest runs as many cases at once as it was told to */
    unsetenv("CMOCKA_TEST_ABORT"); /* would turn exit codes into a signal */
    struct CMUnitTest *selected = calloc(n_tests, sizeof *selected);
    struct case_run *run = calloc(1, sizeof *run);
    if (!selected || !run) {
        fprintf(stderr, "%s: error: not enough memory\n", argv[0]);
        free(selected);
        free(run);
        return RP_EXIT_ERROR;
    }
    run->id = pair;
    open_run(run);
    size_t n_selected = 0;
    for (size_t i = 0; i < n_tests; i++) {
        if (!is_wanted(argc, argv, tests[i].name))
            continue;
        selected[n_selected] = tests[i];
        selected[n_selected++].initial_state = run;
    }
    const int n_failed = _cmocka_run_group_tests(pair->entry, selected, n_selected, NULL, NULL);
    const int code = exit_code(run, n_failed);
    close_run(run);
    free(selected);
    return code;
}
