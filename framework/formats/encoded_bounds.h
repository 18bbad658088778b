/* How far the values that a row was quantized from may lie from the values that it holds: what follows from
 * the encoded row alone. Not for what an engine rounds at run time: that is rounding.h. */
#ifndef REFPARITY_FORMATS_ENCODED_BOUNDS_H
#define REFPARITY_FORMATS_ENCODED_BOUNDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* row: n encoded values of ggml's type.
 * bound [n]: what rounding to the nearest value costs at most: half a step; with it what the block's scale
 *   and minimum are rounded by; a whole step at the end of the range, where values are cut off. Over a row,
 *   the root of the sum of the squared errors is below that of the squared bounds; the expected one is
 *   1/sqrt(3) of it, step/sqrt(12) per value.
 * reach [n]: how far a single value can be off. That is bound where each value is the nearest one. Where a
 *   quantizer fits the scale to the block's values by least squares, the fit may move one value further,
 *   but the squares of all 32 together only down: by half a step times sqrt(32).
 * F32, F16 and BF16: both are 0, as they hold the nearest value, which half.h has. False: a type whose
 * rounding is not known. */
bool rp_encoded_bounds(uint32_t type, const unsigned char *row, size_t n, float *bound,
                       float *reach);
/* Why there are none, of which the type is the subject. IQ1_S to IQ3_S: the 8 or 4 values of a group are moved
 * together to a point of a grid, the one that weighs least by the importance of each value; how far one of them went
 * for the others no block says. */
const char *rp_why_no_encoded_bounds(uint32_t type);

/* step [n]: the widest step that a quantizer has reason to take for values x [n], from the range of each
 * block: a file with wider ones is not well quantized, whatever its own step allows. Infinite for F32, F16
 * and BF16. */
void rp_widest_steps(uint32_t type, const float *x, size_t n, float *step);

/* By how much more than bound a row may be off whose quantizer weighed the values' errors by an importance matrix.
 * With all importance on one value in each block, of number l, the scale is fitted to that value, and its own
 * rounding puts the scale off by e / l: other values are off by l_i e / l beside their own rounding. In mean
 * square, over numbers of root mean square r, that is 1 + r^2 E[1 / l^2] times the rounding alone, which is a third
 * of bound's square; of normally distributed numbers of 1 and more E[1 / l^2] is below 0.8 / r. r is taken for a
 * quarter of the range. Twice the root of it is allowed, as rows of few blocks are not all alike. A single value
 * may be off by its block's range. */
double rp_weighted_allowance(uint32_t type);
/* Whether ggml's quantizer of the type takes an importance matrix; false, too, of types without bounds. */
bool rp_is_ever_weighted(uint32_t type);

/* At least the norm of step [n] for every x [n] whose envelope that is: the norm of x with each value replaced by
 * the largest of its block of 32. */
double rp_widest_steps_norm(uint32_t type, double envelope, size_t n);

#endif
