/* Rows at other positions: which row of the right ones each of the engine's rows is (see
 * damage_rows.h). Regular displacements (a shift, one row everywhere, reversed, each row several
 * times) are tried first, with rows of any number; what is left is searched for row by row, by
 * distances in a few channels, as far as that stays below MAX_SEARCH operations. Each row that is
 * claimed is then measured whole. */
#include "compare/damage_rows.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "refparity/metrics.h"

#define N_CHANNELS 48 /* enough to rank rows; what ranks first is measured whole */
#define MAX_SEARCH ((double)((uint64_t)1 << 30))
#define NO_ROW SIZE_MAX
#define CERTAIN 1e-6 /* an L2_rel of the same row, in FP32 */

#define SAY(damage, ...) snprintf((damage)->text, sizeof(damage)->text, __VA_ARGS__)

static const void *row_of(const struct rp_tensor *tensor, size_t row)
{
    return (const char *)tensor->data + row * tensor->dim * sizeof(float);
}

static size_t find_position(const struct rp_tensor *tensor, int64_t position)
{
    size_t low = 0, high = tensor->n_positions;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (tensor->positions[middle] < position)
            low = middle + 1;
        else
            high = middle;
    }
    return low < tensor->n_positions && tensor->positions[low] == position ? low : NO_ROW;
}

/* Is the engine's row of pair row number right? */
static int is_row(const struct rp_damage_rows *rows, const struct rp_damage_pair *pair,
                  size_t right, double limit, double *l2_rel)
{
    if (right == pair->right)
        *l2_rel = pair->l2_rel;
    else
        *l2_rel = rp_metrics_row(row_of(&rows->right, right), row_of(&rows->engine, pair->engine),
                                 rows->right.dim)
                      .l2_rel;
    return *l2_rel < limit &&
           (!pair->fails || !isfinite(pair->l2_rel) || *l2_rel * RP_DAMAGE_GAIN <= pair->l2_rel);
}

/* ---- regular displacements ---- */

enum regular { SHIFT, ONE_ROW, REVERSED, TIMES, N_REGULAR };

struct displacement {
    enum regular regular;
    int64_t shift;
    size_t row;   /* of ONE_ROW */
    size_t times; /* of TIMES */
};

static size_t source_row(const struct rp_damage_rows *rows, const struct rp_damage_pair *pair,
                         const struct displacement *d)
{
    switch (d->regular) {
    case SHIFT: return find_position(&rows->right, pair->position + d->shift);
    case ONE_ROW: return d->row;
    case REVERSED: return rows->right.n_positions - 1 - pair->right;
    case TIMES: return pair->right / d->times;
    case N_REGULAR: break;
    }
    return NO_ROW;
}

/* Past the end that a shift moves rows out of, anything may stand: no more of that than of rows that
 * are found. */
static int is_displaced(const struct rp_damage_rows *rows, const struct displacement *d,
                        struct rp_damage *damage)
{
    size_t n_moved = 0, n_without = 0;
    damage->n_undone = 0;
    damage->l2_rel = 0;
    for (size_t i = 0; i < rows->n_pairs; i++) {
        const struct rp_damage_pair *pair = &rows->pairs[i];
        const size_t row = source_row(rows, pair, d);
        double l2_rel;
        damage->source[i] = -1;
        if (row == NO_ROW) {
            n_without++;
            continue;
        }
        if (!is_row(rows, pair, row, rows->limit, &l2_rel))
            return 0;
        n_moved += (size_t)pair->fails;
        damage->source[i] = rows->right.positions[row];
        damage->n_undone++;
        damage->l2_rel = l2_rel > damage->l2_rel ? l2_rel : damage->l2_rel;
    }
    return n_moved > 0 && n_without <= n_moved;
}

/* ---- the search ---- */

struct search {
    size_t n_channels;
    size_t channels[N_CHANNELS];
    float weights[N_CHANNELS]; /* one over the variance of the channel */
    float *right;              /* [n][n_channels] */
};

