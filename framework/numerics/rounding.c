/* See numerics/rounding.h. The arithmetic is ggml's (quantize_row_q8_0, _q8_K, _q4_0 as a CPU with
 * AVX2 runs them), step by step in FP32, as a last bit decides which way a value goes. */
#include "numerics/rounding.h"

#include <math.h>
#include <stdlib.h>

#include "numerics/half.h"

#define MAX_TIES ((size_t)1 << 16)
#define BLOCK 32
#define K_BLOCK 256

/* A row that is being rounded. */
struct row {
    const struct rp_rounding_site *site; /* NULL: no ties, no flips */
    uint32_t format;
    double tolerance; /* relative; 0: no ties */
    double scale;     /* in units of x: of what the tolerance is relative to, where x is smaller */
    double norm;      /* of the row */
    struct rp_error *err;
};

/* 0: no ties are noted. */
static double tolerance_of(const struct rp_rounding_site *site)
{
    if (!site || !site->notes_ties)
        return 0;
    return site->emulation->tie_tolerances ? site->emulation->tie_tolerances[site->which]
                                           : site->emulation->tie_tolerance;
}

/* How many steps to its other neighbour something is to go; 0: it is not flipped. */
static double turn_of(const struct row *row, enum rp_tie_kind kind, size_t index)
{
    const struct rp_emulation *emulation = row->site ? row->site->emulation : NULL;
    for (size_t i = 0; emulation && i < emulation->n_flips; i++) {
        const struct rp_tie *flip = &emulation->flips[i];
        if (flip->index == index && flip->kind == kind && flip->format == row->format &&
            flip->position == row->site->position && flip->which == row->site->which)
            return flip->turn != 0 ? flip->turn : 1;
    }
    return 0;
}

static enum rp_status append(struct rp_emulation *emulation, const struct rp_tie *tie,
                             struct rp_error *err)
{
    if (emulation->n_ties == MAX_TIES)
        return RP_OK;
    if (emulation->n_ties == emulation->ties_capacity) {
        size_t capacity = emulation->ties_capacity ? 2 * emulation->ties_capacity : 64;
        struct rp_tie *ties = realloc(emulation->ties, capacity * sizeof *ties);
        if (!ties)
            return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu near-ties", capacity);
        emulation->ties = ties;
        emulation->ties_capacity = capacity;
    }
    emulation->ties[emulation->n_ties++] = *tie;
    return RP_OK;
}

/* x was rounded to *rounded and other is its next neighbour (the same: it has none), both in units
 * of x. Notes a tie and makes a flip. */
static enum rp_status settle(const struct row *row, enum rp_tie_kind kind, size_t index, double x,
                             double other, double rounded, bool *is_other)
{
    double distance, tolerance;
    bool is_dense;
    *is_other = false;
    if (!row->site || other == rounded)
        return RP_OK;
    *is_other = turn_of(row, kind, index) != 0;
    if (!row->site->notes_ties || !(row->tolerance > 0))
        return RP_OK;
    tolerance = row->tolerance * fmax(row->scale, fabs(x));
    distance = fabs(x - 0.5 * (rounded + other)) / tolerance;
    /* Softmax weights that are closer than the tolerance are not told apart by anything, and are very
     * many. */
    is_dense = row->site->which == RP_N_WEIGHTS && fabs(rounded - other) < tolerance;
    if (!(distance <= 1) || is_dense)
        return RP_OK;
    struct rp_tie tie = {.position = row->site->position,
                         .which = row->site->which,
                         .kind = kind,
                         .format = row->format,
                         .index = index,
                         .distance = distance,
                         .step = fabs(rounded - other) / row->norm};
    return append(row->site->emulation, &tie, row->err);
}

static enum rp_status round_half(const struct row *row, size_t index, float x, float *y)
{
    bool is_f16 = row->format == RP_GGML_F16, is_other;
    float rounded = is_f16 ? rp_round_f16(x) : rp_round_bf16(x);
    float other = is_f16 ? rp_other_f16(x, rounded) : rp_other_bf16(x, rounded);
    enum rp_status status =
        settle(row, RP_TIE_VALUE, index, (double)x, (double)other, (double)rounded, &is_other);
    *y = is_other ? other : rounded;
    return status;
}

/* The scale of a block, as stored: in F16. peak: the scale in units of x, over the scale. */
static enum rp_status round_scale(const struct row *row, size_t block, float scale, double peak,
                                  float *stored)
{
    bool is_other;
    float rounded = rp_round_f16(scale), other = rp_other_f16(scale, rounded);
    enum rp_status status = settle(row, RP_TIE_SCALE, block, (double)scale * peak,
                                   (double)other * peak, (double)rounded * peak, &is_other);
    const float away = rp_other_f16(rounded - (other - rounded), rounded);
    const float beyond = rp_other_f16(other + (other - rounded), other);
    const double turn = is_other ? turn_of(row, RP_TIE_SCALE, block) : 0;
    *stored = turn == 0 ? rounded : turn < 0 ? away : turn < 2 ? other : beyond;
    return status;
}

