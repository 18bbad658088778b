/* The report of a pair collects what the pair's tests have stored, computes the rest, and says the same as
 * if it had computed everything; and it believes nothing that was stored before a run, or before a file
 * changed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "cases/scratch_pair_test_util.h"
#include "report/json.h"
#include "report/replay.h"
#include "report/text.h"
#include "run/run.h"
#include "run/stored.h"

#define ENGINE(bugs)                                                                 \
    "[\"{target:refparity-embedded-bugs}\", \"--model\", \"{gguf}\", \"--tokens\", " \
    "\"{tokens_file}\", \"--dump\", \"{dump}\"" bugs "]"
#define BUG(name, layer) ", \"--bug\", \"" name "\", \"--layer\", \"" layer "\""
#define REPLAY ", \"replay\": true"

static struct rp_judge *open_judge(const struct rp_scratch_pair *scratch)
{
    struct rp_judge *judge = malloc(sizeof *judge);
    assert_non_null(judge);
    rp_judge_open(&scratch->context, &scratch->pair, judge);
    return judge;
}

static void close_judge(struct rp_judge *judge)
{
    rp_judge_close(judge);
    free(judge);
}

static void run_pair(const struct rp_scratch_pair *scratch)
{
    struct rp_run_record record;
    assert_int_equal(rp_run_pair(&scratch->context, &scratch->pair, &record, NULL), RP_OK);
    assert_int_equal(record.outcome, RP_RUN_RAN);
}

static struct rp_verdicts judge_pair(const struct rp_scratch_pair *scratch)
{
    struct rp_verdicts verdicts;
    struct rp_judge *judge = open_judge(scratch);
    assert_int_equal(rp_judge_pair(judge, &verdicts, NULL), RP_OK);
    close_judge(judge);
    return verdicts;
}

/* Stores of every test what it finds, as ctest's tests do. */
static void store_all(const struct rp_scratch_pair *scratch)
{
    struct rp_judge *judge = open_judge(scratch);
    struct rp_judgement engine;
    struct rp_tokens_result tokens;
    struct rp_judge_replay *replay;
    char name[RP_SLOT_NAME_SIZE];
    if (!scratch->pair.against) {
        rp_judge_engine(judge, &engine);
        assert_int_equal(rp_store_engine(judge, &engine, 1, NULL), RP_OK);
    }
    rp_judge_tokens(judge, &tokens);
    assert_int_equal(rp_store_tokens(judge, &tokens, 2, NULL), RP_OK);
    assert_int_equal(rp_judge_replay_open(judge, &replay, NULL), RP_OK);
    for (size_t i = 0; rp_required_slot(RP_TINY_LAYERS, i, name); i++) {
        struct rp_slot_test test;
        struct rp_replay_result result;
        assert_int_equal(rp_judge_slot(judge, name, &test, NULL), RP_OK);
        test.seconds = 10 + (double)i;
        assert_int_equal(rp_store_slot(judge, name, &test, NULL), RP_OK);
        rp_slot_test_free(&test);
        rp_judge_replay_slot(replay, name, &result);
        result.seconds = 20 + (double)i;
        assert_int_equal(rp_store_replay(judge, &result, NULL), RP_OK);
        rp_replay_result_free(&result);
    }
    rp_judge_replay_close(replay);
    close_judge(judge);
}

/* All that reports are made of, as text. */
static char *everything(const struct rp_verdicts *v)
{
    char *text = NULL;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    assert_non_null(out);
    const struct rp_subject subject = {
        .title = "pair", .replay = v->replay, .n_replay = v->n_replay, .shows_all = true};
    const struct rp_terminal terminal = rp_terminal_plain(out);
    rp_report_text(&terminal, &subject, &v->pair, &v->divergence);
    cJSON *root = cJSON_CreateObject();
    rp_report_json(root, &v->pair, &v->divergence);
    rp_report_replay_json(cJSON_AddArrayToObject(root, "replay"), v->replay, v->n_replay);
    char *json = cJSON_Print(root);
    fprintf(out, "%s\n%s: %s\n%s\n", json, rp_verdict_name(v->engine.verdict), v->engine.message,
            rp_verdict_name(v->verdict));
    for (size_t i = 0; i < v->n_replay; i++)
        rp_report_replay_failure(out, &v->replay[i]);
    assert_int_equal(fclose(out), 0);
    cJSON_Delete(root);
    free(json);
    return text;
}

