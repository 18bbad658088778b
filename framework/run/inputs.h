/* One hash over everything that an engine's dump depends on, so that a dump can be kept
 * (REFPARITY_REUSE_DUMPS): the program and its shared libraries, the GGUF, argv, env, tokens. */
#ifndef REFPARITY_RUN_INPUTS_H
#define REFPARITY_RUN_INPUTS_H

#include "refparity/status.h"

struct rp_inputs {
    const char *program;     /* full path */
    char *const *argv;       /* NULL-terminated, expanded */
    char *const *env;        /* "NAME=VALUE", NULL-terminated, expanded */
    const char *gguf;        /* NULL: none */
    const char *tokens_file; /* by content, as prompt_file */
    const char *prompt_file;
    const char *cache_dir; /* remembers the hashes of files that have not changed since */
};

/* Writes the hash as hex into key. A file that is named by an argument counts by content, as the
 * program does: an interpreter's script is hashed like the interpreter. The shared libraries are
 * those that the dynamic loader would load, by its own account; a program without a loader has
 * none. */
enum rp_status rp_inputs_key(const struct rp_inputs *inputs, char key[65], struct rp_error *err);

#endif
