/* What replay says of a slot: errors against bounds, the verdict and its message. */
#ifndef REFPARITY_REPLAY_JUDGE_H
#define REFPARITY_REPLAY_JUDGE_H

#include "refparity/replay.h"
#include "replay/dumped.h"

/* No bound is below two roundings of a row's values: what an engine that copies a value through
 * another unit may add. */
#define RP_REPLAY_LEAST_BOUND (2 * 0x1p-24)

/* The engine's row against the replayed one. */
struct rp_row_error {
    double introduced; /* NaN where the engine's row is not finite */
    double norm;       /* of the replayed row */
    size_t channel;    /* of the first value that is not finite, else of the largest difference */
    size_t n_nan, n_inf;
};
/* engine [dim] need not be aligned. bound is absolute, as an L2 norm: where the rows differ by no more,
 * the channel may be 0. */
struct rp_row_error rp_row_error_of(const struct rp_numerics *numerics, const float *replayed,
                                    const void *engine, size_t dim, double bound);

/* The same of a row that comes in pieces; zeroed before the first. */
struct rp_row_pieces {
    double square, norm_square; /* of the differences, of the replayed values */
    double largest;             /* difference, which is in channel */
    size_t channel;
    size_t first_bad, n_nan, n_inf;
};
/* Adds n values from channel first on; engine [n] need not be aligned. */
void rp_row_piece_add(const struct rp_numerics *numerics, struct rp_row_pieces *pieces,
                      size_t first, const float *replayed, const void *engine, size_t n);
struct rp_row_error rp_row_error_of_pieces(const struct rp_row_pieces *pieces);

/* Where a rounding lies between a slot and what it is computed from: what tips are to be expected. */
struct rp_expected_tips {
    const double *worth;   /* [n] relative: what one tip of each rounding, the largest, changes */
    const double *own;     /* [n] tips to be expected in the position's own rows */
    const double *earlier; /* [n] and in the rows of earlier positions that it reads */
};

struct rp_replayed {
    enum rp_slot_part part;
    int layer;
    const char *operation, *from, *between; /* between "": nothing is carried */
    const struct rp_dumped *dumped;
    size_t n;
    const int64_t *positions;            /* [n] */
    const struct rp_row_error *errors;   /* [n] */
    const unsigned char *founded;        /* [n]; NULL: all */
    const double *bound;                 /* [n] relative */
    const struct rp_expected_tips *tips; /* NULL: nothing is rounded on the way */
    const char *says;                    /* in the place of the number; NULL, "": nothing */
    const char *left_out;                /* why positions are not founded; NULL */
    enum rp_state state;                 /* as it is declared */
};

/* Fills slot, whose arrays are then the caller's. RP_ERR_MEMORY. */
enum rp_status rp_replay_judge(const struct rp_replayed *replayed, struct rp_replay_slot *slot,
                               struct rp_error *err);
void rp_replay_slot_free(struct rp_replay_slot *slot);

/* Sets verdict and first_failing from the slots. */
void rp_replay_conclude(struct rp_replay_layer *result);

#endif
