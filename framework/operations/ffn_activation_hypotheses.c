/* Hypotheses about the FFN's activation: another function, or another use of gate and up. */
#include <stdio.h>

#include "operations/activation.h"
#include "operations/hypotheses.h"

#define NONE RP_NO_PARAMETER

enum option {
    SWAPPED, /* gate * silu(up) */
    NO_GATE,
    NO_UP,
    GELU,
    GELU_TANH,
    GELU_SIGMOID, /* x sigmoid(1.702 x) */
    RELU,
    RELU_SQUARED,
    SIGMOID,
    TANH,
    IDENTITY,
    SWISH,   /* x sigmoid(value x) */
    CLAMPED, /* silu, gate at most `value` and up within it: gpt-oss */
    SILU_TWICE,
    SILU, /* of a model that has another */
    /* Of a model that limits both and adds 1 to up. */
    NO_CLAMP,
    NO_CLAMP_OF_GATE,
    NO_CLAMP_OF_UP,
    CLAMP_OF_BOTH_SIDES, /* gate is limited from below, too */
    NO_ONE
};

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static double gelu_tanh(double x)
{
    return x / 2 * (1 + tanh(sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
}

/* own: the model's function. */
static double activation(const struct rp_candidate *what, enum rp_activation_function own, double x)
{
    switch (what->option) {
    case GELU: return x / 2 * (1 + erf(x / sqrt(2.0)));
    case GELU_TANH: return gelu_tanh(x);
    case SILU: return silu(x);
    case GELU_SIGMOID: return x / (1 + exp(-1.702 * x));
    case RELU: return fmax(x, 0);
    case RELU_SQUARED: return fmax(x, 0) * fmax(x, 0);
    case SIGMOID: return 1 / (1 + exp(-x));
    case TANH: return tanh(x);
    case SWISH: return x / (1 + exp(-what->value * x));
    case CLAMPED:
        if (own == RP_CLAMPED_SWISH)
            break; /* see clamp */
        return silu(fmin(x, what->value));
    case SILU_TWICE: return silu(silu(x));
    case IDENTITY: return x;
    default: break;
    }
    switch (own) {
    case RP_GELU_TANH: return gelu_tanh(x);
    case RP_CLAMPED_SWISH: return x / (1 + exp(-(double)RP_CLAMPED_ALPHA * x));
    case RP_SILU: break;
    }
    return silu(x);
}

/* gate and up of GptOssExperts, limited, 1 added to up. */
static void clamp(const struct rp_candidate *what, double *gate, double *up)
{
    const double limit = what->option == CLAMPED ? what->value : (double)RP_CLAMP_LIMIT;
    const bool is_off = what->option == NO_CLAMP;
    if (!is_off && what->option != NO_CLAMP_OF_GATE)
        *gate = fmin(*gate, limit);
    if (what->option == CLAMP_OF_BOTH_SIDES)
        *gate = fmax(*gate, -limit);
    if (!is_off && what->option != NO_CLAMP_OF_UP)
        *up = fmax(fmin(*up, limit), -limit);
    if (what->option != NO_ONE)
        *up += 1;
}

static enum rp_status ffn_activation(void *context, const struct rp_site *site,
                                     const struct rp_ffn_activation *args)
{
    const struct rp_candidate *what = &((const struct rp_change *)context)->what;
    for (size_t i = 0; i < site->n_positions * args->dim; i++) {
        double gate = (double)args->gate[i], up = (double)args->up[i];
        if (what->option == SWAPPED) {
            gate = (double)args->up[i];
            up = (double)args->gate[i];
        }
        if (args->function == RP_CLAMPED_SWISH) {
            clamp(what, &gate, &up);
        } else if (what->option == CLAMPED) {
            up = fmax(fmin(up, what->value), -what->value);
        }
        args->y[i] =
            (float)((what->option == NO_GATE ? 1 : activation(what, args->function, gate)) *
                    (what->option == NO_UP ? 1 : up));
    }
    return RP_OK;
}

static void install(struct rp_ops *ops)
{
    ops->ffn_activation = ffn_activation;
}

void rp_collect_ffn_activation(struct rp_search *search)
{
    static const struct rp_hypothesis fixed[] = {
        {"ffn-swapped", SWAPPED, NONE, "gate and up swapped in the FFN"},
        {"ffn-activation", GELU, NONE, "GELU in the FFN; the model's is SiLU"},
        {"ffn-activation", GELU_TANH, NONE, "GELU (tanh) in the FFN; the model's is SiLU"},
        {"ffn-activation", GELU_SIGMOID, NONE,
         "x sigmoid(1.702 x) in the FFN; the model's is SiLU"},
        {"ffn-activation", RELU, NONE, "ReLU in the FFN; the model's is SiLU"},
        {"ffn-activation", RELU_SQUARED, NONE, "squared ReLU in the FFN; the model's is SiLU"},
        {"ffn-activation", SIGMOID, NONE, "sigmoid in the FFN; the model's is SiLU"},
        {"ffn-activation", TANH, NONE, "tanh in the FFN; the model's is SiLU"},
        {"ffn-activation", IDENTITY, NONE, "no activation in the FFN; the model's is SiLU"},
        {"ffn-activation", SILU_TWICE, NONE, "SiLU twice in the FFN; the model's is SiLU"},
        {"ffn-activation", CLAMPED, 7, "the FFN's gate and up limited to 7; the model's are not"},
        {"ffn-gate-missing", NO_GATE, NONE, "the FFN without its gate"},
        {"ffn-up-missing", NO_UP, NONE, "the FFN without up"},
    };
    static const struct rp_hypothesis of_gelu[] = {
        {"ffn-swapped", SWAPPED, NONE, "gate and up swapped in the FFN"},
        {"ffn-activation", GELU, NONE, "GELU (erf) in the FFN; the model's is GELU (tanh)"},
        {"ffn-activation", GELU_SIGMOID, NONE,
         "x sigmoid(1.702 x) in the FFN; the model's is GELU (tanh)"},
        {"ffn-activation", SILU, NONE, "SiLU in the FFN; the model's is GELU (tanh)"},
        {"ffn-activation", RELU, NONE, "ReLU in the FFN; the model's is GELU (tanh)"},
        {"ffn-activation", IDENTITY, NONE, "no activation in the FFN; the model's is GELU (tanh)"},
        {"ffn-gate-missing", NO_GATE, NONE, "the FFN without its gate"},
        {"ffn-up-missing", NO_UP, NONE, "the FFN without up"},
    };
    static const char clamp[] = "ffn-clamp";
    static const struct rp_hypothesis of_clamped[] = {
        {"ffn-swapped", SWAPPED, NONE, "gate and up swapped in the FFN"},
        {clamp, NO_CLAMP, NONE, "the FFN's gate and up are not limited; the model's are, to 7"},
        {clamp, NO_CLAMP_OF_GATE, NONE, "the FFN's gate is not limited; the model's is, to 7"},
        {clamp, NO_CLAMP_OF_UP, NONE, "the FFN's up is not limited; the model's is, to 7"},
        {clamp, CLAMP_OF_BOTH_SIDES, NONE,
         "the FFN's gate is limited from below, too; the model's is not"},
        {"ffn-up-offset", NO_ONE, NONE, "the FFN's up without the 1 that the model adds to it"},
        {"ffn-activation", SILU, NONE, "SiLU in the FFN; the model's is x sigmoid(1.702 x)"},
        {"ffn-activation", GELU_TANH, NONE,
         "GELU (tanh) in the FFN; the model's is x sigmoid(1.702 x)"},
        {"ffn-activation", GELU, NONE, "GELU in the FFN; the model's is x sigmoid(1.702 x)"},
        {"ffn-activation", IDENTITY, NONE,
         "no activation in the FFN; the model's is x sigmoid(1.702 x)"},
        {"ffn-gate-missing", NO_GATE, NONE, "the FFN without its gate"},
        {"ffn-up-missing", NO_UP, NONE, "the FFN without up"},
    };
    static const double limits[] = {1, 2, 5, 10, 20};
    static const struct rp_fit limit = RP_FIT(true, 1e-2, 1e3, limits);
    static const double betas[] = {0.5, 1.702, 2};
    static const struct rp_fit fit = RP_FIT(true, 1e-3, 1e3, betas);
    if (search->config->activation == RP_GELU_TANH) {
        RP_ADD_ALL(search, RP_STEP_FFN_ACTIVATION, install, of_gelu);
        return;
    }
    if (search->config->activation == RP_CLAMPED_SWISH) {
        RP_ADD_ALL(search, RP_STEP_FFN_ACTIVATION, install, of_clamped);
        rp_search_add_fit(
            search, RP_STEP_FFN_ACTIVATION, install,
            (struct rp_hypothesis){"ffn-activation", SWISH, 1,
                                   "x sigmoid(%v x) in the FFN; the model's is x sigmoid(1.702 x)"},
            &fit, (double)RP_CLAMPED_ALPHA);
        rp_search_add_fit(
            search, RP_STEP_FFN_ACTIVATION, install,
            (struct rp_hypothesis){clamp, CLAMPED, 5,
                                   "the FFN's gate and up limited to %v; the model's are to 7"},
            &limit, (double)RP_CLAMP_LIMIT);
        return;
    }
    RP_ADD_ALL(search, RP_STEP_FFN_ACTIVATION, install, fixed);
    rp_search_add_fit(
        search, RP_STEP_FFN_ACTIVATION, install,
        (struct rp_hypothesis){"ffn-activation", SWISH, 1,
                               "x sigmoid(%v x) in the FFN; the model's is SiLU, x sigmoid(x)"},
        &fit, 0);
}
