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

#include "base/file.h"
#include "refparity/weights.h"
#include "weights/gguf_computed.h"
#include "weights/gguf_internal.h"

#define MAX_WRONG 64

/* A tiny file in memory, to be spoilt, and its checkpoint. */
struct subject {
    char *bytes;
    size_t size;
    struct rp_gguf *file, *checkpoint;
    size_t n_tensors, n_values, n_wrong;
    struct rp_weights_finding wrong[MAX_WRONG];
};

static void open_subject(struct subject *subject, const char *model, const char *type)
{
    char path[512];
    struct rp_error err;
    *subject = (struct subject){.bytes = NULL};
    snprintf(path, sizeof path, "%s/fixtures/tiny/%s/%s-%s.gguf", RP_SOURCE_DIR, model, model,
             type);
    if (rp_file_read(path, (size_t)1 << 24, &subject->bytes, &subject->size, &err) != RP_OK)
        fail_msg("%s", err.message);
    assert_int_equal(rp_gguf_open_memory(subject->bytes, subject->size, path, &subject->file, NULL),
                     RP_OK);
    snprintf(path, sizeof path, "%s/fixtures/tiny/%s", RP_SOURCE_DIR, model);
    if (rp_gguf_open_checkpoint(path, &subject->checkpoint, &err) != RP_OK)
        fail_msg("%s", err.message);
}

static void close_subject(struct subject *subject)
{
    rp_gguf_close(subject->file);
    rp_gguf_close(subject->checkpoint);
    free(subject->bytes);
}

static const struct rp_gguf_tensor *tensor_of(const struct subject *subject, const char *name)
{
    const struct rp_gguf_tensor *tensor = rp_gguf_find_tensor(subject->file, name);
    assert_non_null(tensor);
    return tensor;
}

/* The tensor's bytes, to be changed. */
static unsigned char *bytes_of(const struct subject *subject, const char *name)
{
    return (unsigned char *)subject->bytes + tensor_of(subject, name)->offset;
}

static void see(void *context, const struct rp_weights_finding *finding)
{
    struct subject *subject = context;
    subject->n_tensors += !finding->is_metadata;
    subject->n_values += finding->is_metadata;
    if (finding->is_right) {
        assert_string_equal(finding->message, "");
        assert_true(finding->l2_rel <= finding->limit);
    } else if (subject->n_wrong < MAX_WRONG) {
        subject->wrong[subject->n_wrong++] = *finding;
    }
}

/* Parses the changed bytes anew, and compares. */
static void compare(struct subject *subject)
{
    struct rp_error err;
    rp_gguf_close(subject->file);
    subject->file = NULL;
    if (rp_gguf_open_memory(subject->bytes, subject->size, "file", &subject->file, &err) != RP_OK)
        fail_msg("%s", err.message);
    if (rp_weights_compare(subject->file, subject->checkpoint, see, subject, &err) != RP_OK)
        fail_msg("%s", err.message);
}

static void expect_wrong(const struct subject *subject, const char *name, const char *cause)
{
    if (subject->n_wrong != 1)
        fail_msg("%s: %zu are wrong, expected one; the last is %s", name, subject->n_wrong,
                 subject->n_wrong ? subject->wrong[subject->n_wrong - 1].message : "none");
    const struct rp_weights_finding *found = &subject->wrong[0];
    assert_string_equal(found->name, name);
    assert_true(found->message[0] && found->next[0]);
    if (!strstr(found->cause, cause) || (!cause[0] && found->cause[0]))
        fail_msg("%s: the cause is \"%s\", expected \"%s\"", name, found->cause, cause);
}

static void the_tiny_files_are_their_checkpoints(void **state)
{
    (void)state;
    static const char *const models[] = {"llama", "qwen3", "qwen35"};
    static const char *const types[] = {"bf16", "q8_0", "q4_0"};
    for (size_t i = 0; i < 3; i++)
        for (size_t k = 0; k < 3; k++) {
            struct subject subject;
            open_subject(&subject, models[i], types[k]);
            compare(&subject);
            assert_int_equal(subject.n_wrong, 0);
            assert_int_equal(subject.n_tensors, rp_gguf_n_tensors(subject.file));
            assert_true(subject.n_values >= 15);
            close_subject(&subject);
        }
}

