/* Templates: what argv and env of an engine may contain, and what it becomes for one run.
 * Placeholders: {gguf} {checkpoint} {prompt} {prompt_file} {tokens_file} {dump} {mode} {positions} {slots}
 * {threads} {matrix_dir} {env:NAME} {target:NAME}; {{ and }} are the braces themselves. */
#ifndef REFPARITY_MATRIX_EXPAND_H
#define REFPARITY_MATRIX_EXPAND_H

#include "refparity/status.h"

/* The value of each placeholder; NULL where there is none to give. */
struct rp_expansion {
    const char *gguf;
    const char *checkpoint; /* the folder of the HF model */
    const char *prompt;
    const char *prompt_file; /* a file that holds the prompt's bytes */
    const char *tokens_file; /* a file that holds the fixture's token ids, a decimal id per line */
    const char *dump;        /* the folder to dump into */
    const char *mode;
    const char *positions; /* "all", or a comma list */
    const char *slots;     /* "layers" or "operations" */
    const char *threads;
    const char *matrix_dir; /* the folder that the matrix is in */
    /* {env:NAME}: the value, valid until the next call; NULL or "" when it is not set. */
    const char *(*env)(void *context, const char *name);
    /* {target:NAME}: the path of a program that the build makes; NULL when it makes none. */
    const char *(*target)(void *context, const char *name);
    void *context; /* handed to env and target */
};

/* Is the template well-formed? RP_ERR_FORMAT says what is not. err->where stays empty. */
enum rp_status rp_template_check(const char *text, struct rp_error *err);

/* Does a well-formed template use {placeholder}? Of env and target, the part before the colon. */
int rp_template_uses(const char *text, const char *placeholder);

/* Replaces every placeholder of text; the values are not looked into for more. *out is to be freed
 * with free(). RP_ERR_MISSING: an environment variable is not set, or there is no such target (the
 * message names it); RP_ERR_ARGUMENT: values has no value for a placeholder; RP_ERR_FORMAT,
 * RP_ERR_MEMORY. */
enum rp_status rp_expand(const char *text, const struct rp_expansion *values, char **out,
                         struct rp_error *err);

#endif
