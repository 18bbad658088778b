/* libFuzzer target: any bytes as an .npz, opened and read whole through the public interface.
 * Build with -fsanitize=fuzzer -DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION (no CRC is checked). */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "refparity/tensor_set.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void read_all(struct rp_tensor_set *set)
{
    volatile uint8_t sum = 0;
    const int64_t *ids;
    size_t n_ids;
    rp_tensor_set_tokens(set, &ids, &n_ids, NULL);
    for (size_t i = 0; i < rp_tensor_set_n_slots(set); i++) {
        const struct rp_slot_info *info = rp_tensor_set_slot(set, i);
        struct rp_tensor tensor;
        if (rp_tensor_load(set, info->name, &tensor, NULL) != RP_OK)
            continue;
        for (size_t row = 0; row < tensor.n_positions; row++)
            if (tensor.positions[row] < 0 ||
                (row > 0 && tensor.positions[row] <= tensor.positions[row - 1]))
                abort();
        for (size_t at = 0; at < tensor.n_positions * tensor.dim * 4; at++)
            sum = (uint8_t)(sum + ((const uint8_t *)tensor.data)[at]);
        rp_tensor_release(&tensor);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct rp_tensor_set *set;
    struct rp_error err;
    char path[] = "/tmp/refparity-npz-fuzz-XXXXXX", text[2200];
    int fd = mkstemp(path);
    if (fd < 0 || write(fd, bytes, n) != (ssize_t)n)
        abort();
    close(fd);
    if (rp_tensor_set_open(path, RP_LAYOUT_NPZ, 0, &set, &err) == RP_OK) {
        read_all(set);
        rp_tensor_set_close(set);
    } else {
        rp_error_text(&err, text, sizeof text);
    }
    unlink(path);
    return 0;
}
