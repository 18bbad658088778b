/* See refparity/explain.h: goes through the candidates, simplest first, and says what was found.
 * What is tried is in the families' files, how a trial is judged in search.c. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "explain/places.h"
#include "explain/search.h"

#define MORE_ROWS 8          /* after the first failing one, that candidates are tried on first */
#define MORE_ROUNDED_ROWS 32 /* the same for a fit where numerics round: single rows say little */
/* An error 100 times what is left: no other explanation is looked for. */
#define STRONG_SHARE 0.9999
#define MIN_ROUNDED_ROWS 4
#define MAX_DIGITS 4
/* Of a row's norm: one value that goes the other way makes about 5e-4 of it in 8-bit blocks (measured on
 * the tiny models), ten such values 1.6e-3, a hundred 5e-3. */
#define TEN_FLIPS 1.6e-3
#define HUNDRED_FLIPS 5e-3
#define ROUND_DIGITS 2 /* a parameter of so few is no coincidence */
#define MAX_MATCHES 16
#define FEW_ROWS 4        /* on which hypotheses may well agree: all of a phase are tried */
#define SAME_CHI2 1.25    /* two that differ by less cannot be told apart */
#define CLOSEST_SHARE 0.3 /* less is not worth a word */

struct course {
    struct rp_search *search;
    struct rp_error *err;
    struct rp_trial matches[MAX_MATCHES]; /* in the order in which they were found */
    size_t n_matches;
    struct rp_trial closest;
    bool is_strong; /* one of the matches is beyond doubt */
};

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Where numerics round, a small change shows as single values that go the other way, and those that lie
 * next to the middle go first whatever the change: it takes rows, or many such values in one, to tell
 * changes apart, and more of them for a parameter of many digits. */
static bool is_founded(const struct rp_search *search, const struct rp_trial *trial)
{
    const struct rp_replay_slot *slot = search->slot;
    bool is_behind = trial->candidate.transform || search->stages == RP_STAGE_FFN_NORM;
    double most = 0;
    if (is_behind || !rp_search_rounds(search) || search->n_failing >= MIN_ROUNDED_ROWS)
        return true;
    for (size_t row = 0; row < search->n; row++)
        most = fmax(most, slot->introduced[row]);
    if (!trial->candidate.fit)
        return most >= TEN_FLIPS;
    return most >= HUNDRED_FLIPS && trial->candidate.n_digits <= (int)search->n_failing;
}

/* Confirms what is promising and notes what it was worth. */
static enum rp_status follow_up(struct course *course, struct rp_trial *trial, bool is_promising)
{
    enum rp_status status = RP_OK;
    if (is_promising)
        status = rp_search_confirm(course->search, trial, course->err);
    if (status != RP_OK)
        return status;
    if (trial->matches && is_founded(course->search, trial) && course->n_matches < MAX_MATCHES) {
        course->matches[course->n_matches++] = *trial;
        course->is_strong = course->is_strong || (trial->share >= STRONG_SHARE &&
                                                  trial->candidate.n_digits <= ROUND_DIGITS);
    } else if (trial->share > course->closest.share) {
        course->closest = *trial;
    }
    return RP_OK;
}

/* A fit under rounding may have followed flips of near-ties, which only confirmation knows about: then
 * a round value near it is right. */
static enum rp_status follow_up_fit(struct course *course, struct rp_trial *trial,
                                    bool is_promising)
{
    enum rp_status status = RP_OK;
    size_t before = course->n_matches;
    struct rp_trial fitted = *trial;
    status = follow_up(course, trial, is_promising);
    for (int digits = 1; digits <= MAX_DIGITS && is_promising && status == RP_OK &&
                         course->n_matches == before && rp_search_rounds(course->search);
         digits++) {
        for (int of_own = 0; of_own < 2 && status == RP_OK; of_own++) {
            struct rp_trial rounded = fitted;
            rounded.candidate.value = rp_search_round(&fitted.candidate, digits, of_own != 0);
            rounded.candidate.n_digits = digits;
            if (rounded.candidate.value != 0 && course->n_matches == before)
                status = follow_up(course, &rounded, true);
        }
    }
    return status;
}

