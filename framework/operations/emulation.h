/* What emulation.c and attention_f16.c share. Not for callers: that is refparity/numerics.h. */
#ifndef REFPARITY_OPERATIONS_EMULATION_H
#define REFPARITY_OPERATIONS_EMULATION_H

#include "refparity/numerics.h"

/* y [n] = x [n], Q's row of the call's position number p, rounded to F16 as the watch has it. */
enum rp_status rp_emulated_q(const struct rp_emulation *emulation, const struct rp_site *site,
                             size_t p, const float *x, size_t n, float *y);

#endif