static void what_is_collected_is_what_would_be_computed(void **state)
{
    (void)state;
    static const struct rp_scratch_spec specs[] = {
        {.argv = ENGINE(""), .entry_extra = REPLAY},
        {.argv = ENGINE(BUG("attention-factor", "1") BUG("ffn-half", "3")), .entry_extra = REPLAY},
        {.argv = ENGINE(""), .weights = "q4_0", .entry_extra = REPLAY ", \"gate\": \"explained\""},
        {.argv = ENGINE(BUG("ffn-half", "1")),
         .weights = "q4_0",
         .entry_extra = REPLAY ", \"gate\": \"explained\""},
        /* breaks off, with another prompt's first token, without a dump, not there */
        {.argv = "[\"sh\", \"-c\", \"\\\"$@\\\"; rm $0/h2.npy; exit 3\", \"{dump}\", "
                 "\"{target:refparity-embedded}\", \"--model\", \"{gguf}\", \"--tokens\", "
                 "\"{tokens_file}\", \"--dump\", \"{dump}\"]",
         .entry_extra = REPLAY},
        {.argv = "[\"{target:refparity-embedded}\", \"--model\", \"{gguf}\", \"--ids\", "
                 "\"1,2,3\", \"--dump\", \"{dump}\"]",
         .entry_extra = REPLAY},
        {.argv = "[\"true\", \"{gguf}\", \"{tokens_file}\", \"{dump}\"]", .entry_extra = REPLAY},
        {.argv = "[\"/nowhere/engine\", \"{gguf}\", \"{tokens_file}\", \"{dump}\"]",
         .entry_extra = REPLAY},
        {.argv = "[\"{target:refparity-embedded-bugs}\", \"--model\", \"{gguf}\", \"--ids\", "
                 "\"457,220,398,291,74\", \"--dump\", \"{dump}\", \"--mode\", \"{mode}\"" BUG(
                     "rope-batched-only", "1") "]",
         .entry_extra = ", \"modes\": [\"per-token\", \"batched\"], \"compare_modes\": "
                        "[[\"batched\", \"per-token\"]]",
         .mode = "batched-vs-per-token"},
    };
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        struct rp_scratch_pair scratch;
        struct rp_verdicts computed;
        rp_scratch_pair_open(&scratch, &specs[i]);
        rp_scratch_pair_judge(&scratch, &computed);
        store_all(&scratch);
        struct rp_verdicts collected = judge_pair(&scratch);
        char *expected = everything(&computed), *found = everything(&collected);
        assert_string_equal(found, expected);
        /* it was collected: the times say so */
        assert_true(collected.engine_s == (scratch.pair.against ? 0 : 1));
        assert_true(collected.tokens_s == 2);
        for (size_t s = 0, n = 0; s < collected.pair.n_slots; s++) {
            assert_true(!collected.pair.slots[s].required || computed.slots_s[s] < 10);
            assert_true(collected.slots_s[s] ==
                        (collected.pair.slots[s].required ? 10 + (double)n++ : 0));
        }
        assert_int_equal(collected.n_replay, scratch.pair.against ? 0 : RP_TINY_LAYERS + 3);
        for (size_t s = 0; s < collected.n_replay; s++) {
            assert_true(computed.replay[s].seconds < 20);
            assert_true(collected.replay[s].seconds == 20 + (double)s);
        }
        free(expected);
        free(found);
        rp_verdicts_free(&computed);
        rp_verdicts_free(&collected);
        rp_scratch_pair_close(&scratch);
    }
}

