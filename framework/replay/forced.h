/* One layer's run in which every step starts from the engine's own values (teacher forcing).
 * Not for judging what comes out: that is judge.h. */
#ifndef REFPARITY_REPLAY_FORCED_H
#define REFPARITY_REPLAY_FORCED_H

#include "refparity/model.h"
#include "refparity/tensor_set.h"

/* A layer's slots in forward order: RP_PART_IN .. RP_PART_OUTPUT. */
enum { RP_N_FORCED_PARTS = 5 };
static inline enum rp_slot_part rp_forced_part(size_t k)
{
    static const enum rp_slot_part parts[] = {RP_PART_IN, RP_PART_POSTATTN, RP_PART_PREFFN,
                                              RP_PART_FFNOUT, RP_PART_OUTPUT};
    return parts[k];
}
static inline size_t rp_forced_index(enum rp_slot_part part)
{
    size_t k = 0;
    while (k + 1 < RP_N_FORCED_PARTS && rp_forced_part(k) != part)
        k++;
    return k;
}

/* One slot of the dump. */
struct rp_dumped {
    char slot[RP_SLOT_NAME_SIZE];
    const struct rp_slot_info *info; /* NULL: not dumped */
    struct rp_error err;             /* code RP_OK, or why it cannot be read */
    struct rp_tensor tensor;         /* zeroed where it cannot be read */
};

void rp_dumped_open(struct rp_dumped *dumped, struct rp_tensor_set *set, enum rp_slot_part part,
                    int layer);
void rp_dumped_close(struct rp_dumped *dumped);
/* The engine's row, at any alignment; NULL where it has none. */
const void *rp_dumped_row(const struct rp_dumped *dumped, int64_t position);
/* Whether it has a row, and all of it is finite. */
bool rp_dumped_is_finite(const struct rp_dumped *dumped, int64_t position);

/* What a layer is run on. Part k is RP_PART_IN + k. */
struct rp_forced {
    const struct rp_model *model;
    size_t layer, dim;
    size_t n;
    int64_t *positions;      /* [n], all that any of the layer's slots has */
    struct rp_dumped before; /* h{l-1}, or emb: what the layer is handed */
    struct rp_dumped parts[RP_N_FORCED_PARTS];
    float *input; /* [n][dim], zeros where the engine's is not known */
    /* [n] whether what is computed for the part stands on nothing but the engine's values */
    unsigned char *founded[RP_N_FORCED_PARTS];
    size_t n_prefix; /* rows that attention can be replayed for: no position before is missing */
    int64_t gap;     /* the first position whose input is missing, when n_prefix < n */
    bool gap_is_invalid; /* it is there, but not finite */
};

/* Reads the layer's slots; first_position is the sequence's, or -1 when it is not known. max_rows:
 * only the first so many rows, 0: all. A slot that cannot be read is left to its err. */
enum rp_status rp_forced_open(struct rp_forced *forced, const struct rp_model *model,
                              struct rp_tensor_set *dump, size_t layer, int64_t first_position,
                              size_t max_rows, struct rp_error *err);
void rp_forced_close(struct rp_forced *forced);

/* Where a run's results go. */
struct rp_forced_run {
    const struct rp_ops *ops;
    enum rp_mode mode;
    const struct rp_layer *weights;
    /* [n][dim] of each part, as computed before the engine's values take its place; or NULL */
    float *computed[RP_N_FORCED_PARTS];
    /* With against: [n] of each part, ||computed - against|| / ||against||. */
    const float *against[RP_N_FORCED_PARTS]; /* [n][dim] */
    double *distance[RP_N_FORCED_PARTS];
};
enum rp_status rp_forced_forward(const struct rp_forced *forced, const struct rp_forced_run *run,
                                 struct rp_error *err);

/* The last dumped slot that part is computed from. */
const char *rp_forced_from(const struct rp_forced *forced, enum rp_slot_part part);

#endif
