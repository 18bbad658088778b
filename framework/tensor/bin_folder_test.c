/* A tensor set in a folder of raw .bin files, as engines in the field write them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "refparity/tensor_set.h"

static const float row_a[] = {1, 2, 3}, row_b[] = {4, 5, 6};
static char folder[256];

static int make_folder(void **state)
{
    (void)state;
    rp_test_make_folder(folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    return rp_remove_tree(folder, NULL) == RP_OK ? 0 : -1;
}

static void write_row(const char *name, const float *row)
{
    rp_test_write_file(folder, name, row, 3 * sizeof *row);
}

static struct rp_tensor_set *open_set(int64_t single_position)
{
    struct rp_tensor_set *set;
    struct rp_error err;
    char text[2200];
    if (rp_tensor_set_open(folder, RP_LAYOUT_AUTO, single_position, &set, &err) != RP_OK)
        fail_msg("%s", rp_error_text(&err, text, sizeof text));
    assert_int_equal(rp_tensor_set_layout(set), RP_LAYOUT_BIN);
    return set;
}

static void assert_slot_refused(struct rp_tensor_set *set, const char *slot, enum rp_status code,
                                const char *where, const char *message)
{
    struct rp_tensor tensor;
    struct rp_error err;
    assert_int_equal(rp_tensor_load(set, slot, &tensor, &err), code);
    assert_string_equal(err.message, message);
    assert_string_equal(err.where + strlen(folder), where);
    assert_int_equal(rp_tensor_set_find(set, slot)->error.code, code);
}

static void plain_files_hold_the_position_that_the_caller_names(void **state)
{
    struct rp_tensor tensor;
    (void)state;
    write_row("emb.bin", row_a);
    write_row("h0_in.bin", row_b);
    rp_test_write_file(folder, "log.txt", "left over", 9);
    rp_test_write_file(folder, "bad name.bin", "x", 1);
    struct rp_tensor_set *set = open_set(4);
    assert_int_equal(rp_tensor_set_n_slots(set), 2);
    assert_string_equal(rp_tensor_set_slot(set, 1)->name, "h0_in");
    assert_int_equal(rp_tensor_load(set, "h0_in", &tensor, NULL), RP_OK);
    assert_int_equal(tensor.n_positions, 1);
    assert_int_equal(tensor.dim, 3);
    assert_int_equal(tensor.positions[0], 4);
    assert_memory_equal(tensor.data, row_b, sizeof row_b);
    rp_tensor_release(&tensor);
    assert_int_equal(rp_tensor_set_n_layers(set), -1);
    assert_int_equal(rp_tensor_set_n_layers_seen(set), 0);
    assert_true(rp_tensor_set_complete(set));
    rp_tensor_set_close(set);
}

static enum rp_status open_with(size_t n_rows, size_t width, size_t n_logits,
                                struct rp_tensor_set **set, struct rp_error *err)
{
    const struct rp_tensor_set_options options = {
        .single_position = -1, .n_rows = n_rows, .width = width, .n_logits = n_logits};
    return rp_tensor_set_open_with(folder, &options, set, err);
}

static void plain_files_hold_as_many_positions_as_hidden_states_fit_into_them(void **state)
{
    static const float rows[2][6] = {{1, 2, 3, 4, 5, 6}, {7, 8, 9, 10, 11, 12}};
    struct rp_tensor_set *set;
    struct rp_tensor tensor;
    (void)state;
    rp_test_write_file(folder, "emb.bin", rows[0], sizeof rows[0]);
    rp_test_write_file(folder, "h0.bin", rows[1], sizeof rows[1]);
    rp_test_write_file(folder, "h0_q.bin", rows, sizeof rows);
    rp_test_write_file(folder, "logits.bin", rows, 5 * sizeof(float));
    for (int way = 0; way < 2; way++) { /* by width, or as it is said */
        assert_int_equal(open_with(way ? 2 : 0, way ? 0 : 3, 5, &set, NULL), RP_OK);
        assert_int_equal(rp_tensor_load(set, "h0", &tensor, NULL), RP_OK);
        assert_int_equal(tensor.n_positions, 2);
        assert_int_equal(tensor.dim, 3);
        assert_int_equal(tensor.positions[1], 1);
        assert_memory_equal(tensor.data, rows[1], sizeof rows[1]);
        rp_tensor_release(&tensor);
        assert_int_equal(rp_tensor_set_find(set, "h0_q")->dim, 6);
        assert_int_equal(rp_tensor_set_find(set, "logits")->n_positions, 1);
        assert_int_equal(rp_tensor_set_find(set, "logits")->positions[0], 1);
        assert_string_equal(rp_tensor_set_note(set, 0),
                            way ? "each NAME.bin is read as 2 positions, as --rows says"
                                : "each NAME.bin is read as 2 positions, as many hidden states as "
                                  "fit into it (--rows 1: as one)");
        rp_tensor_set_close(set);
    }
    assert_int_equal(open_with(1, 3, 5, &set, NULL), RP_OK);
    assert_int_equal(rp_tensor_set_find(set, "h0")->dim, 6);
    rp_tensor_set_close(set);
}

