/* A file with something of everything, for the GGUF reader's tests. Tests only; include cmocka.h
 * first. */
#ifndef REFPARITY_WEIGHTS_GGUF_SAMPLE_H
#define REFPARITY_WEIGHTS_GGUF_SAMPLE_H

#include "weights/gguf_builder.h"

static inline struct rp_gguf *open_bytes(const struct gguf_bytes *file)
{
    struct rp_gguf *gguf = NULL;
    struct rp_error err = {.code = RP_OK};
    enum rp_status status = rp_gguf_open_memory(file->data, file->size, "file", &gguf, &err);
    if (status != RP_OK)
        print_error("%s\n", err.message);
    assert_int_equal(status, RP_OK);
    return gguf;
}

/* A file with something of everything. */
static inline struct gguf_bytes make_sample(uint32_t version, size_t *header_size)
{
    static const float floats[4] = {1.5f, -2.0f, 0.25f, 3.0f};
    static const uint64_t matrix[2] = {2, 2}, vector[1] = {3};
    static const int32_t ints[3] = {-7, 0, 9};
    struct gguf_bytes strings = {NULL, 0};
    struct gguf_builder builder = {.version = version};
    gguf_put_string(&strings, "one");
    gguf_put_string(&strings, "");
    gguf_add_string(&builder, "general.architecture", "test");
    gguf_add_u32(&builder, "number", 4096);
    gguf_add_array(&builder, "words", RP_GGUF_STRING, 2, strings.data, strings.size);
    gguf_add_array(&builder, "ints", RP_GGUF_INT32, 3, ints, sizeof ints);
    gguf_add_tensor(&builder, "vector", RP_GGML_F32, 1, vector, floats, 12);
    gguf_add_tensor(&builder, "matrix", RP_GGML_F32, 2, matrix, floats, 16);
    free(strings.data);
    return gguf_finish(&builder, header_size);
}

/* Uses everything that an open file offers. */
static inline void read_everything(const struct rp_gguf *gguf)
{
    char text[64];
    for (size_t i = 0; i < rp_gguf_n_values(gguf); i++) {
        assert_non_null(rp_gguf_value_text(gguf, rp_gguf_value(gguf, i), text, sizeof text));
        assert_true(strlen(text) < sizeof text);
    }
    for (size_t i = 0; i < rp_gguf_n_tensors(gguf); i++) {
        const struct rp_gguf_tensor *tensor = rp_gguf_tensor(gguf, i);
        float *row = malloc(tensor->dims[0] * sizeof *row);
        assert_non_null(row);
        assert_ptr_equal(rp_gguf_find_tensor(gguf, tensor->name), tensor);
        if (rp_ggml_type_is_readable(tensor->type))
            assert_int_equal(rp_gguf_row(gguf, tensor, tensor->n_rows - 1, row, NULL), RP_OK);
        free(row);
    }
}

#endif
