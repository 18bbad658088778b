/* GELU as ggml's CPU kernels compute it whatever the weights are: its input and its value are rounded to F16
 * (ggml_vec_geglu_f32 with GGML_GELU_FP16), between -10 and 10. HF does not round. Inputs of a dump are the
 * ones that were rounded; where they had to be computed, what tips in them is not allowed for. */
#include <math.h>

#include "formats/half.h"
#include "operations/activation.h"
#include "operations/emulation.h"
#include "operations/operations.h"
#include "operations/state.h"

#define TABLE_END 10.0f
/* What the table's maker may be off by: units of |x| / 2 times 1 + tanh, and of tanh where that is near -1. */
#define TABLE_ERROR (4 * RP_UNIT_ROUNDOFF)

static float by_table(const struct rp_emulation *emulation, size_t p, float x, float up)
{
    if (x <= -TABLE_END)
        return 0;
    if (x >= TABLE_END)
        return x;
    const float rounded = rp_round_f16(x), value = rp_gelu_tanh(rounded);
    if (emulation->tips && p < emulation->n_tips) {
        const double noise = TABLE_ERROR * fabs((double)rounded);
        const double tip = rp_state_tip(RP_STATE_F16, value, noise) * (double)up;
        emulation->tips[p] += tip * tip;
    }
    return rp_round_f16(value);
}

enum rp_status rp_gelu_by_table(void *context, const struct rp_site *site,
                                const struct rp_ffn_activation *args)
{
    const struct rp_emulation *emulation = context;
    const struct rp_ops *below = emulation->overlay.below;
    if (args->function != RP_GELU_TANH)
        return below->ffn_activation(below->context, site, args);
    for (size_t i = 0; i < site->n_positions * args->dim; i++)
        args->y[i] = by_table(emulation, i / args->dim, args->gate[i], args->up[i]) * args->up[i];
    return RP_OK;
}
