/* refparity/dump.h, read back with the tensor set: whole, abandoned, killed and misused dumps. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define REFPARITY_DUMP_IMPLEMENTATION
#include "refparity/dump.h"

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "refparity/tensor_set.h"

static char parent[256], folder[512];

static int make_folder(void **state)
{
    (void)state;
    rp_test_make_folder(parent);
    return rp_path_join(folder, sizeof folder, parent, "dump", NULL) == RP_OK ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rp_remove_tree(parent, NULL) == RP_OK ? 0 : -1;
}

static struct rp_tensor_set *open_set(void)
{
    struct rp_tensor_set *set;
    struct rp_error err;
    char text[2200];
    if (rp_tensor_set_open(folder, RP_LAYOUT_NPY, 0, &set, &err) != RP_OK)
        fail_msg("%s", rp_error_text(&err, text, sizeof text));
    return set;
}

/* Value of a slot's row at position: what every test here writes. */
static float value_at(long long position, size_t i)
{
    return (float)position * 100 + (float)i;
}

static const float *rows_of(long long first_position, size_t n, size_t dim)
{
    static float rows[4096];
    assert_true(n * dim <= sizeof rows / sizeof *rows);
    for (size_t row = 0; row < n; row++)
        for (size_t i = 0; i < dim; i++)
            rows[row * dim + i] = value_at(first_position + (long long)row, i);
    return rows;
}

static void assert_rows(struct rp_tensor_set *set, const char *slot, const int64_t *positions,
                        size_t n, size_t dim)
{
    struct rp_tensor tensor;
    struct rp_error err;
    char text[2200];
    if (rp_tensor_load(set, slot, &tensor, &err) != RP_OK)
        fail_msg("%s: %s", slot, rp_error_text(&err, text, sizeof text));
    assert_int_equal(tensor.n_positions, n);
    assert_int_equal(tensor.dim, dim);
    for (size_t row = 0; row < n; row++) {
        assert_int_equal(tensor.positions[row], positions[row]);
        for (size_t i = 0; i < dim; i++) {
            float value;
            memcpy(&value, (const char *)tensor.data + 4 * (row * dim + i), sizeof value);
            assert_true(value == value_at(positions[row], i));
        }
    }
    rp_tensor_release(&tensor);
}

/* The dump's first error is text, dump.json carries it, and the dump is not complete. */
static void assert_failed(struct rp_dump *dump, const char *text)
{
    assert_non_null(rp_dump_error(dump));
    assert_string_equal(rp_dump_error(dump), text);
    assert_int_equal(rp_dump_rows(dump, "emb", 0, 1, 2, rows_of(0, 1, 2)), -1);
    assert_string_equal(rp_dump_error(dump), text);
    assert_int_equal(rp_dump_close(dump), -1);
    struct rp_tensor_set *set = open_set();
    assert_false(rp_tensor_set_complete(set));
    size_t n;
    const char *manifest = rp_tensor_set_manifest(set, &n);
    char *json = strndup(manifest, n);
    assert_non_null(strstr(json, "\"complete\": false, \"error\": \""));
    free(json);
    rp_tensor_set_close(set);
}

static void without_a_folder_every_call_is_a_no_op(void **state)
{
    static const int32_t id = 1;
    (void)state;
    assert_null(rp_dump_open("", 2, "engine"));
    struct rp_dump *dump = rp_dump_open(NULL, 2, "engine");
    assert_null(dump);
    assert_int_equal(rp_dump_tokens(dump, &id, 1), 0);
    assert_int_equal(rp_dump_rows(dump, "emb", 0, 1, 2, rows_of(0, 1, 2)), 0);
    assert_int_equal(rp_dump_layer(dump, 9, NULL, 0, 1, 2, rows_of(0, 1, 2)), 0);
    assert_null(rp_dump_error(dump));
    assert_int_equal(rp_dump_finish(dump), 0);
    assert_int_equal(rp_dump_close(dump), 0);
}

