/* "known" of an entry: what it holds, and what is an error where it stands. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "matrix/matrix_test_util.h"

#define GGUF "\"engine_gguf\":\"m.gguf\","
#define REPLAYED GGUF "\"replay\":true,"
#define KNOWN(what) "\"known\":[{" what "}]"
#define COLUMN(before) (ENTRY_MORE + (int)(sizeof before - 1) + 9) /* of the first '{' */

static void a_known_divergence_has_what_the_matrix_says(void **state)
{
    (void)state;
    struct rp_matrix *matrix =
        parse(WITH_ENTRY(REPLAYED KNOWN("\"slot\":\"h*_attn\",\"name\":\"rope-theta\","
                                        "\"reason\":\"reads rope_theta\",\"issue\":\"#1\","
                                        "\"prompts\":[\"p0\"],\"_comment\":1")));
    const struct rp_entry *entry = rp_matrix_entry(matrix, 0);
    assert_int_equal(entry->n_known, 1);
    const struct rp_known *known = &entry->known[0];
    assert_string_equal(known->slot, "h*_attn");
    assert_string_equal(known->name, "rope-theta");
    assert_string_equal(known->reason, "reads rope_theta");
    assert_string_equal(known->issue, "#1");
    assert_int_equal(known->n_prompts, 1);
    assert_string_equal(known->prompts[0], "p0");
    assert_int_equal(known->n_modes, 0);
    assert_int_equal(known->line, 3);
    assert_int_equal(known->column, COLUMN(REPLAYED));
    rp_matrix_free(matrix);
}

static void an_entry_that_says_nothing_has_none(void **state)
{
    (void)state;
    struct rp_matrix *matrix = parse(MATRIX(ENGINE, ENTRY));
    assert_int_equal(rp_matrix_entry(matrix, 0)->n_known, 0);
    rp_matrix_free(matrix);
}

static void a_reason_and_a_slot_have_to_be_there(void **state)
{
    (void)state;
    expect_error(WITH_ENTRY(KNOWN("\"slot\":\"h0\"")), RP_ERR_MISSING, 3, COLUMN(""),
                 "expected \"reason\" in a known divergence: what the engine does otherwise; it is "
                 "shown wherever it is met");
    expect_error(WITH_ENTRY(KNOWN("\"reason\":\"r\"")), RP_ERR_MISSING, 3, COLUMN(""),
                 "expected \"slot\" in a known divergence: the slot that diverges, or a pattern of "
                 "several, \"h*_attn\"");
}

static void a_pattern_that_fits_no_slot_of_the_model_is_an_error(void **state)
{
    (void)state;
    expect_error(WITH_ENTRY(KNOWN("\"slot\":\"h00_attn\",\"reason\":\"r\"")), RP_ERR_FORMAT, 3,
                 COLUMN("") + 8,
                 "expected a slot, or a pattern of slots, of a model with 4 layers (emb, h0 to h3 "
                 "and their parts, as h0_attn, without leading zeros; post_norm, logits), found "
                 "\"h00_attn\"");
    expect_error(WITH_ENTRY(KNOWN("\"slot\":\"h4\",\"reason\":\"r\"")), RP_ERR_FORMAT, 3,
                 COLUMN("") + 8,
                 "expected a slot, or a pattern of slots, of a model with 4 layers (emb, h0 to h3 "
                 "and their parts, as h0_attn, without leading zeros; post_norm, logits), found "
                 "\"h4\"");
}

static void an_unknown_name_is_an_error_that_proposes_the_nearest(void **state)
{
    (void)state;
    expect_error(WITH_ENTRY(REPLAYED KNOWN("\"slot\":\"h0\",\"reason\":\"r\","
                                           "\"name\":\"rope-teta\"")),
                 RP_ERR_FORMAT, 3, COLUMN(REPLAYED) + 33,
                 "expected the name of an explanation, found \"rope-teta\"; did you mean "
                 "\"rope-theta\"?");
}

static void a_name_without_replay_is_an_error(void **state)
{
    (void)state;
    expect_error(
        WITH_ENTRY(GGUF KNOWN("\"slot\":\"h0\",\"reason\":\"r\","
                              "\"name\":\"rope-theta\"")),
        RP_ERR_FORMAT, 3, COLUMN(GGUF) + 33,
        "expected \"replay\" in an entry with a known divergence that has a \"name\", in a "
        "mode that shows it: replay alone gives names");
}

