/* See damage_rows.h; rows at other positions are in damage_displaced.c. A hypothesis is given up at the
 * first row that it does not explain, so what is no damage costs a row each. */
#include "compare/damage_rows.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "refparity/metrics.h"

#define SAY(damage, ...) snprintf((damage)->text, sizeof(damage)->text, __VA_ARGS__)

static const void *row_of(const struct rp_tensor *tensor, size_t row)
{
    return (const char *)tensor->data + row * tensor->dim * sizeof(float);
}

enum rp_status rp_damage_rows_open(struct rp_damage_rows *rows, const struct rp_tensor *right,
                                   const struct rp_tensor *engine, const int64_t *positions,
                                   size_t n_positions, double limit)
{
    memset(rows, 0, sizeof *rows);
    if (right->dim != engine->dim)
        return RP_ERR_MISMATCH;
    rows->right = *right;
    rows->engine = *engine;
    rows->limit = limit;
    const size_t most =
        right->n_positions < engine->n_positions ? right->n_positions : engine->n_positions;
    rows->pairs = calloc(most + 1, sizeof *rows->pairs);
    if (!rows->pairs)
        return RP_ERR_MEMORY;
    for (size_t r = 0, e = 0, w = 0; r < right->n_positions && e < engine->n_positions;) {
        const int64_t position = right->positions[r];
        while (positions && w < n_positions && positions[w] < position)
            w++;
        if (position < engine->positions[e]) {
            r++;
        } else if (position > engine->positions[e]) {
            e++;
        } else {
            if (!positions || (w < n_positions && positions[w] == position)) {
                struct rp_damage_pair *pair = &rows->pairs[rows->n_pairs++];
                const struct rp_metrics m =
                    rp_metrics_row(row_of(right, r), row_of(engine, e), right->dim);
                *pair = (struct rp_damage_pair){
                    position, r, e, m.l2_rel, m.l2_rel * m.norm_ref, !(m.l2_rel < limit)};
                rows->n_failing += (size_t)pair->fails;
            }
            r++;
            e++;
        }
    }
    return RP_OK;
}

void rp_damage_rows_close(struct rp_damage_rows *rows)
{
    free(rows->pairs);
    memset(rows, 0, sizeof *rows);
}

void rp_damage_free(struct rp_damage *damage)
{
    free(damage->source);
    memset(damage, 0, sizeof *damage);
}

/* ---- encodings ---- */

enum encoding { BYTES_4, BYTES_2, HALVES, F16, BF16, F64, TRANSPOSED };

struct hypothesis {
    enum rp_damage_kind kind;
    enum encoding encoding;
    int by_row; /* each row starts where an FP32 row would; 0: they lie one after the other */
    const char *text;
};

static const struct hypothesis hypotheses[] = {
    {RP_DAMAGE_SWAPPED, BYTES_4, 0, "its bytes are swapped: write FP32 little-endian"},
    {RP_DAMAGE_SWAPPED, BYTES_2, 0,
     "the bytes of each half value are swapped: write FP32 little-endian"},
    {RP_DAMAGE_SWAPPED, HALVES, 0,
     "the halves of its values are swapped: write FP32 little-endian"},
    {RP_DAMAGE_FORMAT, F16, 0, "it holds F16, not FP32"},
    {RP_DAMAGE_FORMAT, F16, 1, "its rows hold F16 in their first half, not FP32"},
    {RP_DAMAGE_FORMAT, BF16, 0, "it holds BF16, not FP32"},
    {RP_DAMAGE_FORMAT, BF16, 1, "its rows hold BF16 in their first half, not FP32"},
    {RP_DAMAGE_FORMAT, F64, 0, "it holds F64, of which half fits, not FP32"},
    {RP_DAMAGE_FORMAT, F64, 1, "its rows hold F64, of which half fits, not FP32"},
    {RP_DAMAGE_TRANSPOSED, TRANSPOSED, 0,
     "it is transposed: written channel by channel, not row by row"},
};

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* IEEE 754 binary16. */
static float from_f16(uint16_t bits)
{
    const int exponent = bits >> 10 & 0x1f;
    const float fraction = (float)(bits & 0x3ff);
    const float sign = bits & 0x8000 ? -1.0f : 1.0f;
    if (exponent == 0)
        return sign * ldexpf(fraction, -24);
    if (exponent == 0x1f)
        return fraction > 0 ? NAN : sign * INFINITY;
    return sign * ldexpf(1024.0f + fraction, exponent - 25);
}

