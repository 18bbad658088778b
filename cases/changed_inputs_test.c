/* What verdicts rest on, changed while ctest runs: by an engine that raises its own threshold, edits a
 * fixture of all or replaces its model file, and by one that forges results. It is an error by name, and
 * nothing passes by it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "cases/scratch_pair_test_util.h"
#include "report/results.h"
#include "report/result_file.h"
#include "run/run.h"
#include "run/selection.h"
#include "run/stored.h"
#include "run/weights_result.h"

#define MODEL RP_SOURCE_DIR "/fixtures/tiny/qwen3/qwen3-bf16.gguf"

/* Runs script, whose $0 is the dump, then the engine with one layer far off. */
#define BEFORE_WRONG_ENGINE(script)                                                             \
    "[\"sh\", \"-c\", \"" script " && exec \\\"$@\\\"\", \"{dump}\", "                          \
    "\"{target:refparity-embedded-bugs}\", \"--model\", \"{gguf}\", \"--tokens\", "             \
    "\"{tokens_file}\", \"--dump\", \"{dump}\", \"--bug\", \"attention-factor\", \"--layer\", " \
    "\"1\"]"
#define BEFORE_RIGHT_ENGINE(script)                                            \
    "[\"sh\", \"-c\", \"" script " && exec \\\"$@\\\"\", \"{dump}\", "         \
    "\"{target:refparity-embedded}\", \"--model\", \"{gguf}\", \"--tokens\", " \
    "\"{tokens_file}\", \"--dump\", \"{dump}\"]"
#define FOLDER "$0/../../../../.." /* of dump.run-…, p0, tiny, pairs, work */

static void run_pair(const struct rp_scratch_pair *scratch)
{
    struct rp_run_record record;
    assert_int_equal(rp_run_pair(&scratch->context, &scratch->pair, &record, NULL), RP_OK);
    assert_int_equal(record.outcome, RP_RUN_RAN);
}

/* The verdict of h1's test, in a process of its own; message is what it prints. */
static enum rp_verdict judge_h1(struct rp_scratch_pair *scratch, char message[2300])
{
    struct rp_slot_test test;
    struct rp_error err;
    if (rp_scratch_pair_reopen(scratch, &err)) {
        rp_error_text(&err, message, 2300);
        return RP_ERROR;
    }
    struct rp_judge *judge = malloc(sizeof *judge);
    assert_non_null(judge);
    rp_judge_open(&scratch->context, &scratch->pair, judge);
    assert_int_equal(rp_judge_slot(judge, "h1", &test, NULL), RP_OK);
    const enum rp_verdict verdict = test.result.verdict;
    snprintf(message, 2300, "%s", test.result.message);
    (void)rp_store_slot(judge, "h1", &test, NULL);
    rp_slot_test_free(&test);
    rp_judge_close(judge);
    free(judge);
    return verdict;
}

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("expected \"%s\" in \"%s\"", part, text);
}

static void assert_error(struct rp_scratch_pair *scratch, const char *what)
{
    char message[2300];
    assert_int_equal(judge_h1(scratch, message), RP_ERROR);
    assert_contains(message, what);
}

/* The whole report, as session/end makes it; text is freed by the caller. */
static int collect(const struct rp_scratch_pair *scratch, enum rp_status *status, char **junit)
{
    char path[512];
    size_t length;
    struct rp_results results;
    assert_int_equal(rp_selection_end(&scratch->context, NULL), RP_OK);
    *status = rp_results_collect(&scratch->context, &results, NULL);
    const int code = rp_results_exit_code(&results, false);
    rp_results_free(&results);
    snprintf(path, sizeof path, "%s/reports/junit.xml", scratch->folder);
    assert_int_equal(rp_file_read(path, 1 << 24, junit, &length, NULL), RP_OK);
    return code;
}

static void assert_report_is_error(struct rp_scratch_pair *scratch, const char *why)
{
    char *junit;
    enum rp_status status;
    assert_int_equal(rp_scratch_pair_reopen(scratch, NULL), RP_OK);
    assert_int_equal(collect(scratch, &status, &junit), RP_EXIT_ERROR);
    assert_contains(junit, "tiny/p0");
    assert_contains(junit, why);
    free(junit);
}