static void prompts_are_the_entrys_own(void **state)
{
    (void)state;
    expect_error(WITH_ENTRY(KNOWN("\"slot\":\"h0\",\"reason\":\"r\",\"prompts\":[\"p1\"]")),
                 RP_ERR_FORMAT, 3, COLUMN("") + 37,
                 "expected one of the entry's prompts, by its id, in \"prompts\", found \"p1\"; "
                 "there is: p0");
}

#define MODES_ENGINE "\"argv\":[\"e\",\"{mode}\",\"{dump}\",\"{tokens_file}\"],\"layout\":\"npy\""
#define MODES "\"modes\":[\"x:1\",\"y\"],\"compare_modes\":[[\"x:1\",\"y\"]],"

static void modes_are_the_entrys_and_comparisons_as_tests_are_called(void **state)
{
    (void)state;
    struct rp_matrix *matrix = parse(
        MATRIX(MODES_ENGINE, ENTRY "," MODES KNOWN("\"slot\":\"h0\",\"reason\":\"r\",\"modes\":"
                                                   "[\"y\",\"x-1-vs-y\"]")));
    const struct rp_known *known = rp_matrix_entry(matrix, 0)->known;
    assert_int_equal(known->n_modes, 2);
    assert_string_equal(known->modes[0], "y");
    assert_string_equal(known->modes[1], "x-1-vs-y");
    rp_matrix_free(matrix);
    expect_error(MATRIX(MODES_ENGINE, ENTRY "," MODES KNOWN("\"slot\":\"h0\",\"reason\":\"r\","
                                                            "\"modes\":[\"z\"]")),
                 RP_ERR_FORMAT, 3, COLUMN(MODES) + 35,
                 "expected one of the entry's modes, or comparisons of modes, in \"modes\", found "
                 "\"z\"; there is: x:1, y, x-1-vs-y");
}

static void a_name_of_a_mode_that_is_not_replayed_is_an_error(void **state)
{
    (void)state;
#define OF_Y GGUF "\"replay\":[\"y\"]," MODES
#define NAMED "\"slot\":\"h0\",\"reason\":\"r\",\"name\":\"rope-theta\",\"modes\":"
    rp_matrix_free(parse(MATRIX(MODES_ENGINE, ENTRY "," OF_Y KNOWN(NAMED "[\"x:1\",\"y\"]"))));
    expect_error(
        MATRIX(MODES_ENGINE, ENTRY "," OF_Y KNOWN(NAMED "[\"x:1\",\"x-1-vs-y\"]")), RP_ERR_FORMAT,
        3, COLUMN(OF_Y) + 33,
        "expected \"replay\" in an entry with a known divergence that has a \"name\", in a "
        "mode that shows it: replay alone gives names");
}

static void unknown_keys_and_values_of_another_type_are_errors(void **state)
{
    (void)state;
    expect_error(WITH_ENTRY(KNOWN("\"slots\":\"h0\",\"reason\":\"r\"")), RP_ERR_FORMAT, 3,
                 COLUMN("") + 1,
                 "expected a key of a known divergence, found \"slots\"; did you mean \"slot\"?");
    expect_error(WITH_ENTRY("\"known\":{}"), RP_ERR_FORMAT, 3, ENTRY_MORE + 8,
                 "expected an array for \"known\", found an object");
    expect_error(WITH_ENTRY("\"known\":[]"), RP_ERR_FORMAT, 3, ENTRY_MORE + 8,
                 "expected 1 to 256 elements in \"known\", found 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_known_divergence_has_what_the_matrix_says),
        cmocka_unit_test(an_entry_that_says_nothing_has_none),
        cmocka_unit_test(a_reason_and_a_slot_have_to_be_there),
        cmocka_unit_test(a_pattern_that_fits_no_slot_of_the_model_is_an_error),
        cmocka_unit_test(an_unknown_name_is_an_error_that_proposes_the_nearest),
        cmocka_unit_test(a_name_without_replay_is_an_error),
        cmocka_unit_test(prompts_are_the_entrys_own),
        cmocka_unit_test(modes_are_the_entrys_and_comparisons_as_tests_are_called),
        cmocka_unit_test(a_name_of_a_mode_that_is_not_replayed_is_an_error),
        cmocka_unit_test(unknown_keys_and_values_of_another_type_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
