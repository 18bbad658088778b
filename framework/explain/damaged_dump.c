/* See damaged_dump.h. */
#include "explain/damaged_dump.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare/damage_rows.h"
#include "compare/equal_slots.h"
#include "replay/session.h"

enum { TEXT_SIZE = 512 };

static bool starts_from(const struct rp_replay_slot *slot, const char *name)
{
    char source[RP_SLOT_NAME_SIZE];
    for (size_t i = 0; rp_replay_source(slot, i, source); i++)
        if (strcmp(source, name) == 0)
            return true;
    return false;
}

/* The rows as replay computes them, against the dump's. damage is to be freed. */
static enum rp_status examine_rows(struct rp_replay *replay, const struct rp_replay_slot *slot,
                                   struct rp_damage *damage, struct rp_error *err)
{
    const size_t n = slot->n_positions,
                 dim = rp_model_slot_width(rp_replay_model(replay), slot->part,
                                           slot->layer < 0 ? 0 : (size_t)slot->layer);
    float *computed = calloc(n * dim + 1, sizeof *computed);
    float *dumped = calloc(n * dim + 1, sizeof *dumped);
    enum rp_status status = RP_OK;
    memset(damage, 0, sizeof *damage);
    if (!computed || !dumped)
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows", n);
    if (status == RP_OK)
        status = rp_replay_slot_rows(replay, slot, NULL, computed, err);
    if (status == RP_OK)
        status = rp_replay_dumped_rows(replay, slot->slot, slot->positions, n, dim, dumped, err);
    if (status == RP_OK && rp_damage_of_arrays(computed, dumped, slot->positions, n, dim,
                                               RP_DEFAULT_L2_REL, damage) != RP_OK)
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows", n);
    free(computed);
    free(dumped);
    return status;
}

/* A slot with the same bytes: a required one, or the same part of another layer; "" where there is none. */
static void find_equal(struct rp_replay *replay, const struct rp_replay_slot *slot,
                       char name[RP_SLOT_NAME_SIZE])
{
    struct rp_tensor_set *dump = rp_replay_dump(replay);
    name[0] = '\0';
    for (size_t i = 0; i < rp_tensor_set_n_slots(dump) && !name[0]; i++) {
        const char *other = rp_tensor_set_slot(dump, i)->name;
        int layer;
        if (strcmp(other, slot->slot) != 0 &&
            (rp_slot_is_required(other) || rp_slot_parse(other, &layer) == slot->part) &&
            rp_slots_are_equal(dump, slot->slot, other))
            snprintf(name, RP_SLOT_NAME_SIZE, "%s", other);
    }
}

static bool one_fails_from(const struct rp_replay_layer *layer, const char *name)
{
    for (size_t i = 0; i < layer->n_slots; i++)
        if (layer->slots[i].verdict == RP_FAIL && starts_from(&layer->slots[i], name))
            return true;
    return false;
}

/* Of a model of which some layers are open the others say nothing. */
static enum rp_status run_layer(struct rp_replay *replay, size_t layer, struct rp_replay_layer *out,
                                struct rp_error *err)
{
    *out = (struct rp_replay_layer){.n_slots = 0};
    return rp_model_has_layer(rp_replay_model(replay), layer)
               ? rp_replay_run_layer(replay, layer, out, err)
               : RP_OK;
}

static enum rp_status run_part(struct rp_replay *replay, enum rp_slot_part part,
                               struct rp_replay_layer *out, struct rp_error *err)
{
    *out = (struct rp_replay_layer){.n_slots = 0};
    return rp_model_is_partial(rp_replay_model(replay))
               ? RP_OK
               : rp_replay_run_part(replay, part, out, err);
}

/* Replays what holds the slots that come next after the layer, or emb; false where nothing does. */
static enum rp_status run_next(struct rp_replay *replay, const struct rp_replay_slot *slot,
                               struct rp_replay_layer *next, struct rp_error *err)
{
    const size_t n_layers = rp_model_config(rp_replay_model(replay))->n_layers;
    memset(next, 0, sizeof *next);
    if (slot->part == RP_PART_EMB)
        return run_layer(replay, 0, next, err);
    if (slot->part == RP_PART_OUTPUT && (size_t)slot->layer + 1 < n_layers)
        return run_layer(replay, (size_t)slot->layer + 1, next, err);
    if (slot->part == RP_PART_OUTPUT)
        return run_part(replay, RP_PART_POST_NORM, next, err);
    return slot->part == RP_PART_POST_NORM ? run_part(replay, RP_PART_LOGITS, next, err) : RP_OK;
}

