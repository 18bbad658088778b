/* What an engine could do to look right without being compared, and what could change between the
 * run and its judgement: each is an ERROR, never a PASS, never a SKIP. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "cases/scratch_pair_test_util.h"
#include "matrix/store.h"
#include "run/judge_replay.h"
#include "run/run.h"

#define EMBEDDED                                                                                  \
    "\"{target:refparity-embedded}\", \"--model\", \"{gguf}\", \"--tokens\", \"{tokens_file}\", " \
    "\"--dump\", \"{dump}\""

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("expected \"%s\" in \"%s\"", part, text);
}

static struct rp_verdicts judge_again(struct rp_scratch_pair *scratch)
{
    struct rp_verdicts verdicts;
    struct rp_judge *judge = malloc(sizeof *judge);
    assert_non_null(judge);
    rp_judge_open(&scratch->context, &scratch->pair, judge);
    assert_int_equal(rp_judge_pair(judge, &verdicts, NULL), RP_OK);
    rp_judge_close(judge);
    free(judge);
    return verdicts;
}

static void dumping_position_0_alone_is_an_error(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_verdicts v;
    rp_scratch_pair_open(
        &scratch, &(struct rp_scratch_spec){.argv = "[" EMBEDDED ", \"--positions\", \"0\"]"});
    rp_scratch_pair_judge(&scratch, &v);
    assert_int_equal(v.verdict, RP_ERROR);
    assert_int_equal(rp_slot_of(&v, "h0")->verdict, RP_ERROR);
    assert_contains(rp_slot_of(&v, "h0")->message,
                    "the engine's dump lacks 23 of 24 positions, the "
                    "first 1");
    assert_int_equal(rp_slot_of(&v, "logits")->verdict, RP_ERROR);
    rp_verdicts_free(&v);
    rp_scratch_pair_close(&scratch);
}

static void an_entry_may_ask_for_some_positions(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_verdicts v;
    rp_scratch_pair_open(&scratch, &(struct rp_scratch_spec){
                                       .argv = "[" EMBEDDED ", \"--positions\", \"{positions}\"]",
                                       .entry_extra = ", \"positions\": [0, 7]"});
    rp_scratch_pair_judge(&scratch, &v);
    assert_int_equal(v.verdict, RP_PASS);
    assert_int_equal(rp_slot_of(&v, "h0")->n_compared, 2);
    rp_verdicts_free(&v);
    rp_scratch_pair_close(&scratch);
}

/* Runs, then replaces h1 of the dump by the same content, and judges again. */
static struct rp_verdicts judge_touched(const struct rp_scratch_spec *spec)
{
    struct rp_scratch_pair scratch;
    struct rp_verdicts v;
    struct rp_pair run;
    struct rp_pair_paths paths;
    char path[RP_PATH_SIZE + 16];
    rp_scratch_pair_open(&scratch, spec);
    rp_scratch_pair_judge(&scratch, &v);
    assert_int_equal(v.verdict, RP_PASS);
    rp_verdicts_free(&v);
    run = scratch.pair;
    if (run.against)
        rp_pair_of_mode(&scratch.pair, 1, &run);
    assert_int_equal(rp_pair_paths(&scratch.context, &run, &paths, NULL), RP_OK);
    snprintf(path, sizeof path, "%s/h1.npy", paths.dump);
    char *bytes;
    size_t n;
    assert_int_equal(rp_file_read(path, 1 << 20, &bytes, &n, NULL), RP_OK);
    assert_int_equal(rp_file_write_atomic(path, bytes, n, NULL), RP_OK);
    free(bytes);
    v = judge_again(&scratch);
    rp_scratch_pair_close(&scratch);
    return v;
}

static void a_dump_that_changes_after_the_run_is_an_error(void **state)
{
    (void)state;
    struct rp_verdicts v = judge_touched(&(struct rp_scratch_spec){0});
    assert_int_equal(v.verdict, RP_ERROR);
    assert_contains(rp_slot_of(&v, "h0")->message, "the dump has changed since the engine ended");
    rp_verdicts_free(&v);
}

#define BY_IDS                                                                              \
    "[\"{target:refparity-embedded}\", \"--model\", \"{gguf}\", \"--ids\", "                \
    "\"457,220,398,291,74\", \"--mode\", \"{mode}\", \"--dump\", \"{dump}\", \"--slots\", " \
    "\"{slots}\"]"
#define MODES ", \"modes\": [\"per-token\", \"batched\"]"

