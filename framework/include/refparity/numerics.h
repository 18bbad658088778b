/* What an engine says that it computes in, and the C model rounding in the same places.
 * Not for the kernels' summation order: that is the floor of replay.h. */
#ifndef REFPARITY_NUMERICS_H
#define REFPARITY_NUMERICS_H

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

struct rp_numerics { /* zeroed: FP32 throughout */
    enum rp_activations activations;
    enum rp_kv_cache kv_cache;
    enum rp_attention_kernel attention;
    /* On which flash attention's accumulators depend: how many positions the engine takes at once, and
     * of how many. batch 0: one in RP_MODE_PER_TOKEN, else all; prompt_length 0: as many as an
     * operation is given. */
    size_t batch, prompt_length;
    /* And how many threads it has, 0 for one: each sums up a part of a long cache for a position that
     * comes alone. */
    size_t threads;
};

/* Whether nothing is rounded. */
bool rp_numerics_are_plain(const struct rp_numerics *numerics);

/* Names as the matrix and the command line spell them: "f32", "by_weight", "f16", "bf16", "q8_0",
 * "q8_K"; "f32", "f16", "q8_0", "q4_0"; "plain", "flash". RP_ERR_ARGUMENT names what there is. */
enum rp_status rp_activations_parse(const char *name, enum rp_activations *out,
                                    struct rp_error *err);
enum rp_status rp_kv_cache_parse(const char *name, enum rp_kv_cache *out, struct rp_error *err);
enum rp_status rp_attention_parse(const char *name, enum rp_attention_kernel *out,
                                  struct rp_error *err);
const char *rp_activations_name(enum rp_activations activations);
const char *rp_kv_cache_name(enum rp_kv_cache kv_cache);
const char *rp_attention_name(enum rp_attention_kernel attention);

/* ---- near-ties ----
 * Where a value lies so close to the middle between two rounded values that the last bits of FP32
 * decide, two right engines may round it to different sides (a flip). Each such place is a tie. */

enum rp_tie_kind {
    RP_TIE_VALUE, /* one value is rounded to its other neighbour */
    RP_TIE_SCALE  /* a block's stored scale is */
};

struct rp_tie {
    int64_t position; /* of the row that is rounded */
    /* What it is a row of. RP_ATTN_NORM, RP_FFN_NORM: the norm's output, which several products read
     * and which is rounded once. RP_ATTN_K, RP_ATTN_V: what the cache stores; RP_ATTN_Q: Q before
     * attention. RP_N_WEIGHTS: the softmax weights, index key * n_heads + head. Others: the
     * product whose input it is. */
    enum rp_weight_id which;
    uint32_t format; /* ggml's number of the type that it is rounded to */
    enum rp_tie_kind kind;
    size_t index;    /* of the value, or of the block, in its row */
    double distance; /* to the middle, over the tolerance: 0 .. 1 */
    double step;     /* what a flip changes, over the row's norm; of softmax weights over 1 */
    /* Of a flip, where what came before is off by more than a step: 0: one step, to the other neighbour.
     * A block's stored scale: -1, a step away from it, or 2. RP_TIE_SCALE of RP_GGML_Q8_K, whose scale is
     * not rounded and so never noted: the part of itself that it is off by. */
    double turn;
};

/* The row that a product reads, as struct rp_tie's which has it: several products read a norm's output. */
enum rp_weight_id rp_row_read_by(enum rp_weight_id product);

struct rp_rounding_reader { /* private */
    enum rp_weight_id which;
    uint32_t format;
};

/* The rounding as an overlay over the plain operations. One serves one run at a time. */
struct rp_emulation {
    struct rp_overlay overlay; /* comes first */
    struct rp_numerics numerics;
    /* A value is a tie where it is within tie_tolerance * max(rms(row), |value|) of the middle; 0: none
     * is noted. */
    double tie_tolerance;
    /* The same by struct rp_tie's which, in the place of tie_tolerance; or NULL. */
    const double *tie_tolerances; /* [RP_N_WEIGHTS + 1] */
    /* [n_ties], as they were met; owned. Each run adds to them: set n_ties to 0 before a new one. At
     * most 65536, those met later are not noted. */
    struct rp_tie *ties;
    size_t n_ties, ties_capacity;
    const struct rp_tie *flips; /* [n_flips], the ties to round the other way; the caller's */
    size_t n_flips;
    int layer; /* private from here on: the first products of layer to read a row */
    struct rp_rounding_reader readers[8];
    size_t n_readers;
};

/* Lays it over below (NULL: rp_ops_default()). End with rp_emulation_close. */
void rp_emulation_open(struct rp_emulation *emulation, const struct rp_numerics *numerics,
                       const struct rp_ops *below);
void rp_emulation_close(struct rp_emulation *emulation);

/* How much of attention's output the numerics leave open for row p of the call, which sees n_keys keys:
 * the standard deviation, relative to the RMS of a head's row, of what rounding flips in accumulators
 * add that are narrower than FP32 (flash attention's in F16). 0: there are none. The derivation is in
 * numerics/README.md, with what was measured. */
double rp_numerics_attention_slack(const struct rp_numerics *numerics, const struct rp_site *site,
                                   size_t p, size_t n_keys);

#ifdef __cplusplus
}
#endif
#endif