/* ---- what is done to a tensor ---- */

typedef void spoil_fn(const struct subject *subject, const char *name);

/* Row r becomes the row map(r) of the file as it is. */
static void move_rows(const struct subject *subject, const char *name,
                      size_t (*map)(const struct subject *, const char *, size_t))
{
    const struct rp_gguf_tensor *tensor = tensor_of(subject, name);
    unsigned char *rows = bytes_of(subject, name);
    const size_t n = tensor->n_rows * tensor->row_bytes;
    unsigned char *copy = malloc(n);
    assert_non_null(copy);
    memcpy(copy, rows, n);
    for (size_t r = 0; r < tensor->n_rows; r++)
        memcpy(rows + r * tensor->row_bytes, copy + map(subject, name, r) * tensor->row_bytes,
               tensor->row_bytes);
    free(copy);
}

static struct rp_gguf_origin origin_of(const struct subject *subject, const char *name)
{
    return rp_gguf_origin(subject->checkpoint, rp_gguf_find_tensor(subject->checkpoint, name));
}

static size_t to_checkpoint_order(const struct subject *subject, const char *name, size_t r)
{
    const size_t *rows = origin_of(subject, name).rows;
    size_t k = 0;
    while (rows[k] != r)
        k++;
    return k;
}

static size_t to_own_order(const struct subject *subject, const char *name, size_t r)
{
    return origin_of(subject, name).rows[r];
}

static size_t to_reverse(const struct subject *subject, const char *name, size_t r)
{
    return tensor_of(subject, name)->n_rows - 1 - r;
}

/* Pairs of a head of 32 side by side, as Llama's. */
static size_t to_pairs(const struct subject *subject, const char *name, size_t r)
{
    (void)subject;
    (void)name;
    return r / 32 * 32 + r % 32 / 2 + (r % 2) * 16;
}

static void unpermute(const struct subject *subject, const char *name)
{
    move_rows(subject, name, to_checkpoint_order);
}

static void permute_twice(const struct subject *subject, const char *name)
{
    move_rows(subject, name, to_own_order);
}

static void reverse_rows(const struct subject *subject, const char *name)
{
    move_rows(subject, name, to_reverse);
}

static void permute_as_llama(const struct subject *subject, const char *name)
{
    move_rows(subject, name, to_pairs);
}

/* Of BF16: columns in the checkpoint's order. */
static void unpermute_columns(const struct subject *subject, const char *name)
{
    const struct rp_gguf_tensor *tensor = tensor_of(subject, name);
    const size_t *columns = origin_of(subject, name).columns, width = tensor->row_bytes / 2;
    unsigned char copy[1024];
    for (size_t r = 0; r < tensor->n_rows; r++) {
        unsigned char *row = bytes_of(subject, name) + r * tensor->row_bytes;
        memcpy(copy, row, tensor->row_bytes);
        for (size_t c = 0; c < width; c++)
            memcpy(row + 2 * columns[c], copy + 2 * c, 2);
    }
}

static void transpose_bf16(const struct subject *subject, const char *name)
{
    const size_t n = tensor_of(subject, name)->n_rows;
    unsigned char *bytes = bytes_of(subject, name), kept[2];
    for (size_t r = 0; r < n; r++)
        for (size_t c = 0; c < r; c++) {
            unsigned char *a = bytes + 2 * (r * n + c), *b = bytes + 2 * (c * n + r);
            memcpy(kept, a, 2);
            memcpy(a, b, 2);
            memcpy(b, kept, 2);
        }
}

static void take_from(const struct subject *subject, const char *name, const char *other)
{
    const struct rp_gguf_tensor *tensor = tensor_of(subject, other);
    memcpy(bytes_of(subject, name), bytes_of(subject, other), tensor->n_rows * tensor->row_bytes);
}

static void take_layer_1(const struct subject *subject, const char *name)
{
    char other[64];
    snprintf(other, sizeof other, "blk.1%s", strchr(name + 4, '.'));
    take_from(subject, name, other);
}

