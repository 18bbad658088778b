/* See weights/cause_sketch.h. */
#include "weights/cause_sketch.h"

#include <math.h>

#include "weights/cause_order.h"

#define CHANCE 1e-3 /* that a cause is named which is none */

/* Scales a row of the file and what rounding cost it. */
static void scale_row(struct rp_file_row *row, double factor)
{
    for (size_t c = 0; c < row->n; c++)
        row->values[c] = (float)(factor * (double)row->values[c]);
    row->norm *= fabs(factor);
    row->bound_norm *= fabs(factor);
}

static enum rp_status make_own_row(struct rp_cause_search *search, const void *candidate,
                                   size_t sample)
{
    (void)candidate;
    return rp_cause_take_row(search, search->expected, search->indices[sample]);
}

/* The factor that the norms have in common. The rows are those of the file again afterwards, to
 * FP32. */
static enum rp_status try_factor(struct rp_cause_search *search)
{
    double square = 0, wanted_square = 0;
    bool holds = false;
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < search->n_samples; i++) {
        struct rp_row_sketch expected;
        status = make_own_row(search, NULL, i);
        if (!rp_sketch_row(search->place.sketch, search->place.row, &expected))
            return RP_OK;
        square += search->rows[i].norm * search->rows[i].norm;
        wanted_square += expected.norm * expected.norm;
    }
    const double factor = sqrt(square / wanted_square);
    if (!(factor > 0) || !isfinite(factor))
        return status;
    const double rounded = fabs(factor - round(factor)) < 1e-3 ? round(factor) : factor;
    search->place.tolerance = 0x1p-20; /* of FP32, twice, and of the factor */
    for (size_t i = 0; i < search->n_samples; i++)
        scale_row(&search->rows[i], 1 / rounded);
    status = rp_cause_check(search, make_own_row, NULL, &holds);
    if (holds && fabs(rounded - 1) > 0x1p-18)
        rp_cause_say(search, "every value is multiplied by %.6g", rounded);
    for (size_t i = 0; i < search->n_samples; i++)
        scale_row(&search->rows[i], rounded);
    search->place.tolerance = 0;
    return status;
}

/* *one: the chance at most that rows which have nothing to do with the checkpoint's are all within their limits.
 * Two such rows differ by sqrt(2) of their norm. With u, the limit's square over that difference's, the
 * products' squares have a sum so small with a chance of at most (u e^(1 - u))^(n_vectors / 2) (Chernoff's of
 * chi^2). *one_of_rows: that each is within the limit of any row. */
static enum rp_status find_chances(struct rp_cause_search *search, double *one, double *one_of_rows)
{
    enum rp_status status = RP_OK;
    *one = *one_of_rows = 1;
    for (size_t i = 0; i < search->n_samples && status == RP_OK; i++) {
        double limit = 0;
        status = make_own_row(search, NULL, i);
        if (status == RP_OK)
            status = rp_sketch_row_limit(&search->rows[i], &search->place, &limit, search->err);
        const double u = limit * limit / 2;
        const double chance =
            u < 1 ? pow(u * exp(1 - u), (double)search->place.sketch->n_vectors / 2) : 1;
        *one *= chance;
        *one_of_rows *= fmin(chance * (double)search->expected->n_rows, 1);
    }
    return status;
}

enum rp_status rp_try_sketch(struct rp_cause_search *search)
{
    double one, one_of_rows;
    enum rp_status status = find_chances(search, &one, &one_of_rows);
    const struct {
        enum rp_status (*try)(struct rp_cause_search *);
        double chance; /* that it holds of rows that are none of these */
    } tries[] = {
        {rp_try_own_order, 2 * one},
        {rp_try_pairs, 2 * one},
        {rp_try_other_tensors, (double)rp_gguf_n_tensors(search->checkpoint) * one},
        {rp_try_other_rows, one_of_rows},
        {try_factor, one},
    };
    for (size_t i = 0; i < sizeof tries / sizeof *tries && status == RP_OK && !search->text[0]; i++)
        if (tries[i].chance < CHANCE)
            status = tries[i].try(search);
    return status;
}
