/* Wrong conversions: each is found by the tensor's name, or the key's, and named; nothing else is. The right
 * files pass. Files are made from the tiny ones by moving bytes: rows are whole numbers of blocks. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "refparity/weights.h"
#include "weights/gguf_computed.h"
#include "weights/gguf_internal.h"
#include "weights/wrong_files_test_util.h"

static void the_tiny_files_are_their_checkpoints(void **state)
{
    (void)state;
    rp_test_expect_right_files(rp_test_open_subject);
}

static void wrong_tensors_are_named_and_explained(void **state)
{
    (void)state;
    static const struct {
        const char *model, *type, *tensor;
        rp_spoil_fn *spoil;
        const char *cause;
    } cases[] = {
        {"llama", "bf16", "blk.1.attn_q.weight", rp_spoil_unpermute, "was not applied"},
        {"llama", "q8_0", "blk.1.attn_q.weight", rp_spoil_unpermute, "was not applied"},
        {"llama", "q4_0", "blk.3.attn_k.weight", rp_spoil_unpermute, "was not applied"},
        {"llama", "bf16", "blk.0.attn_k.weight", rp_spoil_permute_twice, "reordered twice"},
        {"llama", "q8_0", "blk.0.attn_q.weight", rp_spoil_permute_twice, "reordered twice"},
        {"llama", "q4_0", "blk.0.attn_q.weight", rp_spoil_permute_twice, "reordered twice"},
        {"qwen3", "bf16", "blk.2.attn_q.weight", rp_spoil_permute_as_llama,
         "permuted as Llama's Q and K"},
        {"qwen3", "q8_0", "blk.2.attn_k.weight", rp_spoil_permute_as_llama,
         "permuted as Llama's Q and K"},
        {"qwen35", "bf16", "blk.0.attn_qkv.weight", rp_spoil_unpermute, "V heads dealt out"},
        {"qwen35", "q8_0", "blk.5.attn_gate.weight", rp_spoil_unpermute, "V heads dealt out"},
        {"qwen35", "q4_0", "blk.4.ssm_beta.weight", rp_spoil_unpermute, "V heads dealt out"},
        {"qwen35", "bf16", "blk.6.ssm_out.weight", rp_spoil_unpermute_columns,
         "its columns are in the"},
        {"qwen35", "bf16", "blk.1.ssm_a", rp_spoil_undo_minus_exp, "-exp(x) was not applied"},
        {"qwen35", "bf16", "blk.1.attn_norm.weight", rp_spoil_add_one, "1 is added twice"},
        {"qwen35", "q8_0", "output_norm.weight", rp_spoil_add_one, "1 is added twice"},
        {"qwen35", "q8_0", "blk.3.attn_q_norm.weight", rp_spoil_take_one, "1 is not added"},
        {"qwen35", "q8_0", "blk.2.ssm_norm.weight", rp_spoil_add_one, "this one does not"},
        {"llama", "q8_0", "blk.0.ffn_norm.weight", rp_spoil_add_one, "this one does not"},
        {"llama", "q8_0", "output_norm.weight", rp_spoil_halve, "multiplied by 0.5"},
        {"llama", "q8_0", "blk.2.ffn_up.weight", rp_spoil_double_scales, "multiplied by 2"},
        {"llama", "q4_0", "blk.2.ffn_up.weight", rp_spoil_double_scales, "multiplied by"},
        {"llama", "bf16", "blk.2.attn_output.weight", rp_spoil_transpose_bf16, "it is transposed"},
        {"qwen3", "bf16", "blk.2.attn_output.weight", rp_spoil_transpose_bf16, "it is transposed"},
        {"qwen3", "bf16", "blk.2.ffn_down.weight", rp_spoil_copy_row_1_to_0,
         "row 0 is the checkpoint's row 1"},
        {"llama", "bf16", "blk.2.ffn_up.weight", rp_spoil_take_layer_1,
         "what blk.1.ffn_up.weight has"},
        {"qwen3", "q8_0", "blk.3.attn_v.weight", rp_spoil_take_layer_1,
         "what blk.1.attn_v.weight has"},
        {"qwen35", "q4_0", "blk.2.ffn_gate.weight", rp_spoil_take_layer_1,
         "what blk.1.ffn_gate.weight has"},
        {"llama", "bf16", "blk.2.ffn_gate.weight", rp_spoil_reverse_rows, "row 0 is row 191"},
        {"llama", "q8_0", "output.weight", rp_spoil_reverse_rows, "row 0 is row 1023"},
        {"llama", "q4_0", "blk.1.ffn_down.weight", rp_spoil_clear, "never written"},
        {"llama", "bf16", "blk.1.ffn_down.weight", rp_spoil_clear_rows_10_to_19, "never written"},
        {"llama", "q4_0", "blk.1.ffn_up.weight", rp_spoil_pack_neighbours,
         "packed in another order"},
        {"llama", "q4_0", "blk.1.ffn_up.weight", rp_spoil_exchange_nibbles,
         "the low half of a byte is the earlier value"},
        {"llama", "bf16", "blk.1.attn_norm.weight", rp_spoil_write_nan,
         "has the value nan in column 5"},
        {"llama", "q8_0", "blk.1.attn_v.weight", rp_spoil_move_one_value, ""},
        {"llama", "bf16", "blk.1.attn_v.weight", rp_spoil_move_one_bit, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rp_wrong_file subject;
        rp_test_open_subject(&subject, cases[i].model, cases[i].type);
        cases[i].spoil(&subject, cases[i].tensor);
        rp_test_compare(&subject);
        rp_test_expect_wrong(&subject, cases[i].tensor, cases[i].cause);
        rp_test_close_subject(&subject);
    }
}

static void the_failing_rows_are_counted(void **state)
{
    (void)state;
    struct rp_wrong_file subject;
    rp_test_open_subject(&subject, "llama", "bf16");
    rp_spoil_clear_rows_10_to_19(&subject, "blk.1.ffn_down.weight");
    rp_test_compare(&subject);
    assert_int_equal(subject.wrong[0].n_rows, 64);
    assert_int_equal(subject.wrong[0].n_failing, 10);
    assert_int_equal(subject.wrong[0].first, 10);
    assert_int_equal(subject.wrong[0].last, 19);
    assert_non_null(strstr(subject.wrong[0].message, "10 of 64 rows"));
    assert_non_null(strstr(subject.wrong[0].message, "from row 10 to row 19"));
    rp_test_close_subject(&subject);
}

/* A file whose steps are wider than its values need is not excused by them. */
static void a_coarse_quantization_is_not_excused_by_its_own_step(void **state)
{
    (void)state;
    struct rp_wrong_file subject;
    rp_test_open_subject(&subject, "llama", "q8_0");
    const char name[] = "blk.1.ffn_up.weight";
    rp_spoil_coarsen_q8_0(&subject, name);
    rp_test_compare(&subject);
    rp_test_expect_wrong(&subject, name, "");
    rp_test_close_subject(&subject);
}

