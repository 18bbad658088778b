/* See refparity/explain.h: goes through the candidates, simplest first, and says what was found.
 * What is tried is in the families' files, how a trial is judged in search.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "explain/pairs.h"
#include "explain/places.h"
#include "explain/search.h"
#include "operations/attention_changes.h"

/* An error so many times what is left: no other explanation is looked for. */
#define STRONG_SHARE 0.9999
#define STRONG_DIGITS 2 /* a parameter of so few is no coincidence */
#define FEW_ROWS 4      /* on which hypotheses may well agree: all of a phase are tried */
#define MAX_MATCHES 16
#define SAME_CHI2 1.25 /* two that differ by less cannot be told apart */
#define HELPS 0.5      /* of the first failing row's error: worth a trial at other positions */
#define CLOSEST_SHARE \
    0.99 /* a tenth of the error is left: with more, a neighbour of the cause explains as much */

struct course {
    struct rp_search *search;
    struct rp_error *err;
    struct rp_trial matches[MAX_MATCHES]; /* in the order in which they were found */
    size_t n_matches, n_tried;
    struct rp_trial closest;
    bool is_strong; /* one of the matches is beyond doubt */
};

static void note(struct course *course, const struct rp_trial *trial)
{
    if (trial->matches && course->n_matches < MAX_MATCHES) {
        course->matches[course->n_matches++] = *trial;
        course->is_strong |=
            trial->share >= STRONG_SHARE && trial->candidate.n_digits <= STRONG_DIGITS;
    } else if (trial->share > course->closest.share) {
        course->closest = *trial;
    }
}

static enum rp_status try_candidate(struct course *course, const struct rp_candidate *candidate,
                                    const struct rp_place *place, struct rp_trial *trial)
{
    course->n_tried++;
    const enum rp_status status =
        candidate->fit ? rp_search_fit(course->search, candidate, place, trial, course->err)
                       : rp_search_try(course->search, candidate, place, trial, course->err);
    if (status == RP_OK)
        note(course, trial);
    return status;
}

/* A closed form where it fits, else at the failing rows alone. */
static enum rp_status try_rows(struct course *course, const struct rp_candidate *candidate)
{
    const struct rp_search *search = course->search;
    const struct rp_place everywhere = {.kind = RP_PLACE_ALL};
    const struct rp_place failing = {
        .kind = RP_PLACE_LISTED, .listed = search->failing, .n_listed = search->n_failing};
    const size_t before = course->n_matches;
    struct rp_trial trial;
    const enum rp_status status = try_candidate(course, candidate, &everywhere, &trial);
    if (status != RP_OK || course->n_matches > before || search->n_failing == search->n)
        return status;
    return try_candidate(course, candidate, &failing, &trial);
}

static enum rp_status run_phase(struct course *course, enum rp_phase phase)
{
    const struct rp_search *search = course->search;
    const struct rp_place everywhere = {.kind = RP_PLACE_ALL};
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < search->n_candidates && status == RP_OK; i++) {
        const struct rp_candidate candidate = search->candidates[i];
        struct rp_trial trial;
        if (candidate.phase != phase)
            continue;
        /* one rounding in the place of another explains most of a third's error, too */
        const bool is_exclusive =
            !candidate.transform && phase != RP_PHASE_NUMERICS && phase != RP_PHASE_NUMERICS_PAIR;
        if (course->is_strong && is_exclusive && search->n > FEW_ROWS)
            break;
        status = candidate.transform ? try_rows(course, &candidate)
                                     : try_candidate(course, &candidate, &everywhere, &trial);
    }
    return status;
}

/* Whether a candidate may be at work in a part of the positions or heads. */
static bool may_be_partial(const struct rp_candidate *candidate)
{
    return candidate->install && !candidate->is_everywhere;
}

static enum rp_status try_heads(struct course *course)
{
    const struct rp_search *search = course->search;
    struct rp_place places[RP_MAX_PLACES];
    size_t n_places;
    enum rp_status status = rp_places_by_head(search, places, &n_places, course->err);
    if (search->first > 1 || search->n_failing + 1 < search->n)
        n_places = rp_places_at_failing(search, places, n_places);
    for (size_t at = 0; at < n_places; at++) {
        for (size_t i = 0; i < search->n_candidates && status == RP_OK && !course->is_strong; i++) {
            const struct rp_candidate candidate = search->candidates[i];
            struct rp_trial trial;
            if (may_be_partial(&candidate))
                status = try_candidate(course, &candidate, &places[at], &trial);
        }
    }
    return status;
}

