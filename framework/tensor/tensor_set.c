/* Opens a tensor set of any layout and answers for it. See refparity/tensor_set.h; the layouts
 * themselves are in npz_set.c, safetensors_set.c, npy_folder.c and bin_folder.c. */
#include "tensor/set.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tensor/chosen_order.h"
#include "tensor/other_formats.h"
#include "tensor/set_names.h"

/* ---- open and close ---- */

static int ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), n_end = strlen(end);
    return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

static enum rp_status guess_folder_layout(const char *path, enum rp_layout *layout,
                                          struct rp_error *err)
{
    char single[RP_FILE_NAME_SIZE] = ""; /* a file that has to be named itself */
    bool has_bin = false, is_checkpoint = false;
    DIR *folder = opendir(path);
    if (!folder)
        return rp_fail(err, RP_ERR_IO, path, -1, "cannot list: %s", strerror(errno));
    *layout = RP_LAYOUT_BIN;
    const struct dirent *entry;
    while ((entry = readdir(folder)) != NULL) {
        if (strcmp(entry->d_name, "dump.json") == 0 || ends_with(entry->d_name, ".npy"))
            *layout = RP_LAYOUT_NPY;
        has_bin |= ends_with(entry->d_name, ".bin");
        is_checkpoint |= strcmp(entry->d_name, "config.json") == 0;
        if (ends_with(entry->d_name, ".npz") || ends_with(entry->d_name, ".safetensors") ||
            ends_with(entry->d_name, ".pt"))
            snprintf(single, sizeof single, "%s", entry->d_name);
    }
    closedir(folder);
    if (*layout == RP_LAYOUT_BIN && !has_bin && !is_checkpoint && single[0])
        return rp_fail(err, RP_ERR_MISSING, path, -1,
                       "no slot is in the folder itself: it holds %s; name that file", single);
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
    if (*layout == RP_LAYOUT_AUTO && S_ISDIR(info.st_mode))
        return guess_folder_layout(path, layout, err);
    if (*layout == RP_LAYOUT_AUTO)
        return rp_file_layout(path, layout, err);
    if (*layout == RP_LAYOUT_NPZ || *layout == RP_LAYOUT_SAFETENSORS || S_ISDIR(info.st_mode))
        return RP_OK;
    return rp_fail(err, RP_ERR_UNSUPPORTED, path, -1, "expected a folder, found a file");
}

/* What comes after the last layer's attention: an engine may compute it of the last position alone. */
static bool may_be_last_alone(const struct rp_tensor_set *set, const char *name)
{
    int layer;
    const enum rp_slot_part part = rp_slot_parse(name, &layer);
    return part == RP_PART_LOGITS || part == RP_PART_POST_NORM ||
           (part == RP_PART_OUTPUT && layer == set->n_layers_seen - 1);
}

static enum rp_status place_last(struct rp_tensor_set *set, struct rp_slot *slot, int64_t position,
                                 struct rp_error *err)
{
    slot->own_positions = malloc(sizeof *slot->own_positions);
    if (!slot->own_positions)
        return rp_fail(err, RP_ERR_MEMORY, set->path, -1, "cannot allocate a position");
    slot->own_positions[0] = position;
    return rp_set_note(set, err, "%s has one row: it is read as position %lld, the last",
                       slot->info.name, (long long)position);
}

/* A slot that is as long as no position list cannot be placed: taking its one row of logits for
 * position 0 would compare it with another token's. */
static enum rp_status check_row_counts(struct rp_tensor_set *set, struct rp_error *err)
{
    size_t most = 0;
    for (size_t i = 0; i < set->n_slots; i++)
        if (!set->slots[i].info.error.code && set->slots[i].info.n_positions > most)
            most = set->slots[i].info.n_positions;
    const size_t expected = set->has_positions ? set->n_positions : most;
    for (size_t i = 0; i < set->n_slots && (set->has_positions || set->is_foreign); i++) {
        struct rp_slot_info *info = &set->slots[i].info;
        if (info->error.code || info->n_positions == expected)
            continue;
        if (info->n_positions == 1 && !set->manifest && may_be_last_alone(set, info->name)) {
            const enum rp_status code = place_last(
                set, &set->slots[i],
                set->has_positions ? set->positions[expected - 1] : (int64_t)expected - 1, err);
            if (code)
                return code;
        } else if (set->has_positions)
            rp_fail(&info->error, RP_ERR_MISMATCH, set->path, -1,
                    "%s: expected a row for each of the %zu positions, found %zu", info->name,
                    set->n_positions, info->n_positions);
        else
            rp_fail(&info->error, RP_ERR_MISMATCH, set->path, -1,
                    "%s has %zu rows where other slots have %zu, and nothing says at which "
                    "positions these are",
                    info->name, info->n_positions, most);
    }
    return RP_OK;
}

