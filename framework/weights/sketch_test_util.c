/* See weights/sketch_test_util.h. Aborts when something fails. */
#include "weights/sketch_test_util.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "weights/checkpoint.h"
#include "tensor/safetensors_builder.h"

#define ROOM ((size_t)1 << 22)

struct text {
    char *bytes; /* [ROOM] */
    size_t n;
};

struct writer {
    struct text header, manifest;
    unsigned char *data; /* [ROOM] */
    size_t n;
    const char *separator; /* before the next sketched tensor of the manifest */
};

static RP_PRINTF(2, 3) void add(struct text *text, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    text->n += (size_t)vsnprintf(text->bytes + text->n, ROOM - text->n, fmt, args);
    va_end(args);
    if (text->n >= ROOM)
        abort();
}

static void put(struct writer *writer, const void *bytes, size_t n)
{
    if (writer->n + n > ROOM)
        abort();
    memcpy(writer->data + writer->n, bytes, n);
    writer->n += n;
}

static void put_sketch(struct writer *writer, size_t row, const float *x, size_t n,
                       size_t n_vectors)
{
    double square = 0, envelope = 0, products[RP_SKETCH_MAX_VECTORS];
    for (size_t first = 0; first < n; first += RP_SKETCH_ENVELOPE_BLOCK) {
        double largest = 0;
        size_t i = first;
        for (; i < n && i < first + RP_SKETCH_ENVELOPE_BLOCK; i++) {
            square += (double)x[i] * (double)x[i];
            largest = fmax(largest, fabs((double)x[i]));
        }
        envelope += (double)(i - first) * largest * largest;
    }
    rp_sketch_products(row, x, n, NULL, n_vectors, products);
    const float norm = (float)sqrt(square), envelope_norm = (float)sqrt(envelope);
    put(writer, &norm, sizeof norm);
    put(writer, &envelope_norm, sizeof envelope_norm);
    for (size_t k = 0; k < n_vectors; k++) {
        const float product = (float)products[k];
        put(writer, &product, sizeof product);
    }
}

static void add_shape(struct text *text, const struct rp_safetensor *tensor)
{
    for (unsigned i = 0; i < tensor->n_dims; i++)
        add(text, "%s%zu", i > 0 ? "," : "", tensor->dims[i]);
}

static void write_tensor(struct writer *writer, const struct rp_checkpoint_tensor *tensor,
                         size_t whole_below, size_t n_vectors)
{
    const struct rp_safetensor *stored = tensor->tensor;
    const size_t first = writer->n, width = stored->n_dims ? stored->dims[stored->n_dims - 1] : 1;
    const size_t n_rows = stored->n_values / width;
    add(&writer->header, "\"%s\":{\"dtype\":", stored->name);
    if (stored->n_dims < 2 || stored->n_values < whole_below) {
        put(writer, stored->data, stored->n_bytes);
        add(&writer->header, "\"%s\",\"shape\":[", stored->type_name);
        add_shape(&writer->header, stored);
    } else {
        float *x = malloc(width * sizeof *x);
        for (size_t r = 0; r < n_rows; r++) {
            if (!x ||
                rp_safetensors_values(tensor->file, stored, r * width, width, x, NULL) != RP_OK)
                abort();
            put_sketch(writer, r, x, width, n_vectors);
        }
        free(x);
        add(&writer->header, "\"F32\",\"shape\":[%zu,%zu", n_rows, 2 + n_vectors);
        add(&writer->manifest, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", writer->separator,
            stored->name, stored->type_name);
        add_shape(&writer->manifest, stored);
        add(&writer->manifest, "]}");
        writer->separator = ",";
    }
    add(&writer->header, "],\"data_offsets\":[%zu,%zu]},", first, writer->n);
}

static void write_member(struct writer *writer, const char *name, const char *bytes, size_t n,
                         const char *end)
{
    add(&writer->header, "\"refparity.%s\":{\"dtype\":\"U8\",\"shape\":[%zu],", name, n);
    add(&writer->header, "\"data_offsets\":[%zu,%zu]}%s", writer->n, writer->n + n, end);
    put(writer, bytes, n);
}

void rp_test_write_sketch(const char *folder, size_t whole_below, size_t n_vectors,
                          const char *path)
{
    struct rp_checkpoint *checkpoint = NULL;
    struct writer writer = {.header.bytes = malloc(ROOM),
                            .manifest.bytes = malloc(ROOM),
                            .data = malloc(ROOM),
                            .separator = ""};
    char file[1024], *config = NULL;
    size_t n_config = 0;
    if (!writer.header.bytes || !writer.manifest.bytes || !writer.data ||
        rp_checkpoint_open(folder, &checkpoint, NULL) != RP_OK)
        abort();
    add(&writer.header, "{");
    add(&writer.manifest,
        "{\"format\":\"refparity-sketch\",\"version\":1,\"n_vectors\":%zu,\"sketched\":{",
        n_vectors);
    for (size_t i = 0; i < rp_checkpoint_n_tensors(checkpoint); i++)
        write_tensor(&writer, rp_checkpoint_tensor(checkpoint, i), whole_below, n_vectors);
    add(&writer.manifest, "}}");
    snprintf(file, sizeof file, "%s/config.json", folder);
    if (rp_file_read(file, ROOM, &config, &n_config, NULL) != RP_OK)
        abort();
    write_member(&writer, "config.json", config, n_config, ",");
    free(config);
    snprintf(file, sizeof file, "%s/generation_config.json", folder);
    if (rp_file_read(file, ROOM, &config, &n_config, NULL) == RP_OK) {
        write_member(&writer, "generation_config.json", config, n_config, ",");
        free(config);
    }
    write_member(&writer, "manifest", writer.manifest.bytes, writer.manifest.n, "}");
    safetensors_write(path, writer.header.bytes, writer.data, writer.n);
    rp_checkpoint_close(checkpoint);
    free(writer.header.bytes);
    free(writer.manifest.bytes);
    free(writer.data);
}
