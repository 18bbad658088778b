/* A file beside its checkpoint's sketch alone: right files pass; wrong ones are found by tensor and rows, and
 * explained where norms and products show why. */
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
#include "base/scratch_test_util.h"
#include "weights/gguf_computed.h"
#include "weights/gguf_internal.h"
#include "weights/sketch_test_util.h"
#include "weights/wrong_files_test_util.h"

#define CANNOT_SAY "the sketch cannot say why"
#define WHOLE_BELOW \
    300 /* values: of the tiny models, all matrices but the convolution's are sketched */

static char folder[256];
static const char *const models[] = {"llama", "qwen3", "qwen35"};

static const char *sketch_of(const char *model)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s.safetensors", folder, model);
    return path;
}

static int write_sketches(void **state)
{
    (void)state;
    rp_test_make_folder(folder);
    for (size_t i = 0; i < 3; i++) {
        char checkpoint[512];
        snprintf(checkpoint, sizeof checkpoint, "%s/fixtures/tiny/%s", RP_SOURCE_DIR, models[i]);
        rp_test_write_sketch(checkpoint, WHOLE_BELOW, 4, sketch_of(models[i]));
    }
    return 0;
}

static int remove_sketches(void **state)
{
    (void)state;
    return rp_remove_tree(folder, NULL) != RP_OK;
}

static void open_at(struct rp_wrong_file *subject, const char *model, const char *type,
                    const char *sketch)
{
    struct rp_error err;
    rp_test_open_subject(subject, model, type);
    rp_gguf_close(subject->checkpoint);
    subject->checkpoint = NULL;
    if (rp_gguf_open_checkpoint(sketch, &subject->checkpoint, &err) != RP_OK)
        fail_msg("%s: %s", err.where, err.message);
}

static void open_sketched(struct rp_wrong_file *subject, const char *model, const char *type)
{
    open_at(subject, model, type, sketch_of(model));
}

static void the_tiny_files_are_what_the_sketches_are_of(void **state)
{
    (void)state;
    rp_test_expect_right_files(open_sketched);
}

/* What the recorder in Python wrote. */
static void the_recorders_sketch_is_the_same(void **state)
{
    (void)state;
    static const char recorded[] =
        RP_SOURCE_DIR "/fixtures/store/tiny--qwen3/main/sketch.safetensors";
    struct rp_gguf *ours = NULL, *theirs = NULL;
    struct rp_error err = {.message = ""};
    size_t n_sketched = 0;
    rp_test_write_sketch(RP_SOURCE_DIR "/fixtures/tiny/qwen3", 256, 2, sketch_of("two"));
    if (rp_gguf_open_checkpoint(recorded, &theirs, &err) != RP_OK ||
        rp_gguf_open_checkpoint(sketch_of("two"), &ours, &err) != RP_OK)
        fail_msg("%s: %s", err.where, err.message);
    assert_int_equal(rp_gguf_n_tensors(ours), rp_gguf_n_tensors(theirs));
    for (size_t i = 0; i < rp_gguf_n_tensors(ours); i++) {
        const struct rp_tensor_sketch *a = rp_gguf_origin(ours, rp_gguf_tensor(ours, i)).sketch,
                                      *b = rp_gguf_origin(theirs, rp_gguf_tensor(theirs, i)).sketch;
        assert_true(!a->data == !b->data);
        n_sketched += a->data != NULL;
        for (size_t r = 0; a->data && r < a->n_rows; r++) {
            struct rp_row_sketch x = {.norm = 0}, y = {.norm = 0};
            assert_true(rp_sketch_row(a, r, &x) && rp_sketch_row(b, r, &y));
            /* sums in another order, rounded to FP32 */
            assert_true(fabs(x.norm - y.norm) <= 0x1p-23 * x.norm);
            assert_true(fabs(x.envelope - y.envelope) <= 0x1p-23 * x.envelope);
            for (size_t k = 0; k < 2; k++)
                assert_true(fabs(x.products[k] - y.products[k]) <= 0x1p-23 * x.norm);
        }
    }
    assert_int_equal(n_sketched, 29); /* the embeddings, and 7 of each of 4 layers */
    rp_gguf_close(ours);
    rp_gguf_close(theirs);
    struct rp_wrong_file subject;
    open_at(&subject, "qwen3", "q8_0", recorded);
    rp_test_compare(&subject);
    assert_int_equal(subject.n_wrong, 0);
    rp_spoil_permute_as_llama(&subject, "blk.2.attn_q.weight");
    rp_test_compare(&subject);
    rp_test_expect_wrong(&subject, "blk.2.attn_q.weight", "permuted as Llama's Q and K");
    rp_test_close_subject(&subject);
}

