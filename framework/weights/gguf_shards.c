/* A model that is split over several files, as llama.cpp's gguf-split and converters write it: whichever
 * shard is opened, all are, and their tensors stand in one list. The first shard has the metadata; each has
 * split.no, split.count and split.tensors.count. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "weights/gguf_internal.h"

#define MAX_SHARDS 99999 /* five digits in a shard's name */
#define SHARD_SUFFIX "-%05zu-of-%05zu.gguf"
#define SUFFIX_LENGTH (sizeof "-00001-of-00003.gguf" - 1)
#define MAX_PATH 4096

/* Whether path ends in "-00002-of-00003.gguf": its numbers, counted from 1. */
static bool parse_suffix(const char *path, size_t *number, size_t *count)
{
    const size_t length = strlen(path);
    char expected[SUFFIX_LENGTH + 24];
    if (length <= SUFFIX_LENGTH)
        return false;
    const char *suffix = path + length - SUFFIX_LENGTH;
    for (size_t i = 1; i <= 5; i++) {
        if (!isdigit((unsigned char)suffix[i]) || !isdigit((unsigned char)suffix[i + 9]))
            return false;
    }
    *number = (size_t)strtoul(suffix + 1, NULL, 10);
    *count = (size_t)strtoul(suffix + 10, NULL, 10);
    snprintf(expected, sizeof expected, SHARD_SUFFIX, *number, *count);
    return strcmp(suffix, expected) == 0 && *number >= 1 && *number <= *count;
}

size_t rp_gguf_shards_of_name(const char *path)
{
    size_t number, count;
    return parse_suffix(path, &number, &count) ? count : 1;
}

enum rp_status rp_gguf_shard_name(const char *path, size_t index, char *out, size_t size,
                                  struct rp_error *err)
{
    size_t number, count;
    int n;
    if (parse_suffix(path, &number, &count))
        n = snprintf(out, size, "%.*s" SHARD_SUFFIX, (int)(strlen(path) - SUFFIX_LENGTH), path,
                     index + 1, count);
    else
        n = snprintf(out, size, "%s", path);
    if (n < 0 || (size_t)n >= size)
        return rp_fail(err, RP_ERR_ARGUMENT, path, -1, "a shard's path needs %d bytes, has %zu",
                       n + 1, size);
    return RP_OK;
}

struct split {
    size_t index, count; /* split.no, split.count; count 1: the file is no shard */
    int64_t n_tensors;   /* of all shards; -1: not said */
};

static enum rp_status read_split(const struct rp_gguf *gguf, struct split *split,
                                 struct rp_error *err)
{
    static const char number_key[] = "split.no", count_key[] = "split.count",
                      tensors_key[] = "split.tensors.count";
    int64_t index = 0, count = 0;
    enum rp_status status = RP_OK;
    *split = (struct split){.count = 1, .n_tensors = -1};
    if (rp_gguf_find_value(gguf, count_key))
        status = rp_gguf_get_int(gguf, count_key, 0, MAX_SHARDS, &count, err);
    if (status != RP_OK || count <= 1)
        return status; /* merged files keep split.count 0 */
    status = rp_gguf_get_int(gguf, number_key, 0, count - 1, &index, err);
    if (status == RP_OK && rp_gguf_find_value(gguf, tensors_key))
        status = rp_gguf_get_int(gguf, tensors_key, 0, INT64_MAX, &split->n_tensors, err);
    split->index = (size_t)index;
    split->count = (size_t)count;
    return status;
}

static enum rp_status check_name(const struct rp_gguf *gguf, const struct split *split,
                                 struct rp_error *err)
{
    size_t number, count;
    if (parse_suffix(gguf->path, &number, &count) && number == split->index + 1 &&
        count == split->count)
        return RP_OK;
    return rp_fail(err, RP_ERR_MISMATCH, gguf->path, -1,
                   "this is shard %zu of %zu (split.no, split.count), but its name does not end in "
                   "\"" SHARD_SUFFIX "\": the other shards are found by their names",
                   split->index + 1, split->count, split->index + 1, split->count);
}

/* Another shard has to say what the first one does. */
static enum rp_status check_agreement(const struct rp_gguf *first, const struct split *expected,
                                      const struct rp_gguf *shard, size_t index,
                                      struct rp_error *err)
{
    static const char key[] = "general.architecture";
    struct rp_gguf_string own, firsts;
    struct split split;
    enum rp_status status = read_split(shard, &split, err);
    if (status != RP_OK)
        return status;
    if (split.index != index || split.count != expected->count)
        return rp_fail(err, RP_ERR_MISMATCH, shard->path, -1,
                       "this is shard %zu of %zu (split.no, split.count), by its name it is shard "
                       "%zu of %zu",
                       split.index + 1, split.count, index + 1, expected->count);
    if (split.n_tensors != expected->n_tensors)
        return rp_fail(err, RP_ERR_MISMATCH, shard->path, -1,
                       "split.tensors.count is %lld, in shard 1 it is %lld",
                       (long long)split.n_tensors, (long long)expected->n_tensors);
    if (!rp_gguf_find_value(shard, key) || !rp_gguf_find_value(first, key))
        return RP_OK;
    status = rp_gguf_get_string(shard, key, &own, err);
    if (status == RP_OK)
        status = rp_gguf_get_string(first, key, &firsts, err);
    if (status == RP_OK && rp_gguf_string_compare(own, firsts) != 0)
        status = rp_fail(err, RP_ERR_MISMATCH, shard->path, -1,
                         "%s is \"%.*s\", in shard 1 it is \"%.*s\"", key, (int)own.length,
                         own.data, (int)firsts.length, firsts.data);
    return status;
}

