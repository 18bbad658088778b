/* base/file.h: what it does with files of every kind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/scratch_test_util.h"

static char folder[256];

static int make_folder(void **state)
{
    (void)state;
    rp_test_make_folder(folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    return rp_remove_tree(folder, NULL) == RP_OK ? 0 : -1;
}

/* Overwritten by the next call. */
static const char *in_folder(const char *name)
{
    static char path[512];
    assert_int_equal(rp_path_join(path, sizeof path, folder, name, NULL), RP_OK);
    return path;
}

static void a_file_is_mapped_and_read_whole(void **state)
{
    const void *mapped;
    char *bytes;
    size_t size, length;
    (void)state;
    rp_test_write_file(folder, "file", "one\0two", 7);
    assert_int_equal(rp_file_map(in_folder("file"), &mapped, &size, NULL), RP_OK);
    assert_int_equal(size, 7);
    assert_memory_equal(mapped, "one\0two", 7);
    rp_file_unmap(mapped, size);
    assert_int_equal(rp_file_read(in_folder("file"), 7, &bytes, &length, NULL), RP_OK);
    assert_int_equal(length, 7);
    assert_memory_equal(bytes, "one\0two", 8);
    free(bytes);
}

static void what_was_forgotten_is_read_again(void **state)
{
    static unsigned char written[100000];
    const void *mapped;
    size_t size;
    (void)state;
    for (size_t i = 0; i < sizeof written; i++)
        written[i] = (unsigned char)(i % 251);
    rp_test_write_file(folder, "file", written, sizeof written);
    assert_int_equal(rp_file_map(in_folder("file"), &mapped, &size, NULL), RP_OK);
    assert_memory_equal(mapped, written, sizeof written);
    rp_file_forget((const char *)mapped + 5000, 70000);
    rp_file_forget((const char *)mapped + 1, 0);
    rp_file_forget(mapped, size);
    assert_memory_equal(mapped, written, sizeof written);
    rp_file_unmap(mapped, size);
}

static void an_empty_file_is_mapped_and_read(void **state)
{
    const void *mapped = NULL;
    char *bytes;
    size_t size = 1, length = 1;
    (void)state;
    rp_test_write_file(folder, "file", NULL, 0);
    assert_int_equal(rp_file_map(in_folder("file"), &mapped, &size, NULL), RP_OK);
    assert_non_null(mapped);
    assert_int_equal(size, 0);
    rp_file_unmap(mapped, size);
    assert_int_equal(rp_file_read(in_folder("file"), 0, &bytes, &length, NULL), RP_OK);
    assert_int_equal(length, 0);
    assert_string_equal(bytes, "");
    free(bytes);
}

static void a_file_over_the_limit_is_not_read(void **state)
{
    struct rp_error err;
    char *bytes;
    size_t length;
    (void)state;
    rp_test_write_file(folder, "file", "12345", 5);
    assert_int_equal(rp_file_read(in_folder("file"), 4, &bytes, &length, &err), RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "expected at most 4 bytes, found 5");
    assert_null(bytes);
}

static void what_is_not_a_file_is_refused_without_waiting(void **state)
{
    struct rp_error err;
    const void *mapped;
    size_t size;
    (void)state;
    assert_int_equal(rp_file_map(folder, &mapped, &size, &err), RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "expected a regular file, found a folder");
    assert_string_equal(err.where, folder);
    assert_int_equal(mkfifo(in_folder("fifo"), 0600), 0);
    assert_int_equal(rp_file_map(in_folder("fifo"), &mapped, &size, &err), RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "expected a regular file, found a FIFO");
    assert_int_equal(rp_file_map("/dev/null", &mapped, &size, &err), RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "expected a regular file, found a device");
    assert_int_equal(rp_file_map(in_folder("none"), &mapped, &size, &err), RP_ERR_MISSING);
    assert_string_equal(err.message, "cannot open: No such file or directory");
}

