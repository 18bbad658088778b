/* libFuzzer target: any bytes are refused as safetensors, and as a checkpoint's sketch, or read to the end
 * without leaving them.
 * Seeds: framework/weights/corpus/safetensors. */
#include <stdint.h>
#include <stdlib.h>

#include "weights/checkpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_sketch(const uint8_t *data, size_t size)
{
    struct rp_checkpoint *checkpoint = NULL;
    if (rp_checkpoint_open_sketch_memory(data, size, "fuzz", &checkpoint, NULL) != RP_OK)
        return;
    for (size_t i = 0; i < rp_checkpoint_n_tensors(checkpoint); i++) {
        const struct rp_checkpoint_tensor *tensor = rp_checkpoint_tensor(checkpoint, i);
        struct rp_row_sketch row;
        if (!tensor->sketch.data)
            continue;
        (void)rp_sketch_row(&tensor->sketch, 0, &row);
        (void)rp_sketch_row(&tensor->sketch, tensor->sketch.n_rows - 1, &row);
    }
    rp_checkpoint_close(checkpoint);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_sketch(data, size);
    struct rp_safetensors *file = NULL;
    if (rp_safetensors_open_memory(data, size, "fuzz", &file, NULL) != RP_OK)
        return 0;
    for (size_t i = 0; i < rp_safetensors_n_tensors(file); i++) {
        const struct rp_safetensor *tensor = rp_safetensors_tensor(file, i);
        float first, last;
        if (rp_safetensors_find(file, tensor->name) != tensor)
            abort();
        if (tensor->n_bytes == 0)
            continue;
        (void)rp_safetensors_values(file, tensor, 0, 1, &first, NULL);
        (void)rp_safetensors_values(file, tensor, tensor->n_values - 1, 1, &last, NULL);
    }
    rp_safetensors_close(file);
    return 0;
}
