/* The GGUF reader on good files: metadata of every kind, text for a reader, rows to the bit.
 * Hostile files are in gguf_hostile_test.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>

#include "weights/gguf_sample.h"

static void versions_2_and_3_are_read(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        struct gguf_bytes file = make_sample(version, NULL);
        struct rp_gguf *gguf = open_bytes(&file);
        float row[2];
        assert_int_equal(rp_gguf_version(gguf), version);
        assert_string_equal(rp_gguf_path(gguf), "file");
        assert_int_equal(rp_gguf_n_values(gguf), 4);
        assert_int_equal(rp_gguf_n_tensors(gguf), 2);
        const struct rp_gguf_tensor *matrix = rp_gguf_find_tensor(gguf, "matrix");
        assert_non_null(matrix);
        assert_int_equal(matrix->n_dims, 2);
        assert_int_equal(matrix->n_rows, 2);
        assert_int_equal(matrix->dims[0], 2);
        assert_int_equal(matrix->dims[3], 1);
        assert_int_equal(rp_gguf_row(gguf, matrix, 1, row, NULL), RP_OK);
        assert_true(row[0] == 0.25f && row[1] == 3.0f);
        assert_null(rp_gguf_find_tensor(gguf, "nothing"));
        assert_null(rp_gguf_find_value(gguf, "nothing"));
        read_everything(gguf);
        rp_gguf_close(gguf);
        free(file.data);
    }
}

static void integers_of_any_width_are_one_getter(void **state)
{
    (void)state;
    static const uint64_t all_ones = UINT64_MAX;
    static const struct {
        uint32_t kind;
        size_t size;
        int64_t expected;
    } kinds[] = {
        {RP_GGUF_UINT8, 1, UINT8_MAX}, {RP_GGUF_INT8, 1, -1},  {RP_GGUF_UINT16, 2, UINT16_MAX},
        {RP_GGUF_INT16, 2, -1},        {RP_GGUF_INT32, 4, -1}, {RP_GGUF_UINT32, 4, UINT32_MAX},
        {RP_GGUF_INT64, 8, -1},
    };
    struct rp_error err;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct gguf_builder builder = {.version = 3};
        int64_t value = 0;
        gguf_add(&builder, "k", kinds[i].kind, &all_ones, kinds[i].size);
        struct gguf_bytes file = gguf_finish(&builder, NULL);
        struct rp_gguf *gguf = open_bytes(&file);
        assert_int_equal(rp_gguf_get_int(gguf, "k", INT64_MIN, INT64_MAX, &value, NULL), RP_OK);
        assert_true(value == kinds[i].expected);
        rp_gguf_close(gguf);
        free(file.data);
    }
    struct gguf_builder builder = {.version = 3};
    int64_t value = 5;
    gguf_add(&builder, "k", RP_GGUF_UINT64, &all_ones, 8);
    struct gguf_bytes file = gguf_finish(&builder, NULL);
    struct rp_gguf *gguf = open_bytes(&file);
    assert_int_equal(rp_gguf_get_int(gguf, "k", 0, INT64_MAX, &value, &err), RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "key 'k' is 18446744073709551615, expected 0 to "
                                     "9223372036854775807");
    assert_true(value == 5);
    rp_gguf_close(gguf);
    free(file.data);
}

static void getters_say_what_is_wrong(void **state)
{
    (void)state;
    struct gguf_bytes file = make_sample(3, NULL);
    struct rp_gguf *gguf = open_bytes(&file);
    struct rp_error err;
    struct rp_gguf_string string;
    int64_t number, *numbers;
    size_t n;
    double real;
    bool flag;
    assert_int_equal(rp_gguf_get_int(gguf, "absent", 0, 9, &number, &err), RP_ERR_MISSING);
    assert_string_equal(err.message, "key 'absent' is missing");
    assert_int_equal(rp_gguf_get_int(gguf, "words", 0, 9, &number, &err), RP_ERR_FORMAT);
    assert_string_equal(err.message, "key 'words' is of kind array of string, expected an integer");
    assert_int_equal(rp_gguf_get_int(gguf, "number", 0, 9, &number, &err), RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "key 'number' is 4096, expected 0 to 9");
    assert_int_equal(rp_gguf_get_float(gguf, "number", &real, &err), RP_ERR_FORMAT);
    assert_string_equal(err.message, "key 'number' is of kind uint32, expected a float");
    assert_int_equal(rp_gguf_get_bool(gguf, "number", &flag, &err), RP_ERR_FORMAT);
    assert_string_equal(err.message, "key 'number' is of kind uint32, expected a bool");
    assert_int_equal(rp_gguf_get_string(gguf, "number", &string, &err), RP_ERR_FORMAT);
    assert_string_equal(err.message, "key 'number' is of kind uint32, expected a string");
    assert_int_equal(rp_gguf_get_ints(gguf, "words", &numbers, &n, &err), RP_ERR_FORMAT);
    assert_string_equal(err.message,
                        "key 'words' is of kind array of string, expected an array of integers");
    assert_int_equal(rp_gguf_get_ints(gguf, "number", &numbers, &n, &err), RP_ERR_FORMAT);
    assert_string_equal(err.message,
                        "key 'number' is of kind uint32, expected an array of integers");
    rp_gguf_close(gguf);
    free(file.data);
}

static void scalars_and_arrays_are_decoded(void **state)
{
    (void)state;
    static const float floats[2] = {0.5f, -3.0f};
    static const double wide = 1e-6;
    static const unsigned char yes = 1, seven = 7, bools[3] = {1, 0, 1}, sevens[2] = {1, 7};
    struct gguf_builder builder = {.version = 3};
    struct gguf_bytes strings = {NULL, 0};
    struct rp_gguf_string string, *items;
    struct rp_error err;
    double real, *reals;
    int64_t *ints;
    bool flag = false, *flags;
    size_t n;
    gguf_put_string(&strings, "a");
    gguf_put_string(&strings, "bc");
    gguf_add_string(&builder, "string", "hello");
    gguf_add(&builder, "f64", RP_GGUF_FLOAT64, &wide, sizeof wide);
    gguf_add_f32(&builder, "f32", 0.25f);
    gguf_add(&builder, "yes", RP_GGUF_BOOL, &yes, 1);
    gguf_add(&builder, "seven", RP_GGUF_BOOL, &seven, 1);
    gguf_add_array(&builder, "floats", RP_GGUF_FLOAT32, 2, floats, sizeof floats);
    gguf_add_array(&builder, "strings", RP_GGUF_STRING, 2, strings.data, strings.size);
    gguf_add_array(&builder, "none", RP_GGUF_UINT8, 0, NULL, 0);
    gguf_add_array(&builder, "bools", RP_GGUF_BOOL, 3, bools, sizeof bools);
    gguf_add_array(&builder, "sevens", RP_GGUF_BOOL, 2, sevens, sizeof sevens);
    struct gguf_bytes file = gguf_finish(&builder, NULL);
    struct rp_gguf *gguf = open_bytes(&file);
    assert_int_equal(rp_gguf_get_string(gguf, "string", &string, NULL), RP_OK);
    assert_int_equal(string.length, 5);
    assert_memory_equal(string.data, "hello", 5);
    assert_int_equal(rp_gguf_get_float(gguf, "f64", &real, NULL), RP_OK);
    assert_true(real == wide);
    assert_int_equal(rp_gguf_get_float(gguf, "f32", &real, NULL), RP_OK);
    assert_true(real == 0.25);
    assert_int_equal(rp_gguf_get_bool(gguf, "yes", &flag, NULL), RP_OK);
    assert_true(flag);
    assert_int_equal(rp_gguf_get_bool(gguf, "seven", &flag, &err), RP_ERR_FORMAT);
    assert_string_equal(err.message, "key 'seven' is the byte 7, expected 0 or 1");
    assert_int_equal(rp_gguf_get_floats(gguf, "floats", &reals, &n, NULL), RP_OK);
    assert_int_equal(n, 2);
    assert_true(reals[0] == 0.5 && reals[1] == -3.0);
    assert_int_equal(rp_gguf_get_strings(gguf, "strings", &items, &n, NULL), RP_OK);
    assert_int_equal(n, 2);
    assert_memory_equal(items[1].data, "bc", 2);
    assert_int_equal(rp_gguf_get_bools(gguf, "bools", &flags, &n, NULL), RP_OK);
    assert_int_equal(n, 3);
    assert_true(flags[0] && !flags[1] && flags[2]);
    assert_int_equal(rp_gguf_get_bools(gguf, "floats", &flags, &n, &err), RP_ERR_FORMAT);
    assert_string_equal(err.message, "key 'floats' is of kind array of float32, expected an array "
                                     "of bools");
    assert_int_equal(rp_gguf_get_bools(gguf, "sevens", &flags, &n, &err), RP_ERR_FORMAT);
    assert_string_equal(err.message, "key 'sevens': element 1 is the byte 7, expected 0 or 1");
    assert_int_equal(rp_gguf_get_ints(gguf, "none", &ints, &n, NULL), RP_OK);
    assert_int_equal(n, 0);
    assert_null(ints);
    free(reals);
    free(flags);
    free(items);
    free(strings.data);
    rp_gguf_close(gguf);
    free(file.data);
}

static const char *text_of(const struct rp_gguf *gguf, const char *key, char *buf, size_t size)
{
    return rp_gguf_value_text(gguf, rp_gguf_find_value(gguf, key), buf, size);
}

static void values_are_shown_on_one_line(void **state)
{
    (void)state;
    static const uint32_t numbers[10] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    char text[512], small[8];
    struct gguf_builder builder = {.version = 3};
    char longer[301];
    memset(longer, 'x', 300);
    longer[300] = '\0';
    gguf_add_string(&builder, "hostile", "a\nb\xff\x1b é");
    gguf_add_string(&builder, "long", longer);
    gguf_add_f32(&builder, "eps", 1e-6f);
    gguf_add_array(&builder, "numbers", RP_GGUF_UINT32, 10, numbers, sizeof numbers);
    struct gguf_bytes file = gguf_finish(&builder, NULL);
    struct rp_gguf *gguf = open_bytes(&file);
    assert_string_equal(text_of(gguf, "hostile", text, sizeof text), "\"a\\x0ab\\xff\\x1b é\"");
    assert_string_equal(text_of(gguf, "eps", text, sizeof text), "9.99999997e-07");
    assert_string_equal(text_of(gguf, "numbers", text, sizeof text),
                        "uint32[10] 0, 1, 2, 3, 4, 5, 6, 7, …");
    assert_string_equal(text_of(gguf, "numbers", small, sizeof small), "uint32[");
    text_of(gguf, "long", text, sizeof text);
    assert_string_equal(text + 201, "…\" (300 bytes)");
    rp_gguf_close(gguf);
    free(file.data);
}

/* Bytes, and the bits of what gguf.dequantize (gguf 0.19) makes of them: random blocks, one scale of
 * each format subnormal; zeros, subnormals, the largest number and infinities. */
