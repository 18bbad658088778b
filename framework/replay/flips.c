/* See replay/flips.h. Every row over its limit has its own list of near-ties, and all rows try their
 * next one in the same run (recall.h keeps them apart). A flip is kept where it brings the row under
 * the limit; else those that by their effects add up to the error are tried together; else the best is
 * kept where it cuts the error decisively. Then the list is made anew, as a flip moves what is rounded
 * after it. Why this hides no bug is in README.md. */
#include "replay/flips.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "replay/direct.h"
#include "replay/earlier.h"
#include "replay/frozen.h"
#include "replay/trial.h"

#define MAX_RUNS 200 /* in each pass */
#define MAX_ROUNDS 3
#define LIKELY 0.1
/* What a flip has to leave of the error, at most. Of five flips of equal size the first leaves
 * sqrt(4/5) = 0.894. A vector in no relation to the error would need a cosine of 0.44 with it. */
#define DECISIVE 0.9

static bool is_of_ffn(const struct rp_tie *tie)
{
    return tie->which == RP_FFN_NORM || tie->which == RP_FFN_GATE || tie->which == RP_FFN_UP ||
           tie->which == RP_FFN_DOWN;
}

/* Flips to F16 between Q, K, V and the softmax weights: at every position, of every earlier one. They
 * are part of the floor (frozen.h), and where a coarser rounding follows they do not get past it but by
 * a flip of that; where none follows, a large one is found by trying, as any other. */
static bool is_hidden(const struct rp_flip_search *search, const struct rp_tie *tie)
{
    const uint32_t type = search->weights->weights[RP_ATTN_OUTPUT].type;
    return rp_rounds_coarsely(&search->emulation->numerics, type) && tie->format == RP_GGML_F16 &&
           (tie->which == RP_ATTN_Q || tie->which == RP_ATTN_K || tie->which == RP_ATTN_V ||
            tie->which == RP_N_WEIGHTS);
}

/* The slot in which a tie of that row shows: the first dumped one after it. */
static size_t part_shown_in(const struct rp_forced *forced, const struct rp_tie *tie, size_t row)
{
    size_t k = rp_forced_index(is_of_ffn(tie) ? RP_PART_FFNOUT : RP_PART_POSTATTN);
    while (k < RP_N_FORCED_PARTS && !rp_dumped_row(&forced->parts[k], forced->positions[row]))
        k++;
    return k;
}

static bool is_accepted(const struct rp_trial *trial, const struct rp_trial_task *task,
                        const struct rp_tie *tie)
{
    return rp_tie_is_among(tie, task->accepted, task->n_accepted) ||
           rp_tie_is_among(tie, trial->earlier, trial->n_earlier);
}

static void begin_list(const struct rp_trial *trial, struct rp_trial_task *task)
{
    task->is_changed = task->has_tried_set = task->has_tried_direct = task->is_stuck = false;
    task->candidates.n = task->direct.n = task->next = task->n_best_set = 0;
    task->best_error = task->set_error = (double)INFINITY;
    memcpy(task->residual, trial->residuals[task->part] + task->row * trial->width,
           trial->width * sizeof *task->residual);
}

/* The near-ties of the run that has just been made, for every task that it has changed. Their
 * distances become those over what their own row may be off by. */
