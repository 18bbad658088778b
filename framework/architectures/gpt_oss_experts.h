/* How a checkpoint of gpt-oss keeps its experts: all of a layer in one tensor, transposed, the columns of gate and
 * up in turn; or in MXFP4, as blocks and scales. Not for which tensors a GGUF has: that is gpt_oss.c. */
#ifndef REFPARITY_ARCHITECTURES_GPT_OSS_EXPERTS_H
#define REFPARITY_ARCHITECTURES_GPT_OSS_EXPERTS_H

#include "weights/checkpoint.h"

/* One of a GGUF's tensors, [n_experts][n_out][n_in]. Its row i of an expert is number first + i * step of
 * n_all. */
struct rp_gpt_oss_experts {
    const struct rp_checkpoint_tensor *values; /* [n_experts][n_in][n_all]; NULL: MXFP4 */
    const struct rp_checkpoint_tensor *blocks; /* U8 [n_experts][n_all][n_in / 32][16], or NULL */
    const struct rp_checkpoint_tensor *scales; /* U8 [n_experts][n_all][n_in / 32], or NULL */
    size_t n_experts, n_out, n_in;
    size_t n_all, first, step;
};

/* Finds the tensor NAME, or NAME_blocks and NAME_scales, and checks their shapes; experts' sizes, n_all, first and
 * step are set. A bias has n_in 1. RP_ERR_MISSING, RP_ERR_MISMATCH, RP_ERR_UNSUPPORTED. */
enum rp_status rp_gpt_oss_experts_find(const struct rp_checkpoint *checkpoint, const char *name,
                                       struct rp_gpt_oss_experts *experts, struct rp_error *err);

/* out [n][n_in] = rows first .. first + n - 1 of the n_experts * n_out. RP_ERR_ARGUMENT (rows that are not there),
 * RP_ERR_MEMORY. */
enum rp_status rp_gpt_oss_experts_rows(const struct rp_gpt_oss_experts *experts, size_t first,
                                       size_t n, float *out, struct rp_error *err);

#endif
