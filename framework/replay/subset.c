/* See replay/subset.h. The normal equations, by elimination with pivots. */
#include "replay/subset.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS (RP_SUBSET_MAX + 1)

static double product(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* Brings the row with the largest value in the column to the place of row `at`. */
static void pivot(double matrix[RP_SUBSET_MAX][COLUMNS], size_t n, size_t at)
{
    size_t best = at;
    for (size_t row = at + 1; row < n; row++)
        best = fabs(matrix[row][at]) > fabs(matrix[best][at]) ? row : best;
    for (size_t column = 0; column <= n; column++) {
        const double value = matrix[at][column];
        matrix[at][column] = matrix[best][column];
        matrix[best][column] = value;
    }
}

void rp_subset_shares(const float *effects, size_t n, size_t width, const float *residual,
                      double *share)
{
    double matrix[RP_SUBSET_MAX][COLUMNS];
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < n; k++)
            matrix[i][k] = product(effects + i * width, effects + k * width, width);
        matrix[i][i] *= 1 + 1e-9; /* of two that are alike either will do */
        matrix[i][n] = product(effects + i * width, residual, width);
    }
    for (size_t at = 0; at < n; at++) {
        pivot(matrix, n, at);
        for (size_t row = at + 1; row < n && matrix[at][at] != 0; row++) {
            const double factor = matrix[row][at] / matrix[at][at];
            for (size_t column = at; column <= n; column++)
                matrix[row][column] -= factor * matrix[at][column];
        }
    }
    for (size_t at = n; at-- > 0;) {
        double value = matrix[at][n];
        for (size_t k = at + 1; k < n; k++)
            value -= matrix[at][k] * share[k];
        share[at] = matrix[at][at] != 0 ? value / matrix[at][at] : 0;
    }
}

/* residual minus each effect times its share, into rest. Its length. */
static double subtract(const float *effects, size_t n, size_t width, const float *residual,
                       const double *share, float *rest)
{
    for (size_t k = 0; k < width; k++) {
        double value = (double)residual[k];
        for (size_t i = 0; i < n; i++)
            value -= share[i] * (double)effects[i * width + k];
        rest[k] = (float)value;
    }
    return sqrt(product(rest, rest, width));
}

/* The effect that shows most in rest and is not taken yet; n: none does. */
static size_t most_shown(const float *effects, size_t n, size_t width, const float *rest,
                         const size_t *taken, size_t n_taken)
{
    double most = 0;
    size_t best = n;
    for (size_t i = 0; i < n; i++) {
        const float *effect = effects + i * width;
        const double size = sqrt(product(effect, effect, width));
        const double shown = size > 0 ? fabs(product(effect, rest, width)) / size : 0;
        bool is_taken = false;
        for (size_t k = 0; k < n_taken; k++)
            is_taken |= taken[k] == i;
        if (shown > most && !is_taken) {
            most = shown;
            best = i;
        }
    }
    return best;
}

static double nearest_share(enum rp_share kind, double share)
{
    switch (kind) {
    case RP_SHARE_WHOLE: return share > 0.5 ? 1 : 0;
    case RP_SHARE_STEPS: return fmin(fmax(rint(share), -1), 2);
    case RP_SHARE_ANY: break;
    }
    return fmin(fmax(share, -1), 1);
}

enum rp_status rp_subset_pursue(const float *effects, const enum rp_share *kinds, size_t n,
                                size_t width, const float *residual, double rest,
                                struct rp_subset *subset, struct rp_error *err)
{
    const double size = sqrt(product(residual, residual, width));
    double share[RP_SUBSET_MAX] = {0};
    size_t taken[RP_SUBSET_MAX], n_taken = 0;
    float *of_taken = calloc((RP_SUBSET_MAX + 1) * width + 1, sizeof *of_taken);
    *subset = (struct rp_subset){.left = 1};
    if (!of_taken)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu effects", n);
    float *remainder = of_taken + RP_SUBSET_MAX * width;
    memcpy(remainder, residual, width * sizeof *remainder);
    /* Half as many unknowns as values: what is found is determined, not fitted. */
    while (n_taken < RP_SUBSET_MAX && n_taken < width / 2) {
        const size_t best = most_shown(effects, n, width, remainder, taken, n_taken);
        if (best == n)
            break;
        memcpy(of_taken + n_taken * width, effects + best * width, width * sizeof *of_taken);
        taken[n_taken++] = best;
        rp_subset_shares(of_taken, n_taken, width, residual, share);
        if (subtract(of_taken, n_taken, width, residual, share, remainder) <= rest * size)
            break;
    }
    for (size_t i = 0; i < n_taken; i++) {
        share[i] = nearest_share(kinds[taken[i]], share[i]);
        if (share[i] == 0)
            continue;
        subset->chosen[subset->n] = taken[i];
        subset->share[subset->n++] = share[i];
    }
    if (size > 0)
        subset->left = subtract(of_taken, n_taken, width, residual, share, remainder) / size;
    free(of_taken);
    return RP_OK;
}
