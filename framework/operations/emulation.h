/* What emulation.c, attention_f16.c and state.c share. Not for callers: that is refparity/numerics.h. */
#ifndef REFPARITY_OPERATIONS_EMULATION_H
#define REFPARITY_OPERATIONS_EMULATION_H

#include "refparity/numerics.h"

/* y [n] = x [n], a row of the call's position number p, rounded to format as the watch has it. */
enum rp_status rp_emulated_row(const struct rp_emulation *emulation, const struct rp_site *site,
                               enum rp_weight_id which, bool is_cache, size_t p, uint32_t format,
                               const float *x, size_t n, float *y);
/* The same of Q's row, to F16. */
enum rp_status rp_emulated_q(const struct rp_emulation *emulation, const struct rp_site *site,
                             size_t p, const float *x, size_t n, float *y);

/* ggml's GELU: a table over F16, both ways. Of another function it is the operation below. */
enum rp_status rp_gelu_by_table(void *context, const struct rp_site *site,
                                const struct rp_ffn_activation *args);

#endif
