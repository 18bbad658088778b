/* One layer's replay: one run on the engine's values, in which each operation's output is held against
 * the dumped one; and the verdicts. Slots whose inputs are not dumped are measured in carried.c. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replay/carried.h"
#include "replay/choice.h"
#include "replay/judge.h"
#include "replay/layer_run.h"
#include "replay/noise.h"
#include "replay/session.h"

/* Of each slot, by its number in the plan; arrays are [n]. */
struct work {
    const struct rp_replay_plan *plan;
    const struct rp_numerics *numerics;
    struct rp_noise noise;
    struct rp_replay_choice choice;
    struct rp_row_error *errors[RP_N_LAYER_PARTS];
    double *bound[RP_N_LAYER_PARTS]; /* relative */
};

static void work_close(struct work *work)
{
    for (size_t k = 0; k < RP_N_LAYER_PARTS; k++) {
        free(work->errors[k]);
        free(work->bound[k]);
    }
    rp_noise_close(&work->noise);
    rp_replay_choice_close(&work->choice);
}

static enum rp_status see(void *context, const struct rp_planned_slot *slot, const float *rows,
                          struct rp_error *err)
{
    struct work *work = context;
    const struct rp_replay_plan *plan = work->plan;
    const size_t k = (size_t)(slot - plan->slots);
    const struct rp_numerics numerics = rp_replay_part_numerics(work->numerics, slot->part);
    if (slot->part == RP_PART_ROUTER) {
        const enum rp_status status = rp_replay_choice_keep(&work->choice, slot, rows, err);
        if (status != RP_OK)
            return status;
    }
    if (slot->dumped.tensor.n_positions == 0)
        return RP_OK;
    work->errors[k] = calloc(plan->n + 1, sizeof **work->errors);
    work->bound[k] = calloc(plan->n + 1, sizeof **work->bound);
    if (!work->errors[k] || !work->bound[k])
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", plan->n);
    for (size_t i = 0; i < plan->n && slot->part != RP_PART_EXPERTS; i++) {
        const void *engine = rp_dumped_row(&slot->dumped, plan->positions[i]);
        if (!engine || !slot->founded[i])
            continue;
        struct rp_row_error *error = &work->errors[k][i];
        const double bound = slot->operation < plan->n_steps ? work->noise.bound[i] : 0;
        *error = rp_row_error_of(&numerics, rows + i * slot->dim, engine, slot->dim, bound);
        if (error->norm > 0)
            work->bound[k][i] = bound / error->norm;
    }
    return RP_OK;
}

static enum rp_status run(struct work *work, const struct rp_layer *weights, enum rp_mode mode,
                          struct rp_error *err)
{
    struct rp_emulation emulation;
    const struct rp_ops *below = rp_replay_stack(work->numerics, &emulation, NULL);
    enum rp_status status = rp_noise_open(&work->noise, work->numerics, below, work->plan->n, err);
    emulation.tips = work->noise.tips;
    emulation.n_tips = work->plan->n;
    const struct rp_layer_run layer_run = {.ops = &work->noise.overlay.ops,
                                           .mode = mode,
                                           .weights = weights,
                                           .see = see,
                                           .context = work};
    if (status == RP_OK)
        status = rp_replay_layer_run(work->plan, &layer_run, err);
    return status;
}

/* ---- verdicts ---- */

