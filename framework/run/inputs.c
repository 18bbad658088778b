/* See inputs.h. */
#include "run/inputs.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/process.h"
#include "base/sha256.h"

enum { PATH_SIZE = 4096 };

static void add_text(struct rp_sha256 *hash, const char *label, const char *text)
{
    rp_sha256_update(hash, label, strlen(label) + 1);
    rp_sha256_update(hash, text, strlen(text) + 1);
}

/* A hash is remembered under a name that is made of the file's identity: path, device, inode, size
 * and both times. ctime cannot be set by hand, so a changed file has another name. */
static int remembered_path(const char *path, const struct stat *info, const char *cache_dir,
                           char *out)
{
    char identity[PATH_SIZE + 256], name[65];
    snprintf(identity, sizeof identity, "%s %llu %llu %lld %lld.%09ld %lld.%09ld", path,
             (unsigned long long)info->st_dev, (unsigned long long)info->st_ino,
             (long long)info->st_size, (long long)info->st_mtim.tv_sec, info->st_mtim.tv_nsec,
             (long long)info->st_ctim.tv_sec, info->st_ctim.tv_nsec);
    rp_sha256_hex(identity, strlen(identity), name);
    return snprintf(out, PATH_SIZE, "%s/%s", cache_dir, name) < PATH_SIZE;
}

static enum rp_status hash_file(const char *path, const char *cache_dir, char hex[65],
                                struct rp_error *err)
{
    struct stat info;
    char memory[PATH_SIZE], *text = NULL;
    size_t length;
    const int known = stat(path, &info) == 0 && remembered_path(path, &info, cache_dir, memory);
    if (known && !rp_file_read(memory, 64, &text, &length, NULL) && length == 64) {
        snprintf(hex, 65, "%s", text);
        free(text);
        return RP_OK;
    }
    free(text);
    enum rp_status status = rp_sha256_file(path, hex, err);
    if (!status && known)
        status = rp_make_dirs(cache_dir, err);
    if (!status && known)
        status = rp_file_write_atomic(memory, hex, 64, err);
    return status;
}

static enum rp_status add_file(struct rp_sha256 *hash, const char *path, const char *cache_dir,
                               struct rp_error *err)
{
    char hex[65];
    const enum rp_status status = hash_file(path, cache_dir, hex, err);
    if (status)
        return status;
    add_text(hash, "file", path);
    add_text(hash, "sha256", hex);
    return RP_OK;
}

/* The program's ELF interpreter (its dynamic loader); false when it has none: a static program, a
 * script, or no ELF file. Every offset is checked against what could be read. */
static int find_loader(const char *program, char *loader)
{
    const int fd = open(program, O_RDONLY | O_CLOEXEC);
    Elf64_Ehdr head;
    int found = 0;
    if (fd < 0)
        return 0;
    if (pread(fd, &head, sizeof head, 0) == (ssize_t)sizeof head &&
        memcmp(head.e_ident, ELFMAG, SELFMAG) == 0 && head.e_ident[EI_CLASS] == ELFCLASS64 &&
        head.e_phentsize == sizeof(Elf64_Phdr)) {
        for (unsigned i = 0; i < head.e_phnum && !found; i++) {
            Elf64_Phdr segment;
            const off_t at = (off_t)(head.e_phoff + i * sizeof segment);
            if (pread(fd, &segment, sizeof segment, at) != (ssize_t)sizeof segment)
                break;
            if (segment.p_type != PT_INTERP || segment.p_filesz < 2 || segment.p_filesz > PATH_SIZE)
                continue;
            const size_t n = (size_t)segment.p_filesz;
            found = pread(fd, loader, n, (off_t)segment.p_offset) == (ssize_t)n &&
                    loader[n - 1] == '\0';
        }
    }
    close(fd);
    return found;
}

/* `loader --list program` prints one library a line and runs nothing of the program. */
static enum rp_status add_libraries(struct rp_sha256 *hash, const struct rp_inputs *inputs,
                                    struct rp_error *err)
{
    char loader[PATH_SIZE], list_path[PATH_SIZE], *list = NULL;
    size_t length;
    if (!find_loader(inputs->program, loader))
        return RP_OK;
    enum rp_status status = rp_make_dirs(inputs->cache_dir, err);
    if (status)
        return status;
    if (snprintf(list_path, sizeof list_path, "%s/libraries.%ld", inputs->cache_dir,
                 (long)getpid()) >= PATH_SIZE)
        return rp_fail(err, RP_ERR_ARGUMENT, inputs->cache_dir, -1, "the path is too long");
    char *argv[] = {loader, "--list", (char *)inputs->program, NULL};
    const struct rp_process_spec spec = {
        .argv = argv, .env = inputs->env, .log_path = list_path, .timeout_s = 10};
    struct rp_process_result result;
    status = rp_process_run(&spec, &result, err);
    if (!status)
        status = rp_file_read(list_path, RP_LOG_HEAD + RP_LOG_TAIL + 128, &list, &length, err);
    unlink(list_path);
    for (char *line = list, *next; !status && line && *line; line = next) {
        next = line + strcspn(line, "\n");
        if (*next)
            *next++ = '\0';
        char *start = strstr(line, "=> /");
        if (!start)
            continue;
        start += 3;
        start[strcspn(start, " ")] = '\0';
        status = add_file(hash, start, inputs->cache_dir, err);
    }
    free(list);
    return status;
}

static int is_regular_file(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

enum rp_status rp_inputs_key(const struct rp_inputs *inputs, char key[65], struct rp_error *err)
{
    struct rp_sha256 hash;
    rp_sha256_init(&hash);
    enum rp_status status = add_file(&hash, inputs->program, inputs->cache_dir, err);
    if (!status)
        status = add_libraries(&hash, inputs, err);
    if (!status && inputs->gguf)
        status = add_file(&hash, inputs->gguf, inputs->cache_dir, err);
    if (!status)
        status = add_file(&hash, inputs->tokens_file, inputs->cache_dir, err);
    if (!status)
        status = add_file(&hash, inputs->prompt_file, inputs->cache_dir, err);
    for (size_t i = 0; !status && inputs->argv[i]; i++) {
        add_text(&hash, "argv", inputs->argv[i]);
        if (i > 0 && is_regular_file(inputs->argv[i]))
            status = add_file(&hash, inputs->argv[i], inputs->cache_dir, err);
    }
    for (size_t i = 0; inputs->env[i]; i++)
        add_text(&hash, "env", inputs->env[i]);
    if (status)
        return status;
    uint8_t digest[32];
    rp_sha256_final(&hash, digest);
    rp_sha256_format(digest, key);
    return RP_OK;
}
