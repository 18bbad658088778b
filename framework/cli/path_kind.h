/* What a path holds, as far as its first bytes or its names tell: for what two swapped arguments get, and
 * for show. Not for opening it: what opens it says what is wrong. */
#ifndef REFPARITY_CLI_PATH_KIND_H
#define REFPARITY_CLI_PATH_KIND_H

#include <stdbool.h>

enum rp_path_kind {
    RP_PATH_OTHER, /* also: there is nothing */
    RP_PATH_GGUF,
    RP_PATH_NPZ,
    RP_PATH_NPY,
    RP_PATH_SAFETENSORS,
    RP_PATH_CHECKPOINT, /* a folder with config.json */
    RP_PATH_DUMP        /* a folder with dump.json, or with files .npy or .bin */
};

enum rp_path_kind rp_path_kind(const char *path);

/* "a GGUF", "a checkpoint", "a dump" … */
const char *rp_path_kind_text(enum rp_path_kind kind);

/* Whether the path is a model: a GGUF or a checkpoint; whether it holds hidden states. */
bool rp_path_is_model(enum rp_path_kind kind);
bool rp_path_has_states(enum rp_path_kind kind);

/* An argument that is known to be of a kind that a command cannot read is a usage error: its exit code, else
 * -1. wanted: what is expected, "an npz or a dump for DUMP"; wrong: bits 1 << kind. */
int rp_cli_check_kind(const char *command, const char *wanted, const char *path, unsigned wrong);

#endif
