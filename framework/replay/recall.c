/* See replay/recall.h. A run over all rows is handed on and noted. A run over some rows sees, for
 * each of them, itself as it now is and all others as noted. */
#include "replay/recall.h"

#include <stdlib.h>
#include <string.h>

static enum rp_status no_memory(const struct rp_site *site)
{
    return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for what a layer remembers");
}

static size_t row_of(const struct rp_recall *recall, size_t p)
{
    return recall->rows ? recall->rows[p] : p;
}

static bool keeps(const struct rp_recall *recall, size_t p)
{
    return !recall->rows || recall->commits ||
           (recall->rows[p] >= recall->kept_from && recall->rows[p] < recall->kept_to);
}

/* The same place, for n positions from row on. */
static struct rp_site site_at(const struct rp_recall *recall, const struct rp_site *site,
                              size_t row, size_t n)
{
    struct rp_site part = *site;
    part.positions = recall->positions + row;
    part.n_positions = n;
    return part;
}

/* ---- the products that end in a slot ---- */

int rp_recall_last_product(enum rp_weight_id which)
{
    switch (which) {
    case RP_ATTN_OUTPUT:
    case RP_SSM_OUT: return RP_LAST_OF_ATTENTION;
    case RP_FFN_DOWN: return RP_LAST_OF_FFN;
    default: return RP_NOT_LAST;
    }
}

static enum rp_status linear(void *overlay, const struct rp_site *site,
                             const struct rp_linear *args)
{
    struct rp_recall *recall = overlay;
    const struct rp_ops *below = recall->overlay.below;
    const int last = rp_recall_last_product(args->which);
    if (last == RP_NOT_LAST || (recall->rows && !recall->commits))
        return below->linear(below->context, site, args);
    if (!recall->last_in[last])
        recall->last_in[last] = calloc(recall->n * args->n_in + 1, sizeof(float));
    if (!recall->last_in[last])
        return no_memory(site);
    recall->last_width[last] = args->n_in;
    for (size_t p = 0; p < site->n_positions; p++)
        memcpy(recall->last_in[last] + row_of(recall, p) * args->n_in, args->x + p * args->n_in,
               args->n_in * sizeof(float));
    return below->linear(below->context, site, args);
}

/* ---- full attention ---- */

static enum rp_status kv_store(void *overlay, const struct rp_site *site,
                               const struct rp_kv_store *args)
{
    struct rp_recall *recall = overlay;
    const struct rp_ops *below = recall->overlay.below;
    enum rp_status status = below->kv_store(below->context, site, args);
    if (status != RP_OK)
        return status;
    if (!recall->keys) {
        recall->kv_dim = args->dim;
        recall->keys = calloc(recall->n * args->dim + 1, sizeof *recall->keys);
        recall->values = calloc(recall->n * args->dim + 1, sizeof *recall->values);
        recall->scores = calloc(recall->n + 1, sizeof *recall->scores);
        if (!recall->keys || !recall->values || !recall->scores)
            return no_memory(site);
    }
    for (size_t p = 0; p < site->n_positions; p++) {
        if (!keeps(recall, p))
            continue;
        const size_t at = row_of(recall, p) * args->dim;
        memcpy(recall->keys + at, args->keys + p * args->dim, args->dim * sizeof(float));
        memcpy(recall->values + at, args->values + p * args->dim, args->dim * sizeof(float));
    }
    return RP_OK;
}

static void swap_rows(float *a, float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const float value = a[i];
        a[i] = b[i];
        b[i] = value;
    }
}

/* The row's own batch, as it would be in a run over all rows; the last one may be smaller. */
static void set_batch(const struct rp_recall *recall, const struct rp_numerics *all, size_t row)
{
    if (!recall->numerics)
        return;
    const size_t length = all->prompt_length ? all->prompt_length : recall->n;
    size_t batch = all->batch;
    if (batch > 0) {
        const size_t first =
            (size_t)(recall->positions[row] - recall->positions[0]) / batch * batch;
        batch = length > first && length - first < batch ? length - first : batch;
    }
    recall->numerics->batch = batch;
    recall->numerics->prompt_length = batch > 0 ? batch : length;
}

