/* See explain/search.h: the slot's rows, and trials on them. The fit of a parameter is in fit.c. */
#include "explain/search.h"

#include <stdlib.h>
#include <string.h>

#include "explain/pairs.h"
#include "model/model_internal.h"
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

static void note_step(struct rp_search *search, enum rp_step_kind kind, enum rp_weight_id which)
{
    if (search->n_steps < sizeof search->steps / sizeof *search->steps)
        search->steps[search->n_steps++] = (struct rp_operation_step){kind, which};
}

static enum rp_status find_steps(struct rp_slot_search *own, struct rp_error *err)
{
    struct rp_search *search = &own->search;
    const struct rp_replay_slot *slot = own->slot;
    struct rp_replay_plan plan;
    const bool has_norm = slot->part == RP_PART_POST_NORM || slot->is_carried;
    if (slot->layer < 0) {
        if (slot->part != RP_PART_EMB && has_norm)
            note_step(search, RP_STEP_RMS_NORM, RP_OUTPUT_NORM);
        if (slot->part == RP_PART_LOGITS)
            note_step(search, RP_STEP_LINEAR, RP_OUTPUT);
        return RP_OK;
    }
    enum rp_status status =
        rp_replay_plan_open(&plan, own->replay->model, own->replay->dump, (size_t)slot->layer,
                            own->replay->first_position, err);
    if (status != RP_OK)
        return status;
    const struct rp_planned_slot *planned = rp_replay_plan_slot(&plan, slot->part);
    for (size_t i = 0; planned && i < plan.n_steps; i++) {
        if (planned->steps[i] && plan.steps[i].kind != RP_STEP_TAP)
            note_step(search, plan.steps[i].kind, plan.steps[i].which);
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

/* Of chosen experts, in whatever order: the root of the share that is others. */
static double choice_error(const float *a, const float *b, size_t n)
{
    size_t n_others = 0;
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        while (k < n && a[i] != b[k])
            k++;
        n_others += k == n;
    }
    return sqrt((double)n_others / (double)n);
}

static double error_of(const struct rp_search *search, size_t row, const float *rows)
{
    if (search->slot.part == RP_PART_EXPERTS)
        return choice_error(rows + row * search->dim, search->dumped + row * search->dim,
                            search->dim);
    const struct rp_numerics numerics =
        rp_replay_part_numerics(&search->numerics, search->slot.part);
    return rp_replay_row_error(&numerics, rows + row * search->dim,
                               search->dumped + row * search->dim, search->dim);
}

/* Where no position is over its limit, there are more tips than rounding explains: those rows are what
 * is to be explained, and the expected ones may stay. */
static void find_failing(struct rp_slot_search *own)
{
    struct rp_search *search = &own->search;
    const struct rp_replay_slot *slot = own->slot;
    const bool is_by_count = slot->n_failing == 0;
    own->n_allowed = is_by_count ? (size_t)(2 * slot->n_expected) + 3 : 0;
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

static enum rp_status read_dumped(struct rp_search *search, const char *slot, size_t dim,
                                  float *rows, struct rp_error *err)
{
    const struct rp_slot_search *own = (struct rp_slot_search *)search;
    return rp_replay_dumped_rows(own->replay, slot, search->slot.positions, search->n, dim, rows,
                                 err);
}

static enum rp_status try_rows(struct rp_search *search, const struct rp_candidate *candidate,
                               double *error, struct rp_error *err)
{
    const struct rp_place everywhere = {.kind = RP_PLACE_ALL};
    struct rp_trial trial;
    const enum rp_status status = rp_search_try(search, candidate, &everywhere, &trial, err);
    for (size_t row = 0; row < search->n && status == RP_OK; row++)
        error[row] = error_of(search, row, search->rows);
    return status;
}

enum rp_status rp_search_open(struct rp_slot_search *own, struct rp_replay *replay,
                              const struct rp_replay_slot *slot, struct rp_error *err)
{
    const struct rp_model *model = rp_replay_model(replay);
    const struct rp_layer *weights = NULL;
    const size_t layer = slot->layer < 0 ? 0 : (size_t)slot->layer;
    struct rp_search *search = &own->search;
    *own = (struct rp_slot_search){.replay = replay, .slot = slot, .other_layer = -1};
    *search = (struct rp_search){
        .config = rp_model_config(model),
        .gguf = rp_model_gguf(model),
        .dump = rp_replay_dump(replay),
        .first_position = replay->first_position,
        .numerics = rp_replay_options(replay)->numerics,
        .slot = {slot->slot, slot->from, slot->part, slot->layer, slot->is_carried,
                 slot->positions},
        .n = slot->n_positions,
        .dim = rp_model_slot_width(model, slot->part, layer),
        .read_dumped = read_dumped,
        .try_rows = try_rows,
        .err = err,
    };
    search->kind = search->config->layer_kinds[layer];
    const size_t length = rp_dump_sequence_length(search->dump);
    search->rope_freqs = rp_model_rope_factors(model, search->kind, length);
    search->is_long = length > search->config->rope_scaling.original_context;
    search->other_rope_freqs = search->is_long ? model->rope_factors : model->long_rope_factors;
    enum rp_status status = allocate(search, err);
    if (status == RP_OK)
        status = find_steps(own, err);
    if (status == RP_OK && slot->layer >= 0) {
        status = rp_replay_weights(replay, layer, &weights, err);
        if (status == RP_OK)
            search->weights = *weights;
    }
    if (status == RP_OK)
        status = rp_replay_slot_rows(replay, slot, NULL, search->computed, err);
    if (status == RP_OK)
        status = read_dumped(search, slot->slot, search->dim, search->dumped, err);
    if (status == RP_OK)
        find_failing(own);
    return status;
}

void rp_search_close(struct rp_slot_search *own)
{
    struct rp_search *search = &own->search;
    rp_layer_free(&own->other_weights);
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
    *own = (struct rp_slot_search){.replay = NULL};
}

/* ---- trials ---- */

static enum rp_status set_up(struct rp_slot_search *own, const struct rp_candidate *candidate,
                             struct rp_change *change, struct rp_error *err)
{
    const struct rp_search *search = &own->search;
    *change = (struct rp_change){.what = *candidate,
                                 .weights = &search->weights,
                                 .positions = search->slot.positions,
                                 .n_rows = search->n};
    rp_overlay_open(&change->overlay, NULL);
    if (candidate->install)
        candidate->install(&change->overlay.ops);
    if (candidate->from_layer < 0)
        return RP_OK;
    if (candidate->from_layer != own->other_layer) {
        rp_layer_free(&own->other_weights);
        own->other_layer = -1;
        const enum rp_status status = rp_layer_load(
            rp_replay_model(own->replay), (size_t)candidate->from_layer, &own->other_weights, err);
        if (status != RP_OK)
            return status;
        own->other_layer = candidate->from_layer;
    }
    change->weights = &own->other_weights;
    return RP_OK;
}

static enum rp_status transform_rows(struct rp_search *search, const struct rp_change *change,
                                     const struct rp_place *place, struct rp_error *err)
{
    const size_t dim = search->dim;
    memcpy(search->rows, search->computed, search->n * dim * sizeof *search->rows);
    const enum rp_status status = change->what.transform(change, search->n, dim, search->rows, err);
    for (size_t row = 0; row < search->n; row++) {
        if (!rp_place_has(place, search->slot.positions[row]))
            memcpy(search->rows + row * dim, search->computed + row * dim,
                   dim * sizeof *search->rows);
    }
    return status;
}

static enum rp_status run_pair(struct rp_slot_search *own, struct rp_change *change,
                               struct rp_error *err)
{
    struct rp_change also;
    struct rp_pair pair;
    const struct rp_replay_variant variant = {.overlay = &pair.overlay};
    const enum rp_status status =
        set_up(own, &own->search.candidates[change->what.also - 1], &also, err);
    rp_pair_open(&pair, change, &also);
    return status == RP_OK
               ? rp_replay_slot_rows(own->replay, own->slot, &variant, own->search.rows, err)
               : status;
}

static enum rp_status run_changed(struct rp_slot_search *own, struct rp_change *change,
                                  const struct rp_place *place, struct rp_error *err)
{
    struct rp_placed_change placed;
    if (change->what.also > 0)
        return run_pair(own, change, err);
    struct rp_replay_variant variant = {.overlay = &change->overlay,
                                        .numerics = change->what.numerics};
    if (place->kind != RP_PLACE_ALL || place->by_head) {
        rp_placed_change_open(&placed, change, place);
        variant.overlay = &placed.overlay;
    }
    return rp_replay_slot_rows(own->replay, own->slot, &variant, own->search.rows, err);
}

static void judge(const struct rp_slot_search *own, struct rp_trial *trial)
{
    const struct rp_search *search = &own->search;
    const struct rp_replay_slot *slot = own->slot;
    double before = 0, after = 0, most = 0;
    const bool is_numerics = trial->candidate.numerics != NULL;
    const double of_error = is_numerics ? TIPS_OF_NUMERICS : TIPS_OF_ERROR;
    bool has_tips = is_numerics, is_bounded = true, is_near = true;
    trial->cost = trial->chi2 = 0;
    trial->n_over = 0;
    for (size_t row = 0; row < search->n; row++) {
        const double plain = search->error[row], found = error_of(search, row, search->rows);
        const float *bound = trial->candidate.bound;
        const double limit = fmax(search->limit[row], bound ? (double)bound[row] : 0);
        const double error = isfinite(found) ? found : 1e6, scaled = error / limit;
        trial->cost += log1p(scaled * scaled) / (double)search->n;
        trial->chi2 += scaled * scaled / (double)search->n;
        trial->n_over += scaled <= 1 ? 0 : 1;
        most = fmax(most, scaled);
        has_tips |= slot->limit[row] > slot->bound[row];
        is_bounded &= error <= fmax(slot->limit[row], limit);
        is_near &= error <= fmax(TIPS_LIMITS * slot->limit[row], of_error * plain);
        before += plain * plain;
        after += error * error;
        if (row == search->first)
            trial->share_of_first = error < plain ? 1 - error * error / (plain * plain) : 0;
    }
    trial->share = after < before ? 1 - after / before : 0;
    const double least = has_tips ? MIN_SHARE_OF_TIPS : MIN_SHARE;
    trial->matches =
        (is_bounded && trial->n_over <= own->n_allowed && trial->share >= least) ||
        (has_tips && is_near && trial->share >= (is_numerics ? MIN_SHARE_OF_TIPS : NEARLY_ALL)) ||
        (most <= STRONG_LIMITS && trial->share >= STRONG_SHARE);
}

enum rp_status rp_search_try(struct rp_search *search, const struct rp_candidate *candidate,
                             const struct rp_place *place, struct rp_trial *trial,
                             struct rp_error *err)
{
    struct rp_slot_search *own = (struct rp_slot_search *)search;
    struct rp_change change;
    *trial = (struct rp_trial){.candidate = *candidate, .place = *place};
    if (candidate->from_layer >= 0 &&
        !rp_model_has_layer(rp_replay_model(own->replay), (size_t)candidate->from_layer))
        return RP_OK; /* nothing is known of it */
    enum rp_status status = set_up(own, candidate, &change, err);
    if (status == RP_OK && candidate->transform)
        status = transform_rows(search, &change, place, err);
    else if (status == RP_OK)
        status = run_changed(own, &change, place, err);
    free(change.first_run);
    if (status == RP_OK)
        judge(own, trial);
    return status;
}
