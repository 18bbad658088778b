/* Opens a tensor set of any layout and answers for it. See refparity/tensor_set.h; the layouts
 * themselves are in npz_set.c, npy_folder.c and bin_folder.c. */
#include "tensor/set.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/json.h"
#include "tensor/chosen_order.h"
#include "tensor/npy.h"

/* ---- what the readers share ---- */

enum rp_status rp_set_add_slot(struct rp_tensor_set *set, const char *name, size_t n_name,
                               struct rp_slot **slot, struct rp_error *err)
{
    if (set->n_slots == RP_SET_MAX_SLOTS)
        return rp_fail(err, RP_ERR_UNSUPPORTED, set->path, -1, "expected at most %d slots",
                       RP_SET_MAX_SLOTS);
    if (set->n_slots == set->max_slots) {
        size_t more = set->max_slots ? 2 * set->max_slots : 64;
        struct rp_slot *grown = realloc(set->slots, more * sizeof *grown);
        if (!grown)
            return rp_fail(err, RP_ERR_MEMORY, set->path, -1, "cannot allocate %zu slots", more);
        set->slots = grown;
        set->max_slots = more;
    }
    struct rp_slot *added = &set->slots[set->n_slots++];
    memset(added, 0, sizeof *added);
    memcpy(added->info.name, name, n_name);
    added->info.error.offset = -1;
    *slot = added;
    return RP_OK;
}

static int by_slot_order(const void *a, const void *b)
{
    const struct rp_slot *x = a, *y = b;
    return rp_slot_order(x->info.name, y->info.name);
}

void rp_set_sort(struct rp_tensor_set *set)
{
    if (set->n_slots > 0)
        qsort(set->slots, set->n_slots, sizeof *set->slots, by_slot_order);
}

