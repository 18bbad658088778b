/* The matrix product and the dot product that every operation uses.
 * Not a BLAS: one shape, row-major, FP32. */
#ifndef REFPARITY_MODEL_LINEAR_H
#define REFPARITY_MODEL_LINEAR_H

#include <stddef.h>

/* sum of a[i] * b[i], in 8 partial sums. */
float rp_dot(const float *a, const float *b, size_t n);

/* y[p][o] = rp_dot(weight[o], x[p], n_in), with rows of y y_stride apart.
 * weight [n_out][n_in], x [n][n_in], y [n][n_out].
 * With RP_HAVE_CBLAS, n > 1 goes through sgemm, whose order of summation is its own; without it
 * the result for a position does not depend on the other positions. */
void rp_matmul(const float *weight, size_t n_out, size_t n_in, const float *x, size_t n, float *y,
               size_t y_stride);

#endif
