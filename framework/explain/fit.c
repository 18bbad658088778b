/* The fit of one parameter: Gauss-Newton on the slot's rows, each row weighted by its own error, so
 * that a row with a rounding flip counts little. Starts at the model's own value, then elsewhere.
 * Where numerics round, rows are steps of the parameter: the derivative is then taken without rounding,
 * and ever smaller steps to both sides end the search, as the nearer the value, the fewer the rows in
 * which anything is rounded otherwise.
 * Not for closed forms on rows: those are linear, see rows.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "explain/search.h"

#define STEP 1e-3    /* of the first derivative; relative where the fit is */
#define MAX_STEP 0.7 /* of one iteration, on a logarithm: a factor of 2 */
#define MAX_ITERATIONS 14
#define MAX_SHORTENINGS 4
#define CONVERGED 1e-3       /* a step that saves less of the cost was the last */
#define FIRST_SIDE_STEP 0.25 /* of the way from the model's own value */
#define LAST_SIDE_STEP 1e-8
#define MAX_SIDE_STEPS 60
#define WORTH_SIDE_STEPS 0.97 /* of the cost at the model's own value, at most */

struct fit {
    struct rp_search *search;
    const struct rp_candidate *candidate;
    const struct rp_place *place;
    size_t last;
    struct rp_error *err;
    float *here;   /* [n][dim], of the best value so far */
    float *smooth; /* [n][dim], the same without rounding; NULL: numerics round nothing */
    struct rp_trial best;
    double own; /* the model's value */
};

static double to_axis(const struct rp_fit *how, double value)
{
    return how->is_log ? log(value) : value;
}

static double from_axis(const struct rp_fit *how, double at)
{
    double value = how->is_log ? exp(at) : at;
    return fmin(fmax(value, how->low), how->high);
}

static enum rp_status try_at(struct fit *fit, double at, struct rp_trial *trial)
{
    struct rp_candidate candidate = *fit->candidate;
    candidate.value = from_axis(candidate.fit, at);
    candidate.n_digits = RP_ANY_DIGITS;
    return rp_search_try(fit->search, &candidate, fit->place, fit->last, trial, fit->err);
}

/* The rows without any rounding. */
static enum rp_status run_smooth(struct fit *fit, double at)
{
    static const struct rp_numerics plain = {.activations = RP_ACTIVATIONS_F32};
    struct rp_candidate candidate = *fit->candidate;
    struct rp_trial trial;
    candidate.value = from_axis(candidate.fit, at);
    candidate.numerics = &plain;
    return rp_search_try(fit->search, &candidate, fit->place, fit->last, &trial, fit->err);
}

static void keep(struct fit *fit, const struct rp_trial *trial)
{
    size_t size = fit->search->n * fit->search->dim * sizeof *fit->here;
    fit->best = *trial;
    memcpy(fit->here, fit->search->rows, size);
}

/* How far to go along the difference that `step` has made to the rows since `from`: the least squares
 * of what is left, rows weighted by 1 / (their limit^2 + their error^2), relative to their norm. With
 * rounding all rows count alike: those that it keeps as they were are not better known. */
static double least_squares_step(const struct fit *fit, double step)
{
    const float *from = fit->smooth ? fit->smooth : fit->here;
    const struct rp_search *search = fit->search;
    double top = 0, bottom = 0;
    for (size_t row = 0; row <= fit->last; row++) {
        const float *dumped = search->dumped + row * search->dim;
        const float *here = fit->here + row * search->dim;
        const float *before = from + row * search->dim;
        const float *there = search->rows + row * search->dim;
        double norm2 = 0, error2 = 0, along = 0, length2 = 0;
        if (!search->is_noted[row])
            continue;
        for (size_t i = 0; i < search->dim; i++) {
            double error = (double)dumped[i] - (double)here[i];
            double difference = (double)there[i] - (double)before[i];
            norm2 += (double)here[i] * (double)here[i];
            error2 += error * error;
            along += error * difference;
            length2 += difference * difference;
        }
        if (!fit->smooth)
            norm2 = search->limit[row] * search->limit[row] * norm2 + error2;
        double weight = 1 / norm2;
        if (!isfinite(weight) || !isfinite(along) || !isfinite(length2))
            continue;
        top += weight * along;
        bottom += weight * length2;
    }
    return bottom > 0 ? step * top / bottom : 0;
}

/* One iteration from fit->best; *is_done when it no longer helps. */
static enum rp_status iterate(struct fit *fit, double derivative_step, bool *is_done)
{
    const struct rp_fit *how = fit->candidate->fit;
    double at = to_axis(how, fit->best.candidate.value), step, most;
    struct rp_trial trial;
    enum rp_status status;
    double probe = how->is_log ? derivative_step : derivative_step * fmax(fabs(at), 1.0);
    if (from_axis(how, at + probe) >= how->high)
        probe = -probe;
    *is_done = true;
    if (fit->smooth) {
        status = run_smooth(fit, at);
        if (status != RP_OK)
            return status;
        memcpy(fit->smooth, fit->search->rows,
               fit->search->n * fit->search->dim * sizeof *fit->smooth);
        status = run_smooth(fit, at + probe);
    } else {
        status = try_at(fit, at + probe, &trial);
    }
    if (status != RP_OK)
        return status;
    step = least_squares_step(fit, probe);
    most = how->is_log ? MAX_STEP : MAX_STEP * fmax(fabs(at), 1.0);
    step = fmin(fmax(step, -most), most);
    for (int i = 0; i < MAX_SHORTENINGS && step != 0; i++) {
        double before = fit->best.cost;
        status = try_at(fit, at + step, &trial);
        if (status != RP_OK)
            return status;
        if (trial.cost < before) {
            keep(fit, &trial);
            *is_done = trial.cost > before - CONVERGED;
            return RP_OK;
        }
        step /= 3;
    }
    return RP_OK;
}

