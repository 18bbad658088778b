/* A checkpoint's matrix as a sketch has it: of each row its norm, its envelope and its products with a few
 * vectors of signs. What rounding does to those, and how far it may. fixtures/weights_sketch.py makes the
 * same numbers. Not for the file: that is checkpoint_sketch.c. */
#ifndef REFPARITY_WEIGHTS_SKETCH_H
#define REFPARITY_WEIGHTS_SKETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RP_SKETCH_MAX_VECTORS 16
#define RP_SKETCH_ENVELOPE_BLOCK 32

/* Of a matrix. Rows and columns are in the checkpoint's order. */
struct rp_tensor_sketch {
    const unsigned char *data; /* FP32 [n_rows][2 + n_vectors]; NULL: the tensor is there whole */
    size_t n_rows, n_vectors;  /* n_vectors: 1 to RP_SKETCH_MAX_VECTORS */
};

struct rp_row_sketch {
    double norm;
    double envelope; /* the norm of the row whose values are each the largest of its block of 32 */
    double products[RP_SKETCH_MAX_VECTORS]; /* [n_vectors] */
};

/* False: a number of it is not finite, or a norm is negative. */
bool rp_sketch_row(const struct rp_tensor_sketch *sketch, size_t row, struct rp_row_sketch *out);

/* The signs of columns 64 block to 64 block + 63 of a row in a vector, a bit each, the lowest first; set: minus.
 * It is output number row 2^32 + block 2^8 + vector of SplitMix64 (Steele, Lea, Flood 2014), so that rows
 * have signs of their own, and no table of random numbers is needed. */
uint64_t rp_sketch_signs(size_t row, size_t block, size_t vector);

/* products [n_vectors]: of x [n] with the signs of the checkpoint's row; value i stands in the checkpoint's
 * column columns [n][i]; NULL: i. */
void rp_sketch_products(size_t row, const float *x, size_t n, const size_t *columns,
                        size_t n_vectors, double *products);

/* Squared norms that rows' errors cannot exceed. */
struct rp_square_bounds {
    double sum, sum_of_squares, largest;
};

void rp_square_bounds_add(struct rp_square_bounds *bounds, double square);

/* The products of errors e_r with n_vectors vectors of independent signs, squared and added: what that sum
 * exceeds with a chance of at most exp(-x).
 * Derivation: of one product, s e = sum of s_i e_i, every even moment is at most that of a normal variable
 * of variance ||e||^2 (Khintchine), so its square has a moment generating function of at most
 * ||e||^2 chi^2's; signs of different rows and vectors are independent; and for a sum of a_i chi^2 of one
 * degree each, P(sum > sum a_i + 2 sqrt(x sum a_i^2) + 2 x max a_i) <= exp(-x) (Laurent and Massart 2000,
 * lemma 1, whose proof needs the generating function alone). Nothing is assumed of the errors. */
double rp_sketch_limit(const struct rp_square_bounds *bounds, size_t n_vectors, double x);

#endif
