/* What a gated DeltaNet's state decays by, and how much of the new is written.
 * HF: Qwen3_5GatedDeltaNet, g and beta. */
#include <math.h>

#include "operations/activation.h"
#include "operations/operations.h"

enum rp_status rp_op_delta_decay(void *context, const struct rp_site *site,
                                 const struct rp_delta_decay *args)
{
    (void)context;
    for (size_t i = 0; i < site->n_positions * args->n_heads; i++) {
        size_t head = i % args->n_heads;
        args->y[i] = args->a[head] * rp_softplus(args->y[i] + args->dt[head]);
    }
    return RP_OK;
}

enum rp_status rp_op_delta_beta(void *context, const struct rp_site *site,
                                const struct rp_delta_beta *args)
{
    (void)context;
    for (size_t i = 0; i < site->n_positions * args->n_heads; i++)
        args->y[i] = rp_sigmoid(args->y[i]);
    return RP_OK;
}

/* y = a softplus(z), z = alpha + dt. The sum errs by half a unit of |alpha| + |dt|, at most |z| + 2 |dt|,
 * which softplus hands on times its slope, sigmoid(z) = 1 - exp(-softplus(z)). log(1 + exp(z)), which
 * engines compute where HF has log1p, errs by a unit of 1 itself. The product and softplus round. */
enum rp_status rp_sigma_delta_decay(const struct rp_site *site, const struct rp_delta_decay *args,
                                    float *sigma)
{
    for (size_t i = 0; i < site->n_positions * args->n_heads; i++) {
        const size_t head = i % args->n_heads;
        const double y = fabs((double)args->y[i]), a = fabs((double)args->a[head]);
        const double soft = a > 0 ? y / a : 0, slope = -expm1(-soft);
        const double z = soft > 0 && soft < 20 ? fabs(log(expm1(soft))) : soft;
        sigma[i] = (float)(RP_UNIT_ROUNDOFF *
                           (3 * y + a * (1 + slope * (z + 2 * fabs((double)args->dt[head])))));
    }
    return RP_OK;
}

enum rp_status rp_sigma_delta_beta(const struct rp_site *site, const struct rp_delta_beta *args,
                                   float *sigma)
{
    for (size_t i = 0; i < site->n_positions * args->n_heads; i++)
        sigma[i] = (float)(2 * RP_UNIT_ROUNDOFF * fabs((double)args->y[i]));
    return RP_OK;
}