static float load(const void *row, size_t index)
{
    float value;
    memcpy(&value, (const char *)row + 4 * index, sizeof value);
    return value;
}

static enum rp_status search_open(const struct rp_damage_rows *rows, struct search *s)
{
    const size_t n = rows->right.n_positions, dim = rows->right.dim;
    s->n_channels = dim < N_CHANNELS ? dim : N_CHANNELS;
    s->right = malloc(n * s->n_channels * sizeof *s->right);
    if (!s->right)
        return RP_ERR_MEMORY;
    for (size_t c = 0; c < s->n_channels; c++) {
        double sum = 0, sum2 = 0;
        s->channels[c] = (size_t)((2 * (uint64_t)c + 1) * dim / (2 * s->n_channels));
        for (size_t i = 0; i < n; i++) {
            const float value = load(row_of(&rows->right, i), s->channels[c]);
            s->right[i * s->n_channels + c] = value;
            sum += (double)value;
            sum2 += (double)value * (double)value;
        }
        const double variance = sum2 / (double)n - sum / (double)n * (sum / (double)n);
        s->weights[c] = variance > 1e-30 && variance < 1e30 ? (float)(1 / variance) : 0;
    }
    return RP_OK;
}

/* The right row that the engine's is nearest to. used: [n] rows that are left out, or NULL. */
static size_t find_nearest(const struct rp_damage_rows *rows, const struct search *s,
                           const struct rp_damage_pair *pair, const char *used)
{
    float values[N_CHANNELS], best = INFINITY;
    size_t nearest = NO_ROW;
    for (size_t c = 0; c < s->n_channels; c++)
        values[c] = load(row_of(&rows->engine, pair->engine), s->channels[c]);
    for (size_t i = 0; i < rows->right.n_positions; i++) {
        const float *right = s->right + i * s->n_channels;
        float distance = 0;
        for (size_t c = 0; c < s->n_channels; c++)
            distance += s->weights[c] * (right[c] - values[c]) * (right[c] - values[c]);
        if (distance < best && !(used && used[i])) {
            best = distance;
            nearest = i;
        }
    }
    return nearest;
}

/* The same, NO_ROW when the engine's row is not that one. */
static size_t find_row(const struct rp_damage_rows *rows, const struct search *s,
                       const struct rp_damage_pair *pair, const char *used, double *l2_rel)
{
    const size_t row = find_nearest(rows, s, pair, used);
    return row != NO_ROW && is_row(rows, pair, row, rows->limit, l2_rel) ? row : NO_ROW;
}

static int is_short(const struct rp_damage_rows *rows, const struct search *s)
{
    return 2.0 * (double)rows->n_pairs * (double)rows->right.n_positions * (double)s->n_channels <=
           MAX_SEARCH;
}

/* Which row the engine's is, NO_ROW: none. A long prompt has rows that are near to each other, and equal
 * tokens have equal rows of emb: of those, one that no other is at comes first. */
static size_t search_row(const struct rp_damage_rows *rows, const struct search *s,
                         const struct rp_damage_pair *pair, const char *used, double *l2_rel)
{
    double other_l2_rel;
    *l2_rel = pair->l2_rel;
    if (pair->l2_rel <= CERTAIN && !used[pair->right])
        return pair->right;
    const size_t row = find_row(rows, s, pair, NULL, l2_rel);
    const size_t other =
        row != NO_ROW && used[row] ? find_row(rows, s, pair, used, &other_l2_rel) : NO_ROW;
    if (other != NO_ROW && other_l2_rel <= 2 * *l2_rel + CERTAIN) {
        *l2_rel = other_l2_rel;
        return other;
    }
    if (!pair->fails && !(row != NO_ROW && *l2_rel * RP_DAMAGE_GAIN <= pair->l2_rel)) {
        *l2_rel = pair->l2_rel;
        return pair->right;
    }
    return row;
}

