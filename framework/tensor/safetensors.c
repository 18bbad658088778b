/* See tensor/safetensors.h: eight bytes of length, a JSON object of that length, then the data. */
#include "tensor/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/little_endian.h"
#include "tensor/array.h"

#define LENGTH_BYTES 8
#define METADATA_KEY "__metadata__"

struct rp_safetensors {
    char *path;
    const unsigned char *bytes; /* [size] */
    size_t size;
    bool is_mapped; /* bytes are ours to unmap */
    size_t n_tensors;
    struct rp_safetensor *tensors; /* [n_tensors], sorted by name */
};

struct reader {
    struct rp_safetensors *file;
    const char *header; /* [header_length] */
    size_t header_length;
    size_t data_offset; /* where the data begins in the file */
    struct rp_json *json;
    struct rp_error *err;
};

/* rp_fail's value is code, which the compiler cannot know. */
#define FAIL_AT(reader, offset, code, ...) \
    (rp_fail((reader)->err, code, (reader)->file->path, (long long)(offset), __VA_ARGS__), (code))
#define FAIL_VALUE(reader, value, code, ...) \
    FAIL_AT(reader, value_offset(reader, value), code, __VA_ARGS__)

/* Where a value of the header starts in the file. */
static size_t value_offset(const struct reader *reader, const cJSON *value)
{
    int line, column;
    size_t at = 0;
    rp_json_locate(reader->json, value, &line, &column);
    for (; line > 1 && at < reader->header_length; at++)
        line -= reader->header[at] == '\n';
    return LENGTH_BYTES + at + (size_t)(column > 0 ? column - 1 : 0);
}

/* 0 where the type is not known: then its bytes are only kept apart from the others'. */
static size_t value_size(const char *type)
{
    static const struct {
        const char *name;
        size_t size;
    } types[] = {{"F32", 4},  {"F16", 2}, {"BF16", 2},    {"F64", 8},     {"I64", 8},    {"U64", 8},
                 {"I32", 4},  {"U32", 4}, {"I16", 2},     {"U16", 2},     {"I8", 1},     {"U8", 1},
                 {"BOOL", 1}, {"C64", 8}, {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, type) == 0)
            return types[i].size;
    return 0;
}

static enum rp_safetensors_type type_of(const char *name)
{
    return strcmp(name, "F32") == 0    ? RP_SAFETENSORS_F32
           : strcmp(name, "F16") == 0  ? RP_SAFETENSORS_F16
           : strcmp(name, "BF16") == 0 ? RP_SAFETENSORS_BF16
                                       : RP_SAFETENSORS_OTHER;
}

static enum rp_status read_name(const struct reader *reader, const cJSON *item,
                                struct rp_safetensor *tensor)
{
    const size_t length = strlen(item->string);
    if (length == 0 || length >= sizeof tensor->name)
        return FAIL_VALUE(reader, item, RP_ERR_UNSUPPORTED,
                          "a tensor's name has %zu bytes, expected 1 to %zu", length,
                          sizeof tensor->name - 1);
    for (size_t i = 0; i < length; i++) {
        const unsigned char byte = (unsigned char)item->string[i];
        if (byte < 0x20 || byte == 0x7f)
            return FAIL_VALUE(reader, item, RP_ERR_FORMAT, "a tensor's name holds the byte 0x%02x",
                              byte);
    }
    memcpy(tensor->name, item->string, length + 1);
    return RP_OK;
}

static enum rp_status read_type(const struct reader *reader, const cJSON *item,
                                struct rp_safetensor *tensor)
{
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(item, "dtype");
    if (!cJSON_IsString(type))
        return FAIL_VALUE(reader, type ? type : item, RP_ERR_FORMAT,
                          "tensor '%s': expected \"dtype\", a string", tensor->name);
    if (strlen(type->valuestring) >= sizeof tensor->type_name)
        return FAIL_VALUE(reader, type, RP_ERR_UNSUPPORTED, "tensor '%s': unknown dtype '%.40s'",
                          tensor->name, type->valuestring);
    memcpy(tensor->type_name, type->valuestring, strlen(type->valuestring) + 1);
    tensor->type = type_of(tensor->type_name);
    return RP_OK;
}

static enum rp_status read_shape(const struct reader *reader, const cJSON *item,
                                 struct rp_safetensor *tensor)
{
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(item, "shape"), *dim;
    if (!cJSON_IsArray(shape))
        return FAIL_VALUE(reader, shape ? shape : item, RP_ERR_FORMAT,
                          "tensor '%s': expected \"shape\", an array", tensor->name);
    tensor->n_values = 1;
    cJSON_ArrayForEach(dim, shape)
    {
        long long n;
        if (tensor->n_dims == RP_SAFETENSORS_MAX_DIMS)
            return FAIL_VALUE(reader, dim, RP_ERR_UNSUPPORTED,
                              "tensor '%s' has more than %d dimensions", tensor->name,
                              RP_SAFETENSORS_MAX_DIMS);
        if (!rp_json_int(dim, 1, (long long)1 << 53, &n) ||
            (unsigned long long)n > SIZE_MAX / tensor->n_values)
            return FAIL_VALUE(reader, dim, RP_ERR_FORMAT,
                              "tensor '%s': dimension %u is not a number of values", tensor->name,
                              tensor->n_dims);
        tensor->dims[tensor->n_dims++] = (size_t)n;
        tensor->n_values *= (size_t)n;
    }
    return RP_OK;
}

