/* Hypotheses about any slot's rows: a constant factor or offset, another position's or layer's rows,
 * single and swapped channels, limits, rounding, and a constant vector. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "architectures/hf_order.h"
#include "operations/row_changes.h"

#define LEAST_SHARE 0.3    /* of the error: less is not worth a trial */
#define MOST_OF_ENERGY 0.9 /* in one channel: worth a trial */
#define MIN_BIAS_ROWS 4    /* a vector is not fitted to fewer */
#define IS_NOTHING 1e-3    /* a factor below */

static const char *branch_name(const struct rp_search *search, const float *base)
{
    if (!base)
        return search->slot.part == RP_PART_FFNOUT    ? "the FFN's output"
               : search->slot.part == RP_PART_ATTNOUT ? "attention's output"
                                                      : "the slot";
    return search->slot.part == RP_PART_POSTATTN ? "attention's output"
           : rp_search_has_step(search, RP_STEP_RMS_NORM, RP_N_WEIGHTS)
               ? "what the layer adds"
               : "the FFN's output, when it is added,";
}

/* The branch, rows less their base, times a constant. */
static enum rp_status collect_factor(struct rp_search *search, const float *base,
                                     struct rp_error *err)
{
    char text[160];
    double share;
    float *branch = NULL;
    enum rp_status status = rp_search_new_rows(search, &branch, err);
    if (status != RP_OK)
        return status;
    for (size_t i = 0; i < search->n * search->dim; i++)
        branch[i] = search->computed[i] - (base ? base[i] : 0);
    const double factor = 1 + rp_rows_fit(search, branch, &share);
    struct rp_candidate candidate =
        rp_candidate_of_rows("constant-factor", rp_rows_scale, factor, base);
    if (share < LEAST_SHARE)
        return RP_OK;
    if (fabs(factor) < IS_NOTHING) {
        candidate.name = "branch-missing";
        candidate.value = 0;
        return rp_search_add(search, candidate, err, "%s is missing", branch_name(search, base));
    }
    candidate.reports_value = true;
    snprintf(text, sizeof text, "%s times %%v", branch_name(search, base));
    return rp_search_add_rounded(search, candidate, text, err);
}

static enum rp_status collect_offset(struct rp_search *search, struct rp_error *err)
{
    double share;
    float *ones = NULL;
    const enum rp_status status = rp_search_new_rows(search, &ones, err);
    if (status != RP_OK)
        return status;
    for (size_t i = 0; i < search->n * search->dim; i++)
        ones[i] = 1;
    struct rp_candidate candidate = rp_candidate_of_rows("constant-offset", rp_rows_offset,
                                                         rp_rows_fit(search, ones, &share), NULL);
    candidate.reports_value = true;
    return share < LEAST_SHARE
               ? RP_OK
               : rp_search_add_rounded(search, candidate, "%v added to every channel", err);
}

static enum rp_status collect_shift(struct rp_search *search, struct rp_error *err)
{
    static const int distances[] = {1, -1, 2, -2};
    const bool is_emb = search->slot.part == RP_PART_EMB;
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < sizeof distances / sizeof *distances && status == RP_OK; i++) {
        struct rp_candidate candidate = rp_candidate_of_rows(
            is_emb ? "token-shifted" : "position-shifted", rp_rows_shift, distances[i], NULL);
        candidate.reports_value = true;
        status = rp_search_add(search, candidate, err,
                               is_emb ? "the embedding is that of the token %d %s"
                                      : "the row is that of the position %d %s",
                               abs(distances[i]), distances[i] > 0 ? "before" : "after");
    }
    return status;
}

/* The slot holds what another layer's has. */
static enum rp_status collect_layers(struct rp_search *search, struct rp_error *err)
{
    enum rp_status status = RP_OK;
    for (int layer = 0;
         search->slot.layer >= 0 && (size_t)layer < search->config->n_layers && status == RP_OK;
         layer++) {
        char name[RP_SLOT_NAME_SIZE];
        const float *rows = NULL;
        if (layer == search->slot.layer)
            continue;
        rp_slot_name(search->slot.part, layer, name);
        status = rp_search_slot_rows(search, name, search->dim, &rows, err);
        struct rp_candidate candidate =
            rp_candidate_of_rows("layer-shifted", rp_rows_replace, layer, rows);
        candidate.reports_value = true;
        if (rows)
            status = rp_search_add(search, candidate, err, "the slot holds layer %d's values, %s",
                                   layer, name);
    }
    return status;
}

static double error_at(const struct rp_search *search, size_t row, size_t channel)
{
    const size_t at = row * search->dim + channel;
    return (double)search->dumped[at] - (double)search->computed[at];
}

