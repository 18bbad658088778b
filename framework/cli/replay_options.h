/* The command line of refparity replay. */
#ifndef REFPARITY_CLI_REPLAY_OPTIONS_H
#define REFPARITY_CLI_REPLAY_OPTIONS_H

#include "cli/replay_output.h"
#include "refparity/replay.h"
#include "tensor/names.h"

struct rp_cli_replay_options {
    const char *model, *dump, *tokens_file, *expected;
    struct rp_tensor_set_options read; /* of the dump; its names are owned */
    int first_layer, last_layer;       /* -1: all */
    size_t n_threads;
    int no_explain, json;
    struct rp_replay_shown shown;
    const char *html; /* NULL: no page */
    struct rp_replay_options replay;
};

/* -1 to go on, else the exit code. options->read.names is the caller's to free, also then. */
int rp_cli_replay_parse(int argc, char **argv, struct rp_cli_replay_options *options);

#endif