static void replace_bytes(struct rp_wrong_file *subject, const char *find, const char *replace)
{
    const size_t n = strlen(find);
    for (size_t i = 0; i + n <= subject->size; i++)
        if (memcmp(subject->bytes + i, find, n) == 0) {
            memcpy(subject->bytes + i, replace, n);
            return;
        }
    fail_msg("no %s", find);
}

static void a_renamed_tensor_is_missing_and_surplus(void **state)
{
    (void)state;
    struct rp_wrong_file subject;
    rp_test_open_subject(&subject, "llama", "q8_0");
    replace_bytes(&subject, "rope_freqs.weight", "rope_fr3qs.weight");
    rp_test_compare(&subject);
    assert_int_equal(subject.n_wrong, 2);
    assert_string_equal(subject.wrong[0].name, "rope_freqs.weight");
    assert_non_null(strstr(subject.wrong[0].cause, "rope scaling was not converted"));
    assert_string_equal(subject.wrong[1].name, "rope_fr3qs.weight");
    assert_non_null(strstr(subject.wrong[1].message, "surplus"));
    rp_test_close_subject(&subject);
}

/* Every number that the checkpoint fixes, changed in the file. */
static void wrong_metadata_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        const char *key;
    } keys[] = {
        {"llama", "llama.block_count"},
        {"llama", "llama.context_length"},
        {"llama", "llama.embedding_length"},
        {"llama", "llama.feed_forward_length"},
        {"llama", "llama.attention.head_count"},
        {"llama", "llama.attention.head_count_kv"},
        {"llama", "llama.attention.key_length"},
        {"llama", "llama.attention.value_length"},
        {"llama", "llama.attention.layer_norm_rms_epsilon"},
        {"llama", "llama.rope.freq_base"},
        {"llama", "llama.rope.dimension_count"},
        {"llama", "llama.vocab_size"},
        {"llama", "tokenizer.ggml.bos_token_id"},
        {"qwen3", "tokenizer.ggml.eos_token_id"},
        {"qwen35", "qwen35.ssm.conv_kernel"},
        {"qwen35", "qwen35.ssm.state_size"},
        {"qwen35", "qwen35.ssm.group_count"},
        {"qwen35", "qwen35.ssm.time_step_rank"},
        {"qwen35", "qwen35.ssm.inner_size"},
        {"qwen35", "qwen35.full_attention_interval"},
        {"qwen35", "qwen35.attention.recurrent_layers"},
        {"qwen35", "qwen35.rope.dimension_sections"},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct rp_wrong_file subject;
        rp_test_open_subject(&subject, keys[i].model, "q4_0");
        const struct rp_gguf_value *value = rp_gguf_find_value(subject.file, keys[i].key);
        assert_non_null(value);
        /* FP32 from another decimal may be off by its last bit */
        const size_t at = value->offset + (value->kind == RP_GGUF_FLOAT32 ? 1 : 0);
        subject.bytes[at] = (char)(subject.bytes[at] ^ 1);
        rp_test_compare(&subject);
        rp_test_expect_wrong(&subject, keys[i].key, "");
        assert_non_null(strstr(subject.wrong[0].message, "the checkpoint says"));
        rp_test_close_subject(&subject);
    }
}

