/* Reads GGUF files, versions 2 and 3, little-endian: metadata, tensor list, and rows as FP32.
 * Every offset and count is checked when the file is opened. Not a writer, and it knows nothing
 * of any architecture: that is model.h. Format: ggml's docs/gguf.md. */
#ifndef REFPARITY_GGUF_H
#define REFPARITY_GGUF_H

#include <stdbool.h>

#include "refparity/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define RP_GGUF_NAME_SIZE 64 /* longest tensor name, its NUL included: ggml's GGML_MAX_NAME */
#define RP_GGUF_MAX_DIMS 4
#define RP_GGUF_MAX_NESTING 4 /* arrays of arrays, deeper ones are refused */

/* Kinds of metadata values, as the file numbers them. */
enum rp_gguf_kind {
    RP_GGUF_UINT8,
    RP_GGUF_INT8,
    RP_GGUF_UINT16,
    RP_GGUF_INT16,
    RP_GGUF_UINT32,
    RP_GGUF_INT32,
    RP_GGUF_FLOAT32,
    RP_GGUF_BOOL,
    RP_GGUF_STRING,
    RP_GGUF_ARRAY,
    RP_GGUF_UINT64,
    RP_GGUF_INT64,
    RP_GGUF_FLOAT64
};

/* Tensor types that rows can be read of, as ggml numbers them. The file may hold others. */
enum {
    RP_GGML_F32 = 0,
    RP_GGML_F16 = 1,
    RP_GGML_Q4_0 = 2,
    RP_GGML_Q4_1 = 3,
    RP_GGML_Q5_0 = 6,
    RP_GGML_Q5_1 = 7,
    RP_GGML_Q8_0 = 8,
    RP_GGML_Q2_K = 10,
    RP_GGML_Q3_K = 11,
    RP_GGML_Q4_K = 12,
    RP_GGML_Q5_K = 13,
    RP_GGML_Q6_K = 14,
    RP_GGML_IQ2_XXS = 16,
    RP_GGML_IQ2_XS = 17,
    RP_GGML_IQ3_XXS = 18,
    RP_GGML_IQ1_S = 19,
    RP_GGML_IQ4_NL = 20,
    RP_GGML_IQ3_S = 21,
    RP_GGML_IQ2_S = 22,
    RP_GGML_IQ4_XS = 23,
    RP_GGML_IQ1_M = 29,
    RP_GGML_BF16 = 30,
    RP_GGML_TQ1_0 = 34,
    RP_GGML_TQ2_0 = 35,
    RP_GGML_MXFP4 = 39,
    RP_GGML_NVFP4 = 40
};
/* Of activations; no file holds them. */
#define RP_GGML_Q8_1 9
#define RP_GGML_Q8_K 15

/* Bytes inside the file; not NUL-terminated, may be any bytes at all. */
struct rp_gguf_string {
    const char *data; /* [length] */
    size_t length;
};

/* One metadata entry. */
struct rp_gguf_value {
    struct rp_gguf_string key;
    enum rp_gguf_kind kind;
    enum rp_gguf_kind element_kind; /* of an array; equal to kind otherwise */
    size_t n_elements;              /* of an array; 1 otherwise */
    size_t offset;                  /* in the file, of the value or of the first element */
};

/* One tensor. dims[0] is the length of a row (numpy's last axis); unused dims are 1. Of a type that is not
 * known nothing but its beginning can be checked, and row_bytes is 0. */
struct rp_gguf_tensor {
    char name[RP_GGUF_NAME_SIZE];
    unsigned n_dims;
    size_t dims[RP_GGUF_MAX_DIMS];
    uint32_t type;             /* ggml's number, see rp_ggml_type_name */
    size_t n_rows;             /* product of dims[1..] */
    size_t row_bytes;          /* encoded */
    size_t offset;             /* of the data, in the file */
    const unsigned char *data; /* [n_rows][row_bytes], inside the mapping */
};

struct rp_gguf;

/* Maps the file at path. On success *out is to be closed with rp_gguf_close; everything that the
 * functions below return points into it. Where it is a shard (split.count), all shards are opened, by
 * their names in its folder: the metadata is the first one's, the tensors are those of all.
 * RP_ERR_MISSING (also a shard), RP_ERR_IO, RP_ERR_MEMORY, RP_ERR_FORMAT, RP_ERR_MISMATCH (shards that
 * disagree), RP_ERR_UNSUPPORTED (another version, big-endian). */
enum rp_status rp_gguf_open(const char *path, struct rp_gguf **out, struct rp_error *err);

/* The same for a reader of layers first to last alone ("blk.N.…"): of a model in several files those are opened
 * that may hold them if tensors are in the order of layers, and all up to the first one that has layers; all, where
 * another order shows. What is in the others is not found, and they may be missing. */
enum rp_status rp_gguf_open_layers(const char *path, size_t first, size_t last,
                                   struct rp_gguf **out, struct rp_error *err);
bool rp_gguf_is_partial(const struct rp_gguf *gguf); /* a shard is not open */

/* The same from bytes[size], which have to outlive *out; name stands for the path in errors. A shard is
 * opened alone. */
enum rp_status rp_gguf_open_memory(const void *bytes, size_t size, const char *name,
                                   struct rp_gguf **out, struct rp_error *err);
void rp_gguf_close(struct rp_gguf *gguf); /* NULL is allowed */

const char *rp_gguf_path(const struct rp_gguf *gguf); /* of shard 0 */
size_t rp_gguf_n_shards(const struct rp_gguf *gguf);  /* 1: it is one file */

