/* See explain/places.h. */
#include "explain/places.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ROWS 8         /* failing rows that heads are looked for in */
#define MIN_HEAD_SHARE 0.9 /* of the error, in the head that it is in: rounding spreads the rest */
#define MAX_OTHER_SHARE 0.85 /* in the next best: a head spans only part of the stream */
#define MAX_SPAN 0.75        /* of the stream's width, that heads may span to be told apart */
#define MAX_OPEN 4           /* groups that are all tried where they cannot be told apart */
#define RIDGE 1e-12          /* relative, against a matrix that is not of full rank */

/* Solves a x = b in place of b by Cholesky; a [n][n] symmetric, is overwritten. */
static void solve(double *a, double *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j <= i; j++) {
            double sum = a[i * n + j];
            for (size_t k = 0; k < j; k++)
                sum -= a[i * n + k] * a[j * n + k];
            if (i == j)
                a[i * n + i] = sqrt(fmax(sum, 1e-300));
            else
                a[i * n + j] = sum / a[j * n + j];
        }
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < i; k++)
            b[i] -= a[i * n + k] * b[k];
        b[i] /= a[i * n + i];
    }
    for (size_t i = n; i-- > 0;) {
        for (size_t k = i + 1; k < n; k++)
            b[i] -= a[k * n + i] * b[k];
        b[i] /= a[i * n + i];
    }
}

/* The output matrix's columns first .. first + n - 1, as vectors that a head's output adds up to. */
struct columns {
    const struct rp_weight *weight; /* [dim][n_in] */
    size_t first, n;
};

static double column(const struct columns *columns, size_t row, size_t i)
{
    return (double)columns->weight->data[row * columns->weight->n_in + columns->first + i];
}

/* Adds up the energy of error [dim], relative to scale, and what of it is outside the columns' span.
 * gram [n][n] and x [n] are scratch. */
static void add_energies(const struct columns *columns, const double *error, size_t dim,
                         double scale, double *gram, double *x, double *total, double *outside)
{
    double trace = 0;
    size_t n = columns->n;
    memset(gram, 0, n * n * sizeof *gram);
    memset(x, 0, n * sizeof *x);
    for (size_t row = 0; row < dim; row++) {
        *total += scale * error[row] * error[row];
        for (size_t i = 0; i < n; i++) {
            double value = column(columns, row, i);
            x[i] += value * error[row];
            for (size_t j = 0; j <= i; j++)
                gram[i * n + j] += value * column(columns, row, j);
        }
    }
    for (size_t i = 0; i < n; i++)
        trace += gram[i * n + i];
    for (size_t i = 0; i < n; i++) {
        gram[i * n + i] += RIDGE * trace / (double)n;
        for (size_t j = 0; j < i; j++)
            gram[j * n + i] = gram[i * n + j];
    }
    solve(gram, x, n);
    for (size_t row = 0; row < dim; row++) {
        double sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += column(columns, row, i) * x[i];
        *outside += scale * (error[row] - sum) * (error[row] - sum);
    }
}

/* The share of some failing rows' error in the columns' span. */
static enum rp_status head_share(const struct rp_search *search, const struct columns *columns,
                                 double *share, struct rp_error *err)
{
    size_t dim = search->dim, n = columns->n, n_rows = 0;
    double *gram = malloc((n * n + n + dim + 1) * sizeof *gram);
    if (!gram)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu columns", n);
    double *x = gram + n * n, *error = x + n;
    double total = 0, outside = 0;
    for (size_t row = 0; row < search->n && n_rows < MAX_ROWS; row++) {
        if (!search->is_failing[row])
            continue;
        double norm2 = 0;
        for (size_t i = 0; i < dim; i++)
            norm2 +=
                (double)search->computed[row * dim + i] * (double)search->computed[row * dim + i];
        for (size_t i = 0; i < dim; i++)
            error[i] =
                (double)search->dumped[row * dim + i] - (double)search->computed[row * dim + i];
        add_energies(columns, error, dim, norm2 > 0 ? 1 / norm2 : 1, gram, x, &total, &outside);
        n_rows++;
    }
    *share = total > 0 ? 1 - outside / total : 0;
    free(gram);
    return RP_OK;
}

/* Heads `size` at a time; the group whose span has the error, SIZE_MAX when there is none. */
static enum rp_status find_group(const struct rp_search *search, const struct rp_weight *output,
                                 size_t n_heads, size_t size, size_t *found, struct rp_error *err)
{
    size_t head_dim = output->n_in / n_heads;
    double best = 0, next = 0;
    enum rp_status status = RP_OK;
    *found = SIZE_MAX;
    if ((double)(size * head_dim) > MAX_SPAN * (double)search->dim)
        return RP_OK;
    for (size_t group = 0; group < n_heads / size && status == RP_OK; group++) {
        struct columns columns = {output, group * size * head_dim, size * head_dim};
        double share = 0;
        status = head_share(search, &columns, &share, err);
        if (status == RP_OK && share > best) {
            next = best;
            best = share;
            *found = group;
        } else if (status == RP_OK) {
            next = fmax(next, share);
        }
    }
    if (!(best >= MIN_HEAD_SHARE && next <= MAX_OTHER_SHARE))
        *found = SIZE_MAX;
    return status;
}

