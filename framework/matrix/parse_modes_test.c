/* What an entry says of how its engine runs and ends: compare_modes, accept_exit, the default
 * engine. See refparity/matrix.h. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>

#include "matrix/matrix_test_util.h"

/* An engine with two modes; the entry has what is added. */
#define MODAL "\"argv\":[\"e\",\"{dump}\",\"{prompt}\",\"{mode}\"],\"layout\":\"npy\""
#define MODES "\"modes\":[\"per-token\",\"batched:32\",\"c\"],"
#define COMPARING(more) MATRIX(MODAL, ENTRY "," MODES more)
#define COMPARING_MORE ((int)sizeof("{" ENTRY "," MODES))

static void modes_are_compared_in_the_order_that_the_matrix_says(void **state)
{
    (void)state;
    static const char *const names[] = {"a/per-token/p0", "a/batched-32/p0", "a/c/p0",
                                        "a/batched-32-vs-per-token/p0", "a/per-token-vs-c/p0"};
    struct rp_pair pair, run;
    struct rp_error err;
    struct rp_matrix *matrix = parse(COMPARING(
        "\"compare_modes\":[[\"batched:32\",\"per-token\"],[\"per-token\",\"c\"]],"
        "\"threshold_l2_rel\":0.2,\"threshold_modes_l2_rel\":{\"default\":0.001,\"h1\":1}"));
    assert_int_equal(rp_matrix_n_pairs(matrix), 5);
    for (size_t i = 0; i < 5; i++) {
        rp_matrix_pair(matrix, i, &pair);
        assert_string_equal(pair.name, names[i]);
    }
    rp_matrix_pair(matrix, 3, &pair);
    assert_string_equal(pair.mode, "batched:32");
    assert_string_equal(pair.against, "per-token");
    assert_string_equal(pair.report_stem, "a__batched-32-vs-per-token__p0");
    rp_pair_of_mode(&pair, 0, &run);
    assert_string_equal(run.name, "a/batched-32/p0");
    assert_null(run.against);
    rp_pair_of_mode(&pair, 1, &run);
    assert_string_equal(run.name, "a/per-token/p0");
    assert_int_equal(rp_matrix_find_pair(matrix, "a", "batched-32-vs-per-token", "p0", &run, &err),
                     RP_OK);
    assert_string_equal(run.name, pair.name);
    assert_string_equal(run.against, "per-token");
    const struct rp_entry *entry = rp_matrix_entry(matrix, 0);
    assert_true(entry->limits.l2_rel == 0.2);
    assert_true(entry->modes_limits.l2_rel == 0.001);
    assert_int_equal(entry->modes_limits.n_slots, 1);
    assert_true(entry->modes_limits.cosine == entry->limits.cosine);
    rp_matrix_free(matrix);
}

static void limits_of_modes_are_the_entrys_where_it_gives_none(void **state)
{
    (void)state;
    struct rp_matrix *matrix = parse(COMPARING("\"compare_modes\":[[\"c\",\"per-token\"]],"
                                               "\"threshold_l2_rel\":{\"default\":0.2,\"h0\":1}"));
    const struct rp_entry *entry = rp_matrix_entry(matrix, 0);
    assert_true(entry->modes_limits.l2_rel == 0.2);
    assert_int_equal(entry->modes_limits.n_slots, 1);
    rp_matrix_free(matrix);
}

static void a_comparison_of_what_are_no_two_modes_is_an_error(void **state)
{
    (void)state;
    const int first = COMPARING_MORE + (int)sizeof("\"compare_modes\":[") - 1;
    expect_error(COMPARING("\"compare_modes\":[[\"c\",\"d\"]]"), RP_ERR_FORMAT, 3, first + 5,
                 "expected one of the entry's \"modes\", found \"d\"; there is: per-token, "
                 "batched:32, c");
    expect_error(COMPARING("\"compare_modes\":[[\"c\",7]]"), RP_ERR_FORMAT, 3, first + 5,
                 "expected one of the entry's \"modes\", found 7");
    expect_error(COMPARING("\"compare_modes\":[[\"c\",\"c\"]]"), RP_ERR_FORMAT, 3, first,
                 "expected two different modes, found \"c\" twice");
    expect_error(COMPARING("\"compare_modes\":[[\"c\"]]"), RP_ERR_FORMAT, 3, first,
                 "expected 2 to 2 elements in \"compare_modes\", found 1");
    expect_error(COMPARING("\"compare_modes\":[[\"c\",\"per-token\"],[\"c\",\"per-token\"]]"),
                 RP_ERR_FORMAT, 3, first + 18,
                 "expected each comparison once, found c-vs-per-token again");
    expect_error(COMPARING("\"compare_modes\":[]"), RP_ERR_FORMAT, 3, first - 1,
                 "expected 1 to 64 elements in \"compare_modes\", found 0");
    expect_error(WITH_ENTRY("\"compare_modes\":[[\"a\",\"b\"]]"), RP_ERR_FORMAT, 3, ENTRY_MORE + 16,
                 "expected \"modes\" in an entry with \"compare_modes\"");
    expect_error(COMPARING("\"threshold_modes_l2_rel\":1"), RP_ERR_FORMAT, 3, COMPARING_MORE + 25,
                 "expected \"compare_modes\" in an entry with \"threshold_modes_l2_rel\"");
    expect_error(COMPARING("\"compare_modes\":[[\"c\",\"per-token\"]],"
                           "\"threshold_modes_l2_rel\":0"),
                 RP_ERR_FORMAT, 3, first + 44,
                 "expected a limit above 0 for \"threshold_modes_l2_rel\", found 0");
}

