/* See model/linear.h. Each sum is made of 8 lanes, added pairwise at the end: independent of each
 * other, so that the compiler vectorizes them without reordering anything, and the error grows
 * with n/8 terms instead of n. */
#include "model/linear.h"

#include <string.h>

#if defined(RP_HAVE_CBLAS)
#include <cblas.h>
#include <limits.h>
#endif

#define LANES 8
#define POSITION_BLOCK 64 /* rows of x that stay in the cache while weight passes by */

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

/* As rp_matmul; n is at most POSITION_BLOCK. */
static void matmul_block(const float *weight, size_t n_out, size_t n_in, const float *x, size_t n,
                         float *y, size_t y_stride)
{
    size_t out = 0;
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

void rp_matmul(const float *weight, size_t n_out, size_t n_in, const float *x, size_t n, float *y,
               size_t y_stride)
{
#if defined(RP_HAVE_CBLAS)
    if (n > 1 && n <= INT_MAX && n_out <= INT_MAX && n_in <= INT_MAX && y_stride <= INT_MAX) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)n_out, (int)n_in, 1.0f, x,
                    (int)n_in, weight, (int)n_in, 0.0f, y, (int)y_stride);
        return;
    }
#endif
    for (size_t p = 0; p < n; p += POSITION_BLOCK) {
        size_t block = n - p < POSITION_BLOCK ? n - p : POSITION_BLOCK;
        matmul_block(weight, n_out, n_in, x + p * n_in, block, y + p * y_stride, y_stride);
    }
}