/* Fits on the rows up to last, then on all. */
static enum rp_status try_fit(struct course *course, const struct rp_candidate *candidate,
                              const struct rp_place *place, size_t last)
{
    struct rp_search *search = course->search;
    struct rp_fit without_starts = *candidate->fit;
    struct rp_candidate again = *candidate;
    struct rp_trial trial;
    if (rp_search_rounds(search) && last > search->first)
        last = smaller(search->first + MORE_ROUNDED_ROWS, search->n - 1);
    enum rp_status status = rp_search_fit(search, candidate, place, last, &trial, course->err);
    bool is_promising = rp_search_is_promising(search, &trial);
    if (status != RP_OK || !is_promising || last + 1 >= search->n)
        return status == RP_OK ? follow_up_fit(course, &trial, is_promising) : status;
    without_starts.n_starts = 0;
    again.fit = &without_starts;
    again.own = candidate->value;
    again.value = trial.candidate.value;
    status = rp_search_fit(search, &again, place, search->n - 1, &trial, course->err);
    trial.candidate.fit = candidate->fit;
    return status == RP_OK ? follow_up_fit(course, &trial, rp_search_is_promising(search, &trial))
                           : status;
}

static enum rp_status try_candidate(struct course *course, const struct rp_candidate *candidate,
                                    const struct rp_place *place, size_t last)
{
    struct rp_search *search = course->search;
    struct rp_trial trial;
    enum rp_status status;
    search->n_tried++;
    if (candidate->fit)
        return try_fit(course, candidate, place, last);
    status = rp_search_try(search, candidate, place, last, &trial, course->err);
    return status == RP_OK ? follow_up(course, &trial, rp_search_is_promising(search, &trial))
                           : status;
}

/* A closed form where it fits, else at the failing rows alone. */
static enum rp_status try_rows(struct course *course, const struct rp_candidate *candidate)
{
    struct rp_search *search = course->search;
    const struct rp_place everywhere = {.kind = RP_PLACE_ALL};
    const struct rp_place failing = {
        .kind = RP_PLACE_LISTED, .listed = search->failing, .n_listed = search->n_failing};
    size_t before = course->n_matches;
    enum rp_status status = try_candidate(course, candidate, &everywhere, search->n - 1);
    if (status != RP_OK || course->n_matches > before || search->n_failing == search->n)
        return status;
    return try_candidate(course, candidate, &failing, search->n - 1);
}

static enum rp_status run_phase(struct course *course, enum rp_phase phase)
{
    struct rp_search *search = course->search;
    const struct rp_place everywhere = {.kind = RP_PLACE_ALL};
    size_t last = smaller(search->first + MORE_ROWS, search->n - 1);
    bool is_rows = phase == RP_PHASE_ROWS || phase == RP_PHASE_BIAS;
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < search->n_candidates && status == RP_OK; i++) {
        const struct rp_candidate candidate = search->candidates[i];
        if (candidate.phase != phase)
            continue;
        if (course->is_strong && !is_rows && search->n > FEW_ROWS)
            break;
        status = is_rows ? try_rows(course, &candidate)
                         : try_candidate(course, &candidate, &everywhere, last);
    }
    return status;
}

/* Whether a candidate may be at work in a part of the positions or heads: one engine reads one file,
 * and rounds alike everywhere. */
static bool may_be_partial(const struct rp_candidate *candidate)
{
    return candidate->install && candidate->from_layer < 0 && candidate->phase != RP_PHASE_NUMERICS;
}

static enum rp_status scale_heads(void *context, const struct rp_site *site,
                                  const struct rp_attention *args)
{
    const struct rp_change *change = context;
    const struct rp_ops *below = change->overlay.below;
    enum rp_status status = below->attention(below->context, site, args);
    for (size_t i = 0; i < site->n_positions * args->n_heads * args->head_dim; i++)
        args->y[i] *= (float)change->value;
    return status;
}

static enum rp_status scale_delta_heads(void *context, const struct rp_site *site,
                                        const struct rp_gated_norm *args)
{
    const struct rp_change *change = context;
    const struct rp_ops *below = change->overlay.below;
    enum rp_status status = below->gated_norm(below->context, site, args);
    for (size_t i = 0; i < args->n_rows * args->dim; i++)
        args->y[i] *= (float)change->value;
    return status;
}

static void install_scale_heads(struct rp_ops *ops)
{
    ops->attention = scale_heads;
    ops->gated_norm = scale_delta_heads;
}

