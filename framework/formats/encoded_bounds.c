/* See formats/encoded_bounds.h. Layouts of the blocks as in quants.c and quants_k.c; how ggml's quantizers
 * make them: quantize_row_*_ref and quantize_row_*_impl of ggml-quants.c. */
#include "formats/encoded_bounds.h"

#include <math.h>

#include "base/little_endian.h"
#include "formats/quants.h"
#include "refparity/gguf.h"

#define BLOCK 32
#define SUPER_BLOCK 256
#define HALF_UNIT 0x1p-11f  /* F16: half a unit in the last place, of 1 */
#define HALF_LEAST 0x1p-25f /* half of the smallest F16 */
#define FITTED 2.8284272f   /* half of sqrt(32): see reach */
/* A scale of a group is rounded to a multiple of its factor, which F16 rounds in its turn, by 63 * 2^-11 of
 * it at most (Q6_K: 128 * 2^-11). */
#define GROUP_SCALE 0.5625f

/* Blocks of values; groups that share a scale, and the steps over a group's range. */
static const struct layout {
    uint32_t type;
    size_t block, n_bytes, group;
    float n_steps;
    bool is_symmetric;
} layouts[] = {
    {RP_GGML_Q8_0, 32, 34, 32, 254, true},
    {RP_GGML_Q4_0, 32, 18, 32, 15, true},
    {RP_GGML_Q5_0, 32, 22, 32, 31, true},
    {RP_GGML_Q4_1, 32, 20, 32, 15, false},
    {RP_GGML_Q5_1, 32, 24, 32, 31, false},
    {RP_GGML_IQ4_NL, 32, 18, 32, 8, true},
    {RP_GGML_Q2_K, 256, 84, 16, 3, false},
    {RP_GGML_Q3_K, 256, 110, 16, 7, true},
    {RP_GGML_Q4_K, 256, 144, 32, 15, false},
    {RP_GGML_Q5_K, 256, 176, 32, 31, false},
    {RP_GGML_Q6_K, 256, 210, 16, 63, true},
    {RP_GGML_IQ4_XS, 256, 136, 32, 8, true},
    {RP_GGML_TQ1_0, 256, 54, 256, 2, true},
    {RP_GGML_TQ2_0, 256, 66, 256, 2, true},
    /* the widest gap is a third of the largest value at most; where that is cut off, half of it is lost, or
     * a sixteenth, and what the scale's own rounding costs */
    {RP_GGML_MXFP4, 32, 17, 32, 4, true},
    {RP_GGML_NVFP4, 64, 36, 16, 5, true},
};

static const struct layout *layout_of(uint32_t type)
{
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        if (layouts[i].type == type)
            return &layouts[i];
    return NULL;
}

static float half_at(const unsigned char *in)
{
    return fabsf(rp_float_from_half(rp_load_u16(in)));
}

/* What an F16 of that size was rounded by. */
static float half_error(float value)
{
    return value * HALF_UNIT + HALF_LEAST;
}

static void exact(size_t n, float *bound, float *reach)
{
    for (size_t i = 0; i < n; i++)
        bound[i] = reach[i] = 0;
}

/* Q8_0: quants of the unrounded scale, the nearest ones, whose largest is 127. */
static void q8_0(const unsigned char *in, float *bound, float *reach)
{
    const float step = half_at(in), scale_error = half_error(step);
    for (size_t i = 0; i < BLOCK; i++) {
        const float quant = fabsf((float)(signed char)in[2 + i]);
        bound[i] = reach[i] = 0.5001f * step + quant * scale_error;
    }
}

/* The number that a value of 4 or 5 bits has in its block. high: fifth bits; NULL: it has four. */
static unsigned number_at(const unsigned char *low, const unsigned char *high, size_t i)
{
    const unsigned nibble = i < BLOCK / 2 ? low[i] & 0x0fu : low[i - BLOCK / 2] >> 4;
    return high ? nibble | (rp_load_u32(high) >> i & 1u) << 4 : nibble;
}

