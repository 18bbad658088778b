/* Why a tensor of a GGUF is not the checkpoint's: what it would be the same as. A cause is named only where
 * every row that was looked at is then the same, within the limit that it failed. */
#ifndef REFPARITY_WEIGHTS_TENSOR_CAUSE_H
#define REFPARITY_WEIGHTS_TENSOR_CAUSE_H

#include "weights/same_tensor.h"

#define RP_CAUSE_SIZE 512

/* text: the cause, without a full stop; "" where none was found. rows: what rp_compare_tensor_rows found;
 * n_failing is above 0. */
enum rp_status rp_tensor_cause(const struct rp_gguf *file, const struct rp_gguf_tensor *tensor,
                               const struct rp_gguf *checkpoint,
                               const struct rp_gguf_tensor *expected,
                               const struct rp_tensor_rows *rows, char text[RP_CAUSE_SIZE],
                               struct rp_error *err);

#endif
