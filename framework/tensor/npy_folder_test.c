/* A tensor set in a folder of .npy with dump.json: whole, abandoned, foreign and wrong ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "refparity/tensor_set.h"
#include "tensor/npz_writer_test_util.h"

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

static void write_rows(const char *name, size_t n_rows, size_t dim, float first)
{
    struct rp_test_bytes npy = {NULL, 0, 0};
    rp_test_npy_rows(&npy, n_rows, dim, first);
    rp_test_write_file(folder, name, npy.data, npy.n);
    rp_test_free(&npy);
}

static void write_json(const char *text)
{
    rp_test_write_file(folder, "dump.json", text, strlen(text));
}

/* dump.json with these positions. */
static void write_positions(const char *complete, const char *positions)
{
    char text[1024];
    snprintf(text, sizeof text,
             "{\"format\": \"refparity-dump\", \"version\": 1, \"engine\": \"e\", \"n_layers\": 1, "
             "\"complete\": %s,\n\"positions\": %s}",
             complete, positions);
    write_json(text);
}

static struct rp_tensor_set *open_set(void)
{
    struct rp_tensor_set *set;
    struct rp_error err;
    char text[2200];
    if (rp_tensor_set_open(folder, RP_LAYOUT_AUTO, 0, &set, &err) != RP_OK)
        fail_msg("%s", rp_error_text(&err, text, sizeof text));
    assert_int_equal(rp_tensor_set_layout(set), RP_LAYOUT_NPY);
    return set;
}

