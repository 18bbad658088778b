/* Error detail: filled, cut, kept to one line, and shown. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "refparity/status.h"

static void an_error_shows_place_offset_and_message(void **state)
{
    (void)state;
    struct rp_error err;
    char text[128];
    assert_int_equal(rp_fail(&err, RP_ERR_FORMAT, "a.npz", 128, "expected %d, found %d", 1, 2),
                     RP_ERR_FORMAT);
    assert_string_equal(rp_error_text(&err, text, sizeof text),
                        "a.npz: byte 128: expected 1, found 2");
    rp_fail(&err, RP_ERR_IO, NULL, -1, "x");
    assert_string_equal(rp_error_text(&err, text, sizeof text), "x");
    assert_int_equal(rp_fail(NULL, RP_ERR_IO, "a", 0, "x"), RP_ERR_IO);
}

/* ctest takes a line "refparity: SKIP: " for a skip: a file's own text must not make one. */
static void what_a_message_quotes_stays_on_its_line(void **state)
{
    (void)state;
    struct rp_error err;
    rp_fail(&err, RP_ERR_FORMAT, "a\nb", -1, "found \"%s\"", "x\nrefparity: SKIP: y\r\x1b[31m\x7f");
    assert_string_equal(err.where, "a?b");
    assert_string_equal(err.message, "found \"x?refparity: SKIP: y??[31m?\"");
}

static void long_texts_are_cut(void **state)
{
    (void)state;
    struct rp_error err;
    char text[5000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    rp_fail(&err, RP_ERR_FORMAT, text, -1, "%s", text);
    assert_int_equal(strlen(err.where), sizeof err.where - 1);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_error_shows_place_offset_and_message),
        cmocka_unit_test(what_a_message_quotes_stays_on_its_line),
        cmocka_unit_test(long_texts_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
