/* refparity replay --expected: the same verdicts and output where another program computed what each slot
 * has to be. */
#ifndef REFPARITY_CLI_REPLAY_EXPECTED_H
#define REFPARITY_CLI_REPLAY_EXPECTED_H

#include "cli/replay_lacks.h"
#include "cli/replay_output.h"

/* wanted: its n_layers are taken from the file. output is open; returns the exit code. */
int rp_cli_replay_expected(const char *expected, const char *dump, enum rp_layout layout,
                           const struct rp_replay_wanted *wanted, struct rp_replay_output *output);

#endif
