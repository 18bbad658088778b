/* Hypotheses about any slot's rows: a constant factor or offset, another position's or layer's rows,
 * single and swapped channels, limits, rounding, and a constant vector. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "architectures/hf_order.h"
#include "operations/row_changes.h"
#include "tensor/order.h"

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
static void collect_factor(struct rp_search *search, const float *base)
{
    char text[160];
    double share;
    float *branch = rp_search_new_rows(search);
    if (!branch)
        return;
    for (size_t i = 0; i < search->n * search->dim; i++)
        branch[i] = search->computed[i] - (base ? base[i] : 0);
    const double factor = 1 + rp_rows_fit(search, branch, &share);
    struct rp_candidate candidate =
        rp_candidate_of_rows("constant-factor", rp_rows_scale, factor, base);
    if (share < LEAST_SHARE)
        return;
    if (fabs(factor) < IS_NOTHING) {
        candidate.name = "branch-missing";
        candidate.value = 0;
        rp_search_add(search, candidate, "%s is missing", branch_name(search, base));
        return;
    }
    candidate.reports_value = true;
    snprintf(text, sizeof text, "%s times %%v", branch_name(search, base));
    rp_search_add_rounded(search, candidate, text);
}

static void collect_offset(struct rp_search *search)
{
    double share;
    float *ones = rp_search_new_rows(search);
    if (!ones)
        return;
    for (size_t i = 0; i < search->n * search->dim; i++)
        ones[i] = 1;
    struct rp_candidate candidate = rp_candidate_of_rows("constant-offset", rp_rows_offset,
                                                         rp_rows_fit(search, ones, &share), NULL);
    candidate.reports_value = true;
    if (share >= LEAST_SHARE)
        rp_search_add_rounded(search, candidate, "%v added to every channel");
}

static void collect_shift(struct rp_search *search)
{
    static const int distances[] = {1, -1, 2, -2};
    const bool is_emb = search->slot.part == RP_PART_EMB;
    for (size_t i = 0; i < sizeof distances / sizeof *distances; i++) {
        struct rp_candidate candidate = rp_candidate_of_rows(
            is_emb ? "token-shifted" : "position-shifted", rp_rows_shift, distances[i], NULL);
        candidate.reports_value = true;
        rp_search_add(search, candidate,
                      is_emb ? "the embedding is that of the token %d %s"
                             : "the row is that of the position %d %s",
                      abs(distances[i]), distances[i] > 0 ? "before" : "after");
    }
}

/* The slot holds what another layer's has. */
static void collect_layers(struct rp_search *search)
{
    for (int layer = 0; search->slot.layer >= 0 && (size_t)layer < search->config->n_layers;
         layer++) {
        char name[RP_SLOT_NAME_SIZE];
        if (layer == search->slot.layer)
            continue;
        rp_slot_name(search->slot.part, layer, name);
        const float *rows = rp_search_slot_rows(search, name, search->dim);
        struct rp_candidate candidate =
            rp_candidate_of_rows("layer-shifted", rp_rows_replace, layer, rows);
        candidate.reports_value = true;
        if (rows)
            rp_search_add(search, candidate, "the slot holds layer %d's values, %s", layer, name);
    }
}

static double error_at(const struct rp_search *search, size_t row, size_t channel)
{
    const size_t at = row * search->dim + channel;
    return (double)search->dumped[at] - (double)search->computed[at];
}

