/* See replay/inputs.h. */
#include "replay/inputs.h"

#include <stdlib.h>
#include <string.h>

#include "refparity/metrics.h"
#include "refparity/numerics.h"

#define NEIGHBOURS 8 /* to either side, which stand for what one run did not draw */

/* rows [n][width] */
static enum rp_status meet(struct rp_inputs *inputs, const struct rp_site *site,
                           enum rp_weight_id which, const float *rows, size_t width)
{
    if (which >= RP_N_LAYER_WEIGHTS || site->n_positions != inputs->n)
        return RP_OK;
    float *noted = inputs->noted[which];
    if (inputs->compares) {
        for (size_t p = 0; p < inputs->n && noted; p++)
            inputs->moved[which][p] =
                rp_metrics_row(noted + p * width, rows + p * width, width).l2_rel;
    } else if (!noted) {
        const size_t size = inputs->n * width * sizeof(float);
        inputs->noted[which] = malloc(size + 1);
        inputs->moved[which] = calloc(inputs->n + 1, sizeof(double));
        if (!inputs->noted[which] || !inputs->moved[which])
            return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a product's inputs");
        memcpy(inputs->noted[which], rows, size);
    }
    return RP_OK;
}

static enum rp_status linear(void *context, const struct rp_site *site,
                             const struct rp_linear *args)
{
    struct rp_inputs *inputs = context;
    const struct rp_ops *below = inputs->overlay.below;
    const enum rp_status status =
        meet(inputs, site, rp_row_read_by(args->which), args->x, args->n_in);
    return status == RP_OK ? below->linear(below->context, site, args) : status;
}

static enum rp_status kv_store(void *context, const struct rp_site *site,
                               const struct rp_kv_store *args)
{
    struct rp_inputs *inputs = context;
    const struct rp_ops *below = inputs->overlay.below;
    enum rp_status status = meet(inputs, site, RP_ATTN_K, args->k, args->dim);
    if (status == RP_OK)
        status = meet(inputs, site, RP_ATTN_V, args->v, args->dim);
    return status == RP_OK ? below->kv_store(below->context, site, args) : status;
}

static enum rp_status attention(void *context, const struct rp_site *site,
                                const struct rp_attention *args)
{
    struct rp_inputs *inputs = context;
    const struct rp_ops *below = inputs->overlay.below;
    const enum rp_status status =
        meet(inputs, site, RP_ATTN_Q, args->q, args->n_heads * args->head_dim);
    return status == RP_OK ? below->attention(below->context, site, args) : status;
}

void rp_inputs_open(struct rp_inputs *inputs, size_t n, const struct rp_ops *below)
{
    *inputs = (struct rp_inputs){.n = n};
    rp_overlay_open(&inputs->overlay, below);
    inputs->overlay.ops.linear = linear;
    inputs->overlay.ops.kv_store = kv_store;
    inputs->overlay.ops.attention = attention;
}

void rp_inputs_compare(struct rp_inputs *inputs, const struct rp_ops *below)
{
    inputs->compares = true;
    inputs->overlay.below = below;
}

void rp_inputs_close(struct rp_inputs *inputs)
{
    for (size_t i = 0; i < RP_N_LAYER_WEIGHTS; i++) {
        free(inputs->noted[i]);
        free(inputs->moved[i]);
        inputs->noted[i] = NULL;
        inputs->moved[i] = NULL;
    }
}

const float *rp_inputs_noted(const struct rp_inputs *inputs, enum rp_weight_id product, size_t n)
{
    return product < RP_N_LAYER_WEIGHTS && n == inputs->n ? inputs->noted[rp_row_read_by(product)]
                                                          : NULL;
}

/* Of rows from .. to - 1. */
static double most(const struct rp_inputs *inputs, size_t which, size_t from, size_t to)
{
    double most = 0;
    for (size_t p = from; p < to && inputs->moved[which]; p++)
        most = inputs->moved[which][p] > most ? inputs->moved[which][p] : most;
    return most;
}

double rp_inputs_most_noise(const struct rp_inputs *inputs, enum rp_weight_id which)
{
    double noise = 0;
    if (which < RP_N_LAYER_WEIGHTS && inputs->moved[which])
        return most(inputs, which, 0, inputs->n);
    for (size_t i = 0; i < RP_N_LAYER_WEIGHTS; i++) {
        const double here = most(inputs, i, 0, inputs->n);
        noise = here > noise ? here : noise;
    }
    return noise;
}

double rp_inputs_noise(const struct rp_inputs *inputs, enum rp_weight_id which, size_t position)
{
    const size_t from = position < NEIGHBOURS ? 0 : position - NEIGHBOURS;
    const size_t to = inputs->n - position <= NEIGHBOURS ? inputs->n : position + NEIGHBOURS + 1;
    double noise = 0;
    if (which < RP_N_LAYER_WEIGHTS && inputs->moved[which])
        return most(inputs, which, from, to);
    for (size_t i = 0; i < RP_N_LAYER_WEIGHTS; i++) {
        const double here = most(inputs, i, from, to);
        noise = here > noise ? here : noise;
    }
    return noise;
}
