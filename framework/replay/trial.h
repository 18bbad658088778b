/* The rows that near-ties are tried for, and a run over them. Which ties, and what is kept, is the
 * search's: flips.c. */
#ifndef REFPARITY_REPLAY_TRIAL_H
#define REFPARITY_REPLAY_TRIAL_H

#include "replay/flips.h"
#include "replay/recall.h"
#include "replay/subset.h"

enum {
    RP_MAX_FLIPS = 12,                 /* at one position of one slot */
    RP_MAX_CANDIDATES = RP_SUBSET_MAX, /* that are tried for the next flip */
    RP_SAMPLE = 256                    /* channels that effects are compared in, at most */
};

/* One row of one slot that is over its limit. */
struct rp_trial_task {
    size_t part, row;
    double error; /* with what is accepted */
    double best_error, set_error;
    size_t n_candidates, next, best;
    size_t n_set, n_accepted;
    bool is_done, is_reopened, is_changed; /* is_changed: what is accepted, or what it reads */
    bool has_next, has_set, has_tried_set; /* has_next, has_set: take part in the run */
    struct rp_tie candidates[RP_MAX_CANDIDATES];
    struct rp_tie set[RP_MAX_FLIPS]; /* candidates that together make the error, by their effects */
    struct rp_tie accepted[RP_MAX_FLIPS];
    float *residual; /* [width] engine's minus computed, with what is accepted */
    float *effects;  /* [RP_MAX_CANDIDATES][width] of each candidate, in the order of candidates */
};

struct rp_trial {
    struct rp_flip_search *search;
    struct rp_recall recall;
    struct rp_trial_task *tasks; /* [n_tasks], rows ascending */
    size_t n_tasks, n_runs;
    size_t *rows; /* [n_rows], of this run */
    size_t n_rows, width;
    int64_t *positions;                 /* [n_rows] */
    float *hidden;                      /* [n_rows][dim] */
    struct rp_tie *flips;               /* of this run */
    double *errors[RP_N_LAYER_PARTS];   /* [n] of the last run, by row */
    float *residuals[RP_N_LAYER_PARTS]; /* [n][width] of the last run, by row */
};

/* Lists the tasks. End with rp_trial_close, also after an error. */
enum rp_status rp_trial_open(struct rp_trial *trial, struct rp_flip_search *search,
                             struct rp_error *err);
void rp_trial_close(struct rp_trial *trial);

/* Runs the rows of all tasks that are not done, with what is accepted and each task's next or set.
 * commits: what the rows leave behind is kept, and near-ties are noted. */
enum rp_status rp_trial_run(struct rp_trial *trial, bool commits, struct rp_error *err);

bool rp_trial_is_over(const struct rp_trial *trial, const struct rp_trial_task *task, double error);

#endif
