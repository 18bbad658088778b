/* What becomes of the experts' outputs: their weighted sum, and the shared expert's. The products themselves are
 * operations/linear.c, one expert's at a time: model/forward_experts.c. */
#include <math.h>

#include "operations/activation.h"
#include "operations/operations.h"

enum rp_status rp_op_sum_experts(void *context, const struct rp_site *site,
                                 const struct rp_sum_experts *args)
{
    (void)context;
    for (size_t p = 0; p < site->n_positions; p++) {
        const float *weights = args->weights + p * args->n_chosen;
        const float *x = args->x + p * args->n_chosen * args->dim;
        float *y = args->y + p * args->dim;
        for (size_t i = 0; i < args->dim; i++)
            y[i] = weights[0] * x[i];
        for (size_t k = 1; k < args->n_chosen; k++)
            for (size_t i = 0; i < args->dim; i++)
                y[i] += weights[k] * x[k * args->dim + i];
    }
    return RP_OK;
}

/* Each of the n products is rounded, and the sum after each: u sqrt(sum of squares), and that of a sum of n terms. */
enum rp_status rp_sigma_sum_experts(const struct rp_site *site, const struct rp_sum_experts *args,
                                    float *sigma)
{
    const double of_sum = RP_SUM_ERROR * sqrt((double)args->n_chosen);
    for (size_t p = 0; p < site->n_positions; p++) {
        const float *weights = args->weights + p * args->n_chosen;
        const float *x = args->x + p * args->n_chosen * args->dim;
        for (size_t i = 0; i < args->dim; i++) {
            const double y = (double)args->y[p * args->dim + i];
            double square = 0;
            for (size_t k = 0; k < args->n_chosen; k++) {
                const double term = (double)weights[k] * (double)x[k * args->dim + i];
                square += term * term;
            }
            sigma[p * args->dim + i] =
                (float)(RP_UNIT_ROUNDOFF *
                        (sqrt(square) + of_sum * sqrt(square + y * y / 3) + fabs(y)));
        }
    }
    return RP_OK;
}

enum rp_status rp_op_add_shared_expert(void *context, const struct rp_site *site,
                                       const struct rp_add_shared_expert *args)
{
    (void)context;
    for (size_t p = 0; p < site->n_positions; p++) {
        const float factor = args->gate ? rp_sigmoid(args->gate[p]) : 1.0f;
        const float *shared = args->shared + p * args->dim;
        for (size_t i = 0; i < args->dim; i++)
            args->y[p * args->dim + i] += factor * shared[i];
    }
    return RP_OK;
}

/* The sigmoid is off by 2 units and the product by one, the sum by half a one of itself. */
enum rp_status rp_sigma_add_shared_expert(const struct rp_site *site,
                                          const struct rp_add_shared_expert *args, float *sigma)
{
    for (size_t p = 0; p < site->n_positions; p++) {
        const float factor = args->gate ? rp_sigmoid(args->gate[p]) : 1.0f;
        for (size_t i = 0; i < args->dim; i++) {
            const size_t at = p * args->dim + i;
            const double term = args->gate ? (double)factor * (double)args->shared[at] : 0;
            sigma[at] =
                (float)(RP_UNIT_ROUNDOFF * (3 * fabs(term) + 0.5 * fabs((double)args->y[at])));
        }
    }
    return RP_OK;
}