/* A head that is zero, or times a constant. */
static enum rp_status try_scaled_heads(struct course *course, const struct rp_place *place,
                                       size_t last)
{
    static const double starts[] = {0.5, 2, -1};
    static const struct rp_fit fit = {
        .is_log = false, .low = -1e4, .high = 1e4, .starts = starts, .n_starts = 3};
    struct rp_candidate candidate = {.name = "attention-head",
                                     .phase = RP_PHASE_FIXED,
                                     .install = install_scale_heads,
                                     .from_layer = -1,
                                     .parameter = (double)place->first_q,
                                     .text = "attention's output is zero"};
    enum rp_status status = try_candidate(course, &candidate, place, last);
    if (status != RP_OK || course->is_strong)
        return status;
    candidate.name = "constant-factor";
    candidate.value = 1;
    candidate.fit = &fit;
    candidate.reports_value = true;
    candidate.parameter = RP_NO_PARAMETER;
    snprintf(candidate.text, sizeof candidate.text, "attention's output times %%v");
    return try_candidate(course, &candidate, place, last);
}

static enum rp_status try_heads(struct course *course)
{
    struct rp_search *search = course->search;
    struct rp_place places[RP_MAX_PLACES];
    size_t n_places, last = smaller(search->first + MORE_ROWS, search->n - 1);
    enum rp_status status = rp_places_by_head(search, places, &n_places, course->err);
    if (search->first > 1 || search->n_failing + 1 < search->n)
        n_places = rp_places_at_failing(search, places, n_places);
    for (size_t at = 0; at < n_places && status == RP_OK && !course->is_strong; at++) {
        status = try_scaled_heads(course, &places[at], last);
        for (size_t i = 0; i < search->n_candidates && status == RP_OK && !course->is_strong; i++) {
            const struct rp_candidate candidate = search->candidates[i];
            if (may_be_partial(&candidate) && candidate.stages == RP_STAGE_ATTENTION)
                status = try_candidate(course, &candidate, &places[at], last);
        }
    }
    return status;
}

/* Whether a candidate that is at work from some position on brings the first failing row down; rows
 * after it are not run. */
static enum rp_status explains_first(struct course *course, const struct rp_candidate *candidate,
                                     const struct rp_place *place, bool *does,
                                     struct rp_candidate *fitted)
{
    struct rp_search *search = course->search;
    struct rp_trial trial;
    enum rp_status status;
    *fitted = *candidate;
    fitted->own = candidate->value;
    search->n_tried++;
    if (candidate->fit)
        status = rp_search_fit(search, candidate, place, search->first, &trial, course->err);
    else
        status = rp_search_try(search, candidate, place, search->first, &trial, course->err);
    *does = status == RP_OK && (trial.first_is_under || rp_search_is_promising(search, &trial));
    if (status == RP_OK)
        fitted->value = trial.candidate.value;
    return status;
}

static enum rp_status try_positions(struct course *course)
{
    struct rp_search *search = course->search;
    const struct rp_place everywhere = {.kind = RP_PLACE_ALL};
    struct rp_place places[RP_MAX_PLACES];
    size_t n_places = rp_places_by_position(search, places);
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < search->n_candidates && status == RP_OK && !course->is_strong; i++) {
        const struct rp_candidate candidate = search->candidates[i];
        struct rp_candidate fitted;
        bool does = false;
        if (!may_be_partial(&candidate))
            continue;
        status = explains_first(course, &candidate, &places[0], &does, &fitted);
        if (candidate.fit && does) /* one row may say more than the fit to all has found */
            status = try_candidate(course, &fitted, &everywhere, search->n - 1);
        for (size_t at = 0; at < n_places && status == RP_OK && !course->is_strong; at++) {
            bool is_other = places[at].kind == RP_PLACE_ONLY && at > 0;
            bool does_here = does;
            if (is_other)
                status = explains_first(course, &candidate, &places[at], &does_here, &fitted);
            if (status == RP_OK && does_here)
                status = try_candidate(course, &fitted, &places[at], search->n - 1);
        }
    }
    return status;
}

static enum rp_status collect(struct rp_search *search, struct rp_error *err)
{
    static enum rp_status (*const families[])(struct rp_search *, struct rp_error *) = {
        rp_collect_residual,  rp_collect_rows,   rp_collect_rope,      rp_collect_norms,
        rp_collect_attention, rp_collect_ffn,    rp_collect_delta_net, rp_collect_weights,
        rp_collect_numerics,  rp_collect_outside};
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < sizeof families / sizeof *families && status == RP_OK; i++)
        status = families[i](search, err);
    return status;
}

static enum rp_status run_course(struct course *course)
{
    enum rp_status status = RP_OK;
    for (int phase = 0; phase < RP_PHASE_BIAS && status == RP_OK && !course->is_strong; phase++)
        status = run_phase(course, (enum rp_phase)phase);
    if (status == RP_OK && course->n_matches == 0)
        status = try_heads(course);
    if (status == RP_OK && course->n_matches == 0 && course->search->runs)
        status = try_positions(course);
    if (status == RP_OK && course->n_matches == 0)
        status = run_phase(course, RP_PHASE_BIAS);
    return status;
}

