/* See replay/earlier.h. The first row over the limit says which candidates there are: those that bring
 * it under. The rows after it, which may miss flips that are found later, say which of these is best;
 * it is kept where no row is the worse for it but by chance. */
#include "replay/earlier.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "replay/frozen.h"

#define MAX_RUNS 400  /* of two rows, mostly */
#define MAX_WATCHED 8 /* rows that a candidate is judged by */
#define MAX_TARGETS 3 /* of them, one after the other where nothing brings the first one under */
/* What all rows may be over the limit by for one flip, where others are still missing: a tenth more. */
#define SLACK 1.1

struct search {
    struct rp_trial *trial;
    size_t part;                                /* attention's slot */
    struct rp_trial_task *watched[MAX_WATCHED]; /* over the limit, ascending */
    size_t n_watched, n_left_behind;            /* rows after one that its kept values reach into */
    float *kept;                                /* [1 + n_left_behind][row size of recall] */
    bool has_accepted;
};

static size_t row_of(const struct rp_trial *trial, const struct rp_tie *tie)
{
    const struct rp_forced *forced = trial->search->forced;
    size_t row = 0;
    while (row < forced->n && forced->positions[row] != tie->position)
        row++;
    return row;
}

void rp_earlier_list(struct rp_trial *trial)
{
    const struct rp_emulation *emulation = trial->search->emulation;
    /* as is_hidden in flips.c */
    const bool is_hidden = rp_rounds_coarsely(&emulation->numerics,
                                              trial->search->weights->weights[RP_ATTN_OUTPUT].type);
    size_t row = 0;
    for (size_t i = 0; i < emulation->n_ties; i++) {
        struct rp_tie tie = emulation->ties[i];
        if (!rp_tie_is_read_later(&tie) || (tie.format == RP_GGML_F16 && is_hidden))
            continue;
        const int64_t *positions = trial->search->forced->positions;
        if (row >= trial->search->forced->n || positions[row] != tie.position)
            row = row_of(trial, &tie);
        tie.step = 1; /* the likeliest first, however little it moves */
        if (row < trial->search->forced->n && rp_trial_is_near(trial, &tie, row))
            rp_trial_insert(trial, &trial->pool, &tie);
    }
}

/* How far a row is over the limit. */
static double excess(const struct rp_trial *trial, const struct rp_trial_task *task)
{
    const double error = trial->errors[task->part][task->row];
    const double floor = trial->search->floor[task->part][task->row];
    const double limit = RP_REPLAY_LIMIT * fmax(floor, RP_REPLAY_MIN_FLOOR);
    return rp_trial_is_over(trial, task, error) ? log(error / limit) : 0;
}

/* Every flip that has been accepted. */
static void gather_flips(struct rp_trial *trial)
{
    trial->n_flips = 0;
    for (size_t i = 0; i < trial->n_earlier; i++)
        trial->flips[trial->n_flips++] = trial->earlier[i];
    for (size_t i = 0; i < trial->n_tasks; i++) {
        for (size_t k = 0; k < trial->tasks[i].n_accepted; k++)
            trial->flips[trial->n_flips++] = trial->tasks[i].accepted[k];
    }
}

/* All rows from the first on, which leave behind what they now are. The sum of what they are over. */
static enum rp_status look(struct search *search, size_t first, double *sum, struct rp_error *err)
{
    struct rp_trial *trial = search->trial;
    trial->n_rows = 0;
    trial->last_part = search->part;
    for (size_t row = first; row < trial->search->forced->n; row++)
        rp_trial_add_row(trial, row);
    gather_flips(trial);
    const enum rp_status status = rp_trial_run_rows(trial, true, err);
    *sum = 0;
    for (size_t i = 0; i < trial->n_tasks && status == RP_OK; i++) {
        struct rp_trial_task *task = &trial->tasks[i];
        if (task->part != search->part || task->row < first)
            continue;
        task->error = trial->errors[task->part][task->row];
        *sum += excess(trial, task);
    }
    return status;
}

static void watch_first(struct search *search)
{
    struct rp_trial *trial = search->trial;
    search->n_watched = 0;
    for (size_t i = 0; i < trial->n_tasks && search->n_watched < MAX_WATCHED; i++) {
        struct rp_trial_task *task = &trial->tasks[i];
        if (task->part == search->part && rp_trial_is_over(trial, task, task->error))
            search->watched[search->n_watched++] = task;
    }
}

static void swap_kept(const struct search *search, size_t row)
{
    struct rp_recall *recall = &search->trial->recall;
    for (size_t i = 0; i <= search->n_left_behind && row + i < recall->n; i++)
        rp_recall_swap(recall, row + i, search->kept + i * rp_recall_row_size(recall));
}

