/* See row_sums.h. Element i goes to lane i % LANES, and the lanes are added at the end: that fixes
 * the order of the additions, whatever the instructions are, and the build turns the compiler's own
 * contraction to FMA off. Where FMA stands below, it changes no bit: the product of two floats is
 * exact in a double (24 + 24 bits of 53), so there is one rounding with it and without it. The
 * square of a difference is not exact, and gets its two. */
#include "compare/row_sums.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { LANES = 8 };

struct lanes {
    double diff2[LANES], ref2[LANES], engine2[LANES], dot[LANES], max_abs[LANES];
};

static float load(const unsigned char *row, size_t index)
{
    float value;
    memcpy(&value, row + 4 * index, sizeof value);
    return value;
}

static void add_element(struct lanes *s, size_t lane, float r, float e)
{
    const double x = (double)r, y = (double)e, d = y - x, a = fabs(d);
    s->diff2[lane] += d * d;
    s->ref2[lane] += x * x;
    s->engine2[lane] += y * y;
    s->dot[lane] += x * y;
    s->max_abs[lane] = a > s->max_abs[lane] ? a : s->max_abs[lane];
}

/* r[n], e[n]; n is a multiple of LANES. */
static void add_blocks(const unsigned char *r, const unsigned char *e, size_t n, struct lanes *out)
{
    struct lanes s = {{0}, {0}, {0}, {0}, {0}};
    for (size_t i = 0; i < n; i += LANES)
        for (size_t lane = 0; lane < LANES; lane++)
            add_element(&s, lane, load(r, i + lane), load(e, i + lane));
    *out = s;
}

#if defined(__x86_64__)
#define HAS_AVX2 __attribute__((target("avx2,fma")))

/* Half of the lanes. */
struct four {
    __m256d diff2, ref2, engine2, dot, max_abs;
};

HAS_AVX2 static inline __attribute__((always_inline)) void
add_four(struct four *s, const unsigned char *r, const unsigned char *e)
{
    const __m256d x = _mm256_cvtps_pd(_mm_loadu_ps((const float *)(const void *)r));
    const __m256d y = _mm256_cvtps_pd(_mm_loadu_ps((const float *)(const void *)e));
    const __m256d d = _mm256_sub_pd(y, x);
    s->diff2 = _mm256_add_pd(s->diff2, _mm256_mul_pd(d, d));
    s->ref2 = _mm256_fmadd_pd(x, x, s->ref2);
    s->engine2 = _mm256_fmadd_pd(y, y, s->engine2);
    s->dot = _mm256_fmadd_pd(x, y, s->dot);
    /* the second operand where one is NaN: the maximum so far */
    s->max_abs = _mm256_max_pd(_mm256_andnot_pd(_mm256_set1_pd(-0.0), d), s->max_abs);
}

HAS_AVX2 static void store_four(const struct four *s, struct lanes *out, size_t lane)
{
    _mm256_storeu_pd(out->diff2 + lane, s->diff2);
    _mm256_storeu_pd(out->ref2 + lane, s->ref2);
    _mm256_storeu_pd(out->engine2 + lane, s->engine2);
    _mm256_storeu_pd(out->dot + lane, s->dot);
    _mm256_storeu_pd(out->max_abs + lane, s->max_abs);
}

HAS_AVX2 static void add_blocks_avx2(const unsigned char *r, const unsigned char *e, size_t n,
                                     struct lanes *out)
{
    const __m256d zero = _mm256_setzero_pd();
    struct four low = {zero, zero, zero, zero, zero}, high = low;
    for (size_t i = 0; i < n; i += LANES) {
        add_four(&low, r + 4 * i, e + 4 * i);
        add_four(&high, r + 4 * i + 16, e + 4 * i + 16);
    }
    store_four(&low, out, 0);
    store_four(&high, out, 4);
}
#endif

/* The lanes' sums, then the elements past the last whole block, in order. */
static struct rp_row_sums finish(const struct lanes *lanes, const unsigned char *r,
                                 const unsigned char *e, size_t start, size_t dim)
{
    struct lanes s = {{0}, {0}, {0}, {0}, {0}};
    for (size_t l = 0; l < LANES; l++) {
        s.diff2[0] += lanes->diff2[l];
        s.ref2[0] += lanes->ref2[l];
        s.engine2[0] += lanes->engine2[l];
        s.dot[0] += lanes->dot[l];
        s.max_abs[0] = lanes->max_abs[l] > s.max_abs[0] ? lanes->max_abs[l] : s.max_abs[0];
    }
    for (size_t i = start; i < dim; i++)
        add_element(&s, 0, load(r, i), load(e, i));
    return (struct rp_row_sums){s.diff2[0], s.ref2[0], s.engine2[0], s.dot[0], s.max_abs[0]};
}

struct rp_row_sums rp_row_sums_portable(const void *r, const void *e, size_t dim)
{
    struct lanes lanes;
    const size_t whole = dim - dim % LANES;
    add_blocks(r, e, whole, &lanes);
    return finish(&lanes, r, e, whole, dim);
}

struct rp_row_sums rp_row_sums(const void *r, const void *e, size_t dim)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        struct lanes lanes;
        const size_t whole = dim - dim % LANES;
        add_blocks_avx2(r, e, whole, &lanes);
        return finish(&lanes, r, e, whole, dim);
    }
#endif
    return rp_row_sums_portable(r, e, dim);
}
