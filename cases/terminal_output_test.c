/* What each command prints of real dumps: tables of at most 100 columns, colours on a terminal alone, what
 * fails first, and nothing that acts on a terminal. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/process.h"
#include "base/scratch_test_util.h"
#include "base/terminal.h"

#define LLAMA RP_SOURCE_DIR "/fixtures/tiny/llama/llama-bf16.gguf"
#define QWEN35 RP_SOURCE_DIR "/fixtures/tiny/qwen35/qwen35-bf16.gguf"
#define FIXTURE RP_SOURCE_DIR "/fixtures/store/tiny--llama/main/float32/hello-185f8db3.npz"

static char folder[256];

/* Runs a line for the shell in the scratch folder, in which $refparity is the tool; freed by the caller. */
static char *run(const char *line, int *code)
{
    char script[2048], log[300], *text = NULL;
    size_t length = 0;
    struct rp_process_result result;
    struct rp_error err;
    snprintf(script, sizeof script, "cd %s && refparity=%s; %s", folder, RP_TOOL, line);
    snprintf(log, sizeof log, "%s/log", folder);
    char *argv[] = {"sh", "-c", script, NULL};
    const struct rp_process_spec spec = {.argv = argv, .log_path = log, .timeout_s = 120};
    if (rp_process_run(&spec, &result, &err) != RP_OK ||
        rp_file_read(log, 1 << 22, &text, &length, &err) != RP_OK)
        fail_msg("%s", err.message);
    *code = result.exit_code;
    assert_non_null(text);
    return text;
}

/* On a terminal of that many columns; NULL where this machine has no script(1) as util-linux has it, or no
 * pseudo terminals. */
static char *run_on_terminal(const char *arguments, unsigned columns)
{
    char line[1024];
    int code;
    free(run("script -qec true /dev/null", &code));
    if (code != 0)
        return NULL;
    snprintf(line, sizeof line, "TERM=xterm script -qec \"stty cols %u; $refparity %s\" /dev/null",
             columns, arguments);
    return run(line, &code);
}

/* Takes colours and \r out of a line. */
static void take_colours(char *line)
{
    char *to = line;
    for (const char *from = line; *from; from++) {
        if (from[0] == '\x1b' && from[1] == '[')
            from += strcspn(from, "m");
        else if (*from != '\r')
            *to++ = *from;
    }
    *to = '\0';
}

static bool has_long_word(const char *line, size_t length)
{
    for (const char *word = strtok((char *)(uintptr_t)line, " "); word; word = strtok(NULL, " "))
        if (rp_print_width(word) + 8 > length)
            return true;
    return false;
}

/* No line is wider, but where one word is. text is cut to pieces. */
static void assert_fits(char *text, size_t columns, const char *of)
{
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
        take_colours(line);
        const size_t width = rp_print_width(line);
        if (strchr(line, '\x1b'))
            fail_msg("%s: an escape is left: %s", of, line);
        if (width > columns && !has_long_word(line, columns))
            fail_msg("%s: %zu columns: %s", of, width, line);
    }
}

static const char *const commands[] = {
    "diff " FIXTURE " llama",
    "diff --all " FIXTURE " llama",
    "replay " LLAMA " llama",
    "replay --all " LLAMA " llama",
    "replay --verbose " QWEN35 " qwen35",
    "replay --mode batched " QWEN35 " qwen35",
    "weights --all " LLAMA " " RP_SOURCE_DIR "/fixtures/tiny/llama",
    "weights " QWEN35 " " RP_SOURCE_DIR "/fixtures/tiny/llama",
    "show " LLAMA,
    "show " FIXTURE,
    "show qwen35",
    "--help",
    "diff --help",
    "replay --help",
    "weights --help",
    "show --help",
    "report --help",
};

static void every_command_fits_a_terminal(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        char *text = run_on_terminal(commands[i], 132);
        if (!text)
            skip(); /* no script(1), no pseudo terminals */
        assert_true(text && strlen(text) > 100);
        assert_fits(text, RP_TERMINAL_WIDTH, commands[i]);
        free(text);
    }
}

/* In a pipe messages are one line each, to be searched for; the rows of tables fit all the same. */
static void rows_fit_in_a_pipe(void **state)
{
    (void)state;
    for (size_t i = 0; i < 6; i++) {
        char line[1024], *rest;
        size_t n_rows = 0;
        int code;
        snprintf(line, sizeof line, "$refparity %s | cat", commands[i]);
        char *text = run(line, &code);
        assert_null(strchr(text, '\x1b'));
        rest = text;
        for (const char *row; (row = strsep(&rest, "\n")) != NULL;) {
            if (strncmp(row, "h0_", 3) != 0 || strchr(row, ':'))
                continue;
            n_rows++;
            if (rp_print_width(row) > RP_TERMINAL_WIDTH)
                fail_msg("%s: %s", commands[i], row);
        }
        assert_true(n_rows > 0 || i == 0 || i == 2 || i == 5);
        free(text);
    }
}

static bool is_coloured(const char *line)
{
    int code;
    char *text = run(line, &code);
    const bool found = strstr(text, "\x1b[1;31mFAIL\x1b[0m") != NULL;
    assert_true(found || !strchr(text, '\x1b'));
    assert_non_null(strstr(text, "FAIL"));
    free(text);
    return found;
}

