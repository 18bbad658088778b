/* Orders of values that a dump declares: the index, the rows as they are read, bad declarations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define REFPARITY_DUMP_IMPLEMENTATION
#include "refparity/dump.h"

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "refparity/tensor_set.h"
#include "tensor/order.h"

#define DIM 12
#define N_POSITIONS 3

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

static const struct rp_order pairs = {
    .kind = RP_ORDER_INTERLEAVED_PAIRS, .head_dim = 6, .n_rot = 4};
static const size_t pairs_index[DIM] = {0, 2, 1, 3, 4, 5, 6, 8, 7, 9, 10, 11};
/* Six heads of one value behind six that stay: groups of two in HF, tiles of three in the dump. */
static const struct rp_order tiles = {
    .kind = RP_ORDER_TILED_HEADS, .head_dim = 1, .n_groups = 3, .first = 6};
static const size_t tiles_index[DIM] = {0, 1, 2, 3, 4, 5, 6, 9, 7, 10, 8, 11};

static void assert_index(const struct rp_order *order, const size_t *expected)
{
    assert_true(rp_order_fits(order, DIM));
    for (size_t i = 0; i < DIM; i++)
        assert_int_equal(rp_order_from(order, DIM, i), expected[i]);
}

static void interleaved_pairs_are_split_into_halves_and_the_rest_of_the_head_stays(void **state)
{
    (void)state;
    assert_index(&pairs, pairs_index);
}

static void tiled_heads_are_grouped_and_what_is_before_them_stays(void **state)
{
    static const size_t two_values[DIM] = {0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11};
    (void)state;
    assert_index(&tiles, tiles_index);
    const struct rp_order wide = {.kind = RP_ORDER_TILED_HEADS, .head_dim = 2, .n_groups = 3};
    assert_index(&wide, two_values);
}

static void a_width_that_is_no_multiple_fits_no_order(void **state)
{
    (void)state;
    assert_true(rp_order_fits(&pairs, 18));
    assert_false(rp_order_fits(&pairs, 10));
    assert_false(rp_order_fits(&pairs, 0));
    assert_true(rp_order_fits(&tiles, 9));
    assert_false(rp_order_fits(&tiles, 10)); /* four heads in three groups */
    assert_false(rp_order_fits(&tiles, 6));  /* no head at all */
    assert_false(rp_order_fits(&tiles, 3));
    assert_false(rp_order_fits(&pairs, 11));
}

static float value_at(size_t position, size_t i)
{
    return (float)(position * 100 + i);
}

/* Slots of which value i of a row is what HF has at from[i], NULL: in HF's order. */
static void write_slot(struct rp_dump *dump, const char *slot, const size_t *from)
{
    float rows[N_POSITIONS * DIM];
    for (size_t p = 0; p < N_POSITIONS; p++)
        for (size_t i = 0; i < DIM; i++)
            rows[p * DIM + (from ? from[i] : i)] = value_at(p, i);
    assert_int_equal(rp_dump_rows(dump, slot, 0, N_POSITIONS, DIM, rows), 0);
}

static struct rp_tensor_set *open_set(void)
{
    struct rp_tensor_set *set;
    struct rp_error err;
    char text[2200];
    if (rp_tensor_set_open(folder, RP_LAYOUT_AUTO, 0, &set, &err) != RP_OK)
        fail_msg("%s", rp_error_text(&err, text, sizeof text));
    return set;
}

/* Is the slot read in HF's order? *is_mapped: without memory of its own. */
static bool is_in_hf_order(struct rp_tensor_set *set, const char *slot, bool *is_mapped)
{
    struct rp_tensor tensor;
    struct rp_error err;
    bool same = true;
    assert_int_equal(rp_tensor_load(set, slot, &tensor, &err), RP_OK);
    assert_int_equal(tensor.n_positions, N_POSITIONS);
    assert_int_equal(tensor.dim, DIM);
    for (size_t p = 0; p < N_POSITIONS; p++) {
        for (size_t i = 0; i < DIM; i++) {
            float value;
            memcpy(&value, (const char *)tensor.data + (p * DIM + i) * sizeof value, sizeof value);
            same &= value == value_at(p, i);
        }
    }
    *is_mapped = !tensor.owned;
    rp_tensor_release(&tensor);
    return same;
}

static const char *const turned_slots[] = {"h0_q", "h1_q", "h1_krope", "h0_conv"};

static void write_dump(bool declares)
{
    struct rp_dump *dump = rp_dump_open(folder, 2, "engine");
    write_slot(dump, "h0_q", pairs_index);
    if (declares) {
        assert_int_equal(rp_dump_order_interleaved(dump, "q,h1_krope", 6, 4), 0);
        assert_int_equal(rp_dump_order_tiled(dump, "h0_conv", 1, 3, 6), 0);
    }
    write_slot(dump, "h1_q", pairs_index);
    write_slot(dump, "h0_krope", NULL);
    write_slot(dump, "h1_krope", pairs_index);
    write_slot(dump, "h0_conv", tiles_index);
    write_slot(dump, "h1_conv", NULL);
    assert_int_equal(rp_dump_close(dump), 0);
}

