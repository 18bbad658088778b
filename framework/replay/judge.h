/* Verdict and message of one replayed slot. */
#ifndef REFPARITY_REPLAY_JUDGE_H
#define REFPARITY_REPLAY_JUDGE_H

#include "refparity/replay.h"
#include "replay/forced.h"

/* Two right programs may differ by the last bit of a value, and by how it was stored. */
#define RP_REPLAY_MIN_FLOOR 0x1p-23

/* One row of the engine's against the replayed one. */
struct rp_row_error {
    double
        introduced; /* ||e - r|| / ||r||, 0 when both are all zeros; NaN where one is not finite */
    size_t channel; /* where |e - r| is largest, or the first value that is not finite */
    size_t n_nan, n_inf;
};
struct rp_row_error rp_row_error_of(const void *replayed, const void *engine, size_t dim);
bool rp_is_over(double introduced, double floor);

/* A slot that was computed. Rows are those of positions. */
struct rp_replayed {
    enum rp_slot_part part;
    int layer;
    const char *from;
    const struct rp_dumped *dumped;
    size_t n;
    const int64_t *positions;          /* [n] */
    const struct rp_row_error *errors; /* [n]; of rows that the dump has and that are founded */
    const unsigned char *founded;      /* [n]; NULL: all are */
    const double *floor;               /* [n] as measured, or NULL: the least */
    const size_t *n_flips;             /* [n], or NULL: none */
    bool is_bounded;                   /* the search for flips ended early */
    const char *left_out;              /* why rows are not founded; NULL: no reason to give */
};

/* Fills slot, which is freed with rp_replay_slot_free. RP_ERR_MEMORY. */
enum rp_status rp_replay_judge(const struct rp_replayed *replayed, struct rp_replay_slot *slot,
                               struct rp_error *err);
void rp_replay_slot_free(struct rp_replay_slot *slot);

/* The layer's verdict and first_failing, from its slots. */
void rp_replay_conclude(struct rp_replay_layer *result);

#endif
