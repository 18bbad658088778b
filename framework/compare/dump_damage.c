/* See dump_damage.h. A genuine failure costs little: a row per encoding, a search for three rows, and
 * the slots behind it, which are looked at only where something was recognised. */
#include "compare/dump_damage.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare/damage_rows.h"
#include "refparity/metrics.h"

enum { RIGHT = 1, WRONG = 2 };
enum { N_WITNESSES = 3 }; /* in the residual stream, before post_norm and logits are asked */

/* A slot of both sides, open. */
struct open_slot {
    struct rp_tensor right, engine;
    struct rp_damage_rows rows;
};

struct exam {
    const struct rp_comparison *comparison;
    struct rp_damage_memory *memory; /* or NULL */
    struct rp_slot_result *result;
    const struct rp_damage_rows *rows;
    size_t index; /* of the slot in the reference */
};

void rp_damage_memory_free(struct rp_damage_memory *memory)
{
    free(memory->right);
    memset(memory, 0, sizeof *memory);
}

static double limit_of(const struct rp_comparison *c, const char *slot)
{
    int layer;
    if (rp_slot_parse(slot, &layer) == RP_PART_LOGITS)
        return RP_DAMAGE_NEAR_LOGITS;
    const double limit = rp_limits_l2_rel(&c->limits, slot);
    return limit < RP_DAMAGE_NEAR ? limit : RP_DAMAGE_NEAR;
}

static void close_slot(struct open_slot *slot)
{
    rp_damage_rows_close(&slot->rows);
    rp_tensor_release(&slot->right);
    rp_tensor_release(&slot->engine);
}

/* False when a side lacks it, or it cannot be read. Close only after success. */
static int open_slot(const struct rp_comparison *c, const char *name, struct open_slot *slot)
{
    memset(slot, 0, sizeof *slot);
    if (!rp_tensor_set_find(c->engine, name) ||
        rp_tensor_load(c->reference, name, &slot->right, NULL) ||
        rp_tensor_load(c->engine, name, &slot->engine, NULL) ||
        rp_damage_rows_open(&slot->rows, &slot->right, &slot->engine, c->positions, c->n_positions,
                            limit_of(c, name))) {
        close_slot(slot);
        return 0;
    }
    return 1;
}

static const char *slot_name(const struct exam *x, size_t index)
{
    return rp_tensor_set_slot(x->comparison->reference, index)->name;
}

static enum rp_slot_part part_of(const char *slot)
{
    int layer;
    return rp_slot_parse(slot, &layer);
}

/* ---- witnesses ---- */

static int is_known_wrong(const struct exam *x, size_t index)
{
    return x->memory && x->memory->right && x->memory->right[index] == WRONG;
}

static void remember(const struct exam *x, size_t index, int what)
{
    const size_t n = rp_tensor_set_n_slots(x->comparison->reference);
    if (!x->memory)
        return;
    if (!x->memory->right)
        x->memory->right = calloc(n + 1, 1);
    if (x->memory->right)
        x->memory->right[index] = (char)what;
}

/* ||row|| of the stream at its end, what post_norm and logits are relative to: of the last layer that the
 * reference has, at position. NAN when it has none. */
static double stream_norm(const struct rp_tensor *stream, int64_t position)
{
    for (size_t i = 0; i < stream->n_positions; i++)
        if (stream->positions[i] == position) {
            const char *row = (const char *)stream->data + i * stream->dim * sizeof(float);
            return rp_metrics_row(row, row, stream->dim).norm_ref;
        }
    return (double)NAN;
}

static void load_stream(const struct rp_comparison *c, struct rp_tensor *stream)
{
    char name[RP_SLOT_NAME_SIZE];
    memset(stream, 0, sizeof *stream);
    for (int l = c->n_layers - 1; l >= 0; l--) {
        rp_slot_name(RP_PART_OUTPUT, l, name);
        if (rp_tensor_set_find(c->reference, name)) {
            if (rp_tensor_load(c->reference, name, stream, NULL))
                memset(stream, 0, sizeof *stream);
            return;
        }
    }
}

