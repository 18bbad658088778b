/* Damaged dumps are errors in replay too, without a reference; an engine that leaves a layer out, and goes
 * on from that, fails. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "explain/damaged_dump.h"
#include "replay/engine_dump_test_util.h"

static void copy_file(const char *folder, const char *from, const char *to)
{
    char path[512], *bytes;
    size_t length;
    snprintf(path, sizeof path, "%s/%s.npy", folder, from);
    assert_int_equal(rp_file_read(path, 1 << 24, &bytes, &length, NULL), RP_OK);
    snprintf(path, sizeof path, "%s/%s.npy", folder, to);
    assert_int_equal(rp_file_write_atomic(path, bytes, length, NULL), RP_OK);
    free(bytes);
}

/* Row i of slot becomes what row number source(i, n) was. */
static void move_rows(const char *folder, const char *slot, size_t n_rows,
                      size_t (*source)(size_t i, size_t n))
{
    char path[512], *bytes;
    size_t length;
    snprintf(path, sizeof path, "%s/%s.npy", folder, slot);
    assert_int_equal(rp_file_read(path, 1 << 24, &bytes, &length, NULL), RP_OK);
    const size_t data = 10 + (unsigned char)bytes[8] + 256U * (unsigned char)bytes[9];
    const size_t size = (length - data) / n_rows;
    char *moved = malloc(length);
    assert_non_null(moved);
    memcpy(moved, bytes, length);
    for (size_t i = 0; i < n_rows; i++)
        memcpy(moved + data + i * size, bytes + data + source(i, n_rows) * size, size);
    assert_int_equal(rp_file_write_atomic(path, moved, length, NULL), RP_OK);
    free(moved);
    free(bytes);
}

enum { N = 24 };

static size_t reversed(size_t i, size_t n)
{
    return n - 1 - i;
}

static size_t shifted(size_t i, size_t n)
{
    return (i + n - 1) % n;
}

static size_t twice(size_t i, size_t n)
{
    (void)n;
    return i / 2;
}

static size_t (*source)(size_t i, size_t n);

static void move_h1(const char *folder)
{
    move_rows(folder, "h1", N, source);
}

static void move_q_of_layer_2(const char *folder)
{
    move_rows(folder, "h2_qrope", N, source);
}

static void one_buffer(const char *folder)
{
    copy_file(folder, "h3", "h0");
    copy_file(folder, "h3", "h1");
    copy_file(folder, "h3", "h2");
}

static void stale_h1(const char *folder)
{
    copy_file(folder, "h0", "h1");
}

static void normed_h3(const char *folder)
{
    copy_file(folder, "post_norm", "h3");
}

static void act_of_another_layer(const char *folder)
{
    copy_file(folder, "h2_act", "h1_act");
}

static bool keeps_layers(const char *slot, int64_t position)
{
    int layer;
    (void)position;
    return rp_slot_level_has(RP_SLOTS_LAYERS, rp_slot_parse(slot, &layer));
}

static bool keeps_required(const char *slot, int64_t position)
{
    (void)position;
    return rp_slot_is_required(slot);
}

struct found {
    struct rp_replay *replay;
    size_t n_damaged, n_bugs;
    char text[512];
};

static void look(void *context, const struct rp_replay_layer *layer)
{
    struct found *found = context;
    for (size_t i = 0; i < layer->n_slots; i++) {
        char text[512];
        if (layer->slots[i].verdict != RP_FAIL)
            continue;
        assert_int_equal(rp_replay_find_damage(found->replay, layer, &layer->slots[i], text, NULL),
                         RP_OK);
        if (text[0] && found->n_damaged++ == 0)
            memcpy(found->text, text, sizeof text);
        found->n_bugs += !text[0];
    }
}

static struct found find(const struct rp_test_dump_of *of)
{
    struct rp_test_replayed replayed;
    struct found found = {.n_damaged = 0};
    rp_test_replayed_open(&replayed, of);
    found.replay = replayed.replay;
    rp_test_replay_each(&replayed, look, &found);
    rp_test_replayed_close(&replayed);
    return found;
}

