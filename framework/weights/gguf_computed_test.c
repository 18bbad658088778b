/* A model file that is computed: what was put in is read as from a file, and it is closed with its source. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "weights/gguf_computed.h"

static enum rp_status rows(const void *context, size_t index, size_t first, size_t n, float *out,
                           struct rp_error *err)
{
    (void)context;
    (void)err;
    for (size_t i = 0; i < 3 * n; i++)
        out[i] = (float)(100 * index + 3 * first + i);
    return RP_OK;
}

static void forget(const void *context, size_t index)
{
    (void)context;
    (void)index;
}

static struct rp_gguf_origin origin(const void *context, size_t index)
{
    (void)context;
    return (struct rp_gguf_origin){.name = index == 0 ? "first" : "second"};
}

static void note_close(void *context)
{
    ++*(int *)context;
}

static struct rp_gguf_tensor *two_tensors(const char *second)
{
    struct rp_gguf_tensor *tensors = calloc(2, sizeof *tensors);
    assert_non_null(tensors);
    for (size_t i = 0; i < 2; i++) {
        tensors[i] = (struct rp_gguf_tensor){
            .n_dims = 2, .dims = {3, 4, 1, 1}, .type = RP_GGML_F32, .n_rows = 4};
        snprintf(tensors[i].name, sizeof tensors[i].name, "%s", i == 0 ? "b" : second);
    }
    return tensors;
}

static void what_was_put_in_is_read(void **state)
{
    (void)state;
    int n_closed = 0;
    const struct rp_gguf_source source = {rows, forget, origin, note_close, &n_closed};
    struct rp_gguf_metadata metadata = {.bytes = NULL};
    const int64_t ints[] = {7, -8};
    const bool bools[] = {true, false, true};
    struct rp_gguf *gguf = NULL;
    struct rp_error err;
    rp_gguf_metadata_size(&metadata, "size", 12);
    rp_gguf_metadata_float(&metadata, "float", 0.5f);
    rp_gguf_metadata_string(&metadata, "string", "text");
    rp_gguf_metadata_ints(&metadata, "ints", ints, 2);
    rp_gguf_metadata_bools(&metadata, "bools", bools, 3);
    assert_int_equal(
        rp_gguf_open_computed("path", &metadata, two_tensors("a"), 2, source, &gguf, &err), RP_OK);
    int64_t size, *read_ints;
    double real;
    bool *read_bools;
    size_t n;
    struct rp_gguf_string text;
    float row[3];
    assert_int_equal(rp_gguf_get_int(gguf, "size", 0, 100, &size, NULL), RP_OK);
    assert_int_equal(size, 12);
    assert_int_equal(rp_gguf_get_float(gguf, "float", &real, NULL), RP_OK);
    assert_true(real == 0.5);
    assert_int_equal(rp_gguf_get_string(gguf, "string", &text, NULL), RP_OK);
    assert_true(text.length == 4 && memcmp(text.data, "text", 4) == 0);
    assert_int_equal(rp_gguf_get_ints(gguf, "ints", &read_ints, &n, NULL), RP_OK);
    assert_true(n == 2 && read_ints[0] == 7 && read_ints[1] == -8);
    free(read_ints);
    assert_int_equal(rp_gguf_get_bools(gguf, "bools", &read_bools, &n, NULL), RP_OK);
    assert_true(n == 3 && read_bools[0] && !read_bools[1] && read_bools[2]);
    free(read_bools);
    const struct rp_gguf_tensor *a = rp_gguf_find_tensor(gguf, "a");
    assert_ptr_equal(a, rp_gguf_tensor(gguf, 1));
    assert_int_equal(rp_gguf_row(gguf, a, 2, row, NULL), RP_OK);
    assert_true(row[0] == 106.0f && row[2] == 108.0f);
    assert_int_equal(rp_gguf_row(gguf, a, 4, row, NULL), RP_ERR_ARGUMENT);
    assert_string_equal(rp_gguf_origin(gguf, a).name, "second");
    assert_int_equal(n_closed, 0);
    rp_gguf_close(gguf);
    assert_int_equal(n_closed, 1);
}

static void a_name_that_occurs_twice_is_an_error(void **state)
{
    (void)state;
    int n_closed = 0;
    const struct rp_gguf_source source = {rows, forget, origin, note_close, &n_closed};
    struct rp_gguf_metadata metadata = {.bytes = NULL};
    struct rp_gguf *gguf = NULL;
    struct rp_error err;
    assert_int_equal(
        rp_gguf_open_computed("path", &metadata, two_tensors("b"), 2, source, &gguf, &err),
        RP_ERR_FORMAT);
    assert_string_equal(err.message, "tensor 'b' occurs twice");
    assert_int_equal(n_closed, 1);
    metadata = (struct rp_gguf_metadata){.bytes = NULL};
    rp_gguf_metadata_size(&metadata, "key", 1);
    rp_gguf_metadata_size(&metadata, "key", 2);
    assert_int_equal(
        rp_gguf_open_computed("path", &metadata, two_tensors("a"), 2, source, &gguf, &err),
        RP_ERR_FORMAT);
    assert_string_equal(err.message, "key 'key' occurs twice");
    assert_int_equal(n_closed, 2);
    assert_null(gguf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_put_in_is_read),
        cmocka_unit_test(a_name_that_occurs_twice_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
