/* Hypotheses: what an engine may have done instead of an operation. Each operation has a family of them
 * beside it, X_hypotheses.c for X.c: it looks at a failing slot and adds candidates, which exchange
 * operations in an overlay, or transform the slot's rows; fixed, or with one parameter to fit.
 * Not for trying them, and not for the order in which they are tried: that is explain/search.h. */
#ifndef REFPARITY_OPERATIONS_HYPOTHESES_H
#define REFPARITY_OPERATIONS_HYPOTHESES_H

#include <math.h>

#include "operations/operations.h"
#include "refparity/overlay.h"
#include "refparity/tensor_set.h"

#define RP_NO_PARAMETER ((double)NAN)
#define RP_ANY_DIGITS 9 /* of a value that is not round */

/* In the order in which they are tried: the fewest free parameters first. */
enum rp_phase {
    RP_PHASE_ROWS,          /* closed forms on rows, at most one parameter */
    RP_PHASE_NUMERICS,      /* other declared numerics */
    RP_PHASE_FIXED,         /* operations exchanged, nothing to fit */
    RP_PHASE_FIT,           /* operations exchanged, one parameter to fit */
    RP_PHASE_NUMERICS_PAIR, /* activations and cache, where nothing else fits */
    RP_PHASE_BIAS,          /* closed forms with a parameter per channel */
    RP_N_PHASES
};

/* How a parameter is searched for. */
struct rp_fit {
    bool is_log; /* steps are relative */
    double low, high;
    const double *starts; /* [n_starts], beside the candidate's value */
    size_t n_starts;
};

#define RP_FIT(is_log, low, high, starts)                            \
    {                                                                \
        is_log, low, high, starts, sizeof(starts) / sizeof *(starts) \
    }

struct rp_change;

/* Changes rows [n][dim], the slot as the model computes it, at change->positions. */
typedef enum rp_status rp_transform_fn(const struct rp_change *change, size_t n, size_t dim,
                                       float *rows, struct rp_error *err);

struct rp_candidate {
    const char *name; /* in rp_hypotheses() */
    enum rp_phase phase;
    void (*install)(struct rp_ops *ops); /* NULL: no operation is exchanged */
    rp_transform_fn *transform;          /* NULL: the rows are left as they are; not with install */
    double value;                        /* of a fit: where it starts */
    double own;                          /* of a fit: the model's, 0: none */
    int option;
    enum rp_weight_id which, other;
    int64_t position, from_position; /* of a state, of blocks */
    size_t also;    /* another of the search's candidates at work with it, counted from
                                    * 1; 0: none */
    int from_layer; /* whose weights are read beside the layer's own; -1: none */
    const float *rows, *more_rows; /* what install and transform read; the search's */
    /* [n] relative, the search's: what the engine's operation may be off by where the model's has no
     * rounding of its own; NULL: no more than the slot's limit. */
    const float *bound;
    const struct rp_numerics *numerics; /* the search's; NULL: as declared */
    const struct rp_fit *fit;           /* NULL: value is what is tried */
    int n_digits;                       /* of a fitted value, if it is round; 0: a fixed one */
    bool remembers;     /* arguments of one operation for a later one: not half of a pair */
    bool is_everywhere; /* it is not looked for in some positions or heads only */
    double parameter;   /* reported, where it is not value; NaN: none */
    bool reports_value;
    char text[200]; /* what the engine does, what the model has; %v stands for value */
};

/* A candidate at work: what its operations get as their context. */
struct rp_change {
    struct rp_overlay overlay; /* comes first */
    struct rp_candidate what;
    const struct rp_layer *weights; /* what.from_layer's, else the layer's own */
    const int64_t *positions;       /* [n_rows] of what.rows and of the slot */
    size_t n_rows;
    /* Remembered from one operation to a later one of the same layer. */
    struct rp_rope rope;
    struct rp_rms_norm norm[2]; /* of Q and of K */
    float *first_run;           /* [first_run_rows][channels]: see delta_rerun.c */
    size_t first_run_rows;
};

/* Hands on to the operation below. */
#define RP_RUN_BELOW(change, operation, site, args) \
    (change)->overlay.below->operation((change)->overlay.below->context, site, args)

/* Index of position in positions[n], n when it is not there. */
size_t rp_row_of(const int64_t *positions, size_t n, int64_t position);

/* ---- what a family sees ---- */

/* An operation on the way to the slot. */
struct rp_operation_step {
    enum rp_step_kind kind;
    enum rp_weight_id which;
};

/* The slot that is to be explained. */
struct rp_failing_slot {
    const char *name, *from; /* "h3_attn"; the slots that it was computed from */
    enum rp_slot_part part;
    int layer;                /* -1: outside the layers */
    bool is_carried;          /* its operation's inputs are not all dumped */
    const int64_t *positions; /* [n] */
};

