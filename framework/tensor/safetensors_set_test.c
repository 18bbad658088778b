/* A tensor set in a safetensors file: slots of every type, tokens, positions, and wrong files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "refparity/tensor_set.h"
#include "tensor/safetensors_builder.h"

static char folder[256], path[300];

static int make_folder(void **state)
{
    (void)state;
    rp_test_make_folder(folder);
    snprintf(path, sizeof path, "%s/states.safetensors", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    return rp_remove_tree(folder, NULL) == RP_OK ? 0 : -1;
}

static const char header[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"emb\":{\"dtype\":\"F32\",\"shape\":[1,2,2],\"data_offsets\":[0,16]},"
    "\"h0\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[16,24]},"
    "\"h1\":{\"dtype\":\"F16\",\"shape\":[2,1,2],\"data_offsets\":[24,32]},"
    "\"post_norm\":{\"dtype\":\"F64\",\"shape\":[2,2],\"data_offsets\":[32,64]},"
    "\"h0_attn\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,2],\"data_offsets\":[64,68]},"
    "\"tokens\":{\"dtype\":\"U16\",\"shape\":[2],\"data_offsets\":[68,72]},"
    "\"positions\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[72,80]},"
    "\"logits\":{\"dtype\":\"F32\",\"shape\":[1,3],\"data_offsets\":[80,92]}}";

static const float values[4] = {1.0f, -2.0f, 0.5f, 4.0f};

/* The same four values in each type. */
static void make_data(unsigned char data[92])
{
    static const uint16_t halves[4] = {0x3c00, 0xc000, 0x3800, 0x4400};
    static const uint16_t ids[2] = {7, 65535};
    static const int32_t positions[2] = {3, 5};
    memset(data, 0, 92);
    memcpy(data, values, 16);
    for (size_t i = 0; i < 4; i++) {
        const double wide = (double)values[i];
        memcpy(data + 16 + 2 * i, (const unsigned char *)&values[i] + 2, 2);
        memcpy(data + 24 + 2 * i, &halves[i], 2);
        memcpy(data + 32 + 8 * i, &wide, 8);
    }
    memcpy(data + 68, ids, sizeof ids);
    memcpy(data + 72, positions, sizeof positions);
    memcpy(data + 80, values, 12);
}

static struct rp_tensor_set *open_set(void)
{
    struct rp_tensor_set *set;
    struct rp_error err;
    if (rp_tensor_set_open(path, RP_LAYOUT_AUTO, 0, &set, &err) != RP_OK)
        fail_msg("%s", err.message);
    assert_int_equal(rp_tensor_set_layout(set), RP_LAYOUT_SAFETENSORS);
    return set;
}

static void slots_of_every_type_are_read(void **state)
{
    static const char *const slots[] = {"emb", "h0", "h1", "post_norm"};
    unsigned char data[92];
    const int64_t *ids;
    size_t n;
    (void)state;
    make_data(data);
    safetensors_write(path, header, data, sizeof data);
    struct rp_tensor_set *set = open_set();
    for (size_t i = 0; i < 4; i++) {
        struct rp_tensor tensor;
        assert_int_equal(rp_tensor_load(set, slots[i], &tensor, NULL), RP_OK);
        assert_int_equal(tensor.n_positions, 2);
        assert_int_equal(tensor.dim, 2);
        assert_int_equal(tensor.positions[1], 5);
        assert_memory_equal(tensor.data, values, sizeof values);
        rp_tensor_release(&tensor);
    }
    assert_int_equal(rp_tensor_set_tokens(set, &ids, &n, NULL), RP_OK);
    assert_int_equal(n, 2);
    assert_true(ids[1] == 65535);
    assert_int_equal(rp_tensor_set_find(set, "logits")->positions[0], 5);
    assert_string_equal(rp_tensor_set_find(set, "h0_attn")->error.message,
                        "expected float32, float16, bfloat16 or float64, found 'F8_E4M3'");
    assert_string_equal(rp_tensor_set_note(set, 1),
                        "post_norm is float64: it is rounded to float32");
    rp_tensor_set_close(set);
}

static void a_manifest_is_a_fixtures(void **state)
{
    static const char text[] =
        "{\"format\": \"refparity-fixture\", \"version\": 1, \"n_layers\": 7}";
    unsigned char data[sizeof text - 1 + 8] = {0};
    char json[512];
    size_t n;
    (void)state;
    memcpy(data, text, sizeof text - 1);
    snprintf(json, sizeof json,
             "{\"manifest\":{\"dtype\":\"U8\",\"shape\":[%zu],\"data_offsets\":[0,%zu]},"
             "\"emb\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[%zu,%zu]}}",
             sizeof text - 1, sizeof text - 1, sizeof text - 1, sizeof data);
    safetensors_write(path, json, data, sizeof data);
    struct rp_tensor_set *set = open_set();
    assert_int_equal(rp_tensor_set_n_layers(set), 7);
    assert_non_null(rp_tensor_set_manifest(set, &n));
    rp_tensor_set_close(set);
}

static void weights_are_no_states(void **state)
{
    static const char json[] = "{\"model.norm.weight\":{\"dtype\":\"F32\",\"shape\":[2],"
                               "\"data_offsets\":[0,8]}}";
    struct rp_tensor_set *set = NULL;
    struct rp_error err;
    (void)state;
    safetensors_write(path, json, values, 8);
    assert_int_equal(rp_tensor_set_open(path, RP_LAYOUT_AUTO, 0, &set, &err), RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "expected hidden states, found weights: model.norm.weight; "
                                     "refparity weights compares those");
}

static void a_file_truncated_at_any_byte_is_an_error(void **state)
{
    unsigned char data[92];
    size_t size;
    (void)state;
    make_data(data);
    unsigned char *bytes = safetensors_make(header, data, sizeof data, &size);
    for (size_t n = 0; n < size; n++) {
        struct rp_tensor_set *set = NULL;
        struct rp_error err;
        rp_test_write_file(folder, "states.safetensors", bytes, n);
        assert_int_not_equal(rp_tensor_set_open(path, RP_LAYOUT_AUTO, 0, &set, &err), RP_OK);
        assert_null(set);
    }
    free(bytes);
}

static void a_header_with_any_bit_flipped_is_an_error_or_read(void **state)
{
    unsigned char data[92];
    size_t size;
    (void)state;
    make_data(data);
    unsigned char *bytes = safetensors_make(header, data, sizeof data, &size);
    for (size_t bit = 0; bit < 8 * (size - sizeof data); bit++) {
        struct rp_tensor_set *set = NULL;
        bytes[bit / 8] ^= (unsigned char)(1U << bit % 8);
        rp_test_write_file(folder, "states.safetensors", bytes, size);
        bytes[bit / 8] ^= (unsigned char)(1U << bit % 8);
        if (rp_tensor_set_open(path, RP_LAYOUT_AUTO, 0, &set, NULL) != RP_OK)
            continue;
        for (size_t i = 0; i < rp_tensor_set_n_slots(set); i++) {
            struct rp_tensor tensor = {.data = NULL};
            if (rp_tensor_load(set, rp_tensor_set_slot(set, i)->name, &tensor, NULL) == RP_OK)
                rp_tensor_release(&tensor);
        }
        rp_tensor_set_close(set);
    }
    free(bytes);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(slots_of_every_type_are_read),
        IN_FOLDER(a_manifest_is_a_fixtures),
        IN_FOLDER(weights_are_no_states),
        IN_FOLDER(a_file_truncated_at_any_byte_is_an_error),
        IN_FOLDER(a_header_with_any_bit_flipped_is_an_error_or_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
