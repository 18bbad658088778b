/* Results of shards put together: nothing is lost, nothing counts twice, and what a stranger writes does no
 * harm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "refparity/compare.h"
#include "report/merge.h"

#define HASH "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define HEAD(shard)                                                                             \
    "{\"format\": \"refparity-results\", \"version\": 1, \"session\": \"s\", \"ended\": true, " \
    "\"refparity\": \"1.0\", " shard "\"matrix\": {\"path\": \"m.json\", \"sha256\": \"" HASH   \
    "\", \"entries\": [\"a\", \"b\"], \"disabled\": [\"b\"], \"pairs\": [\"a/p0\", \"a/p1\", "  \
    "\"a/x/p2\", \"b/p0\"]}, "
#define SHARD(text) HEAD("\"shard\": \"" text "\", ")
#define COMPARED "\"comparison\": {\"n_required_compared\": 1}"
#define PAIR(name, verdict) \
    "{\"pair\": \"" name "\", \"verdict\": \"" verdict "\", \"entry\": \"a\", " COMPARED "}"
#define WEIGHTS(verdict) \
    "\"entries\": [{\"entry\": \"a\", \"weights\": {\"verdict\": \"" verdict "\"}}]}"
#define NO_ENTRIES "\"entries\": []}"

struct scratch {
    char folder[256], out[RP_PATH_SIZE];
    struct rp_shard_files files;
    struct rp_results results;
    struct rp_error err;
};

static void begin(struct scratch *scratch)
{
    memset(scratch, 0, sizeof *scratch);
    rp_test_make_folder(scratch->folder);
    assert_int_equal(rp_path_join(scratch->out, sizeof scratch->out, scratch->folder, "out", NULL),
                     RP_OK);
}

static void end(struct scratch *scratch)
{
    rp_results_free(&scratch->results);
    rp_shard_files_free(&scratch->files);
    assert_int_equal(rp_remove_tree(scratch->folder, NULL), RP_OK);
}

/* Writes text as NAME/shard.json. */
static void put(const struct scratch *scratch, const char *name, const char *text)
{
    char folder[RP_PATH_SIZE];
    assert_int_equal(rp_path_join(folder, sizeof folder, scratch->folder, name, NULL), RP_OK);
    assert_int_equal(rp_make_dirs(folder, NULL), RP_OK);
    rp_test_write_file(folder, "shard.json", text, strlen(text));
}

static enum rp_status merge(struct scratch *scratch, const char *filter)
{
    const enum rp_status status =
        rp_shard_files_add(&scratch->files, scratch->folder, scratch->out, &scratch->err);
    return status ? status
                  : rp_results_merge(&scratch->files, filter, scratch->out, &scratch->results,
                                     &scratch->err);
}

static void merge_well(struct scratch *scratch, const char *filter)
{
    if (merge(scratch, filter))
        fail_msg("%s: %s", scratch->err.where, scratch->err.message);
}

static const cJSON *pair_of(const struct scratch *scratch, const char *name)
{
    const cJSON *pair;
    cJSON_ArrayForEach(pair, cJSON_GetObjectItemCaseSensitive(scratch->results.root, "pairs"))
    {
        if (strcmp(rp_json_text(pair, "pair"), name) == 0)
            return pair;
    }
    fail_msg("no pair %s", name);
    return NULL;
}

static void expect_reason(const struct scratch *scratch, const char *name, const char *part)
{
    const cJSON *test = cJSON_GetObjectItemCaseSensitive(pair_of(scratch, name), "engine_test");
    const char *message = rp_json_text(test, "message");
    assert_string_equal(rp_json_text(pair_of(scratch, name), "verdict"), "ERROR");
    if (!strstr(message, part))
        fail_msg("expected \"%s\" in \"%s\"", part, message);
}

static void expect_error(struct scratch *scratch, enum rp_status code, const char *where,
                         const char *part)
{
    assert_int_equal(merge(scratch, NULL), code);
    if (!strstr(scratch->err.message, part) || !strstr(scratch->err.where, where))
        fail_msg("expected \"%s: %s\", found \"%s: %s\"", where, part, scratch->err.where,
                 scratch->err.message);
}