static const char *what_runs(const struct rp_step *step, char *text, size_t size)
{
    const char *weight = rp_weight_name(step->which);
    switch (step->kind) {
    case RP_STEP_LINEAR:
    case RP_STEP_HEAD_LINEAR: snprintf(text, size, "the product with %s", weight); break;
    case RP_STEP_RMS_NORM: snprintf(text, size, "the RMS norm %s", weight); break;
    case RP_STEP_ROPE: snprintf(text, size, "RoPE"); break;
    case RP_STEP_ATTENTION: snprintf(text, size, "attention"); break;
    case RP_STEP_ATTENTION_GATE: snprintf(text, size, "attention's gate"); break;
    case RP_STEP_CAUSAL_CONV1D: snprintf(text, size, "the convolution"); break;
    case RP_STEP_DELTA_DECAY: snprintf(text, size, "the decay"); break;
    case RP_STEP_DELTA_BETA: snprintf(text, size, "beta"); break;
    case RP_STEP_DELTA_RULE: snprintf(text, size, "the delta rule"); break;
    case RP_STEP_GATED_NORM: snprintf(text, size, "the gated norm"); break;
    case RP_STEP_FFN_ACTIVATION: snprintf(text, size, "the activation"); break;
    case RP_STEP_CHOOSE_EXPERTS: snprintf(text, size, "the choice of experts"); break;
    case RP_STEP_WEIGH_EXPERTS: snprintf(text, size, "the experts' weights"); break;
    case RP_STEP_EXPERTS_LINEAR: snprintf(text, size, "the experts' %s", weight); break;
    case RP_STEP_SUM_EXPERTS: snprintf(text, size, "the experts' sum"); break;
    case RP_STEP_ADD_SHARED: snprintf(text, size, "the shared expert's add"); break;
    case RP_STEP_RESIDUAL_ADD: snprintf(text, size, "the residual add"); break;
    default: snprintf(text, size, "a copy"); break;
    }
    return text;
}

/* The first of a list "h3_postattn, h3_ffnout" that the dump has not. */
static bool find_missing(const struct rp_tensor_set *dump, const char *list,
                         char name[RP_SLOT_NAME_SIZE])
{
    for (const char *item = list; *item;) {
        const size_t length = strcspn(item, ",");
        snprintf(name, RP_SLOT_NAME_SIZE, "%.*s", (int)length, item);
        if (!rp_tensor_set_find(dump, name))
            return true;
        item += length;
        item += strspn(item, ", ");
    }
    return false;
}

/* Of what computes the slot: a weight that cannot be decoded; NULL: none. */
static const struct rp_gguf_tensor *undecodable(const struct rp_replay_plan *plan,
                                                const struct rp_planned_slot *slot)
{
    for (size_t i = 0; i < plan->n_steps; i++) {
        const struct rp_gguf_tensor *tensor =
            slot->steps[i] ? rp_step_undecodable(plan, &plan->steps[i]) : NULL;
        if (tensor)
            return tensor;
    }
    return NULL;
}

/* Why a slot was not replayed everywhere. */
static const char *why_left_out(const struct rp_replay *replay, const struct work *work,
                                const struct rp_planned_slot *slot, char *text, size_t size)
{
    const struct rp_replay_plan *plan = work->plan;
    const size_t choice = rp_replay_plan_choice(plan);
    const struct rp_gguf_tensor *tensor = undecodable(plan, slot);
    char missing[RP_SLOT_NAME_SIZE];
    if (tensor)
        snprintf(text, size, "weights of type %s cannot be decoded (%s)",
                 rp_ggml_type_name(tensor->type), tensor->name);
    else if (find_missing(replay->dump, slot->from, missing))
        snprintf(text, size, "%s is not dumped", missing);
    else if (choice < plan->n_steps && slot->steps[choice] && work->choice.uncertain >= 0)
        snprintf(text, size,
                 "two experts are a tie at position %lld: dump h%zu_experts to see which was taken",
                 (long long)work->choice.uncertain, plan->layer);
    else if (replay->first_position < 0)
        snprintf(text, size, "where the sequence begins is not known");
    else if (plan->gap >= 0 && plan->gap_is_invalid)
        snprintf(text, size, "the engine's input at position %lld is not finite",
                 (long long)plan->gap);
    else if (plan->gap >= 0)
        snprintf(text, size, "the input at position %lld is not dumped", (long long)plan->gap);
    else if (choice < slot->tap)
        snprintf(text, size, "an input is not finite, or no choice of experts");
    else
        snprintf(text, size, "an input is not finite");
    return text;
}

