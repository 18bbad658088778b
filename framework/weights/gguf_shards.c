/* A model that is split over several files, as llama.cpp's gguf-split and converters write it: whichever
 * shard is opened, all are, and their tensors stand in one list; or those that hold some layers. The first shard has
 * the metadata; each has split.no, split.count and split.tensors.count. */
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

/* Those that are wanted, both included. */
struct layers {
    size_t first, last;
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
    for (size_t k = 0; shard && k < shard->n_tensors; k++) {
        const char *name = shard->tensors[k].name;
        bool is_new = !rp_gguf_find_tensor(first, name);
        for (size_t i = 0; i < index && is_new; i++)
            is_new = !first->others[i] || !rp_gguf_find_tensor(first->others[i], name);
        if (!is_new)
            return rp_fail(err, RP_ERR_FORMAT, shard->path, -1,
                           "tensor '%s' is in an earlier shard, too", name);
    }
    return RP_OK;
}

/* The tensors of all open shards become the first one's, in the order of the shards. */
static enum rp_status gather_tensors(struct rp_gguf *first, struct rp_error *err)
{
    size_t n = first->n_tensors;
    for (size_t i = 0; i < first->n_others; i++) {
        enum rp_status status = check_names(first, i, err);
        if (status != RP_OK)
            return status;
        if (first->others[i])
            n += first->others[i]->n_tensors; /* bounded by the files' sizes */
    }
    struct rp_gguf_tensor *all = calloc(n + 1, sizeof *all);
    if (!all)
        return rp_fail(err, RP_ERR_MEMORY, first->path, -1, "no memory for %zu tensors", n);
    struct rp_gguf_tensor *at = all;
    memcpy(at, first->tensors, first->n_tensors * sizeof *at);
    at += first->n_tensors;
    for (size_t i = 0; i < first->n_others; i++) {
        if (!first->others[i])
            continue;
        memcpy(at, first->others[i]->tensors, first->others[i]->n_tensors * sizeof *at);
        at += first->others[i]->n_tensors;
    }
    free(first->tensors);
    first->tensors = all;
    first->n_tensors = n;
    return rp_gguf_sort_tensors(first, err);
}

/* Opens shard index, which is not 0, where it is not open. */
static enum rp_status open_other(struct rp_gguf *first, const struct split *split, size_t index,
                                 struct rp_error *err)
{
    struct rp_gguf **shard = &first->others[index - 1];
    if (*shard)
        return RP_OK;
    const enum rp_status status = open_shard(first->path, index, split->count, shard, err);
    return status == RP_OK ? check_agreement(first, split, *shard, index, err) : status;
}

static enum rp_status open_all(struct rp_gguf *first, const struct split *split,
                               struct rp_error *err)
{
    enum rp_status status = RP_OK;
    for (size_t i = 1; i < split->count && status == RP_OK; i++)
        status = open_other(first, split, i, err);
    return status;
}

/* ---- the shards of some layers ---- */

/* The layer of a tensor "blk.N.…"; false: it is of none. */
static bool layer_of(const struct rp_gguf_tensor *tensor, size_t *layer)
{
    static const char prefix[] = "blk.";
    const char *number = tensor->name + sizeof prefix - 1;
    if (strncmp(tensor->name, prefix, sizeof prefix - 1) != 0 || !isdigit((unsigned char)*number))
        return false;
    *layer = (size_t)strtoul(number, NULL, 10);
    return true;
}

/* The least and the greatest layer of a shard's tensors; false: it has none, or is not open. */
static bool layers_of(const struct rp_gguf *shard, size_t *least, size_t *greatest)
{
    bool has_some = false;
    for (size_t i = 0; shard && i < shard->n_tensors; i++) {
        size_t layer;
        if (!layer_of(&shard->tensors[i], &layer))
            continue;
        *least = has_some && *least < layer ? *least : layer;
        *greatest = has_some && *greatest > layer ? *greatest : layer;
        has_some = true;
    }
    return has_some;
}

static struct rp_gguf *shard_at(struct rp_gguf *first, size_t index)
{
    return index == 0 ? first : first->others[index - 1];
}

/* The shard to open next: the middle one of those that are not open and may hold the layer, where shards are in
 * the order of layers; one that is missing only where no other is left; 0: none. missing [n_others + 1]. */
static size_t next_shard(struct rp_gguf *first, size_t layer, const bool *missing)
{
    size_t low = 0, high = first->n_others + 1, least, greatest, found = 0;
    for (size_t i = 0; i <= first->n_others; i++) {
        if (!layers_of(shard_at(first, i), &least, &greatest))
            continue;
        const size_t end = least > layer ? i : greatest > layer ? i + 1 : high;
        low = least < layer ? i : low; /* the layers before it are in earlier ones */
        high = end < high ? end : high;
    }
    for (size_t i = low + 1; i < high; i++) {
        const bool is_nearer = found == 0 || (missing[found] && !missing[i]) ||
                               (i <= (low + high) / 2 && missing[found] == missing[i]);
        found = !first->others[i - 1] && is_nearer ? i : found;
    }
    return found;
}

