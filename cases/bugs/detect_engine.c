/* See detect_engine.h. */
#include "detect_engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REFPARITY_DUMP_IMPLEMENTATION
#include "refparity/dump.h"

void rp_recorded_free(struct rp_recorded *recorded)
{
    for (size_t i = 0; i < recorded->n_slots; i++)
        free(recorded->slots[i].rows);
    free(recorded->slots);
    free(recorded->positions);
    free(recorded->tokens);
    *recorded = (struct rp_recorded){.slots = NULL};
}

const struct rp_recorded_slot *rp_recorded_find(const struct rp_recorded *recorded,
                                                const char *slot)
{
    for (size_t i = 0; i < recorded->n_slots; i++) {
        if (strcmp(recorded->slots[i].name, slot) == 0)
            return &recorded->slots[i];
    }
    return NULL;
}

static struct rp_recorded_slot *add_slot(struct rp_recorded *recorded, const char *name, size_t dim)
{
    struct rp_recorded_slot *grown = (struct rp_recorded_slot *)rp_recorded_find(recorded, name);
    if (grown)
        return grown;
    grown = realloc(recorded->slots, (recorded->n_slots + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    recorded->slots = grown;
    grown += recorded->n_slots++;
    *grown = (struct rp_recorded_slot){.dim = dim};
    snprintf(grown->name, sizeof grown->name, "%s", name);
    return grown;
}

static enum rp_status record(void *context, const struct rp_tap *tap, struct rp_error *err)
{
    struct rp_recorded_slot *slot = add_slot(context, tap->slot, tap->dim);
    float *rows = NULL;
    if (slot)
        rows = realloc(slot->rows, (slot->n_rows + tap->n_positions) * tap->dim * sizeof *rows);
    if (!rows)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for slot '%s'", tap->slot);
    slot->rows = rows;
    memcpy(rows + slot->n_rows * tap->dim, tap->rows, tap->n_positions * tap->dim * sizeof *rows);
    slot->n_rows += tap->n_positions;
    return RP_OK;
}

size_t rp_detect_chunk(const struct rp_detect_trial *trial, size_t n)
{
    if (trial->mode == RP_MODE_PER_TOKEN)
        return 1;
    return trial->variant->chunk && trial->variant->chunk < n ? trial->variant->chunk : n;
}

/* The engine's operations, stacked: the variant's arithmetic, the rounding, the bugs. */
struct stack {
    struct rp_variant_site variant;
    struct rp_emulation emulation;
    struct rp_bug_site bugs[RP_DETECT_MAX_BUGS];
    size_t n_bugs;
    const struct rp_ops *ops;
};

static void close_stack(struct stack *stack)
{
    while (stack->n_bugs > 0)
        rp_bug_remove(&stack->bugs[--stack->n_bugs]);
}

enum { NO_BUG = -1, ALL_BUGS = -2 };

/* which: the number of the one bug to put in, or NO_BUG, or ALL_BUGS. */
static enum rp_status open_stack(const struct rp_detect_trial *trial, bool is_rounded, int which,
                                 struct stack *stack, struct rp_error *err)
{
    const struct rp_numerics none = {.activations = RP_ACTIVATIONS_F32};
    enum rp_status status = RP_OK;
    stack->n_bugs = 0;
    rp_variant_install(trial->variant, &stack->variant);
    rp_emulation_open(&stack->emulation, is_rounded ? &trial->declared : &none,
                      &stack->variant.overlay.ops);
    stack->ops = &stack->emulation.overlay.ops;
    for (size_t b = 0; b < trial->n_bugs && status == RP_OK; b++) {
        struct rp_bug_choice choice = trial->bugs[b];
        if ((which != ALL_BUGS && which != (int)b) || choice.bug->change_prompt)
            continue;
        choice.declared = is_rounded ? trial->declared : none;
        status = rp_bug_install(&choice, trial->on->model, stack->ops, &stack->variant.overlay.ops,
                                &stack->bugs[stack->n_bugs], err);
        if (status == RP_OK)
            stack->ops = stack->bugs[stack->n_bugs++].ops;
    }
    if (status != RP_OK)
        close_stack(stack);
    return status;
}

enum rp_status rp_detect_run(const struct rp_detect_trial *trial, struct rp_recorded *recorded,
                             struct rp_error *err)
{
    struct stack stack;
    size_t n = trial->on->n_tokens;
    enum rp_status status;
    *recorded = (struct rp_recorded){.n_tokens = n};
    recorded->tokens = calloc(n, sizeof *recorded->tokens);
    recorded->positions = calloc(n, sizeof *recorded->positions);
    if (!recorded->tokens || !recorded->positions)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu tokens", n);
    memcpy(recorded->tokens, trial->on->tokens, n * sizeof *recorded->tokens);
    for (size_t b = 0; b < trial->n_bugs; b++) {
        if (trial->bugs[b].bug->change_prompt)
            trial->bugs[b].bug->change_prompt(recorded->tokens, &recorded->n_tokens);
    }
    recorded->n_positions = recorded->n_tokens;
    for (size_t p = 0; p < recorded->n_positions; p++)
        recorded->positions[p] = trial->variant->first_position + (int64_t)p;
    status = open_stack(trial, true, ALL_BUGS, &stack, err);
    if (status != RP_OK)
        return status;
    const struct rp_run run = {.ops = stack.ops,
                               .tokens = recorded->tokens,
                               .n_tokens = recorded->n_tokens,
                               .first_position = trial->variant->first_position,
                               .mode = trial->mode,
                               .chunk = rp_detect_chunk(trial, n),
                               .tap = record,
                               .tap_context = recorded};
    status = rp_model_run(trial->on->model, &run, err);
    close_stack(&stack);
    return status;
}

enum rp_status rp_detect_dump(const struct rp_detect_trial *trial,
                              const struct rp_recorded *recorded, enum rp_slot_level level,
                              const char *folder, struct rp_error *err)
{
    const struct rp_model_config *config = rp_model_config(trial->on->model);
    struct rp_dump *dump = rp_dump_open(folder, (int)config->n_layers, "refparity-detect");
    enum rp_status status = RP_OK;
    rp_dump_tokens(dump, recorded->tokens, recorded->n_tokens);
    for (size_t i = 0; i < recorded->n_slots; i++) {
        const struct rp_recorded_slot *slot = &recorded->slots[i];
        int layer;
        if (rp_slot_level_has(level, rp_slot_parse(slot->name, &layer)))
            rp_dump_rows(dump, slot->name, recorded->positions[0], slot->n_rows, slot->dim,
                         slot->rows);
    }
    if (rp_dump_finish(dump) != 0)
        status = rp_fail(err, RP_ERR_IO, folder, -1, "%s", rp_dump_error(dump));
    rp_dump_close(dump);
    return status;
}

/* ---- from the inputs that a step had ---- */

static float *make_floats(size_t n)
{
    return calloc(n ? n : 1, sizeof(float));
}

/* Runs the layer from the run's own h{l}_in. */
static enum rp_status force_layer(const struct rp_detect_trial *trial,
                                  const struct rp_recorded *run, size_t layer,
                                  const struct rp_ops *ops, struct rp_recorded *result,
                                  struct rp_error *err)
{
    struct rp_layer weights = {.owned = NULL};
    struct rp_layer_state *state = NULL;
    char name[RP_SLOT_NAME_SIZE];
    const struct rp_recorded_slot *input =
        rp_recorded_find(run, rp_slot_name(RP_PART_IN, (int)layer, name));
    const struct rp_forward forward = {.model = trial->on->model,
                                       .ops = ops,
                                       .mode = trial->mode,
                                       .tap = record,
                                       .tap_context = result};
    size_t n = run->n_positions, chunk = rp_detect_chunk(trial, n);
    float *hidden = input ? make_floats(n * input->dim) : NULL;
    enum rp_status status;
    if (!hidden)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for layer %zu", layer);
    memcpy(hidden, input->rows, n * input->dim * sizeof *hidden);
    status = rp_layer_load(trial->on->model, layer, &weights, err);
    if (status == RP_OK)
        status = rp_layer_state_open(trial->on->model, layer, n, &state, err);
    for (size_t p = 0; p < n && status == RP_OK; p += chunk)
        status = rp_layer_forward(&forward, layer, &weights, state, n - p < chunk ? n - p : chunk,
                                  run->positions + p, hidden + p * input->dim, err);
    rp_layer_state_close(state);
    rp_layer_free(&weights);
    free(hidden);
    return status;
}

/* Computes emb, post_norm or logits from what it is computed from in the run. */
static enum rp_status force_part(const struct rp_detect_trial *trial, const struct rp_recorded *run,
                                 enum rp_slot_part part, const struct rp_ops *ops,
                                 struct rp_recorded *result, struct rp_error *err)
{
    const struct rp_model_config *config = rp_model_config(trial->on->model);
    char name[RP_SLOT_NAME_SIZE];
    const struct rp_forward forward = {.model = trial->on->model,
                                       .ops = ops,
                                       .mode = trial->mode,
                                       .tap = record,
                                       .tap_context = result};
    size_t n = run->n_positions, chunk = rp_detect_chunk(trial, n), dim = config->hidden_size;
    const struct rp_recorded_slot *input =
        part == RP_PART_LOGITS
            ? rp_recorded_find(run, "post_norm")
            : rp_recorded_find(run, rp_slot_name(RP_PART_OUTPUT, (int)config->n_layers - 1, name));
    float *hidden = make_floats(n * dim), *logits = NULL;
    enum rp_status status = RP_OK;
    if (!hidden || !input)
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", n);
    else
        memcpy(hidden, input->rows, n * dim * sizeof *hidden);
    if (status == RP_OK && part == RP_PART_LOGITS) {
        logits = make_floats(n * config->vocab_size);
        status = logits ? rp_model_logits(&forward, n, run->positions, chunk, hidden, logits, err)
                        : rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for logits");
        goto done;
    }
    for (size_t p = 0; p < n && status == RP_OK; p += chunk) {
        size_t here = n - p < chunk ? n - p : chunk;
        status = part == RP_PART_EMB ? rp_model_embed(&forward, here, run->positions + p,
                                                      run->tokens + p, hidden + p * dim, err)
                                     : rp_model_final_norm(&forward, here, run->positions + p,
                                                           hidden + p * dim, err);
    }
done:
    free(logits);
    free(hidden);
    return status;
}

static double l2_rel(const float *a, const float *b, size_t dim)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < dim; i++) {
        double d = (double)a[i] - (double)b[i];
        difference += d * d;
        norm += (double)b[i] * (double)b[i];
    }
    return norm > 0 ? sqrt(difference / norm) : difference > 0 ? (double)INFINITY : 0;
}

