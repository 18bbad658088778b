/* Is a tensor of a GGUF the checkpoint's, row by row, to what its type's rounding allows? Not for why it is
 * not: that is tensor_cause.h. */
#ifndef REFPARITY_WEIGHTS_SAME_TENSOR_H
#define REFPARITY_WEIGHTS_SAME_TENSOR_H

#include "weights/gguf_computed.h"

/* A row of the file beside another that it may be. */
struct rp_row_distance {
    double error; /* ||file - checkpoint|| / ||checkpoint|| */
    double limit; /* in the same unit: what the type's rounding may cost */
    size_t worst; /* the value that is furthest off, by its own limit */
    bool is_same; /* error within limit, and no value further off than it can be */
};

/* A decoded row of the file, and what its rounding may cost. */
struct rp_file_row {
    uint32_t type;
    size_t n;
    float *values, *bound, *reach; /* [n] each, of one allocation behind values */
    float *widest;                 /* [n], scratch of rp_row_distance */
    double norm, bound_norm;       /* of values and bound */
    bool is_weighted;              /* rounded by an importance matrix */
    double allowance;              /* by which bound is wider then; else 1 */
};

/* Of a tensor of file. */
enum rp_status rp_file_row_alloc(const struct rp_gguf *file, const struct rp_gguf_tensor *tensor,
                                 struct rp_file_row *row, struct rp_error *err);
void rp_file_row_free(struct rp_file_row *row); /* a zeroed one is allowed */
enum rp_status rp_file_row_read(const struct rp_gguf *file, const struct rp_gguf_tensor *tensor,
                                size_t index, struct rp_file_row *row, struct rp_error *err);
/* Sets the norms of what stands in values and bound. */
void rp_file_row_measure(struct rp_file_row *row);

/* expected [row->n]; tolerance: what that is off by itself, relative to each value. NaN is not the same. */
struct rp_row_distance rp_row_distance(const struct rp_file_row *row, const float *expected,
                                       double tolerance);

/* F32, F16 or BF16: each value is the nearest one. */
bool rp_is_nearest(uint32_t type);

#define RP_MAX_FAILING_SAMPLES 16

/* What was found of a tensor's rows. */
struct rp_tensor_rows {
    size_t n_rows, n_failing;
    size_t first_failing, last_failing;     /* where n_failing > 0 */
    size_t samples[RP_MAX_FAILING_SAMPLES]; /* [n_samples]: every sample_step-th failing row */
    size_t n_samples, sample_step;
    size_t worst_row; /* by error over limit */
    struct rp_row_distance worst;
    double coarsest;  /* the largest limit of a row */
    bool is_sketched; /* the checkpoint's rows are known by a sketch alone: see same_sketch.h */
    bool
        are_columns; /* where is_sketched: of the file's matrices, which are rows of the checkpoint's */
    struct rp_row_distance together; /* where is_sketched: of all rows, in the same units */
};

void rp_tensor_rows_add(struct rp_tensor_rows *rows, size_t index,
                        const struct rp_row_distance *distance);

/* The tensor of file and expected of checkpoint have the same shape, and a type that can be read.
 * RP_ERR_MEMORY, RP_ERR_UNSUPPORTED. */
enum rp_status rp_compare_tensor_rows(const struct rp_gguf *file,
                                      const struct rp_gguf_tensor *tensor,
                                      const struct rp_gguf *checkpoint,
                                      const struct rp_gguf_tensor *expected,
                                      struct rp_tensor_rows *rows, struct rp_error *err);

#endif
