/* See refparity/matrix.h. The matrix as a whole: parsing its top level, pairs, look-ups.
 * Engines, entries and prompts are parsed in parse_*.c. */
#include "refparity/matrix.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "matrix/keys.h"
#include "matrix/parse.h"

#define MAX_PATH 4096
#define COUNT(array) (sizeof(array) / sizeof *(array))

void *rp_matrix_alloc(size_t n, size_t size, struct rp_error *err)
{
    void *elements = calloc(n ? n : 1, size);
    if (!elements)
        rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu elements of the matrix", n);
    return elements;
}

/* ---- parsing ---- */

/* The folder of path as an absolute path, symbolic links kept: what is below it is looked for
 * there, whatever the working folder becomes. NULL after filling in err. */
static char *absolute_folder(const char *path, struct rp_error *err)
{
    char working[MAX_PATH] = "";
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    if (slash == path)
        length = 1; /* the root folder is its own slash */
    if (path[0] != '/' && !getcwd(working, sizeof working)) {
        rp_fail(err, RP_ERR_IO, path, -1, "cannot tell the working folder: %s", strerror(errno));
        return NULL;
    }
    size_t size = strlen(working) + length + 2;
    char *folder = rp_matrix_alloc(size, 1, err);
    if (folder)
        snprintf(folder, size, "%s%s%.*s", working, working[0] && length ? "/" : "", (int)length,
                 path);
    return folder;
}

static enum rp_status parse_engines(struct rp_matrix *matrix, const cJSON *value,
                                    struct rp_error *err)
{
    if (!cJSON_IsObject(value))
        return rp_json_fail(matrix->json, value, err, RP_ERR_FORMAT,
                            "expected an object for \"engines\", found %s", rp_json_type(value));
    size_t n = (size_t)cJSON_GetArraySize(value);
    if (n > RP_MATRIX_MAX_ENGINES)
        return rp_json_fail(matrix->json, value, err, RP_ERR_FORMAT,
                            "expected at most %d engines, found %zu", RP_MATRIX_MAX_ENGINES, n);
    matrix->engines = rp_matrix_alloc(n, sizeof *matrix->engines, err);
    if (!matrix->engines)
        return RP_ERR_MEMORY;
    for (const cJSON *child = value->child; child; child = child->next) {
        struct rp_engine *engine = &matrix->engines[matrix->n_engines++];
        enum rp_status status =
            rp_check_name(matrix->json, child, "the name of an engine", child->string, "", err);
        if (status == RP_OK)
            status = rp_parse_engine(matrix, child, engine, err);
        if (status != RP_OK)
            return status;
    }
    return RP_OK;
}

static enum rp_status check_entries_differ(const struct rp_matrix *matrix, const cJSON *value,
                                           struct rp_error *err)
{
    size_t repeated = 0;
    const char **names = rp_matrix_alloc(matrix->n_entries, sizeof *names, err);
    if (!names)
        return RP_ERR_MEMORY;
    for (size_t i = 0; i < matrix->n_entries; i++)
        names[i] = matrix->entries[i].name;
    enum rp_status status = rp_find_repeated(names, matrix->n_entries, &repeated, err);
    if (status == RP_OK && repeated < matrix->n_entries) {
        const cJSON *entry = cJSON_GetArrayItem(value, (int)repeated);
        status = rp_json_fail(matrix->json, cJSON_GetObjectItemCaseSensitive(entry, "name"), err,
                              RP_ERR_FORMAT, "expected each entry's name once, found \"%s\" again",
                              names[repeated]);
    }
    free(names);
    return status;
}

static enum rp_status parse_entries(struct rp_matrix *matrix, const cJSON *value,
                                    struct rp_error *err)
{
    size_t n = 0;
    enum rp_status status =
        rp_check_array(matrix->json, value, "tests", 1, RP_MATRIX_MAX_ENTRIES, &n, err);
    if (status != RP_OK)
        return status;
    matrix->entries = rp_matrix_alloc(n, sizeof *matrix->entries, err);
    if (!matrix->entries)
        return RP_ERR_MEMORY;
    for (const cJSON *child = value->child; child; child = child->next) {
        struct rp_entry *entry = &matrix->entries[matrix->n_entries++];
        entry->first_pair = matrix->n_pairs;
        status = rp_parse_entry(matrix, child, entry, err);
        if (status != RP_OK)
            return status;
        matrix->n_pairs +=
            entry->n_prompts * ((entry->n_modes ? entry->n_modes : 1) + entry->n_compare_modes);
    }
    return check_entries_differ(matrix, value, err);
}

/* The engine of entries that name none: "engine" of the matrix, or the only one that there is. */
static enum rp_status find_default_engine(struct rp_matrix *matrix, const cJSON *root,
                                          struct rp_error *err)
{
    const char *name = NULL;
    enum rp_status status = rp_read_string(matrix->json, root, "engine", &name, err);
    if (status != RP_OK)
        return status;
    if (name)
        return rp_find_engine(matrix, cJSON_GetObjectItemCaseSensitive(root, "engine"),
                              &matrix->default_engine, err);
    if (matrix->n_engines == 1)
        matrix->default_engine = &matrix->engines[0];
    return RP_OK;
}

