/* The metadata of an open GGUF file: lookup, typed access, and text for a reader.
 * Offsets were checked when the file was opened (gguf.c). */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "weights/gguf_internal.h"

#define TEXT_MAX_ELEMENTS 8 /* of an array that are shown */
#define TEXT_MAX_BYTES 200  /* of a string that are shown */

struct kind_info {
    const char *name;
    size_t size;
};

static const struct kind_info kinds[] = {
    [RP_GGUF_UINT8] = {"uint8", 1},     [RP_GGUF_INT8] = {"int8", 1},
    [RP_GGUF_UINT16] = {"uint16", 2},   [RP_GGUF_INT16] = {"int16", 2},
    [RP_GGUF_UINT32] = {"uint32", 4},   [RP_GGUF_INT32] = {"int32", 4},
    [RP_GGUF_FLOAT32] = {"float32", 4}, [RP_GGUF_BOOL] = {"bool", 1},
    [RP_GGUF_STRING] = {"string", 0},   [RP_GGUF_ARRAY] = {"array", 0},
    [RP_GGUF_UINT64] = {"uint64", 8},   [RP_GGUF_INT64] = {"int64", 8},
    [RP_GGUF_FLOAT64] = {"float64", 8},
};

static bool is_kind(enum rp_gguf_kind kind)
{
    return (unsigned)kind < sizeof kinds / sizeof *kinds;
}

size_t rp_gguf_kind_size(enum rp_gguf_kind kind)
{
    return is_kind(kind) ? kinds[kind].size : 0;
}

const char *rp_gguf_kind_name(enum rp_gguf_kind kind)
{
    return is_kind(kind) ? kinds[kind].name : "unknown";
}

size_t rp_gguf_n_values(const struct rp_gguf *gguf)
{
    return gguf->n_values;
}

const struct rp_gguf_value *rp_gguf_value(const struct rp_gguf *gguf, size_t index)
{
    return &gguf->values[index];
}

static int compare_key(const void *key, const void *element)
{
    const struct rp_gguf_value *const *value = element;
    const char *text = key;
    struct rp_gguf_string string = {text, strlen(text)};
    return rp_gguf_string_compare(string, (*value)->key);
}

const struct rp_gguf_value *rp_gguf_find_value(const struct rp_gguf *gguf, const char *key)
{
    const struct rp_gguf_value **found = bsearch(key, gguf->values_by_key, gguf->n_values,
                                                 sizeof(struct rp_gguf_value *), compare_key);
    return found ? *found : NULL;
}

static bool is_integer(enum rp_gguf_kind kind)
{
    return kind <= RP_GGUF_INT32 || kind == RP_GGUF_UINT64 || kind == RP_GGUF_INT64;
}

static bool is_float(enum rp_gguf_kind kind)
{
    return kind == RP_GGUF_FLOAT32 || kind == RP_GGUF_FLOAT64;
}

/* False when it is beyond int64. */
static bool load_int(const unsigned char *bytes, enum rp_gguf_kind kind, int64_t *out)
{
    uint64_t wide;
    switch (kind) {
    case RP_GGUF_UINT8: *out = bytes[0]; return true;
    case RP_GGUF_INT8: *out = (bytes[0] ^ 0x80) - 0x80; return true;
    case RP_GGUF_UINT16: *out = rp_load_u16(bytes); return true;
    case RP_GGUF_INT16: *out = (int16_t)rp_load_u16(bytes); return true;
    case RP_GGUF_UINT32: *out = rp_load_u32(bytes); return true;
    case RP_GGUF_INT32: *out = (int32_t)rp_load_u32(bytes); return true;
    case RP_GGUF_INT64: *out = (int64_t)rp_load_u64(bytes); return true;
    default:
        wide = rp_load_u64(bytes);
        *out = (int64_t)wide;
        return wide <= INT64_MAX;
    }
}

