/* See replay/trial.h. */
#include "replay/trial.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "replay/frozen.h"

/* How far a flip to F16 in K, V or a softmax weight moves a value of attention's output, over the
 * row's RMS: half a step of a value four times that. The floor's runs may have met none nearby. */
#define F16_OFF 0x1p-9

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
    struct rp_trial *trial = context;
    const struct rp_forced *forced = trial->search->forced;
    const size_t k = rp_forced_index(tap->part), dim = forced->dim;
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
    trial->is_complete = k >= trial->last_part;
    return trial->is_complete ? rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "the rest is not needed")
                              : RP_OK;
}

size_t rp_trial_n_followers(const struct rp_trial *trial)
{
    const struct rp_forced *forced = trial->search->forced;
    const struct rp_model_config *config = rp_model_config(forced->model);
    return config->layer_kinds[forced->layer] == RP_LAYER_LINEAR_ATTENTION ? config->conv_kernel - 1
                                                                           : 0;
}

void rp_trial_add_row(struct rp_trial *trial, size_t row)
{
    const struct rp_forced *forced = trial->search->forced;
    if (row >= forced->n || (trial->n_rows > 0 && row <= trial->rows[trial->n_rows - 1]))
        return;
    trial->rows[trial->n_rows] = row;
    trial->positions[trial->n_rows] = forced->positions[row];
    memcpy(trial->hidden + trial->n_rows * forced->dim, forced->input + row * forced->dim,
           forced->dim * sizeof(float));
    trial->n_rows++;
}

/* The rows of the open tasks and, where something is kept of them, those that follow. */
static void choose_rows(struct rp_trial *trial, bool commits)
{
    const size_t n_more = commits ? rp_trial_n_followers(trial) : 0;
    trial->n_rows = trial->last_part = 0;
    for (size_t i = 0; i < trial->n_tasks; i++) {
        const struct rp_trial_task *task = &trial->tasks[i];
        if (task->is_done)
            continue;
        trial->last_part = task->part > trial->last_part ? task->part : trial->last_part;
        for (size_t more = 0; more <= n_more; more++)
            rp_trial_add_row(trial, task->row + more);
    }
}

static void add_flips(struct rp_trial *trial, const struct rp_tie *ties, size_t n)
{
    if (n > 0)
        memcpy(trial->flips + trial->n_flips, ties, n * sizeof *ties);
    trial->n_flips += n;
}

static void choose_flips(struct rp_trial *trial)
{
    trial->n_flips = 0;
    add_flips(trial, trial->earlier, trial->n_earlier);
    for (size_t i = 0; i < trial->n_tasks; i++) {
        const struct rp_trial_task *task = &trial->tasks[i];
        add_flips(trial, task->accepted, task->n_accepted);
        if (!task->is_done && task->has_next)
            add_flips(trial, &task->candidates.ties[task->next], 1);
        if (!task->is_done && task->has_set)
            add_flips(trial, task->set, task->n_set);
    }
}

enum rp_status rp_trial_run_rows(struct rp_trial *trial, bool commits, struct rp_error *err)
{
    struct rp_flip_search *search = trial->search;
    const struct rp_forced *forced = search->forced;
    const struct rp_forward forward = {.model = forced->model,
                                       .ops = &trial->recall.overlay.ops,
                                       .mode = search->mode,
                                       .tap = watch,
                                       .tap_context = trial};
    struct rp_layer_state *state = NULL;
    struct rp_error ended;
    trial->recall.rows = trial->rows;
    trial->recall.commits = commits;
    trial->is_complete = false;
    trial->n_runs++;
    search->emulation->flips = trial->flips;
    search->emulation->n_flips = trial->n_flips;
    search->emulation->n_ties = 0;
    search->emulation->tie_tolerances = commits ? trial->tolerances : NULL;
    enum rp_status status =
        rp_layer_state_open(forced->model, forced->layer, trial->n_rows, &state, err);
    if (status == RP_OK) {
        status = rp_layer_forward(&forward, forced->layer, search->weights, state, trial->n_rows,
                                  trial->positions, trial->hidden, &ended);
        if (trial->is_complete)
            status = RP_OK;
        else if (status != RP_OK)
            *err = ended;
    }
    rp_layer_state_close(state);
    search->emulation->flips = NULL;
    search->emulation->n_flips = 0;
    search->emulation->tie_tolerances = NULL;
    return status;
}

enum rp_status rp_trial_run(struct rp_trial *trial, bool commits, struct rp_error *err)
{
    choose_flips(trial);
    choose_rows(trial, commits);
    return rp_trial_run_rows(trial, commits, err);
}

bool rp_trial_is_over(const struct rp_trial *trial, const struct rp_trial_task *task, double error)
{
    const double floor = trial->search->floor[task->part][task->row];
    return rp_is_over(error, floor < RP_REPLAY_MIN_FLOOR ? RP_REPLAY_MIN_FLOOR : floor);
}

/* ---- the tasks ---- */

/* ---- lists of near-ties ---- */

bool rp_tie_is_among(const struct rp_tie *tie, const struct rp_tie *ties, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (ties[i].position == tie->position && ties[i].which == tie->which &&
            ties[i].format == tie->format && ties[i].kind == tie->kind &&
            ties[i].index == tie->index)
            return true;
    }
    return false;
}

bool rp_tie_is_read_later(const struct rp_tie *tie)
{
    return tie->which == RP_ATTN_NORM || tie->which == RP_ATTN_K || tie->which == RP_ATTN_V;
}

/* How far what a tie is of may be off, where it moved by noise. */
static double tolerance_of(const struct rp_trial *trial, enum rp_weight_id which, double noise)
{
    const double tolerance = trial->search->sigmas * noise;
    const bool is_off = which == RP_ATTN_OUTPUT && trial->allows_off;
    return is_off ? fmax(tolerance, F16_OFF) : tolerance;
}

