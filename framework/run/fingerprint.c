/* See fingerprint.h. */
#include "run/fingerprint.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/sha256.h"
#include "refparity/gguf.h"
#include "run/context.h"

enum { DIGEST = 32 };

static void hash_state(const char *name, const struct stat *info, uint8_t digest[DIGEST])
{
    char text[1024];
    struct rp_sha256 hash;
    const int n =
        snprintf(text, sizeof text, "%.512s %llu %llu %lld %lld.%09ld %lld.%09ld", name,
                 (unsigned long long)info->st_dev, (unsigned long long)info->st_ino,
                 (long long)info->st_size, (long long)info->st_mtim.tv_sec, info->st_mtim.tv_nsec,
                 (long long)info->st_ctim.tv_sec, info->st_ctim.tv_nsec);
    rp_sha256_init(&hash);
    rp_sha256_update(&hash, text, (size_t)n);
    rp_sha256_final(&hash, digest);
}

/* Of a GGUF in several files: all of them, in whatever order. A missing one counts as missing. */
static void add_other_shards(const char *path, uint8_t all[DIGEST])
{
    const size_t n = rp_gguf_shards_of_name(path);
    for (size_t i = 0; i < n && n > 1; i++) {
        char shard[RP_PATH_SIZE];
        struct stat info;
        uint8_t one[DIGEST];
        if (rp_gguf_shard_name(path, i, shard, sizeof shard, NULL) || stat(shard, &info) != 0)
            continue;
        hash_state(shard, &info, one);
        for (size_t k = 0; k < DIGEST; k++)
            all[k] ^= one[k];
    }
}

void rp_fingerprint(const char *path, char out[RP_FINGERPRINT_SIZE])
{
    struct stat info;
    uint8_t all[DIGEST] = {0}, one[DIGEST];
    out[0] = '\0';
    if (stat(path, &info) != 0)
        return;
    if (!S_ISDIR(info.st_mode)) {
        hash_state("", &info, all);
        add_other_shards(path, all);
        rp_sha256_format(all, out);
        return;
    }
    DIR *folder = opendir(path);
    if (!folder)
        return;
    const struct dirent *item;
    while ((item = readdir(folder)) != NULL) {
        if (fstatat(dirfd(folder), item->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 ||
            S_ISDIR(info.st_mode))
            continue;
        hash_state(item->d_name, &info, one);
        for (size_t i = 0; i < DIGEST; i++) /* in whatever order they are listed */
            all[i] ^= one[i];
    }
    closedir(folder);
    rp_sha256_format(all, out);
}
