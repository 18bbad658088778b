/* Members of a zip archive in memory, found through its central directory: what an .npz is.
 * Not a general unzip: one disk, stored or deflated, no encryption; nothing is extracted. */
#ifndef REFPARITY_TENSOR_ZIP_H
#define REFPARITY_TENSOR_ZIP_H

#include "refparity/status.h"

#define RP_ZIP_MAX_MEMBERS 100000

struct rp_zip_member {
    const char *name; /* owned by the archive; unique in it */
    uint64_t compressed_size;
    uint64_t size;
    size_t header_offset; /* of the local header */
    size_t limit;         /* where the next member or the directory starts */
    uint32_t crc32;
    uint16_t method;
    uint16_t flags;
};

struct rp_zip {
    const char *where;    /* for errors; the caller's */
    const uint8_t *bytes; /* [n_bytes]; the caller's, has to outlive the archive */
    size_t n_bytes;
    struct rp_zip_member *members; /* [n_members], in order of their place in the archive */
    size_t n_members;
    char *names; /* private */
};

/* Reads the central directory (zip64 included) of the archive in bytes[n_bytes]. Sizes and places
 * come from there alone: np.savez leaves 0xFFFFFFFF in the local headers. Members have to lie
 * inside the archive, apart from each other, and have different names.
 * RP_ERR_FORMAT, RP_ERR_UNSUPPORTED, RP_ERR_MEMORY. On success free with rp_zip_close. */
enum rp_status rp_zip_open(const uint8_t *bytes, size_t n_bytes, const char *where,
                           struct rp_zip *zip, struct rp_error *err);
void rp_zip_close(struct rp_zip *zip); /* a zeroed archive is allowed */

/* NULL when there is no member of that name. */
const struct rp_zip_member *rp_zip_find(const struct rp_zip *zip, const char *name);

/* The member's content, its CRC checked: *bytes is [member->size]. A stored member is used in
 * place and *owned is NULL; a deflated one is inflated into *owned, which the caller frees.
 * RP_ERR_FORMAT, RP_ERR_UNSUPPORTED (encrypted, another method), RP_ERR_MEMORY. */
enum rp_status rp_zip_load(const struct rp_zip *zip, const struct rp_zip_member *member,
                           const uint8_t **bytes, void **owned, struct rp_error *err);

/* The first bytes of the member, at most size, into buffer; *n of them. No CRC is checked: for
 * looking at a header before the content is needed. Errors as rp_zip_load. */
enum rp_status rp_zip_peek(const struct rp_zip *zip, const struct rp_zip_member *member,
                           uint8_t *buffer, size_t size, size_t *n, struct rp_error *err);

#endif