/* What a candidate does to rows watched[from] .. watched[to - 1]. */
struct outcome {
    double before, after; /* what they are over the limit by, together */
    size_t n_mended, n_seen;
};

static enum rp_status try_one(struct search *search, const struct rp_tie *tie, size_t from,
                              size_t to, struct outcome *outcome, struct rp_error *err)
{
    struct rp_trial *trial = search->trial;
    const size_t row = row_of(trial, tie);
    *outcome = (struct outcome){.n_seen = 0};
    trial->n_rows = 0;
    trial->last_part = search->part;
    for (size_t i = 0; i <= search->n_left_behind; i++)
        rp_trial_add_row(trial, row + i);
    for (size_t i = from; i < to; i++) {
        const struct rp_trial_task *task = search->watched[i];
        if (task->row < row)
            continue;
        rp_trial_add_row(trial, task->row);
        trial->errors[task->part][task->row] = task->error;
        outcome->before += excess(trial, task);
        outcome->n_seen++;
    }
    gather_flips(trial);
    trial->flips[trial->n_flips++] = *tie;
    trial->recall.kept_from = row;
    trial->recall.kept_to = row + search->n_left_behind + 1;
    swap_kept(search, row);
    const enum rp_status status = rp_trial_run_rows(trial, false, err);
    swap_kept(search, row);
    trial->recall.kept_from = trial->recall.kept_to = 0;
    for (size_t i = from; i < to; i++) {
        const struct rp_trial_task *task = search->watched[i];
        if (task->row < row)
            continue;
        outcome->after += excess(trial, task);
        outcome->n_mended += !rp_trial_is_over(trial, task, trial->errors[task->part][task->row]);
    }
    return status;
}

/* Whether a task has it already. */
static bool is_taken(const struct rp_trial *trial, const struct rp_tie *tie)
{
    bool is_taken = rp_tie_is_among(tie, trial->earlier, trial->n_earlier);
    for (size_t i = 0; i < trial->n_tasks && !is_taken; i++)
        is_taken = rp_tie_is_among(tie, trial->tasks[i].accepted, trial->tasks[i].n_accepted);
    return is_taken;
}

/* The best of the pool that bring the target under the limit, or pool.n. */
static enum rp_status choose(struct search *search, size_t target, size_t *best,
                             struct rp_error *err)
{
    struct rp_trial *trial = search->trial;
    double most = 0;
    *best = trial->pool.n;
    for (size_t i = 0; i < trial->pool.n; i++) {
        const struct rp_tie *tie = &trial->pool.ties[i];
        struct outcome outcome;
        if (tie->position > trial->search->forced->positions[search->watched[target]->row] ||
            tie->distance > trial->within || is_taken(trial, tie))
            continue;
        if (trial->n_runs >= trial->most_runs) {
            trial->search->is_bounded = true;
            break;
        }
        enum rp_status status = try_one(search, tie, target, target + 1, &outcome, err);
        if (status != RP_OK)
            return status;
        if (outcome.n_mended == 0)
            continue;
        status = try_one(search, tie, 0, search->n_watched, &outcome, err);
        if (status != RP_OK)
            return status;
        if (*best == trial->pool.n || outcome.before - outcome.after > most) {
            most = outcome.before - outcome.after;
            *best = i;
        }
        if (outcome.n_seen > 1 && 2 * outcome.n_mended > outcome.n_seen)
            break;
    }
    return RP_OK;
}

/* A row's own flips were found without it, and may have stood in for it. */
static bool take_back(struct search *search, size_t first)
{
    struct rp_trial *trial = search->trial;
    bool has_any = false;
    for (size_t i = 0; i < trial->n_tasks; i++) {
        struct rp_trial_task *task = &trial->tasks[i];
        task->n_taken_back = 0;
        if (task->part != search->part || task->row < first || task->n_accepted == 0 ||
            !rp_trial_is_over(trial, task, task->error))
            continue;
        task->n_taken_back = task->n_accepted;
        task->n_accepted = 0;
        has_any = true;
    }
    return has_any;
}

