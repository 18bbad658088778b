/* Verdicts on what another program computed from a dump: within its limits or not, and files that do not
 * belong to the dump. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "replay/expected.h"
#include "replay/judge.h"
#include "tensor/npz_writer_test_util.h"

#define N 3
#define DIM 4
#define ABOUT                                                                                      \
    "{\"format\": \"refparity-fixture\", \"version\": 1, \"n_layers\": 1, \"expected\": "          \
    "{\"model\": \"some/model\", \"activations\": \"f32\", \"unknown\": \"no module gives it\", "  \
    "\"slots\": {\"h0\": {\"operation\": \"the residual add\", \"from\": \"h0_in\", \"between\": " \
    "\"h0_act\", \"left_out\": \"h0_in is not dumped\"}}}}"

/* What the two files hold. */
struct files {
    const char *about;         /* the expected one's manifest */
    int64_t token;             /* the expected one's first */
    float dump[N][DIM];        /* of h0 */
    float expected[N][DIM];    /* of h0 */
    float limits[N][4];        /* bound, worth, own, earlier */
    const char *limits_shape;  /* NULL: as it has to be */
    const char *expected_slot; /* NULL: h0 */
};

struct opened {
    char folder[256];
    struct rp_tensor_set *dump;
    struct rp_expected *expected; /* NULL: it could not be opened */
    struct rp_error err;
};

static struct files same_rows(void)
{
    struct files files = {.about = ABOUT, .token = 5};
    for (size_t i = 0; i < N; i++) {
        for (size_t k = 0; k < DIM; k++)
            files.dump[i][k] = files.expected[i][k] = (float)(i + k + 1);
        files.limits[i][0] = 1e-6F;
        files.limits[i][1] = -1;
    }
    return files;
}

static void add(struct rp_test_zip *zip, const char *name, const char *descr, const char *shape,
                const void *data, size_t n)
{
    struct rp_test_bytes npy = {NULL, 0, 0};
    char member[64];
    snprintf(member, sizeof member, "%s.npy", name);
    rp_test_npy(&npy, descr, shape, data, n);
    rp_test_zip_add(zip, member, npy.data, npy.n, RP_TEST_ZIP64);
    rp_test_free(&npy);
}

static void add_shared(struct rp_test_zip *zip, const char *manifest, int64_t token)
{
    const int64_t tokens[N] = {token, 6, 7}, positions[N] = {0, 1, 2};
    char shape[32];
    snprintf(shape, sizeof shape, "(%zu,)", strlen(manifest));
    add(zip, "manifest", "|u1", shape, manifest, strlen(manifest));
    add(zip, "tokens", "<i8", "(3,)", tokens, sizeof tokens);
    add(zip, "positions", "<i8", "(3,)", positions, sizeof positions);
}

static void write_zip(struct rp_test_zip *zip, const char *folder, const char *name, char path[512])
{
    struct rp_test_bytes bytes = {NULL, 0, 0};
    snprintf(path, 512, "%s/%s", folder, name);
    rp_test_zip_finish(zip, 0, &bytes);
    assert_int_equal(rp_file_write_atomic(path, bytes.data, bytes.n, NULL), RP_OK);
    rp_test_free(&bytes);
}

static struct opened open_files(const struct files *files)
{
    static const char manifest[] =
        "{\"format\": \"refparity-fixture\", \"version\": 1, \"n_layers\": 1}";
    struct opened opened = {.expected = NULL};
    struct rp_test_zip zip = {.n_members = 0};
    char path[512], slot[64];
    rp_test_make_folder(opened.folder);
    add_shared(&zip, manifest, 5);
    add(&zip, "h0", "<f4", "(3, 4)", files->dump, sizeof files->dump);
    write_zip(&zip, opened.folder, "dump.npz", path);
    assert_int_equal(rp_tensor_set_open(path, RP_LAYOUT_AUTO, 0, &opened.dump, &opened.err), RP_OK);
    zip = (struct rp_test_zip){.n_members = 0};
    snprintf(slot, sizeof slot, "%s", files->expected_slot ? files->expected_slot : "h0");
    add_shared(&zip, files->about, files->token);
    add(&zip, slot, "<f4", "(3, 4)", files->expected, sizeof files->expected);
    snprintf(slot, sizeof slot, "%s.limits", files->expected_slot ? files->expected_slot : "h0");
    add(&zip, slot, "<f4", files->limits_shape ? files->limits_shape : "(3, 4)", files->limits,
        sizeof files->limits);
    write_zip(&zip, opened.folder, "expected.npz", path);
    if (rp_expected_open(path, opened.dump, &opened.expected, &opened.err) != RP_OK)
        opened.expected = NULL;
    return opened;
}