#define RP_MODEL_FILE_ID_SIZE 192
/* Which file it is, for rp_dump_model: "qwen3-q8_0.gguf 0123456789abcdef", its name and a hash of its size
 * and of 64 places in it; of a split file, of all its shards. "" of a folder, and of what cannot be read. */
void rp_model_file_id(const char *path, char out[RP_MODEL_FILE_ID_SIZE]);
/* Whether both are of one content, and whether of two; neither where one has no hash. */
bool rp_model_file_is(const char *id, const char *other);
bool rp_model_file_is_another(const char *id, const char *other);

uint32_t rp_gguf_version(const struct rp_gguf *gguf);

/* By the name alone, without looking at any file: how many shards the model at path has (1: the name is
 * no shard's), and the path of one of them, 0 <= index < that. RP_ERR_ARGUMENT where out[size] is too
 * small. */
size_t rp_gguf_shards_of_name(const char *path);
enum rp_status rp_gguf_shard_name(const char *path, size_t index, char *out, size_t size,
                                  struct rp_error *err);

/* ---- metadata ---- */

/* In file order, 0 <= index < rp_gguf_n_values. */
size_t rp_gguf_n_values(const struct rp_gguf *gguf);
const struct rp_gguf_value *rp_gguf_value(const struct rp_gguf *gguf, size_t index);
/* NULL when there is no such key. */
const struct rp_gguf_value *rp_gguf_find_value(const struct rp_gguf *gguf, const char *key);

/* Typed access. RP_ERR_MISSING when the key is absent, RP_ERR_FORMAT when it is of another kind,
 * RP_ERR_UNSUPPORTED when the number is outside [low, high]; *out is then untouched. Integers of
 * any width and sign are accepted; float accepts both widths. */
enum rp_status rp_gguf_get_int(const struct rp_gguf *gguf, const char *key, int64_t low,
                               int64_t high, int64_t *out, struct rp_error *err);
enum rp_status rp_gguf_get_float(const struct rp_gguf *gguf, const char *key, double *out,
                                 struct rp_error *err);
enum rp_status rp_gguf_get_bool(const struct rp_gguf *gguf, const char *key, bool *out,
                                struct rp_error *err);
enum rp_status rp_gguf_get_string(const struct rp_gguf *gguf, const char *key,
                                  struct rp_gguf_string *out, struct rp_error *err);
/* Arrays: *items is [*n], allocated, and freed by the caller (NULL when *n is 0). */
enum rp_status rp_gguf_get_ints(const struct rp_gguf *gguf, const char *key, int64_t **items,
                                size_t *n, struct rp_error *err);
enum rp_status rp_gguf_get_bools(const struct rp_gguf *gguf, const char *key, bool **items,
                                 size_t *n, struct rp_error *err);
enum rp_status rp_gguf_get_floats(const struct rp_gguf *gguf, const char *key, double **items,
                                  size_t *n, struct rp_error *err);
enum rp_status rp_gguf_get_strings(const struct rp_gguf *gguf, const char *key,
                                   struct rp_gguf_string **items, size_t *n, struct rp_error *err);

/* "uint32", "array", …; "unknown" for a number that is no kind. */
const char *rp_gguf_kind_name(enum rp_gguf_kind kind);

/* The value for a reader, on one line: control characters become \xNN, long strings and arrays end
 * in "…". Cut to fit buf[size], NUL-terminated; returns buf. */
const char *rp_gguf_value_text(const struct rp_gguf *gguf, const struct rp_gguf_value *value,
                               char *buf, size_t size);

/* ---- tensors ---- */

/* In file order. */
size_t rp_gguf_n_tensors(const struct rp_gguf *gguf);
const struct rp_gguf_tensor *rp_gguf_tensor(const struct rp_gguf *gguf, size_t index);
/* NULL when there is no such tensor. */
const struct rp_gguf_tensor *rp_gguf_find_tensor(const struct rp_gguf *gguf, const char *name);
/* The file that its offset is in: a shard's. */
const char *rp_gguf_tensor_path(const struct rp_gguf *gguf, const struct rp_gguf_tensor *tensor);

/* "BF16", "Q4_K", …; "unknown" for a number that ggml does not define. */
const char *rp_ggml_type_name(uint32_t type);
/* Whether the type stores a minimum beside each block's scale: Q4_1 and Q5_1. */
bool rp_gguf_type_has_minima(uint32_t type);
/* Those of n rows from row first, in minima [n][row's values / 32]; the tensor's type has them, and the
 * rows are within it. Not looked at for NaN: the rows' values are. */
void rp_gguf_minima(const struct rp_gguf_tensor *tensor, size_t first, size_t n, float *minima);
/* Whether rp_gguf_rows can decode it. */
bool rp_ggml_type_is_readable(uint32_t type);

/* Decodes rows first .. first + n - 1 to out [n][dims[0]], exactly as ggml's dequantize_row_* and
 * gguf.quants.dequantize do. tensor belongs to gguf. RP_ERR_UNSUPPORTED names a type that cannot
 * be read, RP_ERR_ARGUMENT rows that are not there, RP_ERR_FORMAT the first element that is not
 * finite; the rows up to it are decoded. */
enum rp_status rp_gguf_rows(const struct rp_gguf *gguf, const struct rp_gguf_tensor *tensor,
                            size_t first, size_t n, float *out, struct rp_error *err);
/* One row, out [dims[0]]. */
enum rp_status rp_gguf_row(const struct rp_gguf *gguf, const struct rp_gguf_tensor *tensor,
                           size_t row, float *out, struct rp_error *err);

#ifdef __cplusplus
}
#endif
#endif
