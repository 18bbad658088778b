/* The exact reference: the C model run end to end on the engine's own weights, rounding where the engine
 * says that it rounds. What the engine differs from it by is the engine's own error; what it differs
 * from HF by is quantization. Not for finding or keeping one (run/exact_reference.h), nor for judging
 * by it (compare/gate.h). */
#ifndef REFPARITY_EXACT_EXACT_H
#define REFPARITY_EXACT_EXACT_H

#include "refparity/numerics.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Raise it when what is written changes in meaning; what the C model computes is not counted here. */
#define RP_EXACT_VERSION "1"

struct rp_exact_spec {
    const char *gguf;
    const int64_t *tokens; /* [n_tokens], at least 1 */
    size_t n_tokens;
    const int64_t *positions; /* [n_positions] ascending, those to write; NULL: all */
    size_t n_positions;
    struct rp_numerics numerics;
};

/* Writes every slot into folder, a dump as refparity/dump.h has them. The folder must not hold a dump
 * yet; after an error what it holds is no dump. Where numerics round, what that does to each slot is
 * measured by a second run with nothing rounded, and left beside the dump for exact/limits.h.
 * RP_ERR_UNSUPPORTED: the C model does not know the
 * architecture or a tensor's type. RP_ERR_ARGUMENT: an id is outside the vocabulary, there are no
 * tokens, or a position is past them. Otherwise those of rp_model_open and rp_model_run. */
enum rp_status rp_exact_compute(const struct rp_exact_spec *spec, const char *folder,
                                struct rp_error *err);

#ifdef __cplusplus
}
#endif
#endif
