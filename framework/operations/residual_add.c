/* hidden + branch: one rounding. */
#include <math.h>

#include "operations/operations.h"

enum rp_status rp_op_residual_add(void *context, const struct rp_site *site,
                                  const struct rp_residual_add *args)
{
    (void)context;
    for (size_t i = 0; i < site->n_positions * args->dim; i++)
        args->hidden[i] += args->branch[i];
    return RP_OK;
}

enum rp_status rp_sigma_residual_add(const struct rp_site *site, const struct rp_residual_add *args,
                                     float *sigma)
{
    for (size_t i = 0; i < site->n_positions * args->dim; i++)
        sigma[i] = (float)(0.5 * RP_UNIT_ROUNDOFF * fabs((double)args->hidden[i]));
    return RP_OK;
}
