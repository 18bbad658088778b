/* See base/file.h. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_SIZE 4096
#define MAX_TREE_DEPTH 256 /* each level holds a descriptor open */

static enum rp_status system_error(struct rp_error *err, const char *path, const char *what)
{
    int number = errno;
    enum rp_status code = number == ENOENT || number == ENOTDIR ? RP_ERR_MISSING : RP_ERR_IO;
    return rp_fail(err, code, path, -1, "%s: %s", what, strerror(number));
}

static const char *kind_of(mode_t mode)
{
    if (S_ISDIR(mode))
        return "a folder";
    if (S_ISFIFO(mode))
        return "a FIFO";
    if (S_ISCHR(mode) || S_ISBLK(mode))
        return "a device";
    if (S_ISLNK(mode))
        return "a symbolic link";
    return "a socket or the like";
}

enum links { FOLLOW_LINKS, REFUSE_LINKS };

static enum rp_status open_regular(const char *path, enum links links, int *fd, size_t *size,
                                   struct rp_error *err)
{
    struct stat info;
    *fd = -1;
    if ((links == REFUSE_LINKS ? lstat(path, &info) : stat(path, &info)) != 0)
        return system_error(err, path, "cannot open");
    if (!S_ISREG(info.st_mode))
        return rp_fail(err, RP_ERR_UNSUPPORTED, path, -1, "expected a regular file, found %s",
                       kind_of(info.st_mode));
    /* O_NONBLOCK: should a FIFO have taken the name since, opening it must not wait. */
    int opened =
        open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | (links == REFUSE_LINKS ? O_NOFOLLOW : 0));
    if (opened < 0)
        return system_error(err, path, "cannot open");
    if (fstat(opened, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(opened);
        return rp_fail(err, RP_ERR_IO, path, -1, "the file was replaced while it was opened");
    }
    if (info.st_size < 0 || (uintmax_t)info.st_size > SIZE_MAX / 2) {
        close(opened);
        return rp_fail(err, RP_ERR_UNSUPPORTED, path, -1, "%lld bytes do not fit into memory",
                       (long long)info.st_size);
    }
    *fd = opened;
    *size = (size_t)info.st_size;
    return RP_OK;
}

static enum rp_status map(const char *path, enum links links, const void **bytes, size_t *size,
                          struct rp_error *err)
{
    int fd;
    *bytes = NULL;
    *size = 0;
    size_t n = 0;
    enum rp_status code = open_regular(path, links, &fd, &n, err);
    if (code)
        return code;
    if (n == 0) {
        *bytes = "";
    } else {
        void *address = mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0);
        if (address == MAP_FAILED) {
            code = system_error(err, path, "cannot map");
        } else {
            *bytes = address;
            *size = n;
        }
    }
    close(fd);
    return code;
}

enum rp_status rp_file_map(const char *path, const void **bytes, size_t *size, struct rp_error *err)
{
    return map(path, FOLLOW_LINKS, bytes, size, err);
}

enum rp_status rp_file_map_no_link(const char *path, const void **bytes, size_t *size,
                                   struct rp_error *err)
{
    return map(path, REFUSE_LINKS, bytes, size, err);
}

void rp_file_unmap(const void *bytes, size_t size)
{
    if (size > 0)
        munmap((void *)(uintptr_t)bytes, size);
}

void rp_file_read_few(const void *bytes, size_t size)
{
    if (size > 0) /* a failure costs time, no more */
        (void)madvise((void *)(uintptr_t)bytes, size, MADV_RANDOM);
}

void rp_file_forget(const void *bytes, size_t size)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = (uintptr_t)bytes - (uintptr_t)bytes % page;
    if (size > 0) /* a failure costs memory, no more */
        (void)madvise((void *)first, (uintptr_t)bytes + size - first, MADV_DONTNEED);
}

