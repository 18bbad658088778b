/* The header of numpy's .npy format, versions 1 to 3: what type and shape the data has.
 * https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
 * Not for converting: data is used as it lies, so other types and orders are refused. */
#ifndef REFPARITY_TENSOR_NPY_H
#define REFPARITY_TENSOR_NPY_H

#include "refparity/status.h"

#define RP_NPY_MAX_DIMS 10
#define RP_NPY_MAX_HEADER 65536 /* what this reads of the dict's text; numpy writes 118 bytes */
#define RP_NPY_PEEK (12 + RP_NPY_MAX_HEADER) /* the first bytes that hold any header read here */

struct rp_npy {
    char descr[32]; /* "<f4"; a structured type is "[...]" */
    int fortran_order;
    int n_dims;
    uint64_t dims[RP_NPY_MAX_DIMS];
    uint64_t n_elements; /* product of dims; 1 for a scalar */
    size_t data_offset;  /* where the data starts: the header's size */
};

/* Parses the header at the start of bytes[n]; n may end anywhere after it. where is for errors,
 * whose offsets count from bytes[0].
 * RP_ERR_FORMAT, RP_ERR_UNSUPPORTED (a version, too many dimensions, a longer header). */
enum rp_status rp_npy_parse(const uint8_t *bytes, size_t n, const char *where, struct rp_npy *npy,
                            struct rp_error *err);

/* What refparity reads. */
enum rp_npy_type {
    RP_NPY_FLOAT32, /* '<f4' */
    RP_NPY_INT64,   /* '<i8', and '<i4' */
    RP_NPY_UINT8    /* '|u1' */
};

/* Checks that the data is of that type, in C order, and exactly as long as the shape says: total is
 * the size of header and data. Fortran order is accepted where the bytes are the same: at most one
 * dimension is longer than 1. RP_ERR_UNSUPPORTED, RP_ERR_FORMAT. */
enum rp_status rp_npy_check(const struct rp_npy *npy, enum rp_npy_type type, uint64_t total,
                            const char *where, struct rp_error *err);

/* The shape as rows of a slot: [n][dim], [dim] (one row) or [1][n][dim] (a batch of one).
 * RP_ERR_UNSUPPORTED: another shape; RP_ERR_MISSING: no rows, or rows of nothing. */
enum rp_status rp_npy_rows(const struct rp_npy *npy, const char *where, size_t *n, size_t *dim,
                           struct rp_error *err);

/* Copies a checked RP_NPY_INT64 array: values is [npy->n_elements], bytes the whole .npy. */
void rp_npy_int64(const struct rp_npy *npy, const uint8_t *bytes, int64_t *values);

/* "(9, 128)", as Python writes it; cut to fit. Returns out. */
char *rp_npy_shape_text(const struct rp_npy *npy, char *out, size_t size);

#endif
