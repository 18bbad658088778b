/* See operations/cache_tips.h. */
#include "operations/cache_tips.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/hadamard.h"
#include "formats/rounding.h"

#define MEAN_SIZE 0.8
#define F16_STEP 0x1p-10

/* Of each of n values that come of one turn, in the root mean square over them: the columns of the matrix
 * are orthogonal, so that the sums of the first j terms have the squares of the first j values; in
 * sequence from either end. */
static double noise_of(const float *x, size_t n)
{
    double forward = 0, reverse = 0;
    for (size_t i = 0; i < n; i++) {
        const double square = (double)x[i] * (double)x[i];
        forward += square * (double)(n - i);
        reverse += square * (double)(i + 1);
    }
    return RP_SCORE_ERROR * RP_UNIT_ROUNDOFF * sqrt(fmax(forward, reverse) / (double)n);
}

/* ---- a row's tips ---- */

struct collect {
    struct rp_cache_tips *tips;
    size_t key, at; /* at: of the values looked at, in the row */
    bool is_value;
    const float *rounded; /* [dim of the row], turned */
};

static void append(struct rp_cache_tips *tips, const struct rp_cache_tip *tip)
{
    if (tips->status != RP_OK)
        return;
    if (tips->n_tips == tips->capacity) {
        const size_t capacity = tips->capacity ? 2 * tips->capacity : 64;
        struct rp_cache_tip *grown = realloc(tips->tips, capacity * sizeof *grown);
        if (!grown) {
            tips->status =
                rp_fail(tips->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu tips", capacity);
            return;
        }
        tips->tips = grown;
        tips->capacity = capacity;
    }
    tips->tips[tips->n_tips++] = *tip;
}

/* A block may reach over several short heads. */
static void collect_tip(void *context, const struct rp_tip *found)
{
    const struct collect *collect = context;
    const size_t dim = collect->tips->args->head_dim, last = collect->at + found->first + found->n;
    for (size_t first = collect->at + found->first, end; first < last; first = end) {
        end = (first / dim + 1) * dim < last ? (first / dim + 1) * dim : last;
        struct rp_cache_tip tip = {.key = collect->key,
                                   .head = first / dim,
                                   .is_value = collect->is_value,
                                   .tip = {found->kind, first % dim, end - first, found->size}};
        tip.norm =
            found->kind == RP_TIP_SCALE
                ? found->size * (float)sqrt(rp_square_of(collect->rounded + first, end - first))
                : found->size * sqrtf((float)(end - first));
        append(collect->tips, &tip);
    }
}

/* Of x [width], which is rounded to format: to rounded, still turned. */
static void collect_row(struct rp_cache_tips *tips, uint32_t format, size_t key, bool is_value,
                        const float *x, size_t width, float *rounded)
{
    const size_t size = is_value ? tips->v_size : tips->k_size, part = size ? size : width;
    struct collect collect = {.tips = tips, .key = key, .is_value = is_value, .rounded = rounded};
    memcpy(tips->row, x, width * sizeof *x);
    if (size)
        rp_hadamard(tips->row, width, size);
    rp_round_row(format, tips->row, width, rounded);
    for (size_t at = 0; at < width && tips->status == RP_OK; at += part) {
        collect.at = at;
        rp_find_tips(format, tips->row + at, part, size ? noise_of(x + at, part) : 0, collect_tip,
                     &collect);
    }
}

/* ---- K and V ---- */

static void collect_cache(struct rp_cache_tips *tips, const float *k, const float *v)
{
    const size_t width = tips->args->n_kv_heads * tips->args->head_dim;
    for (size_t key = 0; key < tips->args->n_keys && tips->status == RP_OK; key++) {
        const size_t at = key * width;
        collect_row(tips, tips->format, key, false, k + at, width, tips->turned);
        if (tips->status == RP_OK)
            collect_row(tips, tips->format, key, true, v + at, width, tips->turned);
    }
    tips->n_cache = tips->n_tips;
}

/* Of what is stored, turned again: the largest value is 127 or 8 steps. */
static void measure_cache(struct rp_cache_tips *tips)
{
    const struct rp_attention *args = tips->args;
    const size_t dim = args->head_dim, width = args->n_kv_heads * dim;
    const float steps = tips->format == RP_GGML_Q4_0 ? 8 : 127;
    for (size_t i = 0; i < args->n_keys * args->n_kv_heads * 2; i++) {
        const bool is_value = i % 2 == 1;
        const size_t head = i / 2 % args->n_kv_heads, key = i / 2 / args->n_kv_heads;
        const size_t size = is_value ? tips->v_size : tips->k_size;
        float largest = 0;
        memcpy(tips->row, (is_value ? args->values : args->keys) + key * width + head * dim,
               dim * sizeof *tips->row);
        if (size)
            rp_hadamard(tips->row, dim, size);
        for (size_t j = 0; j < dim; j++)
            largest = fmaxf(largest, fabsf(tips->row[j]));
        tips->steps[i] = largest / steps;
        tips->norms[i] = (float)rp_square_of(tips->row, dim);
    }
}

enum rp_status rp_cache_tips_open(struct rp_cache_tips *tips, uint32_t format,
                                  const struct rp_attention *args, const float *k, const float *v,
                                  struct rp_error *err)
{
    const size_t heads = args->n_heads > args->n_kv_heads ? args->n_heads : args->n_kv_heads;
    const size_t n = args->n_keys * args->n_kv_heads * 2;
    *tips = (struct rp_cache_tips){.format = format,
                                   .args = args,
                                   .k_size = rp_hadamard_size(args->head_dim, false),
                                   .v_size = rp_hadamard_size(args->head_dim, true),
                                   .is_known = k && v,
                                   .err = err};
    tips->turned = calloc(heads * args->head_dim + 1, sizeof *tips->turned);
    tips->row = calloc(heads * args->head_dim + 1, sizeof *tips->row);
    tips->y = calloc(2 * args->head_dim + 1, sizeof *tips->y);
    tips->steps = calloc(n + 1, sizeof *tips->steps);
    tips->norms = calloc(n + 1, sizeof *tips->norms);
    tips->expected = calloc(n + 1, sizeof *tips->expected);
    tips->square = calloc(n + 1, sizeof *tips->square);
    if (!tips->turned || !tips->row || !tips->y || !tips->steps || !tips->norms ||
        !tips->expected || !tips->square)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for the tips of %zu keys",
                       args->n_keys);
    measure_cache(tips);
    if (tips->is_known)
        collect_cache(tips, k, v);
    return tips->status;
}

