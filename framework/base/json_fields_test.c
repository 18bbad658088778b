/* A struct as JSON and back: every value as it was, and nothing that is not one of its values. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_fields.h"

enum kind { KIND_A, KIND_B, KIND_C };

struct sample {
    char text[16];
    bool truth;
    int whole;
    long long wide;
    unsigned natural;
    size_t n;
    enum kind kind;
    double real;
    int64_t *integers; /* [n] */
    double *doubles;   /* [n] */
};

static const struct rp_field fields[] = {
    RP_FIELD(struct sample, text),
    RP_FIELD(struct sample, truth),
    RP_FIELD(struct sample, whole),
    RP_FIELD(struct sample, wide),
    RP_FIELD(struct sample, natural),
    RP_FIELD(struct sample, n),
    RP_FIELD_ENUM(struct sample, kind, KIND_C),
    RP_FIELD(struct sample, real),
    RP_FIELD_ARRAY(struct sample, integers, n),
    RP_FIELD_ARRAY(struct sample, doubles, n),
};
enum { N = sizeof fields / sizeof fields[0] };

static void release(struct sample *sample)
{
    free(sample->integers);
    free(sample->doubles);
}

static char *text_of(const struct sample *sample)
{
    cJSON *json = cJSON_CreateObject();
    assert_int_equal(rp_fields_write(sample, fields, N, json, NULL), RP_OK);
    char *text = cJSON_PrintUnformatted(json);
    assert_non_null(text);
    cJSON_Delete(json);
    return text;
}

/* Through text, as a file does it. */
static enum rp_status read_back(const char *text, struct sample *sample)
{
    struct rp_json *doc;
    struct rp_error err;
    memset(sample, 0, sizeof *sample);
    assert_int_equal(rp_json_parse(text, strlen(text), "test", &doc, NULL), RP_OK);
    const enum rp_status status = rp_fields_read(doc, rp_json_root(doc), fields, N, sample, &err);
    if (status)
        assert_true(strlen(err.message) > 0);
    rp_json_free(doc);
    return status;
}

static struct sample round_trip(const struct sample *sample)
{
    struct sample back;
    char *text = text_of(sample);
    assert_int_equal(read_back(text, &back), RP_OK);
    free(text);
    return back;
}

static bool same_double(double a, double b)
{
    return (isnan(a) ? isnan(b) : a == b) && !signbit(a) == !signbit(b);
}

static void every_kind_of_field_comes_back(void **state)
{
    (void)state;
    int64_t integers[] = {-1, 0, 1LL << 53};
    double doubles[] = {(double)NAN, 0.1, -(double)INFINITY};
    const struct sample sample = {.text = "a \"b\"\n\t\x7f…",
                                  .truth = true,
                                  .whole = INT32_MIN,
                                  .wide = -(1LL << 53),
                                  .natural = UINT32_MAX,
                                  .n = 3,
                                  .kind = KIND_C,
                                  .real = -0.0,
                                  .integers = integers,
                                  .doubles = doubles};
    struct sample back = round_trip(&sample);
    assert_string_equal(back.text, sample.text);
    assert_true(back.truth);
    assert_int_equal(back.whole, INT32_MIN);
    assert_true(back.wide == -(1LL << 53));
    assert_true(back.natural == UINT32_MAX);
    assert_int_equal(back.n, 3);
    assert_int_equal(back.kind, KIND_C);
    assert_true(same_double(back.real, sample.real));
    assert_memory_equal(back.integers, integers, sizeof integers);
    for (size_t i = 0; i < 3; i++)
        assert_true(same_double(back.doubles[i], doubles[i]));
    release(&back);
}

static void every_double_comes_back_to_the_last_bit(void **state)
{
    (void)state;
    const double values[] = {0.1,           1.0 / 3,   1 + DBL_EPSILON,    DBL_MIN,
                             DBL_MAX,       5e-324,    (double)NAN,        -(double)NAN,
                             -0.0,          -DBL_MAX,  (double)INFINITY,   -(double)INFINITY,
                             (double)2e-7f, 1234567.8, 9007199254740993.0, 0.30000000000000004};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        struct sample back = round_trip(&(struct sample){.real = values[i]});
        assert_true(same_double(back.real, values[i]));
        release(&back);
    }
    uint64_t bits = 88172645463325252u; /* xorshift64 */
    for (int i = 0; i < 2000; i++) {
        double value;
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        memcpy(&value, &bits, sizeof value);
        struct sample back = round_trip(&(struct sample){.real = value});
        assert_true(same_double(back.real, value));
        release(&back);
    }
}

