/* See formats/rounding.h. The arithmetic is ggml's (quantize_row_q8_0, _q8_K, _q4_0 as a CPU with
 * AVX2 runs them), step by step in FP32, as a last bit decides which way a value goes. */
#include "formats/rounding.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/avx2.h"
#include "formats/half.h"
#include "refparity/gguf.h"

#define BLOCK 32
#define K_BLOCK 256

/* The value of largest magnitude, the first of equals; 0 for a block of zeros. */
static float peak_of(const float *x, size_t n)
{
    float peak = 0;
    for (size_t i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(peak))
            peak = x[i];
    return peak;
}

/* How a block's values become integers, and those values again. */
struct block {
    float scale;   /* exact, before it is stored */
    float stored;  /* what integers are multiplied by */
    float inverse; /* what values are multiplied by */
    float low, high;
};

static struct block block_of(uint32_t format, const float *x, size_t n)
{
    const float peak = peak_of(x, n);
    struct block block = {.low = -127, .high = 127};
    if (format == RP_GGML_Q8_0) {
        block.scale = fabsf(peak) / 127.0f;
        block.inverse = peak != 0 ? 127.0f / fabsf(peak) : 0;
    } else if (format == RP_GGML_Q4_0) {
        block.scale = peak / -8.0f;
        block.inverse = block.scale != 0 ? 1.0f / block.scale : 0;
        block.low = -8;
        block.high = 7;
    } else {
        block.inverse = peak != 0 ? -127.0f / peak : 0;
        block.scale = peak != 0 ? 1.0f / block.inverse : 0;
    }
    block.stored = format == RP_GGML_Q8_K ? block.scale : rp_round_f16(block.scale);
    return block;
}

/* Q4_0 adds 8.5 in FP32 and cuts off; the others go to even. */
static float integer_of(uint32_t format, const struct block *block, float x)
{
    const float exact = x * block->inverse;
    const float integer = format == RP_GGML_Q4_0 ? truncf(exact + 8.5f) - 8.0f : rintf(exact);
    return integer < block->low ? block->low : integer > block->high ? block->high : integer;
}

