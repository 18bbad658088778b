/* Where an entry's GGUF is looked for. See refparity/matrix.h. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "matrix/matrix_test_util.h"

struct tree {
    char folder[64];
    char path[96]; /* of the matrix; nothing is there */
    char models[96];
    struct rp_matrix *matrix;
};

static void write_file(const struct tree *tree, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", tree->folder, name);
    assert_int_equal(rp_file_write_atomic(path, "GGUF", 4, NULL), RP_OK);
}

static int make_tree(void **state)
{
    struct tree *tree = calloc(1, sizeof *tree);
    assert_non_null(tree);
    strcpy(tree->folder, "/tmp/refparity-gguf-XXXXXX");
    assert_non_null(mkdtemp(tree->folder));
    snprintf(tree->path, sizeof tree->path, "%s/matrix/m.json", tree->folder);
    snprintf(tree->models, sizeof tree->models, "%s/models", tree->folder);
    assert_int_equal(rp_make_dirs(tree->models, NULL), RP_OK);
    write_file(tree, "models/both.gguf");
    write_file(tree, "beside.gguf");
    char matrix_folder[96];
    snprintf(matrix_folder, sizeof matrix_folder, "%s/matrix", tree->folder);
    assert_int_equal(rp_make_dirs(matrix_folder, NULL), RP_OK);
    write_file(tree, "matrix/both.gguf");
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

static enum rp_status find(const struct tree *tree, const char *gguf, const char *models, char *out,
                           size_t size, struct rp_error *err)
{
    char text[1024];
    struct rp_matrix *matrix = NULL;
    snprintf(text, sizeof text, WITH_ENTRY("\"engine_gguf\":\"%s\""), gguf);
    assert_int_equal(rp_matrix_parse(text, strlen(text), tree->path, &matrix, NULL), RP_OK);
    enum rp_status status =
        rp_entry_gguf(matrix, rp_matrix_entry(matrix, 0), models, out, size, err);
    rp_matrix_free(matrix);
    return status;
}

static void expect_found(const struct tree *tree, const char *gguf, const char *models,
                         const char *expected)
{
    char out[4096];
    char path[256];
    struct rp_error err = {0};
    assert_int_equal(find(tree, gguf, models, out, sizeof out, &err), RP_OK);
    snprintf(path, sizeof path, "%s/%s", tree->folder, expected);
    assert_string_equal(out, path);
}

static void it_is_found_below_models_then_beside_the_matrix(void **state)
{
    const struct tree *tree = *state;
    char absolute[128];
    expect_found(tree, "both.gguf", tree->models, "models/both.gguf");
    expect_found(tree, "both.gguf", NULL, "matrix/both.gguf");
    expect_found(tree, "both.gguf", "", "matrix/both.gguf");
    expect_found(tree, "../beside.gguf", tree->models, "models/../beside.gguf");
    expect_found(tree, "../beside.gguf", NULL, "matrix/../beside.gguf");
    snprintf(absolute, sizeof absolute, "%s/beside.gguf", tree->folder);
    expect_found(tree, absolute, tree->models, "beside.gguf");
}

static void a_relative_models_folder_gives_an_absolute_path(void **state)
{
    const struct tree *tree = *state;
    char before[4096];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(tree->folder), 0);
    expect_found(tree, "both.gguf", "models", "models/both.gguf");
    assert_int_equal(chdir(before), 0);
}

static void expect_missing(const struct tree *tree, const char *gguf, const char *models,
                           const char *message)
{
    char out[4096];
    char where[128];
    struct rp_error err = {0};
    assert_int_equal(find(tree, gguf, models, out, sizeof out, &err), RP_ERR_MISSING);
    assert_string_equal(err.message, message);
    snprintf(where, sizeof where, "%s:3:1", tree->path);
    assert_string_equal(err.where, where);
}

static void a_missing_one_says_where_and_how(void **state)
{
    const struct tree *tree = *state;
    char message[1024];
    snprintf(message, sizeof message,
             "there is no q.gguf: set REFPARITY_MODELS to the folder that holds it; looked for "
             "%s/matrix/q.gguf",
             tree->folder);
    expect_missing(tree, "q.gguf", NULL, message);
    snprintf(message, sizeof message,
             "there is no q.gguf: set REFPARITY_MODELS to the folder that holds it; looked for "
             "%s/q.gguf and %s/matrix/q.gguf",
             tree->models, tree->folder);
    expect_missing(tree, "q.gguf", tree->models, message);
    expect_missing(tree, "/nowhere/q.gguf", tree->models, "there is no file /nowhere/q.gguf");
}

static void a_missing_one_says_how_to_get_it_as_its_entry_does(void **state)
{
    const struct tree *tree = *state;
    char message[1024];
    snprintf(message, sizeof message,
             "there is no q.gguf: to get it, run get.sh; looked for %s/q.gguf and "
             "%s/matrix/q.gguf",
             tree->models, tree->folder);
    expect_missing(tree, "q.gguf\",\"how_to_get\":\"run get.sh", tree->models, message);
}

static void a_folder_is_no_gguf(void **state)
{
    const struct tree *tree = *state;
    char message[1024];
    snprintf(message, sizeof message,
             "there is no ../models: set REFPARITY_MODELS to the folder that holds it; looked for "
             "%s/matrix/../models",
             tree->folder);
    expect_missing(tree, "../models", NULL, message);
}

static void an_entry_without_one_and_a_small_buffer_are_errors(void **state)
{
    const struct tree *tree = *state;
    char out[8];
    struct rp_error err = {0};
    struct rp_matrix *matrix = parse(MATRIX(ENGINE, ENTRY));
    assert_int_equal(rp_entry_gguf(matrix, rp_matrix_entry(matrix, 0), NULL, out, sizeof out, &err),
                     RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "entry a has no engine_gguf");
    rp_matrix_free(matrix);
    char message[128];
    assert_int_equal(find(tree, "both.gguf", tree->models, out, sizeof out, &err), RP_ERR_ARGUMENT);
    snprintf(message, sizeof message, "its path needs %zu bytes, has 8",
             strlen(tree->models) + sizeof "/both.gguf");
    assert_string_equal(err.message, message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(it_is_found_below_models_then_beside_the_matrix, make_tree,
                                        remove_tree),
        cmocka_unit_test_setup_teardown(a_relative_models_folder_gives_an_absolute_path, make_tree,
                                        remove_tree),
        cmocka_unit_test_setup_teardown(a_missing_one_says_where_and_how, make_tree, remove_tree),
        cmocka_unit_test_setup_teardown(a_missing_one_says_how_to_get_it_as_its_entry_does,
                                        make_tree, remove_tree),
        cmocka_unit_test_setup_teardown(a_folder_is_no_gguf, make_tree, remove_tree),
        cmocka_unit_test_setup_teardown(an_entry_without_one_and_a_small_buffer_are_errors,
                                        make_tree, remove_tree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
