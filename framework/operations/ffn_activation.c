/* SwiGLU: silu(gate) * up. HF: LlamaMLP, Qwen3MLP. GeGLU: gelu(gate) * up. HF: Gemma3MLP. */
#include <math.h>

#include "operations/activation.h"
#include "operations/operations.h"

/* Where 1 + tanh cancels, x is about -2: |x| / 2 times the units that tanh is off by, and the 1 + has lost. */
#define GELU_ERROR 2

enum rp_status rp_op_ffn_activation(void *context, const struct rp_site *site,
                                    const struct rp_ffn_activation *args)
{
    (void)context;
    for (size_t i = 0; i < site->n_positions * args->dim; i++) {
        args->y[i] = rp_activation(args->function, args->gate[i]) * args->up[i];
    }
    return RP_OK;
}

/* The exponential, the sum, the division and the product round once each; an exponential of an engine
 * of its own is right to 2 units. Of GELU, 1 + tanh is off by a unit of 1 also where it is near 0; the gate
 * may have been overwritten, so that its size there is taken to be 2. */
enum rp_status rp_sigma_ffn_activation(const struct rp_site *site,
                                       const struct rp_ffn_activation *args, float *sigma)
{
    for (size_t i = 0; i < site->n_positions * args->dim; i++) {
        const double of_output = 2 * RP_UNIT_ROUNDOFF * fabs((double)args->y[i]);
        const double of_tanh = args->function == RP_GELU_TANH
                                   ? GELU_ERROR * RP_UNIT_ROUNDOFF * fabs((double)args->up[i])
                                   : 0;
        sigma[i] = (float)(of_output + of_tanh);
    }
    return RP_OK;
}
