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

/* GptOssExperts: what gate and up are limited to, and what the sigmoid's argument is multiplied by. */
#define RP_CLAMP_LIMIT 7.0f
#define RP_CLAMPED_ALPHA 1.702f

static inline float rp_clamped_gate(float gate)
{
    return gate > RP_CLAMP_LIMIT ? RP_CLAMP_LIMIT : gate;
}

static inline float rp_clamped_up(float up)
{
    return up > RP_CLAMP_LIMIT ? RP_CLAMP_LIMIT : up < -RP_CLAMP_LIMIT ? -RP_CLAMP_LIMIT : up;
}

/* What goes through function and multiplies up. */
static inline float rp_gated(enum rp_activation_function function, float gate, float up)
{
    switch (function) {
    case RP_GELU_TANH: return rp_gelu_tanh(gate) * up;
    case RP_CLAMPED_SWISH: {
        const float clamped = rp_clamped_gate(gate);
        return (rp_clamped_up(up) + 1.0f) * (clamped * rp_sigmoid(clamped * RP_CLAMPED_ALPHA));
    }
    case RP_SILU: break;
    }
    return rp_silu(gate) * up;
}

/* log(1 + exp(x)), as torch's: x itself where exp(-x) no longer counts. */
static inline float rp_softplus(float x)
{
    return x > 20.0f ? x : log1pf(expf(x));
}

#endif