static void a_write_replaces_the_file_and_leaves_nothing_else(void **state)
{
    struct stat info;
    char *bytes;
    size_t length;
    (void)state;
    assert_int_equal(rp_file_write_atomic(in_folder("file"), "first", 5, NULL), RP_OK);
    assert_int_equal(chmod(in_folder("file"), 0640), 0);
    assert_int_equal(rp_file_write_atomic(in_folder("file"), "second", 6, NULL), RP_OK);
    assert_int_equal(rp_file_read(in_folder("file"), 100, &bytes, &length, NULL), RP_OK);
    assert_string_equal(bytes, "second");
    free(bytes);
    assert_int_equal(stat(in_folder("file"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640);
    assert_int_equal(unlink(in_folder("file")), 0);
    assert_int_equal(rmdir(folder), 0); /* empty again: no temporary file is left */
    assert_int_equal(mkdir(folder, 0700), 0);
}

static void write_twice(FILE *stream, const void *argument)
{
    fprintf(stream, "%s %s", (const char *)argument, (const char *)argument);
}

static void what_a_function_writes_to_a_stream_becomes_a_file(void **state)
{
    char *bytes;
    size_t length;
    struct rp_error err;
    (void)state;
    assert_int_equal(rp_file_write_stream(in_folder("file"), write_twice, "ab", NULL), RP_OK);
    assert_int_equal(rp_file_read(in_folder("file"), 100, &bytes, &length, NULL), RP_OK);
    assert_string_equal(bytes, "ab ab");
    free(bytes);
    assert_int_equal(rp_file_write_stream(in_folder("none/file"), write_twice, "ab", &err),
                     RP_ERR_IO);
}

static void a_failed_write_leaves_nothing(void **state)
{
    struct rp_error err;
    (void)state;
    assert_int_equal(mkdir(in_folder("taken"), 0700), 0);
    assert_int_equal(rp_file_write_atomic(in_folder("taken"), "x", 1, &err), RP_ERR_IO);
    assert_non_null(strstr(err.message, "cannot rename the finished file to it: "));
    assert_int_equal(rmdir(in_folder("taken")), 0);
    assert_int_equal(rmdir(folder), 0);
    assert_int_equal(rp_file_write_atomic(in_folder("file"), "x", 1, &err), RP_ERR_IO);
    assert_string_equal(err.message,
                        "cannot create a file in its folder: No such file or directory");
    assert_int_equal(mkdir(folder, 0700), 0);
}

static void folders_are_made_with_their_parents(void **state)
{
    struct rp_error err;
    (void)state;
    assert_int_equal(rp_make_dirs(in_folder("a/b//c/"), NULL), RP_OK);
    assert_int_equal(rp_make_dirs(in_folder("a/b/c"), NULL), RP_OK);
    assert_true(rp_path_exists(in_folder("a/b/c")));
    rp_test_write_file(folder, "a/file", "x", 1);
    assert_int_equal(rp_make_dirs(in_folder("a/file/c"), &err), RP_ERR_IO);
    assert_string_equal(err.message, "cannot make the folder: File exists");
    assert_string_equal(err.where, in_folder("a/file"));
    assert_int_equal(rp_make_dirs("", &err), RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "expected a path of 1 to 4095 bytes, found 0");
}

static void removing_a_tree_does_not_follow_links(void **state)
{
    (void)state;
    assert_int_equal(rp_make_dirs(in_folder("kept"), NULL), RP_OK);
    rp_test_write_file(folder, "kept/file", "x", 1);
    assert_int_equal(rp_make_dirs(in_folder("tree/deep/er"), NULL), RP_OK);
    rp_test_write_file(folder, "tree/deep/file", "x", 1);
    assert_int_equal(symlink("../../kept", in_folder("tree/deep/link")), 0);
    assert_int_equal(symlink("nowhere", in_folder("tree/dangling")), 0);
    assert_int_equal(rp_remove_tree(in_folder("tree/"), NULL), RP_OK);
    assert_false(rp_path_exists(in_folder("tree")));
    assert_true(rp_path_exists(in_folder("kept/file")));
    assert_int_equal(symlink("kept", in_folder("link")), 0);
    assert_int_equal(rp_remove_tree(in_folder("link"), NULL), RP_OK);
    assert_true(rp_path_exists(in_folder("kept/file")));
    assert_int_equal(rp_remove_tree(in_folder("tree"), NULL), RP_OK); /* nothing there */
}

static void roots_and_dots_are_never_removed(void **state)
{
    static const char *const paths[] = {"", "/", "//", ".", "..", "a/..", "a/.", "../"};
    struct rp_error err;
    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        assert_int_equal(rp_remove_tree(paths[i], &err), RP_ERR_ARGUMENT);
        assert_string_equal(err.message, "refusing to remove this folder");
    }
}

static void paths_are_joined_with_one_slash(void **state)
{
    char path[8];
    struct rp_error err;
    (void)state;
    assert_int_equal(rp_path_join(path, sizeof path, "ab", "c", NULL), RP_OK);
    assert_string_equal(path, "ab/c");
    assert_int_equal(rp_path_join(path, sizeof path, "ab/", "c", NULL), RP_OK);
    assert_string_equal(path, "ab/c");
    assert_int_equal(rp_path_join(path, sizeof path, "", "c", NULL), RP_OK);
    assert_string_equal(path, "c");
    assert_int_equal(rp_path_join(path, sizeof path, "ab", "/c", NULL), RP_OK);
    assert_string_equal(path, "/c");
    assert_int_equal(rp_path_join(path, sizeof path, "abc", "def", NULL), RP_OK);
    assert_int_equal(rp_path_join(path, sizeof path, "abc", "defg", &err), RP_ERR_ARGUMENT);
    assert_string_equal(path, "");
    assert_string_equal(err.message, "the path is too long with defg");
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_file_is_mapped_and_read_whole),
        IN_FOLDER(what_was_forgotten_is_read_again),
        IN_FOLDER(an_empty_file_is_mapped_and_read),
        IN_FOLDER(a_file_over_the_limit_is_not_read),
        IN_FOLDER(what_is_not_a_file_is_refused_without_waiting),
        IN_FOLDER(a_write_replaces_the_file_and_leaves_nothing_else),
        IN_FOLDER(what_a_function_writes_to_a_stream_becomes_a_file),
        IN_FOLDER(a_failed_write_leaves_nothing),
        IN_FOLDER(folders_are_made_with_their_parents),
        IN_FOLDER(removing_a_tree_does_not_follow_links),
        cmocka_unit_test(roots_and_dots_are_never_removed),
        cmocka_unit_test(paths_are_joined_with_one_slash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
