/* See kl.h. With w = exp(r - max r), the logarithms come out of the sum over the vocabulary:
 *     KL = sum w (r - e) / sum w + logsumexp(e) - logsumexp(r)
 * which leaves two exponentials a value. They are our own, because the C library's work on one value
 * at a time, and give other bits where it has FMA: here, as in row_sums.c, element i goes to lane
 * i % LANES, and each lane does the same operations on every CPU. */
#include "compare/kl.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { LANES = 8, DEGREE = 12 };

/* exp(x) = 2^n exp(t), n = round(x / ln 2), |t| <= ln(2) / 2, where Taylor's polynomial of this
 * degree is within 2e-16. Adding ROUND leaves n in a double's lowest bits. ln 2 is in two parts, the
 * first with zeros at its end, so that n times it is exact: fdlibm's e_exp.c. Below SMALLEST, 2^n
 * would not be a normal number; a probability of 1e-307 is as good as 0. */
static const double taylor[DEGREE + 1] = {1.0 / 479001600,
                                          1.0 / 39916800,
                                          1.0 / 3628800,
                                          1.0 / 362880,
                                          1.0 / 40320,
                                          1.0 / 5040,
                                          1.0 / 720,
                                          1.0 / 120,
                                          1.0 / 24,
                                          1.0 / 6,
                                          1.0 / 2,
                                          1,
                                          1};
static const double SMALLEST = -707, ROUND = 0x1.8p52, LOG2_E = 1.44269504088896338700;
static const double LN2_HIGH = 6.93147180369123816490e-01, LN2_LOW = 1.90821492927058770002e-10;

struct lanes {
    double sum_r[LANES], sum_e[LANES], sum_diff[LANES];
    double sum_top[LANES]; /* of w (r - max r) */
};

static double load(const unsigned char *row, size_t index)
{
    float value;
    memcpy(&value, row + 4 * index, sizeof value);
    return (double)value;
}

/* x <= 0 */
static double exp_of(double x)
{
    x = x > SMALLEST ? x : SMALLEST;
    const double rounded = x * LOG2_E + ROUND, n = rounded - ROUND;
    const double t = (x - n * LN2_HIGH) - n * LN2_LOW;
    double p = taylor[0];
    for (size_t k = 1; k <= DEGREE; k++)
        p = p * t + taylor[k];
    uint64_t bits, exponent;
    memcpy(&bits, &p, sizeof bits);
    memcpy(&exponent, &rounded, sizeof exponent);
    bits += exponent << 52;
    memcpy(&p, &bits, sizeof p);
    return p;
}

static void add_element(struct lanes *s, size_t lane, double x, double y, double max_r,
                        double max_e)
{
    const double w = exp_of(x - max_r);
    s->sum_r[lane] += w;
    s->sum_top[lane] += w * (x - max_r);
    s->sum_e[lane] += exp_of(y - max_e);
    s->sum_diff[lane] += w * (x - y);
}

/* r[n], e[n]; n is a multiple of LANES. */
static void add_blocks(const unsigned char *r, const unsigned char *e, size_t n, double max_r,
                       double max_e, struct lanes *s)
{
    for (size_t i = 0; i < n; i += LANES)
        for (size_t lane = 0; lane < LANES; lane++)
            add_element(s, lane, load(r, i + lane), load(e, i + lane), max_r, max_e);
}

#if defined(__x86_64__)
#define HAS_AVX2 __attribute__((target("avx2")))
#define ALWAYS_INLINE inline __attribute__((always_inline))

HAS_AVX2 static ALWAYS_INLINE __m256d exp_of_four(__m256d x)
{
    const __m256d round = _mm256_set1_pd(ROUND);
    x = _mm256_max_pd(x, _mm256_set1_pd(SMALLEST));
    const __m256d rounded = _mm256_add_pd(_mm256_mul_pd(x, _mm256_set1_pd(LOG2_E)), round);
    const __m256d n = _mm256_sub_pd(rounded, round);
    const __m256d high = _mm256_sub_pd(x, _mm256_mul_pd(n, _mm256_set1_pd(LN2_HIGH)));
    const __m256d t = _mm256_sub_pd(high, _mm256_mul_pd(n, _mm256_set1_pd(LN2_LOW)));
    __m256d p = _mm256_set1_pd(taylor[0]);
#pragma GCC unroll 12
    for (size_t k = 1; k <= DEGREE; k++)
        p = _mm256_add_pd(_mm256_mul_pd(p, t), _mm256_set1_pd(taylor[k]));
    const __m256i exponent = _mm256_slli_epi64(_mm256_castpd_si256(rounded), 52);
    return _mm256_castsi256_pd(_mm256_add_epi64(_mm256_castpd_si256(p), exponent));
}

