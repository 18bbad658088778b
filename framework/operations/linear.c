/* Matrix products. The sums themselves are in matmul.c; what an engine rounds its input to is in
 * emulation.c. */
#include <math.h>
#include <stdlib.h>

#include "base/avx2.h"
#include "operations/matmul.h"
#include "operations/operations.h"

enum rp_status rp_op_linear(void *context, const struct rp_site *site, const struct rp_linear *args)
{
    (void)context;
    rp_matmul(args->weight, args->n_out, args->n_in, args->x, site->n_positions, args->y,
              args->y_stride);
    return RP_OK;
}

#define ALIGNED 0.33 /* of a sum's square: n terms of one sign */

/* What the sums of a product's terms are like, from its weight alone. */
struct profile {
    float *column_square; /* [n_in] mean square of a column */
    float *row_share;     /* [n_out] a row's RMS over that of the matrix */
};

#define LANES 8

/* Adds w [n]'s squares to column_square [n]; their sum to *total. */
RP_LOOP void add_squares_loop(const float *restrict w, size_t n, float *restrict column_square,
                              float *restrict total)
{
    float sums[LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t k = 0; k < LANES; k++) {
            const float square = w[i + k] * w[i + k];
            sums[k] += square;
            column_square[i + k] += square;
        }
    }
    for (; i < n; i++) {
        sum += w[i] * w[i];
        column_square[i] += w[i] * w[i];
    }
    for (size_t k = 0; k < LANES; k++)
        sum += sums[k];
    *total += sum;
}
RP_COMPILE_TWICE(static, add_squares,
                 (const float *restrict w, size_t n, float *restrict column_square,
                  float *restrict total),
                 (w, n, column_square, total))

static void make_profile(const struct rp_linear *args, struct profile *profile)
{
    const float per_row = args->n_out > 0 ? 1.0f / (float)args->n_out : 0.0f;
    double all = 0;
    for (size_t row = 0; row < args->n_out; row++) {
        add_squares(args->weight + row * args->n_in, args->n_in, profile->column_square,
                    &profile->row_share[row]);
        all += (double)profile->row_share[row];
    }
    const double mean = all * (double)per_row;
    for (size_t i = 0; i < args->n_in; i++)
        profile->column_square[i] *= per_row;
    for (size_t row = 0; row < args->n_out; row++)
        profile->row_share[row] =
            mean > 0 ? (float)sqrt((double)profile->row_share[row] / mean) : 0.0f;
}

/* sigma [n_out] of one position, whose input's share is size. */
RP_LOOP void sigma_row_loop(const float *restrict y, const float *restrict row_share, size_t n_out,
                            float size, float sum_error, float *restrict sigma)
{
    for (size_t i = 0; i < n_out; i++) {
        const float usual = size * row_share[i];
        sigma[i] = sum_error * sqrtf(usual * usual + (float)ALIGNED * y[i] * y[i]) +
                   (float)RP_UNIT_ROUNDOFF * fabsf(y[i]);
    }
}
RP_COMPILE_TWICE(static, sigma_row,
                 (const float *restrict y, const float *restrict row_share, size_t n_out,
                  float size, float sum_error, float *restrict sigma),
                 (y, row_share, n_out, size, sum_error, sigma))

/* The sum of x [n] squared times by [n]. */
RP_LOOP void weighted_square_loop(const float *restrict x, const float *restrict by, size_t n,
                                  double *restrict sum)
{
    double sums[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t k = 0; k < LANES; k++)
            sums[k] += (double)x[i + k] * (double)x[i + k] * (double)by[i + k];
    for (; i < n; i++)
        sums[0] += (double)x[i] * (double)x[i] * (double)by[i];
    *sum = 0;
    for (size_t k = 0; k < LANES; k++)
        *sum += sums[k];
}
RP_COMPILE_TWICE(static, weighted_square,
                 (const float *restrict x, const float *restrict by, size_t n,
                  double *restrict sum),
                 (x, by, n, sum))

/* 0.42 u sqrt(n) sqrt(T^2 + y^2 / 3) + u y for a sum of n terms that comes to y. T is the usual size
 * of such a sum: its terms with random signs. It is taken from the columns' and the row's mean
 * squares, as n_out times n_in terms for each position would cost as much as the product. */
enum rp_status rp_sigma_linear(const struct rp_site *site, const struct rp_linear *args,
                               float *sigma)
{
    struct profile profile = {.column_square = calloc(args->n_in + 1, sizeof(float)),
                              .row_share = calloc(args->n_out + 1, sizeof(float))};
    enum rp_status status = RP_OK;
    if (!profile.column_square || !profile.row_share) {
        status = rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a product's profile");
        goto done;
    }
    make_profile(args, &profile);
    const float sum_error = (float)(RP_UNIT_ROUNDOFF * RP_SUM_ERROR * sqrt((double)args->n_in));
    for (size_t p = 0; p < site->n_positions; p++) {
        double square;
        weighted_square(args->x + p * args->n_in, profile.column_square, args->n_in, &square);
        sigma_row(args->y + p * args->y_stride, profile.row_share, args->n_out, (float)sqrt(square),
                  sum_error, sigma + p * args->n_out);
    }
done:
    free(profile.column_square);
    free(profile.row_share);
    return status;
}
