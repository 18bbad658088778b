/* See formats/quants.h: 4-bit floating-point values with a scale that is itself a small float. Formats: OCP
 * Microscaling Formats 1.0 (MXFP4), NVIDIA's NVFP4; ggml keeps E2M1 values doubled and scales halved. */
#include <math.h>

#include "formats/quants.h"

#define MXFP4_BLOCK 32
#define NVFP4_BLOCK 64
#define NVFP4_GROUP 16

/* E2M1: sign, two bits of exponent, one of mantissa; times 2. */
static const float e2m1_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* Half of 2^(exponent - 127), subnormals included. */
float rp_mxfp4_scale(unsigned char exponent)
{
    return ldexpf(1.0f, (int)exponent - 128);
}

/* Half of an E4M3 number without a sign; NaN and bit 7 are not used. */
float rp_nvfp4_scale(unsigned char byte)
{
    const int exponent = byte >> 3 & 0x0f, mantissa = byte & 7;
    if (byte == 0x7f)
        return 0;
    return exponent == 0 ? ldexpf((float)mantissa, -10)
                         : ldexpf((float)(8 + mantissa), exponent - 11);
}

/* A block: the exponent of the scale; 16 bytes, of which the low halves come first. */
void rp_decode_mxfp4(const unsigned char *in, size_t n, float *out)
{
    for (; n >= MXFP4_BLOCK; n -= MXFP4_BLOCK, in += 17) {
        const float scale = rp_mxfp4_scale(in[0]);
        for (size_t i = 0; i < MXFP4_BLOCK; i++)
            *out++ = scale * e2m1_values[in[1 + i % 16] >> i / 16 * 4 & 0x0f];
    }
}

/* A block: 4 scales, for 16 values each; 8 bytes a scale, of which the low halves come first. */
void rp_decode_nvfp4(const unsigned char *in, size_t n, float *out)
{
    for (; n >= NVFP4_BLOCK; n -= NVFP4_BLOCK, in += 36) {
        for (size_t group = 0; group < NVFP4_BLOCK / NVFP4_GROUP; group++) {
            const float scale = rp_nvfp4_scale(in[group]);
            const unsigned char *values = in + 4 + group * 8;
            for (size_t i = 0; i < NVFP4_GROUP; i++)
                *out++ = scale * e2m1_values[values[i % 8] >> i / 8 * 4 & 0x0f];
        }
    }
}