/* Q4_0, Q5_0: scale = the largest value / -largest, so that of the other sign one is cut off by up to a
 * step. largest: 8 or 16. */
static void symmetric(const unsigned char *in, unsigned largest, float *bound, float *reach)
{
    const float step = half_at(in), scale_error = half_error(step);
    const unsigned char *high = largest == 16 ? in + 2 : NULL, *low = high ? in + 6 : in + 2;
    for (size_t i = 0; i < BLOCK; i++) {
        const unsigned number = number_at(low, high, i);
        const float quant = fabsf((float)number - (float)largest);
        const float rounding = number == 2 * largest - 1 ? 1.0f : 0.5001f;
        bound[i] = rounding * step + quant * scale_error;
        reach[i] = bound[i] + FITTED * step;
    }
}

/* Q4_1, Q5_1: from the least to the largest value of the block. */
static void with_minimum(const unsigned char *in, bool has_five_bits, float *bound, float *reach)
{
    const float step = half_at(in), scale_error = half_error(step);
    const float minimum_error = half_error(half_at(in + 2));
    const unsigned char *high = has_five_bits ? in + 4 : NULL, *low = high ? in + 8 : in + 4;
    for (size_t i = 0; i < BLOCK; i++) {
        const float quant = (float)number_at(low, high, i);
        bound[i] = 0.5001f * step + quant * scale_error + minimum_error;
        reach[i] = bound[i] + FITTED * step;
    }
}

/* How far the further neighbour of an IQ4 value is. */
static float iq4_gap(unsigned number)
{
    const float *values = rp_iq4_values;
    const float below = number > 0 ? values[number] - values[number - 1] : 23.0f;
    const float above = number < 15 ? values[number + 1] - values[number] : 24.0f;
    return below > above ? below : above;
}

/* IQ4_NL: half way to the further neighbour; at both ends all of it. */
static void iq4_nl(const unsigned char *in, float *bound, float *reach)
{
    const float scale = half_at(in), scale_error = half_error(scale);
    for (size_t i = 0; i < BLOCK; i++) {
        const unsigned number = number_at(in + 2, NULL, i);
        const float gap = iq4_gap(number), value = fabsf(rp_iq4_values[number]);
        const bool is_end = number == 0 || number == 15;
        bound[i] = (is_end ? gap : 0.5001f * gap) * scale + value * scale_error;
        reach[i] = bound[i] + FITTED * gap * scale;
    }
}

/* One value of a K-quant: the nearest one to the group's stored scale and minimum; at the end of the range,
 * and where the group's scale is 0, the rounding of scale and minimum shows, too. */
struct group {
    float step, factor, min_factor; /* the group's step, what scales and minima are multiples of */
    float largest;                  /* the last number's distance from 0 */
};

static void k_value(const struct group *group, bool is_end, float *bound, float *reach)
{
    *bound = *reach = 0.5001f * group->step;
    if (!is_end && group->step > 0)
        return;
    *bound = group->step + GROUP_SCALE * (group->largest * group->factor + group->min_factor);
    *reach = *bound + FITTED * group->step;
}

