/* A run against an earlier one: each kind of change, what is none, and files that are no baseline. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "refparity/compare.h"
#include "report/baseline_text.h"

/* One pair of one layer: h0 with a verdict and L2_rel; h0_attn in replay with a verdict and what it introduces
 * (its limit is 1e-6). */
struct run {
    const char *pair, *h0, *l2_rel, *h0_attn, *introduced;
    const char *known; /* message of a known divergence */
    int n_layers;
};

static void write_run(const struct run *run, char *text, size_t size)
{
    const char *h0 = run->h0 ? run->h0 : "PASS", *h0_attn = run->h0_attn ? run->h0_attn : "PASS";
    snprintf(
        text, size,
        "{\"format\": \"refparity-results\", \"version\": 1, \"entries\": [],\n"
        " \"pairs\": [{\"pair\": \"%s\", \"verdict\": \"PASS\", \"hf_model\": \"o/m\", "
        "\"engine\": \"e\", \"n_layers\": %d, \"fixture\": \"/x/f.npz\",\n"
        "  \"known\": [{\"slot\": \"h0\", \"message\": \"%s\"}],\n"
        "  \"engine_test\": {\"verdict\": \"PASS\", \"message\": \"\"},\n"
        "  \"comparison\": {\"tokens\": {\"verdict\": \"PASS\", \"message\": \"\"}, \"slots\": "
        "[{\"slot\": \"h0\", \"verdict\": \"%s\", \"required\": true, \"dim\": 128, "
        "\"message\": \"it is off\", \"worst\": {\"l2_rel\": %s}}]},\n"
        "  \"replay\": [{\"slot\": \"h0\", \"verdict\": \"%s\", \"message\": \"\", \"slots\": "
        "[{\"slot\": \"h0_attn\", \"verdict\": \"%s\", \"introduced\": %s, \"limit\": 1e-6, "
        "\"message\": \"introduces\"}]}]}]}",
        run->pair ? run->pair : "e/p0", run->n_layers ? run->n_layers : 1,
        run->known ? run->known : "", h0, run->l2_rel ? run->l2_rel : "0.001", h0_attn, h0_attn,
        run->introduced ? run->introduced : "1e-7");
}

struct compared {
    char path[512], folder[256], now[4096];
    struct rp_json *doc;
    struct rp_baseline baseline;
    enum rp_status status;
    struct rp_error err;
};

static void open_text(struct compared *c, const char *before, const struct run *now)
{
    memset(c, 0, sizeof *c);
    rp_test_make_folder(c->folder);
    rp_test_write_file(c->folder, "old.json", before, strlen(before));
    snprintf(c->path, sizeof c->path, "%s/old.json", c->folder);
    write_run(now, c->now, sizeof c->now);
    assert_int_equal(rp_json_parse(c->now, strlen(c->now), "now", &c->doc, &c->err), RP_OK);
    c->status = rp_baseline_open(c->path, rp_json_root(c->doc), &c->baseline, &c->err);
}

static struct compared *open_runs(const struct run *before, const struct run *now)
{
    char text[4096];
    struct compared *c = malloc(sizeof *c);
    assert_non_null(c);
    write_run(before, text, sizeof text);
    open_text(c, text, now);
    return c;
}

static void close_runs(struct compared *c)
{
    rp_baseline_free(&c->baseline);
    rp_json_free(c->doc);
    assert_int_equal(rp_remove_tree(c->folder, NULL), RP_OK);
    free(c);
}

/* Both runs differ by this alone; kind -1: by nothing. */
static void expect(struct run before, struct run now, int kind, const char *what, int code)
{
    struct compared *c = open_runs(&before, &now);
    assert_string_equal(c->err.message, "");
    assert_int_equal(c->status, RP_OK);
    assert_int_equal(c->baseline.n_changes, kind >= 0);
    if (kind >= 0) {
        assert_int_equal(c->baseline.changes[0].kind, kind);
        assert_string_equal(c->baseline.changes[0].what, what);
    }
    assert_int_equal(rp_baseline_exit_code(&c->baseline), code);
    close_runs(c);
}

static void the_same_run_has_no_change(void **state)
{
    (void)state;
    expect((struct run){0}, (struct run){0}, -1, "", RP_EXIT_PASS);
    expect((struct run){.h0 = "FAIL"}, (struct run){.h0 = "FAIL"}, -1, "", RP_EXIT_PASS);
}

