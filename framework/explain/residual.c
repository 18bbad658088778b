/* Hypotheses about sums: a branch times a constant, what is added to it, and which residual stream.
 * Fitted on the rows where the slot is one sum; run, where several are merged. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "explain/rows.h"

#define LEAST_SHARE 0.3 /* of the error: less is not worth naming as the closest */
#define NEAR 1e-3

static struct rp_candidate make(const struct rp_search *search, const char *name,
                                rp_transform_fn *transform, double value, const float *rows)
{
    return (struct rp_candidate){.name = name,
                                 .phase = RP_PHASE_ROWS,
                                 .stages = search->stages,
                                 .transform = transform,
                                 .which = RP_N_WEIGHTS,
                                 .value = value,
                                 .rows = rows,
                                 .from_layer = -1,
                                 .parameter = value};
}

static const char *branch_name(const struct rp_search *search)
{
    switch (search->slot->part) {
    case RP_PART_POSTATTN: return "attention's output";
    case RP_PART_FFNOUT: return "the FFN's output";
    case RP_PART_OUTPUT:
        return search->stages == RP_STAGE_FFN_ADD ? "the FFN's output, when it is added,"
                                                  : "what the layer adds";
    default: return "the slot";
    }
}

/* value, and a round number beside it where that is near. */
static enum rp_status add_with_round(struct rp_search *search, struct rp_candidate candidate,
                                     struct rp_error *err)
{
    struct rp_candidate raw = candidate;
    for (int digits = 1; digits <= 4 && candidate.value != 0; digits++) {
        double unit = pow(10, floor(log10(fabs(candidate.value))) - (digits - 1));
        double nice = round(candidate.value / unit) * unit;
        if (fabs(nice - candidate.value) > NEAR * fabs(candidate.value))
            continue;
        candidate.parameter += nice - candidate.value;
        candidate.value = nice;
        break;
    }
    enum rp_status status = rp_search_add(search, &candidate, err);
    if (status == RP_OK && candidate.value != raw.value)
        status = rp_search_add(search, &raw, err);
    return status;
}

/* The branch, rows less their base, times a constant. */
static enum rp_status collect_factor(struct rp_search *search, const float *base,
                                     struct rp_error *err)
{
    double share, factor;
    float *branch = NULL;
    enum rp_status status = rp_search_new_rows(search, &branch, err);
    if (status != RP_OK)
        return status;
    for (size_t i = 0; i < search->n * search->dim; i++)
        branch[i] = search->computed[i] - (base ? base[i] : 0);
    factor = 1 + rp_rows_fit(search, branch, &share);
    struct rp_candidate candidate = make(search, "constant-factor", rp_rows_scale, factor, base);
    bool is_zero = fabs(factor) < NEAR;
    if (share < LEAST_SHARE)
        return RP_OK;
    candidate.reports_value = true;
    snprintf(candidate.text, sizeof candidate.text, "%s times %%v", branch_name(search));
    if (!is_zero)
        return add_with_round(search, candidate, err);
    candidate.name = "branch-missing";
    candidate.value = 0;
    candidate.parameter = RP_NO_PARAMETER;
    candidate.reports_value = false;
    snprintf(candidate.text, sizeof candidate.text, "%s is missing", branch_name(search));
    return rp_search_add(search, &candidate, err);
}

static enum rp_status collect_offset(struct rp_search *search, struct rp_error *err)
{
    double share, offset;
    float *ones = NULL;
    enum rp_status status = rp_search_new_rows(search, &ones, err);
    if (status != RP_OK)
        return status;
    for (size_t i = 0; i < search->n * search->dim; i++)
        ones[i] = 1;
    offset = rp_rows_fit(search, ones, &share);
    struct rp_candidate candidate = make(search, "constant-offset", rp_rows_offset, offset, NULL);
    candidate.reports_value = true;
    snprintf(candidate.text, sizeof candidate.text, "%%v added to every channel");
    return share < LEAST_SHARE ? RP_OK : add_with_round(search, candidate, err);
}

