/* The first divergence (see refparity/diagnose.h): which slot, which position, which slot inside the layer.
 * Reads metrics only; what a layer computes is not known here. */
#include "refparity/diagnose.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "compare/align.h"
#include "diagnose/departure.h"

/* L2_rel of slot at position; false when one side lacks it there, or it has none. */
static int l2_rel_at(const struct rp_comparison *comparison, const char *slot, int64_t position,
                     double *l2_rel)
{
    if (!rp_tensor_set_find(comparison->reference, slot) ||
        !rp_tensor_set_find(comparison->engine, slot))
        return 0;
    struct rp_comparison one = *comparison;
    one.positions = &position;
    one.n_positions = 1;
    struct rp_alignment alignment;
    struct rp_row_pair row;
    int found = 0;
    if (!rp_alignment_open(&one, slot, &alignment, NULL) &&
        rp_alignment_next(&one, &alignment, &row)) {
        const struct rp_metrics m = rp_metrics_row(row.ref, row.engine, alignment.dim);
        *l2_rel = m.l2_rel;
        found = m.ref_finite && m.norm_ref > 0;
    }
    rp_alignment_close(&alignment);
    return found;
}

/* Error that enters layer: of h{l}_in, or of the slot before it; false when neither is on both
 * sides. */
static int error_of_input(const struct rp_comparison *comparison, int layer, int64_t position,
                          double *l2_rel)
{
    char name[RP_SLOT_NAME_SIZE];
    if (l2_rel_at(comparison, rp_slot_name(RP_PART_IN, layer, name), position, l2_rel))
        return 1;
    if (layer > 0)
        rp_slot_name(RP_PART_OUTPUT, layer - 1, name);
    else
        rp_slot_name(RP_PART_EMB, -1, name);
    return l2_rel_at(comparison, name, position, l2_rel);
}

/* What lies before each of these slots and behind the one before it. */
static const struct {
    enum rp_slot_part part;
    const char *operation;
} walk[] = {{RP_PART_POSTATTN, "the attention or its residual add"},
            {RP_PART_PREFFN, "the post-attention norm"},
            {RP_PART_FFNOUT, "the FFN"},
            {RP_PART_OUTPUT, "the last residual add"}};
enum { N_WALK = sizeof walk / sizeof walk[0] };

static void append(char *list, size_t size, const char *separator, const char *text)
{
    const size_t used = strlen(list);
    if (used < size)
        snprintf(list + used, size - used, "%s%s", used ? separator : "", text);
}

/* Says which operations lie between the last slot that is close and the first that is not: where slots
 * between them were not compared, it may be any of these. */
static void walk_layer(const struct rp_comparison *comparison, struct rp_divergence *d,
                       double input, double output, double added)
{
    char close[RP_SLOT_NAME_SIZE], operations[256] = "", absent[256] = "";
    double at_close = input, here = output;
    snprintf(close, sizeof close, "the input of layer %d", d->layer);
    for (size_t i = 0; i < N_WALK; i++) {
        char name[RP_SLOT_NAME_SIZE];
        rp_slot_name(walk[i].part, d->layer, name);
        append(operations, sizeof operations, " or ", walk[i].operation);
        if (walk[i].part == RP_PART_OUTPUT) {
            here = output;
            break;
        }
        if (!l2_rel_at(comparison, name, d->position, &here)) {
            append(absent, sizeof absent, ", ", name);
            continue;
        }
        /* NaN comes in where it first stands */
        if (isnan(output) ? isnan(here) : here * here - input * input >= 0.25 * added) {
            snprintf(d->inner_slot, sizeof d->inner_slot, "%s", name);
            break;
        }
        snprintf(close, sizeof close, "%s", name);
        at_close = here;
        operations[0] = absent[0] = '\0';
    }
    snprintf(d->explanation, sizeof d->explanation,
             "at position %lld %s has L2_rel %.3g, %s has %.3g: the error comes in with %.200s",
             (long long)d->position, close, at_close,
             d->inner_slot[0] ? d->inner_slot : "the output", here, operations);
    if (absent[0]) {
        const size_t used = strlen(d->explanation);
        snprintf(d->explanation + used, sizeof d->explanation - used, " (not compared: %.150s)",
                 absent);
    }
}

