/* Is a tensor of a GGUF the one that a checkpoint's sketch is of, as far as norms and products of its rows show
 * it? Not for why it is not: that is tensor_cause.h. */
#ifndef REFPARITY_WEIGHTS_SAME_SKETCH_H
#define REFPARITY_WEIGHTS_SAME_SKETCH_H

#include "weights/same_tensor.h"

/* The chance that a right file has a row or a tensor over its limit, all rows and tensors together. */
#define RP_SKETCH_CHANCE 1e-9

/* Which row of the sketch a row of the file is held against. */
struct rp_sketch_place {
    const struct rp_gguf *checkpoint;
    const struct rp_gguf_tensor *tensor; /* sketched */
    const struct rp_tensor_sketch *sketch;
    size_t row;            /* of the sketch, in the checkpoint's own order */
    bool is_transposed;    /* the row is a column of the file's, whose blocks lie across it */
    const size_t *columns; /* value i of the file's row stands in column columns[i]; NULL: i */
    double x;              /* -ln of the chance that one right row fails: rp_sketch_x */
    double tolerance;      /* what the row of the file is off by itself, relative to its norm */
};

/* Of a whole comparison with checkpoint. */
double rp_sketch_x(const struct rp_gguf *checkpoint);

/* error is the root mean square of the products' differences, which is the row's error in expectation;
 * limit in the same unit; worst is 0. Where the norms alone differ by too much, both are of the norms. RP_ERR_FORMAT: the sketch's row is damaged. */
enum rp_status rp_sketch_row_distance(const struct rp_file_row *row,
                                      const struct rp_sketch_place *place,
                                      struct rp_row_distance *distance, struct rp_error *err);

/* The products' limit alone, whatever they are. */
enum rp_status rp_sketch_row_limit(const struct rp_file_row *row,
                                   const struct rp_sketch_place *place, double *limit,
                                   struct rp_error *err);

/* As rp_compare_tensor_rows; expected is sketched. Sets rows->together, too. */
enum rp_status rp_compare_sketched_rows(const struct rp_gguf *file,
                                        const struct rp_gguf_tensor *tensor,
                                        const struct rp_gguf *checkpoint,
                                        const struct rp_gguf_tensor *expected,
                                        struct rp_tensor_rows *rows, struct rp_error *err);

#endif
