/* Writes a tensor set as a fixture: one .npz, as numpy.savez does, members stored. For a dump that
 * becomes a reference. Not for reading: refparity/tensor_set.h. */
#ifndef REFPARITY_TENSOR_NPZ_WRITE_H
#define REFPARITY_TENSOR_NPZ_WRITE_H

#include "refparity/tensor_set.h"

/* Writes path: manifest, a JSON text; the set's tokens; positions [n_positions], ascending; and every slot of
 * a model that the set has at exactly these positions. Values are HF's order, as rp_tensor_load gives them.
 * Written aside and renamed, so that a reader sees the old file or the whole new one; two writers of the same
 * agree. RP_ERR_FORMAT: a value is not finite, or the set has no tokens; what rp_tensor_load says; RP_ERR_IO,
 * RP_ERR_ARGUMENT (path too long), RP_ERR_MEMORY. */
enum rp_status rp_npz_write(const char *path, struct rp_tensor_set *set, const char *manifest,
                            const int64_t *positions, size_t n_positions, struct rp_error *err);

#endif
