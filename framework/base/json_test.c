/* Behaviour of base/json.h and of the files below it (json_scan, utf8). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"

struct bad {
    const char *text;
    int line;
    int column;
    const char *message;
};

static void expect_error(const char *text, size_t length, int line, int column, const char *message)
{
    struct rp_json *doc = NULL;
    struct rp_error err = {0};
    char where[64];
    snprintf(where, sizeof where, "m.json:%d:%d", line, column);
    assert_int_equal(rp_json_parse(text, length, "m.json", &doc, &err), RP_ERR_FORMAT);
    assert_null(doc);
    assert_string_equal(err.message, message);
    assert_string_equal(err.where, where);
    assert_int_equal(err.code, RP_ERR_FORMAT);
    if (line == 1)
        assert_int_equal(err.offset, column - 1);
}

static void expect_errors(const struct bad *cases, size_t n)
{
    for (size_t i = 0; i < n; i++)
        expect_error(cases[i].text, strlen(cases[i].text), cases[i].line, cases[i].column,
                     cases[i].message);
}

#define EXPECT_ERRORS(...)                                  \
    do {                                                    \
        const struct bad cases[] = {__VA_ARGS__};           \
        expect_errors(cases, sizeof cases / sizeof *cases); \
    } while (0)

static struct rp_json *parse(const char *text)
{
    struct rp_json *doc = NULL;
    struct rp_error err = {0};
    enum rp_status status = rp_json_parse(text, strlen(text), "m.json", &doc, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(status, RP_OK);
    return doc;
}

static void locate(const struct rp_json *doc, const cJSON *value, int line, int column)
{
    int found_line = 0;
    int found_column = 0;
    assert_non_null(value);
    rp_json_locate(doc, value, &found_line, &found_column);
    assert_int_equal(found_line, line);
    assert_int_equal(found_column, column);
}

static void every_value_has_its_line_and_column(void **state)
{
    (void)state;
    struct rp_json *doc = parse("\n {\"a\": [1,\r\n\t-2.5e3, true],\n\"\\u0062\":{\"c\":null},"
                                " \"\xC3\xA9\": \"x\"}  ");
    const cJSON *root = rp_json_root(doc);
    const cJSON *a = cJSON_GetObjectItemCaseSensitive(root, "a");
    const cJSON *b = cJSON_GetObjectItemCaseSensitive(root, "b");
    locate(doc, root, 2, 2);
    locate(doc, a, 2, 8);
    locate(doc, cJSON_GetArrayItem(a, 0), 2, 9);
    locate(doc, cJSON_GetArrayItem(a, 1), 3, 2);
    locate(doc, cJSON_GetArrayItem(a, 2), 3, 10);
    locate(doc, b, 4, 10);
    locate(doc, cJSON_GetObjectItemCaseSensitive(b, "c"), 4, 15);
    locate(doc, cJSON_GetObjectItemCaseSensitive(root, "\xC3\xA9"), 4, 28);
    rp_json_free(doc);
}

static void a_failure_carries_the_place_of_the_value_or_of_its_key(void **state)
{
    (void)state;
    struct rp_error err = {0};
    struct rp_json *doc = parse("{\n  \"key\": 7}");
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(rp_json_root(doc), "key");
    assert_int_equal(rp_json_fail(doc, value, &err, RP_ERR_MISMATCH, "found %d", 7),
                     RP_ERR_MISMATCH);
    assert_string_equal(err.where, "m.json:2:10");
    assert_string_equal(err.message, "found 7");
    assert_int_equal(err.code, RP_ERR_MISMATCH);
    assert_int_equal(err.offset, -1);
    assert_int_equal(rp_json_fail_key(doc, value, &err, RP_ERR_FORMAT, "key"), RP_ERR_FORMAT);
    assert_string_equal(err.where, "m.json:2:3");
    assert_int_equal(rp_json_fail_key(doc, rp_json_root(doc), &err, RP_ERR_FORMAT, "root"),
                     RP_ERR_FORMAT);
    assert_string_equal(err.where, "m.json:1:1");
    rp_json_free(doc);
}

static void a_long_path_never_cuts_the_position_off(void **state)
{
    (void)state;
    char path[3000];
    struct rp_json *doc = NULL;
    struct rp_error err = {0};
    memset(path, 'd', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_int_equal(rp_json_parse("[1,]", 4, path, &doc, &err), RP_ERR_FORMAT);
    assert_string_equal(err.where + strlen(err.where) - 5, "d:1:4");
}

static void scalars_and_empty_containers_are_documents(void **state)
{
    (void)state;
    const char *texts[] = {"0",     "-0",   "1e5", "1E-5", "12.75", "\"\"",     "true",
                           "false", "null", "[]",  "{}",   " [ ] ", "\t{\r\n}", "[[],{}]"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        rp_json_free(parse(texts[i]));
}

static void escapes_are_read(void **state)
{
    (void)state;
    struct rp_json *doc = parse("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00\"");
    assert_string_equal(rp_json_root(doc)->valuestring, "\"\\/\b\f\n\r\t\xC3\xA9\xF0\x9F\x98\x80");
    rp_json_free(doc);
}

static void text_needs_no_nul_at_its_end(void **state)
{
    (void)state;
    const char text[] = {'[', '1', '2', ']', '3'};
    struct rp_json *doc = NULL;
    assert_int_equal(rp_json_parse(text, 4, "m.json", &doc, NULL), RP_OK);
    assert_int_equal(cJSON_GetArrayItem(rp_json_root(doc), 0)->valueint, 12);
    rp_json_free(doc);
}

static void what_is_not_json_is_an_error(void **state)
{
    (void)state;
    EXPECT_ERRORS({"", 1, 1, "expected a value, found the end of the text"},
                  {" \n ", 2, 2, "expected a value, found the end of the text"},
                  {"[1 2]", 1, 4, "expected ',' or ']' in an array, found '2'"},
                  {"[1,]", 1, 4, "expected a value, found ']'"},
                  {"[", 1, 2, "expected a value, found the end of the text"},
                  {"{\"a\":1,}", 1, 8, "expected a key in quotes, found '}'"},
                  {"{a:1}", 1, 2, "expected a key in quotes, found 'a'"},
                  {"{\"a\" 1}", 1, 6, "expected ':' after a key, found '1'"},
                  {"{\"a\":1 \"b\":2}", 1, 8, "expected ',' or '}' in an object, found '\"'"},
                  {"'a'", 1, 1, "expected a value, found '''"},
                  {"// note\n1", 1, 1, "expected a value, found '/'"},
                  {"tru", 1, 4, "expected true, false or null, found the end of the text"},
                  {"nul1", 1, 4, "expected true, false or null, found '1'"},
                  {"[1,\v2]", 1, 4, "expected a value, found byte 0x0B"},
                  {"[1,\xC2\xA0 2]", 1, 4, "expected a value, found byte 0xC2"});
}

static void trailing_bytes_are_an_error(void **state)
{
    (void)state;
    EXPECT_ERRORS({"{} x", 1, 4, "expected the end of the text, found 'x'"},
                  {"1 2", 1, 3, "expected the end of the text, found '2'"},
                  {"[]\n]", 2, 1, "expected the end of the text, found ']'"});
    expect_error("{}\0", 3, 1, 3, "expected the end of the text, found byte 0x00");
}

static void numbers_outside_the_grammar_are_an_error(void **state)
{
    (void)state;
    EXPECT_ERRORS({"01", 1, 2, "expected no digit after a leading 0, found '1'"},
                  {"-", 1, 2, "expected a digit, found the end of the text"},
                  {"+1", 1, 1, "expected a value, found '+'"},
                  {".5", 1, 1, "expected a value, found '.'"},
                  {"1.", 1, 3,
                   "expected a digit after the decimal point, found the end of the "
                   "text"},
                  {"1.e5", 1, 3, "expected a digit after the decimal point, found 'e'"},
                  {"1e", 1, 3, "expected a digit in the exponent, found the end of the text"},
                  {"1e+", 1, 4, "expected a digit in the exponent, found the end of the text"},
                  {"0x10", 1, 2, "expected the end of the text, found 'x'"},
                  {"NaN", 1, 1, "expected a value, found 'N'"},
                  {"[Infinity]", 1, 2, "expected a value, found 'I'"},
                  {"-Infinity", 1, 2, "expected a digit, found 'I'"});
}

static void numbers_that_no_double_holds_are_an_error(void **state)
{
    (void)state;
    EXPECT_ERRORS(
        {"[1, 1e999]", 1, 5, "expected a number that a double can hold, found a larger one"},
        {"-1e309", 1, 1, "expected a number that a double can hold, found a larger one"},
        {"[1000000000000000000000000000000000000000000000000000000000000000]", 1, 2,
         "expected a number of at most 63 characters, found 64"});
    struct rp_json *doc =
        parse("[100000000000000000000000000000000000000000000000000000000000000]");
    assert_true(cJSON_GetArrayItem(rp_json_root(doc), 0)->valuedouble == 1e62);
    rp_json_free(doc);
}

static void bad_strings_are_an_error(void **state)
{
    (void)state;
    EXPECT_ERRORS(
        {"\"ab", 1, 4, "expected '\"' at the end of the string, found the end of the text"},
        {"\"a\nb\"", 1, 3,
         "expected control characters in a string to be escaped, found byte 0x0A"},
        {"\"\\x41\"", 1, 3, "expected one of \" \\ / b f n r t u after a backslash, found 'x'"},
        {"\"\\u12g4\"", 1, 6, "expected four hex digits after \\u, found 'g'"},
        {"\"\\u12", 1, 6, "expected four hex digits after \\u, found the end of the text"},
        {"\"a\\u0000\"", 1, 3,
         "expected text without NUL, found \\u0000, which no C string can hold"},
        {"\"\\ud83d\"", 1, 2, "expected a surrogate pair, found the high surrogate \\uD83D alone"},
        {"\"\\ud83d\\n\"", 1, 2,
         "expected a surrogate pair, found the high surrogate \\uD83D alone"},
        {"\"\\ud83d\\ud83d\"", 1, 2,
         "expected a surrogate pair, found the high surrogate \\uD83D alone"},
        {"\"\\ude00\"", 1, 2, "expected a high surrogate first, found the low surrogate \\uDE00"});
    expect_error("\"\0\"", 3, 1, 2,
                 "expected control characters in a string to be escaped, found byte 0x00");
}

static void invalid_utf8_is_an_error(void **state)
{
    (void)state;
    EXPECT_ERRORS({"\"\x80\"", 1, 2, "expected valid UTF-8, found byte 0x80"},
                  {"\"\xC0\xAF\"", 1, 2, "expected valid UTF-8, found byte 0xC0"},
                  {"\"\xE0\x80\xAF\"", 1, 2, "expected valid UTF-8, found byte 0xE0"},
                  {"\"\xED\xA0\x80\"", 1, 2, "expected valid UTF-8, found byte 0xED"},
                  {"\"\xF0\x80\x80\xAF\"", 1, 2, "expected valid UTF-8, found byte 0xF0"},
                  {"\"\xF4\x90\x80\x80\"", 1, 2, "expected valid UTF-8, found byte 0xF4"},
                  {"\"\xF5\x80\x80\x80\"", 1, 2, "expected valid UTF-8, found byte 0xF5"},
                  {"\"a\xE2\x82\"", 1, 3, "expected valid UTF-8, found byte 0xE2"},
                  {"{\"\xFF\":1}", 1, 3, "expected valid UTF-8, found byte 0xFF"});
    rp_json_free(parse("\"\xDF\xBF \xE0\xA0\x80 \xED\x9F\xBF \xF0\x90\x80\x80 \xF4\x8F\xBF\xBF\""));
}

static void a_byte_order_mark_is_an_error(void **state)
{
    (void)state;
    EXPECT_ERRORS({"\xEF\xBB\xBF{}", 1, 1,
                   "expected UTF-8 without a byte order mark, found one: save it without BOM"},
                  {"\xFF\xFE{", 1, 1, "expected a value, found byte 0xFF"});
}

static void a_repeated_key_is_an_error_however_it_is_written(void **state)
{
    (void)state;
    EXPECT_ERRORS(
        {"{\"a\":1,\"b\":2,\"a\":3}", 1, 14, "expected each key once, found \"a\" again"},
        {"{\"a\":1,\n \"\\u0061\":2}", 2, 2, "expected each key once, found \"a\" again"},
        {"[{\"x\":{\"\":1,\"\":2}}]", 1, 13, "expected each key once, found \"\" again"},
        {"{\"a\\n\":1,\"b\":1,\"b\":1,\"a\\n\":2}", 1, 16,
         "expected each key once, found \"b\" again"},
        {"{\"a\\n\":1,\"a\\n\":2}", 1, 10, "expected each key once, found \"a\\x0A\" again"});
    rp_json_free(parse("{\"a\":{\"a\":1},\"A\":[{\"a\":1},{\"a\":1}]}"));
}

/* n times what, between begin and end; the caller frees it. */
static char *repeat(const char *begin, const char *what, size_t n, const char *end)
{
    size_t size = strlen(begin) + n * strlen(what) + strlen(end) + 1;
    char *text = malloc(size);
    assert_non_null(text);
    char *at = stpcpy(text, begin);
    for (size_t i = 0; i < n; i++)
        at = stpcpy(at, what);
    stpcpy(at, end);
    return text;
}

