/* A Hugging Face checkpoint: a folder with config.json and model.safetensors, or with its shards, which
 * model.safetensors.index.json lists. Finds tensors by name and settings by key. Not for what a model
 * makes of them: that is architectures/from_checkpoint.h. */
#ifndef REFPARITY_WEIGHTS_CHECKPOINT_H
#define REFPARITY_WEIGHTS_CHECKPOINT_H

#include "base/json.h"
#include "tensor/safetensors.h"
#include "weights/sketch.h"

struct rp_checkpoint;

/* On success *out is to be closed with rp_checkpoint_close; tensors and values point into it. Reads
 * config.json, generation_config.json where there is one, and the header of every shard. RP_ERR_MISSING (a
 * file; a tensor that the index lists), RP_ERR_FORMAT, RP_ERR_UNSUPPORTED, RP_ERR_IO, RP_ERR_MEMORY. */
enum rp_status rp_checkpoint_open(const char *folder, struct rp_checkpoint **out,
                                  struct rp_error *err);
/* The sketch of a checkpoint, a file of fixtures/weights_sketch.py: tensors have the checkpoint's names, shapes
 * and types; of those that are sketched no values can be read. Errors as above. */
enum rp_status rp_checkpoint_open_sketch(const char *path, struct rp_checkpoint **out,
                                         struct rp_error *err);
/* The same from bytes[size], which have to outlive *out; name stands for the path in errors. */
enum rp_status rp_checkpoint_open_sketch_memory(const void *bytes, size_t size, const char *name,
                                                struct rp_checkpoint **out, struct rp_error *err);
void rp_checkpoint_close(struct rp_checkpoint *checkpoint); /* NULL is allowed */

/* Whether path is a folder: of the two, a checkpoint and no GGUF. */
bool rp_is_checkpoint(const char *path);

const char *rp_checkpoint_path(const struct rp_checkpoint *checkpoint);

/* config.json's, text_config's where it has one; NULL when neither has it, or it is null. */
const cJSON *rp_checkpoint_setting(const struct rp_checkpoint *checkpoint, const char *key);
/* generation_config.json's; NULL when it has none. */
const cJSON *rp_checkpoint_generation_setting(const struct rp_checkpoint *checkpoint,
                                              const char *key);
/* rp_fail at the place of a value of rp_checkpoint_setting in config.json; NULL: at the file. */
enum rp_status rp_checkpoint_fail(const struct rp_checkpoint *checkpoint, const cJSON *value,
                                  struct rp_error *err, enum rp_status code, const char *fmt, ...)
    RP_PRINTF(5, 6);

/* A tensor, and the file that it is in. */
struct rp_checkpoint_tensor {
    const struct rp_safetensors *file;
    const struct rp_safetensor *tensor;
    struct rp_tensor_sketch sketch; /* data is NULL where the values are there */
};

/* Sorted by name. */
size_t rp_checkpoint_n_tensors(const struct rp_checkpoint *checkpoint);
const struct rp_checkpoint_tensor *rp_checkpoint_tensor(const struct rp_checkpoint *checkpoint,
                                                        size_t index);
/* NULL when there is no such tensor. */
const struct rp_checkpoint_tensor *rp_checkpoint_find(const struct rp_checkpoint *checkpoint,
                                                      const char *name);

#endif
