/* refparity replay, diff and show, the program: what was not shown is exit code 2, and what was replayed is printed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/process.h"
#include "replay/engine_dump_test_util.h"

/* Runs the program; output [size] is what it prints. */
static int run_tool(char *const argv[], const char *folder, char *output, size_t size)
{
    struct rp_process_result result;
    struct rp_error err;
    char log[512], *text = NULL;
    size_t n;
    snprintf(log, sizeof log, "%s/log", folder);
    const struct rp_process_spec spec = {.argv = argv, .log_path = log, .timeout_s = 60};
    if (rp_process_run(&spec, &result, &err) || rp_file_read(log, 1 << 20, &text, &n, &err))
        fail_msg("%s", err.message);
    snprintf(output, size, "%s", text ? text : "");
    free(text);
    return result.exit_code;
}

/* Writes the dump, lets change alter its folder (NULL: not), and replays it with that option (NULL: none)
 * and its value. output [size]. */
static int replay(const struct rp_test_dump_of *of, void (*change)(const char *folder),
                  const char *option, const char *value, char *output, size_t size)
{
    struct rp_test_replayed replayed;
    char model[512];
    rp_test_replayed_open(&replayed, of);
    if (change)
        change(replayed.folder);
    snprintf(model, sizeof model, "%s/fixtures/tiny/%s/%s-bf16.gguf", RP_SOURCE_DIR, of->model,
             of->model);
    char *argv[] = {(char *)RP_TOOL, (char *)"replay", model, replayed.folder,
                    (char *)option,  (char *)value,    NULL};
    const int code = run_tool(argv, replayed.folder, output, size);
    rp_test_replayed_close(&replayed);
    return code;
}

static void assert_exit(const struct rp_test_dump_of *of, void (*change)(const char *), int code,
                        const char *part)
{
    char output[16384];
    const int found = replay(of, change, NULL, NULL, output, sizeof output);
    if (found != code || !strstr(output, part))
        fail_msg("exit code %d, expected %d and \"%s\":\n%s", found, code, part, output);
}

static bool keeps_required(const char *slot, int64_t position)
{
    (void)position;
    return rp_slot_is_required(slot);
}

static bool keeps_two_layers(const char *slot, int64_t position)
{
    (void)position;
    return rp_slot_is_required(slot) && strcmp(slot, "h2") != 0 && strcmp(slot, "h3") != 0;
}

static bool keeps_position_0(const char *slot, int64_t position)
{
    return rp_slot_is_required(slot) && position == 0;
}

static bool keeps_half(const char *slot, int64_t position)
{
    return rp_slot_is_required(slot) && position < 12;
}

static bool keeps_h1(const char *slot, int64_t position)
{
    (void)position;
    return strcmp(slot, "h1") == 0;
}

/* As an engine leaves it that died before rp_dump_close. */
static void break_off(const char *folder)
{
    char path[512], *text, *complete;
    size_t n;
    snprintf(path, sizeof path, "%s/dump.json", folder);
    assert_int_equal(rp_file_read(path, 1 << 20, &text, &n, NULL), RP_OK);
    complete = strstr(text, "\"complete\": true");
    if (!complete)
        complete = strstr(text, "\"complete\":true");
    assert_non_null(complete);
    static const char broken_off[] = "\"complete\":false";
    for (size_t i = 0; broken_off[i]; i++)
        complete[i] = broken_off[i];
    assert_int_equal(rp_file_write_atomic(path, text, n, NULL), RP_OK);
    free(text);
}

static void one_buffer(const char *folder)
{
    char path[512], *bytes;
    size_t n;
    snprintf(path, sizeof path, "%s/h3.npy", folder);
    assert_int_equal(rp_file_read(path, 1 << 24, &bytes, &n, NULL), RP_OK);
    for (int l = 0; l < 3; l++) {
        snprintf(path, sizeof path, "%s/h%d.npy", folder, l);
        assert_int_equal(rp_file_write_atomic(path, bytes, n, NULL), RP_OK);
    }
    free(bytes);
}

/* h1's values under a name that nothing reads. */
static void misspell(const char *folder)
{
    char path[512], *bytes;
    size_t n;
    snprintf(path, sizeof path, "%s/h1.npy", folder);
    assert_int_equal(rp_file_read(path, 1 << 24, &bytes, &n, NULL), RP_OK);
    snprintf(path, sizeof path, "%s/h1_atnout.npy", folder);
    assert_int_equal(rp_file_write_atomic(path, bytes, n, NULL), RP_OK);
    free(bytes);
}

