/* One layer's replay: the run, the floor's runs, the verdicts.
 * The run itself is in forced.c, near-ties in flips.c. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replay/flips.h"
#include "replay/frozen.h"
#include "replay/inputs.h"
#include "replay/jitter.h"
#include "replay/judge.h"
#include "replay/session.h"

/* Everything of one rp_replay_run_variant. Arrays are [n] of forced, per part. */
struct work {
    struct rp_replay *replay;
    const struct rp_replay_variant *variant;
    struct rp_numerics numerics; /* with the prompt's length, where it is known */
    const struct rp_layer *weights;
    struct rp_forced forced;
    bool tries_flips, notes_inputs;
    struct rp_inputs inputs;            /* with notes_inputs: of the plain run */
    float *computed[RP_N_FORCED_PARTS]; /* [n][dim] */
    double *floor[RP_N_FORCED_PARTS];
    struct rp_row_error *errors[RP_N_FORCED_PARTS];
    size_t *n_flips[RP_N_FORCED_PARTS];
    bool is_bounded;
};

static void work_close(struct work *work)
{
    for (size_t k = 0; k < RP_N_FORCED_PARTS; k++) {
        free(work->computed[k]);
        free(work->floor[k]);
        free(work->errors[k]);
        free(work->n_flips[k]);
    }
    rp_inputs_close(&work->inputs);
    rp_forced_close(&work->forced);
}

static enum rp_status work_open(struct work *work, struct rp_replay *replay, size_t layer,
                                const struct rp_replay_variant *variant, struct rp_error *err)
{
    *work =
        (struct work){.replay = replay,
                      .variant = variant,
                      .numerics = variant->numerics ? *variant->numerics : replay->options.numerics,
                      .weights = variant->weights};
    if (work->numerics.prompt_length == 0 && replay->tokens)
        work->numerics.prompt_length = replay->n_tokens;
    enum rp_status status = rp_forced_open(&work->forced, replay->model, replay->dump, layer,
                                           replay->first_position, variant->n_positions, err);
    if (status == RP_OK && !work->weights)
        status = rp_replay_weights(replay, layer, &work->weights, err);
    const size_t n = work->forced.n;
    work->notes_inputs = !rp_numerics_are_plain(&work->numerics);
    work->tries_flips = variant->with_flips && work->notes_inputs;
    for (size_t k = 0; k < RP_N_FORCED_PARTS && status == RP_OK; k++) {
        work->computed[k] = calloc(n * work->forced.dim + 1, sizeof *work->computed[k]);
        work->floor[k] = calloc(n + 1, sizeof *work->floor[k]);
        work->errors[k] = calloc(n + 1, sizeof *work->errors[k]);
        work->n_flips[k] = calloc(n + 1, sizeof *work->n_flips[k]);
        if (!work->computed[k] || !work->floor[k] || !work->errors[k] || !work->n_flips[k])
            status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", n);
    }
    if (status != RP_OK)
        work_close(work);
    return status;
}

/* The operations to run: the emulation over the plain ones, and the variant's over that. */
static const struct rp_ops *stack(struct work *work, struct rp_emulation *emulation)
{
    struct rp_overlay *overlay = work->variant->overlay;
    const struct rp_ops *ops = rp_ops_default();
    if (!rp_numerics_are_plain(&work->numerics)) {
        rp_emulation_open(emulation, &work->numerics, NULL);
        ops = &emulation->overlay.ops;
    }
    if (overlay) {
        overlay->below = ops;
        ops = &overlay->ops;
    }
    return ops;
}

static void unstack(struct work *work, struct rp_emulation *emulation)
{
    if (!rp_numerics_are_plain(&work->numerics))
        rp_emulation_close(emulation);
}