static void set_tolerances(struct rp_trial *trial)
{
    const struct rp_inputs *inputs = trial->search->inputs;
    for (size_t i = 0; i < RP_N_LAYER_WEIGHTS; i++) {
        const enum rp_weight_id which = (enum rp_weight_id)i;
        trial->tolerances[i] = tolerance_of(trial, which, rp_inputs_most_noise(inputs, which));
    }
}

bool rp_trial_is_near(const struct rp_trial *trial, struct rp_tie *tie, size_t row)
{
    const double noise = rp_inputs_noise(trial->search->inputs, tie->which, row);
    tie->distance *= trial->tolerances[tie->which] / tolerance_of(trial, tie->which, noise);
    return tie->distance <= 1;
}

/* The noise has heavier tails than a normal distribution: one flip to F16 in V moves one value of the
 * row. */
static double weight(const struct rp_trial *trial, const struct rp_tie *tie)
{
    const double sigmas = trial->search->sigmas * tie->distance;
    return tie->step / (1 + sigmas * sigmas);
}

void rp_trial_insert(struct rp_trial *trial, struct rp_tie_list *list, const struct rp_tie *tie)
{
    size_t at = list->n;
    if (at == list->capacity) {
        trial->search->is_bounded = true;
        if (!(weight(trial, tie) > weight(trial, &list->ties[--at])))
            return;
    } else {
        list->n++;
    }
    for (; at > 0 && weight(trial, tie) > weight(trial, &list->ties[at - 1]); at--)
        list->ties[at] = list->ties[at - 1];
    list->ties[at] = *tie;
}

static bool list_open(struct rp_tie_list *list, size_t capacity)
{
    list->capacity = capacity;
    list->ties = calloc(capacity, sizeof *list->ties);
    return list->ties != NULL;
}

enum rp_status rp_trial_open_task(const struct rp_trial *trial, struct rp_trial_task *task,
                                  struct rp_error *err)
{
    if (task->effects)
        return RP_OK;
    task->residual = calloc(trial->width + 1, sizeof *task->residual);
    task->effects = calloc(RP_MAX_CANDIDATES * trial->width + 1, sizeof *task->effects);
    if (!task->residual || !task->effects || !list_open(&task->candidates, RP_MAX_CANDIDATES) ||
        !list_open(&task->direct, RP_MAX_DIRECT))
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for near-ties");
    return RP_OK;
}

/* ---- the tasks ---- */

/* Rows that a flip can explain: finite, and in a slot that products come before. */
static bool is_task(const struct rp_flip_search *search, size_t part, size_t row)
{
    const struct rp_forced *forced = search->forced;
    return forced->founded[part][row] &&
           rp_dumped_row(&forced->parts[part], forced->positions[row]) &&
           isfinite(search->errors[part][row].introduced);
}

static enum rp_status list_tasks(struct rp_trial *trial, struct rp_error *err)
{
    const struct rp_flip_search *search = trial->search;
    const size_t n = search->forced->n;
    trial->tasks = calloc(n * RP_N_FORCED_PARTS + 1, sizeof *trial->tasks);
    if (!trial->tasks)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", n);
    for (size_t row = 0; row < n; row++) {
        for (size_t part = 1; part < RP_N_FORCED_PARTS; part++) {
            const double error = search->errors[part][row].introduced;
            struct rp_trial_task task = {
                .part = part, .row = row, .error = error, .is_changed = true};
            task.is_done = !rp_trial_is_over(trial, &task, error);
            if (is_task(search, part, row))
                trial->tasks[trial->n_tasks++] = task;
        }
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
    trial->allows_off = rp_has_f16_attention(&search->emulation->numerics);
    set_tolerances(trial);
    rp_recall_open(&trial->recall, n, forced->positions, search->ops);
    trial->recall.numerics = &search->emulation->numerics;
    enum rp_status status = list_tasks(trial, err);
    if (status != RP_OK || trial->n_tasks == 0)
        return status;
    trial->rows = calloc(n + 1, sizeof *trial->rows);
    trial->positions = calloc(n + 1, sizeof *trial->positions);
    trial->hidden = calloc(n * forced->dim + 1, sizeof *trial->hidden);
    trial->flips =
        calloc(RP_MAX_EARLIER + 1 + trial->n_tasks * (2 * RP_MAX_FLIPS + 1), sizeof *trial->flips);
    bool has_memory = trial->rows && trial->positions && trial->hidden && trial->flips &&
                      list_open(&trial->pool, RP_MAX_POOL);
    for (size_t k = 0; k < RP_N_FORCED_PARTS; k++) {
        trial->errors[k] = calloc(n + 1, sizeof *trial->errors[k]);
        trial->residuals[k] = calloc(n * trial->width + 1, sizeof *trial->residuals[k]);
        has_memory &= trial->errors[k] && trial->residuals[k];
    }
    return has_memory ? RP_OK
                      : rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", n);
}

void rp_trial_close(struct rp_trial *trial)
{
    for (size_t k = 0; k < RP_N_FORCED_PARTS; k++) {
        free(trial->errors[k]);
        free(trial->residuals[k]);
    }
    for (size_t i = 0; i < trial->n_tasks && trial->tasks; i++) {
        free(trial->tasks[i].residual);
        free(trial->tasks[i].effects);
        free(trial->tasks[i].candidates.ties);
        free(trial->tasks[i].direct.ties);
    }
    free(trial->rows);
    free(trial->positions);
    free(trial->hidden);
    free(trial->tasks);
    free(trial->flips);
    free(trial->pool.ties);
    rp_recall_close(&trial->recall);
}