static void scale_row_5(const struct rp_wrong_file *subject, const char *name)
{
    const struct rp_gguf_tensor *tensor = rp_test_tensor_of(subject, name);
    unsigned char *row = rp_test_bytes_of(subject, name) + 5 * tensor->row_bytes;
    assert_int_equal(tensor->type, RP_GGML_BF16);
    for (size_t i = 0; i < tensor->dims[0]; i++) {
        const uint32_t high = (uint32_t)row[2 * i] << 16 | (uint32_t)row[2 * i + 1] << 24;
        float value;
        uint32_t bits;
        memcpy(&value, &high, 4);
        value *= 1.05f;
        memcpy(&bits, &value, 4);
        row[2 * i] = (unsigned char)(bits >> 16);
        row[2 * i + 1] = (unsigned char)(bits >> 24);
    }
}

static void write_infinity(const struct rp_wrong_file *subject, const char *name)
{
    rp_test_bytes_of(subject, name)[2 * 70] = 0x80;
    rp_test_bytes_of(subject, name)[2 * 70 + 1] = 0x7f;
}

/* Every value of Q8_0 one step off, up and down in turn: twice what rounding may cost, which no row's products
 * show, and no norm; all rows together do. */
static void move_every_value(const struct rp_wrong_file *subject, const char *name)
{
    const struct rp_gguf_tensor *tensor = rp_test_tensor_of(subject, name);
    for (size_t at = 0; at < tensor->n_rows * tensor->row_bytes; at++) {
        unsigned char *value = rp_test_bytes_of(subject, name) + at;
        if (at % 34 >= 2 && *value != 127 && *value != 129) /* 129: -127 */
            *value = (unsigned char)(at % 2 == 0 ? *value + 1 : *value - 1);
    }
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
        {"qwen3", "bf16", "blk.2.attn_q.weight", rp_spoil_permute_as_llama, "permuted as Llama's"},
        {"qwen35", "bf16", "blk.0.attn_qkv.weight", rp_spoil_unpermute, "V heads dealt out"},
        {"qwen35", "q8_0", "blk.5.attn_gate.weight", rp_spoil_unpermute, "V heads dealt out"},
        {"qwen35", "bf16", "blk.6.ssm_out.weight", rp_spoil_unpermute_columns,
         "its columns are in the"},
        {"qwen35", "bf16", "blk.1.ssm_a", rp_spoil_undo_minus_exp, "-exp(x) was not applied"},
        {"qwen35", "bf16", "blk.1.attn_norm.weight", rp_spoil_add_one, "1 is added twice"},
        {"llama", "q8_0", "blk.0.ffn_norm.weight", rp_spoil_add_one, "this one does not"},
        {"llama", "bf16", "blk.2.ffn_up.weight", rp_spoil_take_layer_1, "blk.1.ffn_up.weight has"},
        {"qwen3", "q8_0", "blk.3.attn_v.weight", rp_spoil_take_layer_1, "blk.1.attn_v.weight has"},
        {"qwen35", "q4_0", "blk.2.ffn_gate.weight", rp_spoil_take_layer_1,
         "what blk.1.ffn_gate.weight has"},
        {"llama", "bf16", "blk.2.ffn_gate.weight", rp_spoil_reverse_rows, "row 0 is row 191"},
        {"llama", "q8_0", "blk.2.ffn_up.weight", rp_spoil_double_scales, "multiplied by 2"},
        {"llama", "bf16", "blk.2.attn_output.weight", rp_spoil_transpose_bf16, CANNOT_SAY},
        {"llama", "bf16", "blk.1.attn_v.weight", scale_row_5, CANNOT_SAY},
        {"llama", "q4_0", "blk.1.ffn_down.weight", rp_spoil_clear, "never written"},
        {"llama", "bf16", "blk.1.ffn_down.weight", rp_spoil_clear_rows_10_to_19, "never written"},
        {"llama", "q4_0", "blk.1.ffn_up.weight", rp_spoil_pack_neighbours, CANNOT_SAY},
        {"llama", "bf16", "blk.1.attn_norm.weight", rp_spoil_write_nan, "has the value nan"},
        {"llama", "bf16", "blk.1.attn_v.weight", write_infinity, "has the value inf in column 6"},
        {"llama", "bf16", "blk.1.attn_v.weight", rp_spoil_move_one_bit, CANNOT_SAY},
        {"llama", "q8_0", "blk.1.ffn_up.weight", move_every_value, CANNOT_SAY},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rp_wrong_file subject;
        open_sketched(&subject, cases[i].model, cases[i].type);
        cases[i].spoil(&subject, cases[i].tensor);
        rp_test_compare(&subject);
        rp_test_expect_wrong(&subject, cases[i].tensor, cases[i].cause);
        rp_test_close_subject(&subject);
    }
}