/* Is the witness right where the slot fails, at an error that the slot's cannot have led to? stream: NULL
 * when the witness is in the residual stream itself, or right behind post_norm. */
static int clears(const struct rp_damage_rows *slot, const struct rp_damage_rows *witness,
                  double limit, int is_relative, const struct rp_tensor *stream)
{
    size_t n = 0;
    for (size_t i = 0, j = 0; i < slot->n_pairs; i++) {
        const struct rp_damage_pair *here = &slot->pairs[i];
        while (j < witness->n_pairs && witness->pairs[j].position < here->position)
            j++;
        if (!here->fails || j == witness->n_pairs || witness->pairs[j].position != here->position)
            continue;
        const struct rp_damage_pair *there = &witness->pairs[j];
        double error = is_relative ? there->l2_rel : there->error;
        if (stream)
            error *= stream_norm(stream, here->position);
        const double before = is_relative && !stream ? here->l2_rel : here->error;
        if (!(there->l2_rel <= limit) || (isfinite(before) && !(error * RP_DAMAGE_GAIN <= before)))
            return 0;
        n++;
    }
    return n > 0;
}

static int is_last_layer(const struct exam *x)
{
    int layer;
    return rp_slot_parse(x->result->slot, &layer) == RP_PART_OUTPUT &&
           layer == x->comparison->n_layers - 1;
}

static int is_witness(const struct exam *x, size_t index, int exact)
{
    const char *name = slot_name(x, index);
    const enum rp_slot_part part = part_of(name);
    const int is_relative = part == RP_PART_POST_NORM || part == RP_PART_LOGITS;
    const int is_far = part_of(x->result->slot) != RP_PART_POST_NORM && !is_last_layer(x);
    struct open_slot witness;
    struct rp_tensor stream;
    if (is_known_wrong(x, index) || !open_slot(x->comparison, name, &witness))
        return 0;
    memset(&stream, 0, sizeof stream);
    int holds = witness.rows.n_pairs > 0 && witness.rows.n_failing == 0;
    remember(x, index, holds ? RIGHT : WRONG);
    const double limit = exact || (is_relative && is_far) ? RP_DAMAGE_EXACT : witness.rows.limit;
    if (holds && is_relative && part_of(x->result->slot) != RP_PART_POST_NORM) {
        load_stream(x->comparison, &stream);
        holds = stream.data && clears(x->rows, &witness.rows, limit, 1, &stream);
        rp_tensor_release(&stream);
    } else if (holds) {
        holds = clears(x->rows, &witness.rows, limit, is_relative, NULL);
    }
    close_slot(&witness);
    return holds;
}

/* Index of a later slot that is right, which the slot's rows cannot have led to; 0: there is none. */
static size_t find_witness(const struct exam *x, int exact)
{
    const size_t n = rp_tensor_set_n_slots(x->comparison->reference);
    const int in_stream = part_of(x->result->slot) != RP_PART_POST_NORM;
    int asked = 0;
    for (size_t i = x->index + 1; i < n; i++) {
        const enum rp_slot_part part = part_of(slot_name(x, i));
        const int is_stream =
            part == RP_PART_IN || part == RP_PART_POSTATTN || part == RP_PART_OUTPUT;
        if (is_stream && in_stream && asked < N_WITNESSES)
            asked += rp_tensor_set_find(x->comparison->engine, slot_name(x, i)) != NULL;
        else if (part != RP_PART_POST_NORM && part != RP_PART_LOGITS)
            continue;
        if (is_witness(x, i, exact))
            return i;
    }
    return 0;
}

/* ---- the same in every slot ---- */