static size_t block_size(uint32_t format)
{
    switch (format) {
    case RP_GGML_Q8_0:
    case RP_GGML_Q4_0: return BLOCK;
    case RP_GGML_Q8_K: return K_BLOCK;
    default: return 0;
    }
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- Q8_0, whole blocks: what block_of and integer_of give, many values at a time ---- */

#define LANES 8
#define N_LANES (BLOCK / LANES)
#define LARGE 0x1.8p23f /* added and taken away: to an integer, ties to even, below 2^22 */

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t lane_bits __attribute__((vector_size(LANES * sizeof(int32_t))));

/* to = from where mask is set. */
RP_LOOP void replace(lanes *to, const lane_bits *mask, const lanes *from)
{
    *to = (lanes)(((lane_bits)*from & *mask) | ((lane_bits)*to & ~*mask));
}

RP_LOOP void integers_q8_0(const float *x, float *scale, lanes *integers)
{
    const lane_bits no_sign = (lane_bits){0} + 0x7fffffff;
    const lanes most = (lanes){0} + 127.0f, least = -most;
    lanes peaks = {0};
    float peak = 0;
    for (size_t k = 0; k < N_LANES; k++) {
        lanes values; /* a register: integers[k] would be written in halves */
        memcpy(&values, x + LANES * k, sizeof values);
        integers[k] = values;
        const lanes size = (lanes)((lane_bits)values & no_sign);
        const lane_bits is_larger = size > peaks;
        replace(&peaks, &is_larger, &size);
    }
    for (size_t lane = 0; lane < LANES; lane++)
        peak = peaks[lane] > peak ? peaks[lane] : peak;
    const float inverse = peak != 0 ? 127.0f / peak : 0;
    for (size_t k = 0; k < N_LANES; k++) {
        const lanes exact = integers[k] * inverse;
        lanes integer = (exact + LARGE) - LARGE;
        integer = (lanes)((lane_bits)integer | ((lane_bits)exact & ~no_sign)); /* -0, too */
        const lane_bits is_low = integer < least;
        const lane_bits is_high = integer > most;
        replace(&integer, &is_low, &least);
        replace(&integer, &is_high, &most);
        integers[k] = integer;
    }
    *scale = peak / 127.0f;
}

/* excess: NULL, or [n_blocks] as of rp_round_q8_1. */
RP_LOOP void round_blocks_loop(const float *x, size_t n_blocks, float *y, float *excess)
{
    for (size_t b = 0; b < n_blocks; b++, x += BLOCK, y += BLOCK) {
        float scale, sum = 0;
        lanes integers[N_LANES], sums = {0}; /* exact: at most 32 times 127 */
        integers_q8_0(x, &scale, integers);
        const float stored = rp_round_f16(scale);
        for (size_t k = 0; k < N_LANES; k++) {
            const lanes values = integers[k] * stored;
            sums += integers[k];
            memcpy(y + LANES * k, &values, sizeof values);
        }
        if (!excess)
            continue;
        for (size_t lane = 0; lane < LANES; lane++)
            sum += sums[lane];
        excess[b] = (float)((double)rp_round_f16(scale * sum) - (double)sum * (double)stored);
    }
}
RP_COMPILE_TWICE(static, round_blocks, (const float *x, size_t n_blocks, float *y, float *excess),
                 (x, n_blocks, y, excess))

void rp_round_q8_1(const float *x, size_t n, float *y, float *excess)
{
    const size_t whole = n - n % BLOCK;
    round_blocks(x, whole / BLOCK, y, excess);
    rp_round_row(RP_GGML_Q8_0, x + whole, n - whole, y + whole);
}

void rp_round_row(uint32_t format, const float *x, size_t n, float *y)
{
    const size_t size = block_size(format);
    if (format == RP_GGML_F16 || format == RP_GGML_BF16) {
        for (size_t i = 0; i < n; i++)
            y[i] = format == RP_GGML_F16 ? rp_round_f16(x[i]) : rp_round_bf16(x[i]);
    } else if (size == 0) {
        memmove(y, x, n * sizeof *y);
    }
    const size_t whole = format == RP_GGML_Q8_0 ? n - n % BLOCK : 0;
    round_blocks(x, whole / BLOCK, y, NULL);
    for (size_t first = whole; size > 0 && first < n; first += size) {
        const size_t end = first + smaller(size, n - first);
        const struct block block = block_of(format, x + first, end - first);
        for (size_t i = first; i < end; i++)
            y[i] = integer_of(format, &block, x[i]) * block.stored;
    }
}

/* ---- tips ---- */

static double step_of_half(uint32_t format, float x)
{
    return format == RP_GGML_F16 ? rp_step_f16(x) : rp_step_bf16(x);
}

static double tip_of(double moved_by, double step)
{
    return step > 0 ? fmin(fabs(moved_by) / step, 1) : 0;
}

double rp_rounding_tips(uint32_t format, const float *x, const float *moved, size_t n)
{
    const size_t size = block_size(format);
    double tips = 0;
    if (format == RP_GGML_F16 || format == RP_GGML_BF16) {
        for (size_t i = 0; i < n; i++)
            tips += tip_of((double)moved[i] - (double)x[i], step_of_half(format, x[i]));
    }
    for (size_t first = 0; size > 0 && first < n; first += size) {
        const size_t end = first + smaller(size, n - first);
        const struct block block = block_of(format, x + first, end - first);
        const struct block other = block_of(format, moved + first, end - first);
        for (size_t i = first; i < end; i++)
            tips += tip_of((double)moved[i] - (double)x[i], fabs((double)block.scale));
        if (format != RP_GGML_Q8_K)
            tips += tip_of((double)other.scale - (double)block.scale,
                           step_of_half(RP_GGML_F16, block.scale));
    }
    return tips;
}

void rp_rounding_tip_largest(uint32_t format, const float *x, size_t n, const float *gain, float *y)
{
    const size_t size = block_size(format);
    const bool is_half = format == RP_GGML_F16 || format == RP_GGML_BF16;
    double largest = 0, step = 0, step_of_largest = 0;
    size_t index = n;
    for (size_t i = 0; i < n && (is_half || size > 0); i++) {
        if (is_half)
            step = step_of_half(format, x[i]);
        else if (i % size == 0)
            step = fabs((double)block_of(format, x + i, smaller(size, n - i)).stored);
        const double worth = step * (gain ? (double)gain[i] : 1.0);
        if (worth > largest) {
            largest = worth;
            step_of_largest = step;
            index = i;
        }
    }
    if (index < n)
        y[index] += (float)(y[index] > 0 ? -step_of_largest : step_of_largest);
}

void rp_rounding_follow(uint32_t format, const float *x, const float *moved, size_t n, float *y)
{
    memmove(y, x, n * sizeof *y);
    for (size_t first = 0; format == RP_GGML_Q8_K && first < n; first += K_BLOCK) {
        const size_t end = first + smaller(K_BLOCK, n - first);
        const float peak = peak_of(x + first, end - first),
                    other = peak_of(moved + first, end - first);
        /* A block whose peak is another value now has tipped, which is counted. */
        const float ratio = peak != 0 ? other / peak : 1;
        for (size_t i = first; i < end && fabsf(ratio - 1) < 1e-3f; i++)
            y[i] *= ratio;
    }
}
