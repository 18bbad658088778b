/* libFuzzer target: any bytes as an .npy, parsed, checked and read. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* Each slot of a stack, into memory of exactly its size. */
static void read_rows(const struct rp_npy *npy, const uint8_t *bytes, bool may_be_stacked)
{
    struct rp_rows rows;
    if (rp_array_rows(&npy->array, may_be_stacked, "fuzz.npy", &rows, NULL) != RP_OK)
        return;
    if (rows.n * rows.dim * rows.n_stacked != npy->array.n_elements)
        abort();
    float *values = malloc(rows.n * rows.dim * sizeof *values);
    for (size_t i = 0; values && i < rows.n_stacked; i += 1 + rows.n_stacked / 3) {
        rows.first = i * rows.stack_stride;
        rp_rows_read(&rows, bytes + npy->data_offset, values);
    }
    free(values);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct rp_npy npy;
    struct rp_error err;
    char shape[64];
    int64_t *values;
    size_t n_values;
    if (rp_npy_parse(bytes, n, "fuzz.npy", &npy, &err) != RP_OK)
        return 0;
    if (npy.data_offset > n || strlen(rp_array_shape_text(&npy.array, shape, sizeof shape)) < 2)
        abort();
    if (rp_npy_check(&npy, n, "fuzz.npy", &err) != RP_OK)
        return 0;
    read_rows(&npy, bytes, false);
    read_rows(&npy, bytes, true);
    if (rp_array_int64(&npy.array, bytes + npy.data_offset, 1 << 20, "fuzz.npy", &values, &n_values,
                       &err) == RP_OK)
        free(values);
    return 0;
}
