/* A table of operations laid over another one: each operation is handed on to the table below, until
 * you replace it. What emulates an engine's rounding, measures bounds, tests a hypothesis or injects a bug is
 * an overlay; they stack.
 *
 *     struct half_ffn { struct rp_overlay overlay; int layer; };  (overlay comes first)
 *     rp_overlay_open(&half.overlay, below);
 *     half.overlay.ops.residual_add = half_ffn_residual_add;
 *
 * A replacement gets the overlay as its context; it copies *args, changes what it wants changed, and
 * calls below with the copy. */
#ifndef REFPARITY_OVERLAY_H
#define REFPARITY_OVERLAY_H

#include "refparity/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

struct rp_overlay {
    struct rp_ops ops;          /* what to run; ops.context is this overlay */
    const struct rp_ops *below; /* what it lies on; has to outlive it */
};

/* Every operation hands on to below; NULL: rp_ops_default(). The overlay must not move afterwards. */
void rp_overlay_open(struct rp_overlay *overlay, const struct rp_ops *below);

#ifdef __cplusplus
}
#endif
#endif
