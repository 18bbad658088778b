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
    assert_string_equal(npy.descr, "<f4");
    assert_false(npy.fortran_order);
    assert_int_equal(npy.n_dims, 2);
    assert_int_equal(npy.dims[0], 9);
    assert_int_equal(npy.dims[1], 128);
    assert_int_equal(npy.n_elements, 9 * 128);
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
    assert_int_equal(npy.n_elements, 0);
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

static enum rp_status check(const char *descr, const char *order, const char *shape,
                            enum rp_npy_type type, uint64_t n_data, struct rp_error *err)
{
    struct rp_npy npy;
    char dict[256];
    snprintf(dict, sizeof dict, "{'descr': %s, 'fortran_order': %s, 'shape': %s, }", descr, order,
             shape);
    assert_int_equal(parse(1, dict, &npy, NULL), RP_OK);
    return rp_npy_check(&npy, type, npy.data_offset + n_data, "x.npy", err);
}

static void the_types_that_are_read_pass(void **state)
{
    (void)state;
    assert_int_equal(check("'<f4'", "False", "(2, 3)", RP_NPY_FLOAT32, 24, NULL), RP_OK);
    assert_int_equal(check("'<i8'", "False", "(3,)", RP_NPY_INT64, 24, NULL), RP_OK);
    assert_int_equal(check("'<i4'", "False", "(3,)", RP_NPY_INT64, 12, NULL), RP_OK);
    assert_int_equal(check("'|u1'", "False", "(3,)", RP_NPY_UINT8, 3, NULL), RP_OK);
}

static void other_types_are_refused_by_name(void **state)
{
    static const struct {
        const char *descr, *found;
    } cases[] = {
        {"'<f8'", "'<f8' (float64)"},
        {"'<f2'", "'<f2' (float16)"},
        {"'>f4'", "'>f4' (float32, big-endian)"},
        {"'|O'", "'|O' (pickled Python objects, which are never loaded)"},
        {"'|V2'", "'|V2' (raw bytes; bfloat16 is often saved so)"},
        {"[('a', '<f4'), ('b', '<f4', (2,))]", "'[...]' (a structured type)"},
        {"'<i8'", "'<i8'"},
        {"'evil\n\x1b'", "'evil?"
                         "?'"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rp_error err;
        char message[200];
        snprintf(message, sizeof message, "expected type '<f4' (float32, little-endian), found %s",
                 cases[i].found);
        assert_int_equal(check(cases[i].descr, "False", "(2, 3)", RP_NPY_FLOAT32, 24, &err),
                         RP_ERR_UNSUPPORTED);
        assert_string_equal(err.message, message);
    }
}

static void fortran_order_is_refused_unless_it_is_the_same(void **state)
{
    struct rp_error err;
    (void)state;
    assert_int_equal(check("'<f4'", "True", "(2, 3)", RP_NPY_FLOAT32, 24, &err),
                     RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message,
                        "expected C order, found Fortran order with shape (2, 3): save "
                        "numpy.ascontiguousarray of it");
    assert_int_equal(check("'<f4'", "True", "(1, 6)", RP_NPY_FLOAT32, 24, NULL), RP_OK);
    assert_int_equal(check("'<f4'", "True", "(6,)", RP_NPY_FLOAT32, 24, NULL), RP_OK);
}

static void data_that_is_shorter_or_longer_than_the_shape_is_an_error(void **state)
{
    struct rp_error err;
    (void)state;
    assert_int_equal(check("'<f4'", "False", "(2, 3)", RP_NPY_FLOAT32, 23, &err), RP_ERR_FORMAT);
    assert_string_equal(err.message, "shape (2, 3) of '<f4' needs 24 bytes of data, found 23");
    assert_int_equal(err.offset, 128);
    assert_int_equal(check("'<f4'", "False", "(2, 3)", RP_NPY_FLOAT32, 28, &err), RP_ERR_FORMAT);
    assert_string_equal(err.message, "shape (2, 3) of '<f4' needs 24 bytes of data, found 28");
}

static void shapes_of_slots_become_rows(void **state)
{
    static const struct {
        const char *shape;
        enum rp_status code;
        size_t n, dim;
        const char *message;
    } cases[] = {
        {"(9, 128)", RP_OK, 9, 128, NULL},
        {"(128,)", RP_OK, 1, 128, NULL},
        {"(1, 9, 128)", RP_OK, 9, 128, NULL},
        {"(2, 9, 128)", RP_ERR_UNSUPPORTED, 0, 0,
         "expected shape (positions, dim), (dim,) or (1, positions, dim), found (2, 9, 128)"},
        {"()", RP_ERR_UNSUPPORTED, 0, 0,
         "expected shape (positions, dim), (dim,) or (1, positions, dim), found ()"},
        {"(0, 128)", RP_ERR_MISSING, 0, 0, "there is nothing in it: shape (0, 128)"},
        {"(9, 0)", RP_ERR_MISSING, 0, 0, "there is nothing in it: shape (9, 0)"},
        {"(0,)", RP_ERR_MISSING, 0, 0, "there is nothing in it: shape (0,)"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rp_npy npy;
        struct rp_error err;
        char dict[128];
        size_t n, dim;
        snprintf(dict, sizeof dict, "{'descr': '<f4', 'fortran_order': False, 'shape': %s}",
                 cases[i].shape);
        assert_int_equal(parse(1, dict, &npy, NULL), RP_OK);
        assert_int_equal(rp_npy_rows(&npy, "x.npy", &n, &dim, &err), cases[i].code);
        assert_int_equal(n, cases[i].n);
        assert_int_equal(dim, cases[i].dim);
        if (cases[i].message)
            assert_string_equal(err.message, cases[i].message);
    }
}

static void int32_is_widened_with_its_sign(void **state)
{
    static const int32_t narrow[] = {0, -1, 2147483647, -2147483647 - 1};
    struct rp_test_bytes bytes = {NULL, 0, 0};
    struct rp_npy npy;
    int64_t values[4];
    (void)state;
    rp_test_npy(&bytes, "<i4", "(4,)", narrow, sizeof narrow);
    assert_int_equal(rp_npy_parse(bytes.data, bytes.n, "x.npy", &npy, NULL), RP_OK);
    rp_npy_int64(&npy, bytes.data, values);
    for (size_t i = 0; i < 4; i++)
        assert_true(values[i] == narrow[i]);
    rp_test_free(&bytes);
}

static void a_shape_text_is_cut_to_fit(void **state)
{
    struct rp_npy npy = {.n_dims = 3, .dims = {1000, 2000, 3000}};
    char text[10];
    (void)state;
    assert_string_equal(rp_npy_shape_text(&npy, text, sizeof text), "(1000, 20");
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
        cmocka_unit_test(the_types_that_are_read_pass),
        cmocka_unit_test(other_types_are_refused_by_name),
        cmocka_unit_test(fortran_order_is_refused_unless_it_is_the_same),
        cmocka_unit_test(data_that_is_shorter_or_longer_than_the_shape_is_an_error),
        cmocka_unit_test(shapes_of_slots_become_rows),
        cmocka_unit_test(int32_is_widened_with_its_sign),
        cmocka_unit_test(a_shape_text_is_cut_to_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