/* A slot that holds few positions, as the logits' may, has to agree but proves nothing by itself. */
static int is_displaced_everywhere(const struct rp_comparison *c, const int64_t *positions,
                                   const int64_t *source, size_t n, double limit)
{
    size_t n_slots = 0;
    for (size_t i = 0; i < rp_tensor_set_n_slots(c->reference); i++) {
        struct open_slot slot;
        size_t n_found;
        const char *name = rp_tensor_set_slot(c->reference, i)->name;
        if (!rp_slot_is_required(name) || !rp_tensor_set_find(c->engine, name))
            continue;
        if (!open_slot(c, name, &slot))
            return 0;
        const int there = rp_damage_stand_at(&slot.rows, positions, source, n, limit, &n_found);
        close_slot(&slot);
        if (!there)
            return 0;
        n_slots += n_found >= 3;
    }
    return n_slots >= 3; /* emb, and what at least two layers computed from it */
}

/* The limit that rows have to come to everywhere; 0: damage shows nothing of what was computed. The last
 * row everywhere shows the rows before it; each row once shows itself, where it comes from an early
 * position and stands elsewhere. */
static double limit_everywhere(const struct rp_damage_rows *rows, const struct rp_damage *damage)
{
    const int64_t last = rows->right.positions[rows->right.n_positions - 1];
    size_t n_early = 0, n_last = 0;
    for (size_t i = 0; i < rows->n_pairs; i++) {
        const int64_t source = damage->source[i];
        n_early += source >= 1 && source <= RP_DAMAGE_EARLY && source != rows->pairs[i].position;
        n_last += source == last;
    }
    if (n_last == rows->n_pairs)
        return RP_DAMAGE_EXACT;
    return damage->each_once && n_early >= 2 ? RP_DAMAGE_SAME : 0;
}

/* Rows that are not like any other, as far as they are known. */
static int are_distinct(const struct rp_damage_rows *rows, const struct rp_damage *damage)
{
    const double near = damage->l2_rel > RP_DAMAGE_EXACT ? damage->l2_rel : RP_DAMAGE_EXACT;
    const size_t n = rp_damage_count_distinct(rows, damage, RP_DAMAGE_GAIN * near);
    return n >= 3 && 2 * n >= damage->n_undone;
}

/* By the rows of h{layer}, which differ where those of emb, of equal tokens, do not. */
static int find_by_layer(const struct rp_comparison *c, const struct open_slot *layer)
{
    struct rp_damage damage;
    const size_t n = layer->rows.n_pairs;
    int found = 0;
    int64_t *positions = malloc((n + 1) * sizeof *positions);
    if (positions && rp_damage_find_displaced(&layer->rows, &damage) == RP_OK) {
        const double limit = damage.kind ? limit_everywhere(&layer->rows, &damage) : 0;
        for (size_t i = 0; i < n; i++)
            positions[i] = layer->rows.pairs[i].position;
        found = damage.kind && damage.l2_rel < limit && are_distinct(&layer->rows, &damage) &&
                is_displaced_everywhere(c, positions, damage.source, n, limit);
        rp_damage_free(&damage);
    }
    free(positions);
    return found;
}

/* By the last layer that holds enough positions. */
static int find_everywhere(const struct exam *x)
{
    const struct rp_comparison *c = x->comparison;
    int found = 0, asked = 0;
    if (x->memory && x->memory->everywhere)
        return x->memory->everywhere == RIGHT;
    for (int l = c->n_layers - 1; l >= 0 && !asked; l--) {
        char name[RP_SLOT_NAME_SIZE];
        struct open_slot layer;
        rp_slot_name(RP_PART_OUTPUT, l, name);
        if (!rp_tensor_set_find(c->reference, name) || !open_slot(c, name, &layer))
            continue;
        asked = l == 0 || layer.rows.n_pairs >= 3;
        if (asked)
            found = find_by_layer(c, &layer);
        close_slot(&layer);
    }
    if (x->memory)
        x->memory->everywhere = found ? RIGHT : WRONG;
    return found;
}

/* ---- another slot's rows ---- */

