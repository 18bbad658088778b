/* Lists of numbers: what is read, and which entry is refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/numbers.h"

static void the_last_separator_may_be_missing(void **state)
{
    (void)state;
    static const char *const texts[] = {"7\n0\n1023\n", "7\n0\n1023"};
    for (size_t i = 0; i < 2; i++) {
        int64_t *numbers = NULL;
        size_t n = 0;
        assert_int_equal(rp_numbers_parse(texts[i], strlen(texts[i]), '\n', 1023, "ids", "line",
                                          &numbers, &n, NULL),
                         RP_OK);
        assert_int_equal(n, 3);
        assert_int_equal(numbers[0], 7);
        assert_int_equal(numbers[1], 0);
        assert_int_equal(numbers[2], 1023);
        free(numbers);
    }
}

static void what_is_no_number_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"1\n1024\n", "line 2 is not a decimal number from 0 to 1023"},
        {"-1\n", "line 1 is not a decimal number from 0 to 1023"},
        {"1\n\n2\n", "line 2 is not a decimal number from 0 to 1023"},
        {"1 \n", "line 1 is not a decimal number from 0 to 1023"},
        {"99999999999999999999999999\n", "line 1 is not a decimal number from 0 to 1023"},
        {"", "there are no numbers"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t *numbers = NULL;
        size_t n = 0;
        struct rp_error err = {0};
        assert_int_equal(rp_numbers_parse(cases[i].text, strlen(cases[i].text), '\n', 1023, "ids",
                                          "line", &numbers, &n, &err),
                         RP_ERR_FORMAT);
        assert_string_equal(err.message, cases[i].message);
        assert_null(numbers);
    }
}

static void a_zero_byte_ends_no_list(void **state)
{
    (void)state;
    int64_t *numbers = NULL;
    size_t n = 0;
    assert_int_equal(
        rp_numbers_parse("1\n\0002\n", 5, '\n', 1023, "ids", "line", &numbers, &n, NULL),
        RP_ERR_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_separator_may_be_missing),
        cmocka_unit_test(what_is_no_number_is_named),
        cmocka_unit_test(a_zero_byte_ends_no_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
