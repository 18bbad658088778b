/* SwiGLU: silu(gate) * up. HF: LlamaMLP, Qwen3MLP. */
#include <math.h>

#include "operations/activation.h"
#include "operations/operations.h"

enum rp_status rp_op_ffn_activation(void *context, const struct rp_site *site,
                                    const struct rp_ffn_activation *args)
{
    (void)context;
    for (size_t i = 0; i < site->n_positions * args->dim; i++) {
        float gate = args->gate[i];
        args->y[i] = rp_silu(gate) * args->up[i];
    }
    return RP_OK;
}

/* The exponential, the sum, the division and the product round once each; an exponential of an engine
 * of its own is right to 2 units. */
enum rp_status rp_sigma_ffn_activation(const struct rp_site *site,
                                       const struct rp_ffn_activation *args, float *sigma)
{
    for (size_t i = 0; i < site->n_positions * args->dim; i++)
        sigma[i] = (float)(2 * RP_UNIT_ROUNDOFF * fabs((double)args->y[i]));
    return RP_OK;
}
