/* Another engine as the reference: what an entry says of it, where it lies in a store, and every error
 * with its place. See refparity/matrix.h. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "matrix/matrix_test_util.h"

/* Two engines on line 2, the entry on line 3. */
#define RUNS "\"argv\":[\"r\",\"{gguf}\",\"{prompt}\",\"{mode}\",\"{dump}\"],\"layout\":\"npy\""
#define TWO(other, more)                                                                   \
    "{\"engines\":{\"e\":{" ENGINE "},\"r\":{" other "}},\"engine\":\"e\",\n\"tests\":[\n" \
    "{" ENTRY ",\"engine_gguf\":\"m.gguf\"," more "}\n]}"
#define WITH(value) TWO(RUNS, "\"reference\":" value)
#define AT ((int)sizeof("{" ENTRY ",\"engine_gguf\":\"m.gguf\",\"reference\":"))

static const struct rp_reference *reference_of(const struct rp_matrix *matrix)
{
    return &rp_matrix_entry(matrix, 0)->reference;
}

static void an_entry_has_HF_as_its_reference_unless_it_says_otherwise(void **state)
{
    (void)state;
    struct rp_matrix *matrix = parse(MATRIX(ENGINE, ENTRY));
    assert_null(reference_of(matrix)->engine);
    rp_matrix_free(matrix);
}

static void the_run_of_a_reference_is_the_pairs_with_another_engine(void **state)
{
    (void)state;
    struct rp_matrix *matrix = parse(
        WITH("{\"engine\":\"r\",\"gguf\":\"f32.gguf\",\"mode\":\"batched:32\",\"how_to_get\":\"x\","
             "\"_note\":\"n\",\"_comment\":1}"));
    struct rp_pair pair, run;
    struct rp_entry entry;
    rp_matrix_pair(matrix, 0, &pair);
    assert_string_equal(reference_of(matrix)->engine->name, "r");
    rp_pair_reference_run(&pair, &entry, &run);
    assert_ptr_equal(run.entry, &entry);
    assert_ptr_equal(run.prompt, pair.prompt);
    assert_string_equal(entry.engine->name, "r");
    assert_string_equal(entry.engine_gguf, "f32.gguf");
    assert_string_equal(entry.how_to_get, "x");
    assert_string_equal(run.mode, "batched:32");
    assert_string_equal(pair.entry->engine->name, "e");
    rp_matrix_free(matrix);
}

static void folder_of(const char *text, char folder[RP_MATRIX_NAME_MAX + 16])
{
    struct rp_matrix *matrix = parse(text);
    snprintf(folder, RP_MATRIX_NAME_MAX + 16, "%s", reference_of(matrix)->folder);
    rp_matrix_free(matrix);
}

static void what_makes_another_reference_has_another_place_in_a_store(void **state)
{
    (void)state;
    static const char *const others[] = {
        WITH("{\"engine\":\"r\",\"gguf\":\"g.gguf\",\"mode\":\"batched\"}"),
        WITH("{\"engine\":\"r\",\"gguf\":\"f.gguf\",\"mode\":\"per-token\"}"),
        TWO(RUNS, "\"positions\":[0,2],\"reference\":{\"engine\":\"r\",\"gguf\":\"f.gguf\","
                  "\"mode\":\"batched\"}"),
        TWO(RUNS ",\"env\":{\"X\":\"1\"}",
            "\"reference\":{\"engine\":\"r\",\"gguf\":\"f.gguf\",\"mode\":\"batched\"}")};
    char folder[RP_MATRIX_NAME_MAX + 16], other[RP_MATRIX_NAME_MAX + 16];
    folder_of(WITH("{\"engine\":\"r\",\"gguf\":\"f.gguf\",\"mode\":\"batched\"}"), folder);
    assert_memory_equal(folder, "r-", 2);
    assert_int_equal(strlen(folder), 10);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        folder_of(others[i], other);
        assert_string_not_equal(folder, other);
    }
    folder_of(TWO(RUNS,
                  "\"threshold_cosine\":0.5,\"reference\":{\"engine\":\"r\",\"gguf\":\"f.gguf\","
                  "\"mode\":\"batched\"}"),
              other);
    assert_string_equal(folder, other);
}

