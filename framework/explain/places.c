/* See explain/places.h. */
#include "explain/places.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "architectures/hf_order.h"

#define MAX_ROWS 8         /* failing rows that heads are looked for in */
#define MIN_HEAD_SHARE 0.9 /* of the error, in the head that it is in: rounding spreads the rest */
#define MAX_OTHER_SHARE 0.85 /* in the next best: a head spans only part of the stream */
#define MAX_SPAN 0.75        /* of the stream's width, that heads may span to be told apart */
#define MAX_OPEN 4           /* groups that are all tried where they cannot be told apart */
#define SPANNED 1e-12        /* of a column: what is left of one that the others span */

static double error_at(const struct rp_search *search, size_t row, size_t i)
{
    const size_t at = row * search->dim + i;
    return (double)search->dumped[at] - (double)search->computed[at];
}

/* An orthonormal basis of what columns first .. first + n - 1 of the output matrix span, or where
 * output is NULL, of these values of the slot: basis [n][dim]. Vectors of no length stay zero. */
static void find_basis(const struct rp_weight *output, size_t first, size_t n, size_t dim,
                       double *basis)
{
    for (size_t i = 0; i < n; i++) {
        double *own = basis + i * dim, before = 0, length = 0;
        for (size_t out = 0; out < dim; out++) {
            own[out] =
                output ? (double)output->data[out * output->n_in + first + i] : out == first + i;
            before += own[out] * own[out];
        }
        for (size_t k = 0; k < 2 * i; k++) { /* twice, against what rounding leaves */
            const double *other = basis + k % i * dim;
            double along = 0;
            for (size_t out = 0; out < dim; out++)
                along += own[out] * other[out];
            for (size_t out = 0; out < dim; out++)
                own[out] -= along * other[out];
        }
        for (size_t out = 0; out < dim; out++)
            length += own[out] * own[out];
        const double scale = length > SPANNED * before ? 1 / sqrt(length) : 0;
        for (size_t out = 0; out < dim; out++)
            own[out] *= scale;
    }
}

/* The share of some failing rows' error that comes from these values of the slot, or of what output
 * multiplies. */
static enum rp_status share_of(const struct rp_search *search, const struct rp_weight *output,
                               size_t first, size_t n, double *share, struct rp_error *err)
{
    double *basis = malloc((n * search->dim + 1) * sizeof *basis);
    double total = 0, inside = 0;
    size_t n_rows = 0;
    if (!basis)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu columns", n);
    find_basis(output, first, n, search->dim, basis);
    for (size_t row = 0; row < search->n && n_rows < MAX_ROWS; row++) {
        double energy = 0, spanned = 0;
        if (!search->is_failing[row])
            continue;
        for (size_t i = 0; i < search->dim; i++)
            energy += error_at(search, row, i) * error_at(search, row, i);
        for (size_t k = 0; k < n; k++) {
            double along = 0;
            for (size_t i = 0; i < search->dim; i++)
                along += basis[k * search->dim + i] * error_at(search, row, i);
            spanned += along * along;
        }
        const double weight = search->error[row] * search->error[row];
        total += weight;
        inside += energy > 0 ? weight * spanned / energy : 0;
        n_rows++;
    }
    *share = total > 0 ? inside / total : 0;
    free(basis);
    return RP_OK;
}

/* n_heads, taken `size` at a time: the group that has the error, SIZE_MAX when there is none. */
static enum rp_status find_group(const struct rp_search *search, const struct rp_weight *output,
                                 size_t width, size_t n_heads, size_t size, size_t *found,
                                 struct rp_error *err)
{
    const size_t span = size * width / n_heads;
    double best = 0, next = 0;
    enum rp_status status = RP_OK;
    *found = SIZE_MAX;
    if ((double)span > MAX_SPAN * (double)search->dim)
        return RP_OK;
    for (size_t group = 0; group < n_heads / size && status == RP_OK; group++) {
        double share = 0;
        status = share_of(search, output, group * span, span, &share, err);
        next = fmax(next, fmin(best, share));
        if (share > best) {
            best = share;
            *found = group;
        }
    }
    if (!(best >= MIN_HEAD_SHARE && next <= MAX_OTHER_SHARE))
        *found = SIZE_MAX;
    return status;
}

static struct rp_place of_heads(size_t first_q, size_t n_q, size_t first_kv, size_t n_kv)
{
    return (struct rp_place){.by_head = true,
                             .first_q = first_q,
                             .n_q = n_q,
                             .first_kv = first_kv,
                             .n_kv = n_kv,
                             .hf_head = first_q};
}

/* A V head of the DeltaNet: the slot's rows have HF's order, the output matrix's columns the file's. */
static void place_v_head(const struct rp_model_config *config, bool is_of_slot,
                         struct rp_place *place)
{
    const size_t found = place->hf_head;
    const bool has_kv = place->n_kv > 0;
    size_t hf = found;
    for (size_t head = 0; head < config->n_linear_v_heads && !is_of_slot; head++) {
        if (rp_hf_order_own_v_head(config, head) == found)
            hf = head;
    }
    place->hf_head = hf;
    place->first_q = rp_hf_order_own_v_head(config, hf);
    place->first_kv = has_kv ? place->first_q : 0;
}

