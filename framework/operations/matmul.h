/* The matrix product and the dot product that every operation uses.
 * Not a BLAS: one shape, row-major, FP32. */
#ifndef REFPARITY_OPERATIONS_MATMUL_H
#define REFPARITY_OPERATIONS_MATMUL_H

#include <stdbool.h>
#include <stddef.h>

/* sum of a[i] * b[i], in 8 partial sums. */
float rp_dot(const float *a, const float *b, size_t n);

/* y[p][o] = the dot product of weight[o] and x[p], with rows of y y_stride apart.
 * weight [n_out][n_in], x [n][n_in], y [n][n_out].
 * Large ones go through CBLAS's sgemm where the library was built with one: its order of summation is
 * its own, and may depend on n. All others are rp_matmul_plain. */
void rp_matmul(const float *weight, size_t n_out, size_t n_in, const float *x, size_t n, float *y,
               size_t y_stride);

/* The same without CBLAS: every y[p][o] is rp_dot's, to the bit, on every CPU and for every n. */
void rp_matmul_plain(const float *weight, size_t n_out, size_t n_in, const float *x, size_t n,
                     float *y, size_t y_stride);

/* Adds the product to y, which the caller has set: y[p][o] += rp_matmul's. */
void rp_matmul_add(const float *weight, size_t n_out, size_t n_in, const float *x, size_t n,
                   float *y, size_t y_stride);

/* A product of rows that do not lie side by side. */
struct rp_strided_product {
    size_t n_out, n_in, n;
    const float *weight; /* [n_out][n_in]; is_transposed: [n_in][n_out] */
    size_t weight_stride;
    bool is_transposed;
    const float *x; /* [n][n_in] */
    size_t x_stride;
    float *y; /* [n][n_out] */
    size_t y_stride;
};
/* By CBLAS. false: nothing was done, as there is none, or it would not be faster; which depends on
 * n_out n_in n alone, not on the order of n_out and n_in. */
bool rp_matmul_strided(const struct rp_strided_product *product);

/* For programs of which many run at once, as tests do: this process's CBLAS uses one thread. Only of
 * OpenBLAS, whose default is one per core; does nothing without it. */
void rp_matmul_one_thread(void);

#endif