static void close_files(struct opened *opened)
{
    rp_expected_close(opened->expected);
    rp_tensor_set_close(opened->dump);
    assert_int_equal(rp_remove_tree(opened->folder, NULL), RP_OK);
}

/* Its arrays are the caller's. */
static struct rp_replay_slot judge(const struct files *files)
{
    struct opened opened = open_files(files);
    struct rp_replay_slot slot;
    struct rp_error err;
    if (!opened.expected)
        fail_msg("%s", opened.err.message);
    if (rp_expected_judge(opened.expected, "h0", &slot, &err) != RP_OK)
        fail_msg("%s", err.message);
    close_files(&opened);
    return slot;
}

static void a_row_within_its_bound_passes(void **state)
{
    (void)state;
    struct files files = same_rows();
    files.dump[1][2] *= 1 + 5e-7F;
    struct rp_replay_slot slot = judge(&files);
    assert_int_equal(slot.verdict, RP_PASS);
    assert_int_equal(slot.n_positions, N);
    assert_string_equal(slot.operation, "the residual add");
    assert_string_equal(slot.from, "h0_in");
    assert_true(slot.is_carried);
    assert_true(slot.introduced[1] > 0);
    rp_replay_slot_free(&slot);
}

static void a_row_over_its_bound_fails_there(void **state)
{
    (void)state;
    struct files files = same_rows();
    files.dump[1][2] *= 1 + 5e-6F;
    struct rp_replay_slot slot = judge(&files);
    assert_int_equal(slot.verdict, RP_FAIL);
    assert_int_equal(slot.n_failing, 1);
    assert_int_equal(slot.positions[slot.first], 1);
    assert_int_equal(slot.worst_channel, 2);
    rp_replay_slot_free(&slot);
}

static void nan_in_the_dump_fails(void **state)
{
    (void)state;
    struct files files = same_rows();
    files.dump[2][0] = NAN;
    struct rp_replay_slot slot = judge(&files);
    assert_int_equal(slot.verdict, RP_FAIL);
    assert_non_null(strstr(slot.message, "1 NaN"));
    rp_replay_slot_free(&slot);
}

static void what_tips_are_worth_is_allowed_and_said(void **state)
{
    (void)state;
    struct files files = same_rows();
    files.dump[1][2] *= 1 + 5e-6F;
    for (size_t i = 0; i < N; i++) {
        files.limits[i][1] = 1e-4F;
        files.limits[i][2] = 0.5F;
    }
    struct rp_replay_slot slot = judge(&files);
    assert_int_equal(slot.verdict, RP_PASS);
    assert_int_equal(slot.n_over, 1);
    assert_non_null(strstr(slot.message, "may not show: dump h0_act to see one from 1e-06 on"));
    rp_replay_slot_free(&slot);
}

static void tips_do_not_explain_an_error_that_is_everywhere(void **state)
{
    (void)state;
    struct files files = same_rows();
    for (size_t i = 0; i < N; i++) {
        files.dump[i][2] *= 1 + 5e-6F;
        files.limits[i][1] = 1e-4F;
        files.limits[i][2] = 1e-4F;
    }
    struct rp_replay_slot slot = judge(&files);
    assert_int_equal(slot.verdict, RP_FAIL);
    rp_replay_slot_free(&slot);
}

