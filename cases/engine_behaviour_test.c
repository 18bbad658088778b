/* What an engine may do to us, each as a result that is reported well: the real embedded engine,
 * alone or wrapped in a shell that breaks it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utime.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "cases/scratch_pair_test_util.h"
#include "run/run.h"

/* A shell that runs the engine, and then what: in it, $D is the dump folder. */
#define WRAPPED(what)                                                                             \
    "[\"sh\", \"-c\", \"D=$1; shift; \\\"$@\\\"; " what "\", \"sh\", \"{dump}\", "                \
    "\"{target:refparity-embedded}\", \"--model\", \"{gguf}\", \"--tokens\", \"{tokens_file}\", " \
    "\"--dump\", \"{dump}\"]"

static struct rp_verdicts judge(const struct rp_scratch_spec *spec)
{
    struct rp_scratch_pair scratch;
    struct rp_verdicts verdicts;
    rp_scratch_pair_open(&scratch, spec);
    rp_scratch_pair_judge(&scratch, &verdicts);
    rp_scratch_pair_close(&scratch);
    return verdicts;
}

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("expected \"%s\" in \"%s\"", part, text);
}

/* Every required slot, and the tokens, pass. */
static void assert_all_pass(const struct rp_verdicts *v)
{
    assert_int_equal(v->pair.tokens.verdict, RP_PASS);
    assert_int_equal(v->pair.verdict, RP_PASS);
    size_t n_required = 0;
    for (size_t i = 0; i < v->pair.n_slots; i++) {
        n_required += v->pair.slots[i].required != 0;
        assert_int_equal(v->pair.slots[i].verdict, RP_PASS);
    }
    assert_int_equal(n_required, RP_TINY_LAYERS + 3);
}

static void a_clean_engine_passes(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(&(struct rp_scratch_spec){0});
    assert_int_equal(v.verdict, RP_PASS);
    assert_int_equal(v.engine.verdict, RP_PASS);
    assert_all_pass(&v);
    assert_string_equal(v.divergence.slot, "");
    rp_verdicts_free(&v);
}

static void an_engine_that_exits_with_1_and_dumps_nothing_is_an_error(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(&(struct rp_scratch_spec){
        .argv = "[\"sh\", \"-c\", \"echo no such model; exit 1\", \"{dump}\"]"});
    assert_int_equal(v.verdict, RP_ERROR);
    assert_int_equal(v.engine.verdict, RP_ERROR);
    assert_contains(v.engine.message, "engine test exited with 1 after");
    assert_int_equal(rp_slot_of(&v, "h0")->verdict, RP_ERROR);
    rp_verdicts_free(&v);
}

static void a_killed_engine_is_an_error_that_names_the_signal(void **state)
{
    (void)state;
    struct rp_verdicts v =
        judge(&(struct rp_scratch_spec){.argv = "[\"sh\", \"-c\", \"kill -KILL $$\", \"{dump}\"]"});
    assert_int_equal(v.verdict, RP_ERROR);
    assert_contains(v.engine.message, "was killed by signal 9 (Killed)");
    rp_verdicts_free(&v);
}

static void a_hanging_engine_is_killed_at_its_time_limit_with_its_children(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(
        &(struct rp_scratch_spec){.argv = "[\"sh\", \"-c\", \"sleep 600 & sleep 600\", \"{dump}\"]",
                                  .engine_extra = ", \"timeout_s\": 0.3"});
    assert_int_equal(v.verdict, RP_ERROR);
    assert_contains(v.engine.message, "ran into its time limit of 0.3 s and was killed");
    rp_verdicts_free(&v);
}

static void a_crash_after_complete_dumps_hides_no_layer(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(&(struct rp_scratch_spec){.argv = WRAPPED("kill -SEGV $$")});
    assert_int_equal(v.verdict, RP_ERROR);
    assert_int_equal(v.engine.verdict, RP_ERROR);
    assert_contains(v.engine.message, "was killed by signal 11 (Segmentation fault)");
    assert_all_pass(&v);
    rp_verdicts_free(&v);
}