/* flips [n_flips] are rounded the other way. */
static enum rp_status run_plain(struct work *work, const struct rp_tie *flips, size_t n_flips,
                                struct rp_error *err)
{
    struct rp_emulation emulation;
    struct rp_forced_run run = {.ops = stack(work, &emulation),
                                .mode = work->replay->options.mode,
                                .weights = work->weights};
    memcpy(run.computed, work->computed, sizeof run.computed);
    if (n_flips > 0) {
        emulation.flips = flips;
        emulation.n_flips = n_flips;
    } else if (work->notes_inputs) {
        rp_inputs_open(&work->inputs, work->forced.n, run.ops);
        run.ops = &work->inputs.overlay.ops;
    }
    const enum rp_status status = rp_forced_forward(&work->forced, &run, err);
    unstack(work, &emulation);
    return status;
}

/* ---- the floor ---- */

/* Positions to either side whose noise counts as a position's own, where flips are part of it. */
#define NEIGHBOURS 8

static double root_mean_square(const double *runs)
{
    double sum = 0;
    for (size_t i = 0; i < RP_N_FLOOR_RUNS; i++)
        sum += runs[i] * runs[i];
    return sqrt(sum / RP_N_FLOOR_RUNS);
}

static double max_of(double a, double b)
{
    return a >= b || b != b ? a : b;
}

/* distances [RP_N_FLOOR_RUNS][RP_N_FORCED_PARTS][n]. Without flips the noise is the root mean square
 * of the runs. With flips a run may by chance have none at a position where the engine has one: there
 * it is the largest among the neighbours'. */
static void set_floor(struct work *work, const double *distances)
{
    const size_t n = work->forced.n;
    const bool has_flips = rp_has_fine_rounding(&work->numerics, work->weights);
    for (size_t k = 0; k < RP_N_FORCED_PARTS; k++) {
        for (size_t row = 0; row < n; row++) {
            double runs[RP_N_FLOOR_RUNS], largest = 0;
            const size_t from = row < NEIGHBOURS ? 0 : row - NEIGHBOURS;
            const size_t to = n - row <= NEIGHBOURS ? n : row + NEIGHBOURS + 1;
            for (size_t i = 0; i < RP_N_FLOOR_RUNS; i++) {
                const double *of_run = distances + (i * RP_N_FORCED_PARTS + k) * n;
                runs[i] = of_run[row];
                for (size_t near = from; near < to; near++)
                    largest = max_of(largest, of_run[near]);
            }
            work->floor[k][row] = has_flips ? largest : root_mean_square(runs);
        }
    }
}

static enum rp_status measure_floor(struct work *work, struct rp_error *err)
{
    const size_t n = work->forced.n;
    struct rp_emulation emulation;
    struct rp_frozen frozen;
    struct rp_jitter jitter;
    struct rp_forced_run run = {.mode = work->replay->options.mode, .weights = work->weights};
    const struct rp_ops *below;
    double *distances = calloc(RP_N_FLOOR_RUNS * RP_N_FORCED_PARTS * n + 1, sizeof *distances);
    if (!distances)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", n);
    below = stack(work, &emulation);
    if (work->notes_inputs) {
        rp_frozen_open(&frozen, &work->numerics, &work->inputs, below);
        below = &frozen.overlay.ops;
    }
    rp_jitter_open(&jitter, &work->numerics, below);
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < RP_N_FLOOR_RUNS && status == RP_OK; i++) {
        for (size_t k = 0; k < RP_N_FORCED_PARTS; k++) {
            run.against[k] = work->computed[k];
            run.distance[k] = distances + (i * RP_N_FORCED_PARTS + k) * n;
        }
        rp_jitter_begin(&jitter, 1000 * work->forced.layer + i);
        run.ops = &jitter.overlay.ops;
        if (i == 0 && work->notes_inputs) {
            rp_inputs_compare(&work->inputs, run.ops);
            run.ops = &work->inputs.overlay.ops;
        }
        status = rp_forced_forward(&work->forced, &run, err);
    }
    if (status == RP_OK)
        set_floor(work, distances);
    rp_jitter_close(&jitter);
    unstack(work, &emulation);
    free(distances);
    return status;
}