static void so_it_is_where_modes_are_compared_or_a_dump_is_replayed(void **state)
{
    (void)state;
    struct rp_verdicts v = judge_touched(&(struct rp_scratch_spec){
        .argv = BY_IDS,
        .entry_extra = MODES ", \"compare_modes\": [[\"batched\", \"per-token\"]]",
        .mode = "batched-vs-per-token",
        .stores = ""});
    assert_int_equal(v.verdict, RP_ERROR);
    assert_contains(rp_slot_of(&v, "h0")->message, "the dump has changed since the engine ended");
    rp_verdicts_free(&v);
    v = judge_touched(&(struct rp_scratch_spec){.argv = BY_IDS,
                                                .entry_extra = MODES ", \"replay\": true",
                                                .mode = "batched",
                                                .stores = ""});
    assert_int_equal(v.verdict, RP_ERROR);
    assert_int_equal(v.replay[1].judgement.verdict, RP_ERROR);
    assert_contains(v.replay[1].judgement.message, "the dump has changed since the engine ended");
    rp_verdicts_free(&v);
}

/* With REFPARITY_REQUIRE. */
static void a_fixture_that_nothing_needs_is_not_required(void **state)
{
    (void)state;
    static const char *const used[] = {MODES ", \"replay\": true", MODES};
    for (size_t i = 0; i < 2; i++) {
        struct rp_scratch_pair scratch;
        struct rp_verdicts v;
        rp_scratch_pair_open(
            &scratch, &(struct rp_scratch_spec){
                          .argv = BY_IDS, .entry_extra = used[i], .mode = "batched", .stores = ""});
        scratch.context.require = 1;
        rp_scratch_pair_judge(&scratch, &v);
        assert_int_equal(v.verdict, i == 0 ? RP_PASS : RP_ERROR);
        rp_verdicts_free(&v);
        rp_scratch_pair_close(&scratch);
    }
}

/* A replay of position 0 shows nothing of RoPE, mask and cache. */
static void a_replay_of_position_0_alone_is_no_pass(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_verdicts v;
    rp_scratch_pair_open(&scratch, &(struct rp_scratch_spec){
                                       .argv = "[" EMBEDDED ", \"--positions\", "
                                               "\"{positions}\", \"--slots\", \"{slots}\"]",
                                       .entry_extra = ", \"positions\": [0], \"replay\": true"});
    rp_scratch_pair_judge(&scratch, &v);
    assert_int_equal(v.verdict, RP_ERROR);
    assert_int_equal(v.replay[1].judgement.verdict, RP_ERROR);
    assert_contains(v.replay[1].judgement.message, "has position 0 alone");
    rp_verdicts_free(&v);
    rp_scratch_pair_close(&scratch);
}

/* Runs the pair in a process of its own and returns how that ended, as waitpid has it. kill_at: a file
 * whose appearance gets that process killed; NULL: nothing does. */
static int run_in_child(const struct rp_scratch_pair *scratch, const char *kill_at)
{
    int status;
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct rp_run_record record;
        _exit(rp_run_pair(&scratch->context, &scratch->pair, &record, NULL) ? 1 : 0);
    }
    for (int i = 0; kill_at && i < 1000 && !rp_path_exists(kill_at); i++)
        usleep(10000);
    if (kill_at)
        kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void a_run_that_was_killed_with_its_engine_is_an_error(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    /* the parent's parent: the engine's own is its supervisor */
    rp_scratch_pair_open(
        &scratch,
        &(struct rp_scratch_spec){
            .argv =
                "[\"sh\", \"-c\", \"read _ _ _ p _ </proc/$PPID/stat; kill -KILL $p; sleep 100\", "
                "\"{tokens_file}\", \"{dump}\"]"});
    assert_true(WIFSIGNALED(run_in_child(&scratch, NULL)));
    struct rp_verdicts v = judge_again(&scratch);
    assert_int_equal(v.verdict, RP_ERROR);
    assert_contains(v.engine.message, "run was interrupted");
    rp_verdicts_free(&v);
    rp_scratch_pair_close(&scratch);
}

static void an_engine_that_kills_its_supervisor_is_an_error(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    rp_scratch_pair_open(
        &scratch,
        &(struct rp_scratch_spec){
            .argv = "[\"sh\", \"-c\", \"\\\"$@\\\"; kill -KILL $PPID\", \"sh\", " EMBEDDED "]"});
    assert_int_equal(run_in_child(&scratch, NULL), 0);
    struct rp_verdicts v = judge_again(&scratch);
    assert_int_equal(v.verdict, RP_ERROR);
    assert_contains(v.engine.message, "the process that watches it was killed");
    rp_verdicts_free(&v);
    rp_scratch_pair_close(&scratch);
}

/* The first run's engine leaves its session and, as long as it lives, writes into the dump folder that
 * it was given and into the one of the pair; its case is killed. */
