/* tensor/set_names.h: names of other recorders become slots where it is clear which; where not, both readings
 * are said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "tensor/names.h"
#include "tensor/npz_writer_test_util.h"

enum { DIM = 4, ROWS = 2 };

static char folder[256];
static struct rp_names *names;

static int make_folder(void **state)
{
    (void)state;
    rp_test_make_folder(folder);
    names = NULL;
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    rp_names_free(names);
    return rp_remove_tree(folder, NULL) == RP_OK ? 0 : -1;
}

/* Rows whose first value is first. */
static void write_rows(const char *name, float first)
{
    struct rp_test_bytes npy = {NULL, 0, 0};
    char file[300];
    snprintf(file, sizeof file, "%s.npy", name);
    rp_test_npy_rows(&npy, ROWS, DIM, first);
    rp_test_write_file(folder, file, npy.data, npy.n);
    rp_test_free(&npy);
}

static void use_names(const char *text)
{
    rp_names_free(names);
    assert_int_equal(rp_names_parse(text, strlen(text), "names.txt", &names, NULL), RP_OK);
}

static enum rp_status try_open(struct rp_tensor_set **set, struct rp_error *err)
{
    const struct rp_tensor_set_options options = {
        .single_position = -1, .with_aliases = true, .names = names};
    return rp_tensor_set_open_with(folder, &options, set, err);
}

static struct rp_tensor_set *open_set(void)
{
    struct rp_tensor_set *set;
    struct rp_error err;
    if (try_open(&set, &err) != RP_OK)
        fail_msg("%s", err.message);
    return set;
}

static void assert_refused(const char *message)
{
    struct rp_tensor_set *set = NULL;
    struct rp_error err;
    assert_int_equal(try_open(&set, &err), RP_ERR_MISMATCH);
    assert_string_equal(err.message, message);
}

static void assert_slot(struct rp_tensor_set *set, const char *slot, float first)
{
    struct rp_tensor tensor;
    struct rp_error err;
    float value;
    if (rp_tensor_load(set, slot, &tensor, &err) != RP_OK)
        fail_msg("%s: %s", slot, err.message);
    assert_int_equal(tensor.n_positions, ROWS);
    assert_int_equal(tensor.dim, DIM);
    memcpy(&value, tensor.data, sizeof value);
    assert_true(value == first);
    rp_tensor_release(&tensor);
}

static void assert_notes(const struct rp_tensor_set *set, const char *const *notes)
{
    size_t n = 0;
    for (; notes[n]; n++) {
        assert_non_null(rp_tensor_set_note(set, n));
        assert_string_equal(rp_tensor_set_note(set, n), notes[n]);
    }
    assert_int_equal(rp_tensor_set_n_notes(set), n);
}

static void layers_of_a_script_are_slots(void **state)
{
    (void)state;
    write_rows("layer_0", 10);
    write_rows("layer_1", 20);
    write_rows("layer_10", 30);
    write_rows("embeddings", 1);
    write_rows("odd", 5);
    write_rows("an odd name", 5);
    struct rp_tensor_set *set = open_set();
    assert_slot(set, "emb", 1);
    assert_slot(set, "h0", 10);
    assert_slot(set, "h10", 30);
    assert_slot(set, "odd", 5);
    assert_null(rp_tensor_set_find(set, "layer_0"));
    assert_notes(set, (const char *const[]){"embeddings is read as emb",
                                            "layer_0 to layer_1 are read as h0 to h1",
                                            "layer_10 is read as h10", NULL});
    assert_int_equal(rp_tensor_set_n_others(set), 1);
    assert_string_equal(rp_tensor_set_other(set, 0), "an odd name");
    rp_tensor_set_close(set);
}

static void nothing_is_renamed_unless_it_is_asked_for(void **state)
{
    struct rp_tensor_set *set;
    (void)state;
    write_rows("layer_0", 10);
    assert_int_equal(rp_tensor_set_open(folder, RP_LAYOUT_AUTO, 0, &set, NULL), RP_OK);
    assert_null(rp_tensor_set_find(set, "h0"));
    assert_int_equal(rp_tensor_set_n_notes(set), 0);
    rp_tensor_set_close(set);
}

