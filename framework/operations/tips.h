/* Values that are rounded, and that FP32 noise in front of the rounding may tip to the other
 * neighbour: which of a row can, and what many unlikely ones amount to.
 * Not for what a tip changes: that is each operation's. */
#ifndef REFPARITY_OPERATIONS_TIPS_H
#define REFPARITY_OPERATIONS_TIPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How many sigma FP32 noise may reach. */
#define RP_TIP_REACH 3.0

enum rp_tip_kind {
    RP_TIP_VALUE, /* one value moves by size */
    RP_TIP_SCALE, /* a block's scale, and each of its values, moves by size, relative */
    RP_TIP_PEAK   /* Q4_0: another value of opposite sign is the block's largest; each value of the
                   * block moves by at most size */
};

struct rp_tip {
    enum rp_tip_kind kind;
    size_t first, n; /* values of the row */
    float size;
};

/* The tips of a row x [n] that is rounded to format (RP_GGML_Q8_0, RP_GGML_Q4_0), each value of which
 * is off by noise [standard error]. Calls add for each; an FP32 last bit in what the block format
 * divides by is counted in. */
void rp_find_tips(uint32_t format, const float *x, size_t n, double noise,
                  void (*add)(void *context, const struct rp_tip *tip), void *context);

/* What a sum of rare terms stays under, but for one case in 10^7. Term i is square[i] with the
 * probability expected[i] / square[i], else 0. */
double rp_rare_sum(const double *expected, const double *square, size_t n);

#endif
