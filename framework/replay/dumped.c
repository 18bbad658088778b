/* See replay/dumped.h. */
#include "replay/dumped.h"

#include "refparity/metrics.h"

void rp_dumped_open(struct rp_dumped *dumped, struct rp_tensor_set *set, enum rp_slot_part part,
                    int layer)
{
    *dumped = (struct rp_dumped){.err = {.code = RP_OK}};
    rp_slot_name(part, layer, dumped->slot);
    dumped->info = rp_tensor_set_find(set, dumped->slot);
    if (!dumped->info)
        return;
    dumped->err = dumped->info->error;
    if (dumped->err.code == RP_OK)
        rp_tensor_load(set, dumped->slot, &dumped->tensor, &dumped->err);
    if (dumped->err.code != RP_OK)
        dumped->tensor = (struct rp_tensor){.data = NULL};
}

void rp_dumped_close(struct rp_dumped *dumped)
{
    rp_tensor_release(&dumped->tensor);
    dumped->info = NULL;
}

void rp_dumped_check(struct rp_dumped *dumped)
{
    const struct rp_tensor *tensor = &dumped->tensor;
    dumped->is_all_finite =
        rp_metrics_count_nonfinite(tensor->data, tensor->n_positions * tensor->dim) == 0;
}

const void *rp_dumped_row(const struct rp_dumped *dumped, int64_t position)
{
    return rp_tensor_row(&dumped->tensor, position);
}

bool rp_dumped_is_finite(const struct rp_dumped *dumped, int64_t position)
{
    const void *row = rp_dumped_row(dumped, position);
    return row &&
           (dumped->is_all_finite || rp_metrics_count_nonfinite(row, dumped->tensor.dim) == 0);
}
