/* The bugs of the delta rule: see operations/mixer_bugs_test_util.h. */
#include "operations/mixer_bugs_test_util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define RESTORED_AT 16 /* where a state is exchanged */

static float *zeros(size_t n)
{
    float *values = calloc(n + 1, sizeof *values);
    if (!values)
        abort();
    return values;
}

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
    return RP_TEST_BELOW(bug, delta_rule, &some, &part);
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
    const enum rp_status status = RP_TEST_BELOW(bug, delta_rule, site, &wrong);
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
        return RP_TEST_BELOW(bug, delta_rule, site, args);
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
    return RP_TEST_BELOW(bug, delta_rule, site, &wrong);
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
    const enum rp_status status = RP_TEST_BELOW(bug, causal_conv1d, site, args);
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
        return RP_TEST_BELOW(bug, delta_rule, site, args);
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
