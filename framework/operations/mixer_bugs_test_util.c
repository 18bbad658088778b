/* See operations/mixer_bugs_test_util.h; the delta rule's are in delta_rule_bugs_test_util.c. */
#include "operations/mixer_bugs_test_util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static float *zeros(size_t n)
{
    float *values = calloc(n + 1, sizeof *values);
    if (!values)
        abort();
    return values;
}

/* ---- attention ---- */

static bool sees(const struct rp_test_bug *bug, int64_t p, int64_t key)
{
    const int64_t c = (int64_t)bug->value;
    switch (bug->option) {
    case RP_TEST_SEES_NEXT: return key <= p + 1;
    case RP_TEST_SEES_OWN_CHUNK: return key <= p && key / c == p / c;
    case RP_TEST_SEES_FIRST_GEOMETRY: return key <= p % c;
    case RP_TEST_SEES_WHOLE_CHUNK: return key / c <= p / c;
    case RP_TEST_SEES_BLOCK: return key / c == p / c;
    case RP_TEST_SEES_NOT_LAST: return p < c ? key == p : key <= p - c;
    case RP_TEST_SEES_ODDLY: return key <= p && (p % 3 != 1 || key >= p / 2);
    default: return key <= p;
    }
}

/* Position by position, on the keys that it sees, side by side. */
static enum rp_status attention_sees(void *context, const struct rp_site *site,
                                     const struct rp_attention *args)
{
    struct rp_test_bug *bug = context;
    const size_t kv_dim = args->n_kv_heads * args->head_dim;
    const size_t width = args->n_heads * args->head_dim;
    const size_t n_zeros = bug->option == RP_TEST_SEES_ZEROS ? (size_t)bug->value : 0;
    enum rp_status status = RP_OK;
    if (!rp_test_bug_is_here(bug, site))
        return RP_TEST_BELOW(bug, attention, site, args);
    float *keys = zeros((args->n_keys + n_zeros) * kv_dim);
    float *values = zeros((args->n_keys + n_zeros) * kv_dim);
    float *scores = zeros(args->n_keys + n_zeros);
    int64_t *positions = calloc(args->n_keys + n_zeros + 1, sizeof *positions);
    for (size_t p = 0; p < site->n_positions && positions && status == RP_OK; p++) {
        struct rp_site one = *site;
        struct rp_attention wrong = *args;
        size_t n = n_zeros;
        for (size_t i = 0; i < args->n_keys; i++) {
            if (!sees(bug, site->positions[p], args->key_positions[i]))
                continue;
            memcpy(keys + n * kv_dim, args->keys + i * kv_dim, kv_dim * sizeof *keys);
            memcpy(values + n * kv_dim, args->values + i * kv_dim, kv_dim * sizeof *values);
            n++;
        }
        for (size_t i = 0; i < n; i++)
            positions[i] = (int64_t)i;
        one.positions += p;
        one.n_positions = 1;
        wrong.q += p * width;
        wrong.y += p * width;
        wrong.keys = keys;
        wrong.values = values;
        wrong.scores = scores;
        wrong.key_positions = positions;
        wrong.n_keys = n;
        wrong.is_causal = false;
        status = RP_TEST_BELOW(bug, attention, &one, &wrong);
    }
    free(positions);
    free(scores);
    free(values);
    free(keys);
    return status;
}

void rp_test_attention_sees(struct rp_ops *ops)
{
    ops->attention = attention_sees;
}

static enum rp_status attention_softcap(void *context, const struct rp_site *site,
                                        const struct rp_attention *args)
{
    struct rp_test_bug *bug = context;
    const size_t group = args->n_heads / args->n_kv_heads, dim = args->head_dim;
    if (!rp_test_bug_is_here(bug, site))
        return RP_TEST_BELOW(bug, attention, site, args);
    for (size_t at = 0; at < site->n_positions * args->n_heads; at++) {
        const size_t kv = at % args->n_heads / group, p = at / args->n_heads;
        double sum = 0, y[256] = {0};
        for (size_t key = 0; key <= p; key++) {
            const float *k = args->keys + (key * args->n_kv_heads + kv) * dim;
            const float *v = args->values + (key * args->n_kv_heads + kv) * dim;
            double score = 0;
            for (size_t i = 0; i < dim; i++)
                score += (double)args->q[at * dim + i] * (double)k[i];
            const double weight = exp(bug->value * tanh(score * (double)args->scale / bug->value));
            sum += weight;
            for (size_t i = 0; i < dim; i++)
                y[i] += weight * (double)v[i];
        }
        for (size_t i = 0; i < dim; i++)
            args->y[at * dim + i] = (float)(y[i] / sum);
    }
    return RP_OK;
}

void rp_test_attention_softcap(struct rp_ops *ops)
{
    ops->attention = attention_softcap;
}

static enum rp_status attention_v_shifted(void *context, const struct rp_site *site,
                                          const struct rp_attention *args)
{
    struct rp_test_bug *bug = context;
    const size_t kv_dim = args->n_kv_heads * args->head_dim;
    struct rp_attention wrong = *args;
    if (!rp_test_bug_is_here(bug, site))
        return RP_TEST_BELOW(bug, attention, site, args);
    float *values = zeros(args->n_keys * kv_dim);
    memcpy(values, args->values, kv_dim * sizeof *values);
    memcpy(values + kv_dim, args->values, (args->n_keys - 1) * kv_dim * sizeof *values);
    wrong.values = values;
    const enum rp_status status = RP_TEST_BELOW(bug, attention, site, &wrong);
    free(values);
    return status;
}

