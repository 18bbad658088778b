/* A model file is known again by its content, whatever its name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "refparity/gguf.h"

static void write_file(const char *path, size_t n, size_t changed)
{
    char *bytes = calloc(n + 1, 1);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (char)(i * 31 % 251);
    bytes[changed] ^= 1;
    assert_int_equal(rp_file_write_atomic(path, bytes, n, NULL), RP_OK);
    free(bytes);
}

static void a_file_is_known_by_its_content(void **state)
{
    (void)state;
    char folder[256], path[320], id[RP_MODEL_FILE_ID_SIZE], other[RP_MODEL_FILE_ID_SIZE];
    static const size_t sizes[] = {100, 64 * 4096, 1 << 20};
    rp_test_make_folder(folder);
    for (size_t i = 0; i < 3; i++) {
        const size_t n = sizes[i];
        snprintf(path, sizeof path, "%s/a model.gguf", folder);
        write_file(path, n, n);
        rp_model_file_id(path, id);
        assert_int_equal(strncmp(id, "a model.gguf ", 13), 0);
        snprintf(path, sizeof path, "%s/renamed.gguf", folder);
        write_file(path, n, n);
        rp_model_file_id(path, other);
        assert_true(rp_model_file_is(id, other));
        write_file(path, n, n - 1);
        rp_model_file_id(path, other);
        assert_false(rp_model_file_is(id, other));
        write_file(path, n - 1, n - 1);
        rp_model_file_id(path, other);
        assert_false(rp_model_file_is(id, other));
    }
    rp_remove_tree(folder, NULL);
}

static void a_split_file_is_known_by_all_its_shards(void **state)
{
    (void)state;
    char folder[256], first[320], second[320];
    char id[RP_MODEL_FILE_ID_SIZE], other[RP_MODEL_FILE_ID_SIZE];
    rp_test_make_folder(folder);
    snprintf(first, sizeof first, "%s/m-00001-of-00002.gguf", folder);
    snprintf(second, sizeof second, "%s/m-00002-of-00002.gguf", folder);
    write_file(first, 100, 0);
    rp_model_file_id(first, id);
    assert_string_equal(id, ""); /* a shard is missing */
    write_file(second, 100, 1);
    rp_model_file_id(first, id);
    rp_model_file_id(second, other);
    assert_true(rp_model_file_is(id, other));
    write_file(second, 100, 2);
    rp_model_file_id(first, other);
    assert_true(rp_model_file_is_another(id, other));
    rp_remove_tree(folder, NULL);
}

static void what_cannot_be_read_is_no_file(void **state)
{
    (void)state;
    char id[RP_MODEL_FILE_ID_SIZE];
    rp_model_file_id("/nowhere/model.gguf", id);
    assert_string_equal(id, "");
    assert_false(rp_model_file_is(id, id));
    rp_model_file_id("/", id);
    assert_string_equal(id, "");
}

static void the_tiny_quantizations_differ(void **state)
{
    (void)state;
    char bf16[RP_MODEL_FILE_ID_SIZE], q8_0[RP_MODEL_FILE_ID_SIZE];
    rp_model_file_id(RP_SOURCE_DIR "/fixtures/tiny/qwen3/qwen3-bf16.gguf", bf16);
    rp_model_file_id(RP_SOURCE_DIR "/fixtures/tiny/qwen3/qwen3-q8_0.gguf", q8_0);
    assert_true(rp_model_file_is(bf16, bf16));
    assert_false(rp_model_file_is(bf16, q8_0));
    assert_true(rp_model_file_is_another(bf16, q8_0));
    assert_false(rp_model_file_is_another(bf16, bf16));
    /* a name alone says nothing */
    assert_false(rp_model_file_is_another(bf16, "qwen3-bf16.gguf"));
    assert_false(rp_model_file_is_another(bf16, "my model 7"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_known_by_its_content),
        cmocka_unit_test(a_split_file_is_known_by_all_its_shards),
        cmocka_unit_test(what_cannot_be_read_is_no_file),
        cmocka_unit_test(the_tiny_quantizations_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
