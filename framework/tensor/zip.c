/* See tensor/zip.h. Section numbers are of PKWARE's APPNOTE.TXT. */
#include "tensor/zip.h"

#define ZLIB_CONST
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/crc32.h"

#define END_SIZE 22       /* 4.3.16, without its comment */
#define LOCATOR_SIZE 20   /* 4.3.15 */
#define END64_SIZE 56     /* 4.3.14, without its extensible data */
#define DIRECTORY_SIZE 46 /* 4.3.12, without name, extra field and comment */
#define LOCAL_SIZE 30     /* 4.3.7, without name and extra field */
#define MAX_COMMENT 65535
#define METHOD_STORED 0
#define METHOD_DEFLATED 8
/* 4.4.4: encrypted, patch data, strong encryption, masked headers. */
#define REFUSED_FLAGS (1u << 0 | 1u << 5 | 1u << 6 | 1u << 13)
/* Deflate cannot do better: 258 bytes from 2 bits, https://zlib.net/zlib_tech.html. */
#define MAX_DEFLATE_RATIO 1032
/* Activations deflate to nine tenths, token ids to a quarter: what is large and shrinks a hundredfold is
 * nothing that was computed, and is not worth its memory. */
#define LARGE_SIZE ((uint64_t)64 << 20)
#define MAX_LARGE_RATIO 100

static uint16_t le16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t le64(const uint8_t *p)
{
    return (uint64_t)le32(p) | (uint64_t)le32(p + 4) << 32;
}

struct directory {
    uint64_t n_members, size, offset;
    size_t end; /* where the records that follow it start */
};

static int find_end(const struct rp_zip *zip, size_t *at)
{
    if (zip->n_bytes < END_SIZE)
        return -1;
    size_t last = zip->n_bytes - END_SIZE;
    for (size_t comment = 0; comment <= MAX_COMMENT && comment <= last; comment++) {
        const uint8_t *p = zip->bytes + last - comment;
        if (le32(p) == 0x06054b50 && le16(p + 20) == comment) {
            *at = last - comment;
            return 0;
        }
    }
    return -1;
}

static enum rp_status read_end64(const struct rp_zip *zip, size_t locator_at,
                                 struct directory *directory, struct rp_error *err)
{
    uint64_t at = le64(zip->bytes + locator_at + 8);
    if (at > locator_at || locator_at - at < END64_SIZE)
        return rp_fail(err, RP_ERR_FORMAT, zip->where, (long long)locator_at,
                       "expected the zip64 end record before its locator, found its offset to be "
                       "%llu",
                       (unsigned long long)at);
    const uint8_t *p = zip->bytes + at;
    if (le32(p) != 0x06064b50)
        return rp_fail(err, RP_ERR_FORMAT, zip->where, (long long)at,
                       "expected the signature of a zip64 end record, found 0x%08lx",
                       (unsigned long)le32(p));
    if (le32(p + 16) != 0 || le32(p + 20) != 0 || le64(p + 24) != le64(p + 32))
        return rp_fail(err, RP_ERR_UNSUPPORTED, zip->where, (long long)at,
                       "the archive is one part of several");
    directory->n_members = le64(p + 32);
    directory->size = le64(p + 40);
    directory->offset = le64(p + 48);
    directory->end = (size_t)at;
    return RP_OK;
}

