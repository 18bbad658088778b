/* The fit of one parameter: Gauss-Newton on the slot's rows, each row weighted by its own error. Starts
 * at the candidate's value, then elsewhere; a round value is preferred where it fits as well. Where
 * numerics round, rows are steps of the parameter: the derivative is then taken without rounding.
 * Not for closed forms on rows: those are linear, see any_rows.c. */
#include <stdlib.h>
#include <string.h>

#include "explain/search.h"

#define STEP 1e-3    /* of the derivative, at least; relative where the fit is */
#define SEEN 2e-6    /* of the rows: what a step has to change of them */
#define MAX_STEP 0.7 /* of one iteration, on a logarithm: a factor of 2 */
#define MAX_ITERATIONS 14
#define MAX_SHORTENINGS 3
#define CONVERGED 3e-3  /* a step that saves less of the cost was the last */
#define NEARLY_ALL 0.98 /* of the energy: no other start is tried */
#define NEAR 5e-3       /* a round value so near is preferred where it fits as well */
#define ROUNDED_NEAR \
    0.1             /* and so near where it fits better: where numerics round, rows are steps */
#define AS_WELL 1.2 /* times the cost */
#define MAX_DIGITS 4

struct fit {
    struct rp_search *search;
    const struct rp_candidate *candidate;
    const struct rp_place *place;
    struct rp_error *err;
    float *here;   /* [n][dim], of the best value so far */
    float *smooth; /* [n][dim], the same without rounding; NULL: numerics round nothing */
    struct rp_trial best;
};

static double to_axis(const struct rp_fit *how, double value)
{
    return how->is_log ? log(value) : value;
}

static double from_axis(const struct rp_fit *how, double at)
{
    return fmin(fmax(how->is_log ? exp(at) : at, how->low), how->high);
}

static enum rp_status try_value(struct fit *fit, double value, struct rp_trial *trial)
{
    struct rp_candidate candidate = *fit->candidate;
    candidate.value = value;
    candidate.n_digits = RP_ANY_DIGITS;
    return rp_search_try(fit->search, &candidate, fit->place, trial, fit->err);
}

static void keep(struct fit *fit, const struct rp_trial *trial)
{
    const size_t size = fit->search->n * fit->search->dim * sizeof *fit->here;
    fit->best = *trial;
    memcpy(fit->here, fit->search->rows, size);
}

/* search->rows without any rounding. */
static enum rp_status run_smooth(struct fit *fit, double value)
{
    static const struct rp_numerics plain = {.activations = RP_ACTIVATIONS_F32};
    struct rp_candidate candidate = *fit->candidate;
    struct rp_trial trial;
    candidate.value = value;
    candidate.numerics = &plain;
    return rp_search_try(fit->search, &candidate, fit->place, &trial, fit->err);
}

/* How far to go along the difference that `step` has made to the rows since `from`: least squares of
 * what is left, rows weighted by 1 / (their limit^2 + their error^2). With rounding all rows count
 * alike: those that it keeps as they were are not better known. */
static double least_squares_step(const struct fit *fit, const float *from, double step)
{
    const struct rp_search *search = fit->search;
    double top = 0, bottom = 0;
    for (size_t row = 0; row < search->n; row++) {
        const size_t first = row * search->dim;
        double norm2 = 0, error2 = 0, along = 0, length2 = 0;
        for (size_t i = first; i < first + search->dim; i++) {
            const double error = (double)search->dumped[i] - (double)fit->here[i];
            const double difference = (double)search->rows[i] - (double)from[i];
            norm2 += (double)fit->here[i] * (double)fit->here[i];
            error2 += error * error;
            along += error * difference;
            length2 += difference * difference;
        }
        if (!fit->smooth)
            norm2 = search->limit[row] * search->limit[row] * norm2 + error2;
        if (!(norm2 > 0) || !isfinite(along) || !isfinite(length2))
            continue;
        top += along / norm2;
        bottom += length2 / norm2;
    }
    return bottom > 0 ? step * top / bottom : 0;
}

/* Rows at value + probe less those in *from, by what the parameter does alone; *from is set. */
static enum rp_status run_aside(struct fit *fit, double at, double probe, const float **from)
{
    const struct rp_fit *how = fit->candidate->fit;
    const size_t size = fit->search->n * fit->search->dim * sizeof *fit->here;
    struct rp_trial trial;
    *from = fit->here;
    if (!fit->smooth)
        return try_value(fit, from_axis(how, at + probe), &trial);
    enum rp_status status = run_smooth(fit, from_axis(how, at));
    memcpy(fit->smooth, fit->search->rows, size);
    *from = fit->smooth;
    if (status == RP_OK)
        status = run_smooth(fit, from_axis(how, at + probe));
    return status;
}

/* Whether the rows differ by more than FP32's rounding. */
static bool is_seen(const struct fit *fit, const float *from)
{
    const struct rp_search *search = fit->search;
    double square = 0, norm = 0;
    for (size_t i = 0; i < search->n * search->dim; i++) {
        const double difference = (double)search->rows[i] - (double)from[i];
        square += difference * difference;
        norm += (double)from[i] * (double)from[i];
    }
    return square > SEEN * SEEN * norm;
}

