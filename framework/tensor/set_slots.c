/* What the readers of a tensor set share: its slots, their rows from arrays, the manifest. Declared in
 * tensor/set.h. Not for opening a set: tensor_set.c. */
#include "tensor/set.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tensor/npy.h"
#include "tensor/set_names.h"

enum rp_status rp_set_add_slot(struct rp_tensor_set *set, const char *name, size_t n_name,
                               struct rp_slot **slot, struct rp_error *err)
{
    if (set->n_slots == RP_SET_MAX_SLOTS)
        return rp_fail(err, RP_ERR_UNSUPPORTED, set->path, -1, "expected at most %d slots",
                       RP_SET_MAX_SLOTS);
    if (set->n_slots == set->max_slots) {
        size_t more = set->max_slots ? 2 * set->max_slots : 64;
        struct rp_slot *grown = realloc(set->slots, more * sizeof *grown);
        if (!grown)
            return rp_fail(err, RP_ERR_MEMORY, set->path, -1, "cannot allocate %zu slots", more);
        set->slots = grown;
        set->max_slots = more;
    }
    struct rp_slot *added = &set->slots[set->n_slots++];
    memset(added, 0, sizeof *added);
    const size_t n_kept = n_name < RP_FILE_NAME_SIZE ? n_name : RP_FILE_NAME_SIZE - 1;
    for (size_t i = 0; i < n_kept; i++) /* names are shown */
        added->file_name[i] = (unsigned char)name[i] < 0x20 || name[i] == 0x7f ? '?' : name[i];
    if (rp_slot_is_name(name, n_name))
        memcpy(added->info.name, name, n_name);
    added->info.error.offset = -1;
    *slot = added;
    return RP_OK;
}

enum rp_status rp_set_note(struct rp_tensor_set *set, struct rp_error *err, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    char **grown = realloc(set->notes, (set->n_notes + 1) * sizeof *grown);
    if (grown)
        set->notes = grown;
    if (!grown || !(grown[set->n_notes] = strdup(text)))
        return rp_fail(err, RP_ERR_MEMORY, set->path, -1, "cannot allocate a note");
    set->n_notes++;
    return RP_OK;
}

enum rp_set_array rp_set_array_kind(const struct rp_tensor_set *set, const char *name, size_t n)
{
    static const struct {
        const char *name;
        enum rp_set_array kind;
        bool is_alias;
    } known[] = {{"tokens", RP_SET_TOKENS, false},        {"positions", RP_SET_POSITIONS, false},
                 {"manifest", RP_SET_MANIFEST, false},    {"input_ids", RP_SET_TOKENS, true},
                 {"token_ids", RP_SET_TOKENS, true},      {"inp_tokens", RP_SET_TOKENS, true},
                 {"position_ids", RP_SET_POSITIONS, true}};
    const enum rp_set_array named = rp_names_array(set->options.names, name, n);
    if (named != RP_SET_SLOT)
        return named;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i].name) == n && memcmp(known[i].name, name, n) == 0 &&
            (!known[i].is_alias || (set->options.with_aliases && !set->options.names)))
            return known[i].kind;
    return RP_SET_SLOT;
}

bool rp_set_array_is_better(const char *name, const char *found)
{
    return !found || strncmp(name, "tokens", 6) == 0 || strcmp(name, "positions") == 0 ||
           strcmp(name, "positions.npy") == 0;
}

static int by_slot_order(const void *a, const void *b)
{
    const struct rp_slot *x = a, *y = b;
    return rp_slot_order(x->info.name, y->info.name);
}

void rp_set_sort(struct rp_tensor_set *set)
{
    if (set->n_slots > 0)
        qsort(set->slots, set->n_slots, sizeof *set->slots, by_slot_order);
}

