/* The GGUF reader on hostile files: each is refused with the exact error, or read without leaving
 * the file's bytes (the sanitizers watch). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "weights/gguf_sample.h"

/* Finishes the builder and expects the file to be refused. */
static void expect_error(struct gguf_builder *builder, enum rp_status code, long long offset,
                         const char *message)
{
    struct gguf_bytes file = gguf_finish(builder, NULL);
    struct rp_gguf *gguf = NULL;
    struct rp_error err = {.code = RP_OK};
    assert_int_equal(rp_gguf_open_memory(file.data, file.size, "file", &gguf, &err), code);
    assert_string_equal(err.message, message);
    assert_string_equal(err.where, "file");
    assert_int_equal(err.code, code);
    assert_int_equal((int64_t)err.offset, (int64_t)offset);
    assert_null(gguf);
    free(file.data);
}

static void a_file_truncated_at_any_byte_is_an_error(void **state)
{
    (void)state;
    struct gguf_bytes file = make_sample(3, NULL);
    for (size_t size = 0; size < file.size; size++) {
        unsigned char *cut = malloc(size + 1); /* of its own, so that ASan sees the end */
        struct rp_gguf *gguf = NULL;
        struct rp_error err = {.code = RP_OK};
        assert_non_null(cut);
        memcpy(cut, file.data, size);
        cut = realloc(cut, size ? size : 1);
        assert_non_null(cut);
        assert_int_equal(rp_gguf_open_memory(cut, size, "cut", &gguf, &err), RP_ERR_FORMAT);
        assert_true(strlen(err.message) > 0);
        free(cut);
    }
    free(file.data);
}