struct rp_slot *rp_set_find(const struct rp_tensor_set *set, const char *name)
{
    size_t low = 0, high = set->n_slots;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = rp_slot_order(name, set->slots[middle].info.name);
        if (order == 0)
            return &set->slots[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

enum rp_status rp_slot_from_npy(struct rp_slot *slot, const uint8_t *bytes, size_t n,
                                uint64_t total, const char *where, struct rp_error *err)
{
    struct rp_npy npy;
    size_t n_rows, dim;
    enum rp_status code = rp_npy_parse(bytes, n, where, &npy, err);
    if (!code)
        code = rp_npy_check(&npy, RP_NPY_FLOAT32, total, where, err);
    if (!code)
        code = rp_npy_rows(&npy, where, &n_rows, &dim, err);
    if (code)
        return code;
    if (n_rows > RP_SET_MAX_POSITIONS)
        return rp_fail(err, RP_ERR_UNSUPPORTED, where, 0,
                       "expected at most %zu positions, found %zu", RP_SET_MAX_POSITIONS, n_rows);
    slot->info.n_positions = n_rows;
    slot->info.dim = dim;
    slot->data_offset = npy.data_offset;
    return RP_OK;
}

enum rp_status rp_set_read_int64(const uint8_t *bytes, size_t size, const char *where, size_t max_n,
                                 int64_t **values, size_t *n, struct rp_error *err)
{
    struct rp_npy npy;
    char shape[128];
    enum rp_status code = rp_npy_parse(bytes, size, where, &npy, err);
    if (!code)
        code = rp_npy_check(&npy, RP_NPY_INT64, size, where, err);
    if (code)
        return code;
    /* A batch of one, as tokenizers return it, is as good as a vector. */
    int is_vector = npy.n_dims == 1 || (npy.n_dims == 2 && npy.dims[0] == 1);
    if (!is_vector || npy.n_elements > max_n)
        return rp_fail(err, RP_ERR_UNSUPPORTED, where, 0,
                       "expected shape (n,) with at most %zu elements, found %s", max_n,
                       rp_npy_shape_text(&npy, shape, sizeof shape));
    *values = malloc(((size_t)npy.n_elements + 1) * sizeof **values);
    if (!*values)
        return rp_fail(err, RP_ERR_MEMORY, where, -1, "cannot allocate %llu numbers",
                       (unsigned long long)npy.n_elements);
    rp_npy_int64(&npy, bytes, *values);
    *n = (size_t)npy.n_elements;
    return RP_OK;
}

static enum rp_status read_manifest(struct rp_tensor_set *set, const struct rp_json *doc,
                                    const char *format, struct rp_error *err)
{
    const cJSON *root = rp_json_root(doc);
    long long version, n_layers;
    if (!cJSON_IsObject(root))
        return rp_json_fail(doc, root, err, RP_ERR_FORMAT, "expected an object");
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(root, "format");
    if (!cJSON_IsString(value) || strcmp(value->valuestring, format) != 0)
        return rp_json_fail(doc, value ? value : root, err, RP_ERR_FORMAT,
                            "expected \"format\": \"%s\"", format);
    value = cJSON_GetObjectItemCaseSensitive(root, "version");
    if (!value || !rp_json_int(value, 0, 1000000, &version))
        return rp_json_fail(doc, value ? value : root, err, RP_ERR_FORMAT,
                            "expected \"version\": 1");
    if (version != 1)
        return rp_json_fail(doc, value, err, RP_ERR_UNSUPPORTED,
                            "expected \"version\": 1, found %lld", version);
    value = cJSON_GetObjectItemCaseSensitive(root, "n_layers");
    if (value && !rp_json_int(value, 0, 1000000, &n_layers))
        return rp_json_fail(doc, value, err, RP_ERR_FORMAT,
                            "n_layers: expected a number of layers from 0 to 1000000");
    if (value)
        set->n_layers = (int)n_layers;
    value = cJSON_GetObjectItemCaseSensitive(root, "model");
    if (cJSON_IsString(value))
        snprintf(set->model, sizeof set->model, "%s", value->valuestring);
    return RP_OK;
}

enum rp_status rp_set_manifest(struct rp_tensor_set *set, const char *text, size_t n,
                               const char *where, const char *format, struct rp_json **json,
                               struct rp_error *err)
{
    struct rp_json *doc = NULL;
    enum rp_status code = rp_json_parse(text, n, where, &doc, err);
    if (code)
        return code;
    code = read_manifest(set, doc, format, err);
    if (code)
        goto done;
    set->manifest = malloc(n + 1);
    if (!set->manifest) {
        code = rp_fail(err, RP_ERR_MEMORY, where, -1, "cannot allocate %zu bytes", n);
        goto done;
    }
    memcpy(set->manifest, text, n);
    set->n_manifest = n;
    if (json) {
        *json = doc;
        doc = NULL;
    }
done:
    rp_json_free(doc);
    return code;
}

/* ---- open and close ---- */

static int ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), n_end = strlen(end);
    return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

static enum rp_status guess_folder_layout(const char *path, enum rp_layout *layout,
                                          struct rp_error *err)
{
    DIR *folder = opendir(path);
    if (!folder)
        return rp_fail(err, RP_ERR_IO, path, -1, "cannot list: %s", strerror(errno));
    *layout = RP_LAYOUT_BIN;
    const struct dirent *entry;
    while ((entry = readdir(folder)) != NULL)
        if (strcmp(entry->d_name, "dump.json") == 0 || ends_with(entry->d_name, ".npy"))
            *layout = RP_LAYOUT_NPY;
    closedir(folder);
    return RP_OK;
}

static enum rp_status find_layout(const char *path, enum rp_layout *layout, struct rp_error *err)
{
    struct stat info;
    if (stat(path, &info) != 0) {
        int number = errno;
        return rp_fail(err, number == ENOENT || number == ENOTDIR ? RP_ERR_MISSING : RP_ERR_IO,
                       path, -1, "cannot open: %s", strerror(number));
    }
    if (*layout == RP_LAYOUT_AUTO) {
        *layout = RP_LAYOUT_NPZ;
        return S_ISDIR(info.st_mode) ? guess_folder_layout(path, layout, err) : RP_OK;
    }
    if (*layout == RP_LAYOUT_NPZ || S_ISDIR(info.st_mode))
        return RP_OK;
    return rp_fail(err, RP_ERR_UNSUPPORTED, path, -1, "expected a folder, found a file");
}

/* A slot that is as long as no position list cannot be placed: taking its one row of logits for
 * position 0 would compare it with another token's. */
static void check_row_counts(struct rp_tensor_set *set)
{
    size_t most = 0;
    for (size_t i = 0; i < set->n_slots; i++)
        if (!set->slots[i].info.error.code && set->slots[i].info.n_positions > most)
            most = set->slots[i].info.n_positions;
    for (size_t i = 0; i < set->n_slots; i++) {
        struct rp_slot_info *info = &set->slots[i].info;
        if (info->error.code)
            continue;
        if (set->has_positions && info->n_positions != set->n_positions)
            rp_fail(&info->error, RP_ERR_MISMATCH, set->path, -1,
                    "%s: expected a row for each of the %zu positions, found %zu", info->name,
                    set->n_positions, info->n_positions);
        else if (set->is_foreign && info->n_positions != most)
            rp_fail(&info->error, RP_ERR_MISMATCH, set->path, -1,
                    "%s has %zu rows where other slots have %zu, and nothing says at which "
                    "positions these are",
                    info->name, info->n_positions, most);
    }
}

/* Gives positions 0, 1, 2 ... to the slots that have none of their own. */
static enum rp_status set_positions(struct rp_tensor_set *set, struct rp_error *err)
{
    size_t most = 0;
    for (size_t i = 0; i < set->n_slots; i++)
        if (!set->slots[i].own_positions && set->slots[i].info.n_positions > most)
            most = set->slots[i].info.n_positions;
    if (!set->has_positions && most > 0) {
        set->positions = malloc(most * sizeof *set->positions);
        if (!set->positions)
            return rp_fail(err, RP_ERR_MEMORY, set->path, -1, "cannot allocate %zu positions",
                           most);
        for (size_t i = 0; i < most; i++)
            set->positions[i] = (int64_t)i;
        set->n_positions = most;
    }
    for (size_t i = 0; i < set->n_slots; i++) {
        struct rp_slot *slot = &set->slots[i];
        if (slot->info.error.code)
            slot->info.n_positions = slot->info.dim = 0;
        else
            slot->info.positions = slot->own_positions ? slot->own_positions : set->positions;
    }
    return RP_OK;
}

/* A layer's experts have to be known wherever something of them is dumped. */
static void check_experts(struct rp_tensor_set *set)
{
    char name[RP_SLOT_NAME_SIZE];
    int layer;
    for (size_t i = 0; i < set->n_slots; i++) {
        const struct rp_slot_info *info = &set->slots[i].info;
        if (info->error.code || !rp_part_is_of_experts(rp_slot_parse(info->name, &layer)))
            continue;
        struct rp_slot *experts = rp_set_find(set, rp_slot_name(RP_PART_EXPERTS, layer, name));
        if (!experts || experts->info.error.code ||
            rp_chosen_check(&experts->info, info, set->path, &experts->info.error) == RP_OK)
            continue;
        experts->info.n_positions = experts->info.dim = 0;
    }
}

static void count_layers(struct rp_tensor_set *set)
{
    for (size_t i = 0; i < set->n_slots; i++) {
        int layer;
        if (rp_slot_parse(set->slots[i].info.name, &layer) == RP_PART_OUTPUT &&
            layer >= set->n_layers_seen)
            set->n_layers_seen = layer + 1;
    }
}

enum rp_status rp_tensor_set_open(const char *path, enum rp_layout layout, int64_t single_position,
                                  struct rp_tensor_set **set, struct rp_error *err)
{
    *set = NULL;
    enum rp_status code = find_layout(path, &layout, err);
    if (code)
        return code;
    struct rp_tensor_set *opened = calloc(1, sizeof *opened);
    char *copy = strdup(path);
    if (!opened || !copy) {
        free(opened);
        free(copy);
        return rp_fail(err, RP_ERR_MEMORY, path, -1, "cannot allocate a tensor set");
    }
    opened->path = copy;
    opened->layout = layout;
    opened->n_layers = -1;
    opened->complete = 1;
    switch (layout) {
    case RP_LAYOUT_NPY: code = rp_npy_folder_open(opened, err); break;
    case RP_LAYOUT_BIN: code = rp_bin_folder_open(opened, single_position, err); break;
    case RP_LAYOUT_AUTO:
    case RP_LAYOUT_NPZ: code = rp_npz_open(opened, err); break;
    }
    if (!code && opened->n_slots == 0 && !opened->manifest)
        code = rp_fail(err, RP_ERR_MISSING, path, -1, "no slot is in it%s",
                       layout == RP_LAYOUT_NPZ ? ""
                                               : ": expected a dump, NAME.npy as refparity/dump.h "
                                                 "writes them, or NAME.bin");
    if (!code) {
        rp_set_sort(opened);
        check_row_counts(opened);
        code = set_positions(opened, err);
    }
    if (!code)
        check_experts(opened);
    if (code) {
        rp_tensor_set_close(opened);
        return code;
    }
    count_layers(opened);
    *set = opened;
    return RP_OK;
}

void rp_tensor_set_close(struct rp_tensor_set *set)
{
    if (!set)
        return;
    for (size_t i = 0; i < set->n_slots; i++) {
        free(set->slots[i].own_positions);
        rp_file_unmap(set->slots[i].map, set->slots[i].map_size);
    }
    free(set->slots);
    free(set->positions);
    free(set->tokens);
    free(set->manifest);
    free(set->path);
    rp_zip_close(&set->zip);
    rp_file_unmap(set->map, set->map_size);
    free(set);
}

/* ---- answers ---- */

const char *rp_tensor_set_path(const struct rp_tensor_set *set)
{
    return set->path;
}

enum rp_layout rp_tensor_set_layout(const struct rp_tensor_set *set)
{
    return set->layout;
}

size_t rp_tensor_set_n_slots(const struct rp_tensor_set *set)
{
    return set->n_slots;
}

const struct rp_slot_info *rp_tensor_set_slot(const struct rp_tensor_set *set, size_t index)
{
    return index < set->n_slots ? &set->slots[index].info : NULL;
}

const struct rp_slot_info *rp_tensor_set_find(const struct rp_tensor_set *set, const char *slot)
{
    const struct rp_slot *found = rp_set_find(set, slot);
    return found ? &found->info : NULL;
}

enum rp_status rp_tensor_set_tokens(const struct rp_tensor_set *set, const int64_t **ids, size_t *n,
                                    struct rp_error *err)
{
    /* Reading them later changes nothing that a caller can see. */
    struct rp_tensor_set *cache = (struct rp_tensor_set *)(uintptr_t)set;
    enum rp_status code = RP_OK;
    *ids = NULL;
    *n = 0;
    if (!set->tokens && set->layout == RP_LAYOUT_NPZ)
        code = rp_npz_tokens(cache, err);
    else if (!set->tokens && set->layout == RP_LAYOUT_NPY)
        code = rp_npy_folder_tokens(cache, err);
    else if (!set->tokens)
        code = rp_bin_folder_tokens(cache, err);
    if (code)
        return code;
    *ids = set->tokens;
    *n = set->n_tokens;
    return RP_OK;
}

const char *rp_tensor_set_manifest(const struct rp_tensor_set *set, size_t *length)
{
    *length = set->n_manifest;
    return set->manifest;
}

const char *rp_tensor_set_model(const struct rp_tensor_set *set)
{
    return set->model;
}

int rp_tensor_set_n_layers(const struct rp_tensor_set *set)
{
    return set->n_layers;
}

int rp_tensor_set_n_layers_seen(const struct rp_tensor_set *set)
{
    return set->n_layers_seen;
}

int rp_tensor_set_complete(const struct rp_tensor_set *set)
{
    return set->complete;
}

/* With chosen experts as they are dumped. */
static enum rp_status load(struct rp_tensor_set *set, const char *slot, struct rp_tensor *tensor,
                           struct rp_error *err)
{
    enum rp_status code = RP_OK;
    memset(tensor, 0, sizeof *tensor);
    const struct rp_slot *found = rp_set_find(set, slot);
    if (!found)
        return rp_fail(err, RP_ERR_MISSING, set->path, -1, "there is no slot %s", slot);
    if (found->info.error.code) {
        if (err)
            *err = found->info.error;
        return found->info.error.code;
    }
    if (set->layout == RP_LAYOUT_NPZ)
        code = rp_npz_load(set, found, tensor, err);
    else if (set->layout == RP_LAYOUT_BIN)
        code = rp_bin_folder_load(set, found, tensor, err);
    else
        tensor->data = (const uint8_t *)found->map + found->data_offset;
    if (code)
        return code;
    tensor->n_positions = found->info.n_positions;
    tensor->dim = found->info.dim;
    tensor->positions = found->info.positions;
    code = rp_order_turn(&found->order, slot, tensor, err);
    if (code)
        rp_tensor_release(tensor);
    return code;
}

/* By number: see tensor/chosen_order.h. */
static enum rp_status order_experts(struct rp_tensor_set *set, int layer, struct rp_tensor *tensor,
                                    struct rp_error *err)
{
    struct rp_tensor experts;
    char name[RP_SLOT_NAME_SIZE];
    rp_slot_name(RP_PART_EXPERTS, layer, name);
    if (!rp_set_find(set, name))
        return RP_OK;
    enum rp_status status = load(set, name, &experts, err);
    if (status != RP_OK) /* in which order the pieces are is not known */
        return status;
    status = rp_chosen_order(&experts, tensor, err);
    rp_tensor_release(&experts);
    return status;
}

enum rp_status rp_tensor_load(struct rp_tensor_set *set, const char *slot, struct rp_tensor *tensor,
                              struct rp_error *err)
{
    int layer;
    const enum rp_slot_part part = rp_slot_parse(slot, &layer);
    enum rp_status status = load(set, slot, tensor, err);
    if (status == RP_OK && rp_part_is_of_experts(part)) {
        status = order_experts(set, layer, tensor, err);
        if (status != RP_OK)
            rp_tensor_release(tensor);
    }
    return status;
}

const void *rp_tensor_row(const struct rp_tensor *tensor, int64_t position)
{
    size_t low = 0, high = tensor->n_positions;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (tensor->positions[middle] < position)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == tensor->n_positions || tensor->positions[low] != position)
        return NULL;
    return (const unsigned char *)tensor->data + low * tensor->dim * sizeof(float);
}

void rp_tensor_release(struct rp_tensor *tensor)
{
    free(tensor->owned);
    memset(tensor, 0, sizeof *tensor);
}
