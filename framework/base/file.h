/* Files and folders: map, read, replace, make, remove, join paths. POSIX.
 * Not for formats: what the bytes mean is the caller's business. */
#ifndef REFPARITY_BASE_FILE_H
#define REFPARITY_BASE_FILE_H

#include <stdbool.h>
#include <stdio.h>

#include "refparity/status.h"

/* Maps the regular file at path read-only (symbolic links are followed): *bytes is [*size] and never
 * NULL, also when the file is empty. A FIFO, device, socket or folder is refused, and never waited
 * for. A file that another process truncates while it is mapped raises SIGBUS, as with any mmap: the
 * project's programs report it, mapped_fault.h.
 * RP_ERR_MISSING (no such file), RP_ERR_IO, RP_ERR_UNSUPPORTED (not a regular file). */
enum rp_status rp_file_map(const char *path, const void **bytes, size_t *size,
                           struct rp_error *err);
/* The same, but a symbolic link is refused, too (RP_ERR_UNSUPPORTED): for a folder that a stranger
 * writes, whose links could lead to files that change unseen. */
enum rp_status rp_file_map_no_link(const char *path, const void **bytes, size_t *size,
                                   struct rp_error *err);
void rp_file_unmap(const void *bytes, size_t size); /* NULL with 0 is allowed */

/* Of a mapped file a few places will be read: what stands around them is not read ahead. */
void rp_file_read_few(const void *bytes, size_t size);

/* Part of a mapped file, bytes [size], need not stay in this process's memory: its pages go, and are
 * mapped again where they are read again. */
void rp_file_forget(const void *bytes, size_t size);

/* Reads the regular file at path. *bytes is [*length] followed by a NUL that *length does not
 * count; the caller frees it. RP_ERR_MISSING (no such file), RP_ERR_IO, RP_ERR_MEMORY,
 * RP_ERR_UNSUPPORTED (not a regular file, or longer than max). */
enum rp_status rp_file_read(const char *path, size_t max, char **bytes, size_t *length,
                            struct rp_error *err);
/* The same, but a symbolic link is refused, too (RP_ERR_UNSUPPORTED). */
enum rp_status rp_file_read_no_link(const char *path, size_t max, char **bytes, size_t *length,
                                    struct rp_error *err);

/* All of bytes[n] to fd, also where a signal interrupts; false with errno where that fails. */
bool rp_file_write_all(int fd, const void *bytes, size_t n);

/* Replaces path by a file of these bytes: written under a temporary name in the same folder, then
 * renamed, so that a reader sees the old file or the new one, never a part. The temporary file is
 * removed on failure. bytes may be NULL when n is 0. RP_ERR_IO, RP_ERR_ARGUMENT (path too long). */
enum rp_status rp_file_write_atomic(const char *path, const void *bytes, size_t n,
                                    struct rp_error *err);

/* The same of what write(stream, argument) makes. RP_ERR_MEMORY too. */
enum rp_status rp_file_write_stream(const char *path, void (*write)(FILE *, const void *),
                                    const void *argument, struct rp_error *err);

/* Makes the folder and its missing parents (mkdir -p). RP_ERR_IO, RP_ERR_ARGUMENT. */
enum rp_status rp_make_dirs(const char *path, struct rp_error *err);

/* Removes the file or the folder with all that is in it. A symbolic link is removed, never
 * followed. Nothing there is RP_OK. RP_ERR_IO, RP_ERR_UNSUPPORTED (nested deeper than 256 folders),
 * RP_ERR_ARGUMENT (a path that ends in "/", "." or ".." alone, or is empty). */
enum rp_status rp_remove_tree(const char *path, struct rp_error *err);

/* Waits until nobody else holds the lock of the folder, its file "lock", and takes it. Ends with
 * rp_folder_unlock, or with the last process that has inherited it. -1 where there are no locks: then only the
 * user can see to it. */
int rp_folder_lock(const char *folder);
void rp_folder_unlock(int lock); /* -1 is allowed */

/* Writes "a/b" into buf[size] (b alone when a is empty or b is absolute; no doubled slash).
 * RP_ERR_ARGUMENT when it does not fit; buf is then the empty string. */
enum rp_status rp_path_join(char *buf, size_t size, const char *a, const char *b,
                            struct rp_error *err);

/* RP_OK: something is there. RP_ERR_MISSING: nothing is. RP_ERR_IO: that cannot be told, for want of
 * permission on a folder above it, say. Not for what is missing without harm: rp_path_exists. */
enum rp_status rp_path_look(const char *path, struct rp_error *err);

int rp_path_exists(const char *path); /* of any kind; a dangling symbolic link does not exist */

#endif
