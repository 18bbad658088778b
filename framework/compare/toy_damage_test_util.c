/* See toy_damage_test_util.h. */
#include "compare/toy_damage_test_util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define N_VALUES (RP_TOY_MAX_POSITIONS * RP_TOY_VOCAB)

/* IEEE 754 binary16 of a value that is normal or zero in it; what is smaller becomes zero. */
static uint16_t to_f16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    const int exponent = (int)(bits >> 23 & 0xff) - 127 + 15;
    if (exponent <= 0)
        return sign;
    if (exponent >= 31)
        return (uint16_t)(sign | 0x7c00);
    return (uint16_t)((sign | (uint32_t)exponent << 10 | (bits >> 13 & 0x3ff)) + (bits >> 12 & 1));
}

static uint16_t to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0x8000) >> 16);
}

static void swap_bytes(unsigned char *bytes, size_t n_values, enum rp_toy_damage_kind kind)
{
    static const unsigned char orders[][4] = {{3, 2, 1, 0}, {1, 0, 3, 2}, {2, 3, 0, 1}};
    const unsigned char *order = orders[kind - RP_TOY_SWAPPED_4];
    for (size_t i = 0; i < n_values; i++) {
        unsigned char old[4];
        memcpy(old, bytes + 4 * i, 4);
        for (size_t k = 0; k < 4; k++)
            bytes[4 * i + k] = old[order[k]];
    }
}

static void write_16(float *rows, const float *old, size_t n, size_t dim,
                     enum rp_toy_damage_kind kind)
{
    const int is_f16 = kind == RP_TOY_F16 || kind == RP_TOY_F16_BY_ROW;
    const int by_row = kind == RP_TOY_F16_BY_ROW || kind == RP_TOY_BF16_BY_ROW;
    memset(rows, 0, n * dim * sizeof *rows);
    for (size_t i = 0; i < n * dim; i++) {
        const uint16_t value = is_f16 ? to_f16(old[i]) : to_bf16(old[i]);
        const size_t at = by_row ? i / dim * dim * 4 + i % dim * 2 : i * 2;
        memcpy((char *)rows + at, &value, 2);
    }
}

static void write_64(float *rows, const float *old, size_t n, size_t dim, int by_row)
{
    for (size_t i = 0; i < n * dim; i++) {
        const double value = (double)old[i];
        const size_t at = by_row ? i / dim * dim * 4 + i % dim * 8 : i * 8;
        const size_t end = by_row ? (i / dim + 1) * dim * 4 : n * dim * 4;
        if (at + 8 <= end)
            memcpy((char *)rows + at, &value, 8);
    }
}

/* Which row stands at row p; n: none. */
static size_t source(const struct rp_toy_damage *damage, size_t p, size_t n)
{
    const size_t by = (size_t)(damage->by < 0 ? -damage->by : damage->by);
    switch (damage->kind) {
    case RP_TOY_PERMUTED:
        return p % 2 == 0 && p + 1 < n ? (p + 3 < n ? p + 3 : 1) : p % 2 ? p - 1 : p;
    case RP_TOY_TWO_EXCHANGED: return p == by ? by + 1 : p == by + 1 ? by : p;
    case RP_TOY_REVERSED: return n - 1 - p;
    case RP_TOY_ONE_ROW: return by;
    case RP_TOY_EACH_TWICE: return p / 2;
    case RP_TOY_SHIFTED:
        if (damage->by < 0)
            return p + by < n ? p + by : n;
        return p < by ? n : p - by;
    default: return p;
    }
}

static void move_rows(float *rows, const float *old, size_t n, size_t dim,
                      const struct rp_toy_damage *damage)
{
    uint32_t random = 11;
    for (size_t p = 0; p < n; p++) {
        const size_t from = source(damage, p, n);
        for (size_t j = 0; j < dim; j++)
            rows[p * dim + j] = from < n ? old[from * dim + j] : (float)rp_toy_normal(&random);
    }
}

