/* See cli/path_kind.h. */
#include "cli/path_kind.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "cli/cli.h"
#include "tensor/other_formats.h"

static bool is_file_in(const char *folder, const char *name)
{
    char path[4096];
    struct stat info;
    const int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    return n > 0 && (size_t)n < sizeof path && stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

static bool has_slot_files(const char *path)
{
    DIR *folder = opendir(path);
    bool found = false;
    const struct dirent *item;
    while (folder && !found && (item = readdir(folder)) != NULL) {
        const char *end = strrchr(item->d_name, '.');
        found = end && (strcmp(end, ".npy") == 0 || strcmp(end, ".bin") == 0);
    }
    if (folder)
        closedir(folder);
    return found;
}

static enum rp_path_kind kind_of_file(const char *path)
{
    static const struct {
        char magic[4];
        enum rp_path_kind kind;
    } known[] = {{{'G', 'G', 'U', 'F'}, RP_PATH_GGUF},
                 {{'P', 'K', 3, 4}, RP_PATH_NPZ},
                 {{(char)0x93, 'N', 'U', 'M'}, RP_PATH_NPY}};
    enum rp_path_kind kind = RP_PATH_OTHER;
    const void *bytes;
    size_t size;
    if (rp_file_map(path, &bytes, &size, NULL))
        return RP_PATH_OTHER;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (size >= sizeof known[i].magic &&
            memcmp(bytes, known[i].magic, sizeof known[i].magic) == 0)
            kind = known[i].kind;
    if (kind == RP_PATH_OTHER && rp_is_safetensors(bytes, size))
        kind = RP_PATH_SAFETENSORS;
    rp_file_unmap(bytes, size);
    return kind;
}

enum rp_path_kind rp_path_kind(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return RP_PATH_OTHER;
    if (!S_ISDIR(info.st_mode))
        return kind_of_file(path);
    if (is_file_in(path, "dump.json"))
        return RP_PATH_DUMP;
    if (is_file_in(path, "config.json"))
        return RP_PATH_CHECKPOINT;
    return has_slot_files(path) ? RP_PATH_DUMP : RP_PATH_OTHER;
}

const char *rp_path_kind_text(enum rp_path_kind kind)
{
    static const char *const texts[] = {
        [RP_PATH_OTHER] = "something else", [RP_PATH_GGUF] = "a GGUF",
        [RP_PATH_NPZ] = "an npz",           [RP_PATH_SAFETENSORS] = "a safetensors file",
        [RP_PATH_NPY] = "an npy",           [RP_PATH_CHECKPOINT] = "a checkpoint",
        [RP_PATH_DUMP] = "a dump",
    };
    return texts[kind];
}

bool rp_path_is_model(enum rp_path_kind kind)
{
    return kind == RP_PATH_GGUF || kind == RP_PATH_CHECKPOINT;
}

bool rp_path_has_states(enum rp_path_kind kind)
{
    return kind == RP_PATH_NPZ || kind == RP_PATH_SAFETENSORS || kind == RP_PATH_DUMP;
}

int rp_cli_check_kind(const char *command, const char *wanted, const char *path, unsigned wrong)
{
    const enum rp_path_kind kind = rp_path_kind(path);
    if (!(wrong & 1U << kind))
        return -1;
    return rp_cli_usage_error(command, "expected %s, found %s, %s", wanted, path,
                              rp_path_kind_text(kind));
}