static enum rp_status read_place(const struct reader *reader, const cJSON *item,
                                 struct rp_safetensor *tensor)
{
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
    const size_t size = value_size(tensor->type_name);
    const size_t room = reader->file->size - reader->data_offset;
    long long first = 0, end = 0;
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 ||
        !rp_json_int(cJSON_GetArrayItem(offsets, 0), 0, (long long)1 << 53, &first) ||
        !rp_json_int(cJSON_GetArrayItem(offsets, 1), first, (long long)1 << 53, &end))
        return FAIL_VALUE(reader, offsets ? offsets : item, RP_ERR_FORMAT,
                          "tensor '%s': expected \"data_offsets\", [begin, end]", tensor->name);
    if ((unsigned long long)end > room)
        return FAIL_VALUE(reader, offsets, RP_ERR_FORMAT,
                          "tensor '%s': bytes %lld to %lld end past the %zu bytes of data",
                          tensor->name, first, end, room);
    tensor->n_bytes = (size_t)(end - first);
    if (size > 0 &&
        (tensor->n_values > SIZE_MAX / size || tensor->n_bytes != tensor->n_values * size))
        return FAIL_VALUE(reader, offsets, RP_ERR_FORMAT,
                          "tensor '%s': %zu bytes for %zu values of %s, expected %zu each",
                          tensor->name, tensor->n_bytes, tensor->n_values, tensor->type_name, size);
    tensor->offset = reader->data_offset + (size_t)first;
    tensor->data = reader->file->bytes + tensor->offset;
    return RP_OK;
}

static enum rp_status read_tensor(const struct reader *reader, const cJSON *item,
                                  struct rp_safetensor *tensor)
{
    enum rp_status status = read_name(reader, item, tensor);
    if (status == RP_OK && !cJSON_IsObject(item))
        status = FAIL_VALUE(reader, item, RP_ERR_FORMAT, "tensor '%s': expected an object",
                            tensor->name);
    if (status == RP_OK)
        status = read_type(reader, item, tensor);
    if (status == RP_OK)
        status = read_shape(reader, item, tensor);
    if (status == RP_OK)
        status = read_place(reader, item, tensor);
    return status;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct rp_safetensor *)a)->name, ((const struct rp_safetensor *)b)->name);
}

static int compare_offsets(const void *a, const void *b)
{
    const size_t x = ((const struct rp_safetensor *)a)->offset,
                 y = ((const struct rp_safetensor *)b)->offset;
    return (x > y) - (x < y);
}

/* The format's own rule: the tensors' bytes follow each other without a hole to the end of the file. */
static enum rp_status check_places(const struct reader *reader)
{
    const struct rp_safetensors *file = reader->file;
    size_t at = reader->data_offset;
    qsort(file->tensors, file->n_tensors, sizeof *file->tensors, compare_offsets);
    for (size_t i = 0; i < file->n_tensors; i++) {
        const struct rp_safetensor *tensor = &file->tensors[i];
        if (tensor->offset != at)
            return FAIL_AT(reader, tensor->offset, RP_ERR_FORMAT,
                           "tensor '%s' begins at byte %zu, expected %zu, where the one before it "
                           "ends",
                           tensor->name, tensor->offset, at);
        at += tensor->n_bytes;
    }
    if (at != file->size)
        return FAIL_AT(reader, at, RP_ERR_FORMAT, "%zu bytes follow the last tensor",
                       file->size - at);
    return RP_OK;
}

static enum rp_status read_header(struct reader *reader)
{
    struct rp_safetensors *file = reader->file;
    if (file->size < LENGTH_BYTES)
        return FAIL_AT(reader, 0, RP_ERR_FORMAT,
                       "not a safetensors file: it has %zu bytes, expected at least 8", file->size);
    const uint64_t length = rp_load_u64(file->bytes);
    if (length > file->size - LENGTH_BYTES)
        return FAIL_AT(reader, 0, RP_ERR_FORMAT,
                       "not a safetensors file, or truncated: a header of %llu bytes, %zu are left",
                       (unsigned long long)length, file->size - LENGTH_BYTES);
    if (length == 0 || file->bytes[LENGTH_BYTES] != '{')
        return FAIL_AT(reader, LENGTH_BYTES, RP_ERR_FORMAT,
                       "not a safetensors file: its header is no JSON object");
    reader->header = (const char *)file->bytes + LENGTH_BYTES;
    reader->header_length = (size_t)length;
    reader->data_offset = LENGTH_BYTES + (size_t)length;
    return rp_json_parse(reader->header, reader->header_length, file->path, &reader->json,
                         reader->err);
}

