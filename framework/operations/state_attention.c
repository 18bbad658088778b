/* Attention in 16 bits. HF's eager one: scores = q k^T, rounded; times the scale, rounded; the softmax of that
 * in FP32, its weights rounded; times V. See operations/state.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "operations/matmul.h"
#include "operations/operations.h"
#include "operations/state.h"

/* One head of one position. */
struct head {
    const struct rp_attention *args;
    enum rp_state state;
    bool is_flash;
    const float *q;      /* [head_dim] */
    const float *keys;   /* [n_visible][head_dim], rows kv_dim apart */
    const float *values; /* [n_visible][head_dim], rows kv_dim apart */
    size_t kv_dim, n_visible;
    float sink;
    float *weights; /* [n_visible] */
    float *moves;   /* [n_visible]: how far each scaled score moves if its rounding tips, else 0 */
    float *y;       /* [head_dim] */
};

/* Sigma of q . key in FP32: see attention_bound.c. */
static double dot_error(const float *q, const float *key, size_t n, float dot)
{
    double square = 0;
    for (size_t i = 0; i < n; i++) {
        const double term = (double)q[i] * (double)key[i];
        square += term * term;
    }
    return RP_UNIT_ROUNDOFF * RP_SUM_ERROR *
           sqrt((double)n * (square + (double)dot * (double)dot / 3));
}

static float scaled(const struct head *head, double dot)
{
    const float score =
        rp_state_round(head->state, rp_state_round(head->state, (float)dot) * head->args->scale);
    return rp_state_round(head->state, rp_state_softcap(head->state, score, head->args->softcap));
}

/* By how much the capped score moves if the rounding of its tanh tips. */
static float tip_of_cap(const struct head *head, float score)
{
    const float cap = head->args->softcap;
    return cap > 0 ? (float)rp_state_softcap_tip(head->state, score, cap) : 0;
}

static void score_in_fp32(const struct head *head)
{
    for (size_t key = 0; key < head->n_visible; key++)
        head->weights[key] =
            rp_softcap(rp_dot(head->q, head->keys + key * head->kv_dim, head->args->head_dim) *
                           head->args->scale,
                       head->args->softcap);
}

static void score(const struct head *head)
{
    const size_t dim = head->args->head_dim;
    for (size_t key = 0; key < head->n_visible; key++) {
        const float *k = head->keys + key * head->kv_dim;
        const float dot = rp_dot(head->q, k, dim);
        const double tip = rp_state_tip(head->state, dot, dot_error(head->q, k, dim, dot));
        const double rounded = (double)rp_state_round(head->state, dot);
        head->weights[key] = scaled(head, rounded);
        head->moves[key] = 0;
        if (tip > 0)
            head->moves[key] = fabsf(scaled(head, rounded + ((double)dot > rounded ? tip : -tip)) -
                                     head->weights[key]);
        head->moves[key] +=
            tip_of_cap(head, rp_state_round(head->state, (float)rounded * head->args->scale));
    }
}

/* x - max; HF rounds it where there is a sink. */
static float below_max(const struct head *head, float x, float max)
{
    const bool is_rounded = head->args->sinks && !head->is_flash;
    return is_rounded ? rp_state_round(head->state, x - max) : x - max;
}

/* weights [n_visible]: scores, and then exp(x - max) / sum, before they are rounded. */
static void softmax(const struct head *head)
{
    float max = head->sink;
    for (size_t key = 0; key < head->n_visible; key++)
        max = head->weights[key] > max ? head->weights[key] : max;
    double sum = (double)expf(below_max(head, head->sink, max));
    for (size_t key = 0; key < head->n_visible; key++) {
        const float score = head->weights[key], below = below_max(head, score, max);
        for (int sign = -1; sign <= 1 && head->moves[key] > 0; sign += 2) {
            const float moved = below_max(head, score + (float)sign * head->moves[key], max);
            head->moves[key] = fmaxf(head->moves[key], fabsf(moved - below));
        }
        head->weights[key] = expf(below);
        sum += (double)head->weights[key];
    }
    for (size_t key = 0; key < head->n_visible; key++)
        head->weights[key] = (float)((double)head->weights[key] / sum);
}