static void transformers_last_hidden_state_is_post_norm(void **state)
{
    (void)state;
    write_rows("hidden_states.0", 1);
    write_rows("hidden_states.1", 10);
    write_rows("hidden_states.2", 20);
    write_rows("hidden_states.3", 30);
    struct rp_tensor_set *set = open_set();
    assert_slot(set, "emb", 1);
    assert_slot(set, "h0", 10);
    assert_slot(set, "h1", 20);
    assert_slot(set, "post_norm", 30);
    assert_null(rp_tensor_set_find(set, "h2"));
    assert_int_equal(rp_tensor_set_n_layers(set), 3);
    assert_true(rp_tensor_set_lacks_last_layer(set));
    assert_notes(set,
                 (const char *const[]){
                     "hidden_states.0 is read as emb",
                     "hidden_states.1 to hidden_states.2 are read as h0 to h1",
                     "hidden_states.3 is read as post_norm: transformers' last hidden state is "
                     "taken after the final norm",
                     NULL});
    rp_tensor_set_close(set);
}

static void a_stack_of_hidden_states_is_the_same(void **state)
{
    struct rp_test_bytes npy = {NULL, 0, 0};
    float values[3 * ROWS * DIM];
    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        values[i] = (float)i;
    rp_test_npy(&npy, "<f4", "(3, 1, 2, 4)", values, sizeof values);
    rp_test_write_file(folder, "hidden_states.npy", npy.data, npy.n);
    rp_test_free(&npy);
    struct rp_tensor_set *set = open_set();
    assert_int_equal(rp_tensor_set_n_slots(set), 3);
    assert_slot(set, "emb", 0);
    assert_slot(set, "h0", 8);
    assert_slot(set, "post_norm", 16);
    rp_tensor_set_close(set);
    use_names("hidden_states h{l}");
    set = open_set();
    assert_slot(set, "h0", 0);
    assert_slot(set, "h2", 16);
    assert_false(rp_tensor_set_lacks_last_layer(set));
    assert_notes(set, (const char *const[]){
                          "hidden_states[0] to hidden_states[2] are read as h0 to h2", NULL});
    rp_tensor_set_close(set);
    use_names("");
    set = open_set();
    assert_int_equal(rp_tensor_load(set, "hidden_states", &(struct rp_tensor){.data = NULL}, NULL),
                     RP_ERR_UNSUPPORTED);
    rp_tensor_set_close(set);
}

/* [3][1][4] is three rows, too: the rule says what it is. */
static void a_stack_of_one_position_is_read_where_a_rule_names_it(void **state)
{
    struct rp_test_bytes npy = {NULL, 0, 0};
    struct rp_tensor tensor;
    float values[3 * DIM];
    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        values[i] = (float)i;
    rp_test_npy(&npy, "<f4", "(3, 1, 4)", values, sizeof values);
    rp_test_write_file(folder, "states.npy", npy.data, npy.n);
    rp_test_free(&npy);
    use_names("states hidden_states");
    struct rp_tensor_set *set = open_set();
    assert_int_equal(rp_tensor_set_n_slots(set), 3);
    assert_int_equal(rp_tensor_load(set, "post_norm", &tensor, NULL), RP_OK);
    assert_int_equal(tensor.n_positions, 1);
    assert_int_equal(tensor.positions[0], 0);
    assert_int_equal(tensor.dim, DIM);
    assert_memory_equal(tensor.data, values + (size_t)2 * DIM, DIM * sizeof *values);
    rp_tensor_release(&tensor);
    rp_tensor_set_close(set);
    use_names("states h{l}");
    set = open_set();
    assert_non_null(rp_tensor_set_find(set, "h2"));
    rp_tensor_set_close(set);
}

static void hidden_states_with_a_gap_are_ambiguous(void **state)
{
    (void)state;
    write_rows("hidden_states.1", 10);
    write_rows("hidden_states.2", 20);
    assert_refused(
        "hidden_states.1 to hidden_states.2 are 2 tensors: as transformers' hidden_states, "
        "which are emb, h0, h1 ... and post_norm, entries 0 to 2 are expected; or are they "
        "the layers' outputs, h1 to h2? say it in a file for --names: \"hidden_states.{l} "
        "h{l}\"");
    use_names("hidden_states.{l} h{l}\n");
    struct rp_tensor_set *set = open_set();
    assert_slot(set, "h1", 10);
    rp_tensor_set_close(set);
}

static void layers_without_layer_0_are_ambiguous(void **state)
{
    (void)state;
    write_rows("layer_1", 10);
    write_rows("layer_2", 20);
    assert_refused(
        "layer_1 is h0 where layers count from 1, h1 where they count from 0, and there is "
        "no layer 0: say it in a file for --names: \"layer_{l+1} h{l}\" or \"layer_{l} "
        "h{l}\"");
    use_names("layer_{l+1} h{l}\n");
    struct rp_tensor_set *set = open_set();
    assert_slot(set, "h0", 10);
    assert_slot(set, "h1", 20);
    rp_tensor_set_close(set);
}

