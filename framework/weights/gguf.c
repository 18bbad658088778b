/* Opens a GGUF file: every count, length, offset and name is checked here, once.
 * Values are decoded in gguf_metadata.c, rows in gguf_rows.c; shards are joined in gguf_shards.c. */
#include "refparity/gguf.h"

#include <stdlib.h>

#include "base/file.h"
#include "weights/gguf_internal.h"

#define MAGIC 0x46554747u /* "GGUF" */
#define DEFAULT_ALIGNMENT 32
#define MAX_KEY_LENGTH 65535 /* docs/gguf.md */
#define MIN_VALUE_BYTES 14   /* key length, one byte of key, kind, one byte of value */
#define MIN_TENSOR_BYTES 25  /* name length, one byte of name, n_dims, type, offset */

/* A position in the file, and where to report what is wrong there. */
struct cursor {
    const struct rp_gguf *gguf;
    size_t at;
    struct rp_error *err;
};

static size_t left(const struct cursor *cursor)
{
    return cursor->gguf->size - cursor->at;
}

/* rp_fail's value is code, which the compiler cannot know. */
#define FAIL_AT(cursor, offset, code, ...) \
    (rp_fail((cursor)->err, code, (cursor)->gguf->path, (long long)(offset), __VA_ARGS__), (code))

static enum rp_status need(const struct cursor *cursor, size_t n, const char *what)
{
    if (n <= left(cursor))
        return RP_OK;
    return FAIL_AT(cursor, cursor->at, RP_ERR_FORMAT,
                   "the file is truncated: %s needs %zu bytes, %zu are left", what, n,
                   left(cursor));
}

static enum rp_status read_u32(struct cursor *cursor, const char *what, uint32_t *out)
{
    enum rp_status status = need(cursor, 4, what);
    if (status != RP_OK)
        return status;
    *out = rp_load_u32(cursor->gguf->bytes + cursor->at);
    cursor->at += 4;
    return RP_OK;
}

static enum rp_status read_u64(struct cursor *cursor, const char *what, uint64_t *out)
{
    enum rp_status status = need(cursor, 8, what);
    if (status != RP_OK)
        return status;
    *out = rp_load_u64(cursor->gguf->bytes + cursor->at);
    cursor->at += 8;
    return RP_OK;
}

static enum rp_status read_string(struct cursor *cursor, const char *what,
                                  struct rp_gguf_string *out)
{
    uint64_t length;
    enum rp_status status = read_u64(cursor, what, &length);
    if (status != RP_OK)
        return status;
    if (length > left(cursor))
        return FAIL_AT(cursor, cursor->at - 8, RP_ERR_FORMAT,
                       "the file is truncated: %s needs %llu bytes, %zu are left", what,
                       (unsigned long long)length, left(cursor));
    out->data = (const char *)cursor->gguf->bytes + cursor->at;
    out->length = (size_t)length;
    cursor->at += (size_t)length;
    return RP_OK;
}

/* Names go into messages and reports, so control characters are refused here. */
static enum rp_status read_name(struct cursor *cursor, const char *what, size_t max_length,
                                struct rp_gguf_string *out)
{
    size_t start = cursor->at;
    enum rp_status status = read_string(cursor, what, out);
    if (status != RP_OK)
        return status;
    if (out->length == 0 || out->length > max_length)
        return FAIL_AT(cursor, start, RP_ERR_FORMAT, "%s has %zu bytes, expected 1 to %zu", what,
                       out->length, max_length);
    for (size_t i = 0; i < out->length; i++) {
        unsigned char byte = (unsigned char)out->data[i];
        if (byte < 0x20 || byte == 0x7f)
            return FAIL_AT(cursor, start + 8 + i, RP_ERR_FORMAT, "%s holds the byte 0x%02x", what,
                           byte);
    }
    return RP_OK;
}

