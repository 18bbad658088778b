/* See tensor/array.h. */
#include "tensor/array.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/little_endian.h"

size_t rp_value_size(enum rp_value_type type)
{
    switch (type) {
    case RP_VALUE_F64:
    case RP_VALUE_I64:
    case RP_VALUE_U64: return 8;
    case RP_VALUE_F32:
    case RP_VALUE_I32:
    case RP_VALUE_U32: return 4;
    case RP_VALUE_F16:
    case RP_VALUE_BF16:
    case RP_VALUE_I16:
    case RP_VALUE_U16: return 2;
    case RP_VALUE_I8:
    case RP_VALUE_U8: return 1;
    case RP_VALUE_OTHER: break;
    }
    return 0;
}

static bool is_float(enum rp_value_type type)
{
    return type >= RP_VALUE_F32 && type <= RP_VALUE_BF16;
}

char *rp_array_shape_text(const struct rp_array *array, char *out, size_t size)
{
    size_t used = 1;
    snprintf(out, size, "(");
    for (int i = 0; i < array->n_dims && used < size; i++) {
        const int n = snprintf(out + used, size - used, "%s%llu%s", i ? ", " : "",
                               (unsigned long long)array->dims[i], array->n_dims == 1 ? "," : "");
        used += n > 0 ? (size_t)n : 0;
    }
    if (used < size)
        snprintf(out + used, size - used, ")");
    return out;
}

/* Which dimensions are the stack, the rows and the columns; -1: there is none of them. */
struct places {
    int stack, row, column;
};

static bool find_places(const struct rp_array *array, bool may_be_stacked, struct places *at)
{
    const int n = array->n_dims;
    const int first = may_be_stacked && (n == 4 || (n == 3 && array->dims[0] > 1)) ? 1 : 0;
    *at = (struct places){first ? 0 : -1, -1, n - 1};
    switch (n - first) {
    case 1: return !first;
    case 2: at->row = n - 2; return true;
    case 3:
        at->row = array->dims[first] == 1 ? first + 1 : first;
        return array->dims[first] == 1 || array->dims[first + 1] == 1;
    default: return false;
    }
}

/* By how many values the next one of a dimension is further on. */
static size_t stride(const struct rp_array *array, int dimension)
{
    uint64_t product = 1;
    if (dimension < 0)
        return 0;
    for (int i = 0; i < array->n_dims; i++)
        if (array->is_fortran ? i < dimension : i > dimension)
            product *= array->dims[i];
    return (size_t)product;
}

enum rp_status rp_array_rows(const struct rp_array *array, bool may_be_stacked, const char *where,
                             struct rp_rows *rows, struct rp_error *err)
{
    char shape[128];
    struct places at;
    *rows = (struct rp_rows){.type = array->type, .is_big_endian = array->is_big_endian};
    rp_array_shape_text(array, shape, sizeof shape);
    if (!is_float(array->type))
        return rp_fail(err, RP_ERR_UNSUPPORTED, where, 0,
                       "expected float32, float16, bfloat16 or float64, found '%s'%s",
                       array->type_name, array->note);
    if (!find_places(array, may_be_stacked, &at))
        return rp_fail(err, RP_ERR_UNSUPPORTED, where, 0,
                       "expected shape (positions, dim), (dim,), (1, positions, dim) or "
                       "(positions, 1, dim), found %s",
                       shape);
    if (array->n_elements == 0)
        return rp_fail(err, RP_ERR_MISSING, where, 0, "there is nothing in it: shape %s", shape);
    if (array->n_elements > SIZE_MAX / sizeof(double))
        return rp_fail(err, RP_ERR_UNSUPPORTED, where, 0, "shape %s does not fit into memory",
                       shape);
    rows->n = at.row < 0 ? 1 : (size_t)array->dims[at.row];
    rows->dim = (size_t)array->dims[at.column];
    rows->n_stacked = at.stack < 0 ? 1 : (size_t)array->dims[at.stack];
    rows->row_stride = stride(array, at.row);
    rows->column_stride = stride(array, at.column);
    rows->stack_stride = stride(array, at.stack);
    return RP_OK;
}

