/* See cli/configs.h. */
#include "cli/configs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

static bool is_json(const char *path)
{
    const size_t length = strlen(path);
    return length > 5 && strcmp(path + length - 5, ".json") == 0;
}

enum rp_status rp_configs_find(const char *argument, struct rp_configs *configs,
                               struct rp_error *err)
{
    size_t length;
    *configs = (struct rp_configs){.build_dir = argument};
    if (is_json(argument)) {
        if ((size_t)snprintf(configs->only, RP_PATH_SIZE, "%s", argument) < RP_PATH_SIZE)
            return RP_OK;
        return rp_fail(err, RP_ERR_ARGUMENT, argument, -1, "the path is too long");
    }
    enum rp_status status =
        rp_path_join(configs->only, RP_PATH_SIZE, argument, "refparity/matrices", err);
    if (!status)
        status = rp_file_read(configs->only, 1 << 20, &configs->list, &length, err);
    if (status == RP_ERR_MISSING)
        return rp_fail(err, RP_ERR_MISSING, configs->only, -1,
                       "no such file: expected the folder of a configured build tree");
    return status;
}

bool rp_configs_next(const struct rp_configs *configs, size_t *at, char *path)
{
    if (!configs->list)
        return (*at)++ == 0 && snprintf(path, RP_PATH_SIZE, "%s", configs->only) > 0;
    const char *line = configs->list + *at;
    const size_t n = strcspn(line, "\n");
    *at += n + (line[n] == '\n');
    return n > 0 && snprintf(path, RP_PATH_SIZE, "%s/refparity/%.*s", configs->build_dir, (int)n,
                             line) < RP_PATH_SIZE;
}

void rp_configs_free(struct rp_configs *configs)
{
    free(configs->list);
    configs->list = NULL;
}
