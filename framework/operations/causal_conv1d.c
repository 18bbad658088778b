/* The short convolution in front of a gated DeltaNet, and its SiLU. HF: causal_conv1d_fn. */
#include <math.h>
#include <string.h>

#include "operations/activation.h"
#include "operations/operations.h"

/* x at position p + offset - (kernel - 1) of one channel, where the state comes before the rows. */
static float conv_input(const struct rp_causal_conv1d *args, size_t p, size_t offset,
                        size_t channel)
{
    size_t n_before = args->kernel - 1, at = p + offset;
    return at < n_before ? args->state[at * args->n_channels + channel]
                         : args->x[(at - n_before) * args->n_channels + channel];
}

/* The last kernel - 1 rows of the state and x together become the state. */
static void push_conv_state(const struct rp_causal_conv1d *args, size_t n_positions)
{
    size_t n_before = args->kernel - 1, width = args->n_channels;
    size_t n_kept = n_positions < n_before ? n_before - n_positions : 0;
    size_t n_new = n_before - n_kept;
    memmove(args->state, args->state + n_new * width, n_kept * width * sizeof *args->state);
    memcpy(args->state + n_kept * width, args->x + (n_positions - n_new) * width,
           n_new * width * sizeof *args->state);
}

enum rp_status rp_op_causal_conv1d(void *context, const struct rp_site *site,
                                   const struct rp_causal_conv1d *args)
{
    (void)context;
    for (size_t p = 0; p < site->n_positions; p++) {
        for (size_t channel = 0; channel < args->n_channels; channel++) {
            const float *weight = args->weight + channel * args->kernel;
            float sum = 0;
            for (size_t i = 0; i < args->kernel; i++)
                sum += weight[i] * conv_input(args, p, i, channel);
            args->y[p * args->n_channels + channel] = args->has_silu ? rp_silu(sum) : sum;
        }
    }
    push_conv_state(args, site->n_positions);
    return RP_OK;
}

/* A sum of a few terms, which may cancel: its error is that of its channels' usual size; SiLU adds two
 * roundings. */
enum rp_status rp_sigma_causal_conv1d(const struct rp_site *site,
                                      const struct rp_causal_conv1d *args, float *sigma)
{
    for (size_t p = 0; p < site->n_positions; p++) {
        const float *y = args->y + p * args->n_channels;
        double square = 0;
        for (size_t i = 0; i < args->n_channels; i++)
            square += (double)y[i] * (double)y[i];
        const double size = sqrt(square / (double)args->n_channels);
        for (size_t i = 0; i < args->n_channels; i++)
            sigma[p * args->n_channels + i] =
                (float)(RP_UNIT_ROUNDOFF * (2 * fabs((double)y[i]) + 0.5 * size));
    }
    return RP_OK;
}