static void map_f32(const struct subject *subject, const char *name, float factor, float added)
{
    const struct rp_gguf_tensor *tensor = tensor_of(subject, name);
    for (size_t i = 0; i < tensor->dims[0]; i++) {
        float value;
        memcpy(&value, bytes_of(subject, name) + 4 * i, 4);
        value = value * factor + added;
        memcpy(bytes_of(subject, name) + 4 * i, &value, 4);
    }
}

static void add_one(const struct subject *subject, const char *name)
{
    map_f32(subject, name, 1, 1);
}

static void take_one(const struct subject *subject, const char *name)
{
    map_f32(subject, name, 1, -1);
}

static void halve(const struct subject *subject, const char *name)
{
    map_f32(subject, name, 0.5f, 0);
}

static void undo_minus_exp(const struct subject *subject, const char *name)
{
    for (size_t i = 0; i < tensor_of(subject, name)->dims[0]; i++) {
        float value;
        memcpy(&value, bytes_of(subject, name) + 4 * i, 4);
        value = logf(-value);
        memcpy(bytes_of(subject, name) + 4 * i, &value, 4);
    }
}

/* Of 32 values, the scale's F16 exponent is one more. */
static void double_scales(const struct subject *subject, const char *name)
{
    const struct rp_gguf_tensor *tensor = tensor_of(subject, name);
    const size_t n_bytes = tensor->n_rows * tensor->row_bytes;
    const size_t block = tensor->type == RP_GGML_Q8_0 ? 34 : 18;
    for (size_t i = 0; i < n_bytes; i += block)
        bytes_of(subject, name)[i + 1] = (unsigned char)(bytes_of(subject, name)[i + 1] + 4);
}

static void clear(const struct subject *subject, const char *name)
{
    const struct rp_gguf_tensor *tensor = tensor_of(subject, name);
    memset(bytes_of(subject, name), 0, tensor->n_rows * tensor->row_bytes);
}

static void clear_rows_10_to_19(const struct subject *subject, const char *name)
{
    const size_t n = tensor_of(subject, name)->row_bytes;
    memset(bytes_of(subject, name) + 10 * n, 0, 10 * n);
}

/* Of Q4_0: neighbours in one byte. */
static void pack_neighbours(const struct subject *subject, const char *name)
{
    const struct rp_gguf_tensor *tensor = tensor_of(subject, name);
    for (size_t at = 0; at < tensor->n_rows * tensor->row_bytes; at += 18) {
        unsigned char *in = bytes_of(subject, name) + at + 2, values[32];
        for (size_t i = 0; i < 16; i++) {
            values[i] = in[i] & 0x0f;
            values[16 + i] = in[i] >> 4;
        }
        for (size_t i = 0; i < 16; i++)
            in[i] = (unsigned char)(values[2 * i] | values[2 * i + 1] << 4);
    }
}

static void write_nan(const struct subject *subject, const char *name)
{
    const float value = NAN;
    memcpy(bytes_of(subject, name) + 4 * 5, &value, sizeof value);
}

/* One value of Q8_0 two steps off. */
static void move_one_value(const struct subject *subject, const char *name)
{
    unsigned char *value = bytes_of(subject, name) + 2 * tensor_of(subject, name)->row_bytes + 9;
    *value = (unsigned char)(*value > 127 ? *value + 2 : *value - 2);
}

/* One value of BF16 off by one unit in the last place. */
static void move_one_bit(const struct subject *subject, const char *name)
{
    bytes_of(subject, name)[2 * 77] ^= 1;
}

