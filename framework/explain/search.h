/* The search for what explains a slot's error: its rows, what may be tried, and how well each does.
 * The families of hypotheses add candidates; explain.c goes through them in a fixed order, simplest
 * first. */
#ifndef REFPARITY_EXPLAIN_SEARCH_H
#define REFPARITY_EXPLAIN_SEARCH_H

#include <math.h>

#include "explain/probe.h"
#include "refparity/explain.h"

/* Parts of a layer's computation; a slot that was not dumped merges its own with the next. */
enum rp_stage {
    RP_STAGE_ATTENTION = 1, /* to postattn: the norm before it, attention or DeltaNet, its add */
    RP_STAGE_FFN_NORM = 2,  /* to preffn */
    RP_STAGE_FFN = 4,       /* to ffnout */
    RP_STAGE_FFN_ADD = 8,   /* to the layer's output */
    RP_STAGE_INPUT = 16,    /* from the layer before */
    RP_STAGE_EMB = 32,
    RP_STAGE_POST_NORM = 64,
    RP_STAGE_LOGITS = 128
};

/* In the order in which they are tried: the fewest free parameters first. */
enum rp_phase {
    RP_PHASE_ROWS,     /* closed forms on rows, at most one parameter */
    RP_PHASE_FIXED,    /* operations exchanged, nothing to fit */
    RP_PHASE_NUMERICS, /* other declared numerics */
    RP_PHASE_FIT,      /* operations exchanged, one parameter to fit */
    RP_PHASE_BIAS,     /* closed forms with a parameter per channel */
    RP_N_PHASES
};

/* How a parameter is searched for. */
struct rp_fit {
    bool is_log; /* steps are relative */
    double low, high;
    const double *starts; /* [n_starts], beside the model's own value */
    size_t n_starts;
};

#define RP_NO_PARAMETER ((double)NAN)
#define RP_ANY_DIGITS 9 /* of a value that is not round */

/* One thing to try. */
struct rp_candidate {
    const char *name; /* in rp_hypotheses() */
    enum rp_phase phase;
    unsigned stages;                     /* enum rp_stage, where it applies */
    void (*install)(struct rp_ops *ops); /* NULL: no operation is exchanged */
    rp_transform_fn *transform;          /* NULL: the rows are left as they are */
    double value;                        /* of a fit: where it starts */
    double own;                          /* of a fit: the model's, 0: value */
    int option;
    enum rp_weight_id which, other;
    int from_layer;                     /* whose weights are read; -1: none */
    const float *rows, *more_rows;      /* [n][dim], what a transform reads; the search's */
    const struct rp_numerics *numerics; /* the search's; NULL: as declared */
    const struct rp_fit *fit;           /* NULL: value is what is tried */
    int n_digits;                       /* of a fitted value, if it is round; 0: a fixed one */
    bool sees_later;                    /* later positions matter: all rows have to be run */
    double parameter;                   /* reported, where it is not value; NaN: none */
    bool reports_value;
    char text[200]; /* what is said; %v stands for value */
};

struct rp_trial {
    struct rp_candidate candidate;
    struct rp_place place;
    double cost;         /* mean over rows of log(1 + (error / limit)^2) */
    double share;        /* of the error's energy */
    double chi2;         /* mean over rows of (error / floor)^2, after confirmation */
    size_t n_over;       /* rows over the limit, of those that were run */
    bool first_is_under; /* the first failing row is under the limit */
    bool matches;        /* confirmed on all rows */
};

