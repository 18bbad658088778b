/* Results that cannot be written, and files beside them that are not ours: nothing that was selected is
 * lost, and nothing that is the user's. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "cases/scratch_pair_test_util.h"
#include "report/old_reports.h"
#include "report/results.h"
#include "report/result_file.h"
#include "run/run.h"
#include "run/selection.h"

#define EMBEDDED                                                                                  \
    "\"{target:refparity-embedded}\", \"--model\", \"{gguf}\", \"--tokens\", \"{tokens_file}\", " \
    "\"--dump\", \"{dump}\""

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("expected \"%s\" in \"%s\"", part, text);
}

/* In a process of its own, where files may have max_bytes; 0: no limit. */
static void run_pair(const struct rp_scratch_pair *scratch, rlim_t max_bytes)
{
    int status;
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct rp_run_record record;
        const struct rlimit limit = {.rlim_cur = max_bytes, .rlim_max = max_bytes};
        signal(SIGXFSZ, SIG_IGN);
        if (max_bytes)
            setrlimit(RLIMIT_FSIZE, &limit);
        _exit(rp_run_pair(&scratch->context, &scratch->pair, &record, NULL) ? 1 : 0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WIFEXITED(status) && WEXITSTATUS(status), max_bytes ? 1 : 0);
}

static char *read_report(const struct rp_scratch_pair *scratch, const char *name)
{
    char path[512], *text = NULL;
    size_t length;
    snprintf(path, sizeof path, "%s/reports/%s", scratch->folder, name);
    assert_int_equal(rp_file_read(path, 1 << 24, &text, &length, NULL), RP_OK);
    return text;
}

/* The pair is an ERROR by its name, in all that is written. */
static void assert_lost(const struct rp_scratch_pair *scratch, const char *why)
{
    struct rp_results results;
    assert_int_equal(rp_selection_end(&scratch->context, NULL), RP_OK);
    assert_int_equal(rp_results_collect(&scratch->context, &results, NULL), RP_OK);
    assert_int_equal(results.n_pairs, 1);
    assert_int_equal(results.n_errors, 1);
    assert_int_equal(rp_results_exit_code(&results, false), RP_EXIT_ERROR);
    char *junit = read_report(scratch, "junit.xml"), *json = read_report(scratch, "results.json");
    assert_contains(junit, "<testcase classname=\"tiny/p0\" name=\"h01\"");
    assert_contains(junit, why);
    assert_contains(json, "\"tiny/p0\"");
    free(junit);
    free(json);
    rp_results_free(&results);
}

static void a_pair_whose_run_cannot_be_stored_is_an_error_by_name(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    rp_scratch_pair_begin(&scratch, &(struct rp_scratch_spec){0});
    run_pair(&scratch, 400);
    assert_lost(&scratch, "it was selected, but what its run did could not be stored");
    rp_scratch_pair_close(&scratch);
}

static void a_pair_whose_folder_its_engine_deletes_is_an_error_by_name(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    rp_scratch_pair_begin(
        &scratch,
        &(struct rp_scratch_spec){
            .argv = "[\"sh\", \"-c\", \"rm -rf \\\"$PWD\\\"\", \"{tokens_file}\", \"{dump}\"]"});
    run_pair(&scratch, 0);
    assert_lost(&scratch, "/dump");
    rp_scratch_pair_close(&scratch);
}

