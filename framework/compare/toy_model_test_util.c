/* See toy_model_test_util.h. Attention has one head, and no position but a distance: a row's context
 * matters, its place does not, which is the worst case for telling displaced rows from displaced tokens. */
#include "compare/toy_model_test_util.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "refparity/dump.h"

uint32_t rp_toy_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    uint32_t x = *state;
    x ^= x >> 16;
    x *= 0x7feb352du;
    return x ^ x >> 15;
}

size_t rp_toy_below(uint32_t *state, size_t n)
{
    return rp_toy_random(state) % n;
}

double rp_toy_normal(uint32_t *state)
{
    double sum = 0;
    for (int i = 0; i < 12; i++)
        sum += (double)rp_toy_random(state) / 4294967296.0;
    return sum - 6;
}

static void fill(float *out, size_t n, double size, uint32_t *state)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(size * rp_toy_normal(state));
}

void rp_toy_make(struct rp_toy_model *model, uint32_t seed, size_t n_layers, size_t dim,
                 double growth)
{
    memset(model, 0, sizeof *model);
    model->n_layers = n_layers;
    model->dim = dim;
    for (size_t t = 0; t < RP_TOY_VOCAB; t++) {
        fill(model->emb[t], dim, 0.5, &seed);
        fill(model->head[t], dim, 1 / sqrt((double)dim), &seed);
    }
    double size = 1 / sqrt((double)dim);
    for (size_t l = 0; l < n_layers; l++) {
        for (size_t k = 0; k < 6; k++)
            for (size_t i = 0; i < dim; i++)
                fill(model->w[l][k][i], dim,
                     k == 3 || k == 5 ? size * pow(growth, (double)l) : size, &seed);
    }
    for (size_t k = 0; k < 2 * RP_TOY_MAX_LAYERS + 1; k++)
        for (size_t i = 0; i < dim; i++)
            model->norm[k][i] = (float)(1 + 0.2 * rp_toy_normal(&seed));
}

/* y[dim] = w[dim][dim] x[dim] */
static void linear(const float (*w)[RP_TOY_MAX_DIM], const float *x, size_t n_out, size_t dim,
                   float *y)
{
    for (size_t i = 0; i < n_out; i++) {
        float sum = 0;
        for (size_t j = 0; j < dim; j++)
            sum += w[i][j] * x[j];
        y[i] = sum;
    }
}

static void rms_norm(const float *x, const float *weight, size_t dim, float *y)
{
    float sum = 0;
    for (size_t j = 0; j < dim; j++)
        sum += x[j] * x[j];
    const float scale = 1 / sqrtf(sum / (float)dim + 1e-6f);
    for (size_t j = 0; j < dim; j++)
        y[j] = x[j] * scale * weight[j];
}

typedef float row[RP_TOY_MAX_DIM];

struct layer_run {
    const struct rp_toy_model *model;
    const struct rp_toy_fault *fault;
    size_t n, layer, weights;
    row q[RP_TOY_MAX_POSITIONS], k[RP_TOY_MAX_POSITIONS], v[RP_TOY_MAX_POSITIONS];
};

static int sees(const struct layer_run *r, size_t from, size_t to)
{
    switch (r->fault->bug) {
    case RP_TOY_FORGETS:
    case RP_TOY_FORGETS_ONE_TOKEN: return from == to;
    case RP_TOY_NOT_CAUSAL: return r->layer == r->fault->layer || to <= from;
    case RP_TOY_CACHE_STUCK: return to <= from && (to <= r->fault->position || to == from);
    default: return to <= from;
    }
}

