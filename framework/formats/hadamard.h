/* The orthonormal Walsh-Hadamard transform, which spreads outliers before a cache is quantized. */
#ifndef REFPARITY_FORMATS_HADAMARD_H
#define REFPARITY_FORMATS_HADAMARD_H

#include <stdbool.h>
#include <stddef.h>

/* How many values of a head are turned together before a quantized cache rounds them: of V 64, of K and
 * Q the largest power of 2 that divides head_dim; 0: head_dim is no multiple of 64, and none are. */
size_t rp_hadamard_size(size_t head_dim, bool is_value);

/* In place on each n consecutive values of x [n_values]; n is a power of 2 and divides n_values. Its
 * own inverse. */
void rp_hadamard(float *x, size_t n_values, size_t n);

#endif