static enum rp_status list_candidates(struct rp_trial *trial, struct rp_error *err)
{
    const struct rp_flip_search *search = trial->search;
    const struct rp_forced *forced = search->forced;
    for (size_t i = 0; i < trial->n_tasks; i++) {
        struct rp_trial_task *task = &trial->tasks[i];
        if (task->is_done || !task->is_changed)
            continue;
        const enum rp_status status = rp_trial_open_task(trial, task, err);
        if (status != RP_OK)
            return status;
        begin_list(trial, task);
        for (size_t k = 0; k < search->emulation->n_ties; k++) {
            struct rp_tie tie = search->emulation->ties[k];
            if (tie.position != forced->positions[task->row] || is_hidden(search, &tie) ||
                part_shown_in(forced, &tie, task->row) != task->part ||
                is_accepted(trial, task, &tie))
                continue;
            if (rp_trial_is_near(trial, &tie, task->row) &&
                (tie.distance <= trial->within ||
                 (trial->allows_off && tie.which == RP_ATTN_OUTPUT)))
                rp_trial_insert(trial,
                                rp_direct_is(trial, task, &tie) ? &task->direct : &task->candidates,
                                &tie);
        }
        rp_direct_add_scales(trial, task);
    }
    return RP_OK;
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
        task->is_stuck = is_still_over && task->n_accepted == RP_MAX_FLIPS;
        task->is_done = !is_still_over || task->is_stuck;
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
    return list_candidates(trial, err);
}

static void accept(struct rp_trial_task *task, const struct rp_tie *ties, size_t n)
{
    for (size_t i = 0; i < n && task->n_accepted < RP_MAX_FLIPS; i++)
        task->accepted[task->n_accepted++] = ties[i];
    task->candidates.n = task->direct.n = task->next = 0;
    task->is_changed = true;
}

/* A flip in K, V or a recurrent state is read by later rows: those that try something, and those that
 * have flips of their own, are run again. The others are looked at in the end. */
static void reopen_later(struct rp_trial *trial, const struct rp_trial_task *accepted)
{
    bool is_read_later = false;
    for (size_t i = 0; i < accepted->n_accepted; i++)
        is_read_later |= rp_tie_is_read_later(&accepted->accepted[i]);
    for (size_t i = 0; i < trial->n_tasks && is_read_later; i++) {
        struct rp_trial_task *task = &trial->tasks[i];
        if (task->row <= accepted->row || task->part != accepted->part)
            continue;
        task->is_reopened = !task->is_done || task->is_stuck || task->n_accepted > 0;
        task->is_done = task->is_done && !task->is_reopened;
    }
}

/* Only F16 in attention moves a scale by more than to its other neighbour. */
static enum rp_share share_of(const struct rp_trial *trial, const struct rp_tie *tie)
{
    if (tie->kind == RP_TIE_VALUE || tie->which != RP_ATTN_OUTPUT ||
        !rp_has_f16_attention(&trial->search->emulation->numerics))
        return RP_SHARE_WHOLE;
    return tie->format == RP_GGML_Q8_K ? RP_SHARE_ANY : RP_SHARE_STEPS;
}

/* The subset as flips, where they fit in. */
static void take_set(struct rp_trial_task *task, const struct rp_subset *subset)
{
    const size_t n_direct = task->direct.n;
    if (!(subset->left <= DECISIVE) || subset->n > RP_MAX_FLIPS - task->n_accepted)
        return;
    for (size_t i = 0; i < subset->n; i++) {
        const size_t at = subset->chosen[i];
        struct rp_tie *flip = &task->set[task->n_set++];
        *flip = at < n_direct ? task->direct.ties[at] : task->candidates.ties[at - n_direct];
        if (flip->kind == RP_TIE_SCALE && at < n_direct)
            flip->turn =
                flip->format == RP_GGML_Q8_K ? subset->share[i] * flip->step : subset->share[i];
    }
}

/* The ties whose effects add up to the error: of the direct ones, whose effects need no run, and with
 * measured of those too that runs have shown. */
