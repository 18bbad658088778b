/* Closed forms that are no sums: shifted rows, single and swapped channels, limits, rounding, and a
 * constant vector. Their arithmetic is in rows.c. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "explain/rows.h"

#define MOST_OF_ENERGY 0.9 /* in one channel: worth trying */
#define MAX_SWAPPED 256    /* channels that are looked at for a permutation */
#define MIN_BIAS_ROWS 4    /* a vector is not fitted to fewer */

static struct rp_candidate make(const struct rp_search *search, const char *name,
                                rp_transform_fn *transform, double value)
{
    return (struct rp_candidate){.name = name,
                                 .phase = RP_PHASE_ROWS,
                                 .stages = search->stages,
                                 .transform = transform,
                                 .which = RP_N_WEIGHTS,
                                 .value = value,
                                 .from_layer = -1,
                                 .parameter = RP_NO_PARAMETER};
}

/* The engine's rows at their place, for transforms that read them. */
static enum rp_status copy_dumped(struct rp_search *search, float **rows, struct rp_error *err)
{
    enum rp_status status = rp_search_new_rows(search, rows, err);
    if (status == RP_OK)
        memcpy(*rows, search->dumped, search->n * search->dim * sizeof **rows);
    return status;
}

static enum rp_status collect_shift(struct rp_search *search, struct rp_error *err)
{
    static const int distances[] = {1, -1, 2, -2};
    bool is_emb = search->slot->part == RP_PART_EMB;
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < sizeof distances / sizeof *distances && status == RP_OK; i++) {
        struct rp_candidate candidate = make(search, is_emb ? "token-shifted" : "position-shifted",
                                             rp_rows_shift, distances[i]);
        candidate.reports_value = true;
        snprintf(candidate.text, sizeof candidate.text,
                 is_emb ? "the embedding is that of the token %d %s"
                        : "the row is that of the position %d %s",
                 abs(distances[i]), distances[i] > 0 ? "before" : "after");
        status = rp_search_add(search, &candidate, err);
    }
    return status;
}

static double error_at(const struct rp_search *search, size_t row, size_t channel)
{
    size_t at = row * search->dim + channel;
    return (double)search->dumped[at] - (double)search->computed[at];
}

static enum rp_status collect_channel(struct rp_search *search, struct rp_error *err)
{
    double total = 0, most = 0;
    size_t worst = 0;
    float *dumped = NULL;
    for (size_t channel = 0; channel < search->dim; channel++) {
        double sum = 0;
        for (size_t row = 0; row < search->n; row++) {
            double error = error_at(search, row, channel);
            sum += search->is_failing[row] && isfinite(error) ? error * error : 0;
        }
        total += sum;
        if (sum > most) {
            most = sum;
            worst = channel;
        }
    }
    if (!(most > MOST_OF_ENERGY * total))
        return RP_OK;
    enum rp_status status = copy_dumped(search, &dumped, err);
    struct rp_candidate candidate = make(search, "outlier-channel", rp_rows_channel, (double)worst);
    candidate.rows = dumped;
    candidate.reports_value = true;
    size_t at = search->first * search->dim + worst;
    snprintf(candidate.text, sizeof candidate.text,
             "channel %%v alone is wrong: %.6g for %.6g at position %lld",
             (double)search->dumped[at], (double)search->computed[at],
             (long long)search->slot->positions[search->first]);
    return status == RP_OK ? rp_search_add(search, &candidate, err) : status;
}

/* Whether channel `to` of the engine's holds what was computed for `from`, over base, as exactly as
 * the limits ask for. */
static bool holds_channel(const struct rp_search *search, const float *base, size_t to, size_t from)
{
    for (size_t row = 0; row < search->n; row++) {
        const float *computed = search->computed + row * search->dim;
        double rms = 0, moved, x;
        if (!search->is_failing[row])
            continue;
        for (size_t i = 0; i < search->dim; i++)
            rms += (double)computed[i] * (double)computed[i];
        rms = sqrt(rms / (double)search->dim);
        moved = base ? (double)base[row * search->dim + to] - (double)base[row * search->dim + from]
                     : 0;
        x = (double)computed[from] + moved;
        /* A single value's error may be a few times the row's RMS error. */
        if (!(fabs((double)search->dumped[row * search->dim + to] - x) <=
              4 * search->limit[row] * rms))
            return false;
    }
    return true;
}

/* permutation [dim]; false where what the engine has in the wrong channels is found in no other. */
static bool find_permutation(const struct rp_search *search, const float *base, float *permutation,
                             size_t *first)
{
    size_t wrong[MAX_SWAPPED], n = 0;
    for (size_t channel = 0; channel < search->dim; channel++) {
        permutation[channel] = (float)channel;
        if (holds_channel(search, base, channel, channel))
            continue;
        if (n == MAX_SWAPPED)
            return false;
        wrong[n++] = channel;
    }
    for (size_t i = 0; i < n; i++) {
        size_t j = 0;
        while (j < n && !holds_channel(search, base, wrong[i], wrong[j]))
            j++;
        if (j == n)
            return false;
        permutation[wrong[i]] = (float)wrong[j];
    }
    *first = n ? wrong[0] : 0;
    return n > 1;
}