static const unsigned char q8_0_bytes[68] = {
    0x3b, 0x2c, 0x8b, 0x4a, 0xe5, 0xf1, 0xa9, 0x41, 0x06, 0xa0, 0x95, 0x6a, 0x26, 0xaf,
    0xbc, 0xcd, 0xaf, 0xe5, 0x62, 0xf9, 0x0a, 0x94, 0x5f, 0x56, 0x93, 0xc6, 0x42, 0x27,
    0x6a, 0xd5, 0xab, 0x2d, 0xa7, 0x39, 0x23, 0x80, 0x45, 0x51, 0x37, 0x0e, 0x99, 0xb2,
    0xd7, 0x4c, 0x34, 0x27, 0xfa, 0x48, 0xd7, 0x32, 0xa1, 0xdf, 0x70, 0xac, 0xa1, 0xe9,
    0x26, 0x11, 0x59, 0x01, 0xdd, 0x06, 0xf2, 0x7f, 0x8f, 0x06, 0x3c, 0xd2};
static const uint32_t q8_0_bits[64] = {
    0xc0f77b80, 0x409c8700, 0xbfe47200, 0xbf7dd400, 0xc0b80680, 0x40897d80, 0x3ecb1000, 0xc0cb1000,
    0xc0e25480, 0x40e03700, 0x4020c200, 0xc0ab5580, 0xc08fd600, 0xc057c100, 0xc0ab5580, 0xbfe47200,
    0x40cf4b00, 0xbeece800, 0x3f293800, 0xc0e47200, 0x40c8f280, 0x40b5e900, 0xc0e68f80, 0xc0755e00,
    0x408b9b00, 0x4024fd00, 0x40e03700, 0xc035e900, 0xc0b3cb80, 0x403e5f00, 0xc0bc4180, 0x40712300,
    0xb916f000, 0xb9313000, 0xb8f0a000, 0xb7f50000, 0x39615000, 0x392aa000, 0x38b36000, 0xb9264000,
    0xb8e38000, 0xb8aaa000, 0x37520000, 0xb91d8000, 0x38b36000, 0xb8dac000, 0x394fd000, 0x38906000,
    0xb9750000, 0x3937c000, 0x394fd000, 0x38494000, 0xb8a64000, 0xb814c000, 0xb942b000, 0xb60c0000,
    0x38992000, 0xb7520000, 0x37f50000, 0xb98ae800, 0x39773000, 0xb7520000, 0xb9034000, 0x38c94000};
