/* See replay/judge.h. */
#include "replay/judge.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/half.h"
#include "refparity/metrics.h"
#include "replay/state_type.h"
#include "replay/tip_limits.h"

/* ---- one row ---- */

/* What engine differs from replayed by, beyond half a step of the type that it is kept in: a value next
 * to the middle between two may stand on either side. */
static double excess_of(enum rp_state state, float replayed, float engine)
{
    const double difference = fabs((double)engine - (double)replayed);
    const double step = state == RP_STATE_BF16  ? rp_step_bf16(engine)
                        : state == RP_STATE_F16 ? rp_step_f16(engine)
                                                : 0;
    return difference > step / 2 ? difference - step / 2 : 0;
}

struct rp_numerics rp_replay_part_numerics(const struct rp_numerics *numerics,
                                           enum rp_slot_part part)
{
    struct rp_numerics own = *numerics;
    if (part == RP_PART_DECAY)
        own.state = RP_STATE_F32;
    return own;
}

double rp_replay_row_error(const struct rp_numerics *numerics, const float *replayed,
                           const float *engine, size_t dim)
{
    /* No bound, so that the channel is not looked for. */
    return rp_row_error_of(numerics, replayed, engine, dim, (double)INFINITY).introduced;
}

/* FP32 and finite; false where it has to be looked at value by value. */
static bool is_plain_row(const float *replayed, const void *engine, size_t dim, double bound,
                         struct rp_row_error *error)
{
    const struct rp_metrics m = rp_metrics_row(replayed, engine, dim);
    if (!m.ref_finite || !m.engine_finite || !(m.norm_ref > 0))
        return false;
    *error = (struct rp_row_error){.introduced = m.l2_rel, .norm = m.norm_ref};
    if (!(m.l2_rel * m.norm_ref <= bound))
        error->channel = rp_metrics_scan(replayed, engine, dim).max_abs_index;
    return true;
}

/* Value by value. first: of the piece within its row. */
static void add_values(const struct rp_numerics *numerics, struct rp_row_pieces *pieces,
                       size_t first, const float *replayed, const void *engine, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float value;
        memcpy(&value, (const unsigned char *)engine + i * sizeof value, sizeof value);
        pieces->norm_square += (double)replayed[i] * (double)replayed[i];
        if (!isfinite(value)) {
            if (pieces->n_nan + pieces->n_inf == 0)
                pieces->first_bad = first + i;
            pieces->n_nan += isnan(value) != 0;
            pieces->n_inf += isinf(value) != 0;
            continue;
        }
        const double excess = excess_of(numerics->state, replayed[i], value);
        pieces->square += excess * excess;
        if (excess > pieces->largest) {
            pieces->largest = excess;
            pieces->channel = first + i;
        }
    }
}

void rp_row_piece_add(const struct rp_numerics *numerics, struct rp_row_pieces *pieces,
                      size_t first, const float *replayed, const void *engine, size_t n)
{
    const struct rp_metrics m = rp_metrics_row(replayed, engine, n);
    if (numerics->state != RP_STATE_F32 || !m.ref_finite || !m.engine_finite || !(m.norm_ref > 0)) {
        add_values(numerics, pieces, first, replayed, engine, n);
        return;
    }
    pieces->square += m.l2_rel * m.norm_ref * m.l2_rel * m.norm_ref;
    pieces->norm_square += m.norm_ref * m.norm_ref;
    if (m.max_abs > pieces->largest) {
        pieces->largest = m.max_abs;
        pieces->channel = first + rp_metrics_scan(replayed, engine, n).max_abs_index;
    }
}

struct rp_row_error rp_row_error_of_pieces(const struct rp_row_pieces *pieces)
{
    const double norm = pieces->norm_square;
    struct rp_row_error error = {.introduced = (double)NAN,
                                 .norm = sqrt(norm),
                                 .channel = pieces->channel,
                                 .n_nan = pieces->n_nan,
                                 .n_inf = pieces->n_inf};
    if (pieces->n_nan + pieces->n_inf > 0)
        error.channel = pieces->first_bad;
    else if (isfinite(norm))
        error.introduced = norm > 0             ? sqrt(pieces->square / norm)
                           : pieces->square > 0 ? (double)INFINITY
                                                : 0;
    return error;
}