static void q2_k(const unsigned char *in, float *bound, float *reach)
{
    struct group group = {.factor = half_at(in + 80), .min_factor = half_at(in + 82), .largest = 3};
    for (size_t i = 0; i < SUPER_BLOCK; i++) {
        const unsigned number = (unsigned)in[16 + i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3u;
        group.step = group.factor * (float)(in[i / 16] & 0x0f);
        k_value(&group, number == 0 || number == 3, &bound[i], &reach[i]);
    }
}

static void q3_k(const unsigned char *in, float *bound, float *reach)
{
    struct group group = {.factor = half_at(in + 108), .largest = 4};
    for (size_t i = 0; i < SUPER_BLOCK; i++) {
        const size_t at = i / 16;
        const unsigned char *scales = in + 96;
        const int low = at < 8 ? scales[at] & 0x0f : scales[at - 8] >> 4;
        const int scale = (low | (scales[8 + at % 4] >> at / 4 * 2 & 3) << 4) - 32;
        const unsigned two = (unsigned)in[32 + i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3u;
        const bool is_high = in[i % 32] >> i / 32 & 1;
        group.step = group.factor * fabsf((float)scale);
        k_value(&group, (two == 0 && !is_high) || (two == 3 && is_high), &bound[i], &reach[i]);
    }
}

/* Q4_K; Q5_K has 32 bytes of fifth bits before the others. */
static void q4_k(const unsigned char *in, bool has_five_bits, float *bound, float *reach)
{
    const unsigned last = has_five_bits ? 31 : 15;
    const unsigned char *high = in + 16, *low = has_five_bits ? in + 48 : in + 16;
    struct group group = {
        .factor = half_at(in), .min_factor = half_at(in + 2), .largest = (float)last};
    for (size_t i = 0; i < SUPER_BLOCK; i++) {
        const size_t at = i / 32;
        const unsigned char *scales = in + 4;
        const unsigned scale = at < 4
                                   ? scales[at] & 0x3fu
                                   : (scales[4 + at] & 0x0fu) | (unsigned)scales[at - 4] >> 6 << 4;
        unsigned number = (unsigned)low[i / 64 * 32 + i % 32] >> i % 64 / 32 * 4 & 0x0fu;
        if (has_five_bits)
            number |= ((unsigned)high[i % 32] >> at & 1u) << 4;
        group.step = group.factor * (float)scale;
        k_value(&group, number == 0 || number == last, &bound[i], &reach[i]);
    }
}

static void q6_k(const unsigned char *in, float *bound, float *reach)
{
    struct group group = {.factor = half_at(in + 208), .largest = 32};
    for (size_t i = 0; i < SUPER_BLOCK; i++) {
        const unsigned low = (unsigned)in[i / 128 * 64 + i % 64] >> i % 128 / 64 * 4 & 0x0fu;
        const unsigned high = (unsigned)in[128 + i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3u;
        const unsigned number = low | high << 4;
        group.step = group.factor * fabsf((float)(signed char)in[192 + i / 16]);
        k_value(&group, number == 0 || number == 63, &bound[i], &reach[i]);
    }
}

/* IQ4_XS: the nearest value by a scale of 6 bits, whose factor F16 has yet to round. */
static void iq4_xs(const unsigned char *in, float *bound, float *reach)
{
    const unsigned high = rp_load_u16(in + 2);
    struct group group = {.factor = half_at(in)};
    for (size_t i = 0; i < SUPER_BLOCK; i++) {
        const size_t at = i / 32;
        const unsigned low = (unsigned)in[4 + at / 2] >> at % 2 * 4 & 0x0fu;
        const int scale = (int)(low | (high >> 2 * at & 3u) << 4) - 32;
        const unsigned number = number_at(in + 8 + at * 16, NULL, i % 32);
        /* what was read lies up to a gap from the value: so much of it the factor's rounding moves */
        const float read = (fabsf(rp_iq4_values[number]) + iq4_gap(number)) * fabsf((float)scale);
        group.largest = scale == 31 ? 254 : 127; /* 32, which there is not, is cut off */
        group.step = iq4_gap(number) * group.factor * fabsf((float)scale);
        k_value(&group, number == 0 || number == 15, &bound[i], &reach[i]);
        bound[i] += read * half_error(group.factor);
        reach[i] += read * half_error(group.factor);
    }
}

/* TQ1_0, TQ2_0: the scale is the largest value, all are rounded to it or to 0. */
static void ternary(rp_decode_fn *decode, float scale, const unsigned char *in, float *bound,
                    float *reach)
{
    float values[SUPER_BLOCK];
    decode(in, SUPER_BLOCK, values);
    for (size_t i = 0; i < SUPER_BLOCK; i++)
        bound[i] = reach[i] = 0.5001f * scale + (values[i] == 0 ? 0 : half_error(scale));
}

/* Half of what the further neighbour of an E2M1 value is away, of values that are doubled. */
static const float e2m1_half_gaps[8] = {0.5f, 0.5f, 0.5f, 0.5f, 1, 1, 2, 2};
#define E2M1_LAST 7

/* MXFP4: the scale is the power of 2 by which the largest value is 4 or more and less than 8. What is above 6
 * is cut off to it, by 2; doubled as these are, by 4. */
static void mxfp4(const unsigned char *in, float *bound, float *reach)
{
    const float scale = rp_mxfp4_scale(in[0]);
    for (size_t i = 0; i < BLOCK; i++) {
        const unsigned number = number_at(in + 1, NULL, i) & 7u;
        bound[i] = reach[i] =
            (number == E2M1_LAST ? 4 : 0.5001f * 2 * e2m1_half_gaps[number]) * scale;
    }
}

/* Half a unit in the last place of a scale of NVFP4. Below the smallest normal one they are 2^-9 apart, and what
 * is rounded to 8 of these is kept as 7. */
static float e4m3_error(unsigned char byte)
{
    const int exponent = byte >> 3 & 0x0f;
    return byte == 7 ? 0x1p-9f : exponent == 0 ? 0x1p-10f : ldexpf(1, exponent - 11);
}

/* NVFP4: the scale is a sixth of the largest value, itself rounded: by that the largest is cut off. Of 448, the
 * largest scale, no more is known. */
static void nvfp4(const unsigned char *in, float *bound, float *reach)
{
    for (size_t i = 0; i < 64; i++) {
        const size_t group = i / 16;
        const unsigned number = (unsigned)in[4 + group * 8 + i % 8] >> i % 16 / 8 * 4 & 7u;
        const float scale = rp_nvfp4_scale(in[group]);
        const float cut_off = 6.001f * e4m3_error(in[group]);
        bound[i] = 0.5001f * 2 * e2m1_half_gaps[number] * scale;
        if ((number == E2M1_LAST || scale == 0) && bound[i] < cut_off)
            bound[i] = cut_off;
        reach[i] = bound[i];
    }
}

/* False: not a type of blocks. */
static bool block_bounds(uint32_t type, const unsigned char *in, float *bound, float *reach)
{
    switch (type) {
    case RP_GGML_Q8_0: q8_0(in, bound, reach); return true;
    case RP_GGML_Q4_0: symmetric(in, 8, bound, reach); return true;
    case RP_GGML_Q5_0: symmetric(in, 16, bound, reach); return true;
    case RP_GGML_Q4_1: with_minimum(in, false, bound, reach); return true;
    case RP_GGML_Q5_1: with_minimum(in, true, bound, reach); return true;
    case RP_GGML_IQ4_NL: iq4_nl(in, bound, reach); return true;
    case RP_GGML_Q2_K: q2_k(in, bound, reach); return true;
    case RP_GGML_Q3_K: q3_k(in, bound, reach); return true;
    case RP_GGML_Q4_K: q4_k(in, false, bound, reach); return true;
    case RP_GGML_Q5_K: q4_k(in, true, bound, reach); return true;
    case RP_GGML_Q6_K: q6_k(in, bound, reach); return true;
    case RP_GGML_IQ4_XS: iq4_xs(in, bound, reach); return true;
    case RP_GGML_TQ1_0: ternary(rp_decode_tq1_0, half_at(in + 52), in, bound, reach); return true;
    case RP_GGML_TQ2_0: ternary(rp_decode_tq2_0, half_at(in + 64), in, bound, reach); return true;
    case RP_GGML_MXFP4: mxfp4(in, bound, reach); return true;
    case RP_GGML_NVFP4: nvfp4(in, bound, reach); return true;
    default: return false;
    }
}

bool rp_encoded_bounds(uint32_t type, const unsigned char *row, size_t n, float *bound,
                       float *reach)
{
    if (type == RP_GGML_F32 || type == RP_GGML_F16 || type == RP_GGML_BF16) {
        exact(n, bound, reach);
        return true;
    }
    const struct layout *layout = layout_of(type);
    for (size_t i = 0; layout && i + layout->block <= n; i += layout->block, row += layout->n_bytes)
        if (!block_bounds(type, row, bound + i, reach + i))
            return false;
    return layout != NULL;
}

const char *rp_why_no_encoded_bounds(uint32_t type)
{
    switch (type) {
    case RP_GGML_IQ1_S:
    case RP_GGML_IQ1_M:
    case RP_GGML_IQ2_XXS:
    case RP_GGML_IQ2_XS:
    case RP_GGML_IQ2_S: return "rounds 8 values at once";
    case RP_GGML_IQ3_XXS:
    case RP_GGML_IQ3_S: return "rounds 4 values at once";
    default: return "has no decoder here";
    }
}

/* Whether scales of groups are multiples of a block's factor. */
static bool has_factor(const struct layout *layout)
{
    return layout->block == SUPER_BLOCK && layout->group < SUPER_BLOCK;
}

/* Half of the smallest scale; MXFP4's is smaller than any value. */
static float half_least(const struct layout *layout)
{
    return layout->type == RP_GGML_NVFP4 ? 0x1p-10f : HALF_LEAST;
}

/* From the least to the largest of x [n], 0 among them; both ways where symmetric. */
static float range_of(const float *x, size_t n, bool is_symmetric)
{
    float low = 0, high = 0;
    for (size_t i = 0; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    return is_symmetric ? 2 * (high > -low ? high : -low) : high - low;
}

void rp_widest_steps(uint32_t type, const float *x, size_t n, float *step)
{
    for (size_t i = 0; i < n; i++)
        step[i] = INFINITY;
    const struct layout *layout = layout_of(type);
    if (!layout)
        return;
    const size_t block = layout->block, group = layout->group;
    const bool is_symmetric = layout->is_symmetric;
    for (size_t i = 0; i + group <= n; i += group) {
        const size_t first = i / block * block;
        float widest = range_of(x + i, group, is_symmetric) / layout->n_steps;
        /* scales and minima of K-quants are multiples of fractions of the block's: see GROUP_SCALE */
        if (has_factor(layout))
            widest += 0.6f * range_of(x + first, block, is_symmetric) / layout->n_steps;
        for (size_t k = 0; k < group; k++)
            step[i + k] = widest + half_least(layout) * layout->n_steps;
    }
}

/* A group of 16 or 32 has a range of at most twice its block's largest value; the largest of 256 values squared
 * is at most the sum of its 8 blocks' squared, so that its envelope is at most sqrt(8) times theirs. */
double rp_widest_steps_norm(uint32_t type, double envelope, size_t n)
{
    const struct layout *layout = layout_of(type);
    if (!layout)
        return (double)INFINITY;
    const double n_steps = (double)layout->n_steps;
    const double blocks = has_factor(layout) ? 0.6 * sqrt(8) : 0;
    const size_t n_groups = layout->group / BLOCK;
    const double groups = layout->group > BLOCK ? sqrt((double)n_groups) : 1;
    return 2 * (groups + blocks) * envelope / n_steps +
           (double)half_least(layout) * n_steps * sqrt((double)n);
}

bool rp_is_ever_weighted(uint32_t type)
{
    return layout_of(type) && type != RP_GGML_Q8_0 && type != RP_GGML_TQ1_0 &&
           type != RP_GGML_TQ2_0 && type != RP_GGML_MXFP4 && type != RP_GGML_NVFP4;
}

double rp_weighted_allowance(uint32_t type)
{
    const struct layout *layout = layout_of(type);
    const double r = layout ? (double)layout->n_steps / 4 : 0;
    return layout ? 2 * sqrt((1 + 0.8 * r) / 3) : 1;
}