static double load_float(const unsigned char *bytes, enum rp_gguf_kind kind)
{
    if (kind == RP_GGUF_FLOAT32)
        return (double)rp_float_from_bits(rp_load_u32(bytes));
    return rp_load_f64(bytes);
}

static enum rp_status wrong_kind(const struct rp_gguf *gguf, const struct rp_gguf_value *value,
                                 const char *expected, struct rp_error *err)
{
    bool is_array = value->kind == RP_GGUF_ARRAY;
    return rp_fail(err, RP_ERR_FORMAT, gguf->path, (long long)value->offset,
                   "key '%.*s' is of kind %s%s%s, expected %s", (int)value->key.length,
                   value->key.data, rp_gguf_kind_name(value->kind), is_array ? " of " : "",
                   is_array ? rp_gguf_kind_name(value->element_kind) : "", expected);
}

/* Finds key, which has to be an array (or not, as is_array says). */
static enum rp_status find(const struct rp_gguf *gguf, const char *key, bool is_array,
                           const char *expected, const struct rp_gguf_value **value,
                           struct rp_error *err)
{
    *value = rp_gguf_find_value(gguf, key);
    if (!*value)
        return rp_fail(err, RP_ERR_MISSING, gguf->path, -1, "key '%s' is missing", key);
    if (((*value)->kind == RP_GGUF_ARRAY) != is_array)
        return wrong_kind(gguf, *value, expected, err);
    return RP_OK;
}

enum rp_status rp_gguf_get_int(const struct rp_gguf *gguf, const char *key, int64_t low,
                               int64_t high, int64_t *out, struct rp_error *err)
{
    const struct rp_gguf_value *value;
    int64_t number;
    enum rp_status status = find(gguf, key, false, "an integer", &value, err);
    if (status != RP_OK)
        return status;
    if (!is_integer(value->kind))
        return wrong_kind(gguf, value, "an integer", err);
    const unsigned char *bytes = gguf->bytes + value->offset;
    if (!load_int(bytes, value->kind, &number))
        return rp_fail(err, RP_ERR_UNSUPPORTED, gguf->path, (long long)value->offset,
                       "key '%s' is %" PRIu64 ", expected %" PRId64 " to %" PRId64, key,
                       rp_load_u64(bytes), low, high);
    if (number < low || number > high)
        return rp_fail(err, RP_ERR_UNSUPPORTED, gguf->path, (long long)value->offset,
                       "key '%s' is %" PRId64 ", expected %" PRId64 " to %" PRId64, key, number,
                       low, high);
    *out = number;
    return RP_OK;
}

enum rp_status rp_gguf_get_float(const struct rp_gguf *gguf, const char *key, double *out,
                                 struct rp_error *err)
{
    const struct rp_gguf_value *value;
    enum rp_status status = find(gguf, key, false, "a float", &value, err);
    if (status != RP_OK)
        return status;
    if (!is_float(value->kind))
        return wrong_kind(gguf, value, "a float", err);
    *out = load_float(gguf->bytes + value->offset, value->kind);
    return RP_OK;
}

enum rp_status rp_gguf_get_bool(const struct rp_gguf *gguf, const char *key, bool *out,
                                struct rp_error *err)
{
    const struct rp_gguf_value *value;
    enum rp_status status = find(gguf, key, false, "a bool", &value, err);
    if (status != RP_OK)
        return status;
    if (value->kind != RP_GGUF_BOOL)
        return wrong_kind(gguf, value, "a bool", err);
    if (gguf->bytes[value->offset] > 1)
        return rp_fail(err, RP_ERR_FORMAT, gguf->path, (long long)value->offset,
                       "key '%s' is the byte %d, expected 0 or 1", key, gguf->bytes[value->offset]);
    *out = gguf->bytes[value->offset] == 1;
    return RP_OK;
}

static struct rp_gguf_string load_string(const unsigned char *bytes)
{
    return (struct rp_gguf_string){(const char *)bytes + 8, (size_t)rp_load_u64(bytes)};
}