static enum rp_status find_directory(const struct rp_zip *zip, struct directory *directory,
                                     struct rp_error *err)
{
    size_t end;
    if (find_end(zip, &end) != 0)
        return rp_fail(err, RP_ERR_FORMAT, zip->where, -1,
                       "not a complete zip file: no end of central directory in its %zu bytes",
                       zip->n_bytes);
    const uint8_t *p = zip->bytes + end;
    directory->n_members = le16(p + 10);
    directory->size = le32(p + 12);
    directory->offset = le32(p + 16);
    directory->end = end;
    int is_full =
        le16(p + 10) == 0xffff || le32(p + 12) == 0xffffffff || le32(p + 16) == 0xffffffff;
    if (is_full && end >= LOCATOR_SIZE && le32(p - LOCATOR_SIZE) == 0x07064b50) {
        enum rp_status code = read_end64(zip, end - LOCATOR_SIZE, directory, err);
        if (code)
            return code;
    } else if (le16(p + 4) != 0 || le16(p + 6) != 0 || le16(p + 8) != le16(p + 10)) {
        return rp_fail(err, RP_ERR_UNSUPPORTED, zip->where, (long long)end,
                       "the archive is one part of several");
    }
    if (directory->offset > directory->end || directory->size > directory->end - directory->offset)
        return rp_fail(err, RP_ERR_FORMAT, zip->where, (long long)end,
                       "expected the central directory before byte %zu, found %llu bytes from "
                       "byte %llu",
                       directory->end, (unsigned long long)directory->size,
                       (unsigned long long)directory->offset);
    if (directory->n_members > RP_ZIP_MAX_MEMBERS)
        return rp_fail(err, RP_ERR_UNSUPPORTED, zip->where, (long long)end,
                       "expected at most %d members, found %llu", RP_ZIP_MAX_MEMBERS,
                       (unsigned long long)directory->n_members);
    if (directory->n_members > directory->size / DIRECTORY_SIZE)
        return rp_fail(err, RP_ERR_FORMAT, zip->where, (long long)end,
                       "a central directory of %llu bytes is too short for %llu members",
                       (unsigned long long)directory->size,
                       (unsigned long long)directory->n_members);
    return RP_OK;
}

/* 4.5.3: each value is there only if its 32-bit field is saturated, in this order. */
static int read_zip64_extra(const uint8_t *extra, size_t n, uint64_t *size,
                            uint64_t *compressed_size, uint64_t *offset)
{
    uint64_t *values[] = {size, compressed_size, offset};
    int wanted = 0;
    for (int i = 0; i < 3; i++)
        wanted += *values[i] == 0xffffffff;
    if (wanted == 0)
        return 0;
    while (n >= 4) {
        size_t field = le16(extra + 2);
        if (field > n - 4)
            return -1;
        if (le16(extra) == 1) {
            const uint8_t *p = extra + 4;
            if (field < 8 * (size_t)wanted)
                return -1;
            for (int i = 0; i < 3; i++) {
                if (*values[i] == 0xffffffff) {
                    *values[i] = le64(p);
                    p += 8;
                }
            }
            return 0;
        }
        extra += 4 + field;
        n -= 4 + field;
    }
    return 0; /* no such field: the size is 0xffffffff itself */
}

/* Reads the entry at *at and moves *at behind it. name has room for what the entry can hold. */
static enum rp_status read_entry(const struct rp_zip *zip, const struct directory *directory,
                                 size_t *at, char *name, struct rp_zip_member *member,
                                 struct rp_error *err)
{
    size_t left = (size_t)(directory->offset + directory->size) - *at;
    const uint8_t *p = zip->bytes + *at;
    if (left < DIRECTORY_SIZE || le32(p) != 0x02014b50)
        return rp_fail(err, RP_ERR_FORMAT, zip->where, (long long)*at,
                       "expected a central directory entry, found %s",
                       left < DIRECTORY_SIZE ? "the directory's end" : "another signature");
    size_t n_name = le16(p + 28), n_extra = le16(p + 30), n_comment = le16(p + 32);
    if (n_name + n_extra + n_comment > left - DIRECTORY_SIZE)
        return rp_fail(err, RP_ERR_FORMAT, zip->where, (long long)*at,
                       "a central directory entry of %zu bytes passes the directory's end",
                       DIRECTORY_SIZE + n_name + n_extra + n_comment);
    memcpy(name, p + DIRECTORY_SIZE, n_name);
    name[n_name] = '\0';
    if (n_name == 0 || strlen(name) != n_name)
        return rp_fail(err, RP_ERR_FORMAT, zip->where, (long long)*at,
                       "a member's name is empty or contains a NUL");
    uint64_t offset = le32(p + 42);
    member->name = name;
    member->flags = le16(p + 8);
    member->method = le16(p + 10);
    member->crc32 = le32(p + 16);
    member->compressed_size = le32(p + 20);
    member->size = le32(p + 24);
    if (read_zip64_extra(p + DIRECTORY_SIZE + n_name, n_extra, &member->size,
                         &member->compressed_size, &offset) != 0)
        return rp_fail(err, RP_ERR_FORMAT, zip->where, (long long)*at,
                       "member %s: its zip64 field is too short", name);
    /* The local header's extra field can only make it longer. */
    size_t n_header = LOCAL_SIZE + n_name;
    if (offset > directory->offset || directory->offset - offset < n_header ||
        member->compressed_size > directory->offset - offset - n_header)
        return rp_fail(err, RP_ERR_FORMAT, zip->where, (long long)*at,
                       "member %s: expected it before byte %llu, found %llu bytes from byte %llu",
                       name, (unsigned long long)directory->offset,
                       (unsigned long long)member->compressed_size, (unsigned long long)offset);
    member->header_offset = (size_t)offset;
    *at += DIRECTORY_SIZE + n_name + n_extra + n_comment;
    return RP_OK;
}