/* Compares with slot number index of the reference; keeps the nearest. */
static void try_other(const struct exam *x, size_t index, size_t *n_bytes, struct rp_damage *best)
{
    const char *name = slot_name(x, index);
    const struct rp_slot_info *info = rp_tensor_set_slot(x->comparison->reference, index);
    const size_t size = info->n_positions * info->dim * sizeof(float);
    struct rp_tensor other;
    struct rp_damage damage;
    if (info->dim != x->rows->engine.dim || *n_bytes + size > RP_DAMAGE_MAX_BYTES)
        return;
    if (rp_tensor_load(x->comparison->reference, name, &other, NULL))
        return;
    *n_bytes += size;
    rp_damage_match_other(x->rows, &other, &damage);
    rp_tensor_release(&other);
    if (!damage.kind || (best->kind && damage.l2_rel >= best->l2_rel))
        return;
    *best = damage;
    snprintf(best->text, sizeof best->text, "it holds the rows of %s", name);
}

/* Required slots first: h4_in is what h3 is, and h3 the better name. */
static void find_other(const struct exam *x, struct rp_damage *best)
{
    const size_t n = rp_tensor_set_n_slots(x->comparison->reference);
    size_t n_bytes = 0;
    memset(best, 0, sizeof *best);
    for (int required = 1; required >= 0 && !best->kind; required--)
        for (size_t away = 1; away < n; away++) {
            const size_t before = x->index - away, after = x->index + away; /* before may wrap */
            if (before < n && rp_slot_is_required(slot_name(x, before)) == required)
                try_other(x, before, &n_bytes, best);
            if (after < n && rp_slot_is_required(slot_name(x, after)) == required)
                try_other(x, after, &n_bytes, best);
        }
}

/* ---- the verdict ---- */

static void declare(const struct exam *x, const struct rp_damage *damage, const char *evidence)
{
    struct rp_slot_result *result = x->result;
    char undone[160] = "";
    if (damage->n_undone)
        snprintf(undone, sizeof undone, "; %s, L2_rel is %.2g at most, at %zu positions",
                 damage->kind == RP_DAMAGE_UNWRITTEN    ? "in what was written"
                 : damage->kind == RP_DAMAGE_OTHER_SLOT ? "as these"
                                                        : "undone",
                 damage->l2_rel, damage->n_undone);
    result->verdict = RP_ERROR;
    snprintf(result->message, sizeof result->message, "%s damaged: %s%s%s",
             x->comparison->reference_is_dump ? "one of the two dumps is" : "the dump is",
             damage->text, undone, evidence);
}

static void declare_by_witness(const struct exam *x, const struct rp_damage *damage, size_t witness)
{
    char evidence[128];
    snprintf(evidence, sizeof evidence, "; %s, which is computed from it, is right",
             slot_name(x, witness));
    declare(x, damage, evidence);
}

/* The next required slot is right, or transposed as well; or there is none. */
static int may_be_transposed(const struct exam *x)
{
    for (size_t i = x->index + 1; i < rp_tensor_set_n_slots(x->comparison->reference); i++) {
        struct open_slot next;
        struct rp_damage damage;
        if (!rp_slot_is_required(slot_name(x, i)) ||
            !rp_tensor_set_find(x->comparison->engine, slot_name(x, i)))
            continue;
        if (!open_slot(x->comparison, slot_name(x, i), &next))
            return 0;
        const int holds =
            next.rows.n_pairs > 0 &&
            (next.rows.n_failing == 0 || (rp_damage_find_encoding(&next.rows, &damage) == RP_OK &&
                                          damage.kind == RP_DAMAGE_TRANSPOSED));
        close_slot(&next);
        return holds;
    }
    return 1;
}

static void examine_encoding(const struct exam *x)
{
    struct rp_damage damage;
    if (rp_damage_find_encoding(x->rows, &damage) || !damage.kind)
        return;
    if (damage.kind != RP_DAMAGE_TRANSPOSED || may_be_transposed(x))
        declare(x, &damage, "");
}

static void examine_places(const struct exam *x)
{
    struct rp_damage damage;
    size_t witness;
    if (rp_damage_find_displaced(x->rows, &damage))
        return;
    if (!damage.kind)
        return;
    if ((witness = find_witness(x, 0)) != 0)
        declare_by_witness(x, &damage, witness);
    else if (find_everywhere(x))
        declare(x, &damage, "; every slot is damaged like that, and undone every one is right");
    rp_damage_free(&damage);
}