/* Where nothing says of which position the one row of each slot is. */
static enum rp_status find_single_position(struct rp_tensor_set *set, struct rp_error *err)
{
    const int64_t *ids;
    size_t n_ids;
    if (set->options.single_position >= 0) {
        set->positions[0] = set->options.single_position;
        return RP_OK;
    }
    if (rp_tensor_set_tokens(set, &ids, &n_ids, NULL) == RP_OK && n_ids > 1)
        return rp_fail(
            err, RP_ERR_MISMATCH, set->path, -1,
            "each slot has one row, and there are %zu token ids: of which position is it? "
            "Say it with --pos: --pos 0, or --pos %zu for the last",
            n_ids, n_ids - 1);
    return RP_OK;
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
        const enum rp_status code =
            most == 1 && set->is_foreign ? find_single_position(set, err) : RP_OK;
        if (code)
            return code;
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

static enum rp_status read_list(struct rp_tensor_set *set, struct rp_error *err)
{
    switch (set->layout) {
    case RP_LAYOUT_NPY: return rp_npy_folder_open(set, err);
    case RP_LAYOUT_BIN: return rp_bin_folder_open(set, err);
    case RP_LAYOUT_SAFETENSORS: return rp_safetensors_set_open(set, err);
    case RP_LAYOUT_AUTO:
    case RP_LAYOUT_NPZ: break;
    }
    return rp_npz_open(set, err);
}

static enum rp_status open_layout(struct rp_tensor_set *set, struct rp_error *err)
{
    enum rp_status code = read_list(set, err);
    if (!code && set->n_slots == 0 && !set->manifest)
        code = rp_fail(err, RP_ERR_MISSING, set->path, -1, "no slot is in it%s",
                       set->layout == RP_LAYOUT_NPZ || set->layout == RP_LAYOUT_SAFETENSORS
                           ? ""
                           : ": expected a dump, NAME.npy as refparity/dump.h "
                             "writes them, or NAME.bin");
    if (!code)
        code = rp_set_names_apply(set, err);
    if (!code) {
        rp_set_sort(set);
        count_layers(set);
        code = check_row_counts(set, err);
    }
    if (!code)
        code = rp_set_note_types(set, err);
    if (!code)
        code = set_positions(set, err);
    if (!code)
        check_experts(set);
    return code;
}

enum rp_status rp_tensor_set_open_with(const char *path,
                                       const struct rp_tensor_set_options *options,
                                       struct rp_tensor_set **set, struct rp_error *err)
{
    enum rp_layout layout = options->layout;
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
    opened->options = *options;
    opened->n_layers = -1;
    opened->complete = 1;
    code = open_layout(opened, err);
    if (code)
        rp_tensor_set_close(opened);
    else
        *set = opened;
    return code;
}

enum rp_status rp_tensor_set_open(const char *path, enum rp_layout layout, int64_t single_position,
                                  struct rp_tensor_set **set, struct rp_error *err)
{
    const struct rp_tensor_set_options options = {
        .layout = layout, .single_position = single_position, .n_rows = 1};
    *set = NULL;
    if (layout == RP_LAYOUT_BIN && single_position < 0)
        return rp_fail(err, RP_ERR_ARGUMENT, path, -1,
                       "expected a position of 0 or more, found %lld", (long long)single_position);
    return rp_tensor_set_open_with(path, &options, set, err);
}

static void free_list(char **list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(list[i]);
    free(list);
}

void rp_tensor_set_close(struct rp_tensor_set *set)
{
    if (!set)
        return;
    for (size_t i = 0; i < set->n_slots; i++) {
        free(set->slots[i].own_positions);
        if (!set->slots[i].is_borrowed)
            rp_file_unmap(set->slots[i].map, set->slots[i].map_size);
    }
    free(set->slots);
    free(set->positions);
    free(set->tokens);
    free(set->manifest);
    free(set->path);
    free(set->stack_owned);
    for (size_t i = 0; i < set->n_orphans; i++)
        rp_file_unmap(set->orphans[i].map, set->orphans[i].size);
    free(set->orphans);
    free_list(set->notes, set->n_notes);
    free_list(set->others, set->n_others);
    rp_safetensors_close(set->safetensors);
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
    else if (!set->tokens && set->layout == RP_LAYOUT_SAFETENSORS)
        code = rp_safetensors_set_tokens(cache, err);
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

size_t rp_tensor_set_n_notes(const struct rp_tensor_set *set)
{
    return set->n_notes;
}

const char *rp_tensor_set_note(const struct rp_tensor_set *set, size_t index)
{
    return index < set->n_notes ? set->notes[index] : NULL;
}

size_t rp_tensor_set_n_others(const struct rp_tensor_set *set)
{
    return set->n_others;
}

const char *rp_tensor_set_other(const struct rp_tensor_set *set, size_t index)
{
    return index < set->n_others ? set->others[index] : NULL;
}

bool rp_tensor_set_lacks_last_layer(const struct rp_tensor_set *set)
{
    return set->is_hidden_states;
}

enum rp_status rp_set_load_slot(struct rp_tensor_set *set, const struct rp_slot *slot,
                                struct rp_tensor *tensor, struct rp_error *err)
{
    enum rp_status code = RP_OK;
    memset(tensor, 0, sizeof *tensor);
    if (slot->info.error.code) {
        if (err)
            *err = slot->info.error;
        return slot->info.error.code;
    }
    if (set->layout == RP_LAYOUT_NPZ)
        code = rp_npz_load(set, slot, tensor, err);
    else if (set->layout == RP_LAYOUT_BIN)
        code = rp_bin_folder_load(set, slot, tensor, err);
    else if (set->layout == RP_LAYOUT_SAFETENSORS)
        code = rp_rows_load(slot, slot->tensor->data, set->path, tensor, err);
    else
        code = rp_rows_load(slot, (const uint8_t *)slot->map + slot->data_offset, set->path, tensor,
                            err);
    if (code)
        return code;
    tensor->n_positions = slot->info.n_positions;
    tensor->dim = slot->info.dim;
    tensor->positions = slot->info.positions;
    code = rp_order_turn(&slot->order, slot->info.name, tensor, err);
    if (code)
        rp_tensor_release(tensor);
    return code;
}

/* With chosen experts as they are dumped. */
static enum rp_status load(struct rp_tensor_set *set, const char *slot, struct rp_tensor *tensor,
                           struct rp_error *err)
{
    const struct rp_slot *found = rp_set_find(set, slot);
    if (found)
        return rp_set_load_slot(set, found, tensor, err);
    memset(tensor, 0, sizeof *tensor);
    return rp_fail(err, RP_ERR_MISSING, set->path, -1, "there is no slot %s", slot);
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