static void add_values(const struct head *head)
{
    const size_t dim = head->args->head_dim;
    memset(head->y, 0, dim * sizeof *head->y);
    for (size_t key = 0; key < head->n_visible; key++) {
        const float weight =
            head->is_flash ? head->weights[key] : rp_state_round(head->state, head->weights[key]);
        const float *value = head->values + key * head->kv_dim;
        for (size_t i = 0; i < dim; i++)
            head->y[i] += weight * value[i];
    }
}

static double norm_of(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

/* What tips change: a score's moves its own weight, and all others by the share that it had, so that
 * their roundings may tip too. */
static double worth_of_tips(const struct head *head)
{
    const size_t dim = head->args->head_dim;
    const double fp32 =
        RP_UNIT_ROUNDOFF * sqrt(1.5 * 1.5 + RP_SUM_ERROR * RP_SUM_ERROR * (double)head->n_visible);
    double sum = 0, shared = 0;
    for (size_t key = 0; key < head->n_visible; key++) {
        const float *value = head->values + key * head->kv_dim;
        const double moved = (double)head->weights[key] * expm1((double)head->moves[key]);
        double away = 0;
        if (!(moved > 0))
            continue;
        for (size_t i = 0; i < dim; i++)
            away += pow((double)value[i] - (double)head->y[i], 2);
        sum += moved * sqrt(away);
        shared += moved;
    }
    for (size_t key = 0; key < head->n_visible; key++) {
        const double weight = (double)head->weights[key];
        const double relative = fp32 + shared + expm1((double)head->moves[key]);
        const double tip = rp_state_tip(head->state, head->weights[key], weight * relative);
        if (tip > 0)
            sum += tip * norm_of(head->values + key * head->kv_dim, dim);
    }
    return sum;
}

/* Three standard errors of weights that are each off by up to half a step. */
static double worth_of_rounded_weights(const struct head *head)
{
    const double half_step =
        head->state == RP_STATE_BF16 ? 0x1p-8 : 0x1p-11; /* relative, at most */
    double square = 0;
    for (size_t key = 0; key < head->n_visible; key++) {
        const double norm =
            norm_of(head->values + key * head->kv_dim, head->args->head_dim) * half_step;
        square += pow((double)head->weights[key] * norm, 2);
    }
    return 3 * sqrt(square / 3);
}

enum rp_status rp_state_attention(const struct rp_emulation *emulation, const struct rp_site *site,
                                  const struct rp_attention *args)
{
    const size_t dim = args->head_dim, group = args->n_heads / args->n_kv_heads;
    float *moves = calloc(args->n_keys + 1, sizeof *moves);
    if (!moves)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu keys", args->n_keys);
    for (size_t p = 0; p < site->n_positions; p++) {
        size_t first, end;
        rp_attention_visible(site, args, p, &first, &end);
        const size_t n_visible = end - first;
        for (size_t h = 0; h < args->n_heads; h++) {
            const size_t at = (p * args->n_heads + h) * dim,
                         kv_at = (first * args->n_kv_heads + h / group) * dim;
            const struct head head = {.args = args,
                                      .state = emulation->numerics.state,
                                      .is_flash =
                                          emulation->numerics.attention == RP_ATTENTION_FLASH,
                                      .q = args->q + at,
                                      .keys = args->keys + kv_at,
                                      .values = args->values + kv_at,
                                      .kv_dim = args->n_kv_heads * dim,
                                      .n_visible = n_visible,
                                      .sink = rp_attention_sink(args, h),
                                      .weights = args->scores,
                                      .moves = moves,
                                      .y = args->y + at};
            if (n_visible == 0) {
                memset(head.y, 0, dim * sizeof *head.y);
                continue;
            }
            if (head.is_flash)
                score_in_fp32(&head);
            else
                score(&head);
            softmax(&head);
            add_values(&head);
            if (emulation->tips && p < emulation->n_tips) {
                const double worth =
                    head.is_flash ? worth_of_rounded_weights(&head) : worth_of_tips(&head);
                emulation->tips[p] += worth * worth;
            }
        }
    }
    free(moves);
    return RP_OK;
}
