/* The rule (see refparity/compare.h): every required slot but logits has L2_rel below its limit at
 * every compared position; logits have a cosine above theirs. Limits are written so that NaN
 * fails. Not for metrics (metrics.c) nor for pairing positions (align.c). */
#include "compare/align.h"
#include "compare/choice.h"
#include "compare/close_names.h"
#include "compare/equal_slots.h"
#include "compare/verdict.h"
#include "compare/warnings.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

const char *rp_verdict_name(enum rp_verdict verdict)
{
    switch (verdict) {
    case RP_PASS: return "PASS";
    case RP_MARGINAL: return "MARGINAL";
    case RP_XFAIL: return "XFAIL";
    case RP_FAIL: return "FAIL";
    case RP_SKIP: return "SKIP";
    case RP_ERROR: return "ERROR";
    }
    return "UNKNOWN";
}

int rp_verdict_exit_code(enum rp_verdict verdict)
{
    switch (verdict) {
    case RP_PASS:
    case RP_MARGINAL:
    case RP_XFAIL: return RP_EXIT_PASS;
    case RP_FAIL: return RP_EXIT_FAIL;
    case RP_SKIP: return RP_EXIT_SKIP;
    case RP_ERROR: break;
    }
    return RP_EXIT_ERROR;
}

struct rp_limits rp_limits_default(void)
{
    return (struct rp_limits){.l2_rel = RP_DEFAULT_L2_REL, .cosine = RP_DEFAULT_COSINE};
}

double rp_limits_l2_rel(const struct rp_limits *limits, const char *slot)
{
    for (size_t i = 0; i < limits->n_slots; i++)
        if (strcmp(limits->slots[i].slot, slot) == 0)
            return limits->slots[i].l2_rel;
    return limits->l2_rel;
}

#define SAY(result, ...) snprintf((result)->message, sizeof(result)->message, __VA_ARGS__)

static void set_error(struct rp_slot_result *result, const struct rp_error *err)
{
    char text[sizeof result->message];
    result->verdict = RP_ERROR;
    SAY(result, "%s", rp_error_text(err, text, sizeof text));
}

/* ": layer_0 looks like h0" where set, which lacks slot, has a name like it; other has the slot. */
static void suggest(const struct rp_comparison *c, const struct rp_tensor_set *set,
                    const struct rp_slot_info *other, struct rp_slot_result *result)
{
    const char *close = rp_close_name(set, result->slot, c->n_layers, other ? other->dim : 0);
    const size_t used = strlen(result->message);
    if (close)
        snprintf(result->message + used, sizeof result->message - used,
                 " (its %s looks like it: rename it to %s)", close, result->slot);
}

/* Is slot the one layer's output that a dump of transformers' hidden_states cannot have, and has it what
 * follows from that? */
static bool lacks_last_layer(const struct rp_comparison *c, const char *slot)
{
    int layer;
    return rp_slot_parse(slot, &layer) == RP_PART_OUTPUT && layer == c->n_layers - 1 &&
           rp_tensor_set_lacks_last_layer(c->engine) && rp_tensor_set_find(c->engine, "post_norm");
}

/* Whether slot is on both sides; when not, the verdict says which side lacks it. */
static int has_both_sides(const struct rp_comparison *c, struct rp_slot_result *result)
{
    const struct rp_slot_info *ref = rp_tensor_set_find(c->reference, result->slot);
    const struct rp_slot_info *engine = rp_tensor_set_find(c->engine, result->slot);
    if (ref && engine)
        return 1;
    if (!engine && lacks_last_layer(c, result->slot)) {
        result->verdict = RP_SKIP;
        SAY(result,
            "not compared: transformers' hidden_states have no %s, their last entry is post_norm",
            result->slot);
        return 0;
    }
    if (!ref && c->reference_is_dump && result->required) {
        result->verdict = RP_ERROR;
        SAY(result, "missing: the dump that is the reference has no %s", result->slot);
    } else if (!ref) {
        result->verdict = RP_SKIP;
        SAY(result, "not compared: the reference has no %s", result->slot);
    } else {
        result->verdict = result->required ? RP_ERROR : RP_SKIP;
        SAY(result, "%s: the engine's dump has no %s",
            result->required ? "missing" : "not compared", result->slot);
    }
    if (result->required && !ref)
        suggest(c, c->reference, engine, result);
    else if (result->required)
        suggest(c, c->engine, ref, result);
    return 0;
}

