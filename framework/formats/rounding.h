/* Rows of FP32 values as an engine's format holds them: quantized in blocks and back, or element by
 * element; and what may tip to the other neighbour where a row is not known to the last bit.
 * Not for where an engine rounds: that is operations/emulation.c. */
#ifndef REFPARITY_FORMATS_ROUNDING_H
#define REFPARITY_FORMATS_ROUNDING_H

#include <stddef.h>
#include <stdint.h>

/* y [n] = x [n] rounded to format: RP_GGML_F16, _BF16, _Q8_0, _Q8_K or _Q4_0; any other: unchanged. y may
 * be x. */
void rp_round_row(uint32_t format, const float *x, size_t n, float *y);

/* Q8_1 is Q8_0 with the sum of each block, made with the scale before that is rounded, and stored in
 * F16. y [n] = x [n] rounded to Q8_0; excess [n / 32]: what the stored sum is above that of the block's
 * rounded values. y may be x. */
void rp_round_q8_1(const float *x, size_t n, float *y, float *excess);

/* How many of the roundings of x [n] are to be expected to tip when x is moved to moved [n], its phase
 * between two rounded values being anything: the sum of |moved - x| over the step, at most 1 each; of
 * a block's stored scale too. */
double rp_rounding_tips(uint32_t format, const float *x, const float *moved, size_t n);

/* Moves one value of y [n], x [n] rounded, a step towards 0: the one whose step times gain is largest.
 * gain [n]: what a change of each value is worth; NULL: 1. */
void rp_rounding_tip_largest(uint32_t format, const float *x, size_t n, const float *gain,
                             float *y);

/* y [n] = x [n], but for what is not rounded of moved: a Q8_K block's scale, kept in FP32, follows its
 * largest value. */
void rp_rounding_follow(uint32_t format, const float *x, const float *moved, size_t n, float *y);

#endif