static void remove_from(const char *folder, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(unlink(path), 0);
}

static void remove_tokens(const char *folder)
{
    remove_from(folder, "tokens.npy");
}

static void remove_dump_json(const char *folder)
{
    remove_from(folder, "dump.json");
}

static void remove_h1(const char *folder)
{
    remove_from(folder, "h1.npy");
}

static void swap_h1_and_h3(const char *folder)
{
    char h1[512], h3[512], kept[512];
    snprintf(h1, sizeof h1, "%s/h1.npy", folder);
    snprintf(h3, sizeof h3, "%s/h3.npy", folder);
    snprintf(kept, sizeof kept, "%s/kept", folder);
    assert_int_equal(rename(h1, kept), 0);
    assert_int_equal(rename(h3, h1), 0);
    assert_int_equal(rename(kept, h3), 0);
}

static void a_whole_dump_passes(void **state)
{
    (void)state;
    const struct rp_test_dump_of all = {.model = "qwen3"},
                                 layers = {.model = "llama", .keeps = keeps_required};
    assert_exit(&all, NULL, 0, "no operation that was replayed introduces an error");
    assert_exit(&layers, NULL, 0, "7 slots replayed");
}

static void a_dump_that_is_not_whole_is_an_error(void **state)
{
    (void)state;
    const struct rp_test_dump_of layers = {.model = "qwen3", .keeps = keeps_required},
                                 two = {.model = "qwen3", .keeps = keeps_two_layers},
                                 first = {.model = "qwen3", .keeps = keeps_position_0},
                                 half = {.model = "qwen3", .keeps = keeps_half},
                                 h1 = {.model = "qwen3", .keeps = keeps_h1};
    assert_exit(&layers, break_off, 2, "its dump is not complete");
    assert_exit(&layers, break_off, 2, "7 slots replayed");
    assert_exit(&two, NULL, 2, "the dump has no h2, h3;");
    assert_exit(&first, NULL, 2, "emb has position 0 alone, where RoPE, mask and cache change");
    assert_exit(&half, NULL, 2, "emb has 12 of the prompt's 24 positions");
    assert_exit(&h1, NULL, 2, "nothing could be replayed");
}

static void a_damaged_dump_is_an_error_and_no_bug(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {.model = "qwen3", .keeps = keeps_required};
    assert_exit(&of, one_buffer, 2, "h0 and h1 hold the same bytes");
    assert_exit(&of, one_buffer, 2, "no error of the engine's was found, and the dump is damaged");
}

static void swapped_layers_are_an_error_and_no_bug(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {.model = "qwen3", .keeps = keeps_required};
    char output[16384];
    assert_int_equal(replay(&of, swap_h1_and_h3, NULL, NULL, output, sizeof output), 2);
    assert_non_null(strstr(output, "h1 and h3 are swapped"));
    assert_non_null(strstr(output, " ERROR   "));
    assert_null(strstr(output, " FAIL ")); /* not in the table either */
    assert_non_null(strstr(output, " 0 over the limit, 0 not replayed, 4 damaged"));
}

/* What Hugging Face's modules computed says itself what the engine computes in, and needs no model. */
static void expected_values_take_no_model_and_no_numerics(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {.model = "qwen3", .keeps = keeps_required};
    const char *fixture =
        RP_SOURCE_DIR "/fixtures/store/tiny--qwen3/main/float32/once-upon-a-time-e286222c.npz";
    struct rp_test_replayed replayed;
    char output[16384];
    rp_test_replayed_open(&replayed, &of);
    char *argv[] = {(char *)RP_TOOL, (char *)"replay",  (char *)"--expected", (char *)fixture,
                    replayed.folder, (char *)"--state", (char *)"bf16",       NULL};
    assert_int_equal(run_tool(argv, replayed.folder, output, sizeof output), 2);
    assert_non_null(strstr(output, "what the engine computes in is said by"));
    argv[5] = replayed.folder;
    argv[6] = NULL;
    assert_int_equal(run_tool(argv, replayed.folder, output, sizeof output), 2);
    assert_non_null(strstr(output, "expected DUMP alone beside --expected, found 2 arguments"));
    argv[5] = NULL;
    assert_int_equal(run_tool(argv, replayed.folder, output, sizeof output), 2);
    assert_non_null(strstr(output, "it is not what ci/record.sh --replay writes"));
    rp_test_replayed_close(&replayed);
}

