/* What is printed is aligned, fits, has colours only where they are wanted, and acts on no terminal. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/terminal.h"

struct memory {
    struct rp_terminal terminal;
    char *text;
    size_t length;
};

static void open_memory(struct memory *memory, bool has_colours, size_t width)
{
    FILE *out = open_memstream(&memory->text, &memory->length);
    assert_non_null(out);
    memory->terminal = (struct rp_terminal){.out = out, .has_colours = has_colours, .width = width};
}

static void assert_printed(struct memory *memory, const char *expected)
{
    assert_int_equal(fclose(memory->terminal.out), 0);
    assert_string_equal(memory->text, expected);
    free(memory->text);
}

static const struct rp_column columns[] = {
    {"slot", 8, true}, {"L2_rel", 8, false}, {"status", 8, true}, {"from", 6, true}};

static void a_table_is_aligned(void **state)
{
    (void)state;
    struct memory memory;
    open_memory(&memory, false, 0);
    rp_table_heading(&memory.terminal, columns, 4);
    rp_table_row(&memory.terminal, columns, 4,
                 (const struct rp_cell[]){{"h0", 0}, {"1.5e-07", 0}, {"PASS", 0}, {"emb", 0}});
    rp_table_row(&memory.terminal, columns, 4,
                 (const struct rp_cell[]){{"h10_attnout", 0}, {"nan", 0}, {"FAIL", 0}, {"", 0}});
    assert_printed(&memory, "slot       L2_rel status   from\n"
                            "h0        1.5e-07 PASS     emb\n"
                            "h10_att…      nan FAIL\n");
}

static void a_number_is_never_cut(void **state)
{
    (void)state;
    struct memory memory;
    open_memory(&memory, false, 0);
    rp_table_row(&memory.terminal, columns, 3,
                 (const struct rp_cell[]){{"h0", 0}, {"123456789012", 0}, {"PASS", 0}});
    assert_printed(&memory, "h0       123456789012 PASS\n");
}

/* "中" takes two columns, and "e" with a combining accent one. */
static void a_cell_is_as_wide_as_it_looks(void **state)
{
    (void)state;
    struct memory memory;
    open_memory(&memory, false, 0);
    assert_int_equal(rp_print_width("\xe4\xb8\xad\xe6\x96\x87"), 4);
    assert_int_equal(rp_print_width("e\xcc\x81"), 1);
    rp_table_row(&memory.terminal, columns, 2,
                 (const struct rp_cell[]){{"\xe4\xb8\xad\xe6\x96\x87", 0}, {"1", 0}});
    rp_table_row(&memory.terminal, columns, 2,
                 (const struct rp_cell[]){{"e\xcc\x81t\xc3\xa9", 0}, {"1", 0}});
    rp_table_row(
        &memory.terminal, columns, 2,
        (const struct rp_cell[]){
            {"\xe4\xb8\xad\xe4\xb8\xad\xe4\xb8\xad\xe4\xb8\xad\xe4\xb8\xad", 0}, {"1", 0}});
    assert_printed(&memory, "\xe4\xb8\xad\xe6\x96\x87            1\n"
                            "e\xcc\x81t\xc3\xa9             1\n"
                            "\xe4\xb8\xad\xe4\xb8\xad\xe4\xb8\xad…         1\n");
}

static void nothing_that_acts_on_a_terminal_is_printed(void **state)
{
    (void)state;
    static const char hostile[] =
        "\x1b]0;title\x07\x9b\x33\x31m\r\b\x7f\xc2\x9b\xe2\x80\xae\xff\n\t";
    static const char shown[] =
        "\\x1b]0;title\\x07\\x9b31m\\x0d\\x08\\x7f\\u009b\\u202e\\xff\\n\\x09";
    struct memory memory;
    char expected[300];
    const struct rp_column wide[] = {{"name", 90, true}};
    open_memory(&memory, false, 0);
    rp_print(&memory.terminal, RP_STYLE_BAD, "%s|", hostile);
    rp_print_line(&memory.terminal, "%s", hostile);
    rp_table_row(&memory.terminal, wide, 1, &(const struct rp_cell){hostile, RP_STYLE_BAD});
    snprintf(expected, sizeof expected, "%s|%s\n%s\n", shown, shown, shown);
    assert_int_equal(rp_print_width(hostile), strlen(shown));
    assert_printed(&memory, expected);
}