static const unsigned char q4_0_bytes[36] = {0xf1, 0xa5, 0x5e, 0x19, 0xa6, 0x21, 0xf9, 0xbd, 0x0c,
                                             0xcc, 0x21, 0x39, 0x7c, 0x1e, 0xc7, 0x95, 0xca, 0x77,
                                             0x01, 0x00, 0x48, 0xdc, 0x03, 0xd1, 0x7a, 0x88, 0x93,
                                             0x4d, 0x85, 0x52, 0x73, 0x57, 0xa2, 0xe6, 0x46, 0x47};
static const uint32_t q4_0_bits[64] = {
    0xbe0e9800, 0xbcbe2000, 0x3d3e2000, 0x3e265c00, 0xbcbe2000, 0xbdeda800, 0xbdbe2000, 0xbdbe2000,
    0x3e265c00, 0xbcbe2000, 0xbdbe2000, 0xbe0e9800, 0x3cbe2000, 0x3d8e9800, 0xbd3e2000, 0x3cbe2000,
    0x3d8e9800, 0x3e265c00, 0xbd3e2000, 0x3e0e9800, 0xbe265c00, 0xbd8e9800, 0x3e3e2000, 0xbdbe2000,
    0x3e0e9800, 0x3deda800, 0x3cbe2000, 0x3e265c00, 0xbdbe2000, 0xbcbe2000, 0xbdbe2000, 0x3cbe2000,
    0x00000000, 0x34800000, 0xb4a00000, 0xb4e00000, 0x34000000, 0x00000000, 0xb4a00000, 0x34a00000,
    0xb4400000, 0xb4c00000, 0xb4a00000, 0xb3800000, 0xb4c00000, 0xb4000000, 0xb4000000, 0xb3800000,
    0xb4800000, 0x34a00000, 0xb5000000, 0x34a00000, 0xb3800000, 0x00000000, 0x33800000, 0xb4800000,
    0x00000000, 0xb4400000, 0xb3800000, 0xb4400000, 0x34000000, 0x34c00000, 0xb4800000, 0xb4800000};
