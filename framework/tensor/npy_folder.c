/* A tensor set in a folder of NAME.npy, dump.json and tokens.npy: what refparity/dump.h writes.
 * Declared in tensor/set.h. A folder without dump.json is another recorder's: it says nothing of
 * positions, layers or completeness. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tensor/set.h"

#define PATH_SIZE 4096

static enum rp_status read_slot(const struct rp_tensor_set *set, const char *file_name,
                                struct rp_slot *slot, struct rp_error *err)
{
    char path[PATH_SIZE];
    enum rp_status code = rp_path_join(path, sizeof path, set->path, file_name, err);
    if (!code)
        code = rp_file_map_no_link(path, &slot->map, &slot->map_size, err);
    return code ? code
                : rp_slot_from_npy(slot, slot->map, slot->map_size, slot->map_size, path, err);
}

static enum rp_status list_slots(struct rp_tensor_set *set, struct rp_error *err)
{
    enum rp_status code = RP_OK;
    const struct dirent *entry;
    DIR *folder = opendir(set->path);
    if (!folder)
        return rp_fail(err, RP_ERR_IO, set->path, -1, "cannot list: %s", strerror(errno));
    for (size_t n_files = 0; !code && (entry = readdir(folder)) != NULL; n_files++) {
        const char *name = entry->d_name;
        struct rp_slot *slot;
        size_t n = strlen(name);
        if (n_files > RP_SET_MAX_FILES)
            code = rp_fail(err, RP_ERR_UNSUPPORTED, set->path, -1, "expected at most %d files",
                           RP_SET_MAX_FILES);
        if (code || n < 5 || strcmp(name + n - 4, ".npy") != 0 ||
            rp_set_array_kind(set, name, n - 4) == RP_SET_TOKENS ||
            rp_set_array_kind(set, name, n - 4) == RP_SET_POSITIONS)
            continue;
        code = rp_set_add_slot(set, name, n - 4, &slot, err);
        if (!code)
            read_slot(set, name, slot, &slot->info.error);
    }
    closedir(folder);
    return code;
}

/* One [row, position] of a slot: from row on, positions run from position. */
struct jump {
    size_t row;
    int64_t position;
};

static enum rp_status read_jump(const struct rp_json *doc, const cJSON *pair, struct jump *jump,
                                struct rp_error *err)
{
    long long row, position;
    if (!cJSON_IsArray(pair) || cJSON_GetArraySize(pair) != 2 ||
        !rp_json_int(cJSON_GetArrayItem(pair, 0), 0, (long long)RP_SET_MAX_POSITIONS, &row) ||
        !rp_json_int(cJSON_GetArrayItem(pair, 1), 0, RP_SET_MAX_POSITION, &position))
        return rp_json_fail(doc, pair, err, RP_ERR_FORMAT, "expected [row, position]");
    jump->row = (size_t)row;
    jump->position = position;
    return RP_OK;
}

/* Fills positions[n] of a slot. A jump to the row behind the last is what an engine leaves that
 * died before it wrote that row; in a complete dump, rows are missing. */
static enum rp_status place_rows(const struct rp_json *doc, const cJSON *jumps, int complete,
                                 int64_t *positions, size_t n, struct rp_error *err)
{
    const cJSON *pair;
    size_t row = 0;
    int64_t next = 0; /* position of row */
    int is_first = 1;
    cJSON_ArrayForEach(pair, jumps)
    {
        struct jump jump = {0, 0};
        enum rp_status code = read_jump(doc, pair, &jump, err);
        if (code)
            return code;
        if (jump.row > n || (jump.row == n && complete))
            return rp_json_fail(doc, pair, err, RP_ERR_MISMATCH,
                                "expected a row below %zu, which is how many there are, found %zu",
                                n, jump.row);
        if (!is_first && jump.row <= row)
            return rp_json_fail(doc, pair, err, RP_ERR_FORMAT,
                                "expected a row after %zu, found %zu", row, jump.row);
        int64_t lowest = next + (int64_t)(jump.row - row);
        if (jump.position < lowest)
            return rp_json_fail(doc, pair, err, RP_ERR_FORMAT,
                                "expected position %lld or a later one, found %lld",
                                (long long)lowest, (long long)jump.position);
        for (; row < jump.row; row++)
            positions[row] = next++;
        next = jump.position;
        is_first = 0;
    }
    for (; row < n; row++)
        positions[row] = next++;
    return RP_OK;
}

