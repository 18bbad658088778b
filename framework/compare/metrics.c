/* See refparity/metrics.h. One pass over the data: five sums in eight lanes of double each.
 * The lanes, not the instruction set, fix the order of the additions, and the build turns
 * contraction to FMA off: AVX-512, AVX2 and SSE2 give the same bits. */
#include "refparity/metrics.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 8 };

typedef float floats __attribute__((vector_size(LANES * sizeof(float))));
typedef double doubles __attribute__((vector_size(LANES * sizeof(double))));
typedef int64_t masks __attribute__((vector_size(LANES * sizeof(int64_t))));

struct sums {
    double diff2, ref2, engine2, dot, max_abs;
};

#define ALWAYS_INLINE inline __attribute__((always_inline))

static ALWAYS_INLINE void add_rows(const unsigned char *r, const unsigned char *e, size_t dim,
                                   struct sums *out)
{
    doubles diff2 = {0}, ref2 = {0}, engine2 = {0}, dot = {0}, max_abs = {0};
    const masks magnitude = (masks){0} + INT64_MAX;
    size_t i = 0;
    for (; i + LANES <= dim; i += LANES) {
        floats rf, ef;
        memcpy(&rf, r + 4 * i, sizeof rf);
        memcpy(&ef, e + 4 * i, sizeof ef);
        const doubles x = __builtin_convertvector(rf, doubles);
        const doubles y = __builtin_convertvector(ef, doubles);
        const doubles d = y - x;
        diff2 += d * d;
        ref2 += x * x;
        engine2 += y * y;
        dot += x * y;
        const doubles a = (doubles)((masks)d & magnitude);
        const masks larger = a > max_abs;
        max_abs = (doubles)(((masks)a & larger) | ((masks)max_abs & ~larger));
    }
    struct sums s = {0};
    for (size_t l = 0; l < LANES; l++) {
        s.diff2 += diff2[l];
        s.ref2 += ref2[l];
        s.engine2 += engine2[l];
        s.dot += dot[l];
        s.max_abs = max_abs[l] > s.max_abs ? max_abs[l] : s.max_abs;
    }
    for (; i < dim; i++) {
        float rf, ef;
        memcpy(&rf, r + 4 * i, sizeof rf);
        memcpy(&ef, e + 4 * i, sizeof ef);
        const double x = (double)rf, y = (double)ef, d = y - x;
        s.diff2 += d * d;
        s.ref2 += x * x;
        s.engine2 += y * y;
        s.dot += x * y;
        s.max_abs = fabs(d) > s.max_abs ? fabs(d) : s.max_abs;
    }
    *out = s;
}

static void add_rows_baseline(const unsigned char *r, const unsigned char *e, size_t dim,
                              struct sums *out)
{
    add_rows(r, e, dim, out);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void
add_rows_avx2(const unsigned char *r, const unsigned char *e, size_t dim, struct sums *out)
{
    add_rows(r, e, dim, out);
}

__attribute__((target("avx512f"))) static void
add_rows_avx512(const unsigned char *r, const unsigned char *e, size_t dim, struct sums *out)
{
    add_rows(r, e, dim, out);
}
#endif

static void add_rows_best(const void *r, const void *e, size_t dim, struct sums *out)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        add_rows_avx512(r, e, dim, out);
        return;
    }
    if (__builtin_cpu_supports("avx2")) {
        add_rows_avx2(r, e, dim, out);
        return;
    }
#endif
    add_rows_baseline(r, e, dim, out);
}

static float load(const void *row, size_t index)
{
    float value;
    memcpy(&value, (const unsigned char *)row + 4 * index, sizeof value);
    return value;
}

struct rp_metrics rp_metrics_row(const void *r, const void *e, size_t dim)
{
    struct sums s;
    add_rows_best(r, e, dim, &s);
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

static double log_sum_exp(const void *row, size_t n, double max)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)load(row, i) - max);
    return max + log(sum);
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
    const double lse_r = log_sum_exp(r, vocab, (double)load(r, best_r[0]));
    const double lse_e = log_sum_exp(e, vocab, (double)load(e, best_e[0]));
    for (size_t i = 0; i < vocab; i++) {
        const double log_p = (double)load(r, i) - lse_r;
        m.kl += exp(log_p) * (log_p - ((double)load(e, i) - lse_e));
    }
    m.kl = m.kl > 0 ? m.kl : 0; /* rounding can leave -1e-17 */
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

size_t rp_metrics_count_nonfinite(const void *row, size_t dim)
{
    size_t n = 0;
    for (size_t i = 0; i < dim; i++)
        n += isfinite(load(row, i)) ? 0 : 1;
    return n;
}
