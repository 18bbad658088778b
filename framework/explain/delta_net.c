/* Hypotheses about the gated DeltaNet: its decay and beta, convolution, L2 norm, recurrence and gated
 * norm. Their operations; what is tried is in delta_collect.c. */
#include "explain/delta_net.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

static float silu(float x)
{
    return x / (1.0f + expf(-x));
}

static float softplus(float x)
{
    return x > 20.0f ? x : log1pf(expf(x));
}

/* The decay's logarithm. */
static float changed_decay(int option, float a, float alpha, float dt)
{
    switch (option) {
    case RP_DECAY_MISSING: return 0;
    case RP_DECAY_WITHOUT_EXP: return logf(fabsf(a * softplus(alpha + dt)) + 1e-38f);
    case RP_DECAY_SIGN: return -a * softplus(alpha + dt);
    case RP_DECAY_WITHOUT_SOFTPLUS: return a * (alpha + dt);
    case RP_DECAY_WITHOUT_A: return -softplus(alpha + dt);
    case RP_DECAY_EXP_A: return -expf(a) * softplus(alpha + dt);
    case RP_DT_MISSING: return a * softplus(alpha);
    case RP_DT_SIGN: return a * softplus(alpha - dt);
    case RP_DT_AFTER_SOFTPLUS: return a * (softplus(alpha) + dt);
    default: return a * softplus(alpha + dt);
    }
}

static float changed_beta(int option, float beta)
{
    switch (option) {
    case RP_BETA_WITHOUT_SIGMOID: return beta;
    case RP_BETA_MISSING: return 1;
    case RP_BETA_DOUBLED: return 2 * sigmoid(beta);
    default: return sigmoid(beta);
    }
}

static enum rp_status delta_decay(void *context, const struct rp_site *site,
                                  const struct rp_delta_decay *args)
{
    const struct rp_change *change = context;
    const float factor = change->option == RP_A_FACTOR ? (float)change->value : 1;
    for (size_t i = 0; i < site->n_positions * args->n_heads; i++) {
        size_t head = i % args->n_heads;
        args->y[i] =
            changed_decay(change->option, args->a[head] * factor, args->y[i], args->dt[head]);
    }
    return RP_OK;
}

static enum rp_status delta_beta(void *context, const struct rp_site *site,
                                 const struct rp_delta_beta *args)
{
    const struct rp_change *change = context;
    const float factor = change->option == RP_BETA_FACTOR ? (float)change->value : 1;
    for (size_t i = 0; i < site->n_positions * args->n_heads; i++)
        args->y[i] = changed_beta(change->option, args->y[i]) * factor;
    return RP_OK;
}

void rp_delta_gates_install(struct rp_ops *ops)
{
    ops->delta_decay = delta_decay;
    ops->delta_beta = delta_beta;
}

static enum rp_status l2_norm(void *context, const struct rp_site *site,
                              const struct rp_l2_norm *args)
{
    const struct rp_change *change = context;
    const struct rp_ops *below = change->overlay.below;
    struct rp_l2_norm wrong = *args;
    bool is_here = change->which == RP_N_WEIGHTS || change->which == args->which;
    if (is_here && change->option == RP_L2_MISSING)
        return RP_OK;
    if (is_here && change->option == RP_L2_EPS)
        wrong.eps = (float)change->value;
    enum rp_status status = below->l2_norm(below->context, site, &wrong);
    if (!is_here || change->option != RP_L2_MEAN)
        return status;
    float factor = sqrtf((float)args->head_dim);
    for (size_t p = 0; p < site->n_positions; p++)
        for (size_t i = 0; i < args->n_heads * args->head_dim; i++)
            args->x[p * args->x_stride + i] *= factor;
    return status;
}

void rp_delta_l2_install(struct rp_ops *ops)
{
    ops->l2_norm = l2_norm;
}

/* y = scale * state^T x; state [dim of K][dim of V] */
static void read_state(const float *state, const float *x, size_t dim, float scale, float *y)
{
    memset(y, 0, dim * sizeof *y);
    for (size_t i = 0; i < dim; i++) {
        for (size_t j = 0; j < dim; j++)
            y[j] += state[i * dim + j] * (scale * x[i]);
    }
}

static void decay_state(float *state, size_t dim, float decay)
{
    for (size_t i = 0; i < dim * dim; i++)
        state[i] *= decay;
}

