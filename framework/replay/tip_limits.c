/* See replay/tip_limits.h. */
#include "replay/tip_limits.h"

#include <math.h>
#include <stdlib.h>

#define UNLIKELY 1e-6
/* Past which k is taken from the normal distribution: e^-mean has to be a normal number. */
#define MOST_TIPS 500.0

double rp_tips_limit(double worth, double own)
{
    const double mean = RP_TIPS_MARGIN * own, most = mean + 6 * sqrt(mean);
    if (!(mean < MOST_TIPS))
        return worth * sqrt(most);
    /* The smallest k with P(more than k) < UNLIKELY; one tip is always allowed. */
    double probability = exp(-mean), left = 1 - probability, k = 0;
    while (left >= UNLIKELY && k < most + 20) {
        k++;
        probability *= mean / k;
        left -= probability;
    }
    return worth * sqrt(fmax(k, 1));
}

/* P(at least k of n independent positions), position i with probability p[i]: exactly, position by
 * position. count [k + 1] is scratch. */
static double at_least(const double *p, size_t n, size_t k, double *count)
{
    if (k == 0)
        return 1;
    for (size_t j = 0; j <= k; j++)
        count[j] = j == 0;
    for (size_t i = 0; i < n; i++) {
        count[k] += count[k - 1] * p[i]; /* k and more stay there */
        for (size_t j = k; j-- > 0;)
            count[j] = count[j] * (1 - p[i]) + (j > 0 ? count[j - 1] * p[i] : 0);
    }
    return count[k];
}

/* Either no earlier row has tipped up to position j, and those over before it are tips of their own; or
 * one has, and every later position may be over. The likeliest j decides. */
bool rp_tips_explain(const double *own, const double *earlier, const bool *is_over, size_t n)
{
    double *p = calloc(2 * n + 2, sizeof *p), *count = p + n;
    size_t n_over = 0;
    bool is_likely = false;
    if (!p)
        return true; /* nothing can be said */
    for (size_t i = 0; i < n; i++)
        p[i] = -expm1(-RP_TIPS_MARGIN * own[i]);
    for (size_t j = 0; j <= n && !is_likely; j++) {
        const double tipped = j < n ? -expm1(-RP_TIPS_MARGIN * earlier[j]) : 1;
        is_likely = tipped >= UNLIKELY && tipped * at_least(p, j, n_over, count) >= UNLIKELY;
        n_over += j < n && is_over[j];
    }
    free(p);
    return is_likely;
}
