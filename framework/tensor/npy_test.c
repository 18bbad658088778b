/* tensor/npy.h: headers as numpy writes them, and as nobody should. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tensor/npy.h"
#include "tensor/npz_writer_test_util.h"

static enum rp_status parse(int version, const char *dict, struct rp_npy *npy, struct rp_error *err)
{
    struct rp_test_bytes bytes = {NULL, 0, 0};
    rp_test_npy_dict(&bytes, version, dict, NULL, 0);
    enum rp_status code = rp_npy_parse(bytes.data, bytes.n, "x.npy", npy, err);
    if (!code)
        assert_int_equal(npy->data_offset, bytes.n);
    rp_test_free(&bytes);
    return code;
}

static void assert_parses(int version, const char *dict)
{
    struct rp_npy npy;
    assert_int_equal(parse(version, dict, &npy, NULL), RP_OK);
    assert_string_equal(npy.array.type_name, "<f4");
    assert_false(npy.array.is_fortran);
    assert_int_equal(npy.array.n_dims, 2);
    assert_int_equal(npy.array.dims[0], 9);
    assert_int_equal(npy.array.dims[1], 128);
    assert_int_equal(npy.array.n_elements, 9 * 128);
}

static void headers_of_all_three_versions_parse(void **state)
{
    (void)state;
    for (int version = 1; version <= 3; version++)
        assert_parses(version, "{'descr': '<f4', 'fortran_order': False, 'shape': (9, 128), }");
}

static void keys_come_in_any_order_and_with_any_spacing(void **state)
{
    (void)state;
    assert_parses(1, "{'shape':(9,128),'descr':'<f4','fortran_order':False}");
    assert_parses(
        1, "  { \"fortran_order\" : False , \"shape\" : ( 9 , 128 , ) , \"descr\" : \"<f4\" , } ");
}

static void what_is_not_such_a_dict_is_an_error(void **state)
{
    static const struct {
        const char *dict, *message;
        long long offset;
    } cases[] = {
        {"", "npy header: expected '{', found its end", 64},
        {"{'descr': '<f4', 'shape': (9,), }",
         "npy header: expected the keys 'descr', 'fortran_order' and 'shape', once each, found its "
         "end",
         -1},
        {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (9,), }",
         "npy header: expected the keys 'descr', 'fortran_order' and 'shape', once each, found ':'",
         34},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (9,), 'more': 1}",
         "npy header: expected the keys 'descr', 'fortran_order' and 'shape', once each, found ':'",
         72},
        {"{'descr': '<f4', 'fortran_order': 0, 'shape': (9,), }",
         "npy header: expected True or False, found '0'", 44},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (9), }",
         "npy header: expected ',', found ')'", 62},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': 9, }",
         "npy header: expected '(', found '9'", 60},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
         "npy header: expected a dimension, found '-'", 61},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (9L,), }",
         "npy header: expected ',', found 'L'", 62},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (9, 1 2), }",
         "npy header: expected ',' or ')', found '2'", 66},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775808,), }",
         "npy header: expected a dimension below 2^63, found '8'", 79},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
         "npy header: shape (4294967296, 4294967296) has more than 2^60 elements", 10},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (9,), } x",
         "npy header: expected nothing after the dict, found 'x'", 68},
        {"{'descr': '<f4, 'fortran_order': False, 'shape': (9,), }",
         "npy header: expected ',' or '}', found 'f'", 27},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (9,), '",
         "npy header: expected the string's closing quote, found its end", -1},
        {"{'descr': [('a', '<f4'), 'fortran_order': False",
         "npy header: expected the type's closing bracket, found its end", -1},
        {"{'descr': 4, 'fortran_order': False, 'shape': (9,), }",
         "npy header: expected a type such as '<f4', found '4'", 20},
        {"{'descr': '<f4' 'fortran_order': False, 'shape': (9,), }",
         "npy header: expected ',' or '}', found '''", 26},
        {"{\x01", "npy header: expected a key, found byte 0x01", 11},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rp_npy npy;
        struct rp_error err;
        assert_int_equal(parse(1, cases[i].dict, &npy, &err), RP_ERR_FORMAT);
        assert_string_equal(err.message, cases[i].message);
        assert_string_equal(err.where, "x.npy");
        if (cases[i].offset >= 0)
            assert_int_equal(err.offset, cases[i].offset);
    }
}

static void more_than_ten_dimensions_are_refused(void **state)
{
    struct rp_npy npy;
    struct rp_error err;
    (void)state;
    assert_int_equal(
        parse(1,
              "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1, 1, 1, 1, 1, "
              "1, 1, 1, 1), }",
              &npy, &err),
        RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "npy header: expected at most 10 dimensions");
}

static void an_empty_dimension_is_not_an_overflow(void **state)
{
    struct rp_npy npy;
    (void)state;
    assert_int_equal(parse(1,
                           "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, "
                           "4294967296, 0), }",
                           &npy, NULL),
                     RP_OK);
    assert_int_equal(npy.array.n_elements, 0);
}

static void a_header_cut_anywhere_is_an_error(void **state)
{
    struct rp_test_bytes bytes = {NULL, 0, 0};
    (void)state;
    for (int version = 1; version <= 3; version++) {
        rp_test_npy_dict(&bytes, version,
                         "{'descr': '<f4', 'fortran_order': False, 'shape': (9, 128), }", NULL, 0);
        for (size_t n = 0; n < bytes.n; n++) {
            struct rp_npy npy;
            struct rp_error err;
            char message[100];
            uint8_t *exact = malloc(n + 1); /* so that a sanitizer sees any read past the end */
            assert_non_null(exact);
            memcpy(exact, bytes.data, n);
            exact = realloc(exact, n ? n : 1);
            assert_int_equal(rp_npy_parse(exact, n, "x.npy", &npy, &err), RP_ERR_FORMAT);
            free(exact);
            if (n < 10)
                snprintf(message, sizeof message, "expected an npy header, found only %zu bytes",
                         n);
            else if (n < 12 && version > 1)
                continue;
            else
                snprintf(message, sizeof message,
                         "expected an npy header of %zu bytes, found only %zu", bytes.n, n);
            assert_string_equal(err.message, message);
        }
        rp_test_free(&bytes);
    }
}

