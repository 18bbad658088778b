/* The safetensors reader: values come out exactly, and each wrong header is refused with what is wrong
 * and the byte where it stands (the sanitizers watch that none is read past its end). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tensor/safetensors.h"
#include "tensor/safetensors_builder.h"

static const char three_types[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[8,16]},"
    "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
    "\"c\":{\"dtype\":\"F16\",\"shape\":[1,1,2],\"data_offsets\":[16,20]},"
    "\"d\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[20,28]}}";
static const unsigned char three_types_data[28] = {
    0,    0,    0x80, 0x3f, 0,    0,    0x20, 0xc0, /* 1, -2.5 */
    0x80, 0x3f, 0,    0x40, 0x40, 0xc0, 0,    0,    /* 1, 2, -3, 0 */
    0,    0x3c, 1,    0x80,                         /* 1, -2^-24 */
};

static void values_of_each_type_are_exact(void **state)
{
    (void)state;
    size_t size;
    unsigned char *bytes = safetensors_make(three_types, three_types_data, 28, &size);
    struct rp_safetensors *file = NULL;
    float out[4];
    assert_int_equal(rp_safetensors_open_memory(bytes, size, "file", &file, NULL), RP_OK);
    assert_int_equal(rp_safetensors_n_tensors(file), 4);
    assert_string_equal(rp_safetensors_tensor(file, 0)->name, "a");
    const struct rp_safetensor *a = rp_safetensors_find(file, "a");
    const struct rp_safetensor *b = rp_safetensors_find(file, "b");
    const struct rp_safetensor *c = rp_safetensors_find(file, "c");
    const struct rp_safetensor *d = rp_safetensors_find(file, "d");
    assert_true(a && b && c && d);
    assert_null(rp_safetensors_find(file, "__metadata__"));
    assert_int_equal(rp_safetensors_values(file, a, 0, 2, out, NULL), RP_OK);
    assert_true(out[0] == 1.0f && out[1] == -2.5f);
    assert_int_equal(rp_safetensors_values(file, b, 0, 4, out, NULL), RP_OK);
    assert_true(out[0] == 1.0f && out[1] == 2.0f && out[2] == -3.0f && out[3] == 0.0f);
    assert_int_equal(rp_safetensors_values(file, c, 1, 1, out, NULL), RP_OK);
    assert_true(out[0] == -0x1p-24f);
    assert_int_equal(c->n_dims, 3);
    assert_int_equal(b->dims[1], 2);
    assert_int_equal(d->n_values, 1);
    struct rp_error err;
    assert_int_equal(rp_safetensors_values(file, d, 0, 1, out, &err), RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "tensor 'd' is of dtype I64; F32, F16 and BF16 are read");
    assert_int_equal(rp_safetensors_values(file, b, 3, 2, out, &err), RP_ERR_ARGUMENT);
    rp_safetensors_close(file);
    free(bytes);
}

static void expect_error(const char *header, size_t n_data, enum rp_status code, long long offset,
                         const char *message)
{
    size_t size;
    static const unsigned char zeros[64];
    unsigned char *bytes = safetensors_make(header, zeros, n_data, &size);
    struct rp_safetensors *file = NULL;
    struct rp_error err = {.code = RP_OK};
    assert_int_equal(rp_safetensors_open_memory(bytes, size, "file", &file, &err), code);
    assert_string_equal(err.message, message);
    assert_string_equal(err.where, "file");
    assert_int_equal((int64_t)err.offset, (int64_t)offset);
    assert_null(file);
    free(bytes);
}

