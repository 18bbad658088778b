/* See operations/attention_changes.h. */
#include "operations/attention_changes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "operations/activation.h"

static enum rp_status no_memory(const struct rp_site *site)
{
    return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for attention's arguments");
}

/* Each position sees a range of keys of its own; one that would see none sees itself. */
static enum rp_status run_keys(const struct rp_change *change, const struct rp_site *site,
                               const struct rp_attention *args)
{
    const size_t kv_dim = args->n_kv_heads * args->head_dim;
    const size_t width = args->n_heads * args->head_dim;
    const int64_t start = args->n_keys ? args->key_positions[0] : 0;
    enum rp_status status = RP_OK;
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        struct rp_site one = *site;
        struct rp_attention wrong = *args;
        const size_t row = rp_row_of(change->positions, change->n_rows, site->positions[p]);
        one.positions += p;
        one.n_positions = 1;
        wrong.q += p * width;
        wrong.y += p * width;
        if (row < change->n_rows) {
            const int64_t first = start + (int64_t)change->what.rows[2 * row];
            const int64_t last = start + (int64_t)change->what.rows[2 * row + 1];
            size_t from = 0, to = args->n_keys;
            while (from < args->n_keys && args->key_positions[from] < first)
                from++;
            while (to > from && args->key_positions[to - 1] > last)
                to--;
            if (from == to) {
                from = rp_row_of(args->key_positions, args->n_keys, site->positions[p]);
                to = from + (from < args->n_keys);
            }
            wrong.keys += from * kv_dim;
            wrong.values += from * kv_dim;
            wrong.key_positions += from;
            wrong.n_keys = to - from;
            wrong.is_causal = false;
            wrong.window = 0;
        }
        status = RP_RUN_BELOW(change, attention, &one, &wrong);
    }
    return status;
}

static size_t mapped_head(int option, const struct rp_attention *args, size_t head)
{
    const size_t own = head / (args->n_heads / args->n_kv_heads);
    switch (option) {
    case RP_ATTENTION_MODULO: return head % args->n_kv_heads;
    case RP_ATTENTION_FIRST_HEAD: return 0;
    case RP_ATTENTION_REVERSED: return args->n_kv_heads - 1 - own;
    default: return (own + 1) % args->n_kv_heads;
    }
}

/* Every query head gets KV rows of its own, whichever it reads. keys and values
 * [n_keys][n_heads][head_dim] */
static void map_heads(const struct rp_change *change, const struct rp_attention *args, float *keys,
                      float *values)
{
    const size_t dim = args->head_dim;
    for (size_t at = 0; at < args->n_keys * args->n_heads; at++) {
        const size_t key = at / args->n_heads;
        const size_t head = mapped_head(change->what.option, args, at % args->n_heads);
        const size_t from = (key * args->n_kv_heads + head) * dim;
        memcpy(keys + at * dim, args->keys + from, dim * sizeof *keys);
        memcpy(values + at * dim, args->values + from, dim * sizeof *values);
    }
}

/* Row i is that of row i - by, or the nearest there is. out [n][width] */
static void shift_rows(const float *rows, size_t n, size_t width, int64_t by, float *out)
{
    for (size_t i = 0; i < n; i++) {
        int64_t from = (int64_t)i - by;
        from = from < 0 ? 0 : from >= (int64_t)n ? (int64_t)n - 1 : from;
        memcpy(out + i * width, rows + (size_t)from * width, width * sizeof *out);
    }
}

