/* An engine that keeps its values in BF16 or F16 between operations, as HF does when it is loaded so:
 * where each operation rounds inside, and in which order. Each rounds what it reads, which an engine's
 * own values already are, and leaves its output as it is before it is rounded: a dumped value may then
 * be held against both neighbours. Not for what else an engine rounds: that is emulation.c. */
#ifndef REFPARITY_OPERATIONS_STATE_H
#define REFPARITY_OPERATIONS_STATE_H

#include "refparity/numerics.h"

/* Lays it over what emulation rounds already; its state is not FP32. */
void rp_state_open(struct rp_emulation *emulation);

/* ---- what state.c and state_attention.c share ---- */

float rp_state_round(enum rp_state state, float x);
/* How far x moves when noise of that size [standard error, absolute] tips its rounding; 0: it cannot. */
double rp_state_tip(enum rp_state state, float x, double noise);

/* A value of the state that is capped as HF does it: quotient and tanh are rounded, the product is not yet. */
float rp_state_softcap(enum rp_state state, float x, float cap);
/* How far that moves where the rounding of its tanh tips. */
double rp_state_softcap_tip(enum rp_state state, float x, float cap);
/* The same of a product's sums, args->y, which are rounded first. */
void rp_state_cap(const struct rp_emulation *emulation, const struct rp_site *site,
                  const struct rp_linear *args);

/* rows [n_positions][width] = x, rows stride apart, rounded to the state. */
enum rp_status rp_state_read(const struct rp_emulation *emulation, const struct rp_site *site,
                             const float *x, size_t width, size_t stride, float *rows);

/* *rounded [n_out][n_in] = weight rounded to the state, as torch casts a checkpoint that it loads; the
 * caller's, NULL where memory is missing. */
enum rp_status rp_state_weights(const struct rp_emulation *emulation, const struct rp_site *site,
                                const float *weight, size_t n_out, size_t n_in, float **rounded);

/* y = softmax(q keys^T * scale) values as HF's eager attention has it in 16 bits: the products, the
 * scaled scores and the weights are rounded. Flash attention has its scores in FP32; its weights are
 * rounded before they are divided by their sum, at a maximum that depends on the kernel: what that
 * may change is told, and nothing is rounded. args->q is rounded already. */
enum rp_status rp_state_attention(const struct rp_emulation *emulation, const struct rp_site *site,
                                  const struct rp_attention *args);

#endif
