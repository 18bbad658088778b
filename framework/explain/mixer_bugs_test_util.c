/* See explain/mixer_bugs_test_util.h. */
#include "explain/mixer_bugs_test_util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BELOW(bug, operation, site, args) \
    (bug)->overlay.below->operation((bug)->overlay.below->context, site, args)
#define RESTORED_AT 16 /* where a state is exchanged */

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
        return BELOW(bug, attention, site, args);
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
        status = BELOW(bug, attention, &one, &wrong);
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
        return BELOW(bug, attention, site, args);
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
        return BELOW(bug, attention, site, args);
    float *values = zeros(args->n_keys * kv_dim);
    memcpy(values, args->values, kv_dim * sizeof *values);
    memcpy(values + kv_dim, args->values, (args->n_keys - 1) * kv_dim * sizeof *values);
    wrong.values = values;
    const enum rp_status status = BELOW(bug, attention, site, &wrong);
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
    const enum rp_status status = BELOW(bug, delta_decay, site, &wrong);
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
    const enum rp_status status = BELOW(bug, delta_beta, site, args);
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
        return BELOW(bug, causal_conv1d, site, args);
    float *reversed = zeros(n_weights);
    for (size_t i = 0; i < n_weights; i++)
        reversed[i] = args->weight[i - i % args->kernel + args->kernel - 1 - i % args->kernel];
    if (bug->option == RP_TEST_KERNEL_REVERSED)
        wrong.weight = reversed;
    else if (bug->option == RP_TEST_NO_SILU)
        wrong.has_silu = false;
    else
        some.n_positions = (size_t)bug->value;
    enum rp_status status = BELOW(bug, causal_conv1d, &some, &wrong);
    if (status == RP_OK && bug->option == RP_TEST_CONV_LOST) {
        memset(args->state, 0, (args->kernel - 1) * args->n_channels * sizeof *args->state);
        wrong.x += some.n_positions * args->n_channels;
        wrong.y += some.n_positions * args->n_channels;
        some.positions += some.n_positions;
        some.n_positions = site->n_positions - some.n_positions;
        status = BELOW(bug, causal_conv1d, &some, &wrong);
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
    const enum rp_status status = BELOW(bug, gated_norm, site, &wrong);
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
               : BELOW(bug, l2_norm, site, args);
}

void rp_test_no_l2_norm(struct rp_ops *ops)
{
    ops->l2_norm = no_l2_norm;
}

/* ---- the delta rule ---- */

static enum rp_status run(struct rp_test_bug *bug, const struct rp_site *site,
                          const struct rp_delta_rule *args, size_t first, size_t end)
{
    struct rp_site some = *site;
    struct rp_delta_rule part = *args;
    some.positions += first;
    some.n_positions = end - first;
    part.q += first * args->qkv_stride;
    part.k += first * args->qkv_stride;
    part.v += first * args->qkv_stride;
    part.decay += first * args->n_v_heads;
    part.beta += first * args->n_v_heads;
    part.y += first * args->n_v_heads * args->head_dim;
    return BELOW(bug, delta_rule, &some, &part);
}

static enum rp_status run_grouped(struct rp_test_bug *bug, const struct rp_site *site,
                                  const struct rp_delta_rule *args)
{
    const size_t dim = args->head_dim, width = args->n_v_heads * dim;
    const size_t group = args->n_v_heads / args->n_k_heads;
    float *rows = zeros(3 * site->n_positions * width);
    struct rp_delta_rule wrong = *args;
    for (size_t at = 0; at < site->n_positions * args->n_v_heads; at++) {
        const size_t p = at / args->n_v_heads, head = at % args->n_v_heads;
        const size_t from = p * args->qkv_stride, to = 3 * p * width + head * dim;
        memcpy(rows + to, args->q + from + head / group * dim, dim * sizeof *rows);
        memcpy(rows + to + width, args->k + from + head / group * dim, dim * sizeof *rows);
        memcpy(rows + to + 2 * width, args->v + from + head * dim, dim * sizeof *rows);
    }
    wrong.n_k_heads = args->n_v_heads;
    wrong.q = rows;
    wrong.k = rows + width;
    wrong.v = rows + 2 * width;
    wrong.qkv_stride = 3 * width;
    const enum rp_status status = BELOW(bug, delta_rule, site, &wrong);
    free(rows);
    return status;
}

