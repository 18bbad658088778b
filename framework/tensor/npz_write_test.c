/* A dump written as a fixture reads as it did, in HF's order; what cannot be a reference is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "refparity/dump.h"
#include "tensor/npz_write.h"

enum { N = 3, DIM = 4 };
static const int64_t all[N] = {0, 1, 2};
static char folder[256], dump[300], npz[300];

static int make_folder(void **state)
{
    (void)state;
    rp_test_make_folder(folder);
    snprintf(dump, sizeof dump, "%s/dump", folder);
    snprintf(npz, sizeof npz, "%s/out.npz", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    return rp_remove_tree(folder, NULL) == RP_OK ? 0 : -1;
}

/* h0 counts from 0, h0_q likewise with its pairs interleaved, h0_k has the last position alone. */
static struct rp_tensor_set *make_dump(int has_tokens, float last)
{
    static const int32_t ids[N] = {7, 300, 2};
    float rows[N * DIM];
    struct rp_tensor_set *set;
    for (int i = 0; i < N * DIM; i++)
        rows[i] = (float)i;
    struct rp_dump *d = rp_dump_open(dump, 1, "test 1");
    if (has_tokens)
        rp_dump_tokens(d, ids, N);
    rp_dump_layer(d, 0, "q", 0, N, DIM, rows);
    rp_dump_order_interleaved(d, "q", DIM, DIM);
    rp_dump_layer(d, 0, "k", N - 1, 1, DIM, rows);
    rp_dump_rows(d, "of_the_engine", 0, N, DIM, rows);
    rows[N * DIM - 1] = last;
    rp_dump_layer(d, 0, NULL, 0, N, DIM, rows);
    assert_int_equal(rp_dump_close(d), 0);
    assert_int_equal(rp_tensor_set_open(dump, RP_LAYOUT_NPY, 0, &set, NULL), RP_OK);
    return set;
}

static void expect_rows(struct rp_tensor_set *set, const char *slot, const float expected[N * DIM])
{
    struct rp_tensor tensor;
    struct rp_error err = {.code = RP_OK};
    rp_tensor_load(set, slot, &tensor, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(tensor.n_positions, N);
    assert_int_equal(tensor.dim, DIM);
    assert_memory_equal(tensor.data, expected, N * DIM * sizeof *expected);
    rp_tensor_release(&tensor);
}

static void a_dump_is_the_same_as_a_fixture(void **state)
{
    (void)state;
    static const char manifest[] =
        "{\"format\": \"refparity-fixture\", \"version\": 1, \"n_layers\": 1}";
    static const float counted[N * DIM] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    static const float turned[N * DIM] = {0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11};
    struct rp_tensor_set *set = make_dump(1, 11);
    const int64_t *ids;
    size_t n;
    for (int i = 0; i < 2; i++) /* a second one takes its place */
        assert_int_equal(rp_npz_write(npz, set, manifest, all, N, NULL), RP_OK);
    rp_tensor_set_close(set);
    assert_int_equal(rp_tensor_set_open(npz, RP_LAYOUT_NPZ, 0, &set, NULL), RP_OK);
    assert_int_equal(rp_tensor_set_n_slots(set), 2); /* h0_k has other positions */
    expect_rows(set, "h0", counted);
    expect_rows(set, "h0_q", turned);
    assert_int_equal(rp_tensor_set_tokens(set, &ids, &n, NULL), RP_OK);
    assert_int_equal(n, N);
    assert_int_equal(ids[1], 300);
    const char *text = rp_tensor_set_manifest(set, &n);
    assert_int_equal(n, sizeof manifest - 1);
    assert_memory_equal(text, manifest, n);
    assert_int_equal(rp_tensor_set_n_layers(set), 1);
    rp_tensor_set_close(set);
}

static void expect_refusal(struct rp_tensor_set *set, const char *message)
{
    struct rp_error err = {.code = RP_OK};
    assert_int_equal(rp_npz_write(npz, set, "{}", all, N, &err), RP_ERR_FORMAT);
    assert_non_null(strstr(err.message, message));
    assert_false(rp_path_exists(npz));
    rp_tensor_set_close(set);
    assert_int_equal(rp_remove_tree(dump, NULL), RP_OK);
}

static void what_cannot_be_compared_is_refused_and_leaves_nothing(void **state)
{
    (void)state;
    expect_refusal(make_dump(1, NAN), "h0 has a value that is not finite at position 2");
    expect_refusal(make_dump(1, INFINITY), "h0 has a value that is not finite at position 2");
    expect_refusal(make_dump(0, 1), "it has no tokens");
    assert_int_equal(rp_remove_tree(npz, NULL), RP_OK);
    struct rp_tensor_set *set = make_dump(1, 1);
    assert_int_equal(rp_npz_write("/no/such/folder/x.npz", set, "{}", all, N, NULL), RP_ERR_IO);
    rp_tensor_set_close(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_dump_is_the_same_as_a_fixture, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(what_cannot_be_compared_is_refused_and_leaves_nothing,
                                        make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
