/* See operations/row_changes.h. */
#include "operations/row_changes.h"

#include <stdlib.h>
#include <string.h>

#define REWEIGHTINGS 5
#define TIE 0.02  /* of a unit in the last place: this near the middle, either side is right */
#define NEAR 1e-3 /* a round value is tried so near */

static double at(const float *rows, size_t i)
{
    return rows ? (double)rows[i] : 0;
}

/* x to `bits` of mantissa after the first; near the middle to the side that `like` is on. */
static double rounded(double x, double like, int bits)
{
    int exponent;
    (void)frexp(x, &exponent);
    if (bits == 10 && exponent < -13) /* F16's subnormals have fewer */
        exponent = -13;
    const double unit = ldexp(1, exponent - bits - 1), scaled = x / unit;
    const double below = floor(scaled), part = scaled - below;
    const bool is_up = fabs(part - 0.5) <= TIE ? like > (below + 0.5) * unit : part > 0.5;
    return (below + is_up) * unit;
}

/* Value by value: x of the rows, base of what.rows (0 where there are none), more of more_rows. */
#define PER_VALUE(name, expression)                                                        \
    enum rp_status name(const struct rp_change *change, size_t n, size_t dim, float *rows, \
                        struct rp_error *err)                                              \
    {                                                                                      \
        const struct rp_candidate *what = &change->what;                                   \
        (void)err;                                                                         \
        for (size_t i = 0; i < n * dim; i++) {                                             \
            const double x = (double)rows[i], base = at(what->rows, i);                    \
            const double more = at(what->more_rows, i), value = what->value;               \
            (void)x, (void)base, (void)more, (void)value;                                  \
            rows[i] = (float)(expression);                                                 \
        }                                                                                  \
        return RP_OK;                                                                      \
    }

PER_VALUE(rp_rows_scale, base + value * (x - base))
PER_VALUE(rp_rows_add, x + value * base)
PER_VALUE(rp_rows_offset, x + value)
PER_VALUE(rp_rows_replace, base)
PER_VALUE(rp_rows_multiply, x *base)
PER_VALUE(rp_rows_channel, i % dim == (size_t)value ? base : x)
PER_VALUE(rp_rows_clip, base + fmax(fmin(x - base, value), -value))
PER_VALUE(rp_rows_round, base + rounded(x - base, more - base, what->option))
PER_VALUE(rp_rows_softcap, value *tanh((what->rows ? base : x) / value))

static enum rp_status copy_of(const float *rows, size_t n, float **copy, struct rp_error *err)
{
    *copy = malloc((n + 1) * sizeof **copy);
    if (!*copy)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu values", n);
    memcpy(*copy, rows, n * sizeof **copy);
    return RP_OK;
}

enum rp_status rp_rows_shift(const struct rp_change *change, size_t n, size_t dim, float *rows,
                             struct rp_error *err)
{
    float *plain;
    const enum rp_status status = copy_of(rows, n * dim, &plain, err);
    for (size_t p = 0; p < n && status == RP_OK; p++) {
        const size_t from =
            rp_row_of(change->positions, n, change->positions[p] - (int64_t)change->what.value);
        if (from < n)
            memcpy(rows + p * dim, plain + from * dim, dim * sizeof *rows);
    }
    free(plain);
    return status;
}

enum rp_status rp_rows_permute(const struct rp_change *change, size_t n, size_t dim, float *rows,
                               struct rp_error *err)
{
    float *plain;
    const enum rp_status status = copy_of(rows, n * dim, &plain, err);
    for (size_t i = 0; i < n * dim && status == RP_OK; i++) {
        const size_t from = i - i % dim + (size_t)change->what.more_rows[i % dim];
        rows[i] =
            (float)((double)plain[from] - at(change->what.rows, from) + at(change->what.rows, i));
    }
    free(plain);
    return status;
}

double rp_rows_fit(const struct rp_search *search, const float *direction, double *share)
{
    double alpha = 0, before = 0, after = 0;
    for (int pass = 0; pass <= REWEIGHTINGS; pass++) {
        double top = 0, bottom = 0;
        before = after = 0;
        for (size_t row = 0; row < search->n; row++) {
            double error2 = 0, left2 = 0, product = 0, length2 = 0, norm2 = 0;
            if (!search->is_failing[row])
                continue;
            for (size_t i = row * search->dim; i < (row + 1) * search->dim; i++) {
                const double along = (double)direction[i], computed = (double)search->computed[i];
                const double error = (double)search->dumped[i] - computed;
                const double left = error - alpha * along;
                norm2 += computed * computed;
                error2 += error * error;
                left2 += left * left;
                product += error * along;
                length2 += along * along;
            }
            const double limit = search->limit[row];
            const double weight = 1 / (limit * limit * norm2 + left2);
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

void rp_search_add_rounded(struct rp_search *search, struct rp_candidate candidate,
                           const char *text)
{
    struct rp_candidate round_one = candidate;
    for (int digits = 1; digits <= 4 && candidate.value != 0; digits++) {
        const double unit = pow(10, floor(log10(fabs(candidate.value))) - (digits - 1));
        round_one.value = round(candidate.value / unit) * unit;
        if (fabs(round_one.value - candidate.value) > NEAR * fabs(candidate.value))
            continue;
        rp_search_add(search, round_one, "%s", text);
        break;
    }
    candidate.n_digits = RP_ANY_DIGITS;
    rp_search_add(search, candidate, "%s", text);
}
