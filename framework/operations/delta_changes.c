/* See operations/delta_changes.h. */
#include "operations/delta_changes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "operations/activation.h"

/* The decay's logarithm. */
static float changed_decay(const struct rp_candidate *what, float a, float alpha, float dt)
{
    const float plain = a * rp_softplus(alpha + dt);
    switch ((enum rp_decay_option)what->option) {
    case RP_DECAY_MISSING: return 0;
    case RP_DECAY_WITHOUT_EXP: return plain < 0 ? logf(-plain) : plain;
    case RP_DECAY_SIGN: return -plain;
    case RP_DECAY_WITHOUT_SOFTPLUS: return a * (alpha + dt);
    case RP_DECAY_WITHOUT_A: return -rp_softplus(alpha + dt);
    case RP_DECAY_EXP_A: return -expf(a) * rp_softplus(alpha + dt);
    case RP_DECAY_LOG_A: return logf(-a) * rp_softplus(alpha + dt);
    case RP_DECAY_EXPED: return expf(plain);
    case RP_DT_MISSING: return a * rp_softplus(alpha);
    case RP_DT_SIGN: return a * rp_softplus(alpha - dt);
    case RP_DT_AFTER_SOFTPLUS: return a * (rp_softplus(alpha) + dt);
    case RP_A_FACTOR: return plain * (float)what->value;
    }
    return plain;
}

static enum rp_status delta_decay(void *context, const struct rp_site *site,
                                  const struct rp_delta_decay *args)
{
    const struct rp_change *change = context;
    for (size_t i = 0; i < site->n_positions * args->n_heads; i++) {
        const size_t head = i % args->n_heads;
        args->y[i] = changed_decay(&change->what, args->a[head], args->y[i], args->dt[head]);
    }
    return RP_OK;
}

void rp_delta_decay_install(struct rp_ops *ops)
{
    ops->delta_decay = delta_decay;
}

static enum rp_status delta_beta(void *context, const struct rp_site *site,
                                 const struct rp_delta_beta *args)
{
    const struct rp_change *change = context;
    for (size_t i = 0; i < site->n_positions * args->n_heads; i++) {
        switch ((enum rp_beta_option)change->what.option) {
        case RP_BETA_WITHOUT_SIGMOID: break;
        case RP_BETA_MISSING: args->y[i] = 1; break;
        case RP_BETA_ONE_LESS: args->y[i] = rp_sigmoid(-args->y[i]); break;
        case RP_BETA_FACTOR: args->y[i] = (float)change->what.value * rp_sigmoid(args->y[i]); break;
        }
    }
    return RP_OK;
}

void rp_delta_beta_install(struct rp_ops *ops)
{
    ops->delta_beta = delta_beta;
}

static void norm_with_eps_outside(const struct rp_l2_norm *args, float eps, float *x)
{
    double sum = 0;
    for (size_t i = 0; i < args->head_dim; i++)
        sum += (double)x[i] * (double)x[i];
    const float length = sqrtf((float)sum);
    for (size_t i = 0; i < args->head_dim; i++)
        x[i] /= fmaxf(length, eps);
}

static enum rp_status l2_norm(void *context, const struct rp_site *site,
                              const struct rp_l2_norm *args)
{
    const struct rp_change *change = context;
    const int option = change->what.option;
    const float factor = sqrtf((float)args->head_dim);
    struct rp_l2_norm wrong = *args;
    if (change->what.which != RP_N_WEIGHTS && change->what.which != args->which)
        return RP_RUN_BELOW(change, l2_norm, site, args);
    if (option == RP_L2_MISSING)
        return RP_OK;
    if (option == RP_L2_EPS)
        wrong.eps = (float)change->what.value;
    if (option == RP_L2_MEAN) /* x / sqrt(mean + eps) */
        wrong.eps *= (float)args->head_dim;
    if (option != RP_L2_EPS_OUTSIDE) {
        const enum rp_status status = RP_RUN_BELOW(change, l2_norm, site, &wrong);
        if (option != RP_L2_MEAN || status != RP_OK)
            return status;
    }
    for (size_t at = 0; at < site->n_positions * args->n_heads; at++) {
        float *x =
            args->x + at / args->n_heads * args->x_stride + at % args->n_heads * args->head_dim;
        if (option == RP_L2_EPS_OUTSIDE)
            norm_with_eps_outside(args, (float)change->what.value, x);
        for (size_t i = 0; option == RP_L2_MEAN && i < args->head_dim; i++)
            x[i] *= factor;
    }
    return RP_OK;
}

void rp_delta_l2_install(struct rp_ops *ops)
{
    ops->l2_norm = l2_norm;
}

