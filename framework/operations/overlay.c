/* See refparity/overlay.h. */
#include "refparity/overlay.h"

#include "operations/operations.h"

#define HAND_ON(operation)                                                               \
    static enum rp_status hand_on_##operation(void *context, const struct rp_site *site, \
                                              const struct rp_##operation *args)         \
    {                                                                                    \
        const struct rp_ops *below = ((const struct rp_overlay *)context)->below;        \
        return below->operation(below->context, site, args);                             \
    }

RP_OPERATIONS(HAND_ON)

#define INSTALL(operation) .operation = hand_on_##operation,

void rp_overlay_open(struct rp_overlay *overlay, const struct rp_ops *below)
{
    overlay->below = below ? below : rp_ops_default();
    overlay->ops = (struct rp_ops){.context = overlay, RP_OPERATIONS(INSTALL)};
}
