/* The command line of one run: the engine's argv and env with everything replaced.
 * Not for running it: see run.h. */
#ifndef REFPARITY_RUN_COMMAND_H
#define REFPARITY_RUN_COMMAND_H

#include "run/context.h"

struct rp_command {
    char **argv;                /* NULL-terminated; argv[0] as the matrix has it */
    char **env;                 /* "NAME=VALUE", NULL-terminated */
    char program[RP_PATH_SIZE]; /* argv[0] as it was found */
    char gguf[RP_PATH_SIZE];    /* the model; "": none */
};

/* Fills command for pair. RP_ERR_MISSING: the GGUF, the program, a target or an environment
 * variable is not there; the message says how to get it where the matrix does. To be freed with
 * rp_command_free, also after an error. */
enum rp_status rp_command_make(const struct rp_context *context, const struct rp_pair *pair,
                               const struct rp_pair_paths *paths, struct rp_command *command,
                               struct rp_error *err);
void rp_command_free(struct rp_command *command);

/* For a shell: cd FOLDER && NAME=VALUE ... PROGRAM ARGUMENT ..., quoted, on one line; cut to fit
 * buf[size]. Returns buf. */
const char *rp_command_text(const struct rp_command *command, const char *folder, char *buf,
                            size_t size);

#endif