/* On keys and values of its own: other heads, K and V of `value` positions before, or swapped. */
static enum rp_status run_on_copies(const struct rp_change *change, const struct rp_site *site,
                                    const struct rp_attention *args)
{
    const size_t kv_dim = args->n_kv_heads * args->head_dim;
    const size_t n = args->n_keys * args->n_heads * args->head_dim + 1;
    const int64_t by = (int64_t)change->what.value;
    struct rp_attention wrong = *args;
    float *keys = malloc(n * sizeof *keys), *values = malloc(n * sizeof *values);
    enum rp_status status = keys && values ? RP_OK : no_memory(site);
    if (status == RP_OK && change->what.option == RP_ATTENTION_SHIFTED) {
        const enum rp_weight_id which = change->what.which;
        shift_rows(args->keys, args->n_keys, kv_dim, which == RP_ATTN_V ? 0 : by, keys);
        shift_rows(args->values, args->n_keys, kv_dim, which == RP_ATTN_K ? 0 : by, values);
    } else if (status == RP_OK) {
        map_heads(change, args, keys, values);
        wrong.n_kv_heads = args->n_heads;
    }
    wrong.keys = keys;
    wrong.values = values;
    if (status == RP_OK)
        status = RP_RUN_BELOW(change, attention, site, &wrong);
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

/* The logarithm of what softmax's sum has beside the keys of position p; -HUGE_VAL: nothing. */
static double sink_of(const struct rp_change *change, int64_t position)
{
    const int64_t period = (int64_t)change->what.value;
    switch (change->what.option) {
    case RP_ATTENTION_SINK: return change->what.value;
    case RP_ATTENTION_EMPTY: return log(change->what.value);
    case RP_ATTENTION_EMPTY_AFTER: {
        const int64_t n_empty = period > 0 ? period - 1 - position % period : 0;
        return n_empty > 0 ? log((double)n_empty) : -HUGE_VAL;
    }
    default: return -HUGE_VAL;
    }
}

/* Which of the model's sinks stays beside it. */
static double own_sink(const struct rp_change *change, const struct rp_attention *args, size_t head)
{
    return change->what.option == RP_ATTENTION_SINK ? -HUGE_VAL
                                                    : (double)rp_attention_sink(args, head);
}

/* ln(exp(a) + exp(b)) */
static double sum_of_logs(double a, double b)
{
    const double most = fmax(a, b);
    return most > -HUGE_VAL ? most + log(exp(a - most) + exp(b - most)) : most;
}

/* A score from q . key, in another way than the model's, where that is what changes. */
static double own_score(const struct rp_change *change, const struct rp_attention *args, double dot)
{
    const double scale = (double)args->scale, score = dot * scale;
    const double cap =
        change->what.option == RP_ATTENTION_SOFTCAP ? change->what.value : (double)args->softcap;
    if (change->what.option == RP_ATTENTION_CAP_UNSCALED)
        return scale * cap * tanh(dot / cap);
    if (change->what.option == RP_ATTENTION_CAP_DIVIDES)
        return tanh(score / cap);
    return cap > 0 ? cap * tanh(score / cap) : score;
}

/* One head of one position with another softmax. keys and values are the KV head's, rows kv_dim
 * apart. */
static void own_head(const struct rp_change *change, const struct rp_attention *args,
                     const float *q, const float *keys, const float *values, size_t n_visible,
                     double sink, float *y)
{
    const size_t kv_dim = args->n_kv_heads * args->head_dim;
    double most = sink, sum;
    for (size_t key = 0; key < n_visible; key++) {
        const double score = own_score(change, args, dot(q, keys + key * kv_dim, args->head_dim));
        args->scores[key] = (float)score;
        most = fmax(most, score);
    }
    sum = exp(sink - most);
    for (size_t key = 0; key < n_visible; key++) {
        args->scores[key] = (float)exp((double)args->scores[key] - most);
        sum += (double)args->scores[key];
    }
    if (change->what.option == RP_ATTENTION_NO_SOFTMAX_SUM)
        sum = 1;
    memset(y, 0, args->head_dim * sizeof *y);
    for (size_t key = 0; key < n_visible; key++) {
        const float share = (float)((double)args->scores[key] / sum);
        for (size_t i = 0; i < args->head_dim; i++)
            y[i] += share * values[key * kv_dim + i];
    }
}

static enum rp_status run_own_softmax(const struct rp_change *change, const struct rp_site *site,
                                      const struct rp_attention *args)
{
    const size_t group = args->n_heads / args->n_kv_heads;
    for (size_t p = 0; p < site->n_positions; p++) {
        size_t first, end;
        rp_attention_visible(site, args, p, &first, &end);
        for (size_t head = 0; head < args->n_heads; head++) {
            const size_t at = (p * args->n_heads + head) * args->head_dim;
            const size_t kv_at = (first * args->n_kv_heads + head / group) * args->head_dim;
            own_head(change, args, args->q + at, args->keys + kv_at, args->values + kv_at,
                     end - first,
                     sum_of_logs(sink_of(change, site->positions[p]), own_sink(change, args, head)),
                     args->y + at);
        }
    }
    return RP_OK;
}

/* Whatever the mask hides has the score -cap. */
static void mask_capped_head(const struct rp_attention *args, const float *q, const float *keys,
                             const float *values, size_t first, size_t end, float *y)
{
    const size_t kv_dim = args->n_kv_heads * args->head_dim;
    const double cap = (double)args->softcap;
    double sum = 0;
    memset(y, 0, args->head_dim * sizeof *y);
    for (size_t key = 0; key < args->n_keys; key++) {
        const bool is_seen = key >= first && key < end;
        const double score = is_seen ? cap * tanh(dot(q, keys + key * kv_dim, args->head_dim) *
                                                  (double)args->scale / cap)
                                     : -cap;
        args->scores[key] = (float)exp(score - cap);
        sum += (double)args->scores[key];
    }
    for (size_t key = 0; key < args->n_keys; key++) {
        const float share = (float)((double)args->scores[key] / sum);
        for (size_t i = 0; i < args->head_dim; i++)
            y[i] += share * values[key * kv_dim + i];
    }
}

static enum rp_status run_mask_capped(const struct rp_site *site, const struct rp_attention *args)
{
    const size_t group = args->n_heads / args->n_kv_heads, dim = args->head_dim;
    for (size_t p = 0; p < site->n_positions; p++) {
        size_t first, end;
        rp_attention_visible(site, args, p, &first, &end);
        for (size_t head = 0; head < args->n_heads; head++) {
            const size_t at = (p * args->n_heads + head) * dim;
            mask_capped_head(args, args->q + at, args->keys + head / group * dim,
                             args->values + head / group * dim, first, end, args->y + at);
        }
    }
    return RP_OK;
}

/* With the model's sinks in another way. */
static enum rp_status run_with_sinks(const struct rp_change *change, const struct rp_site *site,
                                     const struct rp_attention *args)
{
    struct rp_attention wrong = *args;
    float *sinks = calloc(args->n_heads + 1, sizeof *sinks);
    if (!sinks)
        return no_memory(site);
    for (size_t head = 0; head < args->n_heads && args->sinks; head++)
        sinks[head] = change->what.option == RP_ATTENTION_SINKS_SCALED
                          ? args->sinks[head] * args->scale
                          : args->sinks[(head + 1) % args->n_heads];
    wrong.sinks = args->sinks && change->what.option != RP_ATTENTION_NO_SINKS ? sinks : NULL;
    const enum rp_status status = RP_RUN_BELOW(change, attention, site, &wrong);
    free(sinks);
    return status;
}

/* What becomes of the output. */
static enum rp_status run_and_change(const struct rp_change *change, const struct rp_site *site,
                                     const struct rp_attention *args)
{
    const size_t width = args->n_heads * args->head_dim, dim = args->head_dim;
    enum rp_status status = RP_RUN_BELOW(change, attention, site, args);
    float *plain = malloc((width + 1) * sizeof *plain);
    if (!plain)
        return no_memory(site);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        float *y = args->y + p * width;
        memcpy(plain, y, width * sizeof *plain);
        if (change->what.option == RP_ATTENTION_ZERO_HEAD)
            memset(y + (size_t)change->what.value * dim, 0, dim * sizeof *y);
        else if (change->what.option == RP_ATTENTION_ZERO)
            memset(y, 0, width * sizeof *y);
        else
            for (size_t i = 0; i < width; i++)
                y[i % dim * args->n_heads + i / dim] = plain[i];
    }
    free(plain);
    return status;
}