static void write_run(struct rp_dump *dump, long long position, size_t n)
{
    static const char *const parts[] = {"in", "postattn", "preffn", "ffnout", NULL};
    int32_t ids[64];
    assert_true(n <= 64);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)(position + (long long)i) - 3;
    assert_int_equal(rp_dump_tokens(dump, ids, n), 0);
    assert_int_equal(rp_dump_rows(dump, "emb", position, n, 8, rows_of(position, n, 8)), 0);
    for (int layer = 0; layer < 2; layer++)
        for (size_t part = 0; part < 5; part++)
            assert_int_equal(
                rp_dump_layer(dump, layer, parts[part], position, n, 8, rows_of(position, n, 8)),
                0);
    assert_int_equal(rp_dump_rows(dump, "post_norm", position, n, 8, rows_of(position, n, 8)), 0);
}

static void assert_run(size_t n)
{
    static const char *const slots[] = {"emb",       "h0_in",     "h0_postattn", "h0_preffn",
                                        "h0_ffnout", "h0",        "h1_in",       "h1_postattn",
                                        "h1_preffn", "h1_ffnout", "h1",          "post_norm"};
    int64_t positions[64];
    const int64_t *ids;
    size_t n_ids;
    struct rp_tensor_set *set = open_set();
    for (size_t i = 0; i < 64; i++)
        positions[i] = (int64_t)i;
    assert_int_equal(rp_tensor_set_n_slots(set), 13);
    for (size_t i = 0; i < 12; i++) {
        assert_string_equal(rp_tensor_set_slot(set, i)->name, slots[i]);
        assert_rows(set, slots[i], positions, n, 8);
    }
    assert_rows(set, "logits", positions + n - 1, 1, 16);
    assert_int_equal(rp_tensor_set_tokens(set, &ids, &n_ids, NULL), RP_OK);
    assert_int_equal(n_ids, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(ids[i], (int)i - 3);
    assert_int_equal(rp_tensor_set_n_layers(set), 2);
    assert_int_equal(rp_tensor_set_n_layers_seen(set), 2);
    assert_true(rp_tensor_set_complete(set));
    rp_tensor_set_close(set);
}

static void a_dump_token_by_token_reads_back(void **state)
{
    (void)state;
    struct rp_dump *dump = rp_dump_open(folder, 2, "engine");
    for (long long position = 0; position < 11; position++)
        write_run(dump, position, 1);
    assert_int_equal(rp_dump_rows(dump, "logits", 10, 1, 16, rows_of(10, 1, 16)), 0);
    assert_int_equal(rp_dump_close(dump), 0);
    assert_run(11);
}

static void a_dump_in_batches_reads_back_the_same(void **state)
{
    (void)state;
    struct rp_dump *dump = rp_dump_open(folder, 2, "engine");
    write_run(dump, 0, 7);
    write_run(dump, 7, 4);
    assert_int_equal(rp_dump_rows(dump, "logits", 10, 1, 16, rows_of(10, 1, 16)), 0);
    assert_int_equal(rp_dump_finish(dump), 0);
    assert_int_equal(rp_dump_finish(dump), 0);
    assert_int_equal(rp_dump_close(dump), 0);
    assert_run(11);
}

static void many_tokens_at_once_are_kept(void **state)
{
    int32_t ids[1000];
    const int64_t *read_ids;
    size_t n;
    (void)state;
    for (int32_t i = 0; i < 1000; i++)
        ids[i] = i * 7;
    struct rp_dump *dump = rp_dump_open(folder, -1, NULL);
    assert_int_equal(rp_dump_tokens(dump, ids, 1000), 0);
    assert_int_equal(rp_dump_tokens(dump, ids, 0), 0);
    assert_int_equal(rp_dump_close(dump), 0);
    struct rp_tensor_set *set = open_set();
    assert_int_equal(rp_tensor_set_tokens(set, &read_ids, &n, NULL), RP_OK);
    assert_int_equal(n, 1000);
    for (int32_t i = 0; i < 1000; i++)
        assert_int_equal(read_ids[i], i * 7);
    assert_int_equal(rp_tensor_set_n_layers(set), -1);
    rp_tensor_set_close(set);
}

static void the_files_are_valid_after_every_call(void **state)
{
    const int64_t positions[] = {0, 1, 2, 5, 6, 9};
    static const struct {
        long long first;
        size_t n;
    } calls[] = {{0, 1}, {1, 2}, {5, 2}, {9, 1}};
    size_t n = 0;
    (void)state;
    struct rp_dump *dump = rp_dump_open(folder, 2, "engine");
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(rp_dump_rows(dump, "emb", calls[i].first, calls[i].n, 8,
                                      rows_of(calls[i].first, calls[i].n, 8)),
                         0);
        n += calls[i].n;
        struct rp_tensor_set *set = open_set();
        assert_false(rp_tensor_set_complete(set));
        assert_rows(set, "emb", positions, n, 8);
        rp_tensor_set_close(set);
    }
    assert_int_equal(rp_dump_close(dump), 0);
    struct rp_tensor_set *set = open_set();
    assert_true(rp_tensor_set_complete(set));
    assert_rows(set, "emb", positions, n, 8);
    rp_tensor_set_close(set);
}