static void nesting_ends_at_the_65th_level(void **state)
{
    (void)state;
    char *arrays = repeat("", "[", 10000, "");
    char *objects = repeat("", "{\"a\":", 10000, "");
    char *deep = repeat("", "[", 64,
                        "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"
                        "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]");
    expect_error(arrays, strlen(arrays), 1, 65,
                 "expected at most 64 nested arrays and objects, found one more");
    expect_error(objects, strlen(objects), 1, 64 * 5 + 1,
                 "expected at most 64 nested arrays and objects, found one more");
    rp_json_free(parse(deep));
    free(arrays);
    free(objects);
    free(deep);
}

/* With a comparison of every pair, these would be 5e9. */
static void a_hundred_thousand_keys_are_compared_in_time(void **state)
{
    (void)state;
    const size_t n_keys = 100000;
    const size_t size = n_keys * 48 + 64;
    char *text = malloc(size);
    assert_non_null(text);
    size_t at = 0;
    text[at++] = '{';
    for (size_t i = 0; i < n_keys; i++)
        at += (size_t)snprintf(text + at, size - at, "\"a key with a common start %zu\":1,", i);
    at += (size_t)snprintf(text + at, size - at, "\n\"a key with a common start 31415\":1}");
    expect_error(text, at, 2, 1,
                 "expected each key once, found \"a key with a common start 31415\" "
                 "again");
    free(text);
}

