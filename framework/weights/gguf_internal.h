/* What the gguf*.c files share. Nothing outside this folder includes it. */
#ifndef REFPARITY_WEIGHTS_GGUF_INTERNAL_H
#define REFPARITY_WEIGHTS_GGUF_INTERNAL_H

#include "base/little_endian.h"
#include "weights/gguf_computed.h"

struct rp_gguf {
    char *path;
    const unsigned char *bytes; /* [size] */
    size_t size;
    int is_mapped; /* bytes are ours to unmap */
    uint32_t version;
    size_t n_values;
    struct rp_gguf_value *values;               /* [n_values], file order */
    const struct rp_gguf_value **values_by_key; /* [n_values], sorted */
    size_t n_tensors;
    struct rp_gguf_tensor *tensors;                /* [n_tensors], file order */
    const struct rp_gguf_tensor **tensors_by_name; /* [n_tensors], sorted */
    /* Of a computed one; else zeroed. */
    struct rp_gguf_source source;
    unsigned char *image; /* owned: bytes */
    /* Of a model in several files: shard 0, whose tensors are those of all. */
    struct rp_gguf **others; /* [n_others], owned: the shards behind it, in order; NULL: not open */
    size_t n_others;
    size_t shard; /* its own number, from 0 */
};

/* One file, whatever it says of others. */
enum rp_status rp_gguf_open_file(const char *path, struct rp_gguf **out, struct rp_error *err);

/* n rows of the tensor from row first on need not stay in this process's memory, where the file is
 * mapped: they have been decoded. */
void rp_gguf_forget_rows(const struct rp_gguf *gguf, const struct rp_gguf_tensor *tensor,
                         size_t first, size_t n);

/* Bytes of one scalar; 0 for strings, arrays and numbers that are no kind. */
size_t rp_gguf_kind_size(enum rp_gguf_kind kind);

/* Values per block and bytes per block of a tensor type; false when ggml does not define it. */
bool rp_ggml_type_layout(uint32_t type, size_t *block_values, size_t *block_bytes);

/* Makes tensors_by_name anew; a name that occurs twice is an error. */
enum rp_status rp_gguf_sort_tensors(struct rp_gguf *gguf, struct rp_error *err);

/* Positive, 0, negative as for strcmp, by bytes. */
int rp_gguf_string_compare(struct rp_gguf_string a, struct rp_gguf_string b);

#endif