static void an_architecture_that_is_not_computed_names_who_replays_it(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {.model = "qwen3", .keeps = keeps_required};
    struct rp_test_replayed replayed;
    char output[16384], config[512];
    rp_test_replayed_open(&replayed, &of);
    char *argv[] = {(char *)RP_TOOL, (char *)"replay", config, replayed.folder, NULL};
    static const char text[] = "{\"model_type\": \"olmo2\"}";
    snprintf(config, sizeof config, "%s/model", replayed.folder);
    assert_int_equal(rp_make_dirs(config, NULL), RP_OK);
    snprintf(config, sizeof config, "%s/model/config.json", replayed.folder);
    assert_int_equal(rp_file_write_atomic(config, text, sizeof text - 1, NULL), RP_OK);
    static const char none[] = "\2\0\0\0\0\0\0\0{}";
    snprintf(config, sizeof config, "%s/model/model.safetensors", replayed.folder);
    assert_int_equal(rp_file_write_atomic(config, none, sizeof none - 1, NULL), RP_OK);
    snprintf(config, sizeof config, "%s/model", replayed.folder);
    assert_int_equal(run_tool(argv, replayed.folder, output, sizeof output), 2);
    const char *error = strstr(output, "model_type olmo2; computed are");
    assert_non_null(error);
    assert_non_null(strstr(error, "\nrefparity: next: "));
    assert_non_null(strstr(error, "ci/record.sh --replay"));
    assert_non_null(strstr(error, "refparity diff reference.npz"));
    rp_test_replayed_close(&replayed);
}

/* Without the tokens nobody knows whether emb is right. */
static void a_dump_without_tokens_needs_them(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {.model = "qwen3", .keeps = keeps_required};
    struct rp_test_replayed replayed;
    const int64_t *ids;
    size_t n;
    char output[16384], model[512], file[512];
    assert_exit(&of, remove_tokens, 2, "not shown: emb, as the dump has no tokens");
    rp_test_replayed_open(&replayed, &of);
    assert_int_equal(rp_tensor_set_tokens(replayed.dump, &ids, &n, NULL), RP_OK);
    snprintf(file, sizeof file, "%s/ids.txt", replayed.folder);
    FILE *out = fopen(file, "w");
    assert_non_null(out);
    for (size_t i = 0; i < n; i++)
        fprintf(out, "%lld\n", (long long)ids[i]);
    assert_int_equal(fclose(out), 0);
    remove_tokens(replayed.folder);
    snprintf(model, sizeof model, "%s/fixtures/tiny/qwen3/qwen3-bf16.gguf", RP_SOURCE_DIR);
    char *argv[] = {
        (char *)RP_TOOL, (char *)"replay", (char *)"--tokens", file, model, replayed.folder, NULL};
    assert_int_equal(run_tool(argv, replayed.folder, output, sizeof output), 0);
    assert_non_null(strstr(output, "7 slots replayed"));
    rp_test_replayed_close(&replayed);
}

static void what_is_missing_is_said(void **state)
{
    (void)state;
    const struct rp_test_dump_of all = {.model = "qwen3"},
                                 layers = {.model = "qwen3", .keeps = keeps_required};
    assert_exit(&all, remove_h1, 2, "24 positions left out: h1 is not dumped");
    assert_exit(&layers, remove_dump_json, 0,
                "whether the engine finished its dump, which has no dump.json");
}

static void a_misspelt_slot_is_said(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {.model = "qwen3", .keeps = keeps_required};
    assert_exit(&of, misspell, 0, "not used: h1_atnout: no slot has that name");
}

static void write_nan(const char *folder)
{
    static const unsigned char nan_bits[4] = {0, 0, 0xc0, 0x7f};
    char path[512], *bytes;
    size_t n;
    snprintf(path, sizeof path, "%s/h1.npy", folder);
    assert_int_equal(rp_file_read(path, 1 << 24, &bytes, &n, NULL), RP_OK);
    memcpy(bytes + n - 4, nan_bits, 4);
    assert_int_equal(rp_file_write_atomic(path, bytes, n, NULL), RP_OK);
    free(bytes);
}