/* Steps over n values of a kind. Each consumes bytes of the file, so the work is bounded by it. */
static enum rp_status skip_values(struct cursor *cursor, uint32_t kind, uint64_t n, int nesting)
{
    static const char what[] = "a metadata value";
    enum rp_status status = RP_OK;
    size_t size = rp_gguf_kind_size((enum rp_gguf_kind)kind);
    if (size > 0) {
        if (n > left(cursor) / size)
            return FAIL_AT(cursor, cursor->at, RP_ERR_FORMAT,
                           "the file is truncated: %llu values of %zu bytes, %zu bytes are left",
                           (unsigned long long)n, size, left(cursor));
        cursor->at += (size_t)n * size;
        return RP_OK;
    }
    for (uint64_t i = 0; i < n && status == RP_OK; i++) {
        if (kind == RP_GGUF_STRING) {
            struct rp_gguf_string text;
            status = read_string(cursor, what, &text);
            continue;
        }
        uint32_t element_kind;
        uint64_t n_elements;
        if (nesting == RP_GGUF_MAX_NESTING)
            return FAIL_AT(cursor, cursor->at, RP_ERR_UNSUPPORTED,
                           "arrays are nested deeper than %d", RP_GGUF_MAX_NESTING);
        status = read_u32(cursor, what, &element_kind);
        if (status == RP_OK && element_kind > RP_GGUF_FLOAT64)
            return FAIL_AT(cursor, cursor->at - 4, RP_ERR_FORMAT,
                           "array elements of kind %u, expected 0 to %d", element_kind,
                           RP_GGUF_FLOAT64);
        if (status == RP_OK)
            status = read_u64(cursor, what, &n_elements);
        if (status == RP_OK)
            status = skip_values(cursor, element_kind, n_elements, nesting + 1);
    }
    return status;
}

static enum rp_status read_value(struct cursor *cursor, struct rp_gguf_value *value)
{
    uint32_t kind;
    enum rp_status status = read_name(cursor, "a metadata key", MAX_KEY_LENGTH, &value->key);
    if (status == RP_OK)
        status = read_u32(cursor, "a metadata kind", &kind);
    if (status != RP_OK)
        return status;
    if (kind > RP_GGUF_FLOAT64)
        return FAIL_AT(cursor, cursor->at - 4, RP_ERR_FORMAT,
                       "key '%.*s' is of kind %u, expected 0 to %d", (int)value->key.length,
                       value->key.data, kind, RP_GGUF_FLOAT64);
    value->kind = value->element_kind = (enum rp_gguf_kind)kind;
    value->n_elements = 1;
    value->offset = cursor->at;
    status = skip_values(cursor, kind, 1, 0);
    if (status != RP_OK || kind != RP_GGUF_ARRAY)
        return status;
    const unsigned char *header = cursor->gguf->bytes + value->offset;
    value->element_kind = (enum rp_gguf_kind)rp_load_u32(header);
    value->n_elements = (size_t)rp_load_u64(header + 4);
    value->offset += 12;
    return RP_OK;
}

int rp_gguf_string_compare(struct rp_gguf_string a, struct rp_gguf_string b)
{
    size_t common = a.length < b.length ? a.length : b.length;
    int order = common ? memcmp(a.data, b.data, common) : 0;
    if (order != 0)
        return order;
    return (a.length > b.length) - (a.length < b.length);
}

static int compare_keys(const void *a, const void *b)
{
    const struct rp_gguf_value *const *left_value = a;
    const struct rp_gguf_value *const *right_value = b;
    return rp_gguf_string_compare((*left_value)->key, (*right_value)->key);
}

static int compare_names(const void *a, const void *b)
{
    const struct rp_gguf_tensor *const *left_tensor = a;
    const struct rp_gguf_tensor *const *right_tensor = b;
    return strcmp((*left_tensor)->name, (*right_tensor)->name);
}

static int compare_offsets(const void *a, const void *b)
{
    const struct rp_gguf_tensor *const *left_tensor = a;
    const struct rp_gguf_tensor *const *right_tensor = b;
    size_t x = (*left_tensor)->offset, y = (*right_tensor)->offset;
    return (x > y) - (x < y);
}

static enum rp_status read_values(struct cursor *cursor, uint64_t count)
{
    struct rp_gguf *gguf = (struct rp_gguf *)cursor->gguf;
    if (count > left(cursor) / MIN_VALUE_BYTES)
        return FAIL_AT(cursor, 16, RP_ERR_FORMAT,
                       "%llu metadata entries cannot fit in the %zu bytes that are left",
                       (unsigned long long)count, left(cursor));
    gguf->n_values = (size_t)count;
    gguf->values = calloc(gguf->n_values + 1, sizeof *gguf->values);
    gguf->values_by_key = calloc(gguf->n_values + 1, sizeof(struct rp_gguf_value *));
    if (!gguf->values || !gguf->values_by_key)
        return FAIL_AT(cursor, -1, RP_ERR_MEMORY, "no memory for %zu metadata entries",
                       gguf->n_values);
    for (size_t i = 0; i < gguf->n_values; i++) {
        enum rp_status status = read_value(cursor, &gguf->values[i]);
        if (status != RP_OK)
            return status;
        gguf->values_by_key[i] = &gguf->values[i];
    }
    qsort(gguf->values_by_key, gguf->n_values, sizeof(struct rp_gguf_value *), compare_keys);
    for (size_t i = 1; i < gguf->n_values; i++) {
        struct rp_gguf_string key = gguf->values_by_key[i]->key;
        if (rp_gguf_string_compare(gguf->values_by_key[i - 1]->key, key) == 0)
            return FAIL_AT(cursor, -1, RP_ERR_FORMAT, "key '%.*s' occurs twice", (int)key.length,
                           key.data);
    }
    return RP_OK;
}