static enum rp_status attention(void *context, const struct rp_site *site,
                                const struct rp_attention *args)
{
    const struct rp_change *change = context;
    struct rp_attention wrong = *args;
    switch ((enum rp_attention_option)change->what.option) {
    case RP_ATTENTION_SCALE: wrong.scale = (float)change->what.value; break;
    case RP_ATTENTION_KEYS: return run_keys(change, site, args);
    case RP_ATTENTION_MODULO:
    case RP_ATTENTION_FIRST_HEAD:
    case RP_ATTENTION_REVERSED:
    case RP_ATTENTION_NEXT_HEAD:
    case RP_ATTENTION_SHIFTED: return run_on_copies(change, site, args);
    case RP_ATTENTION_SWAPPED:
        wrong.keys = args->values;
        wrong.values = args->keys;
        break;
    case RP_ATTENTION_NO_SOFTCAP: wrong.softcap = 0; break;
    case RP_ATTENTION_CAP_MASKS: return run_mask_capped(site, args);
    case RP_ATTENTION_SOFTCAP:
    case RP_ATTENTION_CAP_UNSCALED:
    case RP_ATTENTION_CAP_DIVIDES:
    case RP_ATTENTION_SINK:
    case RP_ATTENTION_EMPTY:
    case RP_ATTENTION_EMPTY_AFTER:
    case RP_ATTENTION_NO_SOFTMAX_SUM: return run_own_softmax(change, site, args);
    case RP_ATTENTION_NO_SINKS:
    case RP_ATTENTION_SINKS_SCALED:
    case RP_ATTENTION_SINKS_ROLLED: return run_with_sinks(change, site, args);
    case RP_ATTENTION_ZERO:
    case RP_ATTENTION_ZERO_HEAD:
    case RP_ATTENTION_TRANSPOSED: return run_and_change(change, site, args);
    }
    return RP_RUN_BELOW(change, attention, site, &wrong);
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
        const float gate = args->gate[i];
        switch (change->what.option) {
        case RP_GATE_SILU: args->y[i] *= rp_silu(gate); break;
        case RP_GATE_TANH: args->y[i] *= tanhf(gate); break;
        case RP_GATE_PLAIN: args->y[i] *= gate; break;
        case RP_GATE_ONE_LESS: args->y[i] *= rp_sigmoid(-gate); break;
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
    const size_t width = args->n_heads * args->head_dim;
    struct rp_split_gate wrong = *args;
    if (change->what.option == RP_GATE_SWAPPED) {
        wrong.q = args->gate;
        wrong.gate = args->q;
        return RP_RUN_BELOW(change, split_gate, site, &wrong);
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
