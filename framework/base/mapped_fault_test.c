/* A file that becomes shorter under its reader, and a SIGBUS that has nothing to do with one. */
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
#include "base/mapped_fault.h"
#include "base/scratch_test_util.h"

/* Calls act in a child that reports faults; returns how it ended, as waitpid has it. Its stderr is
 * output[size]. */
static int run(void (*act)(const char *path), const char *path, char *output, size_t size)
{
    int pipe_fds[2], status;
    assert_int_equal(pipe(pipe_fds), 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(pipe_fds[1], STDERR_FILENO);
        rp_report_mapped_faults();
        act(path);
        _exit(0);
    }
    close(pipe_fds[1]);
    size_t used = 0;
    for (ssize_t n; (n = read(pipe_fds[0], output + used, size - 1 - used)) > 0;)
        used += (size_t)n;
    output[used] = '\0';
    close(pipe_fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void read_what_was_cut_off(const char *path)
{
    const void *bytes;
    size_t size;
    if (rp_file_map(path, &bytes, &size, NULL) || truncate(path, 1))
        _exit(3);
    _exit(((const volatile char *)bytes)[size - 1] ? 4 : 5);
}

static void send_to_itself(const char *path)
{
    (void)path;
    kill(getpid(), SIGBUS);
}

static void a_file_that_becomes_shorter_is_named_and_the_exit_code_is_2(void **state)
{
    (void)state;
    char folder[256], path[300], output[1024];
    char *bytes = calloc(3, 65536);
    assert_non_null(bytes);
    rp_test_make_folder(folder);
    rp_test_write_file(folder, "some file.gguf", bytes, (size_t)3 * 65536);
    snprintf(path, sizeof path, "%s/some file.gguf", folder);
    const int status = run(read_what_was_cut_off, path, output, sizeof output);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 2);
    assert_non_null(strstr(output, "some file.gguf: it became shorter while it was read"));
    free(bytes);
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

static void another_SIGBUS_is_left_alone(void **state)
{
    (void)state;
    char output[1024];
    const int status = run(send_to_itself, "", output, sizeof output);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGBUS);
    assert_string_equal(output, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_that_becomes_shorter_is_named_and_the_exit_code_is_2),
        cmocka_unit_test(another_SIGBUS_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
