/* Opens a checkpoint's sketch: a safetensors file with the tensors that are whole, FP32 [rows][2 + vectors] for
 * those that are sketched, and three members of JSON: config.json, generation_config.json and a manifest, which
 * has the sketched tensors' own types and shapes. See weights/checkpoint.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "weights/checkpoint_internal.h"

#define PATH_SIZE 4096
#define PREFIX "refparity." /* of what is no tensor of the checkpoint */
#define FORMAT "refparity-sketch"

struct reader {
    struct rp_checkpoint *checkpoint;
    const struct rp_safetensors *file;
    struct rp_json *manifest;
    size_t n_vectors, n_sketched;
    struct rp_error *err;
};

/* *out stays NULL where the file has no such member. */
static enum rp_status read_member(const struct reader *reader, const char *name,
                                  struct rp_json **out)
{
    char where[PATH_SIZE], member[64];
    snprintf(member, sizeof member, PREFIX "%s", name);
    const struct rp_safetensor *tensor = rp_safetensors_find(reader->file, member);
    if (!tensor)
        return RP_OK;
    snprintf(where, sizeof where, "%s/%s", reader->checkpoint->path, name);
    enum rp_status status =
        rp_json_parse((const char *)tensor->data, tensor->n_bytes, where, out, reader->err);
    if (status == RP_OK && !cJSON_IsObject(rp_json_root(*out)))
        status = rp_json_fail(*out, rp_json_root(*out), reader->err, RP_ERR_FORMAT,
                              "expected an object");
    return status;
}

static enum rp_status read_manifest(struct reader *reader)
{
    const char *path = reader->checkpoint->path;
    long long version, n_vectors;
    enum rp_status status = read_member(reader, "manifest", &reader->manifest);
    if (status == RP_OK)
        status = read_member(reader, "config.json", &reader->checkpoint->config);
    if (status == RP_OK)
        status =
            read_member(reader, "generation_config.json", &reader->checkpoint->generation_config);
    if (status != RP_OK)
        return status;
    if (!reader->manifest || !reader->checkpoint->config)
        return rp_fail(reader->err, RP_ERR_FORMAT, path, -1,
                       "not a sketch of a checkpoint: it has no member " PREFIX "%s",
                       reader->manifest ? "config.json" : "manifest");
    const cJSON *root = rp_json_root(reader->manifest);
    const cJSON *format = cJSON_GetObjectItemCaseSensitive(root, "format");
    const cJSON *number = cJSON_GetObjectItemCaseSensitive(root, "version");
    const cJSON *vectors = cJSON_GetObjectItemCaseSensitive(root, "n_vectors");
    if (!cJSON_IsString(format) || strcmp(format->valuestring, FORMAT) != 0)
        return rp_json_fail(reader->manifest, format ? format : root, reader->err, RP_ERR_FORMAT,
                            "expected \"format\": \"" FORMAT "\"");
    if (!rp_json_int(number, 1, 1, &version))
        return rp_json_fail(reader->manifest, number ? number : root, reader->err,
                            RP_ERR_UNSUPPORTED,
                            "expected \"version\": 1; record it again with ci/record.sh");
    if (!rp_json_int(vectors, 1, RP_SKETCH_MAX_VECTORS, &n_vectors))
        return rp_json_fail(reader->manifest, vectors ? vectors : root, reader->err, RP_ERR_FORMAT,
                            "expected \"n_vectors\", 1 to %d", RP_SKETCH_MAX_VECTORS);
    reader->n_vectors = (size_t)n_vectors;
    return RP_OK;
}

static enum rp_status list_tensors(const struct reader *reader)
{
    struct rp_checkpoint *checkpoint = reader->checkpoint;
    const size_t n = rp_safetensors_n_tensors(reader->file);
    checkpoint->tensors = calloc(n + 1, sizeof *checkpoint->tensors);
    if (!checkpoint->tensors)
        return rp_fail(reader->err, RP_ERR_MEMORY, checkpoint->path, -1,
                       "no memory for %zu tensors", n);
    for (size_t i = 0; i < n; i++) { /* which are sorted by name */
        const struct rp_safetensor *tensor = rp_safetensors_tensor(reader->file, i);
        if (strncmp(tensor->name, PREFIX, strlen(PREFIX)) != 0)
            checkpoint->tensors[checkpoint->n_tensors++] =
                (struct rp_checkpoint_tensor){.file = reader->file, .tensor = tensor};
    }
    return RP_OK;
}

/* The shape that the matrix has in the checkpoint; *n_rows: all dimensions but the last. */
static bool read_shape(const cJSON *item, struct rp_safetensor *tensor, size_t *n_rows)
{
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(item, "shape"), *dim;
    *n_rows = 1;
    tensor->n_dims = 0;
    if (!cJSON_IsArray(shape))
        return false;
    cJSON_ArrayForEach(dim, shape)
    {
        long long n;
        if (tensor->n_dims == RP_SAFETENSORS_MAX_DIMS ||
            !rp_json_int(dim, 1, (long long)1 << 40, &n))
            return false;
        if (tensor->n_dims > 0 && *n_rows > SIZE_MAX / tensor->dims[tensor->n_dims - 1])
            return false;
        if (tensor->n_dims > 0)
            *n_rows *= tensor->dims[tensor->n_dims - 1];
        tensor->dims[tensor->n_dims++] = (size_t)n;
    }
    return tensor->n_dims >= 2;
}

