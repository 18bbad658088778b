/* libFuzzer target: any bytes as a file that somebody has: told by its first bytes, its names read as slots,
 * every slot loaded. The last byte chooses the user's names.
 * Build with -fsanitize=fuzzer -DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION (no CRC is checked). */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tensor/names.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static const char *const users[] = {
    NULL, "", "h{l} -\n", "hidden_states h{l}\nemb tokens\n",
    "a{l+1} hidden_states.{l}\nb emb\nh0 hidden_states\nlayer_{l} h{l}\nx positions\n"};

static void read_all(struct rp_tensor_set *set)
{
    volatile uint8_t sum = 0;
    const int64_t *ids;
    size_t n_ids;
    (void)rp_tensor_set_tokens(set, &ids, &n_ids, NULL);
    for (size_t i = 0; i < rp_tensor_set_n_slots(set); i++) {
        const struct rp_slot_info *info = rp_tensor_set_slot(set, i);
        struct rp_tensor tensor;
        if (i > 0 && rp_slot_order(rp_tensor_set_slot(set, i - 1)->name, info->name) >= 0)
            abort(); /* two slots of one name */
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
    struct rp_tensor_set_options options = {.single_position = -1, .with_aliases = true};
    struct rp_tensor_set *set;
    struct rp_error err;
    char path[] = "/tmp/refparity-file-fuzz-XXXXXX", text[2200];
    const char *names = n > 0 ? users[bytes[n - 1] % (sizeof users / sizeof *users)] : NULL;
    const int fd = mkstemp(path);
    if (fd < 0 || write(fd, bytes, n) != (ssize_t)n)
        abort();
    close(fd);
    if (names && rp_names_parse(names, strlen(names), "names", &options.names, &err) != RP_OK)
        abort();
    if (rp_tensor_set_open_with(path, &options, &set, &err) == RP_OK) {
        read_all(set);
        rp_tensor_set_close(set);
    } else {
        rp_error_text(&err, text, sizeof text);
    }
    rp_names_free(options.names);
    unlink(path);
    return 0;
}
