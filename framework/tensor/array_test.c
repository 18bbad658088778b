/* tensor/array.h: every type, byte order, order of dimensions and shape comes out as the same rows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tensor/array.h"

/* In every type of these, exactly. */
static const float values[6] = {1.0f, -2.5f, 3.0f, 0.0f, -0x1p-14f, 96.0f};

static uint64_t bits_of(float value, enum rp_value_type type)
{
    const double wide = (double)value;
    uint64_t bits = 0;
    uint32_t narrow;
    memcpy(&narrow, &value, sizeof narrow);
    if (type == RP_VALUE_F64)
        memcpy(&bits, &wide, sizeof wide);
    else if (type == RP_VALUE_BF16)
        bits = narrow >> 16;
    else if (type == RP_VALUE_F16) /* of a normal number, and of 0 */
        bits = value == 0 ? 0
                          : (narrow >> 16 & 0x8000) | (((narrow >> 23 & 0xff) - 112) << 10) |
                                (narrow >> 13 & 0x3ff);
    else
        bits = narrow;
    return bits;
}

static void put(unsigned char *at, uint64_t bits, size_t size, bool is_big_endian)
{
    for (size_t i = 0; i < size; i++)
        at[is_big_endian ? size - 1 - i : i] = (unsigned char)(bits >> 8 * i);
}

/* Value row * dim + column is values' of that number, whatever the order in memory. */
static void fill(unsigned char *data, const struct rp_array *array, size_t n_rows, size_t dim)
{
    const size_t size = rp_value_size(array->type);
    for (size_t r = 0; r < n_rows; r++)
        for (size_t c = 0; c < dim; c++)
            put(data + (array->is_fortran ? c * n_rows + r : r * dim + c) * size,
                bits_of(values[r * dim + c], array->type), size, array->is_big_endian);
}

static struct rp_array make(enum rp_value_type type, int n_dims, const uint64_t *dims)
{
    struct rp_array array = {
        .type = type, .type_name = "t", .note = "", .n_dims = n_dims, .n_elements = 1};
    for (int i = 0; i < n_dims; i++) {
        array.dims[i] = dims[i];
        array.n_elements *= dims[i];
    }
    return array;
}

static void every_type_and_order_gives_the_same_rows(void **state)
{
    (void)state;
    for (enum rp_value_type type = RP_VALUE_F32; type <= RP_VALUE_BF16; type++)
        for (int how = 0; how < 4; how++) {
            struct rp_array array = make(type, 2, (const uint64_t[]){2, 3});
            struct rp_rows rows;
            float out[6];
            array.is_big_endian = how & 1;
            array.is_fortran = how & 2;
            unsigned char *data =
                malloc(6 * rp_value_size(type)); /* so that a sanitizer sees more */
            assert_non_null(data);
            fill(data, &array, 2, 3);
            assert_int_equal(rp_array_rows(&array, false, "x", &rows, NULL), RP_OK);
            assert_int_equal(rows.n, 2);
            assert_int_equal(rows.dim, 3);
            assert_int_equal(rp_rows_are_plain(&rows), type == RP_VALUE_F32 && how == 0);
            rp_rows_read(&rows, data, out);
            assert_memory_equal(out, values, sizeof out);
            free(data);
        }
}

static void float64_is_rounded_to_the_nearest_float32(void **state)
{
    const double wide[] = {1.0 + 0x1p-25, 1.0 + 0x1.8p-24, 1e300};
    unsigned char data[24];
    const struct rp_array array = make(RP_VALUE_F64, 1, (const uint64_t[]){3});
    struct rp_rows rows;
    float out[3];
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        uint64_t bits;
        memcpy(&bits, &wide[i], sizeof bits);
        put(data + 8 * i, bits, 8, false);
    }
    assert_int_equal(rp_array_rows(&array, false, "x", &rows, NULL), RP_OK);
    rp_rows_read(&rows, data, out);
    assert_true(out[0] == 1.0f);
    assert_true(out[1] == 1.0f + 0x1p-23f);
    assert_true(out[2] > 3e38f); /* infinity: a comparison fails */
}