static void a_bit_flipped_in_the_header_never_reads_outside_the_file(void **state)
{
    (void)state;
    size_t header_size, n_refused = 0;
    struct gguf_bytes file = make_sample(3, &header_size);
    for (size_t bit = 0; bit < 8 * header_size; bit++) {
        struct rp_gguf *gguf = NULL;
        file.data[bit / 8] ^= (unsigned char)(1u << bit % 8);
        if (rp_gguf_open_memory(file.data, file.size, "file", &gguf, NULL) == RP_OK)
            read_everything(gguf);
        else
            n_refused++;
        rp_gguf_close(gguf);
        file.data[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    /* Only names and values can change unnoticed: they are a third of this header. */
    assert_true(n_refused > header_size * 8 / 2);
    free(file.data);
}

static void another_magic_or_version_is_an_error(void **state)
{
    (void)state;
    struct rp_gguf *gguf;
    struct rp_error err;
    struct gguf_bytes file = make_sample(3, NULL);
    memcpy(file.data, "GGJT", 4);
    assert_int_equal(rp_gguf_open_memory(file.data, file.size, "file", &gguf, &err), RP_ERR_FORMAT);
    assert_string_equal(err.message, "not a GGUF file: begins with 47 47 4a 54");
    memcpy(file.data, "GGUF\x01\x00\x00\x00", 8);
    assert_int_equal(rp_gguf_open_memory(file.data, file.size, "file", &gguf, &err),
                     RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "GGUF version 1; 2 and 3 are read");
    memcpy(file.data, "GGUF\x00\x00\x00\x03", 8);
    assert_int_equal(rp_gguf_open_memory(file.data, file.size, "file", &gguf, &err),
                     RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "a big-endian file; little-endian is read");
    free(file.data);
}

static void counts_beyond_the_file_are_refused_before_allocation(void **state)
{
    (void)state;
    struct gguf_builder builder = {.version = 3, .n_values = UINT64_MAX / 2};
    expect_error(&builder, RP_ERR_FORMAT, 16,
                 "9223372036854775807 metadata entries cannot fit in the 0 bytes that are left");
    builder = (struct gguf_builder){.n_tensors = 1000000000000};
    expect_error(&builder, RP_ERR_FORMAT, 8,
                 "1000000000000 tensors cannot fit in the 0 bytes that are left");
    builder = (struct gguf_builder){.version = 3};
    gguf_add_array(&builder, "k", RP_GGUF_UINT32, UINT64_MAX, "abcdefgh", 8);
    expect_error(&builder, RP_ERR_FORMAT, 49,
                 "the file is truncated: 18446744073709551615 values of 4 bytes, 8 bytes are left");
    builder = (struct gguf_builder){.version = 3};
    gguf_add_array(&builder, "k", RP_GGUF_STRING, UINT64_MAX, "abcdefgh", 8);
    expect_error(&builder, RP_ERR_FORMAT, 49,
                 "the file is truncated: a metadata value needs 7523094288207667809 bytes, 0 are "
                 "left");
}

static void bad_metadata_is_an_error(void **state)
{
    (void)state;
    struct gguf_builder builder = {.version = 3};
    gguf_add_u32(&builder, "same", 1);
    gguf_add_u32(&builder, "other", 1);
    gguf_add_u32(&builder, "same", 2);
    expect_error(&builder, RP_ERR_FORMAT, -1, "key 'same' occurs twice");
    builder = (struct gguf_builder){.version = 3};
    gguf_add(&builder, "k", 13, "abcd", 4);
    expect_error(&builder, RP_ERR_FORMAT, 33, "key 'k' is of kind 13, expected 0 to 12");
    builder = (struct gguf_builder){.version = 3};
    gguf_add_u32(&builder, "", 1);
    gguf_add_u32(&builder, "k", 1);
    expect_error(&builder, RP_ERR_FORMAT, 24, "a metadata key has 0 bytes, expected 1 to 65535");
    builder = (struct gguf_builder){.version = 3};
    gguf_add_u32(&builder, "a\nb", 1);
    expect_error(&builder, RP_ERR_FORMAT, 33, "a metadata key holds the byte 0x0a");
    builder = (struct gguf_builder){.version = 3};
    gguf_add_array(&builder, "k", 99, 1, "abcdefgh", 8);
    expect_error(&builder, RP_ERR_FORMAT, 37, "array elements of kind 99, expected 0 to 12");
    builder = (struct gguf_builder){.version = 3};
    gguf_add_u32(&builder, "general.alignment", 24);
    expect_error(&builder, RP_ERR_FORMAT, -1,
                 "key 'general.alignment' is 24, expected a power of two");
    builder = (struct gguf_builder){.version = 3};
    gguf_add_u32(&builder, "general.alignment", 0);
    expect_error(&builder, RP_ERR_UNSUPPORTED, 53,
                 "key 'general.alignment' is 0, expected 1 to 2147483647");
}

/* An array of one array of one array … around one byte. */
static void add_nested(struct gguf_builder *builder, int depth)
{
    struct gguf_bytes elements = {NULL, 0};
    for (int i = 1; i < depth; i++) {
        gguf_put_u32(&elements, i + 1 < depth ? RP_GGUF_ARRAY : RP_GGUF_UINT8);
        gguf_put_u64(&elements, 1);
    }
    gguf_put(&elements, "x", 1);
    gguf_add_array(builder, "k", depth > 1 ? RP_GGUF_ARRAY : RP_GGUF_UINT8, 1, elements.data,
                   elements.size);
    free(elements.data);
}

static void arrays_nest_up_to_a_limit(void **state)
{
    (void)state;
    char text[64];
    struct gguf_builder builder = {.version = 3};
    add_nested(&builder, RP_GGUF_MAX_NESTING);
    struct gguf_bytes file = gguf_finish(&builder, NULL);
    struct rp_gguf *gguf = open_bytes(&file);
    assert_string_equal(rp_gguf_value_text(gguf, rp_gguf_value(gguf, 0), text, sizeof text),
                        "array[1]");
    rp_gguf_close(gguf);
    free(file.data);
    add_nested(&builder, RP_GGUF_MAX_NESTING + 1);
    expect_error(&builder, RP_ERR_UNSUPPORTED, 85, "arrays are nested deeper than 4");
}

static void bad_tensors_are_an_error(void **state)
{
    (void)state;
    static const uint64_t four[5] = {4, 1, 1, 1, 1}, large[1] = {1024}, zero[2] = {4, 0},
                          odd[1] = {33};
    static const uint64_t huge[4] = {4, UINT64_MAX / 2, 4, 1}, wide[2] = {UINT64_MAX / 2, 4};
    static const float data[16] = {0};
    struct gguf_builder builder = {.version = 3};
    gguf_add_info(&builder, "t", RP_GGML_F32, 5, four, 0);
    expect_error(&builder, RP_ERR_FORMAT, 33, "tensor 't' has 5 dimensions, expected at most 4");
    gguf_add_info(&builder, "t", RP_GGML_F32, 2, zero, 0);
    expect_error(&builder, RP_ERR_FORMAT, 45, "tensor 't': dimension 1 is 0");
    gguf_add_info(&builder, "t", RP_GGML_F32, 4, huge, 0);
    expect_error(&builder, RP_ERR_FORMAT, 53, "tensor 't': dimension 2 is 4");
    gguf_add_info(&builder, "t", RP_GGML_F32, 2, wide, 0);
    expect_error(&builder, RP_ERR_FORMAT, 53, "tensor 't': its size in bytes overflows");
    gguf_add_info(&builder, "t", 99, 2, wide, 0); /* a type that is not known */
    expect_error(&builder, RP_ERR_FORMAT, 53, "tensor 't': its size overflows");
    gguf_add_info(&builder, "t", 99, 1, large, 0);
    expect_error(&builder, RP_ERR_FORMAT, -1,
                 "tensor 't': 128 bytes at offset 0 end past the 0 bytes of data");
    gguf_add_info(&builder, "t", RP_GGML_Q8_0, 1, odd, 0);
    expect_error(&builder, RP_ERR_FORMAT, 45,
                 "tensor 't': rows of 33 values do not divide into Q8_0 blocks of 32");
    gguf_add_tensor(&builder, "a", RP_GGML_F32, 1, four, data, 16);
    gguf_add_info(&builder, "t", RP_GGML_F32, 1, four, 4);
    expect_error(&builder, RP_ERR_FORMAT, -1, "tensor 't': offset 4 is not a multiple of 32");
    gguf_add_tensor(&builder, "a", RP_GGML_F32, 1, four, data, 16);
    gguf_add_info(&builder, "t", RP_GGML_F32, 1, four, 32);
    expect_error(&builder, RP_ERR_FORMAT, -1,
                 "tensor 't': 16 bytes at offset 32 end past the 16 bytes of data");
    gguf_add_tensor(&builder, "a", RP_GGML_F32, 1, four, data, 16);
    gguf_add_info(&builder, "t", RP_GGML_F32, 1, four, UINT64_MAX - 31);
    expect_error(&builder, RP_ERR_FORMAT, -1,
                 "tensor 't': 16 bytes at offset 18446744073709551584 end past the 16 bytes of "
                 "data");
    gguf_add_tensor(&builder, "a", RP_GGML_F32, 1, four, data, 16);
    gguf_add_info(&builder, "b", RP_GGML_F32, 1, four, 0);
    expect_error(&builder, RP_ERR_FORMAT, 96, "tensors 'a' and 'b' overlap");
    gguf_add_tensor(&builder, "a", RP_GGML_F32, 1, four, data, 16);
    gguf_add_tensor(&builder, "a", RP_GGML_F32, 1, four, data, 16);
    expect_error(&builder, RP_ERR_FORMAT, -1, "tensor 'a' occurs twice");
    gguf_add_info(&builder, "a\tb", RP_GGML_F32, 1, four, 0);
    expect_error(&builder, RP_ERR_FORMAT, 33, "a tensor's name holds the byte 0x09");
    gguf_add_info(&builder, "sixty-four bytes are one too many for a name: xxxxxxxxxxxxxxxxxx",
                  RP_GGML_F32, 1, four, 0);
    expect_error(&builder, RP_ERR_FORMAT, 24, "a tensor's name has 64 bytes, expected 1 to 63");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_truncated_at_any_byte_is_an_error),
        cmocka_unit_test(a_bit_flipped_in_the_header_never_reads_outside_the_file),
        cmocka_unit_test(another_magic_or_version_is_an_error),
        cmocka_unit_test(counts_beyond_the_file_are_refused_before_allocation),
        cmocka_unit_test(bad_metadata_is_an_error),
        cmocka_unit_test(arrays_nest_up_to_a_limit),
        cmocka_unit_test(bad_tensors_are_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
