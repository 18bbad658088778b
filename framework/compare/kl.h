/* KL divergence of two rows of logits.
 * Not for their other metrics: see refparity/metrics.h. */
#ifndef REFPARITY_COMPARE_KL_H
#define REFPARITY_COMPARE_KL_H

#include <stddef.h>

struct rp_kl {
    double kl;          /* KL(softmax(r) || softmax(e)) in nats, >= 0 */
    double information; /* KL(softmax(r) || uniform) = log n - H(softmax(r)), >= 0 */
};

/* r and e are FP32 [n], finite, at any alignment, n > 0; max_r and max_e are their largest values. The same
 * bits on every CPU, but for what the C library's log does to two numbers. */
struct rp_kl rp_kl_divergence(const void *r, const void *e, size_t n, double max_r, double max_e);

/* As rp_kl_divergence, without instructions that not every CPU has: for its test. */
struct rp_kl rp_kl_divergence_portable(const void *r, const void *e, size_t n, double max_r,
                                       double max_e);

#endif
