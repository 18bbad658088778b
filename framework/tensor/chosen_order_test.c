/* Experts have to be known wherever something of them is dumped: without their numbers nobody knows whose values those
 * are. Their order is compare/choice_test.c's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "refparity/dump.h"
#include "refparity/tensor_set.h"

enum { K = 2, EACH = 3, N = 4 };

/* A dump of that many rows of each. */
static struct rp_tensor_set *open_dump(char folder[256], size_t n_experts, size_t n_gate)
{
    static const float experts[N][K] = {{5, 1}, {0, 2}, {7, 3}, {4, 6}};
    static const float gate[N][K * EACH] = {{1, 2, 3, 4, 5, 6}, {1, 2, 3, 4, 5, 6}};
    struct rp_tensor_set *set = NULL;
    struct rp_error err;
    rp_test_make_folder(folder);
    struct rp_dump *dump = rp_dump_open(folder, 1, "test");
    assert_non_null(dump);
    assert_int_equal(rp_dump_rows(dump, "h0_experts", 0, n_experts, K, &experts[0][0]), 0);
    assert_int_equal(rp_dump_rows(dump, "h0_gate", 0, n_gate, K * EACH, &gate[0][0]), 0);
    assert_int_equal(rp_dump_close(dump), 0);
    if (rp_tensor_set_open(folder, RP_LAYOUT_NPY, 0, &set, &err) != RP_OK)
        fail_msg("%s", err.message);
    return set;
}

static void close_dump(struct rp_tensor_set *set, const char *folder)
{
    rp_tensor_set_close(set);
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

static void expect_unreadable(struct rp_tensor_set *set, const char *slot, const char *message)
{
    struct rp_tensor tensor;
    struct rp_error err = {.code = RP_OK};
    assert_int_not_equal(rp_tensor_load(set, slot, &tensor, &err), RP_OK);
    if (!strstr(err.message, message))
        fail_msg("expected \"%s\" in \"%s\"", message, err.message);
}

static void experts_with_a_row_less_are_an_error(void **state)
{
    static const char message[] = "h0_experts has no row at position 3, where h0_gate has one: "
                                  "which experts' values those are is not known";
    char folder[256];
    struct rp_tensor_set *set = open_dump(folder, N - 1, N);
    (void)state;
    assert_int_equal(rp_tensor_set_find(set, "h0_experts")->error.code, RP_ERR_MISMATCH);
    expect_unreadable(set, "h0_experts", message);
    expect_unreadable(set, "h0_gate", message);
    close_dump(set, folder);
}

static void experts_that_cannot_be_read_leave_their_values_unread(void **state)
{
    char folder[256], path[300];
    struct rp_tensor_set *set = open_dump(folder, N, N);
    (void)state;
    rp_tensor_set_close(set);
    snprintf(path, sizeof path, "%s/h0_experts.npy", folder);
    assert_int_equal(truncate(path, 90), 0);
    assert_int_equal(rp_tensor_set_open(folder, RP_LAYOUT_NPY, 0, &set, NULL), RP_OK);
    expect_unreadable(set, "h0_gate", "");
    close_dump(set, folder);
}

static void experts_with_all_rows_or_more_are_right(void **state)
{
    (void)state;
    for (size_t n_gate = 1; n_gate <= N; n_gate++) {
        char folder[256];
        struct rp_tensor_set *set = open_dump(folder, N, n_gate);
        struct rp_tensor gate;
        assert_int_equal(rp_tensor_load(set, "h0_gate", &gate, NULL), RP_OK);
        assert_int_equal(gate.n_positions, n_gate);
        assert_true(((const float *)rp_tensor_row(&gate, 0))[0] == 4); /* expert 1's */
        rp_tensor_release(&gate);
        close_dump(set, folder);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_with_a_row_less_are_an_error),
        cmocka_unit_test(experts_that_cannot_be_read_leave_their_values_unread),
        cmocka_unit_test(experts_with_all_rows_or_more_are_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