static void shards_are_as_one_machine_in_the_order_of_the_matrix(void **state)
{
    (void)state;
    struct scratch scratch;
    begin(&scratch);
    put(&scratch, "1", SHARD("1/2") "\"pairs\": [" PAIR("a/x/p2", "FAIL") "], " NO_ENTRIES);
    put(&scratch, "2",
        SHARD("2/2") "\"pairs\": [" PAIR("a/p1", "PASS") ", " PAIR(
            "a/p0", "MARGINAL") "], " WEIGHTS("PASS"));
    merge_well(&scratch, NULL);
    const struct rp_results *results = &scratch.results;
    assert_int_equal(results->n_pairs, 3);
    assert_int_equal(results->n_other, 1); /* b is disabled */
    assert_int_equal(results->n_compared, 3);
    assert_int_equal(results->n_passed, 2);
    assert_int_equal(results->n_explained, 1);
    assert_int_equal(results->weights.n_passed, 1);
    assert_int_equal(rp_results_exit_code(results, false), RP_EXIT_FAIL);
    static const char *const order[] = {"a/p0", "a/p1", "a/x/p2"};
    const cJSON *pairs = cJSON_GetObjectItemCaseSensitive(results->root, "pairs");
    for (int i = 0; i < 3; i++)
        assert_string_equal(rp_json_text(cJSON_GetArrayItem(pairs, i), "pair"), order[i]);
    static const char *const reports[] = {"results.json", "junit.xml", "index.html"};
    for (size_t i = 0; i < 3; i++) {
        char path[RP_PATH_SIZE];
        assert_int_equal(rp_path_join(path, sizeof path, scratch.out, reports[i], NULL), RP_OK);
        assert_true(rp_path_exists(path));
    }
    end(&scratch);
}

static void a_pair_that_no_shard_has_is_an_error_by_name(void **state)
{
    (void)state;
    struct scratch scratch;
    begin(&scratch);
    put(&scratch, "1",
        SHARD("1/2") "\"pairs\": [" PAIR("a/p0", "PASS") ", " PAIR("a/p1",
                                                                   "PASS") "], " NO_ENTRIES);
    merge_well(&scratch, NULL);
    assert_int_equal(scratch.results.n_errors, 1);
    expect_reason(&scratch, "a/x/p2", "no shard has it");
    assert_int_equal(rp_results_exit_code(&scratch.results, false), RP_EXIT_ERROR);
    end(&scratch);
}

static void a_pair_that_the_filter_leaves_out_is_not_missed(void **state)
{
    (void)state;
    struct scratch scratch;
    begin(&scratch);
    put(&scratch, "1", SHARD("1/1") "\"pairs\": [" PAIR("a/p0", "PASS") "], " NO_ENTRIES);
    merge_well(&scratch, "^a/p0$");
    assert_int_equal(scratch.results.n_pairs, 1);
    assert_int_equal(rp_results_exit_code(&scratch.results, false), RP_EXIT_PASS);
    end(&scratch);
}

static void equal_verdicts_of_one_pair_count_once_and_different_ones_are_an_error(void **state)
{
    (void)state;
    struct scratch scratch;
    begin(&scratch);
    put(&scratch, "1",
        SHARD("1/2") "\"pairs\": [" PAIR("a/p0", "PASS") ", " PAIR("a/p1",
                                                                   "FAIL") "], " WEIGHTS("PASS"));
    put(&scratch, "2",
        SHARD("2/2") "\"pairs\": [" PAIR("a/p0", "PASS") ", " PAIR("a/p1", "PASS") ", " PAIR(
            "a/x/p2", "PASS") "], " WEIGHTS("FAIL"));
    merge_well(&scratch, NULL);
    assert_int_equal(scratch.results.n_pairs, 3);
    assert_int_equal(scratch.results.n_passed, 2);
    assert_int_equal(scratch.results.n_failed, 0);
    expect_reason(&scratch, "a/p1", "different verdicts: FAIL in ");
    expect_reason(&scratch, "a/p1", "PASS in ");
    assert_int_equal(scratch.results.weights.n, 1);
    assert_int_equal(scratch.results.weights.n_errors, 1);
    assert_int_equal(rp_results_exit_code(&scratch.results, false), RP_EXIT_ERROR);
    end(&scratch);
}

