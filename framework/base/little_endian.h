/* Numbers of files: little-endian bytes, wherever they lie. */
#ifndef REFPARITY_BASE_LITTLE_ENDIAN_H
#define REFPARITY_BASE_LITTLE_ENDIAN_H

#include <stdint.h>
#include <string.h>

static inline uint16_t rp_load_u16(const unsigned char *bytes)
{
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

static inline uint32_t rp_load_u32(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

static inline uint64_t rp_load_u64(const unsigned char *bytes)
{
    return (uint64_t)rp_load_u32(bytes) | (uint64_t)rp_load_u32(bytes + 4) << 32;
}

static inline float rp_float_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Exact, subnormals included: the exponent is rebased by a multiplication, and for subnormals the
 * mantissa is placed behind 0.5, which is then subtracted. From Marat Dukhan's FP16 library. */
static inline float rp_float_from_half(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t shifted = (uint32_t)half << 17; /* the sign is shifted out */
    float normal = rp_float_from_bits((shifted >> 4) + (0xe0u << 23)) * 0x1p-112f;
    float subnormal = rp_float_from_bits((shifted >> 17) | (126u << 23)) - 0.5f;
    uint32_t bits;
    float magnitude = shifted < (1u << 27) ? subnormal : normal;
    memcpy(&bits, &magnitude, sizeof bits);
    return rp_float_from_bits(sign | bits);
}

static inline double rp_load_f64(const unsigned char *bytes)
{
    uint64_t bits = rp_load_u64(bytes);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

#endif