/* The result of an earlier run, which is still there, does not count for this one. */
static void an_old_result_does_not_stand_in_for_a_lost_one(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_verdicts v;
    enum rp_verdict verdict;
    struct rp_warnings warnings;
    rp_scratch_pair_begin(&scratch, &(struct rp_scratch_spec){0});
    rp_scratch_pair_judge(&scratch, &v);
    rp_verdicts_free(&v);
    cJSON *json;
    assert_int_equal(rp_results_make_pair(&scratch.context, &scratch.pair, NULL, &json, &verdict,
                                          &warnings, NULL),
                     RP_OK);
    cJSON_Delete(json);
    assert_int_equal(verdict, RP_PASS);
    char config[512], reports[RP_PATH_SIZE];
    snprintf(config, sizeof config, "%s/config.json", scratch.folder);
    assert_int_equal(rp_context_begin_session(config, reports, NULL), RP_OK);
    assert_int_equal(rp_scratch_pair_reopen(&scratch, NULL), RP_OK);
    struct rp_results results;
    assert_int_equal(rp_results_collect(&scratch.context, &results, NULL), RP_OK);
    assert_int_equal(results.n_pairs, 0); /* not selected */
    rp_results_free(&results);
    assert_int_equal(rp_selection_add(&scratch.context, &scratch.pair, NULL), RP_OK);
    assert_lost(&scratch, "what is stored is of an earlier run");
    rp_scratch_pair_close(&scratch);
}

static void a_ctest_that_was_killed_is_no_pass(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_results results;
    rp_scratch_pair_begin(&scratch, &(struct rp_scratch_spec){0});
    run_pair(&scratch, 0);
    assert_int_equal(rp_results_collect(&scratch.context, &results, NULL), RP_OK);
    assert_int_equal(results.n_passed, 1);
    assert_false(results.has_ended);
    assert_int_equal(rp_results_exit_code(&results, false), RP_EXIT_ERROR);
    rp_results_free(&results);
    assert_int_equal(rp_selection_end(&scratch.context, NULL), RP_OK);
    assert_int_equal(rp_results_collect(&scratch.context, &results, NULL), RP_OK);
    assert_int_equal(rp_results_exit_code(&results, false), RP_EXIT_PASS);
    rp_results_free(&results);
    rp_scratch_pair_close(&scratch);
}

/* Nothing needs a fixture: replay is what judges. */
static void a_pair_that_is_replayed_alone_counts_as_compared(void **state)
{
    (void)state;
    static const struct {
        const char *bug;
        int code;
    } engines[] = {{"", RP_EXIT_PASS},
                   {", \"--bug\", \"ffn-half\", \"--layer\", \"2\"", RP_EXIT_FAIL}};
    for (size_t i = 0; i < sizeof engines / sizeof engines[0]; i++) {
        struct rp_scratch_pair scratch;
        struct rp_results results;
        char argv[512];
        snprintf(argv, sizeof argv,
                 "[\"{target:refparity-embedded-bugs}\", \"--model\", \"{gguf}\", \"--ids\", "
                 "\"457,220,398,291,74\", \"--dump\", \"{dump}\"%s]",
                 engines[i].bug);
        rp_scratch_pair_begin(&scratch,
                              &(struct rp_scratch_spec){
                                  .argv = argv, .entry_extra = ", \"replay\": true", .stores = ""});
        run_pair(&scratch, 0);
        assert_int_equal(rp_selection_end(&scratch.context, NULL), RP_OK);
        assert_int_equal(rp_results_collect(&scratch.context, &results, NULL), RP_OK);
        assert_int_equal(results.n_compared, 1);
        assert_int_equal(results.n_replayed, 1);
        assert_int_equal(results.n_skipped, 0);
        assert_int_equal(rp_results_exit_code(&results, false), engines[i].code);
        rp_results_free(&results);
        rp_scratch_pair_close(&scratch);
    }
}

static void one_file_that_cannot_be_written_does_not_stop_the_others(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_results results;
    struct rp_error err;
    char path[512];
    rp_scratch_pair_begin(&scratch, &(struct rp_scratch_spec){.argv = "[\"true\", \"{dump}\"]"});
    run_pair(&scratch, 0);
    static const char *const taken[] = {"reports/tiny__p0.diff", "reports/results.json",
                                        "work/pairs/tiny/p0/result.json"};
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", scratch.folder, taken[i]);
        assert_int_equal(rp_make_dirs(path, NULL), RP_OK); /* nothing can be renamed to it */
    }
    assert_int_equal(rp_results_collect(&scratch.context, &results, &err), RP_ERR_IO);
    assert_contains(err.where, "tiny__p0.diff"); /* the first */
    assert_int_equal(results.n_errors, 1);
    char *junit = read_report(&scratch, "junit.xml");
    assert_contains(junit, "<testcase classname=\"tiny/p0\" name=\"h01\"");
    free(junit);
    rp_results_free(&results);
    rp_scratch_pair_close(&scratch);
}

