/* What an engine computes in, and what decides on a quantized entry: values, defaults, and every error
 * with its place. See refparity/matrix.h. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "matrix/matrix_test_util.h"

#define GGUF "\"engine_gguf\":\"m.gguf\","

static const struct rp_entry *entry_of(const struct rp_matrix *matrix)
{
    return rp_matrix_entry(matrix, 0);
}

static void an_entry_that_says_nothing_is_strict_in_FP32_without_replay(void **state)
{
    (void)state;
    struct rp_matrix *matrix = parse(MATRIX(ENGINE, ENTRY));
    const struct rp_entry *entry = entry_of(matrix);
    assert_int_equal(entry->gate, RP_GATE_STRICT);
    assert_int_equal(entry->replay, 0);
    assert_int_equal(entry->numerics.activations, RP_ACTIVATIONS_F32);
    assert_int_equal(entry->numerics.kv_cache, RP_KV_CACHE_F32);
    assert_int_equal(entry->numerics.attention, RP_ATTENTION_PLAIN);
    assert_int_equal(entry->numerics.state, RP_STATE_F32);
    rp_matrix_free(matrix);
}

static void an_entrys_numerics_replace_those_of_its_engine_key_by_key(void **state)
{
    (void)state;
    struct rp_matrix *matrix = parse(
        MATRIX(ENGINE ",\"activations\":\"by_weight\",\"kv_cache\":\"f16\",\"attention\":\"flash\"",
               ENTRY ",\"kv_cache\":\"q8_0\""));
    const struct rp_engine *engine = rp_matrix_engine(matrix, 0);
    const struct rp_entry *entry = entry_of(matrix);
    assert_int_equal(engine->numerics.kv_cache, RP_KV_CACHE_F16);
    assert_int_equal(entry->numerics.activations, RP_ACTIVATIONS_BY_WEIGHT);
    assert_int_equal(entry->numerics.kv_cache, RP_KV_CACHE_Q8_0);
    assert_int_equal(entry->numerics.attention, RP_ATTENTION_FLASH);
    rp_matrix_free(matrix);
    matrix = parse(MATRIX(ENGINE ",\"state\":\"bf16\"", ENTRY));
    assert_int_equal(entry_of(matrix)->numerics.state, RP_STATE_BF16);
    rp_matrix_free(matrix);
    matrix = parse(MATRIX(ENGINE ",\"state\":\"bf16\"", ENTRY ",\"state\":\"f16\""));
    assert_int_equal(rp_matrix_engine(matrix, 0)->numerics.state, RP_STATE_BF16);
    assert_int_equal(entry_of(matrix)->numerics.state, RP_STATE_F16);
    rp_matrix_free(matrix);
}

static void the_gate_explained_replays_unless_told_otherwise(void **state)
{
    (void)state;
    struct rp_matrix *matrix = parse(WITH_ENTRY(GGUF "\"gate\":\"explained\""));
    assert_int_equal(entry_of(matrix)->gate, RP_GATE_EXPLAINED);
    assert_int_equal(entry_of(matrix)->replay, 1);
    rp_matrix_free(matrix);
    matrix = parse(WITH_ENTRY(GGUF "\"gate\":\"explained\",\"replay\":false"));
    assert_int_equal(entry_of(matrix)->gate, RP_GATE_EXPLAINED);
    assert_int_equal(entry_of(matrix)->replay, 0);
    rp_matrix_free(matrix);
    matrix = parse(WITH_ENTRY(GGUF "\"replay\":true"));
    assert_int_equal(entry_of(matrix)->gate, RP_GATE_STRICT);
    assert_int_equal(entry_of(matrix)->replay, 1);
    rp_matrix_free(matrix);
}

static void replay_may_be_of_some_modes_alone(void **state)
{
    (void)state;
    struct rp_matrix *matrix =
        parse(MATRIX(ENGINE ",\"env\":{\"M\":\"{mode}\"}",
                     ENTRY "," GGUF "\"modes\":[\"a\",\"b:2\"],\"compare_modes\":[[\"a\",\"b:2\"]],"
                           "\"replay\":[\"b:2\"]"));
    static const int replayed[] = {0, 1, 0}; /* a, b:2, a against b:2 */
    assert_int_equal(rp_matrix_n_pairs(matrix), 3);
    for (size_t i = 0; i < 3; i++) {
        struct rp_pair pair;
        rp_matrix_pair(matrix, i, &pair);
        assert_int_equal(rp_pair_is_replayed(&pair), replayed[i]);
    }
    rp_matrix_free(matrix);
    expect_error(
        MATRIX(ENGINE ",\"env\":{\"M\":\"{mode}\"}", ENTRY ",\"modes\":[\"a\"],\"replay\":[\"b\"]"),
        RP_ERR_FORMAT, 3, ENTRY_MORE + (int)sizeof("\"modes\":[\"a\"],\"replay\":[") - 1,
        "expected one of the entry's \"modes\" in \"replay\", found \"b\"; there is: a");
    expect_error(WITH_ENTRY("\"replay\":[]"), RP_ERR_FORMAT, 3, ENTRY_MORE + 9,
                 "expected 1 to 64 elements in \"replay\", found 0");
}