/* Does what is computed from the slot fail? */
static enum rp_status follows_wrong(struct rp_replay *replay, const struct rp_replay_layer *layer,
                                    const struct rp_replay_slot *slot, bool *wrong,
                                    struct rp_error *err)
{
    struct rp_replay_layer next;
    *wrong = one_fails_from(layer, slot->slot);
    if (*wrong)
        return RP_OK;
    const enum rp_status status = run_next(replay, slot, &next, err);
    if (status == RP_OK)
        *wrong = one_fails_from(&next, slot->slot);
    rp_replay_layer_free(&next);
    return status;
}

static bool is_zero(const float *row, size_t dim)
{
    for (size_t i = 0; i < dim; i++)
        if (row[i] != 0)
            return false;
    return true;
}

/* Are the dump's rows of the slot name computed, [n][dim] at the positions of slot, to its limit? row is
 * [dim]. One that lacks a position is not; nor is a row of zeros, which two layers may have. */
static bool holds(struct rp_replay *replay, const char *name, const struct rp_replay_slot *slot,
                  const float *computed, size_t dim, float *row)
{
    const struct rp_numerics all = rp_replay_numerics(replay),
                             numerics = rp_replay_part_numerics(&all, slot->part);
    for (size_t p = 0; p < slot->n_positions; p++) {
        const float *expected = computed + p * dim;
        if (is_zero(expected, dim) ||
            rp_replay_dumped_rows(replay, name, &slot->positions[p], 1, dim, row, NULL) != RP_OK ||
            !(rp_replay_row_error(&numerics, expected, row, dim) <= slot->limit[p]))
            return false;
    }
    return slot->n_positions > 0;
}

/* Another layer's slot that holds what is computed for slot; "" where there is none. */
static enum rp_status find_displaced(struct rp_replay *replay, const struct rp_replay_slot *slot,
                                     char name[RP_SLOT_NAME_SIZE], struct rp_error *err)
{
    const struct rp_tensor_set *dump = rp_replay_dump(replay);
    const size_t n = slot->n_positions;
    name[0] = '\0';
    if (slot->layer < 0)
        return RP_OK;
    const size_t dim =
        rp_model_slot_width(rp_replay_model(replay), slot->part, (size_t)slot->layer);
    float *computed = calloc((n + 1) * dim, sizeof *computed);
    enum rp_status status = RP_OK;
    if (!computed)
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows", n);
    else
        status = rp_replay_slot_rows(replay, slot, NULL, computed, err);
    for (size_t i = 0; status == RP_OK && i < rp_tensor_set_n_slots(dump) && !name[0]; i++) {
        const char *other = rp_tensor_set_slot(dump, i)->name;
        int layer;
        if (rp_slot_parse(other, &layer) == slot->part && layer != slot->layer &&
            holds(replay, other, slot, computed, dim, computed + n * dim))
            snprintf(name, RP_SLOT_NAME_SIZE, "%s", other);
    }
    free(computed);
    return status;
}

/* Does the slot called name, of another layer, hold what is computed for the one that is called wanted? It
 * is run for that. */
static enum rp_status holds_displaced(struct rp_replay *replay, const char *name,
                                      const char *wanted, bool *does, struct rp_error *err)
{
    struct rp_replay_layer of;
    char found[RP_SLOT_NAME_SIZE];
    int layer;
    *does = false;
    (void)rp_slot_parse(wanted, &layer);
    enum rp_status status = run_layer(replay, (size_t)layer, &of, err);
    for (size_t i = 0; status == RP_OK && i < of.n_slots; i++) {
        if (strcmp(of.slots[i].slot, wanted) != 0 || of.slots[i].verdict != RP_FAIL)
            continue;
        status = find_displaced(replay, &of.slots[i], found, err);
        *does = status == RP_OK && strcmp(found, name) == 0;
    }
    rp_replay_layer_free(&of);
    return status;
}

/* Point 3 of the rule: by what is computed for the slot itself, or for the layer before, which holds where
 * two neighbours are swapped and the second is computed from the wrong one. */
static enum rp_status find_swapped(struct rp_replay *replay, const struct rp_replay_layer *layer,
                                   const struct rp_replay_slot *slot, char *text,
                                   struct rp_error *err)
{
    char other[RP_SLOT_NAME_SIZE];
    bool wrong = false, both = false;
    enum rp_status status = find_displaced(replay, slot, other, err);
    if (status == RP_OK && other[0])
        status = follows_wrong(replay, layer, slot, &wrong, err);
    if (status == RP_OK && wrong)
        status = holds_displaced(replay, slot->slot, other, &both, err);
    if (status == RP_OK && both)
        snprintf(text, TEXT_SIZE,
                 "%.60s: the dump is damaged: %.60s and %.60s are swapped: each holds what is "
                 "computed for the other, and what is computed from them fails",
                 slot->slot, slot->slot, other);
    else if (status == RP_OK && wrong)
        snprintf(text, TEXT_SIZE,
                 "%.60s: the dump is damaged: %.60s holds what is computed for %.60s, and what is "
                 "computed from %.60s fails: are the two swapped?",
                 slot->slot, other, slot->slot, slot->slot);
    if (status != RP_OK || text[0] || slot->part != RP_PART_OUTPUT || slot->layer == 0)
        return status;
    rp_slot_name(RP_PART_OUTPUT, slot->layer - 1, other);
    status = holds_displaced(replay, slot->slot, other, &both, err);
    if (status == RP_OK && both)
        snprintf(text, TEXT_SIZE,
                 "%.60s: the dump is damaged: it holds what is computed for %.60s: are the two "
                 "swapped?",
                 slot->slot, other);
    return status;
}