static void attend(const struct layer_run *r, size_t p, float *out)
{
    const size_t dim = r->model->dim;
    float weights[RP_TOY_MAX_POSITIONS], sum = 0;
    memset(out, 0, dim * sizeof *out);
    for (size_t t = 0; t < r->n; t++) {
        float score = 0;
        for (size_t j = 0; j < dim; j++)
            score += r->q[p][j] * r->k[t][j];
        const float distance = t < p ? (float)(p - t) : (float)(t - p);
        weights[t] = sees(r, p, t) ? expf(score / sqrtf((float)dim) - 0.1f * distance) : 0.0f;
        sum += weights[t];
    }
    for (size_t t = 0; t < r->n; t++)
        for (size_t j = 0; j < dim; j++)
            out[j] += weights[t] / sum * r->v[t][j];
}

/* x [n][dim] through one layer. */
static void run_layer(struct layer_run *r, float (*x)[RP_TOY_MAX_DIM])
{
    const struct rp_toy_model *m = r->model;
    const size_t dim = m->dim, l = r->weights;
    const int here = r->layer == r->fault->layer;
    const enum rp_toy_bug bug = here ? r->fault->bug : RP_TOY_CLEAN;
    row normed, mixed, y, up;
    for (size_t p = 0; p < r->n; p++) {
        rms_norm(x[p], m->norm[2 * l], dim, normed);
        if (bug == RP_TOY_NO_NORM)
            memcpy(normed, x[p], dim * sizeof *normed);
        linear(m->w[l][0], normed, dim, dim, r->q[p]);
        linear(m->w[l][1], normed, dim, dim, r->k[p]);
        linear(m->w[l][2], normed, dim, dim, r->v[p]);
    }
    for (size_t p = 0; p < r->n; p++) {
        attend(r, p, mixed);
        linear(m->w[l][3], mixed, dim, dim, y);
        for (size_t j = 0; j < dim; j++)
            x[p][j] += bug == RP_TOY_NO_ATTENTION ? 0 : y[j];
        rms_norm(x[p], m->norm[2 * l + 1], dim, normed);
        linear(m->w[l][4], normed, dim, dim, up);
        for (size_t j = 0; j < dim; j++)
            up[j] = up[j] / (1 + expf(-up[j]));
        linear(m->w[l][5], up, dim, dim, y);
        for (size_t j = 0; j < dim; j++)
            x[p][j] = (bug == RP_TOY_NO_RESIDUAL ? 0 : x[p][j]) +
                      (bug == RP_TOY_FFN_SCALED ? 0.5f : 1.0f) * y[j];
        if (bug == RP_TOY_ONE_CHANNEL)
            x[p][3] *= 20;
    }
}

static void reverse_rows(row *x, size_t n, size_t first)
{
    row swap;
    for (size_t a = first, b = n; a + 1 < b; a++) {
        b--;
        memcpy(swap, x[a], sizeof swap);
        memcpy(x[a], x[b], sizeof swap);
        memcpy(x[b], swap, sizeof swap);
    }
}

static void rotate_rows(row *x, size_t n)
{
    reverse_rows(x, n, 0);
    reverse_rows(x, n, 1);
}

/* What happens to a layer's output before the next. */
static void damage_stream(const struct rp_toy_fault *fault, row *x, size_t n, size_t dim)
{
    row old[RP_TOY_MAX_POSITIONS];
    memcpy(old, x, n * sizeof *old);
    switch (fault->bug) {
    case RP_TOY_ROWS_PERMUTED_AFTER: rotate_rows(x, n); break;
    case RP_TOY_ROWS_TRANSPOSED_AFTER:
        for (size_t i = 0; i < n * dim; i++)
            x[i / dim][i % dim] = old[i % n][i / n];
        break;
    case RP_TOY_ROW_REPEATED_AFTER:
        for (size_t p = 0; p < n; p++)
            memcpy(x[p], old[fault->position], sizeof *x);
        break;
    case RP_TOY_NAN:
    case RP_TOY_ZEROS:
        for (size_t p = fault->position; p < n; p++)
            for (size_t j = 0; j < dim; j++)
                x[p][j] = fault->bug == RP_TOY_NAN ? NAN : 0.0f;
        break;
    default: break;
    }
}

