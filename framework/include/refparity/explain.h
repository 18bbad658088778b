/* Why an operation introduces an error: hypotheses that the field's bug history suggests, each about
 * that operation alone, fitted in closed form or tested by running it with something exchanged. A name
 * is given only where the engine's values then match to the bound. It explains a verdict and never
 * changes it. */
#ifndef REFPARITY_EXPLAIN_H
#define REFPARITY_EXPLAIN_H

#include "refparity/replay.h"

#ifdef __cplusplus
extern "C" {
#endif

struct rp_explanation {
    char name[64]; /* the hypothesis: "rope-theta", "residual-leak" …; "" when none explains it */
    char text[400];   /* "RoPE with base 500000, the model's is 1000000", or "unexplained: …" */
    double share;     /* of the error's energy that it accounts for, 0 .. 1 */
    double parameter; /* what was found; NaN where there is none */
    size_t n_tried;
    /* Another that fits as well, where two cannot be told apart on these values; "" when none. */
    char or_else[64];
};

/* Explains a slot that fails, from rp_replay_run_layer or rp_replay_run_part. RP_ERR_MEMORY, or what
 * reading weights or dump returns. */
enum rp_status rp_explain_slot(struct rp_replay *replay, const struct rp_replay_slot *slot,
                               struct rp_explanation *explanation, struct rp_error *err);

/* The names that rp_explain_slot may give, with a line on each, for --help and docs. */
struct rp_hypothesis_info {
    const char *name;
    const char *description;
};
const struct rp_hypothesis_info *rp_hypotheses(size_t *n);

#ifdef __cplusplus
}
#endif
#endif
