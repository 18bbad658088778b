/* The rows of the embedding table, decoded: a copy, so that nothing may differ. */
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
    }
    return RP_OK;
}
