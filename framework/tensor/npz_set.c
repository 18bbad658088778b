/* A tensor set in an .npz: a fixture, or what another recorder wrote with numpy.savez.
 * Declared in tensor/set.h. Not for the zip and npy formats themselves: see zip.c and npy.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/npy.h"
#include "tensor/set.h"

#define FIRST_PEEK 4096 /* holds any header that numpy writes */
#define WHERE_SIZE 1024

/* "fixture.npz:h0.npy": offsets in errors about a member's content count from its start. */
static const char *member_where(const struct rp_tensor_set *set, const struct rp_zip_member *member,
                                char *out)
{
    snprintf(out, WHERE_SIZE, "%s:%s", set->path, member->name);
    return out;
}

/* The member that holds tokens or positions; NULL where there is none. */
static const struct rp_zip_member *find_array(const struct rp_tensor_set *set,
                                              enum rp_set_array kind)
{
    const struct rp_zip_member *found = NULL;
    for (size_t i = 0; i < set->zip.n_members; i++) {
        const struct rp_zip_member *member = &set->zip.members[i];
        const size_t n = strlen(member->name);
        if (n > 4 && strcmp(member->name + n - 4, ".npy") == 0 &&
            rp_set_array_kind(set, member->name, n - 4) == kind &&
            rp_set_array_is_better(member->name, found ? found->name : NULL))
            found = member;
    }
    return found;
}

static enum rp_status load_int64(const struct rp_tensor_set *set, enum rp_set_array kind,
                                 size_t max_n, int64_t **values, size_t *n, struct rp_error *err)
{
    char where[WHERE_SIZE];
    const uint8_t *bytes;
    void *owned;
    const struct rp_zip_member *member = find_array(set, kind);
    if (!member)
        return RP_OK;
    enum rp_status code = rp_zip_load(&set->zip, member, &bytes, &owned, err);
    if (code)
        return code;
    code = rp_set_read_int64(bytes, (size_t)member->size, member_where(set, member, where), max_n,
                             values, n, err);
    free(owned);
    return code;
}

static enum rp_status load_positions(struct rp_tensor_set *set, struct rp_error *err)
{
    const enum rp_status code = load_int64(set, RP_SET_POSITIONS, RP_SET_MAX_POSITIONS,
                                           &set->positions, &set->n_positions, err);
    return code ? code : rp_set_check_positions(set, err);
}

static enum rp_status load_manifest(struct rp_tensor_set *set, struct rp_error *err)
{
    char where[WHERE_SIZE];
    const uint8_t *bytes;
    void *owned;
    struct rp_npy npy;
    const struct rp_zip_member *member = rp_zip_find(&set->zip, "manifest.npy");
    if (!member)
        return RP_OK;
    if (member->size > RP_SET_MAX_MANIFEST)
        return rp_fail(err, RP_ERR_UNSUPPORTED, member_where(set, member, where), -1,
                       "expected at most %zu bytes, found %llu", RP_SET_MAX_MANIFEST,
                       (unsigned long long)member->size);
    enum rp_status code = rp_zip_load(&set->zip, member, &bytes, &owned, err);
    if (code)
        return code;
    member_where(set, member, where);
    code = rp_npy_parse(bytes, (size_t)member->size, where, &npy, err);
    if (!code)
        code = rp_npy_check(&npy, member->size, where, err);
    if (!code && npy.array.type != RP_VALUE_U8)
        code =
            rp_fail(err, RP_ERR_UNSUPPORTED, where, 0, "expected type '|u1' (uint8), found '%s'%s",
                    npy.array.type_name, npy.array.note);
    if (!code)
        code = rp_set_manifest(set, (const char *)bytes + npy.data_offset,
                               (size_t)npy.array.n_elements, where, "refparity-fixture", NULL, err);
    free(owned);
    return code;
}

