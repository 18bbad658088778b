/* Hypotheses about attention, its cache and its gate. */
#include "explain/search.h"

enum rp_status rp_collect_attention(struct rp_search *search, struct rp_error *err)
{
    (void)search, (void)err;
    return RP_OK;
}
