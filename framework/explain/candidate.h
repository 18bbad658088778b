/* One thing that may explain a slot's error: operations exchanged in an overlay, or the slot's rows
 * transformed; fixed, or with one parameter to fit; and where it is at work.
 * Not for trying it: that is search.h. */
#ifndef REFPARITY_EXPLAIN_CANDIDATE_H
#define REFPARITY_EXPLAIN_CANDIDATE_H

#include <math.h>

#include "refparity/model.h"
#include "refparity/numerics.h"
#include "refparity/overlay.h"

#define RP_NO_PARAMETER ((double)NAN)
#define RP_ANY_DIGITS 9 /* of a value that is not round */

/* In the order in which they are tried: the fewest free parameters first. */
enum rp_phase {
    RP_PHASE_ROWS,     /* closed forms on rows, at most one parameter */
    RP_PHASE_NUMERICS, /* other declared numerics */
    RP_PHASE_FIXED,    /* operations exchanged, nothing to fit */
    RP_PHASE_FIT,      /* operations exchanged, one parameter to fit */
    RP_PHASE_BIAS,     /* closed forms with a parameter per channel */
    RP_N_PHASES
};

/* How a parameter is searched for. */
struct rp_fit {
    bool is_log; /* steps are relative */
    double low, high;
    const double *starts; /* [n_starts], beside the candidate's value */
    size_t n_starts;
};

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
    const float *rows, *more_rows;      /* what install and transform read; the search's */
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

/* ---- where a candidate is at work ---- */

enum rp_place_kind { RP_PLACE_ALL, RP_PLACE_ONLY, RP_PLACE_FROM, RP_PLACE_LISTED };

/* Zeroed: everywhere. */
struct rp_place {
    enum rp_place_kind kind;
    bool by_head;          /* only in the heads below; a DeltaNet's V heads are its query heads */
    int64_t position;      /* of RP_PLACE_ONLY and RP_PLACE_FROM */
    const int64_t *listed; /* [n_listed] ascending, of RP_PLACE_LISTED */
    size_t n_listed;
    size_t first_q, n_q;   /* heads of Q and of attention's output */
    size_t first_kv, n_kv; /* heads of K and V */
    size_t hf_head;        /* the one head of n_q == 1 as HF counts: what is said */
};

bool rp_place_has(const struct rp_place *place, int64_t position);

/* A change, laid over the operations at its place: elsewhere their output stays as it was. */
struct rp_placed_change {
    struct rp_overlay overlay; /* comes first */
    struct rp_change *change;
    struct rp_place place;
};
void rp_placed_change_open(struct rp_placed_change *placed, struct rp_change *change,
                           const struct rp_place *place);

/* ---- two candidates at once ---- */

/* The first's operations over the second's. */
struct rp_pair {
    struct rp_overlay overlay; /* comes first */
    struct rp_change *first, *second;
};
void rp_pair_open(struct rp_pair *pair, struct rp_change *first, struct rp_change *second);

#endif