static void change_tokens(const struct rp_toy_fault *fault, int *tokens, size_t n)
{
    switch (fault->bug) {
    case RP_TOY_FIRST_TOKEN_DROPPED:
        for (size_t i = 0; i + 1 < n; i++)
            tokens[i] = tokens[i + 1];
        break;
    case RP_TOY_EXTRA_TOKEN:
        for (size_t i = n; i-- > 1;)
            tokens[i] = tokens[i - 1];
        tokens[0] = RP_TOY_VOCAB - 1;
        break;
    case RP_TOY_TOKENS_REVERSED:
        for (size_t a = 0, b = n - 1; a < b; a++, b--) {
            const int t = tokens[a];
            tokens[a] = tokens[b];
            tokens[b] = t;
        }
        break;
    case RP_TOY_TOKENS_PERMUTED:
        for (size_t a = 0; a + 1 < n; a += 2) {
            const int t = tokens[a];
            tokens[a] = tokens[a + 1];
            tokens[a + 1] = t;
        }
        break;
    case RP_TOY_ONE_TOKEN:
    case RP_TOY_FORGETS_ONE_TOKEN:
        for (size_t i = 1; i < n; i++)
            tokens[i] = tokens[0];
        break;
    default: break;
    }
}

static void store(struct rp_toy_run *run, const char *name, const row *x, size_t dim)
{
    const size_t s = run->n_slots++;
    run->dim[s] = dim;
    snprintf(run->name[s], sizeof run->name[s], "%s", name);
    for (size_t p = 0; p < run->n; p++)
        memcpy(run->rows[s] + p * dim, x[p], dim * sizeof(float));
}

/* Which layer's weights run as layer l; -1: none. */
static int weights_of(const struct rp_toy_fault *fault, size_t l, size_t n_layers)
{
    const size_t at = fault->layer, next = (at + 1) % n_layers;
    switch (fault->bug) {
    case RP_TOY_LAYER_SKIPPED: return l == at ? -1 : (int)l;
    case RP_TOY_LAYERS_SWAPPED: return (int)(l == at ? next : l == next ? at : l);
    case RP_TOY_OTHER_WEIGHTS: return (int)(l == at ? next : l);
    case RP_TOY_LATE: return (int)l - 1;
    default: return (int)l;
    }
}

static void finish(const struct rp_toy_model *m, const struct rp_toy_fault *fault, row *x,
                   struct rp_toy_run *run)
{
    float logits[RP_TOY_MAX_POSITIONS][RP_TOY_VOCAB];
    for (size_t p = 0; p < run->n; p++) {
        if (fault->bug != RP_TOY_NO_FINAL_NORM)
            rms_norm(x[p], m->norm[2 * RP_TOY_MAX_LAYERS], m->dim, x[p]);
        if (fault->bug == RP_TOY_FINAL_NORM_TWICE)
            rms_norm(x[p], m->norm[2 * RP_TOY_MAX_LAYERS], m->dim, x[p]);
    }
    store(run, "post_norm", (const row *)x, m->dim);
    if (fault->bug == RP_TOY_LOGITS_OFF_BY_ONE)
        rotate_rows(x, run->n);
    if (fault->bug == RP_TOY_LOGITS_REVERSED)
        reverse_rows(x, run->n, 0);
    for (size_t p = 0; p < run->n; p++)
        linear(m->head, x[p], RP_TOY_VOCAB, m->dim, logits[p]);
    const size_t s = run->n_slots++;
    run->dim[s] = RP_TOY_VOCAB;
    snprintf(run->name[s], sizeof run->name[s], "logits");
    memcpy(run->rows[s], logits, run->n * sizeof *logits);
}

/* In every slot, rows from position on are that position's, or were never computed. */
static void repeat_or_cut(const struct rp_toy_fault *fault, struct rp_toy_run *run)
{
    for (size_t s = 0; s < run->n_slots; s++)
        for (size_t p = fault->position; p < run->n; p++) {
            float *rows = run->rows[s];
            const size_t dim = run->dim[s];
            if (fault->bug == RP_TOY_CUT_SHORT)
                memset(rows + p * dim, 0, dim * sizeof *rows);
            else if (fault->bug == RP_TOY_STUCK && p > fault->position)
                memcpy(rows + p * dim, rows + fault->position * dim, dim * sizeof *rows);
        }
}

