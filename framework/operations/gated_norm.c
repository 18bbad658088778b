/* RMSNorm of each head, times SiLU of a gate. HF: Qwen3_5RMSNormGated. */
#include <math.h>

#include "operations/activation.h"
#include "operations/operations.h"

enum rp_status rp_op_gated_norm(void *context, const struct rp_site *site,
                                const struct rp_gated_norm *args)
{
    (void)context;
    (void)site;
    for (size_t row = 0; row < args->n_rows; row++) {
        const float *x = args->x + row * args->dim, *gate = args->gate + row * args->dim;
        float *y = args->y + row * args->dim;
        double sum = 0;
        for (size_t i = 0; i < args->dim; i++)
            sum += (double)x[i] * (double)x[i];
        float scale = 1.0f / sqrtf((float)(sum / (double)args->dim) + args->eps);
        for (size_t i = 0; i < args->dim; i++)
            y[i] = args->weight[i] * (x[i] * scale) * rp_silu(gate[i]);
    }
    return RP_OK;
}

/* As RMSNorm's; SiLU and its product add two roundings. */
enum rp_status rp_sigma_gated_norm(const struct rp_site *site, const struct rp_gated_norm *args,
                                   float *sigma)
{
    const double relative = hypot(rp_norm_error(args->dim), 2 * RP_UNIT_ROUNDOFF);
    (void)site;
    for (size_t i = 0; i < args->n_rows * args->dim; i++)
        sigma[i] = (float)(relative * fabs((double)args->y[i]));
    return RP_OK;
}
