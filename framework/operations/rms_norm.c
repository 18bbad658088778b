/* RMSNorm, of rows or of heads. HF: LlamaRMSNorm, Qwen3RMSNorm. */
#include <math.h>

#include "operations/operations.h"

enum rp_status rp_op_rms_norm(void *context, const struct rp_site *site,
                              const struct rp_rms_norm *args)
{
    (void)context;
    (void)site;
    for (size_t row = 0; row < args->n_rows; row++) {
        const float *x = args->x + row * args->dim;
        float *y = args->y + row * args->dim;
        double sum = 0;
        for (size_t i = 0; i < args->dim; i++)
            sum += (double)x[i] * (double)x[i];
        float variance = (float)(sum / (double)args->dim);
        float scale = 1.0f / sqrtf(variance + args->eps);
        for (size_t i = 0; i < args->dim; i++)
            y[i] = args->weight[i] * (x[i] * scale);
    }
    return RP_OK;
}

double rp_norm_error(size_t dim)
{
    return RP_UNIT_ROUNDOFF * (1.5 + RP_SUM_ERROR / 4 * sqrt((double)dim));
}

/* The row's factor errs as a whole, and each value by its own rounding. */
enum rp_status rp_sigma_rms_norm(const struct rp_site *site, const struct rp_rms_norm *args,
                                 float *sigma)
{
    const double relative = hypot(rp_norm_error(args->dim), RP_UNIT_ROUNDOFF);
    (void)site;
    for (size_t i = 0; i < args->n_rows * args->dim; i++)
        sigma[i] = (float)(relative * fabs((double)args->y[i]));
    return RP_OK;
}