enum rp_status rp_gguf_get_string(const struct rp_gguf *gguf, const char *key,
                                  struct rp_gguf_string *out, struct rp_error *err)
{
    const struct rp_gguf_value *value;
    enum rp_status status = find(gguf, key, false, "a string", &value, err);
    if (status != RP_OK)
        return status;
    if (value->kind != RP_GGUF_STRING)
        return wrong_kind(gguf, value, "a string", err);
    *out = load_string(gguf->bytes + value->offset);
    return RP_OK;
}

/* Memory for an array's elements; NULL for none, which is no error. */
static enum rp_status allocate(const struct rp_gguf *gguf, const char *key, size_t n, size_t size,
                               void **items, struct rp_error *err)
{
    *items = n ? calloc(n, size) : NULL;
    if (n && !*items)
        return rp_fail(err, RP_ERR_MEMORY, gguf->path, -1, "no memory for the %zu values of '%s'",
                       n, key);
    return RP_OK;
}

enum rp_status rp_gguf_get_ints(const struct rp_gguf *gguf, const char *key, int64_t **items,
                                size_t *n, struct rp_error *err)
{
    static const char expected[] = "an array of integers";
    const struct rp_gguf_value *value;
    void *numbers;
    enum rp_status status = find(gguf, key, true, expected, &value, err);
    if (status != RP_OK)
        return status;
    if (!is_integer(value->element_kind))
        return wrong_kind(gguf, value, expected, err);
    status = allocate(gguf, key, value->n_elements, sizeof **items, &numbers, err);
    if (status != RP_OK)
        return status;
    size_t size = rp_gguf_kind_size(value->element_kind);
    for (size_t i = 0; i < value->n_elements; i++) {
        if (!load_int(gguf->bytes + value->offset + i * size, value->element_kind,
                      (int64_t *)numbers + i)) {
            free(numbers);
            return rp_fail(err, RP_ERR_UNSUPPORTED, gguf->path, (long long)value->offset,
                           "key '%s': element %zu is beyond a signed 64-bit integer", key, i);
        }
    }
    *items = numbers;
    *n = value->n_elements;
    return RP_OK;
}

enum rp_status rp_gguf_get_bools(const struct rp_gguf *gguf, const char *key, bool **items,
                                 size_t *n, struct rp_error *err)
{
    static const char expected[] = "an array of bools";
    const struct rp_gguf_value *value;
    void *bools;
    enum rp_status status = find(gguf, key, true, expected, &value, err);
    if (status != RP_OK)
        return status;
    if (value->element_kind != RP_GGUF_BOOL)
        return wrong_kind(gguf, value, expected, err);
    status = allocate(gguf, key, value->n_elements, sizeof **items, &bools, err);
    if (status != RP_OK)
        return status;
    for (size_t i = 0; i < value->n_elements; i++) {
        unsigned char byte = gguf->bytes[value->offset + i];
        if (byte > 1) {
            free(bools);
            return rp_fail(err, RP_ERR_FORMAT, gguf->path, (long long)value->offset,
                           "key '%s': element %zu is the byte %d, expected 0 or 1", key, i, byte);
        }
        ((bool *)bools)[i] = byte == 1;
    }
    *items = bools;
    *n = value->n_elements;
    return RP_OK;
}

enum rp_status rp_gguf_get_floats(const struct rp_gguf *gguf, const char *key, double **items,
                                  size_t *n, struct rp_error *err)
{
    static const char expected[] = "an array of floats";
    const struct rp_gguf_value *value;
    void *numbers;
    enum rp_status status = find(gguf, key, true, expected, &value, err);
    if (status != RP_OK)
        return status;
    if (!is_float(value->element_kind))
        return wrong_kind(gguf, value, expected, err);
    status = allocate(gguf, key, value->n_elements, sizeof **items, &numbers, err);
    if (status != RP_OK)
        return status;
    size_t size = rp_gguf_kind_size(value->element_kind);
    for (size_t i = 0; i < value->n_elements; i++)
        ((double *)numbers)[i] =
            load_float(gguf->bytes + value->offset + i * size, value->element_kind);
    *items = numbers;
    *n = value->n_elements;
    return RP_OK;
}

