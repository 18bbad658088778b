/* Has a GGUF the metadata that the checkpoint's config.json fixes? Not for tensors: that is
 * same_tensor.h. */
#ifndef REFPARITY_WEIGHTS_SAME_METADATA_H
#define REFPARITY_WEIGHTS_SAME_METADATA_H

#include "refparity/weights.h"

/* Calls see with a finding for each value that the checkpoint fixes, and for each key of the file that
 * changes the computation where the checkpoint has nothing of the kind. RP_ERR_MEMORY. */
enum rp_status rp_compare_metadata(const struct rp_gguf *file, const struct rp_gguf *checkpoint,
                                   rp_weights_fn *see, void *context, struct rp_error *err);

#endif
