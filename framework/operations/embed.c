/* The rows of the embedding table, decoded; scaled where the architecture scales: one rounding, which
 * replay's least bound allows for. */
#include "operations/operations.h"

enum rp_status rp_op_embed(void *context, const struct rp_site *site, const struct rp_embed *args)
{
    (void)context;
    for (size_t i = 0; i < site->n_positions; i++) {
        enum rp_status status =
            rp_gguf_row(args->gguf, args->table, (size_t)(uint32_t)args->tokens[i],
                        args->y + i * site->config->hidden_size, site->err);
        if (status != RP_OK)
            return status;
        for (size_t k = 0; args->scale != 0 && k < site->config->hidden_size; k++)
            args->y[i * site->config->hidden_size + k] *= args->scale;
    }
    return RP_OK;
}
