/* An array as a file describes it: the type of its values, their byte order, its shape and the order of its
 * dimensions; and its values as FP32 rows or as whole numbers. Not for the files: npy.h, safetensors.h. */
#ifndef REFPARITY_TENSOR_ARRAY_H
#define REFPARITY_TENSOR_ARRAY_H

#include <stdbool.h>

#include "refparity/status.h"

#define RP_ARRAY_MAX_DIMS 10

enum rp_value_type {
    RP_VALUE_OTHER,
    RP_VALUE_F32,
    RP_VALUE_F64,
    RP_VALUE_F16,
    RP_VALUE_BF16,
    RP_VALUE_I8,
    RP_VALUE_I16,
    RP_VALUE_I32,
    RP_VALUE_I64,
    RP_VALUE_U8,
    RP_VALUE_U16,
    RP_VALUE_U32,
    RP_VALUE_U64
};

struct rp_array {
    enum rp_value_type type;
    bool is_big_endian;
    bool is_fortran;    /* the first dimension is the one whose values are neighbours */
    char type_name[32]; /* as the file spells it: "<f4", "BF16" */
    const char *note;   /* what a type that is not read is; never NULL */
    int n_dims;
    uint64_t dims[RP_ARRAY_MAX_DIMS];
    uint64_t n_elements; /* product of dims, below 2^61; 1 for a scalar */
};

size_t rp_value_size(enum rp_value_type type); /* 0: RP_VALUE_OTHER */

/* out [n]: FP32, F64, F16 or BF16 values that are neighbours, little-endian. Exact, but for F64, which is
 * rounded. */
void rp_values_read(enum rp_value_type type, const unsigned char *at, size_t n, float *out);

/* "(9, 128)", as Python writes it; cut to fit. Returns out. */
char *rp_array_shape_text(const struct rp_array *array, char *out, size_t size);

/* Where the values of a slot's rows are: entry i of a stack, row r, column c is value
 * i * stack_stride + r * row_stride + c * column_stride, counted from the data's first. */
struct rp_rows {
    enum rp_value_type type;
    bool is_big_endian;
    size_t n, dim;
    size_t n_stacked; /* 1: no stack */
    size_t row_stride, column_stride, stack_stride;
    size_t first; /* of this slot: a value's number */
};

/* The shape as rows of a slot: [n][dim], [dim] (one row), [1][n][dim] or [n][1][dim] (a batch of one).
 * may_be_stacked: also a stack of those, [s][n][dim], [s][1][n][dim] or [s][n][1][dim].
 * RP_ERR_UNSUPPORTED: another shape or type; RP_ERR_MISSING: no rows, or rows of nothing. */
enum rp_status rp_array_rows(const struct rp_array *array, bool may_be_stacked, const char *where,
                             struct rp_rows *rows, struct rp_error *err);

/* Do FP32 values lie as rows [n][dim], so that they can be used in place? */
bool rp_rows_are_plain(const struct rp_rows *rows);
/* out [n][dim]: the slot's values of data, the array's first byte. Exact, but for F64, which is rounded. */
void rp_rows_read(const struct rp_rows *rows, const unsigned char *data, float *out);

/* A vector of whole numbers, of any integer type; also (1, n) and (n, 1), as batches of one are. At most max_n.
 * *values is [*n], heap. RP_ERR_UNSUPPORTED, RP_ERR_FORMAT (a number above 2^63 - 1), RP_ERR_MEMORY. */
enum rp_status rp_array_int64(const struct rp_array *array, const unsigned char *data, size_t max_n,
                              const char *where, int64_t **values, size_t *n, struct rp_error *err);

#endif
