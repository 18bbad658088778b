/* See explain/search.h: the slot's rows, and trials on them. The fit of a parameter is in fit.c. */
#include "explain/search.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replay/layer_plan.h"
#include "replay/session.h"

#define LEAST_LIMIT 1e-9 /* against a division by zero */
/* What a match leaves is at most 1/2.1 of the error, as an L2 norm: more could be the error itself. */
#define MIN_SHARE (7.0 / 9)
/* Where values may tip, tips look like many a change: nearly all is asked for. */
#define MIN_SHARE_OF_TIPS 0.95
/* The changed operations' values tip elsewhere, and not as many: where nearly all of the error is
 * accounted for, a row may be over its limit by a little, or by a little of its error. */
#define NEARLY_ALL 0.99
#define TIPS_LIMITS 3
#define TIPS_OF_ERROR 0.1
#define TIPS_OF_NUMERICS 0.3 /* an error that is made of steps itself, of which some tip */
/* Changed operations may have a larger bound than the model's: where hardly anything is left of the
 * error, a few limits are allowed. */
#define STRONG_SHARE (1 - 1e-6)
#define STRONG_LIMITS 8

static enum rp_status no_memory(const struct rp_search *search, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows of %zu values", search->n,
                   search->dim);
}

/* ---- open and close ---- */

static void note_step(struct rp_search *search, struct rp_step step)
{
    if (search->n_steps < sizeof search->steps / sizeof *search->steps)
        search->steps[search->n_steps++] = step;
}

static enum rp_status find_steps(struct rp_search *search, struct rp_error *err)
{
    const struct rp_replay_slot *slot = search->slot;
    struct rp_replay_plan plan;
    const bool has_norm = slot->part == RP_PART_POST_NORM || slot->is_carried;
    if (slot->layer < 0) {
        if (slot->part != RP_PART_EMB && has_norm)
            note_step(search, (struct rp_step){RP_STEP_RMS_NORM, RP_OUTPUT_NORM, 0, 0, 0});
        if (slot->part == RP_PART_LOGITS)
            note_step(search, (struct rp_step){RP_STEP_LINEAR, RP_OUTPUT, 0, 0, 0});
        return RP_OK;
    }
    enum rp_status status =
        rp_replay_plan_open(&plan, search->replay->model, search->replay->dump, (size_t)slot->layer,
                            search->replay->first_position, err);
    if (status != RP_OK)
        return status;
    const struct rp_planned_slot *planned = rp_replay_plan_slot(&plan, slot->part);
    for (size_t i = 0; planned && i < plan.n_steps; i++) {
        if (planned->steps[i] && plan.steps[i].kind != RP_STEP_TAP)
            note_step(search, plan.steps[i]);
    }
    rp_replay_plan_close(&plan);
    return RP_OK;
}

static enum rp_status allocate(struct rp_search *search, struct rp_error *err)
{
    const size_t n = search->n + 1;
    if (search->dim == 0 || search->n > SIZE_MAX / sizeof(float) / search->dim - 1)
        return no_memory(search, err);
    search->computed = calloc(n * search->dim, sizeof *search->computed);
    search->dumped = calloc(n * search->dim, sizeof *search->dumped);
    search->rows = calloc(n * search->dim, sizeof *search->rows);
    search->error = calloc(n, sizeof *search->error);
    search->limit = calloc(n, sizeof *search->limit);
    search->is_failing = calloc(n, sizeof *search->is_failing);
    search->failing = calloc(n, sizeof *search->failing);
    if (!search->computed || !search->dumped || !search->rows || !search->error || !search->limit ||
        !search->is_failing || !search->failing)
        return no_memory(search, err);
    return RP_OK;
}

static double error_of(const struct rp_search *search, size_t row, const float *rows)
{
    const struct rp_numerics numerics =
        rp_replay_part_numerics(&rp_replay_options(search->replay)->numerics, search->slot->part);
    return rp_replay_row_error(&numerics, rows + row * search->dim,
                               search->dumped + row * search->dim, search->dim);
}

/* Where no position is over its limit, there are more tips than rounding explains: those rows are what
 * is to be explained, and the expected ones may stay. */