/* One head at one position, in another order. y [dim] is also where the update is made. */
static void own_step(int option, const struct rp_delta_rule *args, const float *q, const float *k,
                     const float *v, float decay, float beta, float *state, float *y)
{
    size_t dim = args->head_dim;
    if (option == RP_DELTA_BEFORE_DECAY)
        read_state(state, k, dim, 1, y);
    if (option != RP_DELTA_DECAY_LATE)
        decay_state(state, dim, decay);
    if (option == RP_DELTA_PLAIN_UPDATE)
        memset(y, 0, dim * sizeof *y);
    else if (option != RP_DELTA_BEFORE_DECAY)
        read_state(state, k, dim, 1, y);
    for (size_t j = 0; j < dim; j++)
        y[j] = beta * (v[j] - y[j]);
    for (size_t i = 0; i < dim; i++) {
        for (size_t j = 0; j < dim; j++)
            state[i * dim + j] += k[i] * y[j];
    }
    if (option == RP_DELTA_DECAY_LATE)
        decay_state(state, dim, decay);
    read_state(state, q, dim, args->scale, y);
}

/* The output is read before the update. */
static void early_step(const struct rp_delta_rule *args, const float *q, const float *k,
                       const float *v, float decay, float beta, float *state, float *y)
{
    size_t dim = args->head_dim;
    decay_state(state, dim, decay);
    read_state(state, q, dim, args->scale, y);
    for (size_t j = 0; j < dim; j++) {
        float held = 0;
        for (size_t i = 0; i < dim; i++)
            held += state[i * dim + j] * k[i];
        for (size_t i = 0; i < dim; i++)
            state[i * dim + j] += k[i] * (beta * (v[j] - held));
    }
}

static size_t k_head_of(int option, const struct rp_delta_rule *args, size_t head)
{
    if (option == RP_DELTA_GROUPED_HEADS)
        return head / (args->n_v_heads / args->n_k_heads);
    return option == RP_DELTA_FIRST_HEAD ? 0 : head % args->n_k_heads;
}

static void own_rule(int option, const struct rp_site *site, const struct rp_delta_rule *args)
{
    size_t dim = args->head_dim;
    for (size_t p = 0; p < site->n_positions; p++) {
        for (size_t head = 0; head < args->n_v_heads; head++) {
            size_t qkv_at = p * args->qkv_stride, at = p * args->n_v_heads + head;
            size_t k_at = qkv_at + k_head_of(option, args, head) * dim;
            const float *v = args->v + qkv_at + head * dim;
            float *state = args->state + head * dim * dim, *y = args->y + at * dim;
            if (option == RP_DELTA_OUTPUT_EARLY)
                early_step(args, args->q + k_at, args->k + k_at, v, args->decay[at], args->beta[at],
                           state, y);
            else
                own_step(option, args, args->q + k_at, args->k + k_at, v, args->decay[at],
                         args->beta[at], state, y);
        }
    }
}

static bool loses_state(int option, double value, int each, int once, int64_t position)
{
    if (option == each)
        return true;
    return option == once ? position == (int64_t)value
                          : position % (value >= 1 ? (int64_t)value : 1) == 0;
}

static void transpose_state(const struct rp_delta_rule *args)
{
    size_t dim = args->head_dim;
    for (size_t head = 0; head < args->n_v_heads; head++) {
        float *state = args->state + head * dim * dim;
        for (size_t i = 0; i < dim; i++) {
            for (size_t j = 0; j < i; j++) {
                float kept = state[i * dim + j];
                state[i * dim + j] = state[j * dim + i];
                state[j * dim + i] = kept;
            }
        }
    }
}

/* Position by position, with something done to the state in between. */
static enum rp_status run_with_state(const struct rp_change *change, const struct rp_site *site,
                                     const struct rp_delta_rule *args)
{
    const struct rp_ops *below = change->overlay.below;
    size_t n_state = args->n_v_heads * args->head_dim * args->head_dim;
    enum rp_status status = RP_OK;
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        struct rp_site one = *site;
        struct rp_delta_rule part = *args;
        one.positions += p;
        one.n_positions = 1;
        part.q += p * args->qkv_stride;
        part.k += p * args->qkv_stride;
        part.v += p * args->qkv_stride;
        part.decay += p * args->n_v_heads;
        part.beta += p * args->n_v_heads;
        part.y += p * args->n_v_heads * args->head_dim;
        if (change->option == RP_DELTA_STATE_TRANSPOSED)
            transpose_state(args);
        else if (loses_state(change->option, change->value, RP_DELTA_STATE_AT_EACH,
                             RP_DELTA_STATE_AT, site->positions[p]))
            memset(args->state, 0, n_state * sizeof *args->state);
        status = below->delta_rule(below->context, &one, &part);
    }
    return status;
}

