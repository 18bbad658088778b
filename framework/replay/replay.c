/* Opens a replay: do model and dump belong together, and where does the sequence begin?
 * One layer's replay is in layer.c, what stands outside the layers in outside.c. */
#include "refparity/replay.h"

#include <stdlib.h>
#include <string.h>

#include "replay/session.h"

static enum rp_status check_layers(const struct rp_replay *replay, struct rp_error *err)
{
    const char *path = rp_tensor_set_path(replay->dump);
    const int n_layers = (int)rp_model_config(replay->model)->n_layers;
    const int declared = rp_tensor_set_n_layers(replay->dump);
    const int seen = rp_tensor_set_n_layers_seen(replay->dump);
    if (declared >= 0 && declared != n_layers)
        return rp_fail(err, RP_ERR_MISMATCH, path, -1,
                       "the dump says that it has %d layers, the model has %d", declared, n_layers);
    if (seen > n_layers)
        return rp_fail(err, RP_ERR_MISMATCH, path, -1, "the dump has h%d, the model %d layers",
                       seen - 1, n_layers);
    return RP_OK;
}

/* Every slot's width, and that there is one at all. */
static enum rp_status check_widths(const struct rp_replay *replay, struct rp_error *err)
{
    const struct rp_model_config *config = rp_model_config(replay->model);
    const char *path = rp_tensor_set_path(replay->dump);
    size_t n_known = 0;
    for (size_t i = 0; i < rp_tensor_set_n_slots(replay->dump); i++) {
        const struct rp_slot_info *info = rp_tensor_set_slot(replay->dump, i);
        int layer;
        const enum rp_slot_part part = rp_slot_parse(info->name, &layer);
        const size_t width = part == RP_PART_LOGITS ? config->vocab_size : config->hidden_size;
        if (part == RP_PART_OTHER)
            continue;
        n_known++;
        if (info->error.code == RP_OK && info->dim != width)
            return rp_fail(err, RP_ERR_MISMATCH, path, -1,
                           "%s is %zu wide in the dump, %zu in the model", info->name, info->dim,
                           width);
        if (layer >= 0 && (size_t)layer >= config->n_layers)
            return rp_fail(err, RP_ERR_MISMATCH, path, -1, "the dump has %s, the model %zu layers",
                           info->name, config->n_layers);
    }
    if (n_known == 0)
        return rp_fail(err, RP_ERR_MISSING, path, -1, "the dump has no slot that a layer computes");
    return RP_OK;
}

/* Tokens are numbered from 0, or from the dump's first position where that has all of them: some
 * engines number a prompt from elsewhere. Without tokens only position 0 is known for a beginning. */
static int64_t find_first_position(const struct rp_replay *replay)
{
    int64_t low = INT64_MAX, high = -1;
    for (size_t i = 0; i < rp_tensor_set_n_slots(replay->dump); i++) {
        const struct rp_slot_info *info = rp_tensor_set_slot(replay->dump, i);
        if (info->error.code != RP_OK || info->n_positions == 0)
            continue;
        low = info->positions[0] < low ? info->positions[0] : low;
        high = info->positions[info->n_positions - 1] > high
                   ? info->positions[info->n_positions - 1]
                   : high;
    }
    if (low == 0 || (replay->tokens && high < (int64_t)replay->n_tokens))
        return 0;
    if (replay->tokens && high >= 0 && high - low + 1 == (int64_t)replay->n_tokens)
        return low;
    return -1;
}

enum rp_status rp_replay_open(const struct rp_model *model, struct rp_tensor_set *dump,
                              const struct rp_replay_options *options, struct rp_replay **out,
                              struct rp_error *err)
{
    struct rp_replay *replay = calloc(1, sizeof *replay);
    if (!replay)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for a replay");
    *replay = (struct rp_replay){.model = model,
                                 .dump = dump,
                                 .options = *options,
                                 .tokens = options->tokens,
                                 .n_tokens = options->n_tokens,
                                 .loaded = SIZE_MAX};
    enum rp_status status = RP_OK;
    if (!replay->tokens)
        status = rp_tensor_set_tokens(dump, &replay->tokens, &replay->n_tokens, err);
    if (status == RP_OK)
        status = check_layers(replay, err);
    if (status == RP_OK)
        status = check_widths(replay, err);
    if (status != RP_OK) {
        rp_replay_close(replay);
        return status;
    }
    replay->first_position = find_first_position(replay);
    *out = replay;
    return RP_OK;
}

void rp_replay_close(struct rp_replay *replay)
{
    if (!replay)
        return;
    rp_layer_free(&replay->weights);
    free(replay->flips);
    free(replay);
}

const struct rp_model *rp_replay_model(const struct rp_replay *replay)
{
    return replay->model;
}

const struct rp_replay_options *rp_replay_options(const struct rp_replay *replay)
{
    return &replay->options;
}

struct rp_tensor_set *rp_replay_dump(const struct rp_replay *replay)
{
    return replay->dump;
}

enum rp_status rp_replay_weights(struct rp_replay *replay, size_t layer,
                                 const struct rp_layer **weights, struct rp_error *err)
{
    *weights = &replay->weights;
    if (replay->loaded == layer)
        return RP_OK;
    rp_layer_free(&replay->weights);
    replay->loaded = SIZE_MAX;
    const enum rp_status status = rp_layer_load(replay->model, layer, &replay->weights, err);
    if (status == RP_OK)
        replay->loaded = layer;
    return status;
}

enum rp_status rp_replay_copy_rows(const struct rp_replay_slot *slot, const struct rp_dumped *from,
                                   size_t n, const int64_t *positions, const float *rows,
                                   size_t dim, float **computed, float **dumped,
                                   struct rp_error *err)
{
    const size_t n_values = slot->n_positions * dim;
    size_t row = 0;
    *computed = calloc(n_values + 1, sizeof **computed);
    *dumped = calloc(n_values + 1, sizeof **dumped);
    bool is_complete = *computed && *dumped;
    for (size_t i = 0; i < slot->n_positions && is_complete; i++) {
        const void *engine = rp_dumped_row(from, slot->positions[i]);
        while (row < n && positions[row] < slot->positions[i])
            row++;
        is_complete = engine && row < n && positions[row] == slot->positions[i];
        if (!is_complete)
            break;
        memcpy(*computed + i * dim, rows + row * dim, dim * sizeof **computed);
        memcpy(*dumped + i * dim, engine, dim * sizeof **dumped);
    }
    if (is_complete)
        return RP_OK;
    const bool has_memory = *computed && *dumped;
    free(*computed);
    free(*dumped);
    *computed = *dumped = NULL;
    if (!has_memory)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows", slot->n_positions);
    return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "%s has not the positions that are asked for",
                   slot->slot);
}