static void shapes_of_slots_become_rows(void **state)
{
    static const struct {
        int n_dims;
        uint64_t dims[4];
        bool may_be_stacked;
        enum rp_status code;
        size_t n, dim, n_stacked;
    } cases[] = {
        {2, {9, 128}, false, RP_OK, 9, 128, 1},
        {1, {128}, false, RP_OK, 1, 128, 1},
        {3, {1, 9, 128}, false, RP_OK, 9, 128, 1},
        {3, {9, 1, 128}, false, RP_OK, 9, 128, 1},
        {3, {1, 1, 128}, false, RP_OK, 1, 128, 1},
        {3, {2, 9, 128}, false, RP_ERR_UNSUPPORTED, 0, 0, 0},
        {3, {2, 9, 128}, true, RP_OK, 9, 128, 2},
        {4, {2, 1, 9, 128}, true, RP_OK, 9, 128, 2},
        {4, {2, 9, 1, 128}, true, RP_OK, 9, 128, 2},
        {4, {2, 9, 3, 128}, true, RP_ERR_UNSUPPORTED, 0, 0, 0},
        {4, {2, 1, 9, 128}, false, RP_ERR_UNSUPPORTED, 0, 0, 0},
        {0, {0}, false, RP_ERR_UNSUPPORTED, 0, 0, 0},
        {2, {0, 128}, false, RP_ERR_MISSING, 0, 0, 0},
        {2, {9, 0}, false, RP_ERR_MISSING, 0, 0, 0},
        {2, {(uint64_t)1 << 31, (uint64_t)1 << 31}, false, RP_ERR_UNSUPPORTED, 0, 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct rp_array array = make(RP_VALUE_F32, cases[i].n_dims, cases[i].dims);
        struct rp_rows rows;
        assert_int_equal(rp_array_rows(&array, cases[i].may_be_stacked, "x", &rows, NULL),
                         cases[i].code);
        if (cases[i].code != RP_OK)
            continue;
        assert_int_equal(rows.n, cases[i].n);
        assert_int_equal(rows.dim, cases[i].dim);
        assert_int_equal(rows.n_stacked, cases[i].n_stacked);
    }
}

static void an_entry_of_a_stack_is_read_in_both_orders(void **state)
{
    (void)state;
    for (int is_fortran = 0; is_fortran < 2; is_fortran++) {
        struct rp_array array = make(RP_VALUE_F32, 3, (const uint64_t[]){3, 2, 1});
        struct rp_rows rows;
        float out[2], data[6];
        array.is_fortran = is_fortran;
        for (size_t s = 0; s < 3; s++)
            for (size_t r = 0; r < 2; r++)
                data[is_fortran ? r * 3 + s : s * 2 + r] = values[s * 2 + r];
        assert_int_equal(rp_array_rows(&array, true, "x", &rows, NULL), RP_OK);
        for (size_t s = 0; s < 3; s++) {
            rows.first = s * rows.stack_stride;
            rp_rows_read(&rows, (const unsigned char *)data, out);
            assert_memory_equal(out, values + 2 * s, sizeof out);
        }
    }
}

static void whole_numbers_of_any_type_keep_their_sign(void **state)
{
    (void)state;
    for (enum rp_value_type type = RP_VALUE_I8; type <= RP_VALUE_U64; type++)
        for (int is_big_endian = 0; is_big_endian < 2; is_big_endian++) {
            struct rp_array array = make(type, 2, (const uint64_t[]){3, 1});
            const size_t size = rp_value_size(type);
            const int64_t wanted[] = {0, 127, type <= RP_VALUE_I64 ? -1 : 200};
            unsigned char data[24];
            int64_t *read;
            size_t n;
            array.is_big_endian = is_big_endian;
            for (size_t i = 0; i < 3; i++)
                put(data + i * size, (uint64_t)wanted[i], size, is_big_endian);
            assert_int_equal(rp_array_int64(&array, data, 3, "x", &read, &n, NULL), RP_OK);
            assert_int_equal(n, 3);
            for (size_t i = 0; i < 3; i++)
                assert_true(read[i] == wanted[i]);
            free(read);
        }
}

static void what_is_no_vector_of_whole_numbers_is_an_error(void **state)
{
    struct rp_error err;
    unsigned char data[64] = {0};
    int64_t *read = NULL;
    size_t n;
    (void)state;
    struct rp_array array = make(RP_VALUE_F32, 1, (const uint64_t[]){3});
    assert_int_equal(rp_array_int64(&array, data, 3, "x", &read, &n, &err), RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "expected an integer type, found 't'");
    array = make(RP_VALUE_I64, 2, (const uint64_t[]){2, 2});
    assert_int_equal(rp_array_int64(&array, data, 9, "x", &read, &n, &err), RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "expected shape (n,) with at most 9 elements, found (2, 2)");
    array = make(RP_VALUE_I64, 1, (const uint64_t[]){4});
    assert_int_equal(rp_array_int64(&array, data, 3, "x", &read, &n, &err), RP_ERR_UNSUPPORTED);
    array = make(RP_VALUE_U64, 1, (const uint64_t[]){2});
    data[15] = 0x80;
    assert_int_equal(rp_array_int64(&array, data, 3, "x", &read, &n, &err), RP_ERR_FORMAT);
    assert_string_equal(err.message, "expected numbers below 2^63, found 9223372036854775808");
    assert_null(read);
}

static void a_shape_text_is_cut_to_fit(void **state)
{
    const struct rp_array array = {.n_dims = 3, .dims = {1000, 2000, 3000}};
    char text[10];
    (void)state;
    assert_string_equal(rp_array_shape_text(&array, text, sizeof text), "(1000, 20");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_and_order_gives_the_same_rows),
        cmocka_unit_test(float64_is_rounded_to_the_nearest_float32),
        cmocka_unit_test(shapes_of_slots_become_rows),
        cmocka_unit_test(an_entry_of_a_stack_is_read_in_both_orders),
        cmocka_unit_test(whole_numbers_of_any_type_keep_their_sign),
        cmocka_unit_test(what_is_no_vector_of_whole_numbers_is_an_error),
        cmocka_unit_test(a_shape_text_is_cut_to_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