/* What follows from it cannot be replayed; that is no error of the dump. */
static void NaN_is_a_divergence(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {.model = "qwen3", .keeps = keeps_required};
    assert_exit(&of, write_nan, 1, "the first slot that introduces an error: h1");
}

static void a_state_that_the_dump_contradicts_is_an_error_before_anything_is_replayed(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {.model = "qwen3"};
    char output[16384];
    assert_int_equal(replay(&of, NULL, "--state", "bf16", output, sizeof output), 2);
    assert_non_null(strstr(output, "h0_preattn has values that are no BF16 numbers"));
    assert_null(strstr(output, "introduced"));
    assert_int_equal(replay(&of, NULL, "--state", "f32", output, sizeof output), 0);
}

static void diff_of_a_dump_that_was_broken_off_is_an_error(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {.model = "qwen3", .keeps = keeps_required};
    struct rp_test_replayed whole, cut;
    char output[16384];
    rp_test_replayed_open(&whole, &of);
    rp_test_replayed_open(&cut, &of);
    char *argv[] = {(char *)RP_TOOL, (char *)"diff", whole.folder, cut.folder, NULL};
    assert_int_equal(run_tool(argv, cut.folder, output, sizeof output), 0);
    break_off(cut.folder);
    assert_int_equal(run_tool(argv, cut.folder, output, sizeof output), 2);
    assert_non_null(strstr(output, "the dump is not complete"));
    rp_test_replayed_close(&cut);
    rp_test_replayed_close(&whole);
}

/* command FIRST SECOND says that the two are swapped, and nothing is run. */
static void assert_swapped(const char *command, const char *first, const char *second,
                           const char *folder)
{
    char output[16384];
    char *argv[] = {(char *)RP_TOOL, (char *)command, (char *)first, (char *)second, NULL};
    const int code = run_tool(argv, folder, output, sizeof output);
    if (code != 2 || !strstr(output, ": swapped?"))
        fail_msg("%s: exit code %d: %s", command, code, output);
}

static void swapped_arguments_are_told_so(void **state)
{
    (void)state;
    static const char gguf[] = RP_SOURCE_DIR "/fixtures/tiny/qwen3/qwen3-bf16.gguf",
                      checkpoint[] = RP_SOURCE_DIR "/fixtures/tiny/qwen3",
                      fixture[] = RP_SOURCE_DIR
                      "/fixtures/store/tiny--qwen3/main/float32/hello-185f8db3.npz";
    const struct rp_test_dump_of of = {.model = "qwen3", .keeps = keeps_required};
    struct rp_test_replayed replayed;
    char output[16384];
    rp_test_replayed_open(&replayed, &of);
    assert_swapped("replay", replayed.folder, gguf, replayed.folder);
    assert_swapped("replay", replayed.folder, checkpoint, replayed.folder);
    assert_swapped("replay", fixture, gguf, replayed.folder);
    assert_swapped("diff", replayed.folder, fixture, replayed.folder);
    assert_swapped("weights", checkpoint, gguf, replayed.folder);
    /* the right way round, and two that are no model */
    char *right[] = {(char *)RP_TOOL, (char *)"weights", (char *)gguf, (char *)checkpoint, NULL};
    assert_int_equal(run_tool(right, replayed.folder, output, sizeof output), 0);
    char *two_dumps[] = {(char *)RP_TOOL, (char *)"replay", replayed.folder, replayed.folder, NULL};
    assert_int_equal(run_tool(two_dumps, replayed.folder, output, sizeof output), 2);
    assert_null(strstr(output, "swapped"));
    rp_test_replayed_close(&replayed);
}

/* command FIRST SECOND is a usage error that says what was expected, and what is there. */
static void assert_wrong_kind(const char *command, const char *first, const char *second,
                              const char *folder, const char *message)
{
    char output[16384];
    char *argv[] = {(char *)RP_TOOL, (char *)command, (char *)first, (char *)second, NULL};
    const int code = run_tool(argv, folder, output, sizeof output);
    if (code != 2 || !strstr(output, message) || strstr(output, "swapped"))
        fail_msg("%s: exit code %d, expected \"%s\" in: %s", command, code, message, output);
}