/* Those of an earlier run of the layer; false where it does not have them. */
static bool take_floor(struct work *work, const struct rp_replay_layer *baseline)
{
    for (size_t k = 0; k < RP_N_FORCED_PARTS; k++) {
        const struct rp_replay_slot *slot = NULL;
        for (size_t i = 0; i < baseline->n_slots; i++) {
            if (baseline->slots[i].part == rp_forced_part(k))
                slot = &baseline->slots[i];
        }
        for (size_t row = 0, at = 0; row < work->forced.n; row++) {
            const int64_t position = work->forced.positions[row];
            if (!rp_dumped_row(&work->forced.parts[k], position) || !work->forced.founded[k][row])
                continue;
            while (slot && at < slot->n_positions && slot->positions[at] < position)
                at++;
            if (!slot || at == slot->n_positions || slot->positions[at] != position)
                return false;
            work->floor[k][row] = slot->floor[at];
        }
    }
    return true;
}

/* ---- verdicts ---- */

static void find_errors(struct work *work)
{
    const struct rp_forced *forced = &work->forced;
    for (size_t k = 0; k < RP_N_FORCED_PARTS; k++) {
        for (size_t row = 0; row < forced->n; row++) {
            const void *engine = rp_dumped_row(&forced->parts[k], forced->positions[row]);
            if (engine && forced->founded[k][row])
                work->errors[k][row] =
                    rp_row_error_of(work->computed[k] + row * forced->dim, engine, forced->dim);
        }
    }
}

/* Of a thousand values that are off at random, one is off by 3.3 times their RMS; and an engine's noise
 * may stand at the limit. */
#define TIE_SIGMAS (3.3 * RP_REPLAY_LIMIT)

/* For rp_replay_rows: those of the layer as it is. */
static void keep_flips(struct work *work, struct rp_flip_search *search)
{
    struct rp_replay *replay = work->replay;
    const struct rp_replay_variant *variant = work->variant;
    if (variant->overlay || variant->weights || variant->numerics || variant->n_positions)
        return;
    free(replay->flips);
    replay->flipped_layer = work->forced.layer;
    replay->flips = search->flips;
    replay->n_flips = search->n_flips;
    search->flips = NULL;
}

static enum rp_status try_flips(struct work *work, struct rp_error *err)
{
    struct rp_emulation emulation;
    struct rp_flip_search search = {.forced = &work->forced,
                                    .weights = work->weights,
                                    .mode = work->replay->options.mode,
                                    .emulation = &emulation,
                                    .ops = stack(work, &emulation),
                                    .inputs = &work->inputs,
                                    .sigmas = TIE_SIGMAS};
    for (size_t k = 0; k < RP_N_FORCED_PARTS; k++) {
        search.floor[k] = work->floor[k];
        search.errors[k] = work->errors[k];
        search.n_flips_of[k] = work->n_flips[k];
    }
    enum rp_status status = rp_flip_search_run(&search, err);
    unstack(work, &emulation);
    work->is_bounded = search.is_bounded;
    if (status == RP_OK && search.n_flips > 0) {
        status = run_plain(work, search.flips, search.n_flips, err);
        find_errors(work);
    }
    if (status == RP_OK)
        keep_flips(work, &search);
    rp_flip_search_close(&search);
    return status;
}

/* Why attention was not replayed everywhere. */
static const char *why_left_out(const struct work *work, enum rp_slot_part part, char *text,
                                size_t size)
{
    const struct rp_forced *forced = &work->forced;
    if (part != RP_PART_POSTATTN && forced->parts[1].tensor.n_positions > 0)
        return NULL;
    if (work->replay->first_position < 0)
        snprintf(text, size, "where the sequence begins is not known");
    else if (forced->gap_is_invalid)
        snprintf(text, size, "the engine's input at position %lld is not finite",
                 (long long)forced->gap);
    else
        snprintf(text, size, "the input at position %lld is not dumped", (long long)forced->gap);
    return text;
}