/* Sets row_bytes of a known type; the type has just been read. */
static enum rp_status size_rows(const struct cursor *cursor, struct rp_gguf_tensor *tensor)
{
    size_t block_values, block_bytes;
    if (!rp_ggml_type_layout(tensor->type, &block_values, &block_bytes)) {
        if (tensor->n_rows > SIZE_MAX / tensor->dims[0])
            return FAIL_AT(cursor, cursor->at - 4, RP_ERR_FORMAT, "tensor '%s': its size overflows",
                           tensor->name);
        return RP_OK; /* row_bytes stays 0 */
    }
    size_t n_blocks = tensor->dims[0] / block_values;
    if (tensor->dims[0] % block_values != 0)
        return FAIL_AT(cursor, cursor->at - 4, RP_ERR_FORMAT,
                       "tensor '%s': rows of %zu values do not divide into %s blocks of %zu",
                       tensor->name, tensor->dims[0], rp_ggml_type_name(tensor->type),
                       block_values);
    if (n_blocks > SIZE_MAX / block_bytes || tensor->n_rows > SIZE_MAX / (n_blocks * block_bytes))
        return FAIL_AT(cursor, cursor->at - 4, RP_ERR_FORMAT,
                       "tensor '%s': its size in bytes overflows", tensor->name);
    tensor->row_bytes = n_blocks * block_bytes;
    return RP_OK;
}

/* offset stays relative to the start of the data, which is not known yet. */
static enum rp_status read_tensor(struct cursor *cursor, struct rp_gguf_tensor *tensor)
{
    struct rp_gguf_string name;
    uint32_t n_dims;
    uint64_t dim, offset;
    enum rp_status status = read_name(cursor, "a tensor's name", RP_GGUF_NAME_SIZE - 1, &name);
    if (status != RP_OK)
        return status;
    memcpy(tensor->name, name.data, name.length);
    status = read_u32(cursor, "a tensor's number of dimensions", &n_dims);
    if (status != RP_OK)
        return status;
    if (n_dims > RP_GGUF_MAX_DIMS)
        return FAIL_AT(cursor, cursor->at - 4, RP_ERR_FORMAT,
                       "tensor '%s' has %u dimensions, expected at most %d", tensor->name, n_dims,
                       RP_GGUF_MAX_DIMS);
    tensor->n_dims = n_dims;
    tensor->n_rows = 1;
    for (unsigned i = 0; i < RP_GGUF_MAX_DIMS; i++) {
        tensor->dims[i] = 1;
        if (i >= n_dims)
            continue;
        status = read_u64(cursor, "a tensor's dimension", &dim);
        if (status != RP_OK)
            return status;
        if (dim == 0 || dim > SIZE_MAX / (i == 0 ? 1 : tensor->n_rows))
            return FAIL_AT(cursor, cursor->at - 8, RP_ERR_FORMAT,
                           "tensor '%s': dimension %u is %llu", tensor->name, i,
                           (unsigned long long)dim);
        tensor->dims[i] = (size_t)dim;
        if (i > 0)
            tensor->n_rows *= (size_t)dim;
    }
    status = read_u32(cursor, "a tensor's type", &tensor->type);
    if (status != RP_OK)
        return status;
    status = size_rows(cursor, tensor);
    if (status != RP_OK)
        return status;
    status = read_u64(cursor, "a tensor's offset", &offset);
    if (status != RP_OK)
        return status;
    if (offset > SIZE_MAX)
        return FAIL_AT(cursor, cursor->at - 8, RP_ERR_FORMAT, "tensor '%s': its offset overflows",
                       tensor->name);
    tensor->offset = (size_t)offset;
    return RP_OK;
}

