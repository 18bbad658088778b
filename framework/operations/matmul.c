/* See operations/matmul.h. Each sum is made of 8 lanes, added pairwise at the end: independent of each
 * other, so that the compiler vectorizes them without reordering anything, and the error grows
 * with n/8 terms instead of n. */
#include "operations/matmul.h"

#include <string.h>

#if defined(RP_HAVE_CBLAS)
#include <cblas.h>
#include <limits.h>
#endif

#define LANES 8
#define POSITION_BLOCK 64 /* rows of x that stay in the cache while weight passes by */
#define OUT_BLOCK 32      /* rows of weight whose products are added at a time */

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Two halves of 4, which every target has in one register. */
typedef float half_lanes __attribute__((vector_size(4 * sizeof(float))));
struct lanes {
    half_lanes low, high;
};

static inline struct lanes load(const float *from)
{
    struct lanes lanes;
    memcpy(&lanes, from, sizeof lanes);
    return lanes;
}

static inline void multiply_add(struct lanes *sum, const struct lanes *a, const struct lanes *b)
{
    sum->low += a->low * b->low;
    sum->high += a->high * b->high;
}

/* The lanes' sum, plus the products from `from` to n, which fill no lanes. */
static inline float finish(const struct lanes *sum, const float *a, const float *b, size_t from,
                           size_t n)
{
    half_lanes four = sum->low + sum->high;
    float total = (four[0] + four[2]) + (four[1] + four[3]);
    for (size_t i = from; i < n; i++)
        total += a[i] * b[i];
    return total;
}

float rp_dot(const float *a, const float *b, size_t n)
{
    struct lanes sum = {{0}, {0}};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        struct lanes av = load(a + i), bv = load(b + i);
        multiply_add(&sum, &av, &bv);
    }
    return finish(&sum, a, b, i, n);
}

/* Two rows of weight by two rows of x: four sums per four loads. */
static void dot_2x2(const float *w0, const float *w1, const float *x0, const float *x1, size_t n,
                    float *y0, float *y1)
{
    struct lanes s00 = {{0}, {0}}, s01 = s00, s10 = s00, s11 = s00;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        struct lanes a = load(w0 + i), b = load(w1 + i), c = load(x0 + i), d = load(x1 + i);
        multiply_add(&s00, &a, &c);
        multiply_add(&s10, &b, &c);
        multiply_add(&s01, &a, &d);
        multiply_add(&s11, &b, &d);
    }
    y0[0] = finish(&s00, w0, x0, i, n);
    y0[1] = finish(&s10, w1, x0, i, n);
    y1[0] = finish(&s01, w0, x1, i, n);
    y1[1] = finish(&s11, w1, x1, i, n);
}

#if defined(__x86_64__) && defined(__GNUC__)
#define HAS_AVX2_TILE 1
/* All 8 lanes in one register. */
typedef float wide_lanes __attribute__((vector_size(LANES * sizeof(float))));

/* Four rows of weight by two rows of x, x_stride apart: eight sums per six loads, and each sum made
 * exactly as in dot_2x2: -ffp-contract=off keeps products and sums apart, so that every CPU gives the
 * same bits. */
__attribute__((target("avx2"))) static void
tile_avx2(const float *w, const float *x, size_t x_stride, size_t n, float *y, size_t y_stride)
{
    const float *w0 = w, *w1 = w0 + n, *w2 = w1 + n, *w3 = w2 + n, *x0 = x, *x1 = x0 + x_stride;
    wide_lanes s00 = {0}, s01 = s00, s10 = s00, s11 = s00, s20 = s00, s21 = s00, s30 = s00,
               s31 = s00;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        wide_lanes weight, a, b;
        memcpy(&a, x0 + i, sizeof a);
        memcpy(&b, x1 + i, sizeof b);
        memcpy(&weight, w0 + i, sizeof weight);
        s00 += weight * a;
        s01 += weight * b;
        memcpy(&weight, w1 + i, sizeof weight);
        s10 += weight * a;
        s11 += weight * b;
        memcpy(&weight, w2 + i, sizeof weight);
        s20 += weight * a;
        s21 += weight * b;
        memcpy(&weight, w3 + i, sizeof weight);
        s30 += weight * a;
        s31 += weight * b;
    }
    const wide_lanes sums[2][4] = {{s00, s10, s20, s30}, {s01, s11, s21, s31}};
    for (size_t p = 0; p < 2; p++) {
        for (size_t out = 0; out < 4; out++) {
            struct lanes sum;
            memcpy(&sum, &sums[p][out], sizeof sum);
            y[p * y_stride + out] = finish(&sum, w + out * n, x + p * x_stride, i, n);
        }
    }
}
#endif

/* As rp_matmul, for as many rows of weight as come in fours; returns how many that are. An odd last row
 * of x goes with the one before it once more, and a single one with itself. */
static size_t matmul_tiles(const float *weight, size_t n_out, size_t n_in, const float *x, size_t n,
                           float *y, size_t y_stride)
{
    size_t out = 0;
#if defined(HAS_AVX2_TILE)
    size_t step = n > 1; /* from a tile's first row of x to its second */
    if (!__builtin_cpu_supports("avx2"))
        return 0;
    for (; out + 4 <= n_out; out += 4) {
        for (size_t p = 0; p < n; p += 2) {
            size_t first = p + 1 < n ? p : p - step;
            tile_avx2(weight + out * n_in, x + first * n_in, step * n_in, n_in,
                      y + first * y_stride + out, step * y_stride);
        }
    }
#else
    (void)weight, (void)n_out, (void)n_in, (void)x, (void)n, (void)y, (void)y_stride;
#endif
    return out;
}

