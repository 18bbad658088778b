/* The header of numpy's .npy format, versions 1 to 3: what type and shape the data has.
 * https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
 * Not for the values: array.h. */
#ifndef REFPARITY_TENSOR_NPY_H
#define REFPARITY_TENSOR_NPY_H

#include "refparity/status.h"
#include "tensor/array.h"

#define RP_NPY_MAX_HEADER 65536 /* what this reads of the dict's text; numpy writes 118 bytes */
#define RP_NPY_PEEK (12 + RP_NPY_MAX_HEADER) /* the first bytes that hold any header read here */

struct rp_npy {
    struct rp_array array;
    size_t data_offset; /* where the data starts: the header's size */
};

/* Parses the header at the start of bytes[n]; n may end anywhere after it. where is for errors,
 * whose offsets count from bytes[0].
 * RP_ERR_FORMAT, RP_ERR_UNSUPPORTED (a version, too many dimensions, a longer header). */
enum rp_status rp_npy_parse(const uint8_t *bytes, size_t n, const char *where, struct rp_npy *npy,
                            struct rp_error *err);

/* Checks that the data is exactly as long as type and shape say: total is the size of header and data.
 * A type that is not read is no error yet: whoever reads values says so. RP_ERR_FORMAT. */
enum rp_status rp_npy_check(const struct rp_npy *npy, uint64_t total, const char *where,
                            struct rp_error *err);

#endif