/* Whether the tensors of the open shards are in the order of layers, and none is left out within a shard. */
static bool is_in_order(struct rp_gguf *first)
{
    size_t layer, last = 0;
    for (size_t i = 0; i <= first->n_others; i++) {
        const struct rp_gguf *shard = shard_at(first, i);
        bool is_begun = false;
        for (size_t k = 0; shard && k < shard->n_tensors; k++) {
            if (!layer_of(&shard->tensors[k], &layer))
                continue;
            if (layer < last || (is_begun && layer > last + 1))
                return false;
            last = layer;
            is_begun = true;
        }
    }
    return true;
}

/* A shard that is missing is no error before it is the only one that may hold the layer. */
static enum rp_status open_layer(struct rp_gguf *first, const struct split *split, size_t layer,
                                 bool *missing, struct rp_error *err)
{
    enum rp_status status = RP_OK;
    for (size_t i = next_shard(first, layer, missing); i > 0 && status == RP_OK;
         i = next_shard(first, layer, missing)) {
        status = open_other(first, split, i, err);
        if (status == RP_ERR_MISSING && !missing[i]) {
            missing[i] = true;
            status = RP_OK;
        }
    }
    return status;
}

/* What stands before the layers, tables of RoPE say, is in the shards up to the first one that has layers. */
static enum rp_status open_layers(struct rp_gguf *first, const struct split *split,
                                  const struct layers *layers, struct rp_error *err)
{
    bool *missing = calloc(split->count, sizeof *missing);
    enum rp_status status = RP_OK;
    size_t least, greatest;
    if (!missing)
        return rp_fail(err, RP_ERR_MEMORY, first->path, -1, "no memory for %zu shards",
                       split->count);
    for (size_t i = 1; i < split->count && status == RP_OK &&
                       !layers_of(shard_at(first, i - 1), &least, &greatest);
         i++)
        status = open_other(first, split, i, err);
    for (size_t layer = layers->first; layer <= layers->last && status == RP_OK; layer++)
        status = open_layer(first, split, layer, missing, err);
    free(missing);
    return status == RP_OK && !is_in_order(first) ? open_all(first, split, err) : status;
}

bool rp_gguf_is_partial(const struct rp_gguf *gguf)
{
    for (size_t i = 0; i < gguf->n_others; i++)
        if (!gguf->others[i])
            return true;
    return false;
}

static enum rp_status check_total(const struct rp_gguf *first, const struct split *split,
                                  struct rp_error *err)
{
    if (split->n_tensors < 0 || (uint64_t)split->n_tensors == first->n_tensors ||
        rp_gguf_is_partial(first))
        return RP_OK;
    return rp_fail(err, RP_ERR_MISMATCH, first->path, -1,
                   "the %zu shards hold %zu tensors, split.tensors.count says %lld", split->count,
                   first->n_tensors, (long long)split->n_tensors);
}

/* The first shard where gguf, which is closed after an error, is another one; that is kept among the others. */
static enum rp_status begin_with_first(struct rp_gguf **gguf, const struct split *split,
                                       struct rp_error *err)
{
    struct rp_gguf *opened = *gguf;
    enum rp_status status = RP_OK;
    if (split->index > 0) {
        *gguf = NULL;
        status = open_shard(opened->path, 0, split->count, gguf, err);
        if (status == RP_OK)
            status = check_agreement(*gguf, split, *gguf, 0, err);
    }
    if (status == RP_OK) {
        (*gguf)->others = calloc(split->count, sizeof(struct rp_gguf *));
        if (!(*gguf)->others)
            status = rp_fail(err, RP_ERR_MEMORY, (*gguf)->path, -1, "no memory for %zu shards",
                             split->count);
    }
    if (status == RP_OK)
        (*gguf)->n_others = split->count - 1;
    if (split->index > 0 && status == RP_OK)
        (*gguf)->others[split->index - 1] = opened;
    else if (split->index > 0)
        rp_gguf_close(opened);
    return status;
}

/* layers: NULL for all. */
static enum rp_status open_model(const char *path, const struct layers *layers,
                                 struct rp_gguf **out, struct rp_error *err)
{
    struct rp_gguf *gguf = NULL;
    struct split split;
    enum rp_status status = rp_gguf_open_file(path, &gguf, err);
    if (status == RP_OK)
        status = read_split(gguf, &split, err);
    if (status != RP_OK || split.count == 1)
        goto done;
    status = check_name(gguf, &split, err);
    if (status == RP_OK)
        status = begin_with_first(&gguf, &split, err);
    if (status == RP_OK)
        status = layers ? open_layers(gguf, &split, layers, err) : open_all(gguf, &split, err);
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

enum rp_status rp_gguf_open(const char *path, struct rp_gguf **out, struct rp_error *err)
{
    return open_model(path, NULL, out, err);
}

enum rp_status rp_gguf_open_layers(const char *path, size_t first, size_t last,
                                   struct rp_gguf **out, struct rp_error *err)
{
    const struct layers layers = {first, last};
    return open_model(path, &layers, out, err);
}

size_t rp_gguf_n_shards(const struct rp_gguf *gguf)
{
    return gguf->n_others + 1;
}

const char *rp_gguf_tensor_path(const struct rp_gguf *gguf, const struct rp_gguf_tensor *tensor)
{
    for (size_t i = 0; i < gguf->n_others; i++) {
        const struct rp_gguf *shard = gguf->others[i];
        if (!shard)
            continue;
        const uintptr_t start = (uintptr_t)shard->bytes, at = (uintptr_t)tensor->data;
        if (at >= start && at - start < shard->size)
            return shard->path;
    }
    return gguf->path;
}
