/* What an engine says that it computes in, and the C model rounding in the same places.
 * Not for the kernels' summation order: that is each operation's bound. */
#ifndef REFPARITY_NUMERICS_H
#define REFPARITY_NUMERICS_H

#include <stdint.h>

#include "refparity/model.h"
#include "refparity/overlay.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the input of a matrix product is rounded to before it. */
enum rp_activations {
    RP_ACTIVATIONS_F32,       /* nothing is rounded */
    RP_ACTIVATIONS_BY_WEIGHT, /* to what ggml multiplies the weight's type with: F16 for F16, BF16 for
                               * BF16, Q8_0 for blocks of 32, Q8_K for blocks of 256, F32 for F32 */
    RP_ACTIVATIONS_F16, /* the others: to that, whatever the weight's type; F32 weights excepted */
    RP_ACTIVATIONS_BF16,
    RP_ACTIVATIONS_Q8_0,
    RP_ACTIVATIONS_Q8_K
};

enum rp_kv_cache { RP_KV_CACHE_F32, RP_KV_CACHE_F16, RP_KV_CACHE_Q8_0, RP_KV_CACHE_Q4_0 };

enum rp_attention_kernel { RP_ATTENTION_PLAIN, RP_ATTENTION_FLASH };

/* What every operation's output is kept in, between the operations. */
enum rp_state { RP_STATE_F32, RP_STATE_BF16, RP_STATE_F16 };

struct rp_numerics { /* zeroed: FP32 throughout */
    enum rp_state state;
    enum rp_activations activations;
    enum rp_kv_cache kv_cache;
    enum rp_attention_kernel attention;
    /* On which flash attention's accumulators depend: how many positions the engine takes at once, and
     * of how many. batch 0: one in RP_MODE_PER_TOKEN, else all; RP_BATCH_UNKNOWN: not said;
     * prompt_length 0: as many as an operation is given. */
    size_t batch, prompt_length;
    /* And how many threads it has, 0 for one: each sums up a part of a long cache for a position that
     * comes alone. */
    size_t threads;
};

#define RP_BATCH_UNKNOWN SIZE_MAX

/* How many positions come at once in a mode that is named as ours are: 1 in "per-token", 0 (all) in "batched",
 * N in "batched:N"; RP_BATCH_UNKNOWN in "parallel:N" and "parallel-streams:N", where other sequences' come with
 * them. False, and *batch 0: it is named otherwise. */
bool rp_batch_of_mode(const char *mode, size_t *batch);

/* Whether nothing is rounded. */
bool rp_numerics_are_plain(const struct rp_numerics *numerics);

/* Names as the matrix and the command line spell them: "f32", "by_weight", "f16", "bf16", "q8_0",
 * "q8_K"; "f32", "f16", "q8_0", "q4_0"; "plain", "flash"; of a state "f32", "bf16", "f16".
 * RP_ERR_ARGUMENT names what there is. */
enum rp_status rp_activations_parse(const char *name, enum rp_activations *out,
                                    struct rp_error *err);
enum rp_status rp_kv_cache_parse(const char *name, enum rp_kv_cache *out, struct rp_error *err);
enum rp_status rp_attention_parse(const char *name, enum rp_attention_kernel *out,
                                  struct rp_error *err);
enum rp_status rp_state_parse(const char *name, enum rp_state *out, struct rp_error *err);
const char *rp_state_name(enum rp_state state);
const char *rp_activations_name(enum rp_activations activations);
const char *rp_kv_cache_name(enum rp_kv_cache kv_cache);
const char *rp_attention_name(enum rp_attention_kernel attention);

/* ggml's number of the type that a product's input is rounded to, for a weight of that type: RP_GGML_F32
 * where it is not. Q8_1 is Q8_0 with the sum of each block. */
uint32_t rp_numerics_input_format(const struct rp_numerics *numerics, uint32_t weight_type);
/* What K and V are stored in: RP_GGML_F32, _F16, _Q8_0 or _Q4_0. */
uint32_t rp_numerics_cache_format(const struct rp_numerics *numerics);

/* Whether attention's sums for row p of the call are kept in F16: flash attention's over an F16 cache,
 * where fewer than 64 positions come at once. */
bool rp_numerics_has_f16_sums(const struct rp_numerics *numerics, const struct rp_site *site,
                              size_t p);

/* Shown each row before it is rounded, and after. For runs whose rows are not known to the last bit. */
struct rp_rounding_watch {
    void *context;
    /* Row x [n] of position is about to be rounded to format: the row in its place, or x itself; NULL
     * when there is no memory. which: the product whose input it is; RP_ATTN_Q, _K and _V with
     * is_cache: what attention and its cache round; RP_N_WEIGHTS: what an operation reads, rounded to
     * the state. */
    const float *(*before)(void *context, const struct rp_site *site, enum rp_weight_id which,
                           bool is_cache, int64_t position, uint32_t format, const float *x,
                           size_t n);
    /* rounded [n] is x [n] rounded, and may be changed. */
    void (*after)(void *context, uint32_t format, const float *x, size_t n, float *rounded);
};

/* The rounding as an overlay over the plain operations. One serves one run at a time. */
struct rp_emulation {
    struct rp_overlay overlay; /* comes first */
    struct rp_numerics numerics;
    const struct rp_rounding_watch *watch; /* the caller's; NULL: none */
    /* Where the state is not FP32: each operation sets of its positions the square of what values that
     * it rounds inside, next to a middle, change in its output when FP32's last bits tip them. The
     * caller's [n_tips]; NULL: not asked for. */
    double *tips;
    size_t n_tips;
};

/* Lays it over below (NULL: rp_ops_default()). Nothing is to be closed. */
void rp_emulation_open(struct rp_emulation *emulation, const struct rp_numerics *numerics,
                       const struct rp_ops *below);

#ifdef __cplusplus
}
#endif
#endif
