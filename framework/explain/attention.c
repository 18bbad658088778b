/* Hypotheses about attention itself: scale, mask, heads, softmax, the cache's rows, the gate.
 * Their operations; what is tried is in attention_collect.c. */
#include "explain/attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static enum rp_status no_memory(const struct rp_site *site)
{
    return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for attention's arguments");
}

static enum rp_status run_below(const struct rp_change *change, const struct rp_site *site,
                                const struct rp_attention *args)
{
    const struct rp_ops *below = change->overlay.below;
    return below->attention(below->context, site, args);
}

/* Keys as if they were `value` positions later (mask), or only the last `value` of them (window). */
static enum rp_status run_masked(const struct rp_change *change, const struct rp_site *site,
                                 const struct rp_attention *args)
{
    size_t kv_dim = args->n_kv_heads * args->head_dim;
    size_t width = args->n_heads * args->head_dim;
    int64_t by = (int64_t)change->value;
    enum rp_status status = RP_OK;
    int64_t *moved = malloc((args->n_keys + 1) * sizeof *moved);
    if (!moved)
        return no_memory(site);
    for (size_t i = 0; i < args->n_keys; i++)
        moved[i] = args->key_positions[i] - (change->option == RP_ATTENTION_MASK ? by : 0);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        struct rp_site one = *site;
        struct rp_attention wrong = *args;
        size_t skip = 0;
        one.positions += p;
        one.n_positions = 1;
        if (change->option == RP_ATTENTION_WINDOW)
            while (skip + 1 < args->n_keys && args->key_positions[skip] <= site->positions[p] - by)
                skip++;
        wrong.q += p * width;
        wrong.y += p * width;
        wrong.n_keys -= skip;
        wrong.keys += skip * kv_dim;
        wrong.values += skip * kv_dim;
        /* A position that would see nothing sees itself. */
        bool sees_none = skip < args->n_keys && moved[skip] > site->positions[p];
        wrong.key_positions = (sees_none ? args->key_positions : moved) + skip;
        status = run_below(change, &one, &wrong);
    }
    free(moved);
    return status;
}

static size_t mapped_head(const struct rp_change *change, const struct rp_attention *args,
                          size_t head)
{
    switch (change->option) {
    case RP_ATTENTION_MODULO: return head % args->n_kv_heads;
    case RP_ATTENTION_FIRST_HEAD: return 0;
    case RP_ATTENTION_REVERSED:
        return args->n_kv_heads - 1 - head / (args->n_heads / args->n_kv_heads);
    default: return (head / (args->n_heads / args->n_kv_heads) + 1) % args->n_kv_heads;
    }
}

/* Every query head gets KV rows of its own, whichever it reads. */
static enum rp_status run_mapped(const struct rp_change *change, const struct rp_site *site,
                                 const struct rp_attention *args)
{
    size_t width = args->n_heads * args->head_dim, kv_dim = args->n_kv_heads * args->head_dim;
    size_t n = args->n_keys * width;
    struct rp_attention wrong = *args;
    float *keys = malloc((n + 1) * sizeof *keys), *values = malloc((n + 1) * sizeof *values);
    enum rp_status status = RP_OK;
    if (!keys || !values)
        status = no_memory(site);
    for (size_t key = 0; key < args->n_keys && status == RP_OK; key++) {
        for (size_t head = 0; head < args->n_heads; head++) {
            size_t to = key * width + head * args->head_dim;
            size_t from = key * kv_dim + mapped_head(change, args, head) * args->head_dim;
            memcpy(keys + to, args->keys + from, args->head_dim * sizeof *keys);
            memcpy(values + to, args->values + from, args->head_dim * sizeof *values);
        }
    }
    wrong.n_kv_heads = args->n_heads;
    wrong.keys = keys;
    wrong.values = values;
    if (status == RP_OK)
        status = run_below(change, site, &wrong);
    free(keys);
    free(values);
    return status;
}

/* Row i is that of row i - by, as far as there is one. out [n][width] */
static void shift_rows(const float *rows, size_t n, size_t width, int64_t by, float *out)
{
    for (size_t i = 0; i < n; i++) {
        int64_t from = (int64_t)i - by;
        if (from < 0)
            from = 0;
        if (from >= (int64_t)n)
            from = (int64_t)n - 1;
        memcpy(out + i * width, rows + (size_t)from * width, width * sizeof *out);
    }
}

/* K, V or both of `value` positions before. */
static enum rp_status run_shifted(const struct rp_change *change, const struct rp_site *site,
                                  const struct rp_attention *args)
{
    size_t kv_dim = args->n_kv_heads * args->head_dim, n = args->n_keys * kv_dim;
    int64_t by = (int64_t)change->value;
    struct rp_attention wrong = *args;
    float *keys = malloc((n + 1) * sizeof *keys), *values = malloc((n + 1) * sizeof *values);
    enum rp_status status = keys && values ? RP_OK : no_memory(site);
    if (status == RP_OK) {
        shift_rows(args->keys, args->n_keys, kv_dim, change->which == RP_ATTN_V ? 0 : by, keys);
        shift_rows(args->values, args->n_keys, kv_dim, change->which == RP_ATTN_K ? 0 : by, values);
        wrong.keys = keys;
        wrong.values = values;
        status = run_below(change, site, &wrong);
    }
    free(keys);
    free(values);
    return status;
}

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* One head of one position with another softmax: capped scores, or a sink. keys and values are the
 * KV head's, rows kv_dim apart. */