static int by_offset(const void *a, const void *b)
{
    const struct rp_zip_member *x = a, *y = b;
    return (x->header_offset > y->header_offset) - (x->header_offset < y->header_offset);
}

static int by_name(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

static enum rp_status check_duplicates(const struct rp_zip *zip, struct rp_error *err)
{
    enum rp_status code = RP_OK;
    const char **names = malloc((zip->n_members + 1) * sizeof *names);
    if (!names)
        return rp_fail(err, RP_ERR_MEMORY, zip->where, -1, "cannot allocate the member list");
    for (size_t i = 0; i < zip->n_members; i++)
        names[i] = zip->members[i].name;
    qsort(names, zip->n_members, sizeof *names, by_name);
    for (size_t i = 1; i < zip->n_members && !code; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            code =
                rp_fail(err, RP_ERR_FORMAT, zip->where, -1, "member %s is there twice", names[i]);
    free(names);
    return code;
}

static enum rp_status set_limits(struct rp_zip *zip, size_t directory_at, struct rp_error *err)
{
    if (zip->n_members > 0)
        qsort(zip->members, zip->n_members, sizeof *zip->members, by_offset);
    for (size_t i = 0; i < zip->n_members; i++) {
        struct rp_zip_member *member = &zip->members[i];
        int is_last = i + 1 == zip->n_members;
        member->limit = is_last ? directory_at : zip->members[i + 1].header_offset;
        size_t room = member->limit - member->header_offset;
        size_t n_header = LOCAL_SIZE + strlen(member->name);
        if (room < n_header || member->compressed_size > room - n_header)
            return rp_fail(err, RP_ERR_FORMAT, zip->where, (long long)member->header_offset,
                           "member %s overlaps what follows it at byte %zu", member->name,
                           member->limit);
    }
    return RP_OK;
}

enum rp_status rp_zip_open(const uint8_t *bytes, size_t n_bytes, const char *where,
                           struct rp_zip *zip, struct rp_error *err)
{
    struct directory directory = {0, 0, 0, 0};
    memset(zip, 0, sizeof *zip);
    zip->where = where;
    zip->bytes = bytes;
    zip->n_bytes = n_bytes;
    enum rp_status code = find_directory(zip, &directory, err);
    if (code)
        return code;
    size_t n_members = (size_t)directory.n_members;
    /* All names and their NULs: the directory holds each name and 46 bytes more. */
    zip->names = malloc((size_t)directory.size + 1);
    zip->members = calloc(n_members + 1, sizeof *zip->members);
    if (!zip->names || !zip->members) {
        code = rp_fail(err, RP_ERR_MEMORY, where, -1, "cannot allocate the member list");
        goto done;
    }
    size_t at = (size_t)directory.offset;
    char *name = zip->names;
    for (size_t i = 0; i < n_members; i++) {
        code = read_entry(zip, &directory, &at, name, &zip->members[i], err);
        if (code)
            goto done;
        name += strlen(name) + 1;
        zip->n_members++;
    }
    if (at != directory.offset + directory.size) {
        code = rp_fail(err, RP_ERR_FORMAT, where, (long long)at,
                       "expected the central directory's end after %zu members, found %llu more "
                       "bytes",
                       n_members, (unsigned long long)(directory.offset + directory.size - at));
        goto done;
    }
    code = check_duplicates(zip, err);
    if (!code)
        code = set_limits(zip, (size_t)directory.offset, err);
done:
    if (code)
        rp_zip_close(zip);
    return code;
}

void rp_zip_close(struct rp_zip *zip)
{
    free(zip->members);
    free(zip->names);
    memset(zip, 0, sizeof *zip);
}

const struct rp_zip_member *rp_zip_find(const struct rp_zip *zip, const char *name)
{
    for (size_t i = 0; i < zip->n_members; i++)
        if (strcmp(zip->members[i].name, name) == 0)
            return &zip->members[i];
    return NULL;
}

/* Where the member's content starts, its local header checked. */
static enum rp_status data_offset(const struct rp_zip *zip, const struct rp_zip_member *member,
                                  size_t *offset, struct rp_error *err)
{
    const uint8_t *p = zip->bytes + member->header_offset;
    long long at = (long long)member->header_offset;
    if (le32(p) != 0x04034b50)
        return rp_fail(err, RP_ERR_FORMAT, zip->where, at,
                       "member %s: expected the signature of a local header, found 0x%08lx",
                       member->name, (unsigned long)le32(p));
    size_t n_name = le16(p + 26), n_extra = le16(p + 28);
    if (n_name != strlen(member->name) || memcmp(p + LOCAL_SIZE, member->name, n_name) != 0)
        return rp_fail(err, RP_ERR_FORMAT, zip->where, at,
                       "member %s has another name in its local header", member->name);
    if ((member->flags | le16(p + 6)) & REFUSED_FLAGS)
        return rp_fail(err, RP_ERR_UNSUPPORTED, zip->where, at,
                       "member %s is encrypted or a patch: flags 0x%04x", member->name,
                       (unsigned)(member->flags | le16(p + 6)));
    if (le16(p + 8) != member->method)
        return rp_fail(err, RP_ERR_FORMAT, zip->where, at,
                       "member %s: compression method %u in the directory, %u in its local header",
                       member->name, member->method, le16(p + 8));
    if (member->method != METHOD_STORED && member->method != METHOD_DEFLATED)
        return rp_fail(err, RP_ERR_UNSUPPORTED, zip->where, at,
                       "member %s: expected it stored or deflated, found compression method %u",
                       member->name, member->method);
    size_t start = member->header_offset + LOCAL_SIZE + n_name;
    if (n_extra > member->limit - start ||
        member->compressed_size > member->limit - start - n_extra)
        return rp_fail(err, RP_ERR_FORMAT, zip->where, at,
                       "member %s overlaps what follows it at byte %zu", member->name,
                       member->limit);
    if (member->method == METHOD_STORED && member->compressed_size != member->size)
        return rp_fail(err, RP_ERR_FORMAT, zip->where, at,
                       "member %s is stored, but its sizes differ: %llu and %llu bytes",
                       member->name, (unsigned long long)member->compressed_size,
                       (unsigned long long)member->size);
    if (member->size / MAX_DEFLATE_RATIO > member->compressed_size || member->size > SIZE_MAX / 2)
        return rp_fail(err, RP_ERR_FORMAT, zip->where, at,
                       "member %s: %llu bytes cannot come from %llu compressed bytes", member->name,
                       (unsigned long long)member->size,
                       (unsigned long long)member->compressed_size);
    if (member->size > LARGE_SIZE && member->size / MAX_LARGE_RATIO > member->compressed_size)
        return rp_fail(
            err, RP_ERR_UNSUPPORTED, zip->where, at,
            "member %s: %llu bytes from %llu compressed bytes: expected a member of more "
            "than %d MiB to shrink to a hundredth at most",
            member->name, (unsigned long long)member->size,
            (unsigned long long)member->compressed_size, (int)(LARGE_SIZE >> 20));
    *offset = start + n_extra;
    return RP_OK;
}

/* Inflates from[n_from] into to[n_to] until either ends; *n bytes came out, *ended tells whether
 * the stream did. Returns zlib's verdict. */
static int inflate_bytes(const uint8_t *from, size_t n_from, uint8_t *to, size_t n_to, size_t *n,
                         int *ended)
{
    uint8_t overflow;
    z_stream stream;
    size_t taken = 0, made = 0;
    int is_longer = 0;
    memset(&stream, 0, sizeof stream);
    *n = 0;
    *ended = 0;
    int result = inflateInit2(&stream, -MAX_WBITS);
    if (result != Z_OK)
        return result;
    do {
        size_t in = n_from - taken < UINT_MAX ? n_from - taken : UINT_MAX;
        size_t out = n_to - made < UINT_MAX ? n_to - made : UINT_MAX;
        stream.next_in = from + taken;
        stream.avail_in = (uInt)in;
        /* A full buffer still needs room of one byte to see the stream's end, or too much data. */
        stream.next_out = out > 0 ? to + made : &overflow;
        stream.avail_out = out > 0 ? (uInt)out : 1;
        result = inflate(&stream, Z_NO_FLUSH);
        taken += in - stream.avail_in;
        if (out > 0)
            made += out - stream.avail_out;
        else if (stream.avail_out == 0)
            is_longer = 1;
    } while (result == Z_OK && !is_longer);
    inflateEnd(&stream);
    *n = made;
    *ended = result == Z_STREAM_END && taken == n_from && !is_longer;
    return result == Z_STREAM_END ? Z_OK : result;
}

enum rp_status rp_zip_load(const struct rp_zip *zip, const struct rp_zip_member *member,
                           const uint8_t **bytes, void **owned, struct rp_error *err)
{
    size_t offset = 0, n = 0;
    int ended = 0;
    uint8_t *inflated = NULL;
    *bytes = NULL;
    *owned = NULL;
    enum rp_status code = data_offset(zip, member, &offset, err);
    if (code)
        return code;
    const uint8_t *content = zip->bytes + offset;
    size_t size = (size_t)member->size;
    if (member->method == METHOD_DEFLATED) {
        inflated = malloc(size + 1);
        if (!inflated)
            return rp_fail(err, RP_ERR_MEMORY, zip->where, (long long)offset,
                           "member %s: cannot allocate %zu bytes", member->name, size);
        int result =
            inflate_bytes(content, (size_t)member->compressed_size, inflated, size, &n, &ended);
        if (result == Z_MEM_ERROR)
            code = rp_fail(err, RP_ERR_MEMORY, zip->where, (long long)offset,
                           "member %s: cannot allocate what inflating needs", member->name);
        else if (n != size || !ended)
            code = rp_fail(err, RP_ERR_FORMAT, zip->where, (long long)offset,
                           "member %s: its deflated data is damaged, or is not %zu bytes",
                           member->name, size);
        if (code)
            goto done;
        content = inflated;
    }
    uint32_t found = rp_crc32(content, size);
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    found = member->crc32; /* a fuzzer cannot guess it, and has to get past it */
#endif
    if (found != member->crc32) {
        code = rp_fail(err, RP_ERR_FORMAT, zip->where, (long long)offset,
                       "member %s is damaged: expected CRC %08lx, found %08lx", member->name,
                       (unsigned long)member->crc32, (unsigned long)found);
        goto done;
    }
    *bytes = content;
    *owned = inflated;
    inflated = NULL;
done:
    free(inflated);
    return code;
}

enum rp_status rp_zip_peek(const struct rp_zip *zip, const struct rp_zip_member *member,
                           uint8_t *buffer, size_t size, size_t *n, struct rp_error *err)
{
    size_t offset = 0;
    int ended;
    *n = 0;
    enum rp_status code = data_offset(zip, member, &offset, err);
    if (code)
        return code;
    size_t want = member->size < size ? (size_t)member->size : size;
    if (member->method == METHOD_STORED) {
        memcpy(buffer, zip->bytes + offset, want);
        *n = want;
        return RP_OK;
    }
    int result = inflate_bytes(zip->bytes + offset, (size_t)member->compressed_size, buffer, want,
                               n, &ended);
    if (result == Z_MEM_ERROR)
        return rp_fail(err, RP_ERR_MEMORY, zip->where, (long long)offset,
                       "member %s: cannot allocate what inflating needs", member->name);
    return RP_OK;
}