enum rp_status rp_gguf_get_strings(const struct rp_gguf *gguf, const char *key,
                                   struct rp_gguf_string **items, size_t *n, struct rp_error *err)
{
    static const char expected[] = "an array of strings";
    const struct rp_gguf_value *value;
    void *strings;
    enum rp_status status = find(gguf, key, true, expected, &value, err);
    if (status != RP_OK)
        return status;
    if (value->element_kind != RP_GGUF_STRING)
        return wrong_kind(gguf, value, expected, err);
    status = allocate(gguf, key, value->n_elements, sizeof **items, &strings, err);
    if (status != RP_OK)
        return status;
    const unsigned char *bytes = gguf->bytes + value->offset;
    *items = strings;
    *n = value->n_elements;
    for (size_t i = 0; i < value->n_elements; i++) {
        (*items)[i] = load_string(bytes);
        bytes += 8 + (*items)[i].length;
    }
    return RP_OK;
}

/* ---- text ---- */

struct text {
    char *buf;
    size_t size, length;
};

static void append(struct text *text, const char *fmt, ...) RP_PRINTF(2, 3);
static void append(struct text *text, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text->buf + text->length, text->size - text->length, fmt, args);
    va_end(args);
    size_t room = text->size - text->length - 1;
    text->length += n > 0 && (size_t)n < room ? (size_t)n : n > 0 ? room : 0;
}

static void append_string(struct text *text, struct rp_gguf_string string)
{
    size_t at = 0;
    append(text, "\"");
    while (at < string.length && at < TEXT_MAX_BYTES) {
        unsigned char byte = (unsigned char)string.data[at];
        size_t sequence = rp_utf8_sequence(string.data + at, string.length - at);
        if (sequence == 0 || byte < 0x20 || byte == 0x7f) {
            append(text, "\\x%02x", byte);
            at++;
        } else {
            append(text, "%.*s", (int)sequence, string.data + at);
            at += sequence;
        }
    }
    if (at < string.length)
        append(text, "…\" (%zu bytes)", string.length);
    else
        append(text, "\"");
}

static void append_scalar(struct text *text, const unsigned char *bytes, enum rp_gguf_kind kind)
{
    int64_t number;
    if (kind == RP_GGUF_STRING)
        append_string(text, load_string(bytes));
    else if (kind == RP_GGUF_BOOL)
        append(text, "%s", bytes[0] == 0 ? "false" : "true");
    else if (is_float(kind))
        append(text, "%.9g", load_float(bytes, kind));
    else if (load_int(bytes, kind, &number))
        append(text, "%" PRId64, number);
    else
        append(text, "%" PRIu64, rp_load_u64(bytes));
}

const char *rp_gguf_value_text(const struct rp_gguf *gguf, const struct rp_gguf_value *value,
                               char *buf, size_t size)
{
    struct text text = {buf, size, 0};
    const unsigned char *bytes = gguf->bytes + value->offset;
    if (size == 0)
        return buf;
    buf[0] = '\0';
    if (value->kind != RP_GGUF_ARRAY) {
        append_scalar(&text, bytes, value->kind);
        return buf;
    }
    append(&text, "%s[%zu]", rp_gguf_kind_name(value->element_kind), value->n_elements);
    if (value->element_kind == RP_GGUF_ARRAY)
        return buf;
    for (size_t i = 0; i < value->n_elements && i < TEXT_MAX_ELEMENTS; i++) {
        append(&text, "%s", i == 0 ? " " : ", ");
        append_scalar(&text, bytes, value->element_kind);
        bytes += value->element_kind == RP_GGUF_STRING ? 8 + load_string(bytes).length
                                                       : rp_gguf_kind_size(value->element_kind);
    }
    if (value->n_elements > TEXT_MAX_ELEMENTS)
        append(&text, ", …");
    return buf;
}