static void an_engine_that_is_killed_loses_nothing_it_wrote(void **state)
{
    const int64_t positions[] = {0, 1, 2, 3, 4};
    int status;
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rp_dump *dump = rp_dump_open(folder, 2, "engine");
        for (long long position = 0; position < 5; position++)
            rp_dump_rows(dump, "emb", position, 1, 8, rows_of(position, 1, 8));
        rp_dump_rows(dump, "logits", 4, 1, 8, rows_of(4, 1, 8));
        raise(SIGKILL);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    struct rp_tensor_set *set = open_set();
    assert_false(rp_tensor_set_complete(set));
    assert_rows(set, "emb", positions, 5, 8);
    assert_rows(set, "logits", positions + 4, 1, 8);
    rp_tensor_set_close(set);
}

static void positions_that_go_back_are_an_error(void **state)
{
    (void)state;
    struct rp_dump *dump = rp_dump_open(folder, 2, "engine");
    assert_int_equal(rp_dump_layer(dump, 1, NULL, 0, 3, 2, rows_of(0, 3, 2)), 0);
    assert_int_equal(rp_dump_layer(dump, 1, NULL, 2, 1, 2, rows_of(2, 1, 2)), -1);
    assert_failed(dump, "slot h1: positions have to ascend: expected 3 or a later one, got 2");
}

static void a_dim_that_changes_is_an_error(void **state)
{
    (void)state;
    struct rp_dump *dump = rp_dump_open(folder, 2, "engine");
    assert_int_equal(rp_dump_rows(dump, "emb", 0, 1, 2, rows_of(0, 1, 2)), 0);
    assert_int_equal(rp_dump_rows(dump, "emb", 1, 1, 3, rows_of(1, 1, 3)), -1);
    assert_failed(dump, "slot emb: dim was 2 and is now 3");
}

