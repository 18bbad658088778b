/* Files that quant.cpp's users have, unchanged: an npz of their recorder (no manifest, no positions,
 * no output of the last layer) and dump folders of one or of several positions, through the tool. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/process.h"
#include "tensor/npz_writer_test_util.h"

enum { N_LAYERS = 3, N_POSITIONS = 4, DIM = 8, N_VOCAB = 16 };

/* A slot's value: any numbers that differ by slot, position and channel. */
static float value(int slot, int position, int channel)
{
    return 1.0f + 0.25f * (float)slot + 0.5f * (float)position + 0.01f * (float)(channel * channel);
}

static const char *slot_name(int slot, char name[32])
{
    if (slot == 0)
        snprintf(name, 32, "emb");
    else if (slot <= N_LAYERS)
        snprintf(name, 32, "h%d", slot - 1);
    else
        snprintf(name, 32, "%s", slot == N_LAYERS + 1 ? "post_norm" : "logits");
    return name;
}

static int slot_dim(int slot)
{
    return slot == N_LAYERS + 2 ? N_VOCAB : DIM;
}

static void add_array(struct rp_test_zip *zip, const char *name, const char *descr,
                      const char *shape, const void *data, size_t n)
{
    struct rp_test_bytes npy = {0};
    char member[48];
    rp_test_npy(&npy, descr, shape, data, n);
    snprintf(member, sizeof member, "%s.npy", name);
    rp_test_zip_add(zip, member, npy.data, npy.n, RP_TEST_ZIP64);
    rp_test_free(&npy);
}

/* numpy.savez(tokens, logits, emb, h0 .. h{N-2}, post_norm), in the order of their recorder. */
static void write_reference(const char *folder)
{
    static const int64_t tokens[N_POSITIONS] = {7, 8, 9, 10};
    static const int order[] = {N_LAYERS + 2, 0, 1, 2, N_LAYERS + 1};
    struct rp_test_zip zip = {{0}, {0}, 0, 0, 0};
    struct rp_test_bytes npz = {0};
    char name[32], shape[32];
    add_array(&zip, "tokens", "<i8", "(4,)", tokens, sizeof tokens);
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        float rows[N_POSITIONS * N_VOCAB];
        const int dim = slot_dim(order[i]);
        for (int p = 0; p < N_POSITIONS; p++)
            for (int c = 0; c < dim; c++)
                rows[p * dim + c] = value(order[i], p, c);
        snprintf(shape, sizeof shape, "(%d, %d)", N_POSITIONS, dim);
        add_array(&zip, slot_name(order[i], name), "<f4", shape, rows,
                  sizeof(float) * N_POSITIONS * (size_t)dim);
    }
    rp_test_zip_finish(&zip, 0, &npz);
    rp_test_write_file(folder, "ref.npz", npz.data, npz.n);
    rp_test_free(&npz);
}

/* One file of the dump: slot at position, the whole of it too large by factor. */
static void write_row(const char *folder, int slot, int position, const char *suffix, float factor)
{
    float row[N_VOCAB];
    char name[32], file[64];
    for (int c = 0; c < slot_dim(slot); c++)
        row[c] = factor * value(slot, position, c);
    snprintf(file, sizeof file, "eng/%s%s.bin", slot_name(slot, name), suffix);
    rp_test_write_file(folder, file, row, sizeof(float) * (size_t)slot_dim(slot));
}

/* emb.bin h0.bin … logits.bin of one position, and the log that their script leaves beside them. */
static void write_single(const char *folder, int position, float factor_of_h1)
{
    for (int slot = 0; slot < N_LAYERS + 3; slot++)
        write_row(folder, slot, position, "", slot == 2 ? factor_of_h1 : 1.001f);
    rp_test_write_file(folder, "eng/engine.log", "Loading model\n", 14);
}

static void write_all(const char *folder)
{
    for (int slot = 0; slot < N_LAYERS + 3; slot++) {
        for (int p = 0; p < N_POSITIONS + 1; p++) { /* it runs the token that it generates, too */
            char suffix[16];
            snprintf(suffix, sizeof suffix, "_p%d", p);
            write_row(folder, slot, p, suffix, 1.001f);
        }
    }
}