static void assert_refused(enum rp_status code, const char *where, const char *message)
{
    struct rp_tensor_set *set;
    struct rp_error err;
    assert_int_equal(rp_tensor_set_open(folder, RP_LAYOUT_AUTO, 0, &set, &err), code);
    assert_string_equal(err.message, message);
    assert_string_equal(err.where + strlen(folder), where);
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

static void assert_positions(struct rp_tensor_set *set, const char *slot, const int64_t *expected,
                             size_t n)
{
    struct rp_tensor tensor;
    assert_int_equal(rp_tensor_load(set, slot, &tensor, NULL), RP_OK);
    assert_int_equal(tensor.n_positions, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(tensor.positions[i], expected[i]);
    rp_tensor_release(&tensor);
}

static void jumps_place_the_rows(void **state)
{
    (void)state;
    write_rows("emb.npy", 5, 2, 1);
    write_rows("h0.npy", 5, 2, 1);
    write_rows("logits.npy", 1, 7, 1);
    write_positions("true", "{\"logits\": [[0, 9]], \"h0\": [[2, 4], [3, 7]], \"h9\": [[0, 1]]}");
    struct rp_tensor_set *set = open_set();
    assert_positions(set, "emb", (const int64_t[]){0, 1, 2, 3, 4}, 5);
    assert_positions(set, "h0", (const int64_t[]){0, 1, 4, 7, 8}, 5);
    assert_positions(set, "logits", (const int64_t[]){9}, 1);
    assert_true(rp_tensor_set_complete(set));
    assert_int_equal(rp_tensor_set_n_layers(set), 1);
    assert_int_equal(rp_tensor_set_n_layers_seen(set), 1);
    rp_tensor_set_close(set);
}

static void jumps_that_cannot_be_are_errors_of_their_slot(void **state)
{
    static const struct {
        const char *jumps;
        enum rp_status code;
        int column;
        const char *message;
    } cases[] = {
        {"7", RP_ERR_FORMAT, 21, "expected a list of [row, position]"},
        {"[7]", RP_ERR_FORMAT, 22, "expected [row, position]"},
        {"[[0, 1, 2]]", RP_ERR_FORMAT, 22, "expected [row, position]"},
        {"[[0, -1]]", RP_ERR_FORMAT, 22, "expected [row, position]"},
        {"[[0, 1.5]]", RP_ERR_FORMAT, 22, "expected [row, position]"},
        {"[[0, 1e300]]", RP_ERR_FORMAT, 22, "expected [row, position]"},
        {"[[0, \"1\"]]", RP_ERR_FORMAT, 22, "expected [row, position]"},
        {"[[3, 9]]", RP_ERR_MISMATCH, 22,
         "expected a row below 3, which is how many there are, found 3"},
        {"[[1, 4], [1, 6]]", RP_ERR_FORMAT, 30, "expected a row after 1, found 1"},
        {"[[1, 4], [0, 6]]", RP_ERR_FORMAT, 30, "expected a row after 1, found 0"},
        {"[[2, 1]]", RP_ERR_FORMAT, 22, "expected position 2 or a later one, found 1"},
        {"[[0, 5], [1, 5]]", RP_ERR_FORMAT, 30, "expected position 6 or a later one, found 5"},
    };
    (void)state;
    write_rows("emb.npy", 3, 2, 1);
    write_rows("h0.npy", 3, 2, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char positions[128], where[64];
        snprintf(positions, sizeof positions, "{\"h0\": %s}", cases[i].jumps);
        snprintf(where, sizeof where, "/dump.json:2:%d", cases[i].column);
        write_positions("true", positions);
        struct rp_tensor_set *set = open_set();
        assert_slot_refused(set, "h0", cases[i].code, where, cases[i].message);
        assert_positions(set, "emb", (const int64_t[]){0, 1, 2}, 3);
        rp_tensor_set_close(set);
    }
}

static void an_abandoned_dump_is_not_complete_but_readable(void **state)
{
    (void)state;
    write_rows("emb.npy", 3, 2, 1);
    write_positions("false", "{\"emb\": [[3, 9]]}"); /* died before it wrote position 9 */
    struct rp_tensor_set *set = open_set();
    assert_false(rp_tensor_set_complete(set));
    assert_positions(set, "emb", (const int64_t[]){0, 1, 2}, 3);
    rp_tensor_set_close(set);
}

static void a_dump_that_died_before_its_first_row_opens(void **state)
{
    size_t n;
    (void)state;
    write_positions("false", "{}");
    struct rp_tensor_set *set = open_set();
    assert_false(rp_tensor_set_complete(set));
    assert_int_equal(rp_tensor_set_n_slots(set), 0);
    assert_int_equal(rp_tensor_set_n_layers_seen(set), 0);
    assert_non_null(rp_tensor_set_manifest(set, &n));
    rp_tensor_set_close(set);
}

static void malformed_dump_json_is_an_error_of_the_set(void **state)
{
    static const struct {
        const char *text;
        enum rp_status code;
        const char *where, *message;
    } cases[] = {
        {"[1]", RP_ERR_FORMAT, "/dump.json:1:1", "expected an object"},
        {"{\"format\": \"x\"}", RP_ERR_FORMAT, "/dump.json:1:12",
         "expected \"format\": \"refparity-dump\""},
        {"{\"format\": \"refparity-dump\", \"version\": 2}", RP_ERR_UNSUPPORTED, "/dump.json:1:41",
         "expected \"version\": 1, found 2"},
        {"{\"format\": \"refparity-dump\", \"version\": 1}", RP_ERR_FORMAT, "/dump.json:1:1",
         "expected \"complete\": true or false"},
        {"{\"format\": \"refparity-dump\", \"version\": 1, \"complete\": 1}", RP_ERR_FORMAT,
         "/dump.json:1:56", "expected \"complete\": true or false"},
        {"{\"format\": \"refparity-dump\", \"version\": 1, \"complete\": true, \"positions\": []}",
         RP_ERR_FORMAT, "/dump.json:1:75", "positions: expected an object of slots"},
    };
    (void)state;
    write_rows("emb.npy", 3, 2, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_json(cases[i].text);
        assert_refused(cases[i].code, cases[i].where, cases[i].message);
    }
}

static void a_dump_json_cut_anywhere_is_an_error(void **state)
{
    static const char text[] =
        "{\"format\": \"refparity-dump\", \"version\": 1, \"complete\": true, \"positions\": "
        "{\"emb\": [[0, 9]]}}";
    (void)state;
    write_rows("emb.npy", 3, 2, 1);
    for (size_t n = 0; n < sizeof text - 1; n++) {
        struct rp_tensor_set *set;
        struct rp_error err;
        rp_test_write_file(folder, "dump.json", text, n);
        assert_int_equal(rp_tensor_set_open(folder, RP_LAYOUT_AUTO, 0, &set, &err), RP_ERR_FORMAT);
        assert_memory_equal(err.where + strlen(folder), "/dump.json:1:", 13);
    }
}

static void unknown_keys_are_ignored(void **state)
{
    (void)state;
    write_rows("emb.npy", 3, 2, 1);
    write_json(
        "{\"format\": \"refparity-dump\", \"version\": 1, \"complete\": true, \"more\": {}}");
    struct rp_tensor_set *set = open_set();
    assert_positions(set, "emb", (const int64_t[]){0, 1, 2}, 3);
    assert_int_equal(rp_tensor_set_n_layers(set), -1);
    rp_tensor_set_close(set);
}

static void a_folder_without_dump_json_is_another_recorders(void **state)
{
    size_t n;
    (void)state;
    write_rows("emb.npy", 3, 2, 1);
    write_rows("h1.npy", 3, 2, 1);
    write_rows("logits.npy", 1, 4, 1);
    struct rp_tensor_set *set = open_set();
    assert_positions(set, "emb", (const int64_t[]){0, 1, 2}, 3);
    assert_true(rp_tensor_set_complete(set));
    assert_int_equal(rp_tensor_set_n_layers(set), -1);
    assert_int_equal(rp_tensor_set_n_layers_seen(set), 2);
    assert_null(rp_tensor_set_manifest(set, &n));
    assert_positions(set, "logits", (const int64_t[]){2}, 1);
    assert_int_equal(rp_tensor_set_n_notes(set), 1);
    assert_string_equal(rp_tensor_set_note(set, 0),
                        "logits has one row: it is read as position 2, the last");
    rp_tensor_set_close(set);
}

static void write_two(const char *name, int64_t first, int64_t second)
{
    const int64_t numbers[] = {first, second};
    struct rp_test_bytes npy = {NULL, 0, 0};
    rp_test_npy(&npy, "<i8", "(2,)", numbers, sizeof numbers);
    rp_test_write_file(folder, name, npy.data, npy.n);
    rp_test_free(&npy);
}

static void positions_of_another_recorder_place_the_rows(void **state)
{
    (void)state;
    write_rows("emb.npy", 2, 4, 1);
    write_rows("h0.npy", 3, 4, 1);
    write_rows("logits.npy", 1, 4, 1);
    write_two("positions.npy", 3, 7);
    struct rp_tensor_set *set = open_set();
    assert_int_equal(rp_tensor_set_n_slots(set), 3);
    assert_positions(set, "emb", (const int64_t[]){3, 7}, 2);
    assert_positions(set, "logits", (const int64_t[]){7}, 1);
    assert_slot_refused(set, "h0", RP_ERR_MISMATCH, "",
                        "h0: expected a row for each of the 2 positions, found 3");
    rp_tensor_set_close(set);
    write_two("positions.npy", 7, 3);
    assert_refused(RP_ERR_FORMAT, "",
                   "positions: expected them to ascend from 0 or more, found 3 after 7 at index 1");
    write_positions("true", "{\"emb\": [[0, 5]]}"); /* then dump.json says it */
    set = open_set();
    assert_positions(set, "emb", (const int64_t[]){5, 6}, 2);
    rp_tensor_set_close(set);
}

static void a_half_written_npy_is_an_error_of_its_slot(void **state)
{
    struct rp_test_bytes npy = {NULL, 0, 0};
    (void)state;
    rp_test_npy_rows(&npy, 3, 2, 1);
    write_rows("emb.npy", 3, 2, 1);
    write_positions("false", "{}");
    for (size_t n = 0; n < npy.n; n++) {
        struct rp_tensor tensor;
        struct rp_error err;
        char message[128];
        rp_test_write_file(folder, "h0.npy", npy.data, n);
        struct rp_tensor_set *set = open_set();
        assert_int_equal(rp_tensor_load(set, "h0", &tensor, &err), RP_ERR_FORMAT);
        if (n < 10)
            snprintf(message, sizeof message, "expected an npy header, found only %zu bytes", n);
        else if (n < 128)
            snprintf(message, sizeof message, "expected an npy header of 128 bytes, found only %zu",
                     n);
        else
            snprintf(message, sizeof message,
                     "shape (3, 2) of '<f4' needs 24 bytes of data, found %zu", n - 128);
        assert_string_equal(err.message, message);
        assert_string_equal(err.where + strlen(folder), "/h0.npy");
        assert_positions(set, "emb", (const int64_t[]){0, 1, 2}, 3);
        rp_tensor_set_close(set);
    }
    rp_test_put(&npy, "more", 4); /* rows were written, their header not yet */
    rp_test_write_file(folder, "h0.npy", npy.data, npy.n);
    struct rp_tensor_set *set = open_set();
    assert_slot_refused(set, "h0", RP_ERR_FORMAT, "/h0.npy",
                        "shape (3, 2) of '<f4' needs 24 bytes of data, found 28");
    rp_tensor_set_close(set);
    rp_test_free(&npy);
}

static void a_fifo_among_the_slots_is_refused_without_waiting(void **state)
{
    char path[512];
    (void)state;
    write_rows("emb.npy", 3, 2, 1);
    assert_int_equal(rp_path_join(path, sizeof path, folder, "h0.npy", NULL), RP_OK);
    assert_int_equal(mkfifo(path, 0600), 0);
    struct rp_tensor_set *set = open_set();
    assert_slot_refused(set, "h0", RP_ERR_UNSUPPORTED, "/h0.npy",
                        "expected a regular file, found a FIFO");
    rp_tensor_set_close(set);
}

static void links_in_a_dump_are_refused(void **state)
{
    char path[512], target[512], other[512];
    struct rp_error err;
    const int64_t *ids;
    size_t n;
    (void)state;
    write_rows("emb.npy", 3, 2, 1);
    assert_int_equal(rp_path_join(path, sizeof path, folder, "h0.npy", NULL), RP_OK);
    assert_int_equal(rp_path_join(target, sizeof target, folder, "emb.npy", NULL), RP_OK);
    assert_int_equal(symlink(target, path), 0);
    assert_int_equal(rp_path_join(other, sizeof other, folder, "tokens.npy", NULL), RP_OK);
    assert_int_equal(symlink("nowhere", other), 0);
    struct rp_tensor_set *set = open_set();
    assert_slot_refused(set, "h0", RP_ERR_UNSUPPORTED, "/h0.npy",
                        "expected a regular file, found a symbolic link");
    assert_int_equal(rp_tensor_set_find(set, "emb")->error.code, RP_OK);
    assert_int_equal(rp_tensor_set_tokens(set, &ids, &n, &err), RP_ERR_UNSUPPORTED);
    rp_tensor_set_close(set);
    assert_int_equal(rp_path_join(path, sizeof path, folder, "dump.json", NULL), RP_OK);
    assert_int_equal(symlink("nowhere", path), 0);
    assert_int_equal(rp_tensor_set_open(folder, RP_LAYOUT_NPY, 0, &set, &err), RP_ERR_UNSUPPORTED);
}

static void tokens_are_read_when_they_are_there(void **state)
{
    static const int64_t ids[] = {5, 6, 7};
    struct rp_test_bytes npy = {NULL, 0, 0};
    struct rp_error err;
    const int64_t *read_ids;
    size_t n;
    (void)state;
    write_rows("emb.npy", 3, 2, 1);
    struct rp_tensor_set *set = open_set();
    assert_int_equal(rp_tensor_set_tokens(set, &read_ids, &n, NULL), RP_OK);
    assert_null(read_ids);
    rp_test_npy(&npy, "<i8", "(3,)", ids, sizeof ids);
    rp_test_write_file(folder, "tokens.npy", npy.data, npy.n - 8);
    assert_int_equal(rp_tensor_set_tokens(set, &read_ids, &n, &err), RP_ERR_FORMAT);
    assert_string_equal(err.message, "shape (3,) of '<i8' needs 24 bytes of data, found 16");
    rp_test_write_file(folder, "tokens.npy", npy.data, npy.n);
    assert_int_equal(rp_tensor_set_tokens(set, &read_ids, &n, NULL), RP_OK);
    assert_int_equal(n, 3);
    assert_int_equal(read_ids[2], 7);
    rp_test_free(&npy);
    npy.n = 0;
    rp_test_npy(&npy, "<i8", "(1, 3, 1)", ids, sizeof ids);
    rp_test_write_file(folder, "tokens.npy", npy.data, npy.n);
    rp_test_free(&npy);
    rp_tensor_set_close(set);
    set = open_set();
    assert_int_equal(rp_tensor_set_tokens(set, &read_ids, &n, &err), RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message,
                        "expected shape (n,) with at most 16777216 elements, found (1, 3, 1)");
    rp_tensor_set_close(set);
}

static void a_file_is_no_dump_folder(void **state)
{
    struct rp_tensor_set *set;
    struct rp_error err;
    char path[512];
    (void)state;
    rp_test_write_file(folder, "file", "x", 1);
    assert_int_equal(rp_path_join(path, sizeof path, folder, "file", NULL), RP_OK);
    assert_int_equal(rp_tensor_set_open(path, RP_LAYOUT_NPY, 0, &set, &err), RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "expected a folder, found a file");
    assert_int_equal(rp_tensor_set_open(folder, RP_LAYOUT_NPZ, 0, &set, &err), RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "expected a regular file, found a folder");
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(jumps_place_the_rows),
        IN_FOLDER(jumps_that_cannot_be_are_errors_of_their_slot),
        IN_FOLDER(an_abandoned_dump_is_not_complete_but_readable),
        IN_FOLDER(a_dump_that_died_before_its_first_row_opens),
        IN_FOLDER(malformed_dump_json_is_an_error_of_the_set),
        IN_FOLDER(a_dump_json_cut_anywhere_is_an_error),
        IN_FOLDER(unknown_keys_are_ignored),
        IN_FOLDER(a_folder_without_dump_json_is_another_recorders),
        IN_FOLDER(positions_of_another_recorder_place_the_rows),
        IN_FOLDER(a_half_written_npy_is_an_error_of_its_slot),
        IN_FOLDER(links_in_a_dump_are_refused),
        IN_FOLDER(a_fifo_among_the_slots_is_refused_without_waiting),
        IN_FOLDER(tokens_are_read_when_they_are_there),
        IN_FOLDER(a_file_is_no_dump_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
