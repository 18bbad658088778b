/* Programs that end well, badly, late, or not at all; and what is kept of what they print. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
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

static bool is_alive(long pid)
{
    return kill((pid_t)pid, 0) == 0;
}

static size_t read_pids(const char *path, long *pids, size_t max)
{
    char *text, *next;
    size_t length, n = 0;
    if (rp_file_read(path, 1 << 16, &text, &length, NULL))
        return 0;
    for (const char *at = text; n < max; at = next) {
        const long pid = strtol(at, &next, 10);
        if (next == at)
            break;
        pids[n++] = pid;
    }
    free(text);
    return n;
}

static void no_process_that_leaves_its_session_survives_the_program(void **state)
{
    (void)state;
    enum { N = 30 };
    char folder[256], path[300], script[1024];
    long pids[2 * N] = {0};
    rp_test_make_folder(folder);
    snprintf(path, sizeof path, "%s/pids", folder);
    snprintf(script, sizeof script,
             "for i in $(seq %d); do setsid sh -c 'echo $$ >>%s; sleep 100 & wait' & done; "
             "while [ $(wc -l <%s) -lt %d ]; do sleep 0.01; done",
             N, path, path, N);
    const struct rp_process_result r = run(script, 20, NULL);
    assert_int_equal(r.exit_code, 0);
    assert_int_equal(read_pids(path, pids, 2 * (size_t)N), N);
    for (size_t i = 0; i < N; i++)
        assert_false(is_alive(pids[i]));
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

/* A process that runs a program, which starts another in a session of its own, and is killed. */
static void a_program_dies_with_whoever_runs_it(void **state)
{
    (void)state;
    static const int signals[] = {SIGKILL, SIGINT, SIGTERM};
    for (size_t s = 0; s < sizeof signals / sizeof signals[0]; s++) {
        char folder[256], path[300], script[1024];
        long pids[2] = {0, 0};
        rp_test_make_folder(folder);
        snprintf(path, sizeof path, "%s/pids", folder);
        snprintf(script, sizeof script,
                 "trap '' INT TERM HUP; echo $$ >>%s; setsid sh -c 'echo $$ >>%s; sleep 100'; wait",
                 path, path);
        const pid_t runner = fork();
        assert_true(runner >= 0);
        if (runner == 0) {
            signal(signals[s], SIG_DFL);
            run(script, 100, NULL);
            _exit(0);
        }
        for (int i = 0; i < 1000 && read_pids(path, pids, 2) < 2; i++)
            usleep(10000);
        assert_true(is_alive(pids[0]) && is_alive(pids[1]));
        kill(runner, signals[s]);
        assert_int_equal(waitpid(runner, NULL, 0), runner);
        for (int i = 0; i < 500 && (is_alive(pids[0]) || is_alive(pids[1])); i++)
            usleep(10000);
        assert_false(is_alive(pids[0]));
        assert_false(is_alive(pids[1]));
        assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
    }
}

static void a_program_that_kills_its_supervisor_is_an_error_and_dies_with_it(void **state)
{
    (void)state;
    char folder[256], path[300], script[1200];
    long pids[2] = {0, 0};
    rp_test_make_folder(folder);
    snprintf(path, sizeof path, "%s/pids", folder);
    snprintf(
        script, sizeof script,
        "echo $$ >%s; setsid sh -c 'echo $$ >>%s; exec sleep 100' & while [ $(wc -l <%s) -lt 2 ]; "
        "do sleep 0.01; done; kill -KILL $PPID; sleep 100",
        path, path, path);
    char *argv[] = {"sh", "-c", script, NULL};
    const struct rp_process_spec spec = {.argv = argv, .timeout_s = 20};
    struct rp_process_result result;
    struct rp_error err;
    assert_int_equal(rp_process_run(&spec, &result, &err), RP_ERR_IO);
    assert_non_null(strstr(err.message, "the process that watches it was killed"));
    assert_int_equal(read_pids(path, pids, 2), 2);
    assert_false(is_alive(pids[0]));
    assert_false(is_alive(pids[1]));
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

static void the_log_is_a_new_file_and_follows_no_link(void **state)
{
    (void)state;
    char folder[256], path[300], mine[300], *text;
    size_t length;
    rp_test_make_folder(folder);
    snprintf(path, sizeof path, "%s/log", folder);
    snprintf(mine, sizeof mine, "%s/mine", folder);
    assert_int_equal(rp_file_write_atomic(mine, "mine", 4, NULL), RP_OK);
    assert_int_equal(symlink(mine, path), 0);
    run("echo printed", 10, path);
    assert_int_equal(rp_file_read(mine, 100, &text, &length, NULL), RP_OK);
    assert_string_equal(text, "mine");
    free(text);
    assert_int_equal(rp_file_read(path, 100, &text, &length, NULL), RP_OK);
    assert_string_equal(text, "printed\n");
    free(text);
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
    assert_int_equal(rp_find_program("/no/such/program", path, sizeof path, &err), RP_ERR_MISSING);
    assert_int_equal(rp_find_program("/etc/passwd", path, sizeof path, &err), RP_ERR_IO);
    assert_non_null(strstr(err.message, "it is there, but may not be run"));
    assert_int_equal(rp_find_program("sh", path, sizeof path, &err), RP_OK);
    assert_int_equal(path[0], '/');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(how_a_program_ended_is_reported),
        cmocka_unit_test(a_program_that_ignores_signals_is_killed_at_its_time_limit),
        cmocka_unit_test(children_that_are_left_behind_neither_hold_up_nor_survive),
        cmocka_unit_test(no_process_that_leaves_its_session_survives_the_program),
        cmocka_unit_test(a_program_dies_with_whoever_runs_it),
        cmocka_unit_test(a_program_that_kills_its_supervisor_is_an_error_and_dies_with_it),
        cmocka_unit_test(the_log_is_a_new_file_and_follows_no_link),
        cmocka_unit_test(the_log_keeps_head_and_tail_and_counts_the_rest),
        cmocka_unit_test(a_short_log_is_kept_whole_and_stdin_is_empty),
        cmocka_unit_test(environment_and_folder_are_those_of_the_spec),
        cmocka_unit_test(a_program_that_is_not_there_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