#define SLOTS ",\"env\":{\"S\":\"{slots}\",\"M\":\"{mode}\"}"
#define MODES "," GGUF "\"modes\":[\"a\",\"b\"]"

static void expect_slots(const char *text, enum rp_slot_level a, enum rp_slot_level b)
{
    struct rp_matrix *matrix = parse(text);
    const enum rp_slot_level expected[] = {a, b};
    for (size_t i = 0; i < 2; i++) {
        struct rp_pair pair;
        rp_matrix_pair(matrix, i, &pair);
        assert_int_equal(rp_pair_slots(&pair), expected[i]);
    }
    rp_matrix_free(matrix);
}

static void what_is_replayed_is_dumped_by_operations_and_all_else_by_layers(void **state)
{
    (void)state;
    const enum rp_slot_level layers = RP_SLOTS_LAYERS, operations = RP_SLOTS_OPERATIONS;
    expect_slots(MATRIX(ENGINE SLOTS, ENTRY MODES), layers, layers);
    expect_slots(MATRIX(ENGINE SLOTS, ENTRY MODES ",\"replay\":true"), operations, operations);
    expect_slots(MATRIX(ENGINE SLOTS, ENTRY MODES ",\"gate\":\"explained\""), operations,
                 operations);
    expect_slots(MATRIX(ENGINE SLOTS, ENTRY MODES ",\"replay\":[\"b\"]"), layers, operations);
    expect_slots(MATRIX(ENGINE SLOTS, ENTRY MODES ",\"gate\":\"explained\",\"replay\":false"),
                 layers, layers);
}

static void slots_are_the_entrys_else_its_engines_in_all_modes(void **state)
{
    (void)state;
    const enum rp_slot_level layers = RP_SLOTS_LAYERS, operations = RP_SLOTS_OPERATIONS;
    expect_slots(MATRIX(ENGINE SLOTS, ENTRY MODES ",\"slots\":\"operations\""), operations,
                 operations);
    expect_slots(MATRIX(ENGINE SLOTS, ENTRY MODES ",\"replay\":[\"b\"],\"slots\":\"layers\""),
                 layers, layers);
    expect_slots(MATRIX(ENGINE SLOTS ",\"slots\":\"operations\"", ENTRY MODES), operations,
                 operations);
    expect_slots(
        MATRIX(ENGINE SLOTS ",\"slots\":\"operations\"", ENTRY MODES ",\"slots\":\"layers\""),
        layers, layers);
}

static void slots_are_one_of_two_levels_of_an_engine_that_is_told(void **state)
{
    (void)state;
    expect_error(WITH_ENTRY("\"slots\":\"all\""), RP_ERR_FORMAT, 3, ENTRY_MORE + 8,
                 "expected a known \"slots\", found \"all\"; there is: layers, operations");
    expect_error(WITH_ENGINE("\"slots\":\"operation\""), RP_ERR_FORMAT, 2, ENGINE_MORE + 8,
                 "expected a known \"slots\", found \"operation\"; did you mean \"operations\"? "
                 "there is: layers, operations");
    expect_error(WITH_ENTRY("\"slots\":\"operations\""), RP_ERR_FORMAT, 3, ENTRY_MORE + 8,
                 "expected no \"slots\": engine \"e\" uses {slots} nowhere, so it would dump the "
                 "same");
    expect_error(WITH_ENGINE("\"slots\":\"layers\""), RP_ERR_FORMAT, 2, ENGINE_MORE + 8,
                 "expected no \"slots\": engine \"e\" uses {slots} nowhere, so it would dump the "
                 "same");
}