static void wrong_tensors_are_named_and_explained(void **state)
{
    (void)state;
    static const struct {
        const char *model, *type, *tensor;
        spoil_fn *spoil;
        const char *cause;
    } cases[] = {
        {"llama", "bf16", "blk.1.attn_q.weight", unpermute, "was not applied"},
        {"llama", "q8_0", "blk.1.attn_q.weight", unpermute, "was not applied"},
        {"llama", "q4_0", "blk.3.attn_k.weight", unpermute, "was not applied"},
        {"llama", "bf16", "blk.0.attn_k.weight", permute_twice, "reordered twice"},
        {"llama", "q8_0", "blk.0.attn_q.weight", permute_twice, "reordered twice"},
        {"llama", "q4_0", "blk.0.attn_q.weight", permute_twice, "reordered twice"},
        {"qwen3", "bf16", "blk.2.attn_q.weight", permute_as_llama, "permuted as Llama's Q and K"},
        {"qwen3", "q8_0", "blk.2.attn_k.weight", permute_as_llama, "permuted as Llama's Q and K"},
        {"qwen35", "bf16", "blk.0.attn_qkv.weight", unpermute, "V heads dealt out"},
        {"qwen35", "q8_0", "blk.5.attn_gate.weight", unpermute, "V heads dealt out"},
        {"qwen35", "q4_0", "blk.4.ssm_beta.weight", unpermute, "V heads dealt out"},
        {"qwen35", "bf16", "blk.6.ssm_out.weight", unpermute_columns, "its columns are in the"},
        {"qwen35", "bf16", "blk.1.ssm_a", undo_minus_exp, "-exp(x) was not applied"},
        {"qwen35", "bf16", "blk.1.attn_norm.weight", add_one, "1 is added twice"},
        {"qwen35", "q8_0", "output_norm.weight", add_one, "1 is added twice"},
        {"qwen35", "q8_0", "blk.3.attn_q_norm.weight", take_one, "1 is not added"},
        {"qwen35", "q8_0", "blk.2.ssm_norm.weight", add_one, "this one does not"},
        {"llama", "q8_0", "blk.0.ffn_norm.weight", add_one, "this one does not"},
        {"llama", "q8_0", "output_norm.weight", halve, "multiplied by 0.5"},
        {"llama", "q8_0", "blk.2.ffn_up.weight", double_scales, "multiplied by 2"},
        {"llama", "q4_0", "blk.2.ffn_up.weight", double_scales, "multiplied by"},
        {"llama", "bf16", "blk.2.attn_output.weight", transpose_bf16, "it is transposed"},
        {"llama", "bf16", "blk.2.ffn_up.weight", take_layer_1, "what blk.1.ffn_up.weight has"},
        {"qwen3", "q8_0", "blk.3.attn_v.weight", take_layer_1, "what blk.1.attn_v.weight has"},
        {"qwen35", "q4_0", "blk.2.ffn_gate.weight", take_layer_1, "what blk.1.ffn_gate.weight has"},
        {"llama", "bf16", "blk.2.ffn_gate.weight", reverse_rows, "row 0 is row 191"},
        {"llama", "q8_0", "output.weight", reverse_rows, "row 0 is row 1023"},
        {"llama", "q4_0", "blk.1.ffn_down.weight", clear, "never written"},
        {"llama", "bf16", "blk.1.ffn_down.weight", clear_rows_10_to_19, "never written"},
        {"llama", "q4_0", "blk.1.ffn_up.weight", pack_neighbours, "packed in another order"},
        {"llama", "bf16", "blk.1.attn_norm.weight", write_nan, "has the value nan in column 5"},
        {"llama", "q8_0", "blk.1.attn_v.weight", move_one_value, ""},
        {"llama", "bf16", "blk.1.attn_v.weight", move_one_bit, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct subject subject;
        open_subject(&subject, cases[i].model, cases[i].type);
        cases[i].spoil(&subject, cases[i].tensor);
        compare(&subject);
        expect_wrong(&subject, cases[i].tensor, cases[i].cause);
        close_subject(&subject);
    }
}

static void the_failing_rows_are_counted(void **state)
{
    (void)state;
    struct subject subject;
    open_subject(&subject, "llama", "bf16");
    clear_rows_10_to_19(&subject, "blk.1.ffn_down.weight");
    compare(&subject);
    assert_int_equal(subject.wrong[0].n_rows, 64);
    assert_int_equal(subject.wrong[0].n_failing, 10);
    assert_int_equal(subject.wrong[0].first, 10);
    assert_int_equal(subject.wrong[0].last, 19);
    assert_non_null(strstr(subject.wrong[0].message, "10 of 64 rows"));
    assert_non_null(strstr(subject.wrong[0].message, "from row 10 to row 19"));
    close_subject(&subject);
}

/* A file whose steps are wider than its values need is not excused by them: of each block of Q8_0 only
 * three values are left, 0 and plus or minus the largest. */
static void a_coarse_quantization_is_not_excused_by_its_own_step(void **state)
{
    (void)state;
    struct subject subject;
    open_subject(&subject, "llama", "q8_0");
    const char name[] = "blk.1.ffn_up.weight";
    const struct rp_gguf_tensor *tensor = tensor_of(&subject, name);
    for (size_t at = 0; at < tensor->n_rows * tensor->row_bytes; at += 34) {
        unsigned char *block = bytes_of(&subject, name) + at;
        for (size_t i = 2; i < 34; i++) {
            const bool is_low = block[i] > 127 && block[i] < 256 - 63; /* of int8: below -63 */
            const bool is_high = block[i] > 63 && block[i] <= 127;
            block[i] = is_high ? 1 : is_low ? 255 : 0;
        }
        block[1] = (unsigned char)(block[1] + 4 * 7); /* times 128 */
    }
    compare(&subject);
    expect_wrong(&subject, name, "");
    close_subject(&subject);
}

static void replace_bytes(struct subject *subject, const char *find, const char *replace)
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
    struct subject subject;
    open_subject(&subject, "llama", "q8_0");
    replace_bytes(&subject, "rope_freqs.weight", "rope_fr3qs.weight");
    compare(&subject);
    assert_int_equal(subject.n_wrong, 2);
    assert_string_equal(subject.wrong[0].name, "rope_freqs.weight");
    assert_non_null(strstr(subject.wrong[0].cause, "rope scaling was not converted"));
    assert_string_equal(subject.wrong[1].name, "rope_fr3qs.weight");
    assert_non_null(strstr(subject.wrong[1].message, "surplus"));
    close_subject(&subject);
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
        struct subject subject;
        open_subject(&subject, keys[i].model, "q4_0");
        const struct rp_gguf_value *value = rp_gguf_find_value(subject.file, keys[i].key);
        assert_non_null(value);
        /* FP32 from another decimal may be off by its last bit */
        const size_t at = value->offset + (value->kind == RP_GGUF_FLOAT32 ? 1 : 0);
        subject.bytes[at] = (char)(subject.bytes[at] ^ 1);
        compare(&subject);
        expect_wrong(&subject, keys[i].key, "");
        assert_non_null(strstr(subject.wrong[0].message, "the checkpoint says"));
        close_subject(&subject);
    }
}