static void a_dump_that_declares_its_order_is_read_in_hfs(void **state)
{
    bool is_mapped;
    (void)state;
    write_dump(true);
    struct rp_tensor_set *set = open_set();
    assert_true(rp_tensor_set_complete(set));
    for (size_t i = 0; i < sizeof turned_slots / sizeof *turned_slots; i++) {
        assert_true(is_in_hf_order(set, turned_slots[i], &is_mapped));
        assert_false(is_mapped);
    }
    assert_true(is_in_hf_order(set, "h0_krope", &is_mapped)); /* declared for layer 1 alone */
    assert_true(is_mapped);
    assert_true(is_in_hf_order(set, "h1_conv", &is_mapped));
    assert_true(is_mapped);
    rp_tensor_set_close(set);
}

/* The twin that has to fail: were rows turned always, or never, one of the two would go red. */
static void a_dump_that_declares_nothing_is_read_as_it_stands(void **state)
{
    bool is_mapped;
    (void)state;
    write_dump(false);
    struct rp_tensor_set *set = open_set();
    for (size_t i = 0; i < sizeof turned_slots / sizeof *turned_slots; i++) {
        assert_false(is_in_hf_order(set, turned_slots[i], &is_mapped));
        assert_true(is_mapped);
    }
    rp_tensor_set_close(set);
}

static void an_abandoned_dump_keeps_the_orders_declared_so_far(void **state)
{
    bool is_mapped;
    (void)state;
    struct rp_dump *dump = rp_dump_open(folder, 1, "engine");
    assert_int_equal(rp_dump_order_interleaved(dump, "q", 6, 4), 0);
    write_slot(dump, "h0_q", pairs_index);
    struct rp_tensor_set *set = open_set();
    assert_false(rp_tensor_set_complete(set));
    assert_true(is_in_hf_order(set, "h0_q", &is_mapped));
    rp_tensor_set_close(set);
    rp_dump_close(dump);
}

/* A folder with slot h0_q of DIM values, and this order in line 2 of its dump.json. */
static void write_json(const char *order)
{
    char path[600];
    struct rp_dump *dump = rp_dump_open(folder, 1, "engine");
    write_slot(dump, "h0_q", pairs_index);
    write_slot(dump, "h0_k", NULL);
    rp_dump_close(dump);
    assert_int_equal(rp_path_join(path, sizeof path, folder, "dump.json", NULL), RP_OK);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fprintf(
        file,
        "{\"format\": \"refparity-dump\", \"version\": 1, \"complete\": true, \"order\":\n%s}\n",
        order);
    assert_int_equal(fclose(file), 0);
}

#define PAIRS "\"kind\": \"interleaved_pairs\", \"head_dim\": 6"
#define TILES "\"kind\": \"tiled_heads\", \"head_dim\": 2"
#define HUGE_NUMBER "99999999999999999999"

