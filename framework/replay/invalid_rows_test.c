/* Rows that are not finite, and files that cannot be read: they fail by themselves, and what needs them is
 * left out. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "replay/engine_dump_test_util.h"

static bool keeps_layers(const char *slot, int64_t position)
{
    int layer;
    (void)position;
    return rp_slot_level_has(RP_SLOTS_LAYERS, rp_slot_parse(slot, &layer));
}

/* ---- rows that are not finite ---- */

static void spoil_with_nan(const char *slot, int64_t position, float *row, size_t dim)
{
    if (strcmp(slot, "h1") == 0 && position == 4)
        row[dim / 2] = NAN;
}

static void nan_fails_where_it_appears_and_is_not_blamed_on_what_follows(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {.model = "llama", .spoils = spoil_with_nan};
    struct rp_replay_layer layer;
    rp_test_replay_layer(&of, 1, &layer);
    const struct rp_replay_slot *slot = rp_test_slot(&layer, "h1");
    assert_int_equal(slot->verdict, RP_FAIL);
    assert_int_equal(slot->n_failing, 1);
    assert_int_equal(slot->positions[slot->first], 4);
    assert_int_equal(slot->worst_channel, 32);
    assert_true(isnan(slot->introduced[slot->first]));
    assert_non_null(strstr(slot->message, "1 NaN"));
    rp_replay_layer_free(&layer);
}

static bool keeps_layers_but_h2_in(const char *slot, int64_t position)
{
    return strcmp(slot, "h2_in") != 0 && keeps_layers(slot, position);
}

static void attention_is_replayed_up_to_an_input_that_is_not_finite(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {
        .model = "llama", .spoils = spoil_with_nan, .keeps = keeps_layers_but_h2_in};
    struct rp_replay_layer layer;
    rp_test_replay_layer(&of, 2, &layer);
    const struct rp_replay_slot *slot = rp_test_slot(&layer, "h2_postattn");
    assert_int_equal(layer.verdict, RP_SKIP); /* no error was found, and not all was looked at */
    assert_int_equal(slot->verdict, RP_PASS);
    assert_int_equal(slot->n_positions, 4);
    assert_non_null(strstr(slot->message, "20 positions left out: the engine's input at position 4 "
                                          "is not finite"));
    assert_int_equal(rp_test_slot(&layer, "h2_preffn")->n_positions, 24);
    rp_replay_layer_free(&layer);
}

static const char *spoilt_slot;

static void spoil_with_infinity(const char *slot, int64_t position, float *row, size_t dim)
{
    if (strcmp(slot, spoilt_slot) == 0 && position == 4)
        row[dim / 2] = INFINITY;
}

/* K of all positions up to a row's, but Q of that row alone. */
static void what_reads_a_row_that_is_not_finite_is_left_out(void **state)
{
    (void)state;
    static const struct {
        const char *slot, *message;
        size_t n_compared;
    } cases[] = {{"h1_krope", "20 positions left out: an input is not finite", 4},
                 {"h1_qrope", "1 position left out: an input is not finite", 23}};
    for (size_t k = 0; k < 2; k++) {
        const struct rp_test_dump_of of = {.model = "llama", .spoils = spoil_with_infinity};
        struct rp_replay_layer layer;
        spoilt_slot = cases[k].slot;
        rp_test_replay_layer(&of, 1, &layer);
        const struct rp_replay_slot *failing = rp_test_slot(&layer, spoilt_slot);
        const struct rp_replay_slot *slot = rp_test_slot(&layer, "h1_attn");
        assert_ptr_equal(layer.first_failing, failing);
        assert_int_equal(failing->n_failing, 1);
        assert_non_null(strstr(failing->message, "0 NaN and 1 infinite values at position 4"));
        assert_int_equal(slot->verdict, RP_PASS);
        assert_int_equal(slot->n_positions, cases[k].n_compared);
        assert_non_null(strstr(slot->message, cases[k].message));
        for (size_t i = 0; i < layer.n_slots; i++)
            assert_true(layer.slots[i].verdict == RP_PASS || &layer.slots[i] == failing);
        rp_replay_layer_free(&layer);
    }
}

/* ---- a file that cannot be read ---- */