static const unsigned char f16_bytes[20] = {0x00, 0x00, 0x00, 0x80, 0x01, 0x00, 0xff,
                                            0x83, 0x00, 0x04, 0x55, 0x35, 0x00, 0xc9,
                                            0xff, 0x7b, 0x00, 0x7c, 0x00, 0xfc};
static const uint32_t f16_bits[10] = {0x00000000, 0x80000000, 0x33800000, 0xb87fc000, 0x38800000,
                                      0x3eaaa000, 0xc1200000, 0x477fe000, 0x7f800000, 0xff800000};
static const unsigned char bf16_bytes[16] = {0x00, 0x00, 0x00, 0x80, 0x01, 0x00, 0x80, 0x3f,
                                             0xf7, 0xc2, 0x7f, 0x7f, 0x80, 0x7f, 0x80, 0xff};
static const uint32_t bf16_bits[8] = {0x00000000, 0x80000000, 0x00010000, 0x3f800000,
                                      0xc2f70000, 0x7f7f0000, 0x7f800000, 0xff800000};

static void expect_row(uint32_t type, size_t n, const void *bytes, size_t n_bytes,
                       const uint32_t *bits)
{
    uint64_t dims[1] = {n};
    uint32_t row[64];
    struct gguf_builder builder = {.version = 3};
    gguf_add_tensor(&builder, "t", type, 1, dims, bytes, n_bytes);
    struct gguf_bytes file = gguf_finish(&builder, NULL);
    struct rp_gguf *gguf = open_bytes(&file);
    float values[64];
    bool is_finite = true;
    const enum rp_status status = rp_gguf_row(gguf, rp_gguf_tensor(gguf, 0), 0, values, NULL);
    for (size_t i = 0; i < n; i++)
        is_finite &= isfinite(values[i]) != 0;
    assert_int_equal(status, is_finite ? RP_OK : RP_ERR_FORMAT); /* decoded all the same */
    memcpy(row, values, sizeof row);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(row[i], bits[i]);
    rp_gguf_close(gguf);
    free(file.data);
}

