/* See base/json_scan.h. */
#include "base/json_scan.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"

#define MAX_NUMBER_LENGTH 63  /* cJSON reads no further */
#define POSITION_TEXT_SIZE 32 /* ":line:column" */

struct scanner {
    const char *text; /* [length] */
    size_t length;
    size_t at;
    const char *where;
    struct rp_json_places *places;
    struct rp_error *err;
};

void rp_json_where(const char *where, size_t line, size_t column, char *out, size_t size)
{
    snprintf(out, size, "%.*s:%zu:%zu", (int)(size - POSITION_TEXT_SIZE), where, line, column);
}

static void fail_in_text(const char *text, size_t offset, const char *where, struct rp_error *err,
                         enum rp_status code, const char *fmt, va_list args)
{
    char place[sizeof err->where];
    char message[sizeof err->message];
    size_t line = 1;
    size_t line_start = 0;
    for (size_t i = 0; i < offset; i++) {
        if (text[i] == '\n') {
            line++;
            line_start = i + 1;
        }
    }
    rp_json_where(where, line, offset - line_start + 1, place, sizeof place);
    vsnprintf(message, sizeof message, fmt, args);
    rp_fail(err, code, place, (long long)offset, "%s", message);
}

enum rp_status rp_json_fail_text(const char *text, size_t offset, const char *where,
                                 struct rp_error *err, enum rp_status code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fail_in_text(text, offset, where, err, code, fmt, args);
    va_end(args);
    return code;
}

static enum rp_status RP_PRINTF(4, 5)
    fail_at(const struct scanner *s, size_t offset, enum rp_status code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fail_in_text(s->text, offset, s->where, s->err, code, fmt, args);
    va_end(args);
    return code;
}

static int peek(const struct scanner *s)
{
    return s->at < s->length ? (unsigned char)s->text[s->at] : -1;
}

static enum rp_status expected(struct scanner *s, const char *what)
{
    char found[32];
    int c = peek(s);
    if (c < 0)
        snprintf(found, sizeof found, "the end of the text");
    else if (c > 0x20 && c < 0x7F)
        snprintf(found, sizeof found, "'%c'", c);
    else
        snprintf(found, sizeof found, "byte 0x%02X", (unsigned)c);
    return fail_at(s, s->at, RP_ERR_FORMAT, "expected %s, found %s", what, found);
}

static void skip_space(struct scanner *s)
{
    while (s->at < s->length && (s->text[s->at] == ' ' || s->text[s->at] == '\n' ||
                                 s->text[s->at] == '\r' || s->text[s->at] == '\t'))
        s->at++;
}

static int is_digit(int c)
{
    return c >= '0' && c <= '9';
}

static int hex_value(int c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* The four hex digits after \u. */
static enum rp_status scan_code_unit(struct scanner *s, unsigned *unit)
{
    *unit = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex_value(peek(s));
        if (digit < 0)
            return expected(s, "four hex digits after \\u");
        *unit = *unit * 16 + (unsigned)digit;
        s->at++;
    }
    return RP_OK;
}

/* From the backslash on. */
static enum rp_status scan_escape(struct scanner *s)
{
    size_t start = s->at++;
    int c = peek(s);
    if (c < 0 || !strchr("\"\\/bfnrtu", c) || c == '\0')
        return expected(s, "one of \" \\ / b f n r t u after a backslash");
    s->at++;
    if (c != 'u')
        return RP_OK;
    unsigned unit = 0;
    enum rp_status status = scan_code_unit(s, &unit);
    if (status != RP_OK)
        return status;
    if (unit == 0)
        return fail_at(s, start, RP_ERR_FORMAT,
                       "expected text without NUL, found \\u0000, which no C string can hold");
    if (unit >= 0xDC00 && unit <= 0xDFFF)
        return fail_at(s, start, RP_ERR_FORMAT,
                       "expected a high surrogate first, found the low surrogate \\u%04X", unit);
    if (unit < 0xD800 || unit > 0xDBFF)
        return RP_OK;
    unsigned low = 0;
    if (s->length - s->at >= 2 && s->text[s->at] == '\\' && s->text[s->at + 1] == 'u') {
        s->at += 2;
        status = scan_code_unit(s, &low);
        if (status != RP_OK)
            return status;
    }
    if (low < 0xDC00 || low > 0xDFFF)
        return fail_at(s, start, RP_ERR_FORMAT,
                       "expected a surrogate pair, found the high surrogate \\u%04X alone", unit);
    return RP_OK;
}

/* From the opening quote on. */
static enum rp_status scan_string(struct scanner *s)
{
    s->at++;
    for (;;) {
        int c = peek(s);
        if (c == '"') {
            s->at++;
            return RP_OK;
        }
        if (c == '\\') {
            enum rp_status status = scan_escape(s);
            if (status != RP_OK)
                return status;
            continue;
        }
        if (c < 0)
            return expected(s, "'\"' at the end of the string");
        if (c < 0x20)
            return expected(s, "control characters in a string to be escaped");
        size_t step = rp_utf8_sequence(s->text + s->at, s->length - s->at);
        if (step == 0)
            return expected(s, "valid UTF-8");
        s->at += step;
    }
}

static enum rp_status scan_digits(struct scanner *s, const char *where)
{
    if (!is_digit(peek(s)))
        return expected(s, where);
    while (is_digit(peek(s)))
        s->at++;
    return RP_OK;
}

