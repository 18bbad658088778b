/* The block formats against gguf.quants.dequantize, to the bit. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <string.h>

#include "base/crc32.h"
#include "formats/quants.h"

#define BLOCKS 64
#define MAX_BYTES ((size_t)BLOCKS * 210)
#define MAX_VALUES ((size_t)BLOCKS * 256)

struct format {
    const char *name;
    rp_decode_fn *decode;
    size_t block_values, block_bytes;
    size_t halves[2]; /* where the F16 factors are; the same twice: there is one */
    uint32_t crc32;   /* of the values, from the script below */
};

/* Bytes 64 blocks long, b[i] = (i * 2654435761 mod 2^32) >> 24, but F16 factors are finite: their
 * second byte is kept below 0x3c (1.0). The same in Python:
 *
 *   from gguf.constants import GGMLQuantizationType as T, GGML_QUANT_SIZES
 *   values, size = GGML_QUANT_SIZES[T[name]]
 *   b = (numpy.arange(64 * size, dtype=numpy.uint64) * 2654435761 % 2**32 >> 24).astype(numpy.uint8)
 *   b = b.reshape(64, size)
 *   for at in halves: b[:, at + 1] %= 0x3c
 *   zlib.crc32(gguf.quants.dequantize(b, T[name]).astype("<f4").tobytes())
 */
static const struct format formats[] = {
    {"Q4_0", rp_decode_q4_0, 32, 18, {0, 0}, 0xb83fe420u},
    {"Q4_1", rp_decode_q4_1, 32, 20, {0, 2}, 0x9eb42696u},
    {"Q5_0", rp_decode_q5_0, 32, 22, {0, 0}, 0x548932f5u},
    {"Q5_1", rp_decode_q5_1, 32, 24, {0, 2}, 0xf15137f9u},
    {"Q8_0", rp_decode_q8_0, 32, 34, {0, 0}, 0x805d414au},
    {"IQ4_NL", rp_decode_iq4_nl, 32, 18, {0, 0}, 0xccadb523u},
    {"Q2_K", rp_decode_q2_k, 256, 84, {80, 82}, 0xb1070effu},
    {"Q3_K", rp_decode_q3_k, 256, 110, {108, 108}, 0xfbb1b29du},
    {"Q4_K", rp_decode_q4_k, 256, 144, {0, 2}, 0xd282b522u},
    {"Q5_K", rp_decode_q5_k, 256, 176, {0, 2}, 0xb0998654u},
    {"Q6_K", rp_decode_q6_k, 256, 210, {208, 208}, 0x0641769bu},
    {"IQ4_XS", rp_decode_iq4_xs, 256, 136, {0, 0}, 0x143b9cf8u},
    {"TQ1_0", rp_decode_tq1_0, 256, 54, {52, 52}, 0xd736382du},
    {"TQ2_0", rp_decode_tq2_0, 256, 66, {64, 64}, 0xafb14e5fu},
    /* no F16 in these: byte 1 is as good as another */
    {"MXFP4", rp_decode_mxfp4, 32, 17, {0, 0}, 0x37721398u},
    {"NVFP4", rp_decode_nvfp4, 64, 36, {0, 0}, 0xa9e799e8u},
};

static void make_blocks(const struct format *format, unsigned char *bytes)
{
    for (size_t i = 0; i < BLOCKS * format->block_bytes; i++)
        bytes[i] = (unsigned char)((uint32_t)i * 2654435761u >> 24);
    for (size_t block = 0; block < BLOCKS; block++) {
        unsigned char *first = bytes + block * format->block_bytes;
        first[format->halves[0] + 1] %= 0x3c;
        if (format->halves[1] != format->halves[0])
            first[format->halves[1] + 1] %= 0x3c;
    }
}

/* CRC of the values, little-endian. */
static uint32_t crc_of(const float *values, size_t n)
{
    static unsigned char bytes[4 * MAX_VALUES];
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        for (size_t k = 0; k < 4; k++)
            bytes[4 * i + k] = (unsigned char)(bits >> 8 * k);
    }
    return rp_crc32(bytes, 4 * n);
}

static uint32_t crc_of_decoded(const struct format *format, size_t changed_byte)
{
    static unsigned char bytes[MAX_BYTES];
    static float values[MAX_VALUES];
    make_blocks(format, bytes);
    if (changed_byte < BLOCKS * format->block_bytes)
        bytes[changed_byte] ^= 0x10; /* TQ1_0: a low bit is rounded away */
    format->decode(bytes, BLOCKS * format->block_values, values);
    return crc_of(values, BLOCKS * format->block_values);
}

static void every_format_is_decoded_as_gguf_py_does_to_the_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        uint32_t crc = crc_of_decoded(&formats[i], SIZE_MAX);
        if (crc != formats[i].crc32)
            fail_msg("%s: CRC %08x, gguf-py's is %08x", formats[i].name, (unsigned)crc,
                     (unsigned)formats[i].crc32);
    }
}

/* The twin: each byte of a block matters, so none is skipped or read from elsewhere. */
static void one_changed_bit_of_any_byte_changes_the_values(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        for (size_t byte = 0; byte < formats[i].block_bytes; byte++)
            if (crc_of_decoded(&formats[i], 5 * formats[i].block_bytes + byte) == formats[i].crc32)
                fail_msg("%s: byte %zu of a block is not used", formats[i].name, byte);
}

/* A value of the integer 0 is decoded to its block's minimum. */
static void minima_are_what_zeros_are_decoded_to(void **state)
{
    (void)state;
    static unsigned char bytes[MAX_BYTES];
    static float values[MAX_VALUES], minima[BLOCKS];
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        const struct format *format = &formats[i];
        if (strcmp(format->name, "Q4_1") != 0 && strcmp(format->name, "Q5_1") != 0)
            continue;
        make_blocks(format, bytes);
        rp_block_minima(bytes, BLOCKS * format->block_values, format->block_bytes, minima);
        for (size_t block = 0; block < BLOCKS; block++)
            memset(bytes + block * format->block_bytes + 4, 0, format->block_bytes - 4);
        format->decode(bytes, BLOCKS * format->block_values, values);
        for (size_t k = 0; k < BLOCKS * format->block_values; k++)
            assert_true(values[k] == minima[k / format->block_values]);
    }
}

static void halves_are_exact_from_the_smallest_to_infinity(void **state)
{
    (void)state;
    assert_true(rp_float_from_half(0x0001) == 0x1p-24f);
    assert_true(rp_float_from_half(0x03ff) == 0x1p-14f - 0x1p-24f);
    assert_true(rp_float_from_half(0x0400) == 0x1p-14f);
    assert_true(rp_float_from_half(0xbc00) == -1.0f);
    assert_true(rp_float_from_half(0x7bff) == 65504.0f);
    float infinite = rp_float_from_half(0xfc00), nan = rp_float_from_half(0x7e00);
    assert_true(infinite < -3.4e38f);
    assert_false(nan == nan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_is_decoded_as_gguf_py_does_to_the_bit),
        cmocka_unit_test(one_changed_bit_of_any_byte_changes_the_values),
        cmocka_unit_test(minima_are_what_zeros_are_decoded_to),
        cmocka_unit_test(halves_are_exact_from_the_smallest_to_infinity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
