/* See exact_reference.h. */
#include "run/exact_reference.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/sha256.h"
#include "exact/exact.h"
#include "run/fixture.h"
#include "run/inputs.h"

static void add_text(struct rp_sha256 *hash, const char *text)
{
    rp_sha256_update(hash, text, strlen(text) + 1);
}

static void add_numbers(struct rp_sha256 *hash, const int64_t *numbers, size_t n)
{
    char text[32];
    snprintf(text, sizeof text, "%zu", n);
    add_text(hash, text);
    for (size_t i = 0; i < n; i++) {
        snprintf(text, sizeof text, "%lld", (long long)numbers[i]);
        add_text(hash, text);
    }
}

/* The C model is what the tool is built of: the tool's content stands for it. */
static enum rp_status model_version(const struct rp_context *context, const char *cache_dir,
                                    char version[65], struct rp_error *err)
{
    snprintf(version, 65, "%s", "unknown");
    return context->tool ? rp_remembered_sha256(context->tool, cache_dir, version, err) : RP_OK;
}

static void make_key(const struct rp_exact_spec *spec, const char *gguf_sha256, char key[65])
{
    struct rp_sha256 hash;
    uint8_t digest[32];
    rp_sha256_init(&hash);
    add_text(&hash, RP_EXACT_VERSION);
    add_text(&hash, gguf_sha256);
    add_text(&hash, rp_activations_name(spec->numerics.activations));
    add_text(&hash, rp_kv_cache_name(spec->numerics.kv_cache));
    add_text(&hash, rp_attention_name(spec->numerics.attention));
    add_text(&hash, rp_state_name(spec->numerics.state));
    const int64_t taken[] = {(int64_t)spec->numerics.batch, (int64_t)spec->numerics.threads};
    add_numbers(&hash, taken, 2);
    add_numbers(&hash, spec->tokens, spec->n_tokens);
    add_numbers(&hash, spec->positions, spec->n_positions);
    rp_sha256_final(&hash, digest);
    rp_sha256_format(digest, key);
}

/* Makes below/name, and removes what other versions of the C model have left beside it. */
static enum rp_status make_version_folder(const char *below, const char *name, char *folder,
                                          struct rp_error *err)
{
    enum rp_status status = rp_path_join(folder, RP_PATH_SIZE, below, name, err);
    if (status || rp_path_exists(folder))
        return status;
    status = rp_make_dirs(folder, err);
    DIR *all = status ? NULL : opendir(below);
    const struct dirent *item;
    while (all && (item = readdir(all)) != NULL) {
        char other[RP_PATH_SIZE];
        if (item->d_name[0] != '.' && strcmp(item->d_name, name) != 0 &&
            !rp_path_join(other, sizeof other, below, item->d_name, NULL))
            (void)rp_remove_tree(other, NULL);
    }
    if (all)
        closedir(all);
    return status;
}

/* Is what lies at folder what was computed? state_path has its fingerprint as it was then. */
static bool is_as_computed(const char *folder, const char *state_path)
{
    char state[RP_FINGERPRINT_SIZE], *text = NULL;
    size_t length;
    rp_fingerprint(folder, state);
    const bool same = state[0] && !rp_file_read(state_path, sizeof state, &text, &length, NULL) &&
                      strcmp(text, state) == 0;
    free(text);
    return same;
}

/* Makes folder, unless it is there as it was made: aside, and renamed when complete. */
static enum rp_status make_folder(const struct rp_exact_spec *spec, const char *folder,
                                  struct rp_error *err)
{
    char aside[RP_PATH_SIZE + 16], state_path[RP_PATH_SIZE + 16], state[RP_FINGERPRINT_SIZE];
    snprintf(state_path, sizeof state_path, "%s.state", folder);
    if (is_as_computed(folder, state_path))
        return RP_OK;
    snprintf(aside, sizeof aside, "%s.part", folder);
    enum rp_status status = rp_remove_tree(aside, err);
    if (!status)
        status = rp_remove_tree(folder, err);
    if (!status)
        status = rp_exact_compute(spec, aside, err);
    if (!status && rename(aside, folder))
        status = rp_fail(err, RP_ERR_IO, folder, -1, "cannot be made");
    if (!status) {
        rp_fingerprint(folder, state);
        status = rp_file_write_atomic(state_path, state, strlen(state), err);
    }
    if (status)
        (void)rp_remove_tree(aside, NULL);
    return status;
}