static void a_failing_row_is_counted(void **state)
{
    (void)state;
    struct rp_wrong_file subject;
    open_sketched(&subject, "llama", "bf16");
    scale_row_5(&subject, "blk.1.attn_v.weight");
    rp_test_compare(&subject);
    const struct rp_weights_finding *wrong = &subject.wrong[0];
    assert_int_equal(wrong->n_failing, 1);
    assert_int_equal(wrong->first, 5);
    assert_true(wrong->is_sketched);
    /* a factor of 1.05, measured by four products */
    assert_true(wrong->l2_rel > 0.01 && wrong->l2_rel < 0.15);
    assert_true(wrong->row_resolution < 1e-6);
    assert_non_null(strstr(wrong->message, "1 of 32 rows are not the checkpoint's, by its sketch"));
    assert_non_null(strstr(wrong->message, "row 5"));
    rp_test_close_subject(&subject);
}

/* Steps that the values need not are no excuse: the envelope says so. */
static void a_coarse_quantization_is_not_excused_by_its_own_step(void **state)
{
    (void)state;
    struct rp_wrong_file subject;
    open_sketched(&subject, "llama", "q8_0");
    rp_spoil_coarsen_q8_0(&subject, "blk.1.ffn_up.weight");
    rp_test_compare(&subject);
    rp_test_expect_wrong(&subject, "blk.1.ffn_up.weight", CANNOT_SAY);
    rp_test_close_subject(&subject);
}

static void what_all_rows_have_in_common_is_found_before_a_row_is(void **state)
{
    (void)state;
    struct rp_wrong_file subject;
    open_sketched(&subject, "llama", "q8_0");
    move_every_value(&subject, "blk.1.ffn_up.weight");
    rp_test_compare(&subject);
    const struct rp_weights_finding *wrong = &subject.wrong[0];
    assert_int_equal(wrong->n_failing, 0);
    assert_non_null(strstr(wrong->message, "its 192 rows together are not the checkpoint's"));
    assert_true(wrong->tensor_resolution < wrong->row_resolution / 2);
    rp_test_close_subject(&subject);
}

/* Envelopes that excuse any step. */
static void a_limit_that_anything_passes_is_no_pass(void **state)
{
    (void)state;
    static const char name[] = "blk.1.ffn_up.weight";
    struct rp_wrong_file subject;
    char path[512], *bytes = NULL;
    size_t n = 0;
    open_sketched(&subject, "llama", "q8_0");
    const struct rp_gguf_tensor *tensor = rp_gguf_find_tensor(subject.checkpoint, name);
    assert_int_equal(rp_file_read(sketch_of("llama"), 1 << 24, &bytes, &n, NULL), RP_OK);
    for (size_t r = 0; r < tensor->n_rows; r++) {
        const float envelope = 1e6f;
        memcpy(bytes + tensor->offset + 4 * (6 * r + 1), &envelope, 4);
    }
    rp_test_close_subject(&subject);
    rp_test_write_file(folder, "wide.safetensors", bytes, n);
    free(bytes);
    snprintf(path, sizeof path, "%s/wide.safetensors", folder);
    open_at(&subject, "llama", "q8_0", path);
    rp_spoil_coarsen_q8_0(&subject, name);
    rp_test_compare(&subject);
    rp_test_expect_wrong(&subject, name, "the other tensors are compared");
    assert_true(subject.wrong[0].is_not_compared);
    assert_non_null(
        strstr(subject.wrong[0].message, "cannot be compared by the sketch: of type Q8_0"));
    rp_test_close_subject(&subject);
}