static enum rp_status read_tensors(struct cursor *cursor, uint64_t count)
{
    struct rp_gguf *gguf = (struct rp_gguf *)cursor->gguf;
    if (count > left(cursor) / MIN_TENSOR_BYTES)
        return FAIL_AT(cursor, 8, RP_ERR_FORMAT,
                       "%llu tensors cannot fit in the %zu bytes that are left",
                       (unsigned long long)count, left(cursor));
    gguf->n_tensors = (size_t)count;
    gguf->tensors = calloc(gguf->n_tensors + 1, sizeof *gguf->tensors);
    gguf->tensors_by_name = calloc(gguf->n_tensors + 1, sizeof(struct rp_gguf_tensor *));
    if (!gguf->tensors || !gguf->tensors_by_name)
        return FAIL_AT(cursor, -1, RP_ERR_MEMORY, "no memory for %zu tensors", gguf->n_tensors);
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        enum rp_status status = read_tensor(cursor, &gguf->tensors[i]);
        if (status != RP_OK)
            return status;
        gguf->tensors_by_name[i] = &gguf->tensors[i];
    }
    return RP_OK;
}

static enum rp_status read_alignment(const struct cursor *cursor, size_t *alignment)
{
    static const char key[] = "general.alignment";
    int64_t value = DEFAULT_ALIGNMENT;
    enum rp_status status = RP_OK;
    if (rp_gguf_find_value(cursor->gguf, key))
        status = rp_gguf_get_int(cursor->gguf, key, 1, INT32_MAX, &value, cursor->err);
    if (status != RP_OK)
        return status;
    if ((value & (value - 1)) != 0)
        return FAIL_AT(cursor, -1, RP_ERR_FORMAT, "key '%s' is %lld, expected a power of two", key,
                       (long long)value);
    *alignment = (size_t)value;
    return RP_OK;
}

/* Of a type that is not known: no type takes less than a bit a value. */
static size_t least_bytes(const struct rp_gguf_tensor *tensor)
{
    return tensor->row_bytes ? tensor->n_rows * tensor->row_bytes
                             : tensor->n_rows * tensor->dims[0] / 8;
}

/* Makes offsets absolute: inside the file, aligned, names unique, no two tensors overlapping. */
static enum rp_status place_tensors(const struct cursor *cursor)
{
    const struct rp_gguf *gguf = cursor->gguf;
    size_t alignment = DEFAULT_ALIGNMENT;
    enum rp_status status = read_alignment(cursor, &alignment);
    if (status != RP_OK)
        return status;
    size_t padding = (alignment - cursor->at % alignment) % alignment;
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        struct rp_gguf_tensor *tensor = &gguf->tensors[i];
        size_t room = padding < left(cursor) ? left(cursor) - padding : 0;
        size_t n_bytes = least_bytes(tensor);
        if (tensor->offset % alignment != 0)
            return FAIL_AT(cursor, -1, RP_ERR_FORMAT,
                           "tensor '%s': offset %zu is not a multiple of %zu", tensor->name,
                           tensor->offset, alignment);
        if (tensor->offset > room || n_bytes > room - tensor->offset)
            return FAIL_AT(cursor, -1, RP_ERR_FORMAT,
                           "tensor '%s': %zu bytes at offset %zu end past the %zu bytes of data",
                           tensor->name, n_bytes, tensor->offset, room);
        tensor->offset += cursor->at + padding;
        tensor->data = gguf->bytes + tensor->offset;
    }
    qsort(gguf->tensors_by_name, gguf->n_tensors, sizeof(struct rp_gguf_tensor *), compare_offsets);
    for (size_t i = 1; i < gguf->n_tensors; i++) {
        const struct rp_gguf_tensor *before = gguf->tensors_by_name[i - 1];
        const struct rp_gguf_tensor *after = gguf->tensors_by_name[i];
        if (after->offset - before->offset < least_bytes(before))
            return FAIL_AT(cursor, (long long)after->offset, RP_ERR_FORMAT,
                           "tensors '%s' and '%s' overlap", before->name, after->name);
    }
    return RP_OK;
}

enum rp_status rp_gguf_sort_tensors(struct rp_gguf *gguf, struct rp_error *err)
{
    const struct rp_gguf_tensor **sorted =
        realloc(gguf->tensors_by_name, (gguf->n_tensors + 1) * sizeof(struct rp_gguf_tensor *));
    if (!sorted)
        return rp_fail(err, RP_ERR_MEMORY, gguf->path, -1, "no memory for %zu tensors",
                       gguf->n_tensors);
    gguf->tensors_by_name = sorted;
    for (size_t i = 0; i < gguf->n_tensors; i++)
        sorted[i] = &gguf->tensors[i];
    qsort(sorted, gguf->n_tensors, sizeof(struct rp_gguf_tensor *), compare_names);
    for (size_t i = 1; i < gguf->n_tensors; i++) {
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0)
            return rp_fail(err, RP_ERR_FORMAT, gguf->path, -1, "tensor '%s' occurs twice",
                           sorted[i]->name);
    }
    return RP_OK;
}