static void an_engine_whose_case_was_killed_writes_into_no_later_dump(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_verdicts v;
    struct rp_pair_paths paths;
    char began[RP_PATH_SIZE + 16], alive[RP_PATH_SIZE + 16], stray[RP_PATH_SIZE + 16];
    rp_scratch_pair_open(
        &scratch,
        &(struct rp_scratch_spec){
            .argv = "[\"sh\", \"-c\", \"D=$1; shift; test -e began && exec \\\"$@\\\"; "
                    "export D; setsid sh -c 'touch began; while :; do sleep 0.01; touch alive; "
                    "for d in $D dump*; do touch $d/stray; done; done'; wait\", \"sh\", "
                    "\"{dump}\", " EMBEDDED "]"});
    assert_int_equal(rp_pair_paths(&scratch.context, &scratch.pair, &paths, NULL), RP_OK);
    snprintf(began, sizeof began, "%s/began", paths.dir);
    snprintf(alive, sizeof alive, "%s/alive", paths.dir);
    snprintf(stray, sizeof stray, "%s/stray", paths.dump);
    assert_true(WIFSIGNALED(run_in_child(&scratch, began)));
    rp_scratch_pair_judge(&scratch, &v); /* waits until nothing is left of the first run */
    (void)unlink(alive);
    usleep(100000);
    assert_false(rp_path_exists(alive));
    assert_false(rp_path_exists(stray));
    assert_int_equal(v.verdict, RP_PASS);
    rp_verdicts_free(&v);
    rp_scratch_pair_close(&scratch);
}

static void a_program_that_cannot_be_started_is_an_error_not_a_skip(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_verdicts v;
    char path[512];
    static const char script[] = "#!/no/such/interpreter\n";
    rp_scratch_pair_open(&scratch,
                         &(struct rp_scratch_spec){
                             .argv = "[\"{env:RP_TEST_PROGRAM}\", \"{tokens_file}\", \"{dump}\"]"});
    snprintf(path, sizeof path, "%s/engine", scratch.folder);
    assert_int_equal(rp_file_write_atomic(path, script, sizeof script - 1, NULL), RP_OK);
    char *argv[] = {"chmod", "+x", path, NULL};
    const struct rp_process_spec chmod_it = {.argv = argv, .timeout_s = 10};
    struct rp_process_result result;
    assert_int_equal(rp_process_run(&chmod_it, &result, NULL), RP_OK);
    setenv("RP_TEST_PROGRAM", path, 1);
    rp_scratch_pair_judge(&scratch, &v);
    assert_int_equal(v.verdict, RP_ERROR);
    assert_contains(v.engine.message, "cannot be started");
    rp_verdicts_free(&v);
    unsetenv("RP_TEST_PROGRAM");
    rp_scratch_pair_close(&scratch);
}

/* The fixture of "Hello", in the place of another prompt's. */
static void a_fixture_of_another_prompt_is_an_error_that_says_how_to_record_it(void **state)
{
    (void)state;
    static const char prompt[] = "A prompt that nobody recorded";
    struct rp_scratch_pair scratch;
    struct rp_verdicts v;
    char relative[512], path[1024], *bytes;
    size_t n;
    rp_scratch_pair_open(&scratch,
                         &(struct rp_scratch_spec){.prompt = "\"A prompt that nobody recorded\""});
    assert_int_equal(
        rp_store_path("tiny/qwen3", "main", "float32", "Hello", 5, relative, sizeof relative, NULL),
        RP_OK);
    snprintf(path, sizeof path, "%s/fixtures/store/%s", RP_SOURCE_DIR, relative);
    assert_int_equal(rp_file_read(path, 1 << 20, &bytes, &n, NULL), RP_OK);
    assert_int_equal(rp_store_path("tiny/qwen3", "main", "float32", prompt, sizeof prompt - 1,
                                   relative, sizeof relative, NULL),
                     RP_OK);
    snprintf(path, sizeof path, "%s/%s", scratch.folder, relative);
    *strrchr(path, '/') = '\0';
    assert_int_equal(rp_make_dirs(path, NULL), RP_OK);
    snprintf(path, sizeof path, "%s/%s", scratch.folder, relative);
    assert_int_equal(rp_file_write_atomic(path, bytes, n, NULL), RP_OK);
    free(bytes);
    rp_scratch_pair_judge(&scratch, &v);
    assert_int_equal(v.verdict, RP_ERROR);
    assert_contains(v.engine.message, "the fixture was recorded with prompt_sha256 ");
    assert_contains(v.engine.message, "record it again with `ci/record.sh tiny --force`");
    rp_verdicts_free(&v);
    rp_scratch_pair_close(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dumping_position_0_alone_is_an_error),
        cmocka_unit_test(an_entry_may_ask_for_some_positions),
        cmocka_unit_test(a_dump_that_changes_after_the_run_is_an_error),
        cmocka_unit_test(so_it_is_where_modes_are_compared_or_a_dump_is_replayed),
        cmocka_unit_test(a_fixture_that_nothing_needs_is_not_required),
        cmocka_unit_test(a_replay_of_position_0_alone_is_no_pass),
        cmocka_unit_test(a_run_that_was_killed_with_its_engine_is_an_error),
        cmocka_unit_test(an_engine_that_kills_its_supervisor_is_an_error),
        cmocka_unit_test(an_engine_whose_case_was_killed_writes_into_no_later_dump),
        cmocka_unit_test(a_program_that_cannot_be_started_is_an_error_not_a_skip),
        cmocka_unit_test(a_fixture_of_another_prompt_is_an_error_that_says_how_to_record_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
