/* See replay/layer_run.h. */
#include "replay/layer_run.h"

#include <stdlib.h>
#include <string.h>

struct forcing {
    const struct rp_replay_plan *plan;
    const struct rp_layer_run *run;
};

/* What enters the layer is what left the one before, whose rows are dumped. */
static enum rp_status see_input(const struct forcing *forcing, const struct rp_planned_slot *slot,
                                struct rp_error *err)
{
    const struct rp_replay_plan *plan = forcing->plan;
    float *rows = calloc(plan->n * slot->dim + 1, sizeof *rows);
    if (!rows)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", plan->n);
    for (size_t i = 0; i < plan->n; i++) {
        const void *row = rp_dumped_row(&plan->before, plan->positions[i]);
        if (row && plan->before.tensor.dim == slot->dim)
            memcpy(rows + i * slot->dim, row, slot->dim * sizeof *rows);
    }
    const enum rp_status status = forcing->run->see(forcing->run->context, slot, rows, err);
    free(rows);
    return status;
}

/* Rows of other runs may have other ties. */
static void keep_choice(const struct rp_layer_run *run, const struct rp_tap *tap)
{
    const size_t n_bytes = tap->n_positions * tap->dim * sizeof *tap->rows;
    if (run->has_choice)
        memcpy(tap->rows, run->choice, n_bytes);
    else
        memcpy(run->choice, tap->rows, n_bytes);
}

static enum rp_status force(void *context, const struct rp_tap *tap, struct rp_error *err)
{
    const struct forcing *forcing = context;
    const struct rp_replay_plan *plan = forcing->plan;
    const struct rp_planned_slot *slot = rp_replay_plan_slot(plan, tap->part);
    enum rp_status status = RP_OK;
    if (tap->part == RP_PART_EXPERTS && forcing->run->choice)
        keep_choice(forcing->run, tap);
    if (forcing->run->see)
        status = slot->part == RP_PART_IN
                     ? see_input(forcing, slot, err)
                     : forcing->run->see(forcing->run->context, slot, tap->rows, err);
    for (size_t i = 0; i < plan->n && status == RP_OK; i++) {
        if (rp_dumped_is_finite(&slot->dumped, plan->positions[i]))
            memcpy(tap->rows + i * tap->dim, rp_dumped_row(&slot->dumped, plan->positions[i]),
                   tap->dim * sizeof *tap->rows);
    }
    return status;
}

enum rp_status rp_replay_layer_run(const struct rp_replay_plan *plan,
                                   const struct rp_layer_run *run, struct rp_error *err)
{
    struct forcing forcing = {.plan = plan, .run = run};
    const struct rp_forward forward = {.model = plan->model,
                                       .ops = run->ops,
                                       .mode = run->mode,
                                       .tap = force,
                                       .tap_context = &forcing,
                                       .sequence_length = plan->sequence_length,
                                       .steps = run->steps};
    struct rp_layer_state *state = NULL;
    const size_t n_values = plan->n * plan->hidden_size;
    if (plan->n == 0)
        return RP_OK;
    float *hidden = calloc(n_values, sizeof *hidden);
    if (!hidden)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", plan->n);
    memcpy(hidden, plan->input, n_values * sizeof *hidden);
    enum rp_status status = rp_layer_state_open(plan->model, plan->layer, plan->n, &state, err);
    if (status == RP_OK)
        status = rp_layer_forward(&forward, plan->layer, run->weights, state, plan->n,
                                  plan->positions, hidden, err);
    rp_layer_state_close(state);
    free(hidden);
    return status;
}
