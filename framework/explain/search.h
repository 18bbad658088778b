/* The search for what explains a slot's error: the slot's rows and the operations that lead to it, what
 * may be tried, and how well each does. The families of hypotheses add candidates, a file for each
 * operation; explain.c goes through them in a fixed order, simplest first. */
#ifndef REFPARITY_EXPLAIN_SEARCH_H
#define REFPARITY_EXPLAIN_SEARCH_H

#include "architectures/architecture.h"
#include "explain/candidate.h"
#include "refparity/explain.h"

struct rp_trial {
    struct rp_candidate candidate;
    struct rp_place place;
    double cost;           /* mean over rows of log(1 + (error / limit)^2) */
    double chi2;           /* mean over rows of (error / limit)^2 */
    double share;          /* of the error's energy that the candidate accounts for */
    double share_of_first; /* of the first failing row's */
    size_t n_over;         /* rows over their limit */
    bool matches; /* every row is within its limit, and most of the error is accounted for */
};

struct rp_search {
    struct rp_replay *replay;
    const struct rp_model_config *config;
    const struct rp_replay_slot *slot;
    struct rp_step steps[64]; /* [n_steps] that lead from dumped slots to this one, taps left out */
    size_t n_steps;
    enum rp_layer_kind kind; /* of the slot's layer */
    struct rp_layer
        weights; /* the layer's, for reading; owned by replay; none outside the layers */
    struct rp_layer other_weights; /* of other_layer */
    int other_layer;               /* -1: none */
    size_t n, dim;
    float *computed, *dumped; /* [n][dim] */
    float *rows;              /* [n][dim], of the last trial */
    double *error, *limit;    /* [n], relative; error: of computed */
    bool *is_failing;         /* [n] */
    int64_t *failing;         /* [n_failing] positions */
    size_t n_failing, first;  /* first: row of the first failing position */
    size_t n_allowed;         /* rows that may be over their limit in a match: expected tips */
    struct rp_candidate *candidates;
    size_t n_candidates, candidates_capacity;
    float **owned; /* [n_owned] rows that candidates read */
    size_t n_owned;
    struct rp_numerics numerics[16]; /* of candidates */
    size_t n_numerics;
    size_t n_tried;
};

enum rp_status rp_search_open(struct rp_search *search, struct rp_replay *replay,
                              const struct rp_replay_slot *slot, struct rp_error *err);
void rp_search_close(struct rp_search *search);

/* ---- for families ---- */

/* Whether such a step leads to the slot; which RP_N_WEIGHTS: with any weight. */
bool rp_search_has_step(const struct rp_search *search, enum rp_step_kind kind,
                        enum rp_weight_id which);
/* The slot's one operation is of that kind, its inputs are dumped. */
bool rp_search_is_just(const struct rp_search *search, enum rp_step_kind kind);
/* Whether the slot was computed from that dumped slot. */
bool rp_search_reads(const struct rp_search *search, const char *slot);
/* Whether the declared numerics round anything on the way. */
bool rp_search_rounds(const struct rp_search *search);

/* A candidate that exchanges operations, with nothing to fit and no parameter. */
struct rp_candidate rp_candidate_make(const char *name, void (*install)(struct rp_ops *ops),
                                      int option, enum rp_weight_id which);
/* The same that transforms the slot's rows. */
struct rp_candidate rp_candidate_of_rows(const char *name, rp_transform_fn *transform, double value,
                                         const float *rows);
/* Adds a copy with that text. */
enum rp_status rp_search_add(struct rp_search *search, struct rp_candidate candidate,
                             struct rp_error *err, const char *fmt, ...) RP_PRINTF(4, 5);
/* Rows that candidates read, [n][dim], zeroed, kept until the search is closed. */
enum rp_status rp_search_new_rows(struct rp_search *search, float **rows, struct rp_error *err);
/* The dump's rows of another slot at this slot's positions, [n][dim]: NULL where they are not dumped or
 * not as wide. Kept until the search is closed. */
enum rp_status rp_search_slot_rows(struct rp_search *search, const char *slot, size_t dim,
                                   const float **rows, struct rp_error *err);
/* The residual stream that the slot's branch is added to; NULL where it is no sum, or not dumped. */
enum rp_status rp_search_base(struct rp_search *search, const float **rows, struct rp_error *err);

/* ---- trials ---- */

enum rp_status rp_search_try(struct rp_search *search, const struct rp_candidate *candidate,
                             const struct rp_place *place, struct rp_trial *trial,
                             struct rp_error *err);
/* Fits candidate->value; trial is of what was found. */
enum rp_status rp_search_fit(struct rp_search *search, const struct rp_candidate *candidate,
                             const struct rp_place *place, struct rp_trial *trial,
                             struct rp_error *err);

/* ---- the families: each adds what applies to the slot's steps ---- */

typedef enum rp_status rp_collect_fn(struct rp_search *search, struct rp_error *err);
rp_collect_fn rp_collect_any_rows, rp_collect_residual_add, rp_collect_rms_norm, rp_collect_rope,
    rp_collect_linear, rp_collect_ffn_activation, rp_collect_attention, rp_collect_delta_net,
    rp_collect_numerics, rp_collect_embedding;

#endif