/* Points 1 to 4 of the rule. */
static enum rp_status find_own(struct rp_replay *replay, const struct rp_replay_layer *layer,
                               const struct rp_replay_slot *slot, char *text, struct rp_error *err)
{
    struct rp_damage damage;
    char equal[RP_SLOT_NAME_SIZE];
    bool wrong = false;
    text[0] = '\0';
    enum rp_status status = examine_rows(replay, slot, &damage, err);
    if (status == RP_OK && (damage.kind == RP_DAMAGE_SWAPPED || damage.kind == RP_DAMAGE_FORMAT)) {
        snprintf(text, TEXT_SIZE, "%s: the dump is damaged: %s; what is computed from it fails too",
                 slot->slot, damage.text);
    } else if (status == RP_OK) {
        find_equal(replay, slot, equal);
        if (equal[0] || damage.kind)
            status = follows_wrong(replay, layer, slot, &wrong, err);
        if (wrong && equal[0])
            snprintf(text, TEXT_SIZE,
                     "%.60s: the dump is damaged: %.60s and %.60s hold the same bytes, and the "
                     "engine did "
                     "not go on from them: what is computed from %.60s fails too",
                     slot->slot, slot->slot, equal, slot->slot);
        else if (wrong)
            snprintf(text, TEXT_SIZE,
                     "%.60s: the dump is damaged: %.200s; undone, L2_rel is %.2g at most. The "
                     "engine did "
                     "not go on from these rows: what is computed from %.60s fails too",
                     slot->slot, damage.text, damage.l2_rel, slot->slot);
    }
    if (status == RP_OK && !text[0])
        status = find_swapped(replay, layer, slot, text, err);
    rp_damage_free(&damage);
    return status;
}

/* The same of a slot that slot is computed from, in the same layer or in before. */
static enum rp_status find_before(struct rp_replay *replay, const struct rp_replay_layer *before,
                                  const struct rp_replay_slot *slot, char *text,
                                  struct rp_error *err)
{
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < before->n_slots && status == RP_OK && !text[0]; i++) {
        const struct rp_replay_slot *source = &before->slots[i];
        char found[TEXT_SIZE];
        if (source->verdict != RP_FAIL || !starts_from(slot, source->slot))
            continue;
        status = find_own(replay, before, source, found, err);
        if (status == RP_OK && found[0])
            snprintf(text, TEXT_SIZE, "%.60s starts from %.420s", slot->slot, found);
    }
    return status;
}

/* Replays what holds the slots that a layer starts from. */
static enum rp_status run_previous(struct rp_replay *replay, const struct rp_replay_slot *slot,
                                   struct rp_replay_layer *previous, struct rp_error *err)
{
    const size_t n_layers = rp_model_config(rp_replay_model(replay))->n_layers;
    memset(previous, 0, sizeof *previous);
    switch (slot->part) {
    case RP_PART_EMB: return RP_OK;
    case RP_PART_POST_NORM: return run_layer(replay, n_layers - 1, previous, err);
    case RP_PART_LOGITS: return run_part(replay, RP_PART_POST_NORM, previous, err);
    default:
        return slot->layer > 0 ? run_layer(replay, (size_t)slot->layer - 1, previous, err)
                               : run_part(replay, RP_PART_EMB, previous, err);
    }
}

enum rp_status rp_replay_find_damage(struct rp_replay *replay, const struct rp_replay_layer *layer,
                                     const struct rp_replay_slot *slot, char text[512],
                                     struct rp_error *err)
{
    struct rp_replay_layer previous = {.n_slots = 0};
    char own_prefix[RP_SLOT_NAME_SIZE];
    enum rp_status status = find_own(replay, layer, slot, text, err);
    if (status == RP_OK && !text[0])
        status = find_before(replay, layer, slot, text, err);
    /* all that it starts from is of its own layer: nothing before that has a part in it */
    snprintf(own_prefix, sizeof own_prefix, "h%d_", slot->layer);
    if (status == RP_OK && !text[0] &&
        (slot->layer < 0 || strncmp(slot->from, own_prefix, strlen(own_prefix)) != 0)) {
        status = run_previous(replay, slot, &previous, err);
        if (status == RP_OK)
            status = find_before(replay, &previous, slot, text, err);
        rp_replay_layer_free(&previous);
    }
    return status;
}
