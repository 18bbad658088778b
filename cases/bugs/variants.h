/* Clean variants: the same model in another engine's arithmetic (summation order, formulations of the
 * same formula, batches, declared rounding), in which nothing may be reported. Not bugs. */
#ifndef REFPARITY_CASES_VARIANTS_H
#define REFPARITY_CASES_VARIANTS_H

#include "refparity/model.h"
#include "refparity/numerics.h"
#include "refparity/overlay.h"

/* How a dot product is summed up. */
enum rp_sum_order {
    RP_SUM_AS_MODEL, /* the C model's own */
    RP_SUM_FORWARD,
    RP_SUM_BACKWARD,
    RP_SUM_PAIRWISE,
    RP_SUM_BLOCKS, /* of 32, as quantized products do */
    RP_SUM_DOUBLE,
    RP_SUM_FMA
};

enum rp_rope_angles {
    RP_ANGLES_AS_MODEL,
    RP_ANGLES_DOUBLE,  /* everything in double */
    RP_ANGLES_REPEATED /* each frequency is the one before times theta^(-2/n_rot), in FP32 */
};

struct rp_variant {
    const char *name, *description;
    enum rp_sum_order order;
    enum rp_rope_angles angles;
    size_t chunk;           /* positions per batch; 0: all */
    int64_t first_position; /* of the prompt */
    struct rp_numerics declared;
    bool has_numerics;       /* declared are these, instead of what the weights ask for */
    bool has_online_softmax; /* keys one by one, rescaled, as flash attention does */
    bool has_own_norm;       /* FP32 sums; x divided by the square root */
    bool has_own_exp;        /* a polynomial, within 2 units in the last place */
    bool has_chunked_delta;  /* the delta rule in chunks of 8 */
    bool is_per_token;
};

extern const struct rp_variant
    rp_variants[]; /* [rp_n_variants]; the first is the engine with bugs */
extern const size_t rp_n_variants;

const struct rp_variant *rp_variant_find(const char *name); /* NULL: there is none */

/* The variant's operations, over the default ones. */
struct rp_variant_site {
    struct rp_overlay overlay;
    const struct rp_variant *variant;
};

/* *site must not move afterwards. */
void rp_variant_install(const struct rp_variant *variant, struct rp_variant_site *site);

#endif