/* Stores for h2 what its comparison would never say. */
static void store_marked(const struct rp_scratch_pair *scratch)
{
    struct rp_slot_test test;
    struct rp_judge *judge = open_judge(scratch);
    assert_int_equal(rp_judge_slot(judge, "h2", &test, NULL), RP_OK);
    test.compared[0].verdict = RP_FAIL;
    snprintf(test.compared[0].message, sizeof test.compared[0].message, "marked");
    assert_int_equal(rp_store_slot(judge, "h2", &test, NULL), RP_OK);
    rp_slot_test_free(&test);
    close_judge(judge);
}

static bool takes_marked(const struct rp_scratch_pair *scratch)
{
    struct rp_verdicts v = judge_pair(scratch);
    const bool taken = strcmp(rp_slot_of(&v, "h2")->message, "marked") == 0;
    assert_int_equal(v.verdict == RP_FAIL, taken);
    rp_verdicts_free(&v);
    return taken;
}

static void open_clean(struct rp_scratch_pair *scratch, const char *gguf, const char *stores)
{
    rp_scratch_pair_open(scratch, &(struct rp_scratch_spec){.gguf = gguf, .stores = stores});
}

static void what_no_test_has_stored_is_computed(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    open_clean(&scratch, NULL, NULL);
    run_pair(&scratch);
    assert_false(takes_marked(&scratch));
    store_marked(&scratch);
    assert_true(takes_marked(&scratch));
    struct rp_verdicts v = judge_pair(&scratch); /* h2 was stored, nothing else */
    assert_int_equal(rp_slot_of(&v, "h1")->verdict, RP_PASS);
    assert_int_equal(rp_slot_of(&v, "h3_ffnout")->verdict, RP_PASS);
    assert_int_equal(v.pair.tokens.verdict, RP_PASS);
    rp_verdicts_free(&v);
    rp_scratch_pair_close(&scratch);
}

static void path_of_h2(const struct rp_scratch_pair *scratch, char path[RP_PATH_SIZE])
{
    struct rp_pair_paths paths;
    assert_int_equal(rp_pair_paths(&scratch->context, &scratch->pair, &paths, NULL), RP_OK);
    assert_int_equal(rp_path_join(path, RP_PATH_SIZE, paths.verdicts, "h2.json", NULL), RP_OK);
}

static void a_damaged_file_is_an_error_by_name(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    char path[RP_PATH_SIZE];
    struct rp_verdicts verdicts;
    struct rp_error err;
    open_clean(&scratch, NULL, NULL);
    run_pair(&scratch);
    store_marked(&scratch);
    path_of_h2(&scratch, path);
    assert_true(takes_marked(&scratch));
    assert_int_equal(rp_file_write_atomic(path, "{}", 2, NULL), RP_OK);
    struct rp_judge *judge = open_judge(&scratch);
    assert_int_equal(rp_judge_pair(judge, &verdicts, &err), RP_ERR_FORMAT);
    assert_string_equal(err.where, path);
    close_judge(judge);
    rp_scratch_pair_close(&scratch);
}

static void a_verdict_of_an_earlier_run_is_not_used(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    char path[RP_PATH_SIZE], kept[RP_PATH_SIZE + 8], folder[RP_PATH_SIZE];
    open_clean(&scratch, NULL, NULL);
    run_pair(&scratch);
    store_marked(&scratch);
    path_of_h2(&scratch, path);
    snprintf(kept, sizeof kept, "%s/kept", scratch.folder);
    rp_test_copy_file(path, kept);
    run_pair(&scratch);
    assert_false(rp_path_exists(path));
    /* a test of the first run that ends late */
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    assert_int_equal(rp_make_dirs(folder, NULL), RP_OK);
    rp_test_copy_file(kept, path);
    assert_false(takes_marked(&scratch));
    store_marked(&scratch);
    assert_true(takes_marked(&scratch));
    rp_scratch_pair_close(&scratch);
}

