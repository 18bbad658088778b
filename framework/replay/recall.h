/* Runs single rows of a layer again, on what the layer remembers of the others: the economy of
 * trying many small changes. Not for choosing them: that is flips.c. */
#ifndef REFPARITY_REPLAY_RECALL_H
#define REFPARITY_REPLAY_RECALL_H

#include "refparity/model.h"
#include "refparity/numerics.h"
#include "refparity/overlay.h"

/* What a row reads of other rows, kept from a run over all of them. An overlay; outermost. */
struct rp_recall {
    struct rp_overlay overlay; /* comes first */
    size_t n;
    const int64_t *positions; /* [n] */
    const size_t *rows;       /* which of them the run is over, ascending; NULL: all */
    bool commits;             /* what the run's rows leave behind is kept */
    /* Kept of these all the same, from row kept_from to kept_to - 1. */
    size_t kept_from, kept_to;
    /* Told the size of a row's batch while the row runs alone; NULL: nobody asks. */
    struct rp_numerics *numerics;
    size_t kv_dim;
    float *keys, *values; /* [n][kv_dim], as stored; full attention only */
    float *scores;        /* [n] */
    /* Linear attention only. */
    size_t n_channels, n_heads, qkv_stride;
    float *conv_in;      /* [n][channels of the convolution] */
    float *qkv;          /* [n][qkv_stride]: Q, K and V after the convolution */
    float *decay, *beta; /* [n][n_heads] */
    /* What the products read that a slot comes straight after, as of the run that left it behind:
     * [RP_LAST_OF_ATTENTION] attention's output product, [RP_LAST_OF_FFN] the FFN's. */
    float *last_in[2]; /* [n][last_width] */
    size_t last_width[2];
};
enum { RP_LAST_OF_ATTENTION, RP_LAST_OF_FFN, RP_NOT_LAST };
int rp_recall_last_product(enum rp_weight_id which);

void rp_recall_open(struct rp_recall *recall, size_t n, const int64_t *positions,
                    const struct rp_ops *below);
void rp_recall_close(struct rp_recall *recall);

/* What is kept of one row. Swapped with buffer [rp_recall_row_size]. */
size_t rp_recall_row_size(const struct rp_recall *recall);
void rp_recall_swap(struct rp_recall *recall, size_t row, float *buffer);

#endif
