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
    RP_MAX_DIRECT = 256,               /* whose effect is known without a run */
    RP_MAX_EARLIER = 64,               /* flips that only later rows show */
    RP_MAX_POOL = 512,                 /* near-ties that later rows could show */
    RP_SAMPLE = 256                    /* channels that effects are compared in, at most */
};

struct rp_tie_list {
    struct rp_tie *ties; /* [capacity], the likeliest first */
    size_t n, capacity;
};

/* One row of one slot. */
struct rp_trial_task {
    size_t part, row;
    double error; /* with what is accepted */
    double best_error, set_error;
    size_t next, best;
    size_t n_set, n_best_set, n_accepted, n_taken_back;
    bool is_done, is_reopened, is_changed; /* is_changed: what is accepted, or what it reads */
    bool is_stuck;                         /* done, and over the limit: nothing brought it under */
    bool has_next, has_set;                /* take part in the run */
    bool has_tried_direct, has_tried_set;
    struct rp_tie_list candidates, direct;
    struct rp_tie set[RP_MAX_FLIPS]; /* ties that together make the error, by their effects */
    struct rp_tie best_set[RP_MAX_FLIPS];
    struct rp_tie accepted[RP_MAX_FLIPS];
    float *residual; /* [width] engine's minus computed, with what is accepted */
    float *effects;  /* [RP_MAX_CANDIDATES][width] of each candidate, in the order of candidates */
};

struct rp_trial {
    struct rp_flip_search *search;
    struct rp_recall recall;
    struct rp_trial_task *tasks; /* [n_tasks], rows ascending: all that a flip could explain */
    size_t n_tasks, n_runs, most_runs;
    size_t *rows; /* [n_rows], of this run */
    size_t n_rows, width;
    size_t last_part;                      /* the run ends after it */
    bool is_complete;                      /* it has ended so */
    double tolerances[RP_N_WEIGHTS + 1];   /* by which: that near-ties are noted with */
    bool allows_off;                       /* what attention's product reads may be off by F16 */
    double within;                         /* ties as near are tried; 1: all that are noted */
    bool accepts_parts;                    /* flips that leave a row over its limit are kept too */
    struct rp_tie_list pool;               /* of all rows: what later rows read is rounded there */
    struct rp_tie earlier[RP_MAX_EARLIER]; /* accepted out of the pool */
    size_t n_earlier;
    int64_t *positions;   /* [n_rows] */
    float *hidden;        /* [n_rows][dim] */
    struct rp_tie *flips; /* of this run */
    size_t n_flips;
    double *errors[RP_N_FORCED_PARTS];   /* [n] of the last run, by row */
    float *residuals[RP_N_FORCED_PARTS]; /* [n][width] of the last run, by row */
};

/* Lists the tasks. End with rp_trial_close, also after an error. */
enum rp_status rp_trial_open(struct rp_trial *trial, struct rp_flip_search *search,
                             struct rp_error *err);
void rp_trial_close(struct rp_trial *trial);

/* Runs the rows of all tasks that are not done, with what is accepted and each task's next or set.
 * commits: what the rows leave behind is kept, and near-ties are noted. */
enum rp_status rp_trial_run(struct rp_trial *trial, bool commits, struct rp_error *err);

/* The same for rows as trial->rows has them and trial->flips, up to last_part. */
enum rp_status rp_trial_run_rows(struct rp_trial *trial, bool commits, struct rp_error *err);
void rp_trial_add_row(struct rp_trial *trial, size_t row);
/* How many rows after one read what its convolution was given. */
size_t rp_trial_n_followers(const struct rp_trial *trial);

/* Room for a task's lists, where it has none yet. RP_ERR_MEMORY. */
enum rp_status rp_trial_open_task(const struct rp_trial *trial, struct rp_trial_task *task,
                                  struct rp_error *err);
/* What is likely to have flipped and moves much comes first; the last one falls out of a full list. */
void rp_trial_insert(struct rp_trial *trial, struct rp_tie_list *list, const struct rp_tie *tie);

bool rp_tie_is_among(const struct rp_tie *tie, const struct rp_tie *ties, size_t n);
/* Whether a flip there is kept in what later rows read. */
bool rp_tie_is_read_later(const struct rp_tie *tie);
/* Makes the tie's distance that over what its own row may be off by; false where it is farther. */
bool rp_trial_is_near(const struct rp_trial *trial, struct rp_tie *tie, size_t row);

bool rp_trial_is_over(const struct rp_trial *trial, const struct rp_trial_task *task, double error);

#endif
