/* How far an engine may be from the exact reference, derived from what it declares to compute in.
 *
 * Two right FP32 engines differ by the order of their sums: 3e-6 end to end at most on the tiny models,
 * and depth grows that little. RP_EXACT_F32 leaves room for both.
 *
 * Where values are rounded on the way (activations, the KV cache), that difference decides now and then
 * to which side. Each such tip is as large as a rounding step and makes others further on: after a few
 * layers the two engines round like strangers. Their difference is at most what rounding does to one
 * plus what it does to the other. The first is measured: the C model runs once more with nothing
 * rounded. The other is a second draw, of which one position may be up to twice the largest of the
 * first: hence RP_EXACT_ROUNDING times the largest difference over positions. Through llama.cpp, with
 * BF16, 8-bit and 4-bit weights, FP32 to 4-bit caches and flash attention, the tiny models come to 1.2
 * times it at most; the C model in another summation order to 2.4, at one position of 78 (Qwen3.5, Q4_0).
 */
#ifndef REFPARITY_EXACT_LIMITS_H
#define REFPARITY_EXACT_LIMITS_H

#include "refparity/limits.h"
#include "refparity/numerics.h"

#define RP_EXACT_F32 1e-4
#define RP_EXACT_ROUNDING 3.0

struct rp_exact_limits;

/* The limits of each slot of the exact reference at path. One that rp_exact_compute made knows what its
 * rounding does; for another, and numerics that round, there is but a coarse limit for all slots: what
 * is usual for the coarsest format of them. *out is to be closed with rp_exact_limits_close. Errors:
 * those of reading it; RP_ERR_FORMAT. */
enum rp_status rp_exact_limits_open(const char *path, const struct rp_numerics *numerics,
                                    struct rp_exact_limits **out, struct rp_error *err);
void rp_exact_limits_close(struct rp_exact_limits *limits); /* NULL is allowed */
const struct rp_limits *rp_exact_limits_of(const struct rp_exact_limits *limits);

/* What rounding does to one slot: the largest L2_rel over its positions. */
struct rp_rounding {
    char slot[64];
    double l2_rel;
};
/* Writes roundings[n] into the exact reference's folder. */
enum rp_status rp_exact_rounding_write(const char *folder, const struct rp_rounding *roundings,
                                       size_t n, struct rp_error *err);

#endif