/* As a heap leaves it: pointers, whose upper half is a denormal, whose lower half looks like anything. */
static void never_write(float *rows, size_t n, size_t dim, const struct rp_toy_damage *damage)
{
    uint32_t random = 5;
    for (size_t i = 0; i < n * dim; i++) {
        const size_t p = i / dim, j = i % dim;
        if (damage->by_channel ? j < damage->channel
                               : i < damage->at * dim + damage->channel && p <= damage->at)
            continue;
        uint32_t bits = i % 2 ? 0x00007f12 : rp_toy_random(&random);
        if (damage->kind == RP_TOY_MEMORY_TAIL)
            memcpy(&rows[i], &bits, 4);
        else
            rows[i] = damage->kind == RP_TOY_ZERO_TAIL  ? 0.0f
                      : damage->kind == RP_TOY_NAN_TAIL ? NAN
                                                        : 0.75f;
    }
}

static void change_values(float *rows, size_t n_values, enum rp_toy_damage_kind kind)
{
    uint32_t random = 9;
    for (size_t i = 0; i < n_values; i++) {
        const float noise = (float)rp_toy_normal(&random);
        uint32_t bits;
        switch (kind) {
        case RP_TOY_ROUNDED_TO_BF16:
            bits = (uint32_t)to_bf16(rows[i]) << 16;
            memcpy(&rows[i], &bits, 4);
            break;
        case RP_TOY_SCALED: rows[i] *= 1.25f; break;
        case RP_TOY_NEGATED: rows[i] = -rows[i]; break;
        case RP_TOY_NOISY: rows[i] *= 1 + 0.3f * noise; break;
        case RP_TOY_ONE_VALUE: rows[i] += i == 7 ? 1e3f : 0; break;
        case RP_TOY_RANDOM: rows[i] = noise; break;
        case RP_TOY_RANDOM_BITS:
            bits = rp_toy_random(&random);
            memcpy(&rows[i], &bits, 4);
            break;
        default: break;
        }
    }
}

void rp_toy_damage(struct rp_toy_run *run, size_t slot, const struct rp_toy_damage *damage)
{
    float *rows = run->rows[slot], old[N_VALUES];
    const size_t n = run->n, dim = run->dim[slot];
    memcpy(old, rows, n * dim * sizeof *old);
    switch (damage->kind) {
    case RP_TOY_SWAPPED_4:
    case RP_TOY_SWAPPED_2:
    case RP_TOY_SWAPPED_HALVES: swap_bytes((unsigned char *)rows, n * dim, damage->kind); break;
    case RP_TOY_F16:
    case RP_TOY_F16_BY_ROW:
    case RP_TOY_BF16:
    case RP_TOY_BF16_BY_ROW: write_16(rows, old, n, dim, damage->kind); break;
    case RP_TOY_F64:
    case RP_TOY_F64_BY_ROW: write_64(rows, old, n, dim, damage->kind == RP_TOY_F64_BY_ROW); break;
    case RP_TOY_TRANSPOSED:
        for (size_t i = 0; i < n * dim; i++)
            rows[i] = old[i % n * dim + i / n];
        break;
    case RP_TOY_PERMUTED:
    case RP_TOY_TWO_EXCHANGED:
    case RP_TOY_REVERSED:
    case RP_TOY_ONE_ROW:
    case RP_TOY_EACH_TWICE:
    case RP_TOY_SHIFTED: move_rows(rows, old, n, dim, damage); break;
    case RP_TOY_ZERO_TAIL:
    case RP_TOY_NAN_TAIL:
    case RP_TOY_VALUE_TAIL:
    case RP_TOY_MEMORY_TAIL: never_write(rows, n, dim, damage); break;
    case RP_TOY_OTHER_SLOT:
        memcpy(rows, run->rows[(size_t)((int)slot + damage->by)], n * dim * sizeof *rows);
        break;
    default: change_values(rows, n * dim, damage->kind); break;
    }
}
