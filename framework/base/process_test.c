/* Programs that end well, badly, late, or not at all; and what is kept of what they print. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/process.h"
#include "base/scratch_test_util.h"

static struct rp_process_result run(const char *script, double timeout_s, const char *log)
{
    char *argv[] = {"sh", "-c", (char *)script, NULL};
    const struct rp_process_spec spec = {.argv = argv, .log_path = log, .timeout_s = timeout_s};
    struct rp_process_result result;
    struct rp_error err;
    if (rp_process_run(&spec, &result, &err))
        fail_msg("%s", err.message);
    return result;
}

static void how_a_program_ended_is_reported(void **state)
{
    (void)state;
    char text[128];
    struct rp_process_result r = run("exit 0", 10, NULL);
    assert_int_equal(r.exit_code, 0);
    assert_string_equal(rp_process_text(&r, 10, text, sizeof text), "exited with 0");
    r = run("exit 77", 10, NULL);
    assert_string_equal(rp_process_text(&r, 10, text, sizeof text), "exited with 77");
    r = run("kill -ABRT $$", 10, NULL);
    assert_int_equal(r.exit_code, -1);
    assert_int_equal(r.signal, SIGABRT);
    assert_string_equal(rp_process_text(&r, 10, text, sizeof text),
                        "was killed by signal 6 (Aborted)");
}

static void a_program_that_ignores_signals_is_killed_at_its_time_limit(void **state)
{
    (void)state;
    char text[128];
    const struct rp_process_result r =
        run("trap '' TERM INT HUP; exec >/dev/null 2>&1; while :; do sleep 1; done", 0.3, NULL);
    assert_true(r.timed_out);
    assert_true(r.wall_s >= 0.3 && r.wall_s < 5);
    assert_string_equal(rp_process_text(&r, 0.3, text, sizeof text),
                        "ran into its time limit of 0.3 s and was killed");
}

static void children_that_are_left_behind_neither_hold_up_nor_survive(void **state)
{
    (void)state;
    char folder[256], path[300], script[512];
    rp_test_make_folder(folder);
    snprintf(path, sizeof path, "%s/late", folder);
    snprintf(script, sizeof script, "(sleep 2; touch %s) & echo started", path);
    const struct rp_process_result r = run(script, 10, NULL);
    assert_int_equal(r.exit_code, 0);
    assert_true(r.wall_s < 1);
    sleep(3);
    assert_false(rp_path_exists(path));
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

static void the_log_keeps_head_and_tail_and_counts_the_rest(void **state)
{
    (void)state;
    char folder[256], path[300], *log;
    size_t length;
    rp_test_make_folder(folder);
    snprintf(path, sizeof path, "%s/log", folder);
    const struct rp_process_result r =
        run("echo begin; head -c 1000000 /dev/zero | tr '\\0' x; echo; echo end >&2", 10, path);
    assert_int_equal(r.output_bytes, 6 + 1000000 + 1 + 4);
    assert_int_equal(rp_file_read(path, 1 << 20, &log, &length, NULL), RP_OK);
    assert_true(strncmp(log, "begin\nxxx", 9) == 0);
    assert_string_equal(log + length - 7, "xx\nend\n");
    char note[64];
    snprintf(note, sizeof note, "\n[... %d bytes left out ...]\n",
             6 + 1000000 + 1 + 4 - RP_LOG_HEAD - RP_LOG_TAIL);
    assert_non_null(strstr(log, note));
    assert_int_equal(length, (size_t)RP_LOG_HEAD + RP_LOG_TAIL + strlen(note));
    free(log);
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

static void a_short_log_is_kept_whole_and_stdin_is_empty(void **state)
{
    (void)state;
    char folder[256], path[300], *log;
    size_t length;
    rp_test_make_folder(folder);
    snprintf(path, sizeof path, "%s/log", folder);
    run("cat; printf 'a\\nb'", 10, path);
    assert_int_equal(rp_file_read(path, 100, &log, &length, NULL), RP_OK);
    assert_string_equal(log, "a\nb");
    free(log);
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

static void environment_and_folder_are_those_of_the_spec(void **state)
{
    (void)state;
    char folder[256], path[300], expected[300], *log;
    size_t length;
    rp_test_make_folder(folder);
    snprintf(path, sizeof path, "%s/log", folder);
    char *argv[] = {"sh", "-c", "printf '%s %s' \"$RP_TEST_NAME\" \"$PWD\"", NULL};
    char *env[] = {"RP_TEST_NAME=a; $b \"c\"", NULL};
    const struct rp_process_spec spec = {
        .argv = argv, .env = env, .cwd = folder, .log_path = path, .timeout_s = 10};
    struct rp_process_result result;
    assert_int_equal(rp_process_run(&spec, &result, NULL), RP_OK);
    assert_int_equal(rp_file_read(path, 1000, &log, &length, NULL), RP_OK);
    snprintf(expected, sizeof expected, "a; $b \"c\" %s", folder);
    assert_string_equal(log, expected);
    assert_null(getenv("RP_TEST_NAME"));
    free(log);
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

static void a_program_that_is_not_there_is_missing(void **state)
{
    (void)state;
    char *argv[] = {"/no/such/program", NULL}, path[64];
    const struct rp_process_spec spec = {.argv = argv, .timeout_s = 10};
    struct rp_process_result result;
    struct rp_error err;
    assert_int_equal(rp_process_run(&spec, &result, &err), RP_ERR_MISSING);
    assert_string_equal(err.where, "/no/such/program");
    assert_string_equal(err.message, "cannot be started: No such file or directory");
    assert_int_equal(rp_find_program("no-such-program", path, sizeof path, &err), RP_ERR_MISSING);
    assert_string_equal(err.message, "no such program in PATH");
    assert_int_equal(rp_find_program("/etc/passwd", path, sizeof path, &err), RP_ERR_MISSING);
    assert_string_equal(err.message, "no such program, or not executable");
    assert_int_equal(rp_find_program("sh", path, sizeof path, &err), RP_OK);
    assert_int_equal(path[0], '/');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(how_a_program_ended_is_reported),
        cmocka_unit_test(a_program_that_ignores_signals_is_killed_at_its_time_limit),
        cmocka_unit_test(children_that_are_left_behind_neither_hold_up_nor_survive),
        cmocka_unit_test(the_log_keeps_head_and_tail_and_counts_the_rest),
        cmocka_unit_test(a_short_log_is_kept_whole_and_stdin_is_empty),
        cmocka_unit_test(environment_and_folder_are_those_of_the_spec),
        cmocka_unit_test(a_program_that_is_not_there_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