static void a_verdict_that_becomes_a_failure_is_new(void **state)
{
    (void)state;
    static const char *const before[] = {"PASS", "MARGINAL", "XFAIL", "SKIP"};
    for (size_t i = 0; i < 4; i++)
        expect((struct run){.h0 = before[i]}, (struct run){.h0 = "FAIL"}, RP_CHANGE_NEW, "h0",
               RP_EXIT_FAIL);
    expect((struct run){0}, (struct run){.h0_attn = "FAIL"}, RP_CHANGE_NEW, "replay/h0_attn",
           RP_EXIT_FAIL);
}

static void a_new_error_is_exit_code_2(void **state)
{
    (void)state;
    expect((struct run){0}, (struct run){.h0 = "ERROR"}, RP_CHANGE_NEW, "h0", RP_EXIT_ERROR);
    expect((struct run){.h0 = "FAIL"}, (struct run){.h0 = "ERROR"}, RP_CHANGE_WORSE, "h0",
           RP_EXIT_FAIL);
}

static void what_passes_again_is_mended(void **state)
{
    (void)state;
    static const char *const before[] = {"FAIL", "ERROR", "XFAIL"};
    for (size_t i = 0; i < 3; i++)
        expect((struct run){.h0 = before[i]}, (struct run){0}, RP_CHANGE_MENDED, "h0",
               RP_EXIT_PASS);
}

static void what_is_no_longer_compared_is_worse(void **state)
{
    (void)state;
    expect((struct run){0}, (struct run){.h0 = "SKIP"}, RP_CHANGE_WORSE, "h0", RP_EXIT_FAIL);
    expect((struct run){.h0 = "FAIL"}, (struct run){.h0 = "SKIP"}, RP_CHANGE_WORSE, "h0",
           RP_EXIT_FAIL);
    expect((struct run){.h0 = "SKIP"}, (struct run){0}, RP_CHANGE_BETTER, "h0", RP_EXIT_PASS);
}

/* This run without what begins with name, up to end; NULL: up to the last four brackets. */
static void expect_gone(const char *name, const char *end, int kind, const char *what)
{
    struct compared *c = malloc(sizeof *c);
    char text[4096], *start, *rest;
    assert_non_null(c);
    write_run(&(struct run){0}, text, sizeof text);
    open_text(c, text, &(struct run){0});
    rp_baseline_free(&c->baseline);
    rp_json_free(c->doc);
    start = strstr(c->now, name);
    assert_non_null(start);
    rest = end ? strstr(start, end) : c->now + strlen(c->now) - 4;
    assert_non_null(rest);
    memmove(start, rest, strlen(rest) + 1);
    assert_int_equal(rp_json_parse(c->now, strlen(c->now), "now", &c->doc, &c->err), RP_OK);
    c->status = rp_baseline_open(c->path, rp_json_root(c->doc), &c->baseline, &c->err);
    assert_int_equal(c->status, RP_OK);
    assert_int_equal(c->baseline.n_changes, kind >= 0);
    if (kind >= 0) {
        assert_int_equal(c->baseline.changes[0].kind, kind);
        assert_string_equal(c->baseline.changes[0].what, what);
        assert_string_equal(c->baseline.changes[0].is, "");
        assert_int_equal(rp_baseline_exit_code(&c->baseline), RP_EXIT_FAIL);
    }
    close_runs(c);
}

static void what_is_no_longer_there_is_worse(void **state)
{
    (void)state;
    expect_gone("{\"slot\": \"h0\", \"verdict\": \"PASS\", \"required\"", "]},", RP_CHANGE_WORSE,
                "h0");
    expect_gone("{\"slot\": \"h0\", \"verdict\": \"PASS\", \"message\"", NULL, RP_CHANGE_WORSE,
                "replay/h0");
    expect_gone("\"known\": [", "\"engine_test\"", -1, "");
}

static void an_operation_that_is_no_longer_dumped_is_worse(void **state)
{
    (void)state;
    char before[4096], *end;
    struct compared *c = malloc(sizeof *c);
    assert_non_null(c);
    write_run(&(struct run){0}, before, sizeof before);
    end = strrchr(before, ']'); /* of pairs */
    assert_non_null(end);
    while (strncmp(end, "}]}", 3) != 0)
        end--;
    end--; /* behind the operation h0_attn */
    while (strncmp(end, "}]", 2) != 0)
        end--;
    char rest[64];
    snprintf(rest, sizeof rest, "%s", end + 1);
    snprintf(
        end + 1, sizeof before - (size_t)(end + 1 - before),
        ", {\"slot\": \"h0_mix\", \"verdict\": \"FAIL\", \"introduced\": 1, \"limit\": 1e-6}%s",
        rest);
    open_text(c, before, &(struct run){0});
    assert_string_equal(c->err.message, "");
    assert_int_equal(c->baseline.n_changes, 1);
    assert_int_equal(c->baseline.changes[0].kind, RP_CHANGE_WORSE);
    assert_string_equal(c->baseline.changes[0].what, "replay/h0_mix");
    close_runs(c);
}