struct scratch {
    char folder[256];
    char output[16384];
};

static void open_scratch(struct scratch *scratch)
{
    char path[300];
    rp_test_make_folder(scratch->folder);
    snprintf(path, sizeof path, "%s/eng", scratch->folder);
    assert_int_equal(mkdir(path, 0777), 0);
    write_reference(scratch->folder);
}

static void close_scratch(const struct scratch *scratch)
{
    assert_int_equal(rp_remove_tree(scratch->folder, NULL), RP_OK);
}

/* refparity diff OPTION VALUE ref.npz eng; returns its exit code. */
static int diff(struct scratch *scratch, const char *option, const char *option_value)
{
    char reference[300], dump[300], log[300], *text = NULL;
    char *argv[8] = {RP_TOOL, "diff"};
    size_t n_args = 2, length = 0;
    struct rp_process_result result;
    struct rp_error err;
    snprintf(reference, sizeof reference, "%s/ref.npz", scratch->folder);
    snprintf(dump, sizeof dump, "%s/eng", scratch->folder);
    snprintf(log, sizeof log, "%s/output", scratch->folder);
    if (option) {
        argv[n_args++] = (char *)option;
        argv[n_args++] = (char *)option_value;
    }
    argv[n_args++] = reference;
    argv[n_args] = dump;
    const struct rp_process_spec spec = {.argv = argv, .log_path = log, .timeout_s = 60};
    if (rp_process_run(&spec, &result, &err) ||
        rp_file_read(log, sizeof scratch->output - 1, &text, &length, &err))
        fail_msg("%s", err.message);
    snprintf(scratch->output, sizeof scratch->output, "%s", text);
    free(text);
    return result.exit_code;
}

/* The output has a line that begins with start and ends with end. */
static void assert_line(const struct scratch *scratch, const char *start, const char *end)
{
    for (const char *line = scratch->output; *line;) {
        const size_t n = strcspn(line, "\n");
        const size_t n_start = strlen(start), n_end = strlen(end);
        if (n >= n_start + n_end && memcmp(line, start, n_start) == 0 &&
            memcmp(line + n - n_end, end, n_end) == 0)
            return;
        line += n + (line[n] != '\0');
    }
    fail_msg("no line \"%s…%s\" in:\n%s", start, end, scratch->output);
}

/* What was not shown is no pass: the positions that there are have to be named. */
static void a_dump_of_position_0_is_an_error_without_pos(void **state)
{
    (void)state;
    struct scratch scratch;
    open_scratch(&scratch);
    write_single(scratch.folder, 0, 1.001f);
    assert_int_equal(diff(&scratch, NULL, NULL), 2);
    assert_line(&scratch, "emb            8     1        0 ", " ERROR");
    assert_line(&scratch, "h1             8     1        0 ", " ERROR");
    assert_line(
        &scratch, "    ",
        "lacks 3 of 4 positions, the first 1: a prompt cut short, or name the positions that "
        "it dumps: in the matrix \"positions\", of refparity diff --pos [3 positions not in "
        "the dump]");
    assert_line(&scratch,
                "verdict: ERROR (5 of 6 required slots compared) (1 of 4 positions compared", "");
    close_scratch(&scratch);
}

static void a_dump_of_position_0_is_compared_with_pos(void **state)
{
    (void)state;
    struct scratch scratch;
    open_scratch(&scratch);
    write_single(scratch.folder, 0, 1.001f);
    assert_int_equal(diff(&scratch, "--pos", "0"), 0);
    assert_line(&scratch, "tokens     SKIP: not compared: the engine's dump has no token ids", "");
    assert_line(&scratch, "emb            8     1        0 ", " PASS");
    assert_line(&scratch, "h1             8     1        0 ", " PASS");
    assert_line(&scratch, "h2             -     - ", " SKIP");
    assert_line(&scratch, "    not compared: the reference has no h2", "");
    assert_line(&scratch, "logits        16     1        0 ", " PASS");
    assert_line(&scratch,
                "verdict: PASS (5 of 6 required slots compared) (1 of 4 positions compared, "
                "where RoPE, mask and cache change nothing)",
                "");
    close_scratch(&scratch);
}