static void an_argument_of_another_kind_is_told_so(void **state)
{
    (void)state;
    static const char gguf[] = RP_SOURCE_DIR "/fixtures/tiny/qwen3/qwen3-bf16.gguf",
                      checkpoint[] = RP_SOURCE_DIR "/fixtures/tiny/qwen3",
                      fixture[] = RP_SOURCE_DIR
                      "/fixtures/store/tiny--qwen3/main/float32/hello-185f8db3.npz";
    const struct rp_test_dump_of of = {.model = "qwen3", .keeps = keeps_required};
    struct rp_test_replayed replayed;
    rp_test_replayed_open(&replayed, &of);
    const char *dump = replayed.folder;
    assert_wrong_kind("diff", gguf, dump, dump,
                      "expected an npz, a safetensors file or a dump for REFERENCE, found ");
    assert_wrong_kind("diff", fixture, gguf, dump, "qwen3-bf16.gguf, a GGUF; see refparity diff");
    assert_wrong_kind("replay", fixture, dump, dump, "a checkpoint for MODEL, found ");
    assert_wrong_kind("replay", gguf, gguf, dump, "expected a dump or an npz for DUMP, found ");
    assert_wrong_kind("weights", fixture, checkpoint, dump, "expected a GGUF for GGUF, found ");
    assert_wrong_kind("weights", gguf, gguf, dump, "or a sketch, for CHECKPOINT, found ");
    assert_wrong_kind("weights", gguf, dump, dump, ", a dump; see refparity weights");
    assert_wrong_kind("diff", checkpoint, dump, dump, "no slot is in it: expected a dump");
    rp_test_replayed_close(&replayed);
}

/* Shows that path: exit code 0, and part in what is printed. */
static void assert_shown(const char *path, const char *folder, const char *part)
{
    char output[16384];
    char *argv[] = {(char *)RP_TOOL, (char *)"show", (char *)path, NULL};
    const int code = run_tool(argv, folder, output, sizeof output);
    if (code != 0 || !strstr(output, part))
        fail_msg("exit code %d, expected \"%s\" in: %s", code, part, output);
}

static void an_array_and_a_manifest_are_shown(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {.model = "qwen3", .keeps = keeps_required};
    struct rp_test_replayed replayed;
    char path[512], output[16384];
    rp_test_replayed_open(&replayed, &of);
    snprintf(path, sizeof path, "%s/h1.npy", replayed.folder);
    assert_shown(path, replayed.folder,
                 "npy, shape (24, 64), type \"<f4\"\n"
                 "  1536 of 1536 values are finite; the first: ");
    write_nan(replayed.folder);
    assert_shown(path, replayed.folder, "  1535 of 1536 values are finite");
    snprintf(path, sizeof path, "%s/tokens.npy", replayed.folder);
    assert_shown(path, replayed.folder, "shape (24,), type \"<i8\"\n  the first: ");
    assert_shown(replayed.folder, replayed.folder,
                 "\n  \"engine\": \"test\"\n  \"n_layers\": 4\n  \"complete\": true\n");
    /* what is cut short, or of another type, is an error, with its shape before it */
    assert_int_equal(truncate(path, 200), 0);
    char *argv[] = {(char *)RP_TOOL, (char *)"show", path, NULL};
    assert_int_equal(run_tool(argv, replayed.folder, output, sizeof output), 2);
    assert_non_null(strstr(output, "shape (24,)"));
    rp_test_replayed_close(&replayed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_dump_passes),
        cmocka_unit_test(a_dump_that_is_not_whole_is_an_error),
        cmocka_unit_test(a_damaged_dump_is_an_error_and_no_bug),
        cmocka_unit_test(swapped_layers_are_an_error_and_no_bug),
        cmocka_unit_test(expected_values_take_no_model_and_no_numerics),
        cmocka_unit_test(an_architecture_that_is_not_computed_names_who_replays_it),
        cmocka_unit_test(a_dump_without_tokens_needs_them),
        cmocka_unit_test(what_is_missing_is_said),
        cmocka_unit_test(a_misspelt_slot_is_said),
        cmocka_unit_test(NaN_is_a_divergence),
        cmocka_unit_test(a_state_that_the_dump_contradicts_is_an_error_before_anything_is_replayed),
        cmocka_unit_test(swapped_arguments_are_told_so),
        cmocka_unit_test(an_argument_of_another_kind_is_told_so),
        cmocka_unit_test(an_array_and_a_manifest_are_shown),
        cmocka_unit_test(diff_of_a_dump_that_was_broken_off_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