static void colours_surround_what_they_colour(void **state)
{
    (void)state;
    struct memory memory;
    open_memory(&memory, true, 0);
    rp_print(&memory.terminal, RP_STYLE_BAD, "FAIL");
    rp_print(&memory.terminal, RP_STYLE_PLAIN, " plain\x1b[31m");
    rp_print_line(&memory.terminal, " line");
    rp_table_row(&memory.terminal, columns, 3,
                 (const struct rp_cell[]){{"h0", 0}, {"1", 0}, {"PASS", RP_STYLE_GOOD}});
    assert_printed(&memory, "\x1b[1;31mFAIL\x1b[0m plain\\x1b[31m line\n"
                            "h0              1 \x1b[32mPASS\x1b[0m\n");
}

static void lines_are_broken_between_words(void **state)
{
    (void)state;
    struct memory memory;
    open_memory(&memory, false, 20);
    rp_print_line(&memory.terminal, "    at position 6 the input has L2_rel 2e-07");
    rp_print_line(&memory.terminal, "reproduce: a-word-that-is-longer-than-a-line x");
    rp_print_line(&memory.terminal, "short");
    assert_printed(&memory, "    at position 6\n"
                            "    the input has\n"
                            "    L2_rel 2e-07\n"
                            "reproduce:\n"
                            "  a-word-that-is-longer-than-a-line\n"
                            "  x\n"
                            "short\n");
}

static void set(const char *name, const char *value)
{
    if (value)
        assert_int_equal(setenv(name, value, 1), 0);
    else
        assert_int_equal(unsetenv(name), 0);
}

static bool has_colours(enum rp_colours colours, const char *no_color, const char *force)
{
    FILE *out = tmpfile();
    assert_non_null(out);
    set("NO_COLOR", no_color);
    set("CLICOLOR_FORCE", force);
    const struct rp_terminal terminal = rp_terminal_open(out, colours);
    assert_int_equal(terminal.width, 0); /* a file's lines are never broken */
    fclose(out);
    set("NO_COLOR", NULL);
    set("CLICOLOR_FORCE", NULL);
    return terminal.has_colours;
}

static void a_file_has_colours_only_where_they_are_asked_for(void **state)
{
    (void)state;
    enum rp_colours colours;
    assert_false(has_colours(RP_COLOURS_AUTO, NULL, NULL));
    assert_false(has_colours(RP_COLOURS_AUTO, NULL, "0"));
    assert_false(has_colours(RP_COLOURS_AUTO, NULL, ""));
    assert_true(has_colours(RP_COLOURS_AUTO, NULL, "1"));
    assert_true(has_colours(RP_COLOURS_AUTO, "", "1"));
    assert_false(has_colours(RP_COLOURS_AUTO, "1", "1"));
    assert_true(has_colours(RP_COLOURS_ALWAYS, "1", NULL));
    assert_false(has_colours(RP_COLOURS_NEVER, NULL, "1"));
    assert_true(rp_colours_parse("always", &colours));
    assert_int_equal(colours, RP_COLOURS_ALWAYS);
    assert_false(rp_colours_parse("sometimes", &colours));
    assert_false(rp_colours_parse("", &colours));
}

static void numbers_that_are_not_finite_are_words(void **state)
{
    (void)state;
    char text[RP_NUMBER_SIZE];
    assert_string_equal(rp_number_text(text, "%.3g", 1.23456e-7), "1.23e-07");
    assert_string_equal(rp_number_text(text, "%.3g", -(double)NAN), "nan");
    assert_string_equal(rp_number_text(text, "%.3g", (double)INFINITY), "inf");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_is_aligned),
        cmocka_unit_test(a_number_is_never_cut),
        cmocka_unit_test(a_cell_is_as_wide_as_it_looks),
        cmocka_unit_test(nothing_that_acts_on_a_terminal_is_printed),
        cmocka_unit_test(colours_surround_what_they_colour),
        cmocka_unit_test(lines_are_broken_between_words),
        cmocka_unit_test(a_file_has_colours_only_where_they_are_asked_for),
        cmocka_unit_test(numbers_that_are_not_finite_are_words),
    };
    if (!setlocale(LC_CTYPE, "C.UTF-8"))
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
