/* Scratch folders and files for tests. Not for production: it aborts when something fails. */
#ifndef REFPARITY_BASE_SCRATCH_TEST_UTIL_H
#define REFPARITY_BASE_SCRATCH_TEST_UTIL_H

#include <stddef.h>

/* A new folder below TMPDIR or /tmp; remove it with rp_remove_tree. */
void rp_test_make_folder(char path[256]);
void rp_test_write_file(const char *folder, const char *name, const void *bytes, size_t n);
/* Writes the content of from to path, which may be from: another file then, by its inode and times. */
void rp_test_copy_file(const char *from, const char *path);

#endif