void rp_toy_run(const struct rp_toy_model *model, const int *tokens, size_t n,
                const struct rp_toy_fault *fault, struct rp_toy_run *run)
{
    static const struct rp_toy_fault clean;
    int fed[RP_TOY_MAX_POSITIONS];
    row x[RP_TOY_MAX_POSITIONS];
    struct layer_run *r = calloc(1, sizeof *r);
    char name[RP_SLOT_NAME_SIZE];
    if (!r)
        abort();
    fault = fault ? fault : &clean;
    memset(run, 0, sizeof *run);
    memset(x, 0, sizeof x);
    run->n = n;
    memcpy(fed, tokens, n * sizeof *fed);
    change_tokens(fault, fed, n);
    for (size_t p = 0; p < n; p++)
        memcpy(x[p], model->emb[fed[p]], sizeof x[p]);
    store(run, "emb", (const row *)x, model->dim);
    r->model = model;
    r->fault = fault;
    r->n = n;
    for (size_t l = 0; l < model->n_layers; l++) {
        const int weights = weights_of(fault, l, model->n_layers);
        const int times = fault->bug == RP_TOY_LAYER_TWICE && l == fault->layer ? 2 : 1;
        r->layer = l;
        r->weights = (size_t)weights;
        for (int i = 0; i < times && weights >= 0; i++)
            run_layer(r, x);
        if (l == fault->layer)
            damage_stream(fault, x, n, model->dim);
        store(run, rp_slot_name(RP_PART_OUTPUT, (int)l, name), (const row *)x, model->dim);
    }
    finish(model, fault, x, run);
    repeat_or_cut(fault, run);
    free(r);
}

void rp_toy_add_noise(struct rp_toy_run *run, double size, uint32_t *state)
{
    for (size_t s = 0; s < run->n_slots; s++)
        for (size_t i = 0; i < run->n * run->dim[s]; i++)
            run->rows[s][i] *= (float)(1 + size * rp_toy_normal(state));
}

size_t rp_toy_slot(const struct rp_toy_run *run, const char *name)
{
    for (size_t s = 0; s < run->n_slots; s++)
        if (strcmp(run->name[s], name) == 0)
            return s;
    abort();
}

/* ---- as dumps ---- */

static struct rp_tensor_set *write_run(const char *folder, const char *name,
                                       const struct rp_toy_run *run)
{
    char path[512];
    struct rp_tensor_set *set;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    struct rp_dump *dump = rp_dump_open(path, (int)run->n_slots - 3, "toy");
    for (size_t s = 0; s < run->n_slots; s++)
        if (rp_dump_rows(dump, run->name[s], 0, run->n, run->dim[s], run->rows[s]))
            abort();
    rp_dump_finish(dump);
    if (rp_dump_close(dump) || rp_tensor_set_open(path, RP_LAYOUT_NPY, 0, &set, NULL))
        abort();
    return set;
}

void rp_toy_sets_open(struct rp_toy_sets *sets, const struct rp_toy_run *reference,
                      const struct rp_toy_run *engine)
{
    memset(sets, 0, sizeof *sets);
    rp_test_make_folder(sets->folder);
    sets->comparison.reference = write_run(sets->folder, "reference", reference);
    sets->comparison.engine = write_run(sets->folder, "engine", engine);
    sets->comparison.limits = rp_limits_default();
    sets->comparison.n_layers = (int)reference->n_slots - 3;
}

void rp_toy_sets_close(struct rp_toy_sets *sets)
{
    rp_tensor_set_close(sets->comparison.reference);
    rp_tensor_set_close(sets->comparison.engine);
    if (rp_remove_tree(sets->folder, NULL))
        abort();
}
