/* See formats/quants.h: blocks of 256 values of 1 to 3 bits, which are kept as points of a grid: a number says what
 * 8 or 4 values are at once (quants_grids.h). Signs stand beside it; IQ1_S and IQ1_M have none, but an offset. */
#include <stdbool.h>

#include "base/avx2.h"
#include "base/little_endian.h"
#include "formats/quants.h"
#include "formats/quants_grids.h"

#define BLOCK 256
#define OFFSET 0.125f /* of IQ1_S and IQ1_M */

static const float two_bit_values[4] = {8, 25, 43, 0};
static const float iq3_xxs_values[8] = {4, 12, 20, 28, 36, 44, 52, 62};

static float half_at(const unsigned char *in)
{
    return rp_float_from_half(rp_load_u16(in));
}

static unsigned nibble(const unsigned char *bytes, size_t i)
{
    return (unsigned)bytes[i / 2] >> i % 2 * 4 & 0x0fu;
}

/* The signs of 8 values, a bit each, of which 7 are kept: the number of negative ones is even. */
static unsigned even_signs(unsigned seven)
{
    unsigned parity = seven ^ seven >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    return seven | (parity & 1u) << 7;
}

static float with_sign(float value, unsigned signs, size_t i)
{
    return signs >> i & 1u ? -value : value;
}

/* out [8] */
RP_LOOP void two_bit_point(unsigned point, unsigned signs, float scale, float *out)
{
    for (size_t i = 0; i < 8; i++)
        out[i] = with_sign(scale * two_bit_values[point >> 2 * i & 3u], signs, i);
}

/* A block: F16 factor; for 32 values each: the numbers of 4 points, then 32 bits: signs, 7 a point, and 4 of scale. */
void rp_decode_iq2_xxs(const unsigned char *in, size_t n, float *out)
{
    for (; n >= BLOCK; n -= BLOCK, in += 66) {
        const float factor = half_at(in);
        for (size_t k = 0; k < BLOCK / 8; k++, out += 8) {
            const unsigned char *group = in + 2 + k / 4 * 8;
            const uint32_t bits = rp_load_u32(group + 4);
            const float scale = factor * (0.5f + (float)(bits >> 28)) * 0.25f;
            two_bit_point(rp_iq2_xxs_grid[group[k % 4]], even_signs(bits >> 7 * (k % 4) & 0x7fu),
                          scale, out);
        }
    }
}

/* A block: F16 factor; 32 points, 9 bits of number and 7 of signs; 16 scales of 4 bits. */
void rp_decode_iq2_xs(const unsigned char *in, size_t n, float *out)
{
    for (; n >= BLOCK; n -= BLOCK, in += 74) {
        const float factor = half_at(in);
        for (size_t k = 0; k < BLOCK / 8; k++, out += 8) {
            const unsigned bits = rp_load_u16(in + 2 + 2 * k);
            const float scale = factor * (0.5f + (float)nibble(in + 66, k / 2)) * 0.25f;
            two_bit_point(rp_iq2_xs_grid[bits & 0x1ffu], even_signs(bits >> 9), scale, out);
        }
    }
}

/* A block: F16 factor; 32 points: low bytes of their numbers, bytes of signs, two high bits each; 16 scales of 4
 * bits. */
void rp_decode_iq2_s(const unsigned char *in, size_t n, float *out)
{
    for (; n >= BLOCK; n -= BLOCK, in += 82) {
        const float factor = half_at(in);
        for (size_t k = 0; k < BLOCK / 8; k++, out += 8) {
            const unsigned high = (unsigned)in[66 + k / 4] >> k % 4 * 2 & 3u;
            const float scale = factor * (0.5f + (float)nibble(in + 74, k / 2)) * 0.25f;
            two_bit_point(rp_iq2_s_grid[in[2 + k] | high << 8], in[34 + k], scale, out);
        }
    }
}