void rp_cache_tips_close(struct rp_cache_tips *tips)
{
    free(tips->tips);
    free(tips->turned);
    free(tips->row);
    free(tips->y);
    free(tips->steps);
    free(tips->norms);
    free(tips->expected);
    free(tips->square);
    *tips = (struct rp_cache_tips){.tips = NULL};
}

/* ---- a position ---- */

enum rp_status rp_cache_tips_read_q(struct rp_cache_tips *tips, const float *q, float *rounded)
{
    const struct rp_attention *args = tips->args;
    const size_t width = args->n_heads * args->head_dim, n = args->n_keys * args->n_kv_heads * 2;
    tips->n_tips = tips->n_cache;
    collect_row(tips, RP_GGML_Q8_0, 0, false, q, width, tips->turned);
    memcpy(rounded, tips->turned, width * sizeof *rounded);
    if (tips->k_size)
        rp_hadamard(rounded, width, tips->k_size);
    memset(tips->expected, 0, n * sizeof *tips->expected);
    memset(tips->square, 0, n * sizeof *tips->square);
    return tips->status;
}

/* |V - y| of a key. */
static double away_of(const struct rp_attention_row *row, size_t key)
{
    const float *value = row->values + key * row->kv_dim;
    double sum = 0;
    for (size_t i = 0; i < row->args->head_dim; i++)
        sum += pow((double)value[i] - (double)row->y[i], 2);
    return sqrt(sum);
}

/* What y changes by where one score does, up or down. */
static double worth_of_score(const struct rp_attention_row *row, size_t key, double change)
{
    const double weight = (double)row->weights[key];
    const double up = weight * expm1(fabs(change)), down = -weight * expm1(-fabs(change));
    return fmax(up / (1 + up), down / (1 - down)) * away_of(row, key);
}

static double worth_in_cache(const struct rp_cache_tips *tips, const struct rp_attention_row *row,
                             const struct rp_cache_tip *tip)
{
    if (tip->is_value)
        return (double)row->weights[tip->key] * (double)tip->norm;
    const float *q = tips->turned + row->head * row->args->head_dim + tip->tip.first;
    const double change =
        fabs((double)row->args->scale) * sqrt(rp_square_of(q, tip->tip.n)) * (double)tip->norm;
    return worth_of_score(row, tip->key, change);
}