static enum rp_status delta_rule(void *context, const struct rp_site *site,
                                 const struct rp_delta_rule *args)
{
    const struct rp_change *change = context;
    const struct rp_ops *below = change->overlay.below;
    struct rp_delta_rule wrong = *args;
    switch (change->option) {
    case RP_DELTA_SCALE: wrong.scale = (float)change->value; break;
    case RP_DELTA_QK_SWAPPED:
        wrong.q = args->k;
        wrong.k = args->q;
        break;
    case RP_DELTA_STATE_AT_EACH:
    case RP_DELTA_STATE_AT:
    case RP_DELTA_STATE_EVERY:
    case RP_DELTA_STATE_TRANSPOSED: return run_with_state(change, site, args);
    default: own_rule(change->option, site, args); return RP_OK;
    }
    return below->delta_rule(below->context, site, &wrong);
}

void rp_delta_rule_install(struct rp_ops *ops)
{
    ops->delta_rule = delta_rule;
}

/* Each channel's kernel as it is changed. weight [n_channels][kernel] */
static void change_kernel(int option, const struct rp_causal_conv1d *args, float *weight)
{
    size_t kernel = args->kernel;
    for (size_t channel = 0; channel < args->n_channels; channel++) {
        const float *from = args->weight + channel * kernel;
        float *to = weight + channel * kernel;
        for (size_t i = 0; i < kernel; i++) {
            switch (option) {
            case RP_CONV_REVERSED: to[i] = from[kernel - 1 - i]; break;
            case RP_CONV_LATE: to[i] = i + 1 < kernel ? from[i + 1] : 0; break;
            default: to[i] = i + 1 == kernel; break;
            }
        }
    }
}

static enum rp_status run_conv_with_state(const struct rp_change *change,
                                          const struct rp_site *site,
                                          const struct rp_causal_conv1d *args)
{
    const struct rp_ops *below = change->overlay.below;
    enum rp_status status = RP_OK;
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        struct rp_site one = *site;
        struct rp_causal_conv1d part = *args;
        one.positions += p;
        one.n_positions = 1;
        part.x += p * args->n_channels;
        part.y += p * args->n_channels;
        if (loses_state(change->option, change->value, RP_CONV_STATE_AT_EACH, RP_CONV_STATE_AT,
                        site->positions[p]))
            memset(args->state, 0, (args->kernel - 1) * args->n_channels * sizeof *args->state);
        status = below->causal_conv1d(below->context, &one, &part);
    }
    return status;
}

static enum rp_status causal_conv1d(void *context, const struct rp_site *site,
                                    const struct rp_causal_conv1d *args)
{
    const struct rp_change *change = context;
    const struct rp_ops *below = change->overlay.below;
    struct rp_causal_conv1d wrong = *args;
    if (change->option >= RP_CONV_STATE_AT_EACH)
        return run_conv_with_state(change, site, args);
    if (change->option == RP_CONV_WITHOUT_SILU) {
        wrong.has_silu = false;
        return below->causal_conv1d(below->context, site, &wrong);
    }
    float *weight = malloc((args->n_channels * args->kernel + 1) * sizeof *weight);
    if (!weight)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a kernel");
    change_kernel(change->option, args, weight);
    wrong.weight = weight;
    enum rp_status status = below->causal_conv1d(below->context, site, &wrong);
    free(weight);
    return status;
}

void rp_delta_conv_install(struct rp_ops *ops)
{
    ops->causal_conv1d = causal_conv1d;
}

static enum rp_status gated_norm(void *context, const struct rp_site *site,
                                 const struct rp_gated_norm *args)
{
    const struct rp_change *change = context;
    bool is_before = change->option == RP_GATED_BEFORE_NORM;
    float eps = change->option == RP_GATED_EPS ? (float)change->value : args->eps;
    float offset = change->option == RP_GATED_WEIGHT_OFFSET ? (float)change->value : 0;
    (void)site;
    for (size_t row = 0; row < args->n_rows; row++) {
        const float *gate = args->gate + row * args->dim;
        const float *x = args->x + row * args->dim;
        float *y = args->y + row * args->dim;
        double sum = 0;
        for (size_t i = 0; i < args->dim; i++) {
            double value = (double)x[i] * (is_before ? (double)silu(gate[i]) : 1);
            sum += value * value;
        }
        float scale = 1.0f / sqrtf((float)(sum / (double)args->dim) + eps);
        if (change->option == RP_GATED_WITHOUT_NORM)
            scale = 1;
        for (size_t i = 0; i < args->dim; i++) {
            float weight = change->option == RP_GATED_WITHOUT_WEIGHT ? 1 : args->weight[i] + offset;
            float factor = change->option == RP_GATED_WITHOUT_GATE ? 1
                           : change->option == RP_GATED_SIGMOID    ? sigmoid(gate[i])
                                                                   : silu(gate[i]);
            y[i] = weight * (x[i] * scale) * factor;
        }
    }
    return RP_OK;
}

void rp_gated_norm_install(struct rp_ops *ops)
{
    ops->gated_norm = gated_norm;
}