/* The residual stream itself: missing, added twice, or times a constant. */
static enum rp_status collect_own(struct rp_search *search, const float *base, struct rp_error *err)
{
    double share, alpha = rp_rows_fit(search, base, &share);
    struct rp_candidate candidate = make(search, "residual-leak", rp_rows_add, alpha, base);
    if (share < LEAST_SHARE)
        return RP_OK;
    if (fabs(alpha + 1) < NEAR || fabs(alpha - 1) < NEAR) {
        candidate.name = alpha < 0 ? "residual-missing" : "residual-factor";
        candidate.value = alpha < 0 ? -1 : 1;
        candidate.parameter = alpha < 0 ? RP_NO_PARAMETER : 2;
        snprintf(candidate.text, sizeof candidate.text, "the residual stream is %s",
                 alpha < 0 ? "not added" : "added twice");
        return rp_search_add(search, &candidate, err);
    }
    candidate.reports_value = true;
    snprintf(candidate.text, sizeof candidate.text,
             "%%v times the residual stream is added once more");
    return add_with_round(search, candidate, err);
}

/* Another slot added, or in the residual stream's place. */
static enum rp_status collect_other(struct rp_search *search, const char *slot, const float *base,
                                    struct rp_error *err)
{
    const float *rows;
    double share, alpha;
    enum rp_status status = rp_search_slot_rows(search, slot, &rows, err);
    if (status != RP_OK || !rows ||
        (base && memcmp(rows, base, search->n * search->dim * sizeof *rows) == 0))
        return status;
    alpha = rp_rows_fit(search, rows, &share);
    struct rp_candidate candidate = make(search, "residual-leak", rp_rows_add, alpha, rows);
    candidate.reports_value = true;
    snprintf(candidate.text, sizeof candidate.text, "%%v times %s is added", slot);
    if (share >= LEAST_SHARE)
        status = add_with_round(search, candidate, err);
    float *difference = NULL;
    if (status == RP_OK && base)
        status = rp_search_new_rows(search, &difference, err);
    if (status != RP_OK || !base)
        return status;
    for (size_t i = 0; i < search->n * search->dim; i++)
        difference[i] = rows[i] - base[i];
    alpha = rp_rows_fit(search, difference, &share);
    candidate = make(search, "residual-replaced", rp_rows_add, 1, difference);
    candidate.parameter = RP_NO_PARAMETER;
    snprintf(candidate.text, sizeof candidate.text, "%s in the residual stream's place", slot);
    if (share >= LEAST_SHARE && fabs(alpha - 1) < 0.01)
        status = rp_search_add(search, &candidate, err);
    return status;
}

/* The slot holds what another layer's has. */
static enum rp_status collect_shifted_layer(struct rp_search *search, const char *slot, int layer,
                                            struct rp_error *err)
{
    const float *rows;
    enum rp_status status = rp_search_slot_rows(search, slot, &rows, err);
    if (status != RP_OK || !rows)
        return status;
    struct rp_candidate candidate = make(search, "layer-shifted", rp_rows_replace, layer, rows);
    candidate.reports_value = true;
    snprintf(candidate.text, sizeof candidate.text, "the slot holds layer %d's values, %s", layer,
             slot);
    return rp_search_add(search, &candidate, err);
}

/* Slots before this one, without those that hold the same as the slot before them. */
static enum rp_status collect_slots(struct rp_search *search, const float *base,
                                    struct rp_error *err)
{
    struct rp_tensor_set *dump = rp_replay_dump(search->replay);
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < rp_tensor_set_n_slots(dump) && status == RP_OK; i++) {
        const char *name = rp_tensor_set_slot(dump, i)->name;
        size_t n_kept = search->n_slots;
        int layer;
        enum rp_slot_part part = rp_slot_parse(name, &layer);
        if (part == RP_PART_OTHER || strcmp(name, search->slot->slot) == 0)
            continue;
        if (part == search->slot->part && layer >= 0)
            status = collect_shifted_layer(search, name, layer, err);
        if (status == RP_OK && rp_slot_order(name, search->slot->slot) < 0 && part != RP_PART_IN &&
            part != RP_PART_PREFFN)
            status = collect_other(search, name, base, err);
        /* Rows that no candidate reads need not stay. */
        bool is_read = false;
        for (size_t j = 0; j < search->n_candidates; j++)
            for (size_t k = n_kept; k < search->n_slots; k++)
                is_read = is_read || search->candidates[j].rows == search->slots[k];
        while (!is_read && search->n_slots > n_kept)
            free(search->slots[--search->n_slots]);
    }
    return status;
}

