/* The "prompts" of an entry, and the files they come from. See refparity/matrix.h. */
#define _XOPEN_SOURCE 700 /* realpath */
#include "matrix/parse.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/utf8.h"
#include "matrix/keys.h"

#define DEFAULT_ID_SIZE 24 /* "p" and a size_t */
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- files ---- */

/* path and folder are absolute, without symbolic links. */
static int is_inside(const char *path, const char *folder)
{
    size_t length = strlen(folder);
    while (length > 0 && folder[length - 1] == '/')
        length--;
    return strncmp(path, folder, length) == 0 && path[length] == '/';
}

/* Adds file's content to the matrix. resolved is its absolute path without symbolic links. */
static enum rp_status read_prompt_file(struct rp_matrix *matrix, const cJSON *value,
                                       const char *resolved, struct rp_error *err)
{
    const struct rp_json *json = matrix->json;
    char shown[RP_SHOWN_SIZE];
    struct rp_error why;
    enum rp_status status = RP_OK;
    struct rp_prompt_file *file = rp_matrix_alloc(1, sizeof *file, err);
    if (!file)
        return RP_ERR_MEMORY;
    rp_shown(value->valuestring, shown);
    status = rp_file_read(resolved, RP_MATRIX_MAX_PROMPT_BYTES, &file->text, &file->length, &why);
    if (status != RP_OK) {
        rp_json_fail(json, value, err, status, "prompt file %s: %s", shown, why.message);
        goto done;
    }
    size_t valid = rp_utf8_valid_length(file->text, file->length);
    size_t length = strlen(file->text);
    if (file->length == 0) {
        status = rp_json_fail(json, value, err, RP_ERR_FORMAT,
                              "prompt file %s: expected at least one byte, found none", shown);
    } else if (length < file->length) {
        status = rp_json_fail(json, value, err, RP_ERR_FORMAT,
                              "prompt file %s: expected text without NUL, found one at byte %zu",
                              shown, length);
    } else if (valid < file->length) {
        status = rp_json_fail(json, value, err, RP_ERR_FORMAT,
                              "prompt file %s: expected UTF-8, found byte 0x%02X at byte %zu",
                              shown, (unsigned char)file->text[valid], valid);
    } else if (file->length > RP_MATRIX_MAX_PROMPT_FILES - matrix->file_bytes) {
        status = rp_json_fail(json, value, err, RP_ERR_UNSUPPORTED,
                              "prompt file %s: expected at most %zu bytes in all prompt files",
                              shown, RP_MATRIX_MAX_PROMPT_FILES);
    }
    if (status != RP_OK)
        goto done;
    file->path = malloc(strlen(resolved) + 1);
    if (!file->path) {
        status = rp_fail(err, RP_ERR_MEMORY, matrix->path, -1, "no memory for a path");
        goto done;
    }
    memcpy(file->path, resolved, strlen(resolved) + 1);
    file->next = matrix->files;
    matrix->files = file;
    matrix->file_bytes += file->length;
    file = NULL;
done:
    if (file)
        free(file->text);
    free(file);
    return status;
}

/* Finds or reads the file that value names. *file belongs to the matrix. */
static enum rp_status open_prompt_file(struct rp_matrix *matrix, const cJSON *value,
                                       const struct rp_prompt_file **file, struct rp_error *err)
{
    const struct rp_json *json = matrix->json;
    const char *name = value->valuestring;
    char shown[RP_SHOWN_SIZE];
    char *joined = NULL;
    char *resolved = NULL;
    char *folder = NULL;
    enum rp_status status = RP_OK;
    rp_shown(name, shown);
    if (name[0] == '/')
        return rp_json_fail(json, value, err, RP_ERR_FORMAT,
                            "expected a prompt file relative to the matrix's folder, found %s",
                            shown);
    size_t size = strlen(matrix->folder) + strlen(name) + 2;
    joined = malloc(size);
    if (!joined) {
        status = rp_fail(err, RP_ERR_MEMORY, matrix->path, -1, "no memory for a path");
        goto done;
    }
    snprintf(joined, size, "%s/%s", matrix->folder, name);
    folder = realpath(matrix->folder, NULL);
    resolved = folder ? realpath(joined, NULL) : NULL;
    if (!resolved) {
        enum rp_status code = errno == ENOENT || errno == ENOTDIR ? RP_ERR_MISSING : RP_ERR_IO;
        status = rp_json_fail(json, value, err, code, "prompt file %s: cannot open: %s", shown,
                              strerror(errno));
        goto done;
    }
    if (!is_inside(resolved, folder)) {
        status = rp_json_fail(json, value, err, RP_ERR_FORMAT,
                              "expected a prompt file inside the matrix's folder, found %s, which "
                              "lies outside",
                              shown);
        goto done;
    }
    const struct rp_prompt_file *known = matrix->files;
    while (known && strcmp(known->path, resolved) != 0)
        known = known->next;
    if (!known) {
        status = read_prompt_file(matrix, value, resolved, err);
        known = matrix->files;
    }
    if (status == RP_OK)
        *file = known;
done:
    free(joined);
    free(resolved);
    free(folder);
    return status;
}

/* ---- prompts ---- */

/* "p3" is what a prompt without an id is called, so that only prompt 3 may carry it. */
static int is_name_of_another(const char *id, size_t index)
{
    char own[DEFAULT_ID_SIZE];
    if (id[0] != 'p' || !id[1] || id[1 + strspn(id + 1, "0123456789")])
        return 0;
    snprintf(own, sizeof own, "p%zu", index);
    return strcmp(id, own) != 0;
}

