/* libFuzzer target: any bytes are refused as GGUF, or read to the end without leaving them.
 * Seeds: framework/weights/corpus/gguf. */
#include <stdint.h>
#include <stdlib.h>

#include "refparity/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_values(const struct rp_gguf *gguf)
{
    char text[128];
    for (size_t i = 0; i < rp_gguf_n_values(gguf); i++) {
        const struct rp_gguf_value *value = rp_gguf_value(gguf, i);
        rp_gguf_value_text(gguf, value, text, sizeof text);
    }
}

static void read_tensors(const struct rp_gguf *gguf)
{
    for (size_t i = 0; i < rp_gguf_n_tensors(gguf); i++) {
        const struct rp_gguf_tensor *tensor = rp_gguf_tensor(gguf, i);
        float *row = malloc(tensor->dims[0] * sizeof *row);
        if (row && rp_gguf_find_tensor(gguf, tensor->name) == tensor) {
            rp_gguf_row(gguf, tensor, 0, row, NULL);
            rp_gguf_row(gguf, tensor, tensor->n_rows - 1, row, NULL);
        }
        free(row);
    }
}

/* The getters, on keys that the seeds have. */
static void read_keys(const struct rp_gguf *gguf)
{
    int64_t number, *numbers = NULL;
    double real, *reals = NULL;
    bool flag, *flags = NULL;
    struct rp_gguf_string string, *strings = NULL;
    size_t n;
    rp_gguf_get_int(gguf, "number", INT64_MIN, INT64_MAX, &number, NULL);
    rp_gguf_get_float(gguf, "real", &real, NULL);
    rp_gguf_get_bool(gguf, "flag", &flag, NULL);
    rp_gguf_get_string(gguf, "general.architecture", &string, NULL);
    rp_gguf_get_ints(gguf, "ints", &numbers, &n, NULL);
    rp_gguf_get_floats(gguf, "floats", &reals, &n, NULL);
    rp_gguf_get_bools(gguf, "flags", &flags, &n, NULL);
    rp_gguf_get_strings(gguf, "words", &strings, &n, NULL);
    free(numbers);
    free(reals);
    free(flags);
    free(strings);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rp_gguf *gguf;
    struct rp_error err;
    if (rp_gguf_open_memory(data, size, "fuzz", &gguf, &err) != RP_OK)
        return 0;
    read_values(gguf);
    read_tensors(gguf);
    read_keys(gguf);
    rp_gguf_close(gguf);
    return 0;
}