static void a_dump_of_another_position_is_compared_with_pos(void **state)
{
    (void)state;
    struct scratch scratch;
    open_scratch(&scratch);
    write_single(scratch.folder, 2, 1.001f);
    assert_int_equal(diff(&scratch, "--pos", "2"), 0);
    assert_line(&scratch, "h0             8     1        2 ", " PASS");
    assert_line(&scratch, "verdict: PASS", "(1 of 4 positions compared)");
    /* it is taken for position 0, as theirs takes it */
    assert_int_equal(diff(&scratch, "--pos", "0"), 1);
    assert_int_equal(diff(&scratch, "--pos", "9"), 2);
    close_scratch(&scratch);
}

static void positions_are_a_list_with_ranges(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",    "3,1",  "1-", "-1",        "2-1",
                                        "1,1", "1,,2", "x",  "0-99999999"};
    struct scratch scratch;
    open_scratch(&scratch);
    write_all(scratch.folder);
    assert_int_equal(diff(&scratch, "--pos", "0,2-3"), 0);
    assert_line(&scratch, "h1             8     3 ", " PASS");
    assert_line(&scratch, "verdict: PASS", "(3 of 4 positions compared)");
    assert_int_equal(diff(&scratch, "--pos", "0-3"), 0);
    assert_line(&scratch, "verdict: PASS", "(5 of 6 required slots compared)");
    assert_int_equal(diff(&scratch, "--pos", "2-4"), 2); /* the reference has no 4 */
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(diff(&scratch, "--pos", wrong[i]), 2);
        assert_non_null(strstr(scratch.output, "--pos takes ascending positions"));
    }
    close_scratch(&scratch);
}

static void a_dump_of_all_positions_is_compared_at_all_or_one(void **state)
{
    (void)state;
    struct scratch scratch;
    open_scratch(&scratch);
    write_all(scratch.folder);
    assert_int_equal(diff(&scratch, NULL, NULL), 0);
    assert_line(&scratch, "h1             8     4 ", " PASS");
    assert_line(&scratch, "note: h1: 1 positions that the reference lacks are ignored", "");
    assert_int_equal(diff(&scratch, "--pos", "3"), 0);
    assert_line(&scratch, "h1             8     1        3 ", " PASS");
    close_scratch(&scratch);
}

static void a_divergence_is_exit_1_and_named(void **state)
{
    (void)state;
    struct scratch scratch;
    open_scratch(&scratch);
    write_single(scratch.folder, 0, 1.06f);
    assert_int_equal(diff(&scratch, "--pos", "0"), 1);
    assert_line(&scratch, "first divergence: h1 at position 0", "");
    assert_line(&scratch, "verdict: FAIL", "");
    assert_int_equal(diff(&scratch, "--pos=0", "--threshold-l2-rel=0.07"), 0);
    assert_int_equal(diff(&scratch, NULL, NULL), 2); /* the other positions are not there */
    assert_line(&scratch, "h1             8     1        0 ", " FAIL");
    assert_line(&scratch, "    L2_rel ", " [3 positions not in the dump]");
    assert_line(&scratch, "first divergence: h1 at position 0", "");
    close_scratch(&scratch);
}

static void a_short_or_missing_file_is_exit_2(void **state)
{
    (void)state;
    struct scratch scratch;
    char path[300];
    open_scratch(&scratch);
    write_single(scratch.folder, 0, 1.001f);
    rp_test_write_file(scratch.folder, "eng/h1.bin", "12345678", 8);
    assert_int_equal(diff(&scratch, NULL, NULL), 2);
    snprintf(path, sizeof path, "%s/eng/h1.bin", scratch.folder);
    assert_int_equal(remove(path), 0);
    assert_int_equal(diff(&scratch, NULL, NULL), 2);
    assert_line(&scratch, "h1             -     - ", " ERROR");
    assert_line(&scratch, "    missing: the engine's dump has no h1", "");
    close_scratch(&scratch);
}