static void arguments_that_cannot_be_are_errors(void **state)
{
    static const struct {
        const char *slot;
        long long position;
        size_t n, dim;
        const char *error;
    } cases[] = {
        {"../emb", 0, 1, 2, "slot ../emb: not a name that a slot can have"},
        {"", 0, 1, 2, "slot: not a name that a slot can have"},
        {"tokens", 0, 1, 2, "slot tokens: not a name that a slot can have"},
        {"a234567890123456789012345678901234567890123456789012345678901234", 0, 1, 2,
         "slot a234567890123456789012345678901234567890123456789012345678901234: not a name that a "
         "slot can have"},
        {"emb", -1, 1, 2, "slot emb: a position is negative or beyond 2^53"},
        {"emb", INT64_MAX, 1, 2, "slot emb: a position is negative or beyond 2^53"},
        {"emb", 9007199254740992, 1, 2, "slot emb: a position is negative or beyond 2^53"},
        {"emb", 0, 1, 0, "slot emb: dim is 0"},
        {"emb", 0, SIZE_MAX / 2, 3, "slot emb: too large"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rp_dump *dump = rp_dump_open(folder, 2, "engine");
        assert_null(rp_dump_error(dump));
        assert_int_equal(rp_dump_rows(dump, cases[i].slot, cases[i].position, cases[i].n,
                                      cases[i].dim, rows_of(0, 1, 2)),
                         -1);
        assert_failed(dump, cases[i].error);
        assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
    }
}

static void a_layer_outside_the_model_is_an_error(void **state)
{
    (void)state;
    struct rp_dump *dump = rp_dump_open(folder, 2, "engine");
    assert_int_equal(rp_dump_layer(dump, 2, "in", 0, 1, 2, rows_of(0, 1, 2)), -1);
    assert_failed(dump, "layer: expected 0 to 1, got 2");
}

static void no_rows_at_all_is_fine(void **state)
{
    (void)state;
    struct rp_dump *dump = rp_dump_open(folder, 2, "engine");
    assert_int_equal(rp_dump_rows(dump, "emb", 0, 0, 2, NULL), 0);
    assert_int_equal(rp_dump_close(dump), 0);
    struct rp_tensor_set *set = open_set();
    assert_int_equal(rp_tensor_set_n_slots(set), 0);
    rp_tensor_set_close(set);
}

static void two_dumps_are_never_mixed(void **state)
{
    char expected[1200];
    (void)state;
    assert_int_equal(rp_dump_close(rp_dump_open(folder, 2, "first")), 0);
    struct rp_dump *dump = rp_dump_open(folder, 2, "second");
    assert_int_equal(rp_dump_rows(dump, "emb", 0, 1, 2, rows_of(0, 1, 2)), -1);
    snprintf(expected, sizeof expected,
             "will not mix two dumps: there is already %s/dump.json: dump into an empty folder",
             folder);
    assert_string_equal(rp_dump_error(dump), expected);
    assert_int_equal(rp_dump_close(dump), -1);
    struct rp_tensor_set *set = open_set(); /* the first one is untouched */
    assert_true(rp_tensor_set_complete(set));
    rp_tensor_set_close(set);
}

static void a_slot_file_of_another_recorder_is_not_overwritten(void **state)
{
    char expected[1200];
    (void)state;
    assert_int_equal(rp_make_dirs(folder, NULL), RP_OK);
    rp_test_write_file(folder, "emb.npy", "kept", 4);
    struct rp_dump *dump = rp_dump_open(folder, 2, "engine");
    assert_int_equal(rp_dump_rows(dump, "emb", 0, 1, 2, rows_of(0, 1, 2)), -1);
    snprintf(expected, sizeof expected,
             "will not mix two dumps: there is already %s/emb.npy: dump into an empty folder",
             folder);
    assert_failed(dump, expected);
}

static void a_folder_that_cannot_be_made_is_an_error(void **state)
{
    char expected[1200];
    (void)state;
    assert_int_equal(rp_remove_tree(parent, NULL), RP_OK);
    struct rp_dump *dump = rp_dump_open(folder, 2, "engine");
    assert_non_null(dump);
    snprintf(expected, sizeof expected, "cannot make the folder %s: No such file or directory",
             folder);
    assert_string_equal(rp_dump_error(dump), expected);
    assert_int_equal(rp_dump_finish(dump), -1);
    assert_int_equal(rp_dump_close(dump), -1);
}

static void a_write_after_the_end_is_an_error(void **state)
{
    (void)state;
    struct rp_dump *dump = rp_dump_open(folder, 2, "engine");
    assert_int_equal(rp_dump_finish(dump), 0);
    assert_int_equal(rp_dump_rows(dump, "emb", 0, 1, 2, rows_of(0, 1, 2)), -1);
    assert_failed(dump, "write: the dump is already finished");
}

static void a_full_disk_is_an_error_and_not_a_shorter_slot(void **state)
{
    const struct rlimit small = {400, RLIM_INFINITY};
    struct rlimit before;
    char expected[1200];
    (void)state;
    struct rp_dump *dump = rp_dump_open(folder, 2, "engine");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int result = rp_dump_rows(dump, "emb", 0, 10, 8, rows_of(0, 10, 8));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(result, -1);
    snprintf(expected, sizeof expected, "cannot write %s/emb.npy: File too large", folder);
    assert_string_equal(rp_dump_error(dump), expected);
    assert_int_equal(rp_dump_close(dump), -1);
    struct rp_tensor_set *set = open_set();
    assert_false(rp_tensor_set_complete(set));
    assert_int_not_equal(rp_tensor_set_find(set, "emb")->error.code, RP_OK);
    rp_tensor_set_close(set);
}

static void more_slots_than_open_files_are_kept(void **state)
{
    const int64_t positions[] = {0, 1, 2};
    (void)state;
    struct rp_dump *dump = rp_dump_open(folder, 600, "engine");
    for (long long position = 0; position < 3; position++)
        for (int layer = 0; layer < 600; layer++)
            assert_int_equal(
                rp_dump_layer(dump, layer, NULL, position, 1, 2, rows_of(position, 1, 2)), 0);
    assert_int_equal(rp_dump_close(dump), 0);
    struct rp_tensor_set *set = open_set();
    assert_int_equal(rp_tensor_set_n_layers_seen(set), 600);
    for (size_t i = 0; i < 600; i++)
        assert_rows(set, rp_tensor_set_slot(set, i)->name, positions, 3, 2);
    rp_tensor_set_close(set);
}

static void any_engine_text_makes_valid_json(void **state)
{
    size_t n;
    (void)state;
    assert_int_equal(rp_dump_close(rp_dump_open(folder, 2, "a\"b\\c\n\x7f\xc3\xa4\xff")), 0);
    struct rp_tensor_set *set = open_set();
    const char *manifest = rp_tensor_set_manifest(set, &n);
    char *json = strndup(manifest, n);
    assert_non_null(strstr(json, "\"engine\": \"a\\\"b\\\\c\\u000a\\u007f???\", "));
    free(json);
    rp_tensor_set_close(set);
}

static void the_models_text_reads_back(void **state)
{
    (void)state;
    struct rp_dump *dump = rp_dump_open(folder, 2, "engine");
    assert_int_equal(rp_dump_model(dump, "first"), 0);
    assert_int_equal(rp_dump_model(dump, "a \"model\".gguf 0123"), 0);
    assert_int_equal(rp_dump_rows(dump, "emb", 0, 1, 2, rows_of(0, 1, 2)), 0);
    assert_int_equal(rp_dump_close(dump), 0);
    struct rp_tensor_set *set = open_set();
    assert_true(rp_tensor_set_complete(set));
    assert_string_equal(rp_tensor_set_model(set), "a \"model\".gguf 0123");
    rp_tensor_set_close(set);
    assert_int_equal(rp_dump_model(NULL, "model"), 0);
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_folder_every_call_is_a_no_op),
        IN_FOLDER(a_dump_token_by_token_reads_back),
        IN_FOLDER(a_dump_in_batches_reads_back_the_same),
        IN_FOLDER(many_tokens_at_once_are_kept),
        IN_FOLDER(the_files_are_valid_after_every_call),
        IN_FOLDER(an_engine_that_is_killed_loses_nothing_it_wrote),
        IN_FOLDER(positions_that_go_back_are_an_error),
        IN_FOLDER(a_dim_that_changes_is_an_error),
        IN_FOLDER(arguments_that_cannot_be_are_errors),
        IN_FOLDER(a_layer_outside_the_model_is_an_error),
        IN_FOLDER(no_rows_at_all_is_fine),
        IN_FOLDER(two_dumps_are_never_mixed),
        IN_FOLDER(a_slot_file_of_another_recorder_is_not_overwritten),
        IN_FOLDER(a_folder_that_cannot_be_made_is_an_error),
        IN_FOLDER(a_write_after_the_end_is_an_error),
        IN_FOLDER(a_full_disk_is_an_error_and_not_a_shorter_slot),
        IN_FOLDER(more_slots_than_open_files_are_kept),
        IN_FOLDER(any_engine_text_makes_valid_json),
        IN_FOLDER(the_models_text_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