struct rp_slot *rp_set_find(const struct rp_tensor_set *set, const char *name)
{
    size_t low = 0, high = set->n_slots;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = rp_slot_order(name, set->slots[middle].info.name);
        if (order == 0)
            return &set->slots[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

enum rp_status rp_set_slot_rows(struct rp_slot *slot, const struct rp_array *array,
                                const char *where, struct rp_error *err)
{
    enum rp_status code = rp_array_rows(array, false, where, &slot->rows, err);
    if (rp_array_rows(array, true, where, &slot->stack, NULL) != RP_OK)
        slot->stack = (struct rp_rows){.n_stacked = 0};
    else if (code == RP_ERR_UNSUPPORTED)
        slot->rows = slot->stack; /* an error still, unless its name is a stack's */
    if (!code && slot->rows.n > RP_SET_MAX_POSITIONS)
        code =
            rp_fail(err, RP_ERR_UNSUPPORTED, where, 0, "expected at most %zu positions, found %zu",
                    RP_SET_MAX_POSITIONS, slot->rows.n);
    if (code)
        return code;
    slot->info.n_positions = slot->rows.n;
    slot->info.dim = slot->rows.dim;
    return RP_OK;
}

enum rp_status rp_slot_from_npy(struct rp_slot *slot, const uint8_t *bytes, size_t n,
                                uint64_t total, const char *where, struct rp_error *err)
{
    struct rp_npy npy;
    enum rp_status code = rp_npy_parse(bytes, n, where, &npy, err);
    if (!code)
        code = rp_npy_check(&npy, total, where, err);
    if (code)
        return code;
    slot->data_offset = npy.data_offset;
    return rp_set_slot_rows(slot, &npy.array, where, err);
}

enum rp_status rp_set_read_int64(const uint8_t *bytes, size_t size, const char *where, size_t max_n,
                                 int64_t **values, size_t *n, struct rp_error *err)
{
    struct rp_npy npy;
    enum rp_status code = rp_npy_parse(bytes, size, where, &npy, err);
    if (!code)
        code = rp_npy_check(&npy, size, where, err);
    if (!code)
        code = rp_array_int64(&npy.array, bytes + npy.data_offset, max_n, where, values, n, err);
    return code;
}

enum rp_status rp_set_check_positions(struct rp_tensor_set *set, struct rp_error *err)
{
    set->has_positions = set->positions != NULL;
    for (size_t i = 0; set->positions && i < set->n_positions; i++) {
        const int64_t position = set->positions[i], previous = i > 0 ? set->positions[i - 1] : -1;
        if (position <= previous || position > RP_SET_MAX_POSITION)
            return rp_fail(err, RP_ERR_FORMAT, set->path, -1,
                           "positions: expected them to ascend from 0 or more, found %lld after "
                           "%lld at index %zu",
                           (long long)position, (long long)previous, i);
    }
    return RP_OK;
}

enum rp_status rp_rows_load(const struct rp_slot *slot, const uint8_t *data, const char *where,
                            struct rp_tensor *tensor, struct rp_error *err)
{
    if (rp_rows_are_plain(&slot->rows)) {
        tensor->data = data + slot->rows.first * sizeof(float);
        return RP_OK;
    }
    float *values = malloc(slot->rows.n * slot->rows.dim * sizeof *values);
    if (!values)
        return rp_fail(err, RP_ERR_MEMORY, where, -1, "cannot allocate %zu rows of %zu values",
                       slot->rows.n, slot->rows.dim);
    rp_rows_read(&slot->rows, data, values);
    tensor->data = tensor->owned = values;
    return RP_OK;
}

static enum rp_status read_manifest(struct rp_tensor_set *set, const struct rp_json *doc,
                                    const char *format, struct rp_error *err)
{
    const cJSON *root = rp_json_root(doc);
    long long version, n_layers;
    if (!cJSON_IsObject(root))
        return rp_json_fail(doc, root, err, RP_ERR_FORMAT, "expected an object");
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(root, "format");
    if (!cJSON_IsString(value) || strcmp(value->valuestring, format) != 0)
        return rp_json_fail(doc, value ? value : root, err, RP_ERR_FORMAT,
                            "expected \"format\": \"%s\"", format);
    value = cJSON_GetObjectItemCaseSensitive(root, "version");
    if (!value || !rp_json_int(value, 0, 1000000, &version))
        return rp_json_fail(doc, value ? value : root, err, RP_ERR_FORMAT,
                            "expected \"version\": 1");
    if (version != 1)
        return rp_json_fail(doc, value, err, RP_ERR_UNSUPPORTED,
                            "expected \"version\": 1, found %lld", version);
    value = cJSON_GetObjectItemCaseSensitive(root, "n_layers");
    if (value && !rp_json_int(value, 0, 1000000, &n_layers))
        return rp_json_fail(doc, value, err, RP_ERR_FORMAT,
                            "n_layers: expected a number of layers from 0 to 1000000");
    if (value)
        set->n_layers = (int)n_layers;
    value = cJSON_GetObjectItemCaseSensitive(root, "model");
    if (cJSON_IsString(value))
        snprintf(set->model, sizeof set->model, "%s", value->valuestring);
    return RP_OK;
}

enum rp_status rp_set_manifest(struct rp_tensor_set *set, const char *text, size_t n,
                               const char *where, const char *format, struct rp_json **json,
                               struct rp_error *err)
{
    struct rp_json *doc = NULL;
    enum rp_status code = rp_json_parse(text, n, where, &doc, err);
    if (code)
        return code;
    code = read_manifest(set, doc, format, err);
    if (code)
        goto done;
    set->manifest = malloc(n + 1);
    if (!set->manifest) {
        code = rp_fail(err, RP_ERR_MEMORY, where, -1, "cannot allocate %zu bytes", n);
        goto done;
    }
    memcpy(set->manifest, text, n);
    set->n_manifest = n;
    if (json) {
        *json = doc;
        doc = NULL;
    }
done:
    rp_json_free(doc);
    return code;
}

enum rp_status rp_set_note_types(struct rp_tensor_set *set, struct rp_error *err)
{
    const char *first = NULL;
    size_t n = 0;
    for (size_t i = 0; i < set->n_slots; i++)
        if (!set->slots[i].info.error.code && set->slots[i].rows.type == RP_VALUE_F64 && n++ == 0)
            first = set->slots[i].info.name;
    return n == 0 ? RP_OK
           : n == 1
               ? rp_set_note(set, err, "%s is float64: it is rounded to float32", first)
               : rp_set_note(set, err, "%s and %zu more are float64: they are rounded to float32",
                             first, n - 1);
}