bool rp_rows_are_plain(const struct rp_rows *rows)
{
    return rows->type == RP_VALUE_F32 && !rows->is_big_endian &&
           (rows->column_stride == 1 || rows->dim == 1) &&
           (rows->row_stride == rows->dim || rows->n == 1);
}

/* The value's bits, whatever its byte order. */
static uint64_t load_bits(const unsigned char *at, size_t size, bool is_big_endian)
{
    uint64_t bits = 0;
    for (size_t i = 0; i < size; i++)
        bits = bits << 8 | at[is_big_endian ? i : size - 1 - i];
    return bits;
}

static float float_of(uint64_t bits, enum rp_value_type type)
{
    double wide;
    switch (type) {
    case RP_VALUE_F64: memcpy(&wide, &bits, sizeof wide); return (float)wide;
    case RP_VALUE_F16: return rp_float_from_half((uint16_t)bits);
    case RP_VALUE_BF16: return rp_float_from_bits((uint32_t)bits << 16);
    default: return rp_float_from_bits((uint32_t)bits);
    }
}

void rp_values_read(enum rp_value_type type, const unsigned char *at, size_t n, float *out)
{
    if (type == RP_VALUE_F32)
        memcpy(out, at, n * sizeof *out);
    else if (type == RP_VALUE_F16)
        for (size_t i = 0; i < n; i++)
            out[i] = rp_float_from_half(rp_load_u16(at + 2 * i));
    else if (type == RP_VALUE_BF16)
        for (size_t i = 0; i < n; i++)
            out[i] = rp_float_from_bits((uint32_t)rp_load_u16(at + 2 * i) << 16);
    else
        for (size_t i = 0; i < n; i++)
            out[i] = (float)rp_load_f64(at + 8 * i);
}

void rp_rows_read(const struct rp_rows *rows, const unsigned char *data, float *out)
{
    const size_t size = rp_value_size(rows->type);
    for (size_t r = 0; r < rows->n; r++) {
        const unsigned char *at = data + (rows->first + r * rows->row_stride) * size;
        if (!rows->is_big_endian && rows->column_stride == 1) {
            rp_values_read(rows->type, at, rows->dim, out);
            out += rows->dim;
            continue;
        }
        for (size_t c = 0; c < rows->dim; c++, at += rows->column_stride * size)
            *out++ = float_of(load_bits(at, size, rows->is_big_endian), rows->type);
    }
}

static bool is_signed(enum rp_value_type type)
{
    return type >= RP_VALUE_I8 && type <= RP_VALUE_I64;
}

enum rp_status rp_array_int64(const struct rp_array *array, const unsigned char *data, size_t max_n,
                              const char *where, int64_t **values, size_t *n, struct rp_error *err)
{
    char shape[128];
    const size_t size = rp_value_size(array->type);
    const bool is_vector =
        array->n_dims == 1 || (array->n_dims == 2 && (array->dims[0] == 1 || array->dims[1] == 1));
    if (array->type < RP_VALUE_I8)
        return rp_fail(err, RP_ERR_UNSUPPORTED, where, 0, "expected an integer type, found '%s'%s",
                       array->type_name, array->note);
    if (!is_vector || array->n_elements > max_n)
        return rp_fail(err, RP_ERR_UNSUPPORTED, where, 0,
                       "expected shape (n,) with at most %zu elements, found %s", max_n,
                       rp_array_shape_text(array, shape, sizeof shape));
    *values = malloc(((size_t)array->n_elements + 1) * sizeof **values);
    if (!*values)
        return rp_fail(err, RP_ERR_MEMORY, where, -1, "cannot allocate %llu numbers",
                       (unsigned long long)array->n_elements);
    for (size_t i = 0; i < array->n_elements; i++) {
        uint64_t bits = load_bits(data + i * size, size, array->is_big_endian);
        if (is_signed(array->type) && size < 8 && bits >> (8 * size - 1))
            bits |= UINT64_MAX << 8 * size;
        if (array->type == RP_VALUE_U64 && bits > INT64_MAX) {
            free(*values);
            *values = NULL;
            return rp_fail(err, RP_ERR_FORMAT, where, (long long)(i * size),
                           "expected numbers below 2^63, found %llu", (unsigned long long)bits);
        }
        memcpy(&(*values)[i], &bits, sizeof bits);
    }
    *n = (size_t)array->n_elements;
    return RP_OK;
}
