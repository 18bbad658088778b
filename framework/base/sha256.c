/* See base/sha256.h. Names and formulas as in FIPS 180-4, sections 4.1.2, 5.3.3 and 6.2.2. */
#include "base/sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate_right(uint32_t x, unsigned n)
{
    return (x >> n) | (x << (32 - n));
}

static uint32_t load_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

static void compress(uint32_t state[8], const uint8_t block[64])
{
    uint32_t W[64];
    for (int t = 0; t < 16; t++)
        W[t] = load_be32(block + 4 * t);
    for (int t = 16; t < 64; t++) {
        uint32_t s0 = rotate_right(W[t - 15], 7) ^ rotate_right(W[t - 15], 18) ^ (W[t - 15] >> 3);
        uint32_t s1 = rotate_right(W[t - 2], 17) ^ rotate_right(W[t - 2], 19) ^ (W[t - 2] >> 10);
        W[t] = s1 + W[t - 7] + s0 + W[t - 16];
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (int t = 0; t < 64; t++) {
        uint32_t S1 = rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25);
        uint32_t T1 = h + S1 + ((e & f) ^ (~e & g)) + K[t] + W[t];
        uint32_t S0 = rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22);
        uint32_t T2 = S0 + ((a & b) ^ (a & c) ^ (b & c));
        h = g;
        g = f;
        f = e;
        e = d + T1;
        d = c;
        c = b;
        b = a;
        a = T1 + T2;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
}

void rp_sha256_init(struct rp_sha256 *hash)
{
    static const uint32_t H0[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memset(hash, 0, sizeof *hash);
    memcpy(hash->state, H0, sizeof H0);
}

void rp_sha256_update(struct rp_sha256 *hash, const void *bytes, size_t n)
{
    const uint8_t *next = bytes;
    size_t held = (size_t)(hash->n_bytes % 64);
    hash->n_bytes += n;
    if (held > 0 && n > 0) {
        size_t take = n < 64 - held ? n : 64 - held;
        memcpy(hash->block + held, next, take);
        next += take;
        n -= take;
        if (held + take < 64)
            return;
        compress(hash->state, hash->block);
    }
    for (; n >= 64; n -= 64, next += 64)
        compress(hash->state, next);
    if (n > 0)
        memcpy(hash->block, next, n);
}

void rp_sha256_final(struct rp_sha256 *hash, uint8_t digest[32])
{
    static const uint8_t padding[64] = {0x80};
    uint64_t n_bits = hash->n_bytes * 8;
    size_t held = (size_t)(hash->n_bytes % 64);
    uint8_t length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)(n_bits >> (56 - 8 * i));
    rp_sha256_update(hash, padding, held < 56 ? 56 - held : 120 - held);
    rp_sha256_update(hash, length, sizeof length);
    for (int i = 0; i < 32; i++)
        digest[i] = (uint8_t)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
}

void rp_sha256_format(const uint8_t digest[32], char out[65])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 32; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[64] = '\0';
}

void rp_sha256_hex(const void *bytes, size_t n, char out[65])
{
    struct rp_sha256 hash;
    uint8_t digest[32];
    rp_sha256_init(&hash);
    rp_sha256_update(&hash, bytes, n);
    rp_sha256_final(&hash, digest);
    rp_sha256_format(digest, out);
}

void rp_sha256_keyed_hex(const void *key, size_t n_key, const void *bytes, size_t n, char out[65])
{
    struct rp_sha256 inner, outer;
    uint8_t padded[64] = {0}, inner_pad[64], outer_pad[64], digest[32];
    if (n_key > sizeof padded) {
        rp_sha256_init(&inner);
        rp_sha256_update(&inner, key, n_key);
        rp_sha256_final(&inner, padded);
    } else if (n_key > 0) {
        memcpy(padded, key, n_key);
    }
    for (size_t i = 0; i < sizeof padded; i++) {
        inner_pad[i] = padded[i] ^ 0x36;
        outer_pad[i] = padded[i] ^ 0x5c;
    }
    rp_sha256_init(&inner);
    rp_sha256_update(&inner, inner_pad, sizeof inner_pad);
    rp_sha256_update(&inner, bytes, n);
    rp_sha256_final(&inner, digest);
    rp_sha256_init(&outer);
    rp_sha256_update(&outer, outer_pad, sizeof outer_pad);
    rp_sha256_update(&outer, digest, sizeof digest);
    rp_sha256_final(&outer, digest);
    rp_sha256_format(digest, out);
}

enum rp_status rp_sha256_file(const char *path, char out[65], struct rp_error *err)
{
    struct rp_sha256 hash;
    struct stat info;
    uint8_t buffer[1 << 16], digest[32];
    enum rp_status code = RP_OK;
    out[0] = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        int number = errno;
        return rp_fail(err, number == ENOENT || number == ENOTDIR ? RP_ERR_MISSING : RP_ERR_IO,
                       path, -1, "cannot open: %s", strerror(number));
    }
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        code = rp_fail(err, RP_ERR_UNSUPPORTED, path, -1, "expected a regular file");
        goto done;
    }
    rp_sha256_init(&hash);
    for (;;) {
        ssize_t got = read(fd, buffer, sizeof buffer);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            int number = errno;
            code = rp_fail(err, RP_ERR_IO, path, -1, "cannot read: %s", strerror(number));
            goto done;
        }
        if (got == 0)
            break;
        rp_sha256_update(&hash, buffer, (size_t)got);
    }
    rp_sha256_final(&hash, digest);
    rp_sha256_format(digest, out);
done:
    close(fd);
    return code;
}
