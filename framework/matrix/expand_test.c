/* Behaviour of matrix/expand.h. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "matrix/expand.h"

static const char *env(void *context, const char *name)
{
    assert_string_equal(context, "context");
    if (strcmp(name, "EMPTY") == 0)
        return "";
    return strcmp(name, "QUANT_BIN") == 0 ? "/opt/{dump}/quant" : NULL;
}

static const char *target(void *context, const char *name)
{
    assert_string_equal(context, "context");
    return strcmp(name, "refparity-embedded") == 0 ? "/build/embedded" : NULL;
}

static struct rp_expansion everything(void)
{
    return (struct rp_expansion){.gguf = "/m/a.gguf",
                                 .prompt = "{gguf} \"$HOME\"; %s",
                                 .prompt_file = "/w/prompt.txt",
                                 .tokens_file = "/w/tokens.txt",
                                 .dump = "/w/dump",
                                 .mode = "batched:32",
                                 .positions = "0,5",
                                 .slots = "operations",
                                 .threads = "4",
                                 .matrix_dir = "/m",
                                 .checkpoint = "/m/hf",
                                 .env = env,
                                 .target = target,
                                 .context = "context"};
}

static void expect_text(const char *text, const char *expected)
{
    struct rp_expansion values = everything();
    struct rp_error err = {0};
    char *out = NULL;
    assert_int_equal(rp_expand(text, &values, &out, &err), RP_OK);
    assert_string_equal(out, expected);
    free(out);
}

static void every_placeholder_becomes_its_value(void **state)
{
    (void)state;
    expect_text("", "");
    expect_text("-n", "-n");
    expect_text("{gguf}", "/m/a.gguf");
    expect_text("{prompt_file}|{tokens_file}|{dump}", "/w/prompt.txt|/w/tokens.txt|/w/dump");
    expect_text("--mode={mode} --positions={positions} --slots={slots} -j{threads}",
                "--mode=batched:32 --positions=0,5 --slots=operations -j4");
    expect_text("{matrix_dir}/engine.py {checkpoint}", "/m/engine.py /m/hf");
    expect_text("{target:refparity-embedded}", "/build/embedded");
}

static void values_are_not_expanded_again(void **state)
{
    (void)state;
    expect_text("{prompt}", "{gguf} \"$HOME\"; %s");
    expect_text("{env:QUANT_BIN}", "/opt/{dump}/quant");
}

static void doubled_braces_are_braces(void **state)
{
    (void)state;
    expect_text("{{\"a\": \"{mode}\"}}", "{\"a\": \"batched:32\"}");
    expect_text("{{{mode}}}", "{batched:32}");
    expect_text("{{{{}}", "{{}");
}

static void a_long_value_is_not_cut(void **state)
{
    (void)state;
    size_t length = 100000;
    char *prompt = malloc(length + 1);
    char *out = NULL;
    assert_non_null(prompt);
    memset(prompt, 'x', length);
    prompt[length] = '\0';
    struct rp_expansion values = {.prompt = prompt};
    assert_int_equal(rp_expand("<{prompt}{prompt}>", &values, &out, NULL), RP_OK);
    assert_int_equal(strlen(out), 2 * length + 2);
    free(out);
    free(prompt);
}

static void expect_failure(const char *text, const struct rp_expansion *values, enum rp_status code,
                           const char *message)
{
    struct rp_error err = {0};
    char *out = NULL;
    assert_int_equal(rp_expand(text, values, &out, &err), code);
    assert_string_equal(err.message, message);
    assert_string_equal(err.where, "");
    assert_null(out);
}

static void what_the_environment_lacks_is_named(void **state)
{
    (void)state;
    struct rp_expansion values = everything();
    expect_failure("{env:NOT_SET}/bin", &values, RP_ERR_MISSING,
                   "environment variable NOT_SET is not set");
    expect_failure("{env:EMPTY}", &values, RP_ERR_MISSING, "environment variable EMPTY is not set");
    expect_failure("{target:other}", &values, RP_ERR_MISSING, "the build makes no target other");
    values.env = NULL;
    values.target = NULL;
    expect_failure("{env:QUANT_BIN}", &values, RP_ERR_MISSING,
                   "environment variable QUANT_BIN is not set");
    expect_failure("{target:refparity-embedded}", &values, RP_ERR_MISSING,
                   "the build makes no target refparity-embedded");
}

static void a_placeholder_without_a_value_is_an_error(void **state)
{
    (void)state;
    struct rp_expansion values = {0};
    expect_failure("{gguf}", &values, RP_ERR_ARGUMENT, "there is no value for {gguf} here");
    expect_failure("x{mode}", &values, RP_ERR_ARGUMENT, "there is no value for {mode} here");
}

static void expect_malformed(const char *text, const char *message)
{
    struct rp_error err = {0};
    struct rp_expansion values = everything();
    assert_int_equal(rp_template_check(text, &err), RP_ERR_FORMAT);
    assert_string_equal(err.message, message);
    expect_failure(text, &values, RP_ERR_FORMAT, message);
}

#define UNKNOWN                                                                               \
    "expected one of {gguf} {checkpoint} {prompt} {prompt_file} {tokens_file} {dump} {mode} " \
    "{positions} {slots} {threads} {matrix_dir} {env:NAME} {target:NAME}, or {{ and }} for "  \
    "braces, "                                                                                \
    "found placeholder "

static void malformed_templates_are_an_error(void **state)
{
    (void)state;
    expect_malformed("a{model}", UNKNOWN "\"model\"");
    expect_malformed("{}", UNKNOWN "\"\"");
    expect_malformed("{GGUF}", UNKNOWN "\"GGUF\"");
    expect_malformed("{gguf:x}", UNKNOWN "\"gguf:x\"");
    expect_malformed("{env}", UNKNOWN "\"env\"");
    expect_malformed("{ gguf }", UNKNOWN "\" gguf \"");
    expect_malformed("{env:}",
                     "expected the name of an environment variable after {env:, found \"\"");
    expect_malformed("{env:A-B}",
                     "expected the name of an environment variable after {env:, found \"A-B\"");
    expect_malformed("{env:1A}",
                     "expected the name of an environment variable after {env:, found \"1A\"");
    expect_malformed("{target:a b}",
                     "expected the name of a build target after {target:, found \"a b\"");
    expect_malformed("{gguf",
                     "expected } at the end of a placeholder, or {{ for a brace, found { alone");
    expect_malformed("{a{gguf}",
                     "expected } at the end of a placeholder, or {{ for a brace, found { alone");
    expect_malformed("gguf}", "expected }} for a brace, found } alone");
    expect_malformed("{{{", "expected } at the end of a placeholder, or {{ for a brace, found { "
                            "alone");
    char text[400];
    memset(text, 'x', sizeof text);
    text[0] = '{';
    text[sizeof text - 2] = '}';
    text[sizeof text - 1] = '\0';
    expect_malformed(text, "expected a placeholder of less than 256 bytes, found 397");
}

static void a_template_tells_what_it_uses(void **state)
{
    (void)state;
    assert_true(rp_template_uses("a{mode}", "mode"));
    assert_true(rp_template_uses("{env:A}", "env"));
    assert_true(rp_template_uses("{gguf}{prompt_file}", "prompt_file"));
    assert_false(rp_template_uses("{prompt_file}", "prompt"));
    assert_false(rp_template_uses("{{mode}}", "mode"));
    assert_false(rp_template_uses("mode", "mode"));
    assert_false(rp_template_uses("", "mode"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_placeholder_becomes_its_value),
        cmocka_unit_test(values_are_not_expanded_again),
        cmocka_unit_test(doubled_braces_are_braces),
        cmocka_unit_test(a_long_value_is_not_cut),
        cmocka_unit_test(what_the_environment_lacks_is_named),
        cmocka_unit_test(a_placeholder_without_a_value_is_an_error),
        cmocka_unit_test(malformed_templates_are_an_error),
        cmocka_unit_test(a_template_tells_what_it_uses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