/* All scores change, each by scale * change . key. */
static double worth_in_q(struct rp_cache_tips *tips, const struct rp_attention_row *row,
                         const struct rp_cache_tip *tip)
{
    const size_t dim = row->args->head_dim;
    float *change = tips->y, *y = tips->y + dim;
    double sum = 0, square = 0;
    memset(change, 0, 2 * dim * sizeof *change);
    for (size_t i = tip->tip.first; i < tip->tip.first + tip->tip.n; i++)
        change[i] = tip->tip.size *
                    (tip->tip.kind == RP_TIP_SCALE ? tips->turned[row->head * dim + i] : 1.0f);
    if (tips->k_size)
        rp_hadamard(change, dim, tips->k_size);
    for (size_t key = 0; key < row->n_visible; key++) {
        const float *k = row->keys + key * row->kv_dim, *v = row->values + key * row->kv_dim;
        double score = 0;
        for (size_t i = 0; i < dim; i++)
            score += (double)change[i] * (double)k[i];
        /* Either way; the first order, and the second's size. */
        const double moved = expm1(fabs(score * (double)row->args->scale));
        const float weight = row->weights[key] * (float)(score < 0 ? -moved : moved);
        sum += fabs((double)weight);
        for (size_t i = 0; i < dim; i++)
            y[i] += weight * (v[i] - row->y[i]);
    }
    for (size_t i = 0; i < dim; i++)
        square += (double)y[i] * (double)y[i];
    return sqrt(square) * (1 + sum);
}

/* Of each key: a value of K or V, or the scale of a block, tips. */
static void add_unknown(struct rp_cache_tips *tips, const struct rp_attention_row *row)
{
    const size_t dim = row->args->head_dim, n_kv = row->args->n_kv_heads;
    const float *q = tips->turned + row->head * dim;
    const double steps = tips->format == RP_GGML_Q4_0 ? 8 : 127;
    const double q_square = rp_square_of(q, dim), scale = (double)row->args->scale;
    float q_largest = 0;
    for (size_t i = 0; i < dim; i++)
        q_largest = fmaxf(q_largest, fabsf(q[i]));
    for (size_t key = 0; key < row->n_visible; key++) {
        const size_t at = 2 * (key * n_kv + row->kv_head);
        const double weight = (double)row->weights[key], moved = weight * away_of(row, key);
        const double factors[2] = {pow(scale * moved, 2), weight * weight};
        for (size_t i = 0; i < 2; i++) {
            const double step = (double)tips->steps[at + i],
                         norm = sqrt((double)tips->norms[at + i]);
            const double parts = norm * F16_STEP, n = (double)dim;
            const bool is_k = i == 0;
            double noise = 2 * RP_UNIT_ROUNDOFF * norm, value, largest, blocks;
            if (is_k ? tips->k_size : tips->v_size)
                noise += RP_SCORE_ERROR * RP_UNIT_ROUNDOFF * norm * sqrt(2.0);
            noise *= MEAN_SIZE;
            value = noise * step * (is_k ? q_square : n);
            largest = step * step * (is_k ? (double)q_largest * (double)q_largest : 1);
            /* A block's scale is stored in F16; its part of q and k is at most all of them. */
            blocks = parts * parts * (is_k ? q_square : 1);
            if (tips->format == RP_GGML_Q4_0) { /* and another value becomes the largest */
                value += noise * step * 32 * (is_k ? q_square : n / 32);
                largest = 32 * step * step * (is_k ? q_square : 1);
            }
            value += step > 0 ? blocks * noise / step * 2048 / steps : 0;
            tips->expected[at + i] += factors[i] * value;
            tips->square[at + i] += factors[i] * fmax(largest, blocks);
        }
    }
}

double rp_cache_tips_worth(struct rp_cache_tips *tips, const struct rp_attention_row *row)
{
    double worth = 0;
    for (size_t i = 0; i < tips->n_cache && tips->tips[i].key < row->n_visible; i++)
        if (tips->tips[i].head == row->kv_head)
            worth += worth_in_cache(tips, row, &tips->tips[i]);
    for (size_t i = tips->n_cache; i < tips->n_tips; i++)
        if (tips->tips[i].head == row->head)
            worth += worth_in_q(tips, row, &tips->tips[i]);
    if (!tips->is_known)
        add_unknown(tips, row);
    return worth;
}

double rp_cache_tips_unknown(struct rp_cache_tips *tips, size_t n_visible)
{
    if (tips->is_known)
        return 0;
    return sqrt(rp_rare_sum(tips->expected, tips->square, n_visible * tips->args->n_kv_heads * 2));
}
