/* See tensor/npz_writer_test_util.h. */
#include "tensor/npz_writer_test_util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static void require(int is_met)
{
    if (!is_met)
        abort();
}

void rp_test_put(struct rp_test_bytes *out, const void *bytes, size_t n)
{
    if (out->n + n > out->max) {
        out->max = 2 * (out->n + n) + 64;
        out->data = realloc(out->data, out->max);
        require(out->data != NULL);
    }
    if (n > 0)
        memcpy(out->data + out->n, bytes, n);
    out->n += n;
}

void rp_test_put_u64(struct rp_test_bytes *out, uint64_t value)
{
    rp_test_put_u32(out, value);
    rp_test_put_u32(out, value >> 32);
}

void rp_test_put_u32(struct rp_test_bytes *out, uint64_t value)
{
    rp_test_put_u16(out, (unsigned)(value & 0xffff));
    rp_test_put_u16(out, (unsigned)(value >> 16 & 0xffff));
}

void rp_test_put_u16(struct rp_test_bytes *out, unsigned value)
{
    uint8_t bytes[2] = {(uint8_t)(value & 0xff), (uint8_t)(value >> 8 & 0xff)};
    rp_test_put(out, bytes, sizeof bytes);
}

void rp_test_free(struct rp_test_bytes *out)
{
    free(out->data);
    memset(out, 0, sizeof *out);
}

void rp_test_npy_dict(struct rp_test_bytes *out, int version, const char *dict, const void *data,
                      size_t n)
{
    uint8_t start[8] = {0x93, 'N', 'U', 'M', 'P', 'Y', (uint8_t)version, 0};
    size_t n_dict = strlen(dict), n_start = version == 1 ? 10 : 12;
    size_t padding = 64 - (n_start + n_dict + 1) % 64;
    rp_test_put(out, start, sizeof start);
    if (version == 1)
        rp_test_put_u16(out, (unsigned)(n_dict + padding + 1));
    else
        rp_test_put_u32(out, n_dict + padding + 1);
    rp_test_put(out, dict, n_dict);
    for (size_t i = 0; i < padding; i++)
        rp_test_put(out, " ", 1);
    rp_test_put(out, "\n", 1);
    rp_test_put(out, data, n);
}

void rp_test_npy(struct rp_test_bytes *out, const char *descr, const char *shape, const void *data,
                 size_t n)
{
    char dict[256];
    snprintf(dict, sizeof dict, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }", descr,
             shape);
    rp_test_npy_dict(out, 1, dict, data, n);
}

void rp_test_npy_rows(struct rp_test_bytes *out, size_t n_rows, size_t dim, float first)
{
    char shape[64];
    float *values = malloc((n_rows * dim + 1) * sizeof *values);
    require(values != NULL);
    for (size_t i = 0; i < n_rows * dim; i++)
        values[i] = first + (float)i;
    snprintf(shape, sizeof shape, "(%zu, %zu)", n_rows, dim);
    rp_test_npy(out, "<f4", shape, values, n_rows * dim * sizeof *values);
    free(values);
}

