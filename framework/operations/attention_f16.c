/* See operations/attention_f16.h. */
#include "operations/attention_f16.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "operations/matmul.h"
#include "formats/half.h"
#include "operations/emulation.h"
#include "operations/operations.h"

/* ggml: sums are split from so many cells on, and the cache has a multiple of so many. */
#define LEAST_CELLS 512
#define CACHE_PAD 256

/* One head of one position. */
struct head {
    const struct rp_attention *args;
    const float *q;      /* [head_dim], rounded */
    const float *keys;   /* [n_visible][head_dim], rows kv_dim apart */
    const float *values; /* [n_visible][head_dim], rows kv_dim apart */
    size_t kv_dim;
    size_t n_visible;
    float sink;
    size_t part_size; /* keys that are summed by themselves, when streamed */
    float *part;      /* [head_dim], scratch */
    float *y;         /* [head_dim] */
};

typedef void head_fn(const struct head *head);

static float score(const struct head *head, size_t key)
{
    return rp_softcap(rp_dot(head->q, head->keys + key * head->kv_dim, head->args->head_dim) *
                          head->args->scale,
                      head->args->softcap);
}

/* args->scores = softmax, before it is rounded. */
static void softmax(const struct head *head)
{
    float *scores = head->args->scores, max = head->sink;
    for (size_t key = 0; key < head->n_visible; key++) {
        scores[key] = score(head, key);
        max = scores[key] > max ? scores[key] : max;
    }
    double sum = (double)expf(head->sink - max);
    for (size_t key = 0; key < head->n_visible; key++) {
        scores[key] = expf(scores[key] - max);
        sum += (double)scores[key];
    }
    for (size_t key = 0; key < head->n_visible; key++)
        scores[key] *= (float)(1.0 / sum);
}

static void weighted_sum(const struct head *head)
{
    memset(head->y, 0, head->args->head_dim * sizeof *head->y);
    for (size_t key = 0; key < head->n_visible; key++) {
        const float *value = head->values + key * head->kv_dim;
        for (size_t i = 0; i < head->args->head_dim; i++)
            head->y[i] += head->args->scores[key] * value[i];
    }
}

static void plain_head(const struct head *head)
{
    softmax(head);
    for (size_t key = 0; key < head->n_visible; key++)
        head->args->scores[key] = rp_round_f16(head->args->scores[key]);
    weighted_sum(head);
}

static void tiled_head(const struct head *head)
{
    softmax(head);
    weighted_sum(head);
}

/* Keys of one part of a sum, with their maximum so far. */
struct part {
    float sum, max;
    float *y; /* [head_dim], F16 */
};

/* The accumulator is F16: rounded whenever a key is added, by a fused multiplication and addition, and
 * whenever the maximum grows. */
static void add_key(const struct head *head, size_t key, struct part *part)
{
    const float *value = head->values + key * head->kv_dim;
    float s = score(head, key), rescale = 1.0f, weight = 1.0f;
    size_t dim = head->args->head_dim;
    if (s > part->max) {
        rescale = expf(part->max - s);
        part->max = s;
        for (size_t i = 0; i < dim; i++)
            part->y[i] = rp_round_f16(part->y[i] * rescale);
    } else {
        weight = expf(s - part->max);
    }
    for (size_t i = 0; i < dim; i++)
        part->y[i] = rp_round_f16((float)((double)value[i] * (double)weight + (double)part->y[i]));
    part->sum = part->sum * rescale + weight;
}

/* Parts are put together in FP32. */
static void add_part(const struct head *head, const struct part *part, struct part *whole)
{
    float max = part->max > whole->max ? part->max : whole->max;
    float old = expf(whole->max - max), new = expf(part->max - max);
    for (size_t i = 0; i < head->args->head_dim; i++)
        whole->y[i] = whole->y[i] * old + part->y[i] * new;
    whole->sum = whole->sum * old + part->sum * new;
    whole->max = max;
}

static void streamed_head(const struct head *head)
{
    size_t dim = head->args->head_dim;
    struct part whole = {.max = -INFINITY, .y = head->y};
    memset(whole.y, 0, dim * sizeof *whole.y);
    for (size_t first = 0; first < head->n_visible; first += head->part_size) {
        struct part part = {.max = -INFINITY, .y = head->part};
        memset(part.y, 0, dim * sizeof *part.y);
        for (size_t key = first; key < head->n_visible && key - first < head->part_size; key++)
            add_key(head, key, &part);
        add_part(head, &part, &whole);
    }
    if (head->args->sinks) {
        const struct part sink = {.sum = 1.0f, .max = head->sink, .y = head->part};
        memset(sink.y, 0, dim * sizeof *sink.y);
        add_part(head, &sink, &whole);
    }
    for (size_t i = 0; i < dim; i++)
        whole.y[i] *= 1.0f / whole.sum;
}

