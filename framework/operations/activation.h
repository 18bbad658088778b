/* The functions of gates and activations, in FP32 as HF has them (torch.sigmoid, F.silu, F.softplus). */
#ifndef REFPARITY_OPERATIONS_ACTIVATION_H
#define REFPARITY_OPERATIONS_ACTIVATION_H

#include <math.h>

#include "refparity/ops.h"

static inline float rp_sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

static inline float rp_silu(float x)
{
    return x / (1.0f + expf(-x));
}

/* torch's gelu with approximate="tanh". */
static inline float rp_gelu_tanh(float x)
{
    const float inner = 0.7978845608f * (x + 0.044715f * x * x * x);
    return 0.5f * x * (1.0f + tanhf(inner));
}

static inline float rp_activation(enum rp_activation_function function, float x)
{
    return function == RP_GELU_TANH ? rp_gelu_tanh(x) : rp_silu(x);
}

/* log(1 + exp(x)), as torch's: x itself where exp(-x) no longer counts. */
static inline float rp_softplus(float x)
{
    return x > 20.0f ? x : log1pf(expf(x));
}

#endif