struct rp_search {
    const struct rp_model_config *config;
    const struct rp_gguf *gguf;
    const float *rope_freqs; /* [n_rot / 2] of the slot's layer, NULL: none */
    /* The same of longrope that is not for the sequence's length, NULL: none; whether that exceeds the original
     * context. */
    const float *other_rope_freqs;
    bool is_long;
    struct rp_tensor_set *dump;
    int64_t first_position;      /* of the sequence; -1: not known */
    struct rp_numerics numerics; /* as declared */
    struct rp_failing_slot slot;
    struct rp_operation_step steps[64]; /* [n_steps] that lead from dumped slots to this one */
    size_t n_steps;
    enum rp_layer_kind kind; /* of the slot's layer */
    struct rp_layer weights; /* the layer's, for reading; none outside the layers */
    size_t n, dim;
    float *computed, *dumped; /* [n][dim] */
    float *rows;              /* [n][dim], of the last trial */
    double *error, *limit;    /* [n], relative; error: of computed */
    bool *is_failing;         /* [n] */
    int64_t *failing;         /* [n_failing] positions */
    size_t n_failing, first;  /* first: row of the first failing position */
    struct rp_candidate *candidates;
    size_t n_candidates, candidates_capacity;
    float **owned; /* [n_owned] rows that candidates read */
    size_t n_owned;
    enum rp_status status; /* the first failure of a family; err may be NULL */
    struct rp_error *err;
    /* What explain/search.c does for families. The dump's rows of a slot at the slot's positions,
     * rows [n][dim] in the model's order: */
    enum rp_status (*read_dumped)(struct rp_search *search, const char *slot, size_t dim,
                                  float *rows, struct rp_error *err);
    /* A trial, everywhere: error [n] of each row that it leaves. */
    enum rp_status (*try_rows)(struct rp_search *search, const struct rp_candidate *candidate,
                               double *error, struct rp_error *err);
};

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
/* Adds a copy with that text. After a failure of this or of what follows, the first of which is kept in
 * search->status, nothing is added any more: families need not ask. */
void rp_search_add(struct rp_search *search, struct rp_candidate candidate, const char *fmt, ...)
    RP_PRINTF(3, 4);
/* Several hypotheses about one operation with nothing to fit; left out where no such step leads to the
 * slot. */
struct rp_hypothesis {
    const char *name;
    int option;
    double value; /* RP_NO_PARAMETER: it has none */
    const char *text;
};
struct rp_candidate rp_candidate_of(struct rp_hypothesis hypothesis,
                                    void (*install)(struct rp_ops *ops));
void rp_search_add_all(struct rp_search *search, enum rp_step_kind kind,
                       void (*install)(struct rp_ops *ops), const struct rp_hypothesis *hypotheses,
                       size_t n);
#define RP_ADD_ALL(search, kind, install, hypotheses) \
    rp_search_add_all(search, kind, install, hypotheses, sizeof(hypotheses) / sizeof *(hypotheses))
/* The same of one whose value is fitted, from `value`; own: the model's, 0: it has none. */
void rp_search_add_fit(struct rp_search *search, enum rp_step_kind kind,
                       void (*install)(struct rp_ops *ops), struct rp_hypothesis hypothesis,
                       const struct rp_fit *fit, double own);
/* Rows that candidates read, [n][dim], zeroed, kept until the search is closed; NULL: no memory. */
float *rp_search_new_rows(struct rp_search *search);
/* The dump's rows of another slot at this slot's positions, [n][dim]: NULL where they are not dumped or
 * not as wide. Kept until the search is closed. */
const float *rp_search_slot_rows(struct rp_search *search, const char *slot, size_t dim);
/* The residual stream that enters the layer, [n][dim]; NULL: not dumped, or not as wide. */
const float *rp_search_layer_input(struct rp_search *search, size_t dim);
/* The residual stream that the slot's branch is added to; NULL where it is no sum, or not dumped. */
const float *rp_search_base(struct rp_search *search);
/* Keeps the failure of something else. */
void rp_search_note(struct rp_search *search, enum rp_status status);

/* x [n_positions][dim], with the candidate's rows at the positions that it has. */
void rp_change_rows(const struct rp_change *change, const struct rp_site *site, size_t dim,
                    float *x);
/* x to `bits` of mantissa after the first one, to nearest, ties to even; F16's and BF16's range is not
 * minded. */
float rp_round_mantissa(float x, int bits);

#define RP_MOST_WORK 4e9 /* multiply-adds of many trials together: a few seconds */

/* What a trial costs in multiply-adds: the weights of the products on the way, for each position. */
double rp_search_work(const struct rp_search *search);

/* ---- the families ---- */

/* Adds what applies to the slot's steps. */
typedef void rp_collect_fn(struct rp_search *search);
rp_collect_fn rp_collect_residual_add, rp_collect_rope, rp_collect_rope_on_nope,
    rp_collect_rope_scaling, rp_collect_rms_norm, rp_collect_attention, rp_collect_ffn_activation,
    rp_collect_delta_net, rp_collect_latents, rp_collect_experts, rp_collect_linear,
    rp_collect_embed;

/* A product of chosen experts, narrowed to one of its rows; linear points into it. */
struct rp_expert_row {
    struct rp_site site;
    struct rp_linear linear;
    struct rp_expert_rows rows;
};
void rp_expert_row_take(struct rp_expert_row *row, const struct rp_site *site,
                        const struct rp_linear *args, size_t i);

/* Of rp_collect_experts, the first two. */
rp_collect_fn rp_collect_expert_numbers, rp_collect_router;

/* Of all operations, in the order in which their candidates are tried. */
extern rp_collect_fn *const rp_families[];
extern const size_t rp_n_families;

#endif