static void an_engine_that_raises_its_own_threshold_is_an_error(void **state)
{
    (void)state;
    static const char limit[] = ", \"threshold_l2_rel\": 0.05, \"_note\": \"x\"";
    const struct {
        const char *argv;
        enum rp_verdict verdict;
    } engines[] = {
        {BEFORE_WRONG_ENGINE("true"), RP_FAIL},
        {BEFORE_WRONG_ENGINE("sed -i s/0.05,/0.99,/ " FOLDER "/matrix.json"), RP_ERROR},
        {BEFORE_WRONG_ENGINE("sed -i s/p0/p0/ " FOLDER "/matrix.json"), RP_FAIL}, /* the same */
        {BEFORE_RIGHT_ENGINE("touch " FOLDER "/matrix.json"), RP_PASS},
    };
    for (size_t i = 0; i < sizeof engines / sizeof engines[0]; i++) {
        struct rp_scratch_pair scratch;
        char message[2300], *junit;
        enum rp_status status;
        rp_scratch_pair_begin(
            &scratch, &(struct rp_scratch_spec){.argv = engines[i].argv, .entry_extra = limit});
        run_pair(&scratch);
        assert_int_equal(judge_h1(&scratch, message), engines[i].verdict);
        const int code = collect(&scratch, &status, &junit);
        assert_int_equal(code, engines[i].verdict == RP_PASS   ? RP_EXIT_PASS
                               : engines[i].verdict == RP_FAIL ? RP_EXIT_FAIL
                                                               : RP_EXIT_ERROR);
        assert_int_equal(status, engines[i].verdict == RP_ERROR ? RP_ERR_MISMATCH : RP_OK);
        if (engines[i].verdict == RP_ERROR) {
            assert_contains(message, "matrix.json: the matrix is not what it was when this ctest "
                                     "run began");
            assert_contains(junit, "the matrix is not what it was");
        }
        free(junit);
        rp_scratch_pair_close(&scratch);
    }
}

static void a_configuration_that_an_engine_changes_is_an_error(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    rp_scratch_pair_begin(&scratch, &(struct rp_scratch_spec){.argv = BEFORE_WRONG_ENGINE(
                                                                  "sed -i s/ci.record/here/ " FOLDER
                                                                  "/config.json")});
    run_pair(&scratch);
    assert_error(&scratch, "the configuration of the build tree is not what it was");
    rp_scratch_pair_close(&scratch);
}

/* The engine of another pair edits it, before this one runs: the run itself sees nothing of it. */
static void a_shared_fixture_that_another_engine_edits_is_an_error(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    char store[256], stores[300], path[RP_PATH_SIZE], fixture[RP_PATH_SIZE], folder[RP_PATH_SIZE];
    char message[2300];
    static const char root[] = RP_SOURCE_DIR "/fixtures/store/";
    rp_test_make_folder(store);
    snprintf(stores, sizeof stores, "\"%s\"", store);
    rp_scratch_pair_open(&scratch, &(struct rp_scratch_spec){0});
    struct rp_judge *judge = malloc(sizeof *judge);
    assert_non_null(judge);
    run_pair(&scratch);
    rp_judge_open(&scratch.context, &scratch.pair, judge);
    snprintf(path, sizeof path, "%s", judge->fixture_path);
    rp_judge_close(judge);
    free(judge);
    rp_scratch_pair_close(&scratch);
    assert_int_equal(rp_path_join(fixture, sizeof fixture, store, path + sizeof root - 1, NULL),
                     RP_OK);
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(fixture, '/') - fixture), fixture);
    assert_int_equal(rp_make_dirs(folder, NULL), RP_OK);
    rp_test_copy_file(path, fixture);
    /* it is not; before the run; after the report; and it is removed, which were a skip */
    for (int changes = 0; changes < 4; changes++) {
        rp_scratch_pair_begin(&scratch, &(struct rp_scratch_spec){.stores = stores});
        if (changes == 1)
            rp_test_copy_file(path, fixture);
        if (changes == 3)
            assert_int_equal(rp_remove_tree(fixture, NULL), RP_OK);
        struct rp_run_record record;
        assert_int_equal(rp_run_pair(&scratch.context, &scratch.pair, &record, NULL), RP_OK);
        if (changes == 3) {
            assert_int_equal(record.outcome, RP_RUN_SKIPPED);
            assert_error(&scratch, "the fixture is not what it was when this ctest run began");
        } else if (changes == 1) {
            assert_error(&scratch, fixture);
            assert_error(&scratch, "the fixture is not what it was when this ctest run began");
            assert_report_is_error(&scratch, "the fixture is not what it was");
        } else {
            enum rp_verdict verdict;
            struct rp_warnings warnings;
            assert_int_equal(judge_h1(&scratch, message), RP_PASS);
            cJSON *json;
            assert_int_equal(rp_results_make_pair(&scratch.context, &scratch.pair, NULL, &json,
                                                  &verdict, &warnings, NULL),
                             RP_OK);
            cJSON_Delete(json);
            assert_int_equal(verdict, RP_PASS);
        }
        if (changes == 2) {
            rp_test_copy_file(path, fixture);
            assert_report_is_error(&scratch, "the fixture is not what it was");
        }
        rp_scratch_pair_close(&scratch);
    }
    assert_int_equal(rp_remove_tree(store, NULL), RP_OK);
}