static void a_mode_that_is_named_like_a_comparison_is_an_error(void **state)
{
    (void)state;
    expect_error(MATRIX(MODAL, ENTRY ",\"modes\":[\"a\",\"b\",\"a-vs-b\"],\"compare_modes\":"
                                     "[[\"a\",\"b\"]]"),
                 RP_ERR_FORMAT, 3, ENTRY_MORE + 44,
                 "expected each comparison once, found a-vs-b again");
}

static void accept_exit_is_a_code_or_a_signal_with_a_reason(void **state)
{
    (void)state;
    const int value = ENTRY_MORE + (int)sizeof("\"accept_exit\":") - 1;
    struct rp_matrix *matrix =
        parse(WITH_ENTRY("\"accept_exit\":{\"signal\":\"SIGABRT\",\"reason\":\"why\"}"));
    assert_int_equal(rp_matrix_entry(matrix, 0)->accept_exit.signal, SIGABRT);
    assert_int_equal(rp_matrix_entry(matrix, 0)->accept_exit.code, 0);
    assert_string_equal(rp_matrix_entry(matrix, 0)->accept_exit.reason, "why");
    rp_matrix_free(matrix);
    matrix = parse(WITH_ENTRY("\"accept_exit\":{\"signal\":11,\"reason\":\"why\"}"));
    assert_int_equal(rp_matrix_entry(matrix, 0)->accept_exit.signal, 11);
    rp_matrix_free(matrix);
    matrix = parse(WITH_ENTRY("\"accept_exit\":{\"code\":134,\"reason\":\"why\"}"));
    assert_int_equal(rp_matrix_entry(matrix, 0)->accept_exit.code, 134);
    rp_matrix_free(matrix);
    expect_error(WITH_ENTRY("\"accept_exit\":{\"code\":1}"), RP_ERR_MISSING, 3, value,
                 "expected \"reason\" in \"accept_exit\": why this end is no fault");
    expect_error(WITH_ENTRY("\"accept_exit\":{\"reason\":\"why\"}"), RP_ERR_FORMAT, 3, value,
                 "expected either \"code\" or \"signal\" in \"accept_exit\"");
    expect_error(WITH_ENTRY("\"accept_exit\":{\"code\":1,\"signal\":6,\"reason\":\"why\"}"),
                 RP_ERR_FORMAT, 3, value,
                 "expected either \"code\" or \"signal\" in \"accept_exit\"");
    expect_error(WITH_ENTRY("\"accept_exit\":{\"code\":0,\"reason\":\"why\"}"), RP_ERR_FORMAT, 3,
                 value + 8, "expected a whole number from 1 to 255 for \"code\", found 0");
    expect_error(WITH_ENTRY("\"accept_exit\":{\"signal\":\"SIGABORT\",\"reason\":\"why\"}"),
                 RP_ERR_FORMAT, 3, value + 10,
                 "expected a signal's name or number, found \"SIGABORT\"; did you mean "
                 "\"SIGABRT\"?");
    expect_error(WITH_ENTRY("\"accept_exit\":true"), RP_ERR_FORMAT, 3, value,
                 "expected \"accept_exit\", an object, found true");
}