static void deflate_all(struct rp_test_bytes *out, const void *content, size_t n)
{
    uint8_t buffer[4096];
    z_stream stream;
    memset(&stream, 0, sizeof stream);
    require(deflateInit2(&stream, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    stream.next_in = (Bytef *)(uintptr_t)content;
    stream.avail_in = (uInt)n;
    int result;
    do {
        stream.next_out = buffer;
        stream.avail_out = sizeof buffer;
        result = deflate(&stream, Z_FINISH);
        rp_test_put(out, buffer, sizeof buffer - stream.avail_out);
    } while (result == Z_OK);
    require(result == Z_STREAM_END);
    deflateEnd(&stream);
}

/* Version, flags, method, time and date: the same 10 bytes in both headers. */
static void put_common(struct rp_test_bytes *out, unsigned how)
{
    rp_test_put_u16(out, how & (RP_TEST_ZIP64 | RP_TEST_ZIP64_ENTRY) ? 45 : 20);
    rp_test_put_u16(out, 0);
    rp_test_put_u16(out, how & RP_TEST_DEFLATED ? 8 : 0);
    rp_test_put_u16(out, 0);
    rp_test_put_u16(out, 0x21);
}

void rp_test_zip_add(struct rp_test_zip *zip, const char *name, const void *content, size_t n,
                     unsigned how)
{
    struct rp_test_bytes packed = {NULL, 0, 0};
    uint64_t offset = zip->members.n, crc = crc32_z(0, content, n);
    unsigned n_name = (unsigned)strlen(name);
    if (how & RP_TEST_DEFLATED)
        deflate_all(&packed, content, n);
    else
        rp_test_put(&packed, content, n);

    struct rp_test_bytes *out = &zip->members;
    zip->last_header = out->n;
    rp_test_put_u32(out, 0x04034b50);
    put_common(out, how);
    rp_test_put_u32(out, crc);
    rp_test_put_u32(out, how & RP_TEST_ZIP64 ? 0xffffffff : packed.n);
    rp_test_put_u32(out, how & RP_TEST_ZIP64 ? 0xffffffff : n);
    rp_test_put_u16(out, n_name);
    rp_test_put_u16(out, how & RP_TEST_ZIP64 ? 20 : 0);
    rp_test_put(out, name, n_name);
    if (how & RP_TEST_ZIP64) {
        rp_test_put_u16(out, 1);
        rp_test_put_u16(out, 16);
        rp_test_put_u64(out, n);
        rp_test_put_u64(out, packed.n);
    }
    rp_test_put(out, packed.data, packed.n);

    out = &zip->directory;
    zip->last_entry = out->n;
    rp_test_put_u32(out, 0x02014b50);
    rp_test_put_u16(out, 45);
    put_common(out, how);
    rp_test_put_u32(out, crc);
    rp_test_put_u32(out, how & RP_TEST_ZIP64_ENTRY ? 0xffffffff : packed.n);
    rp_test_put_u32(out, how & RP_TEST_ZIP64_ENTRY ? 0xffffffff : n);
    rp_test_put_u16(out, n_name);
    rp_test_put_u16(out, how & RP_TEST_ZIP64_ENTRY ? 28 : 0);
    rp_test_put(out, "\0\0\0\0\0\0\0\0\0\0", 10);
    rp_test_put_u32(out, how & RP_TEST_ZIP64_ENTRY ? 0xffffffff : offset);
    rp_test_put(out, name, n_name);
    if (how & RP_TEST_ZIP64_ENTRY) {
        rp_test_put_u16(out, 1);
        rp_test_put_u16(out, 24);
        rp_test_put_u64(out, n);
        rp_test_put_u64(out, packed.n);
        rp_test_put_u64(out, offset);
    }
    zip->n_members++;
    rp_test_free(&packed);
}

void rp_test_zip_finish(struct rp_test_zip *zip, int is_zip64, struct rp_test_bytes *out)
{
    uint64_t directory_at = out->n + zip->members.n;
    rp_test_put(out, zip->members.data, zip->members.n);
    rp_test_put(out, zip->directory.data, zip->directory.n);
    if (is_zip64) {
        uint64_t end_at = out->n;
        rp_test_put_u32(out, 0x06064b50);
        rp_test_put_u64(out, 44);
        rp_test_put_u32(out, 45u << 16 | 45u);
        rp_test_put_u64(out, 0);
        rp_test_put_u64(out, zip->n_members);
        rp_test_put_u64(out, zip->n_members);
        rp_test_put_u64(out, zip->directory.n);
        rp_test_put_u64(out, directory_at);
        rp_test_put_u32(out, 0x07064b50);
        rp_test_put_u32(out, 0);
        rp_test_put_u64(out, end_at);
        rp_test_put_u32(out, 1);
    }
    rp_test_put_u32(out, 0x06054b50);
    rp_test_put_u32(out, 0);
    rp_test_put_u16(out, is_zip64 ? 0xffff : zip->n_members);
    rp_test_put_u16(out, is_zip64 ? 0xffff : zip->n_members);
    rp_test_put_u32(out, is_zip64 ? 0xffffffff : zip->directory.n);
    rp_test_put_u32(out, is_zip64 ? 0xffffffff : directory_at);
    rp_test_put_u16(out, 0);
    rp_test_free(&zip->members);
    rp_test_free(&zip->directory);
    memset(zip, 0, sizeof *zip);
}