static enum rp_status open_shard(const char *path, size_t index, size_t count,
                                 struct rp_gguf **shard, struct rp_error *err)
{
    char name[MAX_PATH];
    enum rp_status status = rp_gguf_shard_name(path, index, name, sizeof name, err);
    if (status == RP_OK)
        status = rp_gguf_open_file(name, shard, err);
    if (status == RP_ERR_MISSING)
        status = rp_fail(err, RP_ERR_MISSING, name, -1,
                         "shard %zu of %zu of this model is missing; all have to be in one folder",
                         index + 1, count);
    return status;
}

/* Each shard has been checked to have no name twice. */
static enum rp_status check_names(const struct rp_gguf *first, size_t index, struct rp_error *err)
{
    const struct rp_gguf *shard = first->others[index];
    for (size_t k = 0; k < shard->n_tensors; k++) {
        const char *name = shard->tensors[k].name;
        bool is_new = !rp_gguf_find_tensor(first, name);
        for (size_t i = 0; i < index && is_new; i++)
            is_new = !rp_gguf_find_tensor(first->others[i], name);
        if (!is_new)
            return rp_fail(err, RP_ERR_FORMAT, shard->path, -1,
                           "tensor '%s' is in an earlier shard, too", name);
    }
    return RP_OK;
}

/* The tensors of all shards become the first one's, in the order of the shards. */
static enum rp_status gather_tensors(struct rp_gguf *first, struct rp_error *err)
{
    size_t n = first->n_tensors;
    for (size_t i = 0; i < first->n_others; i++) {
        enum rp_status status = check_names(first, i, err);
        if (status != RP_OK)
            return status;
        n += first->others[i]->n_tensors; /* bounded by the files' sizes */
    }
    struct rp_gguf_tensor *all = calloc(n + 1, sizeof *all);
    if (!all)
        return rp_fail(err, RP_ERR_MEMORY, first->path, -1, "no memory for %zu tensors", n);
    struct rp_gguf_tensor *at = all;
    memcpy(at, first->tensors, first->n_tensors * sizeof *at);
    at += first->n_tensors;
    for (size_t i = 0; i < first->n_others; i++) {
        memcpy(at, first->others[i]->tensors, first->others[i]->n_tensors * sizeof *at);
        at += first->others[i]->n_tensors;
    }
    free(first->tensors);
    first->tensors = all;
    first->n_tensors = n;
    return rp_gguf_sort_tensors(first, err);
}

/* others [count - 1] takes what is opened, in order; opened is the shard that is open already, or NULL. */
static enum rp_status open_others(struct rp_gguf *first, const struct split *split,
                                  struct rp_gguf *opened, struct rp_error *err)
{
    enum rp_status status = RP_OK;
    first->others = calloc(split->count, sizeof(struct rp_gguf *));
    if (!first->others) {
        rp_gguf_close(opened);
        return rp_fail(err, RP_ERR_MEMORY, first->path, -1, "no memory for %zu shards",
                       split->count);
    }
    for (size_t i = 1; i < split->count && status == RP_OK; i++) {
        struct rp_gguf **shard = &first->others[first->n_others];
        if (opened && opened->shard == i) {
            *shard = opened;
            opened = NULL;
        } else {
            status = open_shard(first->path, i, split->count, shard, err);
        }
        if (status != RP_OK)
            continue;
        first->n_others++;
        status = check_agreement(first, split, *shard, i, err);
    }
    rp_gguf_close(opened);
    return status;
}

static enum rp_status check_total(const struct rp_gguf *first, const struct split *split,
                                  struct rp_error *err)
{
    if (split->n_tensors < 0 || (uint64_t)split->n_tensors == first->n_tensors)
        return RP_OK;
    return rp_fail(err, RP_ERR_MISMATCH, first->path, -1,
                   "the %zu shards hold %zu tensors, split.tensors.count says %lld", split->count,
                   first->n_tensors, (long long)split->n_tensors);
}

enum rp_status rp_gguf_open(const char *path, struct rp_gguf **out, struct rp_error *err)
{
    struct rp_gguf *gguf = NULL, *opened = NULL;
    struct split split;
    enum rp_status status = rp_gguf_open_file(path, &gguf, err);
    if (status == RP_OK)
        status = read_split(gguf, &split, err);
    if (status != RP_OK || split.count == 1)
        goto done;
    status = check_name(gguf, &split, err);
    if (status == RP_OK && split.index > 0) {
        opened = gguf;
        opened->shard = split.index;
        gguf = NULL;
        status = open_shard(path, 0, split.count, &gguf, err);
        if (status == RP_OK)
            status = check_agreement(gguf, &split, gguf, 0, err);
        if (status != RP_OK)
            rp_gguf_close(opened);
    }
    if (status == RP_OK)
        status = open_others(gguf, &split, opened, err);
    if (status == RP_OK)
        status = gather_tensors(gguf, err);
    if (status == RP_OK)
        status = check_total(gguf, &split, err);
done:
    if (status == RP_OK)
        *out = gguf;
    else
        rp_gguf_close(gguf);
    return status;
}

size_t rp_gguf_n_shards(const struct rp_gguf *gguf)
{
    return gguf->n_others + 1;
}

const char *rp_gguf_tensor_path(const struct rp_gguf *gguf, const struct rp_gguf_tensor *tensor)
{
    for (size_t i = 0; i < gguf->n_others; i++) {
        const struct rp_gguf *shard = gguf->others[i];
        const uintptr_t start = (uintptr_t)shard->bytes, at = (uintptr_t)tensor->data;
        if (at >= start && at - start < shard->size)
            return shard->path;
    }
    return gguf->path;
}