struct rp_row_error rp_row_error_of(const struct rp_numerics *numerics, const float *replayed,
                                    const void *engine, size_t dim, double bound)
{
    struct rp_row_error error = {.introduced = (double)NAN};
    struct rp_row_pieces pieces = {.square = 0};
    if (numerics->state == RP_STATE_F32 && is_plain_row(replayed, engine, dim, bound, &error))
        return error;
    add_values(numerics, &pieces, 0, replayed, engine, dim);
    return rp_row_error_of_pieces(&pieces);
}

/* ---- messages ---- */

static void say(struct rp_replay_slot *slot, const char *fmt, ...) RP_PRINTF(2, 3);
static void say(struct rp_replay_slot *slot, const char *fmt, ...)
{
    const size_t used = strlen(slot->message);
    va_list args;
    va_start(args, fmt);
    vsnprintf(slot->message + used, sizeof slot->message - used, fmt, args);
    va_end(args);
}

static const struct rp_row_error *error_at(const struct rp_replayed *replayed, int64_t position)
{
    size_t row = 0;
    while (replayed->positions[row] != position)
        row++;
    return &replayed->errors[row];
}

/* An engine that keeps its values in another type than it declares fails everywhere. */
static void say_state(const struct rp_replayed *replayed, struct rp_replay_slot *slot)
{
    const struct rp_tensor *tensor = &replayed->dumped->tensor;
    enum rp_state found;
    if (replayed->part == RP_PART_EMB || replayed->part == RP_PART_DECAY ||
        replayed->part == RP_PART_EXPERTS) /* see state_type.c */
        return;
    if (!rp_find_state(tensor, 0, tensor->n_positions, &found) || found == replayed->state)
        return;
    if (found == RP_STATE_F32)
        say(slot, "; it has values that are no %s numbers, and \"state\": \"%s\" is declared",
            rp_state_type(replayed->state), rp_state_name(replayed->state));
    else
        say(slot,
            "; every value is %s number: if the engine keeps its state in %s, declare "
            "\"state\": \"%s\"",
            found == RP_STATE_BF16 ? "a BF16" : "an F16", rp_state_type(found),
            rp_state_name(found));
}

static void say_failure(const struct rp_replayed *replayed, struct rp_replay_slot *slot)
{
    const int64_t position = slot->positions[slot->first];
    const struct rp_row_error *error = error_at(replayed, position);
    slot->worst_channel = error->channel;
    if (replayed->says && replayed->says[0])
        say(slot, "%s", replayed->says);
    else if (error->n_nan + error->n_inf > 0)
        say(slot, "%zu NaN and %zu infinite values at position %lld, first in channel %zu",
            error->n_nan, error->n_inf, (long long)position, error->channel);
    else
        say(slot, "introduces %.3g at position %lld, limit %.2g, channel %zu", error->introduced,
            (long long)position,
            slot->n_failing > 0 ? slot->limit[slot->first] : slot->bound[slot->first],
            error->channel);
    if (slot->n_failing > 0)
        say(slot, "; %s at %zu of %zu positions",
            replayed->part == RP_PART_EXPERTS ? "wrong" : "over the limit", slot->n_failing,
            slot->n_positions);
    else
        say(slot, "; over that at %zu of %zu positions, of which rounding explains about %.0f",
            slot->n_over, slot->n_positions, slot->n_expected);
    if (slot->worst != slot->first && replayed->part != RP_PART_EXPERTS)
        say(slot, ", the farthest at position %lld: %.3g, limit %.2g",
            (long long)slot->positions[slot->worst], slot->introduced[slot->worst],
            slot->limit[slot->worst]);
}