static int search_rows(const struct rp_damage_rows *rows, const struct search *s, char *used,
                       struct rp_damage *damage)
{
    damage->n_undone = 0;
    damage->l2_rel = 0;
    for (size_t i = 0; i < rows->n_pairs; i++) {
        double l2_rel;
        const size_t row = search_row(rows, s, &rows->pairs[i], used, &l2_rel);
        if (row == NO_ROW)
            return 0;
        used[row] = 1;
        damage->source[i] = rows->right.positions[row];
        damage->n_undone++;
        damage->l2_rel = l2_rel > damage->l2_rel ? l2_rel : damage->l2_rel;
    }
    return 1;
}

/* ---- in words ---- */

static int by_value(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static enum rp_status set_each_once(const struct rp_damage_rows *rows, struct rp_damage *damage)
{
    int64_t *sorted = malloc((rows->n_pairs + 1) * sizeof *sorted);
    if (!sorted)
        return RP_ERR_MEMORY;
    memcpy(sorted, damage->source, rows->n_pairs * sizeof *sorted);
    qsort(sorted, rows->n_pairs, sizeof *sorted, by_value);
    damage->each_once = 1;
    for (size_t i = 1; i < rows->n_pairs; i++)
        if (sorted[i] >= 0 && sorted[i] == sorted[i - 1])
            damage->each_once = 0;
    free(sorted);
    return RP_OK;
}

static enum rp_status describe(const struct rp_damage_rows *rows, const struct displacement *d,
                               struct rp_damage *damage)
{
    const struct rp_damage_pair *moved = rows->pairs;
    const enum rp_status status = set_each_once(rows, damage);
    if (status)
        return status;
    while (!moved->fails || damage->source[moved - rows->pairs] < 0)
        moved++;
    const long long position = moved->position, source = damage->source[moved - rows->pairs];
    damage->kind = RP_DAMAGE_DISPLACED;
    switch (d->regular) {
    case SHIFT:
        SAY(damage, "its rows are off by %lld: position %lld holds the row of position %lld",
            -(long long)d->shift, position, source);
        break;
    case ONE_ROW:
        SAY(damage, "the row of position %lld is repeated at every position", source);
        break;
    case REVERSED: SAY(damage, "its rows stand in reverse order"); break;
    case TIMES: SAY(damage, "each of its rows is repeated %zu times", d->times); break;
    case N_REGULAR:
        SAY(damage, "its rows are %s: position %lld holds the row of position %lld",
            damage->each_once ? "permuted" : "at other positions, some repeated", position, source);
        break;
    }
    return RP_OK;
}

#define MAX_SHIFT 4 /* farther ones are tried where a row is found there */

static int try_often(const struct rp_damage_rows *rows, struct displacement *d,
                     struct rp_damage *damage)
{
    d->regular = SHIFT;
    for (int64_t shift = 1; shift <= MAX_SHIFT; shift++) {
        d->shift = shift;
        if (is_displaced(rows, d, damage))
            return 1;
        d->shift = -shift;
        if (is_displaced(rows, d, damage))
            return 1;
    }
    d->regular = REVERSED;
    if (is_displaced(rows, d, damage))
        return 1;
    d->regular = TIMES;
    for (d->times = 2; d->times <= 4; d->times++)
        if (is_displaced(rows, d, damage))
            return 1;
    return 0;
}

/* Where pair's row is row number right. */
static int try_found(const struct rp_damage_rows *rows, const struct rp_damage_pair *pair,
                     size_t right, struct displacement *d, struct rp_damage *damage)
{
    d->regular = SHIFT;
    d->shift = rows->right.positions[right] - pair->position;
    if (is_displaced(rows, d, damage))
        return 1;
    d->regular = ONE_ROW;
    d->row = right;
    return is_displaced(rows, d, damage);
}

/* Irregular: every failing row by itself, where the first, the middle and the last (past the end of a
 * shift nothing is found) are anywhere at all. */
static int try_all(const struct rp_damage_rows *rows, const struct search *search, char *used,
                   struct displacement *d, struct rp_damage *damage)
{
    size_t n_failing = 0, n_found = 0;
    for (size_t i = 0; i < rows->n_pairs; i++) {
        const struct rp_damage_pair *pair = &rows->pairs[i];
        double l2_rel;
        if (!pair->fails)
            continue;
        const size_t nth = n_failing++;
        if (nth != 0 && nth != rows->n_failing / 2 && nth != rows->n_failing - 1)
            continue;
        const size_t right = find_row(rows, search, pair, NULL, &l2_rel);
        n_found += right != NO_ROW;
        if (right != NO_ROW && try_found(rows, pair, right, d, damage))
            return 1;
    }
    d->regular = N_REGULAR;
    return n_found > 0 && is_short(rows, search) && search_rows(rows, search, used, damage);
}

enum rp_status rp_damage_find_displaced(const struct rp_damage_rows *rows, struct rp_damage *damage)
{
    memset(damage, 0, sizeof *damage);
    if (rows->n_failing == 0 || rows->right.dim < RP_DAMAGE_MIN_VALUES ||
        rows->right.n_positions < 2)
        return RP_OK;
    struct search search = {.right = NULL};
    struct displacement d = {.regular = N_REGULAR};
    enum rp_status status = RP_ERR_MEMORY;
    int found = 0;
    char *used = calloc(rows->right.n_positions, 1);
    damage->source = malloc((rows->n_pairs + 1) * sizeof *damage->source);
    if (!used || !damage->source)
        goto done;
    found = try_often(rows, &d, damage);
    status = found ? RP_OK : search_open(rows, &search);
    if (!status && !found)
        found = try_all(rows, &search, used, &d, damage);
    if (!status && found)
        status = describe(rows, &d, damage);
done:
    if (status || !found)
        rp_damage_free(damage);
    free(search.right);
    free(used);
    return status;
}

size_t rp_damage_count_distinct(const struct rp_damage_rows *rows, const struct rp_damage *damage,
                                double limit)
{
    struct search search = {.right = NULL};
    size_t n_distinct = 0;
    char *used = calloc(rows->right.n_positions + 1, 1);
    if (!used || search_open(rows, &search) || !is_short(rows, &search))
        goto done;
    for (size_t i = 0; i < rows->n_pairs; i++) {
        const struct rp_damage_pair *pair = &rows->pairs[i];
        const size_t row =
            damage->source[i] < 0 ? NO_ROW : find_position(&rows->right, damage->source[i]);
        if (row == NO_ROW)
            continue;
        used[row] = 1;
        const size_t other = find_nearest(rows, &search, pair, used);
        used[row] = 0;
        n_distinct += other == NO_ROW ||
                      !(rp_metrics_row(row_of(&rows->right, other),
                                       row_of(&rows->engine, pair->engine), rows->right.dim)
                            .l2_rel < limit);
    }
done:
    free(search.right);
    free(used);
    return n_distinct;
}

int rp_damage_stand_at(const struct rp_damage_rows *rows, const int64_t *positions,
                       const int64_t *source, size_t n_sources, double limit, size_t *n_found)
{
    *n_found = 0;
    for (size_t i = 0, at = 0; i < rows->n_pairs; i++) {
        const struct rp_damage_pair *pair = &rows->pairs[i];
        double l2_rel;
        while (at < n_sources && positions[at] < pair->position)
            at++;
        if (at == n_sources || positions[at] != pair->position)
            return 0;
        if (source[at] < 0)
            continue;
        const size_t row = find_position(&rows->right, source[at]);
        if (row == NO_ROW)
            continue;
        if (!is_row(rows, pair, row, limit, &l2_rel))
            return 0;
        ++*n_found;
    }
    return 1;
}
