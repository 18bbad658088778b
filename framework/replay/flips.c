/* See replay/flips.h. Every row over its limit has its own list of near-ties, and all rows try their
 * next one in the same run (recall.h keeps them apart). A flip is kept where it brings the row under
 * the limit; else those that by their effects add up to the error are tried together; else the best is
 * kept where it cuts the error decisively. Then the list is made anew, as a flip moves what is rounded
 * after it. Why this hides no bug is in README.md. */
#include "replay/flips.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "replay/trial.h"

#define MAX_RUNS 200
/* What a flip has to leave of the error, at most. Of five flips of equal size the first leaves
 * sqrt(4/5) = 0.894. A vector in no relation to the error would need a cosine of 0.44 with it. */
#define DECISIVE 0.9
#define IN_SET 0.5 /* a share of an effect counts as all of it, or as none */

static bool is_of_ffn(const struct rp_tie *tie)
{
    return tie->which == RP_FFN_NORM || tie->which == RP_FFN_GATE || tie->which == RP_FFN_UP ||
           tie->which == RP_FFN_DOWN;
}

/* Flips to F16 between Q, K, V and the softmax weights: at every position, of every earlier one. They
 * are part of the floor (frozen.h), and where a coarser rounding follows they do not get past it but by
 * a flip of that. */
static bool is_in_attention(const struct rp_tie *tie)
{
    return tie->format == RP_GGML_F16 && (tie->which == RP_ATTN_Q || tie->which == RP_ATTN_K ||
                                          tie->which == RP_ATTN_V || tie->which == RP_N_WEIGHTS);
}

/* The slot in which a tie of that row shows: the first dumped one after it. */
static size_t part_shown_in(const struct rp_forced *forced, const struct rp_tie *tie, size_t row)
{
    size_t k = (is_of_ffn(tie) ? RP_PART_FFNOUT : RP_PART_POSTATTN) - RP_PART_IN;
    while (k < RP_N_LAYER_PARTS && !rp_dumped_row(&forced->parts[k], forced->positions[row]))
        k++;
    return k;
}

static bool is_same(const struct rp_tie *a, const struct rp_tie *b)
{
    return a->position == b->position && a->which == b->which && a->format == b->format &&
           a->kind == b->kind && a->index == b->index;
}

static bool is_accepted(const struct rp_trial_task *task, const struct rp_tie *tie)
{
    for (size_t i = 0; i < task->n_accepted; i++) {
        if (is_same(&task->accepted[i], tie))
            return true;
    }
    return false;
}

/* What is likely to have flipped and moves much comes first. The noise has heavier tails than a
 * normal distribution: one flip to F16 in V moves one value of the row. */
static double weight(const struct rp_trial *trial, const struct rp_tie *tie)
{
    const double sigmas = trial->search->sigmas * tie->distance;
    return tie->step / (1 + sigmas * sigmas);
}

/* Inserts by weight; the last one falls out of a full list. */
static void insert(struct rp_trial *trial, struct rp_trial_task *task, const struct rp_tie *tie)
{
    size_t at = task->n_candidates;
    if (at == RP_MAX_CANDIDATES) {
        trial->search->is_bounded = true;
        if (!(weight(trial, tie) > weight(trial, &task->candidates[--at])))
            return;
    } else {
        task->n_candidates++;
    }
    for (; at > 0 && weight(trial, tie) > weight(trial, &task->candidates[at - 1]); at--)
        task->candidates[at] = task->candidates[at - 1];
    task->candidates[at] = *tie;
}

/* The near-ties of the run that has just been made, for every task that it has changed. Their
 * distances become those over what their own row may be off by. */
