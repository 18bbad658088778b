/* One change to a layer, laid over the operations: everywhere, at some positions, or in some heads;
 * and the rows of the slot that it leads to.
 * Not for what is worth trying: that is in the families' files, see explain/search.h. */
#ifndef REFPARITY_EXPLAIN_PROBE_H
#define REFPARITY_EXPLAIN_PROBE_H

#include "refparity/model.h"
#include "refparity/overlay.h"

enum rp_place_kind { RP_PLACE_ALL, RP_PLACE_ONLY, RP_PLACE_FROM, RP_PLACE_LISTED };

/* Where a change is at work; zeroed: everywhere. */
struct rp_place {
    enum rp_place_kind kind;
    bool by_head;          /* only in the heads below; a DeltaNet's V heads are its query heads */
    int64_t position;      /* of RP_PLACE_ONLY and RP_PLACE_FROM */
    const int64_t *listed; /* [n_listed] ascending, of RP_PLACE_LISTED */
    size_t n_listed;
    size_t first_q, n_q;   /* heads of Q and of attention's output */
    size_t first_kv, n_kv; /* heads of K and V */
};

bool rp_place_has(const struct rp_place *place, int64_t position);

struct rp_change;

/* Changes rows [site->n_positions][dim], the slot as it has just been computed. */
typedef enum rp_status rp_transform_fn(struct rp_change *change, const struct rp_site *site,
                                       size_t dim, float *rows);

/* What is changed: operations, or the slot's rows. The functions below read the rest. */
struct rp_change {
    struct rp_overlay overlay;  /* comes first; what its operations get as their context */
    rp_transform_fn *transform; /* NULL: none */
    double value;
    int option;
    enum rp_weight_id which, other;
    const struct rp_layer
        *weights;             /* what else a change reads: other weights of the layer's kind */
    const float *rows;        /* [n_rows][dim], of another slot, in the order of positions */
    const float *more_rows;   /* [n_rows][dim], of one more */
    const int64_t *positions; /* [n_rows] */
    size_t n_rows;
    /* Remembered from one operation to a later one of the same layer. */
    struct rp_rope rope;
    struct rp_rms_norm norm[2]; /* of Q and of K */
};

/* Overlay that runs change where the place is, and notes the slot's rows. */
struct rp_probe {
    struct rp_overlay overlay; /* comes first */
    struct rp_change change;
    struct rp_place place;
    enum rp_slot_part part;   /* of the slot whose rows are noted */
    const int64_t *positions; /* [n_rows] ascending, of the slot; the caller's */
    size_t n_rows;
    float *rows;    /* [n_rows][dim]; the caller's */
    bool *is_noted; /* [n_rows]; the caller's */
};

/* Everything is handed on; then set what is to change, and the fields after it. Must not move. */
void rp_probe_open(struct rp_probe *probe);

/* Index of position in positions[n], n when it is not there. */
size_t rp_row_of(const int64_t *positions, size_t n, int64_t position);

#endif
