/* gpt-oss's experts: rows of gate and of up from a matrix that is transposed and has both in turn, and from
 * MXFP4; what does not fit is an error. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "architectures/gpt_oss_experts.h"
#include "base/file.h"
#include "base/scratch_test_util.h"
#include "tensor/safetensors_builder.h"

enum { EXPERTS = 2, OUT = 3, IN = 4, ALL = 2 * OUT };

/* A checkpoint of one file. */
static struct rp_checkpoint *open_with(char folder[256], const char *header, const void *data,
                                       size_t n)
{
    char path[300];
    struct rp_checkpoint *checkpoint = NULL;
    struct rp_error err;
    rp_test_make_folder(folder);
    rp_test_write_file(folder, "config.json", "{}", 2);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    safetensors_write(path, header, data, n);
    if (rp_checkpoint_open(folder, &checkpoint, &err) != RP_OK)
        fail_msg("%s", err.message);
    return checkpoint;
}

static void close_with(struct rp_checkpoint *checkpoint, const char *folder)
{
    rp_checkpoint_close(checkpoint);
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

/* Values are expert * 100 + column * 10 + row. */
static void rows_of_gate_and_up_are_columns_in_turn(void **state)
{
    (void)state;
    float values[EXPERTS * IN * ALL], rows[EXPERTS * OUT * IN];
    char folder[256];
    for (size_t i = 0; i < EXPERTS * IN * ALL; i++) {
        const size_t number = i / (IN * ALL) * 100 + i % ALL * 10 + i / ALL % IN;
        values[i] = (float)number;
    }
    struct rp_checkpoint *checkpoint =
        open_with(folder, "{\"e\":{\"dtype\":\"F32\",\"shape\":[2,4,6],\"data_offsets\":[0,192]}}",
                  values, sizeof values);
    for (size_t up = 0; up < 2; up++) {
        struct rp_gpt_oss_experts experts = {
            .n_experts = EXPERTS, .n_out = OUT, .n_in = IN, .n_all = ALL, .first = up, .step = 2};
        assert_int_equal(rp_gpt_oss_experts_find(checkpoint, "e", &experts, NULL), RP_OK);
        assert_int_equal(rp_gpt_oss_experts_rows(&experts, 0, EXPERTS * OUT, rows, NULL), RP_OK);
        for (size_t i = 0; i < EXPERTS * OUT * IN; i++) {
            const size_t row = i / IN % OUT;
            const size_t number = i / (OUT * IN) * 100 + (2 * row + up) * 10 + i % IN;
            assert_true(rows[i] == (float)number);
        }
        /* A part that begins in one expert and ends in the next. */
        float some[3 * IN];
        assert_int_equal(rp_gpt_oss_experts_rows(&experts, 2, 3, some, NULL), RP_OK);
        assert_memory_equal(some, rows + 2 * IN, sizeof some);
        assert_int_equal(rp_gpt_oss_experts_rows(&experts, 4, 3, some, NULL), RP_ERR_ARGUMENT);
    }
    close_with(checkpoint, folder);
}

static void biases_are_split_likewise(void **state)
{
    (void)state;
    const float values[] = {0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15};
    const float expected[] = {1, 3, 5, 11, 13, 15};
    float rows[EXPERTS * OUT];
    char folder[256];
    struct rp_gpt_oss_experts experts = {
        .n_experts = EXPERTS, .n_out = OUT, .n_in = 1, .n_all = ALL, .first = 1, .step = 2};
    struct rp_checkpoint *checkpoint =
        open_with(folder, "{\"e\":{\"dtype\":\"F32\",\"shape\":[2,6],\"data_offsets\":[0,48]}}",
                  values, sizeof values);
    assert_int_equal(rp_gpt_oss_experts_find(checkpoint, "e", &experts, NULL), RP_OK);
    assert_int_equal(rp_gpt_oss_experts_rows(&experts, 0, EXPERTS * OUT, rows, NULL), RP_OK);
    assert_memory_equal(rows, expected, sizeof rows);
    close_with(checkpoint, folder);
}

/* One expert, two rows of 32 values: the scales are 1 and 4, a byte has the values of neighbours, the lower half
 * that of the first. */
static void mxfp4_is_decoded_as_transformers_does(void **state)
{
    (void)state;
    static const float e2m1[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    unsigned char data[2 * 16 + 2];
    float row[32];
    char folder[256];
    for (size_t i = 0; i < 32; i++)
        data[i] = (unsigned char)(2 * i % 16 | (2 * i + 1) % 16 << 4);
    data[32] = 127;
    data[33] = 129;
    struct rp_gpt_oss_experts experts = {
        .n_experts = 1, .n_out = 1, .n_in = 32, .n_all = 2, .first = 1, .step = 2};
    struct rp_checkpoint *checkpoint =
        open_with(folder,
                  "{\"e_blocks\":{\"dtype\":\"U8\",\"shape\":[1,2,1,16],\"data_offsets\":[0,32]},"
                  "\"e_scales\":{\"dtype\":\"U8\",\"shape\":[1,2,1],\"data_offsets\":[32,34]}}",
                  data, sizeof data);
    assert_int_equal(rp_gpt_oss_experts_find(checkpoint, "e", &experts, NULL), RP_OK);
    assert_int_equal(rp_gpt_oss_experts_rows(&experts, 0, 1, row, NULL), RP_OK);
    for (size_t i = 0; i < 32; i++)
        assert_true(row[i] == (i % 16 < 8 ? 4 : -4) * e2m1[i % 8]);
    close_with(checkpoint, folder);
}

static void what_does_not_fit_is_an_error(void **state)
{
    (void)state;
    static const struct {
        const char *header, *message;
        enum rp_status status;
        size_t n_bytes;
    } cases[] = {
        {"{\"e\":{\"dtype\":\"F32\",\"shape\":[2,32],\"data_offsets\":[0,256]}}",
         "tensor 'e': expected the shape [1][32][2]", RP_ERR_MISMATCH, 256},
        {"{\"e\":{\"dtype\":\"F32\",\"shape\":[1,2,32],\"data_offsets\":[0,256]}}",
         "tensor 'e': expected the shape [1][32][2]", RP_ERR_MISMATCH, 256},
        {"{\"e\":{\"dtype\":\"I32\",\"shape\":[1,32,2],\"data_offsets\":[0,256]}}",
         "tensor 'e' is of dtype I32; F32, F16 and BF16 are read", RP_ERR_UNSUPPORTED, 256},
        {"{\"e_blocks\":{\"dtype\":\"U8\",\"shape\":[1,2,1,16],\"data_offsets\":[0,32]}}",
         "tensor 'e' is missing, and so are its blocks and scales", RP_ERR_MISSING, 32},
        {"{\"e_blocks\":{\"dtype\":\"U8\",\"shape\":[1,2,1,16],\"data_offsets\":[0,32]},"
         "\"e_scales\":{\"dtype\":\"U8\",\"shape\":[1,2,2],\"data_offsets\":[32,36]}}",
         "tensor 'e_scales': expected the shape [1][2][1]", RP_ERR_MISMATCH, 36},
        {"{\"e_blocks\":{\"dtype\":\"U8\",\"shape\":[1,2,1,16],\"data_offsets\":[0,32]},"
         "\"e_scales\":{\"dtype\":\"I8\",\"shape\":[1,2,1],\"data_offsets\":[32,34]}}",
         "tensor 'e_scales' is of dtype I8; MXFP4 is read as U8", RP_ERR_UNSUPPORTED, 34},
    };
    static const unsigned char data[256];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char folder[256];
        struct rp_error err = {.code = RP_OK};
        struct rp_gpt_oss_experts experts = {
            .n_experts = 1, .n_out = 1, .n_in = 32, .n_all = 2, .first = 0, .step = 2};
        struct rp_checkpoint *checkpoint =
            open_with(folder, cases[i].header, data, cases[i].n_bytes);
        assert_int_equal(rp_gpt_oss_experts_find(checkpoint, "e", &experts, &err), cases[i].status);
        assert_string_equal(err.message, cases[i].message);
        close_with(checkpoint, folder);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_gate_and_up_are_columns_in_turn),
        cmocka_unit_test(biases_are_split_likewise),
        cmocka_unit_test(mxfp4_is_decoded_as_transformers_does),
        cmocka_unit_test(what_does_not_fit_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