static void a_slot_that_a_crash_cut_short_is_an_error_and_the_others_are_judged(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(&(struct rp_scratch_spec){
        .argv = WRAPPED("truncate -s -100 $D/h2.npy; rm $D/logits.npy; kill -ABRT $$")});
    assert_int_equal(v.verdict, RP_ERROR);
    assert_int_equal(rp_slot_of(&v, "h1")->verdict, RP_PASS);
    assert_int_equal(rp_slot_of(&v, "h2")->verdict, RP_ERROR);
    assert_contains(rp_slot_of(&v, "h2")->message, "h2.npy");
    assert_contains(rp_slot_of(&v, "h2")->message, "(the engine was killed by signal 6");
    assert_int_equal(rp_slot_of(&v, "h3")->verdict, RP_PASS);
    assert_int_equal(rp_slot_of(&v, "logits")->verdict, RP_ERROR);
    assert_contains(rp_slot_of(&v, "logits")->message,
                    "missing: the engine's dump has no logits (the engine was killed");
    rp_verdicts_free(&v);
}

static void a_dump_that_was_not_closed_is_an_error_of_the_engine_alone(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(&(struct rp_scratch_spec){
        .argv =
            WRAPPED("sed -i 's/\\\\\\\"complete\\\\\\\": true/\\\\\\\"complete\\\\\\\": false/' "
                    "$D/dump.json")});
    assert_int_equal(v.verdict, RP_ERROR);
    assert_int_equal(v.engine.verdict, RP_ERROR);
    assert_contains(v.engine.message, "left its dump incomplete: rp_dump_close was not reached");
    assert_all_pass(&v);
    rp_verdicts_free(&v);
}

static void an_engine_that_prints_100_MB_passes_and_its_log_stays_small(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_verdicts v;
    struct rp_pair_paths paths;
    struct stat log;
    rp_scratch_pair_open(
        &scratch,
        &(struct rp_scratch_spec){.argv = WRAPPED("head -c 100000000 /dev/zero; echo the end")});
    rp_scratch_pair_judge(&scratch, &v);
    assert_int_equal(v.verdict, RP_PASS);
    assert_int_equal(rp_pair_paths(&scratch.context, &scratch.pair, &paths, NULL), RP_OK);
    assert_int_equal(stat(paths.log, &log), 0);
    assert_true(log.st_size > RP_LOG_HEAD + RP_LOG_TAIL);
    assert_true(log.st_size < RP_LOG_HEAD + RP_LOG_TAIL + 100);
    rp_verdicts_free(&v);
    rp_scratch_pair_close(&scratch);
}

static void an_engine_that_writes_nothing_is_an_error_not_a_pass(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(&(struct rp_scratch_spec){.argv = "[\"true\", \"{dump}\"]"});
    assert_int_equal(v.verdict, RP_ERROR);
    assert_int_equal(rp_slot_of(&v, "emb")->verdict, RP_ERROR);
    rp_verdicts_free(&v);
}

static void NaN_in_a_slot_fails_it_and_names_the_place(void **state)
{
    (void)state;
    /* h1.npy: a header of some bytes, then [10][64]; its last value becomes a NaN. */
    struct rp_verdicts v = judge(&(struct rp_scratch_spec){
        .argv = WRAPPED(
            "truncate -s -4 $D/h1.npy; printf '\\\\000\\\\000\\\\300\\\\177' >> $D/h1.npy")});
    const struct rp_slot_result *h1 = rp_slot_of(&v, "h1");
    assert_int_equal(v.verdict, RP_FAIL);
    assert_int_equal(h1->verdict, RP_FAIL);
    assert_int_equal(h1->n_failing, 1);
    assert_contains(h1->message, "1 NaN and 0 infinite of 64 values at position ");
    assert_contains(h1->message, "the first in channel 63");
    assert_string_equal(v.divergence.slot, "h1");
    rp_verdicts_free(&v);
}