static void a_model_file_that_its_engine_replaces_is_an_error(void **state)
{
    (void)state;
    for (int under_ctest = 0; under_ctest < 2; under_ctest++) {
        struct rp_scratch_pair scratch;
        char folder[256], gguf[512];
        rp_test_make_folder(folder);
        snprintf(gguf, sizeof gguf, "%s/model.gguf", folder);
        rp_test_copy_file(MODEL, gguf);
        const struct rp_scratch_spec spec = {
            .argv = BEFORE_RIGHT_ENGINE("cp $3 $3.new && mv $3.new $3"),
            .gguf = gguf,
            .entry_extra = ", \"replay\": true"};
        if (under_ctest)
            rp_scratch_pair_begin(&scratch, &spec);
        else
            rp_scratch_pair_open(&scratch, &spec);
        run_pair(&scratch);
        assert_error(&scratch, gguf);
        assert_error(&scratch, under_ctest
                                   ? "the model file is not what it was when this ctest run began"
                                   : "the model file has changed since the engine was started");
        rp_scratch_pair_close(&scratch);
        assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
    }
}

/* Replaces in the pair's file from by to, of one length; its seal is what it was. */
static void edit(const struct rp_scratch_pair *scratch, const char *name, const char *from,
                 const char *to)
{
    char path[512], *text;
    size_t length;
    snprintf(path, sizeof path, "%s/work/%s", scratch->folder, name);
    assert_int_equal(rp_file_read(path, 1 << 24, &text, &length, NULL), RP_OK);
    char *at = strstr(text, from);
    assert_non_null(at);
    for (size_t i = 0; to[i]; i++)
        at[i] = to[i];
    assert_int_equal(rp_file_write_atomic(path, text, length, NULL), RP_OK);
    free(text);
}

static void remove_file(const struct rp_scratch_pair *scratch, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/work/%s", scratch->folder, name);
    assert_int_equal(rp_remove_tree(path, NULL), RP_OK);
}

/* Begins, runs a wrong engine and judges it: h1 fails. */
static void begin_wrong(struct rp_scratch_pair *scratch)
{
    char message[2300];
    rp_scratch_pair_begin(scratch, &(struct rp_scratch_spec){.argv = BEFORE_WRONG_ENGINE("true")});
    run_pair(scratch);
    assert_int_equal(judge_h1(scratch, message), RP_FAIL);
}

static void a_forged_result_is_an_error(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    enum rp_verdict verdict;
    struct rp_warnings warnings;
    begin_wrong(&scratch);
    cJSON *json;
    assert_int_equal(rp_results_make_pair(&scratch.context, &scratch.pair, NULL, &json, &verdict,
                                          &warnings, NULL),
                     RP_OK);
    cJSON_Delete(json);
    assert_int_equal(verdict, RP_FAIL);
    edit(&scratch, "pairs/tiny/p0/result.json", "\"FAIL\"", "\"PASS\"");
    assert_report_is_error(&scratch, "its result.json was not written by its test report");
    rp_scratch_pair_close(&scratch);
}

static void a_forged_verdict_is_an_error(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    begin_wrong(&scratch);
    edit(&scratch, "pairs/tiny/p0/verdicts/h1.json", "\"n_failing\":", "\"n_FAILING\":");
    assert_report_is_error(&scratch, "this verdict was not written by the test h1");
    rp_scratch_pair_close(&scratch);
}

