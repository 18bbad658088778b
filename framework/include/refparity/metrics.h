/* The numbers that a comparison is made of: L2_rel, cosine, and for logits top-1, top-k and KL.
 * Not the limits on them: the rule is in compare.h. */
#ifndef REFPARITY_METRICS_H
#define REFPARITY_METRICS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RP_TOP_K 5

/* One position of one slot: engine row e[dim] against reference row r[dim], accumulated in double.
 * The sums are made in the same order on every CPU, so the results are the same to the bit. */
struct rp_metrics {
    double l2_rel;      /* ||e - r|| / ||r||; NaN when a row is not finite or r is all zeros */
    double cosine;      /* e.r / (||e|| ||r||); NaN likewise, and when e is all zeros */
    double norm_ref;    /* ||r|| */
    double norm_engine; /* ||e|| */
    double max_abs;     /* max |e - r| over finite differences */
    int ref_finite;     /* false: r holds a NaN or an infinity */
    int engine_finite;  /* false: e does */
};

/* r and e are FP32 [dim], in native byte order, at any alignment. */
struct rp_metrics rp_metrics_row(const void *r, const void *e, size_t dim);

/* What beside the cosine is worth knowing of one position's logits. */
struct rp_logits_metrics {
    size_t top1_ref; /* index of the largest value; the lowest index among equals */
    size_t top1_engine;
    int top_k_overlap;  /* of the RP_TOP_K largest, how many both have, 0..RP_TOP_K */
    double kl;          /* KL(softmax(r) || softmax(e)) in nats, >= 0 */
    double information; /* KL(softmax(r) || uniform), what r says beyond nothing */
};

/* Both rows [vocab] have to be finite. vocab < RP_TOP_K compares that many. */
struct rp_logits_metrics rp_metrics_logits(const void *r, const void *e, size_t vocab);

/* What is wrong in a row that is not finite, and where the largest difference is. */
struct rp_row_scan {
    size_t n_nan, n_inf;
    size_t first_nonfinite; /* index, or dim when all are finite */
    size_t max_abs_index;   /* of max |e - r|, among the finite differences */
};
struct rp_row_scan rp_metrics_scan(const void *r, const void *e, size_t dim);

/* ||row[dim]||. */
double rp_metrics_norm(const void *row, size_t dim);

/* Number of NaN and infinite values in row[dim]. */
size_t rp_metrics_count_nonfinite(const void *row, size_t dim);

#ifdef __cplusplus
}
#endif
#endif