static void other_magic_and_versions_are_refused(void **state)
{
    struct rp_npy npy;
    struct rp_error err;
    (void)state;
    assert_int_equal(
        rp_npy_parse((const uint8_t *)"\x80\x04\x95pickle...", 12, "x.npy", &npy, &err),
        RP_ERR_FORMAT);
    assert_string_equal(err.message, "expected an npy header, found other bytes among the first 6");
    assert_int_equal(parse(4, "{}", &npy, &err), RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "expected npy version 1.0, 2.0 or 3.0, found 4.0");
    assert_int_equal(
        rp_npy_parse((const uint8_t *)"\x93NUMPY\x02\x00\xff\xff\xff\xff", 12, "x.npy", &npy, &err),
        RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message,
                        "expected an npy header of at most 65536 bytes, found 4294967295");
}

static enum rp_status check(const char *descr, const char *shape, uint64_t n_data,
                            struct rp_npy *npy, struct rp_error *err)
{
    char dict[256];
    snprintf(dict, sizeof dict, "{'descr': %s, 'fortran_order': False, 'shape': %s, }", descr,
             shape);
    assert_int_equal(parse(1, dict, npy, NULL), RP_OK);
    return rp_npy_check(npy, npy->data_offset + n_data, "x.npy", err);
}

static void types_are_told_by_letter_size_and_byte_order(void **state)
{
    static const struct {
        const char *descr;
        enum rp_value_type type;
        bool is_big_endian;
    } cases[] = {
        {"'<f4'", RP_VALUE_F32, false},
        {"'>f4'", RP_VALUE_F32, true},
        {"'<f8'", RP_VALUE_F64, false},
        {"'>f2'", RP_VALUE_F16, true},
        {"'<V2'", RP_VALUE_BF16, false}, /* numpy.save of ml_dtypes' bfloat16 */
        {"'|V2'", RP_VALUE_BF16, false},
        {"'bfloat16'", RP_VALUE_BF16, false},
        {"[('bfloat16', '<V2')]", RP_VALUE_BF16, false},
        {"[('bfloat16', 'V2')]", RP_VALUE_BF16, false},
        {"[('float16', '<V2')]", RP_VALUE_OTHER, false},
        {"[('bfloat16', '<V2'), ('b', '<f4')]", RP_VALUE_OTHER, false},
        {"'|i1'", RP_VALUE_I8, false},
        {"'>i4'", RP_VALUE_I32, true},
        {"'<u8'", RP_VALUE_U64, false},
        {"'|O'", RP_VALUE_OTHER, false},
        {"'<f16'", RP_VALUE_OTHER, false},
        {"''", RP_VALUE_OTHER, false},
        {"'<'", RP_VALUE_OTHER, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rp_npy npy;
        const uint64_t n = 6 * rp_value_size(cases[i].type);
        assert_int_equal(check(cases[i].descr, "(2, 3)", n, &npy, NULL), RP_OK);
        assert_int_equal(npy.array.type, cases[i].type);
        assert_int_equal(npy.array.is_big_endian, cases[i].is_big_endian);
    }
}

static void other_types_are_refused_by_name(void **state)
{
    static const struct {
        const char *descr, *found;
    } cases[] = {
        {"'|O'", "'|O' (pickled Python objects, which are never loaded)"},
        {"[('a', '<f4'), ('b', '<f4', (2,))]", "'[...]' (a structured type)"},
        {"'<i8'", "'<i8' (int64)"},
        {"'<u2'", "'<u2' (uint16; of bfloat16's bits? then save it with ml_dtypes' bfloat16, or as "
                  "float32)"},
        {"'evil\n\x1b'", "'evil?"
                         "?'"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rp_error err;
        struct rp_npy npy;
        struct rp_rows rows;
        char message[300];
        snprintf(message, sizeof message,
                 "expected float32, float16, bfloat16 or float64, found %s", cases[i].found);
        (void)check(cases[i].descr, "(2, 3)", 24, &npy, NULL);
        assert_int_equal(rp_array_rows(&npy.array, false, "x.npy", &rows, &err),
                         RP_ERR_UNSUPPORTED);
        assert_string_equal(err.message, message);
    }
}

static void data_that_is_shorter_or_longer_than_the_shape_is_an_error(void **state)
{
    struct rp_error err;
    struct rp_npy npy;
    (void)state;
    assert_int_equal(check("'<f4'", "(2, 3)", 23, &npy, &err), RP_ERR_FORMAT);
    assert_string_equal(err.message, "shape (2, 3) of '<f4' needs 24 bytes of data, found 23");
    assert_int_equal(err.offset, 128);
    assert_int_equal(check("'<f4'", "(2, 3)", 28, &npy, &err), RP_ERR_FORMAT);
    assert_string_equal(err.message, "shape (2, 3) of '<f4' needs 24 bytes of data, found 28");
    assert_int_equal(check("'<V2'", "(2, 3)", 24, &npy, &err), RP_ERR_FORMAT);
    assert_string_equal(err.message, "shape (2, 3) of '<V2' needs 12 bytes of data, found 24");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_of_all_three_versions_parse),
        cmocka_unit_test(keys_come_in_any_order_and_with_any_spacing),
        cmocka_unit_test(what_is_not_such_a_dict_is_an_error),
        cmocka_unit_test(more_than_ten_dimensions_are_refused),
        cmocka_unit_test(an_empty_dimension_is_not_an_overflow),
        cmocka_unit_test(a_header_cut_anywhere_is_an_error),
        cmocka_unit_test(other_magic_and_versions_are_refused),
        cmocka_unit_test(types_are_told_by_letter_size_and_byte_order),
        cmocka_unit_test(other_types_are_refused_by_name),
        cmocka_unit_test(data_that_is_shorter_or_longer_than_the_shape_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
