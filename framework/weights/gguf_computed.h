/* A model file that is computed and not read: what stands in for a GGUF whose values come from somewhere
 * else. Everything that reads a struct rp_gguf reads it. Not a writer of files. */
#ifndef REFPARITY_WEIGHTS_GGUF_COMPUTED_H
#define REFPARITY_WEIGHTS_GGUF_COMPUTED_H

#include "refparity/gguf.h"
#include "weights/sketch.h"

/* Metadata in the making; starts zeroed. Running out of memory shows in rp_gguf_open_computed. */
struct rp_gguf_metadata {
    unsigned char *bytes; /* [size], owned */
    size_t size, capacity;
    size_t n_values;
    bool failed;
};

void rp_gguf_metadata_size(struct rp_gguf_metadata *metadata, const char *key, size_t value);
void rp_gguf_metadata_float(struct rp_gguf_metadata *metadata, const char *key, float value);
void rp_gguf_metadata_string(struct rp_gguf_metadata *metadata, const char *key, const char *text);
void rp_gguf_metadata_bool(struct rp_gguf_metadata *metadata, const char *key, bool value);
/* An array of values [n]. */
void rp_gguf_metadata_ints(struct rp_gguf_metadata *metadata, const char *key,
                           const int64_t *values, size_t n);
void rp_gguf_metadata_bools(struct rp_gguf_metadata *metadata, const char *key, const bool *values,
                            size_t n);

struct rp_checkpoint_tensor;

/* How a computed tensor is made of another one. */
struct rp_gguf_origin {
    const char *name; /* of the other one; "" where it is none */
    /* Row r (column c) is the other's row rows[r]; NULL: r. [n_rows], [dims[0]] */
    const size_t *rows, *columns;
    /* Of n_each rows of each expert, or head, where n_each is not 0: the tensors are `each`, one an expert; or, each
     * NULL, number e's rows are the other's from row e * stride + first on. is_transposed: its matrix' columns. */
    size_t n_each, stride, first;
    const struct rp_checkpoint_tensor *const *each;
    bool is_transposed;
    const char *order;                     /* what that order is for, a noun phrase; "" */
    float added;                           /* to every value */
    bool is_minus_exp;                     /* -exp(x) of each value x */
    const struct rp_tensor_sketch *sketch; /* NULL, or its data is: the values are there */
    double tolerance; /* how far the same formula elsewhere may be off, relative to each value */
};

/* A row of a sketch. */
struct rp_sketched_row {
    const struct rp_tensor_sketch *sketch;
    size_t row;
};
/* Where row r of the computed tensor is sketched; is_transposed: where column r of all matrices side by side is. */
struct rp_sketched_row rp_origin_sketched_row(const struct rp_gguf_origin *origin, size_t r);

/* Where the tensors' values come from. */
struct rp_gguf_source {
    /* As rp_gguf_rows, of tensor number index. Called from several threads. */
    enum rp_status (*rows)(const void *context, size_t index, size_t first, size_t n, float *out,
                           struct rp_error *err);
    void (*forget)(const void *context, size_t index); /* the tensor has been read */
    struct rp_gguf_origin (*origin)(const void *context, size_t index);
    void (*close)(void *context);
    void *context;
};

/* path stands for it in messages. tensors [n]: name, n_dims, dims, type, n_rows, offset (for messages) are
 * set. Takes over metadata, tensors (freed) and source (closed), after an error too. RP_ERR_MEMORY,
 * RP_ERR_FORMAT (a key or a tensor's name that occurs twice). */
enum rp_status rp_gguf_open_computed(const char *path, struct rp_gguf_metadata *metadata,
                                     struct rp_gguf_tensor *tensors, size_t n,
                                     struct rp_gguf_source source, struct rp_gguf **out,
                                     struct rp_error *err);

/* tensor belongs to gguf, which is a computed one. */
struct rp_gguf_origin rp_gguf_origin(const struct rp_gguf *gguf,
                                     const struct rp_gguf_tensor *tensor);

#endif