enum rp_status rp_places_by_head(const struct rp_search *search, struct rp_place *places,
                                 size_t *n_places, struct rp_error *err)
{
    const struct rp_model_config *config = search->config;
    bool is_full = search->kind == RP_LAYER_FULL_ATTENTION;
    const struct rp_weight *output =
        &search->weights.weights[is_full ? RP_ATTN_OUTPUT : RP_SSM_OUT];
    size_t n_q = is_full ? config->n_heads : config->n_linear_v_heads;
    size_t n_kv = is_full ? config->n_kv_heads : config->n_linear_k_heads;
    size_t group = n_q / n_kv, found, n = 0;
    enum rp_status status;
    *n_places = 0;
    if (!search->runs || search->slot->part != RP_PART_POSTATTN || !output->data || n_q < 2)
        return RP_OK;
    status = find_group(search, output, n_q, 1, &found, err);
    if (status == RP_OK && found < n_q) {
        places[n++] = (struct rp_place){.by_head = true, .first_q = found, .n_q = 1};
        if (group == 1)
            places[n++] = (struct rp_place){
                .by_head = true, .first_q = found, .n_q = 1, .first_kv = found, .n_kv = 1};
    }
    if (status == RP_OK && is_full && group > 1) {
        /* Where a group spans the whole stream, each may be it. */
        size_t span = output->n_in / n_kv;
        bool is_open = (double)span > MAX_SPAN * (double)search->dim && n_kv <= MAX_OPEN;
        status = find_group(search, output, n_q, group, &found, err);
        for (size_t kv = 0; kv < n_kv && n < RP_MAX_PLACES && status == RP_OK; kv++) {
            if (is_open || kv == found)
                places[n++] = (struct rp_place){.by_head = true,
                                                .first_q = kv * group,
                                                .n_q = group,
                                                .first_kv = kv,
                                                .n_kv = 1};
        }
    }
    /* In an engine's loop over heads, Q's and K's of one index, which are no group. */
    for (size_t kv = 0; is_full && group > 1 && kv < n_kv && n_kv <= MAX_OPEN; kv++) {
        if (n < RP_MAX_PLACES)
            places[n++] = (struct rp_place){
                .by_head = true, .first_q = kv, .n_q = 1, .first_kv = kv, .n_kv = 1};
    }
    *n_places = n;
    return status;
}

size_t rp_places_by_position(const struct rp_search *search, struct rp_place *places)
{
    const int64_t *positions = search->slot->positions;
    size_t n = 0;
    bool is_tail = search->first + search->n_failing == search->n;
    places[n++] = (struct rp_place){.kind = RP_PLACE_ONLY, .position = positions[search->first]};
    if (search->first > 0 && search->first + 1 < search->n)
        places[n++] =
            (struct rp_place){.kind = RP_PLACE_FROM, .position = positions[search->first]};
    if (search->n_failing > 1 && !is_tail)
        places[n++] = (struct rp_place){
            .kind = RP_PLACE_LISTED, .listed = search->failing, .n_listed = search->n_failing};
    if (search->first == 1)
        places[n++] = (struct rp_place){.kind = RP_PLACE_ONLY, .position = positions[0]};
    return n;
}

size_t rp_places_at_failing(const struct rp_search *search, struct rp_place *places,
                            size_t n_places)
{
    size_t n = n_places;
    for (size_t i = 0; i < n_places && n < RP_MAX_PLACES; i++) {
        places[n] = places[i];
        places[n].kind = RP_PLACE_ONLY;
        places[n].position = search->failing[0];
        if (search->n_failing > 1) {
            places[n].kind = RP_PLACE_LISTED;
            places[n].listed = search->failing;
            places[n].n_listed = search->n_failing;
        }
        n++;
    }
    return n;
}

/* Whether the listed positions are those that step takes from the first one. */
static int64_t step_of(const struct rp_place *place)
{
    int64_t step = place->n_listed > 2 ? place->listed[1] - place->listed[0] : 0;
    for (size_t i = 1; i < place->n_listed && step > 0; i++) {
        if (place->listed[i] - place->listed[i - 1] != step)
            step = 0;
    }
    return step;
}

const char *rp_place_text(const struct rp_place *place, char *out, size_t size)
{
    char heads[64] = "";
    long long position = (long long)place->position;
    if (place->by_head && place->n_q == 1)
        snprintf(heads, sizeof heads, " in head %zu only", place->first_q);
    else if (place->by_head)
        snprintf(heads, sizeof heads, " in KV head %zu only", place->first_kv);
    switch (place->kind) {
    case RP_PLACE_ALL: snprintf(out, size, "%s", heads); break;
    case RP_PLACE_ONLY: snprintf(out, size, "%s at position %lld only", heads, position); break;
    case RP_PLACE_FROM: snprintf(out, size, "%s from position %lld on", heads, position); break;
    case RP_PLACE_LISTED:
        if (place->n_listed == 1)
            snprintf(out, size, "%s at position %lld only", heads, (long long)place->listed[0]);
        else if (step_of(place) > 1)
            snprintf(out, size, "%s at every %lld positions from %lld on", heads,
                     (long long)step_of(place), (long long)place->listed[0]);
        else
            snprintf(out, size, "%s at %zu positions from %lld to %lld", heads, place->n_listed,
                     (long long)place->listed[0], (long long)place->listed[place->n_listed - 1]);
        break;
    }
    return out;
}