static enum rp_status judge(struct work *work, struct rp_replay_layer *result, struct rp_error *err)
{
    const struct rp_forced *forced = &work->forced;
    enum rp_status status = RP_OK;
    *result = (struct rp_replay_layer){.layer = (int)forced->layer};
    for (size_t k = 0; k < RP_N_FORCED_PARTS && status == RP_OK; k++) {
        const enum rp_slot_part part = rp_forced_part(k);
        char reason[128];
        const struct rp_replayed replayed = {
            .part = part,
            .layer = (int)forced->layer,
            .from = rp_forced_from(forced, part),
            .dumped = &forced->parts[k],
            .n = forced->n,
            .positions = forced->positions,
            .errors = work->errors[k],
            .founded = forced->founded[k],
            .floor = work->floor[k],
            .n_flips = work->n_flips[k],
            .is_bounded = work->is_bounded,
            .left_out =
                part == RP_PART_IN ? NULL : why_left_out(work, part, reason, sizeof reason)};
        if (!forced->parts[k].info)
            continue;
        status = rp_replay_judge(&replayed, &result->slots[result->n_slots], err);
        result->n_slots += status == RP_OK;
    }
    if (status == RP_OK)
        rp_replay_conclude(result);
    else
        rp_replay_layer_free(result);
    return status;
}

enum rp_status rp_replay_run_variant(struct rp_replay *replay, size_t layer,
                                     const struct rp_replay_variant *variant,
                                     const struct rp_replay_layer *baseline,
                                     struct rp_replay_layer *result, struct rp_error *err)
{
    struct work work;
    enum rp_status status = work_open(&work, replay, layer, variant, err);
    if (status != RP_OK)
        return status;
    status = run_plain(&work, NULL, 0, err);
    if (status == RP_OK && (work.tries_flips || !(baseline && take_floor(&work, baseline))))
        status = measure_floor(&work, err);
    if (status == RP_OK)
        find_errors(&work);
    if (status == RP_OK && work.tries_flips)
        status = try_flips(&work, err);
    if (status == RP_OK)
        status = judge(&work, result, err);
    work_close(&work);
    return status;
}

enum rp_status rp_replay_run_layer(struct rp_replay *replay, size_t layer,
                                   struct rp_replay_layer *result, struct rp_error *err)
{
    const struct rp_replay_variant variant = {.with_flips = !replay->options.without_flips};
    return rp_replay_run_variant(replay, layer, &variant, NULL, result, err);
}

enum rp_status rp_replay_rows(struct rp_replay *replay, size_t layer,
                              const struct rp_replay_slot *slot, float **computed, float **dumped,
                              size_t *dim, struct rp_error *err)
{
    const struct rp_replay_variant variant = {.overlay = NULL};
    struct work work;
    if (slot->layer < 0)
        return rp_replay_part_rows(replay, slot, computed, dumped, dim, err);
    if (slot->part < RP_PART_IN || slot->part > RP_PART_OUTPUT)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "%s is no slot of a layer", slot->slot);
    const size_t k = rp_forced_index(slot->part);
    enum rp_status status = work_open(&work, replay, layer, &variant, err);
    if (status != RP_OK)
        return status;
    const bool has_flips = replay->flips && replay->flipped_layer == layer;
    status =
        run_plain(&work, has_flips ? replay->flips : NULL, has_flips ? replay->n_flips : 0, err);
    *dim = work.forced.dim;
    if (status == RP_OK)
        status =
            rp_replay_copy_rows(slot, &work.forced.parts[k], work.forced.n, work.forced.positions,
                                work.computed[k], *dim, computed, dumped, err);
    work_close(&work);
    return status;
}
