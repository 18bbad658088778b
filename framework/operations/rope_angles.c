/* See operations/rope_angles.h. What each pair of the slot's values is turned by beyond the model's own angle, at
 * each position, averaged over the heads. */
#include <complex.h>
#include <stdlib.h>
#include <string.h>

#include "operations/rope_angles.h"

#define IMAGINARY ((double complex)I)
#define REFINEMENTS 4
#define WHOLE 0.05 /* a position is a whole number to this */
#define STILL 0.02 /* of the model's frequency */

/* Where the slot's heads have their pairs. */
struct pairs {
    size_t head_dim, first; /* of a head: its values, the first one that is rotated */
    size_t step, apart;     /* from pair to pair, and within one */
};

static struct pairs pairs_of(const struct rp_search *search, size_t n_pairs)
{
    const struct rp_model_config *config = search->config;
    const bool is_adjacent =
        config->is_interleaved_in_hf && config->rope_ordering == RP_ROPE_INTERLEAVED;
    const size_t head_dim = config->kv_lora_rank == 0            ? config->head_dim
                            : search->slot.part == RP_PART_KROPE ? config->n_rot
                                                                 : config->nope_dim + config->n_rot;
    return (struct pairs){.head_dim = head_dim,
                          .first = config->kv_lora_rank == 0 ? 0 : head_dim - config->n_rot,
                          .step = is_adjacent ? 2 : 1,
                          .apart = is_adjacent ? 1 : n_pairs};
}

/* turn [n][n_pairs]: sum over heads of the engine's pair times the conjugate of the model's. */
static void find_turns(const struct rp_search *search, size_t n_pairs, double complex *turn)
{
    const struct pairs pairs = pairs_of(search, n_pairs);
    for (size_t row = 0; row < search->n; row++) {
        for (size_t i = 0; i < n_pairs; i++) {
            double complex sum = 0;
            for (size_t at = row * search->dim + pairs.first + i * pairs.step;
                 at < (row + 1) * search->dim; at += pairs.head_dim) {
                const double complex engine = (double)search->dumped[at] +
                                              IMAGINARY * (double)search->dumped[at + pairs.apart];
                const double complex model = (double)search->computed[at] +
                                             IMAGINARY * (double)search->computed[at + pairs.apart];
                sum += engine * conj(model);
            }
            turn[row * n_pairs + i] = sum;
        }
    }
}

/* How much faster the pair turns than the model's, from neighbouring rows, then from all. */
static double extra_frequency(const struct rp_search *search, const double complex *turn, size_t i,
                              size_t n_pairs)
{
    const int64_t *positions = search->slot.positions;
    double complex step = 0;
    for (size_t row = 1; row < search->n; row++) {
        if (positions[row] == positions[row - 1] + 1)
            step += turn[row * n_pairs + i] * conj(turn[(row - 1) * n_pairs + i]);
    }
    double slope = carg(step);
    for (int pass = 0; pass < REFINEMENTS; pass++) {
        double top = 0, bottom = 0;
        for (size_t row = 0; row < search->n; row++) {
            const double complex here = turn[row * n_pairs + i];
            const double p = (double)positions[row];
            top += cabs(here) * p * carg(here * cexp(-IMAGINARY * slope * p));
            bottom += cabs(here) * p * p;
        }
        slope += bottom > 0 ? top / bottom : 0;
    }
    return slope;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t n)
{
    if (n == 0)
        return 0;
    qsort(values, n, sizeof *values, by_value);
    return values[n / 2];
}

static void find_base(const struct rp_search *search, struct rp_measured_rope *measured,
                      double *scratch)
{
    const double n_rot = (double)search->config->n_rot;
    const double own = (double)rp_rope_theta(search->config, search->kind);
    size_t n = 0;
    for (size_t i = 0; i < measured->n_pairs; i++) {
        if (measured->frequency[i] > 0)
            scratch[n++] = measured->frequency[i] / measured->own[i];
    }
    measured->scaling = median(scratch, n);
    n = 0;
    for (size_t i = 1; i < measured->n_pairs; i++) {
        if (measured->frequency[i] > 0)
            scratch[n++] =
                log(own) - log(measured->frequency[i] / measured->own[i]) * n_rot / (2 * (double)i);
    }
    measured->theta = exp(median(scratch, n));
}

/* The position from the slowest half of the pairs, which have not gone round. */
static void find_positions(const struct rp_search *search, const double complex *turn,
                           struct rp_measured_rope *measured, double *scratch)
{
    bool is_other = false;
    measured->is_whole = true;
    for (size_t row = 0; row < search->n; row++) {
        const double own = (double)search->slot.positions[row];
        double position = own;
        size_t n = 0;
        for (size_t i = measured->n_pairs / 2; i < measured->n_pairs; i++)
            scratch[n++] = carg(turn[row * measured->n_pairs + i]) / measured->own[i];
        if (search->is_failing[row])
            position += median(scratch, n);
        measured->is_whole &= fabs(position - round(position)) < WHOLE;
        is_other |= round(position) != own;
        measured->position[row] = (float)round(position);
    }
    measured->is_whole &= is_other;
}

void rp_measure_rope(struct rp_search *search, struct rp_measured_rope *measured)
{
    const size_t n_pairs = search->config->n_rot / 2, n = search->n * n_pairs;
    *measured = (struct rp_measured_rope){.n_pairs = n_pairs};
    measured->own = calloc(n_pairs + 1, sizeof *measured->own);
    measured->frequency = calloc(n_pairs + 1, sizeof *measured->frequency);
    measured->position = rp_search_new_rows(search);
    double *scratch = calloc(n_pairs + 1, sizeof *scratch);
    double complex *turn = calloc(n + 1, sizeof *turn);
    if (measured->own && measured->frequency && measured->position && scratch && turn) {
        find_turns(search, n_pairs, turn);
        for (size_t i = 0; i < n_pairs; i++) {
            measured->own[i] = pow((double)rp_rope_theta(search->config, search->kind),
                                   -2.0 * (double)i / (double)search->config->n_rot);
            measured->own[i] /= search->rope_freqs ? (double)search->rope_freqs[i] : 1;
            measured->frequency[i] = measured->own[i] + extra_frequency(search, turn, i, n_pairs);
            measured->n_still += fabs(measured->frequency[i]) < STILL * measured->own[i];
        }
        find_base(search, measured, scratch);
        find_positions(search, turn, measured, scratch);
    } else {
        rp_search_note(
            search, rp_fail(search->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu angles", n));
        rp_measured_rope_free(measured);
    }
    free(turn);
    free(scratch);
}

void rp_measured_rope_free(struct rp_measured_rope *measured)
{
    free(measured->own);
    free(measured->frequency);
    *measured = (struct rp_measured_rope){.n_pairs = 0};
}