static enum rp_status attention(void *overlay, const struct rp_site *site,
                                const struct rp_attention *args)
{
    struct rp_recall *recall = overlay;
    const struct rp_ops *below = recall->overlay.below;
    const size_t width = args->n_heads * args->head_dim;
    const struct rp_numerics all = recall->numerics ? *recall->numerics : (struct rp_numerics){0};
    enum rp_status status = RP_OK;
    if (!recall->rows)
        return below->attention(below->context, site, args);
    float *own = malloc(2 * recall->kv_dim * sizeof *own + 1); /* K and V of one row */
    if (!own)
        return no_memory(site);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        const size_t row = row_of(recall, p), at = row * recall->kv_dim;
        const struct rp_site one = site_at(recall, site, row, 1);
        struct rp_attention of_one = *args;
        memcpy(own, args->keys + p * recall->kv_dim, recall->kv_dim * sizeof *own);
        memcpy(own + recall->kv_dim, args->values + p * recall->kv_dim,
               recall->kv_dim * sizeof *own);
        swap_rows(recall->keys + at, own, recall->kv_dim);
        swap_rows(recall->values + at, own + recall->kv_dim, recall->kv_dim);
        of_one.q = args->q + p * width;
        of_one.y = args->y + p * width;
        of_one.n_keys = recall->n;
        of_one.keys = recall->keys;
        of_one.values = recall->values;
        of_one.key_positions = recall->positions;
        of_one.scores = recall->scores;
        set_batch(recall, &all, row);
        status = below->attention(below->context, &one, &of_one);
        swap_rows(recall->keys + at, own, recall->kv_dim);
        swap_rows(recall->values + at, own + recall->kv_dim, recall->kv_dim);
    }
    if (recall->numerics)
        *recall->numerics = all;
    free(own);
    return status;
}

/* ---- linear attention ---- */

static enum rp_status causal_conv1d(void *overlay, const struct rp_site *site,
                                    const struct rp_causal_conv1d *args)
{
    struct rp_recall *recall = overlay;
    const struct rp_ops *below = recall->overlay.below;
    const size_t width = args->n_channels, n_before = args->kernel - 1;
    enum rp_status status = RP_OK;
    if (!recall->conv_in)
        recall->conv_in = calloc(recall->n * width + 1, sizeof *recall->conv_in);
    float *state = calloc(n_before * width + 1, sizeof *state);
    if (!recall->conv_in || !state) {
        free(state);
        return no_memory(site);
    }
    recall->n_channels = width;
    for (size_t p = 0; p < site->n_positions; p++) {
        if (keeps(recall, p))
            memcpy(recall->conv_in + row_of(recall, p) * width, args->x + p * width,
                   width * sizeof *state);
    }
    if (!recall->rows)
        status = below->causal_conv1d(below->context, site, args);
    for (size_t p = 0; p < site->n_positions && recall->rows && status == RP_OK; p++) {
        const size_t row = row_of(recall, p), n_there = row < n_before ? row : n_before;
        const struct rp_site one = site_at(recall, site, row, 1);
        struct rp_causal_conv1d of_one = *args;
        memset(state, 0, n_before * width * sizeof *state);
        memcpy(state + (n_before - n_there) * width, recall->conv_in + (row - n_there) * width,
               n_there * width * sizeof *state);
        of_one.state = state;
        of_one.x = args->x + p * width;
        of_one.y = args->y + p * width;
        status = below->causal_conv1d(below->context, &one, &of_one);
    }
    free(state);
    return status;
}

static enum rp_status make_room(struct rp_recall *recall, const struct rp_site *site,
                                const struct rp_delta_rule *args)
{
    recall->n_heads = args->n_v_heads;
    recall->qkv_stride = (2 * args->n_k_heads + args->n_v_heads) * args->head_dim;
    recall->qkv = calloc(recall->n * recall->qkv_stride + 1, sizeof(float));
    recall->decay = calloc(recall->n * recall->n_heads + 1, sizeof(float));
    recall->beta = calloc(recall->n * recall->n_heads + 1, sizeof(float));
    return recall->qkv && recall->decay && recall->beta ? RP_OK : no_memory(site);
}

static void keep_row(struct rp_recall *recall, const struct rp_delta_rule *args, size_t p)
{
    const size_t row = row_of(recall, p), k_dim = args->n_k_heads * args->head_dim;
    float *qkv = recall->qkv + row * recall->qkv_stride;
    memcpy(qkv, args->q + p * args->qkv_stride, k_dim * sizeof *qkv);
    memcpy(qkv + k_dim, args->k + p * args->qkv_stride, k_dim * sizeof *qkv);
    memcpy(qkv + 2 * k_dim, args->v + p * args->qkv_stride,
           args->n_v_heads * args->head_dim * sizeof *qkv);
    memcpy(recall->decay + row * recall->n_heads, args->decay + p * recall->n_heads,
           recall->n_heads * sizeof *qkv);
    memcpy(recall->beta + row * recall->n_heads, args->beta + p * recall->n_heads,
           recall->n_heads * sizeof *qkv);
}