static void an_overlong_document_is_an_error(void **state)
{
    (void)state;
    struct rp_json *doc = NULL;
    struct rp_error err = {0};
    size_t length = RP_JSON_MAX_BYTES + 1;
    char *text = malloc(length);
    assert_non_null(text);
    memset(text, ' ', length);
    assert_int_equal(rp_json_parse(text, length, "m.json", &doc, &err), RP_ERR_FORMAT);
    assert_string_equal(err.message, "expected at most 67108864 bytes of JSON, found 67108865");
    free(text);
}

static void a_text_cut_anywhere_is_an_error(void **state)
{
    (void)state;
    const char *text = "{\"a\": [1.5e-3, true, null, {\"b\": \"x\\u00e9\\ud83d\\ude00\xC3\xA9\"}]}";
    struct rp_json *doc = parse(text);
    rp_json_free(doc);
    for (size_t length = 0; length < strlen(text); length++) {
        /* A copy of exactly that size, so that a sanitizer sees a read past its end. */
        char *cut = malloc(length ? length : 1);
        assert_non_null(cut);
        memcpy(cut, text, length);
        assert_int_equal(rp_json_parse(cut, length, "m.json", &doc, NULL), RP_ERR_FORMAT);
        free(cut);
    }
}

static void whole_numbers_are_read_within_their_range(void **state)
{
    (void)state;
    long long out = -1;
    struct rp_json *doc = parse("[28, 28.5, 1e3, -1, 9007199254740993, \"28\", 0, 1e300]");
    const cJSON *array = rp_json_root(doc);
    assert_true(rp_json_int(cJSON_GetArrayItem(array, 0), 1, 28, &out));
    assert_int_equal(out, 28);
    assert_true(rp_json_int(cJSON_GetArrayItem(array, 2), 0, 1000, &out));
    assert_int_equal(out, 1000);
    assert_false(rp_json_int(cJSON_GetArrayItem(array, 0), 1, 27, &out));
    assert_false(rp_json_int(cJSON_GetArrayItem(array, 0), 29, 30, &out));
    assert_false(rp_json_int(cJSON_GetArrayItem(array, 1), 0, 100, &out));
    assert_false(rp_json_int(cJSON_GetArrayItem(array, 3), 0, 100, &out));
    assert_true(rp_json_int(cJSON_GetArrayItem(array, 3), -1, 100, &out));
    assert_int_equal(out, -1);
    assert_false(rp_json_int(cJSON_GetArrayItem(array, 5), 0, 100, &out));
    assert_true(rp_json_int(cJSON_GetArrayItem(array, 6), 0, 100, &out));
    assert_false(rp_json_int(cJSON_GetArrayItem(array, 7), 0, INT64_MAX, &out));
    assert_false(rp_json_int(NULL, 0, 100, &out));
    rp_json_free(doc);
}

