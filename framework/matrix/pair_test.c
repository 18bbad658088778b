/* Pairs of a matrix: order, names, finding one. See refparity/matrix.h. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "matrix/matrix_test_util.h"

static const char *const two_entries =
    "{\"engines\":{\"plain\":{\"argv\":[\"e\",\"{dump}\",\"{prompt}\"],\"layout\":\"npy\"},"
    "\"modal\":{\"argv\":[\"e\",\"{dump}\",\"{prompt}\",\"{mode}\"],\"layout\":\"npy\"}},"
    "\"tests\":[{\"name\":\"one\",\"hf_model\":\"m\",\"n_layers\":4,\"engine\":\"plain\","
    "\"prompts\":[\"Hello\",{\"id\":\"fox\",\"text\":\"The quick\"}]},"
    "{\"name\":\"two\",\"hf_model\":\"m\",\"n_layers\":4,\"engine\":\"modal\",\"_disabled\":true,"
    "\"modes\":[\"per-token\",\"batched:32\"],"
    "\"prompts\":[\"Hello\",{\"id\":\"fox\",\"text\":\"The quick\"},\"Once\"]}]}";

static void pairs_run_by_entry_mode_and_prompt(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *report_stem;
    } expected[] = {
        {"one/p0", "one__p0"},
        {"one/fox", "one__p1"},
        {"two/per-token/p0", "two__per-token__p0"},
        {"two/per-token/fox", "two__per-token__p1"},
        {"two/per-token/p2", "two__per-token__p2"},
        {"two/batched-32/p0", "two__batched-32__p0"},
        {"two/batched-32/fox", "two__batched-32__p1"},
        {"two/batched-32/p2", "two__batched-32__p2"},
    };
    struct rp_matrix *matrix = parse(two_entries);
    struct rp_pair pair = {0};
    assert_int_equal(rp_matrix_n_pairs(matrix), sizeof expected / sizeof *expected);
    for (size_t i = 0; i < rp_matrix_n_pairs(matrix); i++) {
        rp_matrix_pair(matrix, i, &pair);
        assert_string_equal(pair.name, expected[i].name);
        assert_string_equal(pair.report_stem, expected[i].report_stem);
    }
    rp_matrix_pair(matrix, 7, &pair);
    assert_ptr_equal(pair.entry, rp_matrix_entry(matrix, 1));
    assert_string_equal(pair.mode, "batched:32");
    assert_string_equal(pair.prompt->text, "Once");
    assert_int_equal(pair.prompt_index, 2);
    rp_matrix_pair(matrix, 0, &pair);
    assert_null(pair.mode);
    rp_matrix_free(matrix);
}

static void the_longest_names_fit(void **state)
{
    (void)state;
    char name[RP_MATRIX_NAME_MAX + 1];
    char text[1024];
    struct rp_pair pair = {0};
    memset(name, 'n', RP_MATRIX_NAME_MAX);
    name[RP_MATRIX_NAME_MAX] = '\0';
    snprintf(text, sizeof text,
             "{\"engines\":{\"%s\":{\"argv\":[\"{dump}\",\"{mode}\"],\"layout\":\"npy\"}},"
             "\"tests\":[{\"name\":\"%s\",\"hf_model\":\"m\",\"n_layers\":1,\"engine\":\"%s\","
             "\"modes\":[\"%s\"],\"prompts\":[{\"id\":\"%s\",\"text\":\"x\"}]}]}",
             name, name, name, name, name);
    struct rp_matrix *matrix = parse(text);
    rp_matrix_pair(matrix, 0, &pair);
    assert_int_equal(strlen(pair.name), 3 * RP_MATRIX_NAME_MAX + 2);
    assert_int_equal(strlen(pair.report_stem), 2 * RP_MATRIX_NAME_MAX + 6);
    rp_matrix_free(matrix);
}

static void a_pair_is_found_by_its_names(void **state)
{
    (void)state;
    struct rp_matrix *matrix = parse(two_entries);
    struct rp_pair pair = {0};
    struct rp_error err = {0};
    assert_int_equal(rp_matrix_find_pair(matrix, "one", NULL, "fox", &pair, &err), RP_OK);
    assert_string_equal(pair.name, "one/fox");
    assert_int_equal(rp_matrix_find_pair(matrix, "one", "", "p0", &pair, &err), RP_OK);
    assert_string_equal(pair.name, "one/p0");
    assert_int_equal(rp_matrix_find_pair(matrix, "two", "batched:32", "p2", &pair, &err), RP_OK);
    assert_string_equal(pair.name, "two/batched-32/p2");
    assert_int_equal(rp_matrix_find_pair(matrix, "two", "batched-32", "p2", &pair, &err), RP_OK);
    assert_string_equal(pair.mode, "batched:32");
    rp_matrix_free(matrix);
}

static void a_pair_that_there_is_not_names_what_there_is(void **state)
{
    (void)state;
    static const struct {
        const char *entry;
        const char *mode;
        const char *prompt;
        const char *message;
    } cases[] = {
        {"thr", NULL, "p0", "there is no entry \"thr\"; there is: one, two"},
        {"onne", NULL, "p0", "there is no entry \"onne\"; did you mean \"one\"?"},
        {"one", "batched", "p0", "there is no mode \"batched\"; there is none"},
        {"two", NULL, "p0", "there is no mode \"\"; there is: per-token, batched:32"},
        {"two", "pertoken", "p0", "there is no mode \"pertoken\"; did you mean \"per-token\"?"},
        {"one", NULL, "p1", "there is no prompt \"p1\"; there is: p0, fox"},
        {"one", NULL, "cat\n", "there is no prompt \"cat\\x0A\"; there is: p0, fox"},
    };
    struct rp_matrix *matrix = parse(two_entries);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rp_pair pair = {0};
        struct rp_error err = {0};
        assert_int_equal(rp_matrix_find_pair(matrix, cases[i].entry, cases[i].mode, cases[i].prompt,
                                             &pair, &err),
                         RP_ERR_MISSING);
        assert_string_equal(err.message, cases[i].message);
        assert_string_equal(err.where, "no/folder/m.json");
    }
    rp_matrix_free(matrix);
}

/* A product is the same however many positions come at once; flash attention's sums are not. */
static void flash_attention_is_told_what_the_mode_takes_at_once(void **state)
{
    (void)state;
    struct rp_matrix *matrix =
        parse("{\"engines\":{\"e\":{\"argv\":[\"{dump}\",\"{mode}\"],\"layout\":\"npy\","
              "\"processors\":2}},\"tests\":[{\"name\":\"flash\",\"hf_model\":\"m\",\"n_layers\":1,"
              "\"engine\":\"e\",\"attention\":\"flash\",\"modes\":[\"per-token\",\"batched:32\","
              "\"batched\",\"parallel:3\",\"c\"],\"prompts\":[\"x\"]},{\"name\":\"plain\",\"hf_"
              "model\":\"m\","
              "\"n_layers\":1,\"engine\":\"e\",\"modes\":[\"batched:32\"],\"prompts\":[\"x\"]}]}");
    static const size_t batches[] = {1, 32, 0, RP_BATCH_UNKNOWN, 0, 0};
    for (size_t i = 0; i < 6; i++) {
        struct rp_pair pair;
        rp_matrix_pair(matrix, i, &pair);
        const struct rp_numerics numerics = rp_pair_numerics(&pair);
        assert_int_equal(numerics.batch, batches[i]);
        assert_int_equal(numerics.threads, i < 5 ? 2 : 0);
    }
    rp_matrix_free(matrix);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_run_by_entry_mode_and_prompt),
        cmocka_unit_test(the_longest_names_fit),
        cmocka_unit_test(a_pair_is_found_by_its_names),
        cmocka_unit_test(a_pair_that_there_is_not_names_what_there_is),
        cmocka_unit_test(flash_attention_is_told_what_the_mode_takes_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
