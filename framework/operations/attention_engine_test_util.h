/* Engines that compute attention in their own order, and some that do it wrong, beside the emulation
 * and its bound. */
#ifndef REFPARITY_OPERATIONS_ATTENTION_ENGINE_TEST_UTIL_H
#define REFPARITY_OPERATIONS_ATTENTION_ENGINE_TEST_UTIL_H

#include <stdbool.h>

#include "operations/attention_bound.h"

enum {
    CALL_HEADS = 4,
    CALL_KV_HEADS = 2,
    CALL_DIM = 64,
    CALL_POSITIONS = 80,
    CALL_WIDTH = CALL_HEADS * CALL_DIM,
    CALL_KV_WIDTH = CALL_KV_HEADS * CALL_DIM
};
#define CALL_SCALE 0.125f

/* One call of attention over n positions, and what the emulation makes of it. */
struct attention_call {
    bool has_sinks; /* these two are set before the call is made */
    float softcap;
    size_t n;
    float sinks[CALL_HEADS];
    float q[CALL_POSITIONS * CALL_WIDTH];
    float k[CALL_POSITIONS * CALL_KV_WIDTH], v[CALL_POSITIONS * CALL_KV_WIDTH]; /* not rounded */
    float keys[CALL_POSITIONS * CALL_KV_WIDTH], values[CALL_POSITIONS * CALL_KV_WIDTH];
    float y[CALL_POSITIONS * CALL_WIDTH];
    float sigma[CALL_POSITIONS * CALL_WIDTH];
    double tips[CALL_POSITIONS];
};

enum sum_order { SUM_FORWARD, SUM_REVERSE, SUM_PAIRWISE, SUM_DOUBLE, N_SUM_ORDERS };

struct attention_engine { /* NOLINT(clang-analyzer-optin.performance.Padding) */
    enum sum_order order;
    bool is_one_pass; /* the softmax: sums are scaled when the maximum grows */
    bool sums_in_f16; /* and rounded at each key; one pass */
    bool weights_in_f16, weights_in_bf16, q_in_f16;
    double scale_off;     /* bug: relative */
    double cap_off;       /* bug: relative */
    bool leaves_cap_out;  /* bug */
    bool masks_first_key; /* bug */
    size_t without_sink;  /* bug: this head less 1 leaves it out */
    /* A quantized cache: what rounds Q, K and V after a dense Hadamard product; 0: none. */
    unsigned cache_format;
    bool keeps_q;   /* bug: Q is not rounded */
    size_t moved_k; /* bug: this value of the last key but one of each position's cache, less 1;
                             * is one step off */
};

/* Deterministic values; K and V go through the cache, and attention and its bound are run. */
void attention_call_make(struct attention_call *call, size_t n, unsigned seed,
                         const struct rp_numerics *numerics, enum rp_mode mode);

/* y [n][CALL_WIDTH] as the engine computes it. */
void attention_engine_run(const struct attention_engine *engine, const struct attention_call *call,
                          float *y);

/* How many positions are over share times their limit; is_sigma_alone: of 3 sigma without tips. */
size_t attention_rows_over(const struct attention_call *call, const float *y, double share,
                           bool is_sigma_alone);

#endif