static enum rp_status collect_channel(struct rp_search *search, struct rp_error *err)
{
    double total = 0, most = 0;
    size_t worst = 0;
    for (size_t channel = 0; channel < search->dim; channel++) {
        double sum = 0;
        for (size_t row = 0; row < search->n; row++)
            sum += search->is_failing[row]
                       ? error_at(search, row, channel) * error_at(search, row, channel)
                       : 0;
        total += sum;
        if (sum > most) {
            most = sum;
            worst = channel;
        }
    }
    if (!(most > MOST_OF_ENERGY * total))
        return RP_OK;
    struct rp_candidate candidate =
        rp_candidate_of_rows("outlier-channel", rp_rows_channel, (double)worst, search->dumped);
    const size_t at = search->first * search->dim + worst;
    candidate.reports_value = true;
    return rp_search_add(search, candidate, err,
                         "channel %%v alone is wrong: %.6g for %.6g at position %lld",
                         (double)search->dumped[at], (double)search->computed[at],
                         (long long)search->slot.positions[search->first]);
}

/* Whether channel `to` of the engine's holds what was computed for `from`, over base: within
 * allowed [n], absolute, at the failing rows. */
static bool holds_channel(const struct rp_search *search, const float *base, const double *allowed,
                          size_t to, size_t from)
{
    for (size_t row = 0; row < search->n; row++) {
        const size_t first = row * search->dim;
        if (!search->is_failing[row])
            continue;
        const double moved = base ? (double)base[first + to] - (double)base[first + from] : 0;
        const double x = (double)search->computed[first + from] + moved;
        if (!(fabs((double)search->dumped[first + to] - x) <= allowed[row]))
            return false;
    }
    return true;
}

/* permutation [dim], wrong [dim] and allowed [n] are scratch; false where what the engine has in a wrong
 * channel is found in no other. */
static bool search_permutation(const struct rp_search *search, const float *base,
                               float *permutation, size_t *wrong, double *allowed)
{
    size_t n = 0;
    for (size_t row = 0; row < search->n; row++) {
        double square = 0;
        for (size_t i = row * search->dim; i < (row + 1) * search->dim; i++)
            square += (double)search->computed[i] * (double)search->computed[i];
        /* A single value's error may be a few times the row's RMS error. */
        allowed[row] = 4 * search->limit[row] * sqrt(square / (double)search->dim);
    }
    for (size_t channel = 0; channel < search->dim; channel++) {
        permutation[channel] = (float)channel;
        if (!holds_channel(search, base, allowed, channel, channel))
            wrong[n++] = channel;
    }
    for (size_t i = 0; i < n; i++) {
        size_t j = 0;
        while (j < n && !holds_channel(search, base, allowed, wrong[i], wrong[j]))
            j++;
        if (j == n)
            return false;
        permutation[wrong[i]] = (float)wrong[j];
    }
    return n > 1;
}

static enum rp_status find_permutation(const struct rp_search *search, const float *base,
                                       float *permutation, bool *is_found, struct rp_error *err)
{
    size_t *wrong = malloc((search->dim + 1) * sizeof *wrong);
    double *allowed = malloc((search->n + 1) * sizeof *allowed);
    const bool has_memory = wrong && allowed;
    *is_found = has_memory && search_permutation(search, base, permutation, wrong, allowed);
    free(wrong);
    free(allowed);
    return has_memory
               ? RP_OK
               : rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu channels", search->dim);
}

/* Whether pairs that should stand half a head apart are side by side, or the other way round. */
static bool is_of_other_pairs(const struct rp_search *search, const float *permutation)
{
    const struct rp_model_config *config = search->config;
    size_t n_to = 0, n_from = 0;
    if (!rp_hf_order_may_differ(search->slot.part) || search->dim % config->head_dim != 0)
        return false;
    for (size_t i = 0; i < search->dim; i++) {
        const size_t other = rp_hf_order_own_index(config, search->slot.part, i);
        n_to += (size_t)permutation[other] == i;
        n_from += (size_t)permutation[i] == other;
    }
    return n_to == search->dim || n_from == search->dim;
}

/* Whether whole heads are permuted. */
static bool is_of_heads(const struct rp_search *search, const float *permutation)
{
    const enum rp_slot_part part = search->slot.part;
    const size_t width = search->config->head_dim;
    if ((part != RP_PART_V && part != RP_PART_ATTN && part != RP_PART_MIX &&
         !rp_hf_order_may_differ(part)) ||
        width < 2 || search->kind != RP_LAYER_FULL_ATTENTION || search->dim % width != 0)
        return false;
    for (size_t i = 0; i < search->dim; i++) {
        if ((size_t)permutation[i] != (size_t)permutation[i - i % width] + i % width)
            return false;
    }
    return true;
}