static int is_worse(const struct rp_metrics *a, const struct rp_metrics *b, int is_logits)
{
    const double x = is_logits ? -a->cosine : a->l2_rel, y = is_logits ? -b->cosine : b->l2_rel;
    if (isnan(x) || isnan(y))
        return isnan(x) && !isnan(y);
    return x > y;
}

static void describe_nonfinite(struct rp_slot_result *result, const struct rp_row_pair *row)
{
    const struct rp_row_scan scan = rp_metrics_scan(row->ref, row->engine, result->dim);
    SAY(result, "%zu NaN and %zu infinite of %zu values at position %lld, the first in channel %zu",
        scan.n_nan, scan.n_inf, result->dim, (long long)row->position, scan.first_nonfinite);
}

static void describe_failure(struct rp_slot_result *result, const struct rp_row_pair *row,
                             int is_logits)
{
    const struct rp_metrics *m = &result->first.metrics;
    if (m->engine_finite && !m->ref_finite) {
        SAY(result, "the dump that is the reference holds NaN or infinity at position %lld",
            (long long)row->position);
        return;
    }
    if (!m->engine_finite) {
        describe_nonfinite(result, row);
        return;
    }
    result->worst_channel = rp_metrics_scan(row->ref, row->engine, result->dim).max_abs_index;
    if (is_logits)
        SAY(result, "cosine %.6f at position %lld, limit %g (L2_rel %.4g)", m->cosine,
            (long long)row->position, result->limit, m->l2_rel);
    else
        SAY(result,
            "L2_rel %.4g at position %lld, limit %g (max |engine - ref| %.4g in channel %zu)",
            m->l2_rel, (long long)row->position, result->limit, m->max_abs, result->worst_channel);
}

/* Judges one position; false when the comparison cannot go on. */
static int judge_row(const struct rp_comparison *c, struct rp_slot_result *result,
                     const struct rp_row_pair *row, int is_logits)
{
    const struct rp_position_metrics here = {row->position,
                                             rp_metrics_row(row->ref, row->engine, result->dim)};
    const struct rp_metrics *m = &here.metrics;
    if (m->ref_finite ? !(m->norm_ref > 0) : !c->reference_is_dump) {
        result->verdict = RP_ERROR;
        result->fixture_is_damaged = !m->ref_finite;
        SAY(result, "the reference %s at position %lld%s",
            m->ref_finite ? "is all zeros, so L2_rel is undefined," : "holds NaN or infinity",
            (long long)row->position, c->reference_is_dump ? "" : ": record the fixture again");
        return 0;
    }
    const int passes =
        m->ref_finite && (is_logits ? m->cosine > result->limit : m->l2_rel < result->limit);
    if (result->n_compared++ == 0 || is_worse(m, &result->worst.metrics, is_logits))
        result->worst = here;
    if (!passes && result->n_failing++ == 0) {
        result->first = here;
        describe_failure(result, row, is_logits);
    }
    if (is_logits && m->engine_finite && m->ref_finite) {
        const struct rp_logits_metrics l = rp_metrics_logits(row->ref, row->engine, result->dim);
        result->n_top1_equal += l.top1_ref == l.top1_engine;
        result->top_k_overlap += (double)l.top_k_overlap / RP_TOP_K;
        result->kl_max = l.kl > result->kl_max ? l.kl : result->kl_max;
        rp_warnings_see_logits(result, row->position, m, &l);
    }
    return 1;
}

