/* In which type an engine keeps its values, read off the values of its dump. Not for judging them:
 * judge.h. */
#ifndef REFPARITY_REPLAY_STATE_TYPE_H
#define REFPARITY_REPLAY_STATE_TYPE_H

#include "refparity/replay.h"

/* The narrowest type whose numbers all values of rows first to first + n are: BF16, else F16, else FP32.
 * Zeros, NaN and Inf say nothing; false: there are too few others to tell. */
bool rp_find_state(const struct rp_tensor *tensor, size_t first, size_t n, enum rp_state *state);

/* "FP32", "BF16", "F16": as a message has it. */
const char *rp_state_type(enum rp_state state);

/* RP_ERR_MISMATCH where a 16-bit state is declared, and most slots that an engine computes hold values
 * of another type. One row of each is read. */
enum rp_status rp_check_state(struct rp_tensor_set *dump, enum rp_state declared,
                              struct rp_error *err);

#endif
