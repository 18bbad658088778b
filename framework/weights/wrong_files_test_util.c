/* See weights/wrong_files_test_util.h. Rows are whole numbers of blocks, so that bytes are moved. */
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
#include "weights/wrong_files_test_util.h"

void rp_test_open_subject(struct rp_wrong_file *subject, const char *model, const char *type)
{
    char path[512];
    struct rp_error err;
    *subject = (struct rp_wrong_file){.bytes = NULL};
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

void rp_test_close_subject(struct rp_wrong_file *subject)
{
    rp_gguf_close(subject->file);
    rp_gguf_close(subject->checkpoint);
    free(subject->bytes);
}

const struct rp_gguf_tensor *rp_test_tensor_of(const struct rp_wrong_file *subject,
                                               const char *name)
{
    const struct rp_gguf_tensor *tensor = rp_gguf_find_tensor(subject->file, name);
    assert_non_null(tensor);
    return tensor;
}

/* The tensor's bytes, to be changed. */
unsigned char *rp_test_bytes_of(const struct rp_wrong_file *subject, const char *name)
{
    return (unsigned char *)subject->bytes + rp_test_tensor_of(subject, name)->offset;
}

static void see(void *context, const struct rp_weights_finding *finding)
{
    struct rp_wrong_file *subject = context;
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
void rp_test_compare(struct rp_wrong_file *subject)
{
    struct rp_error err;
    rp_gguf_close(subject->file);
    subject->file = NULL;
    if (rp_gguf_open_memory(subject->bytes, subject->size, "file", &subject->file, &err) != RP_OK)
        fail_msg("%s", err.message);
    if (rp_weights_compare(subject->file, subject->checkpoint, see, subject, &err) != RP_OK)
        fail_msg("%s", err.message);
}

void rp_test_expect_right_files(void (*open)(struct rp_wrong_file *subject, const char *model,
                                             const char *type))
{
    static const char *const models[] = {"llama", "qwen3", "qwen35"};
    static const char *const types[] = {"bf16", "q8_0", "q4_0"};
    for (size_t i = 0; i < 3; i++)
        for (size_t k = 0; k < 3; k++) {
            struct rp_wrong_file subject;
            open(&subject, models[i], types[k]);
            rp_test_compare(&subject);
            assert_int_equal(subject.n_wrong, 0);
            assert_int_equal(subject.n_tensors, rp_gguf_n_tensors(subject.file));
            assert_true(subject.n_values >= 15);
            rp_test_close_subject(&subject);
        }
}

void rp_test_expect_wrong(const struct rp_wrong_file *subject, const char *name, const char *cause)
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

/* ---- what is done to a tensor ---- */

/* Row r becomes the row map(r) of the file as it is. */
static void move_rows(const struct rp_wrong_file *subject, const char *name,
                      size_t (*map)(const struct rp_wrong_file *, const char *, size_t))
{
    const struct rp_gguf_tensor *tensor = rp_test_tensor_of(subject, name);
    unsigned char *rows = rp_test_bytes_of(subject, name);
    const size_t n = tensor->n_rows * tensor->row_bytes;
    unsigned char *copy = malloc(n);
    assert_non_null(copy);
    memcpy(copy, rows, n);
    for (size_t r = 0; r < tensor->n_rows; r++)
        memcpy(rows + r * tensor->row_bytes, copy + map(subject, name, r) * tensor->row_bytes,
               tensor->row_bytes);
    free(copy);
}

static struct rp_gguf_origin origin_of(const struct rp_wrong_file *subject, const char *name)
{
    return rp_gguf_origin(subject->checkpoint, rp_gguf_find_tensor(subject->checkpoint, name));
}

static size_t to_checkpoint_order(const struct rp_wrong_file *subject, const char *name, size_t r)
{
    const size_t *rows = origin_of(subject, name).rows;
    size_t k = 0;
    while (rows[k] != r)
        k++;
    return k;
}

static size_t to_own_order(const struct rp_wrong_file *subject, const char *name, size_t r)
{
    return origin_of(subject, name).rows[r];
}

static size_t to_reverse(const struct rp_wrong_file *subject, const char *name, size_t r)
{
    return rp_test_tensor_of(subject, name)->n_rows - 1 - r;
}

/* Pairs of a head of 32 side by side, as Llama's. */
static size_t to_pairs(const struct rp_wrong_file *subject, const char *name, size_t r)
{
    (void)subject;
    (void)name;
    return r / 32 * 32 + r % 32 / 2 + (r % 2) * 16;
}

void rp_spoil_unpermute(const struct rp_wrong_file *subject, const char *name)
{
    move_rows(subject, name, to_checkpoint_order);
}

void rp_spoil_permute_twice(const struct rp_wrong_file *subject, const char *name)
{
    move_rows(subject, name, to_own_order);
}

void rp_spoil_reverse_rows(const struct rp_wrong_file *subject, const char *name)
{
    move_rows(subject, name, to_reverse);
}

void rp_spoil_permute_as_llama(const struct rp_wrong_file *subject, const char *name)
{
    move_rows(subject, name, to_pairs);
}

/* Of BF16: columns in the checkpoint's order. */
void rp_spoil_unpermute_columns(const struct rp_wrong_file *subject, const char *name)
{
    const struct rp_gguf_tensor *tensor = rp_test_tensor_of(subject, name);
    const size_t *columns = origin_of(subject, name).columns, width = tensor->row_bytes / 2;
    unsigned char copy[1024];
    for (size_t r = 0; r < tensor->n_rows; r++) {
        unsigned char *row = rp_test_bytes_of(subject, name) + r * tensor->row_bytes;
        memcpy(copy, row, tensor->row_bytes);
        for (size_t c = 0; c < width; c++)
            memcpy(row + 2 * columns[c], copy + 2 * c, 2);
    }
}

/* The transposed matrix, in the tensor's shape. */
void rp_spoil_transpose_bf16(const struct rp_wrong_file *subject, const char *name)
{
    const struct rp_gguf_tensor *tensor = rp_test_tensor_of(subject, name);
    const size_t n_rows = tensor->n_rows, width = tensor->dims[0];
    unsigned char *bytes = rp_test_bytes_of(subject, name), *copy = malloc(2 * n_rows * width);
    assert_non_null(copy);
    memcpy(copy, bytes, 2 * n_rows * width);
    for (size_t r = 0; r < n_rows; r++)
        for (size_t c = 0; c < width; c++)
            memcpy(bytes + 2 * (c * n_rows + r), copy + 2 * (r * width + c), 2);
    free(copy);
}

void rp_spoil_copy_row_1_to_0(const struct rp_wrong_file *subject, const char *name)
{
    const size_t row_bytes = rp_test_tensor_of(subject, name)->row_bytes;
    memcpy(rp_test_bytes_of(subject, name), rp_test_bytes_of(subject, name) + row_bytes, row_bytes);
}

static void take_from(const struct rp_wrong_file *subject, const char *name, const char *other)
{
    const struct rp_gguf_tensor *tensor = rp_test_tensor_of(subject, other);
    memcpy(rp_test_bytes_of(subject, name), rp_test_bytes_of(subject, other),
           tensor->n_rows * tensor->row_bytes);
}

void rp_spoil_take_layer_1(const struct rp_wrong_file *subject, const char *name)
{
    char other[64];
    snprintf(other, sizeof other, "blk.1%s", strchr(name + 4, '.'));
    take_from(subject, name, other);
}

void rp_test_map_f32(const struct rp_wrong_file *subject, const char *name, float factor,
                     float added)
{
    const struct rp_gguf_tensor *tensor = rp_test_tensor_of(subject, name);
    for (size_t i = 0; i < tensor->dims[0]; i++) {
        float value;
        memcpy(&value, rp_test_bytes_of(subject, name) + 4 * i, 4);
        value = value * factor + added;
        memcpy(rp_test_bytes_of(subject, name) + 4 * i, &value, 4);
    }
}

void rp_spoil_add_one(const struct rp_wrong_file *subject, const char *name)
{
    rp_test_map_f32(subject, name, 1, 1);
}

void rp_spoil_take_one(const struct rp_wrong_file *subject, const char *name)
{
    rp_test_map_f32(subject, name, 1, -1);
}

void rp_spoil_halve(const struct rp_wrong_file *subject, const char *name)
{
    rp_test_map_f32(subject, name, 0.5f, 0);
}

void rp_spoil_undo_minus_exp(const struct rp_wrong_file *subject, const char *name)
{
    for (size_t i = 0; i < rp_test_tensor_of(subject, name)->dims[0]; i++) {
        float value;
        memcpy(&value, rp_test_bytes_of(subject, name) + 4 * i, 4);
        value = logf(-value);
        memcpy(rp_test_bytes_of(subject, name) + 4 * i, &value, 4);
    }
}

/* Of 32 values, the scale's F16 exponent is one more. */
void rp_spoil_double_scales(const struct rp_wrong_file *subject, const char *name)
{
    const struct rp_gguf_tensor *tensor = rp_test_tensor_of(subject, name);
    const size_t n_bytes = tensor->n_rows * tensor->row_bytes;
    const size_t block = tensor->type == RP_GGML_Q8_0 ? 34 : 18;
    for (size_t i = 0; i < n_bytes; i += block)
        rp_test_bytes_of(subject, name)[i + 1] =
            (unsigned char)(rp_test_bytes_of(subject, name)[i + 1] + 4);
}

void rp_spoil_clear(const struct rp_wrong_file *subject, const char *name)
{
    const struct rp_gguf_tensor *tensor = rp_test_tensor_of(subject, name);
    memset(rp_test_bytes_of(subject, name), 0, tensor->n_rows * tensor->row_bytes);
}

void rp_spoil_clear_rows_10_to_19(const struct rp_wrong_file *subject, const char *name)
{
    const size_t n = rp_test_tensor_of(subject, name)->row_bytes;
    memset(rp_test_bytes_of(subject, name) + 10 * n, 0, 10 * n);
}

/* Of Q4_0: neighbours in one byte. */
void rp_spoil_pack_neighbours(const struct rp_wrong_file *subject, const char *name)
{
    const struct rp_gguf_tensor *tensor = rp_test_tensor_of(subject, name);
    for (size_t at = 0; at < tensor->n_rows * tensor->row_bytes; at += 18) {
        unsigned char *in = rp_test_bytes_of(subject, name) + at + 2, values[32];
        for (size_t i = 0; i < 16; i++) {
            values[i] = in[i] & 0x0f;
            values[16 + i] = in[i] >> 4;
        }
        for (size_t i = 0; i < 16; i++)
            in[i] = (unsigned char)(values[2 * i] | values[2 * i + 1] << 4);
    }
}

void rp_spoil_exchange_nibbles(const struct rp_wrong_file *subject, const char *name)
{
    const struct rp_gguf_tensor *tensor = rp_test_tensor_of(subject, name);
    unsigned char *bytes = rp_test_bytes_of(subject, name);
    for (size_t at = 0; at < tensor->n_rows * tensor->row_bytes; at++)
        if (at % 18 >= 2)
            bytes[at] = (unsigned char)(bytes[at] >> 4 | bytes[at] << 4);
}

void rp_spoil_write_nan(const struct rp_wrong_file *subject, const char *name)
{
    const float value = NAN;
    memcpy(rp_test_bytes_of(subject, name) + 4 * 5, &value, sizeof value);
}

/* One value of Q8_0 two steps off. */
void rp_spoil_move_one_value(const struct rp_wrong_file *subject, const char *name)
{
    unsigned char *value =
        rp_test_bytes_of(subject, name) + 2 * rp_test_tensor_of(subject, name)->row_bytes + 9;
    *value = (unsigned char)(*value > 127 ? *value + 2 : *value - 2);
}

/* One value of BF16 off by one unit in the last place. */
void rp_spoil_move_one_bit(const struct rp_wrong_file *subject, const char *name)
{
    rp_test_bytes_of(subject, name)[2 * 77] ^= 1;
}

void rp_spoil_coarsen_q8_0(const struct rp_wrong_file *subject, const char *name)
{
    const struct rp_gguf_tensor *tensor = rp_test_tensor_of(subject, name);
    for (size_t at = 0; at < tensor->n_rows * tensor->row_bytes; at += 34) {
        unsigned char *block = rp_test_bytes_of(subject, name) + at;
        for (size_t i = 2; i < 34; i++) {
            const bool is_low = block[i] > 127 && block[i] < 256 - 63; /* of int8: below -63 */
            const bool is_high = block[i] > 63 && block[i] <= 127;
            block[i] = is_high ? 1 : is_low ? 255 : 0;
        }
        block[1] = (unsigned char)(block[1] + 4 * 7); /* times 128 */
    }
}
