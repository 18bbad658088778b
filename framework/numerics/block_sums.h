/* Products with Q4_1 and Q5_1 weights, whose blocks have a minimum: a kernel multiplies it by the sum
 * of the input's block, which Q8_1 stores in F16. Not for the rest of the product. */
#ifndef REFPARITY_NUMERICS_BLOCK_SUMS_H
#define REFPARITY_NUMERICS_BLOCK_SUMS_H

#include "numerics/rounding.h"

/* Adds to args->y what the rounding of these sums changes, after the product of the rounded input has
 * been computed. rounded [n_positions][n_in] is args->x as RP_GGML_Q8_0. site: whose ties and flips,
 * but for its position. RP_ERR_MEMORY. */
enum rp_status rp_add_block_sums(const struct rp_site *op_site, const struct rp_linear *args,
                                 const float *rounded, const struct rp_rounding_site *site);

#endif