static enum rp_status read_id(struct rp_matrix *matrix, const cJSON *object, size_t index,
                              struct rp_prompt *prompt, struct rp_error *err)
{
    const struct rp_json *json = matrix->json;
    const char *id = NULL;
    enum rp_status status = rp_read_string(json, object, "id", &id, err);
    if (status != RP_OK)
        return status;
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, "id");
    if (!id)
        return rp_json_fail(json, object, err, RP_ERR_MISSING,
                            "expected \"id\" in a prompt: tests are named after it");
    status = rp_check_name(json, value, "the id of a prompt", id, "", err);
    if (status == RP_OK && is_name_of_another(id, index))
        status = rp_json_fail(json, value, err, RP_ERR_FORMAT,
                              "expected an id that is no other prompt's number, found \"%s\" for "
                              "p%zu",
                              id, index);
    if (status == RP_OK)
        prompt->id = id;
    return status;
}

static enum rp_status read_object(struct rp_matrix *matrix, const cJSON *object, size_t index,
                                  struct rp_prompt *prompt, struct rp_error *err)
{
    static const char *const keys[] = {"id", "text", "file", "_note", "_comment"};
    const struct rp_json *json = matrix->json;
    const char *file_name = NULL;
    const char *note = NULL;
    enum rp_status status = rp_check_keys(json, object, "a prompt", keys, COUNT(keys), err);
    if (status == RP_OK)
        status = read_id(matrix, object, index, prompt, err);
    if (status == RP_OK)
        status = rp_read_string(json, object, "text", &prompt->text, err);
    if (status == RP_OK)
        status = rp_read_string(json, object, "file", &file_name, err);
    if (status == RP_OK)
        status = rp_read_string(json, object, "_note", &note, err);
    if (status != RP_OK)
        return status;
    if (!prompt->text == !file_name)
        return rp_json_fail(json, object, err, file_name ? RP_ERR_FORMAT : RP_ERR_MISSING,
                            "expected \"text\" or \"file\" in a prompt, found %s",
                            file_name ? "both" : "neither");
    if (!file_name)
        return RP_OK;
    const struct rp_prompt_file *file = NULL;
    status = open_prompt_file(matrix, cJSON_GetObjectItemCaseSensitive(object, "file"), &file, err);
    if (status == RP_OK && file) {
        prompt->text = file->text;
        prompt->length = file->length;
        prompt->file = file->path;
    }
    return status;
}

/* default_id is [DEFAULT_ID_SIZE] and lives as long as the entry. */
static enum rp_status read_prompt(struct rp_matrix *matrix, const cJSON *value, size_t index,
                                  char *default_id, struct rp_prompt *prompt, struct rp_error *err)
{
    const struct rp_json *json = matrix->json;
    enum rp_status status = RP_OK;
    if (cJSON_IsObject(value)) {
        status = read_object(matrix, value, index, prompt, err);
    } else if (cJSON_IsString(value)) {
        snprintf(default_id, DEFAULT_ID_SIZE, "p%zu", index);
        prompt->id = default_id;
        prompt->text = value->valuestring;
    } else {
        status =
            rp_json_fail(json, value, err, RP_ERR_FORMAT,
                         "expected a prompt, a string or an object, found %s", rp_json_type(value));
    }
    if (status != RP_OK)
        return status;
    if (!prompt->file)
        prompt->length = strlen(prompt->text);
    if (prompt->length == 0 || prompt->length > RP_MATRIX_MAX_PROMPT_BYTES)
        return rp_json_fail(json, value, err, RP_ERR_FORMAT,
                            "expected a prompt of 1 to %zu bytes, found %zu",
                            RP_MATRIX_MAX_PROMPT_BYTES, prompt->length);
    return RP_OK;
}

enum rp_status rp_parse_prompts(struct rp_matrix *matrix, const cJSON *value,
                                struct rp_entry *entry, struct rp_error *err)
{
    size_t n = 0;
    size_t repeated = 0;
    const char **ids = NULL;
    struct rp_prompt *prompts = NULL;
    enum rp_status status =
        rp_check_array(matrix->json, value, "prompts", 1, RP_MATRIX_MAX_PROMPTS, &n, err);
    if (status != RP_OK)
        return status;
    ids = rp_matrix_alloc(n, sizeof *ids, err);
    /* The default ids stand behind the prompts, in the same block. */
    prompts = rp_matrix_alloc(n, sizeof *prompts + DEFAULT_ID_SIZE, err);
    entry->prompts = prompts;
    if (!ids || !prompts) {
        status = RP_ERR_MEMORY;
        goto done;
    }
    char *default_ids = (char *)(prompts + n);
    for (const cJSON *child = value->child; child; child = child->next) {
        size_t index = entry->n_prompts;
        status = read_prompt(matrix, child, index, default_ids + index * DEFAULT_ID_SIZE,
                             &prompts[index], err);
        if (status != RP_OK)
            goto done;
        ids[index] = prompts[index].id;
        entry->n_prompts++;
    }
    status = rp_find_repeated(ids, n, &repeated, err);
    if (status == RP_OK && repeated < n)
        status = rp_json_fail(
            matrix->json,
            cJSON_GetObjectItemCaseSensitive(cJSON_GetArrayItem(value, (int)repeated), "id"), err,
            RP_ERR_FORMAT, "expected each prompt's id once, found \"%s\" again", ids[repeated]);
done:
    free(ids);
    return status;
}