struct rp_search {
    struct rp_replay *replay;
    const struct rp_model_config *config;
    const struct rp_replay_layer *result;
    const struct rp_replay_slot *slot;
    size_t layer;
    bool runs;       /* the slot is computed by a layer, and can be run with changes */
    unsigned stages; /* between slot->from and the slot */
    enum rp_layer_kind kind;
    struct rp_layer weights, other_weights;
    int other_layer; /* whose other_weights are; -1: none */
    size_t n, dim;
    float *computed, *dumped; /* [n][dim] */
    float *rows;              /* [n][dim], of the last trial */
    bool *is_noted;           /* [n] */
    double *limit;            /* [n], relative; of a trial's row */
    bool *is_failing;         /* [n] */
    int64_t *failing;         /* [n_failing] positions */
    size_t n_failing, first;  /* first: row of the first failing position */
    struct rp_candidate *candidates;
    size_t n_candidates, candidates_capacity;
    float **slots; /* [n_slots][n][dim], other slots' rows; owned */
    size_t n_slots;
    struct rp_numerics numerics[16]; /* of candidates */
    size_t n_numerics;
    size_t n_tried;
};

enum rp_status rp_search_open(struct rp_search *search, struct rp_replay *replay,
                              const struct rp_replay_layer *result, struct rp_error *err);
void rp_search_close(struct rp_search *search);

/* Adds a copy, where its stages are the slot's. */
enum rp_status rp_search_add(struct rp_search *search, const struct rp_candidate *candidate,
                             struct rp_error *err);

/* The rows of another slot at this slot's positions, kept until the search is closed; *rows is NULL
 * where it is not dumped, or not at these positions, or not as wide. */
enum rp_status rp_search_slot_rows(struct rp_search *search, const char *slot, const float **rows,
                                   struct rp_error *err);

/* The same for rows that a family makes: [n][dim], zeroed. */
enum rp_status rp_search_new_rows(struct rp_search *search, float **rows, struct rp_error *err);

/* The rows that the slot's branch is added to; NULL where it is no sum, or they are not dumped. */
enum rp_status rp_search_base(struct rp_search *search, const float **rows, struct rp_error *err);

/* Tries one candidate on the rows 0 .. last of the slot, without flips. */
enum rp_status rp_search_try(struct rp_search *search, const struct rp_candidate *candidate,
                             const struct rp_place *place, size_t last, struct rp_trial *trial,
                             struct rp_error *err);

/* Tries it on all rows, with flips and with floors of its own; sets matches, share and chi2. */
enum rp_status rp_search_confirm(struct rp_search *search, struct rp_trial *trial,
                                 struct rp_error *err);

/* Whether a trial is worth confirming. */
bool rp_search_is_promising(const struct rp_search *search, const struct rp_trial *trial);

/* Fits candidate->value on rows 0 .. last; trial is of what was found. */
enum rp_status rp_search_fit(struct rp_search *search, const struct rp_candidate *candidate,
                             const struct rp_place *place, size_t last, struct rp_trial *trial,
                             struct rp_error *err);

/* candidate->value to so many digits, of itself or as a multiple of the model's own; 0: it is not near. */
double rp_search_round(const struct rp_candidate *candidate, int digits, bool of_own);

/* Whether the declared numerics round anything in the slot's layer. */
bool rp_search_rounds(const struct rp_search *search);

/* ---- the families: each adds what applies to the slot ---- */

enum rp_status rp_collect_rows(struct rp_search *search, struct rp_error *err);
enum rp_status rp_collect_residual(struct rp_search *search, struct rp_error *err);
enum rp_status rp_collect_rope(struct rp_search *search, struct rp_error *err);
enum rp_status rp_collect_norms(struct rp_search *search, struct rp_error *err);
enum rp_status rp_collect_attention(struct rp_search *search, struct rp_error *err);
enum rp_status rp_collect_ffn(struct rp_search *search, struct rp_error *err);
enum rp_status rp_collect_delta_net(struct rp_search *search, struct rp_error *err);
enum rp_status rp_collect_weights(struct rp_search *search, struct rp_error *err);
enum rp_status rp_collect_numerics(struct rp_search *search, struct rp_error *err);
enum rp_status rp_collect_outside(struct rp_search *search, struct rp_error *err);

#endif
