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
#include "refparity/gguf.h"

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

enum rp_status rp_remembered_sha256(const char *path, const char *cache_dir, char hex[65],
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

enum rp_status rp_remembered_gguf_sha256(const char *path, const char *cache_dir, char hex[65],
                                         struct rp_error *err)
{
    const size_t n = rp_gguf_shards_of_name(path);
    struct rp_sha256 hash;
    uint8_t digest[32];
    enum rp_status status = RP_OK;
    if (n == 1)
        return rp_remembered_sha256(path, cache_dir, hex, err);
    rp_sha256_init(&hash);
    for (size_t i = 0; i < n && status == RP_OK; i++) {
        char shard[PATH_SIZE];
        status = rp_gguf_shard_name(path, i, shard, sizeof shard, err);
        if (status == RP_OK)
            status = rp_remembered_sha256(shard, cache_dir, hex, err);
        if (status == RP_OK)
            rp_sha256_update(&hash, hex, 64);
        else if (status == RP_ERR_MISSING) /* whoever opens the model says so */
            status = RP_OK;
    }
    rp_sha256_final(&hash, digest);
    rp_sha256_format(digest, hex);
    return status;
}

static enum rp_status add_file(struct rp_sha256 *hash, const char *path, const char *cache_dir,
                               struct rp_error *err)
{
    char hex[65];
    const enum rp_status status = rp_remembered_gguf_sha256(path, cache_dir, hex, err);
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

/* Does the file at path begin with these bytes? False where it cannot be read. */
static int begins_with(const char *path, const char *bytes, size_t n)
{
    char start[4];
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return 0;
    const int same = pread(fd, start, n, 0) == (ssize_t)n && memcmp(start, bytes, n) == 0;
    close(fd);
    return same;
}

/* A script starts other programs, which nobody can list. */
static int is_elf(const char *path)
{
    return begins_with(path, ELFMAG, SELFMAG);
}

static int is_script(const char *path)
{
    return begins_with(path, "#!", 2);
}

static enum rp_status add_fresh_file(struct rp_sha256 *hash, const char *path, struct rp_error *err)
{
    char hex[65];
    const enum rp_status status = rp_sha256_file(path, hex, err);
    if (!status)
        add_text(hash, path, hex);
    return status;
}

/* `loader --list program` prints one library a line and runs nothing of the program. Where it does
 * not answer, *known becomes false. */
static enum rp_status add_libraries(struct rp_sha256 *hash, const struct rp_inputs *inputs,
                                    int *known, struct rp_error *err)
{
    char loader[PATH_SIZE], list_path[PATH_SIZE], *list = NULL;
    size_t length;
    *known &= is_elf(inputs->program);
    if (!*known || !find_loader(inputs->program, loader))
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
    if (!status && result.exit_code != 0)
        *known = 0;
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

/* Adds text, and the file that it names, as a whole or behind its first '='. A folder may hold
 * anything: *known becomes false, and with it the key. */
static enum rp_status add_words(struct rp_sha256 *hash, const char *label, const char *text,
                                const struct rp_inputs *inputs, int *known, struct rp_error *err)
{
    const char *value = strchr(text, '=');
    const char *paths[] = {text, value ? value + 1 : ""};
    enum rp_status status = RP_OK;
    add_text(hash, label, text);
    for (size_t i = 0; !status && i < sizeof paths / sizeof paths[0]; i++) {
        struct stat info;
        if (stat(paths[i], &info) != 0 || strcmp(paths[i], inputs->dump) == 0 ||
            strcmp(paths[i], inputs->tokens_file) == 0 ||
            strcmp(paths[i], inputs->prompt_file) == 0)
            continue;
        if (S_ISREG(info.st_mode) && !is_script(paths[i]))
            status = add_file(hash, paths[i], inputs->cache_dir, err);
        else
            *known = 0;
    }
    return status;
}

enum rp_status rp_inputs_key(const struct rp_inputs *inputs, char key[65], struct rp_error *err)
{
    struct rp_sha256 hash;
    int known = 1;
    rp_sha256_init(&hash);
    key[0] = '\0';
    enum rp_status status = add_file(&hash, inputs->program, inputs->cache_dir, err);
    if (!status)
        status = add_libraries(&hash, inputs, &known, err);
    if (!status && inputs->gguf)
        status = add_file(&hash, inputs->gguf, inputs->cache_dir, err);
    for (size_t i = 1; !status && inputs->argv[0] && inputs->argv[i]; i++)
        status = add_words(&hash, "argv", inputs->argv[i], inputs, &known, err);
    for (size_t i = 0; !status && inputs->env[i]; i++)
        status = add_words(&hash, "env", inputs->env[i], inputs, &known, err);
    if (!status) /* written anew for each run: not worth remembering */
        status = add_fresh_file(&hash, inputs->tokens_file, err);
    if (!status)
        status = add_fresh_file(&hash, inputs->prompt_file, err);
    if (status || !known)
        return status;
    uint8_t digest[32];
    rp_sha256_final(&hash, digest);
    rp_sha256_format(digest, key);
    return RP_OK;
}