/* Each channel's kernel as it is changed. weight [n_channels][kernel] */
static void change_kernel(int option, const struct rp_causal_conv1d *args, float *weight)
{
    const size_t kernel = args->kernel;
    for (size_t channel = 0; channel < args->n_channels; channel++) {
        const float *from = args->weight + channel * kernel;
        float *to = weight + channel * kernel;
        for (size_t i = 0; i < kernel; i++) {
            switch (option) {
            case RP_CONV_REVERSED: to[i] = from[kernel - 1 - i]; break;
            case RP_CONV_LATE: to[i] = i + 1 < kernel ? from[i + 1] : 0; break;
            case RP_CONV_EARLY: to[i] = i > 0 ? from[i - 1] : 0; break;
            default: to[i] = i + 1 == kernel; break;
            }
        }
    }
}

static bool loses_state(const struct rp_candidate *what, int64_t position)
{
    switch (what->option) {
    case RP_CONV_STATE_AT_EACH: return true;
    case RP_CONV_STATE_AT: return position == what->position;
    case RP_CONV_STATE_EVERY: return what->position > 0 && position % what->position == 0;
    default: return false;
    }
}

/* Position by position, with something done to the state in between. */
static enum rp_status run_conv_with_state(const struct rp_change *change,
                                          const struct rp_site *site,
                                          const struct rp_causal_conv1d *args)
{
    const struct rp_candidate *what = &change->what;
    const size_t size = (args->kernel - 1) * args->n_channels * sizeof(float);
    enum rp_status status = RP_OK;
    float *kept = calloc(1, size + 1);
    if (!kept)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a state");
    if (what->option == RP_CONV_STATE_LEFT) {
        struct rp_site some = *site;
        if (what->value >= 1 && what->value < (double)site->n_positions)
            some.n_positions = (size_t)what->value;
        status = RP_RUN_BELOW(change, causal_conv1d, &some, args);
    }
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        struct rp_site one = *site;
        struct rp_causal_conv1d part = *args;
        one.positions += p;
        one.n_positions = 1;
        part.x += p * args->n_channels;
        part.y += p * args->n_channels;
        if (what->option == RP_CONV_STATE_OF && site->positions[p] == what->from_position)
            memcpy(kept, args->state, size);
        if (what->option == RP_CONV_STATE_OF && site->positions[p] == what->position)
            memcpy(args->state, kept, size);
        else if (loses_state(what, site->positions[p]))
            memset(args->state, 0, size);
        status = RP_RUN_BELOW(change, causal_conv1d, &one, &part);
    }
    free(kept);
    return status;
}

static enum rp_status causal_conv1d(void *context, const struct rp_site *site,
                                    const struct rp_causal_conv1d *args)
{
    const struct rp_change *change = context;
    struct rp_causal_conv1d wrong = *args;
    if (change->what.option >= RP_CONV_STATE_AT_EACH)
        return run_conv_with_state(change, site, args);
    if (change->what.option == RP_CONV_WITHOUT_SILU) {
        wrong.has_silu = false;
        return RP_RUN_BELOW(change, causal_conv1d, site, &wrong);
    }
    float *weight = malloc((args->n_channels * args->kernel + 1) * sizeof *weight);
    if (!weight)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a kernel");
    change_kernel(change->what.option, args, weight);
    wrong.weight = weight;
    const enum rp_status status = RP_RUN_BELOW(change, causal_conv1d, site, &wrong);
    free(weight);
    return status;
}

void rp_delta_conv_install(struct rp_ops *ops)
{
    ops->causal_conv1d = causal_conv1d;
}

static float gate_of(int option, float gate)
{
    switch (option) {
    case RP_GATED_WITHOUT_GATE: return 1;
    case RP_GATED_SIGMOID: return rp_sigmoid(gate);
    case RP_GATED_PLAIN: return gate;
    default: return rp_silu(gate);
    }
}

static enum rp_status gated_norm(void *context, const struct rp_site *site,
                                 const struct rp_gated_norm *args)
{
    const struct rp_change *change = context;
    const int option = change->what.option;
    const float eps = option == RP_GATED_EPS ? (float)change->what.value : args->eps;
    const float offset = option == RP_GATED_WEIGHT_OFFSET ? (float)change->what.value : 0;
    (void)site;
    for (size_t row = 0; row < args->n_rows; row++) {
        const float *gate = args->gate + row * args->dim, *x = args->x + row * args->dim;
        float *y = args->y + row * args->dim;
        double sum = 0;
        for (size_t i = 0; i < args->dim; i++) {
            const double gated = option == RP_GATED_BEFORE_NORM ? (double)rp_silu(gate[i]) : 1;
            sum += (double)x[i] * gated * (double)x[i] * gated;
        }
        const float scale = option == RP_GATED_WITHOUT_NORM
                                ? 1
                                : 1.0f / sqrtf((float)(sum / (double)args->dim) + eps);
        for (size_t i = 0; i < args->dim; i++) {
            const float weight = option == RP_GATED_WITHOUT_WEIGHT ? 1 : args->weight[i] + offset;
            y[i] = weight * (x[i] * scale) * gate_of(option, gate[i]);
        }
    }
    return RP_OK;
}

void rp_gated_norm_install(struct rp_ops *ops)
{
    ops->gated_norm = gated_norm;
}