static void two_names_of_one_slot_are_ambiguous_unless_they_are_equal(void **state)
{
    (void)state;
    write_rows("layer_0", 10);
    write_rows("model.layers.0", 11);
    assert_refused(
        "layer_0 and model.layers.0 are both read as h0, and hold other values: say it in a "
        "file for --names which one it is: \"layer_0 h0\", \"model.layers.0 -\"");
    use_names("layer_0 h0\nmodel.layers.0 -\n");
    struct rp_tensor_set *set = open_set();
    assert_slot(set, "h0", 10);
    assert_notes(
        set, (const char *const[]){"layer_0 is read as h0", "model.layers.0 is left out", NULL});
    rp_tensor_set_close(set);
    use_names("layer_{l} h{l}\nmodel.layers.{l} h{l}\n");
    write_rows("model.layers.0", 10);
    set = open_set();
    assert_slot(set, "h0", 10);
    assert_int_equal(rp_tensor_set_n_slots(set), 1);
    rp_tensor_set_close(set);
}

static void a_slots_own_name_goes_before_an_alias(void **state)
{
    (void)state;
    write_rows("h0", 10);
    write_rows("layer_0", 11);
    write_rows("norm", 12);
    write_rows("post_norm", 13);
    struct rp_tensor_set *set = open_set();
    assert_slot(set, "h0", 10);
    assert_slot(set, "layer_0", 11);
    assert_slot(set, "post_norm", 13);
    assert_int_equal(rp_tensor_set_n_notes(set), 0);
    rp_tensor_set_close(set);
}

static void a_last_hidden_state_that_is_not_post_norm_is_ambiguous(void **state)
{
    (void)state;
    write_rows("hidden_states.0", 1);
    write_rows("hidden_states.1", 10);
    write_rows("hidden_states.2", 20);
    write_rows("post_norm", 30);
    struct rp_tensor_set *set = NULL;
    struct rp_error err;
    assert_int_equal(try_open(&set, &err), RP_ERR_MISMATCH);
    assert_non_null(strstr(err.message, "are both read as post_norm, and hold other values"));
    write_rows("post_norm", 20);
    set = open_set();
    assert_slot(set, "post_norm", 20);
    rp_tensor_set_close(set);
}

static void token_ids_have_common_names(void **state)
{
    static const int32_t ids[] = {5, 6};
    struct rp_test_bytes npy = {NULL, 0, 0};
    const int64_t *read;
    size_t n;
    (void)state;
    rp_test_npy(&npy, ">i4", "(1, 2)", ids, sizeof ids);
    rp_test_write_file(folder, "input_ids.npy", npy.data, npy.n);
    rp_test_free(&npy);
    write_rows("h0", 1);
    struct rp_tensor_set *set = open_set();
    assert_int_equal(rp_tensor_set_n_slots(set), 1);
    assert_int_equal(rp_tensor_set_tokens(set, &read, &n, NULL), RP_OK);
    assert_int_equal(n, 2);
    assert_true(read[0] == 5 << 24);
    rp_tensor_set_close(set);
}

static void a_dump_that_has_refparitys_manifest_has_its_names(void **state)
{
    static const char json[] =
        "{\"format\": \"refparity-dump\", \"version\": 1, \"complete\": true}";
    (void)state;
    write_rows("layer_0", 10);
    rp_test_write_file(folder, "dump.json", json, strlen(json));
    struct rp_tensor_set *set = open_set();
    assert_slot(set, "layer_0", 10);
    rp_tensor_set_close(set);
    use_names("layer_{l} h{l}");
    set = open_set();
    assert_slot(set, "h0", 10);
    rp_tensor_set_close(set);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(layers_of_a_script_are_slots),
        IN_FOLDER(nothing_is_renamed_unless_it_is_asked_for),
        IN_FOLDER(transformers_last_hidden_state_is_post_norm),
        IN_FOLDER(a_stack_of_hidden_states_is_the_same),
        IN_FOLDER(a_stack_of_one_position_is_read_where_a_rule_names_it),
        IN_FOLDER(hidden_states_with_a_gap_are_ambiguous),
        IN_FOLDER(layers_without_layer_0_are_ambiguous),
        IN_FOLDER(two_names_of_one_slot_are_ambiguous_unless_they_are_equal),
        IN_FOLDER(a_slots_own_name_goes_before_an_alias),
        IN_FOLDER(a_last_hidden_state_that_is_not_post_norm_is_ambiguous),
        IN_FOLDER(token_ids_have_common_names),
        IN_FOLDER(a_dump_that_has_refparitys_manifest_has_its_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
