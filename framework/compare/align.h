/* Pairs the rows of a slot that both sides have, by position.
 * Not for judging them: see verdict.c. */
#ifndef REFPARITY_COMPARE_ALIGN_H
#define REFPARITY_COMPARE_ALIGN_H

#include <stdbool.h>

#include "refparity/compare.h"

struct rp_alignment {
    struct rp_tensor ref;    /* [n_positions][dim] */
    struct rp_tensor engine; /* [n_positions][dim] */
    size_t dim;
    size_t n_missing;      /* wanted positions of the reference that the engine's slot lacks */
    size_t n_extra;        /* positions of the engine's slot that the reference lacks */
    int64_t first_missing; /* position, -1 when none is missing */
    bool widths_differ;    /* then nothing was loaded */
    /* private */
    size_t next_ref, next_engine, next_wanted;
};

struct rp_row_pair {
    int64_t position;
    const void *ref;    /* FP32 [dim], any alignment */
    const void *engine; /* FP32 [dim], any alignment */
};

/* Loads slot from both sides and counts what one of them lacks. Errors: those of rp_tensor_load,
 * and RP_ERR_MISMATCH when the two dims differ, which is looked at first. To be closed with rp_alignment_close, also after
 * an error. */
enum rp_status rp_alignment_open(const struct rp_comparison *comparison, const char *slot,
                                 struct rp_alignment *alignment, struct rp_error *err);
void rp_alignment_close(struct rp_alignment *alignment);

/* The next position that is wanted and that both sides have, in ascending order; false at the
 * end. */
int rp_alignment_next(const struct rp_comparison *comparison, struct rp_alignment *alignment,
                      struct rp_row_pair *pair);

#endif