static enum rp_status make_set(const struct rp_trial *trial, struct rp_trial_task *task,
                               bool measured, struct rp_error *err)
{
    const size_t width = trial->width, n_direct = task->direct.n;
    const size_t n = n_direct + (measured ? task->next : 0);
    const double limit =
        RP_REPLAY_LIMIT * fmax(trial->search->floor[task->part][task->row], RP_REPLAY_MIN_FLOOR);
    struct rp_subset subset;
    task->n_set = 0;
    if (n == 0)
        return RP_OK;
    float *effects = calloc(n * width + 1, sizeof *effects);
    enum rp_share *kinds = calloc(n + 1, sizeof *kinds);
    enum rp_status status =
        effects && kinds ? rp_direct_effects(trial, task, effects, err)
                         : rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu effects", n);
    if (status == RP_OK) {
        for (size_t i = 0; i < n; i++)
            kinds[i] = i < n_direct ? share_of(trial, &task->direct.ties[i]) : RP_SHARE_WHOLE;
        if (measured)
            memcpy(effects + n_direct * width, task->effects, task->next * width * sizeof *effects);
        status = rp_subset_pursue(effects, kinds, n, width, task->residual, limit / task->error / 2,
                                  &subset, err);
    }
    if (status == RP_OK)
        take_set(task, &subset);
    free(effects);
    free(kinds);
    return status;
}

/* All has been tried. True where something was accepted. */
static bool conclude(const struct rp_trial *trial, struct rp_trial_task *task)
{
    const bool is_set = task->set_error < task->best_error;
    const double error = is_set ? task->set_error : task->best_error;
    task->is_stuck = task->is_done = !trial->accepts_parts || !(error <= DECISIVE * task->error);
    if (task->is_done)
        return false;
    accept(task, is_set ? task->best_set : &task->candidates.ties[task->best],
           is_set ? task->n_best_set : 1);
    return true;
}

/* A task's next flip, or set of flips. */
static enum rp_status choose_for(const struct rp_trial *trial, struct rp_trial_task *task,
                                 struct rp_error *err)
{
    enum rp_status status = RP_OK;
    task->has_next = task->has_set = false;
    if (task->is_done)
        return RP_OK;
    if (!task->has_tried_direct) {
        task->has_tried_direct = true;
        status = make_set(trial, task, false, err);
        task->has_set = task->n_set > 0;
    }
    task->has_next = !task->has_set && task->next < task->candidates.n;
    if (status == RP_OK && !task->has_set && !task->has_next && !task->has_tried_set &&
        task->next > 0) {
        task->has_tried_set = true;
        status = make_set(trial, task, true, err);
        task->has_set = task->n_set > 0;
    }
    return status;
}

/* What each task tries in the next run. *has_changed: some have concluded instead. */
static enum rp_status choose_next(struct rp_trial *trial, bool *has_any, bool *has_changed,
                                  struct rp_error *err)
{
    *has_any = *has_changed = false;
    for (size_t i = 0; i < trial->n_tasks; i++) {
        struct rp_trial_task *task = &trial->tasks[i];
        const enum rp_status status = choose_for(trial, task, err);
        if (status != RP_OK)
            return status;
        *has_any |= task->has_next || task->has_set;
        if (task->is_done || task->has_next || task->has_set)
            continue;
        if (conclude(trial, task)) {
            *has_changed = true;
            reopen_later(trial, task);
        }
    }
    return RP_OK;
}