/* Whether the slot has heads side by side. */
static bool has_heads(enum rp_slot_part part, bool *is_kv)
{
    *is_kv =
        part == RP_PART_K || part == RP_PART_V || part == RP_PART_KNORM || part == RP_PART_KROPE;
    return *is_kv || part == RP_PART_Q || part == RP_PART_QNORM || part == RP_PART_QROPE ||
           part == RP_PART_QABSORBED || part == RP_PART_LATENT || part == RP_PART_ATTN ||
           part == RP_PART_DELTA || part == RP_PART_Z || part == RP_PART_MIX || part == RP_PART_A ||
           part == RP_PART_B || part == RP_PART_DECAY || part == RP_PART_BETA;
}

enum rp_status rp_places_by_head(const struct rp_search *search,
                                 struct rp_place places[RP_MAX_PLACES], size_t *n_places,
                                 struct rp_error *err)
{
    const struct rp_model_config *config = search->config;
    const bool is_full = search->kind != RP_LAYER_LINEAR_ATTENTION;
    const size_t n_q = is_full ? config->n_heads : config->n_linear_v_heads;
    const size_t n_kv = is_full ? config->n_kv_heads : config->n_linear_v_heads;
    const size_t group = n_q / n_kv;
    const struct rp_weight *output = NULL;
    bool is_kv = false;
    size_t width = search->dim, found, n = 0;
    *n_places = 0;
    if (!has_heads(search->slot.part, &is_kv)) {
        output = &search->weights.weights[is_full ? RP_ATTN_OUTPUT : RP_SSM_OUT];
        width = output->n_in;
        if (!output->data ||
            (search->slot.part != RP_PART_POSTATTN && search->slot.part != RP_PART_ATTNOUT) ||
            !rp_search_has_step(search, RP_STEP_LINEAR, is_full ? RP_ATTN_OUTPUT : RP_SSM_OUT))
            return RP_OK;
    }
    const size_t n_heads = is_kv ? n_kv : n_q;
    if (n_heads < 2)
        return RP_OK;
    enum rp_status status = find_group(search, output, width, n_heads, 1, &found, err);
    if (status == RP_OK && found != SIZE_MAX)
        places[n++] = is_kv ? of_heads(0, 0, found, 1) : of_heads(found, 1, 0, 0);
    if (status == RP_OK && found != SIZE_MAX && !is_kv && group == 1)
        places[n++] = of_heads(found, 1, found, 1);
    for (size_t i = 0; i < n && !is_full; i++)
        place_v_head(config, output == NULL, &places[i]);
    if (status != RP_OK || is_kv || !is_full || group == 1) {
        *n_places = n;
        return status;
    }
    /* A KV head and those that read it; where a group spans the whole stream, each may be it. */
    const size_t span = width / n_kv;
    const bool is_open = (double)span > MAX_SPAN * (double)search->dim && n_kv <= MAX_OPEN;
    status = find_group(search, output, width, n_q, group, &found, err);
    for (size_t kv = 0; kv < n_kv && n < RP_MAX_PLACES; kv++) {
        if (is_open || kv == found)
            places[n++] = of_heads(kv * group, group, kv, 1);
    }
    /* In an engine's loop over heads, Q's and K's of one index, which are no group. */
    for (size_t kv = 0; output && kv < n_kv && n_kv <= MAX_OPEN && n < RP_MAX_PLACES; kv++)
        places[n++] = of_heads(kv, 1, kv, 1);
    *n_places = n;
    return status;
}

size_t rp_places_by_position(const struct rp_search *search, struct rp_place places[RP_MAX_PLACES])
{
    const int64_t *positions = search->slot.positions;
    const size_t first = search->first;
    const bool is_tail = first + search->n_failing == search->n;
    size_t n = 0;
    places[n++] = (struct rp_place){.kind = RP_PLACE_ONLY, .position = positions[first]};
    if (first > 0 && first + 1 < search->n)
        places[n++] = (struct rp_place){.kind = RP_PLACE_FROM, .position = positions[first]};
    if (search->n_failing > 1 && !is_tail)
        places[n++] = (struct rp_place){
            .kind = RP_PLACE_LISTED, .listed = search->failing, .n_listed = search->n_failing};
    if (first == 1)
        places[n++] = (struct rp_place){.kind = RP_PLACE_ONLY, .position = positions[0]};
    return n;
}

size_t rp_places_at_failing(const struct rp_search *search, struct rp_place places[RP_MAX_PLACES],
                            size_t n)
{
    for (size_t i = 0, n_heads = n; i < n_heads && n < RP_MAX_PLACES; i++, n++) {
        places[n] = places[i];
        places[n].kind = RP_PLACE_LISTED;
        places[n].listed = search->failing;
        places[n].n_listed = search->n_failing;
    }
    return n;
}

/* The step that the listed positions take from the first one; 0: they take none. */
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
    const long long position = (long long)place->position;
    if (place->by_head && place->n_q == 1)
        snprintf(heads, sizeof heads, " in head %zu only", place->hf_head);
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
