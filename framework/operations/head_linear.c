/* Products by head, each with a matrix of its own: latent attention's attn_k_b and attn_v_b. Each is a product like
 * any other (linear.c), of a part of the row. */
#include <stdlib.h>
#include <string.h>

#include "operations/operations.h"

static float *new_rows(const struct rp_site *site, size_t width)
{
    if (width > 0 && site->n_positions > SIZE_MAX / sizeof(float) / width)
        return NULL;
    return malloc((site->n_positions * width + 1) * sizeof(float));
}

static enum rp_status no_memory(const struct rp_site *site, const struct rp_head_linear *args)
{
    return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu heads of %zu values",
                   args->n_heads, args->n_in);
}

/* x [n_positions][n_in] of one head. */
static void gather(const struct rp_site *site, const struct rp_head_linear *args, size_t head,
                   float *x)
{
    const float *from = args->x + head * args->x_head_stride;
    for (size_t p = 0; p < site->n_positions; p++)
        memcpy(x + p * args->n_in, from + p * args->n_heads * args->x_head_stride,
               args->n_in * sizeof *x);
}

/* One head's weight, as it was loaded. */
static struct rp_weight weight_of(const struct rp_head_linear *args, size_t head)
{
    const size_t n = args->n_out * args->n_in;
    const bool is_as_loaded = args->loaded && args->loaded->data == args->weight;
    return (struct rp_weight){.data = args->weight + head * n,
                              .n_out = args->n_out,
                              .n_in = args->n_in,
                              .type = args->type,
                              .minima = is_as_loaded && args->loaded->minima
                                            ? args->loaded->minima + head * n / 32
                                            : NULL};
}

enum rp_status rp_by_head(const struct rp_site *site, const struct rp_head_linear *args,
                          rp_linear_fn *run, void *context)
{
    enum rp_status status = RP_OK;
    float *x = new_rows(site, args->n_in);
    if (!x)
        return no_memory(site, args);
    for (size_t head = 0; head < args->n_heads && status == RP_OK; head++) {
        const struct rp_weight weight = weight_of(args, head);
        const struct rp_linear one = {.which = args->which,
                                      .type = args->type,
                                      .weight = weight.data,
                                      .loaded = &weight,
                                      .n_out = args->n_out,
                                      .n_in = args->n_in,
                                      .x = x,
                                      .y = args->y + head * args->n_out,
                                      .y_stride = args->n_heads * args->n_out};
        gather(site, args, head, x);
        status = run(context, site, &one);
    }
    free(x);
    return status;
}

enum rp_status rp_op_head_linear(void *context, const struct rp_site *site,
                                 const struct rp_head_linear *args)
{
    (void)context;
    return rp_by_head(site, args, rp_op_linear, NULL);
}

struct sigmas {
    const struct rp_head_linear *args;
    float *of_head; /* [n_positions][n_out] */
    float *sigma;   /* [n_positions][n_heads][n_out] */
};

static enum rp_status sigma_of_head(void *context, const struct rp_site *site,
                                    const struct rp_linear *one)
{
    const struct sigmas *sigmas = context;
    const size_t at = (size_t)(one->y - sigmas->args->y), n = one->n_out;
    const enum rp_status status = rp_sigma_linear(site, one, sigmas->of_head);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++)
        memcpy(sigmas->sigma + p * one->y_stride + at, sigmas->of_head + p * n,
               n * sizeof *sigmas->sigma);
    return status;
}

enum rp_status rp_sigma_head_linear(const struct rp_site *site, const struct rp_head_linear *args,
                                    float *sigma) /* NOLINT(readability-non-const-parameter) */
{
    struct sigmas sigmas = {args, new_rows(site, args->n_out), sigma};
    if (!sigmas.of_head)
        return no_memory(site, args);
    const enum rp_status status = rp_by_head(site, args, sigma_of_head, &sigmas);
    free(sigmas.of_head);
    return status;
}
