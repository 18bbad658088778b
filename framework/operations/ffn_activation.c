/* SwiGLU: silu(gate) * up. HF: LlamaMLP, Qwen3MLP. GeGLU: gelu(gate) * up. HF: Gemma3MLP. The clamped SwiGLU:
 * (up + 1) * gate * sigmoid(1.702 gate), gate at most 7, up within -7 and 7. HF: GptOssExperts. */
#include <math.h>

#include "operations/activation.h"
#include "operations/operations.h"

/* Where 1 + tanh cancels, x is about -2: |x| / 2 times the units that tanh is off by, and the 1 + has lost. */
#define GELU_ERROR 2
/* The product x = alpha gate is rounded in front of the sigmoid s, by |x| u at most: gate s errs by x^2 s (1 - s) u
 * / alpha, which is 0.258 u at most, near |x| = 2.4. */
#define ALPHA_ERROR 0.26
/* As standard errors: 2 units, and two roundings of u / sqrt(3). */
#define CLAMPED_UNITS sqrt(2 * 2 + 2.0 / 3)

enum rp_status rp_op_ffn_activation(void *context, const struct rp_site *site,
                                    const struct rp_ffn_activation *args)
{
    (void)context;
    for (size_t i = 0; i < site->n_positions * args->dim; i++) {
        args->y[i] = rp_gated(args->function, args->gate[i], args->up[i]);
    }
    return RP_OK;
}

/* The size of what is lost where the gate is below 0, for a unit: the gate may have been overwritten, so that
 * it is taken to be where most is lost. */
static double of_negative_gate(const struct rp_ffn_activation *args, size_t i)
{
    switch (args->function) {
    case RP_GELU_TANH: return GELU_ERROR * fabs((double)args->up[i]);
    case RP_CLAMPED_SWISH: return ALPHA_ERROR * fabs((double)rp_clamped_up(args->up[i]) + 1);
    case RP_SILU: break;
    }
    return 0;
}

/* The exponential, the sum, the division and the product round once each; an exponential of an engine
 * of its own is right to 2 units. Of GELU, 1 + tanh is off by a unit of 1 also where it is near 0. The clamped
 * SwiGLU has two roundings more, up + 1 and a product. */
enum rp_status rp_sigma_ffn_activation(const struct rp_site *site,
                                       const struct rp_ffn_activation *args, float *sigma)
{
    for (size_t i = 0; i < site->n_positions * args->dim; i++) {
        const double units = args->function == RP_CLAMPED_SWISH ? CLAMPED_UNITS : 2;
        sigma[i] = (float)(RP_UNIT_ROUNDOFF *
                           (units * fabs((double)args->y[i]) + of_negative_gate(args, i)));
    }
    return RP_OK;
}