/* A block: F16 factor; the numbers of 64 points; for 32 values each 32 bits: signs, 7 for 8 values, and 4 of scale. */
void rp_decode_iq3_xxs(const unsigned char *in, size_t n, float *out)
{
    for (; n >= BLOCK; n -= BLOCK, in += 98) {
        const float factor = half_at(in);
        for (size_t k = 0; k < BLOCK / 4; k++) {
            const uint32_t bits = rp_load_u32(in + 66 + k / 8 * 4);
            const float scale = factor * (0.5f + (float)(bits >> 28)) * 0.5f;
            const unsigned signs = even_signs(bits >> 7 * (k / 2 % 4) & 0x7fu) >> k % 2 * 4;
            const unsigned point = rp_iq3_xxs_grid[in[2 + k]];
            for (size_t i = 0; i < 4; i++)
                *out++ = with_sign(scale * iq3_xxs_values[point >> 4 * i & 7u], signs, i);
        }
    }
}

/* A block: F16 factor; 64 points: low bytes of their numbers, a high bit each; a bit of sign a value; 8 scales of 4
 * bits. */
void rp_decode_iq3_s(const unsigned char *in, size_t n, float *out)
{
    for (; n >= BLOCK; n -= BLOCK, in += 110) {
        const float factor = half_at(in);
        for (size_t k = 0; k < BLOCK / 4; k++) {
            const unsigned high = (unsigned)in[66 + k / 8] >> k % 8 & 1u;
            const float scale = factor * (float)(1 + 2 * nibble(in + 106, k / 8));
            const unsigned signs = (unsigned)in[74 + k / 2] >> k % 2 * 4;
            const unsigned point = rp_iq3_s_grid[in[2 + k] | high << 8];
            for (size_t i = 0; i < 4; i++)
                *out++ = with_sign(scale * (float)(1 + 2 * (point >> 4 * i & 7u)), signs, i);
        }
    }
}

/* 8 values of -1, 0, 1, all moved by an eighth. */
RP_LOOP void iq1_point(unsigned number, bool is_down, float scale, float *out)
{
    const unsigned point = rp_iq1_grid[number];
    const float offset = is_down ? -OFFSET : OFFSET;
    for (size_t i = 0; i < 8; i++)
        out[i] = scale * ((float)(point >> 2 * i & 3u) - 1.0f + offset);
}

/* A block: F16 factor; low bytes of the numbers of 32 points; for 32 values each 16 bits: three high ones a point,
 * three of scale, whether all are moved down or up. */
void rp_decode_iq1_s(const unsigned char *in, size_t n, float *out)
{
    for (; n >= BLOCK; n -= BLOCK, in += 50) {
        const float factor = half_at(in);
        for (size_t k = 0; k < BLOCK / 8; k++, out += 8) {
            const unsigned bits = rp_load_u16(in + 34 + k / 4 * 2);
            const float scale = factor * (float)(2 * (bits >> 12 & 7u) + 1);
            iq1_point(in[2 + k] | (bits >> 3 * (k % 4) & 7u) << 8, bits >> 15 & 1u, scale, out);
        }
    }
}

/* A block: low bytes of the numbers of 32 points; 4 bits each: three high ones, and whether it is moved down or up;
 * 16 scales of 3 bits in four 16-bit words, whose upper 4 bits make the F16 factor. */
void rp_decode_iq1_m(const unsigned char *in, size_t n, float *out)
{
    for (; n >= BLOCK; n -= BLOCK, in += 56) {
        unsigned words[4], factor_bits = 0;
        for (size_t i = 0; i < 4; i++) {
            words[i] = rp_load_u16(in + 48 + 2 * i);
            factor_bits |= words[i] >> 12 << 4 * i;
        }
        const float factor = rp_float_from_half((uint16_t)factor_bits);
        for (size_t k = 0; k < BLOCK / 8; k++, out += 8) {
            const unsigned bits = nibble(in + 32, k);
            const float scale = factor * (float)(2 * (words[k / 8] >> k / 2 % 4 * 3 & 7u) + 1);
            iq1_point(in[k] | (bits & 7u) << 8, bits >> 3 & 1u, scale, out);
        }
    }
}
