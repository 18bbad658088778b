/* Slot names: what they mean and how they are ordered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tensor/set.h"

static void every_part_of_a_layer_is_recognised_and_written_back(void **state)
{
    static const struct {
        const char *name;
        enum rp_slot_part part;
        int layer, is_required;
    } slots[] = {
        {"emb", RP_PART_EMB, -1, 1},
        {"h0_in", RP_PART_IN, 0, 0},
        {"h12_postattn", RP_PART_POSTATTN, 12, 0},
        {"h3_preattn", RP_PART_PREATTN, 3, 0},
        {"h3_q", RP_PART_Q, 3, 0},
        {"h3_qkv", RP_PART_QKV, 3, 0},
        {"h3_a", RP_PART_A, 3, 0},
        {"h3_attn", RP_PART_ATTN, 3, 0},
        {"h3_attnout", RP_PART_ATTNOUT, 3, 0},
        {"h7_preffn", RP_PART_PREFFN, 7, 0},
        {"h7_ffnout", RP_PART_FFNOUT, 7, 0},
        {"h99999", RP_PART_OUTPUT, 99999, 1},
        {"post_norm", RP_PART_POST_NORM, -1, 1},
        {"logits", RP_PART_LOGITS, -1, 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++) {
        char name[RP_SLOT_NAME_SIZE];
        int layer = 5;
        assert_int_equal(rp_slot_parse(slots[i].name, &layer), slots[i].part);
        assert_int_equal(layer, slots[i].layer);
        assert_int_equal(rp_slot_is_required(slots[i].name), slots[i].is_required);
        assert_string_equal(rp_slot_name(slots[i].part, layer, name), slots[i].name);
    }
}

static void anything_else_is_other(void **state)
{
    static const char *const names[] = {"",     "h",     "h007",    "h00",        "h7_x", "h7_",
                                        "h7in", "h-1",   "h100000", "h7_in_",     "H7",   "emb ",
                                        "h 7",  "logit", "h7_IN",   "h4294967296"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int layer = 5;
        assert_int_equal(rp_slot_parse(names[i], &layer), RP_PART_OTHER);
        assert_int_equal(layer, -1);
        assert_false(rp_slot_is_required(names[i]));
    }
}

static void order_is_that_of_execution(void **state)
{
    static const char *const names[] = {
        "emb", "h0_in",  "h0_postattn", "h0_preffn", "h0_ffnout", "h0",   "h1_in", "h1",
        "h2",  "h10_in", "h10",         "post_norm", "logits",    "attn", "h007",  "zeta"};
    const size_t n = sizeof names / sizeof *names;
    (void)state;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            int order = rp_slot_order(names[i], names[j]);
            assert_int_equal((order > 0) - (order < 0), (i > j) - (i < j));
        }
    }
}

static void a_models_required_slots_are_listed_in_forward_order(void **state)
{
    static const char *const names[] = {"emb", "h0", "h1", "post_norm", "logits"};
    char name[RP_SLOT_NAME_SIZE];
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_string_equal(rp_required_slot(2, i, name), names[i]);
        assert_true(rp_slot_is_required(name));
    }
    assert_null(rp_required_slot(2, 5, name));
}

static void layers_are_what_compares_them_and_operations_are_everything(void **state)
{
    static const char *const of_layers[] = {"emb",       "h3_in", "h3_postattn", "h3_preffn",
                                            "h3_ffnout", "h3",    "post_norm",   "logits"};
    (void)state;
    size_t n = 0;
    for (enum rp_slot_part part = RP_PART_EMB; part <= RP_PART_OTHER; part++) {
        n += rp_slot_level_has(RP_SLOTS_LAYERS, part);
        assert_true(rp_slot_level_has(RP_SLOTS_OPERATIONS, part));
    }
    assert_int_equal(n, sizeof of_layers / sizeof *of_layers);
    for (size_t i = 0; i < n; i++) {
        int layer;
        assert_true(rp_slot_level_has(RP_SLOTS_LAYERS, rp_slot_parse(of_layers[i], &layer)));
    }
    assert_false(rp_slot_level_has(RP_SLOTS_LAYERS, RP_PART_ACT));
}

static void a_level_is_written_and_read_by_its_name(void **state)
{
    enum rp_slot_level level = RP_SLOTS_LAYERS;
    struct rp_error err;
    (void)state;
    assert_string_equal(rp_slot_level_name(RP_SLOTS_LAYERS), "layers");
    assert_string_equal(rp_slot_level_name(RP_SLOTS_OPERATIONS), "operations");
    assert_int_equal(rp_slot_level_parse("operations", &level, &err), RP_OK);
    assert_int_equal(level, RP_SLOTS_OPERATIONS);
    assert_int_equal(rp_slot_level_parse("layer", &level, &err), RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "slots 'layer' is none of layers, operations");
    assert_int_equal(level, RP_SLOTS_OPERATIONS); /* untouched */
    assert_int_equal(rp_slot_level_parse("layers", &level, NULL), RP_OK);
    assert_int_equal(level, RP_SLOTS_LAYERS);
}

static void names_that_could_leave_the_folder_are_no_slot_names(void **state)
{
    static const char *const bad[] = {"",   ".",  "..",  "../a", "a/b",
                                      ".a", "-a", "a b", "a\n",  "\xc3\xa4"};
    char longest[RP_SLOT_NAME_SIZE + 1];
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(rp_slot_is_name(bad[i], strlen(bad[i])));
    memset(longest, 'a', sizeof longest);
    assert_true(rp_slot_is_name(longest, RP_SLOT_NAME_SIZE - 1));
    assert_false(rp_slot_is_name(longest, RP_SLOT_NAME_SIZE));
    assert_true(rp_slot_is_name("h7_q.rope-2", 11));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_part_of_a_layer_is_recognised_and_written_back),
        cmocka_unit_test(anything_else_is_other),
        cmocka_unit_test(order_is_that_of_execution),
        cmocka_unit_test(a_models_required_slots_are_listed_in_forward_order),
        cmocka_unit_test(layers_are_what_compares_them_and_operations_are_everything),
        cmocka_unit_test(a_level_is_written_and_read_by_its_name),
        cmocka_unit_test(names_that_could_leave_the_folder_are_no_slot_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
