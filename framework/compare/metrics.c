/* See refparity/metrics.h. The sums themselves are made in row_sums.c and kl.c. */
#include "refparity/metrics.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/avx2.h"
#include "compare/kl.h"
#include "compare/row_sums.h"

static float load(const void *row, size_t index)
{
    float value;
    memcpy(&value, (const unsigned char *)row + 4 * index, sizeof value);
    return value;
}

struct rp_metrics rp_metrics_row(const void *r, const void *e, size_t dim)
{
    const struct rp_row_sums s = rp_row_sums(r, e, dim);
    struct rp_metrics m = {.norm_ref = sqrt(s.ref2),
                           .norm_engine = sqrt(s.engine2),
                           .max_abs = s.max_abs,
                           .ref_finite = isfinite(s.ref2) != 0,
                           .engine_finite = isfinite(s.engine2) != 0};
    /* Squares of floats cannot overflow a double's sum: a sum that is not finite had a value that
     * was not. */
    const int finite = m.ref_finite && m.engine_finite;
    m.l2_rel = finite && s.ref2 > 0 ? sqrt(s.diff2) / m.norm_ref : (double)NAN;
    m.cosine =
        finite && s.ref2 > 0 && s.engine2 > 0 ? s.dot / (m.norm_ref * m.norm_engine) : (double)NAN;
    return m;
}

/* Indices of the k largest values of row[n], largest first; among equals the lowest index first. */
static void top_k(const void *row, size_t n, size_t k, size_t *index)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        const float value = load(row, i);
        if (count == k && !(value > load(row, index[k - 1])))
            continue;
        size_t place = count < k ? count++ : k - 1;
        for (; place > 0 && value > load(row, index[place - 1]); place--)
            index[place] = index[place - 1];
        index[place] = i;
    }
}

struct rp_logits_metrics rp_metrics_logits(const void *r, const void *e, size_t vocab)
{
    struct rp_logits_metrics m = {0};
    const size_t k = vocab < RP_TOP_K ? vocab : RP_TOP_K;
    if (k == 0)
        return m;
    size_t best_r[RP_TOP_K], best_e[RP_TOP_K];
    top_k(r, vocab, k, best_r);
    top_k(e, vocab, k, best_e);
    m.top1_ref = best_r[0];
    m.top1_engine = best_e[0];
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < k; j++)
            m.top_k_overlap += best_r[i] == best_e[j];
    const struct rp_kl kl =
        rp_kl_divergence(r, e, vocab, (double)load(r, best_r[0]), (double)load(e, best_e[0]));
    m.kl = kl.kl;
    m.information = kl.information;
    return m;
}

struct rp_row_scan rp_metrics_scan(const void *r, const void *e, size_t dim)
{
    struct rp_row_scan scan = {.first_nonfinite = dim};
    double max_abs = -1;
    for (size_t i = 0; i < dim; i++) {
        const double y = (double)load(e, i), d = fabs(y - (double)load(r, i));
        if (!isfinite(y)) {
            scan.n_nan += isnan(y) != 0;
            scan.n_inf += isnan(y) == 0;
            if (scan.first_nonfinite == dim)
                scan.first_nonfinite = i;
        } else if (d > max_abs) {
            max_abs = d;
            scan.max_abs_index = i;
        }
    }
    return scan;
}

typedef float four_floats __attribute__((vector_size(4 * sizeof(float))));
typedef double four_doubles __attribute__((vector_size(4 * sizeof(double))));

RP_LOOP void add_squares_loop(const unsigned char *row, size_t dim, double *sum)
{
    four_doubles low = {0}, high = {0};
    size_t i = 0;
    for (; i + 8 <= dim; i += 8) {
        four_floats values;
        memcpy(&values, row + 4 * i, sizeof values);
        const four_doubles a = __builtin_convertvector(values, four_doubles);
        memcpy(&values, row + 4 * i + sizeof values, sizeof values);
        const four_doubles b = __builtin_convertvector(values, four_doubles);
        low += a * a;
        high += b * b;
    }
    for (; i < dim; i++)
        low[0] += (double)load(row, i) * (double)load(row, i);
    *sum = 0;
    for (size_t lane = 0; lane < 4; lane++)
        *sum += low[lane];
    for (size_t lane = 0; lane < 4; lane++)
        *sum += high[lane];
}
RP_COMPILE_TWICE(static, add_squares, (const unsigned char *row, size_t dim, double *sum),
                 (row, dim, sum))

double rp_metrics_norm(const void *row, size_t dim)
{
    double sum;
    add_squares(row, dim, &sum);
    return sqrt(sum);
}

/* All bits of the exponent are set in NaN and infinity alone. */
typedef uint32_t eight_bits __attribute__((vector_size(8 * sizeof(uint32_t))));

RP_LOOP void count_nonfinite_loop(const unsigned char *row, size_t dim, size_t *n)
{
    eight_bits counts = {0}, bits;
    size_t i = 0;
    for (; i + 8 <= dim; i += 8) {
        memcpy(&bits, row + 4 * i, sizeof bits);
        counts -= (eight_bits)((bits & 0x7f800000u) == 0x7f800000u); /* true is all bits, -1 */
    }
    *n = 0;
    for (size_t lane = 0; lane < 8; lane++)
        *n += counts[lane];
    for (; i < dim; i++)
        *n += isfinite(load(row, i)) ? 0 : 1;
}
RP_COMPILE_TWICE(static, count_nonfinite, (const unsigned char *row, size_t dim, size_t *n),
                 (row, dim, n))

size_t rp_metrics_count_nonfinite(const void *row, size_t dim)
{
    const unsigned char *at = row;
    size_t n;
    count_nonfinite(at, dim, &n);
    return n;
}
