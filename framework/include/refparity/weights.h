/* Is a GGUF the checkpoint that it was converted from? Each tensor row by row, to what its type's rounding
 * may cost, and each metadata value that the checkpoint fixes. Nothing is run. */
#ifndef REFPARITY_WEIGHTS_H
#define REFPARITY_WEIGHTS_H

#include "refparity/gguf.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A checkpoint, a folder with config.json and safetensors, as the GGUF that a right converter makes of it; or its
 * sketch, a file of fixtures/weights_sketch.py, whose larger tensors can be compared, and not read.
 * On success *out is to be closed with rp_gguf_close. RP_ERR_MISSING (a file, a setting, a tensor),
 * RP_ERR_FORMAT, RP_ERR_MISMATCH (a shape, settings that contradict each other), RP_ERR_UNSUPPORTED (an
 * architecture, a setting or a type that is not computed; a tensor of the text model that the architecture
 * does not use: a bias, an adapter), RP_ERR_IO, RP_ERR_MEMORY. Errors have the file, and its byte or line and
 * column. */
enum rp_status rp_gguf_open_checkpoint(const char *path, struct rp_gguf **out,
                                       struct rp_error *err);
/* The same in the form that file has it in, of several that are right ones: files of latent attention have its keys'
 * and values' matrices for each head, or, older ones, in one. */
enum rp_status rp_gguf_open_checkpoint_like(const char *path, const struct rp_gguf *file,
                                            struct rp_gguf **out, struct rp_error *err);

/* What was found of a tensor or of a metadata value. */
struct rp_weights_finding {
    bool is_right, is_metadata;
    /* It cannot be compared: what its type rounds is not known, or is too coarse for the sketch, which message
     * says; is_right is false. */
    bool is_not_compared;
    char name[128];   /* of the tensor, or the key */
    const char *type; /* "Q4_0", ...; of the file's tensor; "" where there is none */
    size_t
        n_rows; /* that were compared; 0: a tensor that is missing, surplus or of another shape */
    size_t n_failing;   /* of those */
    size_t first, last; /* failing rows */
    size_t worst_row;   /* the row that is nearest to its limit, or furthest over it */
    bool is_sketched;   /* by a sketch: l2_rel is what a row's products show of it */
    /* where is_sketched: the L2_rel that one row may have unseen, and that all rows together may */
    double row_resolution, tensor_resolution;
    double l2_rel,
        limit; /* of that row: ||file - checkpoint|| / ||checkpoint||, what rounding may cost */
    char message[512]; /* what is wrong, where, by how much, against which limit; "" where right */
    char cause
        [512]; /* what it would be the same as; "" where that was not found; of a right one that
                        * the checkpoint has nothing of: why it changes nothing */
    char next[256]; /* what to do; "" where right */
};

typedef void rp_weights_fn(void *context, const struct rp_weights_finding *finding);

/* Compares file with checkpoint, which rp_gguf_open_checkpoint_like opened, and calls see with each metadata
 * value, then with each tensor in the checkpoint's order, then with the file's surplus ones; where the file is
 * another model's, with that alone. RP_ERR_MEMORY; RP_ERR_FORMAT: a sketch is damaged. */
enum rp_status rp_weights_compare(const struct rp_gguf *file, const struct rp_gguf *checkpoint,
                                  rp_weights_fn *see, void *context, struct rp_error *err);

#ifdef __cplusplus
}
#endif
#endif