/* Takes state over the noted rows from .. to - 1; y is scratch. */
static enum rp_status advance(const struct rp_recall *recall, const struct rp_site *site,
                              const struct rp_delta_rule *args, size_t from, size_t to,
                              float *state, float *y)
{
    const struct rp_ops *below = recall->overlay.below;
    const size_t k_dim = args->n_k_heads * args->head_dim;
    enum rp_status status = RP_OK;
    for (size_t row = from; row < to && status == RP_OK; row++) {
        const struct rp_site one = site_at(recall, site, row, 1);
        const float *qkv = recall->qkv + row * recall->qkv_stride;
        struct rp_delta_rule of_one = *args;
        of_one.q = qkv;
        of_one.k = qkv + k_dim;
        of_one.v = qkv + 2 * k_dim;
        of_one.qkv_stride = recall->qkv_stride;
        of_one.decay = recall->decay + row * recall->n_heads;
        of_one.beta = recall->beta + row * recall->n_heads;
        of_one.state = state;
        of_one.y = y;
        status = below->delta_rule(below->context, &one, &of_one);
    }
    return status;
}

static enum rp_status delta_rows(const struct rp_recall *recall, const struct rp_site *site,
                                 const struct rp_delta_rule *args)
{
    const struct rp_ops *below = recall->overlay.below;
    const size_t width = args->n_v_heads * args->head_dim, size = width * args->head_dim;
    size_t reached = 0;
    enum rp_status status = RP_OK;
    float *state = calloc(2 * size + width + 1, sizeof *state), *own = state + size;
    if (!state)
        return no_memory(site);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        const size_t row = row_of(recall, p);
        const struct rp_site one = site_at(recall, site, row, 1);
        struct rp_delta_rule of_one = *args;
        status = advance(recall, site, args, reached, row, state, own + size);
        if (status != RP_OK)
            break;
        reached = row;
        memcpy(own, state, size * sizeof *own);
        of_one.q = args->q + p * args->qkv_stride;
        of_one.k = args->k + p * args->qkv_stride;
        of_one.v = args->v + p * args->qkv_stride;
        of_one.decay = args->decay + p * args->n_v_heads;
        of_one.beta = args->beta + p * args->n_v_heads;
        of_one.state = own;
        of_one.y = args->y + p * width;
        status = below->delta_rule(below->context, &one, &of_one);
    }
    free(state);
    return status;
}

static enum rp_status delta_rule(void *overlay, const struct rp_site *site,
                                 const struct rp_delta_rule *args)
{
    struct rp_recall *recall = overlay;
    const struct rp_ops *below = recall->overlay.below;
    const enum rp_status status = recall->qkv ? RP_OK : make_room(recall, site, args);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        if (keeps(recall, p))
            keep_row(recall, args, p);
    }
    if (status != RP_OK)
        return status;
    return recall->rows ? delta_rows(recall, site, args)
                        : below->delta_rule(below->context, site, args);
}

size_t rp_recall_row_size(const struct rp_recall *recall)
{
    return 2 * recall->kv_dim + recall->n_channels + recall->qkv_stride + 2 * recall->n_heads;
}

void rp_recall_swap(struct rp_recall *recall, size_t row, float *buffer)
{
    const struct {
        float *rows;
        size_t width;
    } kept[] = {{recall->keys, recall->kv_dim},        {recall->values, recall->kv_dim},
                {recall->conv_in, recall->n_channels}, {recall->qkv, recall->qkv_stride},
                {recall->decay, recall->n_heads},      {recall->beta, recall->n_heads}};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        if (kept[i].width > 0)
            swap_rows(kept[i].rows + row * kept[i].width, buffer, kept[i].width);
        buffer += kept[i].width;
    }
}

void rp_recall_open(struct rp_recall *recall, size_t n, const int64_t *positions,
                    const struct rp_ops *below)
{
    *recall = (struct rp_recall){.n = n, .positions = positions};
    rp_overlay_open(&recall->overlay, below);
    recall->overlay.ops.linear = linear;
    recall->overlay.ops.kv_store = kv_store;
    recall->overlay.ops.attention = attention;
    recall->overlay.ops.causal_conv1d = causal_conv1d;
    recall->overlay.ops.delta_rule = delta_rule;
}

void rp_recall_close(struct rp_recall *recall)
{
    free(recall->keys);
    free(recall->values);
    free(recall->scores);
    free(recall->conv_in);
    free(recall->qkv);
    free(recall->decay);
    free(recall->beta);
    for (size_t i = 0; i < 2; i++) {
        free(recall->last_in[i]);
        recall->last_in[i] = NULL;
    }
    recall->keys = recall->values = recall->scores = NULL;
    recall->conv_in = recall->qkv = recall->decay = recall->beta = NULL;
}
