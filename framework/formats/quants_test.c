/* The block formats against gguf.quants.dequantize, to the bit. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32.h"
#include "base/little_endian.h"
#include "formats/quants.h"
#include "formats/quants_grids.h"

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
    {"IQ1_S", rp_decode_iq1_s, 256, 50, {0, 0}, 0x88201cceu},
    /* its F16 factor lies in four parts, of which byte 55 has the highest bits */
    {"IQ1_M", rp_decode_iq1_m, 256, 56, {54, 54}, 0x86c97a69u},
    {"IQ2_XXS", rp_decode_iq2_xxs, 256, 66, {0, 0}, 0xe0cd93bdu},
    {"IQ2_XS", rp_decode_iq2_xs, 256, 74, {0, 0}, 0xf16b7954u},
    {"IQ2_S", rp_decode_iq2_s, 256, 82, {0, 0}, 0xa8178d1au},
    {"IQ3_XXS", rp_decode_iq3_xxs, 256, 98, {0, 0}, 0xccef6c8eu},
    {"IQ3_S", rp_decode_iq3_s, 256, 110, {0, 0}, 0x09c9d41du},
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

/* Every point, the ones which the blocks above do not have, too. In Python:
 *
 *   q = getattr(gguf.quants, name)
 *   q.init_grid()
 *   zlib.crc32(numpy.searchsorted(q.grid_map, q.grid).astype("u1").tobytes())
 */
static void the_points_of_the_grids_are_those_of_gguf_py(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const uint16_t *points;
        size_t n_points, n_values; /* a point */
        uint32_t crc32;
    } grids[] = {
        {"IQ2_XXS", rp_iq2_xxs_grid, 256, 8, 0x07ae111au},
        {"IQ2_XS", rp_iq2_xs_grid, 512, 8, 0x2a53f348u},
        {"IQ2_S", rp_iq2_s_grid, 1024, 8, 0xfeaeecabu},
        {"IQ3_XXS", rp_iq3_xxs_grid, 256, 4, 0x63538d0cu},
        {"IQ3_S", rp_iq3_s_grid, 512, 4, 0x705e0a2eu},
        {"IQ1_S", rp_iq1_grid, 2048, 8, 0xdfdd9b5fu},
    };
    static unsigned char numbers[2048 * 8];
    for (size_t g = 0; g < sizeof grids / sizeof *grids; g++) {
        const size_t n_values = grids[g].n_values, bits = 16 / n_values, n = grids[g].n_points;
        for (size_t i = 0; i < n * n_values; i++)
            numbers[i] = (unsigned char)(grids[g].points[i / n_values] >> bits * (i % n_values) &
                                         ((1 << bits) - 1));
        const uint32_t crc = rp_crc32(numbers, n * n_values);
        if (crc != grids[g].crc32)
            fail_msg("%s: CRC %08x, gguf-py's is %08x", grids[g].name, (unsigned)crc,
                     (unsigned)grids[g].crc32);
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

/* Every number of a point and every scale at its largest, in a row of its own on the heap, so that ASan sees the
 * end of both. */
static void the_largest_numbers_stay_inside(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        for (unsigned n_blocks = 1; n_blocks <= 2; n_blocks++) {
            const size_t n_bytes = n_blocks * formats[i].block_bytes;
            const size_t n_values = n_blocks * formats[i].block_values;
            unsigned char *bytes = malloc(n_bytes);
            float *values = malloc(n_values * sizeof *values);
            assert_non_null(bytes);
            assert_non_null(values);
            memset(bytes, 0xff, n_bytes);
            for (size_t k = 0; k < n_values; k++)
                values[k] = 12345;
            formats[i].decode(bytes, n_values, values);
            for (size_t k = 0; k < n_values; k++)
                assert_true(values[k] != 12345); /* NaN where the factor is an F16 */
            free(bytes);
            free(values);
        }
    }
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
        cmocka_unit_test(the_points_of_the_grids_are_those_of_gguf_py),
        cmocka_unit_test(one_changed_bit_of_any_byte_changes_the_values),
        cmocka_unit_test(the_largest_numbers_stay_inside),
        cmocka_unit_test(minima_are_what_zeros_are_decoded_to),
        cmocka_unit_test(halves_are_exact_from_the_smallest_to_infinity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
