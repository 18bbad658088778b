/* Which model file is it? See refparity/gguf.h. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/sha256.h"
#include "refparity/gguf.h"

/* A quantization changes nearly every byte, and the header's types and offsets. */
enum { N_PLACES = 64, PLACE = 4096 };

static enum rp_status add_file(const char *path, struct rp_sha256 *hash)
{
    const void *bytes;
    size_t size;
    char text[32];
    const enum rp_status status = rp_file_map(path, &bytes, &size, NULL);
    if (status != RP_OK)
        return status;
    rp_file_read_few(bytes, size);
    rp_sha256_update(hash, text, (size_t)snprintf(text, sizeof text, "%zu ", size));
    if (size <= (size_t)N_PLACES * PLACE) {
        rp_sha256_update(hash, bytes, size);
    } else {
        const size_t last = size - PLACE;
        for (size_t i = 0; i < N_PLACES; i++) {
            const size_t at = i + 1 < N_PLACES ? last / (N_PLACES - 1) * i : last;
            rp_sha256_update(hash, (const char *)bytes + at, PLACE);
        }
    }
    rp_file_unmap(bytes, size);
    return RP_OK;
}

void rp_model_file_id(const char *path, char out[RP_MODEL_FILE_ID_SIZE])
{
    char file[4096], hex[65];
    uint8_t digest[32];
    struct rp_sha256 hash;
    const size_t n_shards = rp_gguf_shards_of_name(path);
    enum rp_status status = RP_OK;
    out[0] = '\0';
    rp_sha256_init(&hash);
    for (size_t i = 0; i < n_shards && status == RP_OK; i++) {
        status = rp_gguf_shard_name(path, i, file, sizeof file, NULL);
        if (status == RP_OK)
            status = add_file(file, &hash);
    }
    if (status != RP_OK || n_shards == 0)
        return;
    rp_sha256_final(&hash, digest);
    rp_sha256_format(digest, hex);
    const char *slash = strrchr(path, '/');
    snprintf(out, RP_MODEL_FILE_ID_SIZE, "%.160s %.16s", slash ? slash + 1 : path, hex);
}

/* NULL: text has none, as that of an engine which tells a name alone. */
static const char *hash_of(const char *id)
{
    const char *space = strrchr(id, ' ');
    return space && strlen(space + 1) == 16 && strspn(space + 1, "0123456789abcdef") == 16 ? space
                                                                                           : NULL;
}

bool rp_model_file_is(const char *id, const char *other)
{
    const char *a = hash_of(id), *b = hash_of(other);
    return a && b && strcmp(a, b) == 0;
}

bool rp_model_file_is_another(const char *id, const char *other)
{
    const char *a = hash_of(id), *b = hash_of(other);
    return a && b && strcmp(a, b) != 0;
}
