/* Prompts of an entry: their ids, and the files they come from. See refparity/matrix.h. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "matrix/matrix_test_util.h"

/* An entry with these prompts; they begin on line 2, column 1. */
#define PROMPTS(prompts)                                                               \
    "{\"engines\":{\"e\":{" ENGINE "}},\"tests\":[{\"name\":\"a\",\"hf_model\":\"m\"," \
    "\"n_layers\":4,\"engine\":\"e\",\"prompts\":\n" prompts "}]}"

static void prompts_are_checked(void **state)
{
    (void)state;
    expect_error(PROMPTS("\"Hello\""), RP_ERR_FORMAT, 2, 1,
                 "expected an array for \"prompts\", found a string");
    expect_error(PROMPTS("[]"), RP_ERR_FORMAT, 2, 1,
                 "expected 1 to 1000 elements in \"prompts\", found 0");
    expect_error(PROMPTS("[7]"), RP_ERR_FORMAT, 2, 2,
                 "expected a prompt, a string or an object, found a number");
    expect_error(PROMPTS("[\"\"]"), RP_ERR_FORMAT, 2, 2,
                 "expected a prompt of 1 to 1048576 bytes, found 0");
    expect_error(PROMPTS("[\"a\\u0000b\"]"), RP_ERR_FORMAT, 2, 4,
                 "expected text without NUL, found \\u0000, which no C string can hold");
    expect_error(PROMPTS("[{}]"), RP_ERR_MISSING, 2, 2,
                 "expected \"id\" in a prompt: tests are named after it");
    expect_error(PROMPTS("[{\"id\":\"x\"}]"), RP_ERR_MISSING, 2, 2,
                 "expected \"text\" or \"file\" in a prompt, found neither");
    expect_error(PROMPTS("[{\"id\":\"x\",\"text\":\"t\",\"file\":\"f\"}]"), RP_ERR_FORMAT, 2, 2,
                 "expected \"text\" or \"file\" in a prompt, found both");
    expect_error(PROMPTS("[{\"id\":\"x\",\"txt\":\"t\"}]"), RP_ERR_FORMAT, 2, 12,
                 "expected a key of a prompt, found \"txt\"; did you mean \"text\"?");
    expect_error(PROMPTS("[{\"id\":\"x\",\"text\":\"\"}]"), RP_ERR_FORMAT, 2, 19,
                 "expected a string for \"text\", found an empty one");
    expect_error(PROMPTS("[{\"id\":\"a/b\",\"text\":\"t\"}]"), RP_ERR_FORMAT, 2, 8,
                 "expected for the id of a prompt at most 64 of A-Z a-z 0-9 . _ -, first a letter "
                 "or digit, \"_\" neither last nor doubled, found \"a/b\"");
}

static void ids_differ_from_each_other_and_from_numbers_of_others(void **state)
{
    (void)state;
    expect_error(PROMPTS("[\"a\",{\"id\":\"x\",\"text\":\"b\"},{\"text\":\"c\",\"id\":\"x\"}]"),
                 RP_ERR_FORMAT, 2, 45, "expected each prompt's id once, found \"x\" again");
    expect_error(PROMPTS("[{\"id\":\"p1\",\"text\":\"a\"},\"b\"]"), RP_ERR_FORMAT, 2, 8,
                 "expected an id that is no other prompt's number, found \"p1\" for p0");
    expect_error(PROMPTS("[{\"id\":\"p00\",\"text\":\"a\"}]"), RP_ERR_FORMAT, 2, 8,
                 "expected an id that is no other prompt's number, found \"p00\" for p0");
    struct rp_matrix *matrix =
        parse(PROMPTS("[{\"id\":\"p0\",\"text\":\"a\"},\"b\",{\"id\":\"p\",\"text\":\"c\"},"
                      "{\"id\":\"p3x\",\"text\":\"d\"}]"));
    assert_string_equal(rp_matrix_entry(matrix, 0)->prompts[1].id, "p1");
    rp_matrix_free(matrix);
}

static void an_engine_that_sees_no_prompt_runs_one(void **state)
{
    (void)state;
    expect_error("{\"engines\":{\"e\":{\"argv\":[\"e\",\"{dump}\"],\"layout\":\"npy\"}},\"tests\":["
                 "{\"name\":\"a\",\"hf_model\":\"m\",\"n_layers\":4,\"engine\":\"e\",\"prompts\":\n"
                 "[\"a\",\"b\"]}]}",
                 RP_ERR_FORMAT, 2, 1,
                 "expected one prompt: engine \"e\" uses none of {prompt} {prompt_file} "
                 "{tokens_file}, so all would run the same");
}

