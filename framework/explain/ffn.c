/* Hypotheses about the FFN, between its input and its output. Its matrices are in weights.c. */
#include <math.h>
#include <stdio.h>

#include "explain/search.h"

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
    NONE,
    SWISH,   /* x sigmoid(value x) */
    CLAMPED, /* silu, gate at most `value` and up within it: gpt-oss */
    SILU_TWICE
};

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static double activation(const struct rp_change *change, double x)
{
    switch (change->option) {
    case GELU: return x / 2 * (1 + erf(x / sqrt(2.0)));
    case GELU_TANH: return x / 2 * (1 + tanh(sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case GELU_SIGMOID: return x / (1 + exp(-1.702 * x));
    case RELU: return fmax(x, 0);
    case RELU_SQUARED: return fmax(x, 0) * fmax(x, 0);
    case SIGMOID: return 1 / (1 + exp(-x));
    case TANH: return tanh(x);
    case SWISH: return x / (1 + exp(-change->value * x));
    case CLAMPED: return silu(fmin(x, change->value));
    case SILU_TWICE: return silu(silu(x));
    default: return x;
    }
}

static enum rp_status ffn_activation(void *context, const struct rp_site *site,
                                     const struct rp_ffn_activation *args)
{
    const struct rp_change *change = context;
    for (size_t i = 0; i < site->n_positions * args->dim; i++) {
        double gate = (double)args->gate[i], up = (double)args->up[i], y;
        switch (change->option) {
        case SWAPPED: y = gate * silu(up); break;
        case NO_GATE: y = up; break;
        case NO_UP: y = silu(gate); break;
        case CLAMPED:
            y = activation(change, gate) * fmax(fmin(up, change->value), -change->value);
            break;
        default: y = activation(change, gate) * up; break;
        }
        args->y[i] = (float)y;
    }
    return RP_OK;
}

static void install(struct rp_ops *ops)
{
    ops->ffn_activation = ffn_activation;
}

enum rp_status rp_collect_ffn(struct rp_search *search, struct rp_error *err)
{
    static const struct {
        const char *name;
        enum option option;
        double value;
        const char *text;
    } plain[] = {
        {"ffn-swapped", SWAPPED, 0, "the FFN's gate and up swapped: up is activated"},
        {"ffn-activation", GELU, 0, "GELU in the FFN; the model's is SiLU"},
        {"ffn-activation", GELU_TANH, 0, "GELU (tanh) in the FFN; the model's is SiLU"},
        {"ffn-activation", GELU_SIGMOID, 0, "GELU (sigmoid) in the FFN; the model's is SiLU"},
        {"ffn-activation", RELU, 0, "ReLU in the FFN; the model's is SiLU"},
        {"ffn-activation", RELU_SQUARED, 0, "squared ReLU in the FFN; the model's is SiLU"},
        {"ffn-activation", SIGMOID, 0, "sigmoid in the FFN; the model's is SiLU"},
        {"ffn-activation", TANH, 0, "tanh in the FFN; the model's is SiLU"},
        {"ffn-activation", NONE, 0, "no activation in the FFN; the model's is SiLU"},
        {"ffn-activation", SILU_TWICE, 0, "SiLU twice in the FFN"},
        {"ffn-activation", CLAMPED, 7, "the FFN's gate and up limited to 7"},
        {"ffn-gate-missing", NO_GATE, 0, "the FFN without its gate"},
        {"ffn-up-missing", NO_UP, 0, "the FFN without up"},
    };
    static const double betas[] = {0.5, 1.702, 2};
    static const struct rp_fit fit = {
        .is_log = true, .low = 1e-3, .high = 1e3, .starts = betas, .n_starts = 3};
    enum rp_status status = RP_OK;
    struct rp_candidate candidate = {.phase = RP_PHASE_FIXED,
                                     .stages = RP_STAGE_FFN,
                                     .install = install,
                                     .from_layer = -1,
                                     .parameter = RP_NO_PARAMETER};
    for (size_t i = 0; i < sizeof plain / sizeof *plain && status == RP_OK; i++) {
        candidate.name = plain[i].name;
        candidate.option = (int)plain[i].option;
        candidate.value = plain[i].value;
        snprintf(candidate.text, sizeof candidate.text, "%s", plain[i].text);
        status = rp_search_add(search, &candidate, err);
    }
    candidate.name = "ffn-activation";
    candidate.option = SWISH;
    candidate.value = 1;
    candidate.phase = RP_PHASE_FIT;
    candidate.fit = &fit;
    candidate.reports_value = true;
    snprintf(candidate.text, sizeof candidate.text,
             "x sigmoid(%%v x) in the FFN; the model's is SiLU, x sigmoid(x)");
    if (status == RP_OK)
        status = rp_search_add(search, &candidate, err);
    return status;
}
