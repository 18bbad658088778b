/* See matrix/store.h. */
#include "matrix/store.h"

#include <stdio.h>
#include <string.h>

#include "base/sha256.h"
#include "base/utf8.h"

#define HASH_DIGITS 8
#define MAX_PART 256 /* bytes of one part of the path, as file systems have it */

static int is_lower_or_digit(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static int is_portable(unsigned char c)
{
    return is_lower_or_digit(c) || (c >= 'A' && c <= 'Z') || c == '.' || c == '_' || c == '-';
}

/* out is [RP_STORE_SLUG_MAX + 1] */
static void slug(const char *prompt, size_t length, char *out)
{
    size_t n = 0;
    int gap = 0;
    for (size_t i = 0; i < length && n < RP_STORE_SLUG_MAX; i++) {
        unsigned char c = (unsigned char)prompt[i];
        if (c >= 'A' && c <= 'Z')
            c = (unsigned char)(c - 'A' + 'a');
        if (!is_lower_or_digit(c)) {
            gap = n > 0;
            continue;
        }
        if (gap)
            out[n++] = '-';
        gap = 0;
        if (n < RP_STORE_SLUG_MAX)
            out[n++] = (char)c;
    }
    if (n > 0 && out[n - 1] == '-')
        n--;
    out[n] = '\0';
    if (n == 0)
        memcpy(out, "prompt", sizeof "prompt");
}

/* out is [MAX_PART]; slash replaces every "/". */
static enum rp_status folder_name(const char *what, const char *name, const char *slash, char *out,
                                  struct rp_error *err)
{
    char shown[RP_SHOWN_SIZE];
    size_t n = 0;
    for (const char *c = name; *c; c++) {
        char one[2] = {is_portable((unsigned char)*c) ? *c : '_', '\0'};
        const char *bytes = *c == '/' ? slash : one;
        size_t length = strlen(bytes);
        if (n + length >= MAX_PART)
            return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "%s is longer than %d bytes", what,
                           MAX_PART - 1);
        memcpy(out + n, bytes, length);
        n += length;
    }
    out[n] = '\0';
    if (n == 0 || strcmp(out, ".") == 0 || strcmp(out, "..") == 0)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "%s cannot be %s", what,
                       rp_shown(name, shown));
    return RP_OK;
}

/* "<hf_model>/<revision>", each [MAX_PART] */
static enum rp_status model_folders(const char *hf_model, const char *revision, char *model_folder,
                                    char *revision_folder, struct rp_error *err)
{
    enum rp_status status = folder_name("hf_model", hf_model, "--", model_folder, err);
    if (status == RP_OK)
        status = folder_name("revision", revision, "_", revision_folder, err);
    return status;
}

enum rp_status rp_store_sketch_path(const char *hf_model, const char *revision, char *out,
                                    size_t size, struct rp_error *err)
{
    char model_folder[MAX_PART], revision_folder[MAX_PART];
    enum rp_status status = model_folders(hf_model, revision, model_folder, revision_folder, err);
    if (status != RP_OK)
        return status;
    const int n = snprintf(out, size, "%s/%s/sketch.safetensors", model_folder, revision_folder);
    if (n < 0 || (size_t)n >= size)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "a sketch's path needs %d bytes, has %zu",
                       n + 1, size);
    return RP_OK;
}

enum rp_status rp_store_path(const char *hf_model, const char *revision, const char *dtype,
                             const char *prompt, size_t length, char *out, size_t size,
                             struct rp_error *err)
{
    char model_folder[MAX_PART];
    char revision_folder[MAX_PART];
    char dtype_folder[MAX_PART];
    char readable[RP_STORE_SLUG_MAX + 1];
    char hash[65];
    enum rp_status status = model_folders(hf_model, revision, model_folder, revision_folder, err);
    if (status == RP_OK)
        status = folder_name("dtype", dtype, "_", dtype_folder, err);
    if (status != RP_OK)
        return status;
    slug(prompt, length, readable);
    rp_sha256_hex(prompt, length, hash);
    int n = snprintf(out, size, "%s/%s/%s/%s-%.*s.npz", model_folder, revision_folder, dtype_folder,
                     readable, HASH_DIGITS, hash);
    if (n < 0 || (size_t)n >= size)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "a fixture's path needs %d bytes, has %zu",
                       n + 1, size);
    return RP_OK;
}