static bool has_product(const struct rp_replay_plan *plan, const struct rp_planned_slot *slot)
{
    for (size_t i = 0; i < plan->n_steps; i++)
        if (slot->steps[i] && rp_step_is_product(&plan->steps[i]))
            return true;
    return false;
}

static enum rp_status judge_slot(const struct rp_replay *replay, const struct work *work,
                                 const struct rp_carried *carried, size_t k,
                                 struct rp_replay_slot *result, struct rp_error *err)
{
    const struct rp_replay_plan *plan = work->plan;
    const struct rp_planned_slot *slot = &plan->slots[k];
    const bool is_choice = slot->part == RP_PART_EXPERTS; /* it has a bound of its own */
    const struct rp_carried_slot *far = is_choice ? NULL : rp_carried_find(carried, slot->part);
    char operation[96] = "a copy", last[40], first[40], reason[128];
    if (slot->operation < plan->n_steps) {
        what_runs(&plan->steps[slot->operation], last, sizeof last);
        what_runs(&plan->steps[slot->first_operation], first, sizeof first);
        snprintf(operation, sizeof operation, "%s%s%s", slot->is_direct ? "" : first,
                 slot->is_direct ? "" : " to ", last);
    }
    const struct rp_expected_tips tips = {.worth = far ? far->worth : NULL,
                                          .own = far ? far->own : NULL,
                                          .earlier = far ? far->earlier : NULL};
    const struct rp_replayed replayed = {
        .part = slot->part,
        .layer = (int)plan->layer,
        .operation = operation,
        .from = slot->from,
        .between = slot->between,
        .dumped = &slot->dumped,
        .n = plan->n,
        .positions = plan->positions,
        .state = work->numerics->state,
        .errors = work->errors[k],
        .founded = slot->founded,
        .bound = far ? far->bound : work->bound[k],
        .tips = far && far->has_tips ? &tips : NULL,
        .says = is_choice ? work->choice.text : "",
        .left_out = why_left_out(replay, work, slot, reason, sizeof reason)};
    const enum rp_status status = rp_replay_judge(&replayed, result, err);
    result->has_product = has_product(plan, slot);
    return status;
}

/* What the choice of experts is, once it is known how far its logits may be off. */
static enum rp_status judge_choice(struct work *work, struct rp_replay_plan *plan,
                                   const struct rp_carried *carried, struct rp_error *err)
{
    const struct rp_planned_slot *experts = rp_replay_plan_slot(plan, RP_PART_EXPERTS);
    const size_t k = experts ? (size_t)(experts - plan->slots) : 0;
    work->choice.noise = carried->router_noise;
    enum rp_status status = rp_replay_choice_leave_out(&work->choice, plan, err);
    if (status == RP_OK && experts && work->errors[k])
        status =
            rp_replay_choice_judge(&work->choice, experts, work->errors[k], work->bound[k], err);
    return status;
}

static enum rp_status judge(const struct rp_replay *replay, const struct work *work,
                            const struct rp_carried *carried, struct rp_replay_layer *result,
                            struct rp_error *err)
{
    enum rp_status status = RP_OK;
    *result = (struct rp_replay_layer){.layer = (int)work->plan->layer};
    for (size_t k = 0; k < work->plan->n_slots && status == RP_OK; k++) {
        if (!work->plan->slots[k].dumped.info)
            continue;
        status = judge_slot(replay, work, carried, k, &result->slots[result->n_slots], err);
        result->n_slots += status == RP_OK;
    }
    if (status == RP_OK)
        rp_replay_conclude(result);
    else
        rp_replay_layer_free(result);
    return status;
}

