/* See known.h. */
#include "run/known.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare/verdict.h"

/* ---- what fits ---- */

static bool is_listed(const char *const *list, size_t n, const char *text)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i], text) == 0)
            return true;
    return false;
}

/* The mode as "modes" of a known divergence spells it: of a comparison, as its tests are called. */
static const char *mode_of(const struct rp_pair *pair, char out[RP_PAIR_NAME_SIZE])
{
    const char *mode = pair->mode ? pair->mode : "";
    if (!pair->against)
        return mode;
    snprintf(out, RP_PAIR_NAME_SIZE, "%s-vs-%s", mode, pair->against);
    for (char *c = out; *c; c++)
        if (*c == ':')
            *c = '-';
    return out;
}

bool rp_known_is_of(const struct rp_known *known, const struct rp_pair *pair)
{
    char mode[RP_PAIR_NAME_SIZE];
    if (known->n_prompts > 0 && !is_listed(known->prompts, known->n_prompts, pair->prompt->id))
        return false;
    return known->n_modes > 0 ? is_listed(known->modes, known->n_modes, mode_of(pair, mode))
                              : !pair->against;
}

static bool fits_slot(const struct rp_known *known, const struct rp_pair *pair, const char *slot)
{
    return rp_known_is_of(known, pair) && fnmatch(known->slot, slot, 0) == 0;
}

/* NaN and infinity are never known: a rule says that values are off, not that there are none. */
static const char not_finite[] = "; NaN and infinity fail, whatever is known";

static bool is_finite_operation(const struct rp_replay_slot *slot)
{
    return slot->n_positions == 0 || !isnan(slot->introduced[slot->worst]);
}

/* Where two explanations fit as well as each other, either may be the known one. */
static bool fits_operation(const struct rp_known *known, const struct rp_pair *pair,
                           const struct rp_replay_slot *slot,
                           const struct rp_explanation *explanation)
{
    return fits_slot(known, pair, slot->slot) && is_finite_operation(slot) &&
           (!known->name || strcmp(known->name, explanation->name) == 0 ||
            strcmp(known->name, explanation->or_else) == 0);
}

/* A known divergence without a name that fits a required slot; NULL: none. */
static const struct rp_known *known_slot(const struct rp_pair *pair, const char *slot)
{
    for (size_t i = 0; i < pair->entry->n_known; i++)
        if (!pair->entry->known[i].name && fits_slot(&pair->entry->known[i], pair, slot))
            return &pair->entry->known[i];
    return NULL;
}

static const struct rp_known *known_operation(const struct rp_pair *pair,
                                              const struct rp_replay_result *result, size_t index)
{
    for (size_t i = 0; i < pair->entry->n_known; i++)
        if (fits_operation(&pair->entry->known[i], pair, &result->layer.slots[index],
                           &result->explanations[index]))
            return &pair->entry->known[i];
    return NULL;
}

/* "REASON (ISSUE)" */
static const char *reason_of(const struct rp_known *known, char *text, size_t size)
{
    snprintf(text, size, "%.200s%s%.100s%s", known->reason, known->issue ? " (" : "",
             known->issue ? known->issue : "", known->issue ? ")" : "");
    return text;
}

/* Behind a message, which is cut so far that it all has room. */
static void add_text(char *message, size_t size, const char *text)
{
    const size_t length = strlen(text), used = strlen(message);
    const size_t kept = length + 1 >= size ? 0 : used + length < size ? used : size - length - 1;
    snprintf(message + kept, size - kept, "%s", text);
}

/* ---- replay ---- */

/* Why the known divergences of the slot are not this one; "": there are none. */
static void say_why_unknown(const struct rp_pair *pair, const struct rp_replay_result *result,
                            size_t index, char *text, size_t size)
{
    const char *slot = result->layer.slots[index].slot, *name = result->explanations[index].name;
    const struct rp_known *known = NULL;
    text[0] = '\0';
    for (size_t i = 0; i < pair->entry->n_known && !known; i++)
        if (fits_slot(&pair->entry->known[i], pair, slot))
            known = &pair->entry->known[i];
    if (known && !is_finite_operation(&result->layer.slots[index]))
        snprintf(text, size, "%s", not_finite);
    else if (known)
        snprintf(text, size, "; what is known of %s is %.64s, this is %s", slot, known->name,
                 name[0] ? name : "unexplained");
}