/* A key under another name is absent: what readers then take is right, or it is not. */
static void an_absent_key_is_what_readers_take_for_it(void **state)
{
    (void)state;
    struct rp_wrong_file subject;
    rp_test_open_subject(&subject, "llama", "q4_0");
    replace_bytes(&subject, "llama.attention.key_length", "llama.attention.key_l3ngth");
    rp_test_compare(&subject);
    assert_int_equal(subject.n_wrong, 0); /* 64 / 4 heads */
    replace_bytes(&subject, "llama.rope.freq_base", "llama.rope.fr3q_base");
    rp_test_compare(&subject);
    rp_test_expect_wrong(&subject, "llama.rope.freq_base", "rope_theta was not converted");
    rp_test_close_subject(&subject);
    rp_test_open_subject(&subject, "llama", "q4_0");
    replace_bytes(&subject, "llama.attention.layer_norm_rms_epsilon",
                  "llama.attention.layer_norm_rms_3psilon");
    rp_test_compare(&subject);
    assert_int_equal(subject.n_wrong, 1);
    assert_string_equal(subject.wrong[0].name, "llama.attention.layer_norm_rms_epsilon");
    rp_test_close_subject(&subject);
}

static void a_key_that_the_checkpoint_has_nothing_of_is_named(void **state)
{
    (void)state;
    struct rp_wrong_file subject;
    rp_test_open_subject(&subject, "llama", "q4_0");
    /* a key of the same length that the comparison does not need */
    replace_bytes(&subject, "llama.context_length", "llama.residual_scale");
    rp_test_compare(&subject);
    rp_test_expect_wrong(&subject, "llama.residual_scale", "");
    rp_test_close_subject(&subject);
}

/* The type in the tensor's entry: name, number of dimensions, these, type. */
static void set_type(struct rp_wrong_file *subject, const char *name, unsigned char type)
{
    const size_t n = strlen(name), n_dims = rp_test_tensor_of(subject, name)->n_dims;
    for (size_t i = 0; i + n <= subject->size; i++)
        if (memcmp(subject->bytes + i, name, n) == 0) {
            subject->bytes[i + n + 4 + 8 * n_dims] = (char)type;
            return;
        }
    fail_msg("no %s", name);
}