/* With every level of slots. */
static void assert_damaged(const char *model, void (*damages)(const char *), const char *part)
{
    bool (*const levels[])(const char *, int64_t) = {NULL, keeps_layers, keeps_required};
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        const struct rp_test_dump_of of = {.model = model, .damages = damages, .keeps = levels[i]};
        const struct found found = find(&of);
        if (found.n_damaged == 0 || found.n_bugs > 0 || !strstr(found.text, part))
            fail_msg("%s, slots %zu: %zu damaged, %zu bugs: %s", model, i, found.n_damaged,
                     found.n_bugs, found.text);
    }
}

static void rows_at_other_positions_are_damage(void **state)
{
    (void)state;
    source = reversed;
    assert_damaged("qwen3", move_h1, "h1: the dump is damaged: ");
    source = shifted;
    assert_damaged("llama", move_h1, "h1: the dump is damaged: ");
    source = twice;
    assert_damaged("qwen35", move_h1, "h1: the dump is damaged: ");
}

static void so_they_are_within_a_layer(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {.model = "qwen3", .damages = move_q_of_layer_2};
    source = reversed;
    const struct found found = find(&of);
    assert_true(found.n_damaged > 0);
    assert_int_equal(found.n_bugs, 0);
}

static void one_buffer_under_all_names_is_damage(void **state)
{
    (void)state;
    assert_damaged("qwen3", one_buffer, "h0 and h1 hold the same bytes");
    assert_damaged("llama", one_buffer, "h0 and h1 hold the same bytes");
}

static void the_file_of_another_slot_is_damage(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {.model = "qwen3", .damages = act_of_another_layer};
    assert_damaged("qwen3", stale_h1, "h1 and h0 hold the same bytes");
    assert_damaged("llama", normed_h3, "h3 and post_norm hold the same bytes");
    const struct found found = find(&of);
    assert_non_null(strstr(found.text, "h1_act and h2_act hold the same bytes"));
    assert_int_equal(found.n_bugs, 0);
}

static void swap_files(const char *folder, const char *a, const char *b)
{
    copy_file(folder, a, "kept");
    copy_file(folder, b, a);
    copy_file(folder, "kept", b);
    char path[512];
    snprintf(path, sizeof path, "%s/kept.npy", folder);
    assert_int_equal(rp_remove_tree(path, NULL), RP_OK);
}

static void swap_h0_and_h2(const char *folder)
{
    swap_files(folder, "h0", "h2");
}

static void swap_neighbours(const char *folder)
{
    swap_files(folder, "h1", "h2");
}

static void swap_with_the_last(const char *folder)
{
    swap_files(folder, "h1", "h3");
}

static void swapped_layers_are_damage(void **state)
{
    (void)state;
    static const char *const models[] = {"qwen3", "llama", "qwen35"};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        assert_damaged(models[i], swap_h0_and_h2, "h0 and h2 are swapped");
        assert_damaged(models[i], swap_with_the_last, "are swapped: each holds");
        assert_damaged(models[i], swap_neighbours, "swapped");
    }
}

static float entering[N][512];

/* Layer 2 adds nothing, and the engine goes on from that. */
static void leave_layer_out(const char *slot, int64_t position, float *row, size_t dim)
{
    if (strcmp(slot, "h2_in") == 0)
        memcpy(entering[position], row, dim * sizeof *row);
    if (strcmp(slot, "h2") == 0)
        memcpy(row, entering[position], dim * sizeof *row);
}

static void twice_as_long(const char *slot, int64_t position, float *row, size_t dim)
{
    (void)position;
    for (size_t i = 0; i < dim && strcmp(slot, "h2_ffnout") == 0; i++)
        row[i] *= 2;
}

static void bugs_of_the_engine_are_no_damage(void **state)
{
    (void)state;
    void (*const bugs[])(const char *, int64_t, float *, size_t) = {leave_layer_out, twice_as_long};
    for (size_t i = 0; i < 2; i++) {
        const struct rp_test_dump_of of = {
            .model = "qwen3", .errs = bugs[i], .keeps = i == 0 ? keeps_required : NULL};
        const struct found found = find(&of);
        assert_int_equal(found.n_damaged, 0);
        assert_true(found.n_bugs > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_at_other_positions_are_damage),
        cmocka_unit_test(so_they_are_within_a_layer),
        cmocka_unit_test(one_buffer_under_all_names_is_damage),
        cmocka_unit_test(the_file_of_another_slot_is_damage),
        cmocka_unit_test(swapped_layers_are_damage),
        cmocka_unit_test(bugs_of_the_engine_are_no_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