static void a_weights_test_that_no_shard_has_is_an_error(void **state)
{
    (void)state;
    struct scratch scratch;
    begin(&scratch);
#define TWO(disabled)                                                                              \
    "{\"format\": \"refparity-results\", \"version\": 1, \"ended\": true, \"refparity\": \"1\", "  \
    "\"matrix\": {\"sha256\": \"" HASH "\", \"entries\": [\"a\", \"b\"], \"disabled\": [" disabled \
    "], \"pairs\": [\"a/p0\"]}, \"pairs\": [" PAIR("a/p0", "PASS") "], " WEIGHTS("PASS")
    put(&scratch, "1", TWO(""));
    merge_well(&scratch, NULL);
    assert_int_equal(scratch.results.weights.n, 2);
    assert_int_equal(scratch.results.weights.n_errors, 1);
    end(&scratch);
    begin(&scratch);
    put(&scratch, "1", TWO("\"b\""));
    merge_well(&scratch, NULL);
    assert_int_equal(scratch.results.weights.n, 1);
    assert_int_equal(rp_results_exit_code(&scratch.results, false), RP_EXIT_PASS);
    end(&scratch);
}

static void a_shard_that_has_not_ended_is_no_pass(void **state)
{
    (void)state;
    struct scratch scratch;
    begin(&scratch);
    put(&scratch, "1",
        "{\"format\": \"refparity-results\", \"version\": 1, \"ended\": false, \"matrix\": "
        "{\"sha256\": \"" HASH "\", \"entries\": [\"a\"], \"disabled\": [], \"pairs\": "
        "[\"a/p0\"]}, \"pairs\": [" PAIR("a/p0", "PASS") "], " NO_ENTRIES);
    merge_well(&scratch, NULL);
    assert_int_equal(rp_results_exit_code(&scratch.results, false), RP_EXIT_ERROR);
    end(&scratch);
}

static void shards_of_different_matrices_versions_or_runs_are_an_error(void **state)
{
    (void)state;
    static const struct {
        const char *other;
        const char *message;
    } cases[] = {
        {"{\"format\": \"refparity-results\", \"version\": 1, \"refparity\": \"1.0\", \"matrix\": "
         "{\"sha256\": \"fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210\", "
         "\"entries\": [], \"disabled\": [], \"pairs\": []}, \"pairs\": [], \"entries\": []}",
         "its matrix (sha256 fedcba987654…) is not that of "},
        {"{\"format\": \"refparity-results\", \"version\": 1, \"refparity\": \"1.1\", \"matrix\": "
         "{\"sha256\": \"" HASH "\", \"entries\": [], \"disabled\": [], \"pairs\": []}, "
         "\"pairs\": [], \"entries\": []}",
         "refparity 1.1 made it, and refparity 1.0 made "},
        {"{\"format\": \"refparity-results\", \"version\": 1, \"refparity\": \"1.0\", \"matrix\": "
         "{\"sha256\": \"" HASH "\", \"entries\": [\"a\", \"b\"], \"disabled\": [\"b\"], "
         "\"pairs\": []}, \"pairs\": [], \"entries\": []}",
         "but other \"pairs\""},
        {SHARD("2/3") "\"pairs\": [], " NO_ENTRIES, "it is one of 3 shards"},
        {HEAD("") "\"pairs\": [], " NO_ENTRIES, "it is one of 0 shards"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct scratch scratch;
        begin(&scratch);
        put(&scratch, "1", SHARD("1/2") "\"pairs\": [], " NO_ENTRIES);
        put(&scratch, "2", cases[i].other);
        expect_error(&scratch, RP_ERR_MISMATCH, "/2/shard.json", cases[i].message);
        end(&scratch);
    }
}

static void what_is_no_result_is_an_error_with_its_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *where, *message;
    } cases[] = {
        {"[]", "shard.json:1:1", "expected results of refparity"},
        {"{\"format\": \"refparity-results\", \"version\": 1}", "shard.json:1:1",
         "an older refparity wrote this"},
        {SHARD("1/2") "\"pairs\": [", "shard.json:1:", ""},
        {SHARD("3/2") "\"pairs\": [], " NO_ENTRIES, "shard.json", "expected a shard as 2/5"},
        {SHARD("1/2") "\"pairs\": {}, " NO_ENTRIES, "shard.json:1:", "expected an array \"pairs\""},
        {SHARD("1/2") "\"pairs\": [7], " NO_ENTRIES, "shard.json:1:", "a pair with its name"},
        {SHARD("1/2") "\"pairs\": [" PAIR("a/../p0", "PASS") "], " NO_ENTRIES,
         "shard.json:1:", "a pair with its name"},
        {SHARD("1/2") "\"pairs\": [" PAIR("a/p0", "FINE") "], " NO_ENTRIES,
         "shard.json:1:", "a pair with a verdict"},
        {SHARD("1/2") "\"pairs\": [" PAIR("c/p0", "PASS") "], " NO_ENTRIES,
         "shard.json:1:", "expected one of the matrix's names, found \"c/p0\""},
        {SHARD("1/2") "\"pairs\": []}", "shard.json:1:1", "expected an array \"entries\""},
        {SHARD("1/2") "\"pairs\": [], " WEIGHTS("?"), "shard.json:1:", "weights with a verdict"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct scratch scratch;
        begin(&scratch);
        put(&scratch, "1", cases[i].text);
        assert_true(merge(&scratch, NULL) == RP_ERR_FORMAT || scratch.err.code == RP_ERR_ARGUMENT);
        if (!strstr(scratch.err.where, cases[i].where) ||
            !strstr(scratch.err.message, cases[i].message))
            fail_msg("expected \"%s: %s\", found \"%s: %s\"", cases[i].where, cases[i].message,
                     scratch.err.where, scratch.err.message);
        end(&scratch);
    }
}