/* A tensor of a type that ggml does not have. */
static void a_type_whose_rounding_has_no_limit_is_said_and_the_rest_is_compared(void **state)
{
    (void)state;
    struct rp_wrong_file subject;
    rp_test_open_subject(&subject, "llama", "q4_0");
    rp_spoil_double_scales(&subject, "blk.3.ffn_up.weight");
    set_type(&subject, "blk.1.ffn_up.weight", 99);
    rp_test_compare(&subject);
    assert_int_equal(subject.n_wrong, 2);
    assert_string_equal(subject.wrong[0].name, "blk.1.ffn_up.weight");
    assert_true(subject.wrong[0].is_not_compared && !subject.wrong[1].is_not_compared);
    assert_string_equal(subject.wrong[0].message,
                        "blk.1.ffn_up.weight cannot be compared: type unknown has no decoder here");
    assert_string_equal(subject.wrong[1].name, "blk.3.ffn_up.weight");
    rp_test_close_subject(&subject);
}

/* Failing rows of two kinds, far apart; of the second kind are odd rows alone. */
static void a_cause_is_judged_on_rows_from_all_over_the_tensor(void **state)
{
    (void)state;
    struct rp_wrong_file subject;
    rp_test_open_subject(&subject, "llama", "bf16");
    const struct rp_gguf_tensor *tensor = rp_test_tensor_of(&subject, "output.weight");
    unsigned char *bytes = rp_test_bytes_of(&subject, "output.weight");
    memset(bytes, 0, 17 * tensor->row_bytes);
    for (size_t r = 701; r < 1000; r += 2)
        memset(bytes + r * tensor->row_bytes, 0x3f, tensor->row_bytes);
    rp_test_compare(&subject);
    assert_int_equal(subject.wrong[0].n_failing, 167);
    rp_test_expect_wrong(&subject, "output.weight", ""); /* not: never written */
    rp_test_close_subject(&subject);
}

