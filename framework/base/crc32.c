/* See base/crc32.h. Folding with carry-less multiplication: Gopal, Ozturk, Guilford et al., "Fast CRC
 * Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel, 2009. Its section on
 * bit-reflected data gives the constants below for this polynomial. */
#include "base/crc32.h"

#include <zlib.h>

#if defined(__x86_64__)
#include <immintrin.h>

enum { BLOCK = 16, STRIDE = 4 * BLOCK };

#define HAS_CLMUL __attribute__((target("pclmul,sse4.1")))
#define ALWAYS_INLINE inline __attribute__((always_inline))

HAS_CLMUL static ALWAYS_INLINE __m128i load(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

/* The remainder so far, moved on by a distance that the constants stand for, plus what is there:
 * both halves of x times their constant, added (xor) to next. */
HAS_CLMUL static ALWAYS_INLINE __m128i fold(__m128i x, __m128i constants, __m128i next)
{
    const __m128i low = _mm_clmulepi64_si128(x, constants, 0x00);
    const __m128i high = _mm_clmulepi64_si128(x, constants, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

/* 128 bits to the 32 bits of the remainder: folded to 96 bits, to 64, then Barrett's reduction. */
HAS_CLMUL static uint32_t reduce(__m128i x, __m128i k3_k4)
{
    const __m128i k5 = _mm_set_epi64x(0, 0x163cd6124);             /* x^64 */
    const __m128i p_mu = _mm_set_epi64x(0x1f7011641, 0x1db710641); /* x^64 / P, and P */
    const __m128i low_32 = _mm_set_epi32(0, -1, 0, -1);
    x = _mm_xor_si128(_mm_srli_si128(x, 8), _mm_clmulepi64_si128(x, k3_k4, 0x10));
    x = _mm_xor_si128(_mm_srli_si128(x, 4),
                      _mm_clmulepi64_si128(_mm_and_si128(x, low_32), k5, 0x00));
    __m128i t = _mm_clmulepi64_si128(_mm_and_si128(x, low_32), p_mu, 0x10);
    t = _mm_clmulepi64_si128(_mm_and_si128(t, low_32), p_mu, 0x00);
    return (uint32_t)_mm_extract_epi32(_mm_xor_si128(x, t), 1);
}

/* Continues crc over bytes[n]; n is a multiple of BLOCK and at least STRIDE. Four remainders, each
 * of every fourth block, so that their multiplications overlap; then one. */
HAS_CLMUL static uint32_t fold_blocks(uint32_t crc, const uint8_t *bytes, size_t n)
{
    const __m128i k1_k2 = _mm_set_epi64x(0x1c6e41596, 0x154442bd4); /* by STRIDE */
    const __m128i k3_k4 = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0); /* by BLOCK */
    __m128i a = _mm_xor_si128(load(bytes), _mm_cvtsi32_si128((int)~crc));
    __m128i b = load(bytes + BLOCK), c = load(bytes + 2 * BLOCK), d = load(bytes + 3 * BLOCK);
    for (bytes += STRIDE, n -= STRIDE; n >= STRIDE; bytes += STRIDE, n -= STRIDE) {
        a = fold(a, k1_k2, load(bytes));
        b = fold(b, k1_k2, load(bytes + BLOCK));
        c = fold(c, k1_k2, load(bytes + 2 * BLOCK));
        d = fold(d, k1_k2, load(bytes + 3 * BLOCK));
    }
    a = fold(fold(fold(a, k3_k4, b), k3_k4, c), k3_k4, d);
    for (; n >= BLOCK; bytes += BLOCK, n -= BLOCK)
        a = fold(a, k3_k4, load(bytes));
    return ~reduce(a, k3_k4);
}
#endif

uint32_t rp_crc32(const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    uint32_t crc = (uint32_t)crc32_z(0, NULL, 0);
#if defined(__x86_64__)
    if (n >= STRIDE && __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1")) {
        const size_t whole = n - n % BLOCK;
        crc = fold_blocks(crc, p, whole);
        p += whole;
        n -= whole;
    }
#endif
    return n ? (uint32_t)crc32_z(crc, p, n) : crc;
}
