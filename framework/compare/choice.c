/* See compare/choice.h. Sets are read with the experts of a position by rising number (tensor/chosen_order.h). */
#include "compare/choice.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tensor/chosen_order.h"

static float value_at(const void *row, size_t i)
{
    float value;
    memcpy(&value, (const unsigned char *)row + i * sizeof value, sizeof value);
    return value;
}

/* How many of the engine's are not the reference's; the first of each that the other has not. */
static size_t count_others(const void *ref, const void *engine, size_t n, float *missing,
                           float *wrong)
{
    size_t n_wrong = 0, n_missing = 0;
    for (size_t i = 0; i < n; i++) {
        const float e = value_at(engine, i), r = value_at(ref, i);
        size_t in_ref = 0, in_engine = 0;
        while (in_ref < n && !(value_at(ref, in_ref) == e))
            in_ref++;
        while (in_engine < n && !(value_at(engine, in_engine) == r))
            in_engine++;
        if (in_ref == n && n_wrong++ == 0)
            *wrong = e;
        if (in_engine == n && n_missing++ == 0)
            *missing = r;
    }
    return n_wrong > n_missing ? n_wrong : n_missing;
}

/* The reference's logits of the two; false where they are not there. */
static bool find_gap(const struct rp_comparison *comparison, int layer, int64_t position,
                     float missing, float wrong, double *gap)
{
    struct rp_tensor logits;
    char name[RP_SLOT_NAME_SIZE];
    bool is_found = false;
    rp_slot_name(RP_PART_ROUTER, layer, name);
    if (!rp_tensor_set_find(comparison->reference, name) ||
        rp_tensor_load(comparison->reference, name, &logits, NULL) != RP_OK)
        return false;
    const void *row = rp_tensor_row(&logits, position);
    if (row && missing >= 0 && wrong >= 0 && missing < (float)logits.dim &&
        wrong < (float)logits.dim) {
        *gap = fabs((double)value_at(row, (size_t)missing) - (double)value_at(row, (size_t)wrong));
        is_found = true;
    }
    rp_tensor_release(&logits);
    return is_found;
}

static void describe(const struct rp_comparison *comparison, int layer, int64_t position,
                     float missing, float wrong, const char *place, char *text, size_t size)
{
    char apart[64] = "";
    double gap;
    if (find_gap(comparison, layer, position, missing, wrong, &gap))
        snprintf(apart, sizeof apart, ", router logits %.2g apart", gap);
    snprintf(text, size, "expert %.0f for %.0f at %s%s", (double)wrong, (double)missing, place,
             apart);
}

void rp_compare_choice(const struct rp_comparison *comparison, struct rp_alignment *alignment,
                       struct rp_slot_result *result)
{
    char first[200] = "", place[40];
    struct rp_row_pair row;
    int layer;
    rp_slot_parse(result->slot, &layer);
    while (rp_alignment_next(comparison, alignment, &row)) {
        float missing = -1, wrong = -1;
        const size_t n = count_others(row.ref, row.engine, result->dim, &missing, &wrong);
        const struct rp_position_metrics here = {row.position,
                                                 {.l2_rel = sqrt((double)n / (double)result->dim),
                                                  .ref_finite = 1,
                                                  .engine_finite = 1,
                                                  .norm_ref = 1}};
        if (result->n_compared++ == 0 || here.metrics.l2_rel > result->worst.metrics.l2_rel)
            result->worst = here;
        if (n == 0 || result->n_failing++ > 0)
            continue;
        result->first = here;
        snprintf(place, sizeof place, "position %lld", (long long)row.position);
        describe(comparison, layer, row.position, missing, wrong, place, first, sizeof first);
    }
    result->n_missing = alignment->n_missing;
    result->n_extra = alignment->n_extra;
    result->verdict = result->n_compared == 0  ? RP_SKIP
                      : result->n_failing == 0 ? RP_PASS
                                               : RP_MARGINAL;
    if (result->n_compared == 0)
        snprintf(result->message, sizeof result->message, "no position in common");
    else if (result->n_failing == 0)
        snprintf(result->message, sizeof result->message, "the same experts at all %zu positions",
                 result->n_compared);
    else
        snprintf(result->message, sizeof result->message,
                 "%s; other experts at %zu of %zu positions: replay says whether the engine's are "
                 "those of its own logits",
                 first, result->n_failing, result->n_compared);
}

void rp_choices_open(const struct rp_comparison *comparison, const char *slot,
                     struct rp_choices *choices)
{
    char name[RP_SLOT_NAME_SIZE];
    int layer;
    const enum rp_slot_part part = rp_slot_parse(slot, &layer);
    memset(choices, 0, sizeof *choices);
    if (!rp_part_is_of_experts(part) || layer < 0)
        return;
    rp_slot_name(RP_PART_EXPERTS, layer, name);
    const struct rp_slot_info *ref = rp_tensor_set_find(comparison->reference, name);
    const struct rp_slot_info *engine = rp_tensor_set_find(comparison->engine, name);
    if (!ref || !engine || ref->error.code || engine->error.code || ref->dim != engine->dim)
        return;
    if (rp_tensor_load(comparison->reference, name, &choices->ref, NULL) != RP_OK ||
        rp_tensor_load(comparison->engine, name, &choices->engine, NULL) != RP_OK)
        rp_choices_close(choices);
}

void rp_choices_close(struct rp_choices *choices)
{
    rp_tensor_release(&choices->ref);
    rp_tensor_release(&choices->engine);
}

bool rp_choices_agree(const struct rp_choices *choices, int64_t position)
{
    float missing, wrong;
    if (choices->ref.n_positions == 0 || choices->engine.n_positions == 0)
        return true;
    const void *ref = rp_tensor_row(&choices->ref, position);
    const void *engine = rp_tensor_row(&choices->engine, position);
    return !ref || !engine || count_others(ref, engine, choices->ref.dim, &missing, &wrong) == 0;
}

const char *rp_first_other_choice(const struct rp_comparison *comparison, int layer,
                                  int64_t position, char *text, size_t size)
{
    text[0] = '\0';
    for (int l = 0; l <= layer && !text[0]; l++) {
        char name[RP_SLOT_NAME_SIZE], place[40];
        struct rp_choices choices;
        float missing = -1, wrong = -1;
        rp_choices_open(comparison, rp_slot_name(RP_PART_EXPERTS, l, name), &choices);
        const void *ref =
            choices.ref.n_positions > 0 ? rp_tensor_row(&choices.ref, position) : NULL;
        const void *engine =
            choices.engine.n_positions > 0 ? rp_tensor_row(&choices.engine, position) : NULL;
        snprintf(place, sizeof place, "layer %d", l);
        if (ref && engine && count_others(ref, engine, choices.ref.dim, &missing, &wrong) > 0)
            describe(comparison, l, position, missing, wrong, place, text, size);
        rp_choices_close(&choices);
    }
    return text;
}