/* A slot inside the layer brings the error in when what it adds to the input's error is at least a quarter (in
 * squares: independent errors add up so) of what the whole layer adds. Taking the first one over
 * the limit instead would name the FFN for an attention bug that the limit happens to let pass. */
static void find_inner_slot(const struct rp_comparison *comparison, struct rp_divergence *d)
{
    double output = 0, input = 0;
    if (!l2_rel_at(comparison, d->slot, d->position, &output))
        return;
    if (!error_of_input(comparison, d->layer, d->position, &input)) {
        snprintf(
            d->explanation, sizeof d->explanation,
            "the output of layer %d has L2_rel %.3g at position %lld; what enters the layer is "
            "not on both sides, so the error may come from before it",
            d->layer, output, (long long)d->position);
        return;
    }
    const double added = output * output - input * input;
    if (isnan(input) || added < 0.25 * output * output) {
        snprintf(d->explanation, sizeof d->explanation,
                 "the error accumulates before %s: its input is already off by L2_rel %.3g at "
                 "position %lld, its output by %.3g",
                 d->slot, input, (long long)d->position, output);
        return;
    }
    walk_layer(comparison, d, input, output, added);
}

static void describe(const struct rp_comparison *comparison, const struct rp_slot_result *first,
                     struct rp_divergence *d)
{
    snprintf(d->slot, sizeof d->slot, "%s", first->slot);
    d->position = first->first.position;
    const enum rp_slot_part part = rp_slot_parse(first->slot, &d->layer);
    if (part == RP_PART_OUTPUT)
        find_inner_slot(comparison, d);
    else
        snprintf(d->explanation, sizeof d->explanation, "it comes in with %s itself", first->slot);
}

static struct rp_divergence no_divergence(void)
{
    return (struct rp_divergence){.layer = -1, .position = -1, .departure = {.position = -1}};
}

/* Errors and skips say nothing of the engine's numbers. */
static int was_compared(const struct rp_slot_result *slot)
{
    return slot->verdict == RP_PASS || slot->verdict == RP_MARGINAL || slot->verdict == RP_XFAIL ||
           slot->verdict == RP_FAIL;
}

void rp_diagnose_pair(const struct rp_comparison *comparison, struct rp_pair_result *pair,
                      struct rp_divergence *divergence)
{
    *divergence = no_divergence();
    for (size_t i = 0; i < pair->n_slots; i++) {
        struct rp_slot_result *slot = &pair->slots[i];
        if (!slot->required)
            continue;
        if (divergence->slot[0]) {
            if (slot->verdict == RP_FAIL)
                snprintf(slot->downstream_of, sizeof slot->downstream_of, "%s", divergence->slot);
        } else if (slot->verdict == RP_FAIL) {
            describe(comparison, slot, divergence);
        } else {
            divergence->n_not_compared += !was_compared(slot);
        }
    }
    if (pair->tokens.verdict != RP_FAIL)
        rp_find_departure(comparison, &divergence->departure, NULL);
}

void rp_diagnose_slot(const struct rp_comparison *comparison, struct rp_slot_result *result,
                      struct rp_divergence *divergence)
{
    *divergence = no_divergence();
    if (result->verdict != RP_FAIL)
        return;
    char name[RP_SLOT_NAME_SIZE];
    for (size_t i = 0; rp_required_slot(comparison->n_layers, i, name); i++) {
        if (rp_slot_order(name, result->slot) >= 0)
            break;
        struct rp_slot_result earlier;
        rp_compare_slot(comparison, name, &earlier);
        if (earlier.verdict != RP_FAIL) {
            divergence->n_not_compared += !was_compared(&earlier);
            continue;
        }
        describe(comparison, &earlier, divergence);
        snprintf(result->downstream_of, sizeof result->downstream_of, "%s", earlier.slot);
        return;
    }
    describe(comparison, result, divergence);
    rp_find_departure(comparison, &divergence->departure, NULL);
}
