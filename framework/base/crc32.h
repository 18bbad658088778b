/* CRC-32 as zip, gzip and zlib use it (polynomial 0x04C11DB7, bit-reflected).
 * Not for checksums of our own choosing: see sha256.h. */
#ifndef REFPARITY_BASE_CRC32_H
#define REFPARITY_BASE_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of bytes[n], the same as zlib's crc32_z from its initial value; n may be 0. Three times
 * as fast where the CPU has PCLMULQDQ, and zlib's own elsewhere. */
uint32_t rp_crc32(const void *bytes, size_t n);

#endif
