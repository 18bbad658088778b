/* See operations/cache_tips.h. */
#include "operations/cache_tips.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/hadamard.h"
#include "formats/rounding.h"

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

/* Of what is stored; turning it again changes no norm. */
static void measure_keys(struct rp_cache_tips *tips)
{
    const struct rp_attention *args = tips->args;
    for (size_t i = 0; i < args->n_keys * args->n_kv_heads; i++)
        tips->norms[i] = (float)rp_square_of(args->keys + i * args->head_dim, args->head_dim);
}

enum rp_status rp_cache_tips_open(struct rp_cache_tips *tips, uint32_t format,
                                  const struct rp_attention *args, const float *k, const float *v,
                                  struct rp_error *err)
{
    const size_t heads = args->n_heads > args->n_kv_heads ? args->n_heads : args->n_kv_heads;
    const size_t n = args->n_keys * args->n_kv_heads;
    *tips = (struct rp_cache_tips){.format = format,
                                   .args = args,
                                   .k_size = rp_hadamard_size(args->head_dim, false),
                                   .v_size = rp_hadamard_size(args->head_dim, true),
                                   .err = err};
    tips->turned = calloc(heads * args->head_dim + 1, sizeof *tips->turned);
    tips->row = calloc(heads * args->head_dim + 1, sizeof *tips->row);
    tips->y = calloc(2 * args->head_dim + 1, sizeof *tips->y);
    tips->norms = calloc(n + 1, sizeof *tips->norms);
    if (!tips->turned || !tips->row || !tips->y || !tips->norms)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for the tips of %zu keys",
                       args->n_keys);
    measure_keys(tips);
    collect_cache(tips, k, v);
    return tips->status;
}

void rp_cache_tips_close(struct rp_cache_tips *tips)
{
    free(tips->tips);
    free(tips->turned);
    free(tips->row);
    free(tips->y);
    free(tips->norms);
    *tips = (struct rp_cache_tips){.tips = NULL};
}

/* ---- a position ---- */

enum rp_status rp_cache_tips_read_q(struct rp_cache_tips *tips, const float *q, float *rounded)
{
    const struct rp_attention *args = tips->args;
    const size_t width = args->n_heads * args->head_dim;
    tips->n_tips = tips->n_cache;
    collect_row(tips, RP_GGML_Q8_0, 0, false, q, width, tips->turned);
    memcpy(rounded, tips->turned, width * sizeof *rounded);
    if (tips->k_size)
        rp_hadamard(rounded, width, tips->k_size);
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

double rp_cache_tips_worth(struct rp_cache_tips *tips, const struct rp_attention_row *row)
{
    double worth = 0;
    for (size_t i = 0; i < tips->n_cache && tips->tips[i].key < row->n_visible; i++)
        if (tips->tips[i].head == row->kv_head)
            worth += worth_in_cache(tips, row, &tips->tips[i]);
    for (size_t i = tips->n_cache; i < tips->n_tips; i++)
        if (tips->tips[i].head == row->head)
            worth += worth_in_q(tips, row, &tips->tips[i]);
    return worth;
}