static void collect_channel(struct rp_search *search)
{
    double total = 0, most = 0;
    size_t worst = 0;
    if (search->dim < 2) /* it is all that there is */
        return;
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
        return;
    struct rp_candidate candidate =
        rp_candidate_of_rows("outlier-channel", rp_rows_channel, (double)worst, search->dumped);
    const size_t at = search->first * search->dim + worst;
    candidate.reports_value = true;
    rp_search_add(search, candidate, "channel %%v alone is wrong: %.6g for %.6g at position %lld",
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

static bool find_permutation(struct rp_search *search, const float *base, float *permutation)
{
    size_t *wrong = malloc((search->dim + 1) * sizeof *wrong);
    double *allowed = malloc((search->n + 1) * sizeof *allowed);
    const bool has_memory = wrong && allowed;
    const bool is_found =
        has_memory && search_permutation(search, base, permutation, wrong, allowed);
    free(wrong);
    free(allowed);
    if (!has_memory)
        rp_search_note(search, rp_fail(search->err, RP_ERR_MEMORY, NULL, -1,
                                       "no memory for %zu channels", search->dim));
    return is_found;
}

/* Whether pairs that should stand half a head apart are side by side, or the other way round. */
static bool is_of_other_pairs(const struct rp_search *search, const float *permutation)
{
    const struct rp_model_config *config = search->config;
    const struct rp_order side_by_side = {
        .kind = RP_ORDER_INTERLEAVED_PAIRS, .head_dim = config->head_dim, .n_rot = config->n_rot};
    size_t n_to = 0, n_from = 0;
    if (!rp_hf_order_may_differ(search->slot.part) || search->dim % config->head_dim != 0)
        return false;
    for (size_t i = 0; i < search->dim; i++) {
        const size_t other = rp_order_from(&side_by_side, search->dim, i);
        n_to += (size_t)permutation[other] == i;
        n_from += (size_t)permutation[i] == other;
    }
    return n_to == search->dim || n_from == search->dim;
}

/* Latent attention has heads of several widths, as many as there are queries. */
static size_t head_width(const struct rp_search *search)
{
    const struct rp_model_config *config = search->config;
    return config->kv_lora_rank > 0 ? search->dim / config->n_heads : config->head_dim;
}

/* Whether whole heads are permuted. */
static bool is_of_heads(const struct rp_search *search, const float *permutation)
{
    const enum rp_slot_part part = search->slot.part;
    const size_t width = head_width(search);
    if ((part != RP_PART_V && part != RP_PART_ATTN && part != RP_PART_MIX &&
         !rp_hf_order_may_differ(part)) ||
        width < 2 || search->kind == RP_LAYER_LINEAR_ATTENTION || search->dim % width != 0)
        return false;
    for (size_t i = 0; i < search->dim; i++) {
        if ((size_t)permutation[i] != (size_t)permutation[i - i % width] + i % width)
            return false;
    }
    return true;
}

static void collect_permutation(struct rp_search *search, const float *base)
{
    float *permutation = rp_search_new_rows(search);
    size_t first = 0;
    if (!permutation || !find_permutation(search, base, permutation))
        return;
    while ((size_t)permutation[first] == first)
        first++;
    const size_t from = (size_t)permutation[first], head_dim = head_width(search);
    struct rp_candidate candidate =
        rp_candidate_of_rows("channels-swapped", rp_rows_permute, (double)first, base);
    candidate.more_rows = permutation;
    if (is_of_other_pairs(search, permutation)) {
        candidate.name = "rope-ordering";
        rp_search_add(search, candidate,
                      "the two values of each rotated pair stand in the other order: weights "
                      "or values of the other RoPE; a dump whose pairs stand side by side "
                      "has to say so (rp_dump_order_interleaved)");
        return;
    }
    candidate.reports_value = true;
    if (is_of_heads(search, permutation)) {
        candidate.name = "attention-head-mapping";
        const size_t head = first / head_dim;
        candidate.value = (double)head;
        rp_search_add(search, candidate,
                      "heads are permuted: head %%v holds what belongs to head %zu",
                      from / head_dim);
        return;
    }
    candidate.n_digits = RP_ANY_DIGITS; /* a number for each channel */
    rp_search_add(search, candidate,
                  "channels are permuted: channel %%v holds what belongs to channel %zu", from);
}

static void collect_clip(struct rp_search *search, const float *base)
{
    double most = 0;
    for (size_t i = 0; i < search->n * search->dim; i++) {
        if (search->is_failing[i / search->dim])
            most = fmax(most, fabs((double)search->dumped[i] - (base ? (double)base[i] : 0)));
    }
    struct rp_candidate candidate = rp_candidate_of_rows("clipped", rp_rows_clip, most, base);
    candidate.reports_value = true;
    if (most > 0)
        rp_search_add(search, candidate, "values are limited to -%%v .. %%v");
}

static void collect_rounding(struct rp_search *search, const float *base)
{
    static const struct {
        int bits;
        const char *type;
    } types[] = {{10, "F16"}, {7, "BF16"}};
    for (size_t i = 0; i < 2; i++) {
        struct rp_candidate candidate =
            rp_candidate_of_rows("rounded-output", rp_rows_round, types[i].bits, base);
        candidate.option = types[i].bits;
        candidate.more_rows = search->dumped;
        candidate.reports_value = true;
        rp_search_add(search, candidate, "%s rounded to %s",
                      base ? "what is added to the residual stream is" : "the slot is",
                      types[i].type);
    }
}

/* The mean error as a vector: a bias that is missing, or one too many. */
static void collect_bias(struct rp_search *search)
{
    double square = 0;
    if (search->n_failing < MIN_BIAS_ROWS)
        return;
    float *bias = rp_search_new_rows(search);
    if (!bias)
        return;
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
    rp_search_add(search, candidate, "a constant vector of RMS %.6g is added", candidate.parameter);
}

void rp_collect_any_rows(struct rp_search *search)
{
    const enum rp_slot_part part = search->slot.part;
    const float *base = rp_search_base(search);
    /* Of these a factor has a name of its own, see delta_net.c. */
    if (part != RP_PART_DECAY && part != RP_PART_BETA && part != RP_PART_DELTA)
        collect_factor(search, base);
    collect_shift(search);
    collect_channel(search);
    if (search->slot.part == RP_PART_LOGITS) /* too wide for more copies of it */
        return;
    collect_offset(search);
    collect_layers(search);
    for (int of_branch = 0; of_branch <= (base != NULL); of_branch++) {
        collect_permutation(search, of_branch ? base : NULL);
        collect_clip(search, of_branch ? base : NULL);
        collect_rounding(search, of_branch ? base : NULL);
    }
    collect_bias(search);
}
