/* The rounding to 4 and 8 bits and to BF16 as it fell in an earlier run, whatever the values are now:
 * a floor has to say what a layer's sums may be off by, and not what a rounding flip adds, which is
 * rare and found by trying (flips.h). Rounding to F16 is left to itself: a row of a thousand values
 * has a flip or two, so they are part of the noise. */
#ifndef REFPARITY_REPLAY_FROZEN_H
#define REFPARITY_REPLAY_FROZEN_H

#include "refparity/numerics.h"
#include "replay/inputs.h"

/* Laid between the emulation and what jitters. */
struct rp_frozen {
    struct rp_overlay overlay; /* comes first */
    const struct rp_numerics *numerics;
    const struct rp_inputs *inputs; /* the rows of the earlier run */
};

void rp_frozen_open(struct rp_frozen *frozen, const struct rp_numerics *numerics,
                    const struct rp_inputs *inputs, const struct rp_ops *below);

/* Whether the product's input is rounded in blocks whose scale follows their peak in FP32. */
bool rp_moves_scale(const struct rp_numerics *numerics, uint32_t type);

/* Whether the product's input is rounded to 4 or 8 bits, or to BF16. */
bool rp_rounds_coarsely(const struct rp_numerics *numerics, uint32_t type);

/* Whether attention rounds to F16, the cache or what it reads of it. */
bool rp_has_f16_attention(const struct rp_numerics *numerics);

/* Whether anything in the layer is rounded to F16. */
bool rp_has_fine_rounding(const struct rp_numerics *numerics, const struct rp_layer *weights);

#endif