static void another_models_checkpoint_is_one_line(void **state)
{
    (void)state;
    static const struct {
        const char *model, *checkpoint, *cause;
    } cases[] = {{"qwen35", "llama", "output.weight is missing, the checkpoint's is [1024][64]"},
                 {"qwen3", "llama", "output.weight is missing"},
                 {"llama", "qwen3", "blk.0.attn_q_norm.weight is missing"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rp_wrong_file subject;
        char folder[512], message[128];
        rp_test_open_subject(&subject, cases[i].model, "q8_0");
        rp_gguf_close(subject.checkpoint);
        snprintf(folder, sizeof folder, "%s/fixtures/tiny/%s", RP_SOURCE_DIR, cases[i].checkpoint);
        assert_int_equal(rp_gguf_open_checkpoint(folder, &subject.checkpoint, NULL), RP_OK);
        rp_test_compare(&subject);
        rp_test_expect_wrong(&subject, "general.architecture", cases[i].cause);
        assert_int_equal(subject.n_tensors + subject.n_values, 1);
        snprintf(message, sizeof message,
                 "another model's: architecture \"%s\", the checkpoint's \"%s\"; ", cases[i].model,
                 cases[i].checkpoint);
        assert_non_null(strstr(subject.wrong[0].message, message));
        rp_test_close_subject(&subject);
    }
}

/* 0.6 of the F16 at bytes. */
static void scale_half(unsigned char *bytes)
{
    unsigned bits = (unsigned)bytes[0] | (unsigned)bytes[1] << 8;
    unsigned significand = ((bits & 0x3ff) | 0x400) * 6 / 5; /* twice that, of an exponent less */
    bits = (bits & 0xfc00) - 0x400;
    if (significand >= 0x800) {
        significand /= 2;
        bits += 0x400;
    }
    bits |= significand & 0x3ff;
    bytes[0] = (unsigned char)bits;
    bytes[1] = (unsigned char)(bits >> 8);
}

/* One of six blocks whose scale is 0.6 of what its largest value needs, as an importance matrix may choose it:
 * right where the file says that it had one, else a row that is too far off. */
static void an_importance_matrix_may_choose_other_scales(void **state)
{
    (void)state;
    for (int is_said = 0; is_said < 2; is_said++) {
        struct rp_wrong_file subject;
        rp_test_open_subject(&subject, "llama", "q4_0");
        scale_half(rp_test_bytes_of(&subject, "blk.1.ffn_down.weight"));
        if (is_said)
            replace_bytes(&subject, "tokenizer.ggml.merges", "quantize.imatrix.file");
        rp_test_compare(&subject);
        if (is_said)
            assert_int_equal(subject.n_wrong, 0);
        else
            rp_test_expect_wrong(&subject, "blk.1.ffn_down.weight", "");
        rp_test_close_subject(&subject);
    }
}

/* Beside a checkpoint without rope scaling. */
static void rope_factors_of_one_are_surplus_and_right(void **state)
{
    (void)state;
    static const char tiny[] = RP_SOURCE_DIR "/fixtures/tiny/llama/";
    char folder[256], path[512], *config = NULL;
    size_t n = 0;
    rp_test_make_folder(folder);
    snprintf(path, sizeof path, "%sconfig.json", tiny);
    assert_int_equal(rp_file_read(path, 1 << 16, &config, &n, NULL), RP_OK);
    char *rope_type = strstr(config, "rope_type");
    assert_non_null(rope_type);
    rope_type[8] = '3';
    rp_test_write_file(folder, "config.json", config, n);
    free(config);
    char target[512];
    snprintf(target, sizeof target, "%smodel.safetensors", tiny);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_int_equal(symlink(target, path), 0);
    for (int are_ones = 0; are_ones < 2; are_ones++) {
        struct rp_wrong_file subject;
        rp_test_open_subject(&subject, "llama", "q8_0");
        rp_gguf_close(subject.checkpoint);
        assert_int_equal(rp_gguf_open_checkpoint(folder, &subject.checkpoint, NULL), RP_OK);
        if (are_ones)
            rp_test_map_f32(&subject, "rope_freqs.weight", 0, 1);
        rp_test_compare(&subject);
        if (are_ones)
            assert_int_equal(subject.n_wrong, 0);
        else
            rp_test_expect_wrong(&subject, "rope_freqs.weight", "");
        rp_test_close_subject(&subject);
    }
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

/* No distance is told of what is not finite. */
static void values_that_are_not_finite_are_said(void **state)
{
    struct rp_wrong_file subject;
    (void)state;
    rp_test_open_subject(&subject, "llama", "bf16");
    rp_spoil_write_nan(&subject, "blk.1.attn_norm.weight");
    rp_test_compare(&subject);
    assert_int_equal(subject.n_wrong, 1);
    assert_string_equal(subject.wrong[0].message,
                        "blk.1.attn_norm.weight (F32): 1 of 1 rows are not the checkpoint's; row 0 "
                        "has values that are not finite, the first in column 5");
    rp_test_close_subject(&subject);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tiny_files_are_their_checkpoints),
        cmocka_unit_test(wrong_tensors_are_named_and_explained),
        cmocka_unit_test(the_failing_rows_are_counted),
        cmocka_unit_test(a_coarse_quantization_is_not_excused_by_its_own_step),
        cmocka_unit_test(a_renamed_tensor_is_missing_and_surplus),
        cmocka_unit_test(wrong_metadata_is_named),
        cmocka_unit_test(an_absent_key_is_what_readers_take_for_it),
        cmocka_unit_test(a_key_that_the_checkpoint_has_nothing_of_is_named),
        cmocka_unit_test(a_type_whose_rounding_has_no_limit_is_said_and_the_rest_is_compared),
        cmocka_unit_test(a_cause_is_judged_on_rows_from_all_over_the_tensor),
        cmocka_unit_test(another_models_checkpoint_is_one_line),
        cmocka_unit_test(an_importance_matrix_may_choose_other_scales),
        cmocka_unit_test(values_that_are_not_finite_are_said),
        cmocka_unit_test(rope_factors_of_one_are_surplus_and_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