static void a_verdict_of_a_model_file_that_was_changed_is_not_used(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    char folder[256], gguf[512];
    rp_test_make_folder(folder);
    snprintf(gguf, sizeof gguf, "%s/model.gguf", folder);
    rp_test_copy_file(RP_SOURCE_DIR "/fixtures/tiny/qwen3/qwen3-bf16.gguf", gguf);
    open_clean(&scratch, gguf, NULL);
    run_pair(&scratch);
    store_marked(&scratch);
    assert_true(takes_marked(&scratch));
    rp_test_copy_file(gguf, gguf);
    assert_false(takes_marked(&scratch));
    rp_scratch_pair_close(&scratch);
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

/* The fixture, copied into a store of the test's own. */
static void copy_fixture(const char *store, char path[RP_PATH_SIZE])
{
    struct rp_scratch_pair scratch;
    char folder[RP_PATH_SIZE];
    static const char root[] = RP_SOURCE_DIR "/fixtures/store/";
    open_clean(&scratch, NULL, NULL);
    run_pair(&scratch);
    struct rp_judge *judge = open_judge(&scratch);
    assert_memory_equal(judge->fixture_path, root, sizeof root - 1);
    assert_int_equal(
        rp_path_join(path, RP_PATH_SIZE, store, judge->fixture_path + sizeof root - 1, NULL),
        RP_OK);
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    assert_int_equal(rp_make_dirs(folder, NULL), RP_OK);
    rp_test_copy_file(judge->fixture_path, path);
    close_judge(judge);
    rp_scratch_pair_close(&scratch);
}

static void a_verdict_of_a_fixture_or_dump_that_was_changed_is_not_used(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    char store[256], stores[300], fixture[RP_PATH_SIZE], slot[RP_PATH_SIZE];
    rp_test_make_folder(store);
    snprintf(stores, sizeof stores, "\"%s\"", store);
    copy_fixture(store, fixture);
    open_clean(&scratch, NULL, stores);
    for (int changes_dump = 0; changes_dump < 2; changes_dump++) {
        run_pair(&scratch);
        store_marked(&scratch);
        assert_true(takes_marked(&scratch));
        struct rp_judge *judge = open_judge(&scratch);
        assert_string_equal(judge->fixture_path, fixture);
        assert_int_equal(rp_path_join(slot, sizeof slot, judge->paths.dump, "h1.npy", NULL), RP_OK);
        close_judge(judge);
        rp_test_copy_file(changes_dump ? slot : fixture, changes_dump ? slot : fixture);
        assert_false(takes_marked(&scratch));
    }
    rp_scratch_pair_close(&scratch);
    assert_int_equal(rp_remove_tree(store, NULL), RP_OK);
}

static void a_verdict_of_another_matrix_is_not_used(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    char path[512];
    open_clean(&scratch, NULL, NULL);
    run_pair(&scratch);
    store_marked(&scratch);
    assert_int_equal(rp_scratch_pair_reopen(&scratch, NULL), RP_OK);
    assert_true(takes_marked(&scratch));
    snprintf(path, sizeof path, "%s/matrix.json", scratch.folder);
    rp_test_copy_file(path, path);
    assert_true(takes_marked(&scratch)); /* this context has read the former one, as its test had */
    assert_int_equal(rp_scratch_pair_reopen(&scratch, NULL), RP_OK);
    assert_false(takes_marked(&scratch));
    store_marked(&scratch);
    assert_true(takes_marked(&scratch));
    setenv("REFPARITY_REQUIRE", "1", 1); /* makes a SKIP an ERROR */
    assert_int_equal(rp_scratch_pair_reopen(&scratch, NULL), RP_OK);
    assert_false(takes_marked(&scratch));
    unsetenv("REFPARITY_REQUIRE");
    rp_scratch_pair_close(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_collected_is_what_would_be_computed),
        cmocka_unit_test(what_no_test_has_stored_is_computed),
        cmocka_unit_test(a_damaged_file_is_an_error_by_name),
        cmocka_unit_test(a_verdict_of_an_earlier_run_is_not_used),
        cmocka_unit_test(a_verdict_of_a_model_file_that_was_changed_is_not_used),
        cmocka_unit_test(a_verdict_of_a_fixture_or_dump_that_was_changed_is_not_used),
        cmocka_unit_test(a_verdict_of_another_matrix_is_not_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
