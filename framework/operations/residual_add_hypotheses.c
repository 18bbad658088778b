/* Hypotheses about sums: which residual stream, how often, and what is added to it. Fitted on the rows
 * where the slot is one sum; run, where several lead to it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "operations/row_changes.h"

#define LEAST_SHARE 0.3 /* of the error: less is not worth a trial */
#define NEAR 1e-3

enum option { BRANCH, STREAM }; /* which is times `value` */

/* The residual stream itself: missing, added twice, or times a constant. */
static void collect_own(struct rp_search *search, const float *base)
{
    double share, alpha = rp_rows_fit(search, base, &share);
    struct rp_candidate candidate = rp_candidate_of_rows("residual-leak", rp_rows_add, alpha, base);
    if (share < LEAST_SHARE)
        return;
    if (fabs(alpha + 1) < NEAR) {
        candidate.name = "residual-missing";
        candidate.value = -1;
        rp_search_add(search, candidate, "the residual stream is not added");
    } else if (fabs(alpha - 1) < NEAR) {
        candidate.name = "residual-factor";
        candidate.value = 1;
        candidate.parameter = 2;
        rp_search_add(search, candidate, "the residual stream is added twice");
    } else {
        candidate.reports_value = true;
        rp_search_add_rounded(search, candidate, "%v times the residual stream is added once more");
    }
}

/* Another slot added, or in the residual stream's place. */
static void collect_other(struct rp_search *search, const char *slot, const float *base)
{
    const float *rows = rp_search_slot_rows(search, slot, search->dim);
    char text[160];
    double share;
    if (!rows || (base && memcmp(rows, base, search->n * search->dim * sizeof *rows) == 0))
        return;
    double alpha = rp_rows_fit(search, rows, &share);
    struct rp_candidate candidate = rp_candidate_of_rows("residual-leak", rp_rows_add, alpha, rows);
    candidate.reports_value = true;
    snprintf(text, sizeof text, "%%v times %s is added", slot);
    /* Of the branch itself that is its factor, see any_rows.c. */
    if (share >= LEAST_SHARE && !(base && rp_search_reads(search, slot)))
        rp_search_add_rounded(search, candidate, text);
    float *difference = base ? rp_search_new_rows(search) : NULL;
    if (!difference)
        return;
    for (size_t i = 0; i < search->n * search->dim; i++)
        difference[i] = rows[i] - base[i];
    alpha = rp_rows_fit(search, difference, &share);
    candidate = rp_candidate_of_rows("residual-replaced", rp_rows_add, 1, difference);
    if (share >= LEAST_SHARE && fabs(alpha - 1) < 0.01)
        rp_search_add(search, candidate, "%s in the residual stream's place", slot);
}

/* Slots before this one that are of the residual stream's kind. */
static void collect_slots(struct rp_search *search, const float *base)
{
    struct rp_tensor_set *dump = search->dump;
    for (size_t i = 0; i < rp_tensor_set_n_slots(dump); i++) {
        const char *name = rp_tensor_set_slot(dump, i)->name;
        const size_t n_kept = search->n_owned, n_candidates = search->n_candidates;
        int layer;
        const enum rp_slot_part part = rp_slot_parse(name, &layer);
        if (part != RP_PART_EMB && part != RP_PART_POSTATTN && part != RP_PART_OUTPUT &&
            part != RP_PART_ATTNOUT && part != RP_PART_FFNOUT)
            continue;
        if (rp_slot_order(name, search->slot.name) < 0)
            collect_other(search, name, base);
        /* Rows that no candidate reads need not stay. */
        while (search->n_candidates == n_candidates && search->n_owned > n_kept)
            free(search->owned[--search->n_owned]);
    }
}

static enum rp_status residual_add(void *context, const struct rp_site *site,
                                   const struct rp_residual_add *args)
{
    const struct rp_change *change = context;
    const size_t n = site->n_positions * args->dim;
    const float factor = (float)change->what.value;
    struct rp_residual_add wrong = *args;
    if (args->which != change->what.which)
        return RP_RUN_BELOW(change, residual_add, site, args);
    for (size_t i = 0; change->what.option == STREAM && i < n; i++)
        args->hidden[i] *= factor;
    if (change->what.option == STREAM)
        return RP_RUN_BELOW(change, residual_add, site, args);
    float *scaled = malloc((n + 1) * sizeof *scaled);
    if (!scaled)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a branch");
    for (size_t i = 0; i < n; i++)
        scaled[i] = args->branch[i] * factor;
    wrong.branch = scaled;
    const enum rp_status status = RP_RUN_BELOW(change, residual_add, site, &wrong);
    free(scaled);
    return status;
}

static void install(struct rp_ops *ops)
{
    ops->residual_add = residual_add;
}

/* Where the slots between are not dumped, a layer's two sums are told apart by running it. */
static void collect_run(struct rp_search *search, enum rp_weight_id which, const char *branch)
{
    static const double starts[] = {0.5, 2, -1};
    static const struct rp_fit fit = RP_FIT(false, -1e4, 1e4, starts);
    struct rp_candidate candidate = rp_candidate_make("branch-missing", install, BRANCH, which);
    rp_search_add(search, candidate, "%s is missing", branch);
    candidate.name = "residual-missing";
    candidate.option = STREAM;
    rp_search_add(search, candidate, "the residual stream is not added to %s", branch);
    candidate.name = "constant-factor";
    candidate.option = BRANCH;
    candidate.value = 1;
    candidate.phase = RP_PHASE_FIT;
    candidate.fit = &fit;
    candidate.reports_value = true;
    rp_search_add(search, candidate, "%s times %%v", branch);
}

void rp_collect_residual_add(struct rp_search *search)
{
    if (search->dim != search->config->hidden_size || search->slot.part == RP_PART_EMB)
        return;
    const float *base = rp_search_base(search);
    if (base)
        collect_own(search, base);
    collect_slots(search, base);
    if (rp_search_is_just(search, RP_STEP_RESIDUAL_ADD))
        return;
    if (rp_search_has_step(search, RP_STEP_RESIDUAL_ADD, RP_FFN_DOWN))
        collect_run(search, RP_FFN_DOWN, "the FFN's output");
    if (rp_search_has_step(search, RP_STEP_RESIDUAL_ADD, RP_ATTN_OUTPUT))
        collect_run(search, RP_ATTN_OUTPUT, "attention's output");
    if (rp_search_has_step(search, RP_STEP_RESIDUAL_ADD, RP_SSM_OUT))
        collect_run(search, RP_SSM_OUT, "attention's output");
}