static enum rp_status read_slot(const struct rp_tensor_set *set, struct rp_slot *slot,
                                uint8_t *buffer, struct rp_error *err)
{
    char where[WHERE_SIZE];
    size_t n;
    member_where(set, slot->member, where);
    enum rp_status code = rp_zip_peek(&set->zip, slot->member, buffer, FIRST_PEEK, &n, err);
    if (code)
        return code;
    int may_be_longer = n == FIRST_PEEK;
    code = rp_slot_from_npy(slot, buffer, n, slot->member->size, where, may_be_longer ? NULL : err);
    if (!code || !may_be_longer)
        return code;
    code = rp_zip_peek(&set->zip, slot->member, buffer, RP_NPY_PEEK, &n, err);
    return code ? code : rp_slot_from_npy(slot, buffer, n, slot->member->size, where, err);
}

static enum rp_status list_slots(struct rp_tensor_set *set, struct rp_error *err)
{
    enum rp_status code = RP_OK;
    uint8_t *buffer = malloc(RP_NPY_PEEK);
    if (!buffer)
        return rp_fail(err, RP_ERR_MEMORY, set->path, -1, "cannot allocate a header");
    for (size_t i = 0; i < set->zip.n_members && !code; i++) {
        const struct rp_zip_member *member = &set->zip.members[i];
        struct rp_slot *slot;
        size_t n = strlen(member->name);
        if (n < 4 || strcmp(member->name + n - 4, ".npy") != 0)
            continue;
        n -= 4;
        if (rp_set_array_kind(set, member->name, n) != RP_SET_SLOT)
            continue;
        code = rp_set_add_slot(set, member->name, n, &slot, err);
        if (code)
            break;
        slot->member = member;
        read_slot(set, slot, buffer, &slot->info.error);
    }
    free(buffer);
    return code;
}

enum rp_status rp_npz_open(struct rp_tensor_set *set, struct rp_error *err)
{
    enum rp_status code = rp_file_map(set->path, &set->map, &set->map_size, err);
    if (!code)
        code = rp_zip_open(set->map, set->map_size, set->path, &set->zip, err);
    if (!code)
        code = load_manifest(set, err);
    if (!code)
        code = load_positions(set, err);
    if (!code)
        code = list_slots(set, err);
    set->is_foreign = !set->has_positions;
    return code;
}

/* Of a stack, whose slots are read one after the other: its bytes stay. */
static enum rp_status load_of_stack(struct rp_tensor_set *set, const struct rp_slot *slot,
                                    const char *where, struct rp_tensor *tensor,
                                    struct rp_error *err)
{
    if (set->stack != slot->member) {
        free(set->stack_owned);
        set->stack = NULL;
        set->stack_owned = NULL;
        const enum rp_status code =
            rp_zip_load(&set->zip, slot->member, &set->stack_bytes, &set->stack_owned, err);
        if (code)
            return code;
        set->stack = slot->member;
    }
    tensor->owned = malloc(slot->rows.n * slot->rows.dim * sizeof(float));
    if (!tensor->owned)
        return rp_fail(err, RP_ERR_MEMORY, where, -1, "cannot allocate %zu rows of %zu values",
                       slot->rows.n, slot->rows.dim);
    rp_rows_read(&slot->rows, set->stack_bytes + slot->data_offset, tensor->owned);
    tensor->data = tensor->owned;
    return RP_OK;
}

enum rp_status rp_npz_load(struct rp_tensor_set *set, const struct rp_slot *slot,
                           struct rp_tensor *tensor, struct rp_error *err)
{
    char where[WHERE_SIZE];
    const uint8_t *bytes;
    void *owned;
    member_where(set, slot->member, where);
    if (slot->rows.n_stacked > 1)
        return load_of_stack(set, slot, where, tensor, err);
    enum rp_status code = rp_zip_load(&set->zip, slot->member, &bytes, &owned, err);
    if (code)
        return code;
    if (rp_rows_are_plain(&slot->rows)) {
        tensor->data = bytes + slot->data_offset;
        tensor->owned = owned;
        return RP_OK;
    }
    code = rp_rows_load(slot, bytes + slot->data_offset, where, tensor, err);
    free(owned);
    return code;
}

enum rp_status rp_npz_tokens(struct rp_tensor_set *set, struct rp_error *err)
{
    return load_int64(set, RP_SET_TOKENS, RP_SET_MAX_TOKENS, &set->tokens, &set->n_tokens, err);
}