/* What the run has shown of one task; true where it is accepted. */
static bool take_trial(struct rp_trial *trial, struct rp_trial_task *task)
{
    const double error = trial->errors[task->part][task->row];
    const float *residual = trial->residuals[task->part] + task->row * trial->width;
    const bool is_over = rp_trial_is_over(trial, task, error);
    if (task->has_set) {
        if (error < task->set_error) {
            task->set_error = error;
            task->n_best_set = task->n_set;
            memcpy(task->best_set, task->set, task->n_set * sizeof *task->set);
        }
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
        accept(task, &task->candidates.ties[tried], 1);
    return !is_over;
}

/* Each task tries something. *has_changed: something was accepted. */
static enum rp_status try_next(struct rp_trial *trial, bool *has_changed, struct rp_error *err)
{
    bool has_any;
    enum rp_status status = choose_next(trial, &has_any, has_changed, err);
    if (status != RP_OK || *has_changed || !has_any)
        return status;
    status = rp_trial_run(trial, false, err);
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
    struct rp_flip_search *search = trial->search;
    const struct rp_forced_run run = {
        .ops = &trial->recall.overlay.ops, .mode = search->mode, .weights = search->weights};
    search->emulation->n_ties = 0;
    search->emulation->tie_tolerances = trial->tolerances;
    const enum rp_status status = rp_forced_forward(search->forced, &run, err);
    search->emulation->tie_tolerances = NULL;
    if (status == RP_OK)
        rp_earlier_list(trial);
    return status;
}

static enum rp_status take_results(struct rp_trial *trial, struct rp_error *err)
{
    struct rp_flip_search *search = trial->search;
    search->flips =
        calloc(RP_MAX_EARLIER + trial->n_tasks * RP_MAX_FLIPS + 1, sizeof *search->flips);
    if (!search->flips)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for the flips");
    for (size_t i = 0; i < trial->n_tasks; i++) {
        const struct rp_trial_task *task = &trial->tasks[i];
        search->n_flips_of[task->part][task->row] += task->n_accepted;
        for (size_t k = 0; k < task->n_accepted; k++)
            search->flips[search->n_flips++] = task->accepted[k];
    }
    for (size_t i = 0; i < trial->n_earlier; i++) {
        search->flips[search->n_flips++] = trial->earlier[i];
        rp_earlier_count(trial, &trial->earlier[i]);
    }
    return RP_OK;
}

/* Every open task, by near-ties of its own row. */
static enum rp_status search_rows(struct rp_trial *trial, struct rp_error *err)
{
    bool has_changed = true;
    enum rp_status status = RP_OK;
    while (status == RP_OK && has_open_task(trial)) {
        if (trial->n_runs >= trial->most_runs) {
            trial->search->is_bounded = true;
            break;
        }
        if (has_changed)
            status = settle(trial, err);
        if (status == RP_OK)
            status = try_next(trial, &has_changed, err);
    }
    return status;
}

static size_t n_open(const struct rp_trial *trial)
{
    size_t n = 0;
    for (size_t i = 0; i < trial->n_tasks; i++)
        n += !trial->tasks[i].is_done;
    return n;
}

/* What is likely comes first, as a wrong flip would hide a right one: near-ties within LIKELY of their
 * tolerance, that is three times their row's noise; then all; and only then those that leave a row
 * over its limit. Each time a row's own, then those of earlier rows, as long as these bring something.
 * Where likely ones leave a quarter of all rows over the limit it is no rounding, and the rest is left. */
static enum rp_status search_all(struct rp_trial *trial, struct rp_error *err)
{
    static const struct {
        double within;
        bool accepts_parts;
    } passes[] = {{LIKELY, false}, {1, false}, {1, true}};
    enum rp_status status = note_all(trial, err);
    for (size_t i = 0; i < sizeof passes / sizeof *passes && status == RP_OK; i++) {
        bool has_changed = true;
        size_t n_rounds = 0;
        if (i > 0 && 4 * n_open(trial) > trial->n_tasks) {
            trial->search->is_bounded = true;
            break;
        }
        trial->within = passes[i].within;
        trial->accepts_parts = passes[i].accepts_parts;
        trial->most_runs = trial->n_runs + MAX_RUNS;
        while (status == RP_OK && has_changed && has_open_task(trial) && n_rounds++ < MAX_ROUNDS) {
            status = search_rows(trial, err);
            if (status == RP_OK)
                status = rp_earlier_search(trial, &has_changed, err);
        }
    }
    return status;
}

enum rp_status rp_flip_search_run(struct rp_flip_search *search, struct rp_error *err)
{
    struct rp_trial trial;
    enum rp_status status = rp_trial_open(&trial, search, err);
    if (status == RP_OK && has_open_task(&trial))
        status = search_all(&trial, err);
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