/* Behind the last layer's attention, nothing needs the other positions any more. */
static int may_hold_last_alone(const struct rp_comparison *c, const char *slot)
{
    int layer;
    switch (rp_slot_parse(slot, &layer)) {
    case RP_PART_POST_NORM:
    case RP_PART_LOGITS: return 1;
    case RP_PART_OUTPUT: return layer == c->n_layers - 1;
    default: return 0;
    }
}

/* Of all positions, does the engine lack some that it should have? A failure stays one. */
static void require_positions(const struct rp_comparison *c, struct rp_slot_result *result,
                              const struct rp_alignment *a)
{
    if (c->positions || !result->required || a->n_missing == 0 || result->verdict != RP_PASS)
        return;
    const int64_t last = a->ref.positions[a->ref.n_positions - 1];
    if (may_hold_last_alone(c, result->slot) &&
        a->engine.positions[a->engine.n_positions - 1] >= last)
        return;
    result->verdict = RP_ERROR;
    SAY(result,
        "the engine's dump lacks %zu of %zu positions, the first %lld: a prompt cut short, or "
        "name the positions that it dumps: in the matrix \"positions\", of refparity diff --pos",
        a->n_missing, a->ref.n_positions, (long long)a->first_missing);
}

static void summarize(const struct rp_comparison *c, struct rp_slot_result *result,
                      const struct rp_alignment *alignment, int is_logits)
{
    result->n_missing = alignment->n_missing;
    result->n_extra = alignment->n_extra;
    if (result->n_compared == 0) {
        result->verdict = RP_ERROR;
        if (c->positions)
            SAY(result, "none of the %zu positions that were asked for is on both sides",
                c->n_positions);
        else
            SAY(result, "no position in common: the engine's slot has %zu, the reference %zu",
                alignment->engine.n_positions, alignment->ref.n_positions);
        return;
    }
    result->top_k_overlap /= (double)result->n_compared;
    if (c->positions && result->n_compared < c->n_positions) {
        result->verdict = RP_ERROR;
        if (alignment->n_missing)
            SAY(result, "the engine's dump lacks position %lld, which was asked for",
                (long long)alignment->first_missing);
        else
            SAY(result, "compared %zu of the %zu positions that were asked for", result->n_compared,
                c->n_positions);
        return;
    }
    result->verdict = result->n_failing ? RP_FAIL : RP_PASS;
    if (result->n_failing)
        return;
    const struct rp_position_metrics *w = &result->worst;
    if (is_logits)
        SAY(result, "cosine %.6f at worst, at position %lld, limit %g", w->metrics.cosine,
            (long long)w->position, result->limit);
    else
        SAY(result, "L2_rel %.4g at worst, at position %lld, limit %g", w->metrics.l2_rel,
            (long long)w->position, result->limit);
}

static bool have_common_position(const struct rp_slot_info *a, const struct rp_slot_info *b)
{
    size_t i = 0, j = 0;
    while (i < a->n_positions && j < b->n_positions) {
        if (a->positions[i] == b->positions[j])
            return true;
        if (a->positions[i] < b->positions[j])
            i++;
        else
            j++;
    }
    return false;
}

/* A layer's output, or post_norm, on both sides? */
static bool has_hidden_state(const struct rp_comparison *c)
{
    for (size_t i = 0; i < rp_tensor_set_n_slots(c->reference); i++) {
        const struct rp_slot_info *ref = rp_tensor_set_slot(c->reference, i);
        const struct rp_slot_info *engine = rp_tensor_set_find(c->engine, ref->name);
        int layer;
        const enum rp_slot_part part = rp_slot_parse(ref->name, &layer);
        if ((part == RP_PART_OUTPUT || part == RP_PART_POST_NORM) && engine &&
            have_common_position(ref, engine))
            return true;
    }
    return false;
}

/* Logits that agree, or embeddings, say nothing of the layers: where nothing of these can be compared,
 * they are no pass. */