/* The first that is not known is what the layer's message is about. */
static void say_unknown(const struct rp_pair *pair, struct rp_replay_result *result, size_t index)
{
    struct rp_replay_layer *layer = &result->layer;
    const struct rp_replay_slot *slot = &layer->slots[index];
    char text[512];
    if (layer->first_failing != slot) {
        layer->first_failing = slot;
        result->inherited = (double)NAN;
        snprintf(result->judgement.message, sizeof result->judgement.message, "%s, %s: %s",
                 slot->slot, slot->operation, slot->message);
    }
    say_why_unknown(pair, result, index, text, sizeof text);
    add_text(result->judgement.message, sizeof result->judgement.message, text);
}

void rp_known_replay(const struct rp_pair *pair, struct rp_replay_result *result)
{
    struct rp_replay_layer *layer = &result->layer;
    const struct rp_known *first = NULL;
    size_t n_left = 0, unknown = 0;
    char reason[512], text[600];
    if (result->judgement.verdict != RP_FAIL)
        return;
    for (size_t i = 0; i < layer->n_slots; i++) {
        if (layer->slots[i].verdict != RP_FAIL)
            continue;
        const struct rp_known *known = known_operation(pair, result, i);
        if (known) {
            layer->slots[i].verdict = RP_XFAIL;
            first = first ? first : known;
        } else if (n_left++ == 0) {
            unknown = i;
        }
    }
    if (n_left > 0) {
        say_unknown(pair, result, unknown);
    } else if (first) {
        layer->verdict = result->judgement.verdict = RP_XFAIL;
        snprintf(text, sizeof text, ": known: %s", reason_of(first, reason, sizeof reason));
        add_text(result->judgement.message, sizeof result->judgement.message, text);
    }
}

/* ---- required slots ---- */

/* What replay finds up to a slot; NULL: nothing. */
struct upstream {
    const char *known_at, *unknown_at;
    const struct rp_known *known;
};

static struct upstream look_upstream(const struct rp_pair *pair,
                                     const struct rp_replay_result *results, size_t n,
                                     const char *slot)
{
    struct upstream found = {.known = NULL};
    for (size_t r = 0; r < n && rp_slot_order(results[r].slot, slot) <= 0; r++) {
        const struct rp_replay_layer *layer = &results[r].layer;
        if (results[r].judgement.verdict != RP_FAIL && results[r].judgement.verdict != RP_XFAIL)
            continue;
        for (size_t i = 0; i < layer->n_slots; i++) {
            if (layer->slots[i].verdict == RP_FAIL && !found.unknown_at)
                found.unknown_at = layer->slots[i].slot;
            if (layer->slots[i].verdict == RP_XFAIL && !found.known) {
                found.known = known_operation(pair, &results[r], i);
                found.known_at = layer->slots[i].slot;
            }
        }
    }
    return found;
}

static void accept(struct rp_slot_result *result, const struct rp_known *known, const char *of)
{
    char reason[340], text[420];
    result->verdict = RP_XFAIL;
    reason_of(known, reason, sizeof reason);
    if (of)
        snprintf(text, sizeof text, ": downstream of %s, which is known: %s", of, reason);
    else
        snprintf(text, sizeof text, ": known: %s", reason);
    add_text(result->message, sizeof result->message, text);
}

