/* Every error in an engine, with its place. See refparity/matrix.h. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "matrix/matrix_test_util.h"

static void an_engine_is_an_object_with_a_name_and_known_keys(void **state)
{
    (void)state;
    expect_error("{\"engines\":{\"a b\":{}},\"tests\":[]}", RP_ERR_FORMAT, 1, 19,
                 "expected for the name of an engine at most 64 of A-Z a-z 0-9 . _ -, first a "
                 "letter or digit, \"_\" neither last nor doubled, found \"a b\"");
    expect_error("{\"engines\":{\"a\":1},\"tests\":[]}", RP_ERR_FORMAT, 1, 17,
                 "expected an engine, an object, found a number");
    expect_error(WITH_ENGINE("\"timeout\":1"), RP_ERR_FORMAT, 2, ENGINE_MORE,
                 "expected a key of an engine, found \"timeout\"; did you mean \"timeout_s\"?");
}

static void an_engine_says_how_and_where_it_dumps(void **state)
{
    (void)state;
    expect_error(MATRIX("\"layout\":\"npy\"", ENTRY), RP_ERR_MISSING, 2, 5,
                 "expected \"argv\" in an engine: the program and its arguments");
    expect_error(MATRIX("\"argv\":[\"e\",\"{dump}\"]", ENTRY), RP_ERR_MISSING, 2, 5,
                 "expected \"layout\" in an engine: \"npy\", as refparity/dump.h writes, or "
                 "\"bin\", raw FP32 files");
    expect_error(MATRIX("\"argv\":[\"e\",\"{dump}\"],\"layout\":\"npz\"", ENTRY), RP_ERR_FORMAT, 2,
                 37,
                 "expected a \"layout\", found \"npz\"; did you mean \"npy\"? there is: npy, bin");
    expect_error(MATRIX("\"argv\":[\"e\"],\"layout\":\"npy\"", ENTRY), RP_ERR_FORMAT, 2, 5,
                 "expected {dump} in \"argv\" or \"env\": nothing tells the engine where to dump");
}

static void argv_is_a_list_of_well_formed_templates(void **state)
{
    (void)state;
    expect_error(MATRIX("\"argv\":[]", ENTRY), RP_ERR_FORMAT, 2, 13,
                 "expected 1 to 1024 elements in \"argv\", found 0");
    expect_error(MATRIX("\"argv\":\"e {dump}\"", ENTRY), RP_ERR_FORMAT, 2, 13,
                 "expected an array for \"argv\", found a string");
    expect_error(MATRIX("\"argv\":[\"e\",1]", ENTRY), RP_ERR_FORMAT, 2, 18,
                 "expected strings in \"argv\", found a number");
    expect_error(MATRIX("\"argv\":[\"\",\"{dump}\"]", ENTRY), RP_ERR_FORMAT, 2, 14,
                 "expected a program first in \"argv\", found an empty string");
    expect_error(MATRIX("\"argv\":[\"e\",\"{modle}\"]", ENTRY), RP_ERR_FORMAT, 2, 18,
                 "expected one of {gguf} {checkpoint} {prompt} {prompt_file} {tokens_file} {dump} "
                 "{mode} {positions} {slots} {threads} {matrix_dir} {env:NAME} {target:NAME}, or "
                 "{{ and }} for braces, "
                 "found placeholder \"modle\"");
}

static void env_maps_variables_to_well_formed_templates(void **state)
{
    (void)state;
    expect_error(WITH_ENGINE("\"env\":[]"), RP_ERR_FORMAT, 2, ENGINE_MORE + 6,
                 "expected an object for \"env\", found an array");
    expect_error(WITH_ENGINE("\"env\":{\"A\":\"1\",\"B-C\":\"1\"}"), RP_ERR_FORMAT, 2,
                 ENGINE_MORE + 15, "expected the name of an environment variable, found \"B-C\"");
    expect_error(WITH_ENGINE("\"env\":{\"A\":1}"), RP_ERR_FORMAT, 2, ENGINE_MORE + 11,
                 "expected strings in \"env\", found a number");
    expect_error(WITH_ENGINE("\"env\":{\"A\":\"}\"}"), RP_ERR_FORMAT, 2, ENGINE_MORE + 11,
                 "expected }} for a brace, found } alone");
}

static void timeout_processors_and_serial_are_within_bounds(void **state)
{
    (void)state;
    expect_error(WITH_ENGINE("\"timeout_s\":0"), RP_ERR_FORMAT, 2, ENGINE_MORE + 12,
                 "expected seconds above 0, at most 604800, for \"timeout_s\", found 0");
    expect_error(WITH_ENGINE("\"timeout_s\":\"60\""), RP_ERR_FORMAT, 2, ENGINE_MORE + 12,
                 "expected seconds above 0, at most 604800, for \"timeout_s\", found \"60\"");
    expect_error(WITH_ENGINE("\"processors\":1.5"), RP_ERR_FORMAT, 2, ENGINE_MORE + 13,
                 "expected a whole number from 1 to 1024 for \"processors\", found 1.5");
    expect_error(WITH_ENGINE("\"serial\":1"), RP_ERR_FORMAT, 2, ENGINE_MORE + 9,
                 "expected true or false for \"serial\", found a number");
    expect_error(WITH_ENGINE("\"_note\":7"), RP_ERR_FORMAT, 2, ENGINE_MORE + 8,
                 "expected a string for \"_note\", found a number");
}

static void single_position_is_for_bin_dumps(void **state)
{
    (void)state;
    expect_error(WITH_ENGINE("\"single_position\":true"), RP_ERR_FORMAT, 2, ENGINE_MORE + 18,
                 "expected \"single_position\" with layout \"bin\" only: an npy dump says itself "
                 "which positions it holds");
}

static void how_to_get_is_a_text(void **state)
{
    (void)state;
    expect_error(WITH_ENGINE("\"how_to_get\":[]"), RP_ERR_FORMAT, 2, ENGINE_MORE + 13,
                 "expected a string for \"how_to_get\", found an array");
    expect_error(WITH_ENGINE("\"how_to_get\":\"\""), RP_ERR_FORMAT, 2, ENGINE_MORE + 13,
                 "expected a string for \"how_to_get\", found an empty one");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_engine_is_an_object_with_a_name_and_known_keys),
        cmocka_unit_test(an_engine_says_how_and_where_it_dumps),
        cmocka_unit_test(argv_is_a_list_of_well_formed_templates),
        cmocka_unit_test(env_maps_variables_to_well_formed_templates),
        cmocka_unit_test(timeout_processors_and_serial_are_within_bounds),
        cmocka_unit_test(single_position_is_for_bin_dumps),
        cmocka_unit_test(how_to_get_is_a_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