static void require_hidden_state(const struct rp_comparison *c, struct rp_slot_result *result)
{
    int layer;
    const enum rp_slot_part part = rp_slot_parse(result->slot, &layer);
    char found[sizeof result->message];
    const char *close = NULL, *close_to = NULL;
    char name[RP_SLOT_NAME_SIZE];
    if ((part != RP_PART_EMB && part != RP_PART_LOGITS) ||
        (result->verdict != RP_PASS && result->verdict != RP_MARGINAL) || has_hidden_state(c))
        return;
    for (size_t i = 0; !close && rp_required_slot(c->n_layers, i, name); i++) {
        close = rp_close_name(c->reference, name, c->n_layers, 0);
        close_to = "reference";
        if (!close) {
            close = rp_close_name(c->engine, name, c->n_layers, 0);
            close_to = "dump";
        }
        if (close)
            break;
    }
    snprintf(found, sizeof found, "%.300s", result->message);
    result->verdict = RP_ERROR;
    SAY(result,
        "no hidden state was compared: reference and dump have no h0, h1 ... or post_norm in "
        "common "
        "(%s: %.200s)",
        result->slot, found);
    const size_t used = strlen(result->message);
    if (close)
        snprintf(result->message + used, sizeof result->message - used,
                 "; %s of the %s looks like %s", close, close_to, name);
}

/* All but what other slots of the pair say of it. */
static void compare_alone(const struct rp_comparison *comparison, const char *slot,
                          struct rp_slot_result *result)
{
    memset(result, 0, sizeof *result);
    snprintf(result->slot, sizeof result->slot, "%s", slot);
    result->required = rp_slot_is_required(slot);
    result->worst.position = result->first.position = -1;
    int layer;
    const enum rp_slot_part part = rp_slot_parse(slot, &layer);
    const int is_logits = part == RP_PART_LOGITS;
    result->limit =
        is_logits ? comparison->limits.cosine : rp_limits_l2_rel(&comparison->limits, slot);
    if (!has_both_sides(comparison, result))
        return;

    struct rp_alignment alignment;
    struct rp_error err;
    if (rp_alignment_open(comparison, slot, &alignment, &err)) {
        set_error(result, &err);
        result->fixture_is_damaged =
            !comparison->reference_is_dump && !alignment.widths_differ && !alignment.ref.data;
        if (alignment.widths_differ)
            rp_damage_explain_width(comparison, result);
    } else if (part == RP_PART_EXPERTS) {
        result->dim = alignment.dim;
        rp_compare_choice(comparison, &alignment, result);
    } else {
        struct rp_choices choices;
        struct rp_row_pair row;
        size_t n_other = 0;
        int usable = 1;
        result->dim = alignment.dim;
        rp_choices_open(comparison, slot, &choices);
        while (usable && rp_alignment_next(comparison, &alignment, &row)) {
            const bool is_other = !rp_choices_agree(&choices, row.position);
            n_other += is_other;
            usable = is_other || judge_row(comparison, result, &row, is_logits);
        }
        rp_choices_close(&choices);
        if (usable && n_other > 0 && result->n_compared == 0) {
            result->verdict = RP_SKIP;
            SAY(result, "not compared: other experts at every position");
        } else if (usable)
            summarize(comparison, result, &alignment, is_logits);
        require_positions(comparison, result, &alignment);
        require_hidden_state(comparison, result);
    }
    rp_alignment_close(&alignment);
}

void rp_compare_slot_of_pair(const struct rp_comparison *comparison, const char *slot,
                             struct rp_damage_memory *memory, struct rp_slot_result *result)
{
    compare_alone(comparison, slot, result);
    if (result->n_compared > 0)
        rp_damage_examine(comparison, memory, result);
    if (result->required)
        rp_examine_equal_slots(comparison, result, compare_alone);
    if (result->verdict == RP_FAIL && comparison->gate)
        comparison->gate(comparison->gate_context, result);
}

void rp_compare_slot(const struct rp_comparison *comparison, const char *slot,
                     struct rp_slot_result *result)
{
    rp_compare_slot_of_pair(comparison, slot, NULL, result);
}