static void a_truncated_prompt_fails_the_tokens_and_the_layers_are_not_comparable(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(&(struct rp_scratch_spec){
        .argv =
            "[\"sh\", \"-c\", \"sed -i '$d' $2; D=$1; shift 2; \\\"$@\\\"\", \"sh\", \"{dump}\", "
            "\"{tokens_file}\", \"{target:refparity-embedded}\", \"--model\", \"{gguf}\", "
            "\"--tokens\", \"{tokens_file}\", \"--dump\", \"{dump}\"]"});
    assert_int_equal(v.verdict, RP_FAIL);
    assert_int_equal(v.pair.tokens.verdict, RP_FAIL);
    assert_contains(v.pair.tokens.message, "the engine's prompt is truncated");
    assert_int_equal(rp_slot_of(&v, "h3")->verdict, RP_SKIP);
    assert_contains(rp_slot_of(&v, "h3")->message, "not comparable: token ids differ");
    rp_verdicts_free(&v);
}

static void n_layers_that_the_GGUF_contradicts_is_an_error_before_anything_runs(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(&(struct rp_scratch_spec){.n_layers = 3});
    assert_int_equal(v.verdict, RP_ERROR);
    assert_contains(v.engine.message, "the GGUF has 4 layers, the matrix says n_layers 3");
    rp_verdicts_free(&v);
}

static void n_layers_that_the_fixture_contradicts_is_the_matrixs_to_mend(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(&(struct rp_scratch_spec){
        .n_layers = 8, .gguf = RP_SOURCE_DIR "/fixtures/tiny/qwen35/qwen35-bf16.gguf"});
    assert_int_equal(v.verdict, RP_ERROR);
    assert_contains(v.engine.message,
                    "the fixture has 4 layers, the matrix says n_layers 8: mend n_layers");
    rp_verdicts_free(&v);
}

static void a_dump_of_fewer_layers_is_an_error(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(&(struct rp_scratch_spec){
        .argv = WRAPPED("sed -i 's/\\\\\\\"n_layers\\\\\\\": 4/\\\\\\\"n_layers\\\\\\\": 3/' "
                        "$D/dump.json")});
    assert_int_equal(v.verdict, RP_ERROR);
    assert_contains(rp_slot_of(&v, "h0")->message,
                    "the dump has 3 layers, the matrix says n_layers 4");
    rp_verdicts_free(&v);
}

static void a_dump_of_more_layers_is_an_error_that_counts_them(void **state)
{
    (void)state;
    struct rp_verdicts v =
        judge(&(struct rp_scratch_spec){.argv = WRAPPED("cp $D/h3.npy $D/h4.npy")});
    assert_int_equal(v.verdict, RP_ERROR);
    assert_contains(rp_slot_of(&v, "h0")->message,
                    "the dump has 5 layers, h4 is its last, the matrix says n_layers 4");
    rp_verdicts_free(&v);
}

