/* See formats/quants.h: blocks of 256 values. Those of the K-quants and of IQ4_XS have 8 or 16 groups with
 * small integer scales (and minima) of their own, which F16 factors scale once more. */
#include "formats/quants.h"

#include "base/little_endian.h"

#define BLOCK 256
#define GROUP 16  /* values that share a scale, in Q2_K, Q3_K and Q6_K */
#define GROUPS 16 /* of those */

static float half_at(const unsigned char *in)
{
    return rp_float_from_half(rp_load_u16(in));
}

/* Values of 2 bits: 32 bytes hold 128 values, byte i % 32 of them bits 2 * (i / 32). */
static int two_bits(const unsigned char *bytes, size_t i)
{
    return bytes[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
}

/* A block: 16 bytes of scale (low half) and minimum (high half), 64 bytes of values, F16 factors of
 * scales and minima. */
void rp_decode_q2_k(const unsigned char *in, size_t n, float *out)
{
    for (; n >= BLOCK; n -= BLOCK, in += 84) {
        const unsigned char *scales = in, *values = in + 16;
        float factor = half_at(in + 80), min_factor = half_at(in + 82);
        for (size_t group = 0; group < GROUPS; group++) {
            float scale = factor * (float)(scales[group] & 0x0f);
            float minimum = min_factor * (float)(scales[group] >> 4);
            for (size_t i = group * GROUP; i < (group + 1) * GROUP; i++)
                *out++ = scale * (float)two_bits(values, i) - minimum;
        }
    }
}

/* Q3_K's scales have 6 bits: four in the low, then the high halves of 8 bytes, two in 4 more bytes. */
static int q3_k_scale(const unsigned char *scales, size_t group)
{
    int low = group < 8 ? scales[group] & 0x0f : scales[group - 8] >> 4;
    int high = scales[8 + group % 4] >> group / 4 * 2 & 3;
    return (low | high << 4) - 32;
}

/* A block: 32 bytes of third bits, which say that nothing is to be taken off; 64 bytes of values, 12
 * of scales, F16 factor of the scales. */
void rp_decode_q3_k(const unsigned char *in, size_t n, float *out)
{
    for (; n >= BLOCK; n -= BLOCK, in += 110) {
        const unsigned char *high = in, *values = in + 32, *scales = in + 96;
        float factor = half_at(in + 108);
        for (size_t group = 0; group < GROUPS; group++) {
            float scale = factor * (float)q3_k_scale(scales, group);
            for (size_t i = group * GROUP; i < (group + 1) * GROUP; i++) {
                int offset = high[i % 32] >> i / 32 & 1 ? 0 : 4;
                *out++ = scale * (float)(two_bits(values, i) - offset);
            }
        }
    }
}

/* Q4_K and Q5_K: 8 scales and 8 minima of 6 bits in 12 bytes. The first four of each lie in bytes 0
 * and 4 on; the others have four bits in bytes 8 on, and two on top of the first ones. */
static void scale_and_minimum(const unsigned char *bytes, size_t group, float *scale,
                              float *minimum)
{
    size_t at = group % 4;
    int first = bytes[at] & 0x3f, second = bytes[4 + at] & 0x3f;
    if (group >= 4) {
        first = (bytes[8 + at] & 0x0f) | bytes[at] >> 6 << 4;
        second = bytes[8 + at] >> 4 | bytes[4 + at] >> 6 << 4;
    }
    *scale = (float)first;
    *minimum = (float)second;
}

/* Value i of 256: 32 bytes hold 64 values, first their low, then their high halves. */
static int four_bits(const unsigned char *bytes, size_t i)
{
    return bytes[i / 64 * 32 + i % 32] >> i % 64 / 32 * 4 & 0x0f;
}

/* high: NULL, or 32 bytes of fifth bits: bit i / 32 of byte i % 32. */
static void decode_scaled_block(const unsigned char *in, const unsigned char *high,
                                const unsigned char *values, float *out)
{
    float factor = half_at(in), min_factor = half_at(in + 2);
    for (size_t group = 0; group < BLOCK / 32; group++) {
        float scale, minimum;
        scale_and_minimum(in + 4, group, &scale, &minimum);
        scale *= factor;
        minimum *= min_factor;
        for (size_t i = 0; i < 32; i++) {
            int value = four_bits(values, group * 32 + i);
            if (high)
                value |= (high[i] >> group & 1) << 4;
            *out++ = scale * (float)value - minimum;
        }
    }
}

/* A block: F16 factors of scales and minima, 12 bytes of these, 128 bytes of values. */
void rp_decode_q4_k(const unsigned char *in, size_t n, float *out)
{
    for (; n >= BLOCK; n -= BLOCK, in += 144, out += BLOCK)
        decode_scaled_block(in, NULL, in + 16, out);
}

/* The same with 32 bytes of fifth bits before the values. */
void rp_decode_q5_k(const unsigned char *in, size_t n, float *out)
{
    for (; n >= BLOCK; n -= BLOCK, in += 176, out += BLOCK)
        decode_scaled_block(in, in + 16, in + 48, out);
}

/* A block: 128 bytes of low and 64 of high bits, 16 signed scales, their F16 factor. 64 bytes of low
 * bits hold 128 values, 32 bytes of high ones too. */
void rp_decode_q6_k(const unsigned char *in, size_t n, float *out)
{
    for (; n >= BLOCK; n -= BLOCK, in += 210) {
        const unsigned char *low = in, *high = in + 128, *scales = in + 192;
        float factor = half_at(in + 208);
        for (size_t i = 0; i < BLOCK; i++) {
            float scale = factor * (float)(signed char)scales[i / GROUP];
            int value = low[i / 128 * 64 + i % 64] >> i % 128 / 64 * 4 & 0x0f;
            *out++ = scale * (float)((value | two_bits(high, i) << 4) - 32);
        }
    }
}

/* A block: F16 factor, 16 high bits (two a group), 4 bytes of low halves of the groups' scales, 128 bytes
 * of values that are IQ4_NL's, in groups of 32. */
void rp_decode_iq4_xs(const unsigned char *in, size_t n, float *out)
{
    for (; n >= BLOCK; n -= BLOCK, in += 136) {
        const float factor = half_at(in);
        const unsigned high = rp_load_u16(in + 2);
        for (size_t group = 0; group < BLOCK / 32; group++) {
            const int low = in[4 + group / 2] >> group % 2 * 4 & 0x0f;
            const float scale = factor * (float)((low | (int)(high >> 2 * group & 3u) << 4) - 32);
            const unsigned char *values = in + 8 + group * 16;
            for (size_t i = 0; i < 32; i++)
                *out++ = scale * rp_iq4_values[values[i % 16] >> i / 16 * 4 & 0x0f];
        }
    }
}

/* Numbers 0, 1, 2 stand for -1, 0, 1. A block: 64 bytes of values, F16 scale. */
void rp_decode_tq2_0(const unsigned char *in, size_t n, float *out)
{
    for (; n >= BLOCK; n -= BLOCK, in += 66) {
        const float scale = half_at(in + 64);
        for (size_t i = 0; i < BLOCK; i++)
            *out++ = scale * (float)(two_bits(in, i) - 1);
    }
}

/* n_digits digits of base 3 a byte, the first ones of all n_bytes bytes first. A byte is the fraction that
 * the digits make, times 256. */
static float *base_three(const unsigned char *in, size_t n_bytes, size_t n_digits, float scale,
                         float *out)
{
    static const unsigned powers[] = {1, 3, 9, 27, 81};
    for (size_t digit = 0; digit < n_digits; digit++)
        for (size_t i = 0; i < n_bytes; i++) {
            const unsigned rest = in[i] * powers[digit] & 0xffu;
            *out++ = scale * ((float)(rest * 3 >> 8) - 1.0f);
        }
    return out;
}

/* The same values. A block: 32 and 16 bytes of 5 digits, 4 bytes of 4 digits, F16 scale. */
void rp_decode_tq1_0(const unsigned char *in, size_t n, float *out)
{
    for (; n >= BLOCK; n -= BLOCK, in += 54) {
        const float scale = half_at(in + 52);
        out = base_three(in, 32, 5, scale, out);
        out = base_three(in + 32, 16, 5, scale, out);
        out = base_three(in + 48, 4, 4, scale, out);
    }
}