static void rows_are_the_same_to_the_bit_as_the_gguf_packages(void **state)
{
    (void)state;
    expect_row(RP_GGML_Q8_0, 64, q8_0_bytes, sizeof q8_0_bytes, q8_0_bits);
    expect_row(RP_GGML_Q4_0, 64, q4_0_bytes, sizeof q4_0_bytes, q4_0_bits);
    expect_row(RP_GGML_F16, 10, f16_bytes, sizeof f16_bytes, f16_bits);
    expect_row(RP_GGML_BF16, 8, bf16_bytes, sizeof bf16_bytes, bf16_bits);
    expect_row(RP_GGML_F32, 10, f16_bits, sizeof f16_bits, f16_bits);
}

static void a_type_without_decoder_is_listed_but_its_rows_are_not_read(void **state)
{
    (void)state;
    static const uint64_t dims[1] = {128};
    static const unsigned char block[18] = {0};
    float row[128];
    struct rp_error err;
    struct gguf_builder builder = {.version = 3};
    gguf_add_tensor(&builder, "t", 41, 1, dims, block, sizeof block);
    struct gguf_bytes file = gguf_finish(&builder, NULL);
    struct rp_gguf *gguf = open_bytes(&file);
    const struct rp_gguf_tensor *tensor = rp_gguf_tensor(gguf, 0);
    assert_string_equal(rp_ggml_type_name(tensor->type), "Q1_0");
    assert_false(rp_ggml_type_is_readable(tensor->type));
    assert_int_equal(rp_gguf_row(gguf, tensor, 0, row, &err), RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "tensor 't': weights of type Q1_0 (41) cannot be decoded");
    assert_string_equal(rp_ggml_type_name(4), "unknown"); /* Q4_2, removed from ggml */
    assert_string_equal(rp_ggml_type_name(UINT32_MAX), "unknown");
    rp_gguf_close(gguf);
    free(file.data);
}