static void own_head(const struct rp_change *change, const struct rp_attention *args,
                     const float *q, const float *keys, const float *values, size_t n_visible,
                     float *y)
{
    bool has_sink = change->option == RP_ATTENTION_SINK;
    size_t kv_dim = args->n_kv_heads * args->head_dim;
    double most = has_sink ? change->value : -HUGE_VAL, sum;
    for (size_t key = 0; key < n_visible; key++) {
        double score = dot(q, keys + key * kv_dim, args->head_dim) * (double)args->scale;
        if (!has_sink)
            score = change->value * tanh(score / change->value);
        args->scores[key] = (float)score;
        most = fmax(most, score);
    }
    sum = has_sink ? exp(change->value - most) : 0;
    for (size_t key = 0; key < n_visible; key++) {
        args->scores[key] = (float)exp((double)args->scores[key] - most);
        sum += (double)args->scores[key];
    }
    memset(y, 0, args->head_dim * sizeof *y);
    for (size_t key = 0; key < n_visible; key++) {
        float share = (float)((double)args->scores[key] / sum);
        for (size_t i = 0; i < args->head_dim; i++)
            y[i] += share * values[key * kv_dim + i];
    }
}

static enum rp_status run_own_softmax(const struct rp_change *change, const struct rp_site *site,
                                      const struct rp_attention *args)
{
    size_t n_visible = 0, group = args->n_heads / args->n_kv_heads;
    for (size_t p = 0; p < site->n_positions; p++) {
        while (n_visible < args->n_keys && args->key_positions[n_visible] <= site->positions[p])
            n_visible++;
        for (size_t head = 0; head < args->n_heads; head++) {
            size_t at = (p * args->n_heads + head) * args->head_dim;
            size_t kv_at = head / group * args->head_dim;
            own_head(change, args, args->q + at, args->keys + kv_at, args->values + kv_at,
                     n_visible, args->y + at);
        }
    }
    return RP_OK;
}

static enum rp_status attention(void *context, const struct rp_site *site,
                                const struct rp_attention *args)
{
    const struct rp_change *change = context;
    struct rp_attention wrong = *args;
    enum rp_status status;
    switch (change->option) {
    case RP_ATTENTION_SCALE: wrong.scale = (float)change->value; break;
    case RP_ATTENTION_NOT_CAUSAL: wrong.is_causal = false; break;
    case RP_ATTENTION_MASK:
    case RP_ATTENTION_WINDOW: return run_masked(change, site, args);
    case RP_ATTENTION_MODULO:
    case RP_ATTENTION_FIRST_HEAD:
    case RP_ATTENTION_REVERSED:
    case RP_ATTENTION_NEXT_HEAD: return run_mapped(change, site, args);
    case RP_ATTENTION_SOFTCAP:
    case RP_ATTENTION_SINK: return run_own_softmax(change, site, args);
    case RP_ATTENTION_SHIFTED: return run_shifted(change, site, args);
    case RP_ATTENTION_ZERO_HEAD:
        status = run_below(change, site, args);
        for (size_t p = 0; p < site->n_positions && status == RP_OK; p++)
            memset(args->y + (p * args->n_heads + (size_t)change->value) * args->head_dim, 0,
                   args->head_dim * sizeof *args->y);
        return status;
    default: break;
    }
    return run_below(change, site, &wrong);
}

void rp_attention_install(struct rp_ops *ops)
{
    ops->attention = attention;
}

static enum rp_status attention_gate(void *context, const struct rp_site *site,
                                     const struct rp_attention_gate *args)
{
    const struct rp_change *change = context;
    for (size_t i = 0; i < site->n_positions * args->dim; i++) {
        float gate = args->gate[i];
        switch (change->option) {
        case RP_GATE_SILU: args->y[i] *= gate / (1 + expf(-gate)); break;
        case RP_GATE_TANH: args->y[i] *= tanhf(gate); break;
        case RP_GATE_PLAIN: args->y[i] *= gate; break;
        default: break;
        }
    }
    return RP_OK;
}

void rp_attention_gate_install(struct rp_ops *ops)
{
    ops->attention_gate = attention_gate;
}

/* Q and gate taken the other way round, or as two halves of the row where they alternate. */
static enum rp_status split_gate(void *context, const struct rp_site *site,
                                 const struct rp_split_gate *args)
{
    const struct rp_change *change = context;
    const struct rp_ops *below = change->overlay.below;
    struct rp_split_gate wrong = *args;
    size_t width = args->n_heads * args->head_dim;
    if (change->option == RP_GATE_SWAPPED) {
        wrong.q = args->gate;
        wrong.gate = args->q;
        return below->split_gate(below->context, site, &wrong);
    }
    for (size_t p = 0; p < site->n_positions; p++) {
        memcpy(args->q + p * width, args->x + 2 * p * width, width * sizeof *args->q);
        memcpy(args->gate + p * width, args->x + (2 * p + 1) * width, width * sizeof *args->gate);
    }
    return RP_OK;
}

void rp_split_gate_install(struct rp_ops *ops)
{
    ops->split_gate = split_gate;
}