static enum rp_status collect_permutation(struct rp_search *search, const float *base,
                                          struct rp_error *err)
{
    float *permutation = NULL;
    size_t first = 0;
    bool is_found = false;
    enum rp_status status = rp_search_new_rows(search, &permutation, err);
    if (status == RP_OK)
        status = find_permutation(search, base, permutation, &is_found, err);
    if (status != RP_OK || !is_found)
        return status;
    while ((size_t)permutation[first] == first)
        first++;
    const size_t from = (size_t)permutation[first], head_dim = search->config->head_dim;
    struct rp_candidate candidate =
        rp_candidate_of_rows("channels-swapped", rp_rows_permute, (double)first, base);
    candidate.more_rows = permutation;
    if (is_of_other_pairs(search, permutation)) {
        candidate.name = "rope-ordering";
        return rp_search_add(
            search, candidate, err,
            "the two values of each rotated pair stand in the other order: weights "
            "or values of the other RoPE; a dump whose pairs stand side by side "
            "has to say so (rp_dump_order_interleaved)");
    }
    candidate.reports_value = true;
    if (is_of_heads(search, permutation)) {
        candidate.name = "attention-head-mapping";
        candidate.value = (double)(first / head_dim);
        return rp_search_add(search, candidate, err,
                             "heads are permuted: head %%v holds what belongs to head %zu",
                             from / head_dim);
    }
    candidate.n_digits = RP_ANY_DIGITS; /* a number for each channel */
    return rp_search_add(search, candidate, err,
                         "channels are permuted: channel %%v holds what belongs to channel %zu",
                         from);
}

static enum rp_status collect_clip(struct rp_search *search, const float *base,
                                   struct rp_error *err)
{
    double most = 0;
    for (size_t i = 0; i < search->n * search->dim; i++) {
        if (search->is_failing[i / search->dim])
            most = fmax(most, fabs((double)search->dumped[i] - (base ? (double)base[i] : 0)));
    }
    struct rp_candidate candidate = rp_candidate_of_rows("clipped", rp_rows_clip, most, base);
    candidate.reports_value = true;
    return most > 0 ? rp_search_add(search, candidate, err, "values are limited to -%%v .. %%v")
                    : RP_OK;
}

static enum rp_status collect_rounding(struct rp_search *search, const float *base,
                                       struct rp_error *err)
{
    static const struct {
        int bits;
        const char *type;
    } types[] = {{10, "F16"}, {7, "BF16"}};
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < 2 && status == RP_OK; i++) {
        struct rp_candidate candidate =
            rp_candidate_of_rows("rounded-output", rp_rows_round, types[i].bits, base);
        candidate.option = types[i].bits;
        candidate.more_rows = search->dumped;
        candidate.reports_value = true;
        status = rp_search_add(search, candidate, err, "%s rounded to %s",
                               base ? "what is added to the residual stream is" : "the slot is",
                               types[i].type);
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
    const enum rp_status status = rp_search_new_rows(search, &bias, err);
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
    struct rp_candidate candidate = rp_candidate_of_rows("constant-bias", rp_rows_add, 1, bias);
    candidate.phase = RP_PHASE_BIAS;
    candidate.parameter = sqrt(square / (double)search->dim);
    return rp_search_add(search, candidate, err, "a constant vector of RMS %.6g is added",
                         candidate.parameter);
}

enum rp_status rp_collect_any_rows(struct rp_search *search, struct rp_error *err)
{
    const float *base;
    const enum rp_slot_part part = search->slot.part;
    enum rp_status status = rp_search_base(search, &base, err);
    /* Of these a factor has a name of its own, see delta_net.c. */
    if (status == RP_OK && part != RP_PART_DECAY && part != RP_PART_BETA && part != RP_PART_DELTA)
        status = collect_factor(search, base, err);
    if (status == RP_OK)
        status = collect_shift(search, err);
    if (status == RP_OK)
        status = collect_channel(search, err);
    if (search->slot.part == RP_PART_LOGITS) /* too wide for more copies of it */
        return status;
    if (status == RP_OK)
        status = collect_offset(search, err);
    if (status == RP_OK)
        status = collect_layers(search, err);
    for (int of_branch = 0; of_branch <= (base != NULL) && status == RP_OK; of_branch++) {
        status = collect_permutation(search, of_branch ? base : NULL, err);
        if (status == RP_OK)
            status = collect_clip(search, of_branch ? base : NULL, err);
        if (status == RP_OK)
            status = collect_rounding(search, of_branch ? base : NULL, err);
    }
    return status == RP_OK ? collect_bias(search, err) : status;
}