static void a_text_comes_back_whatever_its_bytes_are(void **state)
{
    (void)state;
    const char *const texts[] = {"",         "fifteen letters", "\x01\x1b[31m", "cut \xe2\x80",
                                 "\xff\xfe", "\xed\xa0\x80"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct sample sample = {.n = 0};
        memcpy(sample.text, texts[i], strlen(texts[i]) + 1);
        struct sample back = round_trip(&sample);
        assert_string_equal(back.text, texts[i]);
        release(&back);
    }
}

static void a_number_that_JSON_does_not_hold_exactly_is_not_written(void **state)
{
    (void)state;
    int64_t beyond[] = {(1LL << 53) + 1};
    double none[] = {0};
    const struct sample samples[] = {
        {.wide = (1LL << 53) + 1},
        {.wide = INT64_MIN},
        {.n = 1, .integers = beyond, .doubles = none},
    };
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        cJSON *json = cJSON_CreateObject();
        assert_int_equal(rp_fields_write(&samples[i], fields, N, json, NULL), RP_ERR_UNSUPPORTED);
        cJSON_Delete(json);
    }
}

static const char right[] =
    "{\"text\":\"a\",\"truth\":true,\"whole\":1,\"wide\":2,\"natural\":3,\"n\":1,\"kind\":2,"
    "\"real\":0.5,\"integers\":[4],\"doubles\":[\"nan\"]}";

/* right, with the first `from` in it replaced. */
static char *changed(const char *from, const char *to)
{
    const char *at = strstr(right, from);
    assert_non_null(at);
    char *text = malloc(sizeof right + strlen(to));
    assert_non_null(text);
    sprintf(text, "%.*s%s%s", (int)(at - right), right, to, at + strlen(from));
    return text;
}

static void what_a_field_cannot_hold_is_an_error(void **state)
{
    (void)state;
    static const char *const changes[][2] = {
        {"\"text\":\"a\"", "\"text\":\"sixteen letters!\""}, /* no room for its NUL */
        {"\"text\":\"a\"", "\"text\":1"},
        {"\"text\":\"a\"", "\"text\":null"},
        {"\"text\":\"a\"", "\"text\":{\"bytes\":\"6\"}"},
        {"\"text\":\"a\"", "\"text\":{\"bytes\":\"6G\"}"},
        {"\"text\":\"a\"", "\"text\":{\"bytes\":\"6100\"}"},
        {"\"text\":\"a\"", "\"text\":{\"bytes\":\"61\",\"b\":1}"},
        {"\"text\":\"a\"", "\"text\":{\"bytes\":\"61616161616161616161616161616161\"}"},
        {"true", "1"},
        {"\"whole\":1", "\"whole\":1.5"},
        {"\"whole\":1", "\"whole\":2147483648"},
        {"\"whole\":1", "\"whole\":\"nan\""},
        {"\"wide\":2", "\"wide\":9007199254740994"},
        {"\"natural\":3", "\"natural\":-1"},
        {"\"natural\":3", "\"natural\":4294967296"},
        {"\"n\":1", "\"n\":2"}, /* the arrays have one */
        {"\"n\":1", "\"n\":9007199254740992"},
        {"\"n\":1", "\"n\":-1"},
        {"\"kind\":2", "\"kind\":3"},
        {"\"kind\":2", "\"kind\":-1"},
        {"0.5", "\"NaN\""},
        {"0.5", "null"},
        {"0.5", "true"},
        {"[4]", "[\"nan\"]"},
        {"[4]", "[4.5]"},
        {"[4]", "4"},
        {"[4]", "{\"a\":4}"},
        {"[4]", "[]"},
        {"[\"nan\"]", "[null]"},
        {"[\"nan\"]", "[\"nan\",1]"},
        {"\"whole\":1,", ""},
        {"\"whole\":1", "\"whole \":1"},
        {"\"whole\":1", "\"whole\":1,\"more\":1"},
    };
    struct sample sample;
    assert_int_equal(read_back(right, &sample), RP_OK);
    release(&sample);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        char *text = changed(changes[i][0], changes[i][1]);
        if (read_back(text, &sample) != RP_ERR_FORMAT)
            fail_msg("not refused: %s", text);
        release(&sample);
        free(text);
    }
    assert_int_equal(read_back("[1]", &sample), RP_ERR_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_field_comes_back),
        cmocka_unit_test(every_double_comes_back_to_the_last_bit),
        cmocka_unit_test(a_text_comes_back_whatever_its_bytes_are),
        cmocka_unit_test(a_number_that_JSON_does_not_hold_exactly_is_not_written),
        cmocka_unit_test(what_a_field_cannot_hold_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
