/* Times the comparer on one slot that a fixture and a dump both have, beside a plain read of the
 * same memory. Run by compare.py, which prints what NumPy needs for the same. Prints seconds, one
 * "name median" a line; judges nothing. */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "refparity/compare.h"

enum { MAX_ROUNDS = 1000 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* values[n] is sorted on the way. */
static double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, ascending);
    return values[n / 2];
}

typedef uint64_t words __attribute__((vector_size(16)));

static words load_words(const unsigned char *bytes)
{
    words w;
    memcpy(&w, bytes, sizeof w);
    return w;
}

/* As cheap as touching every byte can be: integer additions, 16 bytes wide, in eight chains. */
static uint64_t plain_sum(const void *data, size_t n)
{
    const unsigned char *p = data;
    words a = {0}, b = {0}, c = {0}, d = {0}, e = {0}, f = {0}, g = {0}, h = {0};
    for (const unsigned char *end = p + n / 128 * 128; p < end; p += 128) {
        a += load_words(p);
        b += load_words(p + 16);
        c += load_words(p + 32);
        d += load_words(p + 48);
        e += load_words(p + 64);
        f += load_words(p + 80);
        g += load_words(p + 96);
        h += load_words(p + 112);
    }
    a += b + c + d + e + f + g + h;
    return a[0] + a[1];
}

static uint64_t read_both(const struct rp_tensor *r, const struct rp_tensor *e)
{
    const size_t n = r->n_positions * r->dim * sizeof(float);
    return plain_sum(r->data, n) + plain_sum(e->data, n);
}

/* The metrics of every position, without verdicts. */
static double metrics_of_rows(const struct rp_tensor *r, const struct rp_tensor *e)
{
    double sum = 0;
    for (size_t i = 0; i < r->n_positions; i++) {
        const size_t at = i * r->dim * sizeof(float);
        sum +=
            rp_metrics_row((const char *)r->data + at, (const char *)e->data + at, r->dim).l2_rel;
    }
    return sum;
}

/* As `refparity diff` does it: both files opened, the slot's CRC checked, rows paired, judged. */
static enum rp_verdict whole_slot(const char *reference, const char *dump, const char *slot)
{
    struct rp_comparison comparison = {.limits = rp_limits_default()};
    struct rp_slot_result result = {.verdict = RP_ERROR};
    struct rp_error err;
    if (!rp_tensor_set_open(reference, RP_LAYOUT_AUTO, 0, &comparison.reference, &err) &&
        !rp_tensor_set_open(dump, RP_LAYOUT_AUTO, 0, &comparison.engine, &err))
        rp_compare_slot(&comparison, slot, &result);
    rp_tensor_set_close(comparison.engine);
    rp_tensor_set_close(comparison.reference);
    return result.verdict;
}

static int measure(const char *const *paths, const char *slot, size_t n_rounds)
{
    static double reads[MAX_ROUNDS], kernels[MAX_ROUNDS], wholes[MAX_ROUNDS];
    struct rp_tensor_set *sets[2] = {NULL, NULL};
    struct rp_tensor tensors[2] = {{0}, {0}};
    struct rp_error err;
    char text[2300];
    uint64_t sum = 0;
    double l2_rel = 0;
    int status = 2;
    for (int side = 0; side < 2; side++) {
        if (rp_tensor_set_open(paths[side], RP_LAYOUT_AUTO, 0, &sets[side], &err) ||
            rp_tensor_load(sets[side], slot, &tensors[side], &err)) {
            fprintf(stderr, "error: %s\n", rp_error_text(&err, text, sizeof text));
            goto done;
        }
    }
    if (tensors[0].n_positions != tensors[1].n_positions || tensors[0].dim != tensors[1].dim) {
        fprintf(stderr, "error: %s has two shapes\n", slot);
        goto done;
    }
    sum +=
        read_both(&tensors[0], &tensors[1]); /* maps every page: faults are part of `whole` only */
    for (size_t i = 0; i < n_rounds; i++) {
        double start = now();
        sum += read_both(&tensors[0], &tensors[1]);
        reads[i] = now() - start;
        start = now();
        l2_rel += metrics_of_rows(&tensors[0], &tensors[1]);
        kernels[i] = now() - start;
        start = now();
        if (whole_slot(paths[0], paths[1], slot) != RP_PASS) {
            fprintf(stderr, "error: %s is not within its limit\n", slot);
            goto done;
        }
        wholes[i] = now() - start;
    }
    printf("read %.9f\nkernel %.9f\nwhole %.9f\n", median(reads, n_rounds),
           median(kernels, n_rounds), median(wholes, n_rounds));
    printf("checksum %" PRIu64 " %g\n", sum, l2_rel); /* keeps the loops from being left out */
    status = 0;
done:
    for (int side = 0; side < 2; side++) {
        rp_tensor_release(&tensors[side]);
        rp_tensor_set_close(sets[side]);
    }
    return status;
}

int main(int argc, char **argv)
{
    const size_t n_rounds = argc == 5 ? strtoul(argv[4], NULL, 10) : 0;
    if (n_rounds < 1 || n_rounds > MAX_ROUNDS) {
        fprintf(stderr, "usage: compare_bench REF.npz DUMP SLOT ROUNDS\n");
        return 2;
    }
    return measure((const char *const *)argv + 1, argv[3], n_rounds);
}