static int all_later_are_right(const struct exam *x)
{
    for (size_t i = x->index + 1; i < rp_tensor_set_n_slots(x->comparison->reference); i++) {
        struct open_slot later;
        const char *name = slot_name(x, i);
        if (!rp_slot_is_required(name) || !rp_tensor_set_find(x->comparison->engine, name))
            continue;
        if (is_known_wrong(x, i) || !open_slot(x->comparison, name, &later))
            return 0;
        const int holds = later.rows.n_pairs > 0 && later.rows.n_failing == 0;
        remember(x, i, holds ? RIGHT : WRONG);
        close_slot(&later);
        if (!holds)
            return 0;
    }
    return 1;
}

/* For another slot's rows. Where layers run late by one, every slot is another's; of a quantized engine
 * the sum of all that follows shows it, at more than one position. */
static size_t find_strict_witness(const struct exam *x)
{
    if (part_of(x->result->slot) == RP_PART_POST_NORM)
        return find_witness(x, 0);
    const size_t witness = find_witness(x, 1);
    return witness || x->rows->n_pairs < 2 || !all_later_are_right(x) ? witness
                                                                      : find_witness(x, 0);
}

static void examine_content(const struct exam *x)
{
    struct rp_damage damage;
    const int is_unwritten = rp_damage_find_unwritten(x->rows, &damage) == RP_OK && damage.kind;
    const size_t witness = is_unwritten ? find_witness(x, 0) : find_strict_witness(x);
    if (!witness)
        return;
    if (!is_unwritten)
        find_other(x, &damage);
    if (damage.kind)
        declare_by_witness(x, &damage, witness);
}

/* Of both tensors of a slot, SIZE_MAX where one is missing. */
static size_t bytes_of_both(const struct rp_comparison *c, const char *slot)
{
    const struct rp_slot_info *right = rp_tensor_set_find(c->reference, slot);
    const struct rp_slot_info *engine = rp_tensor_set_find(c->engine, slot);
    const size_t limit = SIZE_MAX / 4 / sizeof(float);
    if (!right || !engine || right->dim > limit / (right->n_positions + 1) ||
        engine->dim > limit / (engine->n_positions + 1))
        return SIZE_MAX;
    return (right->n_positions * right->dim + engine->n_positions * engine->dim) * sizeof(float);
}

void rp_damage_explain_width(const struct rp_comparison *comparison, struct rp_slot_result *result)
{
    struct rp_tensor right = {0}, engine = {0};
    struct rp_damage damage;
    const size_t used = strlen(result->message);
    if (bytes_of_both(comparison, result->slot) <= RP_DAMAGE_MAX_BYTES &&
        !rp_tensor_load(comparison->reference, result->slot, &right, NULL) &&
        !rp_tensor_load(comparison->engine, result->slot, &engine, NULL) &&
        !rp_damage_find_width(&right, &engine, limit_of(comparison, result->slot), &damage) &&
        damage.kind)
        snprintf(result->message + used, sizeof result->message - used, ": %s (L2_rel %.2g)",
                 damage.text, damage.l2_rel);
    rp_tensor_release(&right);
    rp_tensor_release(&engine);
}

void rp_damage_examine(const struct rp_comparison *comparison, struct rp_damage_memory *memory,
                       struct rp_slot_result *result)
{
    struct exam x = {comparison, memory, result, NULL, 0};
    struct open_slot slot;
    const size_t n = rp_tensor_set_n_slots(comparison->reference);
    if (result->verdict != RP_FAIL)
        return;
    while (x.index < n && strcmp(slot_name(&x, x.index), result->slot) != 0)
        x.index++;
    if (x.index == n || !open_slot(comparison, result->slot, &slot))
        return;
    x.rows = &slot.rows;
    if (slot.rows.n_failing > 0) {
        remember(&x, x.index, WRONG);
        examine_encoding(&x);
        if (result->required && result->verdict == RP_FAIL)
            examine_places(&x);
        if (result->required && result->verdict == RP_FAIL)
            examine_content(&x);
    }
    close_slot(&slot);
}