/* Half of the lanes. */
struct four {
    __m256d sum_r, sum_e, sum_diff, sum_top;
};

HAS_AVX2 static ALWAYS_INLINE void add_four(struct four *s, const unsigned char *r,
                                            const unsigned char *e, __m256d max_r, __m256d max_e)
{
    const __m256d x = _mm256_cvtps_pd(_mm_loadu_ps((const float *)(const void *)r));
    const __m256d y = _mm256_cvtps_pd(_mm_loadu_ps((const float *)(const void *)e));
    const __m256d below = _mm256_sub_pd(x, max_r), w = exp_of_four(below);
    s->sum_r = _mm256_add_pd(s->sum_r, w);
    s->sum_e = _mm256_add_pd(s->sum_e, exp_of_four(_mm256_sub_pd(y, max_e)));
    s->sum_diff = _mm256_add_pd(s->sum_diff, _mm256_mul_pd(w, _mm256_sub_pd(x, y)));
    s->sum_top = _mm256_add_pd(s->sum_top, _mm256_mul_pd(w, below));
}

HAS_AVX2 static void add_blocks_avx2(const unsigned char *r, const unsigned char *e, size_t n,
                                     double max_r, double max_e, struct lanes *out)
{
    const __m256d zero = _mm256_setzero_pd();
    const __m256d max_r4 = _mm256_set1_pd(max_r), max_e4 = _mm256_set1_pd(max_e);
    struct four low = {zero, zero, zero, zero}, high = low;
    for (size_t i = 0; i < n; i += LANES) {
        add_four(&low, r + 4 * i, e + 4 * i, max_r4, max_e4);
        add_four(&high, r + 4 * i + 16, e + 4 * i + 16, max_r4, max_e4);
    }
    _mm256_storeu_pd(out->sum_r, low.sum_r);
    _mm256_storeu_pd(out->sum_e, low.sum_e);
    _mm256_storeu_pd(out->sum_diff, low.sum_diff);
    _mm256_storeu_pd(out->sum_top, low.sum_top);
    _mm256_storeu_pd(out->sum_r + 4, high.sum_r);
    _mm256_storeu_pd(out->sum_e + 4, high.sum_e);
    _mm256_storeu_pd(out->sum_diff + 4, high.sum_diff);
    _mm256_storeu_pd(out->sum_top + 4, high.sum_top);
}
#endif

/* The elements past the last whole block, then the lanes' sums. With KL's sum over a uniform e,
 *     log n - H = sum w (r - max r) / sum w + log n - log(sum w). */
static struct rp_kl finish(struct lanes *s, const unsigned char *r, const unsigned char *e,
                           size_t start, size_t n, double max_r, double max_e)
{
    for (size_t i = start; i < n; i++)
        add_element(s, i - start, load(r, i), load(e, i), max_r, max_e);
    for (size_t lane = 1; lane < LANES; lane++) {
        s->sum_r[0] += s->sum_r[lane];
        s->sum_e[0] += s->sum_e[lane];
        s->sum_diff[0] += s->sum_diff[lane];
        s->sum_top[0] += s->sum_top[lane];
    }
    const double difference = (max_e + log(s->sum_e[0])) - (max_r + log(s->sum_r[0]));
    const double kl = s->sum_diff[0] / s->sum_r[0] + difference;
    const double information = s->sum_top[0] / s->sum_r[0] + log((double)n / s->sum_r[0]);
    /* rounding can leave -1e-17 */
    return (struct rp_kl){.kl = kl > 0 ? kl : 0, .information = information > 0 ? information : 0};
}

struct rp_kl rp_kl_divergence_portable(const void *r, const void *e, size_t n, double max_r,
                                       double max_e)
{
    struct lanes lanes = {.sum_r = {0}};
    const size_t whole = n - n % LANES;
    add_blocks(r, e, whole, max_r, max_e, &lanes);
    return finish(&lanes, r, e, whole, n, max_r, max_e);
}

struct rp_kl rp_kl_divergence(const void *r, const void *e, size_t n, double max_r, double max_e)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        struct lanes lanes;
        const size_t whole = n - n % LANES;
        add_blocks_avx2(r, e, whole, max_r, max_e, &lanes);
        return finish(&lanes, r, e, whole, n, max_r, max_e);
    }
#endif
    return rp_kl_divergence_portable(r, e, n, max_r, max_e);
}