/* What a slot whose inputs are not dumped was shown to. */
static void say_resolution(struct rp_replay_slot *slot)
{
    double resolution = 0, bound = 0;
    for (size_t i = 0; i < slot->n_positions; i++) {
        resolution = slot->limit[i] > resolution ? slot->limit[i] : resolution;
        bound = slot->bound[i] > bound ? slot->bound[i] : bound;
    }
    if (slot->between[0] && resolution > 2 * bound)
        say(slot, "; an error below %.2g may not show: dump %s to see one from %.1g on", resolution,
            slot->between, bound);
}

static void say_all(const struct rp_replayed *replayed, struct rp_replay_slot *slot)
{
    if (slot->verdict == RP_SKIP)
        say(slot, "not replayed");
    else if (slot->verdict == RP_FAIL)
        say_failure(replayed, slot);
    else if (replayed->part == RP_PART_EXPERTS)
        say(slot, "%s", replayed->says && replayed->says[0] ? replayed->says : "the same experts");
    else
        say(slot, "introduces at most %.3g (position %lld), limit %.2g",
            slot->introduced[slot->worst], (long long)slot->positions[slot->worst],
            slot->limit[slot->worst]);
    if (slot->verdict != RP_SKIP && replayed->tips)
        say_resolution(slot);
    if (slot->verdict == RP_FAIL)
        say_state(replayed, slot);
    if (slot->n_left_out > 0)
        say(slot, "; %zu position%s left out: %s", slot->n_left_out,
            slot->n_left_out == 1 ? "" : "s",
            replayed->left_out ? replayed->left_out : "nothing to compute from");
}

/* ---- the verdict ---- */

/* Takes row i up. */
static void take(const struct rp_replayed *replayed, struct rp_replay_slot *slot, size_t i)
{
    const size_t at = slot->n_positions++;
    slot->positions[at] = replayed->positions[i];
    slot->introduced[at] = replayed->errors[i].introduced;
    /* A row of zeros has no relative bound. */
    const double bound = replayed->bound && isfinite(replayed->bound[i]) ? replayed->bound[i] : 0;
    slot->bound[at] = fmax(bound, RP_REPLAY_LEAST_BOUND);
    slot->limit[at] = slot->bound[at];
    if (replayed->tips)
        slot->limit[at] += rp_tips_limit(replayed->tips->worth[i], replayed->tips->own[i]);
    const bool is_over = !(slot->introduced[at] <= slot->limit[at]);
    slot->n_over += slot->introduced[at] <= slot->bound[at] ? 0 : 1;
    if (is_over && slot->n_failing++ == 0)
        slot->first = at;
    /* NaN counts as the largest. */
    const double ratio = slot->introduced[at] / slot->limit[at];
    const double worst = slot->introduced[slot->worst] / slot->limit[slot->worst];
    if (!(ratio <= worst) && !isnan(worst))
        slot->worst = at;
}

/* Are there more positions over the bound than tips make likely? */
static enum rp_status test_share(const struct rp_replayed *replayed, struct rp_replay_slot *slot,
                                 struct rp_error *err)
{
    const size_t n = slot->n_positions;
    double *own = calloc(2 * n + 1, sizeof *own), *earlier = own + n;
    bool *is_over = calloc(n + 1, sizeof *is_over);
    if (!own || !is_over) {
        free(own);
        free(is_over);
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", n);
    }
    for (size_t at = 0, i = 0; at < n; at++) {
        while (replayed->positions[i] != slot->positions[at])
            i++;
        own[at] = replayed->tips->own[i];
        earlier[at] = replayed->tips->earlier[i];
        is_over[at] = !(slot->introduced[at] <= slot->bound[at]);
        slot->n_expected += -expm1(-(own[at] + earlier[at]));
    }
    bool is_explained = true;
    enum rp_status status = RP_OK;
    if (slot->n_failing == 0)
        status = rp_tips_explain(own, earlier, is_over, n, &is_explained, err);
    if (!is_explained) {
        slot->verdict = RP_FAIL;
        slot->first = 0;
        while (!is_over[slot->first])
            slot->first++;
    }
    free(own);
    free(is_over);
    return status;
}

