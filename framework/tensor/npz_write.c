/* See tensor/npz_write.h. Section numbers are of PKWARE's APPNOTE.TXT. All sizes and places are given as
 * zip64 does (4.5.3), as numpy's own are, so that there is one form for small files and large ones. */
#include "tensor/npz_write.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum { PATH_SIZE = 4096, VERSION = 45, DATE = 0x21, NPY_HEADER = 128 };

/* A file that is being written, and what its central directory will say. */
struct writer {
    const char *path;
    FILE *file;
    uint64_t at; /* bytes written */
    FILE *directory;
    char *directory_bytes;
    size_t n_directory, n_members;
};

static void put(FILE *out, uint64_t value, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++)
        putc(i < sizeof value ? (int)(value >> 8 * i & 0xff) : 0, out);
}

/* Version, flags, method, time, date, CRC and both sizes: 4.3.7 and 4.3.12 have them alike. */
static void put_common(FILE *out, uint32_t crc)
{
    put(out, VERSION, 2);
    put(out, 0, 6);
    put(out, DATE, 2); /* 1980: the time of day is no part of what was computed */
    put(out, crc, 4);
    put(out, 0xffffffff, 4);
    put(out, 0xffffffff, 4);
}

/* One member NAME.npy of header[n_header], data[n_data]. */
static enum rp_status add_member(struct writer *writer, const char *name, const char *header,
                                 const void *data, size_t n_data, struct rp_error *err)
{
    char full_name[RP_SLOT_NAME_SIZE + 8];
    const size_t n_name = (size_t)snprintf(full_name, sizeof full_name, "%s.npy", name);
    const uint64_t size = NPY_HEADER + (uint64_t)n_data;
    uint32_t crc = (uint32_t)crc32_z(0, (const Bytef *)header, NPY_HEADER);
    crc = (uint32_t)crc32_z(crc, data, n_data);
    FILE *out = writer->file;
    put(out, 0x04034b50, 4); /* 4.3.7 */
    put_common(out, crc);
    put(out, n_name, 2);
    put(out, 20, 2);
    fwrite(full_name, n_name, 1, out);
    put(out, 1, 2);
    put(out, 16, 2);
    put(out, size, 8);
    put(out, size, 8);
    fwrite(header, NPY_HEADER, 1, out);
    fwrite(data, n_data, 1, out);

    FILE *directory = writer->directory;
    put(directory, 0x02014b50, 4); /* 4.3.12 */
    put(directory, VERSION, 2);
    put_common(directory, crc);
    put(directory, n_name, 2);
    put(directory, 28, 2);
    put(directory, 0, 10);
    put(directory, 0xffffffff, 4);
    fwrite(full_name, n_name, 1, directory);
    put(directory, 1, 2);
    put(directory, 24, 2);
    put(directory, size, 8);
    put(directory, size, 8);
    put(directory, writer->at, 8);

    writer->at += 30 + n_name + 20 + size;
    writer->n_members++;
    if (ferror(out) || ferror(directory))
        return rp_fail(err, RP_ERR_IO, writer->path, -1, "cannot write: %s", strerror(errno));
    return RP_OK;
}

/* 4.3.14 to 4.3.16. */
static enum rp_status add_directory(struct writer *writer, struct rp_error *err)
{
    FILE *out = writer->file;
    if (fflush(writer->directory))
        return rp_fail(err, RP_ERR_MEMORY, writer->path, -1, "not enough memory");
    fwrite(writer->directory_bytes, writer->n_directory, 1, out);
    put(out, 0x06064b50, 4);
    put(out, 44, 8);
    put(out, VERSION, 2);
    put(out, VERSION, 2);
    put(out, 0, 8);
    put(out, writer->n_members, 8);
    put(out, writer->n_members, 8);
    put(out, writer->n_directory, 8);
    put(out, writer->at, 8);
    put(out, 0x07064b50, 4);
    put(out, 0, 4);
    put(out, writer->at + writer->n_directory, 8);
    put(out, 1, 4);
    put(out, 0x06054b50, 4);
    put(out, 0, 4);
    put(out, 0xffff, 2);
    put(out, 0xffff, 2);
    put(out, 0xffffffff, 4);
    put(out, 0xffffffff, 4);
    put(out, 0, 2);
    if (fflush(out) || ferror(out) || fsync(fileno(out)))
        return rp_fail(err, RP_ERR_IO, writer->path, -1, "cannot write: %s", strerror(errno));
    return RP_OK;
}

/* numpy's format 1.0: magic, version, length of the text, the text, spaces, a newline. */
static void make_header(char out[NPY_HEADER], const char *descr, const char *shape)
{
    static const char start[] = "\x93NUMPY\x01";
    memset(out, ' ', NPY_HEADER);
    memcpy(out, start, sizeof start); /* its NUL is the minor version */
    out[8] = NPY_HEADER - 10;
    out[9] = 0;
    char text[NPY_HEADER - 10];
    const int n = snprintf(text, sizeof text,
                           "{'descr': '%s', 'fortran_order': False, 'shape': %s, }", descr, shape);
    memcpy(out + 10, text, (size_t)n);
    out[NPY_HEADER - 1] = '\n';
}

