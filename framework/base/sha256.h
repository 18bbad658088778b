/* SHA-256 (FIPS 180-4), to recognise prompts, weights and binaries by content.
 * Not for secrets: nothing here is constant-time or wiped. */
#ifndef REFPARITY_BASE_SHA256_H
#define REFPARITY_BASE_SHA256_H

#include "refparity/status.h"

struct rp_sha256 {
    uint32_t state[8];
    uint64_t n_bytes;
    uint8_t block[64]; /* the last, incomplete block */
};

void rp_sha256_init(struct rp_sha256 *hash);
void rp_sha256_update(struct rp_sha256 *hash, const void *bytes, size_t n); /* NULL with n = 0 */
void rp_sha256_final(struct rp_sha256 *hash, uint8_t digest[32]);

/* digest as 64 lower-case hexadecimal digits and a NUL. */
void rp_sha256_format(const uint8_t digest[32], char out[65]);

/* Of bytes[n], as rp_sha256_format writes it. */
void rp_sha256_hex(const void *bytes, size_t n, char out[65]);

/* HMAC-SHA-256 (RFC 2104) of bytes[n] under key[n_key], as hex: nobody who has not the key can make it. */
void rp_sha256_keyed_hex(const void *key, size_t n_key, const void *bytes, size_t n, char out[65]);

/* Of a regular file's content, read piece by piece. RP_ERR_MISSING, RP_ERR_IO, RP_ERR_UNSUPPORTED
 * (not a regular file). */
enum rp_status rp_sha256_file(const char *path, char out[65], struct rp_error *err);

#endif