static void name_slot(const struct rp_replayed *replayed, struct rp_replay_slot *slot)
{
    *slot = (struct rp_replay_slot){.part = replayed->part, .layer = replayed->layer};
    rp_slot_name(replayed->part, replayed->layer, slot->slot);
    snprintf(slot->from, sizeof slot->from, "%s", replayed->from);
    snprintf(slot->operation, sizeof slot->operation, "%s", replayed->operation);
    snprintf(slot->between, sizeof slot->between, "%s", replayed->between);
    slot->is_carried = slot->between[0] != '\0';
}

enum rp_status rp_replay_judge(const struct rp_replayed *replayed, struct rp_replay_slot *slot,
                               struct rp_error *err)
{
    const struct rp_dumped *dumped = replayed->dumped;
    name_slot(replayed, slot);
    if (dumped->err.code != RP_OK) {
        slot->verdict = RP_ERROR;
        rp_error_text(&dumped->err, slot->message, sizeof slot->message);
        return RP_OK;
    }
    slot->positions = calloc(replayed->n + 1, sizeof *slot->positions);
    slot->introduced = calloc(replayed->n + 1, sizeof *slot->introduced);
    slot->limit = calloc(replayed->n + 1, sizeof *slot->limit);
    slot->bound = calloc(replayed->n + 1, sizeof *slot->bound);
    if (!slot->positions || !slot->introduced || !slot->limit || !slot->bound) {
        rp_replay_slot_free(slot);
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", replayed->n);
    }
    for (size_t i = 0; i < replayed->n; i++) {
        if (!rp_dumped_row(dumped, replayed->positions[i]))
            continue;
        if (!replayed->founded || replayed->founded[i])
            take(replayed, slot, i);
        else
            slot->n_left_out++;
    }
    if (slot->n_failing == 0)
        slot->first = slot->n_positions;
    slot->verdict = slot->n_positions == 0 ? RP_SKIP : slot->n_failing > 0 ? RP_FAIL : RP_PASS;
    if (replayed->tips && slot->n_positions > 0) {
        const enum rp_status status = test_share(replayed, slot, err);
        if (status != RP_OK) {
            rp_replay_slot_free(slot);
            return status;
        }
    }
    say_all(replayed, slot);
    return RP_OK;
}

void rp_replay_slot_free(struct rp_replay_slot *slot)
{
    free(slot->positions);
    free(slot->introduced);
    free(slot->limit);
    free(slot->bound);
    *slot = (struct rp_replay_slot){.positions = NULL};
}

/* ERROR over FAIL over XFAIL over MARGINAL over PASS over SKIP. */
static int rank(enum rp_verdict verdict)
{
    static const int ranks[] = {[RP_SKIP] = 0,  [RP_PASS] = 1, [RP_MARGINAL] = 2,
                                [RP_XFAIL] = 3, [RP_FAIL] = 4, [RP_ERROR] = 5};
    return ranks[verdict];
}

void rp_replay_conclude(struct rp_replay_layer *result)
{
    bool is_skipped = false;
    result->verdict = RP_SKIP;
    result->first_failing = NULL;
    for (size_t i = 0; i < result->n_slots; i++) {
        const struct rp_replay_slot *slot = &result->slots[i];
        if (rank(slot->verdict) > rank(result->verdict))
            result->verdict = slot->verdict;
        if (slot->verdict == RP_FAIL && !result->first_failing)
            result->first_failing = slot;
        is_skipped |= slot->n_left_out > 0;
    }
    /* Positions that are dumped, and that nothing could be said of, keep the layer from passing. */
    if (result->verdict == RP_PASS && is_skipped)
        result->verdict = RP_SKIP;
}

void rp_replay_layer_free(struct rp_replay_layer *result)
{
    for (size_t i = 0; i < result->n_slots; i++)
        rp_replay_slot_free(&result->slots[i]);
    *result = (struct rp_replay_layer){.n_slots = 0};
}