static enum rp_status parse_top(struct rp_matrix *matrix, struct rp_error *err)
{
    static const char *const keys[] = {"$schema", "_comment", "engines", "engine", "tests"};
    const cJSON *root = rp_json_root(matrix->json);
    const char *schema = NULL;
    enum rp_status status = rp_check_keys(matrix->json, root, "a matrix", keys, COUNT(keys), err);
    if (status == RP_OK)
        status = rp_read_string(matrix->json, root, "$schema", &schema, err);
    if (status != RP_OK)
        return status;
    const cJSON *engines = cJSON_GetObjectItemCaseSensitive(root, "engines");
    const cJSON *tests = cJSON_GetObjectItemCaseSensitive(root, "tests");
    if (!engines)
        return rp_json_fail(matrix->json, root, err, RP_ERR_MISSING,
                            "expected \"engines\" in a matrix, " RP_HOW_TO_ADD_AN_ENGINE);
    if (!tests)
        return rp_json_fail(matrix->json, root, err, RP_ERR_MISSING,
                            "expected \"tests\" in a matrix: its entries");
    status = parse_engines(matrix, engines, err);
    if (status == RP_OK)
        status = find_default_engine(matrix, root, err);
    return status == RP_OK ? parse_entries(matrix, tests, err) : status;
}

enum rp_status rp_matrix_parse(const char *text, size_t length, const char *path,
                               struct rp_matrix **matrix, struct rp_error *err)
{
    enum rp_status status = RP_OK;
    struct rp_matrix *parsed = rp_matrix_alloc(1, sizeof *parsed, err);
    if (!parsed)
        return RP_ERR_MEMORY;
    parsed->path = rp_matrix_alloc(strlen(path) + 1, 1, err);
    if (!parsed->path) {
        status = RP_ERR_MEMORY;
        goto done;
    }
    memcpy(parsed->path, path, strlen(path));
    parsed->folder = absolute_folder(path, err);
    if (!parsed->folder) {
        status = RP_ERR_IO;
        goto done;
    }
    status = rp_json_parse(text, length, path, &parsed->json, err);
    if (status == RP_OK)
        status = parse_top(parsed, err);
    if (status != RP_OK)
        goto done;
    *matrix = parsed;
    parsed = NULL;
done:
    rp_matrix_free(parsed);
    return status;
}

enum rp_status rp_matrix_load(const char *path, struct rp_matrix **matrix, struct rp_error *err)
{
    char *text = NULL;
    size_t length = 0;
    enum rp_status status = rp_file_read(path, RP_JSON_MAX_BYTES, &text, &length, err);
    if (status == RP_OK)
        status = rp_matrix_parse(text, length, path, matrix, err);
    free(text);
    return status;
}

void rp_matrix_free(struct rp_matrix *matrix)
{
    if (!matrix)
        return;
    for (size_t i = 0; i < matrix->n_engines; i++) {
        free(matrix->engines[i].argv);
        free((void *)matrix->engines[i].env);
    }
    for (size_t i = 0; i < matrix->n_entries; i++) {
        struct rp_entry *entry = &matrix->entries[i];
        free(entry->modes);
        free(entry->replay_modes);
        free((void *)entry->prompts);
        if (entry->modes_limits.slots != entry->limits.slots)
            free((void *)entry->modes_limits.slots);
        free((void *)entry->limits.slots);
        free((void *)entry->compare_modes);
        free((void *)entry->positions);
        for (size_t k = 0; k < entry->n_known; k++) {
            free(entry->known[k].prompts);
            free(entry->known[k].modes);
        }
        free((void *)entry->known);
    }
    while (matrix->files) {
        struct rp_prompt_file *file = matrix->files;
        matrix->files = file->next;
        free(file->path);
        free(file->text);
        free(file);
    }
    free(matrix->engines);
    free(matrix->entries);
    free(matrix->path);
    free(matrix->folder);
    rp_json_free(matrix->json);
    free(matrix);
}

/* ---- look-ups ---- */

const char *rp_matrix_path(const struct rp_matrix *matrix)
{
    return matrix->path;
}

size_t rp_matrix_n_engines(const struct rp_matrix *matrix)
{
    return matrix->n_engines;
}

const struct rp_engine *rp_matrix_engine(const struct rp_matrix *matrix, size_t index)
{
    return &matrix->engines[index];
}

size_t rp_matrix_n_entries(const struct rp_matrix *matrix)
{
    return matrix->n_entries;
}

const struct rp_entry *rp_matrix_entry(const struct rp_matrix *matrix, size_t index)
{
    return &matrix->entries[index];
}

const struct rp_entry *rp_matrix_find_entry(const struct rp_matrix *matrix, const char *name)
{
    for (size_t i = 0; i < matrix->n_entries; i++) {
        if (strcmp(matrix->entries[i].name, name) == 0)
            return &matrix->entries[i];
    }
    return NULL;
}
