/* The gates explained and exact: what the exact reference says of a slot, after HF has been compared
 * with. Not for making that reference: see exact/exact.h. */
#ifndef REFPARITY_COMPARE_GATE_H
#define REFPARITY_COMPARE_GATE_H

#include "refparity/compare.h"

/* result is what the comparison with HF found. Fills result->exact, and changes verdict and message as
 * comparison->gate has it; an ERROR or SKIP stays as it is. */
void rp_gate_slot(const struct rp_comparison *comparison, struct rp_slot_result *result);

#endif