static void a_bad_order_is_an_error_at_its_line(void **state)
{
    static const struct {
        const char *order, *message;
    } bad[] = {
        {"7", "dump.json:2:1: order: expected a list of rules"},
        {"[7]", "dump.json:2:2: order: expected a list of objects"},
        {"[{\"slots\": [\"q\"], \"kind\": \"sorted\"}]",
         "dump.json:2:27: order: expected \"kind\""},
        {"[{\"slots\": [\"q\"], " PAIRS "}]", "order: expected \"n_rot\": a whole number from 2"},
        {"[{\"slots\": [\"q\"], " PAIRS ", \"n_rot\": 3}]",
         "expected an even n_rot up to head_dim 6"},
        {"[{\"slots\": [\"q\"], " PAIRS ", \"n_rot\": 8}]",
         "expected an even n_rot up to head_dim 6"},
        {"[{\"slots\": [\"q\"], " PAIRS ", \"n_rot\": " HUGE_NUMBER "}]", "expected \"n_rot\""},
        {"[{\"slots\": [\"q\"], " TILES ", \"n_groups\": 0}]", "expected \"n_groups\""},
        {"[{\"slots\": [\"q\"], " TILES ", \"n_groups\": 1.5}]", "expected \"n_groups\""},
        {"[{\"slots\": [\"q\"], " TILES ", \"n_groups\": 2, \"first\": -1}]", "expected \"first\""},
        {"[{\"slots\": [\"q\"], " TILES ", \"n_groups\": 2, \"n_rot\": 2}]",
         "a rule of this kind has no key \"n_rot\""},
        {"[{" TILES ", \"n_groups\": 2}]", "expected \"slots\": a list of slots"},
        {"[{\"slots\": [], " TILES ", \"n_groups\": 2}]", "expected \"slots\": a list of slots"},
        {"[{\"slots\": [\"q\", 4], " TILES ", \"n_groups\": 2}]",
         "dump.json:2:18: order: expected a slot"},
        {"[{\"slots\": [\"emb\"], " TILES ", \"n_groups\": 2}]", "expected a slot of a layer"},
        {"[{\"slots\": [\"h0\"], " TILES ", \"n_groups\": 2}]", "expected a slot of a layer"},
        {"[{\"slots\": [\"h0_quux\"], " TILES ", \"n_groups\": 2}]", "expected a slot of a layer"},
        {"[{\"slots\": [\"\"], " TILES ", \"n_groups\": 2}]", "expected a slot of a layer"},
        {"[{\"slots\": [\"q\", \"k\", \"q\"], " TILES ", \"n_groups\": 2}]",
         "slot \"q\" has two rules"},
        {"[{\"slots\": [\"h0_q\"], " TILES ", \"n_groups\": 2},\n{\"slots\": [\"q\"], " PAIRS
         ", \"n_rot\": 2}]",
         "dump.json:2:13: order: slot \"h0_q\" has two rules"},
        {"[{\"slots\": [\"h0_q\", \"h3_q\", \"h0_q\"], " TILES ", \"n_groups\": 2}]",
         "slot \"h0_q\" has two rules"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct rp_tensor_set *set;
        struct rp_error err;
        char text[2200];
        write_json(bad[i].order);
        assert_int_equal(rp_tensor_set_open(folder, RP_LAYOUT_NPY, 0, &set, &err), RP_ERR_FORMAT);
        rp_error_text(&err, text, sizeof text);
        if (!strstr(text, bad[i].message))
            fail_msg("%s: no '%s' in: %s", bad[i].order, bad[i].message, text);
        assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
    }
}

static void a_slot_whose_width_an_order_does_not_fit_is_an_error_of_that_slot(void **state)
{
    struct rp_tensor tensor;
    struct rp_error err;
    bool is_mapped;
    (void)state;
    write_json(
        "[{\"slots\": [\"q\"], \"kind\": \"interleaved_pairs\", \"head_dim\": 5, \"n_rot\": 4}]");
    struct rp_tensor_set *set = open_set();
    assert_int_equal(rp_tensor_load(set, "h0_q", &tensor, &err), RP_ERR_MISMATCH);
    assert_non_null(strstr(err.where, "dump.json:2:13"));
    assert_non_null(
        strstr(err.message, "the 12 values of slot h0_q are not 0 and then heads of 5"));
    assert_true(is_in_hf_order(set, "h0_k", &is_mapped));
    rp_tensor_set_close(set);
}

static void what_no_reader_would_take_cannot_be_declared(void **state)
{
    static const char *const names[] = {"", ",q", "q,", "q,,k", "Q", "q k", "_q", "q\""};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names + 4; i++) {
        struct rp_dump *dump = rp_dump_open(folder, 1, "engine");
        const size_t bad = i - sizeof names / sizeof *names;
        int result;
        if (i < sizeof names / sizeof *names)
            result = rp_dump_order_interleaved(dump, names[i], 4, 4);
        else if (bad < 2)
            result = rp_dump_order_interleaved(dump, "q", 4, bad ? 6 : 3);
        else
            result = rp_dump_order_tiled(dump, "q", bad == 2 ? 0 : 1, bad == 2 ? 1 : 0, 0);
        assert_int_equal(result, -1);
        assert_non_null(rp_dump_error(dump));
        assert_int_equal(rp_dump_close(dump), -1);
        assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
    }
    assert_int_equal(rp_dump_order_interleaved(NULL, "q", 4, 4), 0); /* off */
    assert_int_equal(rp_dump_order_tiled(NULL, "q", 4, 4, 0), 0);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(interleaved_pairs_are_split_into_halves_and_the_rest_of_the_head_stays),
        cmocka_unit_test(tiled_heads_are_grouped_and_what_is_before_them_stays),
        cmocka_unit_test(a_width_that_is_no_multiple_fits_no_order),
        IN_FOLDER(a_dump_that_declares_its_order_is_read_in_hfs),
        IN_FOLDER(a_dump_that_declares_nothing_is_read_as_it_stands),
        IN_FOLDER(an_abandoned_dump_keeps_the_orders_declared_so_far),
        IN_FOLDER(a_bad_order_is_an_error_at_its_line),
        IN_FOLDER(a_slot_whose_width_an_order_does_not_fit_is_an_error_of_that_slot),
        IN_FOLDER(what_no_reader_would_take_cannot_be_declared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