/* A verdict that was changed by hand, or is what a damaged file has left. */
static void a_pass_whose_parts_fail_is_an_error_with_its_place(void **state)
{
    (void)state;
#define PARTS(verdict, parts) \
    "{\"pair\": \"a/p0\", \"verdict\": \"" verdict "\", \"entry\": \"a\"" parts "}"
#define SLOT(required, verdict)                                                           \
    ", \"comparison\": {\"n_required_compared\": 1, \"slots\": [{\"required\": " required \
    ", \"verdict\": \"" verdict "\"}]}"
#define REPLAY(verdict) ", " COMPARED ", \"replay\": [{\"verdict\": \"" verdict "\"}]"
    static const struct {
        const char *pair;
        bool is_right;
    } cases[] = {
        {PARTS("PASS", SLOT("true", "FAIL")), false},
        {PARTS("FAIL", SLOT("true", "FAIL")), true},
        {PARTS("PASS", SLOT("false", "FAIL")), true}, /* evidence */
        {PARTS("PASS", SLOT("true", "SKIP")), true},
        {PARTS("PASS", SLOT("true", "XFAIL")), false},
        {PARTS("XFAIL", SLOT("true", "XFAIL") ", \"known\": [{\"n_met\": 1}]"), true},
        {PARTS("XFAIL", SLOT("true", "XFAIL") ", \"known\": [{\"n_met\": 0}]"), false},
        {PARTS("XFAIL", SLOT("true", "XFAIL")), false}, /* nothing is known */
        {PARTS("XFAIL", SLOT("true", "FAIL")), false},
        {PARTS("SKIP", SLOT("true", "FAIL")), false},
        {PARTS("SKIP", SLOT("true", "XFAIL")), true},
        {PARTS("FAIL", SLOT("true", "ERROR")), false},
        {PARTS("MARGINAL", REPLAY("FAIL")), false},
        {PARTS("MARGINAL", REPLAY("SKIP")), true},
        {PARTS("PASS", ", " COMPARED ", \"engine_test\": {\"verdict\": \"ERROR\"}"), false},
        {PARTS("PASS", ", \"comparison\": {\"n_required_compared\": 1, \"tokens\": "
                       "{\"verdict\": \"FAIL\"}}"),
         false},
        {PARTS("XFAIL", ", " COMPARED ", \"known\": [{\"message\": \"mended\"}]"), false},
        {PARTS("PASS", ""), false}, /* nothing is compared */
        {PARTS("XFAIL", ""), false},
        {PARTS("PASS", ", \"replay\": [{\"verdict\": \"PASS\"}]"), true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct scratch scratch;
        char text[2048];
        begin(&scratch);
        snprintf(text, sizeof text, "%s\"pairs\": [%s], %s", SHARD("1/1"), cases[i].pair,
                 NO_ENTRIES);
        put(&scratch, "1", text);
        if (cases[i].is_right)
            merge_well(&scratch, NULL);
        else
            expect_error(&scratch, RP_ERR_FORMAT, "shard.json:1:", "Run that shard again");
        end(&scratch);
    }
}

static void a_folder_without_results_is_an_error(void **state)
{
    (void)state;
    struct scratch scratch;
    begin(&scratch);
    expect_error(&scratch, RP_ERR_MISSING, scratch.folder, "found neither");
    end(&scratch);
}

/* A results.json beside a shard.json is of an earlier run, of all pairs: it does not count. */
static void a_shard_file_is_taken_before_results(void **state)
{
    (void)state;
    struct scratch scratch;
    begin(&scratch);
    static const char older[] =
        HEAD("") "\"pairs\": [" PAIR("a/p0", "FAIL") ", " PAIR("a/p1", "PASS") "], " NO_ENTRIES;
    rp_test_write_file(scratch.folder, "results.json", older, sizeof older - 1);
    put(&scratch, "deep/er/1", SHARD("1/1") "\"pairs\": [" PAIR("a/p0", "PASS") "], " NO_ENTRIES);
    merge_well(&scratch, "a/p0");
    assert_int_equal(scratch.files.n, 1);
    assert_int_equal(scratch.results.n_passed, 1);
    end(&scratch);
}

static void a_diff_is_copied_beside_the_reports_and_no_other_file(void **state)
{
    (void)state;
    struct scratch scratch;
    char path[RP_PATH_SIZE], shard[RP_PATH_SIZE];
    begin(&scratch);
#define WITH_DIFF(name, diff) \
    "{\"pair\": \"" name "\", \"verdict\": \"FAIL\", " COMPARED ", \"diff\": \"" diff "\"}"
    put(&scratch, "1",
        SHARD("1/1") "\"pairs\": [" WITH_DIFF("a/p0", "/far/away/a__p0.diff") ", " WITH_DIFF(
            "a/p1", "/etc/passwd") ", " WITH_DIFF("a/x/p2", "gone.diff") "], " NO_ENTRIES);
    snprintf(shard, sizeof shard, "%s/1", scratch.folder);
    rp_test_write_file(shard, "a__p0.diff", "pair a/p0\n", 10);
    merge_well(&scratch, NULL);
    assert_int_equal(rp_path_join(path, sizeof path, scratch.out, "a__p0.diff", NULL), RP_OK);
    assert_true(rp_path_exists(path));
    assert_string_equal(rp_json_text(pair_of(&scratch, "a/p0"), "diff"), path);
    assert_string_equal(rp_json_text(pair_of(&scratch, "a/p1"), "diff"), "");
    assert_string_equal(rp_json_text(pair_of(&scratch, "a/x/p2"), "diff"), "");
    end(&scratch);
}

/* ---- every value in turn is something else: an error or a report, never a crash */

static const char rich[] = SHARD(
    "1/1") "\"pairs\": [{\"pair\": \"a/p0\", \"verdict\": \"FAIL\", \"entry\": \"a\", \"mode\": "
           "\"\", \"n_layers\": 1, \"engine\": \"e\", \"hf_model\": \"o/m\", \"matrix\": "
           "\"m.json\", \"line\": 7, \"timestamp\": \"t\", \"engine_s\": 1.5, \"harness_s\": 1, "
           "\"compare_s\": 1, \"reproduce\": \"ctest\", \"command\": \"e\", \"log\": \"l\", "
           "\"diff\": \"a.diff\", \"reference\": \"r\", \"gate\": \"strict\", \"engine_test\": "
           "{\"verdict\": \"PASS\", \"message\": \"m\", \"compare_s\": 1}, \"warnings\": "
           "[{\"kind\": \"k\", \"rule\": \"r\", \"slot\": \"h0\", \"message\": \"m\"}], "
           "\"comparison\": {\"verdict\": \"FAIL\", \"tokens\": {\"verdict\": \"PASS\", "
           "\"message\": \"m\", \"n_reference\": 1, \"n_engine\": 1, \"first_difference\": -1}, "
           "\"divergence\": {\"slot\": \"h0\", \"layer\": 0, \"position\": 3, \"inner_slot\": "
           "\"h0_q\", \"explanation\": \"x\"}, \"departure\": {\"slot\": \"h0\", "
           "\"operation_slot\": \"h0_q\", \"position\": 1, \"error\": 1, \"noise\": 1, "
           "\"explanation\": \"x\"}, \"n_required\": 1, \"n_required_compared\": 1, \"slots\": "
           "[{\"slot\": \"h0\", \"verdict\": \"FAIL\", \"required\": true, \"message\": \"m\", "
           "\"dim\": 4, \"n_compared\": 2, \"n_failing\": 1, \"limit\": 0.05, \"unchecked\": "
           "\"u\", \"worst\": {\"position\": 1, \"l2_rel\": 0.5, \"cosine\": 0.5, "
           "\"norm_reference\": 1, \"norm_engine\": 1, \"max_abs\": 1}, \"first_failing\": null}], "
           "\"by_position\": {\"positions\": [0, 1], \"tokens\": [1, 2], \"pieces\": [\"a\", "
           "\"b\"], \"slots\": [{\"slot\": \"h0\", \"l2_rel\": [0.1, 0.5]}]}}, \"replay\": "
           "[{\"slot\": \"h0\", \"verdict\": \"FAIL\", \"message\": \"m\", \"replay_s\": 1, "
           "\"operations\": [{\"slot\": \"h0_q\", \"introduced\": 1, \"inherited\": 1}], "
           "\"by_position\": [[0.1, 0.2]]}]}], " WEIGHTS("FAIL");

/* The index-th value below root, depth first; NULL where there is none. */
// NOLINTNEXTLINE(misc-no-recursion): as deep as rich
static cJSON *find_value(cJSON *root, size_t *index)
{
    cJSON *child;
    cJSON_ArrayForEach(child, root)
    {
        if ((*index)-- == 0)
            return child;
        cJSON *found = find_value(child, index);
        if (found)
            return found;
    }
    return NULL;
}

static void every_value_may_be_of_another_type(void **state)
{
    (void)state;
    static const char *const others[] = {
        "null", "-1e308", "\"\\u0001<&\"", "[[], {}, 1]", "{\"slot\": [], \"verdict\": 1}", "true"};
    size_t n_values = 0, n_merged = 0;
    for (bool is_one = true; is_one; n_values++) {
        for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
            size_t index = n_values;
            cJSON *root = cJSON_Parse(rich), *value = find_value(root, &index);
            assert_non_null(root);
            is_one = value != NULL;
            if (is_one) { /* value becomes the other, under its name, in its place */
                cJSON *other = cJSON_Parse(others[i]);
                assert_non_null(other);
                cJSON held = *value;
                value->type = other->type | (held.type & cJSON_StringIsConst);
                value->child = other->child;
                value->valuestring = other->valuestring;
                value->valuedouble = other->valuedouble;
                value->valueint = other->valueint;
                other->type = held.type & ~cJSON_StringIsConst;
                other->child = held.child;
                other->valuestring = held.valuestring;
                cJSON_Delete(other);
                char *text = cJSON_PrintUnformatted(root);
                struct scratch scratch;
                begin(&scratch);
                put(&scratch, "1", text);
                n_merged += merge(&scratch, NULL) == RP_OK;
                end(&scratch);
                free(text);
            }
            cJSON_Delete(root);
        }
    }
    assert_true(n_values > 100); /* else nothing was tried */
    assert_true(n_merged > 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shards_are_as_one_machine_in_the_order_of_the_matrix),
        cmocka_unit_test(a_pair_that_no_shard_has_is_an_error_by_name),
        cmocka_unit_test(a_pair_that_the_filter_leaves_out_is_not_missed),
        cmocka_unit_test(equal_verdicts_of_one_pair_count_once_and_different_ones_are_an_error),
        cmocka_unit_test(a_weights_test_that_no_shard_has_is_an_error),
        cmocka_unit_test(a_shard_that_has_not_ended_is_no_pass),
        cmocka_unit_test(shards_of_different_matrices_versions_or_runs_are_an_error),
        cmocka_unit_test(what_is_no_result_is_an_error_with_its_place),
        cmocka_unit_test(a_pass_whose_parts_fail_is_an_error_with_its_place),
        cmocka_unit_test(a_folder_without_results_is_an_error),
        cmocka_unit_test(a_shard_file_is_taken_before_results),
        cmocka_unit_test(a_diff_is_copied_beside_the_reports_and_no_other_file),
        cmocka_unit_test(every_value_may_be_of_another_type),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
