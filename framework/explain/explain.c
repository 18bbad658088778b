/* See refparity/explain.h. */
#include "refparity/explain.h"

#include <math.h>
#include <stdio.h>

enum rp_status rp_explain_slot(struct rp_replay *replay, const struct rp_replay_slot *slot,
                               struct rp_explanation *explanation, struct rp_error *err)
{
    (void)replay, (void)slot, (void)err;
    *explanation = (struct rp_explanation){.parameter = (double)NAN};
    snprintf(explanation->text, sizeof explanation->text, "unexplained");
    return RP_OK;
}

const struct rp_hypothesis_info *rp_hypotheses(size_t *n)
{
    *n = 0;
    return NULL;
}