/* One iteration from fit->best; *is_done when it no longer helps. */
static enum rp_status iterate(struct fit *fit, bool *is_done)
{
    const struct rp_fit *how = fit->candidate->fit;
    const double at = to_axis(how, fit->best.candidate.value);
    const double scale = how->is_log ? 1 : fmax(fabs(at), 1.0);
    const float *from = fit->here;
    struct rp_trial trial;
    enum rp_status status = RP_OK;
    double probe = STEP;
    *is_done = true;
    for (bool is_enough = false; !is_enough && status == RP_OK;) {
        const double sign = from_axis(how, at + probe * scale) >= how->high ? -1 : 1;
        status = run_aside(fit, at, sign * probe * scale, &from);
        is_enough = probe >= MAX_STEP || is_seen(fit, from);
        probe = is_enough ? sign * probe : fmin(10 * probe, MAX_STEP);
    }
    double step = least_squares_step(fit, from, probe * scale);
    step = fmin(fmax(step, -MAX_STEP * scale), MAX_STEP * scale);
    for (int i = 0; i < MAX_SHORTENINGS && step != 0 && status == RP_OK; i++) {
        status = try_value(fit, from_axis(how, at + step), &trial);
        if (status == RP_OK && trial.cost < fit->best.cost) {
            *is_done = trial.cost > fit->best.cost * (1 - CONVERGED) - CONVERGED;
            keep(fit, &trial);
            break;
        }
        step /= 3;
    }
    return status;
}

static enum rp_status descend(struct fit *fit)
{
    bool is_done = false;
    enum rp_status status = RP_OK;
    for (int i = 0; i < MAX_ITERATIONS && !is_done && status == RP_OK; i++)
        status = iterate(fit, &is_done);
    return status;
}

/* value to so many digits, of itself or as a multiple of own; 0: it is not near. */
static double rounded(double value, int digits, double own, double near)
{
    value /= own;
    if (!(fabs(value) > 0 && isfinite(value)))
        return 0;
    const double unit = pow(10, floor(log10(fabs(value))) - (digits - 1));
    const double nearest = round(value / unit) * unit;
    return fabs(nearest - value) <= near * fabs(value) ? nearest * own : 0;
}

/* 499998.7 is 500000, where that fits as well. */
static enum rp_status prefer_round(struct fit *fit)
{
    const struct rp_fit *how = fit->candidate->fit;
    const double own = fit->candidate->own != 0 ? fit->candidate->own : 1;
    const double near = fit->smooth ? ROUNDED_NEAR : NEAR;
    for (int i = 0; i < 2 * MAX_DIGITS; i++) {
        struct rp_trial trial;
        const double value =
            rounded(fit->best.candidate.value, 1 + i / 2, i % 2 == 1 ? own : 1, near);
        if (value == 0 || value < how->low || value > how->high)
            continue;
        const enum rp_status status = try_value(fit, value, &trial);
        if (status != RP_OK)
            return status;
        const double found = fit->best.candidate.value;
        const double most = fabs(value - found) <= NEAR * fabs(found) ? AS_WELL : 1;
        if (trial.n_over <= fit->best.n_over && trial.cost <= most * fit->best.cost) {
            trial.candidate.n_digits = 1 + i / 2;
            keep(fit, &trial);
            return RP_OK;
        }
    }
    return RP_OK;
}

static enum rp_status search_from_starts(struct fit *fit)
{
    const struct rp_fit *how = fit->candidate->fit;
    const double found = fit->best.cost;
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < how->n_starts && status == RP_OK; i++) {
        struct rp_trial start;
        status = try_value(fit, how->starts[i], &start);
        if (status == RP_OK && start.cost < fit->best.cost)
            keep(fit, &start);
    }
    return status == RP_OK && fit->best.cost < found ? descend(fit) : status;
}

enum rp_status rp_search_fit(struct rp_search *search, const struct rp_candidate *candidate,
                             const struct rp_place *place, struct rp_trial *trial,
                             struct rp_error *err)
{
    struct fit fit = {.search = search, .candidate = candidate, .place = place, .err = err};
    const size_t size = search->n * search->dim + 1;
    struct rp_trial start;
    enum rp_status status = RP_OK;
    fit.here = malloc(size * sizeof *fit.here);
    if (rp_search_rounds(search))
        fit.smooth = malloc(size * sizeof *fit.smooth);
    if (!fit.here || (rp_search_rounds(search) && !fit.smooth))
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows", search->n);
    if (status == RP_OK)
        status = try_value(&fit, candidate->value, &start);
    if (status == RP_OK) {
        keep(&fit, &start);
        status = descend(&fit);
    }
    if (status == RP_OK && !fit.best.matches && fit.best.share < NEARLY_ALL)
        status = search_from_starts(&fit);
    if (status == RP_OK && (fit.best.matches || fit.best.share >= NEARLY_ALL))
        status = prefer_round(&fit);
    *trial = fit.best;
    free(fit.here);
    free(fit.smooth);
    return status;
}
