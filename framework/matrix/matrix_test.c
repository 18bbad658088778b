/* Behaviour of refparity/matrix.h: what a matrix says, and what is no matrix at all. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "matrix/matrix_test_util.h"

static void an_entry_that_says_little_gets_the_defaults(void **state)
{
    (void)state;
    struct rp_matrix *matrix = parse(MATRIX(ENGINE, ENTRY));
    assert_string_equal(rp_matrix_path(matrix), "no/folder/m.json");
    assert_int_equal(rp_matrix_n_engines(matrix), 1);
    const struct rp_engine *engine = rp_matrix_engine(matrix, 0);
    assert_string_equal(engine->name, "e");
    assert_int_equal(engine->n_argv, 3);
    assert_string_equal(engine->argv[2], "{tokens_file}");
    assert_int_equal(engine->n_env, 0);
    assert_int_equal(engine->layout, RP_LAYOUT_NPY);
    assert_true(engine->timeout_s == 600.0);
    assert_int_equal(engine->processors, 1);
    assert_int_equal(engine->serial, 0);
    assert_int_equal(engine->single_position, 0);
    assert_null(engine->how_to_get);
    assert_int_equal(engine->lacks_tokens, 0);
    assert_int_equal(engine->line, 2);
    assert_int_equal(engine->column, 5);
    assert_int_equal(rp_matrix_n_entries(matrix), 1);
    const struct rp_entry *entry = rp_matrix_entry(matrix, 0);
    assert_string_equal(entry->name, "a");
    assert_string_equal(entry->hf_model, "o/m");
    assert_string_equal(entry->revision, "main");
    assert_string_equal(entry->dtype, "float32");
    assert_int_equal(entry->n_layers, 4);
    assert_ptr_equal(entry->engine, engine);
    assert_null(entry->modes);
    assert_int_equal(entry->n_modes, 0);
    assert_null(entry->engine_gguf);
    assert_int_equal(entry->n_prompts, 1);
    assert_string_equal(entry->prompts[0].id, "p0");
    assert_string_equal(entry->prompts[0].text, "Hello");
    assert_int_equal(entry->prompts[0].length, 5);
    assert_null(entry->prompts[0].file);
    assert_true(entry->limits.l2_rel == 0.05);
    assert_int_equal(entry->limits.n_slots, 0);
    assert_true(entry->limits.cosine == 0.90);
    assert_null(entry->positions);
    assert_int_equal(entry->n_positions, 0);
    assert_int_equal(entry->disabled, 0);
    assert_null(entry->disabled_reason);
    assert_null(entry->note);
    assert_int_equal(entry->line, 3);
    assert_int_equal(entry->column, 1);
    rp_matrix_free(matrix);
}

static void an_entry_can_say_everything(void **state)
{
    (void)state;
    struct rp_matrix *matrix = parse(
        "{\"$schema\":\"s\",\"_comment\":[1],\"engines\":{\"e.1\":{\"_note\":\"n\",\"_comment\":{},"
        "\"argv\":[\"{env:BIN}\",\"{gguf}\",\"{mode}\",\"{prompt}\"],"
        "\"env\":{\"B\":\"1\",\"A_2\":\"{dump}\"},\"layout\":\"bin\",\"timeout_s\":0.5,"
        "\"processors\":8,\"serial\":true,\"single_position\":true,"
        "\"how_to_get\":\"build it\"}},"
        "\"tests\":[{\"name\":\"M-1.5_x\",\"hf_model\":\"tiny/qwen3\",\"revision\":\"v1\","
        "\"n_layers\":28,\"engine\":\"e.1\",\"modes\":[\"per-token\",\"batched:32\"],"
        "\"engine_gguf\":\"m.gguf\",\"how_to_get\":\"fetch "
        "it\",\"prompts\":[\"a\\tb\",{\"id\":\"fox\",\"text\":"
        "\"\xE2\x82\xAC\","
        "\"_note\":\"n\"},{\"id\":\"p2\",\"text\":\"c\"}],"
        "\"threshold_l2_rel\":{\"h0\":0.5,\"default\":0.25,\"h27_in\":2,\"emb\":1e-9},"
        "\"threshold_cosine\":-0.5,\"dtype\":\"bfloat16\",\"positions\":[12],"
        "\"_disabled\":\"too big\",\"_note\":\"measured\",\"_comment\":0}]}");
    const struct rp_engine *engine = rp_matrix_engine(matrix, 0);
    const struct rp_entry *entry = rp_matrix_find_entry(matrix, "M-1.5_x");
    assert_non_null(entry);
    assert_int_equal(engine->n_env, 2);
    assert_string_equal(engine->env[0].name, "B");
    assert_string_equal(engine->env[1].value, "{dump}");
    assert_int_equal(engine->layout, RP_LAYOUT_BIN);
    assert_true(engine->timeout_s == 0.5);
    assert_int_equal(engine->processors, 8);
    assert_int_equal(engine->serial, 1);
    assert_int_equal(engine->single_position, 1);
    assert_string_equal(engine->how_to_get, "build it");
    assert_string_equal(entry->revision, "v1");
    assert_string_equal(entry->dtype, "bfloat16");
    assert_int_equal(entry->n_modes, 2);
    assert_string_equal(entry->modes[1], "batched:32");
    assert_string_equal(entry->engine_gguf, "m.gguf");
    assert_string_equal(entry->how_to_get, "fetch it");
    assert_int_equal(entry->n_prompts, 3);
    assert_string_equal(entry->prompts[0].text, "a\tb");
    assert_string_equal(entry->prompts[1].id, "fox");
    assert_int_equal(entry->prompts[1].length, 3);
    assert_string_equal(entry->prompts[2].id, "p2");
    assert_true(entry->limits.l2_rel == 0.25);
    assert_int_equal(entry->limits.n_slots, 3);
    assert_string_equal(entry->limits.slots[0].slot, "h0");
    assert_true(entry->limits.slots[0].l2_rel == 0.5);
    assert_string_equal(entry->limits.slots[1].slot, "h27_in");
    assert_true(entry->limits.slots[1].l2_rel == 2.0);
    assert_string_equal(entry->limits.slots[2].slot, "emb");
    assert_true(entry->limits.slots[2].l2_rel == 1e-9);
    assert_true(entry->limits.cosine == -0.5);
    assert_int_equal(entry->n_positions, 1);
    assert_int_equal(entry->positions[0], 12);
    assert_int_equal(entry->disabled, 1);
    assert_string_equal(entry->disabled_reason, "too big");
    assert_string_equal(entry->note, "measured");
    assert_null(rp_matrix_find_entry(matrix, "m-1.5_x"));
    rp_matrix_free(matrix);
}

static void false_disables_nothing_and_true_needs_no_reason(void **state)
{
    (void)state;
    struct rp_matrix *matrix = parse(WITH_ENTRY("\"_disabled\":false,\"positions\":\"all\""));
    assert_int_equal(rp_matrix_entry(matrix, 0)->disabled, 0);
    rp_matrix_free(matrix);
    matrix = parse(WITH_ENTRY("\"_disabled\":true,\"positions\":[0,1,7]"));
    assert_int_equal(rp_matrix_entry(matrix, 0)->disabled, 1);
    assert_null(rp_matrix_entry(matrix, 0)->disabled_reason);
    assert_int_equal(rp_matrix_entry(matrix, 0)->positions[2], 7);
    rp_matrix_free(matrix);
}

static void json_errors_come_through(void **state)
{
    (void)state;
    struct rp_matrix *matrix = NULL;
    struct rp_error err = {0};
    expect_error("", RP_ERR_FORMAT, 1, 1, "expected a value, found the end of the text");
    expect_error("\xEF\xBB\xBF{}", RP_ERR_FORMAT, 1, 1,
                 "expected UTF-8 without a byte order mark, found one: save it without BOM");
    expect_error(MATRIX(ENGINE, ENTRY) "}", RP_ERR_FORMAT, 4, 3,
                 "expected the end of the text, found '}'");
    expect_error(WITH_ENTRY("\"positions\":[0],\"positions\":[0]"), RP_ERR_FORMAT, 3,
                 ENTRY_MORE + 16, "expected each key once, found \"positions\" again");
    expect_error(WITH_ENTRY("\"threshold_l2_rel\":1e999"), RP_ERR_FORMAT, 3, ENTRY_MORE + 19,
                 "expected a number that a double can hold, found a larger one");
    expect_error(WITH_ENTRY("\"threshold_l2_rel\":NaN"), RP_ERR_FORMAT, 3, ENTRY_MORE + 19,
                 "expected a value, found 'N'");
    expect_error(WITH_ENTRY("\"_note\":\"\\u0000\""), RP_ERR_FORMAT, 3, ENTRY_MORE + 9,
                 "expected text without NUL, found \\u0000, which no C string can hold");
    char nested[10001];
    memset(nested, '[', sizeof nested);
    assert_int_equal(rp_matrix_parse(nested, 10000, "m.json", &matrix, &err), RP_ERR_FORMAT);
    assert_string_equal(err.where, "m.json:1:65");
}

static void the_top_level_is_checked(void **state)
{
    (void)state;
    expect_error("[]", RP_ERR_FORMAT, 1, 1, "expected a matrix, an object, found an array");
    expect_error(
        "{\"tests\":[]}", RP_ERR_MISSING, 1, 1,
        "expected \"engines\" in a matrix, what there is to run: \"engines\": {\"NAME\": "
        "{\"argv\": [\"{env:PROGRAM}\", \"{gguf}\", \"{prompt}\", \"{dump}\"], \"layout\": "
        "\"bin\"}}");
    expect_error("{\"engines\":{}}", RP_ERR_MISSING, 1, 1,
                 "expected \"tests\" in a matrix: its entries");
    expect_error("{\"engines\":[],\"tests\":[]}", RP_ERR_FORMAT, 1, 12,
                 "expected an object for \"engines\", found an array");
    expect_error("{\"engines\":{},\"tests\":{}}", RP_ERR_FORMAT, 1, 23,
                 "expected an array for \"tests\", found an object");
    expect_error("{\"engines\":{},\"tests\":[]}", RP_ERR_FORMAT, 1, 23,
                 "expected 1 to 10000 elements in \"tests\", found 0");
    expect_error("{\"engines\":{},\"tests\":[7]}", RP_ERR_FORMAT, 1, 24,
                 "expected an entry, an object, found a number");
    expect_error("{\"engines\":{},\"test\":[]}", RP_ERR_FORMAT, 1, 15,
                 "expected a key of a matrix, found \"test\"; did you mean \"tests\"?");
    expect_error("{\"engines\":{},\"models\":[]}", RP_ERR_FORMAT, 1, 15,
                 "expected a key of a matrix, found \"models\"; there is: $schema, _comment, "
                 "engines, engine, tests");
    expect_error("{\"$schema\":1}", RP_ERR_FORMAT, 1, 12,
                 "expected a string for \"$schema\", found a number");
}

static void a_matrix_cut_anywhere_is_an_error(void **state)
{
    (void)state;
    const char *text = WITH_ENTRY("\"threshold_l2_rel\":{\"h1\":0.1},\"positions\":[0,2]");
    rp_matrix_free(parse(text));
    for (size_t length = 0; length < strlen(text); length++) {
        struct rp_matrix *matrix = NULL;
        char *cut = malloc(length ? length : 1);
        assert_non_null(cut);
        memcpy(cut, text, length);
        assert_int_equal(rp_matrix_parse(cut, length, "m.json", &matrix, NULL), RP_ERR_FORMAT);
        assert_null(matrix);
        free(cut);
    }
}

static void the_matrix_of_this_repository_is_valid(void **state)
{
    (void)state;
    struct rp_matrix *matrix = NULL;
    struct rp_error err = {0};
    enum rp_status status = rp_matrix_load(RP_SOURCE_DIR "/matrix/matrix.json", &matrix, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(status, RP_OK);
    assert_int_equal(rp_matrix_n_entries(matrix), 9 + 9 + 3 + 10 + 2 + 6 + 3 + 4);
    /* of each engine: modes x prompts, then the comparisons of modes of its BF16 entries, which have
     * prompts of their own with llama.cpp; then llama.cpp with neighbours in its batch, the engines in
     * Python and the very long ones, SmolLM2 in
     * six types, one of them with a second prompt, the real models that nothing here gets, and two that
     * are too big, by another engine and by replay */
    assert_int_equal(rp_matrix_n_pairs(matrix), 9 * 2 * 6 + 3 * 6 + 9 * 3 * 6 + 3 * 6 + 3 * 4 + 3 +
                                                    7 + (3 + 2) * (3 + 1) + 6 * 2 + 2 + 2 * 2 +
                                                    (6 + 1) + 3 * 4 + 2 * (4 + 2));
    for (size_t i = 0; i < 9 + 9; i++) {
        char path[4096];
        const struct rp_entry *entry = rp_matrix_entry(matrix, i);
        assert_string_equal(entry->engine->name, i < 9 ? "embedded" : "llama.cpp");
        assert_int_equal(rp_entry_gguf(matrix, entry, NULL, path, sizeof path, &err), RP_OK);
    }
    rp_matrix_free(matrix);
}

static void a_missing_matrix_is_an_error(void **state)
{
    (void)state;
    struct rp_matrix *matrix = NULL;
    struct rp_error err = {0};
    assert_int_equal(rp_matrix_load("/nowhere/m.json", &matrix, &err), RP_ERR_MISSING);
    assert_string_equal(err.where, "/nowhere/m.json");
    assert_string_equal(err.message, "cannot open: No such file or directory");
    rp_matrix_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_entry_that_says_little_gets_the_defaults),
        cmocka_unit_test(an_entry_can_say_everything),
        cmocka_unit_test(false_disables_nothing_and_true_needs_no_reason),
        cmocka_unit_test(json_errors_come_through),
        cmocka_unit_test(the_top_level_is_checked),
        cmocka_unit_test(a_matrix_cut_anywhere_is_an_error),
        cmocka_unit_test(the_matrix_of_this_repository_is_valid),
        cmocka_unit_test(a_missing_matrix_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