static void a_forged_run_is_an_error(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    begin_wrong(&scratch);
    edit(&scratch, "pairs/tiny/p0/run.json", "\"ran\"", "\"RAN\"");
    assert_error(&scratch, "run.json: refparity did not write this file");
    assert_report_is_error(&scratch, "refparity did not write this file");
    rp_scratch_pair_close(&scratch);
}

static void a_forged_result_of_weights_is_an_error(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_weights_result result = {.verdict = RP_FAIL, .message = "forged", .seconds = 0.5};
    begin_wrong(&scratch);
    assert_int_equal(rp_weights_result_write(&scratch.context, scratch.pair.entry, &result, NULL),
                     RP_OK);
    assert_int_equal(rp_weights_result_read(&scratch.context, scratch.pair.entry, &result, NULL),
                     RP_OK);
    assert_int_equal(result.verdict, RP_FAIL);
    edit(&scratch, "weights-tests/tiny.json", "forged", "FORGED");
    assert_int_equal(rp_weights_result_read(&scratch.context, scratch.pair.entry, &result, NULL),
                     RP_ERR_MISMATCH);
    assert_report_is_error(&scratch, "tiny.json: refparity did not write this file");
    rp_scratch_pair_close(&scratch);
}

static ino_t inode_of_kept_weights(const struct rp_scratch_pair *scratch)
{
    char path[512], message[RP_WEIGHTS_MESSAGE_SIZE];
    struct stat info;
    assert_int_equal(
        rp_judge_weights_once(&scratch->context, scratch->pair.entry, message, sizeof message),
        RP_PASS);
    snprintf(path, sizeof path, "%s/work/weights/tiny.json", scratch->folder);
    assert_int_equal(stat(path, &info), 0);
    return info.st_ino;
}

/* What an earlier refparity found right, a later one may find wrong. */
static void weights_are_compared_again_after_refparity_has_changed(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    char tool[512];
    rp_scratch_pair_begin(&scratch, &(struct rp_scratch_spec){0});
    snprintf(tool, sizeof tool, "%s/refparity", scratch.folder);
    assert_int_equal(rp_file_write_atomic(tool, "1", 1, NULL), RP_OK);
    scratch.context.tool = tool;
    const ino_t first = inode_of_kept_weights(&scratch);
    assert_true(inode_of_kept_weights(&scratch) == first);
    assert_int_equal(rp_file_write_atomic(tool, "22", 2, NULL), RP_OK);
    const ino_t second = inode_of_kept_weights(&scratch);
    assert_true(second != first);
    assert_true(inode_of_kept_weights(&scratch) == second);
    rp_scratch_pair_close(&scratch);
}

static void a_forged_session_is_an_error(void **state)
{
    (void)state;
    static const struct {
        const char *file, *from, *to, *message;
    } forged[] = {
        {"session", "\"matrix_sha256\":\"", "\"matrix_sha256\":.",
         "session: this is not what session/begin wrote"},
        {"inputs", " ", ".", "inputs: this is not what session/begin wrote"},
        {"key", "", "x", "session: this is not what session/begin wrote"},
        {"session", NULL, NULL, "session: this is not what session/begin wrote"},
        {"key", NULL, NULL, "session: this is not what session/begin wrote"},
    };
    for (size_t i = 0; i < sizeof forged / sizeof forged[0]; i++) {
        struct rp_scratch_pair scratch;
        begin_wrong(&scratch);
        if (forged[i].from)
            edit(&scratch, forged[i].file, forged[i].from, forged[i].to);
        else
            remove_file(&scratch, forged[i].file);
        assert_error(&scratch, forged[i].message);
        rp_context_close(&scratch.context);
        assert_int_equal(rp_remove_tree(scratch.folder, NULL), RP_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_engine_that_raises_its_own_threshold_is_an_error),
        cmocka_unit_test(a_configuration_that_an_engine_changes_is_an_error),
        cmocka_unit_test(a_shared_fixture_that_another_engine_edits_is_an_error),
        cmocka_unit_test(a_model_file_that_its_engine_replaces_is_an_error),
        cmocka_unit_test(a_forged_result_is_an_error),
        cmocka_unit_test(a_forged_verdict_is_an_error),
        cmocka_unit_test(a_forged_run_is_an_error),
        cmocka_unit_test(a_forged_result_of_weights_is_an_error),
        cmocka_unit_test(weights_are_compared_again_after_refparity_has_changed),
        cmocka_unit_test(a_forged_session_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