static enum rp_status descend(struct fit *fit)
{
    bool is_done = false;
    enum rp_status status = RP_OK;
    for (int i = 0; i < MAX_ITERATIONS && !is_done && status == RP_OK; i++)
        status = iterate(fit, STEP, &is_done);
    return status;
}

static enum rp_status step_aside(struct fit *fit)
{
    const struct rp_fit *how = fit->candidate->fit;
    double way = to_axis(how, fit->best.candidate.value) - to_axis(how, fit->own);
    double step = FIRST_SIDE_STEP * fabs(way);
    enum rp_status status = RP_OK;
    for (int i = 0; i < MAX_SIDE_STEPS && step > LAST_SIDE_STEP && fit->best.n_over > 0; i++) {
        double at = to_axis(how, fit->best.candidate.value);
        bool is_better = false;
        for (int side = -1; side <= 1 && !is_better && status == RP_OK; side += 2) {
            struct rp_trial trial;
            status = try_at(fit, at + side * step, &trial);
            is_better = status == RP_OK && trial.cost < fit->best.cost;
            if (is_better)
                keep(fit, &trial);
        }
        if (status != RP_OK)
            return status;
        if (!is_better)
            step /= 2;
    }
    return status;
}

double rp_search_round(const struct rp_candidate *candidate, int digits, bool of_own)
{
    double own = of_own && candidate->own != 0 ? candidate->own : 1;
    double value = candidate->value / own;
    if (!(fabs(value) > 0 && isfinite(value)))
        return 0;
    double unit = pow(10, floor(log10(fabs(value))) - (digits - 1));
    double rounded = round(value / unit) * unit;
    return fabs(rounded - value) <= 5e-3 * fabs(value) ? rounded * own : 0;
}

/* 499998.7 is 500000, where that fits as well. */
static enum rp_status prefer_round(struct fit *fit)
{
    const struct rp_fit *how = fit->candidate->fit;
    for (int i = 0; i < 8; i++) {
        double value = rp_search_round(&fit->best.candidate, 1 + i / 2, i % 2 == 1);
        struct rp_trial trial;
        if (value == 0 || value < how->low || value > how->high)
            continue;
        enum rp_status status = try_at(fit, to_axis(how, value), &trial);
        if (status != RP_OK)
            return status;
        trial.candidate.value = value;
        trial.candidate.n_digits = 1 + i / 2;
        if (trial.n_over <= fit->best.n_over && trial.cost <= 1.2 * fit->best.cost) {
            keep(fit, &trial);
            return RP_OK;
        }
    }
    return RP_OK;
}

static bool is_good(const struct fit *fit)
{
    return rp_search_is_promising(fit->search, &fit->best);
}

static enum rp_status search_from_starts(struct fit *fit)
{
    const struct rp_fit *how = fit->candidate->fit;
    double found = fit->best.cost;
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < how->n_starts && status == RP_OK; i++) {
        struct rp_trial start;
        status = try_at(fit, to_axis(how, how->starts[i]), &start);
        if (status == RP_OK && start.cost < fit->best.cost)
            keep(fit, &start);
    }
    return status == RP_OK && fit->best.cost < found ? descend(fit) : status;
}

bool rp_search_rounds(const struct rp_search *search)
{
    const struct rp_numerics *declared = &rp_replay_options(search->replay)->numerics;
    return search->runs &&
           (declared->activations != RP_ACTIVATIONS_F32 || declared->kv_cache != RP_KV_CACHE_F32 ||
            declared->attention != RP_ATTENTION_PLAIN);
}

enum rp_status rp_search_fit(struct rp_search *search, const struct rp_candidate *candidate,
                             const struct rp_place *place, size_t last, struct rp_trial *trial,
                             struct rp_error *err)
{
    struct rp_candidate with_own = *candidate;
    if (with_own.own == 0)
        with_own.own = candidate->value;
    struct fit fit = {.search = search,
                      .candidate = &with_own,
                      .place = place,
                      .last = last,
                      .own = with_own.own,
                      .err = err};
    size_t size = search->n * search->dim + 1;
    struct rp_trial start;
    enum rp_status status = RP_OK;
    fit.here = malloc(size * sizeof *fit.here);
    if (rp_search_rounds(search))
        fit.smooth = malloc(size * sizeof *fit.smooth);
    if (!fit.here || (rp_search_rounds(search) && !fit.smooth)) {
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows", search->n);
        goto done;
    }
    status = try_at(&fit, to_axis(candidate->fit, candidate->value), &start);
    if (status != RP_OK)
        goto done;
    keep(&fit, &start);
    status = descend(&fit);
    if (status == RP_OK && !is_good(&fit))
        status = search_from_starts(&fit);
    if (status == RP_OK && fit.smooth && fit.best.cost <= WORTH_SIDE_STEPS * start.cost) {
        status = prefer_round(&fit);
        if (status == RP_OK)
            status = step_aside(&fit);
    }
    if (status == RP_OK && is_good(&fit))
        status = prefer_round(&fit);
    *trial = fit.best;
done:
    free(fit.here);
    free(fit.smooth);
    return status;
}