static void colours_are_for_terminals_alone(void **state)
{
    (void)state;
    char *text = run_on_terminal("diff " FIXTURE " llama", 100);
    if (text) {
        assert_non_null(strstr(text, "\x1b[1;31mFAIL\x1b[0m"));
        free(text);
        text = run_on_terminal("diff --color=never " FIXTURE " llama", 100);
        assert_null(strchr(text, '\x1b'));
        free(text);
    }
#define DIFF "$refparity diff " FIXTURE " llama"
    assert_false(is_coloured(DIFF));
    assert_false(is_coloured("NO_COLOR=1 CLICOLOR_FORCE=1 " DIFF));
    assert_true(is_coloured("CLICOLOR_FORCE=1 " DIFF));
    assert_true(is_coloured("NO_COLOR=1 " DIFF " --color=always"));
    assert_true(is_coloured("NO_COLOR=1 $refparity --color=always diff " FIXTURE " llama"));
    int code;
    text = run("$refparity diff --color=sometimes a b", &code);
    assert_int_equal(code, 2);
    assert_non_null(strstr(text, "--color takes auto, always or never"));
    free(text);
}

static size_t place_of(const char *text, const char *part)
{
    const char *found = strstr(text, part);
    if (!found)
        fail_msg("no \"%s\" in:\n%s", part, text);
    return found ? (size_t)(found - text) : 0;
}

static void what_fails_comes_first_and_what_passes_is_counted(void **state)
{
    (void)state;
    int code;
    char *text = run("$refparity replay " LLAMA " llama", &code);
    assert_int_equal(code, 1);
    assert_true(place_of(text, "\nh2_attnout ") <
                place_of(text, "\n… within their limits: 66 slots"));
    assert_null(strstr(text, "\nh0 "));
    free(text);
    text = run("$refparity replay --all " LLAMA " llama", &code);
    assert_true(place_of(text, "\nh0 ") < place_of(text, "\nh2_attnout "));
    assert_null(strstr(text, "--all shows them"));
    free(text);
    text = run("$refparity diff " FIXTURE " llama", &code);
    assert_int_equal(code, 1);
    assert_true(place_of(text, "\nfirst divergence: h2 ") < place_of(text, "\nh2 "));
    assert_true(place_of(text, "\nh2 ") < place_of(text, "\nemb "));
    free(text);
    text = run("$refparity diff --all " FIXTURE " llama", &code);
    assert_true(place_of(text, "\nh1 ") < place_of(text, "\nh2 "));
    free(text);
}

/* As whoever wrote a dump may have named its engine, its slots and their files. */
static void a_hostile_dump_acts_on_no_terminal(void **state)
{
    (void)state;
    static const char right_to_left[] = {(char)0xE2, (char)0x80, (char)0xAE, '\0'}; /* U+202E */
    static const char *const of[] = {"show hostile", "diff " FIXTURE " hostile",
                                     "diff --all " FIXTURE " hostile", "replay " LLAMA " hostile",
                                     "show 'no\x1b[31msuch'"};
    int code;
    free(run("cp -r llama hostile && sed -i 's/\"engine\": "
             "*\"[^\"]*/&\\\\u001b]0;owned\\\\u0007\\\\u202e/' "
             "hostile/dump.json && grep -q owned hostile/dump.json && cp hostile/h0.npy "
             "\"hostile/$(printf 'h0_\\033[31mx').npy\"",
             &code));
    assert_int_equal(code, 0);
    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++) {
        char line[1024];
        snprintf(line, sizeof line, "$refparity --color=never %s", of[i]);
        char *text = run(line, &code);
        for (const char *byte = text; *byte; byte++)
            if ((unsigned char)*byte < 0x20 && *byte != '\n')
                fail_msg("%s: byte %02x in %s", of[i], *byte, text);
        assert_null(strstr(text, right_to_left));
        free(text);
    }
}

/* Two dumps: Llama's with a bug in layer 2, Qwen3.5's without. */
static int make_dumps(void **state)
{
    (void)state;
    int code;
    rp_test_make_folder(folder);
    free(run("printf '%s\\n' 1 44 73 70 77 18 5 9 >ids; " RP_EMBEDDED_BUGS " --model " LLAMA
             " --ids $($refparity show " FIXTURE " | sed -n 's/^tokens [0-9]*: //p' | tr ' ' ,) "
             "--dump llama --mode batched --slots operations "
             "--bug attention-factor --layer 2 --magnitude 0.5 && " RP_EMBEDDED " --model " QWEN35
             " --tokens ids --dump qwen35 --mode batched --slots operations",
             &code));
    return code;
}

static int remove_dumps(void **state)
{
    (void)state;
    return rp_remove_tree(folder, NULL) == RP_OK ? 0 : 1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_command_fits_a_terminal),
        cmocka_unit_test(rows_fit_in_a_pipe),
        cmocka_unit_test(colours_are_for_terminals_alone),
        cmocka_unit_test(what_fails_comes_first_and_what_passes_is_counted),
        cmocka_unit_test(a_hostile_dump_acts_on_no_terminal),
    };
    if (!setlocale(LC_CTYPE, "C.UTF-8"))
        return 1;
    return cmocka_run_group_tests(tests, make_dumps, remove_dumps) ? 1 : 0;
}
