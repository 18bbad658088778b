/* What the families of bugs share. Nothing outside this folder includes it. */
#ifndef REFPARITY_CASES_BUGS_INTERNAL_H
#define REFPARITY_CASES_BUGS_INTERNAL_H

#include "bugs.h"

#define RP_EVERY_ARCHITECTURE "qwen3,llama,qwen35"
#define RP_BOTH_MODES .in_per_token = true, .in_batched = true
#define RP_MAGNITUDES(...)         \
    .magnitudes = (const double[]) \
    {                              \
        __VA_ARGS__, 0             \
    }
#define RP_ALSO(...)                    \
    .also = (const enum rp_slot_part[]) \
    {                                   \
        __VA_ARGS__, 0                  \
    }
/* A factor, from far off to below what FP32 can tell. */
#define RP_FACTORS(first) \
    RP_MAGNITUDES(first, 1.1, 1.01, 1.001, 1.0001, 1.00001, 1.000001, 1.0000001)
/* Bits of mantissa that are kept, the leading one among them: 8 is BF16's, 11 F16's, 24 FP32's. */
#define RP_MANTISSAS RP_MAGNITUDES(8, 11, 14, 17, 20, 22, 24)

struct rp_bug_family {
    const struct rp_bug *bugs; /* [n] */
    size_t n;
};
extern const struct rp_bug_family rp_rope_bugs, rp_norm_bugs, rp_attention_bugs,
    rp_attention_gate_bugs, rp_deepseek_bugs, rp_experts_bugs, rp_ffn_bugs, rp_gpt_oss_bugs,
    rp_residual_bugs, rp_delta_net_bugs, rp_delta_state_bugs, rp_token_bugs, rp_precision_bugs;

#define RP_FAMILY(table)                       \
    {                                          \
        table, sizeof(table) / sizeof *(table) \
    }

/* The operation without the bug. */
#define RP_BELOW(bug, operation, site, args) \
    (bug)->overlay.below->operation((bug)->overlay.below->context, site, args)

/* Whether the bug is in this call of an operation. */
bool rp_bug_is_here(const struct rp_bug_site *bug, const struct rp_site *site);

/* Floats [n], to be freed by the caller; RP_ERR_MEMORY. copy_of [n] or NULL. */
enum rp_status rp_bug_floats(const struct rp_site *site, size_t n, const float *copy_of,
                             float **floats);

/* Keeps rows [n_positions][dim] by their positions, and finds one again. */
enum rp_status rp_bug_keep(struct rp_bug_site *bug, const struct rp_site *site, const float *rows,
                           size_t dim);
const float *rp_bug_kept(const struct rp_bug_site *bug, int64_t position);

/* value to that many bits of mantissa, half to even. */
float rp_bug_round(float value, int bits);

/* The overlay that limits a bug to one position or head: see bugs_scope.c. */
void rp_bug_scope_open(struct rp_bug_site *bug);

#endif