/* How many positions row p of the call came with. */
static size_t batch_size(const struct rp_numerics *numerics, const struct rp_site *site, size_t p)
{
    size_t length = numerics->prompt_length ? numerics->prompt_length : site->n_positions;
    size_t batch = numerics->batch, first;
    if (batch == 0)
        return site->mode == RP_MODE_PER_TOKEN ? 1 : length;
    /* The prompt may start at a position other than 0. */
    first = (size_t)(site->positions[p] - site->positions[0]) / batch * batch;
    return length > first && length - first < batch ? length - first : batch;
}

static bool is_tiled(const struct rp_numerics *numerics, const struct rp_site *site, size_t p)
{
    return batch_size(numerics, site, p) >= RP_FLASH_TILE;
}

/* A position that comes alone: its cache, whose size is padded, is cut into a part per thread. */
static size_t part_size(const struct rp_numerics *numerics, const struct rp_site *site, size_t p,
                        size_t n_visible)
{
    size_t n_cells = (n_visible + CACHE_PAD - 1) / CACHE_PAD * CACHE_PAD;
    if (numerics->threads < 2 || n_cells < LEAST_CELLS || batch_size(numerics, site, p) != 1)
        return n_visible;
    return (n_cells + numerics->threads - 1) / numerics->threads;
}

/* q [n_heads][head_dim] of one position, followed by a scratch row [head_dim]. */
static void run_position(const struct rp_emulation *emulation, const struct rp_site *site,
                         const struct rp_attention *args, size_t p,
                         float *q, /* NOLINT(readability-non-const-parameter) */
                         size_t n_visible, head_fn *run_head)
{
    size_t group = args->n_heads / args->n_kv_heads, dim = args->head_dim;
    for (size_t head = 0; head < args->n_heads; head++) {
        const struct head one = {.args = args,
                                 .q = q + head * dim,
                                 .keys = args->keys + head / group * dim,
                                 .values = args->values + head / group * dim,
                                 .kv_dim = args->n_kv_heads * dim,
                                 .n_visible = n_visible,
                                 .sink = rp_attention_sink(args, head),
                                 .part_size = part_size(&emulation->numerics, site, p, n_visible),
                                 .part = q + args->n_heads * dim,
                                 .y = args->y + (p * args->n_heads + head) * dim};
        if (n_visible > 0)
            run_head(&one);
        else
            memset(one.y, 0, dim * sizeof *one.y);
    }
}

static enum rp_status run(const struct rp_emulation *emulation, const struct rp_site *site,
                          const struct rp_attention *args, bool is_flash)
{
    const size_t width = args->n_heads * args->head_dim;
    float *q = malloc((width + args->head_dim + 1) * sizeof *q);
    enum rp_status status = RP_OK;
    if (!q)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a row of %zu values",
                       width);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        bool tiled = is_flash && is_tiled(&emulation->numerics, site, p);
        struct rp_attention seen = *args;
        size_t first, end;
        rp_attention_visible(site, args, p, &first, &end);
        seen.keys += first * args->n_kv_heads * args->head_dim;
        seen.values += first * args->n_kv_heads * args->head_dim;
        if (tiled)
            memcpy(q, args->q + p * width, width * sizeof *q);
        else
            status = rp_emulated_q(emulation, site, p, args->q + p * width, width, q);
        if (status == RP_OK)
            run_position(emulation, site, &seen, p, q, end - first,
                         !is_flash ? plain_head
                         : tiled   ? tiled_head
                                   : streamed_head);
    }
    free(q);
    return status;
}

enum rp_status rp_attention_f16(const struct rp_emulation *emulation, const struct rp_site *site,
                                const struct rp_attention *args)
{
    return run(emulation, site, args, false);
}

enum rp_status rp_attention_flash_f16(const struct rp_emulation *emulation,
                                      const struct rp_site *site, const struct rp_attention *args)
{
    return run(emulation, site, args, true);
}

bool rp_numerics_has_f16_sums(const struct rp_numerics *numerics, const struct rp_site *site,
                              size_t p)
{
    return numerics->attention == RP_ATTENTION_FLASH &&
           rp_numerics_cache_format(numerics) == RP_GGML_F16 && !is_tiled(numerics, site, p);
}