static void a_file_is_parsed_and_named_in_errors(void **state)
{
    (void)state;
    char folder[] = "/tmp/refparity-json-XXXXXX";
    char path[64];
    struct rp_json *doc = NULL;
    struct rp_error err = {0};
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a.json", folder);
    assert_int_equal(rp_json_parse_file(path, &doc, &err), RP_ERR_MISSING);
    assert_string_equal(err.where, path);
    assert_string_equal(err.message, "cannot open: No such file or directory");
    assert_int_equal(rp_json_parse_file(folder, &doc, &err), RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "expected a regular file, found a folder");
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("[1,\n2", file);
    fclose(file);
    char expected[80];
    snprintf(expected, sizeof expected, "%s:2:2", path);
    assert_int_equal(rp_json_parse_file(path, &doc, &err), RP_ERR_FORMAT);
    assert_string_equal(err.where, expected);
    assert_int_equal(err.offset, 5);
    file = fopen(path, "a");
    assert_non_null(file);
    fputs("]", file);
    fclose(file);
    assert_int_equal(rp_json_parse_file(path, &doc, &err), RP_OK);
    assert_int_equal(cJSON_GetArraySize(rp_json_root(doc)), 2);
    rp_json_free(doc);
    remove(path);
    remove(folder);
}

static void text_of_others_is_shown_on_one_line(void **state)
{
    (void)state;
    char out[RP_SHOWN_SIZE];
    char text[400];
    assert_string_equal(rp_shown("a\nb\x7F\xFF\xC3\xA9", out), "\"a\\x0Ab\\x7F\\xFF\xC3\xA9\"");
    assert_string_equal(rp_shown("", out), "\"\"");
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    rp_shown(text, out);
    assert_string_equal(out + strlen(out) - 5, "x...\"");
    assert_true(strlen(out) < RP_SHOWN_SIZE);
    for (size_t i = 0; i + 1 < sizeof text; i++)
        text[i] = i % 2 ? '\xA9' : '\xC3';
    rp_shown(text, out);
    assert_int_equal(rp_utf8_valid_length(out, strlen(out)), strlen(out));
}