static enum rp_status apply_jumps(struct rp_tensor_set *set, const struct rp_json *doc,
                                  const cJSON *all, struct rp_error *err)
{
    const cJSON *jumps;
    size_t n_listed = 0;
    cJSON_ArrayForEach(jumps, all)
    {
        struct rp_slot *slot = rp_set_find(set, jumps->string);
        if (!slot || slot->info.error.code)
            continue;
        if (!cJSON_IsArray(jumps)) {
            rp_json_fail(doc, jumps, &slot->info.error, RP_ERR_FORMAT,
                         "expected a list of [row, position]");
            continue;
        }
        size_t n = slot->info.n_positions;
        n_listed += n;
        if (n_listed > RP_SET_MAX_LISTED)
            return rp_fail(err, RP_ERR_UNSUPPORTED, set->path, -1,
                           "expected at most %zu rows in all slots with positions of their own",
                           RP_SET_MAX_LISTED);
        slot->own_positions = malloc(n * sizeof *slot->own_positions);
        if (!slot->own_positions)
            return rp_fail(err, RP_ERR_MEMORY, set->path, -1, "cannot allocate %zu positions", n);
        place_rows(doc, jumps, set->complete, slot->own_positions, n, &slot->info.error);
    }
    return RP_OK;
}

static enum rp_status read_dump_json(struct rp_tensor_set *set, const char *path,
                                     struct rp_error *err)
{
    char *text = NULL;
    size_t n;
    struct rp_json *doc = NULL;
    enum rp_status code = rp_file_read_no_link(path, RP_SET_MAX_MANIFEST, &text, &n, err);
    if (!code)
        code = rp_set_manifest(set, text, n, path, "refparity-dump", &doc, err);
    if (code)
        goto done;
    const cJSON *root = rp_json_root(doc);
    const cJSON *complete = cJSON_GetObjectItemCaseSensitive(root, "complete");
    const cJSON *positions = cJSON_GetObjectItemCaseSensitive(root, "positions");
    if (!cJSON_IsBool(complete))
        code = rp_json_fail(doc, complete ? complete : root, err, RP_ERR_FORMAT,
                            "expected \"complete\": true or false");
    else if (positions && !cJSON_IsObject(positions))
        code = rp_json_fail(doc, positions, err, RP_ERR_FORMAT,
                            "positions: expected an object of slots");
    if (code)
        goto done;
    set->complete = cJSON_IsTrue(complete);
    code = apply_jumps(set, doc, positions, err);
    if (!code)
        code = rp_order_read(set, doc, cJSON_GetObjectItemCaseSensitive(root, "order"), err);
done:
    rp_json_free(doc);
    free(text);
    return code;
}

/* The name of the file that holds tokens or positions: found[RP_FILE_NAME_SIZE], "" where there is none. */
static enum rp_status find_array(const struct rp_tensor_set *set, enum rp_set_array kind,
                                 char *found, struct rp_error *err)
{
    const struct dirent *entry;
    DIR *folder = opendir(set->path);
    found[0] = '\0';
    if (!folder)
        return rp_fail(err, RP_ERR_IO, set->path, -1, "cannot list: %s", strerror(errno));
    while ((entry = readdir(folder)) != NULL) {
        const size_t n = strlen(entry->d_name);
        if (n > 4 && n < RP_FILE_NAME_SIZE && strcmp(entry->d_name + n - 4, ".npy") == 0 &&
            rp_set_array_kind(set, entry->d_name, n - 4) == kind &&
            rp_set_array_is_better(entry->d_name, found[0] ? found : NULL))
            memcpy(found, entry->d_name, n + 1);
    }
    closedir(folder);
    return RP_OK;
}

/* *values [*n] stays as it is where there is no such file. */
static enum rp_status load_int64(const struct rp_tensor_set *set, enum rp_set_array kind,
                                 size_t max_n, int64_t **values, size_t *n, struct rp_error *err)
{
    char path[PATH_SIZE], name[RP_FILE_NAME_SIZE];
    const void *map;
    size_t size;
    enum rp_status code = find_array(set, kind, name, err);
    if (code || !name[0])
        return code;
    code = rp_path_join(path, sizeof path, set->path, name, err);
    if (!code)
        code = rp_file_map_no_link(path, &map, &size, err);
    if (code)
        return code == RP_ERR_MISSING ? RP_OK : code;
    code = rp_set_read_int64(map, size, path, max_n, values, n, err);
    rp_file_unmap(map, size);
    return code;
}

enum rp_status rp_npy_folder_tokens(struct rp_tensor_set *set, struct rp_error *err)
{
    return load_int64(set, RP_SET_TOKENS, RP_SET_MAX_TOKENS, &set->tokens, &set->n_tokens, err);
}

/* Where dump.json says the positions, no array does. */
static enum rp_status load_positions(struct rp_tensor_set *set, struct rp_error *err)
{
    const enum rp_status code = load_int64(set, RP_SET_POSITIONS, RP_SET_MAX_POSITIONS,
                                           &set->positions, &set->n_positions, err);
    return code ? code : rp_set_check_positions(set, err);
}

enum rp_status rp_npy_folder_open(struct rp_tensor_set *set, struct rp_error *err)
{
    char path[PATH_SIZE];
    enum rp_status code = rp_path_join(path, sizeof path, set->path, "dump.json", err);
    if (!code)
        code = list_slots(set, err);
    if (code)
        return code;
    rp_set_sort(set);
    code = read_dump_json(set, path, err);
    if (code != RP_ERR_MISSING)
        return code;
    code = load_positions(set, err);
    set->is_foreign = !set->has_positions;
    return code;
}