/* Linear attention with decay: state = exp(decay) state + k (beta v)^T. */
static void run_plain(const struct rp_site *site, const struct rp_delta_rule *args)
{
    const size_t dim = args->head_dim;
    for (size_t at = 0; at < site->n_positions * args->n_v_heads; at++) {
        const size_t p = at / args->n_v_heads, head = at % args->n_v_heads;
        const size_t k_at = p * args->qkv_stride + head % args->n_k_heads * dim;
        float *state = args->state + head * dim * dim;
        for (size_t j = 0; j < dim; j++) {
            double y = 0;
            for (size_t i = 0; i < dim; i++) {
                state[i * dim + j] = expf(args->decay[at]) * state[i * dim + j] +
                                     args->beta[at] * args->k[k_at + i] *
                                         args->v[p * args->qkv_stride + head * dim + j];
                y += (double)state[i * dim + j] * (double)args->q[k_at + i];
            }
            args->y[at * dim + j] = (float)(y * (double)args->scale);
        }
    }
}

/* Blocks of n positions, in which an earlier state is read for the update with exp(2 g) for exp(g), g the
 * decay since the block began. Position by position: what a block writes and what it found are two
 * states. */
static void run_blocks(const struct rp_test_bug *bug, const struct rp_site *site,
                       const struct rp_delta_rule *args)
{
    const size_t dim = args->head_dim, n = (size_t)bug->value;
    for (size_t head = 0; head < args->n_v_heads; head++) {
        double *own = calloc(3 * dim * dim, sizeof *own);
        double *found = own + dim * dim, *twice = found + dim * dim;
        for (size_t p = 0; own && p < site->n_positions; p++) {
            const size_t at = p * args->n_v_heads + head;
            const float *k = args->k + p * args->qkv_stride + head % args->n_k_heads * dim;
            const float *q = args->q + p * args->qkv_stride + head % args->n_k_heads * dim;
            const float *v = args->v + p * args->qkv_stride + head * dim;
            const double decay = exp((double)args->decay[at]);
            for (size_t i = 0; i < dim * dim; i++) {
                if (p % n == 0) {
                    found[i] = twice[i] = found[i] + own[i];
                    own[i] = 0;
                }
                own[i] *= decay;
                found[i] *= decay;
                twice[i] *= decay * decay;
            }
            for (size_t j = 0; j < dim; j++) {
                double held = 0, y = 0;
                for (size_t i = 0; i < dim; i++)
                    held += (own[i * dim + j] + twice[i * dim + j]) * (double)k[i];
                for (size_t i = 0; i < dim; i++) {
                    own[i * dim + j] +=
                        (double)k[i] * (double)args->beta[at] * ((double)v[j] - held);
                    y += (own[i * dim + j] + found[i * dim + j]) * (double)q[i];
                }
                args->y[at * dim + j] = (float)(y * (double)args->scale);
            }
        }
        free(own);
    }
}

/* Something that no position leaves. */
static void fill(float *state, size_t n)
{
    for (size_t i = 0; i < n; i++)
        state[i] = 0.05f * sinf((float)(i * i % 1009));
}

static enum rp_status run_with_state(struct rp_test_bug *bug, const struct rp_site *site,
                                     const struct rp_delta_rule *args)
{
    const size_t head_size = args->head_dim * args->head_dim, n = site->n_positions;
    const size_t size = args->n_v_heads * head_size, value = (size_t)bug->value;
    const size_t at =
        bug->option == RP_TEST_STATE_OF || bug->option == RP_TEST_STATE_PADS ? RESTORED_AT : value;
    float *kept = zeros(size);
    enum rp_status status = RP_OK;
    if (bug->option == RP_TEST_STATE_OF || bug->option == RP_TEST_STATE_END) {
        status = run(bug, site, args, 0, bug->option == RP_TEST_STATE_OF ? value : n);
        memcpy(kept, args->state, size * sizeof *kept);
        memset(args->state, 0, size * sizeof *kept);
    }
    if (status == RP_OK)
        status = run(bug, site, args, 0, at);
    if (bug->option == RP_TEST_STATE_PADS) {
        for (size_t i = 0; i < size; i++) {
            const float a = bug->own_weights->weights[RP_SSM_A].data[i / head_size];
            const float dt = bug->own_weights->weights[RP_SSM_DT].data[i / head_size];
            args->state[i] *= powf(expf(a * logf(1 + expf(dt))), (float)bug->value);
        }
    } else if (bug->option == RP_TEST_STATE_REPLACED) {
        fill(args->state, size);
    } else {
        memcpy(args->state, kept, size * sizeof *kept); /* of STATE_LOST: zeros */
    }
    if (status == RP_OK)
        status = run(bug, site, args, at, n);
    free(kept);
    return status;
}

