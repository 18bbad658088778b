/* See departure.h. */
#include "diagnose/departure.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNIT 5.9604644775390625e-8 /* u = 2^-24 */
#define FP32_NOISE (UNIT * 128)    /* sqrt(16384) */

/* A slot on both sides; data NULL: it is not. */
struct sides {
    struct rp_tensor ref, engine;
};

static void close_sides(struct sides *sides)
{
    rp_tensor_release(&sides->ref);
    rp_tensor_release(&sides->engine);
}

static bool open_sides(const struct rp_comparison *c, const char *slot, struct sides *sides)
{
    const struct rp_slot_info *ref = rp_tensor_set_find(c->reference, slot);
    const struct rp_slot_info *engine = rp_tensor_set_find(c->engine, slot);
    memset(sides, 0, sizeof *sides);
    if (ref && engine && ref->dim == engine->dim &&
        !rp_tensor_load(c->reference, slot, &sides->ref, NULL) &&
        !rp_tensor_load(c->engine, slot, &sides->engine, NULL))
        return true;
    close_sides(sides);
    return false;
}

static double value(const char *row, size_t i)
{
    float v;
    memcpy(&v, row + i * sizeof v, sizeof v);
    return (double)v;
}

/* Error and noise of what lies between two slots of the stream at position; false where one is missing
 * there, adds nothing, or is not finite. */
static bool branch_error(const struct sides *before, const struct sides *after, int64_t position,
                         double *error, double *noise)
{
    const char *rb = rp_tensor_row(&before->ref, position),
               *ra = rp_tensor_row(&after->ref, position);
    const char *eb = rp_tensor_row(&before->engine, position),
               *ea = rp_tensor_row(&after->engine, position);
    double added = 0, off = 0, stream = 0;
    if (!rb || !ra || !eb || !ea || before->ref.dim != after->ref.dim)
        return false;
    for (size_t i = 0; i < after->ref.dim; i++) {
        const double r = value(ra, i) - value(rb, i), e = value(ea, i) - value(eb, i);
        added += r * r;
        off += (e - r) * (e - r);
        stream += value(ra, i) * value(ra, i);
    }
    if (!(added > 0) || !isfinite(off))
        return false;
    *error = sqrt(off / added);
    *noise = FP32_NOISE + 2 * UNIT * sqrt(stream / added);
    return true;
}

static bool is_wanted(const struct rp_comparison *c, int64_t position)
{
    for (size_t i = 0; i < c->n_positions; i++)
        if (c->positions[i] == position)
            return true;
    return !c->positions;
}

struct search {
    const struct rp_comparison *comparison;
    const int64_t *positions; /* [n], of the stream's first slot in the reference */
    size_t n;
    double *past; /* [n] the largest error of the branches so far at each position, -1: none */
    double *now;  /* [n] the same of the branch under way */
    double largest;
    struct rp_departure *departure;
};

/* Of one branch; after is its slot. */
static void judge_branch(struct search *s, const struct sides *before, const struct sides *after,
                         const char *slot)
{
    double largest = -1; /* of the past, up to the position */
    for (size_t i = 0; i < s->n; i++) {
        double error, noise;
        s->now[i] = -1;
        largest = s->past[i] > largest ? s->past[i] : largest;
        if (!is_wanted(s->comparison, s->positions[i]) ||
            !branch_error(before, after, s->positions[i], &error, &noise))
            continue;
        s->now[i] = error;
        const double base = largest > noise ? largest : noise;
        if (largest >= 0 && error / base > s->largest)
            s->largest = error / base;
        if (largest >= 0 && error > RP_DEPARTURE_JUMP * base && !s->departure->slot[0]) {
            snprintf(s->departure->slot, sizeof s->departure->slot, "%s", slot);
            s->departure->position = s->positions[i];
            s->departure->error = error;
            s->departure->noise = base;
        }
        largest = error > largest ? error : largest;
    }
    for (size_t i = 0; i < s->n; i++)
        s->past[i] = s->now[i] > s->past[i] ? s->now[i] : s->past[i];
}

/* The slots of the stream in forward order: emb, then of each layer _postattn and its output, as far as
 * both sides have them. A layer whose input is dumped begins with that. */
static void walk_stream(struct search *s, struct sides *before)
{
    static const enum rp_slot_part parts[] = {RP_PART_POSTATTN, RP_PART_OUTPUT};
    for (int layer = 0; layer < s->comparison->n_layers; layer++)
        for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
            char slot[RP_SLOT_NAME_SIZE];
            struct sides after;
            if (!open_sides(s->comparison, rp_slot_name(parts[i], layer, slot), &after))
                continue;
            judge_branch(s, before, &after, slot);
            close_sides(before);
            *before = after;
        }
}