static void only_reports_that_refparity_wrote_are_removed(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_results results;
    char reports[512], path[1024];
    rp_scratch_pair_begin(&scratch, &(struct rp_scratch_spec){.argv = "[\"true\", \"{dump}\"]"});
    run_pair(&scratch, 0);
    assert_int_equal(rp_results_collect(&scratch.context, &results, NULL), RP_OK);
    rp_results_free(&results);
    snprintf(reports, sizeof reports, "%s/reports", scratch.folder);
    rp_test_write_file(reports, "mine.diff", "--- a\n+++ b\n", 12);
    rp_test_write_file(reports, "tiny__notes.diff", "pair of shoes\n", 14);
    char *diff = read_report(&scratch, "tiny__p0.diff");
    rp_test_write_file(reports, "kept.diff", diff, strlen(diff)); /* a copy that the user made */
    free(diff);
    rp_remove_old_reports(reports);
    static const struct {
        const char *name;
        int stays;
    } files[] = {{"mine.diff", 1},     {"tiny__notes.diff", 1}, {"kept.diff", 1},
                 {"tiny__p0.diff", 0}, {"results.json", 0},     {"junit.xml", 0}};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", reports, files[i].name);
        assert_int_equal(rp_path_exists(path), files[i].stays);
    }
    rp_test_write_file(reports, "results.json", "{\"tests\": 3}", 12);
    rp_test_write_file(reports, "junit.xml", "<?xml version=\"1.0\"?>\n<testsuite/>", 34);
    rp_remove_old_reports(reports);
    snprintf(path, sizeof path, "%s/results.json", reports);
    assert_true(rp_path_exists(path));
    snprintf(path, sizeof path, "%s/junit.xml", reports);
    assert_true(rp_path_exists(path));
    rp_scratch_pair_close(&scratch);
}

/* A build tree that was moved, or copied: its paths lead to the old one. */
static void a_tree_that_was_moved_is_an_error(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_context context;
    struct rp_error err;
    char other[256], path[512], *text;
    size_t length;
    rp_scratch_pair_open(&scratch, &(struct rp_scratch_spec){0});
    rp_test_make_folder(other);
    snprintf(path, sizeof path, "%s/config.json", scratch.folder);
    assert_int_equal(rp_file_read(path, 1 << 16, &text, &length, NULL), RP_OK);
    rp_test_write_file(other, "config.json", text, length);
    free(text);
    snprintf(path, sizeof path, "%s/config.json", other);
    assert_int_equal(rp_context_open(path, &context, &err), RP_ERR_MISMATCH);
    assert_contains(err.message, scratch.folder);
    assert_contains(err.message, "where it is no longer: configure again");
    rp_scratch_pair_close(&scratch); /* the old place is gone */
    assert_int_equal(rp_context_open(path, &context, &err), RP_ERR_MISMATCH);
    assert_int_equal(rp_remove_tree(other, NULL), RP_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pair_whose_run_cannot_be_stored_is_an_error_by_name),
        cmocka_unit_test(a_pair_whose_folder_its_engine_deletes_is_an_error_by_name),
        cmocka_unit_test(an_old_result_does_not_stand_in_for_a_lost_one),
        cmocka_unit_test(a_ctest_that_was_killed_is_no_pass),
        cmocka_unit_test(a_pair_that_is_replayed_alone_counts_as_compared),
        cmocka_unit_test(one_file_that_cannot_be_written_does_not_stop_the_others),
        cmocka_unit_test(only_reports_that_refparity_wrote_are_removed),
        cmocka_unit_test(a_tree_that_was_moved_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