static void a_row_that_was_not_computed_is_left_out(void **state)
{
    (void)state;
    struct files files = same_rows();
    files.expected[0][1] = NAN;
    struct rp_replay_slot slot = judge(&files);
    assert_int_equal(slot.verdict, RP_PASS);
    assert_int_equal(slot.n_left_out, 1);
    assert_non_null(strstr(slot.message, "1 position left out: h0_in is not dumped"));
    rp_replay_slot_free(&slot);
}

static void a_row_without_a_limit_is_left_out(void **state)
{
    (void)state;
    const float bad[] = {NAN, INFINITY, -1};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct files files = same_rows();
        files.dump[1][2] += 1;
        files.limits[1][0] = bad[i];
        struct rp_replay_slot slot = judge(&files);
        assert_int_equal(slot.n_left_out, 1);
        assert_int_equal(slot.n_positions, N - 1);
        rp_replay_slot_free(&slot);
    }
}

static void a_slot_that_was_not_computed_is_skipped_and_says_why(void **state)
{
    (void)state;
    struct files files = same_rows();
    files.expected_slot = "h0_act";
    struct rp_replay_slot slot = judge(&files);
    assert_int_equal(slot.verdict, RP_SKIP);
    assert_int_equal(slot.n_left_out, 0);
    assert_string_equal(slot.message, "not replayed: no module gives it");
    rp_replay_slot_free(&slot);
}

static void assert_refused(const struct files *files, enum rp_status code, const char *part)
{
    struct opened opened = open_files(files);
    assert_null(opened.expected);
    assert_int_equal(opened.err.code, code);
    if (!strstr(opened.err.message, part))
        fail_msg("expected \"%s\" in \"%s\"", part, opened.err.message);
    close_files(&opened);
}

static void a_file_that_does_not_belong_to_the_dump_is_an_error(void **state)
{
    (void)state;
    struct files files = same_rows();
    files.token = 4;
    assert_refused(&files, RP_ERR_MISMATCH, "it was computed for other tokens");
    files = same_rows();
    files.about = "{\"format\": \"refparity-fixture\", \"version\": 1, \"n_layers\": 1}";
    assert_refused(&files, RP_ERR_FORMAT, "it is not what ci/record.sh --replay writes");
    files.about = "{\"format\": \"refparity-fixture\", \"version\": 1, \"n_layers\": 2, "
                  "\"expected\": {\"activations\": \"f32\"}}";
    assert_refused(&files, RP_ERR_MISMATCH, "the dump says that it has 1 layers; the model has 2");
    files.about = "{\"format\": \"refparity-fixture\", \"version\": 1, \"n_layers\": 1, "
                  "\"expected\": {\"activations\": \"f33\"}}";
    assert_refused(&files, RP_ERR_ARGUMENT, "f33");
}

static void limits_of_another_shape_are_an_error(void **state)
{
    (void)state;
    struct files files = same_rows();
    files.limits_shape = "(3, 2, 2)";
    struct opened opened = open_files(&files);
    struct rp_replay_slot slot;
    struct rp_error err;
    assert_non_null(opened.expected);
    assert_int_not_equal(rp_expected_judge(opened.expected, "h0", &slot, &err), RP_OK);
    close_files(&opened);
    files.limits_shape = "(4, 3)";
    opened = open_files(&files);
    assert_non_null(opened.expected);
    assert_int_not_equal(rp_expected_judge(opened.expected, "h0", &slot, &err), RP_OK);
    close_files(&opened);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_within_its_bound_passes),
        cmocka_unit_test(a_row_over_its_bound_fails_there),
        cmocka_unit_test(nan_in_the_dump_fails),
        cmocka_unit_test(what_tips_are_worth_is_allowed_and_said),
        cmocka_unit_test(tips_do_not_explain_an_error_that_is_everywhere),
        cmocka_unit_test(a_row_that_was_not_computed_is_left_out),
        cmocka_unit_test(a_row_without_a_limit_is_left_out),
        cmocka_unit_test(a_slot_that_was_not_computed_is_skipped_and_says_why),
        cmocka_unit_test(a_file_that_does_not_belong_to_the_dump_is_an_error),
        cmocka_unit_test(limits_of_another_shape_are_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
