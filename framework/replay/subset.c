/* See replay/subset.h. The normal equations, by elimination with pivots. */
#include "replay/subset.h"

#include <math.h>

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