/* 64 GiB on no disk: what the widths tell is not read first. */
static void a_file_of_another_width_is_an_error_before_it_is_read(void **state)
{
    (void)state;
    struct scratch scratch;
    char path[300];
    open_scratch(&scratch);
    write_single(scratch.folder, 0, 1.001f);
    snprintf(path, sizeof path, "%s/eng/h1.bin", scratch.folder);
    assert_int_equal(truncate(path, (off_t)64 << 30), 0);
    assert_int_equal(diff(&scratch, NULL, NULL), 2);
    assert_line(&scratch, "    ", "h1 has 17179869184 values per position, the reference has 8");
    close_scratch(&scratch);
}

/* Who pipes a report into a full disk must not take the part of it that is there for all. */
static void output_that_cannot_be_written_is_exit_2(void **state)
{
    (void)state;
    struct scratch scratch;
    struct rp_process_result result;
    char command[1024];
    static const char *const commands[] = {"diff --pos 0 %s/ref.npz %s/eng", "show %s/ref.npz",
                                           "--help"};
    open_scratch(&scratch);
    write_single(scratch.folder, 0, 1.001f);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        char arguments[600], log[300], *text;
        size_t length;
        snprintf(arguments, sizeof arguments, commands[i], scratch.folder, scratch.folder);
        snprintf(command, sizeof command, "%s %s >/dev/full", RP_TOOL, arguments);
        snprintf(log, sizeof log, "%s/output", scratch.folder);
        char *argv[] = {"sh", "-c", command, NULL};
        const struct rp_process_spec spec = {.argv = argv, .log_path = log, .timeout_s = 60};
        assert_int_equal(rp_process_run(&spec, &result, NULL), RP_OK);
        assert_int_equal(result.exit_code, 2);
        assert_int_equal(rp_file_read(log, 10000, &text, &length, NULL), RP_OK);
        assert_non_null(strstr(text, "the output could not be written: No space left on device"));
        free(text);
    }
    close_scratch(&scratch);
}

/* What little address space a program gets is no reason to wait for ever. */
static void without_address_space_the_tool_ends(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) /* it wants terabytes */
    skip();
#endif
    static const int kib[] = {20000, 60000, 100000, 150000, 300000};
    struct scratch scratch;
    struct rp_process_result result;
    char command[1024];
    open_scratch(&scratch);
    write_single(scratch.folder, 0, 1.001f);
    for (size_t i = 0; i < sizeof kib / sizeof kib[0]; i++) {
        snprintf(command, sizeof command,
                 "ulimit -v %d; %s --version && exec %s diff --pos 0 %s/ref.npz %s/eng", kib[i],
                 RP_TOOL, RP_TOOL, scratch.folder, scratch.folder);
        char *argv[] = {"sh", "-c", command, NULL};
        const struct rp_process_spec spec = {.argv = argv, .timeout_s = 20};
        assert_int_equal(rp_process_run(&spec, &result, NULL), RP_OK);
        assert_false(result.timed_out);
        assert_int_equal(result.exit_code, 0);
    }
    close_scratch(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_dump_of_position_0_is_an_error_without_pos),
        cmocka_unit_test(a_dump_of_position_0_is_compared_with_pos),
        cmocka_unit_test(positions_are_a_list_with_ranges),
        cmocka_unit_test(a_dump_of_another_position_is_compared_with_pos),
        cmocka_unit_test(a_dump_of_all_positions_is_compared_at_all_or_one),
        cmocka_unit_test(a_divergence_is_exit_1_and_named),
        cmocka_unit_test(a_short_or_missing_file_is_exit_2),
        cmocka_unit_test(output_that_cannot_be_written_is_exit_2),
        cmocka_unit_test(without_address_space_the_tool_ends),
        cmocka_unit_test(a_file_of_another_width_is_an_error_before_it_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
