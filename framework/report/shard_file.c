/* See shard_file.h. What is checked here is what merge.c relies on, and names, which become those of files;
 * the reports leave out what is not of the type that they expect. */
#include "report/shard_file.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "refparity/compare.h"
#include "report/results.h"

enum { MAX_DEPTH = 8, MAX_FILES = RP_MAX_SHARDS };

static const cJSON *item_of(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

/* ---- finding them ---- */

struct search {
    const char *name; /* of the file */
    struct stat out;  /* the folder whose files are left out */
    bool has_out;
    struct rp_shard_files *files;
};

static bool is_same_folder(const struct search *search, const struct stat *folder)
{
    return search->has_out && folder->st_dev == search->out.st_dev &&
           folder->st_ino == search->out.st_ino;
}

static enum rp_status add_path(struct rp_shard_files *files, const char *folder, const char *path,
                               struct rp_error *err)
{
    if (files->n == MAX_FILES)
        return rp_fail(err, RP_ERR_UNSUPPORTED, path, -1, "expected at most %d shards", MAX_FILES);
    struct rp_shard_file *list = realloc(files->list, (files->n + 1) * sizeof *list);
    if (!list)
        return rp_fail(err, RP_ERR_MEMORY, path, -1, "not enough memory");
    files->list = list;
    struct rp_shard_file *file = &list[files->n];
    memset(file, 0, sizeof *file);
    if ((size_t)snprintf(file->path, RP_PATH_SIZE, "%s", path) >= RP_PATH_SIZE ||
        (size_t)snprintf(file->folder, RP_PATH_SIZE, "%s", folder) >= RP_PATH_SIZE)
        return rp_fail(err, RP_ERR_ARGUMENT, path, -1, "the path is too long");
    files->n++;
    return RP_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names in folder, in an order that does not depend on the file system; *names [*n] is the caller's. */
static enum rp_status list_folder(const char *folder, char ***names, size_t *n,
                                  struct rp_error *err)
{
    DIR *stream = opendir(folder);
    const struct dirent *item;
    enum rp_status status = RP_OK;
    *names = NULL;
    *n = 0;
    if (!stream)
        return rp_fail(err, errno == ENOENT ? RP_ERR_MISSING : RP_ERR_IO, folder, -1,
                       "cannot be read: %s", strerror(errno));
    while (!status && (item = readdir(stream)) != NULL) {
        if (item->d_name[0] == '.')
            continue;
        char **longer = realloc(*names, (*n + 1) * sizeof **names);
        if (longer)
            *names = longer;
        char *copy = longer ? strdup(item->d_name) : NULL;
        if (copy)
            (*names)[(*n)++] = copy;
        else
            status = rp_fail(err, RP_ERR_MEMORY, folder, -1, "not enough memory");
    }
    closedir(stream);
    if (*n > 1)
        qsort(*names, *n, sizeof **names, by_name);
    return status;
}

/* Adds each file of the name below folder. Links are not followed. */
// NOLINTNEXTLINE(misc-no-recursion): MAX_DEPTH deep
static enum rp_status search_folder(const struct search *search, const char *folder, int depth,
                                    struct rp_error *err)
{
    char **names, path[RP_PATH_SIZE];
    size_t n;
    struct stat about;
    const bool is_out = stat(folder, &about) == 0 && is_same_folder(search, &about);
    enum rp_status status = list_folder(folder, &names, &n, err);
    for (size_t i = 0; !status && i < n; i++) {
        status = rp_path_join(path, sizeof path, folder, names[i], err);
        if (status || lstat(path, &about) != 0)
            continue;
        if (S_ISDIR(about.st_mode) && depth < MAX_DEPTH)
            status = search_folder(search, path, depth + 1, err);
        else if (S_ISREG(about.st_mode) && !is_out && strcmp(names[i], search->name) == 0)
            status = add_path(search->files, folder, path, err);
    }
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    free(names);
    return status;
}

static enum rp_status find_in_folder(struct rp_shard_files *files, const char *source,
                                     const char *out, struct rp_error *err)
{
    static const char *const names[] = {"shard.json", "results.json"};
    char matrices[RP_PATH_SIZE], folder[RP_PATH_SIZE];
    struct search search = {.files = files};
    const size_t before = files->n;
    search.has_out = stat(out, &search.out) == 0;
    enum rp_status status =
        rp_path_join(matrices, sizeof matrices, source, "refparity/matrices", err);
    if (!status)
        status = rp_path_join(folder, sizeof folder, source,
                              rp_path_exists(matrices) ? "reports" : ".", err);
    for (size_t i = 0; !status && files->n == before && i < sizeof names / sizeof names[0]; i++) {
        search.name = names[i];
        status = search_folder(&search, folder, 0, err);
    }
    if (!status && files->n == before)
        status = rp_fail(err, RP_ERR_MISSING, folder, -1,
                         "expected shard.json or results.json in it or below it, found neither: "
                         "give a build tree whose run has come to its end, or a folder with its "
                         "reports");
    return status;
}

/* ---- reading one ---- */

/* Is text [A-Za-z0-9._:-]+, as the names in a matrix, and harmless as a file's? */
static bool is_name(const char *text, size_t length)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-";
    return length > 0 && length < RP_PAIR_NAME_SIZE && text[0] != '.' && text[0] != '-' &&
           strspn(text, allowed) >= length;
}

static bool is_entry_name(const cJSON *name)
{
    return cJSON_IsString(name) && is_name(name->valuestring, strlen(name->valuestring));
}

/* "<entry>/<prompt>" or "<entry>/<mode>/<prompt>". */
static bool is_pair_name(const cJSON *name)
{
    size_t n_parts = 0;
    if (!cJSON_IsString(name) || strlen(name->valuestring) >= RP_PAIR_NAME_SIZE)
        return false;
    for (const char *at = name->valuestring;; at++) {
        const size_t length = strcspn(at, "/");
        if (!is_name(at, length))
            return false;
        n_parts++;
        at += length;
        if (!*at)
            return n_parts == 2 || n_parts == 3;
    }
}

static enum rp_status check_names(const struct rp_json *doc, const cJSON *object, const char *key,
                                  bool (*is_right)(const cJSON *), struct rp_error *err)
{
    const cJSON *list = item_of(object, key), *name;
    if (!cJSON_IsArray(list))
        return rp_json_fail(doc, list ? list : object, err, RP_ERR_FORMAT,
                            "expected an array \"%s\" in \"matrix\"", key);
    cJSON_ArrayForEach(name, list)
    {
        if (!is_right(name))
            return rp_json_fail(doc, name, err, RP_ERR_FORMAT,
                                "expected a name of the matrix's \"%s\"", key);
    }
    return RP_OK;
}

static bool is_verdict(const cJSON *value)
{
    for (int verdict = RP_PASS; cJSON_IsString(value) && verdict <= RP_ERROR; verdict++)
        if (strcmp(value->valuestring, rp_verdict_name((enum rp_verdict)verdict)) == 0)
            return true;
    return false;
}

/* ERROR over FAIL over SKIP over XFAIL over what passes. */
static int rank_of(const char *verdict)
{
    static const char *const by_rank[] = {"ERROR", "FAIL", "SKIP", "XFAIL"};
    for (int i = 0; i < 4; i++)
        if (strcmp(verdict, by_rank[i]) == 0)
            return 4 - i;
    return 0;
}

/* The first object of list whose verdict is worse than the pair's; NULL: none is. needs_key: only where that
 * member of it is true. A part that is SKIP says nothing of the pair. */
static const cJSON *find_worse(const cJSON *pair, const cJSON *list, const char *needs_key)
{
    const int rank = rank_of(rp_json_text(pair, "verdict"));
    const cJSON *item;
    cJSON_ArrayForEach(item, list)
    {
        const char *verdict = rp_json_text(item, "verdict");
        if (strcmp(verdict, "SKIP") != 0 && rank_of(verdict) > rank &&
            (!needs_key || cJSON_IsTrue(item_of(item, needs_key))))
            return item;
    }
    return NULL;
}

/* Is the pair's verdict at least as bad as its parts'? It is not where it was edited. */
static enum rp_status check_verdict(const struct rp_json *doc, const cJSON *pair,
                                    struct rp_error *err)
{
    const cJSON *comparison = item_of(pair, "comparison"), *known;
    const char *verdict = rp_json_text(pair, "verdict"), *found = "FAIL";
    const cJSON *worse = find_worse(pair, item_of(comparison, "slots"), "required");
    if (!worse)
        worse = find_worse(pair, item_of(pair, "replay"), NULL);
    if (!worse)
        worse = find_worse(pair, comparison, NULL); /* its tokens */
    if (!worse)
        worse = find_worse(pair, pair, NULL); /* the test engine, the comparison */
    if (worse)
        found = rp_json_text(worse, "verdict");
    cJSON_ArrayForEach(known, item_of(pair, "known"))
    {
        if (!worse && rank_of(verdict) < rank_of("FAIL") && rp_json_text(known, "message")[0])
            worse = known; /* it is mended, which is a failure */
    }
    return worse ? rp_json_fail(doc, worse, err, RP_ERR_FORMAT,
                                "%.120s is %s, and this part of it is %s: the file was changed "
                                "after its run. Run that shard again",
                                rp_json_text(pair, "pair"), verdict, found)
                 : RP_OK;
}

/* What a verdict that passes needs, and the pair has not; NULL: nothing is wanting. */
static const char *find_want(const cJSON *pair)
{
    struct rp_results counted = {.n_pairs = 0};
    const cJSON *known;
    rp_results_count_pair(&counted, pair);
    if (counted.n_compared == 0 && counted.n_passed + counted.n_known > 0)
        return "nothing of it is compared";
    if (counted.n_known == 0)
        return NULL;
    cJSON_ArrayForEach(known, item_of(pair, "known"))
    {
        const cJSON *n_met = item_of(known, "n_met");
        if (cJSON_IsNumber(n_met) && n_met->valuedouble > 0)
            return NULL;
    }
    return "nothing that is known is in it";
}

static enum rp_status check_pairs(const struct rp_json *doc, struct rp_error *err)
{
    const cJSON *root = rp_json_root(doc), *pairs = item_of(root, "pairs"), *pair;
    if (!cJSON_IsArray(pairs))
        return rp_json_fail(doc, pairs ? pairs : root, err, RP_ERR_FORMAT,
                            "expected an array \"pairs\"");
    cJSON_ArrayForEach(pair, pairs)
    {
        if (!cJSON_IsObject(pair) || !is_pair_name(item_of(pair, "pair")))
            return rp_json_fail(doc, pair, err, RP_ERR_FORMAT, "expected a pair with its name");
        if (!is_verdict(item_of(pair, "verdict")))
            return rp_json_fail(doc, pair, err, RP_ERR_FORMAT, "expected a pair with a verdict");
        const char *want = find_want(pair);
        if (want)
            return rp_json_fail(doc, pair, err, RP_ERR_FORMAT,
                                "%.120s is %s, and %s: the file was changed after its run. Run "
                                "that shard again",
                                rp_json_text(pair, "pair"), rp_json_text(pair, "verdict"), want);
        const enum rp_status status = check_verdict(doc, pair, err);
        if (status)
            return status;
    }
    return RP_OK;
}

static enum rp_status check_entries(const struct rp_json *doc, struct rp_error *err)
{
    const cJSON *root = rp_json_root(doc), *entries = item_of(root, "entries"), *entry;
    if (!cJSON_IsArray(entries))
        return rp_json_fail(doc, entries ? entries : root, err, RP_ERR_FORMAT,
                            "expected an array \"entries\"");
    cJSON_ArrayForEach(entry, entries)
    {
        const cJSON *weights = item_of(entry, "weights");
        if (!cJSON_IsObject(entry) || !is_entry_name(item_of(entry, "entry")))
            return rp_json_fail(doc, entry, err, RP_ERR_FORMAT, "expected an entry with its name");
        if (weights && !is_verdict(item_of(weights, "verdict")))
            return rp_json_fail(doc, weights, err, RP_ERR_FORMAT,
                                "expected weights with a verdict");
    }
    return RP_OK;
}

static enum rp_status check_head(const struct rp_json *doc, struct rp_error *err)
{
    const cJSON *root = rp_json_root(doc), *version = item_of(root, "version");
    if (!cJSON_IsObject(root) || strcmp(rp_json_text(root, "format"), "refparity-results") != 0)
        return rp_json_fail(doc, root, err, RP_ERR_FORMAT,
                            "expected results of refparity, \"format\": \"refparity-results\"");
    if (!cJSON_IsNumber(version) || version->valuedouble != 1)
        return rp_json_fail(doc, version ? version : root, err, RP_ERR_UNSUPPORTED,
                            "expected \"version\": 1");
    const cJSON *matrix = item_of(root, "matrix");
    const char *sha256 = rp_json_text(matrix, "sha256");
    if (strlen(sha256) != 64 || strspn(sha256, "0123456789abcdef") != 64)
        return rp_json_fail(doc, matrix ? matrix : root, err, RP_ERR_FORMAT,
                            "expected \"matrix\" with its \"sha256\": an older refparity wrote "
                            "this; run it again with this one");
    return RP_OK;
}

static enum rp_status read_file(struct rp_shard_file *file, struct rp_error *err)
{
    enum rp_status status = rp_json_parse_file(file->path, &file->doc, err);
    if (!status)
        status = check_head(file->doc, err);
    const cJSON *root = status ? NULL : rp_json_root(file->doc);
    const cJSON *matrix = item_of(root, "matrix"), *shard = item_of(root, "shard");
    if (!status)
        status = check_names(file->doc, matrix, "entries", is_entry_name, err);
    if (!status)
        status = check_names(file->doc, matrix, "disabled", is_entry_name, err);
    if (!status)
        status = check_names(file->doc, matrix, "pairs", is_pair_name, err);
    if (!status)
        status = check_pairs(file->doc, err);
    if (!status)
        status = check_entries(file->doc, err);
    if (!status && shard)
        status = rp_shard_parse(rp_json_text(root, "shard"), file->path, &file->shard, err);
    return status;
}

/* Are both of one matrix, one refparity and one division? */
static enum rp_status check_same(const struct rp_shard_file *first,
                                 const struct rp_shard_file *file, struct rp_error *err)
{
    const cJSON *a = rp_json_root(first->doc), *b = rp_json_root(file->doc);
    const cJSON *matrix_a = item_of(a, "matrix"), *matrix_b = item_of(b, "matrix");
    const char *version_a = rp_json_text(a, "refparity"), *version_b = rp_json_text(b, "refparity");
    const char *sha256_a = rp_json_text(matrix_a, "sha256");
    const char *sha256_b = rp_json_text(matrix_b, "sha256");
    if (strcmp(version_a, version_b) != 0)
        return rp_fail(err, RP_ERR_MISMATCH, file->path, -1,
                       "refparity %.40s made it, and refparity %.40s made %.400s: run all shards "
                       "with one version",
                       version_b, version_a, first->path);
    if (strcmp(sha256_a, sha256_b) != 0)
        return rp_fail(err, RP_ERR_MISMATCH, file->path, -1,
                       "its matrix (sha256 %.12s…) is not that of %.400s (%.12s…): run all shards "
                       "with one matrix",
                       sha256_b, first->path, sha256_a);
    static const char *const lists[] = {"entries", "disabled", "pairs"};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        if (!cJSON_Compare(item_of(matrix_a, lists[i]), item_of(matrix_b, lists[i]), 1))
            return rp_fail(err, RP_ERR_MISMATCH, file->path, -1,
                           "its matrix has the content of that of %.400s, but other \"%s\": one of "
                           "the files is damaged",
                           first->path, lists[i]);
    if (first->shard.count != file->shard.count)
        return rp_fail(err, RP_ERR_MISMATCH, file->path, -1,
                       "it is one of %zu shards, and %.400s is one of %zu: they are of different "
                       "runs (0: of one that was not divided)",
                       file->shard.count, first->path, first->shard.count);
    return RP_OK;
}

enum rp_status rp_shard_files_add(struct rp_shard_files *files, const char *source, const char *out,
                                  struct rp_error *err)
{
    const size_t before = files->n;
    struct stat about;
    enum rp_status status;
    if (stat(source, &about) != 0)
        return rp_fail(err, errno == ENOENT ? RP_ERR_MISSING : RP_ERR_IO, source, -1,
                       "expected a build tree, a folder with reports, or a shard.json: %s",
                       strerror(errno));
    if (S_ISDIR(about.st_mode)) {
        status = find_in_folder(files, source, out, err);
    } else {
        char folder[RP_PATH_SIZE];
        const char *slash = strrchr(source, '/');
        snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - source) : 1,
                 slash ? source : ".");
        status = add_path(files, folder[0] ? folder : "/", source, err);
    }
    for (size_t i = before; !status && i < files->n; i++) {
        status = read_file(&files->list[i], err);
        if (!status)
            status = check_same(&files->list[0], &files->list[i], err);
    }
    return status;
}

void rp_shard_files_free(struct rp_shard_files *files)
{
    for (size_t i = 0; i < files->n; i++)
        rp_json_free(files->list[i].doc);
    free(files->list);
    memset(files, 0, sizeof *files);
}