static void runs_without_replay_are_compared(void **state)
{
    (void)state;
    static const char before[] =
        "{\"format\": \"refparity-results\", \"version\": 1, \"pairs\": [{\"pair\": \"e/p0\", "
        "\"verdict\": \"PASS\", \"comparison\": {\"slots\": [{\"slot\": \"h0\", \"verdict\": "
        "\"PASS\", "
        "\"required\": true}]}}]}";
    struct compared *c = malloc(sizeof *c);
    assert_non_null(c);
    open_text(c, before, &(struct run){0});
    assert_string_equal(c->err.message, "");
    assert_int_equal(c->baseline.n_pairs, 1);
    close_runs(c);
}

static void a_failure_that_is_declared_is_now_known(void **state)
{
    (void)state;
    expect((struct run){.h0 = "FAIL"}, (struct run){.h0 = "XFAIL"}, RP_CHANGE_KNOWN, "h0",
           RP_EXIT_PASS);
    expect((struct run){0}, (struct run){.h0 = "XFAIL"}, RP_CHANGE_WORSE, "h0", RP_EXIT_FAIL);
}

/* The limit was 1e-6 in both runs: from 1e-3 on, 1e-3 + 2e-6 is rounding. */
static void an_operation_is_worse_beyond_the_bounds_of_both_runs(void **state)
{
    (void)state;
    const struct run before = {.h0_attn = "FAIL", .introduced = "1e-3"};
    struct run now = before;
    now.introduced = "1.0019e-3";
    expect(before, now, -1, "", RP_EXIT_PASS);
    expect(now, before, -1, "", RP_EXIT_PASS);
    now.introduced = "1.0021e-3";
    expect(before, now, RP_CHANGE_WORSE, "replay/h0_attn", RP_EXIT_FAIL);
    expect(now, before, RP_CHANGE_BETTER, "replay/h0_attn", RP_EXIT_PASS);
}

/* dim 128: a factor of 1 + 5/16; replay's bounds add 2e-6. */
static void a_slot_is_worse_beyond_what_other_rounding_makes_of_its_norm(void **state)
{
    (void)state;
    const struct run before = {.l2_rel = "0.001"};
    struct run now = {.l2_rel = "0.001314"};
    expect(before, now, -1, "", RP_EXIT_PASS);
    now.l2_rel = "0.001315";
    expect(before, now, RP_CHANGE_WORSE, "h0", RP_EXIT_FAIL);
    expect(now, before, RP_CHANGE_BETTER, "h0", RP_EXIT_PASS);
}

static void of_a_right_FP32_engine_another_order_is_no_change(void **state)
{
    (void)state;
    const struct run before = {.l2_rel = "1e-7"};
    struct run now = {.l2_rel = "1.9e-6"};
    expect(before, now, -1, "", RP_EXIT_PASS);
    now.l2_rel = "2.5e-6";
    expect(before, now, RP_CHANGE_WORSE, "h0", RP_EXIT_FAIL);
}

static void a_number_that_is_no_longer_finite_is_worse(void **state)
{
    (void)state;
    const struct run before = {.h0 = "FAIL", .l2_rel = "0.1"};
    const struct run now = {.h0 = "FAIL", .l2_rel = "null"};
    expect(before, now, RP_CHANGE_WORSE, "h0", RP_EXIT_FAIL);
    expect(now, before, RP_CHANGE_BETTER, "h0", RP_EXIT_PASS);
    expect(now, now, -1, "", RP_EXIT_PASS);
}

static void what_is_known_and_has_been_mended_since_is_new(void **state)
{
    (void)state;
    expect((struct run){0}, (struct run){.known = "mended"}, RP_CHANGE_NEW, "report", RP_EXIT_FAIL);
    expect((struct run){.known = "mended"}, (struct run){0}, RP_CHANGE_MENDED, "report",
           RP_EXIT_PASS);
}

/* ---- baselines that are none ---- */