/* results: replayed and passed through rp_known_replay; n may be 0. */
static void judge_slot(const struct rp_judge *judge, const struct rp_replay_result *results,
                       size_t n, struct rp_slot_result *result)
{
    const struct rp_pair *pair = judge->pair;
    char text[128];
    if (result->verdict != RP_FAIL || !result->required)
        return;
    const bool is_finite = result->worst.metrics.engine_finite;
    const struct rp_known *direct = known_slot(pair, result->slot);
    if (direct && is_finite) {
        accept(result, direct, NULL);
        return;
    }
    if (pair->entry->gate == RP_GATE_EXPLAINED && !pair->against &&
        judge->record.weights == RP_FAIL) /* it stands on another file, whatever is known */
        return;
    const struct upstream upstream = look_upstream(pair, results, n, result->slot);
    if (upstream.unknown_at) {
        snprintf(text, sizeof text, "; %s fails, which is not known", upstream.unknown_at);
        if (upstream.known)
            add_text(result->message, sizeof result->message, text);
        return;
    }
    if (upstream.known) {
        accept(result, upstream.known, upstream.known_at);
        return;
    }
    /* A number that is none is not carried: it begins somewhere. */
    const struct rp_known *before = known_slot(pair, result->downstream_of);
    if (result->downstream_of[0] && before && is_finite)
        accept(result, before, result->downstream_of);
    else if (direct)
        add_text(result->message, sizeof result->message, not_finite);
}

enum rp_status rp_known_slot(const struct rp_judge *judge, struct rp_slot_result *result,
                             struct rp_error *err)
{
    struct rp_replay_result *results = NULL;
    size_t n = 0;
    if (result->verdict != RP_FAIL || judge->pair->entry->n_known == 0)
        return RP_OK;
    enum rp_status status = RP_OK;
    if (rp_pair_is_replayed(judge->pair))
        status = rp_judge_replay_until(judge, result->slot, &results, &n, err);
    for (size_t i = 0; !status && i < n; i++)
        rp_known_replay(judge->pair, &results[i]);
    if (!status)
        judge_slot(judge, results, n, result);
    rp_replay_results_free(results, n);
    return status;
}

/* ---- the pair ---- */

static const struct rp_slot_result *find_slot(const struct rp_pair_result *pair, const char *slot)
{
    for (size_t i = 0; i < pair->n_slots; i++)
        if (strcmp(pair->slots[i].slot, slot) == 0)
            return &pair->slots[i];
    return NULL;
}

/* The first divergence is the first that is not known, where there is one. */
static void diagnose_again(const struct rp_judge *judge, struct rp_verdicts *verdicts)
{
    struct rp_pair_result *pair = &verdicts->pair;
    const struct rp_slot_result *first = find_slot(pair, verdicts->divergence.slot);
    if (!first || first->verdict != RP_XFAIL || pair->verdict != RP_FAIL)
        return;
    for (size_t i = 0; i < pair->n_slots; i++)
        if (pair->slots[i].verdict == RP_FAIL)
            pair->slots[i].downstream_of[0] = '\0';
    rp_diagnose_pair(&judge->comparison, pair, &verdicts->divergence);
}

void rp_known_pair(const struct rp_judge *judge, struct rp_verdicts *verdicts)
{
    if (judge->pair->entry->n_known == 0)
        return;
    for (size_t i = 0; i < verdicts->n_replay; i++)
        rp_known_replay(judge->pair, &verdicts->replay[i]);
    if (judge->prerequisites.verdict != RP_PASS)
        return;
    for (size_t i = 0; i < verdicts->pair.n_slots; i++)
        judge_slot(judge, verdicts->replay, verdicts->n_replay, &verdicts->pair.slots[i]);
    verdicts->pair.verdict = rp_pair_verdict(&verdicts->pair);
    diagnose_again(judge, verdicts);
}

/* ---- strict ---- */

const char *rp_known_state_name(enum rp_known_state state)
{
    static const char *const names[] = {[RP_KNOWN_NOT_JUDGED] = "not judged",
                                        [RP_KNOWN_MET] = "met",
                                        [RP_KNOWN_OTHER] = "another name",
                                        [RP_KNOWN_MENDED] = "mended",
                                        [RP_KNOWN_ABSENT] = "no such slot"};
    return names[state];
}

bool rp_known_is_failure(const struct rp_known_result *result)
{
    return result->state == RP_KNOWN_MENDED || result->state == RP_KNOWN_ABSENT;
}