static void a_prompt_longer_than_a_mebibyte_is_an_error(void **state)
{
    (void)state;
    const char *begin = PROMPTS("[\"");
    const size_t n_begin = strlen(begin) - strlen("}]}");
    const size_t n_prompt = RP_MATRIX_MAX_PROMPT_BYTES + 1;
    char *text = calloc(1, n_begin + n_prompt + 16);
    assert_non_null(text);
    snprintf(text, n_begin + 1, "%.*s", (int)n_begin, begin);
    memset(text + n_begin, 'x', n_prompt);
    memcpy(text + n_begin + n_prompt, "\"]}]}", sizeof "\"]}]}");
    expect_error(text, RP_ERR_FORMAT, 2, 2,
                 "expected a prompt of 1 to 1048576 bytes, found 1048577");
    memcpy(text + n_begin + n_prompt - 1, "\"]}]}", sizeof "\"]}]}");
    struct rp_matrix *matrix = parse(text);
    assert_int_equal(rp_matrix_entry(matrix, 0)->prompts[0].length, 1048576);
    rp_matrix_free(matrix);
    free(text);
}

/* ---- files: <folder>/matrix/m.json, with prompts beside it and outside ---- */

struct tree {
    char folder[64];
    char path[96]; /* of the matrix; nothing is there */
};

static void write_file(const struct tree *tree, const char *name, const char *bytes, size_t n)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", tree->folder, name);
    assert_int_equal(rp_file_write_atomic(path, bytes, n, NULL), RP_OK);
}

