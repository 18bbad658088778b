/* Makes safetensors files for tests, right and wrong ones. */
#ifndef REFPARITY_TENSOR_SAFETENSORS_BUILDER_H
#define REFPARITY_TENSOR_SAFETENSORS_BUILDER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The file's bytes, to be freed: header's length, header, n bytes of data. */
static inline unsigned char *safetensors_make(const char *header, const void *data, size_t n,
                                              size_t *size)
{
    const size_t length = strlen(header);
    unsigned char *bytes = malloc(8 + length + n);
    if (!bytes)
        abort();
    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (unsigned char)((uint64_t)length >> 8 * i);
    for (size_t i = 0; i < length; i++)
        bytes[8 + i] = (unsigned char)header[i];
    if (n > 0)
        memcpy(bytes + 8 + length, data, n);
    *size = 8 + length + n;
    return bytes;
}

/* The same, as a file. */
static inline void safetensors_write(const char *path, const char *header, const void *data,
                                     size_t n)
{
    size_t size;
    unsigned char *bytes = safetensors_make(header, data, n, &size);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file) != 0)
        abort();
    free(bytes);
}

#endif
