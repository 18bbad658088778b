/* See replay/judge.h. */
#include "replay/judge.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "refparity/metrics.h"

struct rp_row_error rp_row_error_of(const void *replayed, const void *engine, size_t dim)
{
    const struct rp_metrics m = rp_metrics_row(replayed, engine, dim);
    const struct rp_row_scan scan = rp_metrics_scan(replayed, engine, dim);
    struct rp_row_error error = {.introduced = (double)NAN,
                                 .channel = scan.max_abs_index,
                                 .n_nan = scan.n_nan,
                                 .n_inf = scan.n_inf};
    if (scan.first_nonfinite < dim)
        error.channel = scan.first_nonfinite;
    if (m.ref_finite && m.engine_finite)
        error.introduced = m.norm_ref > 0 ? m.l2_rel : m.norm_engine > 0 ? (double)INFINITY : 0;
    return error;
}

bool rp_is_over(double introduced, double floor)
{
    return !(introduced <= RP_REPLAY_LIMIT * floor);
}

static void say(struct rp_replay_slot *slot, const char *fmt, ...) RP_PRINTF(2, 3);
static void say(struct rp_replay_slot *slot, const char *fmt, ...)
{
    const size_t used = strlen(slot->message);
    va_list args;
    va_start(args, fmt);
    vsnprintf(slot->message + used, sizeof slot->message - used, fmt, args);
    va_end(args);
}

static void say_failure(const struct rp_replayed *replayed, struct rp_replay_slot *slot)
{
    const int64_t position = slot->positions[slot->first];
    size_t row = 0;
    while (replayed->positions[row] != position)
        row++;
    const struct rp_row_error *error = &replayed->errors[row];
    slot->worst_channel = error->channel;
    if (error->n_nan + error->n_inf > 0)
        say(slot, "%zu NaN and %zu infinite values at position %lld, first in channel %zu",
            error->n_nan, error->n_inf, (long long)position, error->channel);
    else
        say(slot, "introduces %.3g at position %lld, limit %.2g (%g x the floor), channel %zu",
            error->introduced, (long long)position, RP_REPLAY_LIMIT * slot->floor[slot->first],
            RP_REPLAY_LIMIT, error->channel);
    say(slot, "; %zu of %zu positions", slot->n_failing, slot->n_positions);
    if (slot->worst != slot->first)
        say(slot, ", worst %.3g at %lld", slot->introduced[slot->worst],
            (long long)slot->positions[slot->worst]);
}

static void say_all(const struct rp_replayed *replayed, struct rp_replay_slot *slot,
                    size_t n_left_out)
{
    if (slot->verdict == RP_SKIP)
        say(slot, "not replayed");
    else if (slot->verdict == RP_FAIL)
        say_failure(replayed, slot);
    else
        say(slot, "introduces at most %.3g (position %lld), limit %.2g",
            slot->introduced[slot->worst], (long long)slot->positions[slot->worst],
            RP_REPLAY_LIMIT * slot->floor[slot->worst]);
    if (slot->n_flips > 0)
        say(slot, "; %zu rounding flip%s at %zu position%s", slot->n_flips,
            slot->n_flips == 1 ? "" : "s", slot->n_flipped, slot->n_flipped == 1 ? "" : "s");
    if (slot->n_failing > 0 && replayed->is_bounded)
        say(slot, "; not all near-ties were tried");
    if (n_left_out > 0)
        say(slot, "; %zu position%s left out: %s", n_left_out, n_left_out == 1 ? "" : "s",
            replayed->left_out ? replayed->left_out : "nothing to compute from");
}

/* Takes row i up. */
static void take(const struct rp_replayed *replayed, struct rp_replay_slot *slot, size_t i)
{
    const size_t at = slot->n_positions++;
    const double measured = replayed->floor ? replayed->floor[i] : 0;
    slot->positions[at] = replayed->positions[i];
    slot->introduced[at] = replayed->errors[i].introduced;
    slot->floor[at] = measured < RP_REPLAY_MIN_FLOOR ? RP_REPLAY_MIN_FLOOR : measured;
    const bool is_over = rp_is_over(slot->introduced[at], slot->floor[at]);
    if (is_over && slot->n_failing++ == 0)
        slot->first = at;
    /* NaN counts as the largest. */
    const double ratio = slot->introduced[at] / slot->floor[at];
    const double worst = slot->introduced[slot->worst] / slot->floor[slot->worst];
    if (!(ratio <= worst) && !isnan(worst))
        slot->worst = at;
    if (replayed->n_flips && replayed->n_flips[i] > 0) {
        slot->n_flips += replayed->n_flips[i];
        slot->n_flipped += !is_over;
    }
}

enum rp_status rp_replay_judge(const struct rp_replayed *replayed, struct rp_replay_slot *slot,
                               struct rp_error *err)
{
    const struct rp_dumped *dumped = replayed->dumped;
    size_t n_left_out = 0;
    *slot = (struct rp_replay_slot){.part = replayed->part, .layer = replayed->layer};
    rp_slot_name(replayed->part, replayed->layer, slot->slot);
    snprintf(slot->from, sizeof slot->from, "%s", replayed->from);
    if (dumped->err.code != RP_OK) {
        slot->verdict = RP_ERROR;
        rp_error_text(&dumped->err, slot->message, sizeof slot->message);
        return RP_OK;
    }
    slot->positions = calloc(replayed->n + 1, sizeof *slot->positions);
    slot->introduced = calloc(replayed->n + 1, sizeof *slot->introduced);
    slot->floor = calloc(replayed->n + 1, sizeof *slot->floor);
    if (!slot->positions || !slot->introduced || !slot->floor) {
        rp_replay_slot_free(slot);
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", replayed->n);
    }
    for (size_t i = 0; i < replayed->n; i++) {
        if (!rp_dumped_row(dumped, replayed->positions[i]))
            continue;
        if (!replayed->founded || replayed->founded[i])
            take(replayed, slot, i);
        else
            n_left_out++;
    }
    if (slot->n_failing == 0)
        slot->first = slot->n_positions;
    slot->verdict = slot->n_positions == 0 ? RP_SKIP : slot->n_failing > 0 ? RP_FAIL : RP_PASS;
    say_all(replayed, slot, n_left_out);
    return RP_OK;
}

void rp_replay_slot_free(struct rp_replay_slot *slot)
{
    free(slot->positions);
    free(slot->introduced);
    free(slot->floor);
    *slot = (struct rp_replay_slot){.positions = NULL};
}

/* ERROR, FAIL, PASS, SKIP: the worse one counts, and a slot that was not compared is no worse than
 * one that passed. */
static int rank(enum rp_verdict verdict)
{
    return verdict == RP_SKIP ? 0 : verdict == RP_ERROR ? 4 : 1 + (int)verdict;
}

void rp_replay_conclude(struct rp_replay_layer *result)
{
    result->verdict = RP_SKIP;
    result->first_failing = NULL;
    for (size_t i = 0; i < result->n_slots; i++) {
        const struct rp_replay_slot *slot = &result->slots[i];
        if (rank(slot->verdict) > rank(result->verdict))
            result->verdict = slot->verdict;
        if (slot->verdict == RP_FAIL && !result->first_failing)
            result->first_failing = slot;
    }
}

void rp_replay_layer_free(struct rp_replay_layer *result)
{
    for (size_t i = 0; i < result->n_slots; i++)
        rp_replay_slot_free(&result->slots[i]);
    *result = (struct rp_replay_layer){.n_slots = 0};
}