static void cut_h1_gate(const char *folder)
{
    char path[512];
    snprintf(path, sizeof path, "%s/h1_gate.npy", folder);
    assert_int_equal(truncate(path, 200), 0);
}

static void a_slot_that_cannot_be_read_is_an_error_of_its_own(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {.model = "llama", .damages = cut_h1_gate};
    struct rp_replay_layer layer;
    rp_test_replay_layer(&of, 1, &layer);
    const struct rp_replay_slot *broken = rp_test_slot(&layer, "h1_gate");
    const struct rp_replay_slot *act = rp_test_slot(&layer, "h1_act");
    assert_int_equal(layer.verdict, RP_ERROR);
    assert_null(layer.first_failing);
    assert_int_equal(broken->verdict, RP_ERROR);
    assert_int_equal(broken->n_positions, 0);
    assert_non_null(strstr(broken->message, "h1_gate"));
    assert_int_equal(act->verdict, RP_PASS);
    assert_string_equal(act->from, "h1_preffn, h1_up");
    for (size_t i = 0; i < layer.n_slots; i++)
        assert_true(layer.slots[i].verdict == RP_PASS || &layer.slots[i] == broken);
    rp_replay_layer_free(&layer);
}

/* ---- rows of zeros ---- */

/* The tiny model with ffn_down of layer 1 zeroed, as expanded models have it. */
static void write_zeroed_model(char folder[256], char path[300])
{
    struct rp_gguf *gguf;
    struct rp_error err;
    char *bytes;
    size_t size;
    snprintf(path, 300, "%s/fixtures/tiny/llama/llama-bf16.gguf", RP_SOURCE_DIR);
    assert_int_equal(rp_file_read(path, 64 << 20, &bytes, &size, &err), RP_OK);
    assert_int_equal(rp_gguf_open(path, &gguf, &err), RP_OK);
    const struct rp_gguf_tensor *tensor = rp_gguf_find_tensor(gguf, "blk.1.ffn_down.weight");
    assert_non_null(tensor);
    memset(bytes + tensor->offset, 0, tensor->n_rows * tensor->row_bytes);
    rp_gguf_close(gguf);
    rp_test_make_folder(folder);
    rp_test_write_file(folder, "zero.gguf", bytes, size);
    snprintf(path, 300, "%s/zero.gguf", folder);
    free(bytes);
}

static void spoil_a_zero(const char *slot, int64_t position, float *row, size_t dim)
{
    if (strcmp(slot, "h1_ffnout") == 0 && position == 3)
        row[dim / 2] = 1e-30f;
}

/* The twin: a value where nothing is computed is an infinite error. */
static void exact_zeros_pass_and_anything_else_in_their_place_fails(void **state)
{
    (void)state;
    char folder[256], path[300];
    write_zeroed_model(folder, path);
    for (int run = 0; run < 3; run++) {
        struct rp_replay_layer layer;
        const struct rp_test_dump_of of = {.model = "llama",
                                           .path = path,
                                           .keeps = run == 1 ? keeps_layers : NULL,
                                           .spoils = run == 2 ? spoil_a_zero : NULL};
        rp_test_replay_layer(&of, 1, &layer);
        const struct rp_replay_slot *slot = rp_test_slot(&layer, "h1_ffnout");
        assert_int_equal(layer.verdict, run == 2 ? RP_FAIL : RP_PASS);
        assert_int_equal(slot->n_positions, 24);
        assert_int_equal(slot->n_failing, run == 2 ? 1 : 0);
        for (size_t i = 0; i < slot->n_positions; i++)
            assert_true(isfinite(slot->limit[i]) && (i == 3 || slot->introduced[i] == 0));
        rp_replay_layer_free(&layer);
    }
    rp_remove_tree(folder, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_zeros_pass_and_anything_else_in_their_place_fails),
        cmocka_unit_test(nan_fails_where_it_appears_and_is_not_blamed_on_what_follows),
        cmocka_unit_test(attention_is_replayed_up_to_an_input_that_is_not_finite),
        cmocka_unit_test(what_reads_a_row_that_is_not_finite_is_left_out),
        cmocka_unit_test(a_slot_that_cannot_be_read_is_an_error_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