/* The matrix of quant.cpp's users, n_layers added: no entry names an engine. */
#define FIELD(top)                                                                                \
    "{\"_comment\": \"Each entry: HF model name + local GGUF + prompts.\",\n" top                 \
    "\"tests\": [{\"name\": \"qwen3_0.6b_short\", \"hf_model\": \"Qwen/Qwen3-0.6B\",\n"           \
    "\"engine_gguf\": \"Qwen3-0.6B-Q4_K_M.gguf\", \"prompts\": [\"Hello\", \"Once\"],\n"          \
    "\"threshold_l2_rel\": 0.05, \"threshold_cosine\": 0.90, \"n_layers\": 28},\n"                \
    "{\"name\": \"hybrid\", \"hf_model\": \"Qwen/Qwen3-Next-80B-A3B-Thinking\",\n"                \
    "\"engine_gguf\": \"Qwen3.5-4B-Q4_K_M.gguf\", \"_note\": \"too big\", \"_disabled\": true,\n" \
    "\"prompts\": [\"Hello\"], \"dtype\": \"bfloat16\", \"n_layers\": 32}]}"
#define ONE_ENGINE "\"q\": {\"argv\": [\"e\", \"{dump}\", \"{prompt}\"], \"layout\": \"bin\"}"
#define TWO_ENGINES \
    ONE_ENGINE ", \"r\": {\"argv\": [\"e\", \"{dump}\", \"{prompt}\"], \"layout\": \"bin\"}"

static void entries_without_an_engine_take_the_only_one_or_the_matrixs(void **state)
{
    (void)state;
    struct rp_matrix *matrix = parse(FIELD("\"engines\": {" ONE_ENGINE "},\n"));
    assert_int_equal(rp_matrix_n_pairs(matrix), 3);
    assert_string_equal(rp_matrix_entry(matrix, 0)->engine->name, "q");
    assert_int_equal(rp_matrix_entry(matrix, 1)->disabled, 1);
    rp_matrix_free(matrix);
    matrix = parse(FIELD("\"engine\": \"r\", \"engines\": {" TWO_ENGINES "},\n"));
    assert_string_equal(rp_matrix_entry(matrix, 0)->engine->name, "r");
    rp_matrix_free(matrix);
}

static void entries_without_an_engine_where_none_is_meant_are_an_error(void **state)
{
    (void)state;
    expect_error(FIELD("\"engines\": {" TWO_ENGINES "},\n"), RP_ERR_MISSING, 3, 11,
                 "expected \"engine\" in an entry: one of \"engines\"; an \"engine\" beside "
                 "\"tests\" is that of all entries that name none");
    expect_error(FIELD("\"engine\": \"s\", \"engines\": {" TWO_ENGINES "},\n"), RP_ERR_FORMAT, 2,
                 11, "expected one of the matrix's engines, found \"s\"; there is: q, r");
    expect_error(FIELD("\"engines\": {},\n"), RP_ERR_MISSING, 3, 11,
                 "expected an engine in \"engines\", what there is to run: \"engines\": {\"NAME\": "
                 "{\"argv\": [\"{env:PROGRAM}\", \"{gguf}\", \"{prompt}\", \"{dump}\"], "
                 "\"layout\": \"bin\"}}");
    expect_error(FIELD(""), RP_ERR_MISSING, 1, 1,
                 "expected \"engines\" in a matrix, what there is to run: \"engines\": {\"NAME\": "
                 "{\"argv\": [\"{env:PROGRAM}\", \"{gguf}\", \"{prompt}\", \"{dump}\"], "
                 "\"layout\": \"bin\"}}");
}

static void an_engine_declares_that_it_dumps_no_tokens(void **state)
{
    (void)state;
    struct rp_matrix *matrix = parse(WITH_ENGINE("\"tokens\":false"));
    assert_int_equal(rp_matrix_engine(matrix, 0)->lacks_tokens, 1);
    assert_int_equal(rp_matrix_engine(matrix, 0)->uses_tokens_file, 1);
    rp_matrix_free(matrix);
    expect_error(WITH_ENGINE("\"tokens\":\"no\""), RP_ERR_FORMAT, 2, ENGINE_MORE + 9,
                 "expected true or false for \"tokens\", found a string");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(modes_are_compared_in_the_order_that_the_matrix_says),
        cmocka_unit_test(limits_of_modes_are_the_entrys_where_it_gives_none),
        cmocka_unit_test(a_comparison_of_what_are_no_two_modes_is_an_error),
        cmocka_unit_test(a_mode_that_is_named_like_a_comparison_is_an_error),
        cmocka_unit_test(accept_exit_is_a_code_or_a_signal_with_a_reason),
        cmocka_unit_test(entries_without_an_engine_take_the_only_one_or_the_matrixs),
        cmocka_unit_test(entries_without_an_engine_where_none_is_meant_are_an_error),
        cmocka_unit_test(an_engine_declares_that_it_dumps_no_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
