/* The functions of gates and activations, in FP32 as HF has them (torch.sigmoid, F.silu, F.softplus). */
#ifndef REFPARITY_OPERATIONS_ACTIVATION_H
#define REFPARITY_OPERATIONS_ACTIVATION_H

#include <math.h>

static inline float rp_sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

static inline float rp_silu(float x)
{
    return x / (1.0f + expf(-x));
}

/* log(1 + exp(x)), as torch's: x itself where exp(-x) no longer counts. */
static inline float rp_softplus(float x)
{
    return x > 20.0f ? x : log1pf(expf(x));
}

#endif
