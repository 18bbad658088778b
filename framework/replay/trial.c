/* See replay/trial.h. */
#include "replay/trial.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- a run over some rows ---- */

/* engine and row are [dim], engine's at any alignment. */
static void sample(const struct rp_trial *trial, const void *engine, const float *row,
                   float *residual)
{
    const size_t dim = trial->search->forced->dim;
    for (size_t i = 0; i < trial->width; i++) {
        const size_t channel = i * dim / trial->width;
        float value;
        memcpy(&value, (const unsigned char *)engine + channel * sizeof value, sizeof value);
        residual[i] = value - row[channel];
    }
}

static enum rp_status watch(void *context, const struct rp_tap *tap, struct rp_error *err)
{
    (void)err;
    struct rp_trial *trial = context;
    const struct rp_forced *forced = trial->search->forced;
    const size_t k = (size_t)(tap->part - RP_PART_IN), dim = forced->dim;
    for (size_t i = 0; i < trial->n_rows; i++) {
        float *row = tap->rows + i * dim;
        const int64_t position = trial->positions[i];
        const void *engine = rp_dumped_row(&forced->parts[k], position);
        if (!engine)
            continue;
        trial->errors[k][trial->rows[i]] = rp_row_error_of(row, engine, dim).introduced;
        sample(trial, engine, row, trial->residuals[k] + trial->rows[i] * trial->width);
        if (rp_dumped_is_finite(&forced->parts[k], position))
            memcpy(row, engine, dim * sizeof *row);
    }
    return RP_OK;
}

/* How many rows after one read what its convolution was given. */
static size_t n_followers(const struct rp_forced *forced)
{
    const struct rp_model_config *config = rp_model_config(forced->model);
    return config->layer_kinds[forced->layer] == RP_LAYER_LINEAR_ATTENTION ? config->conv_kernel - 1
                                                                           : 0;
}

/* The rows of the open tasks and, where something is kept of them, those that follow. */
static void choose_rows(struct rp_trial *trial, bool commits)
{
    const struct rp_forced *forced = trial->search->forced;
    const size_t n_more = commits ? n_followers(forced) : 0;
    trial->n_rows = 0;
    for (size_t i = 0; i < trial->n_tasks; i++) {
        const size_t first = trial->tasks[i].row;
        size_t row = trial->n_rows > 0 ? trial->rows[trial->n_rows - 1] + 1 : 0;
        if (trial->tasks[i].is_done)
            continue;
        for (row = row > first ? row : first; row <= first + n_more && row < forced->n; row++) {
            trial->rows[trial->n_rows] = row;
            trial->positions[trial->n_rows] = forced->positions[row];
            memcpy(trial->hidden + trial->n_rows * forced->dim, forced->input + row * forced->dim,
                   forced->dim * sizeof(float));
            trial->n_rows++;
        }
    }
}

static size_t choose_flips(struct rp_trial *trial)
{
    size_t n = 0;
    for (size_t i = 0; i < trial->n_tasks; i++) {
        const struct rp_trial_task *task = &trial->tasks[i];
        for (size_t k = 0; k < task->n_accepted; k++)
            trial->flips[n++] = task->accepted[k];
        if (!task->is_done && task->has_next)
            trial->flips[n++] = task->candidates[task->next];
        for (size_t k = 0; k < task->n_set && !task->is_done && task->has_set; k++)
            trial->flips[n++] = task->set[k];
    }
    return n;
}

enum rp_status rp_trial_run(struct rp_trial *trial, bool commits, struct rp_error *err)
{
    struct rp_flip_search *search = trial->search;
    const struct rp_forced *forced = search->forced;
    const struct rp_forward forward = {.model = forced->model,
                                       .ops = &trial->recall.overlay.ops,
                                       .mode = search->mode,
                                       .tap = watch,
                                       .tap_context = trial};
    struct rp_layer_state *state = NULL;
    const size_t n_flips = choose_flips(trial);
    choose_rows(trial, commits);
    trial->recall.rows = trial->rows;
    trial->recall.commits = commits;
    trial->n_runs++;
    search->emulation->flips = trial->flips;
    search->emulation->n_flips = n_flips;
    search->emulation->n_ties = 0;
    search->emulation->tie_tolerance =
        commits ? search->sigmas * rp_inputs_most_noise(search->inputs) : 0;
    enum rp_status status =
        rp_layer_state_open(forced->model, forced->layer, trial->n_rows, &state, err);
    if (status == RP_OK)
        status = rp_layer_forward(&forward, forced->layer, search->weights, state, trial->n_rows,
                                  trial->positions, trial->hidden, err);
    rp_layer_state_close(state);
    search->emulation->flips = NULL;
    search->emulation->n_flips = 0;
    search->emulation->tie_tolerance = 0;
    return status;
}