void rp_test_attention_v_shifted(struct rp_ops *ops)
{
    ops->attention = attention_v_shifted;
}

void rp_test_no_qk_norm_and_pairs(struct rp_ops *ops)
{
    rp_test_qk_norm_missing(ops);
    rp_test_rope_pairs(ops);
}

/* ---- the DeltaNet's gates, convolution and norms ---- */

static enum rp_status decay_of(void *context, const struct rp_site *site,
                               const struct rp_delta_decay *args)
{
    struct rp_test_bug *bug = context;
    struct rp_delta_decay wrong = *args;
    float *none = zeros(args->n_heads);
    if (rp_test_bug_is_here(bug, site) && bug->option == RP_TEST_DT_MISSING)
        wrong.dt = none;
    const enum rp_status status = RP_TEST_BELOW(bug, delta_decay, site, &wrong);
    for (size_t i = 0; rp_test_bug_is_here(bug, site) && bug->option == RP_TEST_A_POSITIVE &&
                       i < site->n_positions * args->n_heads;
         i++)
        args->y[i] = -args->y[i];
    free(none);
    return status;
}

void rp_test_decay_of(struct rp_ops *ops)
{
    ops->delta_decay = decay_of;
}

static enum rp_status beta_factor(void *context, const struct rp_site *site,
                                  const struct rp_delta_beta *args)
{
    struct rp_test_bug *bug = context;
    const enum rp_status status = RP_TEST_BELOW(bug, delta_beta, site, args);
    for (size_t i = 0; rp_test_bug_is_here(bug, site) && i < site->n_positions * args->n_heads; i++)
        args->y[i] *= (float)bug->value;
    return status;
}

void rp_test_beta_factor(struct rp_ops *ops)
{
    ops->delta_beta = beta_factor;
}

static enum rp_status conv(void *context, const struct rp_site *site,
                           const struct rp_causal_conv1d *args)
{
    struct rp_test_bug *bug = context;
    const size_t n_weights = args->n_channels * args->kernel;
    struct rp_causal_conv1d wrong = *args;
    struct rp_site some = *site;
    if (!rp_test_bug_is_here(bug, site))
        return RP_TEST_BELOW(bug, causal_conv1d, site, args);
    float *reversed = zeros(n_weights);
    for (size_t i = 0; i < n_weights; i++)
        reversed[i] = args->weight[i - i % args->kernel + args->kernel - 1 - i % args->kernel];
    if (bug->option == RP_TEST_KERNEL_REVERSED)
        wrong.weight = reversed;
    else if (bug->option == RP_TEST_NO_SILU)
        wrong.has_silu = false;
    else
        some.n_positions = (size_t)bug->value;
    enum rp_status status = RP_TEST_BELOW(bug, causal_conv1d, &some, &wrong);
    if (status == RP_OK && bug->option == RP_TEST_CONV_LOST) {
        memset(args->state, 0, (args->kernel - 1) * args->n_channels * sizeof *args->state);
        wrong.x += some.n_positions * args->n_channels;
        wrong.y += some.n_positions * args->n_channels;
        some.positions += some.n_positions;
        some.n_positions = site->n_positions - some.n_positions;
        status = RP_TEST_BELOW(bug, causal_conv1d, &some, &wrong);
    }
    free(reversed);
    return status;
}

void rp_test_conv(struct rp_ops *ops)
{
    ops->causal_conv1d = conv;
}

static enum rp_status gated_norm(void *context, const struct rp_site *site,
                                 const struct rp_gated_norm *args)
{
    struct rp_test_bug *bug = context;
    struct rp_gated_norm wrong = *args;
    float *weight = zeros(args->dim), *gate = zeros(args->n_rows * args->dim);
    memcpy(gate, args->gate, args->n_rows * args->dim * sizeof *gate);
    for (size_t i = 0; i < args->dim; i++)
        weight[i] = args->weight[i] + 1;
    if (rp_test_bug_is_here(bug, site) && bug->option == RP_TEST_WEIGHT_PLUS_1)
        wrong.weight = weight;
    const enum rp_status status = RP_TEST_BELOW(bug, gated_norm, site, &wrong);
    for (size_t i = 0; rp_test_bug_is_here(bug, site) && bug->option == RP_TEST_GATE_SIGMOID &&
                       i < args->n_rows * args->dim;
         i++)
        args->y[i] /= gate[i]; /* silu(z) = z sigmoid(z) */
    free(gate);
    free(weight);
    return status;
}

void rp_test_gated_norm(struct rp_ops *ops)
{
    ops->gated_norm = gated_norm;
}

static enum rp_status no_l2_norm(void *context, const struct rp_site *site,
                                 const struct rp_l2_norm *args)
{
    struct rp_test_bug *bug = context;
    return rp_test_bug_is_here(bug, site) && args->which == bug->which
               ? RP_OK
               : RP_TEST_BELOW(bug, l2_norm, site, args);
}

void rp_test_no_l2_norm(struct rp_ops *ops)
{
    ops->l2_norm = no_l2_norm;
}