static void list_candidates(struct rp_trial *trial)
{
    const struct rp_flip_search *search = trial->search;
    const struct rp_forced *forced = search->forced;
    const double most_noise = rp_inputs_most_noise(search->inputs);
    for (size_t i = 0; i < trial->n_tasks; i++) {
        struct rp_trial_task *task = &trial->tasks[i];
        if (task->is_done || !task->is_changed)
            continue;
        task->is_changed = task->has_tried_set = false;
        task->n_candidates = task->next = 0;
        task->best_error = task->set_error = (double)INFINITY;
        memcpy(task->residual, trial->residuals[task->part] + task->row * trial->width,
               trial->width * sizeof *task->residual);
        for (size_t k = 0; k < search->emulation->n_ties; k++) {
            struct rp_tie tie = search->emulation->ties[k];
            tie.distance *= most_noise / rp_inputs_noise(search->inputs, tie.which, task->row);
            if (!is_in_attention(&tie) && tie.distance <= 1 &&
                tie.position == forced->positions[task->row] &&
                part_shown_in(forced, &tie, task->row) == task->part && !is_accepted(task, &tie))
                insert(trial, task, &tie);
        }
    }
}

static bool has_open_task(const struct rp_trial *trial)
{
    for (size_t i = 0; i < trial->n_tasks; i++) {
        if (!trial->tasks[i].is_done)
            return true;
    }
    return false;
}

/* After a run of what is accepted. True where a task's flips have to be taken back: what an earlier
 * row leaves behind has changed, and what was a flip may now be rounded that way by itself. */
static bool take_errors(struct rp_trial *trial)
{
    bool has_taken_back = false;
    for (size_t i = 0; i < trial->n_tasks; i++) {
        struct rp_trial_task *task = &trial->tasks[i];
        if (task->is_done)
            continue;
        task->error = trial->errors[task->part][task->row];
        const bool is_still_over = rp_trial_is_over(trial, task, task->error);
        if (is_still_over && task->is_reopened && task->n_accepted > 0) {
            task->n_accepted = 0;
            has_taken_back = true;
        }
        task->is_changed |= task->is_reopened;
        task->is_reopened = false;
        task->is_done = !is_still_over || task->n_accepted == RP_MAX_FLIPS;
    }
    return has_taken_back;
}

/* Runs what is accepted, notes what it leaves behind, and lists what comes next. */
static enum rp_status settle(struct rp_trial *trial, struct rp_error *err)
{
    bool is_settled = false;
    for (size_t i = 0; i < trial->n_tasks; i++)
        trial->tasks[i].has_next = trial->tasks[i].has_set = false;
    while (!is_settled && has_open_task(trial)) {
        const enum rp_status status = rp_trial_run(trial, true, err);
        if (status != RP_OK)
            return status;
        is_settled = !take_errors(trial);
    }
    list_candidates(trial);
    return RP_OK;
}

static void accept(struct rp_trial_task *task, const struct rp_tie *ties, size_t n)
{
    for (size_t i = 0; i < n && task->n_accepted < RP_MAX_FLIPS; i++)
        task->accepted[task->n_accepted++] = ties[i];
    task->n_candidates = task->next = 0;
    task->is_changed = true;
}

/* A flip in K, V or a recurrent state is read by later rows. */
static void reopen_later(struct rp_trial *trial, const struct rp_trial_task *accepted)
{
    for (size_t i = 0; i < trial->n_tasks; i++) {
        struct rp_trial_task *task = &trial->tasks[i];
        if (task->row > accepted->row && task->part == accepted->part)
            task->is_reopened = true;
        task->is_done = task->is_done && !task->is_reopened;
    }
}

/* The candidates whose effects add up to the error; true where there are several. */
static bool make_set(const struct rp_trial *trial, struct rp_trial_task *task)
{
    double share[RP_MAX_CANDIDATES];
    task->has_tried_set = true;
    task->n_set = 0;
    rp_subset_shares(task->effects, task->n_candidates, trial->width, task->residual, share);
    for (size_t i = 0; i < task->n_candidates; i++) {
        if (!(share[i] > IN_SET))
            continue;
        if (task->n_set == RP_MAX_FLIPS - task->n_accepted)
            return false;
        task->set[task->n_set++] = task->candidates[i];
    }
    return task->n_set > 1;
}

/* All has been tried. True where something was accepted. */
static bool conclude(struct rp_trial_task *task)
{
    const bool is_set = task->set_error < task->best_error;
    const double error = is_set ? task->set_error : task->best_error;
    task->is_done = !(error <= DECISIVE * task->error);
    if (task->is_done)
        return false;
    accept(task, is_set ? task->set : &task->candidates[task->best], is_set ? task->n_set : 1);
    return true;
}

