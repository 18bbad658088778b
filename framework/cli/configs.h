/* The matrices of a build tree: a config.json each, for the commands that take a build tree. */
#ifndef REFPARITY_CLI_CONFIGS_H
#define REFPARITY_CLI_CONFIGS_H

#include <stdbool.h>

#include "run/context.h"

struct rp_configs {
    char *
        list; /* what refparity/matrices says, a path below refparity/ a line; NULL: the only one */
    char only[RP_PATH_SIZE];
    const char *build_dir;
};

/* argument: a build tree, or a config.json itself. To be freed with rp_configs_free, also after an error. */
enum rp_status rp_configs_find(const char *argument, struct rp_configs *configs,
                               struct rp_error *err);

/* Writes the next one into path[RP_PATH_SIZE]; false when there are no more, or its path is too long. *at
 * begins with 0. */
bool rp_configs_next(const struct rp_configs *configs, size_t *at, char *path);

void rp_configs_free(struct rp_configs *configs);

#endif
