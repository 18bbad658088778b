/* One head of one position of attention, with what each score and weight is and may be off by.
 * Private to the bound of attention. */
#ifndef REFPARITY_OPERATIONS_ATTENTION_ROW_H
#define REFPARITY_OPERATIONS_ATTENTION_ROW_H

#include "operations/operations.h"

/* A running sum is rounded by 0.42 u of what it has come to, in the root mean square. A limit is three
 * sigma, and where one score or one key decides, three standard errors are passed once in 370 rows:
 * sigma is 5/3 of a standard error, so that a limit is five. */
#define RP_SCORE_ERROR 0.7

struct rp_attention_row {
    const struct rp_attention *args;
    size_t head, kv_head, n_visible, kv_dim;
    const float *q;         /* [head_dim], as it is multiplied */
    const float *keys;      /* [n_visible][head_dim], rows kv_dim apart */
    const float *values;    /* [n_visible][head_dim], rows kv_dim apart */
    const float *key_norms; /* |K|^2, n_kv_heads apart; NULL: Q and K were not turned */
    const float *y;         /* [head_dim] */
    float *scores;          /* [n_visible], scaled */
    float *errors;          /* [n_visible]: sigma of ln weight before the sum, in u */
    float *weights;         /* [n_visible]: softmax */
    float *sink;            /* [2]: the sink's weight, and sigma of its ln as in errors; 0: none */
};

/* The sum of squares. */
static inline double rp_square_of(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

/* Scores, errors and weights from q and keys. Of n_common keys scores has q . key already, and errors the sum of
 * the terms' squares. */
void rp_attention_row_fill(const struct rp_attention_row *row, size_t n_common);

/* The square of what the sum over the values is rounded by, in u, where all terms are of one size. */
double rp_attention_row_of_sum(const struct rp_attention_row *row);

/* sigma [head_dim] of sums in FP32; sum [head_dim] has what n_common keys add. Weights that are rounded before
 * the sum do not pass their error on: they tip or they do not. */
void rp_attention_row_sums(const struct rp_attention_row *row, bool passes_weights, size_t n_common,
                           float *sum, float *sigma);

/* y [dim] was turned back, size values at a time: sigma [dim] takes in a sum of as many terms. */
void rp_attention_row_turned_back(const float *y, size_t dim, size_t size, float *sigma);

/* Weights that are rounded to F16: the sum of what each one's tip changes, of those that are near enough to
 * the middle. */
double rp_attention_row_weights_tip(const struct rp_attention_row *row);

/* Sums in F16: expected and square, [head_dim], as rp_rare_sum takes them; sums [3][head_dim] is scratch. */
void rp_attention_row_sums_tip(const struct rp_attention_row *row, float *sums, double *expected,
                               double *square);

#endif
