/* What an entry asks of a cluster: "slurm". See refparity/matrix.h. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "matrix/matrix_test_util.h"

#define SLURM "\"slurm\":{"
#define VALUE(key) (ENTRY_MORE + (int)(sizeof(SLURM) - 1) + (int)(sizeof("\"" key "\":") - 1))

static void resources_are_those_of_the_entry(void **state)
{
    (void)state;
    struct rp_matrix *matrix = parse(
        WITH_ENTRY("\"slurm\":{\"mem\":\"64G\",\"gres\":\"gpu:a100:2\",\"time\":\"2:00:00\"}"));
    const struct rp_entry *entry = rp_matrix_entry(matrix, 0);
    assert_string_equal(entry->slurm.mem, "64G");
    assert_string_equal(entry->slurm.gres, "gpu:a100:2");
    assert_string_equal(entry->slurm.time, "2:00:00");
    rp_matrix_free(matrix);
}

static void an_entry_without_them_asks_for_none(void **state)
{
    (void)state;
    struct rp_matrix *matrix = parse(WITH_ENTRY("\"slurm\":{\"_comment\":1}"));
    assert_null(rp_matrix_entry(matrix, 0)->slurm.mem);
    assert_null(rp_matrix_entry(matrix, 0)->slurm.gres);
    assert_null(rp_matrix_entry(matrix, 0)->slurm.time);
    rp_matrix_free(matrix);
}

static void every_form_of_a_time_limit_is_taken(void **state)
{
    (void)state;
    static const char *const times[] = {"90", "90:30", "2:00:00", "1-0", "1-12:30", "1-12:30:15"};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        char text[512];
        snprintf(text, sizeof text, WITH_ENTRY("\"slurm\":{\"time\":\"%s\"}"), times[i]);
        rp_matrix_free(parse(text));
    }
}

static void what_is_no_value_of_sbatch_is_an_error_with_its_place(void **state)
{
    (void)state;
    expect_error(WITH_ENTRY(SLURM "\"mem\":\"64 G\"}"), RP_ERR_FORMAT, 3, VALUE("mem"),
                 "expected memory, as \"64G\", found \"64 G\"");
    expect_error(WITH_ENTRY(SLURM "\"mem\":\"0\"}"), RP_ERR_FORMAT, 3, VALUE("mem"),
                 "expected memory, as \"64G\", found \"0\"");
    expect_error(WITH_ENTRY(SLURM "\"gres\":\"gpu:1 --wrap=x\"}"), RP_ERR_FORMAT, 3, VALUE("gres"),
                 "expected generic resources, as \"gpu:1\", found \"gpu:1 --wrap=x\"");
    static const char *const times[] = {"2h", "1:2:3:4", "1-", ":5", "1:200", "1-2-3", "1:2-3"};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        char text[512], message[256];
        snprintf(text, sizeof text, WITH_ENTRY(SLURM "\"time\":\"%s\"}"), times[i]);
        snprintf(message, sizeof message,
                 "expected a time limit, as \"2:00:00\" (hours:minutes:seconds), found \"%s\"",
                 times[i]);
        expect_error(text, RP_ERR_FORMAT, 3, VALUE("time"), message);
    }
}

static void an_unknown_key_is_an_error(void **state)
{
    (void)state;
    struct rp_matrix *matrix = NULL;
    struct rp_error err;
    const char *text = WITH_ENTRY(SLURM "\"memory\":\"64G\"}");
    assert_int_equal(rp_matrix_parse(text, strlen(text), "m.json", &matrix, &err), RP_ERR_FORMAT);
    assert_non_null(strstr(err.message, "expected a key of \"slurm\", found \"memory\""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resources_are_those_of_the_entry),
        cmocka_unit_test(an_entry_without_them_asks_for_none),
        cmocka_unit_test(every_form_of_a_time_limit_is_taken),
        cmocka_unit_test(what_is_no_value_of_sbatch_is_an_error_with_its_place),
        cmocka_unit_test(an_unknown_key_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