/* As rp_matmul; n is at most POSITION_BLOCK. */
static void matmul_block(const float *weight, size_t n_out, size_t n_in, const float *x, size_t n,
                         float *y, size_t y_stride)
{
    size_t out = matmul_tiles(weight, n_out, n_in, x, n, y, y_stride);
    for (; out + 2 <= n_out; out += 2) {
        const float *w0 = weight + out * n_in, *w1 = w0 + n_in;
        size_t p = 0;
        for (; p + 2 <= n; p += 2)
            dot_2x2(w0, w1, x + p * n_in, x + (p + 1) * n_in, n_in, y + p * y_stride + out,
                    y + (p + 1) * y_stride + out);
        if (p < n) {
            y[p * y_stride + out] = rp_dot(w0, x + p * n_in, n_in);
            y[p * y_stride + out + 1] = rp_dot(w1, x + p * n_in, n_in);
        }
    }
    for (size_t p = 0; p < n && out < n_out; p++)
        y[p * y_stride + out] = rp_dot(weight + out * n_in, x + p * n_in, n_in);
}

void rp_matmul_plain(const float *weight, size_t n_out, size_t n_in, const float *x, size_t n,
                     float *y, size_t y_stride)
{
    for (size_t p = 0; p < n; p += POSITION_BLOCK) {
        size_t block = smaller(n - p, POSITION_BLOCK);
        matmul_block(weight, n_out, n_in, x + p * n_in, block, y + p * y_stride, y_stride);
    }
}

#if defined(RP_HAVE_CBLAS)
/* Where sgemm was measured to be faster than the loop: it packs the weights first, which pays from
 * 20 to 30 rows of x on. Below CBLAS_MIN_PRODUCTS either takes no time. */
#define CBLAS_MIN_POSITIONS 32
#define CBLAS_MIN_PRODUCTS ((size_t)1 << 22)
#define CBLAS_MIN_STRIDED ((size_t)1 << 17)
#define CBLAS_MIN_ADDED ((size_t)1 << 19) /* of products of few terms, beside a large one */

static bool suits_cblas(size_t n_out, size_t n_in, size_t n, size_t y_stride, size_t least)
{
    return n >= CBLAS_MIN_POSITIONS && n_in > 0 && n_out >= least / n / n_in && n <= INT_MAX &&
           n_out <= INT_MAX && n_in <= INT_MAX && y_stride <= INT_MAX;
}

/* y = beta y + the product. */
static void sgemm(const float *weight, size_t n_out, size_t n_in, const float *x, size_t n,
                  float beta, float *y, size_t y_stride)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)n_out, (int)n_in, 1.0f, x,
                (int)n_in, weight, (int)n_in, beta, y, (int)y_stride);
}
#endif

void rp_matmul(const float *weight, size_t n_out, size_t n_in, const float *x, size_t n, float *y,
               size_t y_stride)
{
#if defined(RP_HAVE_CBLAS)
    if (suits_cblas(n_out, n_in, n, y_stride, CBLAS_MIN_PRODUCTS)) {
        sgemm(weight, n_out, n_in, x, n, 0.0f, y, y_stride);
        return;
    }
#endif
    rp_matmul_plain(weight, n_out, n_in, x, n, y, y_stride);
}

void rp_matmul_add(const float *weight, size_t n_out, size_t n_in, const float *x, size_t n,
                   float *y, size_t y_stride)
{
    float sums[POSITION_BLOCK][OUT_BLOCK];
#if defined(RP_HAVE_CBLAS)
    if (suits_cblas(n_out, n_in, n, y_stride, CBLAS_MIN_ADDED)) {
        sgemm(weight, n_out, n_in, x, n, 1.0f, y, y_stride);
        return;
    }
#endif
    for (size_t p = 0; p < n; p += POSITION_BLOCK) {
        const size_t n_rows = smaller(n - p, POSITION_BLOCK);
        for (size_t out = 0; out < n_out; out += OUT_BLOCK) {
            const size_t n_sums = smaller(n_out - out, OUT_BLOCK);
            matmul_block(weight + out * n_in, n_sums, n_in, x + p * n_in, n_rows, sums[0],
                         OUT_BLOCK);
            for (size_t row = 0; row < n_rows; row++)
                for (size_t i = 0; i < n_sums; i++)
                    y[(p + row) * y_stride + out + i] += sums[row][i];
        }
    }
}

bool rp_matmul_strided(const struct rp_strided_product *product)
{
#if defined(RP_HAVE_CBLAS)
    const size_t n_out = product->n_out, n_in = product->n_in, n = product->n;
    if (n_out == 0 || n_in == 0 || n_out > INT_MAX || n_in > INT_MAX || n > INT_MAX ||
        product->x_stride > INT_MAX || product->weight_stride > INT_MAX ||
        product->y_stride > INT_MAX || n < CBLAS_MIN_POSITIONS ||
        n_out * n_in < CBLAS_MIN_STRIDED / n)
        return false;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, product->is_transposed ? CblasNoTrans : CblasTrans,
                (int)n, (int)n_out, (int)n_in, 1.0f, product->x, (int)product->x_stride,
                product->weight, (int)product->weight_stride, 0.0f, product->y,
                (int)product->y_stride);
    return true;
#else
    (void)product;
    return false;
#endif
}

void rp_matmul_one_thread(void)
{
#if defined(RP_HAVE_OPENBLAS)
    openblas_set_num_threads(1);
#endif
}
