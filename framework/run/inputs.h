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
    const char *dump;      /* the folder that it writes to: no input */
    const char *cache_dir; /* remembers the hashes of files that have not changed since */
};

/* Writes the hash as hex into key; "" when it cannot be told what the dump depends on: an argument
 * or a variable names a folder, the dynamic loader does not say what it would load, or the program is
 * no ELF file, or an argument names a script ("#!"): those start programs that nobody can list. Such an
 * engine is run each time. A file that an argument or a variable names (--model=FILE, too) counts by
 * content, as the program does. */
enum rp_status rp_inputs_key(const struct rp_inputs *inputs, char key[65], struct rp_error *err);

/* sha256 of the file at path, as hex. It is remembered in cache_dir under the file's path, size, times
 * and inode, so that a large file is read once. */
enum rp_status rp_remembered_sha256(const char *path, const char *cache_dir, char hex[65],
                                    struct rp_error *err);
/* The same of a GGUF: of one in several files, the sha256 of their hashes (as hex, in order). */
enum rp_status rp_remembered_gguf_sha256(const char *path, const char *cache_dir, char hex[65],
                                         struct rp_error *err);

#endif