static void a_file_of_another_number_of_positions_is_its_error(void **state)
{
    static const float rows[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    struct rp_tensor_set *set;
    (void)state;
    rp_test_write_file(folder, "emb.bin", rows, 6 * sizeof(float));
    rp_test_write_file(folder, "post_norm.bin", rows, 9 * sizeof(float));
    rp_test_write_file(folder, "h0_q.bin", rows, 7 * sizeof(float));
    assert_int_equal(open_with(0, 3, 0, &set, NULL), RP_OK);
    assert_slot_refused(set, "post_norm", RP_ERR_MISMATCH, "",
                        "post_norm.bin: expected 2 positions of 3 values, found 9 values");
    assert_slot_refused(set, "h0_q", RP_ERR_MISMATCH, "",
                        "h0_q.bin: expected the values of 2 positions, found 7, which is no "
                        "multiple");
    rp_tensor_set_close(set);
}

/* Or a file that was written twice would move all others to another position. */
static void files_that_do_not_agree_hold_one_position_each(void **state)
{
    static const float rows[6] = {1, 2, 3, 4, 5, 6};
    struct rp_tensor_set *set;
    (void)state;
    rp_test_write_file(folder, "emb.bin", rows, 3 * sizeof(float));
    rp_test_write_file(folder, "h0.bin", rows, 6 * sizeof(float));
    rp_test_write_file(folder, "h1.bin", rows, 3 * sizeof(float));
    assert_int_equal(open_with(0, 3, 0, &set, NULL), RP_OK);
    assert_int_equal(rp_tensor_set_n_notes(set), 0);
    assert_int_equal(rp_tensor_set_find(set, "emb")->positions[0], 0);
    assert_int_equal(rp_tensor_set_find(set, "h0")->dim, 6);
    rp_tensor_set_close(set);
}

static void numbered_files_are_gathered_by_position(void **state)
{
    struct rp_tensor tensor;
    (void)state;
    write_row("h3_in_p12.bin", row_b);
    write_row("h3_in_p9.bin", row_a);
    write_row("h3_p0.bin", row_a);
    write_row("logits_p123456789012345.bin", row_a);
    struct rp_tensor_set *set = open_set(0);
    assert_int_equal(rp_tensor_set_n_slots(set), 3);
    assert_int_equal(rp_tensor_set_n_layers_seen(set), 4);
    assert_int_equal(rp_tensor_load(set, "h3_in", &tensor, NULL), RP_OK);
    assert_int_equal(tensor.n_positions, 2);
    assert_int_equal(tensor.positions[0], 9);
    assert_int_equal(tensor.positions[1], 12);
    assert_memory_equal(tensor.data, row_a, sizeof row_a);
    assert_memory_equal((const char *)tensor.data + sizeof row_a, row_b, sizeof row_b);
    rp_tensor_release(&tensor);
    assert_true(rp_tensor_set_find(set, "logits")->positions[0] == 123456789012345);
    rp_tensor_set_close(set);
}

static void what_only_looks_like_a_position_is_a_name(void **state)
{
    static const char *const names[] = {"h3_p007", "h3_p", "h3_p1234567890123456", "x_p1_p02"};
    (void)state;
    write_row("h3_p007.bin", row_a);
    write_row("h3_p.bin", row_a);
    write_row("h3_p1234567890123456.bin", row_a);
    write_row("x_p1_p02.bin", row_a);
    write_row("_p3.bin", row_a);
    struct rp_tensor_set *set = open_set(0);
    assert_int_equal(rp_tensor_set_n_slots(set), 5);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_non_null(rp_tensor_set_find(set, names[i]));
    assert_non_null(rp_tensor_set_find(set, "_p3"));
    rp_tensor_set_close(set);
}

static void wrong_files_are_errors_of_their_slot(void **state)
{
    char path[512];
    (void)state;
    write_row("emb_p0.bin", row_a);
    write_row("h0.bin", row_a);
    write_row("h0_p0.bin", row_a);
    write_row("h1_p0.bin", row_a);
    rp_test_write_file(folder, "h1_p1.bin", row_b, 8);
    rp_test_write_file(folder, "h2_p0.bin", row_a, 11);
    rp_test_write_file(folder, "h3_p0.bin", row_a, 0);
    assert_int_equal(rp_path_join(path, sizeof path, folder, "h4.bin", NULL), RP_OK);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(rp_path_join(path, sizeof path, folder, "h5_p0.bin", NULL), RP_OK);
    assert_int_equal(symlink("h1_p0.bin", path), 0);
    struct rp_tensor_set *set = open_set(0);
    assert_int_equal(rp_tensor_set_find(set, "emb")->error.code, RP_OK);
    assert_slot_refused(set, "h5", RP_ERR_UNSUPPORTED, "/h5_p0.bin",
                        "expected a regular file, found a link, a FIFO or the like");
    assert_slot_refused(set, "h0", RP_ERR_MISMATCH, "/h0.bin",
                        "h0_p0.bin is there too: one of them is left over from another run");
    assert_slot_refused(set, "h1", RP_ERR_MISMATCH, "/h1_p1.bin",
                        "expected 12 bytes as in h1_p0.bin, found 8");
    assert_slot_refused(set, "h2", RP_ERR_FORMAT, "/h2_p0.bin",
                        "expected one or more float32 values of 4 bytes, found 11 bytes");
    assert_slot_refused(set, "h3", RP_ERR_FORMAT, "/h3_p0.bin",
                        "expected one or more float32 values of 4 bytes, found 0 bytes");
    assert_slot_refused(set, "h4", RP_ERR_UNSUPPORTED, "/h4.bin",
                        "expected a regular file, found a link, a FIFO or the like");
    rp_tensor_set_close(set);
}

static void a_file_that_changes_after_it_was_listed_is_an_error(void **state)
{
    struct rp_tensor tensor;
    struct rp_error err;
    char path[512];
    (void)state;
    write_row("emb_p0.bin", row_a);
    write_row("emb_p1.bin", row_a);
    struct rp_tensor_set *set = open_set(0);
    rp_test_write_file(folder, "emb_p1.bin", row_a, 8);
    assert_int_equal(rp_tensor_load(set, "emb", &tensor, &err), RP_ERR_MISMATCH);
    assert_string_equal(err.message, "the file has changed since it was listed");
    assert_int_equal(rp_path_join(path, sizeof path, folder, "emb_p1.bin", NULL), RP_OK);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rp_tensor_load(set, "emb", &tensor, &err), RP_ERR_IO);
    assert_string_equal(err.message, "cannot open: No such file or directory");
    assert_null(tensor.data);
    rp_tensor_release(&tensor);
    rp_tensor_set_close(set);
}