/* At the first failing position only; and where that helps, at others with what was fitted there. */
static enum rp_status try_positions(struct course *course)
{
    const struct rp_search *search = course->search;
    struct rp_place places[RP_MAX_PLACES];
    const size_t n_places = rp_places_by_position(search, places);
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < search->n_candidates; i++) {
        struct rp_candidate candidate = search->candidates[i];
        struct rp_fit fit = candidate.fit ? *candidate.fit : (struct rp_fit){.n_starts = 0};
        bool helps = may_be_partial(&candidate);
        for (size_t at = 0; at < n_places && helps && status == RP_OK && !course->is_strong; at++) {
            struct rp_trial trial;
            status = try_candidate(course, &candidate, &places[at], &trial);
            helps = trial.share_of_first >= HELPS || search->first == 1;
            candidate.value = trial.candidate.value;
            fit.n_starts = 0;
            candidate.fit = candidate.fit ? &fit : NULL;
        }
    }
    return status;
}

/* Two bugs in the operations between two slots. */
static enum rp_status try_pairs(struct course *course)
{
    const struct rp_place everywhere = {.kind = RP_PLACE_ALL};
    struct rp_pairs pairs;
    struct rp_candidate pair;
    struct rp_trial trial;
    enum rp_status status = RP_OK;
    rp_pairs_begin(&pairs, course->search);
    while (status == RP_OK && !course->is_strong && rp_pairs_next(&pairs, &pair))
        status = try_candidate(course, &pair, &everywhere, &trial);
    return status;
}

static enum rp_status try_keys(struct course *course)
{
    const struct rp_place everywhere = {.kind = RP_PLACE_ALL};
    struct rp_candidate keys;
    struct rp_trial trial;
    const enum rp_status status = rp_measure_attention_keys(course->search, &keys, course->err);
    return status == RP_OK && keys.name ? try_candidate(course, &keys, &everywhere, &trial)
                                        : status;
}

/* A sum's own hypotheses, and a router's, come first: they say more than those about any rows. */
static enum rp_status collect(struct rp_search *search)
{
    const enum rp_slot_part part = search->slot.part;
    const bool is_router = part == RP_PART_EXPERTS || part == RP_PART_EXPERTW;
    if (is_router)
        rp_collect_experts(search);
    if (part == RP_PART_EXPERTS) /* numbers, which no change of rows fits */
        return search->status;
    for (size_t i = 0; i < rp_n_families; i++) {
        if (!is_router || rp_families[i] != rp_collect_experts)
            rp_families[i](search);
        if (rp_families[i] == rp_collect_residual_add)
            rp_collect_any_rows(search);
    }
    rp_collect_numerics(search);
    return search->status;
}

/* Something everywhere, or with a round parameter: no place is looked for. What is at work at some
 * positions only looks like a factor there. */
static bool is_settled(const struct course *course)
{
    for (size_t i = 0; i < course->n_matches; i++) {
        const struct rp_trial *match = &course->matches[i];
        if (match->candidate.n_digits < RP_ANY_DIGITS || match->place.kind == RP_PLACE_ALL)
            return true;
    }
    return false;
}

static enum rp_status run_course(struct course *course)
{
    enum rp_status status = RP_OK;
    for (int phase = 0; phase < RP_PHASE_NUMERICS_PAIR && status == RP_OK && !course->is_strong;
         phase++)
        status = run_phase(course, (enum rp_phase)phase);
    if (status == RP_OK && course->n_matches == 0)
        status = run_phase(course, RP_PHASE_NUMERICS_PAIR);
    if (status == RP_OK && !is_settled(course))
        status = try_heads(course);
    if (status == RP_OK && !is_settled(course))
        status = try_positions(course);
    if (status == RP_OK && course->n_matches == 0)
        status = try_keys(course);
    if (status == RP_OK && course->n_matches == 0)
        status = try_pairs(course);
    if (status == RP_OK && course->n_matches == 0)
        status = run_phase(course, RP_PHASE_BIAS);
    return status;
}