static enum rp_status scale_branch(void *context, const struct rp_site *site,
                                   const struct rp_residual_add *args)
{
    const struct rp_change *change = context;
    const struct rp_ops *below = change->overlay.below;
    bool is_ffn = args->which == RP_FFN_DOWN;
    size_t n = site->n_positions * args->dim;
    struct rp_residual_add wrong = *args;
    if (is_ffn != (change->which == RP_FFN_DOWN))
        return below->residual_add(below->context, site, args);
    if (change->option == 1) { /* the residual stream is scaled */
        for (size_t i = 0; i < n; i++)
            args->hidden[i] *= (float)change->value;
        return below->residual_add(below->context, site, args);
    }
    float *scaled = malloc((n + 1) * sizeof *scaled);
    if (!scaled)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a branch");
    for (size_t i = 0; i < n; i++)
        scaled[i] = args->branch[i] * (float)change->value;
    wrong.branch = scaled;
    enum rp_status status = below->residual_add(below->context, site, &wrong);
    free(scaled);
    return status;
}

static void install(struct rp_ops *ops)
{
    ops->residual_add = scale_branch;
}

/* Where slots between are not dumped, the two sums of a layer are told apart by running it. */
static enum rp_status collect_merged(struct rp_search *search, struct rp_error *err)
{
    static const double starts[] = {0.5, 2, -1};
    static const struct rp_fit fit = {
        .is_log = false, .low = -1e4, .high = 1e4, .starts = starts, .n_starts = 3};
    static const struct {
        enum rp_weight_id which;
        unsigned stage;
        const char *text;
    } sums[] = {{RP_ATTN_OUTPUT, RP_STAGE_ATTENTION, "attention's output"},
                {RP_FFN_DOWN, RP_STAGE_FFN_ADD, "the FFN's output"}};
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < 2; i++) {
        struct rp_candidate candidate = {.name = "branch-missing",
                                         .phase = RP_PHASE_FIXED,
                                         .stages = sums[i].stage,
                                         .install = install,
                                         .which = sums[i].which,
                                         .from_layer = -1,
                                         .parameter = RP_NO_PARAMETER};
        snprintf(candidate.text, sizeof candidate.text, "%s is missing", sums[i].text);
        if (status == RP_OK)
            status = rp_search_add(search, &candidate, err);
        candidate.name = "residual-missing";
        candidate.option = 1;
        snprintf(candidate.text, sizeof candidate.text, "the residual stream is not added to %s",
                 sums[i].text);
        if (status == RP_OK)
            status = rp_search_add(search, &candidate, err);
        candidate.name = "constant-factor";
        candidate.option = 0;
        candidate.value = 1;
        candidate.phase = RP_PHASE_FIT;
        candidate.fit = &fit;
        candidate.reports_value = true;
        snprintf(candidate.text, sizeof candidate.text, "%s times %%v", sums[i].text);
        if (status == RP_OK)
            status = rp_search_add(search, &candidate, err);
    }
    return status;
}

enum rp_status rp_collect_residual(struct rp_search *search, struct rp_error *err)
{
    const float *base;
    enum rp_status status = rp_search_base(search, &base, err);
    bool is_merged = (search->stages & (search->stages - 1)) != 0;
    if (status == RP_OK)
        status = collect_factor(search, base, err);
    if (status == RP_OK && search->slot->part != RP_PART_LOGITS)
        status = collect_offset(search, err);
    if (status == RP_OK && base)
        status = collect_own(search, base, err);
    if (status == RP_OK && search->slot->part != RP_PART_LOGITS)
        status = collect_slots(search, base, err);
    if (status == RP_OK && is_merged && search->runs)
        status = collect_merged(search, err);
    return status;
}
