/* Hypotheses about the FFN's activation: another function, or another use of gate and up. */
#include <stdio.h>

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
    SILU /* of a model that has another */
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
    case CLAMPED: return silu(fmin(x, what->value));
    case SILU_TWICE: return silu(silu(x));
    case IDENTITY: return x;
    default: return own == RP_GELU_TANH ? gelu_tanh(x) : silu(x);
    }
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
    static const double betas[] = {0.5, 1.702, 2};
    static const struct rp_fit fit = RP_FIT(true, 1e-3, 1e3, betas);
    if (search->config->activation == RP_GELU_TANH) {
        RP_ADD_ALL(search, RP_STEP_FFN_ACTIVATION, install, of_gelu);
        return;
    }
    RP_ADD_ALL(search, RP_STEP_FFN_ACTIVATION, install, fixed);
    rp_search_add_fit(
        search, RP_STEP_FFN_ACTIVATION, install,
        (struct rp_hypothesis){"ffn-activation", SWISH, 1,
                               "x sigmoid(%v x) in the FFN; the model's is SiLU, x sigmoid(x)"},
        &fit, 0);
}