static enum rp_status rule(void *context, const struct rp_site *site,
                           const struct rp_delta_rule *args)
{
    struct rp_test_bug *bug = context;
    struct rp_delta_rule wrong = *args;
    enum rp_status status;
    if (!rp_test_bug_is_here(bug, site))
        return BELOW(bug, delta_rule, site, args);
    switch (bug->option) {
    case RP_TEST_RULE_SCALED: wrong.scale *= (float)bug->value; break;
    case RP_TEST_RULE_GROUPED: return run_grouped(bug, site, args);
    case RP_TEST_RULE_PLAIN: run_plain(site, args); return RP_OK;
    case RP_TEST_BLOCKS_W: run_blocks(bug, site, args); return RP_OK;
    case RP_TEST_STATE_LEFT:
        status = run(bug, site, args, 0, site->n_positions);
        if (status != RP_OK)
            return status;
        break;
    case RP_TEST_STATE_ODD:
        fill(args->state, args->n_v_heads * args->head_dim * args->head_dim);
        break;
    default: return run_with_state(bug, site, args);
    }
    return BELOW(bug, delta_rule, site, &wrong);
}

void rp_test_rule(struct rp_ops *ops)
{
    ops->delta_rule = rule;
}

/* ---- run twice ---- */

/* The convolution of the first run: its inputs are those before position value, then those from 16 on. */
static enum rp_status rerun_conv(void *context, const struct rp_site *site,
                                 const struct rp_causal_conv1d *args)
{
    struct rp_test_bug *bug = context;
    static float rows[3 * 1024];
    const size_t n_before = args->kernel - 1, width = args->n_channels;
    const enum rp_status status = BELOW(bug, causal_conv1d, site, args);
    for (size_t i = 0; rp_test_bug_is_here(bug, site) && i < n_before * width; i++) {
        const size_t row = i / width, channel = i % width;
        double sum = 0;
        for (size_t k = 0; k < args->kernel; k++) {
            const size_t at = row + k < n_before ? (size_t)bug->value - n_before + row + k
                                                 : RESTORED_AT + row + k - n_before;
            sum += (double)args->weight[channel * args->kernel + k] *
                   (double)args->x[at * width + channel];
        }
        rows[i] = (float)(sum / (1 + exp(-sum)));
    }
    bug->remembered = rows;
    return status;
}

/* to = from / |from|, head by head. */
static void normed(float *to, const float *from, size_t n_heads, size_t dim)
{
    for (size_t head = 0; head < n_heads; head++) {
        double square = 1e-6;
        for (size_t i = head * dim; i < (head + 1) * dim; i++)
            square += (double)from[i] * (double)from[i];
        for (size_t i = head * dim; i < (head + 1) * dim; i++)
            to[i] = (float)((double)from[i] / sqrt(square));
    }
}

static enum rp_status rerun_rule(void *context, const struct rp_site *site,
                                 const struct rp_delta_rule *args)
{
    struct rp_test_bug *bug = context;
    const size_t n = site->n_positions, dim = args->head_dim, stride = args->qkv_stride;
    const size_t k_dim = args->n_k_heads * dim, n_state = args->n_v_heads * dim * dim;
    if (!rp_test_bug_is_here(bug, site))
        return BELOW(bug, delta_rule, site, args);
    float *rows = zeros(n * stride), *left = zeros(n_state);
    struct rp_delta_rule first = *args;
    for (size_t p = 0; p < n; p++) {
        const bool is_other = p >= RESTORED_AT && p < RESTORED_AT + 3;
        const float *raw = bug->remembered + (is_other ? p - RESTORED_AT : 0) * stride;
        memcpy(rows + p * stride, args->q + p * stride, stride * sizeof *rows);
        if (is_other) {
            memcpy(rows + p * stride, raw, stride * sizeof *rows);
            normed(rows + p * stride, raw, 2 * args->n_k_heads, dim);
        }
    }
    first.q = rows;
    first.k = rows + k_dim;
    first.v = rows + 2 * k_dim;
    enum rp_status status = run(bug, site, args, 0, (size_t)bug->value);
    if (status == RP_OK)
        status = run(bug, site, &first, RESTORED_AT, n);
    memcpy(left, args->state, n_state * sizeof *left);
    memset(args->state, 0, n_state * sizeof *left);
    if (status == RP_OK)
        status = run(bug, site, args, 0, RESTORED_AT);
    memcpy(args->state, left, n_state * sizeof *left);
    if (status == RP_OK)
        status = run(bug, site, args, RESTORED_AT, n);
    free(left);
    free(rows);
    return status;
}

void rp_test_rerun(struct rp_ops *ops)
{
    ops->causal_conv1d = rerun_conv;
    ops->delta_rule = rerun_rule;
}