static void find_failing(struct rp_search *search)
{
    const struct rp_replay_slot *slot = search->slot;
    const bool is_by_count = slot->n_failing == 0;
    search->n_allowed = is_by_count ? (size_t)(2 * slot->n_expected) + 3 : 0;
    for (size_t row = 0; row < search->n; row++) {
        search->limit[row] = fmax(is_by_count ? slot->bound[row] : slot->limit[row], LEAST_LIMIT);
        search->error[row] = error_of(search, row, search->computed);
        search->is_failing[row] = !(search->error[row] <= search->limit[row]);
        if (search->is_failing[row])
            search->failing[search->n_failing++] = slot->positions[row];
    }
    if (search->n_failing > 0)
        search->first = rp_row_of(slot->positions, search->n, search->failing[0]);
}

enum rp_status rp_search_open(struct rp_search *search, struct rp_replay *replay,
                              const struct rp_replay_slot *slot, struct rp_error *err)
{
    const struct rp_layer *weights = NULL;
    const size_t layer = slot->layer < 0 ? 0 : (size_t)slot->layer;
    *search = (struct rp_search){.replay = replay,
                                 .config = rp_model_config(rp_replay_model(replay)),
                                 .slot = slot,
                                 .other_layer = -1,
                                 .n = slot->n_positions,
                                 .dim = rp_model_slot_width(replay->model, slot->part, layer)};
    search->kind = search->config->layer_kinds[layer];
    enum rp_status status = allocate(search, err);
    if (status == RP_OK)
        status = find_steps(search, err);
    if (status == RP_OK && slot->layer >= 0) {
        status = rp_replay_weights(replay, layer, &weights, err);
        if (status == RP_OK)
            search->weights = *weights;
    }
    if (status == RP_OK)
        status = rp_replay_slot_rows(replay, slot, NULL, search->computed, err);
    if (status == RP_OK)
        status = rp_replay_dumped_rows(replay, slot->slot, slot->positions, search->n, search->dim,
                                       search->dumped, err);
    if (status == RP_OK)
        find_failing(search);
    return status;
}

void rp_search_close(struct rp_search *search)
{
    rp_layer_free(&search->other_weights);
    for (size_t i = 0; i < search->n_owned; i++)
        free(search->owned[i]);
    free(search->owned);
    free(search->candidates);
    free(search->failing);
    free(search->is_failing);
    free(search->limit);
    free(search->error);
    free(search->rows);
    free(search->dumped);
    free(search->computed);
    *search = (struct rp_search){.replay = NULL};
}

/* ---- for families ---- */

bool rp_search_has_step(const struct rp_search *search, enum rp_step_kind kind,
                        enum rp_weight_id which)
{
    for (size_t i = 0; i < search->n_steps; i++) {
        if (search->steps[i].kind == kind &&
            (which == RP_N_WEIGHTS || search->steps[i].which == which))
            return true;
    }
    return false;
}

bool rp_search_is_just(const struct rp_search *search, enum rp_step_kind kind)
{
    return !search->slot->is_carried && rp_search_has_step(search, kind, RP_N_WEIGHTS);
}

bool rp_search_rounds(const struct rp_search *search)
{
    return search->n_steps > 0 &&
           !rp_numerics_are_plain(&rp_replay_options(search->replay)->numerics);
}

struct rp_candidate rp_candidate_make(const char *name, void (*install)(struct rp_ops *ops),
                                      int option, enum rp_weight_id which)
{
    return (struct rp_candidate){.name = name,
                                 .phase = RP_PHASE_FIXED,
                                 .install = install,
                                 .option = option,
                                 .which = which,
                                 .other = RP_N_WEIGHTS,
                                 .from_layer = -1,
                                 .parameter = RP_NO_PARAMETER};
}

struct rp_candidate rp_candidate_of_rows(const char *name, rp_transform_fn *transform, double value,
                                         const float *rows)
{
    struct rp_candidate candidate = rp_candidate_make(name, NULL, 0, RP_N_WEIGHTS);
    candidate.phase = RP_PHASE_ROWS;
    candidate.transform = transform;
    candidate.value = value;
    candidate.rows = rows;
    return candidate;
}