static float from_f64(const unsigned char *at)
{
    double value;
    memcpy(&value, at, sizeof value);
    return fabs(value) <= (double)FLT_MAX ? (float)value : NAN;
}

static float from_2(const unsigned char *at, enum encoding encoding)
{
    uint16_t bits;
    memcpy(&bits, at, sizeof bits);
    return encoding == F16 ? from_f16(bits) : from_bits((uint32_t)bits << 16);
}

static float from_4(const unsigned char *at, enum encoding encoding)
{
    const uint32_t a = at[0], b = at[1], c = at[2], d = at[3]; /* a: the lowest byte as it stands */
    switch (encoding) {
    case BYTES_4: return from_bits(a << 24 | b << 16 | c << 8 | d);
    case BYTES_2: return from_bits(c << 24 | d << 16 | a << 8 | b);
    case HALVES: return from_bits(b << 24 | a << 16 | d << 8 | c);
    default: return from_bits(d << 24 | c << 16 | b << 8 | a);
    }
}

/* Engine row number row as it was before, out [dim]; returns how many of its values the file holds. */
static size_t undo(const struct hypothesis *h, const struct rp_tensor *engine, size_t row,
                   float *out)
{
    const unsigned char *bytes = engine->data;
    const size_t dim = engine->dim, n_bytes = engine->n_positions * dim * sizeof(float);
    size_t size = sizeof(float);
    if (h->encoding == F16 || h->encoding == BF16)
        size = 2;
    else if (h->encoding == F64)
        size = 8;
    const size_t start = h->encoding == TRANSPOSED ? row * size
                         : h->by_row               ? row * dim * sizeof(float)
                                                   : row * dim * size;
    const size_t end = h->by_row ? start + dim * sizeof(float) : n_bytes;
    const size_t step = h->encoding == TRANSPOSED ? engine->n_positions * size : size;
    size_t n = 0;
    for (size_t at = start; n < dim && at <= end && end - at >= size; at += step, n++)
        out[n] = size == 2   ? from_2(bytes + at, h->encoding)
                 : size == 8 ? from_f64(bytes + at)
                             : from_4(bytes + at, h->encoding);
    return n;
}

/* A row that is this much nearer than it stood explains it; one that stood right has to stay so. */
static int explains(const struct rp_damage_rows *rows, const struct rp_damage_pair *pair,
                    double l2_rel)
{
    return l2_rel < rows->limit &&
           (!pair->fails || !isfinite(pair->l2_rel) || l2_rel * RP_DAMAGE_GAIN <= pair->l2_rel);
}

static void note(struct rp_damage *damage, double l2_rel)
{
    damage->n_undone++;
    damage->l2_rel = l2_rel > damage->l2_rel ? l2_rel : damage->l2_rel;
}

/* Of a wider format half of each row is there, so their values are counted together. */
static int is_encoded(const struct rp_damage_rows *rows, const struct hypothesis *h, float *buffer,
                      struct rp_damage *damage)
{
    size_t n_values = 0;
    for (size_t i = 0; i < rows->n_pairs; i++) {
        const struct rp_damage_pair *pair = &rows->pairs[i];
        const size_t n = undo(h, &rows->engine, pair->engine, buffer);
        if (n < RP_DAMAGE_MIN_VALUES / 2)
            continue;
        const double l2_rel = rp_metrics_row(row_of(&rows->right, pair->right), buffer, n).l2_rel;
        if (!explains(rows, pair, l2_rel))
            return 0;
        note(damage, l2_rel);
        n_values += n;
    }
    return n_values >= RP_DAMAGE_MIN_VALUES;
}

enum rp_status rp_damage_find_encoding(const struct rp_damage_rows *rows, struct rp_damage *damage)
{
    memset(damage, 0, sizeof *damage);
    const size_t dim = rows->engine.dim;
    if (rows->n_failing == 0 || dim < RP_DAMAGE_MIN_VALUES)
        return RP_OK;
    float *buffer = malloc(dim * sizeof *buffer);
    if (!buffer)
        return RP_ERR_MEMORY;
    for (size_t i = 0; i < sizeof hypotheses / sizeof *hypotheses && !damage->kind; i++) {
        const struct hypothesis *h = &hypotheses[i];
        damage->n_undone = 0;
        damage->l2_rel = 0;
        if (h->kind == RP_DAMAGE_TRANSPOSED && rows->engine.n_positions < 2)
            continue;
        if (is_encoded(rows, h, buffer, damage)) {
            damage->kind = h->kind;
            SAY(damage, "%s", h->text);
        }
    }
    free(buffer);
    return RP_OK;
}

