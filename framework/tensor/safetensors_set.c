/* A tensor set in one safetensors file, as safetensors.torch.save_file writes it. Declared in tensor/set.h.
 * Not for the format itself: see safetensors.c. */
#include <stdio.h>
#include <string.h>

#include "tensor/set.h"

#define WHERE_SIZE 1024

static enum rp_value_type type_of(const char *name)
{
    static const struct {
        const char *name;
        enum rp_value_type type;
    } types[] = {{"F32", RP_VALUE_F32},   {"F64", RP_VALUE_F64}, {"F16", RP_VALUE_F16},
                 {"BF16", RP_VALUE_BF16}, {"I8", RP_VALUE_I8},   {"I16", RP_VALUE_I16},
                 {"I32", RP_VALUE_I32},   {"I64", RP_VALUE_I64}, {"U8", RP_VALUE_U8},
                 {"U16", RP_VALUE_U16},   {"U32", RP_VALUE_U32}, {"U64", RP_VALUE_U64}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, name) == 0)
            return types[i].type;
    return RP_VALUE_OTHER;
}

static struct rp_array array_of(const struct rp_safetensor *tensor)
{
    struct rp_array array = {.type = type_of(tensor->type_name),
                             .note = "",
                             .n_dims = (int)tensor->n_dims,
                             .n_elements = tensor->n_values};
    memcpy(array.type_name, tensor->type_name, sizeof tensor->type_name);
    for (unsigned i = 0; i < tensor->n_dims; i++)
        array.dims[i] = tensor->dims[i];
    return array;
}

static const char *tensor_where(const struct rp_tensor_set *set, const struct rp_safetensor *tensor,
                                char *out)
{
    snprintf(out, WHERE_SIZE, "%s:%s", set->path, tensor->name);
    return out;
}

static enum rp_status load_int64(const struct rp_tensor_set *set, enum rp_set_array kind,
                                 size_t max_n, int64_t **values, size_t *n, struct rp_error *err)
{
    const struct rp_safetensor *found = NULL;
    char where[WHERE_SIZE];
    for (size_t i = 0; i < rp_safetensors_n_tensors(set->safetensors); i++) {
        const struct rp_safetensor *tensor = rp_safetensors_tensor(set->safetensors, i);
        if (rp_set_array_kind(set, tensor->name, strlen(tensor->name)) == kind &&
            rp_set_array_is_better(tensor->name, found ? found->name : NULL))
            found = tensor;
    }
    if (!found)
        return RP_OK;
    const struct rp_array array = array_of(found);
    return rp_array_int64(&array, found->data, max_n, tensor_where(set, found, where), values, n,
                          err);
}

static enum rp_status load_manifest(struct rp_tensor_set *set, struct rp_error *err)
{
    char where[WHERE_SIZE];
    const struct rp_safetensor *tensor = rp_safetensors_find(set->safetensors, "manifest");
    if (!tensor)
        return RP_OK;
    tensor_where(set, tensor, where);
    if (type_of(tensor->type_name) != RP_VALUE_U8 || tensor->n_bytes > RP_SET_MAX_MANIFEST)
        return rp_fail(err, RP_ERR_UNSUPPORTED, where, -1,
                       "expected at most %zu bytes of type U8, found %zu of type %s",
                       RP_SET_MAX_MANIFEST, tensor->n_bytes, tensor->type_name);
    return rp_set_manifest(set, (const char *)tensor->data, tensor->n_bytes, where,
                           "refparity-fixture", NULL, err);
}

static enum rp_status list_slots(struct rp_tensor_set *set, struct rp_error *err)
{
    enum rp_status status = RP_OK;
    char where[WHERE_SIZE];
    for (size_t i = 0; i < rp_safetensors_n_tensors(set->safetensors) && status == RP_OK; i++) {
        const struct rp_safetensor *tensor = rp_safetensors_tensor(set->safetensors, i);
        const size_t n = strlen(tensor->name);
        struct rp_slot *slot;
        if (rp_set_array_kind(set, tensor->name, n) != RP_SET_SLOT)
            continue;
        status = rp_set_add_slot(set, tensor->name, n, &slot, err);
        if (status != RP_OK)
            break;
        const struct rp_array array = array_of(tensor);
        slot->tensor = tensor;
        (void)rp_set_slot_rows(slot, &array, tensor_where(set, tensor, where), &slot->info.error);
    }
    return status;
}

enum rp_status rp_safetensors_set_open(struct rp_tensor_set *set, struct rp_error *err)
{
    enum rp_status status = rp_safetensors_open(set->path, &set->safetensors, err);
    if (status == RP_OK && rp_safetensors_are_weights(set->safetensors))
        status =
            rp_fail(err, RP_ERR_UNSUPPORTED, set->path, -1,
                    "expected hidden states, found weights: %s; refparity weights compares those",
                    rp_safetensors_tensor(set->safetensors, 0)->name);
    if (status == RP_OK)
        status = load_manifest(set, err);
    if (status == RP_OK)
        status = load_int64(set, RP_SET_POSITIONS, RP_SET_MAX_POSITIONS, &set->positions,
                            &set->n_positions, err);
    if (status == RP_OK)
        status = rp_set_check_positions(set, err);
    if (status == RP_OK)
        status = list_slots(set, err);
    set->is_foreign = !set->has_positions;
    return status;
}

enum rp_status rp_safetensors_set_tokens(struct rp_tensor_set *set, struct rp_error *err)
{
    return load_int64(set, RP_SET_TOKENS, RP_SET_MAX_TOKENS, &set->tokens, &set->n_tokens, err);
}
