/* Matrix products. The sums themselves are in matmul.c; what an engine rounds its input to is in
 * emulation.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/avx2.h"
#include "operations/matmul.h"
#include "operations/operations.h"

enum rp_status rp_op_linear(void *context, const struct rp_site *site, const struct rp_linear *args)
{
    (void)context;
    rp_matmul(args->weight, args->n_out, args->n_in, args->x, site->n_positions, args->y,
              args->y_stride);
    rp_linear_add_bias(site, args);
    rp_linear_cap(site, args);
    return RP_OK;
}

enum rp_weight_id rp_bias_of(enum rp_weight_id which)
{
    switch (which) {
    case RP_ATTN_Q: return RP_ATTN_Q_BIAS;
    case RP_ATTN_K: return RP_ATTN_K_BIAS;
    case RP_ATTN_V: return RP_ATTN_V_BIAS;
    case RP_ATTN_OUTPUT: return RP_ATTN_OUTPUT_BIAS;
    case RP_ROUTER: return RP_ROUTER_BIAS;
    case RP_EXPERTS_GATE: return RP_EXPERTS_GATE_BIAS;
    case RP_EXPERTS_UP: return RP_EXPERTS_UP_BIAS;
    case RP_EXPERTS_DOWN: return RP_EXPERTS_DOWN_BIAS;
    default: return RP_N_WEIGHTS;
    }
}

void rp_linear_add_bias(const struct rp_site *site, const struct rp_linear *args)
{
    for (size_t p = 0; args->bias && p < site->n_positions; p++)
        for (size_t i = 0; i < args->n_out; i++)
            args->y[p * args->y_stride + i] += args->bias[i];
}

void rp_linear_cap(const struct rp_site *site, const struct rp_linear *args)
{
    for (size_t p = 0; args->softcap > 0 && p < site->n_positions; p++)
        for (size_t i = 0; i < args->n_out; i++)
            args->y[p * args->y_stride + i] =
                rp_softcap(args->y[p * args->y_stride + i], args->softcap);
}

#define ALIGNED 0.33 /* of a sum's square: n terms of one sign */

/* What the sums of a product's terms are like, from its weight alone. */
struct profile {
    float *column_square; /* [n_in] mean square of a column */
    float *row_share;     /* [n_out] a row's RMS over that of the matrix */
    /* [2][n_out]: of one position, before a bias or a cap, and room for its sigma; [0] where there is neither. */
    float *sums;
};

#define LANES 8

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));

/* Of n_rows rows of w, which lie side by side, ROWS at most: adds their squares to column_square [n], and
 * sets totals [n_rows] to their sums. */
#define ROWS 4
RP_LOOP void add_squares_of(const float *restrict w, size_t n_rows, size_t n,
                            float *restrict column_square, float *restrict totals)
{
    lanes sums[ROWS] = {{0}}, column, row;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        memcpy(&column, column_square + i, sizeof column);
        for (size_t r = 0; r < n_rows; r++) {
            memcpy(&row, w + r * n + i, sizeof row);
            row *= row;
            sums[r] += row;
            column += row;
        }
        memcpy(column_square + i, &column, sizeof column);
    }
    for (size_t r = 0; r < n_rows; r++) {
        totals[r] = 0;
        for (size_t k = 0; k < LANES; k++)
            totals[r] += sums[r][k];
        for (size_t rest = i; rest < n; rest++) {
            const float square = w[r * n + rest] * w[r * n + rest];
            totals[r] += square;
            column_square[rest] += square;
        }
    }
}

RP_LOOP void add_squares_loop(const float *restrict w, size_t n_rows, size_t n,
                              float *restrict column_square, float *restrict totals)
{
    size_t row = 0;
    for (; row + ROWS <= n_rows; row += ROWS)
        add_squares_of(w + row * n, ROWS, n, column_square, totals + row);
    for (; row < n_rows; row++)
        add_squares_of(w + row * n, 1, n, column_square, totals + row);
}
RP_COMPILE_TWICE(static, add_squares,
                 (const float *restrict w, size_t n_rows, size_t n, float *restrict column_square,
                  float *restrict totals),
                 (w, n_rows, n, column_square, totals))

