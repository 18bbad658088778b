/* The gate explained: parity by induction. A required slot over its limit is MARGINAL where the tokens are the
 * reference's, the model file is the checkpoint, and replay finds every operation up to that slot right: what
 * is left between engine and reference is then quantization and carried rounding, whatever its size. Else it
 * stays a FAIL, whose message names what is wrong. Where one of the three could not be checked, it is MARGINAL
 * and says which; with REFPARITY_REQUIRE that is an ERROR. Not for the 5% rule (compare/verdict.c), nor for
 * replaying (judge_replay.h). */
#ifndef REFPARITY_RUN_EXPLAINED_GATE_H
#define REFPARITY_RUN_EXPLAINED_GATE_H

#include "run/judge.h"

struct rp_explained_gate;

/* Of an open judge, which has to outlive it. RP_ERR_MEMORY. */
enum rp_status rp_explained_gate_open(const struct rp_judge *judge, struct rp_explained_gate **out,
                                      struct rp_error *err);
void rp_explained_gate_close(struct rp_explained_gate *gate); /* NULL is allowed */

/* rp_comparison's gate: context is a struct rp_explained_gate. Replay's verdicts are those that the pair's tests have
 * stored; what none did is replayed and stored, up to the slot. */
void rp_explained_gate_decide(void *context, struct rp_slot_result *result);

/* Where an operation is wrong, it is the place that the divergence comes from: replay knows it better than
 * the distance from the reference, which quantization is in, too. gate NULL: nothing is changed. */
void rp_explained_gate_name_divergence(struct rp_explained_gate *gate,
                                       struct rp_divergence *divergence);

#endif