static void expect_error(const char *before, enum rp_status status, const char *place,
                         const char *message)
{
    struct compared *c = malloc(sizeof *c);
    assert_non_null(c);
    open_text(c, before, &(struct run){0});
    if (!strstr(c->err.message, message) || !strstr(c->err.where, place))
        fail_msg("expected \"%s\" at %s, found \"%s\" at %s", message, place, c->err.message,
                 c->err.where);
    assert_int_equal(c->status, status);
    close_runs(c);
}

static void another_matrix_is_an_error_that_says_what_differs(void **state)
{
    (void)state;
    struct compared *c = open_runs(&(struct run){.n_layers = 4}, &(struct run){0});
    assert_int_equal(c->status, RP_ERR_MISMATCH);
    assert_string_equal(c->err.message, "expected a run of the same matrix: e/p0 has n_layers 1 in "
                                        "this run, 4 in the baseline");
    close_runs(c);
    c = open_runs(&(struct run){.pair = "other/p0"}, &(struct run){0});
    assert_int_equal(c->status, RP_ERR_MISMATCH);
    assert_non_null(strstr(c->err.message, "none of its 1 pairs is among the 1 of this run (e/p0"));
    close_runs(c);
    char text[4096], *name;
    write_run(&(struct run){0}, text, sizeof text);
    name = strstr(text, "/x/f.npz");
    assert_non_null(name);
    memcpy(name, "/y/f.npz", 8); /* another machine's folder */
    c = malloc(sizeof *c);
    assert_non_null(c);
    open_text(c, text, &(struct run){0});
    assert_int_equal(c->status, RP_OK);
    close_runs(c);
    memcpy(name, "/y/g.npz", 8);
    expect_error(text, RP_ERR_MISMATCH, "old.json:2:",
                 "the fixture of e/p0 is \"f.npz\" in this run, \"g.npz\" in the baseline");
}

static void what_is_no_results_json_is_an_error(void **state)
{
    (void)state;
#define HEAD "{\"format\": \"refparity-results\", \"version\": 1"
    expect_error("{\"pairs\": []}", RP_ERR_FORMAT, "old.json:1:1",
                 "expected a results.json of `refparity report`");
    expect_error("[1", RP_ERR_FORMAT, "old.json:1:", "");
    expect_error("", RP_ERR_FORMAT, "old.json", "");
    expect_error("{\"format\": \"refparity-results\", \"version\": 2, \"pairs\": []}",
                 RP_ERR_UNSUPPORTED, "old.json:1:44", "expected \"version\": 1");
    expect_error(HEAD ", \"pairs\": {}}", RP_ERR_FORMAT, "old.json:1:1",
                 "expected an array \"pairs\"");
    expect_error(HEAD ", \"pairs\": [7]}", RP_ERR_FORMAT, "old.json:1:57",
                 "expected an object with a text \"pair\"");
    expect_error(HEAD ", \"pairs\": [{\"pair\": \"e/p0\", \"verdict\": \"GOOD\"}]}", RP_ERR_FORMAT,
                 "old.json:1:", "expected a \"verdict\", PASS to ERROR, found \"GOOD\"");
    expect_error(HEAD ", \"pairs\": [{\"pair\": \"a\", \"verdict\": \"PASS\"}, {\"pair\": \"a\", "
                      "\"verdict\": \"PASS\"}]}",
                 RP_ERR_FORMAT, "old.json:1:", "expected \"a\" once, found it again");
    expect_error(HEAD ", \"pairs\": [{\"pair\": \"e/p0\", \"verdict\": \"PASS\", \"comparison\": "
                      "{\"slots\": {\"slot\": 1}}}]}",
                 RP_ERR_FORMAT, "old.json:1:", "expected an array, each with \"slot\"");
}

/* Wherever it is cut, it is an error and no crash; and wherever a byte of it is another one, it is an error, or
 * compared. */
static void a_damaged_baseline_is_no_crash(void **state)
{
    (void)state;
    char text[4096];
    write_run(&(struct run){0}, text, sizeof text);
    const size_t n = strlen(text);
    struct compared *c = malloc(sizeof *c);
    assert_non_null(c);
    open_text(c, text, &(struct run){0});
    for (size_t i = 0; i < 2 * n; i += 3) {
        struct rp_baseline damaged;
        char copy[sizeof text];
        memcpy(copy, text, n + 1);
        if (i >= n)
            copy[i - n] = (char)("{}[]\",0n"[i % 8]);
        rp_test_write_file(c->folder, "damaged.json", copy, i < n ? i : n);
        char path[512];
        snprintf(path, sizeof path, "%s/damaged.json", c->folder);
        const enum rp_status status =
            rp_baseline_open(path, rp_json_root(c->doc), &damaged, &c->err);
        if (i < n)
            assert_int_not_equal(status, RP_OK);
        rp_baseline_free(&damaged);
    }
    close_runs(c);
}