static void an_unknown_value_is_an_error_that_names_what_there_is(void **state)
{
    (void)state;
    expect_error(WITH_ENGINE("\"activations\":\"q8_1\""), RP_ERR_FORMAT, 2, ENGINE_MORE + 14,
                 "expected a known \"activations\", found \"q8_1\"; did you mean \"q8_0\"? there "
                 "is: f32, by_weight, f16, bf16, q8_0, q8_K");
    expect_error(WITH_ENTRY("\"kv_cache\":\"bf16\""), RP_ERR_FORMAT, 3, ENTRY_MORE + 11,
                 "expected a known \"kv_cache\", found \"bf16\"; did you mean \"f16\"? there is: "
                 "f32, f16, q8_0, q4_0");
    expect_error(WITH_ENTRY("\"state\":\"float16\""), RP_ERR_FORMAT, 3, ENTRY_MORE + 8,
                 "expected a known \"state\", found \"float16\"; there is: f32, bf16, f16");
    expect_error(WITH_ENTRY("\"attention\":\"ring\""), RP_ERR_FORMAT, 3, ENTRY_MORE + 12,
                 "expected a known \"attention\", found \"ring\"; there is: plain, flash");
    expect_error(WITH_ENTRY(GGUF "\"gate\":\"loose\""), RP_ERR_FORMAT, 3,
                 ENTRY_MORE + (int)sizeof GGUF - 1 + 7,
                 "expected a known \"gate\", found \"loose\"; there is: strict, explained");
    expect_error(WITH_ENTRY("\"gate\":1"), RP_ERR_FORMAT, 3, ENTRY_MORE + 7,
                 "expected a string for \"gate\", found a number");
    expect_error(WITH_ENTRY("\"replay\":\"yes\""), RP_ERR_FORMAT, 3, ENTRY_MORE + 9,
                 "expected true or false for \"replay\", found a string");
}

static void what_earlier_versions_knew_is_an_error_that_says_what_to_write(void **state)
{
    (void)state;
    expect_error(WITH_ENTRY(GGUF "\"gate\":\"exact\""), RP_ERR_FORMAT, 3,
                 ENTRY_MORE + (int)sizeof GGUF - 1 + 7,
                 "expected a known \"gate\", found \"exact\": write \"gate\": \"explained\", "
                 "\"replay\": true, which says more");
    expect_error(WITH_ENTRY("\"threshold_exact\":0.1"), RP_ERR_FORMAT, 3, ENTRY_MORE,
                 "expected a key of an entry, found \"threshold_exact\": leave it out, replay "
                 "derives its limits from the operations");
}

static void without_the_engines_weights_there_is_nothing_to_hold_it_against(void **state)
{
    (void)state;
    expect_error(WITH_ENTRY("\"gate\":\"explained\""), RP_ERR_FORMAT, 3, ENTRY_MORE + 7,
                 "expected \"engine_gguf\" in an entry with \"gate\": the engine's own weights are "
                 "what it is held against");
    expect_error(WITH_ENTRY("\"replay\":true"), RP_ERR_FORMAT, 3, ENTRY_MORE + 9,
                 "expected \"engine_gguf\" in an entry with \"replay\": the engine's own weights "
                 "are what it is held against");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_entry_that_says_nothing_is_strict_in_FP32_without_replay),
        cmocka_unit_test(an_entrys_numerics_replace_those_of_its_engine_key_by_key),
        cmocka_unit_test(the_gate_explained_replays_unless_told_otherwise),
        cmocka_unit_test(replay_may_be_of_some_modes_alone),
        cmocka_unit_test(what_is_replayed_is_dumped_by_operations_and_all_else_by_layers),
        cmocka_unit_test(slots_are_the_entrys_else_its_engines_in_all_modes),
        cmocka_unit_test(slots_are_one_of_two_levels_of_an_engine_that_is_told),
        cmocka_unit_test(an_unknown_value_is_an_error_that_names_what_there_is),
        cmocka_unit_test(what_earlier_versions_knew_is_an_error_that_says_what_to_write),
        cmocka_unit_test(without_the_engines_weights_there_is_nothing_to_hold_it_against),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
