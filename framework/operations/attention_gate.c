/* Gated attention: Q and gate out of one projection, and the gate on the output.
 * HF: Qwen3_5Attention. */
#include <math.h>
#include <string.h>

#include "operations/activation.h"
#include "operations/operations.h"

enum rp_status rp_op_split_gate(void *context, const struct rp_site *site,
                                const struct rp_split_gate *args)
{
    (void)context;
    size_t dim = args->head_dim;
    for (size_t head = 0; head < site->n_positions * args->n_heads; head++) {
        memcpy(args->q + head * dim, args->x + 2 * head * dim, dim * sizeof *args->q);
        memcpy(args->gate + head * dim, args->x + (2 * head + 1) * dim, dim * sizeof *args->gate);
    }
    return RP_OK;
}

enum rp_status rp_op_attention_gate(void *context, const struct rp_site *site,
                                    const struct rp_attention_gate *args)
{
    (void)context;
    for (size_t i = 0; i < site->n_positions * args->dim; i++)
        args->y[i] *= rp_sigmoid(args->gate[i]);
    return RP_OK;
}

enum rp_status rp_sigma_attention_gate(const struct rp_site *site,
                                       const struct rp_attention_gate *args, float *sigma)
{
    for (size_t i = 0; i < site->n_positions * args->dim; i++)
        sigma[i] = (float)(2 * RP_UNIT_ROUNDOFF * fabs((double)args->y[i]));
    return RP_OK;
}
