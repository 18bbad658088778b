/* Which trials detect runs. Not for running them. */
#ifndef REFPARITY_CASES_DETECT_PLAN_H
#define REFPARITY_CASES_DETECT_PLAN_H

#include "detect_engine.h"

/* NULL: all. */
struct rp_detect_filter {
    const char *kind; /* a bug's name, or "clean:NAME" */
    const char *architecture;
    const char *weights;
    bool only_clean, only_bugs;
    size_t every;           /* one of so many, spread over all; 0 or 1: all */
    size_t share, n_shares; /* the share'th of n_shares, from 0; 0 of 0: all */
};

struct rp_detect_plan {
    struct rp_detect_model *models; /* [n_models] */
    size_t n_models;
    struct rp_detect_trial *trials; /* [n_trials], those of a model in a row */
    size_t n_trials, capacity;
};

/* root: the folder that has fixtures/. Close it also after an error. */
enum rp_status rp_detect_plan_open(const char *root, const struct rp_detect_filter *filter,
                                   struct rp_detect_plan *plan, struct rp_error *err);
void rp_detect_plan_close(struct rp_detect_plan *plan);

/* "ffn-half", "eps+ffn-half", "clean:pairwise". */
void rp_detect_kind(const struct rp_detect_trial *trial, char *text, size_t size);

#endif