/* ---- what is written ---- */

static char *written(const struct compared *c, int format)
{
    char *text;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    assert_non_null(out);
    if (format == 0)
        rp_baseline_write_text(&(struct rp_terminal){.out = out}, "OLD", &c->baseline);
    else if (format == 1)
        rp_baseline_write_markdown(out, "OLD", &c->baseline);
    else
        assert_int_equal(rp_baseline_write_json(out, "OLD", &c->baseline, NULL), RP_OK);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void what_is_new_comes_first_in_every_form(void **state)
{
    (void)state;
    struct compared *c = open_runs(&(struct run){.h0_attn = "FAIL", .introduced = "0.01"},
                                   &(struct run){.h0 = "FAIL", .l2_rel = "0.2"});
    char *text = written(c, 0);
    assert_string_equal(
        text, "  new       e/p0/h0: PASS -> FAIL: L2_rel 0.001 -> 0.2 (by rounding alone up to "
              "0.00131); it is off\n"
              "  mended    e/p0/replay/h0_attn: FAIL -> PASS: introduced 0.01 -> 1e-07\n"
              "1 pair against OLD: 1 new, 0 worse, 1 mended, 0 better, 0 now known, 2 as before\n");
    free(text);
    text = written(c, 1);
    assert_non_null(strstr(text, "| new | e/p0/h0 | PASS -&#62; FAIL: L2_rel"));
    free(text);
    text = written(c, 2);
    struct rp_json *doc;
    assert_int_equal(rp_json_parse(text, strlen(text), "json", &doc, NULL), RP_OK);
    const cJSON *changes = cJSON_GetObjectItemCaseSensitive(rp_json_root(doc), "changes");
    assert_string_equal(rp_json_text(cJSON_GetArrayItem(changes, 0), "kind"), "new");
    assert_string_equal(rp_json_text(cJSON_GetArrayItem(changes, 1), "kind"), "mended");
    rp_json_free(doc);
    free(text);
    close_runs(c);
}

static void pairs_of_one_run_alone_are_listed(void **state)
{
    (void)state;
    char text[8192], second[4096];
    write_run(&(struct run){0}, text, sizeof second);
    text[strlen(text) - 2] = '\0'; /* "]}" */
    snprintf(text + strlen(text), 256, ", {\"pair\": \"gone/p0\", \"verdict\": \"PASS\"}]}");
    struct compared *c = malloc(sizeof *c);
    assert_non_null(c);
    open_text(c, text, &(struct run){0});
    assert_int_equal(c->status, RP_OK);
    char *shown = written(c, 0);
    assert_non_null(strstr(shown, "only in the baseline (1 pair):\n  gone/p0\n"));
    assert_int_equal(rp_baseline_exit_code(&c->baseline), RP_EXIT_PASS);
    free(shown);
    close_runs(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_run_has_no_change),
        cmocka_unit_test(a_verdict_that_becomes_a_failure_is_new),
        cmocka_unit_test(a_new_error_is_exit_code_2),
        cmocka_unit_test(what_passes_again_is_mended),
        cmocka_unit_test(what_is_no_longer_compared_is_worse),
        cmocka_unit_test(what_is_no_longer_there_is_worse),
        cmocka_unit_test(an_operation_that_is_no_longer_dumped_is_worse),
        cmocka_unit_test(runs_without_replay_are_compared),
        cmocka_unit_test(a_failure_that_is_declared_is_now_known),
        cmocka_unit_test(an_operation_is_worse_beyond_the_bounds_of_both_runs),
        cmocka_unit_test(a_slot_is_worse_beyond_what_other_rounding_makes_of_its_norm),
        cmocka_unit_test(of_a_right_FP32_engine_another_order_is_no_change),
        cmocka_unit_test(a_number_that_is_no_longer_finite_is_worse),
        cmocka_unit_test(what_is_known_and_has_been_mended_since_is_new),
        cmocka_unit_test(another_matrix_is_an_error_that_says_what_differs),
        cmocka_unit_test(what_is_no_results_json_is_an_error),
        cmocka_unit_test(a_damaged_baseline_is_no_crash),
        cmocka_unit_test(what_is_new_comes_first_in_every_form),
        cmocka_unit_test(pairs_of_one_run_alone_are_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