/* Keeps the one that was chosen where all rows together are not the worse for it. */
static enum rp_status confirm(struct search *search, size_t best, bool *is_kept,
                              struct rp_error *err)
{
    struct rp_trial *trial = search->trial;
    const struct rp_tie tie = trial->pool.ties[best];
    const size_t row = row_of(trial, &tie);
    double before = 0, after = 0;
    for (size_t i = 0; i < trial->n_tasks; i++) {
        const struct rp_trial_task *task = &trial->tasks[i];
        if (task->part != search->part || task->row < row)
            continue;
        trial->errors[task->part][task->row] = task->error;
        before += excess(trial, task);
    }
    trial->earlier[trial->n_earlier++] = tie;
    enum rp_status status = look(search, row, &after, err);
    if (status == RP_OK && take_back(search, row))
        status = look(search, row, &after, err);
    *is_kept = after <= SLACK * before;
    if (status != RP_OK || *is_kept)
        return status;
    trial->n_earlier--;
    for (size_t i = 0; i < trial->n_tasks; i++)
        trial->tasks[i].n_accepted += trial->tasks[i].n_taken_back;
    return look(search, row, &after, err);
}

static void drop(struct rp_tie_list *list, size_t at)
{
    memmove(list->ties + at, list->ties + at + 1, (list->n - at - 1) * sizeof *list->ties);
    list->n--;
}

static enum rp_status search_pool(struct search *search, struct rp_error *err)
{
    struct rp_trial *trial = search->trial;
    size_t target = 0;
    enum rp_status status = RP_OK;
    watch_first(search);
    while (status == RP_OK && target < search->n_watched && target < MAX_TARGETS &&
           trial->n_earlier < RP_MAX_EARLIER) {
        size_t best;
        bool is_kept = false;
        status = choose(search, target, &best, err);
        if (status == RP_OK && best == trial->pool.n) {
            target++;
            continue;
        }
        if (status == RP_OK)
            status = confirm(search, best, &is_kept, err);
        search->has_accepted |= is_kept;
        drop(&trial->pool, best);
        watch_first(search);
        target = is_kept ? 0 : target;
    }
    return status;
}

/* What is over the limit is open again, with a new list. True where rows are that nothing has been
 * tried for as they now are. */
static bool reopen(const struct search *search)
{
    struct rp_trial *trial = search->trial;
    bool has_changed = false;
    for (size_t i = 0; i < trial->n_tasks; i++) {
        struct rp_trial_task *task = &trial->tasks[i];
        const bool is_over = rp_trial_is_over(trial, task, task->error);
        const bool is_of_attention = task->part == search->part;
        const bool is_new = is_over && is_of_attention &&
                            (search->has_accepted || (task->is_done && !task->is_stuck));
        has_changed |= is_new;
        task->is_done = !is_over;
        task->is_stuck = false;
        task->is_changed = true;
        task->is_reopened = is_new;
    }
    return has_changed;
}

/* Whether rows that nothing is tried for may have changed, or some are left. */
static bool is_needed(const struct rp_trial *trial, size_t part)
{
    for (size_t i = 0; i < trial->n_tasks; i++) {
        const struct rp_trial_task *task = &trial->tasks[i];
        if (task->part != part)
            continue;
        if (rp_trial_is_over(trial, task, task->error))
            return true;
        for (size_t k = 0; k < task->n_accepted; k++) {
            if (rp_tie_is_read_later(&task->accepted[k]))
                return true;
        }
    }
    return false;
}

enum rp_status rp_earlier_search(struct rp_trial *trial, bool *has_changed, struct rp_error *err)
{
    struct search search = {
        .trial = trial, .part = RP_N_FORCED_PARTS, .n_left_behind = rp_trial_n_followers(trial)};
    enum rp_status status = RP_OK;
    double sum;
    for (size_t i = 0; i < trial->n_tasks; i++)
        search.part = trial->tasks[i].part < search.part ? trial->tasks[i].part : search.part;
    if (search.part < RP_N_FORCED_PARTS && is_needed(trial, search.part)) {
        search.kept = calloc((search.n_left_behind + 1) * rp_recall_row_size(&trial->recall) + 1,
                             sizeof *search.kept);
        if (!search.kept)
            return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for what a layer remembers");
        trial->most_runs = trial->n_runs + MAX_RUNS;
        status = look(&search, 0, &sum, err);
        if (status == RP_OK)
            status = search_pool(&search, err);
        free(search.kept);
    }
    if (status == RP_OK)
        *has_changed = reopen(&search);
    return status;
}

void rp_earlier_count(struct rp_trial *trial, const struct rp_tie *tie)
{
    struct rp_flip_search *search = trial->search;
    size_t part = RP_N_FORCED_PARTS;
    for (size_t i = 0; i < trial->n_tasks; i++)
        part = trial->tasks[i].part < part ? trial->tasks[i].part : part;
    if (part < RP_N_FORCED_PARTS)
        search->n_flips_of[part][row_of(trial, tie)]++;
}