/* The same step by an engine with that arithmetic: with the bug, or without any. */
static enum rp_status force(const struct rp_detect_trial *trial, const struct rp_recorded *run,
                            size_t index, bool is_rounded, const struct rp_variant *arithmetic,
                            bool has_bug, struct rp_recorded *result, struct rp_error *err)
{
    const struct rp_bug_choice *choice = &trial->bugs[index];
    struct rp_detect_trial of = *trial;
    struct stack stack;
    enum rp_status status;
    of.variant = arithmetic;
    status = open_stack(&of, is_rounded, has_bug ? (int)index : NO_BUG, &stack, err);
    if (status != RP_OK)
        return status;
    status = choice->bug->layers == RP_BUG_IN_NO_LAYER
                 ? force_part(trial, run, choice->bug->first_part, stack.ops, result, err)
                 : force_layer(trial, run, (size_t)choice->layer, stack.ops, result, err);
    close_stack(&stack);
    return status;
}

/* Whether it is another arithmetic, and nothing else. */
static bool is_arithmetic(const struct rp_variant *variant)
{
    return !variant->has_numerics && !variant->is_per_token && variant->chunk == 0 &&
           variant->first_position == 0;
}

/* change[n_positions] becomes the distance to right, where that is smaller. */
static void take_nearer(const struct rp_recorded_slot *buggy, const struct rp_recorded_slot *right,
                        double *change)
{
    for (size_t p = 0; p < right->n_rows; p++) {
        double here =
            l2_rel(buggy->rows + p * right->dim, right->rows + p * right->dim, right->dim);
        if (isfinite(here))
            change[p] = fmin(change[p], here);
    }
}