static enum rp_status read_whole(const char *path, enum links links, size_t max, char **bytes,
                                 size_t *length, struct rp_error *err)
{
    int fd;
    size_t size = 0, n = 0;
    char *buffer = NULL;
    *bytes = NULL;
    *length = 0;
    enum rp_status code = open_regular(path, links, &fd, &size, err);
    if (code)
        return code;
    if (size > max) {
        code = rp_fail(err, RP_ERR_UNSUPPORTED, path, -1, "expected at most %zu bytes, found %zu",
                       max, size);
        goto done;
    }
    buffer = malloc(size + 1);
    if (!buffer) {
        code = rp_fail(err, RP_ERR_MEMORY, path, -1, "no memory for %zu bytes", size);
        goto done;
    }
    while (n < size) {
        ssize_t got = read(fd, buffer + n, size - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            code = system_error(err, path, "cannot read");
            goto done;
        }
        if (got == 0)
            break; /* truncated since it was opened */
        n += (size_t)got;
    }
    buffer[n] = '\0';
    *bytes = buffer;
    *length = n;
    buffer = NULL;
done:
    free(buffer);
    close(fd);
    return code;
}

enum rp_status rp_file_read(const char *path, size_t max, char **bytes, size_t *length,
                            struct rp_error *err)
{
    return read_whole(path, FOLLOW_LINKS, max, bytes, length, err);
}

enum rp_status rp_file_read_no_link(const char *path, size_t max, char **bytes, size_t *length,
                                    struct rp_error *err)
{
    return read_whole(path, REFUSE_LINKS, max, bytes, length, err);
}

/* Not mkstemp: that would leave every file with mode 0600, whatever the umask says. */
static int create_beside(const char *path, char *temporary, size_t size)
{
    for (unsigned attempt = 0; attempt < 1000; attempt++) {
        int length = snprintf(temporary, size, "%s.tmp-%ld-%u", path, (long)getpid(), attempt);
        if (length < 0 || (size_t)length >= size) {
            errno = ENAMETOOLONG;
            return -1;
        }
        int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0 || errno != EEXIST)
            return fd;
    }
    return -1;
}

bool rp_file_write_all(int fd, const void *bytes, size_t n)
{
    const unsigned char *next = bytes;
    while (n > 0) {
        const ssize_t written = write(fd, next, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        next += written;
        n -= (size_t)written;
    }
    return true;
}

enum rp_status rp_file_write_atomic(const char *path, const void *bytes, size_t n,
                                    struct rp_error *err)
{
    char temporary[PATH_SIZE];
    struct stat info;
    int fd = create_beside(path, temporary, sizeof temporary);
    int number = errno;
    if (fd < 0)
        return rp_fail(err, number == ENAMETOOLONG ? RP_ERR_ARGUMENT : RP_ERR_IO, path, -1,
                       "cannot create a file in its folder: %s", strerror(number));
    enum rp_status code =
        rp_file_write_all(fd, bytes, n) ? RP_OK : system_error(err, path, "cannot write");
    if (!code && stat(path, &info) == 0 && S_ISREG(info.st_mode))
        (void)fchmod(fd, info.st_mode & 0777); /* a replaced file keeps its permissions */
    if (close(fd) != 0 && !code)
        code = system_error(err, path, "cannot write");
    if (!code && rename(temporary, path) != 0) {
        number = errno;
        code = rp_fail(err, RP_ERR_IO, path, -1, "cannot rename the finished file to it: %s",
                       strerror(number));
    }
    if (code)
        unlink(temporary);
    return code;
}

enum rp_status rp_file_write_stream(const char *path, void (*write)(FILE *, const void *),
                                    const void *argument, struct rp_error *err)
{
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    if (!stream)
        return rp_fail(err, RP_ERR_MEMORY, path, -1, "not enough memory to write it");
    write(stream, argument);
    const int failed = ferror(stream);
    if (fclose(stream) || failed) {
        free(text);
        return rp_fail(err, RP_ERR_MEMORY, path, -1, "not enough memory to write it");
    }
    const enum rp_status status = rp_file_write_atomic(path, text, length, err);
    free(text);
    return status;
}

static int make_dir(const char *path)
{
    struct stat info;
    if (mkdir(path, 0777) == 0)
        return 0;
    int number = errno;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode))
        return 0;
    errno = number;
    return -1;
}