static void a_text_that_is_not_there_is_empty(void **state)
{
    (void)state;
    cJSON *object = cJSON_Parse("{\"a\": \"x\", \"b\": 1}");
    assert_string_equal(rp_json_text(object, "a"), "x");
    assert_string_equal(rp_json_text(object, "b"), "");
    assert_string_equal(rp_json_text(object, "A"), "");
    assert_string_equal(rp_json_text(NULL, "a"), "");
    cJSON_Delete(object);
}

static void freeing_nothing_is_allowed(void **state)
{
    (void)state;
    rp_json_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_has_its_line_and_column),
        cmocka_unit_test(a_failure_carries_the_place_of_the_value_or_of_its_key),
        cmocka_unit_test(a_long_path_never_cuts_the_position_off),
        cmocka_unit_test(scalars_and_empty_containers_are_documents),
        cmocka_unit_test(escapes_are_read),
        cmocka_unit_test(text_needs_no_nul_at_its_end),
        cmocka_unit_test(what_is_not_json_is_an_error),
        cmocka_unit_test(trailing_bytes_are_an_error),
        cmocka_unit_test(numbers_outside_the_grammar_are_an_error),
        cmocka_unit_test(numbers_that_no_double_holds_are_an_error),
        cmocka_unit_test(bad_strings_are_an_error),
        cmocka_unit_test(invalid_utf8_is_an_error),
        cmocka_unit_test(a_byte_order_mark_is_an_error),
        cmocka_unit_test(a_repeated_key_is_an_error_however_it_is_written),
        cmocka_unit_test(nesting_ends_at_the_65th_level),
        cmocka_unit_test(a_hundred_thousand_keys_are_compared_in_time),
        cmocka_unit_test(an_overlong_document_is_an_error),
        cmocka_unit_test(a_text_cut_anywhere_is_an_error),
        cmocka_unit_test(whole_numbers_are_read_within_their_range),
        cmocka_unit_test(a_file_is_parsed_and_named_in_errors),
        cmocka_unit_test(text_of_others_is_shown_on_one_line),
        cmocka_unit_test(a_text_that_is_not_there_is_empty),
        cmocka_unit_test(freeing_nothing_is_allowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
