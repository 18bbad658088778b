/* Every error in an entry, with its place. See refparity/matrix.h. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "matrix/matrix_test_util.h"

static void an_entry_without_what_it_needs_is_an_error(void **state)
{
    (void)state;
    expect_error(MATRIX(ENGINE, ""), RP_ERR_MISSING, 3, 1,
                 "expected \"name\" in an entry: tests are named after it");
    expect_error(MATRIX(ENGINE, "\"name\":\"a\""), RP_ERR_MISSING, 3, 1,
                 "expected \"hf_model\" in an entry: the reference model, organisation/name or a "
                 "folder of checkpoints");
    expect_error(
        MATRIX(ENGINE, "\"name\":\"a\",\"hf_model\":\"m\""), RP_ERR_MISSING, 3, 1,
        "expected \"n_layers\" in an entry: how many layers the model has, num_hidden_layers in "
        "its config.json (of a GGUF, `refparity show` prints it as block_count)");
    expect_error(
        MATRIX(ENGINE, "\"name\":\"a\",\"hf_model\":\"m\",\"n_layers\":4,\"engine\":\"e\""),
        RP_ERR_MISSING, 3, 1, "expected \"prompts\" in an entry: an array of texts");
    expect_error(MATRIX(ENGINE ",\"env\":{\"M\":\"{gguf}\"}", ENTRY), RP_ERR_MISSING, 3, 1,
                 "expected \"engine_gguf\" in an entry: engine \"e\" uses {gguf}");
    expect_error(MATRIX(ENGINE ",\"env\":{\"M\":\"{mode}\"}", ENTRY), RP_ERR_MISSING, 3, 1,
                 "expected \"modes\" in an entry: engine \"e\" uses {mode}");
}

static void an_unknown_key_is_an_error_at_its_place(void **state)
{
    (void)state;
    expect_error(WITH_ENTRY("\"treshold_l2_rel\":1"), RP_ERR_FORMAT, 3, ENTRY_MORE,
                 "expected a key of an entry, found \"treshold_l2_rel\"; did you mean "
                 "\"threshold_l2_rel\"?");
    expect_error(WITH_ENTRY("\n \"x\\ny\":1"), RP_ERR_FORMAT, 4, 2,
                 "expected a key of an entry, found \"x\\x0Ay\"; there is: name, hf_model, "
                 "revision, n_layers, engine, modes, engine_gguf, prompts, threshold_l2_rel, "
                 "threshold_cosine, dtype, positions, _disabled, compare_modes, "
                 "threshold_modes_l2_rel, accept_exit, gate, replay, activations, kv_cache, "
                 "attention, _note, _comment, slots, how_to_get, state, reference, slurm, "
                 "known");
}

static void names_that_could_not_name_a_test_are_an_error(void **state)
{
    (void)state;
    static const char *const names[] = {"a b", "a/b",   "..",       ".a",  "-a",
                                        "_a",  "a_",    "a__b",     "a:b", "a;b",
                                        "a$b", "a\\nb", "\xC3\xA9", "a%s", "a\\u0009"};
    static const char *const shown[] = {"a b", "a/b",     "..",       ".a",  "-a",
                                        "_a",  "a_",      "a__b",     "a:b", "a;b",
                                        "a$b", "a\\x0Ab", "\xC3\xA9", "a%s", "a\\x09"};
    char text[512];
    char message[512];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(text, sizeof text,
                 MATRIX(ENGINE, "\"name\":\"%s\",\"hf_model\":\"m\",\"n_layers\":4,"
                                "\"engine\":\"e\",\"prompts\":[]"),
                 names[i]);
        snprintf(message, sizeof message,
                 "expected for the name of an entry at most 64 of A-Z a-z 0-9 . _ -, first a "
                 "letter or digit, \"_\" neither last nor doubled, found \"%s\"",
                 shown[i]);
        expect_error(text, RP_ERR_FORMAT, 3, 9, message);
    }
    char name[RP_MATRIX_NAME_MAX + 2];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    snprintf(text, sizeof text,
             MATRIX(ENGINE, "\"name\":\"%s\",\"hf_model\":\"m\","
                            "\"n_layers\":4,\"engine\":\"e\","
                            "\"prompts\":[\"x\"]"),
             name);
    snprintf(message, sizeof message,
             "expected for the name of an entry at most 64 of A-Z a-z 0-9 . _ -, first a letter or "
             "digit, \"_\" neither last nor doubled, found \"%s\"",
             name);
    expect_error(text, RP_ERR_FORMAT, 3, 9, message);
    name[RP_MATRIX_NAME_MAX] = '\0';
    snprintf(text, sizeof text,
             MATRIX(ENGINE, "\"name\":\"%s\",\"hf_model\":\"m\","
                            "\"n_layers\":4,\"engine\":\"e\","
                            "\"prompts\":[\"x\"]"),
             name);
    rp_matrix_free(parse(text));
}

static void a_name_that_is_no_text_is_an_error(void **state)
{
    (void)state;
    expect_error(MATRIX(ENGINE, "\"name\":7,\"hf_model\":\"m\",\"n_layers\":4,\"engine\":\"e\","
                                "\"prompts\":[]"),
                 RP_ERR_FORMAT, 3, 9, "expected a string for \"name\", found a number");
    expect_error(MATRIX(ENGINE, "\"name\":\"\",\"hf_model\":\"m\",\"n_layers\":4,\"engine\":\"e\","
                                "\"prompts\":[]"),
                 RP_ERR_FORMAT, 3, 9, "expected a string for \"name\", found an empty one");
}

static void two_entries_of_one_name_are_an_error(void **state)
{
    (void)state;
    expect_error(MATRIX(ENGINE, ENTRY "},\n{\"_note\":\"n\"," ENTRY), RP_ERR_FORMAT, 4, 21,
                 "expected each entry's name once, found \"a\" again");
}

static void a_reference_that_names_no_model_is_an_error(void **state)
{
    (void)state;
    static const char *const models[] = {"..",   "../m", "o/../m", "/o/m",
                                         "o//m", "o/",   "./m",    "o/."};
    char text[512];
    char message[512];
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        snprintf(text, sizeof text,
                 MATRIX(ENGINE, "\"name\":\"a\",\"hf_model\":\"%s\",\"n_layers\":4,"
                                "\"engine\":\"e\",\"prompts\":[]"),
                 models[i]);
        snprintf(message, sizeof message, "expected a model as organisation/name, found \"%s\"",
                 models[i]);
        expect_error(text, RP_ERR_FORMAT, 3, 24, message);
    }
    expect_error(WITH_ENTRY("\"revision\":\"..\""), RP_ERR_FORMAT, 3, 1,
                 "revision cannot be \"..\"");
    expect_error(WITH_ENTRY("\"dtype\":\"float23\""), RP_ERR_FORMAT, 3, ENTRY_MORE + 8,
                 "expected a \"dtype\", found \"float23\"; did you mean \"float32\"? there is: "
                 "float32, float64, bfloat16, float16");
    expect_error(WITH_ENTRY("\"dtype\":\"int8\""), RP_ERR_FORMAT, 3, ENTRY_MORE + 8,
                 "expected a \"dtype\", found \"int8\"; there is: float32, float64, bfloat16, "
                 "float16");
}

static void n_layers_is_a_whole_number_from_1_to_1024(void **state)
{
    (void)state;
    static const char *const values[] = {"0", "1025", "-1", "4.5", "\"4\"", "null", "[4]"};
    static const char *const shown[] = {"0", "1025", "-1", "4.5", "\"4\"", "null", "an array"};
    char text[512];
    char message[512];
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        snprintf(text, sizeof text,
                 MATRIX(ENGINE, "\"name\":\"a\",\"hf_model\":\"m\",\"n_layers\":%s,"
                                "\"engine\":\"e\",\"prompts\":[]"),
                 values[i]);
        snprintf(message, sizeof message,
                 "expected a whole number from 1 to 1024 for \"n_layers\", found %s", shown[i]);
        expect_error(text, RP_ERR_FORMAT, 3, 39, message);
    }
}

static void an_engine_that_there_is_not_is_an_error(void **state)
{
    (void)state;
    expect_error(MATRIX(ENGINE, "\"name\":\"a\",\"hf_model\":\"m\",\"n_layers\":4,"
                                "\"engine\":\"embeded\",\"prompts\":[]"),
                 RP_ERR_FORMAT, 3, 50,
                 "expected one of the matrix's engines, found \"embeded\"; there is: e");
    expect_error("{\"engines\":{},\"tests\":[\n{" ENTRY "}]}", RP_ERR_FORMAT, 2, 52,
                 "expected one of the matrix's engines, found \"e\"; there is none");
}

#define MODAL ENGINE ",\"env\":{\"M\":\"{mode}\"}"

static void modes_are_checked(void **state)
{
    (void)state;
    expect_error(WITH_ENTRY("\"modes\":[\"batched\"]"), RP_ERR_FORMAT, 3, ENTRY_MORE + 8,
                 "expected no \"modes\": engine \"e\" uses {mode} nowhere, so all would run the "
                 "same");
    expect_error(MATRIX(MODAL, ENTRY ",\"modes\":[]"), RP_ERR_FORMAT, 3, ENTRY_MORE + 8,
                 "expected 1 to 64 elements in \"modes\", found 0");
    expect_error(MATRIX(MODAL, ENTRY ",\"modes\":[1]"), RP_ERR_FORMAT, 3, ENTRY_MORE + 9,
                 "expected strings in \"modes\", found a number");
    expect_error(MATRIX(MODAL, ENTRY ",\"modes\":[\"a/b\"]"), RP_ERR_FORMAT, 3, ENTRY_MORE + 9,
                 "expected for a mode at most 64 of A-Z a-z 0-9 . _ - :, first a letter or digit, "
                 "\"_\" neither last nor doubled, found \"a/b\"");
    expect_error(MATRIX(MODAL, ENTRY ",\"modes\":[\"a\",\"b\",\"a\"]"), RP_ERR_FORMAT, 3,
                 ENTRY_MORE + 17, "expected each mode once, found \"a\" again");
    expect_error(MATRIX(MODAL, ENTRY ",\"modes\":[\"b-32\",\"b:32\"]"), RP_ERR_FORMAT, 3,
                 ENTRY_MORE + 16,
                 "expected each mode once, found \"b:32\" again (in names, \":\" becomes \"-\")");
}

static void limits_are_checked(void **state)
{
    (void)state;
    expect_error(WITH_ENTRY("\"threshold_l2_rel\":0"), RP_ERR_FORMAT, 3, ENTRY_MORE + 19,
                 "expected a limit above 0 for \"threshold_l2_rel\", found 0");
    expect_error(WITH_ENTRY("\"threshold_l2_rel\":-0.5"), RP_ERR_FORMAT, 3, ENTRY_MORE + 19,
                 "expected a limit above 0 for \"threshold_l2_rel\", found -0.5");
    expect_error(WITH_ENTRY("\"threshold_l2_rel\":\"5%\""), RP_ERR_FORMAT, 3, ENTRY_MORE + 19,
                 "expected a limit above 0 for \"threshold_l2_rel\", found \"5%\"");
    expect_error(WITH_ENTRY("\"threshold_l2_rel\":{\"h3\":1,\"h4\":1}"), RP_ERR_FORMAT, 3,
                 ENTRY_MORE + 27,
                 "expected \"default\" or a slot of a model with 4 layers (emb, h0 to h3 and their "
                 "parts, post_norm), found \"h4\"");
    expect_error(WITH_ENTRY("\"threshold_l2_rel\":{\"h03\":1}"), RP_ERR_FORMAT, 3, ENTRY_MORE + 20,
                 "expected \"default\" or a slot of a model with 4 layers (emb, h0 to h3 and their "
                 "parts, post_norm), found \"h03\"");
    expect_error(WITH_ENTRY("\"threshold_l2_rel\":{\"logits\":1}"), RP_ERR_FORMAT, 3,
                 ENTRY_MORE + 20,
                 "expected no limit for logits here: \"threshold_cosine\" is theirs");
    expect_error(WITH_ENTRY("\"threshold_l2_rel\":{\"default\":0}"), RP_ERR_FORMAT, 3,
                 ENTRY_MORE + 30, "expected a limit above 0 for \"threshold_l2_rel\", found 0");
    expect_error(WITH_ENTRY("\"threshold_cosine\":-1"), RP_ERR_FORMAT, 3, ENTRY_MORE + 19,
                 "expected a limit above -1, at most 1, for \"threshold_cosine\", found -1");
    expect_error(WITH_ENTRY("\"threshold_cosine\":1.5"), RP_ERR_FORMAT, 3, ENTRY_MORE + 19,
                 "expected a limit above -1, at most 1, for \"threshold_cosine\", found 1.5");
    rp_matrix_free(parse(WITH_ENTRY("\"threshold_cosine\":1,\"threshold_l2_rel\":{}")));
}

#define SINGLE \
    "\"argv\":[\"e\",\"{dump}\",\"{prompt}\"],\"layout\":\"bin\",\"single_position\":true"

static void positions_are_checked(void **state)
{
    (void)state;
    expect_error(WITH_ENTRY("\"positions\":\"last\""), RP_ERR_FORMAT, 3, ENTRY_MORE + 12,
                 "expected \"all\" or an array for \"positions\", found \"last\"");
    expect_error(WITH_ENTRY("\"positions\":0"), RP_ERR_FORMAT, 3, ENTRY_MORE + 12,
                 "expected \"all\" or an array for \"positions\", found 0");
    expect_error(WITH_ENTRY("\"positions\":[]"), RP_ERR_FORMAT, 3, ENTRY_MORE + 12,
                 "expected 1 to 65536 elements in \"positions\", found 0");
    expect_error(WITH_ENTRY("\"positions\":[-1]"), RP_ERR_FORMAT, 3, ENTRY_MORE + 13,
                 "expected ascending whole numbers in \"positions\", here at least 0, found -1");
    expect_error(WITH_ENTRY("\"positions\":[0,5,5]"), RP_ERR_FORMAT, 3, ENTRY_MORE + 17,
                 "expected ascending whole numbers in \"positions\", here at least 6, found 5");
    expect_error(WITH_ENTRY("\"positions\":[0,\"1\"]"), RP_ERR_FORMAT, 3, ENTRY_MORE + 15,
                 "expected ascending whole numbers in \"positions\", here at least 1, found "
                 "\"1\"");
    expect_error(MATRIX(SINGLE, ENTRY), RP_ERR_MISSING, 3, 1,
                 "expected \"positions\" with the one position that engine \"e\" dumps: it is "
                 "declared single_position");
    expect_error(MATRIX(SINGLE, ENTRY ",\"positions\":[0,1]"), RP_ERR_FORMAT, 3, ENTRY_MORE + 12,
                 "expected \"positions\" with the one position that engine \"e\" dumps: it is "
                 "declared single_position");
    rp_matrix_free(parse(MATRIX(SINGLE, ENTRY ",\"positions\":[0]")));
}

static void remarks_are_checked(void **state)
{
    (void)state;
    expect_error(WITH_ENTRY("\"_disabled\":\"\""), RP_ERR_FORMAT, 3, ENTRY_MORE + 12,
                 "expected true, false or a reason for \"_disabled\", found an empty string");
    expect_error(WITH_ENTRY("\"_disabled\":0"), RP_ERR_FORMAT, 3, ENTRY_MORE + 12,
                 "expected true, false or a reason for \"_disabled\", found a number");
    expect_error(WITH_ENTRY("\"_note\":[]"), RP_ERR_FORMAT, 3, ENTRY_MORE + 8,
                 "expected a string for \"_note\", found an array");
    expect_error(WITH_ENTRY("\"engine_gguf\":7"), RP_ERR_FORMAT, 3, ENTRY_MORE + 14,
                 "expected a string for \"engine_gguf\", found a number");
    expect_error(WITH_ENTRY("\"how_to_get\":1"), RP_ERR_FORMAT, 3, ENTRY_MORE + 13,
                 "expected a string for \"how_to_get\", found a number");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_entry_without_what_it_needs_is_an_error),
        cmocka_unit_test(an_unknown_key_is_an_error_at_its_place),
        cmocka_unit_test(names_that_could_not_name_a_test_are_an_error),
        cmocka_unit_test(a_name_that_is_no_text_is_an_error),
        cmocka_unit_test(two_entries_of_one_name_are_an_error),
        cmocka_unit_test(a_reference_that_names_no_model_is_an_error),
        cmocka_unit_test(n_layers_is_a_whole_number_from_1_to_1024),
        cmocka_unit_test(an_engine_that_there_is_not_is_an_error),
        cmocka_unit_test(modes_are_checked),
        cmocka_unit_test(limits_are_checked),
        cmocka_unit_test(positions_are_checked),
        cmocka_unit_test(remarks_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
