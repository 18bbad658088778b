/* The orthonormal Walsh-Hadamard transform, which spreads outliers before a cache is quantized. */
#ifndef REFPARITY_FORMATS_HADAMARD_H
#define REFPARITY_FORMATS_HADAMARD_H

#include <stddef.h>

/* In place on each n consecutive values of x [n_values]; n is a power of 2 and divides n_values. Its
 * own inverse. */
void rp_hadamard(float *x, size_t n_values, size_t n);

#endif