/* A key under another name is absent: what readers then take is right, or it is not. */
static void an_absent_key_is_what_readers_take_for_it(void **state)
{
    (void)state;
    struct subject subject;
    open_subject(&subject, "llama", "q4_0");
    replace_bytes(&subject, "llama.attention.key_length", "llama.attention.key_l3ngth");
    compare(&subject);
    assert_int_equal(subject.n_wrong, 0); /* 64 / 4 heads */
    replace_bytes(&subject, "llama.rope.freq_base", "llama.rope.fr3q_base");
    compare(&subject);
    expect_wrong(&subject, "llama.rope.freq_base", "rope_theta was not converted");
    close_subject(&subject);
    open_subject(&subject, "llama", "q4_0");
    replace_bytes(&subject, "llama.attention.layer_norm_rms_epsilon",
                  "llama.attention.layer_norm_rms_3psilon");
    compare(&subject);
    assert_int_equal(subject.n_wrong, 1);
    assert_string_equal(subject.wrong[0].name, "llama.attention.layer_norm_rms_epsilon");
    close_subject(&subject);
}

static void a_key_that_the_checkpoint_has_nothing_of_is_named(void **state)
{
    (void)state;
    struct subject subject;
    open_subject(&subject, "llama", "q4_0");
    /* a key of the same length that the comparison does not need */
    replace_bytes(&subject, "llama.context_length", "llama.residual_scale");
    compare(&subject);
    expect_wrong(&subject, "llama.residual_scale", "");
    close_subject(&subject);
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
