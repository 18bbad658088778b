/* Attention as kernels with 16-bit caches compute it. Not for what the caches round: that is
 * emulation.c. */
#ifndef REFPARITY_OPERATIONS_ATTENTION_F16_H
#define REFPARITY_OPERATIONS_ATTENTION_F16_H

#include "refparity/numerics.h"

/* Plain attention over an F16 cache: Q and the softmax weights are rounded to F16. */
enum rp_status rp_attention_f16(const struct rp_emulation *emulation, const struct rp_site *site,
                                const struct rp_attention *args);

/* Flash attention over an F16 cache. A position that comes in a batch of fewer than
 * RP_FLASH_TILE positions has its Q rounded to F16 and is summed in F16, key after key, under a
 * running maximum; in a larger one both stay FP32. */
enum rp_status rp_attention_flash_f16(const struct rp_emulation *emulation,
                                      const struct rp_site *site, const struct rp_attention *args);
#define RP_FLASH_TILE 64

#endif
