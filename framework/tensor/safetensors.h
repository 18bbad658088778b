/* Reads one safetensors file: the list of its tensors, and their values as FP32. The header, every shape
 * and every range of bytes is checked when the file is opened. Not a whole checkpoint, which may be many
 * such files: that is checkpoint.h. Format: the safetensors README ("Format"). */
#ifndef REFPARITY_TENSOR_SAFETENSORS_H
#define REFPARITY_TENSOR_SAFETENSORS_H

#include <stdbool.h>

#include "refparity/status.h"

#define RP_SAFETENSORS_MAX_DIMS 8
#define RP_SAFETENSORS_NAME_SIZE 256 /* longest name, its NUL included */

/* What values can be read of; a file may hold others. */
enum rp_safetensors_type {
    RP_SAFETENSORS_F32,
    RP_SAFETENSORS_F16,
    RP_SAFETENSORS_BF16,
    RP_SAFETENSORS_OTHER
};

struct rp_safetensor {
    char name[RP_SAFETENSORS_NAME_SIZE];
    enum rp_safetensors_type type;
    char type_name[16]; /* as the file has it: "BF16", "I64", ... */
    unsigned n_dims;
    size_t dims[RP_SAFETENSORS_MAX_DIMS]; /* [n_dims], the longest stride first; none is 0 */
    size_t n_values;                      /* their product; 1 for a scalar */
    size_t offset;                        /* of the data, in the file */
    size_t n_bytes;
    const unsigned char *data; /* [n_bytes], inside the mapping */
};

struct rp_safetensors;

/* Maps the file at path. On success *out is to be closed with rp_safetensors_close; the tensors point into
 * it. RP_ERR_MISSING, RP_ERR_IO, RP_ERR_MEMORY, RP_ERR_FORMAT, RP_ERR_UNSUPPORTED (a name, a shape or a
 * header beyond the limits above). Errors have the byte offset in the file. */
enum rp_status rp_safetensors_open(const char *path, struct rp_safetensors **out,
                                   struct rp_error *err);
/* The same from bytes[size], which have to outlive *out; name stands for the path in errors. */
enum rp_status rp_safetensors_open_memory(const void *bytes, size_t size, const char *name,
                                          struct rp_safetensors **out, struct rp_error *err);
void rp_safetensors_close(struct rp_safetensors *file); /* NULL is allowed */

const char *rp_safetensors_path(const struct rp_safetensors *file);

/* Sorted by name. */
size_t rp_safetensors_n_tensors(const struct rp_safetensors *file);
const struct rp_safetensor *rp_safetensors_tensor(const struct rp_safetensors *file, size_t index);
/* NULL when there is no such tensor. */
const struct rp_safetensor *rp_safetensors_find(const struct rp_safetensors *file,
                                                const char *name);

/* Are most of its names a module's weight, "….weight"? Then it is a checkpoint's, and holds no states. */
bool rp_safetensors_are_weights(const struct rp_safetensors *file);

/* out [n] = values first .. first + n - 1, exactly. RP_ERR_UNSUPPORTED (of another type than F32, F16 and
 * BF16), RP_ERR_ARGUMENT (values that are not there). */
enum rp_status rp_safetensors_values(const struct rp_safetensors *file,
                                     const struct rp_safetensor *tensor, size_t first, size_t n,
                                     float *out, struct rp_error *err);

/* The tensor's bytes have been read and need not stay in this process's memory. */
void rp_safetensors_forget(const struct rp_safetensors *file, const struct rp_safetensor *tensor);

#endif
