/* libFuzzer target: any bytes as an .npy, parsed, checked as each type and read. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct rp_npy npy;
    struct rp_error err;
    char shape[64];
    size_t n_rows, dim;
    if (rp_npy_parse(bytes, n, "fuzz.npy", &npy, &err) != RP_OK)
        return 0;
    if (npy.data_offset > n || strlen(rp_npy_shape_text(&npy, shape, sizeof shape)) < 2)
        abort();
    if (rp_npy_check(&npy, RP_NPY_FLOAT32, n, "fuzz.npy", &err) == RP_OK &&
        rp_npy_rows(&npy, "fuzz.npy", &n_rows, &dim, &err) == RP_OK &&
        n_rows * dim * 4 != n - npy.data_offset)
        abort();
    if (rp_npy_check(&npy, RP_NPY_UINT8, n, "fuzz.npy", &err) == RP_OK &&
        npy.n_elements != n - npy.data_offset)
        abort();
    if (rp_npy_check(&npy, RP_NPY_INT64, n, "fuzz.npy", &err) == RP_OK) {
        int64_t *values = malloc((size_t)npy.n_elements * sizeof *values + 1);
        if (values)
            rp_npy_int64(&npy, bytes, values);
        free(values);
    }
    return 0;
}