static void make_profile(const struct rp_linear *args, struct profile *profile)
{
    const float per_row = args->n_out > 0 ? 1.0f / (float)args->n_out : 0.0f;
    double all = 0;
    add_squares(args->weight, args->n_out, args->n_in, profile->column_square, profile->row_share);
    for (size_t row = 0; row < args->n_out; row++)
        all += (double)profile->row_share[row];
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

RP_LOOP void square_sum_loop(const float *restrict y, size_t n, double *restrict sum)
{
    double sums[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t k = 0; k < LANES; k++)
            sums[k] += (double)y[i + k] * (double)y[i + k];
    for (; i < n; i++)
        sums[0] += (double)y[i] * (double)y[i];
    *sum = 0;
    for (size_t k = 0; k < LANES; k++)
        *sum += sums[k];
}
RP_COMPILE_TWICE(static, square_sum, (const float *restrict y, size_t n, double *restrict sum),
                 (y, n, sum))

static enum rp_status open_profile(const struct rp_site *site, const struct rp_linear *args,
                                   struct profile *profile)
{
    *profile = (struct profile){
        .column_square = calloc(args->n_in + 1, sizeof(float)),
        .row_share = calloc(args->n_out + 1, sizeof(float)),
        .sums = calloc((args->bias || args->softcap > 0 ? 2 * args->n_out : 0) + 1, sizeof(float))};
    if (!profile->column_square || !profile->row_share || !profile->sums)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a product's profile");
    make_profile(args, profile);
    return RP_OK;
}

static void close_profile(struct profile *profile)
{
    free(profile->column_square);
    free(profile->row_share);
    free(profile->sums);
}

static double sum_error_of(const struct rp_linear *args)
{
    return RP_UNIT_ROUNDOFF * RP_SUM_ERROR * sqrt((double)args->n_in);
}

/* Takes cap and bias off y [n_out]: sums [n_out]. A value at the cap itself may be of any size: where tanh is flat, that
 * does not count. */
static const float *plain_sums(const struct rp_linear *args, const float *y, float *sums)
{
    const float cap = args->softcap, most = 1 - 0x1p-24f;
    if (!args->bias && !(cap > 0))
        return y;
    memcpy(sums, y, args->n_out * sizeof *sums);
    for (size_t i = 0; cap > 0 && i < args->n_out; i++)
        sums[i] = cap * atanhf(fmaxf(fminf(y[i] / cap, most), -most));
    for (size_t i = 0; args->bias && i < args->n_out; i++)
        sums[i] -= args->bias[i];
    return sums;
}

/* sigma [n_out] of a product's sums, x, becomes that of what it caps them to, y: tanh's slope, and what the cap itself
 * rounds. */
static void cap_sigma(const struct rp_linear *args, const float *x, const float *y, float *sigma)
{
    for (size_t i = 0; i < args->n_out; i++) {
        const float of_input =
            sigma[i] + (float)(RP_SOFTCAP_INPUT_ERROR * RP_UNIT_ROUNDOFF) * fabsf(x[i]);
        sigma[i] = rp_softcap_slope(y[i], args->softcap) * of_input +
                   (float)(RP_SOFTCAP_ERROR * RP_UNIT_ROUNDOFF) * fabsf(y[i]);
    }
}

/* sigma [n_out] of position p. */
static void sigma_of(const struct rp_linear *args, const struct profile *profile, size_t p,
                     float *sigma)
{
    const float *y = args->y + p * args->y_stride, *sums = plain_sums(args, y, profile->sums);
    double square;
    weighted_square(args->x + p * args->n_in, profile->column_square, args->n_in, &square);
    sigma_row(sums, profile->row_share, args->n_out, (float)sqrt(square), (float)sum_error_of(args),
              sigma);
    for (size_t i = 0; args->bias && i < args->n_out; i++)
        sigma[i] += (float)RP_UNIT_ROUNDOFF * fabsf(sums[i] + args->bias[i]);
    if (args->softcap > 0)
        cap_sigma(args, sums, y, sigma);
}

/* 0.42 u sqrt(n) sqrt(T^2 + y^2 / 3) + u y for a sum of n terms that comes to y, and u z where a bias makes z
 * of it. A cap: cap_sigma. T is the usual size
 * of such a sum: its terms with random signs. It is taken from the columns' and the row's mean
 * squares, as n_out times n_in terms for each position would cost as much as the product. */
enum rp_status rp_sigma_linear(const struct rp_site *site, const struct rp_linear *args,
                               float *sigma)
{
    struct profile profile;
    const enum rp_status status = open_profile(site, args, &profile);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++)
        sigma_of(args, &profile, p, sigma + p * args->n_out);
    close_profile(&profile);
    return status;
}

/* The shares' squares have the mean 1, so that the T^2 of a row of outputs sum up to n_out times the
 * input's part. With a cap each value has a slope of its own. */
enum rp_status rp_sigma_norm_linear(const struct rp_site *site, const struct rp_linear *args,
                                    double *norm)
{
    struct profile profile;
    const enum rp_status status = open_profile(site, args, &profile);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        const float *y = args->y + p * args->y_stride;
        double square, sums_square, y_square;
        if (args->softcap > 0) {
            sigma_of(args, &profile, p, profile.sums + args->n_out);
            square_sum(profile.sums + args->n_out, args->n_out, &square);
            norm[p] = sqrt(square);
            continue;
        }
        square_sum(plain_sums(args, y, profile.sums), args->n_out, &sums_square);
        y_square = 0;
        if (args->bias)
            square_sum(y, args->n_out, &y_square);
        weighted_square(args->x + p * args->n_in, profile.column_square, args->n_in, &square);
        norm[p] = sum_error_of(args) * sqrt((double)args->n_out * square + ALIGNED * sums_square) +
                  RP_UNIT_ROUNDOFF * (sqrt(sums_square) + sqrt(y_square));
    }
    close_profile(&profile);
    return status;
}
