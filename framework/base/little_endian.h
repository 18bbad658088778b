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

static inline double rp_load_f64(const unsigned char *bytes)
{
    uint64_t bits = rp_load_u64(bytes);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

#endif
