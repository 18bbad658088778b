/* Opens a replay: do model and dump belong together, and where does the sequence begin?
 * One layer's replay is in layer.c, what stands outside the layers in outside.c. */
#include "refparity/replay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replay/dumped.h"
#include "replay/session.h"
#include "replay/state_type.h"

static enum rp_status check_layers(const struct rp_replay *replay, struct rp_error *err)
{
    const char *path = rp_tensor_set_path(replay->dump);
    const int n_layers = (int)rp_model_config(replay->model)->n_layers;
    const int declared = rp_tensor_set_n_layers(replay->dump);
    const int seen = rp_tensor_set_n_layers_seen(replay->dump);
    if (declared >= 0 && declared != n_layers)
        return rp_fail(err, RP_ERR_MISMATCH, path, -1,
                       "the dump says that it has %d layers; the model has %d", declared, n_layers);
    if (seen > n_layers)
        return rp_fail(err, RP_ERR_MISMATCH, path, -1,
                       "the dump has h%d; the model has %d layers, h0 to h%d", seen - 1, n_layers,
                       n_layers - 1);
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
        if (part == RP_PART_OTHER)
            continue;
        n_known++;
        if (layer >= 0 && (size_t)layer >= config->n_layers)
            return rp_fail(err, RP_ERR_MISMATCH, path, -1,
                           "the dump has %s; the model has %zu layers", info->name,
                           config->n_layers);
        const size_t width = rp_model_slot_width(replay->model, part, (size_t)layer);
        if (width == 0)
            return rp_fail(err, RP_ERR_MISMATCH, path, -1,
                           "the dump has %s; layer %d of the model does not compute that",
                           info->name, layer);
        if (info->error.code == RP_OK && info->dim != width)
            return rp_fail(err, RP_ERR_MISMATCH, path, -1,
                           "%s has %zu values a position in the dump; in the model it has %zu",
                           info->name, info->dim, width);
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

/* A token that the model has no embedding of: another tokenizer's, or another model's. */
static enum rp_status check_tokens(const struct rp_replay *replay, struct rp_error *err)
{
    const size_t n_vocab = rp_model_config(replay->model)->vocab_size;
    for (size_t i = 0; i < replay->n_tokens; i++) {
        if (replay->tokens[i] < 0 || (uint64_t)replay->tokens[i] >= n_vocab)
            return rp_fail(err, RP_ERR_MISMATCH, NULL, -1,
                           "token %lld at position %zu; the model's vocabulary has 0 to %zu: are "
                           "the tokens those of this model?",
                           (long long)replay->tokens[i], i, n_vocab - 1);
    }
    return RP_OK;
}

static enum rp_status check_batch(const struct rp_numerics *numerics, struct rp_error *err)
{
    if (numerics->attention != RP_ATTENTION_FLASH || numerics->kv_cache == RP_KV_CACHE_F32 ||
        numerics->batch != RP_BATCH_UNKNOWN)
        return RP_OK;
    return rp_fail(err, RP_ERR_UNSUPPORTED, NULL, -1,
                   "what flash attention sums up in over a %s cache depends on how many positions "
                   "come at once, which the mode parallel:N does not say: run it without flash "
                   "attention, or in another mode",
                   rp_kv_cache_name(numerics->kv_cache));
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
    if (status == RP_OK)
        status = check_tokens(replay, err);
    if (status == RP_OK)
        status = rp_check_state(dump, options->numerics.state, err);
    if (status == RP_OK)
        status = check_batch(&options->numerics, err);
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

bool rp_replay_source(const struct rp_replay_slot *slot, size_t index, char name[RP_SLOT_NAME_SIZE])
{
    const char *list = slot->from;
    for (; index > 0 && list; index--) {
        list = strstr(list, ", ");
        list = list ? list + 2 : NULL;
    }
    if (!list || !list[0])
        return false;
    snprintf(name, RP_SLOT_NAME_SIZE, "%.*s", (int)strcspn(list, ","), list);
    return true;
}

struct rp_numerics rp_replay_numerics(const struct rp_replay *replay)
{
    struct rp_numerics numerics = replay->options.numerics;
    if (numerics.prompt_length == 0 && replay->tokens)
        numerics.prompt_length = replay->n_tokens;
    return numerics;
}

const struct rp_ops *rp_replay_stack(const struct rp_numerics *numerics,
                                     struct rp_emulation *emulation, struct rp_overlay *overlay)
{
    const struct rp_ops *ops = rp_ops_default();
    if (!rp_numerics_are_plain(numerics)) {
        rp_emulation_open(emulation, numerics, NULL);
        ops = &emulation->overlay.ops;
    }
    if (overlay) {
        overlay->below = ops;
        ops = &overlay->ops;
    }
    return ops;
}

enum rp_status rp_replay_slot_rows(struct rp_replay *replay, const struct rp_replay_slot *slot,
                                   const struct rp_replay_variant *variant, float *rows,
                                   struct rp_error *err)
{
    static const struct rp_replay_variant none = {.overlay = NULL};
    if (slot->layer < 0)
        return rp_replay_part_rows(replay, slot, variant ? variant : &none, rows, err);
    return rp_replay_layer_rows(replay, slot, variant ? variant : &none, rows, err);
}

enum rp_status rp_replay_dumped_rows(struct rp_replay *replay, const char *slot,
                                     const int64_t *positions, size_t n, size_t dim, float *rows,
                                     struct rp_error *err)
{
    struct rp_dumped dumped;
    int layer;
    const enum rp_slot_part part = rp_slot_parse(slot, &layer);
    rp_dumped_open(&dumped, replay->dump, part, layer);
    enum rp_status status = RP_OK;
    if (!dumped.info || dumped.tensor.dim != dim)
        status = rp_fail(err, RP_ERR_MISSING, rp_tensor_set_path(replay->dump), -1,
                         "the dump has no %s of %zu values a position", slot, dim);
    for (size_t i = 0; i < n && status == RP_OK; i++) {
        const void *row = rp_dumped_row(&dumped, positions[i]);
        if (row)
            memcpy(rows + i * dim, row, dim * sizeof *rows);
        else
            status = rp_fail(err, RP_ERR_MISSING, rp_tensor_set_path(replay->dump), -1,
                             "%s has no position %lld", slot, (long long)positions[i]);
    }
    rp_dumped_close(&dumped);
    return status;
}