/* candidate's text with its value in it, and where it is at work. */
static void say(const struct rp_trial *trial, char *out, size_t size)
{
    const char *from = trial->candidate.text;
    char value[32], place[128];
    size_t n = 0;
    double rounded = round(trial->candidate.value);
    bool is_whole = fabs(rounded) < 1e15 && rounded == trial->candidate.value;
    snprintf(value, sizeof value, is_whole ? "%.0f" : "%.6g", trial->candidate.value);
    rp_place_text(&trial->place, place, sizeof place);
    while (*from && n + 1 < size) {
        if (strncmp(from, "%v", 2) == 0) {
            n += (size_t)snprintf(out + n, size - n, "%s", value);
            n = smaller(n, size - 1);
            from += 2;
        } else {
            out[n++] = *from++;
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
        if (!(match->chi2 <= SAME_CHI2 * best))
            continue;
        if (!chosen || match->candidate.n_digits < chosen->candidate.n_digits)
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
    const struct rp_replay_slot *slot = course->search->slot;
    char closest[240], tail[300] = "";
    explanation->share = course->closest.share;
    if (course->closest.share >= CLOSEST_SHARE) {
        say(&course->closest, closest, sizeof closest);
        snprintf(tail, sizeof tail, " (closest: %s, which explains %.4g%% of it)", closest,
                 fmin(100 * course->closest.share, 99.99));
    }
    snprintf(explanation->text, sizeof explanation->text,
             "unexplained: %s at %zu of %zu positions%s", slot->slot, course->search->n_failing,
             course->search->n, tail);
}

/* Steps after the first failing one start from the engine's values: what fails there is another bug. */
static void add_later_slots(const struct rp_replay_layer *result, char *text, size_t size)
{
    for (size_t i = 0; i < result->n_slots; i++) {
        const struct rp_replay_slot *slot = &result->slots[i];
        size_t n = strlen(text);
        if (slot > result->first_failing && slot->verdict == RP_FAIL)
            snprintf(text + n, size - n, "; %s fails too, which this is not about", slot->slot);
    }
}

static void conclude(const struct course *course, struct rp_explanation *explanation)
{
    const struct rp_trial *or_else, *chosen = choose(course, &or_else);
    explanation->n_tried = course->search->n_tried;
    if (!chosen) {
        say_unexplained(course, explanation);
        return;
    }
    const struct rp_candidate *candidate = &chosen->candidate;
    snprintf(explanation->name, sizeof explanation->name, "%s", candidate->name);
    say(chosen, explanation->text, sizeof explanation->text);
    explanation->share = chosen->share;
    explanation->parameter = isnan(candidate->parameter) && candidate->reports_value
                                 ? candidate->value
                                 : candidate->parameter;
    if (or_else)
        snprintf(explanation->or_else, sizeof explanation->or_else, "%s", or_else->candidate.name);
}

static bool has_rows_that_are_not_finite(const struct rp_search *search)
{
    for (size_t i = 0; i < search->n * search->dim; i++) {
        if (!isfinite(search->dumped[i]))
            return true;
    }
    return false;
}

enum rp_status rp_explain_layer(struct rp_replay *replay, const struct rp_replay_layer *result,
                                struct rp_explanation *explanation, struct rp_error *err)
{
    struct rp_search search;
    struct course *course;
    enum rp_status status;
    *explanation = (struct rp_explanation){.parameter = RP_NO_PARAMETER};
    if (!result->first_failing) {
        snprintf(explanation->text, sizeof explanation->text, "nothing to explain");
        return RP_OK;
    }
    course = calloc(1, sizeof *course);
    if (!course)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for an explanation");
    status = rp_search_open(&search, replay, result, err);
    course->search = &search;
    course->err = err;
    if (status == RP_OK && has_rows_that_are_not_finite(&search)) {
        snprintf(explanation->text, sizeof explanation->text,
                 "unexplained: %s has values that are not finite", result->first_failing->slot);
        goto done;
    }
    if (status == RP_OK)
        status = collect(&search, err);
    if (status == RP_OK)
        status = run_course(course);
    if (status == RP_OK) {
        conclude(course, explanation);
        add_later_slots(result, explanation->text, sizeof explanation->text);
    }
done:
    rp_search_close(&search);
    free(course);
    return status;
}
