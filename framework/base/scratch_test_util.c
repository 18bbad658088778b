/* See base/scratch_test_util.h. */
#include "base/scratch_test_util.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"

static void require(int is_met)
{
    if (!is_met)
        abort();
}

void rp_test_make_folder(char path[256])
{
    const char *root = getenv("TMPDIR");
    int n = snprintf(path, 256, "%s/refparity-test-XXXXXX", root && root[0] ? root : "/tmp");
    require(n > 0 && n < 256 && mkdtemp(path) != NULL);
}

void rp_test_write_file(const char *folder, const char *name, const void *bytes, size_t n)
{
    char path[512];
    int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    require(length > 0 && (size_t)length < sizeof path);
    FILE *file = fopen(path, "wb");
    require(file != NULL);
    require(n == 0 || fwrite(bytes, n, 1, file) == 1);
    require(fclose(file) == 0);
}

void rp_test_copy_file(const char *from, const char *path)
{
    char *bytes;
    size_t n;
    require(rp_file_read(from, 64 << 20, &bytes, &n, NULL) == RP_OK);
    require(rp_file_write_atomic(path, bytes, n, NULL) == RP_OK);
    free(bytes);
}