enum rp_status rp_search_add(struct rp_search *search, struct rp_candidate candidate,
                             struct rp_error *err, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(candidate.text, sizeof candidate.text, fmt, args);
    va_end(args);
    if (search->n_candidates == search->candidates_capacity) {
        const size_t capacity = 2 * search->candidates_capacity + 64;
        struct rp_candidate *more = realloc(search->candidates, capacity * sizeof *more);
        if (!more)
            return no_memory(search, err);
        search->candidates = more;
        search->candidates_capacity = capacity;
    }
    search->candidates[search->n_candidates++] = candidate;
    return RP_OK;
}

static enum rp_status own_rows(struct rp_search *search, size_t dim, float **rows,
                               struct rp_error *err)
{
    float **more = realloc(search->owned, (search->n_owned + 1) * sizeof *more);
    *rows = NULL;
    if (more) {
        search->owned = more;
        *rows = calloc(search->n * dim + 1, sizeof **rows);
    }
    if (!*rows)
        return no_memory(search, err);
    search->owned[search->n_owned++] = *rows;
    return RP_OK;
}

enum rp_status rp_search_new_rows(struct rp_search *search, float **rows, struct rp_error *err)
{
    return own_rows(search, search->dim, rows, err);
}

enum rp_status rp_search_slot_rows(struct rp_search *search, const char *slot, size_t dim,
                                   const float **rows, struct rp_error *err)
{
    struct rp_error ignored;
    float *read;
    *rows = NULL;
    const struct rp_slot_info *info = rp_tensor_set_find(rp_replay_dump(search->replay), slot);
    if (!info || info->error.code != RP_OK || info->dim != dim)
        return RP_OK;
    enum rp_status status = own_rows(search, dim, &read, err);
    if (status != RP_OK)
        return status;
    if (rp_replay_dumped_rows(search->replay, slot, search->slot->positions, search->n, dim, read,
                              &ignored) == RP_OK)
        *rows = read;
    else
        free(search->owned[--search->n_owned]);
    return RP_OK;
}

enum rp_status rp_search_base(struct rp_search *search, const float **rows, struct rp_error *err)
{
    char name[RP_SLOT_NAME_SIZE];
    const int layer = search->slot->layer;
    const enum rp_slot_part part = search->slot->part;
    *rows = NULL;
    if (part != RP_PART_OUTPUT && part != RP_PART_POSTATTN)
        return RP_OK;
    if (part == RP_PART_OUTPUT) {
        rp_slot_name(RP_PART_POSTATTN, layer, name);
        const enum rp_status status = rp_search_slot_rows(search, name, search->dim, rows, err);
        if (status != RP_OK || *rows)
            return status;
    }
    rp_slot_name(RP_PART_IN, layer, name);
    const enum rp_status status = rp_search_slot_rows(search, name, search->dim, rows, err);
    if (status != RP_OK || *rows)
        return status;
    rp_slot_name(layer > 0 ? RP_PART_OUTPUT : RP_PART_EMB, layer > 0 ? layer - 1 : -1, name);
    return rp_search_slot_rows(search, name, search->dim, rows, err);
}

/* ---- trials ---- */

static enum rp_status set_up(struct rp_search *search, const struct rp_candidate *candidate,
                             struct rp_change *change, struct rp_error *err)
{
    *change = (struct rp_change){.what = *candidate,
                                 .weights = &search->weights,
                                 .positions = search->slot->positions,
                                 .n_rows = search->n};
    rp_overlay_open(&change->overlay, NULL);
    if (candidate->install)
        candidate->install(&change->overlay.ops);
    if (candidate->from_layer < 0)
        return RP_OK;
    if (candidate->from_layer != search->other_layer) {
        rp_layer_free(&search->other_weights);
        search->other_layer = -1;
        const enum rp_status status =
            rp_layer_load(rp_replay_model(search->replay), (size_t)candidate->from_layer,
                          &search->other_weights, err);
        if (status != RP_OK)
            return status;
        search->other_layer = candidate->from_layer;
    }
    change->weights = &search->other_weights;
    return RP_OK;
}

