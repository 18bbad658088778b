/* See formats/quants.h: values of 1 to 4 bytes each, and blocks of 32. Block formats as in ggml-common.h,
 * arithmetic as in ggml-quants.c: step by step the same, so that the results are equal to the bit. */
#include "formats/quants.h"

#include "base/avx2.h"
#include "base/little_endian.h"

#define BLOCK_VALUES 32 /* QK4_0, QK8_0, … */

void rp_decode_f32(const unsigned char *in, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = rp_float_from_bits(rp_load_u32(in + 4 * i));
}

void rp_decode_f16(const unsigned char *in, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = rp_float_from_half(rp_load_u16(in + 2 * i));
}

void rp_decode_bf16(const unsigned char *in, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = rp_float_from_bits((uint32_t)rp_load_u16(in + 2 * i) << 16);
}

/* A block: F16 scale, then 32 signed bytes. */
RP_LOOP void rp_decode_q8_0_loop(const unsigned char *in, size_t n, float *out)
{
    for (size_t block = 0; block < n / BLOCK_VALUES; block++, in += 2 + BLOCK_VALUES) {
        float scale = rp_float_from_half(rp_load_u16(in));
        for (size_t i = 0; i < BLOCK_VALUES; i++)
            out[i] = (float)(signed char)in[2 + i] * scale;
        out += BLOCK_VALUES;
    }
}
RP_COMPILE_TWICE(, rp_decode_q8_0, (const unsigned char *in, size_t n, float *out), (in, n, out))

/* A block: F16 scale, then 16 bytes: value i in the low half of byte i, 16 + i in the high half;
 * both are 8 too large. */
RP_LOOP void rp_decode_q4_0_loop(const unsigned char *in, size_t n, float *out)
{
    for (size_t block = 0; block < n / BLOCK_VALUES; block++, in += 2 + BLOCK_VALUES / 2) {
        float scale = rp_float_from_half(rp_load_u16(in));
        for (size_t i = 0; i < BLOCK_VALUES / 2; i++) {
            out[i] = (float)((in[2 + i] & 0x0f) - 8) * scale;
            out[i + BLOCK_VALUES / 2] = (float)((in[2 + i] >> 4) - 8) * scale;
        }
        out += BLOCK_VALUES;
    }
}
RP_COMPILE_TWICE(, rp_decode_q4_0, (const unsigned char *in, size_t n, float *out), (in, n, out))

/* Value i of a block of 32 four-bit ones: byte i's low half, then 16 + i in its high half. */
static int nibble(const unsigned char *bytes, size_t i)
{
    return i < BLOCK_VALUES / 2 ? bytes[i] & 0x0f : bytes[i - BLOCK_VALUES / 2] >> 4;
}

/* Values of five bits: byte i's low half is value i's, its high half value 16 + i's; the fifth bits are
 * high's, bit i of 32. numbers [32]. */
RP_LOOP void five_bits(const unsigned char *high, const unsigned char *low, int *numbers)
{
    const uint32_t bits = rp_load_u32(high);
    for (unsigned i = 0; i < BLOCK_VALUES / 2; i++) {
        numbers[i] = (low[i] & 0x0f) | (int)(bits >> i & 1) << 4;
        numbers[i + BLOCK_VALUES / 2] = low[i] >> 4 | (int)(bits >> (i + BLOCK_VALUES / 2) & 1)
                                                          << 4;
    }
}

/* A block: F16 scale, F16 minimum, 32 values of 4 bits. */
RP_LOOP void rp_decode_q4_1_loop(const unsigned char *in, size_t n, float *out)
{
    for (size_t block = 0; block < n / BLOCK_VALUES; block++, in += 4 + BLOCK_VALUES / 2) {
        float scale = rp_float_from_half(rp_load_u16(in));
        float minimum = rp_float_from_half(rp_load_u16(in + 2));
        for (size_t i = 0; i < BLOCK_VALUES / 2; i++) {
            out[i] = (float)(in[4 + i] & 0x0f) * scale + minimum;
            out[i + BLOCK_VALUES / 2] = (float)(in[4 + i] >> 4) * scale + minimum;
        }
        out += BLOCK_VALUES;
    }
}
RP_COMPILE_TWICE(, rp_decode_q4_1, (const unsigned char *in, size_t n, float *out), (in, n, out))

/* A block: F16 scale, 32 fifth bits, 32 values of 4 bits; 16 too large. */
RP_LOOP void rp_decode_q5_0_loop(const unsigned char *in, size_t n, float *out)
{
    for (size_t block = 0; block < n / BLOCK_VALUES; block++, in += 6 + BLOCK_VALUES / 2) {
        float scale = rp_float_from_half(rp_load_u16(in));
        int numbers[BLOCK_VALUES];
        five_bits(in + 2, in + 6, numbers);
        for (size_t i = 0; i < BLOCK_VALUES; i++)
            out[i] = (float)(numbers[i] - 16) * scale;
        out += BLOCK_VALUES;
    }
}
RP_COMPILE_TWICE(, rp_decode_q5_0, (const unsigned char *in, size_t n, float *out), (in, n, out))

/* A block: F16 scale, F16 minimum, 32 fifth bits, 32 values of 4 bits. */
RP_LOOP void rp_decode_q5_1_loop(const unsigned char *in, size_t n, float *out)
{
    for (size_t block = 0; block < n / BLOCK_VALUES; block++, in += 8 + BLOCK_VALUES / 2) {
        float scale = rp_float_from_half(rp_load_u16(in));
        float minimum = rp_float_from_half(rp_load_u16(in + 2));
        int numbers[BLOCK_VALUES];
        five_bits(in + 4, in + 8, numbers);
        for (size_t i = 0; i < BLOCK_VALUES; i++)
            out[i] = (float)numbers[i] * scale + minimum;
        out += BLOCK_VALUES;
    }
}
RP_COMPILE_TWICE(, rp_decode_q5_1, (const unsigned char *in, size_t n, float *out), (in, n, out))

void rp_block_minima(const unsigned char *in, size_t n, size_t block_bytes, float *minima)
{
    for (size_t block = 0; block < n / BLOCK_VALUES; block++)
        minima[block] = rp_float_from_half(rp_load_u16(in + block * block_bytes + 2));
}

const float rp_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                 1,    13,   25,  38,  53,  69,  89,  113};

/* As Q4_0, but the four bits number one of 16 values that lie unevenly. */
void rp_decode_iq4_nl(const unsigned char *in, size_t n, float *out)
{
    for (size_t block = 0; block < n / BLOCK_VALUES; block++, in += 2 + BLOCK_VALUES / 2) {
        float scale = rp_float_from_half(rp_load_u16(in));
        for (size_t i = 0; i < BLOCK_VALUES; i++)
            *out++ = scale * rp_iq4_values[nibble(in + 2, i)];
    }
}