static void note(struct rp_known_result *result, const char *slot, bool is_met)
{
    result->n_judged++;
    if (is_met && result->n_met++ == 0)
        snprintf(result->first, sizeof result->first, "%s", slot);
}

static bool has_verdict(enum rp_verdict verdict)
{
    return verdict == RP_PASS || verdict == RP_MARGINAL || verdict == RP_XFAIL ||
           verdict == RP_FAIL;
}

/* is_there: the pair has a slot that it fits; is_other: one fails by another name, or is not finite. */
static void look_at_replay(const struct rp_pair *pair, const struct rp_replay_result *replayed,
                           struct rp_known_result *result, bool *is_there, bool *is_other)
{
    for (size_t i = 0; i < replayed->layer.n_slots; i++) {
        const struct rp_replay_slot *slot = &replayed->layer.slots[i];
        if (!fits_slot(result->known, pair, slot->slot))
            continue;
        *is_there = true;
        if (!has_verdict(slot->verdict))
            continue;
        note(result, slot->slot,
             slot->verdict == RP_XFAIL &&
                 fits_operation(result->known, pair, slot, &replayed->explanations[i]));
        *is_other |= slot->verdict == RP_FAIL;
    }
}

static void judge_known(const struct rp_judge *judge, const struct rp_verdicts *verdicts,
                        struct rp_known_result *result)
{
    const struct rp_pair *pair = judge->pair;
    const struct rp_known *known = result->known;
    bool is_there = false, is_other = false, all_replayed = verdicts->n_replay > 0;
    char reason[512];
    if (!rp_known_is_of(known, pair))
        return;
    for (size_t i = 0; i < verdicts->n_replay; i++) {
        look_at_replay(pair, &verdicts->replay[i], result, &is_there, &is_other);
        all_replayed &= has_verdict(verdicts->replay[i].judgement.verdict);
    }
    for (size_t i = 0; i < verdicts->pair.n_slots; i++) {
        const struct rp_slot_result *slot = &verdicts->pair.slots[i];
        const bool fits = fits_slot(known, pair, slot->slot);
        is_there |= fits;
        if (!fits || !slot->required || known->name || !has_verdict(slot->verdict))
            continue;
        note(result, slot->slot, slot->verdict == RP_XFAIL);
        is_other |= slot->verdict == RP_FAIL;
    }
    if (result->n_met > 0)
        result->state = RP_KNOWN_MET;
    else if (verdicts->verdict == RP_SKIP || verdicts->verdict == RP_ERROR)
        return;
    else if (is_other)
        result->state = RP_KNOWN_OTHER;
    else if (result->n_judged > 0)
        result->state = RP_KNOWN_MENDED;
    else if (all_replayed && !is_there)
        result->state = RP_KNOWN_ABSENT;
    const char *path = rp_matrix_path(judge->context->matrix);
    reason_of(known, reason, sizeof reason);
    if (result->state == RP_KNOWN_MENDED)
        snprintf(
            result->message, sizeof result->message,
            "%s:%d: error: mended: remove it: none of the %zu slots \"%s\" of %s diverges%s%s: %s",
            path, known->line, result->n_judged, known->slot, pair->name, known->name ? " by " : "",
            known->name ? known->name : "", reason);
    else if (result->state == RP_KNOWN_ABSENT)
        snprintf(
            result->message, sizeof result->message,
            "%s:%d: error: %s has no slot \"%s\": mend the pattern, or remove what is known: %s",
            path, known->line, pair->name, known->slot, reason);
}

enum rp_status rp_known_judge(const struct rp_judge *judge, struct rp_verdicts *verdicts,
                              struct rp_error *err)
{
    const struct rp_entry *entry = judge->pair->entry;
    if (entry->n_known == 0)
        return RP_OK;
    verdicts->known = calloc(entry->n_known, sizeof *verdicts->known);
    if (!verdicts->known)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory for what is known");
    verdicts->n_known = entry->n_known;
    for (size_t i = 0; i < entry->n_known; i++) {
        verdicts->known[i].known = &entry->known[i];
        judge_known(judge, verdicts, &verdicts->known[i]);
    }
    return RP_OK;
}