/* As far as one FP32 row of the engine's goes; of F16 and BF16 that is half. */
static int has_width_of(const struct rp_tensor *right, const struct rp_tensor *engine, double limit,
                        const struct hypothesis *h, float *buffer, struct rp_damage *damage)
{
    damage->n_undone = 0;
    damage->l2_rel = 0;
    for (size_t r = 0, e = 0; r < right->n_positions && e < engine->n_positions;) {
        if (right->positions[r] != engine->positions[e]) {
            if (right->positions[r] < engine->positions[e])
                r++;
            else
                e++;
            continue;
        }
        const size_t n = undo(h, engine, e++, buffer);
        if (n < RP_DAMAGE_MIN_VALUES || n > right->dim)
            return 0;
        const double l2_rel = rp_metrics_row(row_of(right, r++), buffer, n).l2_rel;
        if (!(l2_rel < limit))
            return 0;
        note(damage, l2_rel);
    }
    return damage->n_undone > 0;
}

enum rp_status rp_damage_find_width(const struct rp_tensor *right, const struct rp_tensor *engine,
                                    double limit, struct rp_damage *damage)
{
    static const struct hypothesis widths[] = {
        {RP_DAMAGE_FORMAT, F16, 1, "it holds F16, not FP32"},
        {RP_DAMAGE_FORMAT, BF16, 1, "it holds BF16, not FP32"},
        {RP_DAMAGE_FORMAT, F64, 1, "it holds F64, not FP32"}};
    memset(damage, 0, sizeof *damage);
    const int half = engine->dim == right->dim / 2, twice = engine->dim / 2 == right->dim;
    if ((!half && !twice) || right->dim < RP_DAMAGE_MIN_VALUES)
        return RP_OK;
    float *buffer = malloc(engine->dim * sizeof *buffer);
    if (!buffer)
        return RP_ERR_MEMORY;
    for (size_t i = 0; i < 3 && !damage->kind; i++) {
        if ((widths[i].encoding == F64) == half ||
            !has_width_of(right, engine, limit, &widths[i], buffer, damage))
            continue;
        damage->kind = widths[i].kind;
        SAY(damage, "%s", widths[i].text);
    }
    free(buffer);
    return RP_OK;
}

/* ---- another slot ---- */

void rp_damage_match_other(const struct rp_damage_rows *rows, const struct rp_tensor *other,
                           struct rp_damage *damage)
{
    memset(damage, 0, sizeof *damage);
    if (rows->n_failing == 0 || other->dim != rows->engine.dim || other->dim < RP_DAMAGE_MIN_VALUES)
        return;
    size_t at = 0;
    for (size_t i = 0; i < rows->n_pairs; i++) {
        const struct rp_damage_pair *pair = &rows->pairs[i];
        while (at < other->n_positions && other->positions[at] < pair->position)
            at++;
        if (at == other->n_positions || other->positions[at] != pair->position)
            return;
        const double l2_rel =
            rp_metrics_row(row_of(other, at), row_of(&rows->engine, pair->engine), other->dim)
                .l2_rel;
        if (!explains(rows, pair, l2_rel))
            return;
        note(damage, l2_rel);
    }
    damage->kind = RP_DAMAGE_OTHER_SLOT;
}

/* ---- never written ---- */

#define MIN_UNWRITTEN 8 /* values: fewer zeros at a row's end may be computed ones */

enum fill { FILL_ZEROS = 1, FILL_NAN = 2, FILL_VALUE = 4, FILL_MEMORY = 8 };

/* What memory holds and activations do not: NaN, infinity, denormals, pointers. */
static int is_fill(uint32_t bits, uint32_t last, unsigned *fill)
{
    const float value = from_bits(bits), size = fabsf(value);
    unsigned what = 0;
    if (size == 0.0f)
        what = FILL_ZEROS;
    else if (isnan(value))
        what = FILL_NAN;
    else if (bits == last)
        what = FILL_VALUE;
    else if (!(size > 1e-30f && size < 1e30f))
        what = FILL_MEMORY;
    *fill |= what;
    return what != 0;
}

/* Channel from which on row [dim] was never written, dim when it was. A value that looks computed may
 * stand between two that do not: half of a pointer does. */
static size_t find_unwritten(const void *row, size_t dim, unsigned *fill)
{
    const unsigned char *bytes = row;
    uint32_t last, bits;
    size_t start = dim;
    unsigned found = 0;
    memcpy(&last, bytes + 4 * (dim - 1), 4);
    for (size_t i = dim; i-- > 0;) {
        memcpy(&bits, bytes + 4 * i, 4);
        if (is_fill(bits, last, &found)) {
            found |= start > i + 1 ? FILL_MEMORY : 0u;
            start = i;
        } else if (start > i + 1) {
            break;
        }
    }
    if (dim - start < MIN_UNWRITTEN)
        return dim;
    *fill |= found;
    return start - (start > 0 && (found & FILL_MEMORY)); /* the first may be half of a pointer */
}