static void see_none(void *context, const struct rp_weights_finding *finding)
{
    (void)context;
    (void)finding;
}

static void a_damaged_row_of_a_sketch_is_an_error(void **state)
{
    (void)state;
    struct rp_wrong_file subject;
    char path[512], *bytes = NULL;
    size_t n = 0;
    struct rp_error err = {.code = RP_OK};
    open_sketched(&subject, "llama", "q8_0");
    const size_t offset = rp_gguf_find_tensor(subject.checkpoint, "blk.1.ffn_up.weight")->offset;
    assert_int_equal(rp_file_read(sketch_of("llama"), 1 << 24, &bytes, &n, NULL), RP_OK);
    memset(bytes + offset + 24, 0xff, 4); /* the norm of row 1 */
    rp_test_close_subject(&subject);
    rp_test_write_file(folder, "damaged.safetensors", bytes, n);
    free(bytes);
    snprintf(path, sizeof path, "%s/damaged.safetensors", folder);
    open_at(&subject, "llama", "q8_0", path);
    assert_int_equal(rp_weights_compare(subject.file, subject.checkpoint, see_none, NULL, &err),
                     RP_ERR_FORMAT);
    assert_string_equal(err.message, "row 1 of the sketch of 'blk.1.ffn_up.weight' is damaged: "
                                     "record it again with ci/record.sh");
    assert_string_equal(err.where, path);
    rp_test_close_subject(&subject);
}

static void wrong_metadata_is_named(void **state)
{
    (void)state;
    struct rp_wrong_file subject;
    open_sketched(&subject, "llama", "q4_0");
    const struct rp_gguf_value *value = rp_gguf_find_value(subject.file, "llama.rope.freq_base");
    assert_non_null(value);
    subject.bytes[value->offset + 1] = (char)(subject.bytes[value->offset + 1] ^ 1);
    rp_test_compare(&subject);
    rp_test_expect_wrong(&subject, "llama.rope.freq_base", "");
    rp_test_close_subject(&subject);
}

static void a_sketch_has_no_values_to_run(void **state)
{
    (void)state;
    struct rp_gguf *gguf = NULL;
    struct rp_error err = {.code = RP_OK};
    float row[64];
    assert_int_equal(rp_gguf_open_checkpoint(sketch_of("llama"), &gguf, &err), RP_OK);
    const struct rp_gguf_tensor *tensor = rp_gguf_find_tensor(gguf, "blk.0.attn_q.weight");
    assert_int_equal(rp_gguf_row(gguf, tensor, 0, row, &err), RP_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "is sketched: its values are not there"));
    rp_gguf_close(gguf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tiny_files_are_what_the_sketches_are_of),
        cmocka_unit_test(the_recorders_sketch_is_the_same),
        cmocka_unit_test(wrong_tensors_are_named_and_explained),
        cmocka_unit_test(a_failing_row_is_counted),
        cmocka_unit_test(a_coarse_quantization_is_not_excused_by_its_own_step),
        cmocka_unit_test(what_all_rows_have_in_common_is_found_before_a_row_is),
        cmocka_unit_test(a_limit_that_anything_passes_is_no_pass),
        cmocka_unit_test(a_damaged_row_of_a_sketch_is_an_error),
        cmocka_unit_test(wrong_metadata_is_named),
        cmocka_unit_test(a_sketch_has_no_values_to_run),
    };
    return cmocka_run_group_tests(tests, write_sketches, remove_sketches) ? 1 : 0;
}
