/* What is quoted is what a shell reads. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/process.h"
#include "base/scratch_test_util.h"
#include "base/shell.h"

static void a_word_is_quoted_where_a_shell_would_read_something_into_it(void **state)
{
    (void)state;
    char word[128];
    assert_string_equal(rp_shell_quote("plain/path-1.0", word, sizeof word), "plain/path-1.0");
    assert_string_equal(rp_shell_quote("^a/b$", word, sizeof word), "'^a/b$'");
    assert_string_equal(rp_shell_quote("", word, sizeof word), "''");
    assert_string_equal(rp_shell_quote("it's", word, sizeof word), "'it'\\''s'");
    assert_string_equal(rp_shell_quote("a\nb\\'\x1b", word, sizeof word), "$'a\\012b\\\\\\'\\033'");
}

static void a_shell_reads_it_as_it_was(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "my build/tree",   "$(rm -rf x) `ls` ;&|<>", "\"double\" 'single' \\ back",
        "a\nb\tc\x7f'\\n", "* ? [a-z] ~ {x}",        "\xc3\xa4"};
    char folder[256], path[300], word[256], script[700], *text;
    size_t length;
    rp_test_make_folder(folder);
    snprintf(path, sizeof path, "%s/out", folder);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        snprintf(script, sizeof script, "printf %%s %s",
                 rp_shell_quote(texts[i], word, sizeof word));
        char *argv[] = {"bash", "-c", script, NULL};
        const struct rp_process_spec spec = {.argv = argv, .log_path = path, .timeout_s = 10};
        struct rp_process_result result;
        assert_int_equal(rp_process_run(&spec, &result, NULL), RP_OK);
        assert_int_equal(rp_file_read(path, 1000, &text, &length, NULL), RP_OK);
        assert_string_equal(text, texts[i]);
        free(text);
    }
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

static void a_word_that_does_not_fit_is_cut_and_nothing_is_written_behind_it(void **state)
{
    (void)state;
    char buffer[64];
    static const char *const texts[] = {"it's a long one, with 'quotes'", "\n\n\n\n\n\n\n\n",
                                        "plain"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        for (size_t size = 1; size < 40; size++) {
            memset(buffer, 'x', sizeof buffer);
            rp_shell_quote(texts[i], buffer, size);
            assert_true(strnlen(buffer, size) < size);
            assert_int_equal(buffer[size], 'x');
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_word_is_quoted_where_a_shell_would_read_something_into_it),
        cmocka_unit_test(a_shell_reads_it_as_it_was),
        cmocka_unit_test(a_word_that_does_not_fit_is_cut_and_nothing_is_written_behind_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