static enum rp_status read_tensors(const struct reader *reader)
{
    struct rp_safetensors *file = reader->file;
    const cJSON *root = rp_json_root(reader->json), *item;
    file->tensors = calloc((size_t)cJSON_GetArraySize(root) + 1, sizeof *file->tensors);
    if (!file->tensors)
        return FAIL_AT(reader, -1, RP_ERR_MEMORY, "no memory for %d tensors",
                       cJSON_GetArraySize(root));
    cJSON_ArrayForEach(item, root)
    {
        if (strcmp(item->string, METADATA_KEY) == 0)
            continue;
        enum rp_status status = read_tensor(reader, item, &file->tensors[file->n_tensors]);
        if (status != RP_OK)
            return status;
        file->n_tensors++;
    }
    enum rp_status status = check_places(reader);
    qsort(file->tensors, file->n_tensors, sizeof *file->tensors, compare_names);
    return status;
}

enum rp_status rp_safetensors_open_memory(const void *bytes, size_t size, const char *name,
                                          struct rp_safetensors **out, struct rp_error *err)
{
    struct rp_safetensors *file = calloc(1, sizeof *file);
    struct reader reader = {.file = file, .err = err};
    if (!file || !(file->path = malloc(strlen(name) + 1))) {
        free(file);
        return rp_fail(err, RP_ERR_MEMORY, name, -1, "no memory for a safetensors file");
    }
    memcpy(file->path, name, strlen(name) + 1);
    file->bytes = bytes;
    file->size = size;
    enum rp_status status = read_header(&reader);
    if (status == RP_OK)
        status = read_tensors(&reader);
    rp_json_free(reader.json);
    if (status == RP_OK)
        *out = file;
    else
        rp_safetensors_close(file);
    return status;
}

enum rp_status rp_safetensors_open(const char *path, struct rp_safetensors **out,
                                   struct rp_error *err)
{
    const void *bytes;
    size_t size;
    enum rp_status status = rp_file_map(path, &bytes, &size, err);
    if (status != RP_OK)
        return status;
    status = rp_safetensors_open_memory(bytes, size, path, out, err);
    if (status == RP_OK)
        (*out)->is_mapped = true;
    else
        rp_file_unmap(bytes, size);
    return status;
}

void rp_safetensors_close(struct rp_safetensors *file)
{
    if (!file)
        return;
    if (file->is_mapped)
        rp_file_unmap(file->bytes, file->size);
    free(file->tensors);
    free(file->path);
    free(file);
}

const char *rp_safetensors_path(const struct rp_safetensors *file)
{
    return file->path;
}

size_t rp_safetensors_n_tensors(const struct rp_safetensors *file)
{
    return file->n_tensors;
}

const struct rp_safetensor *rp_safetensors_tensor(const struct rp_safetensors *file, size_t index)
{
    return &file->tensors[index];
}

static int compare_name(const void *name, const void *tensor)
{
    return strcmp(name, ((const struct rp_safetensor *)tensor)->name);
}

const struct rp_safetensor *rp_safetensors_find(const struct rp_safetensors *file, const char *name)
{
    return bsearch(name, file->tensors, file->n_tensors, sizeof *file->tensors, compare_name);
}

bool rp_safetensors_are_weights(const struct rp_safetensors *file)
{
    static const char end[] = ".weight";
    size_t n = 0;
    for (size_t i = 0; i < file->n_tensors; i++) {
        const size_t length = strlen(file->tensors[i].name);
        n += length >= sizeof end - 1 &&
             strcmp(file->tensors[i].name + length - (sizeof end - 1), end) == 0;
    }
    return 2 * n > file->n_tensors;
}

enum rp_status rp_safetensors_values(const struct rp_safetensors *file,
                                     const struct rp_safetensor *tensor, size_t first, size_t n,
                                     float *out, struct rp_error *err)
{
    if (first > tensor->n_values || n > tensor->n_values - first)
        return rp_fail(err, RP_ERR_ARGUMENT, file->path, (long long)tensor->offset,
                       "%zu values from value %zu of tensor '%s', which has %zu", n, first,
                       tensor->name, tensor->n_values);
    switch (tensor->type) {
    case RP_SAFETENSORS_F32:
        rp_values_read(RP_VALUE_F32, tensor->data + 4 * first, n, out);
        return RP_OK;
    case RP_SAFETENSORS_F16:
        rp_values_read(RP_VALUE_F16, tensor->data + 2 * first, n, out);
        return RP_OK;
    case RP_SAFETENSORS_BF16:
        rp_values_read(RP_VALUE_BF16, tensor->data + 2 * first, n, out);
        return RP_OK;
    case RP_SAFETENSORS_OTHER: break;
    }
    return rp_fail(err, RP_ERR_UNSUPPORTED, file->path, (long long)tensor->offset,
                   "tensor '%s' is of dtype %s; F32, F16 and BF16 are read", tensor->name,
                   tensor->type_name);
}

void rp_safetensors_forget(const struct rp_safetensors *file, const struct rp_safetensor *tensor)
{
    if (file->is_mapped)
        rp_file_forget(tensor->data, tensor->n_bytes);
}