/* What each task tries in the next run. True where some have concluded instead. */
static bool choose_next(struct rp_trial *trial, bool *has_any)
{
    bool has_changed = false;
    *has_any = false;
    for (size_t i = 0; i < trial->n_tasks; i++) {
        struct rp_trial_task *task = &trial->tasks[i];
        task->has_next = !task->is_done && task->next < task->n_candidates;
        task->has_set =
            !task->is_done && !task->has_next && !task->has_tried_set && make_set(trial, task);
        *has_any |= task->has_next || task->has_set;
        if (task->is_done || task->has_next || task->has_set)
            continue;
        if (conclude(task)) {
            has_changed = true;
            reopen_later(trial, task);
        }
    }
    return has_changed;
}

/* What the run has shown of one task; true where it is accepted. */
static bool take_trial(struct rp_trial *trial, struct rp_trial_task *task)
{
    const double error = trial->errors[task->part][task->row];
    const float *residual = trial->residuals[task->part] + task->row * trial->width;
    const bool is_over = rp_trial_is_over(trial, task, error);
    if (task->has_set) {
        task->set_error = error;
        if (!is_over)
            accept(task, task->set, task->n_set);
        return !is_over;
    }
    const size_t tried = task->next++;
    for (size_t i = 0; i < trial->width; i++)
        task->effects[tried * trial->width + i] = task->residual[i] - residual[i];
    if (error < task->best_error) {
        task->best_error = error;
        task->best = tried;
    }
    if (!is_over)
        accept(task, &task->candidates[tried], 1);
    return !is_over;
}

/* Each task tries something. *has_changed: something was accepted. */
static enum rp_status try_next(struct rp_trial *trial, bool *has_changed, struct rp_error *err)
{
    bool has_any;
    *has_changed = choose_next(trial, &has_any);
    if (*has_changed || !has_any)
        return RP_OK;
    const enum rp_status status = rp_trial_run(trial, false, err);
    for (size_t i = 0; i < trial->n_tasks && status == RP_OK; i++) {
        struct rp_trial_task *task = &trial->tasks[i];
        if ((task->has_next || task->has_set) && take_trial(trial, task)) {
            *has_changed = true;
            reopen_later(trial, task);
        }
    }
    return status;
}

/* ---- the search ---- */

/* What all rows leave behind, without flips. */
static enum rp_status note_all(struct rp_trial *trial, struct rp_error *err)
{
    const struct rp_flip_search *search = trial->search;
    const struct rp_forced_run run = {
        .ops = &trial->recall.overlay.ops, .mode = search->mode, .weights = search->weights};
    return rp_forced_forward(search->forced, &run, err);
}

static enum rp_status take_results(struct rp_trial *trial, struct rp_error *err)
{
    struct rp_flip_search *search = trial->search;
    search->flips = calloc(trial->n_tasks * RP_MAX_FLIPS + 1, sizeof *search->flips);
    if (!search->flips)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for the flips");
    for (size_t i = 0; i < trial->n_tasks; i++) {
        const struct rp_trial_task *task = &trial->tasks[i];
        search->n_flips_of[task->part][task->row] += task->n_accepted;
        for (size_t k = 0; k < task->n_accepted; k++)
            search->flips[search->n_flips++] = task->accepted[k];
    }
    return RP_OK;
}

enum rp_status rp_flip_search_run(struct rp_flip_search *search, struct rp_error *err)
{
    struct rp_trial trial;
    bool has_changed = true;
    enum rp_status status = rp_trial_open(&trial, search, err);
    if (status == RP_OK && trial.n_tasks > 0)
        status = note_all(&trial, err);
    while (status == RP_OK && has_open_task(&trial)) {
        if (has_changed)
            status = settle(&trial, err);
        if (status == RP_OK)
            status = try_next(&trial, &has_changed, err);
        if (trial.n_runs >= MAX_RUNS && has_open_task(&trial)) {
            search->is_bounded = true;
            break;
        }
    }
    if (status == RP_OK)
        status = take_results(&trial, err);
    rp_trial_close(&trial);
    return status;
}

void rp_flip_search_close(struct rp_flip_search *search)
{
    free(search->flips);
    search->flips = NULL;
    search->n_flips = 0;
}