struct unwritten {
    size_t n_whole;   /* rows of which nothing was written */
    size_t n_partial; /* rows that break off */
    size_t channel;   /* where they do */
    int one_channel;  /* 1: all of them at the same */
    unsigned fill;
    int64_t first, last; /* positions, of both kinds */
};

/* One failing row; false when it is neither unwritten nor broken off. */
static int look_at(const struct rp_damage_rows *rows, const struct rp_damage_pair *pair,
                   struct unwritten *u, struct rp_damage *damage)
{
    const void *row = row_of(&rows->engine, pair->engine);
    const size_t start = find_unwritten(row, rows->engine.dim, &u->fill);
    if (start == rows->engine.dim)
        return 0;
    if (start > 0) {
        const size_t low = u->n_partial && u->channel < start ? u->channel : start;
        const size_t high = u->n_partial && u->channel > start ? u->channel : start;
        u->one_channel = u->n_partial == 0 || (u->one_channel && high - low <= 1);
        u->channel = high;
        u->n_partial++;
    } else {
        u->n_whole++;
    }
    if (start >= RP_DAMAGE_MIN_VALUES) {
        const double l2_rel = rp_metrics_row(row_of(&rows->right, pair->right), row, start).l2_rel;
        if (!(l2_rel < rows->limit))
            return 0;
        note(damage, l2_rel);
    } else if (start > 0 && u->n_partial > 1) {
        return 0; /* too little of them is there to be known again */
    }
    u->first = u->n_whole + u->n_partial == 1 ? pair->position : u->first;
    u->last = pair->position;
    return 1;
}

static const char *fill_text(unsigned fill)
{
    switch (fill) {
    case FILL_ZEROS: return "zeros";
    case FILL_NAN: return "NaN";
    case FILL_VALUE: return "one value";
    default: return "what memory held";
    }
}

enum rp_status rp_damage_find_unwritten(const struct rp_damage_rows *rows, struct rp_damage *damage)
{
    struct unwritten u = {.n_whole = 0};
    memset(damage, 0, sizeof *damage);
    if (rows->n_failing == 0 || rows->engine.dim < RP_DAMAGE_MIN_VALUES)
        return RP_OK;
    for (size_t i = 0; i < rows->n_pairs; i++)
        if (rows->pairs[i].fails && !look_at(rows, &rows->pairs[i], &u, damage))
            return RP_OK;
    for (size_t i = 0; i < rows->n_pairs; i++)
        if (!rows->pairs[i].fails)
            note(damage, rows->pairs[i].l2_rel);
    if (u.n_partial > 1 && (u.n_whole > 0 || !u.one_channel))
        return RP_OK;
    damage->kind = RP_DAMAGE_UNWRITTEN;
    if (u.n_partial > 1 || (u.n_partial == 1 && u.n_whole == 0))
        SAY(damage,
            "it was not written to its end: channels from %zu on hold %s, at %zu positions "
            "from %lld on",
            u.channel, fill_text(u.fill), u.n_partial, (long long)u.first);
    else
        SAY(damage, "it was not written to its end: %zu positions from %lld to %lld hold %s",
            u.n_whole + u.n_partial, (long long)u.first, (long long)u.last, fill_text(u.fill));
    return RP_OK;
}

/* ---- of arrays ---- */

enum rp_status rp_damage_of_arrays(const float *right, const float *engine,
                                   const int64_t *positions, size_t n, size_t dim, double limit,
                                   struct rp_damage *damage)
{
    struct rp_damage_rows rows;
    const struct rp_tensor a = {
        .data = right, .n_positions = n, .dim = dim, .positions = positions};
    const struct rp_tensor b = {
        .data = engine, .n_positions = n, .dim = dim, .positions = positions};
    memset(damage, 0, sizeof *damage);
    enum rp_status status = rp_damage_rows_open(&rows, &a, &b, NULL, 0, limit);
    if (!status)
        status = rp_damage_find_encoding(&rows, damage);
    if (!status && !damage->kind)
        status = rp_damage_find_displaced(&rows, damage);
    if (!status && !damage->kind)
        status = rp_damage_find_unwritten(&rows, damage);
    rp_damage_rows_close(&rows);
    return status;
}