enum rp_status rp_make_dirs(const char *path, struct rp_error *err)
{
    char partial[PATH_SIZE];
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof partial)
        return rp_fail(err, RP_ERR_ARGUMENT, path, -1,
                       "expected a path of 1 to %d bytes, found %zu", PATH_SIZE - 1, length);
    memcpy(partial, path, length + 1);
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        partial[i] = '\0';
        if (make_dir(partial) != 0) {
            int number = errno;
            return rp_fail(err, RP_ERR_IO, partial, -1, "cannot make the folder: %s",
                           strerror(number));
        }
        partial[i] = path[i];
    }
    return RP_OK;
}

static enum rp_status remove_at(int parent, const char *name, const char *top, int depth,
                                struct rp_error *err);

/* Takes over the open folder fd. */
static enum rp_status remove_entries(int fd, const char *top, int depth, struct rp_error *err)
{
    enum rp_status code = RP_OK;
    DIR *folder = fdopendir(fd);
    if (!folder) {
        code = system_error(err, top, "cannot list");
        close(fd);
        return code;
    }
    while (!code) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (!entry) {
            if (errno)
                code = system_error(err, top, "cannot list");
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            code = remove_at(dirfd(folder), entry->d_name, top, depth + 1, err);
    }
    closedir(folder);
    return code;
}

static enum rp_status remove_failed(struct rp_error *err, const char *top, const char *name)
{
    int number = errno;
    if (number == ENOENT)
        return RP_OK;
    return rp_fail(err, RP_ERR_IO, top, -1, "cannot remove %s: %s", name, strerror(number));
}

static enum rp_status remove_at(int parent, const char *name, const char *top, int depth,
                                struct rp_error *err)
{
    struct stat info;
    if (depth > MAX_TREE_DEPTH)
        return rp_fail(err, RP_ERR_UNSUPPORTED, top, -1, "folders are nested deeper than %d",
                       MAX_TREE_DEPTH);
    if (fstatat(parent, name, &info, AT_SYMLINK_NOFOLLOW) != 0)
        return remove_failed(err, top, name);
    if (!S_ISDIR(info.st_mode))
        return unlinkat(parent, name, 0) == 0 ? RP_OK : remove_failed(err, top, name);
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return remove_failed(err, top, name);
    enum rp_status code = remove_entries(fd, top, depth, err);
    if (code)
        return code;
    return unlinkat(parent, name, AT_REMOVEDIR) == 0 ? RP_OK : remove_failed(err, top, name);
}

enum rp_status rp_remove_tree(const char *path, struct rp_error *err)
{
    char trimmed[PATH_SIZE];
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    if (length >= sizeof trimmed)
        return rp_fail(err, RP_ERR_ARGUMENT, path, -1, "the path is too long");
    memcpy(trimmed, path, length);
    trimmed[length] = '\0';
    const char *slash = strrchr(trimmed, '/');
    const char *last = slash ? slash + 1 : trimmed;
    if (*last == '\0' || strcmp(last, ".") == 0 || strcmp(last, "..") == 0)
        return rp_fail(err, RP_ERR_ARGUMENT, path, -1, "refusing to remove this folder");
    return remove_at(AT_FDCWD, trimmed, path, 0, err);
}

int rp_folder_lock(const char *folder)
{
    char path[PATH_SIZE];
    if (rp_path_join(path, sizeof path, folder, "lock", NULL))
        return -1;
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd >= 0)
        (void)flock(fd, LOCK_EX);
    return fd;
}

void rp_folder_unlock(int lock)
{
    if (lock >= 0)
        close(lock);
}

enum rp_status rp_path_join(char *buf, size_t size, const char *a, const char *b,
                            struct rp_error *err)
{
    size_t length = strlen(a);
    int is_alone = length == 0 || b[0] == '/';
    const char *slash = length > 0 && a[length - 1] == '/' ? "" : "/";
    int written =
        is_alone ? snprintf(buf, size, "%s", b) : snprintf(buf, size, "%s%s%s", a, slash, b);
    if (written >= 0 && (size_t)written < size)
        return RP_OK;
    if (size > 0)
        buf[0] = '\0';
    return rp_fail(err, RP_ERR_ARGUMENT, a, -1, "the path is too long with %s", b);
}

int rp_path_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

enum rp_status rp_path_look(const char *path, struct rp_error *err)
{
    struct stat info;
    return stat(path, &info) == 0 ? RP_OK : system_error(err, path, "cannot look for it");
}