static void a_wrong_header_is_an_error_with_its_byte(void **state)
{
    (void)state;
    expect_error("[]", 0, RP_ERR_FORMAT, 8, "not a safetensors file: its header is no JSON object");
    expect_error("{\"a\":3}", 0, RP_ERR_FORMAT, 13, "tensor 'a': expected an object");
    expect_error("{\"a\":{\"dtype\":7}}", 0, RP_ERR_FORMAT, 22,
                 "tensor 'a': expected \"dtype\", a string");
    expect_error("{\n\"a\":{\"dtype\":\"F32\",\"shape\":5}}", 0, RP_ERR_FORMAT, 37,
                 "tensor 'a': expected \"shape\", an array");
    expect_error("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1]}}", 0, RP_ERR_FORMAT, 37,
                 "tensor 'a': dimension 0 is not a number of values");
    expect_error("{\"a\":{\"dtype\":\"F32\",\"shape\":[9007199254740992,9007199254740992]}}", 0,
                 RP_ERR_FORMAT, 54, "tensor 'a': dimension 1 is not a number of values");
    expect_error("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4]}}", 4, RP_ERR_FORMAT,
                 55, "tensor 'a': expected \"data_offsets\", [begin, end]");
    expect_error("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4,
                 RP_ERR_FORMAT, 55, "tensor 'a': expected \"data_offsets\", [begin, end]");
    expect_error("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 4,
                 RP_ERR_FORMAT, 55, "tensor 'a': bytes 0 to 8 end past the 4 bytes of data");
    expect_error("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4,
                 RP_ERR_FORMAT, 55, "tensor 'a': 4 bytes for 2 values of F32, expected 4 each");
    expect_error("{\"a\\n\":{}}", 0, RP_ERR_FORMAT, 15, "a tensor's name holds the byte 0x0a");
    expect_error("{\"\":{}}", 0, RP_ERR_UNSUPPORTED, 12,
                 "a tensor's name has 0 bytes, expected 1 to 255");
}

static void tensors_that_overlap_or_leave_a_hole_are_an_error(void **state)
{
    (void)state;
    expect_error("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                 "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
                 4, RP_ERR_FORMAT, 115,
                 "tensor 'b' begins at byte 115, expected 119, where the one before it ends");
    expect_error("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8,
                 RP_ERR_FORMAT, 66,
                 "tensor 'a' begins at byte 66, expected 62, where the one before it ends");
    expect_error("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 8,
                 RP_ERR_FORMAT, 66, "4 bytes follow the last tensor");
}

static void a_file_truncated_at_any_byte_is_an_error(void **state)
{
    (void)state;
    size_t size;
    unsigned char *bytes = safetensors_make(three_types, three_types_data, 28, &size);
    for (size_t n = 0; n < size; n++) {
        unsigned char *cut = malloc(n ? n : 1); /* of its own, so that ASan sees the end */
        struct rp_safetensors *file = NULL;
        struct rp_error err = {.code = RP_OK};
        assert_non_null(cut);
        memcpy(cut, bytes, n);
        assert_int_equal(rp_safetensors_open_memory(cut, n, "cut", &file, &err), RP_ERR_FORMAT);
        assert_true(strlen(err.message) > 0);
        free(cut);
    }
    free(bytes);
}

static void a_bit_flipped_in_the_header_never_reads_outside_the_file(void **state)
{
    (void)state;
    size_t size, n_refused = 0;
    unsigned char *bytes = safetensors_make(three_types, three_types_data, 28, &size);
    for (size_t bit = 0; bit < 8 * (size - 28); bit++) {
        struct rp_safetensors *file = NULL;
        float value;
        bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        if (rp_safetensors_open_memory(bytes, size, "file", &file, NULL) == RP_OK)
            for (size_t i = 0; i < rp_safetensors_n_tensors(file); i++) {
                const struct rp_safetensor *tensor = rp_safetensors_tensor(file, i);
                (void)rp_safetensors_values(file, tensor, tensor->n_values - 1, 1, &value, NULL);
            }
        else
            n_refused++;
        rp_safetensors_close(file);
        bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    assert_true(n_refused > 8 * (size - 28) / 2);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_each_type_are_exact),
        cmocka_unit_test(a_wrong_header_is_an_error_with_its_byte),
        cmocka_unit_test(tensors_that_overlap_or_leave_a_hole_are_an_error),
        cmocka_unit_test(a_file_truncated_at_any_byte_is_an_error),
        cmocka_unit_test(a_bit_flipped_in_the_header_never_reads_outside_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