/* Two pairs that need the same one wait for each other; the lock goes with its descriptor. */
static enum rp_status make_once(const struct rp_context *context, const struct rp_exact_spec *spec,
                                const char *version, const char *key, char *folder,
                                struct rp_error *err)
{
    char all[RP_PATH_SIZE], of_version[RP_PATH_SIZE], lock_path[RP_PATH_SIZE + 16];
    enum rp_status status = rp_path_join(all, sizeof all, context->work_dir, "exact", err);
    if (!status)
        status = make_version_folder(all, version, of_version, err);
    if (!status)
        status = rp_path_join(folder, RP_PATH_SIZE, of_version, key, err);
    if (status)
        return status;
    snprintf(lock_path, sizeof lock_path, "%s.lock", folder);
    const int lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (lock >= 0)
        (void)flock(lock, LOCK_EX);
    status = make_folder(spec, folder, err);
    if (lock >= 0)
        close(lock);
    return status;
}

static enum rp_status find_fixture(const struct rp_context *context, const struct rp_pair *pair,
                                   const char *gguf_sha256, char *path, struct rp_error *err)
{
    struct rp_tensor_set *set;
    const enum rp_status status =
        rp_fixture_open_dequantized(context, pair, gguf_sha256, &set, path, err);
    rp_tensor_set_close(set);
    return status;
}

static enum rp_status find(const struct rp_context *context, const struct rp_pair *pair,
                           const char *gguf, char *path, struct rp_error *err)
{
    char version[65], key[65], gguf_sha256[65], cache_dir[RP_PATH_SIZE], fixture_path[RP_PATH_SIZE];
    struct rp_tensor_set *fixture = NULL;
    const struct rp_entry *entry = pair->entry;
    struct rp_exact_spec spec = {.gguf = gguf,
                                 .positions = entry->positions,
                                 .n_positions = entry->n_positions,
                                 .numerics = rp_pair_numerics(pair)};
    enum rp_status status =
        rp_path_join(cache_dir, sizeof cache_dir, context->work_dir, "hashes", err);
    if (!status)
        status = rp_fixture_open(context, pair, &fixture, fixture_path, err);
    if (!status)
        status = rp_tensor_set_tokens(fixture, &spec.tokens, &spec.n_tokens, err);
    if (!status)
        status = rp_remembered_gguf_sha256(gguf, cache_dir, gguf_sha256, err);
    if (!status)
        status = model_version(context, cache_dir, version, err);
    if (!status) {
        make_key(&spec, gguf_sha256, key);
        status = make_once(context, &spec, version, key, path, err);
    }
    if (status == RP_ERR_UNSUPPORTED) {
        struct rp_error recorded;
        char unsupported[512];
        snprintf(unsupported, sizeof unsupported, "%.500s", err->message);
        status = find_fixture(context, pair, gguf_sha256, path, &recorded);
        if (status)
            (void)rp_fail(err, recorded.code, NULL, -1, "the C model: %s; HF on its weights: %s",
                          unsupported, recorded.message);
    }
    rp_tensor_set_close(fixture);
    return status;
}

void rp_exact_reference_find(const struct rp_context *context, const struct rp_pair *pair,
                             const char *gguf, struct rp_run_record *record)
{
    struct rp_error err;
    const double start = rp_clock_seconds();
    record->exact[0] = record->no_exact[0] = record->exact_state[0] = '\0';
    record->exact_s = 0;
    if (pair->entry->gate == RP_GATE_STRICT)
        return;
    if (find(context, pair, gguf, record->exact, &err)) {
        record->exact[0] = '\0';
        rp_error_text(&err, record->no_exact, sizeof record->no_exact);
    } else {
        rp_fingerprint(record->exact, record->exact_state);
    }
    record->exact_s = rp_clock_seconds() - start;
}

enum rp_status rp_exact_reference_open(const struct rp_run_record *record,
                                       struct rp_tensor_set **set, struct rp_error *err)
{
    char state[RP_FINGERPRINT_SIZE];
    rp_fingerprint(record->exact, state);
    if (strcmp(state, record->exact_state) != 0)
        return rp_fail(
            err, RP_ERR_MISMATCH, record->exact, -1,
            "the exact reference has changed since the engine was started: run it again");
    return rp_tensor_set_open(record->exact, RP_LAYOUT_AUTO, 0, set, err);
}
