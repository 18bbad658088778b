/* Finding an entry's GGUF. See refparity/matrix.h. Does not look into it. */
#include "refparity/matrix.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json_scan.h"
#include "matrix/parse.h"

#define MAX_PATH 4096

/* Makes folder/name absolute, in out[size]. */
static enum rp_status join(const char *folder, const char *name, char *out, size_t size,
                           struct rp_error *err)
{
    char working[MAX_PATH] = "";
    if (folder[0] != '/' && !getcwd(working, sizeof working))
        return rp_fail(err, RP_ERR_IO, folder, -1, "cannot tell the working folder");
    int n = snprintf(out, size, "%s%s%s%s%s", working, working[0] ? "/" : "", folder,
                     folder[0] ? "/" : "", name);
    if (n < 0 || (size_t)n >= size)
        return rp_fail(err, RP_ERR_ARGUMENT, name, -1, "its path needs %d bytes, has %zu", n + 1,
                       size);
    return RP_OK;
}

static int is_file(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

/* A folder that nobody may look into is no missing file. */
static enum rp_status check_place(const char *path, struct rp_error *err)
{
    const enum rp_status status = path[0] ? rp_path_look(path, err) : RP_OK;
    return status == RP_ERR_MISSING ? RP_OK : status;
}

enum rp_status rp_entry_gguf(const struct rp_matrix *matrix, const struct rp_entry *entry,
                             const char *models_dir, char *out, size_t size, struct rp_error *err)
{
    const char *name = entry->engine_gguf;
    char where[sizeof err->where];
    char below_models[MAX_PATH] = "";
    char below_matrix[MAX_PATH] = "";
    int has_models = models_dir && models_dir[0];
    rp_json_where(matrix->path, (size_t)entry->line, (size_t)entry->column, where, sizeof where);
    if (!name)
        return rp_fail(err, RP_ERR_ARGUMENT, where, -1, "entry %s has no engine_gguf", entry->name);
    if (name[0] == '/') {
        const enum rp_status status = check_place(name, err);
        if (status)
            return status;
        if (!is_file(name))
            return rp_fail(err, RP_ERR_MISSING, where, -1, "there is no file %s", name);
        if (strlen(name) >= size)
            return rp_fail(err, RP_ERR_ARGUMENT, where, -1, "its path needs %zu bytes, has %zu",
                           strlen(name) + 1, size);
        memcpy(out, name, strlen(name) + 1);
        return RP_OK;
    }
    enum rp_status status = RP_OK;
    if (has_models)
        status = join(models_dir, name, below_models, sizeof below_models, err);
    if (status == RP_OK)
        status = join(matrix->folder, name, below_matrix, sizeof below_matrix, err);
    if (status == RP_OK)
        status = check_place(below_models, err);
    if (status == RP_OK)
        status = check_place(below_matrix, err);
    if (status != RP_OK)
        return status;
    const char *found = has_models && is_file(below_models) ? below_models : below_matrix;
    if (!is_file(found))
        return rp_fail(err, RP_ERR_MISSING, where, -1, "there is no %s: %s%s; looked for %s%s%s",
                       name, entry->how_to_get ? "to get it, " : "",
                       entry->how_to_get ? entry->how_to_get
                                         : "set REFPARITY_MODELS to the folder that holds it",
                       below_models, has_models ? " and " : "", below_matrix);
    if (strlen(found) >= size)
        return rp_fail(err, RP_ERR_ARGUMENT, where, -1, "its path needs %zu bytes, has %zu",
                       strlen(found) + 1, size);
    memcpy(out, found, strlen(found) + 1);
    return RP_OK;
}
