/* The five sums that a row's metrics are made of, in one pass over the data.
 * Not for what they mean: see refparity/metrics.h. */
#ifndef REFPARITY_COMPARE_ROW_SUMS_H
#define REFPARITY_COMPARE_ROW_SUMS_H

#include <stddef.h>

struct rp_row_sums {
    double diff2;   /* sum (e - r)^2 */
    double ref2;    /* sum r^2 */
    double engine2; /* sum e^2 */
    double dot;     /* sum r e */
    double max_abs; /* max |e - r|, NaN left out */
};

/* r and e are FP32 [dim], in native byte order, at any alignment. The same bits on every CPU. */
struct rp_row_sums rp_row_sums(const void *r, const void *e, size_t dim);

/* As rp_row_sums, without instructions that not every CPU has: for its test. */
struct rp_row_sums rp_row_sums_portable(const void *r, const void *e, size_t dim);

#endif
