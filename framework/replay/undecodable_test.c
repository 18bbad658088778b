/* Weights of a type that cannot be decoded: what reads them is left out by name, and all else is replayed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "refparity/gguf.h"
#include "replay/engine_dump_test_util.h"

#define TYPE_I8 24     /* known, not decoded */
#define TYPE_NEXT 1000 /* not known */

/* In the header at bytes: name, number of dimensions, two dimensions, type. */
static void set_type(char *bytes, size_t size, const char *name, uint32_t type)
{
    const size_t length = strlen(name);
    size_t at = 0;
    while (at + length < size && memcmp(bytes + at, name, length) != 0)
        at++;
    assert_true(at + length + 24 < size);
    at += length + 4 + 16;
    for (size_t i = 0; i < 4; i++)
        bytes[at + i] = (char)(type >> 8 * i & 0xff);
}

struct patched {
    char folder[256], path[300];
    struct rp_test_replayed replayed;
    struct rp_model *model; /* of the patched file */
    struct rp_replay *replay;
};

/* The dump of the tiny Llama, and the same file in which one tensor is of another type. */
static void patched_open(struct patched *patched, const char *name, uint32_t type)
{
    const struct rp_test_dump_of of = {.model = "llama"};
    char *bytes;
    size_t size;
    assert_int_equal(rp_file_read(RP_SOURCE_DIR "/fixtures/tiny/llama/llama-bf16.gguf", 64 << 20,
                                  &bytes, &size, NULL),
                     RP_OK);
    set_type(bytes, size, name, type);
    rp_test_make_folder(patched->folder);
    rp_test_write_file(patched->folder, "m.gguf", bytes, size);
    free(bytes);
    snprintf(patched->path, sizeof patched->path, "%s/m.gguf", patched->folder);
    rp_test_replayed_open(&patched->replayed, &of);
    assert_int_equal(rp_model_open(patched->path, &patched->model, NULL), RP_OK);
    assert_int_equal(rp_replay_open(patched->model, patched->replayed.dump,
                                    rp_replay_options(patched->replayed.replay), &patched->replay,
                                    NULL),
                     RP_OK);
}

static void patched_close(struct patched *patched)
{
    rp_replay_close(patched->replay);
    rp_model_close(patched->model);
    rp_test_replayed_close(&patched->replayed);
    assert_int_equal(rp_remove_tree(patched->folder, NULL), RP_OK);
}

static void only_what_reads_the_weight_is_left_out(void **state)
{
    (void)state;
    static const struct {
        uint32_t type;
        const char *message;
    } types[] = {{TYPE_I8, "weights of type I8 cannot be decoded (blk.1.ffn_up.weight)"},
                 {TYPE_NEXT, "weights of type unknown cannot be decoded (blk.1.ffn_up.weight)"}};
    for (size_t k = 0; k < 2; k++) {
        struct patched patched;
        struct rp_replay_layer layer;
        patched_open(&patched, "blk.1.ffn_up.weight", types[k].type);
        assert_int_equal(rp_replay_run_layer(patched.replay, 1, &layer, NULL), RP_OK);
        assert_int_equal(layer.verdict,
                         RP_SKIP); /* no error was found, and not all was looked at */
        for (size_t i = 0; i < layer.n_slots; i++) {
            const struct rp_replay_slot *slot = &layer.slots[i];
            const bool reads_it = strcmp(slot->slot, "h1_up") == 0;
            assert_int_equal(slot->verdict, reads_it ? RP_SKIP : RP_PASS);
            if (reads_it && !strstr(slot->message, types[k].message))
                fail_msg("%s", slot->message);
        }
        rp_replay_layer_free(&layer);
        assert_int_equal(rp_replay_run_layer(patched.replay, 0, &layer, NULL), RP_OK);
        assert_int_equal(layer.verdict, RP_PASS); /* the other layers do not read it */
        rp_replay_layer_free(&layer);
        patched_close(&patched);
    }
}

static void embeddings_that_cannot_be_decoded_are_left_out(void **state)
{
    (void)state;
    struct patched patched;
    struct rp_replay_layer part;
    patched_open(&patched, "token_embd.weight", TYPE_I8);
    assert_int_equal(rp_replay_run_part(patched.replay, RP_PART_EMB, &part, NULL), RP_OK);
    assert_int_equal(part.slots[0].verdict, RP_SKIP);
    assert_non_null(
        strstr(part.slots[0].message, "weights of type I8 cannot be decoded (token_embd.weight)"));
    rp_replay_layer_free(&part);
    assert_int_equal(rp_replay_run_part(patched.replay, RP_PART_POST_NORM, &part, NULL), RP_OK);
    assert_int_equal(part.verdict, RP_PASS);
    rp_replay_layer_free(&part);
    patched_close(&patched);
}

static void a_run_of_the_whole_model_says_which_weight_it_is(void **state)
{
    (void)state;
    static const int32_t tokens[] = {1, 2, 3};
    const struct rp_run run = {.tokens = tokens, .n_tokens = 3};
    struct patched patched;
    struct rp_error err = {.code = RP_OK};
    patched_open(&patched, "blk.1.ffn_up.weight", TYPE_I8);
    assert_int_equal(rp_model_run(patched.model, &run, &err), RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message,
                        "tensor 'blk.1.ffn_up.weight': weights of type I8 (24) cannot be decoded");
    patched_close(&patched);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_reads_the_weight_is_left_out),
        cmocka_unit_test(embeddings_that_cannot_be_decoded_are_left_out),
        cmocka_unit_test(a_run_of_the_whole_model_says_which_weight_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