static void rows_that_are_not_there_are_refused(void **state)
{
    (void)state;
    struct gguf_bytes file = make_sample(3, NULL);
    struct rp_gguf *gguf = open_bytes(&file);
    const struct rp_gguf_tensor *matrix = rp_gguf_find_tensor(gguf, "matrix");
    struct rp_error err;
    float rows[4];
    assert_int_equal(rp_gguf_rows(gguf, matrix, 0, 2, rows, NULL), RP_OK);
    assert_int_equal(rp_gguf_row(gguf, matrix, 2, rows, &err), RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "1 rows from row 2 of tensor 'matrix', which has 2");
    assert_int_equal(rp_gguf_rows(gguf, matrix, SIZE_MAX, 1, rows, &err), RP_ERR_ARGUMENT);
    assert_int_equal(rp_gguf_rows(gguf, matrix, 1, SIZE_MAX, rows, &err), RP_ERR_ARGUMENT);
    rp_gguf_close(gguf);
    free(file.data);
}

/* The twin: the row before it is read. */
static void a_weight_that_is_not_finite_is_an_error_of_the_file(void **state)
{
    (void)state;
    const size_t columns[] = {0, 7, 9}; /* in whole lanes, and past them */
    for (size_t i = 0; i < 3; i++) {
        float values[30] = {0}, rows[30];
        const uint64_t dims[2] = {10, 3};
        struct rp_error err;
        struct gguf_builder builder = {.version = 3};
        char expected[64];
        values[20 + columns[i]] = i == 1 ? -INFINITY : NAN;
        gguf_add_tensor(&builder, "t", RP_GGML_F32, 2, dims, values, sizeof values);
        struct gguf_bytes file = gguf_finish(&builder, NULL);
        struct rp_gguf *gguf = open_bytes(&file);
        const struct rp_gguf_tensor *tensor = rp_gguf_tensor(gguf, 0);
        assert_int_equal(rp_gguf_rows(gguf, tensor, 0, 2, rows, &err), RP_OK);
        assert_int_equal(rp_gguf_rows(gguf, tensor, 1, 2, rows, &err), RP_ERR_FORMAT);
        snprintf(expected, sizeof expected, "at element %zu (row 2, column %zu)", 20 + columns[i],
                 columns[i]);
        assert_non_null(strstr(err.message, expected));
        assert_non_null(strstr(err.message, "tensor 't'"));
        rp_gguf_close(gguf);
        free(file.data);
    }
}

static void a_missing_file_is_an_error(void **state)
{
    (void)state;
    struct rp_gguf *gguf = NULL;
    struct rp_error err;
    assert_int_equal(rp_gguf_open("/nonexistent/model.gguf", &gguf, &err), RP_ERR_MISSING);
    assert_string_equal(err.where, "/nonexistent/model.gguf");
    assert_null(gguf);
    rp_gguf_close(NULL);
}

static void a_file_of_the_gguf_package_is_read(void **state)
{
    (void)state;
    struct rp_gguf *gguf = NULL;
    struct rp_gguf_string name;
    assert_int_equal(
        rp_gguf_open(RP_SOURCE_DIR "/fixtures/tiny/llama/llama-q4_0.gguf", &gguf, NULL), RP_OK);
    assert_int_equal(rp_gguf_get_string(gguf, "general.architecture", &name, NULL), RP_OK);
    assert_int_equal(name.length, 5);
    assert_memory_equal(name.data, "llama", 5);
    read_everything(gguf);
    rp_gguf_close(gguf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(versions_2_and_3_are_read),
        cmocka_unit_test(integers_of_any_width_are_one_getter),
        cmocka_unit_test(getters_say_what_is_wrong),
        cmocka_unit_test(scalars_and_arrays_are_decoded),
        cmocka_unit_test(values_are_shown_on_one_line),
        cmocka_unit_test(rows_are_the_same_to_the_bit_as_the_gguf_packages),
        cmocka_unit_test(a_type_without_decoder_is_listed_but_its_rows_are_not_read),
        cmocka_unit_test(rows_that_are_not_there_are_refused),
        cmocka_unit_test(a_weight_that_is_not_finite_is_an_error_of_the_file),
        cmocka_unit_test(a_missing_file_is_an_error),
        cmocka_unit_test(a_file_of_the_gguf_package_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