static enum rp_status add_vector(struct writer *writer, const char *name, const char *descr,
                                 const void *data, size_t n, size_t size, struct rp_error *err)
{
    char header[NPY_HEADER], shape[32];
    snprintf(shape, sizeof shape, "(%zu,)", n);
    make_header(header, descr, shape);
    return add_member(writer, name, header, data, n * size, err);
}

static enum rp_status check_finite(const struct writer *writer, const char *slot,
                                   const struct rp_tensor *tensor, struct rp_error *err)
{
    const char *bytes = tensor->data;
    for (size_t i = 0; i < tensor->n_positions * tensor->dim; i++) {
        float value;
        memcpy(&value, bytes + i * sizeof value, sizeof value);
        if (!isfinite(value))
            return rp_fail(err, RP_ERR_FORMAT, writer->path, -1,
                           "%s has a value that is not finite at position %lld: nothing can be "
                           "compared with it",
                           slot, (long long)tensor->positions[i / tensor->dim]);
    }
    return RP_OK;
}

static enum rp_status add_slot(struct writer *writer, struct rp_tensor_set *set, const char *slot,
                               const int64_t *positions, size_t n_positions, struct rp_error *err)
{
    struct rp_tensor tensor;
    char header[NPY_HEADER], shape[64];
    enum rp_status status = rp_tensor_load(set, slot, &tensor, err);
    if (status)
        return status;
    if (tensor.n_positions == n_positions &&
        memcmp(tensor.positions, positions, n_positions * sizeof *positions) == 0) {
        snprintf(shape, sizeof shape, "(%zu, %zu)", n_positions, tensor.dim);
        make_header(header, "<f4", shape);
        status = check_finite(writer, slot, &tensor, err);
        if (!status)
            status = add_member(writer, slot, header, tensor.data,
                                n_positions * tensor.dim * sizeof(float), err);
    }
    rp_tensor_release(&tensor);
    return status;
}

static enum rp_status add_all(struct writer *writer, struct rp_tensor_set *set,
                              const char *manifest, const int64_t *positions, size_t n_positions,
                              struct rp_error *err)
{
    const int64_t *ids;
    size_t n_tokens;
    int layer;
    enum rp_status status = rp_tensor_set_tokens(set, &ids, &n_tokens, err);
    if (!status && !ids)
        status = rp_fail(err, RP_ERR_FORMAT, rp_tensor_set_path(set), -1, "it has no tokens");
    if (!status)
        status = add_vector(writer, "manifest", "|u1", manifest, strlen(manifest), 1, err);
    if (!status)
        status = add_vector(writer, "tokens", "<i8", ids, n_tokens, sizeof *ids, err);
    if (!status)
        status =
            add_vector(writer, "positions", "<i8", positions, n_positions, sizeof *positions, err);
    for (size_t i = 0; !status && i < rp_tensor_set_n_slots(set); i++) {
        const char *slot = rp_tensor_set_slot(set, i)->name;
        if (rp_slot_parse(slot, &layer) != RP_PART_OTHER)
            status = add_slot(writer, set, slot, positions, n_positions, err);
    }
    return status ? status : add_directory(writer, err);
}

enum rp_status rp_npz_write(const char *path, struct rp_tensor_set *set, const char *manifest,
                            const int64_t *positions, size_t n_positions, struct rp_error *err)
{
    char aside[PATH_SIZE];
    struct writer writer = {.path = path};
    if ((size_t)snprintf(aside, sizeof aside, "%s.tmp-%ld", path, (long)getpid()) >= sizeof aside)
        return rp_fail(err, RP_ERR_ARGUMENT, path, -1, "the path is too long");
    writer.directory = open_memstream(&writer.directory_bytes, &writer.n_directory);
    if (!writer.directory)
        return rp_fail(err, RP_ERR_MEMORY, path, -1, "not enough memory");
    writer.file = fopen(aside, "wbe");
    enum rp_status status =
        writer.file ? add_all(&writer, set, manifest, positions, n_positions, err)
                    : rp_fail(err, RP_ERR_IO, aside, -1, "cannot be created: %s", strerror(errno));
    if (writer.file && fclose(writer.file) && !status)
        status = rp_fail(err, RP_ERR_IO, path, -1, "cannot write: %s", strerror(errno));
    if (!status && rename(aside, path))
        status = rp_fail(err, RP_ERR_IO, path, -1, "cannot be renamed to it: %s", strerror(errno));
    if (status)
        unlink(aside);
    fclose(writer.directory);
    free(writer.directory_bytes);
    return status;
}
