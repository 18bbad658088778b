/* refparity replay --expected: the same verdicts and output where another program computed what each slot
 * has to be. */
#ifndef REFPARITY_CLI_REPLAY_EXPECTED_H
#define REFPARITY_CLI_REPLAY_EXPECTED_H

#include "cli/replay_lacks.h"
#include "cli/replay_output.h"

/* path: the npz. of: its n_layers are taken from that. output is open; returns the exit code. */
int rp_cli_replay_expected(const char *path, const char *dump_path,
                           const struct rp_tensor_set_options *read,
                           const struct rp_replay_wanted *of, struct rp_replay_output *output);

#endif