/* change[n_positions] becomes the smaller of it and the distance to what that arithmetic makes of it
 * without the bug. */
static enum rp_status change_from(const struct rp_detect_trial *trial,
                                  const struct rp_recorded *run, size_t index, bool is_rounded,
                                  const struct rp_variant *arithmetic,
                                  const struct rp_recorded *buggy, const char *slot, double *change,
                                  struct rp_error *err)
{
    struct rp_recorded right = {.slots = NULL};
    enum rp_status status = force(trial, run, index, is_rounded, arithmetic, false, &right, err);
    const struct rp_recorded_slot *with = rp_recorded_find(buggy, slot);
    const struct rp_recorded_slot *without = rp_recorded_find(&right, slot);
    if (status == RP_OK && (!with || !without || with->n_rows != run->n_positions))
        status = rp_fail(err, RP_ERR_MISSING, NULL, -1, "no slot '%s'", slot);
    if (status == RP_OK)
        take_nearer(with, without, change);
    rp_recorded_free(&right);
    return status;
}

/* any_arithmetic: of all right engines, not of the trial's alone. */
static enum rp_status change_with(const struct rp_detect_trial *trial,
                                  const struct rp_recorded *run, size_t index, bool is_rounded,
                                  bool any_arithmetic, const char *slot, double *change,
                                  struct rp_error *err)
{
    struct rp_recorded buggy = {.slots = NULL};
    enum rp_status status = force(trial, run, index, is_rounded, trial->variant, true, &buggy, err);
    if (status == RP_OK)
        status =
            change_from(trial, run, index, is_rounded, trial->variant, &buggy, slot, change, err);
    for (size_t v = 0; any_arithmetic && v < rp_n_variants && status == RP_OK; v++) {
        if (is_arithmetic(&rp_variants[v]) && &rp_variants[v] != trial->variant)
            status = change_from(trial, run, index, is_rounded, &rp_variants[v], &buggy, slot,
                                 change, err);
    }
    rp_recorded_free(&buggy);
    return status;
}

enum rp_status rp_detect_change(const struct rp_detect_trial *trial,
                                const struct rp_recorded *recorded, size_t index,
                                enum rp_slot_level level, char slot[RP_SLOT_NAME_SIZE],
                                double *change, struct rp_error *err)
{
    const struct rp_bug_choice *choice = &trial->bugs[index];
    const bool is_coarse = level == RP_SLOTS_LAYERS;
    const int layer = choice->bug->layers == RP_BUG_IN_NO_LAYER ? -1 : choice->layer;
    enum rp_status status;
    rp_slot_name(rp_bug_first_part(choice->bug, trial->on->model, layer, level), layer, slot);
    for (size_t p = 0; p < recorded->n_positions; p++)
        change[p] = (double)INFINITY;
    status = change_with(trial, recorded, index, true, is_coarse, slot, change, err);
    if (status == RP_OK && is_coarse)
        status = change_with(trial, recorded, index, false, is_coarse, slot, change, err);
    return status;
}
