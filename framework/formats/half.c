/* See formats/half.h. */
#include "formats/half.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#define F16_SUBNORMAL_STEP 0x1p-24f
#define F16_SMALLEST_NORMAL 0x1p-14f
#define F16_LARGEST 65504.0f

static uint32_t to_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Drops the lowest n bits of the pattern, to nearest, ties to even. */
static float drop_bits(float x, unsigned n)
{
    uint32_t bits = to_bits(x), last = bits >> n & 1;
    return from_bits((bits + (1u << (n - 1)) - 1 + last) & ~((1u << n) - 1));
}

float rp_round_f16(float x)
{
    float magnitude = fabsf(x);
    if (isnan(x))
        return x;
    if (magnitude >= 65520.0f) /* the middle between the largest and what would follow it */
        return copysignf(INFINITY, x);
    if (magnitude < F16_SMALLEST_NORMAL) /* 0.5 has the step of F16's subnormals as its last bit */
        return copysignf((magnitude + 0.5f) - 0.5f, x);
    return drop_bits(x, 13);
}

float rp_round_bf16(float x)
{
    return isnan(x) ? x : drop_bits(x, 16);
}

float rp_other_f16(float x, float rounded)
{
    float magnitude = fabsf(rounded), other;
    int up = fabsf(x) > magnitude;
    if (!(x != rounded) || !isfinite(rounded))
        return rounded;
    if (up ? magnitude < F16_SMALLEST_NORMAL : magnitude <= F16_SMALLEST_NORMAL)
        other = up ? magnitude + F16_SUBNORMAL_STEP : magnitude - F16_SUBNORMAL_STEP;
    else
        other = from_bits(up ? to_bits(magnitude) + (1u << 13) : to_bits(magnitude) - (1u << 13));
    return other > F16_LARGEST ? rounded : copysignf(other, x);
}

float rp_other_bf16(float x, float rounded)
{
    float magnitude = fabsf(rounded), other;
    int up = fabsf(x) > magnitude;
    if (!(x != rounded) || !isfinite(rounded))
        return rounded;
    other = from_bits(up ? to_bits(magnitude) + (1u << 16) : to_bits(magnitude) - (1u << 16));
    return isfinite(other) ? copysignf(other, x) : rounded;
}

/* 2^-mantissa_bits of the power of 2 below |x|, which is 2^lowest at least. */
static double step_of(float x, int mantissa_bits, int lowest)
{
    int exponent;
    (void)frexpf(x, &exponent);
    exponent -= 1;
    return ldexp(1.0, (exponent < lowest || x == 0 ? lowest : exponent) - mantissa_bits);
}

double rp_step_f16(float x)
{
    return step_of(x, 10, -14);
}

double rp_step_bf16(float x)
{
    return step_of(x, 7, -126);
}