/* candidate's text with its value in it, and where it is at work. */
static void say(const struct rp_trial *trial, char *out, size_t size)
{
    const double whole = round(trial->candidate.value);
    const bool is_whole = fabs(whole) < 1e15 && whole == trial->candidate.value;
    char value[32], place[128];
    size_t n = 0;
    snprintf(value, sizeof value, is_whole ? "%.0f" : "%.6g", trial->candidate.value);
    rp_place_text(&trial->place, place, sizeof place);
    for (const char *from = trial->candidate.text; *from && n + 1 < size; from++) {
        if (strncmp(from, "%v", 2) == 0) {
            snprintf(out + n, size - n, "%s", value);
            n += strlen(out + n);
            from++;
        } else {
            out[n++] = *from;
        }
    }
    out[n] = '\0';
    snprintf(out + n, size - n, "%s", place);
}

/* Of those that fit about as well as the best: the roundest parameter, then the first in order. A
 * change that is another one in disguise (a scale before a norm is an eps) gives itself away so. */
static const struct rp_trial *choose(const struct course *course, const struct rp_trial **or_else)
{
    const struct rp_trial *chosen = NULL;
    double best = HUGE_VAL;
    *or_else = NULL;
    for (size_t i = 0; i < course->n_matches; i++)
        best = fmin(best, course->matches[i].chi2);
    for (size_t i = 0; i < course->n_matches; i++) {
        const struct rp_trial *match = &course->matches[i];
        if (match->chi2 <= SAME_CHI2 * best &&
            (!chosen || match->candidate.n_digits < chosen->candidate.n_digits))
            chosen = match;
    }
    for (size_t i = 0; chosen && i < course->n_matches && !*or_else; i++) {
        const struct rp_trial *match = &course->matches[i];
        if (match->chi2 <= SAME_CHI2 * best &&
            strcmp(match->candidate.name, chosen->candidate.name) != 0)
            *or_else = match;
    }
    return chosen;
}

static void say_unexplained(const struct course *course, struct rp_explanation *explanation)
{
    const struct rp_search *search = course->search;
    char closest[240], tail[300] = "";
    explanation->share = course->closest.share;
    if (course->closest.share >= CLOSEST_SHARE) {
        say(&course->closest, closest, sizeof closest);
        snprintf(tail, sizeof tail, " (closest: %s, which explains %.4g%% of it)", closest,
                 fmin(100 * course->closest.share, 99.99));
    }
    snprintf(explanation->text, sizeof explanation->text,
             "unexplained: %s at %zu of %zu positions%s%s", search->slot.name, search->n_failing,
             search->n, tail, *tail ? "" : rp_attention_remark(search));
}

static void conclude(const struct course *course, struct rp_explanation *explanation)
{
    const struct rp_trial *or_else, *chosen = choose(course, &or_else);
    explanation->n_tried = course->n_tried;
    if (!chosen) {
        say_unexplained(course, explanation);
        return;
    }
    const struct rp_candidate *candidate = &chosen->candidate;
    snprintf(explanation->name, sizeof explanation->name, "%s", candidate->name);
    say(chosen, explanation->text, sizeof explanation->text);
    if (candidate->also > 0)
        rp_pair_say(course->search, candidate, explanation);
    explanation->share = chosen->share;
    explanation->parameter = isnan(candidate->parameter) && candidate->reports_value
                                 ? candidate->value
                                 : candidate->parameter;
    if (or_else)
        snprintf(explanation->or_else, sizeof explanation->or_else, "%s", or_else->candidate.name);
}

static bool is_finite(const struct rp_search *search)
{
    for (size_t i = 0; i < search->n * search->dim; i++) {
        if (!isfinite(search->dumped[i]))
            return false;
    }
    return true;
}

enum rp_status rp_explain_slot(struct rp_replay *replay, const struct rp_replay_slot *slot,
                               struct rp_explanation *explanation, struct rp_error *err)
{
    struct rp_slot_search own;
    struct rp_search *search = &own.search;
    *explanation = (struct rp_explanation){.parameter = RP_NO_PARAMETER};
    snprintf(explanation->text, sizeof explanation->text, "nothing to explain");
    if (slot->verdict != RP_FAIL)
        return RP_OK;
    struct course *course = calloc(1, sizeof *course);
    if (!course)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for an explanation");
    enum rp_status status = rp_search_open(&own, replay, slot, err);
    *course = (struct course){.search = search, .err = err};
    if (status == RP_OK && !is_finite(search)) {
        snprintf(explanation->text, sizeof explanation->text,
                 "unexplained: %s has values that are not finite", slot->slot);
    } else if (status == RP_OK) {
        status = collect(search);
        if (status == RP_OK)
            status = run_course(course);
        if (status == RP_OK)
            conclude(course, explanation);
    }
    rp_search_close(&own);
    free(course);
    return status;
}
