/* libFuzzer target: any bytes are refused as safetensors, or read to the end without leaving them.
 * Seeds: framework/weights/corpus/safetensors. */
#include <stdint.h>
#include <stdlib.h>

#include "weights/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
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
