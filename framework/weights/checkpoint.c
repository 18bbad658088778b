/* See weights/checkpoint.h. */
#include "weights/checkpoint_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"

#define PATH_SIZE 4096
#define ONE_FILE "model.safetensors"
#define INDEX_FILE "model.safetensors.index.json"
#define MAX_SHARDS 4096

bool rp_is_checkpoint(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static enum rp_status read_json(const char *folder, const char *name, struct rp_json **out,
                                struct rp_error *err)
{
    char path[PATH_SIZE];
    enum rp_status status = rp_path_join(path, sizeof path, folder, name, err);
    if (status == RP_OK)
        status = rp_json_parse_file(path, out, err);
    if (status == RP_OK && !cJSON_IsObject(rp_json_root(*out)))
        status = rp_json_fail(*out, rp_json_root(*out), err, RP_ERR_FORMAT, "expected an object");
    return status;
}

static enum rp_status open_shard(struct rp_checkpoint *checkpoint, const char *name,
                                 struct rp_error *err)
{
    char path[PATH_SIZE];
    enum rp_status status = rp_path_join(path, sizeof path, checkpoint->path, name, err);
    if (status == RP_OK)
        status = rp_safetensors_open(path, &checkpoint->shards[checkpoint->n_shards], err);
    if (status == RP_OK)
        checkpoint->n_shards++;
    return status;
}

/* The shard of that name, relative to the checkpoint; NULL when it is not open. */
static const struct rp_safetensors *find_shard(const struct rp_checkpoint *checkpoint,
                                               const char *name)
{
    for (size_t i = 0; i < checkpoint->n_shards; i++) {
        const char *path = rp_safetensors_path(checkpoint->shards[i]);
        const char *slash = strrchr(path, '/');
        if (strcmp(slash ? slash + 1 : path, name) == 0)
            return checkpoint->shards[i];
    }
    return NULL;
}

static enum rp_status open_listed(struct rp_checkpoint *checkpoint, const struct rp_json *index,
                                  struct rp_error *err)
{
    const cJSON *root = rp_json_root(index), *item;
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(root, "weight_map");
    if (!cJSON_IsObject(map) || !map->child)
        return rp_json_fail(index, map ? map : root, err, RP_ERR_FORMAT,
                            "expected \"weight_map\", an object of tensors and their files");
    cJSON_ArrayForEach(item, map)
    {
        /* Only files of this folder: an index is no reason to read others. */
        if (!cJSON_IsString(item) || !item->valuestring[0] || item->valuestring[0] == '.' ||
            strchr(item->valuestring, '/'))
            return rp_json_fail(index, item, err, RP_ERR_FORMAT,
                                "expected the name of a file beside this one");
        const struct rp_safetensors *shard = find_shard(checkpoint, item->valuestring);
        if (!shard && checkpoint->n_shards == MAX_SHARDS)
            return rp_json_fail(index, item, err, RP_ERR_UNSUPPORTED, "more than %d files",
                                MAX_SHARDS);
        enum rp_status status = RP_OK;
        if (!shard) {
            status = open_shard(checkpoint, item->valuestring, err);
            if (status == RP_OK)
                shard = checkpoint->shards[checkpoint->n_shards - 1];
        }
        if (status != RP_OK)
            return status;
        if (!rp_safetensors_find(shard, item->string))
            return rp_json_fail(index, item, err, RP_ERR_MISSING,
                                "tensor '%.200s' is not in %.200s", item->string,
                                item->valuestring);
    }
    return RP_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct rp_checkpoint_tensor *)a)->tensor->name,
                  ((const struct rp_checkpoint_tensor *)b)->tensor->name);
}

static enum rp_status list_tensors(struct rp_checkpoint *checkpoint, struct rp_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < checkpoint->n_shards; i++)
        n += rp_safetensors_n_tensors(checkpoint->shards[i]);
    checkpoint->tensors = calloc(n + 1, sizeof *checkpoint->tensors);
    if (!checkpoint->tensors)
        return rp_fail(err, RP_ERR_MEMORY, checkpoint->path, -1, "no memory for %zu tensors", n);
    for (size_t i = 0; i < checkpoint->n_shards; i++)
        for (size_t k = 0; k < rp_safetensors_n_tensors(checkpoint->shards[i]); k++)
            checkpoint->tensors[checkpoint->n_tensors++] = (struct rp_checkpoint_tensor){
                .file = checkpoint->shards[i],
                .tensor = rp_safetensors_tensor(checkpoint->shards[i], k)};
    qsort(checkpoint->tensors, n, sizeof *checkpoint->tensors, compare_names);
    for (size_t i = 1; i < n; i++) {
        const struct rp_checkpoint_tensor *tensor = &checkpoint->tensors[i];
        if (strcmp(checkpoint->tensors[i - 1].tensor->name, tensor->tensor->name) == 0)
            return rp_fail(err, RP_ERR_FORMAT, rp_safetensors_path(tensor->file),
                           (long long)tensor->tensor->offset, "tensor '%s' is in another file, too",
                           tensor->tensor->name);
    }
    return RP_OK;
}

