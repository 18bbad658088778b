/* Matrix products. The sums themselves are in matmul.c; what an engine rounds its input to is in
 * emulation.c. */
#include <math.h>
#include <stdlib.h>

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

static void make_profile(const struct rp_linear *args, struct profile *profile)
{
    const float per_row = args->n_out > 0 ? 1.0f / (float)args->n_out : 0.0f;
    double all = 0;
    for (size_t row = 0; row < args->n_out; row++) {
        const float *w = args->weight + row * args->n_in;
        float sums[8] = {0}, sum = 0;
        size_t i = 0;
        for (; i + 8 <= args->n_in; i += 8) {
            for (size_t k = 0; k < 8; k++) {
                const float square = w[i + k] * w[i + k];
                sums[k] += square;
                profile->column_square[i + k] += square;
            }
        }
        for (; i < args->n_in; i++) {
            sum += w[i] * w[i];
            profile->column_square[i] += w[i] * w[i];
        }
        for (size_t k = 0; k < 8; k++)
            sum += sums[k];
        profile->row_share[row] = sum;
        all += (double)sum;
    }
    const double mean = all * (double)per_row;
    for (size_t i = 0; i < args->n_in; i++)
        profile->column_square[i] *= per_row;
    for (size_t row = 0; row < args->n_out; row++)
        profile->row_share[row] =
            mean > 0 ? (float)sqrt((double)profile->row_share[row] / mean) : 0.0f;
}

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
        const float *x = args->x + p * args->n_in, *y = args->y + p * args->y_stride;
        double square = 0;
        for (size_t i = 0; i < args->n_in; i++)
            square += (double)x[i] * (double)x[i] * (double)profile.column_square[i];
        const float size = (float)sqrt(square);
        for (size_t i = 0; i < args->n_out; i++) {
            const float usual = size * profile.row_share[i];
            sigma[p * args->n_out + i] =
                sum_error * sqrtf(usual * usual + (float)ALIGNED * y[i] * y[i]) +
                (float)RP_UNIT_ROUNDOFF * fabsf(y[i]);
        }
    }
done:
    free(profile.column_square);
    free(profile.row_share);
    return status;
}
