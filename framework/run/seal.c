/* See seal.h. A file: {"seal":"<64 digits>", and the rest of the object. */
#include "run/seal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/sha256.h"

enum { HEX = 64, PATH_SIZE = 4096 };

static const char before_seal[] = "{\"seal\":\"", after_seal[] = "\",";
enum { SEAL_AT = sizeof before_seal - 1, REST_AT = SEAL_AT + HEX + sizeof after_seal - 1 };

static enum rp_status path_of_key(const char *work_dir, char path[PATH_SIZE], struct rp_error *err)
{
    return rp_path_join(path, PATH_SIZE, work_dir, "key", err);
}

void rp_seal_read_key(const char *work_dir, char key[RP_SEAL_KEY_SIZE])
{
    char path[PATH_SIZE], *text = NULL;
    size_t length;
    key[0] = '\0';
    if (path_of_key(work_dir, path, NULL) || rp_file_read_no_link(path, HEX, &text, &length, NULL))
        return;
    if (length == HEX && strspn(text, "0123456789abcdef") == HEX)
        memcpy(key, text, HEX + 1);
    free(text);
}

static bool read_random(uint8_t *bytes, size_t n)
{
    const int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    const bool done = fd >= 0 && read(fd, bytes, n) == (ssize_t)n;
    if (fd >= 0)
        close(fd);
    return done;
}

/* Gives the file aside the name path, unless another process was first: then key is what that one wrote. */
static enum rp_status publish(const char *aside, const char *work_dir, const char *path,
                              char key[RP_SEAL_KEY_SIZE], struct rp_error *err)
{
    if (link(aside, path) == 0)
        return RP_OK;
    if (errno == EEXIST) {
        rp_seal_read_key(work_dir, key);
        return key[0] ? RP_OK : rp_fail(err, RP_ERR_IO, path, -1, "this is no key: remove it");
    }
    if (rename(aside, path) == 0) /* a file system without links */
        return RP_OK;
    return rp_fail(err, RP_ERR_IO, path, -1, "cannot be written: %s", strerror(errno));
}

static enum rp_status write_key(const char *aside, const char *key, struct rp_error *err)
{
    const int fd = open(aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool is_written = fd >= 0 && rp_file_write_all(fd, key, HEX);
    if (fd >= 0 && close(fd))
        is_written = false;
    return is_written
               ? RP_OK
               : rp_fail(err, RP_ERR_IO, aside, -1, "cannot be written: %s", strerror(errno));
}

enum rp_status rp_seal_make_key(const char *work_dir, char key[RP_SEAL_KEY_SIZE],
                                struct rp_error *err)
{
    char path[PATH_SIZE], aside[PATH_SIZE + 32];
    uint8_t bytes[HEX / 2];
    enum rp_status status = path_of_key(work_dir, path, err);
    const bool exists = !status && rp_path_exists(path);
    rp_seal_read_key(work_dir, key);
    if (key[0])
        return RP_OK;
    if (!status && exists) /* it is none */
        status = rp_remove_tree(path, err);
    if (!status && !read_random(bytes, sizeof bytes))
        status = rp_fail(err, RP_ERR_IO, "/dev/urandom", -1, "cannot be read");
    if (status)
        return status;
    rp_sha256_format(bytes, key);
    snprintf(aside, sizeof aside, "%s.%.16s", path, key + HEX - 16);
    status = write_key(aside, key, err);
    if (!status)
        status = publish(aside, work_dir, path, key, err);
    (void)unlink(aside);
    return status;
}

void rp_seal_of(const char *key, const char *what, const char *text, size_t length, char seal[65])
{
    char own[65]; /* a key for this file alone */
    rp_sha256_keyed_hex(key, strlen(key), what, strlen(what), own);
    rp_sha256_keyed_hex(own, HEX, text, length, seal);
}

enum rp_status rp_seal_write(const char *key, const char *what, const char *path, char *text,
                             struct rp_error *err)
{
    const size_t length = text ? strlen(text) : 0;
    char *sealed = malloc(REST_AT + length + 1), seal[HEX + 1];
    enum rp_status status;
    if (!length || !sealed) {
        status = rp_fail(err, RP_ERR_MEMORY, path, -1, "not enough memory to write it");
    } else {
        rp_seal_of(key, what, text + 1, length - 1, seal);
        const int n = snprintf(sealed, REST_AT + length + 1, "%s%s%s%s", before_seal, seal,
                               after_seal, text + 1);
        status = rp_file_write_atomic(path, sealed, (size_t)n, err);
    }
    free(sealed);
    free(text);
    return status;
}

static bool is_sealed(const char *key, const char *what, const char *text, size_t length)
{
    char seal[HEX + 1];
    if (length <= REST_AT || memcmp(text, before_seal, SEAL_AT) != 0 ||
        memcmp(text + SEAL_AT + HEX, after_seal, sizeof after_seal - 1) != 0)
        return false;
    rp_seal_of(key, what, text + REST_AT, length - REST_AT, seal);
    return memcmp(text + SEAL_AT, seal, HEX) == 0;
}

enum rp_status rp_seal_read(const char *key, const char *what, const char *path,
                            struct rp_json **doc, struct rp_error *err)
{
    char *text = NULL;
    size_t length = 0;
    *doc = NULL;
    enum rp_status status = rp_file_read(path, RP_JSON_MAX_BYTES, &text, &length, err);
    if (status)
        return status;
    if (is_sealed(key, what, text, length))
        status = rp_json_parse(text, length, path, doc, err);
    else
        status = rp_fail(err, RP_ERR_MISMATCH, path, -1,
                         "refparity did not write this file, or something has changed it since: "
                         "run the test again, and look at what writes there");
    free(text);
    return status;
}
