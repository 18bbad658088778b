/* See explain/rows.h. */
#include "explain/rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define REWEIGHTINGS 5
#define TIE 0.02 /* of a unit in the last place: this near the middle, either side is right */

/* Row of `rows`, another slot's, at a position of the site; NULL where there is none. */
static const float *row_at(const struct rp_change *change, const float *rows, int64_t position,
                           size_t dim)
{
    size_t row = rows ? rp_row_of(change->positions, change->n_rows, position) : change->n_rows;
    return row < change->n_rows ? rows + row * dim : NULL;
}

enum rp_status rp_rows_scale(struct rp_change *change, const struct rp_site *site, size_t dim,
                             float *rows)
{
    for (size_t p = 0; p < site->n_positions; p++) {
        const float *base = row_at(change, change->rows, site->positions[p], dim);
        for (size_t i = 0; i < dim; i++) {
            double from = base ? (double)base[i] : 0;
            rows[p * dim + i] = (float)(from + change->value * ((double)rows[p * dim + i] - from));
        }
    }
    return RP_OK;
}

enum rp_status rp_rows_add(struct rp_change *change, const struct rp_site *site, size_t dim,
                           float *rows)
{
    for (size_t p = 0; p < site->n_positions; p++) {
        const float *added = row_at(change, change->rows, site->positions[p], dim);
        for (size_t i = 0; added && i < dim; i++)
            rows[p * dim + i] =
                (float)((double)rows[p * dim + i] + change->value * (double)added[i]);
    }
    return RP_OK;
}

enum rp_status rp_rows_offset(struct rp_change *change, const struct rp_site *site, size_t dim,
                              float *rows)
{
    for (size_t i = 0; i < site->n_positions * dim; i++)
        rows[i] = (float)((double)rows[i] + change->value);
    return RP_OK;
}

enum rp_status rp_rows_replace(struct rp_change *change, const struct rp_site *site, size_t dim,
                               float *rows)
{
    for (size_t p = 0; p < site->n_positions; p++) {
        const float *other = row_at(change, change->rows, site->positions[p], dim);
        if (other)
            memcpy(rows + p * dim, other, dim * sizeof *rows);
    }
    return RP_OK;
}

enum rp_status rp_rows_shift(struct rp_change *change, const struct rp_site *site, size_t dim,
                             float *rows)
{
    size_t size = site->n_positions * dim * sizeof *rows;
    float *plain = malloc(size + 1);
    if (!plain)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows",
                       site->n_positions);
    memcpy(plain, rows, size);
    for (size_t p = 0; p < site->n_positions; p++) {
        size_t from = rp_row_of(site->positions, site->n_positions,
                                site->positions[p] - (int64_t)change->value);
        if (from < site->n_positions)
            memcpy(rows + p * dim, plain + from * dim, dim * sizeof *rows);
    }
    free(plain);
    return RP_OK;
}

enum rp_status rp_rows_channel(struct rp_change *change, const struct rp_site *site, size_t dim,
                               float *rows)
{
    size_t channel = (size_t)change->value;
    for (size_t p = 0; p < site->n_positions; p++) {
        const float *other = row_at(change, change->rows, site->positions[p], dim);
        if (other)
            rows[p * dim + channel] = other[channel];
    }
    return RP_OK;
}

enum rp_status rp_rows_permute(struct rp_change *change, const struct rp_site *site, size_t dim,
                               float *rows)
{
    float *plain = malloc((dim + 1) * sizeof *plain);
    if (!plain)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a row");
    for (size_t p = 0; p < site->n_positions; p++) {
        const float *base = row_at(change, change->rows, site->positions[p], dim);
        float *row = rows + p * dim;
        memcpy(plain, row, dim * sizeof *plain);
        for (size_t i = 0; i < dim; i++) {
            size_t from = (size_t)change->more_rows[i];
            row[i] = plain[from] + (base ? base[i] - base[from] : 0);
        }
    }
    free(plain);
    return RP_OK;
}

enum rp_status rp_rows_clip(struct rp_change *change, const struct rp_site *site, size_t dim,
                            float *rows)
{
    for (size_t p = 0; p < site->n_positions; p++) {
        const float *base = row_at(change, change->rows, site->positions[p], dim);
        for (size_t i = 0; i < dim; i++) {
            double from = base ? (double)base[i] : 0, x = (double)rows[p * dim + i] - from;
            rows[p * dim + i] = (float)(from + fmax(fmin(x, change->value), -change->value));
        }
    }
    return RP_OK;
}

/* x to `bits` of mantissa after the first; near the middle to the side that `like` is on. */
static double rounded(double x, double like, int bits)
{
    int exponent;
    (void)frexp(x, &exponent);
    if (bits == 10 && exponent < -13) /* F16's subnormals have fewer */
        exponent = -13;
    double unit = ldexp(1, exponent - bits - 1), scaled = x / unit;
    double below = floor(scaled), part = scaled - below;
    bool is_up = fabs(part - 0.5) <= TIE ? like > (below + 0.5) * unit : part > 0.5;
    return (below + is_up) * unit;
}

enum rp_status rp_rows_round(struct rp_change *change, const struct rp_site *site, size_t dim,
                             float *rows)
{
    for (size_t p = 0; p < site->n_positions; p++) {
        const float *base = row_at(change, change->rows, site->positions[p], dim);
        const float *like = row_at(change, change->more_rows, site->positions[p], dim);
        for (size_t i = 0; like && i < dim; i++) {
            double from = base ? (double)base[i] : 0, x = (double)rows[p * dim + i] - from;
            double side = (double)like[i] - from;
            rows[p * dim + i] = (float)(from + rounded(x, side, change->option));
        }
    }
    return RP_OK;
}

enum rp_status rp_rows_softcap(struct rp_change *change, const struct rp_site *site, size_t dim,
                               float *rows)
{
    for (size_t i = 0; i < site->n_positions * dim; i++)
        rows[i] = (float)(change->value * tanh((double)rows[i] / change->value));
    return RP_OK;
}

double rp_rows_fit(const struct rp_search *search, const float *direction, double *share)
{
    double alpha = 0, before = 0, after = 0;
    for (int pass = 0; pass <= REWEIGHTINGS; pass++) {
        double top = 0, bottom = 0;
        before = after = 0;
        for (size_t row = 0; row < search->n; row++) {
            const float *dumped = search->dumped + row * search->dim;
            const float *computed = search->computed + row * search->dim;
            const float *along = direction + row * search->dim;
            double error2 = 0, left2 = 0, product = 0, length2 = 0, norm2 = 0;
            if (!search->is_failing[row])
                continue;
            for (size_t i = 0; i < search->dim; i++) {
                double error = (double)dumped[i] - (double)computed[i];
                double left = error - alpha * (double)along[i];
                norm2 += (double)computed[i] * (double)computed[i];
                error2 += error * error;
                left2 += left * left;
                product += error * (double)along[i];
                length2 += (double)along[i] * (double)along[i];
            }
            double limit = search->limit[row];
            double weight = 1 / (limit * limit * norm2 + left2);
            if (!isfinite(weight) || !isfinite(product) || !isfinite(length2))
                continue;
            before += error2 / norm2;
            after += left2 / norm2;
            top += weight * product;
            bottom += weight * length2;
        }
        if (pass < REWEIGHTINGS)
            alpha = bottom > 0 ? top / bottom : 0;
    }
    *share = before > 0 && after < before ? 1 - after / before : 0;
    return alpha;
}