static int make_tree(void **state)
{
    struct tree *tree = calloc(1, sizeof *tree);
    char path[256];
    assert_non_null(tree);
    strcpy(tree->folder, "/tmp/refparity-prompts-XXXXXX");
    assert_non_null(mkdtemp(tree->folder));
    snprintf(path, sizeof path, "%s/matrix/prompts", tree->folder);
    assert_int_equal(rp_make_dirs(path, NULL), RP_OK);
    snprintf(path, sizeof path, "%s/matrix-2", tree->folder);
    assert_int_equal(rp_make_dirs(path, NULL), RP_OK);
    snprintf(tree->path, sizeof tree->path, "%s/matrix/m.json", tree->folder);
    write_file(tree, "matrix/prompts/a.txt", "a;\"$\xC3\xA9\n", 7);
    write_file(tree, "matrix/empty.txt", "", 0);
    write_file(tree, "matrix/nul.txt", "ab\0c", 4);
    write_file(tree, "matrix/latin1.txt", "caf\xE9!", 5);
    write_file(tree, "secret.txt", "secret", 6);
    write_file(tree, "matrix-2/secret.txt", "secret", 6);
    snprintf(path, sizeof path, "%s/matrix/link.txt", tree->folder);
    assert_int_equal(symlink("../secret.txt", path), 0);
    snprintf(path, sizeof path, "%s/matrix/inside.txt", tree->folder);
    assert_int_equal(symlink("prompts/a.txt", path), 0);
    snprintf(path, sizeof path, "%s/matrix/out", tree->folder);
    assert_int_equal(symlink("..", path), 0);
    snprintf(path, sizeof path, "%s/matrix/pipe", tree->folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    *state = tree;
    return 0;
}

static int remove_tree(void **state)
{
    struct tree *tree = *state;
    assert_int_equal(rp_remove_tree(tree->folder, NULL), RP_OK);
    free(tree);
    return 0;
}

static enum rp_status parse_file(const struct tree *tree, const char *file,
                                 struct rp_matrix **matrix, struct rp_error *err)
{
    char text[1024];
    int n = snprintf(text, sizeof text, PROMPTS("[{\"id\":\"x\",\"file\":\"%s\"}]"), file);
    return rp_matrix_parse(text, (size_t)n, tree->path, matrix, err);
}

static void a_files_bytes_are_the_prompt(void **state)
{
    const struct tree *tree = *state;
    static const char *const files[] = {"prompts/a.txt", "inside.txt", "../matrix/prompts/a.txt",
                                        "./prompts//a.txt", "out/matrix/inside.txt"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct rp_matrix *matrix = NULL;
        struct rp_error err = {0};
        assert_int_equal(parse_file(tree, files[i], &matrix, &err), RP_OK);
        const struct rp_prompt *prompt = &rp_matrix_entry(matrix, 0)->prompts[0];
        assert_int_equal(prompt->length, 7);
        assert_string_equal(prompt->text, "a;\"$\xC3\xA9\n");
        assert_non_null(strstr(prompt->file, "/matrix/prompts/a.txt"));
        rp_matrix_free(matrix);
    }
}

static void expect_file_error(const struct tree *tree, const char *file, enum rp_status code,
                              const char *message)
{
    struct rp_matrix *matrix = NULL;
    struct rp_error err = {0};
    char where[128];
    enum rp_status status = parse_file(tree, file, &matrix, &err);
    assert_string_equal(err.message, message);
    assert_int_equal(status, code);
    snprintf(where, sizeof where, "%s:2:19", tree->path);
    assert_string_equal(err.where, where);
    assert_null(matrix);
}

static void a_file_outside_the_folder_is_an_error(void **state)
{
    const struct tree *tree = *state;
    expect_file_error(tree, "../secret.txt", RP_ERR_FORMAT,
                      "expected a prompt file inside the matrix's folder, found "
                      "\"../secret.txt\", which lies outside");
    expect_file_error(tree, "prompts/../../secret.txt", RP_ERR_FORMAT,
                      "expected a prompt file inside the matrix's folder, found "
                      "\"prompts/../../secret.txt\", which lies outside");
    expect_file_error(tree, "/etc/passwd", RP_ERR_FORMAT,
                      "expected a prompt file relative to the matrix's folder, found "
                      "\"/etc/passwd\"");
    expect_file_error(tree, "link.txt", RP_ERR_FORMAT,
                      "expected a prompt file inside the matrix's folder, found \"link.txt\", "
                      "which lies outside");
    expect_file_error(tree, "out/secret.txt", RP_ERR_FORMAT,
                      "expected a prompt file inside the matrix's folder, found "
                      "\"out/secret.txt\", which lies outside");
    /* a folder whose name begins like the matrix's */
    expect_file_error(tree, "../matrix-2/secret.txt", RP_ERR_FORMAT,
                      "expected a prompt file inside the matrix's folder, found "
                      "\"../matrix-2/secret.txt\", which lies outside");
}

static void a_file_that_is_no_prompt_is_an_error(void **state)
{
    const struct tree *tree = *state;
    expect_file_error(tree, "none.txt", RP_ERR_MISSING,
                      "prompt file \"none.txt\": cannot open: No such file or directory");
    expect_file_error(tree, "empty.txt", RP_ERR_FORMAT,
                      "prompt file \"empty.txt\": expected at least one byte, found none");
    expect_file_error(tree, "nul.txt", RP_ERR_FORMAT,
                      "prompt file \"nul.txt\": expected text without NUL, found one at byte 2");
    expect_file_error(tree, "latin1.txt", RP_ERR_FORMAT,
                      "prompt file \"latin1.txt\": expected UTF-8, found byte 0xE9 at byte 3");
    expect_file_error(tree, "prompts", RP_ERR_UNSUPPORTED,
                      "prompt file \"prompts\": expected a regular file, found a folder");
    expect_file_error(tree, "pipe", RP_ERR_UNSUPPORTED,
                      "prompt file \"pipe\": expected a regular file, found a FIFO");
    char *large = calloc(1, RP_MATRIX_MAX_PROMPT_BYTES + 1);
    assert_non_null(large);
    memset(large, 'x', RP_MATRIX_MAX_PROMPT_BYTES + 1);
    write_file(tree, "matrix/large.txt", large, RP_MATRIX_MAX_PROMPT_BYTES + 1);
    free(large);
    expect_file_error(tree, "large.txt", RP_ERR_UNSUPPORTED,
                      "prompt file \"large.txt\": expected at most 1048576 bytes, found 1048577");
}

static void the_matrix_may_be_named_without_a_folder(void **state)
{
    const struct tree *tree = *state;
    const char *text = PROMPTS("[{\"id\":\"x\",\"file\":\"prompts/a.txt\"}]");
    char before[4096];
    char folder[128];
    struct rp_matrix *matrix = NULL;
    struct rp_error err = {0};
    assert_non_null(getcwd(before, sizeof before));
    snprintf(folder, sizeof folder, "%s/matrix", tree->folder);
    assert_int_equal(chdir(folder), 0);
    enum rp_status status = rp_matrix_parse(text, strlen(text), "m.json", &matrix, &err);
    assert_int_equal(chdir(before), 0);
    assert_int_equal(status, RP_OK);
    assert_int_equal(rp_matrix_entry(matrix, 0)->prompts[0].length, 7);
    rp_matrix_free(matrix);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_are_checked),
        cmocka_unit_test(ids_differ_from_each_other_and_from_numbers_of_others),
        cmocka_unit_test(an_engine_that_sees_no_prompt_runs_one),
        cmocka_unit_test(a_prompt_longer_than_a_mebibyte_is_an_error),
        cmocka_unit_test_setup_teardown(a_files_bytes_are_the_prompt, make_tree, remove_tree),
        cmocka_unit_test_setup_teardown(a_file_outside_the_folder_is_an_error, make_tree,
                                        remove_tree),
        cmocka_unit_test_setup_teardown(a_file_that_is_no_prompt_is_an_error, make_tree,
                                        remove_tree),
        cmocka_unit_test_setup_teardown(the_matrix_may_be_named_without_a_folder, make_tree,
                                        remove_tree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
