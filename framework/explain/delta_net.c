/* Hypotheses about the gated DeltaNet. */
#include "explain/search.h"

enum rp_status rp_collect_delta_net(struct rp_search *search, struct rp_error *err)
{
    (void)search, (void)err;
    return RP_OK;
}
