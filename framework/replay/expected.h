/* Replay where not the C model but Hugging Face's own modules computed what each slot has to be, from the
 * dump's values: fixtures/hf_replay.py writes it, and what is said of it is said here. For architectures
 * that the C model does not know. Not for computing anything. */
#ifndef REFPARITY_REPLAY_EXPECTED_H
#define REFPARITY_REPLAY_EXPECTED_H

#include "refparity/replay.h"

struct rp_expected;

/* Opens the npz at path. Its manifest is a fixture's, and has "expected":
 *     {"model": TEXT, "activations": NAME, "slots": {SLOT: {"operation", "from", "between", "left_out"}},
 *      "unknown": TEXT}
 * SLOT is [P][dim], NaN where a row could not be computed; SLOT.limits is [P][4]: of each row the bound,
 * relative, then what one tip is worth, tips to be expected in own and in earlier rows (judge.h); worth is
 * negative where no rounding lies on the way. "unknown" is why a slot that it has not was not computed.
 * Checks that it belongs to the dump: layers, widths, tokens. The dump stays the caller's and has to outlive
 * it. RP_ERR_MISMATCH, RP_ERR_FORMAT, RP_ERR_MISSING, RP_ERR_MEMORY, and what opening the npz returns. */
enum rp_status rp_expected_open(const char *path, struct rp_tensor_set *dump,
                                struct rp_expected **out, struct rp_error *err);
void rp_expected_close(struct rp_expected *expected); /* NULL is allowed */

int rp_expected_n_layers(const struct rp_expected *expected);
const char *rp_expected_model(const struct rp_expected *expected);
/* In which the expected values were computed. */
const struct rp_numerics *rp_expected_numerics(const struct rp_expected *expected);

/* What replay says of the dump's slot; SKIP where it was not computed. Its arrays are the caller's, to be freed
 * with rp_replay_slot_free. RP_ERR_MEMORY, RP_ERR_FORMAT. */
enum rp_status rp_expected_judge(struct rp_expected *expected, const char *slot,
                                 struct rp_replay_slot *result, struct rp_error *err);

#endif
