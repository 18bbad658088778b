/* Writes small GGUF files for tests, valid ones and, on request, not. Tests only. */
#ifndef REFPARITY_WEIGHTS_GGUF_BUILDER_H
#define REFPARITY_WEIGHTS_GGUF_BUILDER_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "refparity/gguf.h"

#define GGUF_BUILDER_ALIGNMENT 32

struct gguf_bytes {
    unsigned char *data; /* [size] */
    size_t size;
};

struct gguf_builder {
    uint32_t version; /* 0: 3 */
    uint64_t n_values, n_tensors;
    struct gguf_bytes values, tensors, data;
};

static inline void gguf_put(struct gguf_bytes *bytes, const void *data, size_t n)
{
    unsigned char *grown = realloc(bytes->data, bytes->size + n + 1);
    if (!grown)
        abort();
    if (n > 0)
        memcpy(grown + bytes->size, data, n);
    bytes->data = grown;
    bytes->size += n;
}

static inline void gguf_put_u32(struct gguf_bytes *bytes, uint32_t value)
{
    gguf_put(bytes, &value, sizeof value);
}

static inline void gguf_put_u64(struct gguf_bytes *bytes, uint64_t value)
{
    gguf_put(bytes, &value, sizeof value);
}

static inline void gguf_put_string(struct gguf_bytes *bytes, const char *text)
{
    gguf_put_u64(bytes, strlen(text));
    gguf_put(bytes, text, strlen(text));
}

static inline void gguf_add(struct gguf_builder *builder, const char *key, uint32_t kind,
                            const void *value, size_t n)
{
    gguf_put_string(&builder->values, key);
    gguf_put_u32(&builder->values, kind);
    gguf_put(&builder->values, value, n);
    builder->n_values++;
}

static inline void gguf_add_u32(struct gguf_builder *builder, const char *key, uint32_t value)
{
    gguf_add(builder, key, RP_GGUF_UINT32, &value, sizeof value);
}

static inline void gguf_add_f32(struct gguf_builder *builder, const char *key, float value)
{
    gguf_add(builder, key, RP_GGUF_FLOAT32, &value, sizeof value);
}

static inline void gguf_add_string(struct gguf_builder *builder, const char *key, const char *text)
{
    gguf_put_string(&builder->values, key);
    gguf_put_u32(&builder->values, RP_GGUF_STRING);
    gguf_put_string(&builder->values, text);
    builder->n_values++;
}

static inline void gguf_add_array(struct gguf_builder *builder, const char *key, uint32_t kind,
                                  uint64_t n_elements, const void *elements, size_t n)
{
    gguf_put_string(&builder->values, key);
    gguf_put_u32(&builder->values, RP_GGUF_ARRAY);
    gguf_put_u32(&builder->values, kind);
    gguf_put_u64(&builder->values, n_elements);
    gguf_put(&builder->values, elements, n);
    builder->n_values++;
}

/* The tensor's entry alone, whatever it says. */
static inline void gguf_add_info(struct gguf_builder *builder, const char *name, uint32_t type,
                                 uint32_t n_dims, const uint64_t *dims, uint64_t offset)
{
    gguf_put_string(&builder->tensors, name);
    gguf_put_u32(&builder->tensors, n_dims);
    gguf_put(&builder->tensors, dims, n_dims * sizeof *dims);
    gguf_put_u32(&builder->tensors, type);
    gguf_put_u64(&builder->tensors, offset);
    builder->n_tensors++;
}

/* dims[0] is the row length; data is [n], behind the padding that it needs. */
static inline void gguf_add_tensor(struct gguf_builder *builder, const char *name, uint32_t type,
                                   uint32_t n_dims, const uint64_t *dims, const void *data,
                                   size_t n)
{
    while (builder->data.size % GGUF_BUILDER_ALIGNMENT != 0)
        gguf_put(&builder->data, "", 1);
    gguf_add_info(builder, name, type, n_dims, dims, builder->data.size);
    gguf_put(&builder->data, data, n);
}

/* The file; *header_size (may be NULL) is what stands before the padding and the data. Frees the
 * builder's memory; the caller frees the result's data. */
static inline struct gguf_bytes gguf_finish(struct gguf_builder *builder, size_t *header_size)
{
    struct gguf_bytes file = {NULL, 0};
    gguf_put(&file, "GGUF", 4);
    gguf_put_u32(&file, builder->version ? builder->version : 3);
    gguf_put_u64(&file, builder->n_tensors);
    gguf_put_u64(&file, builder->n_values);
    gguf_put(&file, builder->values.data, builder->values.size);
    gguf_put(&file, builder->tensors.data, builder->tensors.size);
    if (header_size)
        *header_size = file.size;
    while (builder->data.size > 0 && file.size % GGUF_BUILDER_ALIGNMENT != 0)
        gguf_put(&file, "", 1);
    gguf_put(&file, builder->data.data, builder->data.size);
    free(builder->values.data);
    free(builder->tensors.data);
    free(builder->data.data);
    memset(builder, 0, sizeof *builder);
    return file;
}

/* gguf_finish, to a file. */
static inline void gguf_write(struct gguf_builder *builder, const char *path)
{
    struct gguf_bytes bytes = gguf_finish(builder, NULL);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes.data, 1, bytes.size, file) != bytes.size || fclose(file) != 0)
        abort();
    free(bytes.data);
}

#endif