static enum rp_status transform_rows(struct rp_search *search, const struct rp_change *change,
                                     const struct rp_place *place, struct rp_error *err)
{
    const size_t dim = search->dim;
    memcpy(search->rows, search->computed, search->n * dim * sizeof *search->rows);
    const enum rp_status status = change->what.transform(change, search->n, dim, search->rows, err);
    for (size_t row = 0; row < search->n; row++) {
        if (!rp_place_has(place, search->slot->positions[row]))
            memcpy(search->rows + row * dim, search->computed + row * dim,
                   dim * sizeof *search->rows);
    }
    return status;
}

static enum rp_status run_pair(struct rp_search *search, struct rp_change *change,
                               struct rp_error *err)
{
    struct rp_change also;
    struct rp_pair pair;
    const struct rp_replay_variant variant = {.overlay = &pair.overlay};
    const enum rp_status status =
        set_up(search, &search->candidates[change->what.also - 1], &also, err);
    rp_pair_open(&pair, change, &also);
    return status == RP_OK
               ? rp_replay_slot_rows(search->replay, search->slot, &variant, search->rows, err)
               : status;
}

static enum rp_status run_changed(struct rp_search *search, struct rp_change *change,
                                  const struct rp_place *place, struct rp_error *err)
{
    struct rp_placed_change placed;
    if (change->what.also > 0)
        return run_pair(search, change, err);
    struct rp_replay_variant variant = {.overlay = &change->overlay,
                                        .numerics = change->what.numerics};
    if (place->kind != RP_PLACE_ALL || place->by_head) {
        rp_placed_change_open(&placed, change, place);
        variant.overlay = &placed.overlay;
    }
    return rp_replay_slot_rows(search->replay, search->slot, &variant, search->rows, err);
}

static void judge(const struct rp_search *search, struct rp_trial *trial)
{
    const struct rp_replay_slot *slot = search->slot;
    double before = 0, after = 0, most = 0;
    const bool is_numerics = trial->candidate.numerics != NULL;
    const double of_error = is_numerics ? TIPS_OF_NUMERICS : TIPS_OF_ERROR;
    bool has_tips = is_numerics, is_bounded = true, is_near = true;
    trial->cost = trial->chi2 = 0;
    trial->n_over = 0;
    for (size_t row = 0; row < search->n; row++) {
        const double own = search->error[row], found = error_of(search, row, search->rows);
        const double error = isfinite(found) ? found : 1e6, scaled = error / search->limit[row];
        trial->cost += log1p(scaled * scaled) / (double)search->n;
        trial->chi2 += scaled * scaled / (double)search->n;
        trial->n_over += scaled <= 1 ? 0 : 1;
        most = fmax(most, scaled);
        has_tips |= slot->limit[row] > slot->bound[row];
        is_bounded &= error <= fmax(slot->limit[row], search->limit[row]);
        is_near &= error <= fmax(TIPS_LIMITS * slot->limit[row], of_error * own);
        before += own * own;
        after += error * error;
        if (row == search->first)
            trial->share_of_first = error < own ? 1 - error * error / (own * own) : 0;
    }
    trial->share = after < before ? 1 - after / before : 0;
    const double least = has_tips ? MIN_SHARE_OF_TIPS : MIN_SHARE;
    trial->matches =
        (is_bounded && trial->n_over <= search->n_allowed && trial->share >= least) ||
        (has_tips && is_near && trial->share >= (is_numerics ? MIN_SHARE_OF_TIPS : NEARLY_ALL)) ||
        (most <= STRONG_LIMITS && trial->share >= STRONG_SHARE);
}

enum rp_status rp_search_try(struct rp_search *search, const struct rp_candidate *candidate,
                             const struct rp_place *place, struct rp_trial *trial,
                             struct rp_error *err)
{
    struct rp_change change;
    *trial = (struct rp_trial){.candidate = *candidate, .place = *place};
    enum rp_status status = set_up(search, candidate, &change, err);
    if (status == RP_OK && candidate->transform)
        status = transform_rows(search, &change, place, err);
    else if (status == RP_OK)
        status = run_changed(search, &change, place, err);
    free(change.first_run);
    if (status == RP_OK)
        judge(search, trial);
    return status;
}