static enum rp_status open_weights(struct rp_checkpoint *checkpoint, struct rp_error *err)
{
    char one[PATH_SIZE], many[PATH_SIZE];
    struct rp_json *index = NULL;
    checkpoint->shards = calloc(MAX_SHARDS, sizeof(struct rp_safetensors *));
    if (!checkpoint->shards)
        return rp_fail(err, RP_ERR_MEMORY, checkpoint->path, -1, "no memory for a checkpoint");
    enum rp_status status = rp_path_join(one, sizeof one, checkpoint->path, ONE_FILE, err);
    if (status == RP_OK)
        status = rp_path_join(many, sizeof many, checkpoint->path, INDEX_FILE, err);
    if (status != RP_OK)
        return status;
    if (rp_path_exists(one)) {
        status = open_shard(checkpoint, ONE_FILE, err);
    } else if (rp_path_exists(many)) {
        status = read_json(checkpoint->path, INDEX_FILE, &index, err);
        if (status == RP_OK)
            status = open_listed(checkpoint, index, err);
        rp_json_free(index);
    } else {
        status = rp_fail(err, RP_ERR_MISSING, checkpoint->path, -1,
                         "no checkpoint: it has neither " ONE_FILE " nor " INDEX_FILE);
    }
    if (status == RP_OK)
        status = list_tensors(checkpoint, err);
    return status;
}

struct rp_checkpoint *rp_checkpoint_new(const char *path)
{
    struct rp_checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
    if (checkpoint && (checkpoint->path = malloc(strlen(path) + 1)) != NULL) {
        memcpy(checkpoint->path, path, strlen(path) + 1);
        return checkpoint;
    }
    free(checkpoint);
    return NULL;
}

void rp_checkpoint_find_text_config(struct rp_checkpoint *checkpoint)
{
    const cJSON *text =
        cJSON_GetObjectItemCaseSensitive(rp_json_root(checkpoint->config), "text_config");
    checkpoint->text_config = cJSON_IsObject(text) ? text : NULL;
}

enum rp_status rp_checkpoint_open(const char *folder, struct rp_checkpoint **out,
                                  struct rp_error *err)
{
    static const char generation[] = "generation_config.json";
    char path[PATH_SIZE];
    struct rp_checkpoint *checkpoint = rp_checkpoint_new(folder);
    if (!checkpoint)
        return rp_fail(err, RP_ERR_MEMORY, folder, -1, "no memory for a checkpoint");
    enum rp_status status = read_json(folder, "config.json", &checkpoint->config, err);
    if (status == RP_OK) {
        rp_checkpoint_find_text_config(checkpoint);
        status = rp_path_join(path, sizeof path, folder, generation, err);
    }
    if (status == RP_OK && rp_path_exists(path))
        status = read_json(folder, generation, &checkpoint->generation_config, err);
    if (status == RP_OK)
        status = open_weights(checkpoint, err);
    if (status == RP_OK)
        *out = checkpoint;
    else
        rp_checkpoint_close(checkpoint);
    return status;
}

void rp_checkpoint_close(struct rp_checkpoint *checkpoint)
{
    if (!checkpoint)
        return;
    for (size_t i = 0; i < checkpoint->n_shards; i++)
        rp_safetensors_close(checkpoint->shards[i]);
    free(checkpoint->shards);
    free(checkpoint->tensors);
    free(checkpoint->sketched);
    rp_json_free(checkpoint->config);
    rp_json_free(checkpoint->generation_config);
    free(checkpoint->path);
    free(checkpoint);
}

const char *rp_checkpoint_path(const struct rp_checkpoint *checkpoint)
{
    return checkpoint->path;
}

static const cJSON *member(const cJSON *object, const char *key)
{
    const cJSON *value = object ? cJSON_GetObjectItemCaseSensitive(object, key) : NULL;
    return value && !cJSON_IsNull(value) ? value : NULL;
}

const cJSON *rp_checkpoint_setting(const struct rp_checkpoint *checkpoint, const char *key)
{
    const cJSON *value = member(checkpoint->text_config, key);
    return value ? value : member(rp_json_root(checkpoint->config), key);
}

const cJSON *rp_checkpoint_generation_setting(const struct rp_checkpoint *checkpoint,
                                              const char *key)
{
    return checkpoint->generation_config ? member(rp_json_root(checkpoint->generation_config), key)
                                         : NULL;
}

enum rp_status rp_checkpoint_fail(const struct rp_checkpoint *checkpoint, const cJSON *value,
                                  struct rp_error *err, enum rp_status code, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    rp_json_fail(checkpoint->config, value ? value : rp_json_root(checkpoint->config), err, code,
                 "%s", text);
    return code;
}

size_t rp_checkpoint_n_tensors(const struct rp_checkpoint *checkpoint)
{
    return checkpoint->n_tensors;
}

const struct rp_checkpoint_tensor *rp_checkpoint_tensor(const struct rp_checkpoint *checkpoint,
                                                        size_t index)
{
    return &checkpoint->tensors[index];
}

int rp_checkpoint_compare_name(const void *name, const void *tensor)
{
    return strcmp(name, ((const struct rp_checkpoint_tensor *)tensor)->tensor->name);
}

const struct rp_checkpoint_tensor *rp_checkpoint_find(const struct rp_checkpoint *checkpoint,
                                                      const char *name)
{
    return bsearch(name, checkpoint->tensors, checkpoint->n_tensors, sizeof *checkpoint->tensors,
                   rp_checkpoint_compare_name);
}