/* RFC 8259, section 6. Its range is checked when cJSON has converted it. */
static enum rp_status scan_number(struct scanner *s)
{
    enum rp_status status = RP_OK;
    size_t start = s->at;
    if (peek(s) == '-')
        s->at++;
    if (peek(s) == '0') {
        s->at++;
        if (is_digit(peek(s)))
            return expected(s, "no digit after a leading 0");
    } else {
        status = scan_digits(s, "a digit");
    }
    if (status == RP_OK && peek(s) == '.') {
        s->at++;
        status = scan_digits(s, "a digit after the decimal point");
    }
    if (status == RP_OK && (peek(s) == 'e' || peek(s) == 'E')) {
        s->at++;
        if (peek(s) == '+' || peek(s) == '-')
            s->at++;
        status = scan_digits(s, "a digit in the exponent");
    }
    if (status == RP_OK && s->at - start > MAX_NUMBER_LENGTH)
        return fail_at(s, start, RP_ERR_FORMAT,
                       "expected a number of at most %d characters, found %zu", MAX_NUMBER_LENGTH,
                       s->at - start);
    return status;
}

static enum rp_status scan_literal(struct scanner *s, const char *literal)
{
    for (const char *c = literal; *c; c++) {
        if (peek(s) != *c)
            return expected(s, "true, false or null");
        s->at++;
    }
    return RP_OK;
}

static enum rp_status add_place(struct scanner *s, size_t key_offset)
{
    struct rp_json_places *places = s->places;
    if (places->n == places->capacity) {
        /* At most one place per byte of text, and RP_JSON_MAX_BYTES bounds that. */
        size_t capacity = places->capacity ? places->capacity * 2 : 64;
        struct rp_json_place *items = realloc(places->items, capacity * sizeof *items);
        if (!items)
            return rp_fail(s->err, RP_ERR_MEMORY, s->where, -1, "no memory for %zu values",
                           capacity);
        places->items = items;
        places->capacity = capacity;
    }
    places->items[places->n++] =
        (struct rp_json_place){.offset = (uint32_t)s->at, .key_offset = (uint32_t)key_offset};
    return RP_OK;
}

static enum rp_status scan_value(struct scanner *s, size_t key_offset, int depth);

/* From the opening bracket on; depth counts it. */
static enum rp_status scan_array(struct scanner *s, int depth)
{
    s->at++;
    skip_space(s);
    if (peek(s) == ']') {
        s->at++;
        return RP_OK;
    }
    for (;;) {
        enum rp_status status = scan_value(s, RP_JSON_NO_KEY, depth);
        if (status != RP_OK)
            return status;
        skip_space(s);
        int c = peek(s);
        if (c != ',' && c != ']')
            return expected(s, "',' or ']' in an array");
        s->at++;
        if (c == ']')
            return RP_OK;
        skip_space(s);
    }
}

/* From the opening brace on; depth counts it. */
static enum rp_status scan_object(struct scanner *s, int depth)
{
    s->at++;
    skip_space(s);
    if (peek(s) == '}') {
        s->at++;
        return RP_OK;
    }
    for (;;) {
        if (peek(s) != '"')
            return expected(s, "a key in quotes");
        size_t key_offset = s->at;
        enum rp_status status = scan_string(s);
        if (status != RP_OK)
            return status;
        skip_space(s);
        if (peek(s) != ':')
            return expected(s, "':' after a key");
        s->at++;
        skip_space(s);
        status = scan_value(s, key_offset, depth);
        if (status != RP_OK)
            return status;
        skip_space(s);
        int c = peek(s);
        if (c != ',' && c != '}')
            return expected(s, "',' or '}' in an object");
        s->at++;
        if (c == '}')
            return RP_OK;
        skip_space(s);
    }
}

/* depth: how many arrays and objects are open around the value. Recursion ends at the limit. */
static enum rp_status scan_value(struct scanner *s, size_t key_offset, int depth)
{
    enum rp_status status = add_place(s, key_offset);
    if (status != RP_OK)
        return status;
    int c = peek(s);
    if ((c == '[' || c == '{') && depth == RP_JSON_MAX_DEPTH)
        return fail_at(s, s->at, RP_ERR_FORMAT,
                       "expected at most %d nested arrays and objects, found one more",
                       RP_JSON_MAX_DEPTH);
    if (c == '[')
        return scan_array(s, depth + 1);
    if (c == '{')
        return scan_object(s, depth + 1);
    if (c == '"')
        return scan_string(s);
    if (c == '-' || is_digit(c))
        return scan_number(s);
    switch (c) {
    case 't': return scan_literal(s, "true");
    case 'f': return scan_literal(s, "false");
    case 'n': return scan_literal(s, "null");
    default: return expected(s, "a value");
    }
}

static enum rp_status scan_document(struct scanner *s)
{
    if (s->length > RP_JSON_MAX_BYTES)
        return rp_fail(s->err, RP_ERR_FORMAT, s->where, -1,
                       "expected at most %zu bytes of JSON, found %zu", RP_JSON_MAX_BYTES,
                       s->length);
    if (s->length >= 3 && memcmp(s->text, "\xEF\xBB\xBF", 3) == 0)
        return fail_at(s, 0, RP_ERR_FORMAT,
                       "expected UTF-8 without a byte order mark, found one: save it without BOM");
    skip_space(s);
    enum rp_status status = scan_value(s, RP_JSON_NO_KEY, 0);
    if (status != RP_OK)
        return status;
    skip_space(s);
    return s->at < s->length ? expected(s, "the end of the text") : RP_OK;
}

enum rp_status rp_json_scan(const char *text, size_t length, const char *where,
                            struct rp_json_places *places, struct rp_error *err)
{
    struct scanner s = {
        .text = text, .length = length, .where = where, .places = places, .err = err};
    return scan_document(&s);
}