static void a_missing_program_a_missing_fixture_and_a_missing_variable_are_skips(void **state)
{
    (void)state;
    const struct {
        struct rp_scratch_spec spec;
        const char *message;
    } cases[] = {
        {{.argv = "[\"no-such-engine\", \"{dump}\"]"}, "no-such-engine: no such program in PATH"},
        {{.argv = "[\"{env:REFPARITY_NO_SUCH_ENGINE}\", \"{dump}\"]"}, "REFPARITY_NO_SUCH_ENGINE"},
        {{.argv = "[\"{target:no-such-target}\", \"{dump}\"]",
          .engine_extra = ", \"how_to_get\": \"run ci/get-it.sh\""},
         "the build makes no target no-such-target; to get this engine, run ci/get-it.sh"},
        {{.argv = "[\"no-such-engine\", \"{dump}\"]",
          .engine_extra = ", \"how_to_get\": \"run ci/get-it.sh\""},
         "no-such-engine: no such program in PATH; to get this engine, run ci/get-it.sh"},
        {{.prompt = "\"A prompt that nobody recorded\""}, "record it with `ci/record.sh tiny`"},
        {{.entry_extra = ", \"_disabled\": \"until the driver is fixed\""},
         "disabled in the matrix: until the driver is fixed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rp_verdicts v = judge(&cases[i].spec);
        assert_int_equal(v.verdict, RP_SKIP);
        assert_int_equal(v.engine.verdict, RP_SKIP);
        assert_int_equal(rp_slot_of(&v, "logits")->verdict, RP_SKIP);
        assert_contains(v.engine.message, cases[i].message);
        rp_verdicts_free(&v);
    }
}

/* What is there and cannot be had is broken, not missing. */
static void what_is_there_without_permission_is_an_error(void **state)
{
    (void)state;
    char folder[256], path[300], stores[320], argv[400];
    rp_test_make_folder(folder);
    rp_test_write_file(folder, "engine", "#!/bin/sh\n", 10);
    snprintf(path, sizeof path, "%s/loop", folder); /* root may look into every folder */
    assert_int_equal(symlink(path, path), 0);
    snprintf(stores, sizeof stores, "\"%s\"", path);
    snprintf(argv, sizeof argv, "[\"%s/engine\", \"{dump}\"]", folder);
    const struct rp_scratch_spec specs[] = {{.argv = argv}, {.stores = stores}, {.gguf = "m.gguf"}};
    static const char *const messages[] = {"it is there, but may not be run: Permission denied",
                                           "Too many levels of symbolic links",
                                           "Too many levels of symbolic links"};
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        struct rp_scratch_pair scratch;
        struct rp_verdicts v;
        rp_scratch_pair_open(&scratch, &specs[i]);
        scratch.context.models_dir = path;
        rp_scratch_pair_judge(&scratch, &v);
        assert_int_equal(v.verdict, RP_ERROR);
        assert_contains(v.engine.message, messages[i]);
        rp_verdicts_free(&v);
        rp_scratch_pair_close(&scratch);
    }
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

static void a_command_is_one_line_that_a_shell_reads_as_it_was(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_run_record record;
    char script[RP_PATH_SIZE + 9000], path[512], *text;
    size_t length;
    rp_scratch_pair_open(&scratch,
                         &(struct rp_scratch_spec){
                             .argv = "[\"printf\", \"%s|\", \"a\\nrefparity: SKIP: b\\\\c'd\\t\", "
                                     "\"it's\", \"{tokens_file}\", \"{dump}\"]"});
    assert_int_equal(rp_run_pair(&scratch.context, &scratch.pair, &record, NULL), RP_OK);
    assert_null(strchr(record.command, '\n'));
    snprintf(path, sizeof path, "%s/out", scratch.folder);
    snprintf(script, sizeof script, "(%s) >%s", record.command, path);
    char *argv[] = {"bash", "-c", script, NULL};
    const struct rp_process_spec spec = {.argv = argv, .timeout_s = 10};
    struct rp_process_result result;
    assert_int_equal(rp_process_run(&spec, &result, NULL), RP_OK);
    assert_int_equal(rp_file_read(path, 10000, &text, &length, NULL), RP_OK);
    assert_int_equal(strncmp(text, "a\nrefparity: SKIP: b\\c'd\t|it's|/", 32), 0);
    free(text);
    rp_scratch_pair_close(&scratch);
}

static void REQUIRE_turns_a_skip_into_an_error(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_verdicts v;
    rp_scratch_pair_open(&scratch,
                         &(struct rp_scratch_spec){.argv = "[\"no-such-engine\", \"{dump}\"]"});
    scratch.context.require = 1;
    rp_scratch_pair_judge(&scratch, &v);
    assert_int_equal(v.verdict, RP_ERROR);
    rp_verdicts_free(&v);
    rp_scratch_pair_close(&scratch);
}

static void a_dump_of_another_prompt_fails_the_tokens(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_verdicts v;
    rp_scratch_pair_open(
        &scratch,
        &(struct rp_scratch_spec){
            .argv =
                "[\"{target:refparity-embedded}\", \"--model\", \"{gguf}\", \"--ids\", \"5,6,7\", "
                "\"--dump\", \"{dump}\"]"});
    rp_scratch_pair_judge(&scratch, &v);
    assert_int_equal(v.verdict, RP_FAIL);
    assert_int_equal(v.pair.tokens.verdict, RP_FAIL);
    assert_contains(v.pair.tokens.message, "token ids differ from position 0 on");
    rp_verdicts_free(&v);
    rp_scratch_pair_close(&scratch);
}

/* Old dumps can never be compared with a new run: the second engine writes nothing, and what the
 * first one wrote is gone. */
static void a_new_run_never_sees_an_old_dump(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_verdicts v;
    rp_scratch_pair_open(
        &scratch,
        &(struct rp_scratch_spec){
            .argv = "[\"sh\", \"-c\", \"test -e again && exit; touch again; exec \\\"$@\\\"\", "
                    "\"sh\", "
                    "\"{target:refparity-embedded}\", \"--model\", \"{gguf}\", \"--tokens\", "
                    "\"{tokens_file}\", \"--dump\", \"{dump}\"]"});
    rp_scratch_pair_judge(&scratch, &v);
    assert_int_equal(v.verdict, RP_PASS);
    rp_verdicts_free(&v);
    rp_scratch_pair_judge(&scratch, &v);
    assert_int_equal(v.verdict, RP_ERROR);
    rp_verdicts_free(&v);
    rp_scratch_pair_close(&scratch);
}

static void an_interrupted_run_leaves_nothing_to_judge(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_verdicts v;
    struct rp_pair_paths paths;
    rp_scratch_pair_open(&scratch, &(struct rp_scratch_spec){0});
    rp_scratch_pair_judge(&scratch, &v);
    rp_verdicts_free(&v);
    assert_int_equal(rp_pair_paths(&scratch.context, &scratch.pair, &paths, NULL), RP_OK);
    assert_int_equal(remove(paths.record), 0);
    struct rp_judge *opened = malloc(sizeof *opened);
    assert_non_null(opened);
    rp_judge_open(&scratch.context, &scratch.pair, opened);
    assert_int_equal(opened->prerequisites.verdict, RP_ERROR);
    assert_contains(opened->prerequisites.message, "the engine has not been run to the end");
    rp_judge_close(opened);
    free(opened);
    rp_scratch_pair_close(&scratch);
}

/* ---- REFPARITY_REUSE_DUMPS ---- */

static enum rp_run_outcome run_once(struct rp_scratch_pair *scratch)
{
    struct rp_run_record record;
    struct rp_error err;
    if (rp_run_pair(&scratch->context, &scratch->pair, &record, &err))
        fail_msg("%s", err.message);
    return record.outcome;
}

static void models_are_looked_for_in_the_users_cache_by_default(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_verdicts v;
    const char *before = getenv("XDG_CACHE_HOME");
    setenv("XDG_CACHE_HOME", "/nowhere/cache", 1);
    rp_scratch_pair_open(
        &scratch, &(struct rp_scratch_spec){.gguf = "m.gguf",
                                            .entry_extra = ", \"how_to_get\": \"run get.sh\""});
    assert_string_equal(scratch.context.models_dir, "/nowhere/cache/refparity/models");
    rp_scratch_pair_judge(&scratch, &v);
    assert_int_equal(v.verdict, RP_SKIP);
    assert_contains(rp_slot_of(&v, "h0")->message,
                    "there is no m.gguf: to get it, run get.sh; looked for "
                    "/nowhere/cache/refparity/models/m.gguf and ");
    rp_verdicts_free(&v);
    rp_scratch_pair_close(&scratch);
    if (before)
        setenv("XDG_CACHE_HOME", before, 1);
    else
        unsetenv("XDG_CACHE_HOME");
}

static void a_dump_is_reused_while_its_inputs_are_the_same_by_content(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    char script[512];
    rp_scratch_pair_open(
        &scratch, &(struct rp_scratch_spec){
                      .argv = "[\"sh\", \"{env:RP_TEST_SCRIPT}\", \"{target:refparity-embedded}\", "
                              "\"--model\", \"{gguf}\", \"--tokens\", \"{tokens_file}\", "
                              "\"--dump\", \"{dump}\", \"--slots\", \"{slots}\"]"});
    snprintf(script, sizeof script, "%s/engine.sh", scratch.folder);
    setenv("RP_TEST_SCRIPT", script, 1);
    assert_int_equal(rp_file_write_atomic(script, "exec \"$@\"\n", 10, NULL), RP_OK);
    scratch.context.reuse = 1;
    assert_int_equal(run_once(&scratch), RP_RUN_RAN);
    assert_int_equal(run_once(&scratch), RP_RUN_REUSED);
    /* other slots */
    struct rp_entry operations = *scratch.pair.entry;
    operations.slots.compared = RP_SLOTS_OPERATIONS;
    scratch.pair.entry = &operations;
    assert_int_equal(run_once(&scratch), RP_RUN_RAN);
    assert_int_equal(run_once(&scratch), RP_RUN_REUSED);
    /* another time of modification, the same content */
    struct utimbuf later = {.actime = 2000000000, .modtime = 2000000000};
    assert_int_equal(utime(script, &later), 0);
    assert_int_equal(run_once(&scratch), RP_RUN_REUSED);
    /* another content */
    assert_int_equal(rp_file_write_atomic(script, "exec \"$@\" \n", 11, NULL), RP_OK);
    assert_int_equal(run_once(&scratch), RP_RUN_RAN);
    assert_int_equal(run_once(&scratch), RP_RUN_REUSED);
    /* not asked for */
    scratch.context.reuse = 0;
    assert_int_equal(run_once(&scratch), RP_RUN_RAN);
    unsetenv("RP_TEST_SCRIPT");
    rp_scratch_pair_close(&scratch);
}

/* As after touch, chmod, or tar: nobody can tell what else has happened to it. */
static void a_dump_that_has_changed_is_made_again_not_complained_about(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_verdicts v;
    struct rp_pair_paths paths;
    char path[RP_PATH_SIZE + 16];
    rp_scratch_pair_open(&scratch, &(struct rp_scratch_spec){0});
    scratch.context.reuse = 1;
    assert_int_equal(rp_pair_paths(&scratch.context, &scratch.pair, &paths, NULL), RP_OK);
    snprintf(path, sizeof path, "%s/h1.npy", paths.dump);
    assert_int_equal(run_once(&scratch), RP_RUN_RAN);
    assert_int_equal(run_once(&scratch), RP_RUN_REUSED);
    assert_int_equal(utime(path, NULL), 0);
    assert_int_equal(run_once(&scratch), RP_RUN_RAN);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(run_once(&scratch), RP_RUN_RAN);
    assert_int_equal(run_once(&scratch), RP_RUN_REUSED);
    assert_int_equal(unlink(path), 0);
    rp_scratch_pair_judge(&scratch, &v);
    assert_int_equal(v.verdict, RP_PASS);
    rp_verdicts_free(&v);
    rp_scratch_pair_close(&scratch);
}

/* The script stays as it is, and starts another program than before. */
static void the_dump_of_an_engine_behind_a_script_is_not_reused(void **state)
{
    (void)state;
    static const char text[] = "#!/bin/sh\nexec \"$RP_TEST_ENGINE\" \"$@\"\n";
    static const char *const argv[] = {"[\"{env:RP_TEST_SCRIPT}\"",
                                       "[\"sh\", \"{env:RP_TEST_SCRIPT}\""};
    for (size_t i = 0; i < 2; i++) {
        struct rp_scratch_pair scratch;
        char script[512], command[512];
        snprintf(command, sizeof command,
                 "%s, \"--model\", \"{gguf}\", \"--tokens\", \"{tokens_file}\", \"--dump\", "
                 "\"{dump}\", \"--slots\", \"{slots}\"]",
                 argv[i]);
        rp_scratch_pair_open(&scratch, &(struct rp_scratch_spec){.argv = command});
        snprintf(script, sizeof script, "%s/engine.sh", scratch.folder);
        setenv("RP_TEST_SCRIPT", script, 1);
        setenv("RP_TEST_ENGINE", RP_EMBEDDED, 1);
        assert_int_equal(rp_file_write_atomic(script, text, sizeof text - 1, NULL), RP_OK);
        assert_int_equal(chmod(script, 0700), 0);
        scratch.context.reuse = 1;
        assert_int_equal(run_once(&scratch), RP_RUN_RAN);
        assert_int_equal(run_once(&scratch), RP_RUN_RAN);
        unsetenv("RP_TEST_SCRIPT");
        unsetenv("RP_TEST_ENGINE");
        rp_scratch_pair_close(&scratch);
    }
}

static void the_dump_of_a_failed_run_is_not_reused(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    rp_scratch_pair_open(&scratch, &(struct rp_scratch_spec){.argv = WRAPPED("exit 3")});
    scratch.context.reuse = 1;
    assert_int_equal(run_once(&scratch), RP_RUN_RAN);
    assert_int_equal(run_once(&scratch), RP_RUN_RAN);
    rp_scratch_pair_close(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_clean_engine_passes),
        cmocka_unit_test(an_engine_that_exits_with_1_and_dumps_nothing_is_an_error),
        cmocka_unit_test(a_killed_engine_is_an_error_that_names_the_signal),
        cmocka_unit_test(a_hanging_engine_is_killed_at_its_time_limit_with_its_children),
        cmocka_unit_test(a_crash_after_complete_dumps_hides_no_layer),
        cmocka_unit_test(a_slot_that_a_crash_cut_short_is_an_error_and_the_others_are_judged),
        cmocka_unit_test(a_dump_that_was_not_closed_is_an_error_of_the_engine_alone),
        cmocka_unit_test(an_engine_that_prints_100_MB_passes_and_its_log_stays_small),
        cmocka_unit_test(an_engine_that_writes_nothing_is_an_error_not_a_pass),
        cmocka_unit_test(NaN_in_a_slot_fails_it_and_names_the_place),
        cmocka_unit_test(a_truncated_prompt_fails_the_tokens_and_the_layers_are_not_comparable),
        cmocka_unit_test(n_layers_that_the_GGUF_contradicts_is_an_error_before_anything_runs),
        cmocka_unit_test(n_layers_that_the_fixture_contradicts_is_the_matrixs_to_mend),
        cmocka_unit_test(a_dump_of_fewer_layers_is_an_error),
        cmocka_unit_test(a_dump_of_more_layers_is_an_error_that_counts_them),
        cmocka_unit_test(a_missing_program_a_missing_fixture_and_a_missing_variable_are_skips),
        cmocka_unit_test(what_is_there_without_permission_is_an_error),
        cmocka_unit_test(a_command_is_one_line_that_a_shell_reads_as_it_was),
        cmocka_unit_test(REQUIRE_turns_a_skip_into_an_error),
        cmocka_unit_test(a_dump_of_another_prompt_fails_the_tokens),
        cmocka_unit_test(a_new_run_never_sees_an_old_dump),
        cmocka_unit_test(an_interrupted_run_leaves_nothing_to_judge),
        cmocka_unit_test(models_are_looked_for_in_the_users_cache_by_default),
        cmocka_unit_test(a_dump_is_reused_while_its_inputs_are_the_same_by_content),
        cmocka_unit_test(a_dump_that_has_changed_is_made_again_not_complained_about),
        cmocka_unit_test(the_dump_of_an_engine_behind_a_script_is_not_reused),
        cmocka_unit_test(the_dump_of_a_failed_run_is_not_reused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
