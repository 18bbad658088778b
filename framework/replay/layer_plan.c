/* See replay/layer_plan.h. */
#include "replay/layer_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/model_internal.h"
#include "operations/router.h"

static enum rp_status no_memory(const struct rp_replay_plan *plan, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", plan->n);
}

/* ---- positions ---- */

static int by_number(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void append_positions(struct rp_replay_plan *plan, const struct rp_dumped *dumped)
{
    const struct rp_tensor *tensor = &dumped->tensor;
    if (tensor->n_positions == 0)
        return;
    memcpy(plan->positions + plan->n, tensor->positions,
           tensor->n_positions * sizeof *plan->positions);
    plan->n += tensor->n_positions;
}

static enum rp_status collect_positions(struct rp_replay_plan *plan, struct rp_error *err)
{
    size_t capacity = plan->before.tensor.n_positions, n = 0;
    for (size_t k = 0; k < plan->n_slots; k++)
        capacity += plan->slots[k].dumped.tensor.n_positions;
    plan->positions = calloc(capacity + 1, sizeof *plan->positions);
    if (!plan->positions)
        return no_memory(plan, err);
    append_positions(plan, &plan->before);
    for (size_t k = 0; k < plan->n_slots; k++)
        append_positions(plan, &plan->slots[k].dumped);
    if (plan->n > 0)
        qsort(plan->positions, plan->n, sizeof *plan->positions, by_number);
    for (size_t i = 0; i < plan->n; i++) {
        if (n == 0 || plan->positions[i] != plan->positions[n - 1])
            plan->positions[n++] = plan->positions[i];
    }
    plan->n = n;
    return RP_OK;
}

/* ---- which rows are known ---- */

/* Sets row i of the input; false where the engine's is not known. */
static bool set_input(struct rp_replay_plan *plan, size_t i)
{
    const int64_t position = plan->positions[i];
    const struct rp_planned_slot *in = rp_replay_plan_slot(plan, RP_PART_IN);
    const struct rp_dumped *from =
        in && rp_dumped_row(&in->dumped, position) ? &in->dumped : &plan->before;
    if (!rp_dumped_is_finite(from, position))
        return false;
    memcpy(plan->input + i * plan->hidden_size, rp_dumped_row(from, position),
           plan->hidden_size * sizeof *plan->input);
    return true;
}

static void find_gap(struct rp_replay_plan *plan, int64_t first_position,
                     const unsigned char *hidden)
{
    const struct rp_planned_slot *in = rp_replay_plan_slot(plan, RP_PART_IN);
    plan->gap = -1;
    for (size_t i = 0; i < plan->n && first_position >= 0; i++) {
        const int64_t expected = first_position + (int64_t)i;
        if (plan->positions[i] == expected && hidden[i])
            continue;
        plan->gap = expected;
        plan->gap_is_invalid =
            plan->positions[i] == expected && (rp_dumped_row(&plan->before, expected) ||
                                               (in && rp_dumped_row(&in->dumped, expected)));
        return;
    }
}

/* Of what a step reads of all earlier positions: attention's Q is its own position's. */
static bool is_read_of_all(const struct rp_step *step, enum rp_buffer buffer)
{
    return rp_step_flow(step).reads_all &&
           !(step->kind == RP_STEP_ATTENTION && buffer == RP_BUFFER_Q);
}

const struct rp_gguf_tensor *rp_step_undecodable(const struct rp_replay_plan *plan,
                                                 const struct rp_step *step)
{
    const struct rp_layer_plan only = {step, 1};
    for (unsigned i = 0; i < RP_N_LAYER_WEIGHTS; i++) {
        const enum rp_weight_id which = (enum rp_weight_id)i;
        const struct rp_gguf_tensor *tensor = rp_model_undecodable(plan->model, plan->layer, which);
        if (tensor && rp_layer_plan_uses(&only, which))
            return tensor;
    }
    return NULL;
}

/* known [RP_N_BUFFERS][n]: which rows of each buffer rest on finite values of the engine. */
static void follow_step(struct rp_replay_plan *plan, const struct rp_step *step,
                        int64_t first_position, unsigned char *known)
{
    const struct rp_step_flow flow = rp_step_flow(step);
    const bool is_decoded = !rp_step_undecodable(plan, step);
    bool is_prefix = first_position >= 0;
    for (size_t i = 0; i < plan->n; i++) {
        bool is_known = is_decoded;
        is_prefix &= plan->positions[i] == first_position + (int64_t)i;
        for (size_t k = 0; k < flow.n_reads; k++) {
            const bool is_row_known = known[flow.reads[k] * plan->n + i] != 0;
            is_known &= is_row_known;
            is_prefix &= is_row_known || !is_read_of_all(step, flow.reads[k]);
        }
        for (size_t k = 0; k < flow.n_writes; k++)
            known[flow.writes[k] * plan->n + i] = is_known && (is_prefix || !flow.reads_all);
    }
}

/* Rows of _experts that are no choice are no ground, as those that are not finite. */
static enum rp_status drop_no_choices(const struct rp_replay_plan *plan,
                                      const struct rp_planned_slot *slot, unsigned char *known,
                                      struct rp_error *err)
{
    const struct rp_router *router = &rp_model_config(plan->model)->router;
    float *chosen = malloc((slot->dim + 1) * sizeof *chosen);
    enum rp_status status = chosen ? RP_OK : no_memory(plan, err);
    for (size_t i = 0; i < plan->n && status == RP_OK; i++) {
        const void *row = rp_dumped_row(&slot->dumped, plan->positions[i]);
        bool is_choice = true;
        if (!row)
            continue;
        memcpy(chosen, row, slot->dim * sizeof *chosen);
        status = rp_choice_is_one(router, chosen, &is_choice, err);
        known[i] = known[i] && is_choice;
    }
    free(chosen);
    return status;
}

static void follow_tap(struct rp_replay_plan *plan, struct rp_planned_slot *slot,
                       unsigned char *known)
{
    slot->is_own = plan->n > 0;
    for (size_t i = 0; i < plan->n; i++) {
        const int64_t position = plan->positions[i];
        /* What enters the layer is what left the one before. */
        slot->founded[i] =
            slot->part == RP_PART_IN ? rp_dumped_is_finite(&plan->before, position) : known[i];
        const bool is_finite = rp_dumped_is_finite(&slot->dumped, position);
        if (rp_dumped_row(&slot->dumped, position))
            known[i] = is_finite;
        slot->is_own &= is_finite;
    }
}

static enum rp_status find_founded(struct rp_replay_plan *plan, int64_t first_position,
                                   struct rp_error *err)
{
    unsigned char *known = calloc(RP_N_BUFFERS * plan->n + 1, 1);
    enum rp_status status = RP_OK;
    size_t k = 0;
    if (!known)
        return no_memory(plan, err);
    for (size_t i = 0; i < plan->n; i++)
        known[RP_BUFFER_HIDDEN * plan->n + i] = set_input(plan, i);
    find_gap(plan, first_position, known + RP_BUFFER_HIDDEN * plan->n);
    for (size_t i = 0; i < plan->n_steps && status == RP_OK; i++) {
        const struct rp_step *step = &plan->steps[i];
        if (step->kind != RP_STEP_TAP) {
            follow_step(plan, step, first_position, known);
            continue;
        }
        struct rp_planned_slot *slot = &plan->slots[k++];
        follow_tap(plan, slot, known + step->in * plan->n);
        if (slot->part == RP_PART_EXPERTS)
            status = drop_no_choices(plan, slot, known + step->in * plan->n, err);
    }
    free(known);
    return status;
}

/* ---- what a slot is computed from ---- */

/* The name goes in front of list, as the walk is backwards. */
static void add_name(char *list, size_t size, const char *name)
{
    char rest[160];
    snprintf(rest, sizeof rest, "%s", list);
    snprintf(list, size, "%s%s%.90s", name, rest[0] ? ", " : "", rest);
}

/* Whether engines may round what the step reads. */
static bool may_round(const struct rp_step *step)
{
    return rp_step_is_product(step) || step->kind == RP_STEP_KV_STORE ||
           step->kind == RP_STEP_ATTENTION;
}

static void find_steps(struct rp_replay_plan *plan, struct rp_planned_slot *slot)
{
    bool is_needed[RP_N_BUFFERS] = {false}, is_needed_of_all[RP_N_BUFFERS] = {false};
    bool is_rounded[RP_N_BUFFERS] = {false};
    char nearest[RP_SLOT_NAME_SIZE] = "";
    size_t n_operations = 0, at = (size_t)(slot - plan->slots);
    bool is_partial = false;
    slot->operation = plan->n_steps;
    is_needed[plan->steps[slot->tap].in] = true;
    for (size_t i = slot->tap; i-- > 0;) {
        const struct rp_step *step = &plan->steps[i];
        const struct rp_step_flow flow = rp_step_flow(step);
        bool is_written = false, is_of_all = false;
        if (step->kind == RP_STEP_TAP) {
            const struct rp_planned_slot *source = &plan->slots[--at];
            if (!is_needed[step->in])
                continue;
            slot->steps[i] = source->dumped.tensor.n_positions > 0;
            if (source->is_own) {
                is_needed[step->in] = is_needed_of_all[step->in] = false;
                add_name(slot->from, sizeof slot->from, source->dumped.slot);
            } else if (source->part != RP_PART_IN) {
                if (!nearest[0])
                    memcpy(nearest, source->dumped.slot, sizeof nearest);
                if (is_rounded[step->in])
                    add_name(slot->between, sizeof slot->between, source->dumped.slot);
            }
            is_rounded[step->in] = false;
            is_partial |= !source->is_own && slot->steps[i];
            continue;
        }
        for (size_t k = 0; k < flow.n_writes; k++) {
            is_written |= is_needed[flow.writes[k]];
            is_of_all |= is_needed_of_all[flow.writes[k]];
            slot->earlier[i] |= is_needed_of_all[flow.writes[k]];
        }
        if (!is_written)
            continue;
        slot->steps[i] = 1;
        n_operations += flow.is_operation;
        if (flow.is_operation && slot->operation == plan->n_steps)
            slot->operation = i;
        if (flow.is_operation)
            slot->first_operation = i;
        for (size_t k = 0; k < flow.n_writes; k++) {
            is_needed[flow.writes[k]] = is_needed_of_all[flow.writes[k]] = false;
            is_rounded[flow.writes[k]] = false;
        }
        for (size_t k = 0; k < flow.n_reads; k++) {
            is_needed[flow.reads[k]] = true;
            is_needed_of_all[flow.reads[k]] |= is_of_all || is_read_of_all(step, flow.reads[k]);
            is_rounded[flow.reads[k]] |= may_round(step) && flow.reads[k] != RP_BUFFER_EXPERTS;
        }
    }
    if (is_needed[RP_BUFFER_HIDDEN])
        add_name(slot->from, sizeof slot->from, plan->before.slot);
    slot->is_direct = n_operations <= 1 && !is_partial;
    if (slot->is_direct)
        slot->between[0] = '\0';
    else if (!slot->between[0])
        memcpy(slot->between, nearest, sizeof nearest);
}

/* ---- open and close ---- */

static enum rp_status open_slots(struct rp_replay_plan *plan, struct rp_tensor_set *dump,
                                 struct rp_error *err)
{
    const struct rp_model_config config =
        rp_layer_config(rp_model_config(plan->model), plan->layer);
    for (size_t i = 0; i < plan->n_steps; i++) {
        const struct rp_step *step = &plan->steps[i];
        if (step->kind != RP_STEP_TAP)
            continue;
        struct rp_planned_slot *slot = &plan->slots[plan->n_slots++];
        slot->part = step->part;
        slot->tap = i;
        slot->dim = rp_buffer_width(&config, step->in);
        slot->steps = calloc(plan->n_steps, 1);
        slot->earlier = calloc(plan->n_steps, 1);
        if (!slot->steps || !slot->earlier)
            return no_memory(plan, err);
        rp_dumped_open(&slot->dumped, dump, step->part, (int)plan->layer);
        rp_dumped_check(&slot->dumped);
    }
    return RP_OK;
}

static enum rp_status alloc_rows(struct rp_replay_plan *plan, struct rp_error *err)
{
    if (plan->n > SIZE_MAX / sizeof(float) / plan->hidden_size - 1)
        return no_memory(plan, err);
    plan->input = calloc(plan->n * plan->hidden_size + 1, sizeof *plan->input);
    bool has_memory = plan->input != NULL;
    for (size_t k = 0; k < plan->n_slots; k++) {
        plan->slots[k].founded = calloc(plan->n + 1, 1);
        has_memory &= plan->slots[k].founded != NULL;
    }
    return has_memory ? RP_OK : no_memory(plan, err);
}

size_t rp_dump_sequence_length(const struct rp_tensor_set *dump)
{
    int64_t last = -1;
    for (size_t i = 0; i < rp_tensor_set_n_slots(dump); i++) {
        const struct rp_slot_info *info = rp_tensor_set_slot(dump, i);
        if (info->error.code == RP_OK && info->n_positions > 0 &&
            info->positions[info->n_positions - 1] > last)
            last = info->positions[info->n_positions - 1];
    }
    return (size_t)(last + 1);
}

enum rp_status rp_replay_plan_open(struct rp_replay_plan *plan, const struct rp_model *model,
                                   struct rp_tensor_set *dump, size_t layer, int64_t first_position,
                                   struct rp_error *err)
{
    const struct rp_layer_plan *layer_plan = rp_layer_plan_of(model, layer);
    *plan = (struct rp_replay_plan){.model = model,
                                    .layer = layer,
                                    .steps = layer_plan->steps,
                                    .n_steps = layer_plan->n_steps,
                                    .sequence_length = rp_dump_sequence_length(dump),
                                    .hidden_size = rp_model_config(model)->hidden_size,
                                    .gap = -1};
    if (layer == 0)
        rp_dumped_open(&plan->before, dump, RP_PART_EMB, -1);
    else
        rp_dumped_open(&plan->before, dump, RP_PART_OUTPUT, (int)layer - 1);
    rp_dumped_check(&plan->before);
    enum rp_status status = open_slots(plan, dump, err);
    if (status == RP_OK)
        status = collect_positions(plan, err);
    if (status == RP_OK)
        status = alloc_rows(plan, err);
    if (status == RP_OK)
        status = find_founded(plan, first_position, err);
    for (size_t k = 0; k < plan->n_slots && status == RP_OK; k++)
        find_steps(plan, &plan->slots[k]);
    if (status != RP_OK)
        rp_replay_plan_close(plan);
    return status;
}

void rp_replay_plan_close(struct rp_replay_plan *plan)
{
    rp_dumped_close(&plan->before);
    for (size_t k = 0; k < plan->n_slots; k++) {
        rp_dumped_close(&plan->slots[k].dumped);
        free(plan->slots[k].founded);
        free(plan->slots[k].steps);
        free(plan->slots[k].earlier);
    }
    free(plan->positions);
    free(plan->input);
    *plan = (struct rp_replay_plan){.model = NULL};
}

size_t rp_replay_plan_choice(const struct rp_replay_plan *plan)
{
    size_t i = 0;
    while (i < plan->n_steps && plan->steps[i].kind != RP_STEP_CHOOSE_EXPERTS)
        i++;
    return i;
}

bool rp_replay_plan_has_choice(const struct rp_replay_plan *plan)
{
    const size_t choice = rp_replay_plan_choice(plan);
    for (size_t k = 0; k < plan->n_slots && choice < plan->n_steps; k++)
        if (plan->slots[k].dumped.tensor.n_positions > 0 && plan->slots[k].steps[choice])
            return true;
    return false;
}

const struct rp_planned_slot *rp_replay_plan_slot(const struct rp_replay_plan *plan,
                                                  enum rp_slot_part part)
{
    for (size_t k = 0; k < plan->n_slots; k++) {
        if (plan->slots[k].part == part)
            return &plan->slots[k];
    }
    return NULL;
}