static bool read_type(const cJSON *item, struct rp_safetensor *tensor)
{
    static const struct {
        const char *name;
        enum rp_safetensors_type type;
    } types[] = {
        {"F32", RP_SAFETENSORS_F32}, {"F16", RP_SAFETENSORS_F16}, {"BF16", RP_SAFETENSORS_BF16}};
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "dtype"));
    for (size_t i = 0; name && i < sizeof types / sizeof *types; i++)
        if (strcmp(name, types[i].name) == 0) {
            tensor->type = types[i].type;
            snprintf(tensor->type_name, sizeof tensor->type_name, "%s", name);
            return true;
        }
    return false;
}

/* An entry of the manifest's: the tensor then has its shape and type, and no values. */
static enum rp_status read_sketched(struct reader *reader, const cJSON *item)
{
    struct rp_checkpoint_tensor *listed =
        bsearch(item->string, reader->checkpoint->tensors, reader->checkpoint->n_tensors,
                sizeof *listed, rp_checkpoint_compare_name);
    struct rp_safetensor *tensor = &reader->checkpoint->sketched[reader->n_sketched++];
    size_t n_rows;
    if (!listed)
        return rp_json_fail(reader->manifest, item, reader->err, RP_ERR_MISSING,
                            "tensor '%.200s' is not in the sketch", item->string);
    const struct rp_safetensor *stored = listed->tensor;
    *tensor = *stored;
    if (!read_shape(item, tensor, &n_rows) || !read_type(item, tensor))
        return rp_json_fail(reader->manifest, item, reader->err, RP_ERR_FORMAT,
                            "tensor '%s': expected \"shape\" of two dimensions or more, and "
                            "\"dtype\" F32, F16 or BF16",
                            stored->name);
    if (stored->type != RP_SAFETENSORS_F32 || stored->n_dims != 2 || stored->dims[0] != n_rows ||
        stored->dims[1] != 2 + reader->n_vectors)
        return rp_json_fail(reader->manifest, item, reader->err, RP_ERR_FORMAT,
                            "tensor '%s' is sketched, but not as F32 [%zu][%zu]", stored->name,
                            n_rows, 2 + reader->n_vectors);
    tensor->n_values = tensor->n_bytes = 0;
    tensor->data = NULL;
    listed->tensor = tensor;
    listed->sketch = (struct rp_tensor_sketch){
        .data = stored->data, .n_rows = n_rows, .n_vectors = reader->n_vectors};
    return RP_OK;
}

static enum rp_status read_all_sketched(struct reader *reader)
{
    const cJSON *root = rp_json_root(reader->manifest), *item;
    const cJSON *sketched = cJSON_GetObjectItemCaseSensitive(root, "sketched");
    if (!cJSON_IsObject(sketched))
        return rp_json_fail(reader->manifest, sketched ? sketched : root, reader->err,
                            RP_ERR_FORMAT, "expected \"sketched\", an object of tensors");
    reader->checkpoint->sketched =
        calloc((size_t)cJSON_GetArraySize(sketched) + 1, sizeof *reader->checkpoint->sketched);
    if (!reader->checkpoint->sketched)
        return rp_fail(reader->err, RP_ERR_MEMORY, reader->checkpoint->path, -1,
                       "no memory for a sketch");
    enum rp_status status = RP_OK;
    cJSON_ArrayForEach(item, sketched)
    {
        status = read_sketched(reader, item);
        if (status != RP_OK)
            break;
    }
    return status;
}

/* Takes over file, after an error too. */
static enum rp_status open_file(struct rp_safetensors *file, struct rp_checkpoint **out,
                                struct rp_error *err)
{
    const char *path = rp_safetensors_path(file);
    struct rp_checkpoint *checkpoint = rp_checkpoint_new(path);
    struct reader reader = {.checkpoint = checkpoint, .file = file, .err = err};
    if (!checkpoint || !(checkpoint->shards = calloc(1, sizeof(struct rp_safetensors *)))) {
        enum rp_status status = rp_fail(err, RP_ERR_MEMORY, path, -1, "no memory for a sketch");
        rp_safetensors_close(file);
        rp_checkpoint_close(checkpoint);
        return status;
    }
    checkpoint->shards[checkpoint->n_shards++] = file;
    enum rp_status status = read_manifest(&reader);
    if (status == RP_OK)
        status = list_tensors(&reader);
    if (status == RP_OK)
        status = read_all_sketched(&reader);
    rp_json_free(reader.manifest);
    if (status == RP_OK) {
        rp_checkpoint_find_text_config(checkpoint);
        *out = checkpoint;
    } else {
        rp_checkpoint_close(checkpoint);
    }
    return status;
}

enum rp_status rp_checkpoint_open_sketch(const char *path, struct rp_checkpoint **out,
                                         struct rp_error *err)
{
    struct rp_safetensors *file = NULL;
    enum rp_status status = rp_safetensors_open(path, &file, err);
    return status == RP_OK ? open_file(file, out, err) : status;
}

enum rp_status rp_checkpoint_open_sketch_memory(const void *bytes, size_t size, const char *name,
                                                struct rp_checkpoint **out, struct rp_error *err)
{
    struct rp_safetensors *file = NULL;
    enum rp_status status = rp_safetensors_open_memory(bytes, size, name, &file, err);
    return status == RP_OK ? open_file(file, out, err) : status;
}