static void an_empty_folder_and_a_negative_position_are_refused(void **state)
{
    struct rp_tensor_set *set;
    struct rp_error err;
    (void)state;
    assert_int_equal(rp_tensor_set_open(folder, RP_LAYOUT_AUTO, 0, &set, &err), RP_ERR_MISSING);
    assert_string_equal(err.message,
                        "no slot is in it: expected a dump, NAME.npy as refparity/dump.h writes "
                        "them, or NAME.bin");
    assert_int_equal(rp_tensor_set_open(folder, RP_LAYOUT_BIN, -1, &set, &err), RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "expected a position of 0 or more, found -1");
}

static void tokens_come_one_a_line(void **state)
{
    static const char *const good[] = {"0\n17\n2147483647\n", "0\n17\n2147483647",
                                       "0\r\n17\r\n2147483647\r\n"};
    static const struct {
        const char *text;
        long long offset;
        const char *line;
    } bad[] = {{"1\n\n2\n", 2, "2"},
               {"1\n-2\n", 2, "2"},
               {"2147483648\n", 0, "1"},
               {"1 2\n", 0, "1"},
               {"99999999999999999999\n", 0, "1"}};
    const int64_t *ids;
    size_t n;
    (void)state;
    write_row("emb.bin", row_a);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        rp_test_write_file(folder, "tokens.txt", good[i], strlen(good[i]));
        struct rp_tensor_set *set = open_set(0);
        assert_int_equal(rp_tensor_set_tokens(set, &ids, &n, NULL), RP_OK);
        assert_int_equal(n, 3);
        assert_int_equal(ids[1], 17);
        assert_int_equal(ids[2], 2147483647);
        rp_tensor_set_close(set);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct rp_error err;
        rp_test_write_file(folder, "tokens.txt", bad[i].text, strlen(bad[i].text));
        struct rp_tensor_set *set = open_set(0);
        assert_int_equal(rp_tensor_set_tokens(set, &ids, &n, &err), RP_ERR_FORMAT);
        assert_memory_equal(err.message, "line ", 5);
        assert_memory_equal(err.message + 5, bad[i].line, 1);
        assert_string_equal(err.message + 6,
                            ": expected a token id of 0 to 2147483647 and nothing else");
        assert_int_equal(err.offset, bad[i].offset);
        rp_tensor_set_close(set);
    }
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(plain_files_hold_the_position_that_the_caller_names),
        IN_FOLDER(plain_files_hold_as_many_positions_as_hidden_states_fit_into_them),
        IN_FOLDER(a_file_of_another_number_of_positions_is_its_error),
        IN_FOLDER(files_that_do_not_agree_hold_one_position_each),
        IN_FOLDER(numbered_files_are_gathered_by_position),
        IN_FOLDER(what_only_looks_like_a_position_is_a_name),
        IN_FOLDER(wrong_files_are_errors_of_their_slot),
        IN_FOLDER(a_file_that_changes_after_it_was_listed_is_an_error),
        IN_FOLDER(an_empty_folder_and_a_negative_position_are_refused),
        IN_FOLDER(tokens_come_one_a_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
