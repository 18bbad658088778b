/* See numerics/block_sums.h. */
#include "numerics/block_sums.h"

#include <math.h>
#include <stdlib.h>

#define BLOCK 32

/* What the stored sum of a block of x is above the sum of its rounded values. ggml multiplies the
 * integers' sum by the scale before that is rounded itself. */
static enum rp_status excess_of(const float *x, const float *rounded, size_t block, double norm,
                                const struct rp_rounding_site *site, float *excess,
                                struct rp_error *err)
{
    double sum = 0;
    float largest = 0, stored = 0, step, exact;
    enum rp_status status;
    for (size_t i = 0; i < BLOCK; i++) {
        largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
        sum += (double)rounded[i];
    }
    *excess = 0;
    status = rp_round_scale(largest / 127.0f, block, site, &step, err);
    if (status != RP_OK || !(step > 0))
        return status;
    exact = largest / 127.0f * (float)rint(sum / (double)step);
    status = rp_round_block_sum(exact, block, (double)largest, norm, site, &stored, err);
    *excess = (float)((double)stored - sum);
    return status;
}

/* The smallest value of a block is its minimum: quantizers give it the integer 0. */
static float minimum_of(const float *weight)
{
    float minimum = weight[0];
    for (size_t i = 1; i < BLOCK; i++)
        minimum = weight[i] < minimum ? weight[i] : minimum;
    return minimum;
}

enum rp_status rp_add_block_sums(const struct rp_site *op_site, const struct rp_linear *args,
                                 const float *rounded, const struct rp_rounding_site *site)
{
    size_t n_blocks = args->n_in / BLOCK, n = op_site->n_positions;
    struct rp_rounding_site row = *site;
    enum rp_status status = RP_OK;
    float *excess = malloc((n * n_blocks + 1) * sizeof *excess); /* smaller than rounded */
    if (!excess)
        return rp_fail(op_site->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu sums",
                       n * n_blocks);
    for (size_t p = 0; p < n; p++) {
        double norm = 0;
        row.position = op_site->positions[p];
        for (size_t i = 0; i < args->n_in; i++)
            norm += (double)args->x[p * args->n_in + i] * (double)args->x[p * args->n_in + i];
        for (size_t block = 0; block < n_blocks && status == RP_OK; block++) {
            size_t at = p * args->n_in + block * BLOCK;
            status = excess_of(args->x + at, rounded + at, block, sqrt(norm), &row,
                               &excess[p * n_blocks + block], op_site->err);
        }
    }
    for (size_t out = 0; out < args->n_out && status == RP_OK; out++)
        for (size_t block = 0; block < n_blocks; block++) {
            float minimum = minimum_of(args->weight + out * args->n_in + block * BLOCK);
            for (size_t p = 0; p < n; p++)
                args->y[p * args->y_stride + out] += minimum * excess[p * n_blocks + block];
        }
    free(excess);
    return status;
}
