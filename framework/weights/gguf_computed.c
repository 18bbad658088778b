/* See weights/gguf_computed.h. The metadata is made as a file without tensors, and read as any other. */
#include "weights/gguf_computed.h"

#include "weights/checkpoint.h"

#include <stdlib.h>

#include "weights/gguf_internal.h"

#define HEADER_SIZE 24 /* magic, version, number of tensors, number of metadata entries */

static void put(struct rp_gguf_metadata *metadata, const void *bytes, size_t n)
{
    if (metadata->failed)
        return;
    if (metadata->size == 0)
        metadata->size = HEADER_SIZE;
    if (metadata->size + n > metadata->capacity) {
        const size_t capacity = 2 * (metadata->size + n);
        unsigned char *grown = realloc(metadata->bytes, capacity);
        metadata->failed = !grown;
        if (!grown)
            return;
        metadata->bytes = grown;
        metadata->capacity = capacity;
    }
    memcpy(metadata->bytes + metadata->size, bytes, n);
    metadata->size += n;
}

static void put_number(struct rp_gguf_metadata *metadata, uint64_t value, size_t n_bytes)
{
    unsigned char bytes[8];
    for (size_t i = 0; i < n_bytes; i++)
        bytes[i] = (unsigned char)(value >> 8 * i);
    put(metadata, bytes, n_bytes);
}

static void put_string(struct rp_gguf_metadata *metadata, const char *text)
{
    put_number(metadata, strlen(text), 8);
    put(metadata, text, strlen(text));
}

static void begin(struct rp_gguf_metadata *metadata, const char *key, enum rp_gguf_kind kind)
{
    put_string(metadata, key);
    put_number(metadata, kind, 4);
    metadata->n_values++;
}

void rp_gguf_metadata_size(struct rp_gguf_metadata *metadata, const char *key, size_t value)
{
    begin(metadata, key, RP_GGUF_UINT64);
    put_number(metadata, value, 8);
}

void rp_gguf_metadata_float(struct rp_gguf_metadata *metadata, const char *key, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    begin(metadata, key, RP_GGUF_FLOAT32);
    put_number(metadata, bits, 4);
}

void rp_gguf_metadata_string(struct rp_gguf_metadata *metadata, const char *key, const char *text)
{
    begin(metadata, key, RP_GGUF_STRING);
    put_string(metadata, text);
}

void rp_gguf_metadata_bool(struct rp_gguf_metadata *metadata, const char *key, bool value)
{
    begin(metadata, key, RP_GGUF_BOOL);
    put_number(metadata, value, 1);
}

void rp_gguf_metadata_ints(struct rp_gguf_metadata *metadata, const char *key,
                           const int64_t *values, size_t n)
{
    begin(metadata, key, RP_GGUF_ARRAY);
    put_number(metadata, RP_GGUF_INT64, 4);
    put_number(metadata, n, 8);
    for (size_t i = 0; i < n; i++)
        put_number(metadata, (uint64_t)values[i], 8);
}

void rp_gguf_metadata_bools(struct rp_gguf_metadata *metadata, const char *key, const bool *values,
                            size_t n)
{
    begin(metadata, key, RP_GGUF_ARRAY);
    put_number(metadata, RP_GGUF_BOOL, 4);
    put_number(metadata, n, 8);
    for (size_t i = 0; i < n; i++)
        put_number(metadata, values[i], 1);
}

static void write_header(struct rp_gguf_metadata *metadata)
{
    put(metadata, "", 0);
    const size_t size = metadata->size;
    metadata->size = 0;
    if (metadata->failed)
        return;
    metadata->size = HEADER_SIZE;
    memset(metadata->bytes, 0, HEADER_SIZE);
    memcpy(metadata->bytes, "GGUF\x03", 5);
    for (size_t i = 0; i < 8; i++)
        metadata->bytes[16 + i] = (unsigned char)((uint64_t)metadata->n_values >> 8 * i);
    metadata->size = size;
}

enum rp_status rp_gguf_open_computed(const char *path, struct rp_gguf_metadata *metadata,
                                     struct rp_gguf_tensor *tensors, size_t n,
                                     struct rp_gguf_source source, struct rp_gguf **out,
                                     struct rp_error *err)
{
    struct rp_gguf *gguf = NULL;
    enum rp_status status = RP_OK;
    write_header(metadata);
    if (metadata->failed || !tensors)
        status = rp_fail(err, RP_ERR_MEMORY, path, -1, "no memory for %zu tensors", n);
    if (status == RP_OK)
        status = rp_gguf_open_memory(metadata->bytes, metadata->size, path, &gguf, err);
    if (status != RP_OK) {
        free(metadata->bytes);
        free(tensors);
        source.close(source.context);
        return status;
    }
    gguf->image = metadata->bytes;
    gguf->source = source;
    free(gguf->tensors);
    gguf->tensors = tensors;
    gguf->n_tensors = n;
    status = rp_gguf_sort_tensors(gguf, err);
    if (status == RP_OK)
        *out = gguf;
    else
        rp_gguf_close(gguf);
    return status;
}

struct rp_sketched_row rp_origin_sketched_row(const struct rp_gguf_origin *origin, size_t r)
{
    const size_t n_each = origin->n_each;
    if (n_each == 0)
        return (struct rp_sketched_row){origin->sketch, origin->rows ? origin->rows[r] : r};
    if (origin->each)
        return (struct rp_sketched_row){&origin->each[r / n_each]->sketch, r % n_each};
    return (struct rp_sketched_row){origin->sketch,
                                    r / n_each * origin->stride + origin->first + r % n_each};
}

struct rp_gguf_origin rp_gguf_origin(const struct rp_gguf *gguf,
                                     const struct rp_gguf_tensor *tensor)
{
    return gguf->source.origin(gguf->source.context, (size_t)(tensor - gguf->tensors));
}
