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

static size_t most_of(const bool *is_over, size_t n)
{
    size_t most = 0;
    for (size_t i = 0; i < n; i++)
        most += is_over[i];
    return most;
}

/* Takes one position more: it has a tip of its own with probability p. count [most + 1]: P(so many of the
 * positions so far), the last: so many and more. */
static void add_position(double *count, size_t most, double p)
{
    if (most > 0)
        count[most] += count[most - 1] * p;
    for (size_t k = most; k-- > 0;)
        count[k] = count[k] * (1 - p) + (k > 0 ? count[k - 1] * p : 0);
}

/* Either no earlier row has tipped up to position j, and those over before it are tips of their own; or
 * one has, and every later position may be over. The likeliest j decides. The positions are independent,
 * and their numbers of tips are counted exactly, one position after the other: n times the number over. */
enum rp_status rp_tips_explain(const double *own, const double *earlier, const bool *is_over,
                               size_t n, bool *is_explained, struct rp_error *err)
{
    const size_t most = most_of(is_over, n);
    double *count = calloc(most + 2, sizeof *count);
    size_t n_over = 0;
    bool is_likely = false;
    if (!count)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", n);
    count[0] = 1;
    for (size_t j = 0; j <= n && !is_likely; j++) {
        const double tipped = j < n ? -expm1(-RP_TIPS_MARGIN * earlier[j]) : 1;
        double at_least = 0;
        for (size_t k = n_over; k <= most && tipped >= UNLIKELY; k++)
            at_least += count[k];
        is_likely = tipped * at_least >= UNLIKELY;
        if (j < n && most > 0)
            add_position(count, most, -expm1(-RP_TIPS_MARGIN * own[j]));
        n_over += j < n && is_over[j];
    }
    free(count);
    *is_explained = is_likely;
    return RP_OK;
}