static enum rp_status collect_permutation(struct rp_search *search, const float *base,
                                          struct rp_error *err)
{
    float *permutation = NULL;
    size_t first;
    enum rp_status status = rp_search_new_rows(search, &permutation, err);
    if (status != RP_OK || !find_permutation(search, base, permutation, &first))
        return status;
    struct rp_candidate candidate =
        make(search, "channels-swapped", rp_rows_permute, (double)first);
    candidate.rows = base;
    candidate.more_rows = permutation;
    candidate.reports_value = true;
    snprintf(candidate.text, sizeof candidate.text,
             "channels are permuted: channel %%v holds what belongs to channel %zu",
             (size_t)permutation[first]);
    return rp_search_add(search, &candidate, err);
}

static enum rp_status collect_clip(struct rp_search *search, const float *base,
                                   struct rp_error *err)
{
    double most = 0;
    for (size_t row = 0; row < search->n; row++) {
        for (size_t i = 0; search->is_failing[row] && i < search->dim; i++) {
            size_t at = row * search->dim + i;
            most = fmax(most, fabs((double)search->dumped[at] - (base ? (double)base[at] : 0)));
        }
    }
    struct rp_candidate candidate = make(search, "clipped", rp_rows_clip, most);
    candidate.rows = base;
    candidate.reports_value = true;
    snprintf(candidate.text, sizeof candidate.text, "values are limited to -%%v .. %%v");
    return most > 0 && isfinite(most) ? rp_search_add(search, &candidate, err) : RP_OK;
}

static enum rp_status collect_rounding(struct rp_search *search, const float *base,
                                       struct rp_error *err)
{
    static const struct {
        int bits;
        const char *type;
    } types[] = {{10, "F16"}, {7, "BF16"}};
    float *dumped = NULL;
    enum rp_status status = copy_dumped(search, &dumped, err);
    for (size_t i = 0; i < 2; i++) {
        for (int of_branch = 0; of_branch <= (base != NULL) && status == RP_OK; of_branch++) {
            struct rp_candidate candidate =
                make(search, "rounded-output", rp_rows_round, types[i].bits);
            candidate.option = types[i].bits;
            candidate.rows = of_branch ? base : NULL;
            candidate.more_rows = dumped;
            candidate.reports_value = true;
            snprintf(candidate.text, sizeof candidate.text, "%s rounded to %s",
                     of_branch ? "what is added to the residual stream is" : "the slot is",
                     types[i].type);
            status = rp_search_add(search, &candidate, err);
        }
    }
    return status;
}

/* The mean error as a vector: a bias that is missing, or one too many. */
static enum rp_status collect_bias(struct rp_search *search, struct rp_error *err)
{
    float *bias = NULL;
    double square = 0;
    if (search->n_failing < MIN_BIAS_ROWS)
        return RP_OK;
    enum rp_status status = rp_search_new_rows(search, &bias, err);
    if (status != RP_OK)
        return status;
    for (size_t channel = 0; channel < search->dim; channel++) {
        double sum = 0;
        for (size_t row = 0; row < search->n; row++)
            sum += search->is_failing[row] ? error_at(search, row, channel) : 0;
        sum /= (double)search->n_failing;
        square += sum * sum;
        for (size_t row = 0; row < search->n; row++)
            bias[row * search->dim + channel] = (float)sum;
    }
    struct rp_candidate candidate = make(search, "constant-bias", rp_rows_add, 1);
    candidate.phase = RP_PHASE_BIAS;
    candidate.rows = bias;
    candidate.parameter = sqrt(square / (double)search->dim);
    snprintf(candidate.text, sizeof candidate.text, "a constant vector of RMS %.6g is added",
             candidate.parameter);
    return rp_search_add(search, &candidate, err);
}

enum rp_status rp_collect_rows(struct rp_search *search, struct rp_error *err)
{
    const float *base;
    enum rp_status status = rp_search_base(search, &base, err);
    if (status == RP_OK)
        status = collect_shift(search, err);
    if (status == RP_OK)
        status = collect_channel(search, err);
    if (search->slot->part == RP_PART_LOGITS) /* too wide for more copies of it */
        return status;
    for (int of_branch = 0; of_branch <= (base != NULL) && status == RP_OK; of_branch++) {
        status = collect_permutation(search, of_branch ? base : NULL, err);
        if (status == RP_OK)
            status = collect_clip(search, of_branch ? base : NULL, err);
    }
    if (status == RP_OK)
        status = collect_rounding(search, base, err);
    if (status == RP_OK)
        status = collect_bias(search, err);
    return status;
}