static void what_is_no_reference_is_an_error_at_its_place(void **state)
{
    (void)state;
    expect_error(WITH("\"r\""), RP_ERR_FORMAT, 3, AT,
                 "expected a reference, an object, found a string");
    expect_error(WITH("{\"engin\":\"r\"}"), RP_ERR_FORMAT, 3, AT + 1,
                 "expected a key of a reference, found \"engin\"; did you mean \"engine\"?");
    expect_error(WITH("{\"gguf\":\"f.gguf\"}"), RP_ERR_MISSING, 3, AT,
                 "expected \"engine\" in a reference: one of \"engines\"");
    expect_error(WITH("{\"engine\":\"s\"}"), RP_ERR_FORMAT, 3, AT + 10,
                 "expected one of the matrix's engines, found \"s\"; there is: e, r");
    expect_error(WITH("{\"engine\":\"r\",\"mode\":\"a\"}"), RP_ERR_MISSING, 3, AT,
                 "expected \"gguf\" in a reference: engine \"r\" uses {gguf}");
    expect_error(WITH("{\"engine\":\"r\",\"gguf\":\"f.gguf\"}"), RP_ERR_MISSING, 3, AT,
                 "expected \"mode\" in a reference: engine \"r\" uses {mode}");
    expect_error(TWO("\"argv\":[\"r\",\"{prompt}\",\"{dump}\"],\"layout\":\"npy\"",
                     "\"reference\":{\"engine\":\"r\",\"mode\":\"a\"}"),
                 RP_ERR_FORMAT, 3, AT + 21,
                 "expected no \"mode\": engine \"r\" uses {mode} nowhere");
    expect_error(TWO(RUNS, "\"reference\":{\"engine\":\"r\",\"gguf\":\"f\",\"mode\":\"a\"},"
                           "\"dtype\":\"bfloat16\""),
                 RP_ERR_FORMAT, 3, AT + 37,
                 "expected no \"dtype\" beside \"reference\": it is what HF computes in");
}

#define CHOICE \
    "expected an engine that tokenizes the prompt by itself and dumps token ids and positions: "

static void an_engine_that_cannot_be_a_reference_is_refused(void **state)
{
    (void)state;
    expect_error(WITH("{\"engine\":\"e\",\"gguf\":\"f\"}"), RP_ERR_FORMAT, 3, AT + 10,
                 CHOICE "\"e\" uses {tokens_file}, the token ids of a reference");
    expect_error(TWO(RUNS ",\"tokens\":false",
                     "\"reference\":{\"engine\":\"r\",\"gguf\":\"f\",\"mode\":\"a\"}"),
                 RP_ERR_FORMAT, 3, AT + 10, CHOICE "\"r\" dumps no token ids");
    expect_error(
        TWO("\"argv\":[\"r\",\"{prompt}\",\"{dump}\"],\"layout\":\"bin\",\"single_position\":true",
            "\"reference\":{\"engine\":\"r\"}"),
        RP_ERR_FORMAT, 3, AT + 10, CHOICE "\"r\" dumps a single position");
}

static void an_engine_that_is_its_own_reference_is_refused(void **state)
{
    (void)state;
#define OWN(gguf)                                                                        \
    "{\"engines\":{\n\"r\":{" RUNS "}},\"tests\":[\n{\"name\":\"a\",\"hf_model\":\"m\"," \
    "\"n_layers\":4,\"prompts\":[\"x\"],\"modes\":[\"a\"],\"engine_gguf\":\"m.gguf\","   \
    "\"reference\":"                                                                     \
    "{\"engine\":\"r\",\"gguf\":\"" gguf "\",\"mode\":\"b\"}}\n]}"
    expect_error(
        OWN("m.gguf"), RP_ERR_FORMAT, 3,
        (int)sizeof("{\"name\":\"a\",\"hf_model\":\"m\",\"n_layers\":4,\"prompts\":[\"x\"],"
                    "\"modes\":[\"a\"],\"engine_gguf\":\"m.gguf\",\"reference\":"),
        "expected another engine than the entry's as its reference: \"r\" would be "
        "compared with itself (\"compare_modes\" compares two modes)");
    rp_matrix_free(parse(OWN("f32.gguf"))); /* which the report warns of */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_entry_has_HF_as_its_reference_unless_it_says_otherwise),
        cmocka_unit_test(the_run_of_a_reference_is_the_pairs_with_another_engine),
        cmocka_unit_test(what_makes_another_reference_has_another_place_in_a_store),
        cmocka_unit_test(what_is_no_reference_is_an_error_at_its_place),
        cmocka_unit_test(an_engine_that_cannot_be_a_reference_is_refused),
        cmocka_unit_test(an_engine_that_is_its_own_reference_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