/* The largest L2_rel of slot at positions up to and without end; -1: there is none. */
static double largest_before(const struct rp_comparison *c, const char *slot, int64_t end)
{
    struct sides sides;
    double largest = -1;
    if (!open_sides(c, slot, &sides))
        return -1;
    for (size_t i = 0; i < sides.ref.n_positions && sides.ref.positions[i] < end; i++) {
        const char *r = rp_tensor_row(&sides.ref, sides.ref.positions[i]);
        const char *e = rp_tensor_row(&sides.engine, sides.ref.positions[i]);
        if (e && is_wanted(c, sides.ref.positions[i])) {
            const double l2_rel = rp_metrics_row(r, e, sides.ref.dim).l2_rel;
            largest = l2_rel > largest ? l2_rel : largest;
        }
    }
    close_sides(&sides);
    return largest;
}

/* L2_rel of slot at one position; -1: there is none. */
static double error_at(const struct rp_comparison *c, const char *slot, int64_t position)
{
    struct sides sides;
    double l2_rel = -1;
    if (!open_sides(c, slot, &sides))
        return -1;
    const char *r = rp_tensor_row(&sides.ref, position),
               *e = rp_tensor_row(&sides.engine, position);
    if (r && e)
        l2_rel = rp_metrics_row(r, e, sides.ref.dim).l2_rel;
    close_sides(&sides);
    return l2_rel;
}

/* The first slot of the branch that departs from its own past: its positions before, and the same slot of
 * the layer before. */
static void find_slot(const struct rp_comparison *c, struct rp_departure *d)
{
    int layer;
    const enum rp_slot_part last = rp_slot_parse(d->slot, &layer);
    const bool has_postattn = rp_tensor_set_find(c->engine, d->slot) && last == RP_PART_OUTPUT;
    char name[RP_SLOT_NAME_SIZE];
    rp_slot_name(RP_PART_POSTATTN, layer, name);
    const enum rp_slot_part first = has_postattn && rp_tensor_set_find(c->engine, name) &&
                                            rp_tensor_set_find(c->reference, name)
                                        ? RP_PART_PREFFN
                                        : RP_PART_PREATTN;
    for (enum rp_slot_part part = first; part < last; part++) {
        const double here = error_at(c, rp_slot_name(part, layer, name), d->position);
        double past = largest_before(c, name, d->position);
        if (layer > 0) {
            char above[RP_SLOT_NAME_SIZE];
            const double other =
                largest_before(c, rp_slot_name(part, layer - 1, above), d->position + 1);
            past = other > past ? other : past;
        }
        const double base = past > FP32_NOISE ? past : FP32_NOISE;
        if (past < 0 || !(here > RP_DEPARTURE_JUMP * base))
            continue;
        snprintf(d->operation_slot, sizeof d->operation_slot, "%s", name);
        return;
    }
}

static void explain(const struct rp_comparison *c, struct rp_departure *d)
{
    int layer;
    const bool is_ffn = rp_slot_parse(d->slot, &layer) == RP_PART_OUTPUT;
    char whole[RP_SLOT_NAME_SIZE];
    rp_slot_name(RP_PART_POSTATTN, layer, whole);
    const bool is_split =
        rp_tensor_set_find(c->engine, whole) && rp_tensor_set_find(c->reference, whole);
    snprintf(
        d->explanation, sizeof d->explanation,
        "what %s of layer %d adds is off by %.3g at position %lld; before, in earlier slots and "
        "positions, by %.3g at most%s%s",
        !is_ffn    ? "the attention"
        : is_split ? "the FFN"
                   : "all",
        layer, d->error, (long long)d->position, d->noise,
        d->operation_slot[0] ? "; the first slot to show it is " : "", d->operation_slot);
}

void rp_find_departure(const struct rp_comparison *comparison, struct rp_departure *departure,
                       double *largest)
{
    struct sides before;
    memset(departure, 0, sizeof *departure);
    departure->position = -1;
    struct search s = {.comparison = comparison, .departure = departure};
    if (open_sides(comparison, "emb", &before)) {
        s.n = before.ref.n_positions;
        s.positions = before.ref.positions; /* the set's */
        s.past = malloc(2 * (s.n + 1) * sizeof *s.past);
        for (size_t i = 0; s.past && i < 2 * (s.n + 1); i++)
            s.past[i] = -1;
        if (s.past) {
            s.now = s.past + s.n + 1;
            walk_stream(&s, &before);
        }
        free(s.past);
        close_sides(&before);
    }
    if (largest)
        *largest = s.largest;
    if (!departure->slot[0])
        return;
    find_slot(comparison, departure);
    explain(comparison, departure);
}
