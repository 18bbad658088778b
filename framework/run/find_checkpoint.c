/* See run/find_checkpoint.h. */
#include "run/find_checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "matrix/store.h"

/* Is anything at path? Where that cannot be told, for want of permission say, refused keeps the first reason. */
static bool is_there(const char *path, struct rp_error *refused)
{
    struct rp_error err;
    const enum rp_status status = rp_path_look(path, &err);
    if (status != RP_OK && status != RP_ERR_MISSING && refused->code == RP_OK)
        *refused = err;
    return status == RP_OK;
}

static bool is_checkpoint(const char *folder, struct rp_error *refused)
{
    char config[RP_PATH_SIZE];
    return rp_path_join(config, sizeof config, folder, "config.json", NULL) == RP_OK &&
           is_there(config, refused);
}

/* Whether parent/name is a checkpoint: then folder is it. */
static bool find_below(const char *parent, const char *name, char folder[RP_PATH_SIZE],
                       struct rp_error *refused)
{
    return rp_path_join(folder, RP_PATH_SIZE, parent, name, NULL) == RP_OK &&
           is_checkpoint(folder, refused);
}

/* The folder that path is in; false where it names none. */
static bool folder_of(const char *path, char folder[RP_PATH_SIZE])
{
    snprintf(folder, RP_PATH_SIZE, "%s", path);
    char *slash = strrchr(folder, '/');
    if (!slash)
        return false;
    *slash = '\0';
    return true;
}

bool rp_find_checkpoint(const struct rp_context *context, const struct rp_entry *entry,
                        const char *gguf, char folder[RP_PATH_SIZE], struct rp_error *refused)
{
    char beside[RP_PATH_SIZE];
    const char *root = getenv("REFPARITY_CHECKPOINTS");
    if (root && root[0] && find_below(root, entry->hf_model, folder, refused))
        return true;
    for (size_t i = 0; i < context->n_stores; i++) { /* fixtures/store and fixtures/tiny/qwen3 */
        if (folder_of(context->stores[i], beside) &&
            find_below(beside, entry->hf_model, folder, refused))
            return true;
    }
    if (!gguf || !folder_of(gguf, beside))
        return false;
    if (find_below(beside, entry->hf_model, folder, refused))
        return true;
    snprintf(folder, RP_PATH_SIZE, "%s", beside);
    return is_checkpoint(folder, refused);
}

bool rp_find_sketch(const struct rp_context *context, const struct rp_entry *entry,
                    char path[RP_PATH_SIZE], struct rp_error *refused)
{
    char place[RP_PATH_SIZE];
    const char *root = getenv("REFPARITY_CHECKPOINTS");
    if (rp_store_sketch_path(entry->hf_model, entry->revision, place, sizeof place, NULL) != RP_OK)
        return false;
    for (size_t i = 0; i < context->n_stores; i++)
        if (rp_path_join(path, RP_PATH_SIZE, context->stores[i], place, NULL) == RP_OK &&
            is_there(path, refused))
            return true;
    return root && root[0] && rp_path_join(path, RP_PATH_SIZE, root, place, NULL) == RP_OK &&
           is_there(path, refused);
}