static enum rp_status read_file(struct rp_gguf *gguf, struct rp_error *err)
{
    struct cursor cursor = {.gguf = gguf, .at = 0, .err = err};
    uint32_t magic = 0;
    uint64_t n_tensors, n_values;
    enum rp_status status = read_u32(&cursor, "the magic number", &magic);
    if (status == RP_OK && magic != MAGIC)
        return FAIL_AT(&cursor, 0, RP_ERR_FORMAT,
                       "not a GGUF file: begins with %02x %02x %02x %02x", magic & 0xff,
                       magic >> 8 & 0xff, magic >> 16 & 0xff, magic >> 24);
    if (status == RP_OK)
        status = read_u32(&cursor, "the version", &gguf->version);
    if (status != RP_OK)
        return status;
    if ((gguf->version & 0xffff) == 0 && gguf->version != 0)
        return FAIL_AT(&cursor, 4, RP_ERR_UNSUPPORTED, "a big-endian file; little-endian is read");
    if (gguf->version != 2 && gguf->version != 3)
        return FAIL_AT(&cursor, 4, RP_ERR_UNSUPPORTED, "GGUF version %u; 2 and 3 are read",
                       gguf->version);
    status = read_u64(&cursor, "the number of tensors", &n_tensors);
    if (status == RP_OK)
        status = read_u64(&cursor, "the number of metadata entries", &n_values);
    if (status == RP_OK)
        status = read_values(&cursor, n_values);
    if (status == RP_OK)
        status = read_tensors(&cursor, n_tensors);
    if (status == RP_OK)
        status = place_tensors(&cursor);
    if (status == RP_OK)
        status = rp_gguf_sort_tensors(gguf, err);
    return status;
}

enum rp_status rp_gguf_open_memory(const void *bytes, size_t size, const char *name,
                                   struct rp_gguf **out, struct rp_error *err)
{
    enum rp_status status;
    struct rp_gguf *gguf = calloc(1, sizeof *gguf);
    if (!gguf)
        return rp_fail(err, RP_ERR_MEMORY, name, -1, "no memory to open a GGUF file");
    gguf->bytes = bytes;
    gguf->size = size;
    gguf->path = strdup(name);
    status = gguf->path ? read_file(gguf, err)
                        : rp_fail(err, RP_ERR_MEMORY, name, -1, "no memory for a path");
    if (status == RP_OK)
        *out = gguf;
    else
        rp_gguf_close(gguf);
    return status;
}

enum rp_status rp_gguf_open_file(const char *path, struct rp_gguf **out, struct rp_error *err)
{
    const void *bytes;
    size_t size;
    enum rp_status status = rp_file_map(path, &bytes, &size, err);
    if (status != RP_OK)
        return status;
    status = rp_gguf_open_memory(bytes, size, path, out, err);
    if (status == RP_OK)
        (*out)->is_mapped = 1;
    else
        rp_file_unmap(bytes, size);
    return status;
}

void rp_gguf_close(struct rp_gguf *gguf)
{
    if (!gguf)
        return;
    if (gguf->is_mapped)
        rp_file_unmap(gguf->bytes, gguf->size);
    if (gguf->source.close)
        gguf->source.close(gguf->source.context);
    for (size_t i = 0; i < gguf->n_others; i++)
        rp_gguf_close(gguf->others[i]);
    free(gguf->others);
    free(gguf->image);
    free(gguf->tensors_by_name);
    free(gguf->tensors);
    free(gguf->values_by_key);
    free(gguf->values);
    free(gguf->path);
    free(gguf);
}

void rp_gguf_forget_rows(const struct rp_gguf *gguf, const struct rp_gguf_tensor *tensor,
                         size_t first, size_t n)
{
    if (gguf->source.forget)
        gguf->source.forget(gguf->source.context, (size_t)(tensor - gguf->tensors));
    if (gguf->is_mapped)
        rp_file_forget(tensor->data + first * tensor->row_bytes, n * tensor->row_bytes);
}

const char *rp_gguf_path(const struct rp_gguf *gguf)
{
    return gguf->path;
}

uint32_t rp_gguf_version(const struct rp_gguf *gguf)
{
    return gguf->version;
}