enum rp_status rp_replay_run_layer(struct rp_replay *replay, size_t layer,
                                   struct rp_replay_layer *result, struct rp_error *err)
{
    const struct rp_numerics numerics = rp_replay_numerics(replay);
    struct rp_replay_plan plan;
    struct rp_carried carried = {.n_slots = 0};
    struct work work = {.plan = &plan, .numerics = &numerics};
    const struct rp_layer *weights;
    enum rp_status status =
        rp_replay_plan_open(&plan, replay->model, replay->dump, layer, replay->first_position, err);
    if (status != RP_OK)
        return status;
    status = rp_replay_weights(replay, layer, &weights, err);
    if (status == RP_OK)
        rp_replay_choice_open(&work.choice, &plan, weights);
    if (status == RP_OK)
        status = run(&work, weights, replay->options.mode, err);
    if (status == RP_OK)
        status = rp_carried_measure(&carried, &plan, weights, &numerics, replay->options.mode, err);
    if (status == RP_OK)
        status = judge_choice(&work, &plan, &carried, err);
    if (status == RP_OK)
        status = judge(replay, &work, &carried, result, err);
    rp_carried_close(&carried);
    work_close(&work);
    rp_replay_plan_close(&plan);
    return status;
}

/* ---- one slot's rows ---- */

struct wanted {
    const struct rp_replay_plan *plan;
    const struct rp_replay_slot *slot;
    float *rows; /* [slot->n_positions][dim] */
};

static enum rp_status keep_rows(void *context, const struct rp_planned_slot *slot,
                                const float *rows, struct rp_error *err)
{
    const struct wanted *wanted = context;
    size_t row = 0;
    (void)err;
    if (slot->part != wanted->slot->part)
        return RP_OK;
    for (size_t i = 0; i < wanted->slot->n_positions; i++) {
        while (row + 1 < wanted->plan->n &&
               wanted->plan->positions[row] < wanted->slot->positions[i])
            row++;
        memcpy(wanted->rows + i * slot->dim, rows + row * slot->dim, slot->dim * sizeof *rows);
    }
    return RP_OK;
}

/* Runs what the slot needs, up to its tap. */
static enum rp_status run_slot(struct rp_replay *replay, const struct rp_replay_plan *plan,
                               const struct rp_planned_slot *planned,
                               const struct rp_replay_variant *variant, struct wanted *wanted,
                               struct rp_error *err)
{
    const struct rp_numerics numerics =
        variant->numerics ? *variant->numerics : rp_replay_numerics(replay);
    const struct rp_layer *weights = variant->weights;
    struct rp_emulation emulation;
    enum rp_status status = RP_OK;
    unsigned char *steps = calloc(plan->n_steps + 1, 1);
    if (!steps)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu steps", plan->n_steps);
    memcpy(steps, planned->steps, plan->n_steps);
    steps[planned->tap] = 1;
    if (!weights)
        status = rp_replay_weights(replay, plan->layer, &weights, err);
    const struct rp_layer_run layer_run = {
        .ops = rp_replay_stack(&numerics, &emulation, variant->overlay),
        .mode = replay->options.mode,
        .weights = weights,
        .steps = steps,
        .see = keep_rows,
        .context = wanted};
    if (status == RP_OK)
        status = rp_replay_layer_run(plan, &layer_run, err);
    free(steps);
    return status;
}

enum rp_status rp_replay_layer_rows(struct rp_replay *replay, const struct rp_replay_slot *slot,
                                    const struct rp_replay_variant *variant,
                                    float *rows, /* NOLINT(readability-non-const-parameter) */
                                    struct rp_error *err)
{
    struct rp_replay_plan plan;
    enum rp_status status = rp_replay_plan_open(&plan, replay->model, replay->dump,
                                                (size_t)slot->layer, replay->first_position, err);
    if (status != RP_OK)
        return status;
    struct wanted wanted = {.plan = &plan, .slot = slot, .rows = rows};
    const struct rp_planned_slot *planned = rp_replay_plan_slot(&plan, slot->part);
    if (planned)
        status = run_slot(replay, &plan, planned, variant, &wanted, err);
    else
        status =
            rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "layer %d has no %s", slot->layer, slot->slot);
    rp_replay_plan_close(&plan);
    return status;
}