bool rp_trial_is_over(const struct rp_trial *trial, const struct rp_trial_task *task, double error)
{
    const double floor = trial->search->floor[task->part][task->row];
    return rp_is_over(error, floor < RP_REPLAY_MIN_FLOOR ? RP_REPLAY_MIN_FLOOR : floor);
}

/* ---- the tasks ---- */

/* Rows that a flip can explain: finite, and in a slot that products come before. */
static bool is_task(const struct rp_flip_search *search, size_t part, size_t row)
{
    const struct rp_forced *forced = search->forced;
    const double error = search->errors[part][row].introduced;
    const double floor = search->floor[part][row];
    return forced->founded[part][row] &&
           rp_dumped_row(&forced->parts[part], forced->positions[row]) && isfinite(error) &&
           rp_is_over(error, floor < RP_REPLAY_MIN_FLOOR ? RP_REPLAY_MIN_FLOOR : floor);
}

static enum rp_status list_tasks(struct rp_trial *trial, struct rp_error *err)
{
    const struct rp_flip_search *search = trial->search;
    const size_t n = search->forced->n;
    for (size_t pass = 0; pass < 2; pass++) {
        trial->n_tasks = 0;
        for (size_t row = 0; row < n; row++) {
            for (size_t part = 1; part < RP_N_LAYER_PARTS; part++) {
                if (!is_task(search, part, row))
                    continue;
                if (trial->tasks)
                    trial->tasks[trial->n_tasks] = (struct rp_trial_task){.part = part, .row = row};
                trial->n_tasks++;
            }
        }
        if (pass == 0) {
            trial->tasks = calloc(trial->n_tasks + 1, sizeof *trial->tasks);
            trial->flips =
                calloc(trial->n_tasks * (2 * RP_MAX_FLIPS + 1) + 1, sizeof *trial->flips);
            if (!trial->tasks || !trial->flips)
                return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu near-ties",
                               trial->n_tasks);
        }
    }
    return RP_OK;
}

/* Room for what each task compares. */
static enum rp_status open_tasks(struct rp_trial *trial, struct rp_error *err)
{
    for (size_t i = 0; i < trial->n_tasks; i++) {
        struct rp_trial_task *task = &trial->tasks[i];
        task->is_changed = true;
        task->residual = calloc(trial->width, sizeof *task->residual);
        task->effects = calloc(RP_MAX_CANDIDATES * trial->width, sizeof *task->effects);
        if (!task->residual || !task->effects)
            return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu near-ties",
                           trial->n_tasks);
    }
    return RP_OK;
}

enum rp_status rp_trial_open(struct rp_trial *trial, struct rp_flip_search *search,
                             struct rp_error *err)
{
    const struct rp_forced *forced = search->forced;
    const size_t n = forced->n;
    *trial = (struct rp_trial){.search = search,
                               .width = forced->dim < RP_SAMPLE ? forced->dim : RP_SAMPLE};
    rp_recall_open(&trial->recall, n, forced->positions, search->ops);
    trial->recall.numerics = &search->emulation->numerics;
    enum rp_status status = list_tasks(trial, err);
    if (status != RP_OK || trial->n_tasks == 0)
        return status;
    trial->rows = calloc(n + 1, sizeof *trial->rows);
    trial->positions = calloc(n + 1, sizeof *trial->positions);
    trial->hidden = calloc(n * forced->dim + 1, sizeof *trial->hidden);
    bool has_memory = trial->rows && trial->positions && trial->hidden;
    for (size_t k = 0; k < RP_N_LAYER_PARTS; k++) {
        trial->errors[k] = calloc(n + 1, sizeof *trial->errors[k]);
        trial->residuals[k] = calloc(n * trial->width + 1, sizeof *trial->residuals[k]);
        has_memory &= trial->errors[k] && trial->residuals[k];
    }
    if (!has_memory)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", n);
    return open_tasks(trial, err);
}

void rp_trial_close(struct rp_trial *trial)
{
    for (size_t k = 0; k < RP_N_LAYER_PARTS; k++) {
        free(trial->errors[k]);
        free(trial->residuals[k]);
    }
    for (size_t i = 0; i < trial->n_tasks && trial->tasks; i++) {
        free(trial->tasks[i].residual);
        free(trial->tasks[i].effects);
    }
    free(trial->rows);
    free(trial->positions);
    free(trial->hidden);
    free(trial->tasks);
    free(trial->flips);
    rp_recall_close(&trial->recall);
}