/* n values of a block, whose first one is value `first` of the row: y = stored * round(x * inverse),
 * the integers within low .. high. unit: the exact step, in units of x. */
static enum rp_status round_integers(const struct row *row, size_t first, size_t n, const float *x,
                                     float inverse, float stored, double unit, float low,
                                     float high, float *y)
{
    bool is_q4 = row->format == RP_GGML_Q4_0;
    for (size_t i = 0; i < n; i++) {
        float exact = x[i] * inverse;
        /* Q4_0 adds 8.5 in FP32 and cuts off; the others go to even. */
        float integer = is_q4 ? truncf(exact + 8.5f) - 8.0f : rintf(exact);
        bool is_other;
        enum rp_status status;
        integer = integer < low ? low : integer > high ? high : integer;
        float other = exact > integer ? integer + 1.0f : exact < integer ? integer - 1.0f : integer;
        if (other < low || other > high)
            other = integer;
        status = settle(row, RP_TIE_VALUE, first + i, (double)exact * unit, (double)other * unit,
                        (double)integer * unit, &is_other);
        if (status != RP_OK)
            return status;
        y[i] = (is_other ? other : integer) * stored;
    }
    return RP_OK;
}

/* The value of largest magnitude, the first of equals; 0 for a block of zeros. */
static float peak_of(const float *x, size_t n)
{
    float peak = 0;
    for (size_t i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(peak))
            peak = x[i];
    return peak;
}

static enum rp_status round_block(const struct row *row, size_t first, size_t n, const float *x,
                                  float *y)
{
    float peak = peak_of(x, n), scale, inverse, low = -127, high = 127;
    enum rp_status status = RP_OK;
    if (row->format == RP_GGML_Q8_0) {
        scale = fabsf(peak) / 127.0f;
        inverse = peak != 0 ? 127.0f / fabsf(peak) : 0;
    } else if (row->format == RP_GGML_Q4_0) {
        scale = peak / -8.0f;
        inverse = scale != 0 ? 1.0f / scale : 0;
        low = -8;
        high = 7;
    } else {
        inverse = peak != 0 ? -127.0f / peak : 0;
        scale = peak != 0 ? 1.0f / inverse : 0;
    }
    double unit = (double)scale;
    if (row->format == RP_GGML_Q8_K)
        scale *= (float)(1 + turn_of(row, RP_TIE_SCALE, first / K_BLOCK));
    if (row->format != RP_GGML_Q8_K)
        status =
            round_scale(row, first / BLOCK, scale, row->format == RP_GGML_Q4_0 ? 8 : 127, &scale);
    if (status != RP_OK)
        return status;
    return round_integers(row, first, n, x, inverse, scale, unit, low, high, y);
}

static double rms(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return n > 0 ? sqrt(sum / (double)n) : 0;
}

enum rp_status rp_round_row(uint32_t format, const float *x, size_t n, float *y,
                            const struct rp_rounding_site *site, struct rp_error *err)
{
    struct row row = {.site = site, .format = format, .err = err};
    enum rp_status status = RP_OK;
    if (tolerance_of(site) > 0) {
        row.tolerance = tolerance_of(site) + site->unsure;
        row.scale = rms(x, n);
        row.norm = row.scale * sqrt((double)n);
    }
    if (format == RP_GGML_F16 || format == RP_GGML_BF16) {
        for (size_t i = 0; i < n && status == RP_OK; i++)
            status = round_half(&row, i, x[i], &y[i]);
    } else if (format == RP_GGML_Q8_0 || format == RP_GGML_Q4_0 || format == RP_GGML_Q8_K) {
        size_t block = format == RP_GGML_Q8_K ? K_BLOCK : BLOCK;
        for (size_t i = 0; i < n && status == RP_OK; i += block)
            status = round_block(&row, i, n - i < block ? n - i : block, x + i, y + i);
    } else {
        for (size_t i = 0; i < n; i++)
            y[i] = x[i];
    }
    return status;
}

enum rp_status rp_round_one_f16(float x, size_t index, double scale, float *y,
                                const struct rp_rounding_site *site, struct rp_error *err)
{
    struct row row = {.site = site,
                      .format = RP_GGML_F16,
                      .tolerance = tolerance_of(site),
                      .scale = scale,
                      .norm = 1,
                      .err = err};
    return round_half(&row, index, x, y);
}

enum rp_status rp_round_scale(float scale, size_t block, const struct rp_rounding_site *site,
                              float *stored, struct rp_error *err)
{
    struct row row = {.site = site, .format = RP_GGML_Q8_0, .err = err};
    return round_scale(&row, block, scale, 127, stored);
}

enum rp_status rp_round_block_sum(float sum, size_t block, double largest, double norm,
                                  const struct rp_rounding_site *site, float *stored,
                                  struct rp_error *err)
{
    struct row row = {
        .site = site, .format = RP_GGML_Q8_1, .scale = largest, .norm = norm, .err = err};
    if (site && site->notes_ties)
        row.tolerance = tolerance_of(site);
    return round_scale(&row, block, sum, 1, stored);
}
